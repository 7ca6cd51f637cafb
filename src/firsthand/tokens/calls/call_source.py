"""Input and output of the tool-call parser: a CallSource of text, a CallSink for results, and the marks.

`call_region.py` reads from one and writes to the other; neither knows the form of a call.
"""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.message import Json, ToolCall
from firsthand.model import CallDelta

CLOSINGS = {
    "<tool_call>": "</tool_call>",
    "[TOOL_CALLS]": "",
    "<|python_tag|>": "",
    "<|python_start|>": "<|python_end|>",
}
"""The marks that announce a call, and their closing marks."""
FENCE = "```"
MARKS = (*CLOSINGS, *filter(None, CLOSINGS.values()), FENCE)
LONGEST = max(map(len, MARKS))
"""Length of the longest mark."""


class CallSource:
    """The text received and not yet parsed; parsing continues at `at`."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.backtracks = 0
        """Number of times that text was put back."""
        self._passed = 0

    def add(self, text: str) -> None:
        """Append text, and drop what was parsed."""
        self._passed += self.at
        self.text, self.at = self.text[self.at :] + text, 0

    def backtrack(self, text: str) -> None:
        """Put parsed text back in front."""
        self._passed += self.at - len(text)
        self.text, self.at = text + self.text[self.at :], 0

    @property
    def place(self) -> int:
        """The position of `at` in the whole text."""
        return self._passed + self.at

    def might_be(self, marks: Sequence[str]) -> bool:
        """True if the remaining text may begin one of the marks."""
        left = self.text[self.at : self.at + LONGEST]
        return len(self.text) - self.at < LONGEST and any(mark.startswith(left) for mark in marks)


class CallSink:
    """Text and calls, in the order they became certain. Whitespace is held back until it is clear whether text follows."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.blanks: list[str] = []
        self.has_calls = False
        self._ready: list[str | CallDelta] = []
        self._has_text = False

    def take(self) -> list[str | CallDelta]:
        """Returns the results since the last call, neighbouring text joined."""
        ready, self._ready = self._ready, []
        joined: list[str | CallDelta] = []
        words: list[str] = []
        for piece in [*ready, None]:
            if isinstance(piece, str):
                words.append(piece)
                continue
            if words:
                joined.append("".join(words))
                words = []
            if piece is not None:
                joined.append(piece)
        return joined

    def add_text(self, text: str) -> None:
        """Add text. Trailing whitespace is held back, and whitespace between a call and the first text is dropped."""
        words = text.rstrip()
        if words:
            is_first = self.has_calls and not self._has_text
            self._ready += [words.lstrip()] if is_first else [*self.blanks, words]
            self.blanks = []
            self._has_text = True
        if len(words) < len(text):
            self.blanks.append(text[len(words) :])

    def begin_call(self, name: str, arguments: str = "") -> None:
        """Begin a call of this name."""
        index = len(self.calls)
        self.has_calls = True
        self._ready.append(CallDelta(index, f"call_{index}", name, arguments))

    def add_arguments(self, arguments: str) -> None:
        """Add a piece of the call's arguments."""
        self._ready.append(CallDelta(len(self.calls), arguments=arguments))

    def end_call(self, name: str, arguments: Json, invalid: str | None) -> None:
        """Complete the call; `invalid` is the text of a broken one."""
        self.has_calls = True
        self.calls.append(ToolCall(f"call_{len(self.calls)}", name, arguments, invalid))
