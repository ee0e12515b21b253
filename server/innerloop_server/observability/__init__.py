"""Metrics and logs, for operators of the server."""
