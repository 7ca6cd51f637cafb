"""Files of one mark, one line or one column again and again: they take time and memory in proportion, or are refused."""

from __future__ import annotations

import unicodedata

import pytest

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.retrieval.documents import table_reader
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.html_reader import read_html
from firsthand.retrieval.documents.table_reader import read_table

PLAIN = ReadSettings()


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f72\u0f71", "\u0f73\u0f71"], ids=["accents", "vowels", "of two"])
def test_a_text_of_nothing_but_marks_is_cleaned_in_linear_time(marks: str) -> None:
    text = "a" + marks[0] * 30_000 + marks[1] * 30_000
    with at_most_cpu_s(0.3):
        cleaned = clean(text * 2)[0]
    assert len(cleaned) >= 120_000 and cleaned.count("a") + cleaned.count("á") == 2


def test_as_many_marks_as_languages_use_are_sorted_and_composed_wherever_they_stand() -> None:
    for marks in ("\u0323\u0302", "\u0302\u0323", "\u0316" * 29 + "\u0301", "\u0301" + "\u0316" * 29):
        for before in ("", "e", "か" * 29, "か" * 2_000, "б" * 1_023):
            text = before + "e" + marks + "か\u3099 ﬁ² б\u0438\u0306"
            assert clean(text)[0] == unicodedata.normalize("NFC", text)


def test_a_page_of_one_piece_with_many_lines_is_read_in_linear_time() -> None:
    with at_most_cpu_s(1.5):
        [document] = read_html(("<pre>\U0001f600" + "&#10a" * 60_000).encode(), "p.html", PLAIN).documents
    assert document.text.count("a") == 60_000 and [each.label for each in document.locations] == ["1"]


def test_lines_of_a_page_keep_the_lines_of_their_own_piece() -> None:
    page = b"<p>one</p>\n\n<pre>two\nthree&#10;four</pre>\n<p>\n five</p>"
    [document] = read_html(page, "p.html", PLAIN).documents
    lines = [document.location(document.text.index(word)).label for word in ("one", "two", "three", "four", "five")]
    assert lines == ["1", "3", "4", "4", "6"]


def refused(data: bytes, name: str = "t.csv") -> str:
    with pytest.raises(DataError) as error:
        read_table(data, name, PLAIN)
    return str(error.value)


@pytest.mark.parametrize("line", [b",,,,", b'a,"b,c,d,e,f",c,d,e', b'",",",",",",",",","', b'a,b,c,d,"e'])
@pytest.mark.parametrize("before", [b"", b"a,b\n", b'a,b\n1,"two\nlines"\n'])
def test_a_row_with_too_many_columns_is_refused_by_its_number(
    line: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_reader, "MAX_COLUMNS", 4)
    number = 1 + before.count(b"\n")
    told = "has more than 4 columns: leave out or join those you do not need"
    assert refused(before + line + b"\n1\n") == f"its row {number} {told}"


def test_a_row_over_many_lines_has_its_columns_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "MAX_COLUMNS", 4)
    assert refused(b'a,b\n1,"\n",2,"\n",3\n').startswith("its row 2 has more than 4 columns")


def test_delimiters_within_quotes_are_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "MAX_COLUMNS", 4)
    data = b'a,b,c,d\n1,"x,x,x,x,x,x","say ""y,y,y,y""",4\n"a,b\n1,2,3,4,5,6\nb",2,3,4\n'
    [document] = read_table(data, "t.csv", PLAIN).documents
    assert "a: a,b\n  1,2,3,4,5,6\n  b\nb: 2" in document.text and 'c: say "y,y,y,y"' in document.text


@pytest.mark.parametrize(("char", "width"), [("a", 1), ("é", 2), ("日", 2), ("😀", 4)])
def test_a_table_is_bounded_by_the_memory_of_its_text_and_of_its_rows(
    char: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (f"{char}\n" + "1\n" * 10).encode()
    takes = 10 * (len("x: 1\n\n") * width + table_reader.ROW_BYTES)
    monkeypatch.setattr(table_reader, "MIN_TEXT_BOUND", takes)
    assert len(read_table(data, "t.csv", PLAIN).documents[0].locations) == 10
    monkeypatch.setattr(table_reader, "MAX_TEXT_BOUND", takes - 1)
    assert f"it takes more than {takes - 1:,}: divide it" in refused(data)


def test_a_table_of_a_hundred_thousand_short_rows_is_read() -> None:
    [document] = read_table(b"id,score\n" + b"1,2\n" * 20_000, "t.csv", PLAIN).documents
    assert len(document.locations) == 20_000 and document.text.startswith("id: 1\nscore: 2\n\n")
    rows, row = 1_000_000, len("id: 1\nscore: 2\n\n")
    assert rows * (row + table_reader.ROW_BYTES) < table_reader.MIN_TEXT_BOUND
