"""What arrives and what leaves: image decoding, the request schema, response encodings and errors."""
