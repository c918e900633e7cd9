"""Files: atomic writes, weights with a description, downloads."""
