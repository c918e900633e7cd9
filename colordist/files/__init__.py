"""Files: atomic writes, folders of weights, downloads."""
