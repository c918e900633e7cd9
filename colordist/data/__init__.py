"""Samplers, batches, loaders and image decoding; image sources in ``sources/``."""
