"""Printing for people: tables and progress with rich, and text that came from elsewhere made harmless."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TextIO


def printable(text: str) -> str:
    """The text without control characters, which could drive a terminal: they are shown as escapes, line ends stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: str) -> str:
    """The text as one line without control characters."""
    return printable(" ".join(text.split()))


def complain(text: str) -> None:
    """Print a sentence on standard error."""
    print(f"firsthand: {one_line(text)}", file=sys.stderr)


class Terminal:
    """The person at the terminal, who is asked one thing at a time. Answers are read from `source`, questions go to `sink`.

    Nothing here blocks: a question can be cancelled like anything else.
    """

    _busy = threading.Lock()
    """One for all: however many agents run, there is one person."""

    def __init__(self, source: TextIO | None = None, sink: TextIO | None = None):
        self._ends = source, sink  # None: whatever the process has when something is asked

    @property
    def source(self) -> TextIO:
        """Where answers are read."""
        return self._ends[0] if self._ends[0] is not None else sys.stdin

    @property
    def sink(self) -> TextIO:
        """Where questions are written."""
        return self._ends[1] if self._ends[1] is not None else sys.stderr

    def is_there(self) -> bool:
        """Whether both ends are a terminal."""
        return all(stream is not None and not stream.closed and stream.isatty() for stream in (self.source, self.sink))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The right to ask: whoever else has a question waits, in whatever thread or event loop."""
        while not self._busy.acquire(blocking=False):
            await asyncio.sleep(0.02)
        try:
            yield
        finally:
            self._busy.release()

    async def choose(self, question: str, choices: Sequence[str]) -> str | None:
        """The choice that is made, by its word or first letter; None if the terminal is left or no answer is one of them."""
        import termios

        shown = "/".join(f"[{choice[0]}]{choice[1:]}" for choice in choices)
        termios.tcflush(self.source.fileno(), termios.TCIFLUSH)  # what was typed before the question is no answer to it
        for _ in range(3):
            self.sink.write(f"{question} {shown} ")
            self.sink.flush()
            line = await self._line()
            if not line:
                return None
            answer = line.strip().lower()
            chosen = [choice for choice in choices if answer in (choice, choice[0])]
            if chosen:
                return chosen[0]
            question = f"{printable(answer)!r} is none of them."
        return None

    async def _line(self) -> str:
        descriptor, line = self.source.fileno(), b""
        while not line.endswith(b"\n"):
            while not select.select([descriptor], [], [], 0)[0]:
                await asyncio.sleep(0.02)
            try:
                piece = os.read(descriptor, 1024)
            except OSError:  # it was closed
                return ""
            if not piece:
                return ""
            line += piece
        return line.decode("utf-8", "replace")


def console(*, stderr: bool = False) -> Any:
    """A rich console on standard output, or on standard error; as wide as the terminal, 100 columns in a pipe."""
    from rich.console import Console

    class Piped(Console):
        """A console that leaves it to the command line to say what it means when a reader has left."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    wide = stream is not None and stream.isatty()  # it is None where it was closed before we began
    return Piped(stderr=stderr, width=None if wide else 100, highlight=False, emoji=False)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(printable(title), style="bold")  # as it is: brackets in it are no markup
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


@contextmanager
def progress(label: str, total: float | None, *, unit: str = "", shown: bool = True) -> Iterator[Callable[..., None]]:
    """A live bar on standard error; the value is a function that takes `completed`, and perhaps `total` and `note`.

    Without a terminal there is no bar.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda completed, total=None, note="": None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *counts, TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, note="")

        def update(completed: float, total: float | None = None, note: str = "") -> None:
            bar.update(
                task, completed=completed, total=total if total is not None else bar.tasks[task].total, note=note
            )

        yield update
