"""Tiny models of generated languages, small enough to be trained by every algorithm in minutes on one CPU core."""
