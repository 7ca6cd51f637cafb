"""Tools that an agent may call: one a file, named after the file."""
