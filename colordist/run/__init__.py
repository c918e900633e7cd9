"""A run's folder and what lies in it: lock, checkpoints, snapshots."""
