"""ThoughtStream: the text of a thought that is shown between tags, in which no text of a model or a tool can end it."""

from __future__ import annotations

CLOSE = "</think>"
BROKEN = "< /think>"


class ThoughtStream:
    """Breaks each closing tag in the texts that are fed, also one that several of them make together.

    Text that was sent cannot be taken back, so the beginning of a tag is held back until the text after it is known.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The text that can be sent now, which may be empty."""
        text = (self._held + text).replace(CLOSE, BROKEN)
        tails = range(max(0, len(text) - len(CLOSE)), len(text))
        cut = next((at for at in tails if CLOSE.startswith(text[at:])), len(text))
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """The text that was held back."""
        held, self._held = self._held, ""
        return held
