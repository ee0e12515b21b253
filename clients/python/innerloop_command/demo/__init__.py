"""`innerloop demo`: the whole path on one machine, from episodes to answers over gRPC.

`command` trains a model, serves it and measures it by way of the SDK, `tasks` draws what it is measured on, and
`picture` draws one of these tasks with the answers. `folder` sees to it that nothing but an earlier demo is replaced.
"""
