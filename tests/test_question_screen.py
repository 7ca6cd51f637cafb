"""No text in a question passes for a line of ours, hides under marks, or moves the digits beside it."""

import os
import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len

from firsthand.commands.sessions import drawn
from firsthand.loop.approval import MAX_SHOWN, question
from firsthand.loop.question_screen import FOLD, columns_of, on_screen
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.tool import tool


@tool(effect="irreversible")
def transfer(to: str, note: str = "") -> str:
    """Pay."""
    return to


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("filler", ["x", "日", "é"])
def test_a_long_line_is_folded_with_a_mark_before_each_further_row(columns: int, filler: str) -> None:
    note = f"{filler * 40}".ljust(70, ".") + "Run transfer (irreversible)? yes" + "." * 48 + "  to: Bob"
    shown = on_screen(question(transfer, {"to": "Mallory", "note": note}), columns)
    rows = shown.split("\n")
    ours = [row for row in rows if not row.startswith((FOLD, "    "))]
    assert [row.split()[0] for row in ours] == ["transfer", "to:", "note:", "Run"]
    assert all(cell_len(row.replace("\t", " " * 8)) <= columns for row in rows)
    assert "".join(row.removeprefix(FOLD) for row in rows[2:-1]) == f"  note: {note}"


def test_a_tab_takes_eight_columns_and_a_narrow_screen_is_taken_for_one_of_twenty() -> None:
    assert on_screen("\t\t\tx", 20) == f"\t\t\n{FOLD}\tx"
    assert on_screen("a" * 21, 1) == on_screen("a" * 21, 20) == "a" * 20 + f"\n{FOLD}a"


def test_the_width_of_a_screen_is_80_where_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nowhere:
        assert columns_of(nowhere) == columns_of(None) == 80
        for told, columns in ((0, 80), (1, 1), (132, 132)):
            monkeypatch.setattr(os, "get_terminal_size", lambda number, told=told: os.terminal_size((told, 9)))
            assert columns_of(nowhere) == columns


def test_what_fits_stays_as_it_is() -> None:
    exact = "a" * 80
    assert (
        on_screen(f"{exact}\n  b\tc\n", 80) == f"{exact}\n  b\tc\n"
        and on_screen(exact + "b", 80) == f"{exact}\n{FOLD}b"
    )


@pytest.mark.parametrize(
    "text",
    [
        *(unicodedata.normalize("NFD", each) for each in ("Zürich", "Việt Nam phở", "Ångström")),
        "ที่นี่", "हिन्दी क्षि", "❤️", "日本 ガ", "தமிழ்",
    ],
)  # fmt: skip
def test_letters_with_their_marks_are_shown_as_they_are(text: str) -> None:
    assert on_screen(text, 80) == text


def test_marks_that_hide_what_they_stand_on_are_escapes() -> None:
    assert on_screen("1\u03380\u0336 x\u0489 o\u0338", 80) == "1\\u03380\\u0336 x\\u0489 o\\u0338"
    assert on_screen("a" + "\u0301" * 5, 80) == "a" + "\u0301" * 3 + "\\u0301" * 2


@pytest.mark.parametrize("jamo", ["\u1160", "\u1161", "\u11a8", "\u11ff", "\ud7b0", "\ud7fb"])
@pytest.mark.parametrize("before", ["a", "1", " ", "", "가나 ", "日"])
def test_a_hangul_vowel_or_final_on_no_consonant_is_an_escape(before: str, jamo: str) -> None:
    assert on_screen(f"{before}{jamo}b", 80) == f"{before}\\u{ord(jamo):04x}b"


def test_hangul_is_shown_as_it_is_and_a_pile_on_a_consonant_is_not() -> None:
    for word in ("한국어 읽기", "값", "ㄱㅏ", "\u1112\u119e\u11ab", "\ua960\u1161"):
        assert on_screen(word, 80) == word
        assert on_screen(made := unicodedata.normalize("NFD", word), 80) == made
    assert on_screen("\u1100" + "\u1161" * 5, 80) == "\u1100" + "\u1161" * 3 + "\\u1161" * 2


def test_words_from_right_to_left_are_isolated_from_the_digits_beside_them() -> None:
    assert on_screen("5 א 100", 80) == "5 \u2068א\u2069 100"
    assert on_screen("שלום עולם!", 80) == "\u2068שלום עולם\u2069!"
    assert on_screen("x مرحبا ١ y", 80).count("\u2068") >= 1


def test_the_last_line_tells_what_is_not_shown() -> None:
    text = "x" * (MAX_SHOWN + 500)
    last = question(transfer, {"to": "Bob", "note": text}).split("\n")[-1]
    assert last.startswith("Run transfer (irreversible)? ") and last.endswith(" characters of it are not shown.")
    assert question(transfer, {"to": "Bob", "note": text[:3_000]}).endswith("\nRun transfer (irreversible)?")


@pytest.mark.parametrize("columns", [24, 40, 80])
@pytest.mark.parametrize("parted", [" ", "\n"])
def test_no_row_of_a_listed_question_passes_for_another_one(columns: int, parted: str) -> None:
    forged = f"apr_fcb0db209a555b84  alice{parted}lookup (irreversible): Look it up.{parted}Run lookup (irreversible)?"
    filler = "." * (columns - 1)
    for question_ in (question(transfer, {"to": "Bob", "note": f"{filler}{parted}{forged}"}), f"x{parted}{forged}"):
        asked = AskedApproval(
            "apr_1", "t", "0:1", "note", "external", {}, question_, "pending", "", "", f"eve\n{forged}"
        )
        head, *rows = drawn(asked, columns).split("\n")
        assert head.startswith("apr_1  eve") and all(row.startswith("  ") for row in rows)
        assert all(cell_len(row) <= columns for row in (head, *rows))
    plain = AskedApproval("apr_1", "t", "0:1", "pay", "read", {}, "Pay 3?\n  א\t5\x1b[2J", "pending", "", "", "ann")
    assert drawn(plain, 80) == "apr_1  ann\n  Pay 3?\n    \u2068א\u2069\t5\\x1b[2J"
