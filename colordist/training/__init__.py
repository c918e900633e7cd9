"""The training loop and its construction."""
