"""What the server does for its callers, free of any transport: what may be asked, and who answers it."""
