"""Software tasks in SWE-bench format."""
