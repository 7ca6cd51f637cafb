"""Answers that are no arithmetic are compared as written: times, dates, scores, words, matrix and cross products."""

from __future__ import annotations

import pytest

from firsthand.scorers.symbolic import comparison

TIME = "A train leaves at noon. At what time does it arrive?"
RATIO = "What is the ratio of boys to girls?"
MATRICES = "What is the inverse of the product $AB$ of two matrices?"
CROSS = "Which is the cross product of the two vectors?"


def right(answer: str, reference: str, question: str | None) -> bool:
    return comparison(answer, reference, question)[0]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("5:30\\text{ PM}", "\\text{5:30 p.m.}"),
        ("5{:}30 p.m.", "5:30 PM"),
        ("17:30", "5:30 p.m."),
        ("5:30 PM", "17:30"),
        ("0:15", "12:15 a.m."),
        ("12:15", "12:15"),
        ("04:00", "4:00"),
        ("4\\text{ p.m.}", "4:00\\text{ PM}"),
        ("4 PM", "4:00 PM"),
        ("12:00\\text{ noon}", "12:00 p.m."),
        ("x = 5:30", "5:30"),
        ("1:30:00", "1:30:00"),
        ("24:00", "24:00"),
        ("4:00 o'clock", "4:00"),
        ("12 midnight", "12:00 a.m."),
        ("13:05", "\\text{1:05 PM}"),
    ],
)
def test_one_time_of_day_in_two_spellings_is_the_same(answer: str, reference: str) -> None:
    assert right(answer, reference, TIME) and right(reference, answer, TIME)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("2:00", "4:00"),
        ("11:00", "4:00"),
        ("5:15", "10:30"),
        ("5:00 PM", "3:00 PM"),
        ("4:00 AM", "4:00 PM"),
        ("\\text{1:03 MP}", "\\text{1:03 PM}"),
        ("5:30", "17:30"),
        ("2 p.m.", "4 p.m."),
        ("2 pm", "4 pm"),
        ("4:00 PM", "16:01"),
        ("3:00:00", "1:30:00"),
        ("12:30 PM", "0:30"),
        ("10:30", "1/3"),
        ("5:30:10", "5:30"),
        ("2:24", "1:12"),
        ("\\text{2 pm}", "\\text{4 pm}"),
    ],
)
def test_another_time_of_day_is_wrong(answer: str, reference: str) -> None:
    for question in (TIME, None, "The ratio of speeds is 2. When does it arrive?"):
        assert not right(answer, reference, question) and not right(reference, answer, question)


@pytest.mark.parametrize(
    ("question", "same"),
    [
        (TIME, False),
        (None, False),
        ("I am late. When does it arrive?", False),
        ("It leaves at 3:00 p.m. When does it arrive?", True),
        ("It leaves at 3:00 P. M. When does it arrive?", True),
        ("It leaves at 3 PM. When does it arrive?", True),
        ("It leaves at 9 a.m. When does it arrive?", False),
        ("It leaves at 9am, not 9pm. When does it arrive?", False),
        ("It leaves at 9 am, not 9pm. When does it arrive?", False),
        ("It leaves the 3pmx. When does it arrive?", False),
    ],
)
def test_an_answer_may_add_the_half_of_the_day_and_omit_it_where_the_question_speaks_of_no_other(
    question: str | None, same: bool
) -> None:
    assert right("4:30 p.m.", "4:30", question) and right("12:15 a.m.", "12:15", question)
    assert right("4:30", "4:30 p.m.", question) is same and not right("4:30", "4:30 a.m.", TIME)
    assert not right("4:31", "4:30 p.m.", question) and not right("16:00 AM", "16:00", question)
    assert not right("4:30 a.m.", "4:30 p.m.", question) and not right("4:31 p.m.", "4:30", question)


