"""Strict parsers of patches and test logs."""
