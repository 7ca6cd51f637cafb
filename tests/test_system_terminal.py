"""What the terminal is given: escapes, folds, tables, questions to the person there, and the end of a command."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from firsthand.system import interruption, terminal
from firsthand.system.fitted_table import FittedTable, broken
from firsthand.system.help_formatter import EXAMPLES, HelpFormatter
from firsthand.system.terminal import Terminal, cell_text, folded, one_line, print_as_json, print_table, printable


class Screen(io.StringIO):
    """A terminal's stand-in."""

    def isatty(self) -> bool:
        return True


def test_what_steers_a_terminal_or_is_not_seen_is_shown_as_an_escape() -> None:
    for text in ("", "a\tb\nc", "\x1b[0m", "\x7f", "\xa0", "\u202e", "\u3164", "\u2800", "\ufe0f"):
        shown = text if text in ("", "a\tb\nc") else text.encode("unicode_escape").decode()
        assert printable(text) == shown
        assert printable(f"é{text}漢") == f"é{shown}漢"
    heart = "\u2764"
    assert printable(f"{heart}\ufe0f{heart}\ufe0e") == f"{heart}\ufe0f{heart}\ufe0e"
    assert printable(f"{heart}\ufe0f\ufe0fx\ufe0e") == f"{heart}\ufe0f\\ufe0fx\\ufe0e", "only after a symbol"
    assert one_line("  a \n\tb\x07 ") == "a b\\x07"
    assert cell_text("x" * 1000) == "x" * 1000
    assert cell_text("x" * 1001) == "x" * 1000 + "… (1 more characters)"
    assert cell_text("\x07" + "x" * 2999) == "\\x07" + "x" * 999 + "… (2,000 more characters)"


def test_json_escapes_what_json_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    print_as_json({"é": ["a\x7fb", "\u202e\x1b", "\U000e0041", 1]})
    out = capsys.readouterr().out
    assert out == '{\n  "é": [\n    "a\\u007fb",\n    "\\u202e\\u001b",\n    "\\udb40\\udc41",\n    1\n  ]\n}\n'
    assert json.loads(out) == {"é": ["a\x7fb", "\u202e\x1b", "\U000e0041", 1]}


def test_a_complaint_is_one_line_and_on_a_terminal_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.complain("a \n b\x07 " + "word " * 30)
    assert capsys.readouterr() == ("", f"firsthand: a b\\x07{' word' * 30}\n")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    terminal.complain("one  two `a b c d e f g`, three")
    assert screen.getvalue() == "firsthand: one two\n`a b c d e f g`,\nthree\n"
    monkeypatch.setattr(sys, "stderr", None)
    terminal.complain("nobody sees it")
    assert terminal.console(stderr=True) is not None


def test_sentences_are_folded_at_words_with_their_indent_and_ends() -> None:
    assert folded("aa bb cc\n\n  dd ee ff\n", 5) == "aa bb\ncc\n\n  dd\n  ee\n  ff\n"
    assert folded("aaa bbb", 7) == "aaa bbb" and folded("aaa bbb", 6) == "aaa\nbbb"
    assert folded("漢字 漢", 7) == "漢字 漢" and folded("漢字 漢", 6) == "漢字\n漢"
    assert folded("aaaaaa bb", 3) == "aaaaaa\nbb", "a word has its line"
    assert folded("run `firsthand show x` now", 8) == "run\n`firsthand show x`\nnow"
    for whole in ("name  what it is", "firsthand run x y", "  firsthand run `a b`"):
        assert folded(whole, 6) == whole
    assert folded("firsthand, is it", 6) == "firsthand,\nis it"


def test_a_console_is_a_hundred_columns_wide_in_a_pipe_and_folds_sentences_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "9")
    for stream in (io.StringIO(), Screen()):
        monkeypatch.setattr(sys, "stdout", stream)
        assert terminal.console().width == (9 if stream.isatty() else 100)
        terminal.console().print("aaa bbb ccc", soft_wrap=True)
        terminal.console().print("aaa bbb ccc", soft_wrap=True, end="|\n")
        terminal.print_prose("[b]aa ccc")
        folds = "aaa bbb\nccc\naaa bbb ccc|\n[b]aa ccc\n"
        assert stream.getvalue() == (folds if stream.isatty() else "aaa bbb ccc\naaa bbb ccc|\n[b]aa ccc\n")
    monkeypatch.setattr(sys, "stderr", error := io.StringIO())
    terminal.console(stderr=True).print(":smile: 12 \x1b")
    assert error.getvalue() == ":smile: 12 \\x1b\n"
    with pytest.raises(BrokenPipeError):
        terminal.console().on_broken_pipe()


