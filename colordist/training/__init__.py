"""The training loop, and what builds it."""
