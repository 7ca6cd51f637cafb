"""Small files of each kind as they are read, whole: text, title, places, meta, notes and failures."""

from __future__ import annotations

import io
import json
import resource
from typing import Any

import pytest

import written_documents as written
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.code_reader import read_code
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.epub_reader import read_epub
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings, first_heading
from firsthand.retrieval.documents.formats import FORMATS, LARGE_HTML_BYTES, format_of
from firsthand.retrieval.documents.html_reader import read_html
from firsthand.retrieval.documents.json_reader import _LEFT_OUT, read_json, read_jsonl
from firsthand.retrieval.documents.notebook_reader import read_notebook
from firsthand.retrieval.documents.parser_process import (
    content_from_json,
    content_to_json,
    cpu_limit_s,
    read_block,
    reply,
    write_block,
)
from firsthand.retrieval.documents.pdf_reader import _numbers
from firsthand.retrieval.documents.table_reader import read_table
from firsthand.retrieval.documents.text_reader import read_markdown, read_text
from firsthand.retrieval.documents.zip_parts import MAX_DEPTH, ZipParts, parse_xml

SETTINGS = ReadSettings()


def refused(act: Any, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- text --


def test_text_markdown_and_code_have_the_titles_of_their_kinds() -> None:
    for first, title in (("x" * 100, "x" * 100), ("x" * 101, ""), ("  Head  ", "Head")):
        assert read_text(f"\n{first}\nmore".encode(), "a.txt", SETTINGS) == FileContent(
            (Document("a.txt", f"\n{first}\nmore", title, meta={"kind": "text"}),)
        )
    assert read_markdown(b"words\n #  One #\n# Two", "a.md", SETTINGS) == FileContent(
        (Document("a.md", "words\n #  One #\n# Two", "One #", meta={"kind": "markdown"}),)
    )
    assert read_code("a\u200b = 1".encode(), "s/x.PY", SETTINGS) == FileContent(
        (Document("s/x.PY", "a = 1", "s/x.PY", meta={"kind": "code", "language": "python"}),),
        ("invisible characters were dropped: 1 zero-width",),
    )
    assert (
        first_heading("##\n  ### b") == "b"
        and first_heading("no # one") == ""
        and first_heading("#" + "h" * 201) == "h" * 200
    )


def test_bytes_are_decoded_by_mark_by_declaration_or_by_a_noted_guess() -> None:
    assert decode("é".encode()) == ("é", []) and decode(b"\xef\xbb\xbfa") == ("a", [])
    assert decode(b"\xff\xfea\x00") == ("a", ["decoded as UTF-16, by its byte order mark"])
    assert decode(b"\xff\xfe\x00\x00a\x00\x00\x00") == ("a", ["decoded as UTF-32, by its byte order mark"])
    assert decode("ab".encode("utf-16-be")) == ("ab", ["decoded as UTF-16-BE, which was guessed"])
    assert decode("abc".encode("utf-16-le")) == ("abc", ["decoded as UTF-16-LE, which was guessed"])
    assert refused(lambda: decode(b"\xff\xfe\x00\xd8a")).startswith("it begins as UTF-16 and is not valid at byte ")
    declared = "<meta charset='koi8-r'>мир".encode("koi8-r")
    assert decode(declared) == ("<meta charset='koi8-r'>мир", ["decoded as koi8-r, which it declares"])
    assert refused(lambda: decode(b"PK\x03\x04")) == (
        "it is a ZIP archive and no text: give it the ending of its format, or leave it out"
    )
    assert decode(b"\x01" + b"a" * 99) == ("\x01" + "a" * 99, []) and decode(b"\x01a") == ("\x01a", [])
    assert refused(lambda: decode(b"\x01\x02" + b"a" * 98)) == (
        "2 of its 100 bytes are control characters: it is binary and no text"
    )
    assert decode(b"\x01\x02" + b"a" * 198)[1] == []
    damaged = "é".encode() + b"a" * 200 + b"\xff"
    assert decode(damaged) == (
        "é" + "a" * 200 + "\ufffd",
        ["UTF-8 with 1 invalid bytes, the first at 202: they were replaced"],
    )


def test_cleaning_moves_places_and_counts_what_it_drops() -> None:
    text = "a\u200bb\r\nc\u202ed\re\U000e0041"
    places = (Location(0, "page", "1"), Location(3, "page", "2"), Location(len(text), "page", "3"))
    assert clean(text, places) == (
        "ab\ncd\ne", (Location(0, "page", "1"), Location(2, "page", "2"), Location(7, "page", "3")),
        ["invisible characters were dropped: 1 bidirectional, 1 tag, 1 zero-width"],
    )  # fmt: skip
    assert clean("a\u200d b") == ("a b", (), ["invisible characters were dropped: 1 zero-width"])
    assert clean("plain", places[:1]) == ("plain", places[:1], []) and clean("e\u0301\ud800")[0] == "é\ufffd"
    assert clean_line(" a\n \u200bb ") == "a b"


# -- tables, JSON and notebooks --


def test_a_table_is_read_whole() -> None:
    data = b"Name|Year\n Ann  Lee |1\n | \nBob||x\n"
    assert read_table(data, "t.csv", ReadSettings(title_field="Name")) == FileContent(
        (
            Document(
                "t.csv", "Ann Lee\nName: Ann  Lee\nYear: 1\n\nBob\nName: Bob\ncolumn 3: x\n\n", "", meta={"kind": "table"},
                locations=(Location(0, "row", "1 (Ann Lee)"), Location(32, "row", "3 (Bob)")),
            ),
        ),
        ("1 row with another number of cells than the header's 2",),
    )  # fmt: skip
    bare = read_table(b"a,,\n1,2,3", "t.csv", SETTINGS).documents[0]
    assert bare.text == "a: 1\ncolumn 2: 2\ncolumn 3: 3\n\n" and bare.locations == (Location(0, "row", "1"),)
    assert read_table(b'"a;b;c",d\n1,2', "t.csv", SETTINGS).documents[0].text == "a;b;c: 1\nd: 2\n\n"
    assert read_table(b"a,b\n1,2", "t.TAB", SETTINGS).documents[0].text == "a,b: 1,2\n\n"
    assert read_table(b"x", "t.csv", SETTINGS).documents[0].text == ""
    assert read_table(b"," * 9_999, "t.csv", SETTINGS).documents[0].text == ""
    assert refused(lambda: read_table(b"," * 10_000, "t.csv", SETTINGS)) == (
        "its row 1 has more than 10000 columns: leave out or join those you do not need"
    )


def test_a_line_of_json_keeps_its_values_and_an_object_is_a_document_of_the_file() -> None:
    line = {"_id": "  a b ", "id": None, "title": 7, "content": "c", "body": "not", "n": 1.5, "b": True, "big": 1 << 63,
            "fits": (1 << 63) - 1, "least": -(1 << 63) + 1, "short": "s" * 1000, "long": "s" * 1001, "list": [1],
            "k\n": "\u200bv"}  # fmt: skip
    data = (json.dumps(line) + "\n\n" + json.dumps({"text": "t", "id": "\u200b"})).encode()
    first, second = read_jsonl(data, "c.jsonl", SETTINGS).documents
    assert first == Document(
        "c.jsonl:a b", "c", "7", meta={"kind": "record", "body": "not", "n": 1.5, "b": True,
                                      "fits": (1 << 63) - 1, "least": -(1 << 63) + 1,
                                      "short": "s" * 1000, "list": [1], "k": "v"}, locations=(Location(0, "line", "1"),),
    )  # fmt: skip
    assert second == Document("c.jsonl:3", "t", "", meta={"kind": "record"}, locations=(Location(0, "line", "3"),))
    whole = read_json(json.dumps({"id": 3, "text": "t", "kind": "other", "x": 1}).encode(), "d/o.json", SETTINGS)
    assert whole == FileContent(
        (Document("d/o.json", "t", "", meta={"kind": "record", "x": 1}),), (f"{_LEFT_OUT}: kind (1)",)
    )
    assert read_json(b'[{"text": "a"}, {"text": 3}]', "l.json", SETTINGS).documents[0].meta == {"kind": "text"}
    chosen = ReadSettings(text_field="x", id_field="key", title_field="name")
    assert read_jsonl(b'{"x": "t", "key": "K", "name": "N", "title": "no", "y": 1}', "c.jsonl", chosen).documents == (
        Document(
            "c.jsonl:K", "t", "N", meta={"kind": "record", "name": "N", "y": 1}, locations=(Location(0, "line", "1"),)
        ),
    )
    failed = read_jsonl(
        b'{"x": 1}\n3\n{"text": "a", "id": 1}\n{"text": "b", "id": 1}\n{"text": NaN}', "c.jsonl", SETTINGS
    ).failed
    assert failed == (
        ("c.jsonl:1", "it has no text in a field 'text or contents': name the field by --text-field"),
        ("c.jsonl:2", "it is no JSON object"), ("c.jsonl:4", "the id of 'c.jsonl:1' came before: give each its own"),
        ("c.jsonl:5", "it is no JSON: NaN is no JSON"),
    )  # fmt: skip


def test_a_notebook_of_either_version_is_its_cells_with_their_places() -> None:
    cells = [
        {"cell_type": "code", "input": ["a\n", "b"]},
        {"cell_type": "markdown", "source": " "},
        {"source": "# T\u200b"},
    ]
    for body in ({"cells": cells}, {"worksheets": [{"cells": cells}]}):
        assert read_notebook(json.dumps(body).encode(), "n.ipynb", SETTINGS) == FileContent(
            (
                Document("n.ipynb", "```\na\nb\n```\n\n# T\n\n", "T", meta={"kind": "notebook"},
                         locations=(Location(0, "heading", "cell 1"), Location(13, "heading", "cell 3"))),
            ),
            ("invisible characters were dropped: 1 zero-width",),
        )  # fmt: skip


def test_html_is_read_with_the_lines_of_its_source() -> None:
    content = read_html(b"<title> The\n page</title>\n<h1>Head</h1>\n\n<p>one</p><p>two</p>", "p.html", SETTINGS)
    [document] = content.documents
    assert (document.title, document.meta, content.notes) == ("The page", {"kind": "html"}, ())
    found = {document.location(document.text.index(word)).label for word in ("one", "two")}
    assert found == {"5"} and document.location(document.text.index("Head")).label == "3"
    assert read_html(b"<h2>Only</h2>", "p.html", SETTINGS).documents[0].title == "Only"


# -- archives --


def test_a_docx_is_read_whole_with_tables_in_cells_and_text_that_was_deleted_left_out() -> None:
    p = written.paragraph
    inner = f"<w:tbl><w:tr><w:tc>{p('x')}</w:tc><w:tc>{p('y')}</w:tc></w:tr></w:tbl>"
    body = (
        p("") + p(" A  title ", "heading 2") + p("deep", more='<w:outlineLvl w:val="8"/>')
        + p("none", more='<w:outlineLvl w:val="9"/>')
        + "<w:p><w:r><w:tab/><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r></w:p>"
        + "<w:p><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom><w:r><w:t>stays</w:t></w:r></w:p>"
        + p("item", "Quote", "<w:numPr/>")
        + f"<w:tbl><w:tr><w:tc>{p('1')}{inner}</w:tc><w:tc>{p('2')}</w:tc></w:tr><w:tr><w:tc>{p('')}</w:tc></w:tr></w:tbl>"
        + p("end")
    )  # fmt: skip
    core = "<c:all xmlns:c='a' xmlns:d='b'><d:subject>no</d:subject><d:title> My  <x>no</x></d:title></c:all>"
    data = written.docx(body, endnotes=f"<w:endnotes {written.W}><w:endnote>{p('a note')}</w:endnote></w:endnotes>")
    text = "## A title\n\n###### deep\n\nnone\n\na\tb\nc-d\n\nstays\n\n- item\n| 1 x | y | 2 |\n\nend\n\na note\n\n"
    [document] = read_docx(data, "d.docx", SETTINGS).documents
    assert document.text == text and document.title == "A title" and document.meta == {"kind": "docx"}
    assert [(each.label, text[each.start :].split("\n")[0]) for each in document.locations] == [
        ("2", "## A title"), ("3", "###### deep"), ("4", "none"), ("5", "a\tb"), ("6", "stays"), ("7", "- item"),
        ("13", "end"), ("14", "a note"),
    ]  # fmt: skip
    with io.BytesIO(data) as file:
        import zipfile

        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("docProps/core.xml", core)
            archive.writestr("word/footnotes.xml", "<broken")
        titled = read_docx(file.getvalue(), "d.docx", SETTINGS)
    assert titled.documents[0].title == "My" and titled.notes[0].startswith("its XML is damaged")


def test_an_epubs_chapters_are_places_and_what_cannot_be_read_is_noted() -> None:
    chapters = {"a%20b.xhtml": "<p>gone</p>", "c.xhtml": "<h1>First</h1><p>one</p>", 
                "d.xhtml": "<title>Second</title><p>two</p>", "e.xhtml": "<p>three</p>", "f.xhtml": "<p> </p>"}  # fmt: skip
    content = read_epub(written.epub(chapters, " The  Book "), "b.epub", SETTINGS)
    [document] = content.documents
    assert (document.id, document.title, document.meta) == ("b.epub", "The Book", {"kind": "epub"})
    assert content.notes == (
        "chapter 1 cannot be read: it is no EPUB: it has no part 'OEBPS/a b.xhtml'",
        "1 chapter without text, such as a picture: 5",
    )
    assert [(each.label, document.text[each.start :].split("\n\n")[0]) for each in document.locations] == [
        ("First", "# First"), ("Second", "Second"), ("chapter 4", "three")
    ]  # fmt: skip
    assert document.text.endswith("three\n\n")
    assert (
        refused(lambda: read_epub(written.epub({"f.xhtml": "<p> </p>"}), "b", SETTINGS))
        == "none of its chapters has text"
    )
    locked = written.zipped({"META-INF/encryption.xml": "<a/>", "META-INF/rights.xml": "<a/>"})
    assert refused(lambda: read_epub(locked, "b", SETTINGS)) == "it is encrypted by copy protection: it cannot be read"
    empty = written.zipped({"META-INF/container.xml": "<container/>", "META-INF/encryption.xml": "<a/>"})
    assert refused(lambda: read_epub(empty, "b", SETTINGS)) == "it is no EPUB: its container names no package"


def test_parts_of_an_archive_are_bounded_together_and_xml_by_its_depth() -> None:
    parts = ZipParts(written.zipped({"a": "x" * 10, "b": "y" * 5}), "DOCX")
    parts.left = 15
    assert parts.read("a") == b"x" * 10 and parts.left == 5 and parts.read("b") == b"y" * 5 and parts.left == 0
    parts.left = 9
    assert refused(lambda: parts.read("a")).startswith("its part 'a' expands from ")
    assert refused(lambda: parts.read("c")) == "it is no DOCX: it has no part 'c'"
    assert refused(lambda: ZipParts(b"\xd0\xcf\x11\xe0", "EPUB")) == (
        "it is encrypted or of an old format, and no EPUB: save it anew without a password"
    )
    seen: list[Any] = []
    xml = b"<n:a xmlns:n='u' n:k='1' j='2'>x<b/>y</n:a>"
    parse_xml(xml, lambda name, kept: seen.append((name, kept)), seen.append, seen.append)
    assert seen == [("a", {"k": "1", "j": "2"}), "x", ("b", {}), "b", "y", "a"]

    def nested(depth: int) -> None:
        parse_xml(b"<a>" * depth + b"</a>" * depth, lambda *_: None, lambda _: None, lambda _: None)

    nested(MAX_DEPTH)
    assert refused(lambda: nested(MAX_DEPTH + 1)) == "its XML is nested more than 500 deep"
    assert [_numbers([*range(1, n + 1)]) for n in (1, 2, 12)] == [
        "page 1",
        "pages 1, 2",
        f"pages {', '.join(map(str, range(1, 11)))} and 2 more",
    ]


# -- the process that parses --


def test_what_the_parsers_process_sends_is_the_content_and_is_checked() -> None:
    content = FileContent(
        (Document("f.epub:1", "text", "T", meta={"a": 1}, locations=(Location(2, "page", "3"),)), Document("f.epub", "x")),
        ("note",), (("f.epub:2", "why"),),
    )  # fmt: skip
    body = content_to_json(content)
    assert body == {
        "documents": [["f.epub:1", "text", "T", {"a": 1}, [[2, "page", "3"]]], ["f.epub", "x", "", {}, []]],
        "notes": ["note"], "failed": [["f.epub:2", "why"]],
    }  # fmt: skip
    assert content_from_json(json.loads(json.dumps(body)), "f.epub") == content
    for name in ("f", "other"):
        assert refused(lambda n=name: content_from_json(body, n), ValueError).startswith("a document 'f.epub")
    for wrong in ({}, body | {"documents": [["f.epub", "x"]]}, body | {"notes": None}, body | {"failed": [["a"]]}):
        refused(lambda w=wrong: content_from_json(w, "f.epub"), ValueError)
    assert reply("text", b"hello", "a.txt", SETTINGS)["documents"] == [
        ["a.txt", "hello", "hello", {"kind": "text"}, []]
    ]
    assert reply("docx", b"x", "a.docx", SETTINGS) == {"error": "it is no DOCX: File is not a zip file"}
    broken = reply("nothing", b"x", "a", SETTINGS)
    assert broken == {"error": "its parser failed: KeyError: 'nothing'", "end": True}


def test_blocks_are_read_to_their_length_and_no_further() -> None:
    stream = io.BytesIO()
    write_block(stream, b"abc")
    write_block(stream, b"")
    assert stream.getvalue() == b"\x03" + b"\0" * 7 + b"abc" + b"\0" * 8
    stream.seek(0)
    assert read_block(stream, 3) == b"abc" and read_block(stream) == b"" and read_block(stream) == b""
    assert refused(lambda: read_block(io.BytesIO(b"\x03" + b"\0" * 7 + b"abc"), 2), ValueError) == "a block of 3 bytes"
    assert refused(lambda: read_block(io.BytesIO(b"\x03" + b"\0" * 7 + b"ab")), ValueError) == "a block that ends early"


def test_the_processor_time_of_earlier_files_is_not_taken_from_the_next() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    limit = cpu_limit_s(ReadSettings(parse_seconds=60.999))
    assert int(60.999) + 2 < int(spent + 60.999) + 2 <= limit <= int(spent + 61.5) + 2


# -- settings --


def test_settings_of_reading_have_bounds_and_a_text_that_names_the_fields() -> None:
    ReadSettings(1, 3600.0, 100_000_000)
    for wrong, said in (({"max_file_bytes": 0}, "give 1 or more"),
                        ({"parse_seconds": 0}, "give more than 0, and at most 3600"),
                        ({"parse_seconds": 3601}, "at most 3600"),
                        ({"parse_memory_bytes": 99_999_999}, "give at least 100000000")):  # fmt: skip
        assert said in refused(lambda w=wrong: ReadSettings(**w), ConfigError)
    assert ReadSettings().fields == "" and ReadSettings(text_field="a", id_field="c").fields == "text=a,id=c"


def test_files_whose_text_changed_since_0_26_are_read_again() -> None:
    before = {"text": 1, "html": 3, "docx": 3, "epub": 3, "code": 1, "jsonl": 2, "json": 2}
    assert all(FORMATS[name].version > version for name, version in before.items())


def test_formats_are_found_by_ending_or_by_a_name_without_one() -> None:
    names = (
        "a.PDF",
        "README",
        "Makefile",
        "readme.xyz",
        "x.md",
        "a.tsv",
        "b.ndjson",
        "c.htm",
        "d.yaml",
        "noext",
        ".hidden",
    )
    assert [(found := format_of(name)) and found.name for name in names] == [
        "pdf", "text", "code", None, "markdown", "table", "jsonl", "html", "code", None, None
    ]  # fmt: skip
    assert {name for name, each in FORMATS.items() if each.isolated(1)} == {"pdf", "docx", "epub"}
    assert [FORMATS["html"].isolated(LARGE_HTML_BYTES + more) for more in (0, 1)] == [False, True]
