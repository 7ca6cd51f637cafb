"""A conversation on a terminal: words that are wrapped whole, and what is printed beside the answers."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import pytest

from firsthand.loop.listener import Piece
from firsthand.show.chat_screen import Screen
from firsthand.show.word_wrap import WordWrap
from firsthand.trace import Call

# -- a conversation --


def test_words_are_wrapped_whole_at_the_width_and_wide_characters_anywhere() -> None:
    def wrapped(width: int, *pieces: str) -> list[str]:
        wrap = WordWrap(width)
        return [*(wrap.feed(piece) for piece in pieces), wrap.flush()]

    assert wrapped(10, "one two th", "ree four ") == ["one two", "\nthree four", ""]
    assert wrapped(10, "12345 6789") == ["12345", " 6789"] and wrapped(10, "12345 67890") == ["12345", "\n67890"]
    assert wrapped(4, "abcdefghij") == ["abcd\nefgh", "\nij"], "a word longer than the line is cut"
    assert wrapped(5, "漢字かな") == ["漢字\nかな", ""] and wrapped(5, "a 漢字") == ["a 漢\n字", ""]
    assert wrapped(20, "a\tb  c\nd") == ["a    b  c\n", "d"] and wrapped(0, "ab") == ["a\nb", ""]
    assert wrapped(5, "   abcd") == ["", "   abcd"], "the first word of a line stays on it"
    code = "```\n" + "x " * 9 + "\n```\n"
    assert "".join(wrapped(8, code, "one two three")) == code + "one two\nthree"
    assert "".join(wrapped(8, "  ``` y y y y y\n```\nlong words here")) == "  ``` y y y y y\n```\nlong\nwords\nhere"
    assert "".join(wrapped(8, "a ```b c d e f")) == "a ```b c\nd e f"


def test_on_a_terminal_answers_are_wrapped_and_facts_are_told(capsys: Any) -> None:
    screen = Screen()
    screen.is_terminal = True
    width = screen._out.width
    screen.listen(Piece("1", "w" * (width - 2) + " end"))
    screen.fact("a fact")
    screen.listen(Piece("1", ""))
    screen.note("b" * 600)
    screen.say("said")
    out, err = capsys.readouterr()
    assert out == "w" * (width - 2) + "\nend\nsaid\n" and err.split("\n") == ["a fact", "b" * 500, ""]
    assert not screen._is_open


def test_an_answer_begins_at_the_left_edge_and_is_timed_from_its_first_piece_to_its_end(capsys: Any) -> None:
    screen = Screen()
    screen.is_terminal = True
    width = screen._out.width
    screen.listen(Piece("1", "v" * (width - 5)))
    screen.end_line()
    screen.listen(Piece("2", "```\nabcdef ghij"))
    screen._first_s["2"] -= 5.0
    screen.listen(Piece("2", " "))
    screen.end_line()
    screen.listen(Piece("3", "abcdef ghij"))
    assert screen._wrap is not None
    screen.end_line()
    assert screen._wrap is None, "what was a block of code before is none now"
    assert capsys.readouterr().out == "v" * (width - 5) + "\n```\nabcdef ghij \nabcdef ghij\n"
    assert screen.writing_s == 0.0
    for id in ("2", "2", "unknown"):
        screen.listen(Call(id, "generate", None, 0.0, 1.0, ""))
    assert 5.0 <= screen.writing_s < 6.0 and sorted(screen._first_s) == ["1", "3"]


class Stream(io.StringIO):
    """A terminal or a pipe; keeps what had been written at each flush."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal
        self.flushed: list[str] = []

    def isatty(self) -> bool:
        return self.is_terminal

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


def test_a_screen_is_a_terminal_where_a_person_reads_and_types(monkeypatch: pytest.MonkeyPatch) -> None:
    for read, written in itertools.product((None, False, True), (False, True)):
        monkeypatch.setattr(sys, "stdin", None if read is None else Stream(read))
        monkeypatch.setattr(sys, "stdout", Stream(written))
        screen = Screen()
        assert screen.is_terminal is (read is True and written), (read, written)
        screen.listen(Piece("1", "an answer"))
        screen.say("said")


def test_an_answer_in_a_pipe_is_written_as_it_came_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out, err = Stream(False), Stream(False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    screen = Screen()
    pieces = ["[bold]many[/bold] words " * 20, "x" * 300, " :smile: `code`\n", "", "  \x1b[2Jend"]
    written = ""
    for piece in pieces:
        screen.listen(Piece("1", piece))
        written += piece.replace("\x1b", "\\x1b")
        assert out.getvalue() == written == out.flushed[-1]
    screen.end_line()
    screen.end_line()
    screen.say("said " * 60)
    assert out.getvalue() == f"{written}\n{'said ' * 60}\n"
    screen.note("note\n" * 30)
    screen.note("n" * 501)
    screen.fact("for a person alone")
    screen.complain(ValueError("word\n" * 60))
    assert err.getvalue().split("\n") == [
        " ".join(["note"] * 30), "n" * 500, f"firsthand: {' '.join(['word'] * 60)}", "",
    ]  # fmt: skip
