"""Task-batched few-shot learners: what the trainer and the server share."""
