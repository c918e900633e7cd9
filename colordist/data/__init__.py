"""Where images come from, and the plan by which they come."""
