"""Shows a conversation: with colour, wrapped lines and statistics on a terminal; elsewhere only the answers."""

from __future__ import annotations

import sys
import time

from firsthand.loop.listener import Began, Piece, Step
from firsthand.show.trace_tree import as_json_text
from firsthand.show.word_wrap import WordWrap
from firsthand.system.terminal import console, one_line, printable
from firsthand.trace import Call, Event


class Screen:
    """Shows a conversation: with colour and statistics on a terminal; elsewhere only the answers."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self._out, self._err = console(), console(stderr=True)
        self._is_open = False  # a line of an answer that has no end yet
        self._wrap: WordWrap | None = None
        self._first_s: dict[str, float] = {}
        self.writing_s = 0.0
        """Seconds from first to last token, summed over answers."""

    def listen(self, step: Step) -> None:
        """Show one step of an answer."""
        match step:
            case Piece(text=text):
                self._first_s.setdefault(step.id, time.perf_counter())
                self._write(printable(text))
            case Call(kind="generate"):
                now = time.perf_counter()
                self.writing_s += now - self._first_s.pop(step.id, now)
            case Began(kind="tool", detail={"name": name, "arguments": arguments}):
                self.note(f"→ {name}({as_json_text(arguments)})")
            case Call(kind="tool", detail=detail):
                self.note(f"← {detail.get('result')}")
            case Event(kind="retry"):
                self.note(f"retrying: {step.data.get('error')}")

    def _write(self, text: str) -> None:
        self._is_open = self._is_open or bool(text)
        if self.is_terminal:
            self._wrap = self._wrap or WordWrap(self._out.width)
            text = self._wrap.feed(text)
        self._out.print(text, end="", markup=False, soft_wrap=True)
        self._out.file.flush()

    def end_line(self) -> None:
        """End the line of an answer."""
        if self._is_open:
            rest = "" if self._wrap is None else self._wrap.flush()
            self._is_open, self._wrap = False, None
            self._out.print(rest, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line about the answer on standard error."""
        self.end_line()
        self._err.print(one_line(text)[:500], style="dim" if self.is_terminal else None, markup=False, soft_wrap=True)

    def fact(self, text: str) -> None:
        """Print a line on standard error if a person is at the terminal."""
        self.end_line()
        if self.is_terminal:
            self.note(text)

    def say(self, text: str) -> None:
        """Print the output of a command."""
        self.end_line()
        self._out.print(printable(text), markup=False, soft_wrap=True)

    def complain(self, error: BaseException) -> None:
        """Print an error as a sentence on standard error."""
        self.end_line()
        print(f"firsthand: {one_line(str(error))}", file=sys.stderr, flush=True)
