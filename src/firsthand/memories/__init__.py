"""Memories, a file each, found by name: `--memory notes:lifetime=run`."""
