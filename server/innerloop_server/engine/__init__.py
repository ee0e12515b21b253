"""Computing: a small interface to whatever runs bundles, and the PyTorch engine behind it."""
