"""A generated text taken apart while it comes: thoughts, words, and what may be a tool call and is held back.

What was shown can never be taken back, so text that could still become a mark of a call or of a thought waits. Calls
themselves are read from the whole answer, which the model brings at its end.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

CALL_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "```json", "```tool_code", "```tool_call")
_CALL = re.compile("|".join(map(re.escape, CALL_MARKS)))
OPEN, CLOSE = "<think>", "</think>"


class Piece(NamedTuple):
    """Text that is certain."""

    kind: Literal["reasoning", "content"]
    text: str


class Splitter:
    """Takes one answer apart. `thinks`: its model may think; `thinking`: the prompt ends with the mark of a thought."""

    def __init__(self, *, thinks: bool = False, thinking: bool = False, calls: bool = False):
        self._state: Literal["start", "reasoning", "gap", "content", "held"] = (
            "reasoning" if thinks and thinking else "start" if thinks else "content"
        )
        self._calls = calls
        self._waiting = ""
        self._shown = ""
        """The words that were given out."""
        self._thought = ""

    def feed(self, text: str) -> list[Piece]:
        """What this text makes certain."""
        if self._state == "content" and not self._calls:
            self._shown += text
            return [Piece("content", text)] if text else []
        self._waiting += text
        return [piece for piece in self._advance(False) if piece.text]

    def finish(self, whole: str | None = None) -> list[Piece]:
        """What was held back. `whole` is the answer without its calls, where some were found."""
        if whole is None:
            pieces = self._advance(True)
            if self._state == "held":
                pieces.append(self._show(self._waiting))
                self._waiting = ""
            return [piece for piece in pieces if piece.text]
        if self._state in ("start", "reasoning", "gap"):
            return [piece for piece in self._advance(True) if piece.text]
        words = whole.rpartition(CLOSE)[2].strip() if self._thought else whole
        before = self._shown.lstrip()
        rest = words[len(before) :] if words.startswith(before) else ""
        return [self._show(rest)] if rest else []

    def _advance(self, is_last: bool) -> list[Piece]:
        pieces: list[Piece] = []
        if self._state == "start":
            begun = self._waiting.lstrip()
            if begun.startswith(OPEN):
                self._state, self._waiting = "reasoning", begun[len(OPEN) :]
            elif is_last or not OPEN.startswith(begun):
                self._state = "content"
        if self._state == "reasoning":
            if not self._thought:
                self._waiting = self._waiting.lstrip("\n")
            thought, mark, rest = self._waiting.partition(CLOSE)
            if mark:
                pieces.append(self._think(thought.rstrip("\n")))
                self._state, self._waiting = "gap", rest
            else:
                cut = len(thought) if is_last else _safe(thought, (CLOSE,), blanks="\n")
                pieces.append(self._think(thought[:cut]))
                self._waiting = thought[cut:]
        if self._state == "gap":
            self._waiting = self._waiting.lstrip("\n")
            if self._waiting:
                self._state = "content"
        if self._state == "content":
            pieces.append(self._content(is_last))
        return pieces

    def _content(self, is_last: bool) -> Piece:
        text = self._waiting
        if not self._calls:
            self._waiting = ""
            return self._show(text)
        found = _CALL.search(text)
        if not self._shown and text.lstrip().startswith("{"):
            self._state = "held"
            return Piece("content", "")
        if found:
            self._state, cut = "held", len(text[: found.start()].rstrip())
        elif is_last:
            cut = len(text)
        else:
            cut = _safe(text, CALL_MARKS, blanks=" \t\r\n")
        self._waiting = text[cut:]
        return self._show(text[:cut])

    def _show(self, text: str) -> Piece:
        self._shown += text
        return Piece("content", text)

    def _think(self, text: str) -> Piece:
        self._thought += text
        return Piece("reasoning", text)


def _safe(text: str, marks: tuple[str, ...], *, blanks: str) -> int:
    """How much of a text can be no part of a mark, nor of the blanks before one."""
    longest = max(map(len, marks))
    cut = len(text)
    for start in range(max(0, len(text) - longest), len(text)):
        if any(mark.startswith(text[start:]) for mark in marks):
            cut = start
            break
    return len(text[:cut].rstrip(blanks))
