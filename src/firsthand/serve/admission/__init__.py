"""Admission: API keys, limits, cancellation and draining of requests."""
