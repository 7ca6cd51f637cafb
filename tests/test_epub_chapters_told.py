"""Chapters of EPUB: kinds of files that are read, and what the receipt says of those that are not."""

from __future__ import annotations

import written_documents as written
from firsthand.retrieval.documents.epub_reader import read_epub
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings


def read(spine: str, items: dict[str, tuple[str, str]], files: dict[str, str | bytes]) -> FileContent:
    """A book of items (id to media type and further attributes), each in the file of its id."""
    manifest = "".join(
        f'<item id="{id}" href="{id}" media-type="{kind}" {more}/>' for id, (kind, more) in items.items()
    )
    order = "".join(f'<itemref idref="{id}"/>' for id in spine.split())
    package = f"<package><manifest>{manifest}</manifest><spine>{order}</spine></package>"
    parts: dict[str, str | bytes] = {"META-INF/container.xml": '<c><rootfile full-path="p"/></c>', "p": package}
    return read_epub(written.zipped(parts | files), "b.epub", ReadSettings())


def chapters(pages: list[str | bytes]) -> tuple[str, ...]:
    """The notes of a book of these chapters."""
    names = [f"c{at}" for at in range(len(pages))]
    items = dict.fromkeys(names, ("application/xhtml+xml", ""))
    return read(" ".join(names), items, dict(zip(names, pages, strict=True))).notes


def test_every_kind_of_text_in_the_spine_is_read() -> None:
    kinds = {"a": "image/svg+xml", "b": "application/xml", "c": "application/x-dtbook+xml", "d": "text/x-oeb1-document"}
    files: dict[str, str | bytes] = {"a": "<svg><text>one</text></svg>"} | dict.fromkeys("bcd", "<p>two</p>")
    content = read("a b c d", {id: (kind, "") for id, kind in kinds.items()}, files)
    assert content.documents[0].text == "one\n\n" + "two\n\n" * 3 and content.notes == ()


def test_the_file_that_stands_for_one_that_is_not_read_takes_its_place() -> None:
    items = {
        "i": ("image/png", 'fallback="j"'), "j": ("image/gif", 'fallback="t"'), "t": ("text/html", ""),
        "x": ("audio/mp3", 'fallback="y"'), "y": ("audio/ogg", 'fallback="x"'),
    }  # fmt: skip
    content = read("i x t", items, {"t": "<p>text</p>", "i": "png", "j": "gif"})
    assert content.documents[0].text == "text\n\n"
    assert content.notes == ("1 reference of its spine to no text that is read: 'x' (audio/mp3)",)


def test_references_that_lead_nowhere_are_named_once_and_the_first_five() -> None:
    content = read("a t b b c d e f g", {"t": ("text/html", ""), "a": ("image/png", "")}, {"t": "<p>text</p>"})
    told = "7 references of its spine to no text that is read: 'a' (image/png), 'b' (not in the manifest)"
    rest = ", ".join(f"{id!r} (not in the manifest)" for id in "cde")
    assert content.notes == (f"{told}, {rest} and 2 more",)
    five = read("a b c d e t", {"t": ("text/html", "")}, {"t": "<p>text</p>"}).notes
    assert five[0].endswith("'e' (not in the manifest)")


def test_a_guess_what_was_dropped_and_chapters_without_text_are_told() -> None:
    german = "<p>Der Preis beträgt für Köln über fünf Euro, schöne Grüße</p>".encode("cp1252")
    assert chapters([german, "<p>a\u202eb</p>", "<img src='x'/>", "<p>c</p>"]) == (
        "chapter 1: decoded as cp1252, which was guessed",
        "chapter 2: invisible characters were dropped: 1 bidirectional",
        "1 chapter without text, such as a picture: 3",
    )


def test_a_remark_on_many_chapters_is_told_of_three_and_then_counted() -> None:
    told = tuple(f"chapter {at}: invisible characters were dropped: 1 soft-hyphen" for at in (1, 2, 3))
    assert chapters(["<p>a\u00adb</p>"] * 3) == told
    assert chapters(["<p>a\u00adb</p>"] * 5) == (*told, "2 further chapters: invisible characters were dropped")
