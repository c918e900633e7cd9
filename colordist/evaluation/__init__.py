"""Scores of a network over a test split."""
