"""`innerloop demo`: the whole path on one machine, from episodes to answers over gRPC.

`command` takes a model of the zoo or trains one, serves it and measures it by way of the SDK, `tasks` draws what it is
measured on, and `picture` draws one of these tasks with the answers. `own_files` does the same with the user's own
photographs, texts or recordings and a bundle that needs no training, and `own_answers` shows the answers. `folder` sees
to it that nothing but an earlier demo is replaced.
"""
