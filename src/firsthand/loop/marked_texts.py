"""Finds the marked texts in a text: documents and results from outside, which `tool.marked` put between marks."""

from __future__ import annotations

from collections.abc import Iterator

from firsthand.tool import MARK_END


def marked_spans(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the places where each marked text, its inside, and what follows it begin, in time linear in the text."""
    at = 0
    while (begin := text.find("<untrusted from=", at)) >= 0 and (opened := text.find(">", begin)) >= 0:
        at = opened + 1
        if not text.startswith("\n", at):
            continue
        ended = text.find(MARK_END, at + 1)
        if ended < 0:
            return
        at = ended + len(MARK_END)
        yield begin, opened + 2, at
