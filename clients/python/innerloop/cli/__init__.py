"""The `innerloop` command: what its packages offer, put under one name."""
