"""Runs bundles with PyTorch.

`engine` loads a `model`, which turns batches into `programs` of its `computation` and has a `device` run them: the
`cpu_device`, by threads or by a `worker` process, or the `cuda_device`, by captured graphs.
"""
