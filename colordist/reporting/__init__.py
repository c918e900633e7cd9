"""What comes of runs, read from their folders."""
