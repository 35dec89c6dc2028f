"""A record of answers: their digests, by which two versions of the service are compared."""
