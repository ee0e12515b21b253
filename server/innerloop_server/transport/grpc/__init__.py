"""The services over gRPC: thin servicers, and what all calls have in common.

`endpoint` is the life of the port that `listen` binds. `registration` connects servicers with methods, `calls` runs
every RPC (identity, errors, metrics, a log line), and `status` maps errors to status codes, in this one place.
"""
