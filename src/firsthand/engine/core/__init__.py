"""Requests, scheduling and steps."""
