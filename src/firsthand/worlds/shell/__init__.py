"""The operating system of a task: a sandbox of its own with a shell that keeps its state."""
