"""A whole decoder or encoder step, compiled."""
