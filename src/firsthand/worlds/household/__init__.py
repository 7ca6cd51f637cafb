"""Household tasks in ALFWorld's text interface: an engine, a generator of houses, and a reader of ALFWorld's games."""
