"""Line breaks of stacked characters, and marks of raised and lowered digits, of PDF pages."""

from __future__ import annotations

import importlib.util

import pytest

from test_pdf_lines import TURNS, drawn, lines, text_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)


def shifted(before: str, shift: float, digits: str, after: str = "", size: int = 7, x: int = 50) -> str:
    """A line whose `digits` are drawn in this size and shifted up by `shift` points; the rest in 12 points."""
    return f"BT /F 12 Tf {x} 560 Td ({before}) Tj /F {size} Tf {shift} Ts ({digits}) Tj /F 12 Tf 0 Ts ({after}) Tj ET\n"


@pytest.mark.parametrize("rotate", TURNS)
@pytest.mark.parametrize("turn", TURNS)
def test_stacked_single_digits_stay_apart(turn: int, rotate: int) -> None:
    assert text_of(drawn(lines("5", "3", "4"), turn), rotate).split("\n") == ["5", "3", "4"]
    columns = lines("Team", "Alpha", "Beta", "Gamma") + lines("Score", "5", "3", "4", x=150)
    assert "534" not in text_of(drawn(columns, turn), rotate)
    rows = [(50, 560, "Item"), (150, 560, "2023"), (50, 540, "A"), (150, 540, "1")]
    assert text_of(drawn(rows, turn), rotate).split("\n") == ["Item 2023", "A 1"]


def test_stacked_digits_stay_apart_where_the_edge_cuts_a_line() -> None:
    page = drawn([(595, 600, "99999"), *lines("5", "3", "4")])
    assert text_of(page).split("\n")[-3:] == ["5", "3", "4"]


def test_lines_that_stand_close_stay_apart() -> None:
    close = "".join(f"BT /F 12 Tf 50 {560 - 10 * at} Td ({digit}) Tj ET\n" for at, digit in enumerate("534"))
    assert text_of(close).split("\n") == ["5", "3", "4"]


def test_wide_characters_that_are_written_downwards_stay_one_line() -> None:
    assert text_of(drawn(lines("A", "A", "A")), map_to="4E2D") == "\u4e2d\u4e2d\u4e2d"


def test_slanted_letters_far_apart_are_one_line() -> None:
    slanted = "".join(f"BT /F 12 Tf 1 0 0.34 1 {x} 560 Tm ({text}) Tj ET\n" for x, text in ((50, "12"), (400, "34")))
    assert text_of(slanted) == "12 34"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (shifted("10", 5, "6"), "10^6"),
        (shifted("10", 5, "12"), "10^12"),
        (shifted("10", 5, "-3"), "10^-3"),
        (shifted("10", 3, "3", size=12), "10^3"),
        (shifted("10", -3, "2"), "10_2"),
        (shifted("H", -3, "2", "O"), "H2O"),
        (shifted("1", 5, "st"), "1st"),
        (shifted("10", 0, "6"), "106"),
        (shifted("10", 1, "6", size=12), "106"),
        ("BT /F 1 Tf 12 0 0 12 50 560 Tm (10) Tj 7 0 0 7 63.4 564 Tm (6) Tj ET\n", "10^6"),
    ],
)
def test_raised_and_lowered_digits_are_marked(page: str, expected: str) -> None:
    assert "".join(text_of(page).split()) == expected


def test_raised_digits_are_marked_where_the_edge_cuts_a_line() -> None:
    page = drawn(lines("one more line", y=700)) + shifted("10", 5, "6") + drawn([(595, 500, "99999")])
    assert "10^6" in text_of(page).split("\n")


@pytest.mark.parametrize("turn", TURNS)
def test_raised_digits_are_apart_in_all_directions(turn: int) -> None:
    matrix, place = TURNS[turn]
    x, y = place(50, 560)
    page = f"BT /F 12 Tf {matrix} {x} {y} Tm (is 10) Tj /F 7 Tf 5 Ts (6) Tj ET\n"
    assert text_of(page) in ("is 10^6", "is 10\n6")  # PDFium breaks lines that are not upright itself


def test_a_raised_digit_before_a_number_is_apart_from_it() -> None:
    assert text_of(shifted("", 5, "6", "10")).split() == ["6", "10"]
    assert text_of(shifted("", 2, "6", "10")).split() == ["6", "10"]


def test_the_signs_that_stand_for_marks_are_blanks_in_a_document() -> None:
    assert text_of(drawn([(50, 560, "1A2")]) + drawn(lines("5", "3", y=500)), map_to="001E").split() == [
        "1",
        "2",
        "5",
        "3",
    ]
