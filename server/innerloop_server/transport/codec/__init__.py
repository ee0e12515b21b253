"""Protobuf messages to domain objects and back, checked field by field; nothing here waits or knows of gRPC.

`requests` reads a whole request by way of `inputs` (`tensors`, `images`, `texts`, `audio`) and collects what is wrong
in `violations`; `detached` takes large tensors out of a message before protobuf copies them; `responses` writes
answers.
"""
