"""gRPC: thin services, messages to domain objects and back, errors to status codes."""