def test_morning_is_told_by_the_question_too() -> None:
    for said in ("9 am", "9am", "9 a.m.", "9:00 A. M."):
        assert right("10:30", "10:30 a.m.", f"It leaves at {said} and arrives when?")
        assert not right("10:30", "10:30 p.m.", f"It leaves at {said} and arrives when?")


@pytest.mark.parametrize("question", ["Find AB:BC.", "Find $3x:2y$.", "Find a:b."])
def test_letters_with_a_colon_ask_for_a_ratio(question: str) -> None:
    assert right("6:20", "3:10", question) and right("2:3", "10:15", question)


def test_a_format_of_times_asks_for_no_ratio() -> None:
    for question in ("How long, in h:mm?", "How long, in m:ss?"):
        assert not right("6:20", "3:10", question) and right("3:10:00", "3:10", question)


def test_what_is_no_time_or_date_is_calculated() -> None:
    assert right("1:12", "5:60", None) and right("1:59:00", "1:59", TIME) and not right("25:30:00", "25:30", TIME)
    assert right("16:30:10", "4:30:10 p.m.", TIME) and not right("16:30:10", "4:30:20 p.m.", TIME)
    assert right("-2015", "5/1-2020", "?") and right("1008", "2020/2-2", "?") and not right("10-2-3", "10-3-2", "?")


def test_a_span_may_have_a_long_dash_or_a_unit() -> None:
    assert right("3--2", "3-2", "?") and right("3-2", "3 -- 2", "?") and not right("3--1", "3-2", "?")
    assert right("10-12 hours", "10-12", "How many hours?") and right("10-12\\text{ hours}", "10-12", None)
    assert not right("10-12 miles", "10-12", "How many hours?") and not right("10-14 hours", "10-12", "How many hours?")


def test_two_numbers_with_a_colon_are_a_ratio_where_one_is_asked_for() -> None:
    assert right("5:10", "10:20", RATIO) and right("2:4", "1:2", RATIO) and right("2:4", "1:2", "Find $a:b$.")
    assert not right("10:60", "5:30", "?") and not right("48:24", "24:12", "?")
    assert right("2:4", "1:2", None) and right("2:4", "1:2", "Find the value.") and right("10:30", "1:3", None)
    assert not right("5:10", "10:20", "Find it.") and not right("20:10", "10:20", RATIO)
    assert not right("3:1", "6:2", "What was the final score of the set?") and right("6:2", "6:2", "the score")
    assert not right("3:1", "6:2", "The ratio is odd. What was the final score?")
    assert right("2xy", "2yx", "Find $xy$.") and right("2pm", "2mp", "Find $m$ and $p$.")


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("2020-05-01", "2020-01-05", False),
        ("2020-1-5", "2020-01-05", True),
        ("2/4/2020", "1/2/2020", False),
        ("01/02/2020", "1/2/2020", True),
        ("5.1.2020", "1.5.2020", False),
        ("2020-01-05", "2014", False),
        ("4-3", "3-2", False),
        ("3 - 2", "3-2", True),
        ("3 to 2", "3-2", True),
        ("3–2", "3-2", True),
        ("10-12", "3-5", False),
        ("1", "3-2", False),
        ("556-1235", "555-1234", False),
        ("3-2", "1", True),
        ("2^4-1", "15", True),
        ("2014", "2020-01-05", False),
        ("1/2", "2/4", True),
        ("555-134", "555-0134", False),
    ],
)
def test_dates_scores_and_spans_are_compared_part_by_part(answer: str, reference: str, same: bool) -> None:
    for question in ("Which is it?", None):
        assert right(answer, reference, question) is same


