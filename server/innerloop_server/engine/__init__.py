"""Computing: the interface to whatever runs bundles, and the engines behind it, each in a folder of its own."""