def test_a_table_has_its_title_and_what_is_in_brackets_stays(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[b]T\x07", ["n\x07", "value"], [["[i]", "5"], ["longer", "10"]], right=["value"])
    rule = "─" * 13
    assert capsys.readouterr().out == f"[b]T\\x07\n\nn\\x07   value\n{rule}\n[i]         5\nlonger     10\n\n"
    print_table("", ["n"], [])
    assert capsys.readouterr().out == "\nn\n─\n\n"


def test_a_bar_is_drawn_on_a_terminal_from_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for columns, unit, ends in (
        ("100", "", ["3/5", "a name", "a note", "0:00:0"]),
        ("72", "bytes", ["3/5 bytes", "0:00:0"]),
        ("71", "", ["3/5", "a name", "a note"]),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "stderr", screen := Screen())
        with terminal.progress("a\nname", 3, unit=unit) as update:
            assert screen.getvalue() == ""
            update(2, note="gone")
            update(2, 5)
            update(3, note="a\nnote")
        shown = screen.getvalue()
        assert all(each in shown for each in ends) and ("0:00:0" in shown) is ("0:00:0" in ends), "the last total stays"
    for shown_, stream in ((False, Screen()), (True, io.StringIO())):
        monkeypatch.setattr(sys, "stderr", stream)
        with terminal.progress("name", 3, shown=shown_) as update:
            update(1, 2, "note")
        assert stream.getvalue() == ""


@pytest.fixture
def person() -> Iterator[tuple[int, Terminal, io.StringIO]]:
    """The end where a person types, the Terminal, and what it shows."""
    controller, worker = pty.openpty()
    with os.fdopen(worker, "r") as source:
        sink = Screen()
        yield controller, Terminal(source, sink), sink
    os.close(controller)


def answered(person: tuple[int, Terminal, io.StringIO], choices: list[str], *typed: bytes) -> tuple[str | None, str]:
    """The choice, each line typed after a question; and the questions."""
    controller, there, sink = person
    asked = iter(typed)

    async def type_them() -> None:
        seen = 0
        while True:
            await asyncio.sleep(0.001)
            if len(sink.getvalue()) > seen:
                seen = len(sink.getvalue())
                os.write(controller, next(asked, b"\x04"))  # one question more than expected ends

    async def both() -> str | None:
        typing = asyncio.ensure_future(type_them())
        try:
            return await (there.choose("Go on?", choices) if choices else there.ask("Name:"))
        finally:
            typing.cancel()

    before = len(sink.getvalue())
    return asyncio.run(both()), sink.getvalue()[before:]


def test_a_terminal_that_hangs_up_gives_no_line() -> None:
    ours, theirs = pty.openpty()
    os.close(theirs)  # from now on a read is an error on Linux
    with os.fdopen(ours, "rb", buffering=0) as source:
        assert asyncio.run(Terminal(source, io.StringIO())._line()) == ""  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_choice_is_a_word_or_its_first_letter_and_has_three_tries(person: tuple[int, Terminal, io.StringIO]) -> None:
    words = ["yes", "no", "always"]
    question = "Go on? [y]es/[n]o/[a]lways "
    os.write(person[0], b"typed before\n")
    time.sleep(0.01)
    assert answered(person, words, b" NO \n") == ("no", question)
    assert answered(person, words, b"a\n") == ("always", question)
    assert answered(person, words, "Ж\n".encode(), b"\n", b"y\n") == (
        "yes",
        f"{question}'ж' is none of them. [y]es/[n]o/[a]lways '' is none of them. [y]es/[n]o/[a]lways ",
    )
    chosen, shown = answered(person, words, b"x\n", b"x\n", b"x\n")
    assert chosen is None and shown.count("none of them") == 2
    for typed in (b"\x04", b"y\x04\x04", b"no\x04\x04"):
        assert answered(person, words, typed) == (None, question), "the end of input, half a line before it or not"
    assert answered(person, words, b"al\x04ways\n") == ("always", question), "a line that came in pieces"
    assert answered(person, [], "é b  \n".encode()) == ("é b  ", "Name: ")
    assert answered(person, [], b"\x04") == answered(person, [], b"b\x04\x04") == (None, "Name: ")
    os.write(person[0], b"typed before\n")
    time.sleep(0.01)
    assert answered(person, [], b"x\r\n") == ("x", "Name: "), "what was typed before the question is no answer"
    assert answered(person, words, "\u3164\n".encode(), b"Yes\n") == (
        "yes",
        f"{question}'\\\\u3164' is none of them. [y]es/[n]o/[a]lways ",
    ), "a blank is shown"
    assert answered(person, [], b"\n") == ("", "Name: ") and answered(person, [], b"\xff\n") == ("\ufffd", "Name: ")


def test_a_person_is_there_if_both_streams_are_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Screen()
    closed.close()
    for source, sink, there in (
        (Screen(), Screen(), True),
        (io.StringIO(), Screen(), False),
        (Screen(), io.StringIO(), False),
        (closed, Screen(), False),
        (Screen(), closed, False),
    ):
        assert Terminal(source, sink).is_there() is there
        monkeypatch.setattr(sys, "stdin", source)
        monkeypatch.setattr(sys, "stderr", sink)
        assert Terminal().is_there() is there and (Terminal().source, Terminal().sink) == (source, sink)
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stderr", Screen())
    assert not Terminal().is_there()


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_question_that_fails_gives_the_right_to_ask_back(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Terminal, "_busy", threading.Lock())

    async def ask() -> None:
        for there in (Terminal(), Terminal()):
            with pytest.raises(type(error)):
                async with there.turn():
                    assert Terminal._busy.locked()
                    raise error
            assert not Terminal._busy.locked()

    asyncio.run(ask())


def test_one_question_is_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "_busy", threading.Lock())
    order = []

    async def ask(name: str) -> None:
        async with Terminal().turn():
            order.append(f"{name} begins")
            await asyncio.sleep(0.03)
            order.append(f"{name} ends")
            raise ZeroDivisionError

    async def both() -> None:
        await asyncio.wait_for(asyncio.gather(ask("a"), ask("b"), return_exceptions=True), 5)

    asyncio.run(both())
    assert order == ["a begins", "a ends", "b begins", "b ends"] and not Terminal._busy.locked()


