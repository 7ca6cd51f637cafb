"""Tools over an index, found by name like those of `tools/`."""