@pytest.mark.parametrize(
    ("answer", "reference", "question", "same"),
    [
        ("THH", "HHT", "What is it?", False),
        ("\\text{hht}", "HHT", "What is it?", True),
        ("saw", "was", "What is it?", False),
        ("god", "dog", "What is it?", False),
        ("ATG", "GTA", "What is it?", False),
        ("TH", "HT", "H or T: which outcome?", False),
        ("BAD", "DAB", "Which word?", False),
        ("qp", "pq", "Which outcome has $p$ and $q$?", True),
        ("CO", "OC", "?", False),
        ("nm", "mn", "Let m and n be odd.", True),
        ("nm", "mn", "Let m be odd.", False),
        ("nm", "mn", "mn = 4, so?", True),
        ("nm", "mn", "Take \\(mn\\).", True),
        ("nm", "mn", "Take \\[mn\\].", True),
        ("nm", "mn", None, True),
        ("CBA", "BAC", "?", True),
        ("yx", "xy", "?", True),
        ("m^2n", "mn m", "Let $m, n$ be odd.", False),
        ("HT, TH", "TH, HT", "Which outcomes?", True),
        ("TH, TH", "TH, HT", "Which outcomes?", False),
        ("5R2", "2R5", "?", False),
        ("5r2", "5r2", "?", True),
        ("D3", "3D", "?", False),
        ("OH_2", "H_2O", "?", False),
        ("F, T, T", "T, T, F", "?", False),
        ("true, false", "false, true", "?", False),
        ("yes, no", "no, yes", "?", False),
        ("no, yes", "no, yes", "?", True),
        ("b, a", "a, b", "?", True),
        ("T,F", "\\text{T}, F", "?", True),
        ("mn", "\\text{mn}", "?", True),
        ("nm", "mn", "\\text{mn}", False),
        ("bB", "Bb", "?", False),
        ("nm", "mn", "2mn?", True),
        ("nm", "mn", "4 = mn?", True),
        ("n, y", "y, n", "?", False),
        ("QP", "PQ", "In triangle PQR, which side is longest?", True),
        ("QP", "PQ", "In triangle RST, which side is longest?", False),
        ("QP", "PQ", "Which word of PQR?", False),
        ("xe", "ex", "?", True),
        ("hgm", "mgh", "It has mass m at height h.", True),
        ("hgm", "mgh", "It has mass m.", False),
        ("QP", "PQ", "Which word has the side PQ?", False),
    ],
)
def test_letters_in_a_row_are_a_word_unless_the_question_gives_them(
    answer: str, reference: str, question: str | None, same: bool
) -> None:
    assert right(answer, reference, question) is same


