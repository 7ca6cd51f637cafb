"""Web pages of our own, served on loopback and driven in a headless Chromium."""
