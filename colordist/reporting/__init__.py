"""Reports on runs: page, tables, pictures, Weights & Biases."""
