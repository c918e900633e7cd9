"""What is learned: networks, losses and phases."""
