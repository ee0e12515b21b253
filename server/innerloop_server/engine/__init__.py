"""Computing: the `interface` to whatever runs bundles, and the engines behind it, each in a folder of its own.

`pytorch` and `onnx` run bundles; `encoding` puts frozen encoders in front of their models, and `composite` makes one
engine of several. `states` keeps the accounts of task states for all of them. Models are synchronous: the lanes of
`scheduling` call them, on threads or by way of worker processes.
"""
