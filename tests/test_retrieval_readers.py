"""Readers of documents in this process, whole contents of small files; and a folder walked to its last link."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

import written_documents as written
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents import zip_parts
from firsthand.retrieval.documents.docx_reader import _Body, _Styles, read_docx
from firsthand.retrieval.documents.epub_reader import _Package, read_epub
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFile, FolderFilter, expect_files, walk
from firsthand.retrieval.documents.html_reader import page_text, page_title
from firsthand.retrieval.documents.json_reader import read_json
from firsthand.retrieval.documents.parser_process import (
    content_from_json,
    content_to_json,
    read_block,
    reply,
    write_block,
)
from firsthand.retrieval.documents.pdf_reader import _numbers, read_pdf
from firsthand.retrieval.documents.table_reader import read_table
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml

PLAIN = ReadSettings()
W = written.W


def places(*marks: tuple[int, str, str]) -> tuple[Location, ...]:
    return tuple(Location(*mark) for mark in marks)


@pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)
def test_pages_of_a_pdf_are_places_and_those_without_text_are_named() -> None:
    made = read_pdf(written.pdf(["One", "", "Three x", ""], title="A  Title" + "e" * 300), "a.pdf", PLAIN)
    title = ("A Title" + "e" * 300)[:200]
    text = "One\n\nThree x\n\n"
    document = Document(
        "a.pdf", text, title, meta={"kind": "pdf"}, locations=places((0, "page", "1"), (5, "page", "3"))
    )
    assert made == FileContent((document,), ("without text, perhaps scanned: pages 2, 4",))
    assert read_pdf(written.pdf(["x"]), "b.pdf", PLAIN) == FileContent(
        (Document("b.pdf", "x\n\n", "", meta={"kind": "pdf"}, locations=places((0, "page", "1"))),)
    )
    for data, told in (
        (written.pdf(["", "", ""]), "none of its 3 pages has text: it may be scanned, and needs OCR first"),
        (written.encrypted_pdf(), "it is encrypted and needs a password: save it without one"),
    ):
        with pytest.raises(DataError) as fault:
            read_pdf(data, "c.pdf", PLAIN)
        assert str(fault.value) == told
    with pytest.raises(DataError, match=r"^it is no PDF that can be read: "):
        read_pdf(b"no", "c.pdf", PLAIN)
    assert _numbers([7]) == "page 7" and _numbers([1, 2]) == "pages 1, 2"
    assert _numbers([*range(1, 11)]).endswith("9, 10") and _numbers([*range(1, 13)]).endswith("9, 10 and 2 more")


def test_a_docx_is_headings_lists_tables_and_notes_without_deleted_text() -> None:
    p = written.paragraph

    def cell(*inside: str) -> str:
        return f"<w:tc>{''.join(inside)}</w:tc>"

    inner = f"<w:tbl><w:tr>{cell(p('i1'))}{cell(p('i2'))}</w:tr></w:tbl>"
    body = (
        p("Top", "Berschrift1") + p("", "") + p("a  b", "", "<w:numPr/>") + p("Deep  one", "", '<w:outlineLvl w:val="8"/>')
        + "<w:p><w:r><w:tab/><w:t>x</w:t><w:tab/><w:br/><w:t>y</w:t><w:noBreakHyphen/><w:t>z</w:t></w:r></w:p>"
        + "<w:p><w:del><w:r><w:t>gone</w:t></w:r></w:del><w:moveFrom><w:t>too</w:t></w:moveFrom>"
        + "<w:r><w:t>kept</w:t></w:r></w:p>"
        + f"<w:tbl><w:tr>{cell(p('c1'), p('more'))}{cell(inner)}</w:tr><w:tr>{cell(p(''))}{cell()}</w:tr></w:tbl>"
        + p("Heading2 by id", "Heading2") + p("Mid", "", '<w:outlineLvl w:val="1"/>')
        + "<w:p><w:r>lost<w:t>end</w:t></w:r></w:p>"
    )  # fmt: skip
    notes = f"<w:footnotes {W}>{p('a note')}</w:footnotes>"
    made = read_docx(written.docx(body, footnotes=notes, endnotes="<broken"), "d.docx", PLAIN)
    pieces = [
        ("1", "# Top\n\n"), ("3", "- a  b\n"), ("4", "###### Deep one\n\n"), ("5", "x\t\ny-z\n\n"), ("6", "kept\n\n"),
        (None, "| c1 more | i1 | i2 |\n"), (None, "\n"),
        ("12", "## Heading2 by id\n\n"), ("13", "## Mid\n\n"), ("14", "end\n\n"), ("15", "a note\n\n"),
    ]  # fmt: skip
    text, marks = "", []
    for number, piece in pieces:
        if number is not None:
            marks.append((len(text), "paragraph", number))
        text += piece
    (document,) = made.documents
    assert document.text == text
    assert document == Document("d.docx", text, "Top", meta={"kind": "docx"}, locations=places(*marks))
    assert len(made.notes) == 1 and made.notes[0].startswith("its XML is damaged: ")
    core = '<c xmlns:d="x"><d:title>  My   title </d:title><d:other>no</d:other></c>'
    parts = {"word/document.xml": f"<w:document {W}>{p('x')}</w:document>", "docProps/core.xml": core}
    assert read_docx(written.zipped(parts), "e.docx", PLAIN).documents[0].title == "My title"  # type: ignore[arg-type]


def test_chapters_of_an_epub_come_in_the_order_of_its_spine() -> None:
    chapters = {"a b.xhtml": "<h1>One</h1><p>x</p>", "../c.xhtml": "<title>Two</title>", "d.xhtml": "<p>plain"}
    made = read_epub(written.epub(chapters), "b.epub", PLAIN)
    (document,) = made.documents
    assert document.title == "A Book" and document.meta == {"kind": "epub"} and document.id == "b.epub"
    assert made.notes == ("chapter 2 cannot be read: it is no EPUB: it has no part 'c.xhtml'",)
    first = document.text.index("plain")
    assert document.locations == places((0, "heading", "One"), (first, "heading", "chapter 3"))
    assert document.text[:first].endswith("x\n\n") and document.text.endswith("plain\n\n")
    package = (
        '<package><title>First</title><title>Second</title><manifest><item id="a" href="a%20b.html" media-type="text/html"/>'
        '<item id="i" href="i.png" media-type="image/png"/><item id="z" href="sub/z.html" media-type="x-html"/></manifest>'
        '<spine><itemref idref="z"/><itemref idref="i"/><itemref idref="a"/><itemref idref="z"/></spine></package>'
    )
    container = '<c><rootfile full-path="p/q.opf"/><rootfile full-path="no"/></c>'
    parts: dict[str, Any] = {
        "META-INF/container.xml": container,
        "p/q.opf": package,
        "p/a b.html": "<p>A",
        "p/sub/z.html": "<p>Z",
    }
    (second,) = read_epub(written.zipped(parts), "c.epub", PLAIN).documents
    assert (second.title, second.text) == ("First", "Z\n\nA\n\n")
    assert second.locations == places((0, "heading", "chapter 1"), (3, "heading", "chapter 2"))
    for changed, told in (
        ({"META-INF/container.xml": "<c/>"}, "it is no EPUB: its container names no package"),
        ({"p/a b.html": " ", "p/sub/z.html": ""}, "none of its chapters has text"),
        (
            {"META-INF/encryption.xml": "", "META-INF/rights.xml": ""},
            "it is encrypted by copy protection: it cannot be read",
        ),
    ):
        with pytest.raises(DataError) as fault:
            read_epub(written.zipped(parts | changed), "c.epub", PLAIN)
        assert str(fault.value) == told
    assert read_epub(written.zipped(parts | {"META-INF/encryption.xml": ""}), "c.epub", PLAIN).documents
    assert read_epub(written.zipped(parts | {"META-INF/rights.xml": ""}), "c.epub", PLAIN).documents


def test_rows_of_a_table_are_paragraphs_with_the_names_of_their_columns() -> None:
    data = b'name;the  city;\nAna;"Tesk; old";\n;;\nBo;Norland;3;four\n;x\n'
    made = read_table(data, "t.csv", ReadSettings(title_field="the city"))
    rows = ["Tesk; old\nname: Ana\nthe city: Tesk; old\n\n",
            "Norland\nname: Bo\nthe city: Norland\ncolumn 3: 3\ncolumn 4: four\n\n",
            "x\nthe city: x\n\n"]  # fmt: skip
    ends = [0, len(rows[0]), len(rows[0] + rows[1])]
    marks = [(at, "row", label) for at, label in zip(ends, ("1 (Tesk; old)", "3 (Norland)", "4 (x)"), strict=True)]
    document = Document("t.csv", "".join(rows), "", meta={"kind": "table"}, locations=places(*marks))
    assert made == FileContent((document,), ("2 rows with another number of cells than the header's 3",))
    tabs = read_table(b"a,b\tc\n1\t2\n", "T.TSV", ReadSettings(title_field="z"))
    assert tabs.documents[0].text == "a,b: 1\nc: 2\n\n" and tabs.notes == ("no column 'z' for titles",)
    assert (
        tabs.documents[0].locations == places((0, "row", "1"))
        and read_table(b"", "e.csv", PLAIN).documents[0].text == ""
    )
    assert read_table(b'"a|b|c",d\n1,2\n', "q.csv", PLAIN).documents[0].text == "a|b|c: 1\nd: 2\n\n"
    assert read_table(b"a\n1\n", "one.csv", PLAIN).documents[0].text == "a: 1\n\n"
    wide = ",".join("x" * 10_000).encode()
    assert len(read_table(wide, "w.csv", PLAIN).documents) == 1
    with pytest.raises(
        DataError, match=r"^its row 1 has more than 10000 columns: leave out or join those you do not need$"
    ):
        read_table(wide + b",x", "w.csv", PLAIN)


def test_parts_of_an_archive_expand_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_parts, "MAX_PART_BYTES", 2000)
    monkeypatch.setattr(zip_parts, "RATIO_FROM_BYTES", 100)
    monkeypatch.setattr(zip_parts, "MAX_RATIO", 10)
    data = written.zipped(
        {"a": os.urandom(900), "b": os.urandom(1100), "c": os.urandom(1101), "d": b"x" * 101, "e": b"x" * 100}
    )
    parts = ZipParts(data, "DOCX")
    assert len(parts.read("a")) == 900 and len(parts.read("b")) == 1100 and parts.left == 0
    parts = ZipParts(data, "DOCX")
    parts.read("a")
    with pytest.raises(
        DataError, match=r"^its part 'c' expands from 1,\d\d\d to 1,101 bytes or more: a ZIP bomb is not read$"
    ):
        parts.read("c")
    assert parts.read("e") == b"x" * 100
    with pytest.raises(DataError, match=r"^its part 'd' expands from \d to 101 bytes or more: a ZIP bomb is not read$"):
        parts.read("d")
    with pytest.raises(DataError, match=r"^it is no DOCX: it has no part 'zz'$"):
        parts.read("zz")
    old = "it is encrypted or of an old format, and no EPUB: save it anew without a password"
    for bad, told in ((b"\xd0\xcf\x11\xe0x", old),
                      (b"PK", "it is no EPUB: File is not a zip file")):  # fmt: skip
        with pytest.raises(DataError) as fault:
            ZipParts(bad, "EPUB")
        assert str(fault.value) == told
    monkeypatch.setattr(zip_parts, "MAX_PARTS", 4)
    with pytest.raises(DataError, match=r"^it has 5 parts, and at most 4 are read$"):
        ZipParts(data, "DOCX")

    def nested(depth: int) -> list[Any]:
        seen: list[Any] = []
        xml = "<n:a xmlns:n='u' n:k='v'>" * depth + "words" + "</n:a>" * depth
        parse_xml(xml.encode(), lambda name, attributes: seen.append((name, attributes)), seen.append, seen.append)
        return seen

    assert nested(1) == [("a", {"k": "v"}), "words", "a"] and len(nested(500)) == 1001
    with pytest.raises(DataError, match=r"^its XML is nested more than 500 deep$"):
        nested(501)
    seen: list[str] = []
    parse_xml(b"<r>" + b"<a/>" * 600 + b"</r>", lambda name, _: seen.append(name), lambda _: None, lambda _: None)
    assert seen == ["r", *["a"] * 600], "siblings are not depth"
    with pytest.raises(DataError, match=r"^its XML declares a document type, which may hide entities: it is not read$"):
        parse_xml(b"<!DOCTYPE a><a/>", lambda *_: None, lambda _: None, lambda _: None)


def test_replies_of_the_parser_are_documents_again_or_refused(tmp_path: Path) -> None:
    document = Document("a.txt", "tëxt", "T", meta={"k": 1}, locations=places((0, "page", "2")))
    content = FileContent((document,), ("note",), (("a.txt:2", "why"),))
    body = content_to_json(content)
    assert body == {"documents": [["a.txt", "tëxt", "T", {"k": 1}, [[0, "page", "2"]]]], "notes": ["note"],
                    "failed": [["a.txt:2", "why"]]}  # fmt: skip
    assert content_from_json(body, "a.txt") == content
    inside = {**body, "documents": [["a.txt:7", "x", "", {}, []]]}
    assert content_from_json(inside, "a.txt").documents[0].id == "a.txt:7"
    for wrong in (
        {**body, "documents": [["a.txt2", "x", "", {}, []]]},
        {"documents": []},
        {**body, "failed": [[1]]},
        [],
    ):
        with pytest.raises(ValueError):
            content_from_json(wrong, "a.txt")
    assert reply("table", b"a\n1\n", "t.csv", PLAIN) == content_to_json(read_table(b"a\n1\n", "t.csv", PLAIN))
    assert reply("docx", b"PK", "t.docx", PLAIN) == {"error": "it is no DOCX: File is not a zip file"}
    assert reply("table", None, "t.csv", PLAIN)["end"] is True  # type: ignore[arg-type]
    path = tmp_path / "blocks"
    with path.open("wb") as out:
        write_block(out, b"abc")
        write_block(out, b"")
        out.write(b"\5\0\0\0\0\0\0\0four")
    with path.open("rb") as given:
        assert read_block(given, 3) == b"abc" and read_block(given) == b""
        with pytest.raises(ValueError, match=r"^a block that ends early$"):
            read_block(given)
        assert read_block(given) == b""
    with path.open("rb") as given, pytest.raises(ValueError, match=r"^a block of 3 bytes$"):
        read_block(given, 2)


def test_a_folder_is_walked_in_order_and_what_is_left_out_has_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    for name in (
        "b/z.txt",
        "b/a.md",
        "a.txt",
        "c.BIN",
        "noend",
        ".hid/x.txt",
        "venv/x.txt",
        "env/pyvenv.cfg",
        "b.txt",
        "own.txt",
        "d/q.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "in").symlink_to("a.txt")
    (root / "lost").symlink_to("nowhere")
    (tmp_path / "out.txt").write_text("x")
    (root / "out").symlink_to("../out.txt")
    os.mkfifo(root / "pipe.txt")

    def walked(**globs: Any) -> list[tuple[Any, ...]]:
        found = walk(root, FolderFilter(**globs), frozenset({root / "own.txt"}))
        return [
            (each.name, each.size_bytes, each.format.name, each.path == root / each.name)
            if isinstance(each, FolderFile)
            else (each.name, each.reason, each.failed)
            for each in found
        ]

    everything = [
        (".hid/", "hidden folders are left out", False),
        ("a.txt", 5, "text", True),
        ("b.txt", 5, "text", True),
        ("c.BIN", ".bin: not a kind that is read", False),
        ("env/", "Python environments are left out", False),
        ("in", "it is a link to a.txt, which is read by that name", False),
        ("lost", "it is a link to nothing", True),
        ("noend", "files without an ending: not a kind that is read", False),
        ("out", "it is a link that leaves the folder: index its target, or copy it here", True),
        ("pipe.txt", "it is a pipe", True),
        ("venv/", "generated folders are left out", False),
        ("b/a.md", 6, "markdown", True),
        ("b/z.txt", 7, "text", True),
        ("d/q.txt", 7, "text", True),
    ]
    assert walked() == everything
    files = [each for each in everything if isinstance(each[-1], bool) and len(each) == 4]
    assert [each for each in walked(include=("*.txt",), exclude=("b/*", "d/*")) if len(each) == 4] == files[:2]
    assert [each[0] for each in walked(include=("b/*",)) if not str(each[0]).endswith("/")] == ["b/a.md", "b/z.txt"]
    assert [each[0] for each in walked(include=("a.*",)) if len(each) == 4] == ["a.txt", "b/a.md"]
    (alone,) = walk(root / "b" / "a.md", FolderFilter(include=("*.txt",)))
    assert isinstance(alone, FolderFile) and (alone.name, alone.size_bytes) == ("a.md", 6)
    with pytest.raises(ConfigError) as nothing:
        next(walk(tmp_path / "none", FolderFilter()))
    assert str(nothing.value) == f"no folder or file {str(tmp_path / 'none')!r} can be read: No such file or directory"
    expect_files([root], FolderFilter())
    with pytest.raises(ConfigError) as none:
        expect_files([root], FolderFilter(include=("c.BIN", "noend", "lost")), [root / "lost"])
    assert str(none.value) == (
        f"{root}: no file there can be indexed (.hid/: hidden folders are left out; c.BIN: .bin: not a kind that is read; "
        "env/: Python environments are left out; ...): give a folder of documents, or other patterns"
    )
    for glob in ("", "/x"):
        with pytest.raises(ConfigError, match=r"is no pattern below the folder: write it as '\*\.md' or 'notes/\*'$"):
            FolderFilter(exclude=(glob,))


def test_a_style_is_a_heading_by_its_name_before_its_level_and_a_broken_part_leaves_nothing_open() -> None:
    styles = _Styles(
        b"<styles><name val='heading 7'/><style styleId='A'><name val='heading 2'/><outlineLvl val='5'/></style>"
        b"<style styleId='B'><outlineLvl val='3'/><name val='Body'/></style><style styleId='C'><name val='TITLE'/></style>"
        b"<style styleId='D'><outlineLvl val='9'/></style><style><name val='heading 1'/></style></styles>"
    )
    assert styles.levels == {"A": 2, "B": 4, "C": 1}
    body = _Body(styles.levels)
    body.read(b"<d><p><pStyle val='A'/><t>One</t></p><p><pStyle val='Heading3'/><t>Two</t></p></d>")
    for broken in (b"<d><del><p><t>lost", b"<d><tbl><tr><tc><p><numPr/><t>lost", b"<d><p><outlineLvl val='1'/>"):
        with pytest.raises(DataError, match="its XML is damaged"):
            body.read(broken)
        body.read(b"<d>outside<p><t>plain</t></p><tbl/></d>")
    assert "".join(body.written) == "## One\n\n### Two\n\n" + "plain\n\n\n" * 3
    assert [(place.start, place.label) for place in body.places] == [
        (0, "1"),
        (8, "2"),
        (17, "3"),
        (25, "4"),
        (33, "5"),
    ]


def test_notes_of_a_docx_follow_its_body_footnotes_first_and_a_broken_part_is_a_remark() -> None:
    def packed(**parts: str) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name, text in parts.items():
                archive.writestr(f"{name.replace('__', '/')}.xml", text)
        return data.getvalue()

    def words(text: str) -> str:
        return f"<d><p><t>{text}</t></p></d>"

    whole = {"word__endnotes": words("End."), "word__footnotes": words("Foot."), "word__document": words("Body.")}
    long = "t" * 3000
    (document,) = read_docx(
        packed(**whole, docProps__core=f"<c><title> A  {long}</title><x>no</x></c>"), "n", PLAIN
    ).documents
    assert document.text == "Body.\n\nFoot.\n\nEnd.\n\n" and document.title == f"A {long}"[:MAX_TITLE_CHARS]
    assert document.locations == places((0, "paragraph", "1"), (7, "paragraph", "2"), (14, "paragraph", "3"))
    broken = read_docx(packed(**whole | {"word__footnotes": "<d>"}, docProps__core="<c>"), "n", PLAIN)
    assert broken.documents[0].text == "Body.\n\nEnd.\n\n" and broken.documents[0].title == ""
    (note,) = broken.notes
    assert note.startswith("its XML is damaged: ")


def test_rows_values_and_titles_are_read_to_their_very_limits() -> None:
    before = csv.field_size_limit()
    titled = read_table(b"a,title\nx\ny,T\nz,U,w\n", "t.csv", ReadSettings(title_field="title")).documents[0]
    assert titled.text == "a: x\n\nT\na: y\ntitle: T\n\nU\na: z\ntitle: U\ncolumn 3: w\n\n"
    assert [place.label for place in titled.locations] == ["1", "2 (T)", "3 (U)"] and csv.field_size_limit() == before
    body = json.dumps({"text": "x"} | {f"k{n}": n for n in range(1, 200)}).encode()
    meta = read_json(body, "j.json", PLAIN).documents[0].meta
    assert meta == {"kind": "record"} | {f"k{n}": n for n in range(1, 200)}  # of 200 keys, the text's the first
    package = _Package(b"<package><metadata><title>One</title><title>Two</title></metadata></package>")
    assert (package.title, package.chapters()) == ("One", [])
    for held, kept in ((999, 1001), (1000, 1000)):
        package.title, package._in_title = "x" * held, True
        package._add("yy")
        assert len(package.title) == kept


def test_a_page_is_told_by_the_lines_of_its_source_and_its_title_looked_for_in_its_beginning() -> None:
    text, found, dropped = page_text("<p>a</p>\n<p>b</p>\n\n<p>c</p>\n<p>d</p>")
    lines = [(text[place.start], place.kind, place.label) for place in found]
    assert lines == [("a", "line", "1"), ("b", "line", "2"), ("c", "line", "4"), ("d", "line", "5")] and dropped == []
    for before, title in ((2_000, "Its name"), (99_900, "Its name"), (100_000, "")):
        assert page_title(f"{' ' * before}<TITLE lang=x>Its  name</title>") == title
