"""Deciding what the device computes next: admission, fairness, batches."""
