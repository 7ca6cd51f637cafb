"""Patterns: one async function a file, named after the file."""