def test_help_is_folded_on_a_terminal_below_what_follows_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  name    does this and that long\n" + "w" * 19 + " x\n  a-long-word-in-it is kept"
    formatter = HelpFormatter("prog", width=20)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert formatter._fill_text(text, 20, "") == argparse.RawDescriptionHelpFormatter("p")._fill_text(text, 20, "")
    monkeypatch.setattr(sys, "stdout", Screen())
    assert formatter._fill_text(text, 20, "").split("\n") == [
        "  name    does this",
        "          and that",
        "          long",
        "w" * 19,
        "x",
        "  a-long-word-in-it",
        "  is kept",
    ]
    assert formatter._fill_text("w" * 17 + " y\n" + "w" * 18, 20, " ").split("\n") == [f" {'w' * 17} y", f" {'w' * 18}"]
    wide = "  a-long-name-here  does it all"
    assert formatter._fill_text(wide, 20, "").split("\n") == [
        "  a-long-name-here",
        " " * 10 + "does it",
        " " * 10 + "all",
    ]
    examples = f"{EXAMPLES}  firsthand run a-benchmark-with-a-long-name"
    assert formatter._fill_text(examples, 20, "") == examples.rstrip("\n")


def drawn(width: int, header: list[str], rows: list[list[str]], right: tuple[str, ...] = ()) -> list[str]:
    out = io.StringIO()
    table = FittedTable(header, [[Text(cell) for cell in row] for row in rows], right)
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue().split("\n")[:-1]


