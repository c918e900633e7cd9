"""Train networks that colour grey images: on one CPU, one GPU or a cluster, with the same result."""
