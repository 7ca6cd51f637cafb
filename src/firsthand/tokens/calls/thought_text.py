"""Separates the thought that an answer may begin with from the rest, so that calls considered in it are not made."""

from __future__ import annotations

from firsthand.system.said_text import CLOSE as CLOSE
from firsthand.system.said_text import OPEN as OPEN


class ThoughtText:
    """Follows one answer that comes in pieces.

    `is_open`: the prompt ends with the opening tag; otherwise the answer has a thought if it begins with that tag. A thought
    that is never closed is all of the answer.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._is_over = False
        self._held = ""  # what may still be a part of a tag

    def feed(self, text: str) -> tuple[str, str]:
        """Returns the next text of the thought, with its tags and blanks before it, and the text after it."""
        if self._is_over:
            return "", text
        text, self._held = self._held + text, ""
        thought = ""
        if not self._is_open:
            begun = text.lstrip()
            thought, text = text[: len(text) - len(begun)], ""
            if not begun.startswith(OPEN):
                self._is_over = not OPEN.startswith(begun)
                self._held = "" if self._is_over else begun
                return thought, begun if self._is_over else ""
            self._is_open = True
            thought, text = thought + OPEN, begun[len(OPEN) :]
        inside, mark, after = text.partition(CLOSE)
        if mark:
            self._is_over = True
            return thought + inside + mark, after
        tails = range(max(0, len(text) - len(CLOSE) + 1), len(text))
        cut = next((at for at in tails if CLOSE.startswith(text[at:])), len(text))
        self._held = text[cut:]
        return thought + text[:cut], ""

    def finish(self) -> tuple[str, str]:
        """Returns what was held back, as `feed` does."""
        held, self._held = self._held, ""
        return (held, "") if self._is_open else ("", held)
