"""SQLite statements in a process with limits."""
