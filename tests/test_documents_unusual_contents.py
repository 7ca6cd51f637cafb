"""Files with unusual contents: items and cells at their limits, ids of 0, titles twice, books with obfuscated fonts."""

from __future__ import annotations

import csv
import importlib.util
import json
from typing import Any

import pytest

import written_documents as written
from firsthand.errors import DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents import table_reader
from firsthand.retrieval.documents.code_reader import read_code
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.epub_reader import read_epub
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings, first_heading
from firsthand.retrieval.documents.html_reader import page_text, page_title, read_html
from firsthand.retrieval.documents.json_reader import _LEFT_OUT, _OTHER_TEXTS, read_json, read_jsonl
from firsthand.retrieval.documents.notebook_reader import read_notebook
from firsthand.retrieval.documents.pdf_reader import read_pdf
from firsthand.retrieval.documents.table_reader import read_table
from firsthand.retrieval.documents.text_reader import read_markdown, read_text

PLAIN = ReadSettings()


def refused(read: Any, data: bytes, settings: ReadSettings = PLAIN) -> str:
    with pytest.raises(DataError) as error:
        read(data, "f", settings)
    return str(error.value)


def test_a_list_is_documents_if_its_first_twenty_are_and_those_that_are_not_are_named() -> None:
    items: list[Any] = [{"text": f"t{n}"} for n in range(22)]
    items[20] = {"no": 1}
    content = read_json(json.dumps(items).encode(), "l.json", PLAIN)
    assert [each.id for each in content.documents] == [f"l.json:{n}" for n in (*range(1, 21), 22)]
    assert content.documents[-1] == Document(
        "l.json:22", "t21", "", meta={"kind": "record"}, locations=(Location(0, "line", "22"),)
    )
    assert content.failed == (
        ("l.json:21", "it has no text in a field 'text or contents': name the field by --text-field"),
    )
    items[19] = 3
    for data in (json.dumps(items).encode(), b"[]", b'{"a": "\xe2\x80\x8b"}', b"7"):
        [whole] = read_json(data, "l.json", PLAIN).documents
        assert (whole.id, whole.title, whole.meta) == ("l.json", "l.json", {"kind": "text"})
        assert whole.text == data.decode().replace("\u200b", "")
    assert read_json(b'{"a": "\xe2\x80\x8b"}', "l", PLAIN).notes == ("invisible characters were dropped: 1 zero-width",)
    named = ReadSettings(text_field="body")
    for data in (b"[]", b'{"text": "x"}', b'[{"text": "x"}]'):
        assert refused(read_json, data, named) == "it has no field 'body': name another by --text-field"
    assert refused(read_json, b"[NaN]") == "it is no JSON: NaN is no JSON"
    assert refused(read_json, b"[" * 200_000) == "it is JSON nested too deeply"
    assert refused(read_json, b"1" * 5000) == "it is no JSON: a number has more than 4,300 digits"


