"""Readers: the text, title and places of each format, and what they say of damaged and hostile files."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import written_documents as written
from firsthand.errors import DataError, FirsthandError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean
from firsthand.retrieval.documents.code_reader import read_code
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.epub_reader import read_epub
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.formats import FORMATS, format_of
from firsthand.retrieval.documents.html_reader import read_html
from firsthand.retrieval.documents.json_reader import read_json, read_jsonl
from firsthand.retrieval.documents.notebook_reader import read_notebook
from firsthand.retrieval.documents.table_reader import read_table
from firsthand.retrieval.documents.text_reader import read_markdown, read_text
from firsthand.tools.web.html import to_placed_text, to_text

SETTINGS = ReadSettings()


def only(content: FileContent) -> Document:
    (document,) = content.documents
    return document


def place_of(document: Document, words: str) -> tuple[str, str]:
    """Kind and label of the place that holds some words."""
    found = document.location(document.text.index(words))
    return found.kind, found.label


# -- charsets --


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(name: str) -> None:
    text, notes = decode("Grüße, 日本".encode(name))
    assert text == "Grüße, 日本" and bool(notes) == (name != "utf-8-sig")


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_guessed_and_noted(name: str) -> None:
    text, notes = decode("A text in two bytes each, with ü.".encode(name))
    assert text.endswith("ü.") and name.upper() in notes[0] and "guessed" in notes[0]


def test_utf_8_is_strict_and_says_nothing() -> None:
    assert decode("naïve café".encode()) == ("naïve café", [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Le café était fermé, l'élève répète la leçon à l'école.", "cp1252"),
        ("Привет, как дела? Сегодня хорошая погода, и мы пойдём гулять.", "cp1251"),
    ],
)
def test_another_charset_is_guessed_and_noted(text: str, name: str) -> None:
    pytest.importorskip("charset_normalizer")
    assert decode(text.encode(name)) == (text, [f"decoded as {name}, which was guessed"])


def test_a_declared_charset_is_taken_before_a_guess() -> None:
    source = '<meta charset="koi8-r"><p>Привет'
    text, notes = decode(source.encode("koi8-r"))
    assert text == source and notes == ["decoded as koi8-r, which it declares"]
    assert decode(b'<meta charset="zlib">caf\xe9 au lait, cr\xe8me')[0].startswith("<meta")


def test_a_few_damaged_bytes_in_utf_8_are_replaced_and_counted() -> None:
    data = ("Größe " * 200).encode() + b"\xff" + ("Maß " * 100).encode()
    text, notes = decode(data)
    assert text.count("\ufffd") == 1 and notes == ["UTF-8 with 1 invalid bytes, the first at 1600: they were replaced"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (random.Random(1).randbytes(5000), "binary"),
        (b"%PDF-1.7 rest", "a PDF"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"\x7fELF" + b"\0" * 100, "a program"),
        (b"\0" * 1000, "binary"),
        (b"\xff\xfea", "not valid"),
    ],
)
def test_binary_files_are_no_text(data: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        decode(data)


# -- what is not seen --


def test_invisible_characters_are_dropped_and_counted() -> None:
    text, _, notes = clean("a\u202eb\0c\u200bd\U000e0041e\ufefff\x07g\U000e0101")
    assert text == "abcdefg"
    assert notes == ["invisible characters were dropped: 1 bidirectional, 2 control, 2 tag, 2 zero-width"]


def test_joiners_stay_where_they_shape_letters() -> None:
    persian, family = "می\u200cخواهم", "👨\u200d👩\u200d👧"
    assert clean(persian)[0] == persian and clean(family)[0] == family
    assert clean("pass\u200dword")[0] == "password"


def test_text_is_nfc_and_lines_stay_as_many() -> None:
    assert clean("e\u0301\r\nb\rc\n") == ("é\nb\nc\n", (), [])
    assert clean("half \ud800 pair")[0] == "half \ufffd pair"


def test_places_move_with_what_is_dropped() -> None:
    text, places, _ = clean("ab\0\0cde\u0301f", (Location(4, "page", "2"), Location(6, "page", "3")))
    assert text == "abcdéf" and [each.start for each in places] == [2, 4]


def test_combining_marks_without_end_do_not_take_quadratic_time() -> None:
    assert len(clean("a" + "\u0316\u0301" * 30_000)[0]) > 30_000


@pytest.mark.slow
@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)[0]
    assert clean(once)[0] == once


# -- text, Markdown, code --


def test_text_and_markdown_have_titles_and_lines() -> None:
    plain = only(read_text(b"A short line\n\nMore text.", "a.txt", SETTINGS))
    assert (plain.title, plain.meta["kind"], plain.id) == ("A short line", "text", "a.txt")
    assert place_of(plain, "More") == ("line", "3")
    page = only(read_markdown(b"---\nx: 1\n---\n## The *Head*\ntext", "a.md", SETTINGS))
    assert page.title == "The *Head*" and page.meta["kind"] == "markdown"


def test_code_has_its_language_by_suffix() -> None:
    assert only(read_code(b"fn a() {}", "src/a.RS", SETTINGS)).meta == {"kind": "code", "language": "rust"}


# -- HTML --

PAGE = """<html><head><title>A &amp; B</title><style>x{}</style></head>
<body>
<h1>Top</h1>
<p>One two
three <b>bold</b> &copy;
<ul>
<li>first
<li>second</ul><pre>
  x = 1
  y = 2