def test_columns_keep_their_width_are_folded_from_28_columns_on_or_stand_below() -> None:
    def widths(room: int, *natural: int) -> dict[int, int]:
        cells = ["x" * each for each in natural]
        return FittedTable(["h"] * len(natural), [[Text(each) for each in cells], [Text("")] * len(cells)]).widths(room)

    assert widths(47, 5, 40) == {0: 5, 1: 40}
    assert widths(46, 5, 40) == {0: 5, 1: 39} and widths(35, 5, 40) == {0: 5, 1: 28}
    assert widths(34, 5, 40) == {0: 5} and widths(34, 50, 40) == {0: 34} and widths(0, 5) == {0: 1}
    assert widths(79, 5, 40, 30) == {0: 5, 1: 40, 2: 30}
    assert widths(70, 5, 40, 30) == {0: 5, 1: 31, 2: 30} and widths(66, 5, 40, 30) == {0: 5, 1: 40}
    assert FittedTable(["heading", "漢字"], [[Text("a\nbbbbbbbb"), Text("漢")]]).widths(80) == {0: 8, 1: 4}
    assert FittedTable(["heading"], []).widths(80) == {0: 7}


def test_rows_with_cells_below_them_are_joined_by_dots_while_they_fit() -> None:
    header = ["name", "a", "", "c"]
    row = ["n" * 20, "one", "  ", "x" * 30]
    assert drawn(24, header, [row, ["m", "", "two\n[3, 4]\n", "z"]], right=("name",)) == [
        " " * 16 + "name",
        "─" * 20,
        "n" * 20,
        "  a one",
        "  c",
        "  " + "x" * 22,
        "  " + "x" * 8,
        "",
        " " * 19 + "m",
        "  two [3, 4] · c z",
        "",
    ]
    assert drawn(30, ["n", "a", "c"], [["n" * 29, "1" * 10, "2" * 11]])[2:4] == [
        "n" * 29,
        f"  a {'1' * 10} · c {'2' * 11}",
    ]
    assert drawn(30, ["n", "a", "c"], [["n" * 29, "1" * 10, "2" * 12]])[2:5] == [
        "n" * 29,
        f"  a {'1' * 10}",
        f"  c {'2' * 12}",
    ]
    assert drawn(24, ["n", "a"], [["n" * 23, "1\n\n2\n[3]\n4"]])[2:] == ["n" * 23, "  a 1, 2 [3], 4", ""]
    assert drawn(100, ["n"], [["1\n2\n3"], ["1\n2"]])[2:] == ["1", "2", "3", "", "1", "2"]


