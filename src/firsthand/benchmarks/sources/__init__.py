"""Loads benchmark data: from packages, folders, the hub, and the user's own tables."""
