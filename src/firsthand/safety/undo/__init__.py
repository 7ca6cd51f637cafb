"""Undo: states before and after each call, and rolling back to a step of a trace."""
