"""Where adaptations are kept behind the memory that serves them.

`interface` says what every store does. `memory` keeps nothing beyond the process, `sqlite` keeps a file, `redis` a
server that replicas share. `watched`, `write_behind` and `fallback` stand in front of one of these: they tell how it
does, answer before it has written, and go on without it.
"""