</pre>
<script>var hidden = 1</script>
<p>

  last &#x202e;words</p>
"""


def test_html_has_its_title_headings_and_lines_of_the_source() -> None:
    content = read_html(PAGE.encode(), "a.html", SETTINGS)
    page = only(content)
    assert page.title == "A & B" and "# Top" in page.text and "hidden" not in page.text and "last words" in page.text
    for words, line in (
        ("# Top", 3),
        ("One two three bold", 4),
        ("first", 7),
        ("- second", 8),
        ("x = 1", 9),
        ("y = 2", 10),
        ("last", 15),
    ):
        assert place_of(page, words) == ("line", str(line)), words
    assert "1 bidirectional" in content.notes[0]


def test_placed_text_is_the_text_that_fetch_shows() -> None:
    marks = (
        "<p> </p> <pre> </pre> word <li> <h2> </h2> <a_href='/x'> </a> <td>a</td> &lt; < <!--_c_--> <br> "
        "<head><title>t</title></head> <script>x</script>"
    )
    parts = [*marks.replace("_", "\t").split(" "), " ", "\n", "  "]
    seed = random.Random(3)
    for _ in range(300):
        source = "".join(seed.choice(parts) for _ in range(seed.randrange(30)))
        text, places, _ = to_placed_text(source)
        assert text == to_text(source)
        assert all(0 <= origin <= len(source) and (not at or text[at - 1] == "\n") for at, origin in places)
        assert [origin for _, origin in places] == sorted(origin for _, origin in places)


def test_a_page_longer_than_fetch_shows_is_read_to_its_end() -> None:
    assert only(read_html(b"<p>" + b"word " * 250_000 + b"<p>THE END", "a.html", SETTINGS)).text.endswith("THE END")


# -- tables and JSON --


def test_a_row_of_a_table_is_a_place_that_names_its_columns() -> None:
    data = b'name,note\nAnn,"likes\nboats"\n\nBob,"said ""hi"""\n'
    table = only(read_table(data, "t.csv", ReadSettings(title_field="name")))
    assert table.text == 'Ann\nname: Ann\nnote: likes\n  boats\n\nBob\nname: Bob\nnote: said "hi"\n\n'
    assert place_of(table, "boats") == ("row", "1 (Ann)") and table.locations[1].kind == "row"
    assert place_of(table, "said")[1].endswith("(Bob)") and table.text[table.locations[1].start :].startswith("Bob")


def test_delimiters_are_those_of_the_first_line() -> None:
    assert "b: 2" in only(read_table(b"a;b\n1;2\n", "t.csv", SETTINGS)).text
    assert "b: 2,5" in only(read_table(b"a\tb\n1\t2,5\n", "t.tsv", SETTINGS)).text


def test_rows_of_another_length_are_read_and_noted() -> None:
    content = read_table(b"a,b\n1\n1,2,3\n", "t.csv", ReadSettings(title_field="x"))
    assert "column 3: 3" in only(content).text
    assert content.notes == ("no column 'x' for titles", "2 rows with another number of cells than the header's 2")


def test_each_line_of_jsonl_is_a_document() -> None:
    data = b'{"_id": "x1", "title": "T", "text": "words", "year": 3}\n\n{"contents": "more"}\n'
    first, second = read_jsonl(data, "c.jsonl", SETTINGS).documents
    assert (first.id, first.title, first.text, first.meta["year"]) == ("c.jsonl:x1", "T", "words", 3)
    assert second.id == "c.jsonl:3" and place_of(second, "more") == ("line", "3")


