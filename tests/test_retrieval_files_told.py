"""Faults of files as they are told, with their numbers; tables and windows at the end of a text; folders below folders."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import written_documents as written
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.chunking.fixed_chunks import fixed
from firsthand.retrieval.chunking.markdown_chunks import blocks, markdown
from firsthand.retrieval.chunking.parent_chunks import parents
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.chunking.sentence_chunks import by_sentences
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents import zip_parts
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.folder_files import FolderFile, FolderFilter, LeftOut, expect_files, read_bytes, walk
from firsthand.retrieval.documents.json_reader import read_json, read_jsonl
from firsthand.retrieval.documents.parser_process import read_block, write_block
from firsthand.retrieval.documents.zip_parts import ZipParts, parse_xml

PLAIN = ReadSettings()


def refused(act: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


# -- JSON --


def test_faulty_lines_are_told_by_their_number_in_the_file_blank_ones_counted() -> None:
    lines = ["", "{", "  ", '{"text": "a", "id": 1}', '{"text": 3}', "\t", '{"text": "b"}', '{"text": "a", "id": 1}', "",
             '{"text": "c", "_id": "1"}', "[]"]  # fmt: skip
    content = read_jsonl("\n".join(lines).encode(), "d/x.jsonl", PLAIN)
    assert content.documents == (
        Document("d/x.jsonl:1", "a", meta={"kind": "record"}, locations=(Location(0, "line", "4"),)),
        Document("d/x.jsonl:7", "b", meta={"kind": "record"}, locations=(Location(0, "line", "7"),)),
    )
    twice = "the id of 'd/x.jsonl:1' came before: give each its own"
    assert content.failed == (
        (
            "d/x.jsonl:2",
            "it is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("d/x.jsonl:5", "it has no text in a field 'text or contents': name the field by --text-field"),
        ("d/x.jsonl:8", twice),  # of the same text, too
        ("d/x.jsonl:10", twice),
        ("d/x.jsonl:11", "it is no JSON object"),
    )
    items: list[Any] = [{"text": str(number), "id": f"i{number}"} for number in range(1, 24)]
    items[20:22] = [{"text": "2", "id": "i2"}, "no object"]
    content = read_json(json.dumps(items).encode(), "l.json", PLAIN)
    assert [each.id for each in content.documents] == [f"l.json:i{number}" for number in (*range(1, 21), 23)]
    assert content.documents[-1].locations == (Location(0, "line", "23"),)
    assert content.failed == (
        ("l.json:21", "the id of 'l.json:i2' came before: give each its own"), ("l.json:22", "it is no JSON object")
    )  # fmt: skip
    marked = read_jsonl('\n{"text": "é"}'.encode("utf-16"), "u", ReadSettings(text_field="text"))
    assert marked.notes == ("decoded as UTF-16, by its byte order mark",) and marked.documents[0].id == "u:2"
    assert read_jsonl(b'{"x": 1}', "n", ReadSettings(text_field="body")).failed == (
        ("n:1", "it has no text in a field 'body': name the field by --text-field"),
    )
    assert read_jsonl(b" \n\n", "n", PLAIN) == FileContent((), (), ())


# -- archives --


def test_faults_of_notes_and_dropped_characters_are_both_told_of_a_docx() -> None:
    paragraph = written.paragraph
    end = paragraph("an end\u202e")
    footnotes, endnotes = "<broken", f"<w:endnotes {written.W}>{end}</w:endnotes>"
    content = read_docx(written.docx(paragraph("one\u200b"), footnotes=footnotes, endnotes=endnotes), "d.docx", PLAIN)
    damaged = "its XML is damaged: unclosed token: line 1, column 0"
    assert content == FileContent(
        (Document("d.docx", "one\n\nan end\n\n", meta={"kind": "docx"},
                  locations=(Location(0, "paragraph", "1"), Location(5, "paragraph", "2"))),),
        (damaged, "invisible characters were dropped: 1 bidirectional, 1 zero-width"),
    )  # fmt: skip
    both = read_docx(written.docx(paragraph("x"), footnotes=footnotes, endnotes="<e><f></e>"), "d.docx", PLAIN)
    assert both.notes == (damaged, "its XML is damaged: mismatched tag: line 1, column 8")
    assert read_docx(written.docx(paragraph("x\u200b")), "d.docx", PLAIN).notes == (
        "invisible characters were dropped: 1 zero-width",
    )


def archive(*parts: tuple[str, str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two parts of one name
        for name, body in parts:
            made.writestr(name, body)
    return file.getvalue()


def test_of_two_parts_of_one_name_the_last_is_read_and_as_many_parts_as_the_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = archive(("a", "first"), ("b", "other"), ("a", "second"))
    parts = ZipParts(data, "DOCX")
    assert [*parts.names] == ["a", "b"] and parts.read("a") == b"second" and parts.read("b") == b"other"
    monkeypatch.setattr(zip_parts, "MAX_PARTS", 3)
    assert ZipParts(data, "DOCX").read("b") == b"other"
    monkeypatch.setattr(zip_parts, "MAX_PARTS", 2)  # parts are counted, not their names
    assert refused(lambda: ZipParts(data, "DOCX")) == "it has 3 parts, and at most 2 are read"


def test_a_part_is_a_bomb_by_its_ratio_only_from_a_size_on_and_by_what_all_may_have_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = zipfile.ZipFile(io.BytesIO(archive(("a", "x" * 400)))).getinfo("a").compress_size
    size = 400 // small * small  # so that the ratio is a whole number
    data = archive(("a", "x" * size))
    compressed = zipfile.ZipFile(io.BytesIO(data)).getinfo("a").compress_size
    assert compressed == small
    told = f"its part 'a' expands from {small} to {size} bytes or more: a ZIP bomb is not read"
    for ratio, begins, taken in ((size // small, 0, True), (size // small - 1, size, True),
                                 (size // small - 1, size - 1, False)):  # fmt: skip
        monkeypatch.setattr(zip_parts, "MAX_RATIO", ratio)
        monkeypatch.setattr(zip_parts, "RATIO_FROM_BYTES", begins)
        parts = ZipParts(data, "EPUB")
        if taken:
            assert parts.read("a") == b"x" * size and parts.left == zip_parts.MAX_PART_BYTES - size
        else:
            assert refused(lambda: parts.read("a")) == told and parts.left == zip_parts.MAX_PART_BYTES  # noqa: B023
    monkeypatch.setattr(zip_parts, "MAX_PART_BYTES", size + 4)
    parts = ZipParts(archive(("a", "x" * size), ("b", "four"), ("c", "y"), method=zipfile.ZIP_STORED), "EPUB")
    assert (parts.read("a"), parts.read("b"), parts.left) == (b"x" * size, b"four", 0)
    assert refused(lambda: parts.read("c")) == (
        "its part 'c' expands from 1 to 1 bytes or more: a ZIP bomb is not read"
    )
    assert refused(lambda: parts.read("n" * 101)) == f"it is no EPUB: it has no part '{'n' * 100}'"
    broken = bytearray(archive(("n" * 120, "sound"), method=zipfile.ZIP_STORED))
    broken[broken.index(b"sound")] += 1
    said = refused(lambda: ZipParts(bytes(broken), "EPUB").read("n" * 120))
    assert said == f"its part '{'n' * 100}' cannot be read: Bad CRC-32 for file '{'n' * 120}'"


# -- folders --


def test_generated_and_hidden_folders_are_left_out_at_every_depth(tmp_path: Path) -> None:
    generated = ("__pycache__", "node_modules", "site-packages", "venv")
    for folder in ("", "a/", "a/b/"):
        for name in (*generated, ".git", "env", "venv2", "Venv"):
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "x.md").touch()
        (tmp_path / folder / "env" / "pyvenv.cfg").touch()
    (tmp_path / "a" / "venv.md").touch()
    found = list(walk(tmp_path, FolderFilter()))
    assert [each.name for each in found if isinstance(each, FolderFile)] == [
        "Venv/x.md", "a/venv.md", "a/Venv/x.md", "a/b/Venv/x.md", "a/b/venv2/x.md", "a/venv2/x.md", "venv2/x.md"
    ]  # fmt: skip
    left = [each for each in found if isinstance(each, LeftOut)]
    assert left == [
        LeftOut(f"{folder}{name}/", reason, False)
        for folder in ("", "a/", "a/b/")
        for name, reason in (
            (".git", "hidden folders are left out"), ("__pycache__", "generated folders are left out"),
            ("env", "Python environments are left out"),
            *((each, "generated folders are left out") for each in generated[1:]),
        )
    ]  # fmt: skip
    own = walk(tmp_path / "a", FolderFilter(), frozenset([tmp_path / "a" / "b", tmp_path / "venv.md"]))
    assert [each.name for each in own if isinstance(each, FolderFile)] == ["venv.md", "Venv/x.md", "venv2/x.md"]
    for name in generated:  # the folder that was asked for itself is read, whatever its name
        assert [each.name for each in walk(tmp_path / name, FolderFilter())] == ["x.md"]
    os.mkfifo(tmp_path / "a" / "b" / "p.txt")
    filtered = [*walk(tmp_path / "a" / "b", FolderFilter(include=["*.txt"]))]
    assert [each for each in filtered if each.name == "p.txt"] == [LeftOut("p.txt", "it is a pipe", True)]


# -- chunks --


def test_every_chunker_with_an_overlap_refuses_more_than_half_of_its_size() -> None:
    for chunker in (fixed, recursive, markdown, by_sentences, parents):
        for size, overlap in ((10, 5), (11, 5), (1, 0)):
            chunker(size=size, overlap=overlap)  # type: ignore[operator]
        for size, overlap in ((10, 6), (10, -1), (11, 6), (1, 1)):
            told = refused(lambda: chunker(size=size, overlap=overlap), ConfigError)  # type: ignore[operator] # noqa: B023
            assert told == f"overlap is {overlap}: give 0 to {size // 2}, half of the size, {size}", chunker
        assert refused(lambda: chunker(size=0, overlap=0), ConfigError) == "size is 0: give 1 or more"  # type: ignore[operator] # noqa: B023
    assert refused(lambda: fixed(size=10, overlap=6, unit="tokens"), ConfigError).startswith("overlap is 6")
    for wrong in (
        {"size": 10, "overlap": 6},
        {"size": 0, "overlap": 0},
    ):  # before the size of a parent, which is wrong too
        assert refused(partial(parents, **wrong, parent_size=-1), ConfigError) == refused(
            partial(recursive, **wrong), ConfigError
        )
    assert refused(lambda: parents(size=10, overlap=5, parent_size=19), ConfigError) == (
        "parent_size is 19: give at least 20, twice the size of a child"
    )
    parents(size=10, overlap=5, parent_size=20)


def test_tables_fences_and_headings_may_end_with_the_file() -> None:
    def kinds(text: str) -> list[tuple[str, str]]:
        return [(each.kind, text[each.start : each.end]) for each in blocks(text)]

    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    for end in ("", "\n"):
        assert kinds(table + end) == [("table", table + end)]
    for after in ("\nwords", "\n\n| c |", "\nd\n| e |"):
        first, _, rest = after.lstrip("\n").partition("\n")
        prose = first + (f"\n{rest}" if rest else "")
        assert kinds(table + after) == [("table", table + "\n"), ("prose", prose)]
    assert kinds("a | b\n-|-") == [("table", "a | b\n-|-")], "without a row"
    assert kinds("a | b") == [("prose", "a | b")] and kinds("a | b\nc | d") == [("prose", "a | b\nc | d")]
    assert kinds("a\n-|-\n1|2") == [("prose", "a\n-|-\n1|2")], "no column above the rule"
    assert kinds("x | y\n-|-\n1|2\n```\n|\n```") == [("table", "x | y\n-|-\n1|2\n"), ("code", "```\n|\n```")]
    for text in ("```\na | b\n-|-", "```\n# a\n", "```", "```\n``", "```\n~~~", "```\n```x"):
        assert kinds(text) == [("code", text)], "a fence that is not closed goes to the end"
    assert kinds("```\n```x\na\n ``` \nb") == [("code", "```\n```x\na\n ``` \n"), ("prose", "b")]
    assert kinds("```\na\n````\nb") == [("code", "```\na\n````\n"), ("prose", "b")]
    assert kinds("a\n=") == [("heading", "a\n=")] and kinds("a\n#") == [("prose", "a\n"), ("heading", "#")]
    chunks = markdown(size=50, overlap=0)(Document("d", f"# T\n{table}"))
    assert [(each.text, each.heading) for each in chunks] == [(f"# T\n{table}", "T")]


# -- single files --


def test_a_file_is_read_to_its_bound_and_closed_whatever_it_is(tmp_path: Path) -> None:
    def held() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    (tmp_path / "a.md").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe.md")
    before = held()
    assert read_bytes(tmp_path / "a.md", 5)[0] == b"12345"
    assert refused(lambda: read_bytes(tmp_path / "a.md", 4)).startswith("it has 5 bytes, and at most 4 are read: ")
    for path in (tmp_path, tmp_path / "pipe.md", Path("/dev/null")):
        assert refused(partial(read_bytes, path, 4)) == "it is no ordinary file any more"
    # its size is said to be 0, as that of a file that grows while it is read
    assert refused(lambda: read_bytes(Path("/proc/self/status"), 1000)) == (
        "it has 1,001 bytes, and at most 1,000 are read: divide it, or raise --max-file-bytes"
    )
    assert held() <= before


def test_folders_are_looked_through_from_the_home_folder_without_the_files_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("docs/a.bin", "docs/i.md", "other/b.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "docs")
    docs, index = tmp_path / "docs", tmp_path / "link" / "i.md"
    told = f"~/docs, {tmp_path}/link: no file there can be indexed (a.bin: .bin: not a kind that is read; a.bin: .bin: not a kind that is read): "  # noqa: E501
    expect_files([Path("~/docs")], FolderFilter())
    assert refused(lambda: expect_files([Path("~/docs"), tmp_path / "link"], FolderFilter(), [index]), ConfigError) == (
        told + "give a folder of documents, or other patterns"
    )
    expect_files([Path("~/docs"), Path("~/other")], FolderFilter(), [index])
    assert refused(lambda: expect_files([docs], FolderFilter(include=["*.txt"])), ConfigError) == (
        f"{docs}: no file there can be indexed: give a folder of documents, or other patterns"
    )
    (docs / "i.md").unlink()
    (docs / "i.md").symlink_to(tmp_path / "other" / "b.md")  # an index may be a link to its file
    assert "(a.bin: .bin: not a kind that is read): give" in refused(
        lambda: expect_files([docs], FolderFilter(), [docs / "i.md"]), ConfigError
    )


def test_values_of_a_record_are_as_many_as_the_most_and_the_first_of_equal_keys() -> None:
    body: dict[str, Any] = {"text": "t", **{f"k{n}": n for n in range(199)}}
    [made] = read_jsonl(json.dumps(body).encode(), "j", PLAIN).documents
    assert made.meta == {"kind": "record", **{f"k{n}": n for n in range(199)}}, "two hundred, the text among them"
    more = json.dumps(body | {"k199": 199})
    many = read_jsonl(f"{json.dumps(body)}\n{more}".encode(), "j", PLAIN)
    told = "it has more than 200 fields: leave out those that no filter names"
    assert many.documents == (made,) and many.failed == (("j:2", told),)
    twice = {
        "text": "t",
        "a b": 1,
        "a  b": 2,
        "kind": "no",
        "x": "v" * 1000,
        "y": "v" * 1001,
        "z": -(1 << 63),
        "w": 1 << 63,
    }
    [made] = read_jsonl(json.dumps(twice).encode(), "j", ReadSettings(title_field="")).documents
    assert made.meta == {"kind": "record", "a b": 1, "x": "v" * 1000}
    titled = b'{"text": "t", "title": 5, "name": "N"}'
    for field, title in ((None, "5"), ("", "5"), ("name", "N"), ("none", "")):
        assert read_jsonl(titled, "j", ReadSettings(title_field=field)).documents[0].title == title
    assert "title" not in read_jsonl(titled, "j", ReadSettings(title_field="name")).documents[0].meta
    mark = read_json('{"text": "é"}'.encode("utf-16"), "o.json", PLAIN)
    assert mark == FileContent(
        (Document("o.json", "é", meta={"kind": "record"}),), ("decoded as UTF-16, by its byte order mark",)
    )
    other = read_json('{"a": "é\u200b"}'.encode("utf-16"), "o.json", PLAIN)
    assert other.notes == (
        "decoded as UTF-16, by its byte order mark", "invisible characters were dropped: 1 zero-width"
    )  # fmt: skip


def test_a_part_that_is_encrypted_or_packed_in_another_way_is_a_sentence() -> None:
    whole = archive(("a", "sound " * 20))
    for at, value, said in (
        (6, 1, "a is encrypted, or its archive is closed"),
        (8, 99, "a is packed with AES, and stored or deflated files are read: pack it again with `zip`"),
    ):
        data = bytearray(whole)
        for head, offset in ((b"PK\x03\x04", at), (b"PK\x01\x02", at + 2)):  # in the part's own head, and in the list
            data[data.index(head) + offset] = value
        assert refused(partial(ZipParts(bytes(data), "EPUB").read, "a")) == f"its part 'a' cannot be read: {said}"
    data = bytearray(whole)
    data[data.index(b"a", 30) + 1] = 0xFF  # the first byte of what was deflated
    assert refused(partial(ZipParts(bytes(data), "EPUB").read, "a")).startswith(
        "its part 'a' cannot be read: a: Error -3 while decompressing data: "
    )


def test_what_goes_away_during_a_walk_is_told_and_a_link_to_the_folder_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for name in ("a.md", "b.md", "sub/c.md", "z.md"):
        (root / name).touch()
    (root / "in.md").symlink_to(root / "sub" / "c.md")
    (tmp_path / "link").symlink_to(root)
    walked = walk(tmp_path / "link", FolderFilter())
    assert next(walked).name == "a.md"
    (root / "b.md").unlink()
    rest = [next(walked), next(walked)]
    assert next(walked).name == "z.md"
    (root / "sub" / "c.md").unlink()
    (root / "sub").rmdir()
    assert [*rest, *walked] == [
        LeftOut("b.md", "it cannot be accessed: No such file or directory", True),
        LeftOut("in.md", "it is a link to sub/c.md, which is read by that name", False),
        LeftOut("sub", "the folder cannot be read: No such file or directory", True),
    ]
    (root / "in.md").unlink()
    (root / "in.md").symlink_to("../elsewhere")
    assert [*walk(root, FolderFilter(exclude=["a.md", "z.md"]))] == [LeftOut("in.md", "it is a link to nothing", True)]
    chosen = FolderFilter(include=["x*"], exclude=["y.md", "*/z/*"])
    names = ("x.md", "q/x.md", "x/q.md", "q/x/r.md", "x/z/x.md", "q/x/y.md", "X.md")
    assert [chosen.takes(name) for name in names] == [True, True, True, False, False, False, False]


def test_blocks_and_elements_come_whole(tmp_path: Path) -> None:
    with (tmp_path / "blocks").open("wb") as stream:
        write_block(stream, b"ab")  # type: ignore[arg-type]
        assert (tmp_path / "blocks").read_bytes() == b"\x02" + b"\0" * 7 + b"ab", "at once, for whoever waits for it"
    assert [read_block(io.BytesIO(b"\x02\0\0\0\0\0\0\0ab"[:size])) for size in (0, 1, 7)] == [b""] * 3
    for size in (8, 9):
        assert refused(lambda: read_block(io.BytesIO(b"\x02\0\0\0\0\0\0\0ab"[:size])), ValueError) == (  # noqa: B023
            "a block that ends early"
        )
    seen: list[Any] = []
    parse_xml(f"<a>{'<b/>' * 600}x &amp; <![CDATA[y]]></a>".encode(), lambda *_: None, lambda _: None, seen.append)
    assert seen == ["x & y"], "six hundred beside each other are not deep, and the words come at once"
    newer = bytearray(archive(("a", "x")))
    newer[newer.index(b"PK\x01\x02") + 6] = 99  # the version that is needed to read it
    assert refused(lambda: ZipParts(bytes(newer), "DOCX")) == "it is no DOCX: zip file version 9.9"
    ids = read_jsonl(b'{"text": "a", "id": "a"}\n{"text": "a", "id": "A"}', "j", PLAIN)
    assert [each.id for each in ids.documents] == ["j:a", "j:A"] and ids.failed == ()
