"""Attacks that wrap any benchmark, and the texts of injections."""
