"""Ways in: `codec` turns messages into domain objects and back, `grpc` answers calls; others could stand beside it."""
