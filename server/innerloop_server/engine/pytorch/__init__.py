"""Runs bundles with PyTorch.

`engine` loads a `model`, which turns batches into tensors (`batch_inputs`) and has a `device` run `programs` of its
`computation`: the `cpu_device` on one thread or several, the `cuda_device` by captured graphs. On a CPU with several
lanes, batches go to a `worker` instead (`worker_batches`, `worker_messages`), which runs the same computation in a
process of its own (`worker_process`). Task states lie in pages of one memory (`state_memory`), their tensors one
behind the other (`state_layout`); `state_copies` moves pages between a device and its host.
"""
