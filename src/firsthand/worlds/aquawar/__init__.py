"""Aquawar, the digital card game: its rules, the two baseline players, and the world around them."""
