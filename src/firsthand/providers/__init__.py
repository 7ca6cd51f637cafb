"""Providers: where answers come from. Each file with `open_model` makes Models of names."""
