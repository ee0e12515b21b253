"""The models of a server: found in a folder, loaded, unloaded, looked up by name."""