def test_bad_lines_are_named_and_the_others_read() -> None:
    data = (
        b'{"text": "ok", "id": 1}\nnope\n[1]\n{"x": 1}\n{"text": "again", "id": 1}\n{"text": "b", "id": NaN}\n'
        + b"[" * 100_000
    )
    content = read_jsonl(data, "c.jsonl", SETTINGS)
    assert [each.id for each in content.documents] == ["c.jsonl:1"]
    assert [place for place, _ in content.failed] == [f"c.jsonl:{n}" for n in (2, 3, 4, 5, 6, 7)]
    assert "nested too deeply" in content.failed[-1][1]


def test_the_fields_of_json_are_options() -> None:
    chosen = ReadSettings(text_field="abstract", title_field="name", id_field="key")
    document = only(read_jsonl(b'{"key": "k", "name": "N", "abstract": "A", "text": "no"}', "c.jsonl", chosen))
    assert (document.id, document.title, document.text) == ("c.jsonl:k", "N", "A")


def test_json_is_documents_a_document_or_text() -> None:
    several = read_json(b'[{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]', "l.json", SETTINGS)
    assert [each.id for each in several.documents] == ["l.json:1", "l.json:2"]
    assert only(read_json(b'{"id": 9, "text": "a"}', "l.json", SETTINGS)).id == "l.json"
    assert only(read_json(b'{"port": 80}', "l.json", SETTINGS)).text == '{"port": 80}'
    with pytest.raises(DataError, match="no field 'abstract'"):
        read_json(b'{"port": 80}', "l.json", ReadSettings(text_field="abstract"))
    with pytest.raises(DataError, match="no JSON"):
        read_json(b"{", "l.json", SETTINGS)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("[]", "it has no list of cells; save it again in Jupyter"),
        ('{"cells": {"a": 1}}', "it has no list of cells"),
        ('{"cells": [{"source": "x"}, "y"]}', "its cell 2 is no JSON object"),
        ('{"worksheets": []}', "it has no list of cells"),
        ("[" * 100_000, "nested too deeply"),
        ('{"n": ' + "9" * 5000 + "}", "a number has more than 4,300 digits"),
    ],
)
def test_a_notebook_that_is_none_says_why(body: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_notebook(body.encode(), "n.ipynb", SETTINGS)


def test_notebooks_are_their_cells() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [1]},
    ]
    data = json.dumps({"cells": cells}).encode()
    notebook = only(read_notebook(data, "n.ipynb", SETTINGS))
    assert (
        notebook.title == "Title"
        and "```\nx = 1\n```" in notebook.text
        and place_of(notebook, "x = 1") == ("heading", "cell 2")
    )
    for bad in (b"{}", b"[]", b"{", b'{"cells": 3}', b'{"cells": [1]}'):
        with pytest.raises(DataError, match="no notebook"):
            read_notebook(bad, "n.ipynb", SETTINGS)


# -- DOCX and EPUB --

BODY = (
    written.paragraph("The Title", "Title") + written.paragraph("Intro &amp; more")
    + written.paragraph("Methods", "Berschrift1")
    + "<w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:t>deleted</w:t><w:delText>gone</w:delText></w:r></w:del></w:p>"
    + written.paragraph("an item", more="<w:numPr/>")
    + f"<w:tbl><w:tr><w:tc>{written.paragraph('a')}</w:tc>"
    + f"<w:tc>{written.paragraph('b')}{written.paragraph('c')}</w:tc></w:tr></w:tbl>"
    + written.paragraph("last", "Heading2")
)  # fmt: skip


def test_docx_has_headings_lists_tables_notes_and_paragraphs() -> None:
    notes = f"<w:footnotes {written.W}><w:footnote>{written.paragraph('a footnote')}</w:footnote></w:footnotes>"
    document = only(read_docx(written.docx(BODY, footnotes=notes), "d.docx", SETTINGS))
    assert document.text == (
        "# The Title\n\nIntro & more\n\n# Methods\n\nkept\n\n- an item\n| a | b c |\n\n## last\n\na footnote\n\n"
    )
    assert document.title == "The Title" and place_of(document, "kept") == ("paragraph", "4")


