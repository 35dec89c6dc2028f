"""Model archives: specs, labels, the build, and the networks that they make."""
