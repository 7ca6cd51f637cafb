"""Mathematical answers read and compared."""
