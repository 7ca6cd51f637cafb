"""Shared by file tools: a folder that no path escapes from."""
