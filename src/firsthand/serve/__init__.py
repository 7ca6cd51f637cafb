"""Doors for programs: a model behind the interface that everyone speaks."""
