"""Memory and messages that the server's processes share.

Arrays never travel in messages. Both processes map one `segment` of `shared_memory`, one of them writes the arrays
there, and a message says where each of them lies (`arrays`). Where several requests share a segment, an `allocator`
knows which blocks of it are free. Messages travel in two ways: by a `link` between two event loops, which sends all
messages of a turn at once (front ends), and as `packets` to a child that has no event loop (worker processes). A
`child_process` ends with its parent.
"""