def test_an_item_has_the_first_id_and_text_that_are_of_their_kind_and_values_that_filters_can_name() -> None:
    long = "k" * 101
    given: list[dict[str, Any]] = [
        {"id": 0, "_id": "no", "text": 3, "contents": None, "content": "c", "body": "b", "title": 0},
        {"id": None, "_id": " \u200bx \n y ", "text": "", "title": ["no"], "n": None,
         "o": {}, "f": -0.5, "b": False, "i": 0},
        {"id": 1.5, "text": "a", long: 1, "k" * 100 + "z": 2, " sp  aced ": "v\u200b", "big": -(1 << 63)},
        {"id": "i" * 600, "text": "d", "title": " T " + "t" * 300},
    ]  # fmt: skip
    made = read_jsonl("\n\n".join(map(json.dumps, given)).encode(), "j", PLAIN)
    assert made.failed == () and [each.id for each in made.documents] == ["j:0", "j:x y", "j:5", "j:" + "i" * 500]
    assert [(each.text, each.title) for each in made.documents] == [
        ("c", "0"), ("", ""), ("a", ""), ("d", "T " + "t" * 198)
    ]  # fmt: skip
    assert [each.locations[0].label for each in made.documents] == ["1", "3", "5", "7"]
    assert [{key: value for key, value in each.meta.items() if key != "kind"} for each in made.documents] == [
        {"_id": "no", "text": 3, "body": "b"}, {"o": {}, "f": -0.5, "b": False, "i": 0},
        {"id": 1.5, "k" * 100: 1, "sp aced": "v"}, {},
    ]  # fmt: skip
    other = ReadSettings(text_field="t", id_field="key", title_field="name")
    rows = b'{"t": "x", "text": "y", "key": 0, "id": 3, "name": "N", "title": "no", "_id": 4}\n{"t": "z", "id": 9}'
    first, second = read_jsonl(rows, "j", other).documents
    values = {"kind": "record", "text": "y", "id": 3, "name": "N", "_id": 4}
    assert (first.id, first.text, first.title, first.meta) == ("j:0", "x", "N", values)
    assert (second.id, second.text) == ("j:2", "z"), "no such field: the line"
    assert [ReadSettings(text_field=name).fields for name in ("", None, "a")] == ["text=", "", "text=a"]
    assert set(read_jsonl(rows, "j", other).notes) == {f"{_LEFT_OUT}: title (1)", f"{_OTHER_TEXTS}: text (1)"}
    two = (
        b'{"text": " ", "content": "real", "body": "other"}\n{"text": "", "body": ""}\n{"text": "a", "content": "'
        + b"x" * 1001
    )
    made = read_jsonl(two + b'", "title": ["T"]}', "j", PLAIN)
    assert [(each.text, dict(each.meta)) for each in made.documents] == [
        ("real", {"kind": "record", "body": "other"}), ("", {"kind": "record"}), ("a", {"kind": "record"}),
    ]  # fmt: skip
    assert made.notes == (
        "1 record without text, not indexed: number 2",
        f"{_OTHER_TEXTS}: body (1), content (1)", f"{_LEFT_OUT}: content (1), title (1)"
    )  # fmt: skip
    line = '{"text": "a\u2028b"}'.encode()
    assert read_jsonl(line, "j", PLAIN).documents[0].text == "a\u2028b", "a separator is no end of a line"


def test_cells_rows_and_delimiters_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def text(data: str, name: str = "t.csv", **settings: Any) -> str:
        return read_table(data.encode(), name, ReadSettings(**settings)).documents[0].text

    assert text("a,b;c\n1,2") == "a: 1\nb;c: 2\n\n" and text("a;b|c|d\n1|2|3") == "a;b: 1\nc: 2\nd: 3\n\n"
    assert (
        text('"x,y,z";b\n1;2') == "x,y,z: 1\nb: 2\n\n"
        and text("a,b\tc\td\n1\t2\t3", "T.TSV") == "a,b: 1\nc: 2\nd: 3\n\n"
    )
    assert text("a\tb,c\n1\t2,3", "t.tab") == "a: 1\nb,c: 2,3\n\n" and text("a|b\n1|2\n", "t.tsv") == "a|b: 1|2\n\n"
    content = read_table(b" a  b ,,c\n1\n\n,,\n2,3,4,5\n6,7,8\n", "t.csv", ReadSettings(title_field="title"))
    assert content.documents[0].text == (
        "a b: 1\n\na b: 2\ncolumn 2: 3\nc: 4\ncolumn 4: 5\n\na b: 6\ncolumn 2: 7\nc: 8\n\n"
    )
    assert [each.label for each in content.documents[0].locations] == ["1", "4", "5"]
    assert content.notes == (
        "no column 'title' for titles", "2 rows with another number of cells than the header's 3"
    )  # fmt: skip
    titled = read_table(f"n,t\n1,  {'x' * 99} yz\n2,\n".encode(), "t.csv", ReadSettings(title_field="t")).documents[0]
    assert [each.label for each in titled.locations] == [f"1 ({'x' * 99} )", "2"]
    assert titled.text.startswith("x" * 99 + " \nn: 1\nt: ") and titled.text.endswith("\n\nn: 2\n\n")
    before = csv.field_size_limit()
    monkeypatch.setattr(table_reader, "MAX_CELL_CHARS", 5)
    assert text("a\n12345") == "a: 12345\n\n"
    assert refused(read_table, b"a\n123456") == "it is no table: field larger than field limit (5)"
    assert csv.field_size_limit() == before


