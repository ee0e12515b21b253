"""Innerloop's Python SDK: adapt a served model to a handful of examples and ask it questions."""
