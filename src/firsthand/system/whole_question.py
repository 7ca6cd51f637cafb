"""Shows all that a person is asked to trust: what is cut off is what nobody looked at."""

from __future__ import annotations

MOST_SHOWN = 20_000


def shown_whole(text: str) -> str:
    """The text; one of more than `MOST_SHOWN` characters ends with the number of those that have to be read in its file."""
    left = len(text) - MOST_SHOWN
    return text if left <= 0 else f"{text[:MOST_SHOWN]} (and {left:,} characters more: read them in the folder's file)"
