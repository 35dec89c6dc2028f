"""The manifest of an archive: its place, and the field of ours in it."""

MANIFEST = "MAR-INF/MANIFEST.json"
HASHES = "sha256"
"""Field with the SHA-256 of each other file of the archive, by its name; TorchServe does not read it."""