@pytest.mark.parametrize(
    ("answer", "reference", "question", "same"),
    [
        ("A^{-1}B^{-1}", "B^{-1}A^{-1}", MATRICES, False),
        ("(AB)^{-1}", "B^{-1}A^{-1}", MATRICES, True),
        ("A^TB^T", "B^TA^T", MATRICES, False),
        ("(AB)^T", "B^TA^T", MATRICES, True),
        ("P^{-1}AP", "PAP^{-1}", MATRICES, False),
        ("A^2+2AB+B^2", "A^2+AB+BA+B^2", MATRICES, False),
        ("(A+B)^2", "A^2+AB+BA+B^2", MATRICES, True),
        ("A^2-B^2", "(A-B)(A+B)", MATRICES, False),
        ("3B+2A", "2A+3B", MATRICES, True),
        ("\\frac{AB}{2}", "0.5AB", MATRICES, True),
        ("AIB", "AB", MATRICES, True),
        ("kAB", "AkB", MATRICES, True),
        ("A^{2}B^{0}", "AB^0A", MATRICES, True),
        ("\\frac{A}{B}", "A B^{-1}", MATRICES, False),
        ("A+1B", "A+B", MATRICES, True),
        ("A+B+1", "1+A+B", MATRICES, True),
        ("AB+1", "1+BA", MATRICES, False),
        ("1+BB^{-1}A", "I+A", MATRICES, True),
        ("k^2AB", "kA kB", MATRICES, True),
        ("AB^{21}", "AB^{20}B", MATRICES, False),
        ("v \\times u", "u \\times v", CROSS, False),
        ("-v \\times u", "u \\times v", CROSS, True),
        ("2v\\times u", "u\\times 2v", CROSS, False),
        ("-2v\\times u", "u\\times 2v", CROSS, True),
        ("v \\cdot u", "u \\cdot v", CROSS + " $u, v$", True),
        ("v\\times u", "u\\times v", "Let $u, v$ be numbers.", True),
        ("b\\times c\\cdot a", "a\\cdot b\\times c", CROSS + " $a, b, c$", True),
        ("BA", "AB", "Let $A, B$ be numbers.", True),
        ("qp", "pq", MATRICES + " $p, q$", True),
        ("A-B", "B-A", MATRICES, False),
        ("B^{-2}A", "B^{-1}B^{-1}A", MATRICES, True),
        ("\\frac{A}{C+B}", "\\frac{A}{B+C}", MATRICES, True),
        ("\\frac{B}{C+A}", "\\frac{A}{B+C}", MATRICES, False),
        ("|B||A|", "|A||B|", MATRICES, True),
        ("|v\\times u|", "|u\\times v|", CROSS, True),
        ("q(v\\times B)", "qv\\times B", CROSS + " $q, v, B$", True),
        ("q v\\times B", "q(v\\times B)", CROSS + " $q, v, B$", True),
        ("\\vec{v} \\times \\vec{u}", "\\vec{u} \\times \\vec{v}", CROSS, False),
        ("-\\mathbf{v}\\times \\mathbf{u}", "\\mathbf{u}\\times \\mathbf{v}", CROSS, True),
        ("v×u", "u×v", CROSS, False),
    ],
)
def test_the_factors_of_matrix_and_cross_products_keep_their_order(
    answer: str, reference: str, question: str, same: bool
) -> None:
    assert right(answer, reference, question) is same


def test_a_column_vector_may_be_written_as_a_tuple_and_base_ten_may_be_left_out() -> None:
    column = "\\begin{pmatrix}1\\\\2\\end{pmatrix}"
    assert (
        right("(1, 2)", column, "?") and right("\\langle 1,2\\rangle", column, "?") and not right("(2, 1)", column, "?")
    )
    assert not right("(1, 3)", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "?")
    assert not right("(1, 2)", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "?")
    assert right("21_{10}", "21", "?") and right("21", "21_{10}", "?") and not right("21_8", "21", "?")
    assert not right("21_{16}", "21", "?") and right("x 2", "2x", "?")


@pytest.mark.parametrize(
    ("answer", "question", "same"),
    [
        ("60\\text{ miles}", "He drives 60 miles. How many hours?", False),
        ("60\\text{ hours}", "How many miles?", False),
        ("60\\text{ hours}", "He drives 60 miles. How many hours?", True),
        ("60\\text{ minutes}", "Take 5 minutes. How many hours?", False),
        ("60\\text{ cm}", "Give the area in square centimeters.", False),
        ("60\\text{ cm}^2", "Give the area in square centimeters.", True),
        ("60\\text{ cm}", "What is the area?", False),
        ("60\\text{ cm}^2", "What is the area?", True),
        ("60\\text{ cm}", "Find the total volume.", False),
        ("60\\text{ cm}^3", "Find the total volume.", True),
        ("60\\text{ square units}", "What is the area?", True),
        ("60\\text{ m}", "How long?", True),
        ("60\\text{ mph}", "How many miles does he drive per hour?", True),
        ("60\\text{ mph}", "How many miles an hour?", True),
        ("60\\text{ dollars}", "How many dollars for 3 hours?", True),
        ("60\\text{ ft}", "Give it in ft^2.", False),
        ("60\\text{ hours}", "How many dozen hours?", True),
    ],
)
def test_a_unit_of_another_measure_than_the_one_asked_for_is_wrong(answer: str, question: str, same: bool) -> None:
    assert right(answer, "60", question) is same
