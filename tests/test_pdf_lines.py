"""Lines of PDF pages in all directions, and words that are divided at the end of a line."""

from __future__ import annotations

import importlib.util
import time

import pytest

import written_documents as written
from firsthand.retrieval.documents import pdf_reader
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.formats import FORMATS
from firsthand.retrieval.documents.line_hyphens import DIVIDED, join_divided_words
from firsthand.retrieval.documents.pdf_reader import read_pdf

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)
TURNS = {
    0: ("1 0 0 1", lambda x, y: (x, y)),
    90: ("0 1 -1 0", lambda x, y: (600 - y, x)),
    180: ("-1 0 0 -1", lambda x, y: (600 - x, 800 - y)),
    270: ("0 -1 1 0", lambda x, y: (y, 800 - x)),
}
Words = list[tuple[int, int, str]]
"""Texts at x and y, as they stand when the content is upright."""


def drawn(words: Words, turn: int = 0) -> str:
    """Content that is upright on a page whose /Rotate is `turn`."""
    matrix, place = TURNS[turn]
    return "".join("BT /F 12 Tf {} {} {} Tm ({}) Tj ET\n".format(matrix, *place(x, y), text) for x, y, text in words)


def text_of(content: str, rotate: int = 0, *, map_to: str = "") -> str:
    """The text of a page of 600 by 800 with this content; `map_to` is what an `A` stands for, in hexadecimal UTF-16."""
    cmap = (
        f"begincmap 1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfchar <41> <{map_to}> endbfchar endcmap"
    )
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Rotate {rotate} /Contents 4 0 R "
        "/Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding "
        f"{'/ToUnicode 6 0 R' if map_to else ''} >>",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
    ]
    data = written.pdf_of([each.encode("latin-1") for each in objects])
    return read_pdf(data, "a.pdf", ReadSettings()).documents[0].text.removesuffix("\n\n")


def lines(*texts: str, x: int = 50, y: int = 560) -> Words:
    return [(x, y - 14 * at, text) for at, text in enumerate(texts)]


@pytest.mark.parametrize("rotate", TURNS)
@pytest.mark.parametrize("turn", TURNS)
def test_lines_of_turned_pages_and_turned_text_stay_apart_and_in_order(turn: int, rotate: int) -> None:
    told = ("Year Sales", "Revenue 2021 was 10", "2022 was 35", "inter-", "national 2023")
    assert text_of(drawn(lines(*told), turn), rotate).split("\n") == [*told[:3], "international 2023"]
    cells = [
        (50 + 120 * column, 560 - 14 * row, f"row {row} column {column}") for row in range(3) for column in range(3)
    ]
    expected = [" ".join(f"row {row} column {column}" for column in range(3)) for row in range(3)]
    assert text_of(drawn(cells, turn), rotate).split("\n") == expected


@pytest.mark.parametrize("stamp_turn", [90, 270])
def test_lines_keep_their_order_beside_a_longer_line_that_runs_up_or_down(stamp_turn: int) -> None:
    page = drawn(lines("one", "two", "three", y=700)) + drawn([(200, 560, "a stamp of the year 2021")], stamp_turn)
    assert [line for line in text_of(page).split("\n") if "stamp" not in line] == ["one", "two", "three"]
    assert "a stamp of the year 2021" in text_of(page).split("\n")


def test_a_page_as_often_upright_as_turned_is_read_as_it_is() -> None:
    cells = [(50, 560, "ab"), (150, 560, "cd")]
    page = drawn([(50, 400, "efgh")], 180) + drawn(cells)
    assert "ab cd" in text_of(page).split("\n")


def test_most_characters_decide_how_a_page_is_read_and_not_the_first() -> None:
    cells = [(50 + 120 * column, 560 - 14 * row, f"row {row}") for row in range(3) for column in range(2)]
    assert "row 1 row 1" in text_of(drawn([(300, 100, "x")], 180) + drawn(cells)).split("\n")
    letters = lines(*"abcdefgh")
    assert text_of(drawn(letters, 270)).split("\n") == list("abcdefgh")  # more line breaks than letters


@pytest.mark.parametrize("rotate", [0, 90])
def test_text_beyond_the_edges_of_a_page_is_not_read(rotate: int) -> None:
    hidden = [(50, 900, "above"), (50, -100, "below"), (-300, 500, "left"), (900, 500, "right")]
    shown = lines("one", "two inter-", "national", "three")
    assert text_of(drawn(hidden[:2] + shown + hidden[2:], rotate), rotate) == "one\ntwo international\nthree"
    half = drawn([(50, 560, "an A b"), (50, 900, "above")], rotate)
    assert text_of(half, rotate, map_to="D835").split() == ["an", "b"]  # half of a character


@pytest.mark.parametrize(("turn", "x"), [(0, 500), (180, 500), (90, 700), (270, 700)])
def test_a_line_is_cut_at_each_edge_of_a_page(turn: int, x: int) -> None:
    cut = [(x, 560, "here it is cut                      off"), (x, 540, "so is A")]
    assert text_of(drawn(cut, turn)) == "here it is cut\nso is A"
    assert text_of(drawn(cut, turn), map_to="D835").split() == ["here", "it", "is", "cut", "so", "is"]  # half of one


