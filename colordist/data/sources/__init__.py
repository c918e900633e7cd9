"""Image sources: where training and test images come from."""
