"""Tasks: networks, losses and phases."""
