"""Patches and test logs, read strictly."""
