"""Memory and messages that the server's processes share.

`shared_memory` makes memory that two processes map, a `segment` is one mapping of it and `allocator` knows which of its
blocks are free; a `link` carries messages between event loops; `child_process` ends a process with its parent.
"""
