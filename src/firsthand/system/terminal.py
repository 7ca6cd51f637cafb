"""Prints tables and progress bars with rich, escapes untrusted text, and asks the person at the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import sys
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TextIO

from firsthand.system.fitted_table import FittedTable

BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U00016fe4\U0001d159\U000e0100-\U000e01ef]"
)
"""Characters that Python calls printable and that are drawn as nothing: fillers, variation selectors, blank symbols."""
MAX_CELL_CHARS = 1000


def printable(text: str) -> str:
    """The text with what drives a terminal or is not seen shown as escapes; newlines and tabs stay.

    Those are control and format characters, such as marks of direction, spaces but the common one, and blanks such as
    U+3164. The selector that follows a symbol to make it an emoji stays.
    """
    if text.isprintable() and not BLANK.search(text):
        return text
    return "".join(
        c if c in "\n\t" or _is_seen(c, before) else c.encode("unicode_escape").decode()
        for before, c in zip(" " + text, text, strict=False)
    )


def _is_seen(char: str, before: str) -> bool:
    if char in "\ufe0e\ufe0f" and unicodedata.category(before) == "So":
        return True
    return char.isprintable() and not BLANK.match(char)


def one_line(text: str) -> str:
    """The text on one line, with control characters shown as escapes."""
    return printable(" ".join(text.split()))


def cell_text(text: str) -> str:
    """The text for a cell of a table: printable, and cut, because the layout of a cell takes minutes for a name of 1 MB."""
    left = len(text) - MAX_CELL_CHARS
    return printable(text if left <= 0 else f"{text[:MAX_CELL_CHARS]}… ({left:,} more characters)")


def complain(text: str) -> None:
    """Print a sentence on standard error, after `firsthand:`; on a terminal it is folded at words."""
    line = f"firsthand: {one_line(text)}"
    if sys.stderr is not None and sys.stderr.isatty():
        line = _fold(line, console(stderr=True).width)
    print(line, file=sys.stderr)


class Terminal:
    """Asks the person at the terminal, one question at a time. Questions go to `sink`, answers come from `source`.

    Nothing blocks the event loop, so a question can be cancelled.
    """

    _busy = threading.Lock()
    """Shared by all agents, because there is one person."""

    def __init__(self, source: TextIO | None = None, sink: TextIO | None = None):
        self._ends = source, sink  # None: the process's own when a question is asked

    @property
    def source(self) -> TextIO:
        """The stream that answers are read from."""
        return self._ends[0] if self._ends[0] is not None else sys.stdin

    @property
    def sink(self) -> TextIO:
        """The stream that questions are written to."""
        return self._ends[1] if self._ends[1] is not None else sys.stderr

    def is_there(self) -> bool:
        """True if both streams are a terminal."""
        return all(stream is not None and not stream.closed and stream.isatty() for stream in (self.source, self.sink))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the right to ask; other questions wait, in any thread or event loop."""
        while not self._busy.acquire(blocking=False):
            await asyncio.sleep(0.02)
        try:
            yield
        finally:
            self._busy.release()

    async def choose(self, question: str, choices: Sequence[str]) -> str | None:
        """The chosen word, typed whole or by its first letter; None at end of input or after three invalid answers."""
        import termios

        shown = "/".join(f"[{choice[0]}]{choice[1:]}" for choice in choices)
        termios.tcflush(self.source.fileno(), termios.TCIFLUSH)  # text typed before the question does not answer it
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

    async def ask(self, question: str) -> str | None:
        """The line that is typed after the question; None at end of input."""
        import termios

        termios.tcflush(self.source.fileno(), termios.TCIFLUSH)
        self.sink.write(f"{question} ")
        self.sink.flush()
        line = await self._line()
        return line.rstrip("\r\n") if line else None

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


def print_as_json(body: object) -> None:
    """Print data as JSON that no terminal obeys: JSON itself leaves DEL, C1 controls and direction marks as they are."""
    lines = json.dumps(body, indent=2, ensure_ascii=False).split("\n")
    print("\n".join(line if line.isprintable() else "".join(map(_json_char, line)) for line in lines))


def _json_char(char: str) -> str:
    escaped = char if char.isprintable() else json.dumps(char)[1:-1]
    return f"\\u{ord(char):04x}" if escaped == "\x7f" else escaped