@pytest.mark.slow
def test_zip_bombs_entities_and_encrypted_files_are_refused() -> None:
    bomb = written.zipped({"word/document.xml": b"<a>" + b" " * 12_000_000 + b"</a>"})
    assert len(bomb) < 100_000
    with pytest.raises(DataError, match="a ZIP bomb is not read"):
        read_docx(bomb, "d.docx", SETTINGS)
    entities = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><w>&b;</w>'
    with pytest.raises(DataError, match="document type"):
        read_docx(written.zipped({"word/document.xml": entities}), "d.docx", SETTINGS)
    with pytest.raises(DataError, match="encrypted or of an old format"):
        read_docx(b"\xd0\xcf\x11\xe0" + b"\0" * 600, "d.docx", SETTINGS)
    with pytest.raises(DataError, match="nested more than"):
        read_docx(written.docx("<w:a>" * 600 + "</w:a>" * 600), "d.docx", SETTINGS)
    many = written.zipped({f"p{n}": b"" for n in range(20_001)}, method=0)
    with pytest.raises(DataError, match="20001 parts"):
        read_docx(many, "d.docx", SETTINGS)
    with pytest.raises(DataError, match=r"no part 'word/document.xml'"):
        read_docx(written.zipped({"other": b""}), "d.docx", SETTINGS)


def test_a_part_may_expand_much_less_than_a_bomb() -> None:
    repeated = written.paragraph("the same words again and again") * 3000
    assert only(read_docx(written.docx(repeated), "d.docx", SETTINGS)).text.count("again and") == 3000


def test_epub_has_chapters_in_the_order_of_the_spine() -> None:
    chapters = {"b.xhtml": "<html><head><title>One</title></head><body><h1>First</h1><p>words</p></body></html>",
                "a.xhtml": "<p>no heading, <b>other</b> words</p>"}  # fmt: skip
    book = only(read_epub(written.epub(chapters), "b.epub", SETTINGS))
    assert book.title == "A Book" and book.text.index("First") < book.text.index("no heading")
    assert place_of(book, "First") == ("heading", "First") and place_of(book, "other") == ("heading", "chapter 2")
    with pytest.raises(DataError, match="none of its chapters"):
        read_epub(written.epub({"a.xhtml": "<p></p>"}), "b.epub", SETTINGS)


# -- mutations --

VALID: dict[str, bytes] = {
    "docx": written.docx(BODY),
    "epub": written.epub({"a.xhtml": "<h1>H</h1><p>words</p>"}),
    "html": PAGE.encode(),
    "table": b'a,b\n"x\ny",2\n',
    "jsonl": b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n',
    "json": b'[{"id": 1, "text": "a"}]',
    "notebook": b'{"cells": [{"cell_type": "code", "source": ["x"]}]}',
    "markdown": b"# A\n\ntext \xc3\xa9\n",
    "text": "text in ü\n".encode("utf-16"),
    "code": b"def a():\n    return 1\n",
}


def mutated(data: bytes, seed: random.Random) -> bytes:
    """The file with a few bytes changed, cut out, repeated or cut off."""
    body = bytearray(data)
    for _ in range(seed.randrange(1, 6)):
        at = seed.randrange(len(body) or 1)
        kind = seed.randrange(5)
        if kind == 0 and body:
            body[at] = seed.randrange(256)
        elif kind == 1:
            del body[at : at + seed.randrange(1, 20)]
        elif kind == 2:
            body[at:at] = body[at : at + seed.randrange(1, 30)]
        elif kind == 3:
            body[at:at] = seed.randbytes(3)
        else:
            del body[max(1, len(body) - seed.randrange(1, 40)) :]
    return bytes(body)


@pytest.mark.parametrize("name", VALID)
def test_damaged_files_are_read_or_refused_by_a_sentence(name: str) -> None:
    seed = random.Random(zlib.crc32(name.encode()))
    for _ in range(150):
        data = mutated(VALID[name], seed)
        try:
            content = FORMATS[name].read(data, f"f.{name}", SETTINGS)
        except FirsthandError as error:
            assert str(error) and "\n" not in str(error)
            continue
        for document in content.documents:
            assert all(0 <= place.start <= len(document.text) for place in document.locations)
            assert [each.start for each in document.locations] == sorted(each.start for each in document.locations)
            document.text.encode()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pdf"])
@given(data=st.binary(max_size=200))
@settings(max_examples=30)
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    with suppress(FirsthandError):
        FORMATS[name].read(data, "f.x", SETTINGS)


def test_formats_are_known_by_name() -> None:
    known: Callable[[str], str | None] = lambda name: (found := format_of(name)) and found.name  # noqa: E731
    assert known("a/B.MD") == "markdown" and known("x.tar.gz") is None and known("LICENSE") == "text"
    assert known("Makefile") == "code" and known("a.pdf") == "pdf" and known("noending") is None
    assert FORMATS["pdf"].isolated(1) and FORMATS["docx"].isolated(1) and not FORMATS["html"].isolated(1000)
    assert FORMATS["html"].isolated(3_000_000)
