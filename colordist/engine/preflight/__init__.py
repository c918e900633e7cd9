"""Preflight checks of all machines of a run."""