def console(*, stderr: bool = False) -> Any:
    """A rich console on standard output or standard error, as wide as the terminal; 100 columns in a pipe.

    Whatever it prints is printable: text that was not escaped before is escaped as it is drawn. With `soft_wrap` no
    line is cut where a path or a command is copied; on a terminal its sentences are `folded`.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Piped(Console):
        """A console that escapes control characters, and raises BrokenPipeError, for the command line to handle."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

        def print(self, *objects: Any, soft_wrap: bool | None = None, **more: Any) -> None:
            if soft_wrap and self.is_terminal and more.get("end", "\n") == "\n":
                objects = tuple(folded(each, self.width) if isinstance(each, str) else each for each in objects)
            super().print(*objects, soft_wrap=soft_wrap, **more)

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

    stream = sys.stderr if stderr else sys.stdout
    wide = stream is not None and stream.isatty()  # None if it was closed before the process started
    return Piped(stderr=stderr, width=None if wide else 100, highlight=False, emoji=False)


_UNIT = re.compile(r"[^\s`]*`[^`]*`\S*|\S+")
"""A piece that is not broken: a word, or a command in backticks, which is copied."""


def folded(text: str, width: int) -> str:
    """The text with its sentences folded at words; a path or a command in backticks stays whole, whatever its length.

    Lines that are columns or commands stay as they are: those with two spaces in them or `firsthand` outside backticks.
    """
    return "\n".join(_folded_line(line, width) for line in text.split("\n"))


def _folded_line(line: str, width: int) -> str:
    is_columns_or_command = "  " in line.strip() or "firsthand " in re.sub("`[^`]*`", "", line)
    return line if is_columns_or_command else _fold(line, width)


def _fold(line: str, width: int) -> str:
    from rich.cells import cell_len

    if cell_len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    made, now = [], ""
    for unit in _UNIT.findall(line):
        if now and cell_len(f"{indent}{now} {unit}") > width:
            made.append(indent + now)
            now = unit
        else:
            now = f"{now} {unit}" if now else unit
    return "\n".join([*made, indent + now])


def print_prose(text: str) -> None:
    """Print sentences: folded at words on a terminal, each a line of its own elsewhere."""
    out = console()
    out.print(text, soft_wrap=not out.is_terminal, markup=False)


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Print a table of text with a title and a header; columns that do not fit stand below their row.

    `right` are the headings of columns that are aligned to the right.
    """
    from rich.text import Text

    out = console()
    if title:
        bold = Text(cell_text(title), style="bold")  # brackets in it are no markup
        out.print(bold, soft_wrap=not out.is_terminal)
    out.print()
    out.print(
        FittedTable(
            [cell_text(name) for name in header], [[Text(cell_text(cell)) for cell in row] for row in rows], right
        )
    )
    out.print()


WIDE_BAR = 72
"""Columns of a terminal in which a bar with speed and times stays on one line."""


@contextmanager
def progress(label: str, total: float | None, *, unit: str = "", shown: bool = True) -> Iterator[Callable[..., None]]:
    """A live progress bar on standard error; yields a function of `completed`, and optionally `total` and `note`.

    It appears with the first call, so that a name that is refused leaves none behind. There is no bar without a terminal,
    and a narrow one leaves out speed and times.
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
    from rich.table import Column

    out = console(stderr=True)
    is_wide = out.width >= WIDE_BAR
    whole = Column(no_wrap=True)
    counts = [DownloadColumn(table_column=whole) if unit == "bytes" else MofNCompleteColumn(table_column=whole)]
    shortened = Column(no_wrap=True, overflow="ellipsis", max_width=out.width // 2)
    told = TextColumn("{task.description}", markup=False, table_column=shortened)  # rich may find markup in it
    speeds = [TransferSpeedColumn()] if unit == "bytes" else []
    timed = [*speeds, TimeElapsedColumn(), TimeRemainingColumn()] if is_wide else []
    noted = TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = Progress(told, BarColumn(None if not is_wide else 40), *counts, *timed, noted, console=out, transient=True)
    task = bar.add_task(one_line(label), total=total, note="")
    with ExitStack() as started:

        def update(completed: float, total: float | None = None, note: str = "") -> None:
            if not bar.live.is_started:
                started.enter_context(bar)
            bar.update(
                task,
                completed=completed,
                total=total if total is not None else bar.tasks[task].total,
                note=one_line(note),
            )

        yield update