def test_a_long_name_of_a_column_is_shortened_and_text_beyond_the_bound_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_reader, "MIN_TEXT_BOUND", 100)
    names = ["a" * 200, "b" * 201, "c" * 2_000]
    content = read_table((",".join(names) + "\nx,,\n,y,\n,,z\n").encode(), "t.csv", ReadSettings(title_field=names[2]))
    assert content.documents[0].text == f"{names[0]}: x\n\n{'b' * 200}…: y\n\nz\n{'c' * 200}…: z\n\n"
    assert content.notes == ("2 names of columns were shortened to 200 characters",)
    monkeypatch.setattr(table_reader, "ROW_BYTES", 0)
    header = b"h" * 100_000 + b"\n"
    [document] = read_table(header + b"x\n" * 300, "t.csv", PLAIN).documents
    assert len(document.text) == 300 * len("h" * 200 + "…: x\n\n")
    several = b",".join([b"h" * 200] * 100) + b"\n" + (b",".join([b"x"] * 100) + b"\n") * 400
    assert refused(read_table, several) == (
        f"it is a table of {len(several):,} bytes, and with the names of its columns in each row it takes more than "
        f"{20 * len(several):,}: divide it, shorten the names, or leave out empty or repeated columns"
    )
    few = b"name\n" + b"x\n" * 20
    monkeypatch.setattr(table_reader, "MAX_TEXT_TIMES", 1)
    assert refused(read_table, few).startswith("it is a table of 45 bytes, and with")
    monkeypatch.setattr(table_reader, "MIN_TEXT_BOUND", 20 * len("name: x\n\n"))
    assert len(read_table(few, "t.csv", PLAIN).documents[0].locations) == 20


def test_cells_of_a_notebook_are_read_by_kind_and_what_is_none_says_which() -> None:
    def cells(*each: Any) -> bytes:
        return json.dumps({"cells": each}).encode()

    content = read_notebook(
        cells({"cell_type": "raw", "source": ["x", 1]}, {"cell_type": "code", "source": "", "input": "no"},
              {"cell_type": "code", "source": "y\n"}, {"source": None}), "n.ipynb", PLAIN,
    )  # fmt: skip
    assert content == FileContent((
        Document("n.ipynb", "x1\n\n```\ny\n\n```\n\n", "", meta={"kind": "notebook"}, locations=(
            Location(0, "heading", "cell 1"), Location(4, "heading", "cell 3"),
        )),
    ))  # fmt: skip
    none = "it is no notebook: it has no list of cells; save it again in Jupyter"
    sheets = [{"cells": [{"source": "a"}, {"source": "b"}]}, {"cells": []}, {"cells": [{"source": ["c"]}]}]
    old = read_notebook(json.dumps({"worksheets": sheets}).encode(), "n.ipynb", PLAIN).documents[0]
    assert old.text == "a\n\nb\n\nc\n\n" and [each.label for each in old.locations] == ["cell 1", "cell 2", "cell 3"]
    odd = (b'{"worksheets": [{"cells": []}, {"cells": {}}]}', b'{"worksheets": {"cells": []}}', b'{"worksheets": [{}]}')
    for body in (*odd, b"{}", b"[]", b'"cells"', b'{"worksheets": []}', b'{"cells": {}}', b"3", b"null"):
        assert refused(read_notebook, body) == none, body
    assert refused(read_notebook, cells({"source": "a"}, "b")) == (
        "it is no notebook: its cell 2 is no JSON object; save it again in Jupyter"
    )
    assert refused(read_notebook, b"[" * 200_000) == "it is no notebook: it is JSON nested too deeply"
    assert refused(read_notebook, b"{").startswith("it is no notebook: it is no JSON: Expecting property name")


