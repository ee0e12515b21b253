"""The gRPC server: adapts bundles to support sets and answers queries."""
