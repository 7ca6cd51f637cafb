"""Model files: found by name, downloaded, inspected, and what they need on this machine."""
