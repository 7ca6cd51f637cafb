"""Progress bars column by column, and answers at a terminal that ends or is typed in pieces."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import sys
import threading
import time

import pytest

from firsthand.system import terminal
from firsthand.system.terminal import Terminal


class Screen(io.StringIO):
    """A terminal's stand-in."""

    def isatty(self) -> bool:
        return True


def last_frame(screen: Screen) -> str:
    """What a bar showed last, without its colours; then it is wiped off and the cursor is back."""
    shown = screen.getvalue()
    assert "\x1b[?25l" in shown and shown.index("\x1b[?25h") > shown.index("\x1b[?25l") and shown.endswith("\x1b[2K")
    frames = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown).split("\r")
    return [line for frame in frames if (line := frame.split("\n")[0].rstrip())][-1]


@pytest.mark.parametrize(
    ("columns", "unit", "label", "frame"),
    [
        (100, "", "a\nname[b]", r"a name\[b\] [━╺╸]{40} 3000/5000 0:00:0\d [\d:-]{7} \[i\]a note"),
        (100, "bytes", "a", r"a [━╺╸]{40} 3\.0/5\.0 kB \S+( \SB/s)? 0:00:0\d [\d:-]{7} \[i\]a note"),
        (72, "", "a", r"a [━╺╸]{34} 3000/5000 0:00:0\d [\d:-]{7} \[i\]a note"),
        (71, "bytes", "a", r"a [━╺╸]{48} 3\.0/5\.0 kB \[i\]a note"),
        (71, "", "x" * 90, r"x{34}… [━╺╸]{15} 3000/5000 \[i\]a note"),
    ],
)
def test_a_bar_has_its_columns_in_the_width_there_is(
    columns: int, unit: str, label: str, frame: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with terminal.progress(label, None, unit=unit) as update:
        assert screen.getvalue() == ""
        update(1500, note="gone")
        update(2000, 5000)
        update(3000, note="[i]a\nnote")
    assert re.fullmatch(frame, last_frame(screen)), last_frame(screen)
    with pytest.raises(ZeroDivisionError), terminal.progress("n", 7) as update:
        update(2, note="gone")
        update(1, 0)
        raise ZeroDivisionError
    assert re.search(r"^n [━╺╸]+ 1/0", last_frame(screen)) and "gone" not in last_frame(screen)


def test_a_bar_that_is_never_moved_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with terminal.progress("n", 7):
        pass
    assert screen.getvalue() == ""


@pytest.mark.slow
def test_an_answer_is_whole_however_it_is_typed_and_none_at_a_terminal_that_ends() -> None:
    async def asked(*pieces: bytes | None) -> tuple[str | None, str]:
        """The answer to pieces that are typed one after the other; None hangs up."""
        controller, worker = pty.openpty()
        sink = Screen()
        os.write(controller, b"typed before\n")
        time.sleep(0.01)
        with os.fdopen(worker, "r") as source:
            answer = asyncio.ensure_future(Terminal(source, sink).ask("Name:"))
            for piece in pieces:
                await asyncio.sleep(0.03)
                os.close(controller) if piece is None else os.write(controller, piece)
            found = await asyncio.wait_for(answer, 20)
        if None not in pieces:
            os.close(controller)
        return found, sink.getvalue()

    assert asyncio.run(asked(" é".encode()[:2], " é".encode()[2:] + b"b", b" \n")) == (" éb ", "Name: ")
    assert asyncio.run(asked(b"\xff\n")) == ("\ufffd", "Name: ")
    assert asyncio.run(asked(b"\n")) == ("", "Name: ")
    assert asyncio.run(asked(b"half", None)) == (None, "Name: ")
    assert asyncio.run(asked(b"\x04")) == (None, "Name: ")


def test_a_question_can_be_cancelled_and_the_right_to_ask_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "_busy", threading.Lock())

    async def cancelled() -> None:
        controller, worker = pty.openpty()
        with os.fdopen(worker, "r") as source:
            there = Terminal(source, Screen())

            async def choose() -> str | None:
                async with there.turn():
                    return await there.choose("Go on?", ["yes", "no"])

            question = asyncio.ensure_future(choose())
            await asyncio.sleep(0.03)
            assert Terminal._busy.locked()
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question
        os.close(controller)
        assert not Terminal._busy.locked()

    asyncio.run(cancelled())
