"""Run folders: lock, checkpoints, snapshots, records."""
