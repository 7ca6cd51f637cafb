"""Trains models: token streams, one loop, and algorithms as recipes."""
