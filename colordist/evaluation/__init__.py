"""Scores of a network over a test split, and the training of the classifier that some are computed by."""
