"""Splits a generated text into reasoning and content while it is streamed. Tool calls are removed earlier, by `CallStream`.

Text that was sent cannot be taken back, so text that could still become a reasoning tag is held back.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from firsthand.tokens.calls.thought_text import CLOSE, OPEN


class ReasoningPiece(NamedTuple):
    """Text whose kind is certain."""

    kind: Literal["reasoning", "content"]
    text: str


class ReasoningSplitter:
    """Splits one answer.

    `thinks`: the model may write reasoning. `starts_in_thought`: the prompt ends with its opening tag.
    """

    def __init__(self, *, thinks: bool = False, starts_in_thought: bool = False):
        self._state: Literal["start", "reasoning", "gap", "content"] = (
            "reasoning" if thinks and starts_in_thought else "start" if thinks else "content"
        )
        self._has_begun = False
        self._waiting = ""

    def feed(self, text: str) -> list[ReasoningPiece]:
        """The pieces that this text makes certain."""
        if self._state == "content":  # nothing waits any more
            return [ReasoningPiece("content", text)] if text else []
        self._waiting += text
        return [piece for piece in self._advance(False) if piece.text]

    def finish(self) -> list[ReasoningPiece]:
        """The pieces that were held back."""
        return [piece for piece in self._advance(True) if piece.text]

    def _advance(self, is_last: bool) -> list[ReasoningPiece]:
        pieces: list[ReasoningPiece] = []
        if self._state == "start":
            begun = self._waiting.lstrip()
            if begun.startswith(OPEN):
                self._state, self._waiting = "reasoning", begun[len(OPEN) :]
            elif is_last or not OPEN.startswith(begun):
                self._state = "content"
        if self._state == "reasoning":
            if not self._has_begun:
                self._waiting = self._waiting.lstrip("\n")
                self._has_begun = bool(self._waiting)
            thought, mark, rest = self._waiting.partition(CLOSE)
            cut = len(thought) if is_last else _safe(thought)
            if mark:
                pieces.append(ReasoningPiece("reasoning", thought.rstrip("\n")))
                self._state, self._waiting = "gap", rest
            else:
                pieces.append(ReasoningPiece("reasoning", thought[:cut]))
                self._waiting = thought[cut:]
        if self._state == "gap":
            self._waiting = self._waiting.lstrip("\n")
            if self._waiting:
                self._state = "content"
        if self._state == "content":
            pieces.append(ReasoningPiece("content", self._waiting))
            self._waiting = ""
        return pieces


def _safe(text: str) -> int:
    """The length of the part that cannot belong to the closing tag, nor to the line ends before it."""
    start = next(
        (at for at in range(max(0, len(text) - len(CLOSE)), len(text)) if CLOSE.startswith(text[at:])), len(text)
    )
    return len(text[:start].rstrip("\n"))
