"""Deciding what the device computes next.

The `scheduler` admits a request as a `job` and puts it into the `queue`, where models and operations take turns. When a
lane is free, the `policy` says how many requests of a bucket (`buckets`: which may share a batch) make the next batch.
`batch` turns them into what a model is asked, and `lanes` have it computed: on a thread, or by a worker process.
"""