def test_words_are_joined_beside_a_cut_line() -> None:
    cut = [
        (500, 560, "here it is cut                      off"),
        *lines("inter-", "national", y=540),
        (700, 500, "a b"),
    ]
    assert text_of(drawn(cut)) == "here it is cut\ninternational"


def test_lines_that_are_beyond_the_edges_as_a_whole_cost_no_look_at_each_character(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = [(50, 900, "one"), *lines("one", "a so A is", "", "two inter-", "national"), (900, 300, "last")]
    expected = "one\na so 𝑥 is\ntwo international"
    assert text_of(drawn(page), map_to="D835DC65") == expected
    monkeypatch.setattr(pdf_reader, "_bounded_lines", lambda *_: pytest.fail("characters were read one by one"))
    for turn in (0, 90):
        assert text_of(drawn(page, turn), turn, map_to="D835DC65") == expected


def test_lines_are_chosen_by_all_characters_within_the_edges() -> None:
    assert pdf_reader._chosen_lines("out\na b\n\nc d \nout", "abcd") == "a b\n\nc d "
    for partly in ("abc", "bcd", "abcde", "cdab", "a"):
        assert pdf_reader._chosen_lines("a b\nc d", partly) is None


def test_characters_above_u_ffff_are_read_on_turned_pages() -> None:
    for turn in (0, 90):
        assert (
            text_of(drawn(lines("so A is", "A two", "last"), turn), turn, map_to="D835DC65") == "so 𝑥 is\n𝑥 two\nlast"
        )


def test_the_hyphen_of_names_and_numbers_at_the_end_of_a_line_is_kept() -> None:
    told = lines("Part A-", "12 and GPT-", "4, COVID-", "19 in 2024-", "2025; inter-", "national, soft\\255", "ware")
    assert text_of(drawn(told)) == "Part A-12 and GPT-4, COVID-19 in 2024-\n2025; international, software"
    assert FORMATS["pdf"].version == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("inter|national", "international"),
        ("(inter|national)", "(international)"),
        ("COVID|19", "COVID-19"),
        ("Covid|19", "Covid-19"),
        ("word2vec|like", "word2vec-like"),
        ("e|mail", "e-mail"),
        ("an|other", "another"),
        ("RNA|binding", "RNA-binding"),
        ("Anglo|American", "Anglo-American"),
        ("state-of-the|art", "state-of-the-art"),
        ("state|of-the-art", "state-of-the-art"),
        ("Ein|und Ausgang", "Ein-\nund Ausgang"),
        ("Ein|sowie Ausgang", "Ein-\nsowie Ausgang"),
        ("Ein|bzw. Ausgang", "Ein-\nbzw. Ausgang"),
        ("mo¨g|lich", "mo¨glich"),
        ("mo\u0308g|lich", "mo\u0308glich"),
        ("a\u0300l|a", "a\u0300la"),
        ("f´e|d´erale", "f´ed´erale"),
        ("den|´a", "den´a"),
        ("well|known, as well as known", "well-known, as well as known"),
        ("|age", "-age"),
        ("A|", "A-"),
        ("", ""),
    ],
)
def test_a_divided_word_is_joined_unless_its_parts_say_otherwise(text: str, expected: str) -> None:
    assert join_divided_words([text.replace("|", DIVIDED)]) == [expected]


@pytest.mark.parametrize(
    ("text", "elsewhere", "expected"),
    [
        ("well|known", "a Well-Known one", "well-known"),
        ("INTRODUC|TION", "an introduction", "INTRODUCTION"),
        ("INTRODUC|TION", "", "INTRODUC-TION"),
        ("self-super|vised", "supervised", "self-supervised"),
        ("Self-super|vised", "self-supervised", "Self-supervised"),
        ("co|operate", "co-operate, cooperate", "co-operate"),
        ("data|base", "our data, its base, a database", "database"),
        ("long|term", "long before a term", "long-term"),
        ("long|term", "longterm is long before a term", "longterm"),
        ("how|ever", "how it ever was", "however"),
        ("with|out With|in", "with it out, With or in", "without Within"),
        ("over|fit", "over it, a fit, over-fit", "over-fit"),
        ("Daten|bank", "Daten einer Bank", "Datenbank"),
        ("long|term long|term", "a term", "longterm longterm"),
    ],
)
def test_other_places_of_the_document_decide_about_a_hyphen(text: str, elsewhere: str, expected: str) -> None:
    assert join_divided_words([text.replace("|", DIVIDED), elsewhere]) == [expected, elsewhere]


def test_words_are_joined_in_time_that_grows_with_the_text() -> None:
    start = time.process_time()
    for hostile in (
        "a-" * 50_000 + DIVIDED + "a-" * 50_000,
        f"a{DIVIDED}" * 30_000,
        " " * 50_000 + DIVIDED + "'" * 50_000,
    ):
        join_divided_words([hostile])
    assert time.process_time() - start < 5
