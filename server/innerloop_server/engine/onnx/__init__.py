"""Runs bundles by ONNX Runtime, without PyTorch."""
