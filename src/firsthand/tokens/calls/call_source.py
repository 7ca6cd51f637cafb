"""The two ends of reading tool calls: a Source of text that has come, a Sink for what is certain, and the marks between.

`callregion` reads from one and gives to the other; neither knows what a call looks like.
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
"""The marks that say that a call follows, and those that end it."""
FENCE = "```"
MARKS = (*CLOSINGS, *filter(None, CLOSINGS.values()), FENCE)
LONGEST = max(map(len, MARKS))
"""So many characters show whether a mark stands at a place."""


class CallSource:
    """The text that has come and is not done with; `at` is the place where reading goes on."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.backtracks = 0
        """How often text was put back."""
        self._passed = 0

    def add(self, text: str) -> None:
        """Add what comes next, and forget what is done with."""
        self._passed += self.at
        self.text, self.at = self.text[self.at :] + text, 0

    def backtrack(self, text: str) -> None:
        """Put text in front that has been read already."""
        self._passed += self.at - len(text)
        self.text, self.at = text + self.text[self.at :], 0

    @property
    def place(self) -> int:
        """Where reading goes on, counted from the beginning of all."""
        return self._passed + self.at

    def might_be(self, marks: Sequence[str]) -> bool:
        """Whether all that is left may be the beginning of one of the marks."""
        left = self.text[self.at : self.at + LONGEST]
        return len(self.text) - self.at < LONGEST and any(mark.startswith(left) for mark in marks)


class CallSink:
    """Text and calls, in the order they became certain. Blanks wait until it is clear whether more text follows."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.blanks: list[str] = []
        self.called = False
        self._ready: list[str | CallDelta] = []
        self._said = False

    def take(self) -> list[str | CallDelta]:
        """What was given since the last call, neighbouring text joined."""
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

    def say(self, text: str) -> None:
        """Give text on, but for the blanks at its end, and those between a call and the first words."""
        words = text.rstrip()
        if words:
            is_first = self.called and not self._said
            self._ready += [words.lstrip()] if is_first else [*self.blanks, words]
            self.blanks = []
            self._said = True
        if len(words) < len(text):
            self.blanks.append(text[len(words) :])

    def begin(self, name: str, arguments: str = "") -> None:
        """A call has this name."""
        index = len(self.calls)
        self.called = True
        self._ready.append(CallDelta(index, f"call_{index}", name, arguments))

    def more(self, arguments: str) -> None:
        """More of the call's arguments."""
        self._ready.append(CallDelta(len(self.calls), arguments=arguments))

    def end(self, name: str, arguments: Json, invalid: str | None) -> None:
        """The call is complete, or broken."""
        self.called = True
        self.calls.append(ToolCall(f"call_{len(self.calls)}", name, arguments, invalid))
