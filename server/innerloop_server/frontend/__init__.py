"""Processes that answer gRPC and leave the computing to the engine process, which they reach through shared memory.

In a front end, `process` runs the transport over `remote_serving`, which gives each request to `engine_client`. That
copies the request's arrays into a block of the `segment` (which blocks are free, `allocator` knows) and sends a message
over the `link` that says where they lie. In the engine process, `request_handler` makes arrays of that memory, asks the
same `Serving` that answers callers when there are no front ends, writes the answers next to the arrays, and says when
nothing reads the block any more. `child` is one front end as the engine process sees it, `supervisor` keeps them all
running on one `port`.
"""
