"""Processes that answer gRPC and leave the computing to the engine process, which they reach through shared memory."""
