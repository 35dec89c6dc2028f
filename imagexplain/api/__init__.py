"""The HTTP contract: requests, options and responses."""