def test_a_rule_is_as_wide_as_its_columns_and_plain_where_the_encoding_is() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    out = Ascii()
    Console(file=out, width=40, color_system=None).print(FittedTable(["ab", "c"], [[Text("1"), Text("2")]], ("ab",)))
    assert out.getvalue() == "ab  c\n-----\n 1  2\n"
    rows = [["a", "x", ""], ["bcd", "", ""], ["", "long", "é"]]
    assert drawn(40, ["n", "v", "w"], rows, right=("v",)) == [
        "n       v  w",
        "─" * 12,
        "a       x",
        "bcd",
        "     long  é",
    ], "no line ends in blanks"
    assert broken(Text("aaa/bbbbbb"), 6).plain == "aaa/\nbbbbbb" and broken(Text("a/bbbbbbb"), 7).plain == "a/bbbbb\nbb"
    assert broken(Text("a/bbbbbb"), 6).plain == "a/\nbbbbbb", "after a third of the width or more"


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers of SIGINTs, and the process's handlers afterwards as before."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGURG)}
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    monkeypatch.setattr(interruption, "_received", [])
    monkeypatch.setattr(interruption, "_ends_by_leave", False)
    yield came
    interruption._leaving.clear()
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_first_sigterm_is_a_sigint_a_repeated_one_nothing_and_later_ones_another_and_the_end(
    signals: list[int],
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    interruption.install()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "what handles it already stays"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interruption.install()
    assert signal.getsignal(signal.SIGTERM) is interruption._terminate and not interruption.terminated()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:  # it would end this whole session
        pytest.fail("it did not reach the handler of SIGINT, which may be asyncio's")
    assert signals == [signal.SIGINT] and interruption.terminated()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals == [signal.SIGINT] and len(interruption._received) == 2
    told = []
    signal.signal(signal.SIGURG, lambda *_: told.append(1))
    interruption._received[0] -= interruption.SAME_SIGNAL_S
    interruption._terminate(signal.SIGURG, None)  # whose default is to be ignored
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL and signals == [signal.SIGINT] * 2 and not told
    interruption.exit_at_once()
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_leave_the_signals_alone(signals: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    mine = signal.getsignal(signal.SIGINT)
    done = []
    thread = threading.Thread(target=lambda: done.append((interruption.install(), interruption.exit_at_once())))
    thread.start()
    thread.join()
    assert len(done) == 1 and interruption._ends_by_leave
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and signal.getsignal(signal.SIGINT) is mine


def test_an_interrupted_runner_waits_for_no_thread_and_the_next_is_not_leaving(signals: list[int]) -> None:
    go, done = threading.Event(), []

    async def work(is_interrupted: bool) -> str:
        running = asyncio.get_running_loop().run_in_executor(None, lambda: (go.wait(20), done.append(1)))
        assert any(each.name.startswith("firsthand-asyncio") for each in threading.enumerate())
        if is_interrupted:
            raise KeyboardInterrupt
        threading.Timer(0.02, go.set).start()
        del running
        return "result"

    for ends_by_leave in (False, True):
        interruption._ends_by_leave = ends_by_leave
        with pytest.raises(KeyboardInterrupt):
            interruption.run(work(True))
        assert interruption.leaving() is ends_by_leave and not done
    assert interruption.run(work(False)) == "result"
    assert not interruption.leaving() and done, "threads of a whole run are waited for"


def test_a_process_that_leaves_gives_out_what_it_printed_and_runs_its_exit_handlers() -> None:
    program = (
        "import atexit, os, sys, threading, time, signal\n"
        "atexit.register(lambda: print('end', end=' ', file=sys.stderr))\n"  # after the one of logging, which flushes
        "from firsthand.system import interruption as i\n"
        "codes = []\n"
        "for stream in (open('/dev/full', 'w'), None, open(1, 'w', closefd=False)):\n"
        "    if not (child := os.fork()):\n"
        "        sys.stdout = stream\n"
        "        sys.stderr = open(2, 'w', buffering=99, closefd=False)\n"
        "        print('lost' if stream and stream.name != 1 else '', end='')\n"
        "        print(len(codes), end=' ', file=sys.stderr)\n"
        "        if len(codes) == 2: stream.close()\n"
        "        i.leave(3 + len(codes))\n"
        "    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "assert codes == [3, 4, 5], codes\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "sys.stderr = open(2, 'w', buffering=99, closefd=False)\n"
        "atexit.register(lambda: print('exit', i.leaving(), signal.getsignal(signal.SIGTERM).name, file=sys.stdout))\n"
        "print('out'); print('err', end=' ', file=sys.stderr)\n"
        "i.leave(7)\n"
    )
    words = [sys.executable, "-c", program]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, env=buffered)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        7,
        "out\nexit True SIG_DFL\n",
        "0 end 1 end 2 end err end ",
    ), "a full disk, no stream and a closed one keep neither the code nor the other stream from it"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_begun_without_its_streams_leaves_with_its_code(closed: str) -> None:
    program = (
        "import sys; from firsthand.system import interruption as i; "
        "[print('said', file=each) for each in (sys.stdout, sys.stderr) if each]; i.leave(130)"
    )
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        130, "" if closed.startswith(">") else "said\n", "" if "2>" in closed else "said\n",
    )  # fmt: skip


def test_a_word_that_only_begins_as_a_choice_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termios.tcflush", lambda *_: None)
    for typed, chosen in ((["yonder", "NO"], "no"), (["nope", "y "], "yes"), (["", "yes no", "nn", "y"], None)):
        lines = iter(typed)

        async def line(lines: Iterator[str] = lines) -> str:
            return f"{next(lines)}\n"

        with Path(os.devnull).open() as source:
            there = Terminal(source, io.StringIO())
            monkeypatch.setattr(there, "_line", line)
            assert asyncio.run(there.choose("Go on?", ["yes", "no"])) == chosen
