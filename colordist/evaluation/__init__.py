"""Evaluation on a test split."""
