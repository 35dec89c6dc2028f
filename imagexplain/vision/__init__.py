"""Images and masks, without HTTP: decoding, geometry, masks, superpixels, and drawing."""
