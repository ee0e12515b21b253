"""Generated from proto/innerloop/v1 by `make proto`."""
