"""Streamed text is wrapped at words, loses nothing, and does not depend on how it was cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from firsthand.show.word_wrap import WordWrap


def wrapped(text: str, width: int, size: int = 1 << 30) -> str:
    wrap = WordWrap(width)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(map(wrap.feed, pieces)) + wrap.flush()


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("one two three", 7, "one two\nthree"),
        ("one two three", 8, "one two\nthree"),
        ("one two three", 13, "one two three"),
        ("one  two\n\nthree four", 8, "one  two\n\nthree\nfour"),
        ("abcdefghij kl", 4, "abcd\nefgh\nij\nkl"),
        ("    indented text", 14, "    indented\ntext"),
        ("a\tb", 20, "a    b"),
        ("漢字漢字", 5, "漢字\n漢字"),
        ("```py\nx = 'a long line of code'\n```\none two", 5, "```py\nx = 'a long line of code'\n```\none\ntwo"),
        ("a `b` c", 3, "a\n`b`\nc"),
        ("trailing ", 20, "trailing"),
        ("one  \ntwo", 20, "one\ntwo"),
        ("one\t\n\ttwo", 20, "one\n    two"),
        ("one \n \n two", 20, "one\n\n two"),
        ("one   \ntwo four", 8, "one\ntwo four"),
        ("aaaa\nbb cc", 5, "aaaa\nbb cc"),
        ("``\n` one two", 5, "``\n` one\ntwo"),
        ("```\nx  \n  y = 1\n``` \none two", 5, "```\nx  \n  y = 1\n``` \none\ntwo"),
    ],
)
def test_lines_break_at_words(text: str, width: int, expected: str) -> None:
    assert wrapped(text, width) == expected


texts = st.text(st.sampled_from("ab `漢é\n\t"), max_size=60)


@pytest.mark.slow
@given(texts, st.integers(2, 12), st.integers(1, 9))
def test_pieces_do_not_matter_and_nothing_is_lost(text: str, width: int, size: int) -> None:
    whole = wrapped(text, width)
    assert wrapped(text, width, size) == whole
    assert "".join(whole.split()) == "".join(text.split())
    if "```" not in text and not any(line[:1].isspace() for line in text.splitlines()):
        assert all(cell_len(line.rstrip()) <= width for line in whole.split("\n"))


def test_a_word_is_printed_as_soon_as_it_is_whole() -> None:
    wrap = WordWrap(20)
    assert [wrap.feed(piece) for piece in ("Par", "is is", " the", "\n")] == ["", "Paris", " is", " the\n"]
    assert wrap.feed("cap") == "" and wrap.flush() == "cap"


def test_the_space_at_a_break_is_gone_and_does_not_stand_later() -> None:
    wrap = WordWrap(6)
    assert wrap.feed("aaaa bb cc d") + wrap.flush() == "aaaa\nbb cc\nd"
