"""Colourize photographs with a trained network."""
