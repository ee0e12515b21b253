"""The part of memory for task states that all engines share: which states are on the device, and which on the host.

A `pool` keeps the accounts (room, order of use, claims, what is freed), and `budget` says how much room there is. What
holds the states stands with each engine: pages of one memory for PyTorch (`pytorch/state_memory`), and tensors of their
own for ONNX Runtime (`onnx/states`).
"""
