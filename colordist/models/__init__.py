"""The networks. They know nothing of tasks, processes or files."""
