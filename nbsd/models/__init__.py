"""Model files: what a file is, what is in it, and the modules it becomes."""
