"""Evaluation on a test split, and training of the classifier for the metric `classifier`."""
