"""Deciding what the device computes next.

The `scheduler` admits a request as a `job` by the rules of `admission`, and puts it into the `queue`, where models and
operations take turns; in an `operation_queue`, accounts do (`fair_turns`: the rule). When a lane is free, the `policy`
says how many requests of a bucket (`buckets`: which may share a batch) make the next batch. All of them go by measured
times (`batch_times`) and by the batches that are `running`. `batch` turns requests into what a model is asked, and
`lanes` have it computed: on a thread, or by a worker process.
"""
