"""What the task states of all engines share: who is on the device and who is on the host.

A `pool` keeps the accounts (room, order of use, claims, what is freed), and `budget` says how much room there is. What
holds the states stands with each engine: pages of one memory for PyTorch (`pytorch/state_memory`), and tensors of their
own for ONNX Runtime (`onnx/states`).
"""
