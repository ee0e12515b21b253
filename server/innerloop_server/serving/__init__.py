"""The service that callers use, without any transport: its interface, and the code that answers requests."""
