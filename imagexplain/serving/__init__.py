"""Requests to responses: the work of one worker."""