def test_titles_are_first_lines_and_headings_of_a_bounded_beginning() -> None:
    def title(text: str) -> str:
        return read_text(text.encode(), "f.txt", PLAIN).documents[0].title

    assert [title(text) for text in ("\n\n  A  b \nc", "x" * 100 + "\ny", "x" * 101 + "\ny", "", "z" * 300)] == [
        "A  b", "x" * 100, "", "", ""
    ]  # fmt: skip
    assert [first_heading(text) for text in ("a\n ## B #c \n# D", "#\n##  \n# E", "#!x", "none", "# " + "x" * 201)] == [
        "B #c", "E", "!x", "", "x" * 200
    ]  # fmt: skip
    for at, found in ((19_996, "h"), (19_999, "")):
        assert first_heading("\n" * at + "# h") == found
    assert read_markdown(b"a\r\n# T\x00\n", "f.md", PLAIN) == FileContent(
        (Document("f.md", "a\n# T\n", "T", meta={"kind": "markdown"}),),
        ("invisible characters were dropped: 1 control",),
    )
    for name, language in (("a/B.PY", "python"), ("Makefile", ""), ("x.tsx", "typescript")):
        assert read_code("ä".encode("utf-16"), name, PLAIN) == FileContent(
            (Document(name, "ä", name, meta={"kind": "code", "language": language}),),
            ("decoded as UTF-16, by its byte order mark",),
        )


def test_a_page_has_its_own_title_or_its_first_heading_and_a_place_for_each_line() -> None:
    assert [page_title(page) for page in (
        "<TITLE a='b'>x &amp;\n y</TITLE>", "<title>open", "</title><title>a</title>", "<title></title>", "<p>", "<title",
        f"<title>{'t' * 201}</title>", "<title>one</title><title>two</title>",
    )] == ["x & y", "", "a", "", "", "", "t" * 200, "one"]  # fmt: skip
    content = read_html("<h1>Héad</h1>\n<p>a&#x200b;b</p>\u200b".encode("utf-16"), "p.html", PLAIN)
    [document] = content.documents
    assert (document.title, document.meta) == ("Héad", {"kind": "html"}) and "ab" in document.text
    assert content.notes == (
        "decoded as UTF-16, by its byte order mark", "invisible characters were dropped: 1 zero-width",
        "invisible characters were dropped: 1 zero-width",
    )  # fmt: skip
    text, places, notes = page_text("\n\n<p>one</p><p>two</p>\n<p>three</p>")
    assert [(text[each.start :].split("\n")[0], each.label) for each in places] == [("one", "3"), ("three", "4")]
    assert notes == [] and page_text("")[:2] == ("", ())


def test_styles_of_word_are_headings_by_the_beginning_of_their_name() -> None:
    p = written.paragraph
    names = {
        "a": "Heading 1 Char",
        "b": "überschrift 9",
        "c": "TITLE",
        "d": "Subtitle",
        "e": "my heading 2",
        "f": "Titre3",
    }
    styles = "".join(f'<w:style w:styleId="{id}"><w:name w:val="{name}"/></w:style>' for id, name in names.items())
    styled = f"<w:styles {written.W}>{styles}</w:styles>"
    body = "".join(p(f"{id} &lt;", id) for id in names) + p("g", "heading4") + p("h", "Heading 5") + p("i", "Heading10")
    [document] = read_docx(written.docx(body, styles=styled), "d.docx", PLAIN).documents
    assert document.text == ("# a <\n\n###### b <\n\n# c <\n\nd <\n\ne <\n\n### f <\n\n#### g\n\n##### h\n\ni\n\n")
    assert document.title == "a <"
    core = f"<c><title>{'A' * 8192}{'B' * 900}</title><subject>no</subject></c>"  # longer than what comes at once
    parts: dict[str, str | bytes] = {"word/document.xml": f"<d {written.W}/>", "docProps/core.xml": core}
    assert read_docx(written.zipped(parts), "d.docx", PLAIN).documents[0].title == "A" * 200


