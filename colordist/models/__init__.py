"""Networks, independent of tasks, processes and files."""
