"""Tables of CSV whose commas may be decimal, and cells of several lines."""

from __future__ import annotations

import pytest

from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.table_reader import read_table


def read(source: str) -> FileContent:
    return read_table(source.encode(), "t.csv", ReadSettings())


def first_row(source: str) -> list[str]:
    return read(source).documents[0].text.split("\n\n")[0].split("\n")


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("Artikel, Nr.;Preis\nA;1,50\nB;2,50\n", ["Artikel, Nr.: A", "Preis: 1,50"]),
        ("Preis, netto;Menge\n1,50;3\n2,50;4\n", ["Preis, netto: 1,50", "Menge: 3"]),
        ('Artikel, Nr.;Preis\n"A, B";1,50\n', ["Artikel, Nr.: A, B", "Preis: 1,50"]),
        ('Artikel, Nr.;Preis\n"A, B";"1,50"\n', ["Artikel, Nr.: A, B", "Preis: 1,50"]),
        ("\nx, y, z;p;q\nA;1,5;2,5\n", ["x, y, z: A", "p: 1,5", "q: 2,5"]),
        ("x, y\tp\nA\t1,50\n", ["x, y: A", "p: 1,50"]),
        ("a;b,c\nx;y,z\n", ["a;b: x;y", "c: z"]),
        ("a,b;c;d\n1,5;2;3\n", ["a,b: 1,5", "c: 2", "d: 3"]),
        ("a;b,c\n1;2,z\n", ["a;b: 1;2", "c: z"]),
        ("a;b,c\nz;y,2\n", ["a;b: z;y", "c: 2"]),
        ("a,b\n1,2\n3,4\n", ["a: 1", "b: 2"]),
        ("a,b;c\n1,2\n3,4\n", ["a: 1", "b;c: 2"]),
    ],
)
def test_a_comma_between_digits_alone_divides_no_cells_where_another_sign_does(source: str, row: list[str]) -> None:
    assert first_row(source) == row


def test_two_signs_that_divide_as_many_rows_are_told() -> None:
    told = "its cells are divided at {}, and {} would divide as many rows: a first line sep=; or the like says which"
    assert read("x, y;p\nA;1,50\n").notes == (told.format("';'", "','"),)
    assert read("x, y\tp\nA\t1,50\n").notes == (told.format("tabs", "','"),)
    assert read("a;b,c\nx;y,z\n").notes == (told.format("','", "';'"),)
    assert read("a\tb,c\nx\ty,z\n").notes == (told.format("','", "a tab"),)
    for clear in ("x, y;p\nA;1,50\nB;2\n", "a,b;c\n", "a,b\n1;x,2\n", "sep=;\nx, y;p\nA;1,50\n"):
        assert read(clear).notes == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\u2028", "\x85", "\n \n"])
def test_a_line_of_a_cell_looks_like_no_other_column_or_row(end: str) -> None:
    assert first_row(f'a,b\n"1{end}b: 99",2\n') == ["a: 1", "  b: 99", "b: 2"]


def test_a_cell_of_code_keeps_its_indentation() -> None:
    assert first_row('a\n"if x:\n    y"\n'.replace("a\n", "a,b\n", 1).replace('y"', 'y",1')) == [
        "a: if x:", "      y", "b: 1"
    ]  # fmt: skip
