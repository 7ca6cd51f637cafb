"""Tools over shared state, found by name like those of `tools/`."""