def test_a_book_is_read_in_the_order_of_its_spine_from_the_folder_of_its_package() -> None:
    items = {"one": ("a%20b.html", "text/html"), "two": ("../c.xhtml", "application/xhtml+xml"), 
             "cover": ("i.png", "image/png"),
             "no": ("gone.xhtml", "application/xhtml+xml")}  # fmt: skip
    manifest = "".join(f'<item id="{id}" href="{href}" media-type="{kind}"/>' for id, (href, kind) in items.items())
    spine = "".join(f'<itemref idref="{id}"/>' for id in ("two", "cover", "unknown", "no", "one", "two"))
    package = (
        f'<package xmlns:dc="u"><metadata><dc:title></dc:title><dc:title> My  &amp;</dc:title><dc:title>no</dc:title>'
        f"</metadata><manifest>{manifest}</manifest><spine>{spine}</spine></package>"
    )
    container = '<c><rootfiles><rootfile/><rootfile full-path="d/e/p.opf"/><rootfile full-path="x"/></rootfiles></c>'
    parts: dict[str, str | bytes] = {
        "META-INF/container.xml": container, "META-INF/encryption.xml": "<fonts/>", "d/e/p.opf": package,
        "d/e/a b.html": "<title>No</title><h2>T</h2><p>first</p>", "d/c.xhtml": "<p>second</p>",
    }  # fmt: skip
    content = read_epub(written.zipped(parts), "b.epub", PLAIN)
    assert content == FileContent(
        (Document("b.epub", "second\n\nNo\n\n## T\n\nfirst\n\n", "My &", meta={"kind": "epub"},
                  locations=(Location(0, "heading", "chapter 1"), Location(8, "heading", "T"))),),
        ("chapter 2 cannot be read: it is no EPUB: it has no part 'd/e/gone.xhtml'",
         "2 references of its spine to no text that is read: 'cover' (image/png), 'unknown' (not in the manifest)"),
    )  # fmt: skip
    assert refused(read_epub, written.zipped({**parts, "META-INF/rights.xml": ""})) == (
        "it is encrypted by copy protection: it cannot be read"
    )


@pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)
def test_a_page_that_cannot_be_loaded_is_named_after_those_without_text() -> None:
    def page(content: int) -> bytes:
        return (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % content
        )

    def stream(words: bytes) -> bytes:
        return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(words), words)

    one, four = (stream(b"BT /F1 12 Tf 50 700 Td (%s) Tj ET" % words) for words in (b"One \x0b", b"Four"))
    data = written.pdf_of([
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [4 0 R 6 0 R 7 0 R 9 0 R] /Count 4 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", page(5), one, b"null", page(8),
        stream(b""), page(10), four,
    ])  # fmt: skip
    content = read_pdf(data, "p.pdf", PLAIN)
    [document] = content.documents
    assert [document.text[each.start :].split()[0] for each in document.locations] == ["One", "Four"]
    assert [each.label for each in document.locations] == ["1", "4"] and document.meta == {"kind": "pdf"}
    assert content.notes[:2] == ("without text, perhaps scanned: pages 2, 3", "cannot be read: page 2")


def test_lines_that_are_no_objects_are_each_told_where_no_line_has_a_text() -> None:
    content = read_jsonl(b'7\n{"a": 1}\nnull\n', "x.jsonl", PLAIN)
    field = "it has no text in a field 'text or contents': name the field by --text-field"
    told = (("x.jsonl:1", "it is no JSON object"), ("x.jsonl:2", field), ("x.jsonl:3", "it is no JSON object"))
    assert (content.documents, content.failed) == ((), told)
