"""What the service survives: a real server behind its front door, under load, while things go wrong."""
