"""Parsers in a process of their own: what they read; a file that hangs, swells or crashes one is its own failure."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import written_documents as written
from firsthand.errors import ConfigError, DataError
from firsthand.retrieval.documents.bounded_parser import BoundedParser
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.parser_process import content_from_json

needs_pdfium = pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)


@pytest.fixture(scope="module")
def parser() -> Iterator[BoundedParser]:
    made = BoundedParser(ReadSettings())
    yield made
    made.close()


def innermost(pid: int) -> int:
    """The parser itself, which bubblewrap may have started."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@needs_pdfium
def test_a_pdf_is_read_page_by_page(parser: BoundedParser) -> None:
    content = parser.parse("pdf", written.pdf(["First page words", "", "Third page"], title="A Title"), "a/p.pdf")
    (document,) = content.documents
    assert (document.id, document.title, document.meta) == ("a/p.pdf", "A Title", {"kind": "pdf"})
    assert [(each.kind, each.label) for each in document.locations] == [("page", "1"), ("page", "3")]
    assert document.location(document.text.index("Third")).label == "3"
    assert content.notes == ("without text, perhaps scanned: page 2",)


@needs_pdfium
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (written.encrypted_pdf(), "encrypted and needs a password"),
        (written.pdf(["", ""]), "none of its 2 pages has text: it may be scanned"),
        (b"%PDF-1.4 and nothing", "no PDF that can be read"),
        (b"", "no PDF that can be read"),
    ],
)
def test_pdfs_without_text_say_why(parser: BoundedParser, data: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        parser.parse("pdf", data, "p.pdf")


def test_docx_comes_through_the_process_with_its_places(parser: BoundedParser) -> None:
    (document,) = parser.parse("docx", written.docx(written.paragraph("Words \U0001f600")), "d.docx").documents
    assert document.text == "Words \U0001f600\n\n" and document.locations[0].kind == "paragraph"


@needs_pdfium
def test_damaged_pdfs_are_read_or_refused_and_the_process_goes_on(parser: BoundedParser) -> None:
    seed = random.Random(5)
    valid = written.pdf(["Some words", "More words"])
    for _ in range(60):
        body = bytearray(valid)
        for _ in range(seed.randrange(1, 8)):
            body[seed.randrange(len(body))] = seed.randrange(256)
        try:
            parser.parse("pdf", bytes(body[: seed.randrange(len(body) // 2, len(body))]), "p.pdf")
        except DataError as error:
            assert str(error)
    assert parser.parse("pdf", valid, "p.pdf").documents


@pytest.mark.slow
@needs_pdfium
def test_a_pdf_that_hangs_is_stopped_and_the_next_one_read() -> None:
    parser = BoundedParser(ReadSettings(parse_seconds=1.0))
    try:
        parser.parse("pdf", written.pdf(["warm"]), "p.pdf")
        began = time.monotonic()
        with pytest.raises(DataError, match=r"did not end within 1 s: it was stopped"):
            parser.parse("pdf", written.nested_pdf(), "hangs.pdf")
        assert time.monotonic() - began < 60  # not the hours that it asks for
        assert parser.parse("pdf", written.pdf(["words"]), "p.pdf").documents
    finally:
        parser.close()


@pytest.mark.slow
def test_a_file_that_needs_too_much_memory_fails_alone() -> None:
    parser = BoundedParser(ReadSettings(parse_memory_bytes=100_000_000))
    try:
        swells = written.docx(written.paragraph("word " * 4_000_000), method=zipfile.ZIP_STORED)
        with pytest.raises(DataError, match=r"more than 95 MiB of memory|crashed"):
            parser.parse("docx", swells, "d.docx")
        assert parser.parse("docx", written.docx(written.paragraph("words")), "d.docx").documents
    finally:
        parser.close()


@pytest.mark.slow
@needs_pdfium
def test_a_crash_is_that_files_failure() -> None:
    parser = BoundedParser(ReadSettings())
    try:
        parser.parse("pdf", written.pdf(["warm"]), "p.pdf")
        assert parser._process is not None
        pid = innermost(parser._process.pid)
        timer = threading.Timer(0.3, os.kill, [pid, signal.SIGSEGV])
        timer.start()
        with pytest.raises(DataError, match=r"its parser crashed \(SIGSEGV\)"):
            parser.parse("pdf", written.nested_pdf(), "crashes.pdf")
        timer.join()
        assert parser.parse("pdf", written.pdf(["words"]), "p.pdf").documents
        assert innermost(parser._process.pid) != pid
    finally:
        parser.close()


@pytest.mark.slow
@needs_pdfium
def test_closing_ends_a_parse_that_runs() -> None:
    parser = BoundedParser(ReadSettings())
    parser.parse("pdf", written.pdf(["warm"]), "p.pdf")
    assert parser._process is not None
    pid = innermost(parser._process.pid)
    timer = threading.Timer(0.3, parser.close)
    timer.start()
    with pytest.raises(DataError, match="the parser was closed"):
        parser.parse("pdf", written.nested_pdf(), "hangs.pdf")
    timer.join()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)  # nor does what bubblewrap started
    with pytest.raises(DataError, match="the parser was closed"):
        parser.parse("pdf", written.pdf(["words"]), "p.pdf")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"documents": [["other.pdf", "text", "", {}, []]], "notes": [], "failed": []},
        {"documents": [["p.pdf", "text", "", {}, [[0]]]], "notes": [], "failed": []},
        {"documents": [["p.pdf", "text", "", 3, []]], "notes": [], "failed": []},
        {"documents": 3, "notes": [], "failed": []},
    ],
)
def test_a_reply_is_checked(body: object) -> None:
    with pytest.raises(ValueError):
        content_from_json(body, "p.pdf")


def test_bounds_that_cannot_work_are_refused() -> None:
    for wrong in (
        {"max_file_bytes": 0},
        {"parse_seconds": 0},
        {"parse_seconds": float("nan")},
        {"parse_memory_bytes": 1000},
    ):
        with pytest.raises(ConfigError):
            ReadSettings(**wrong)  # type: ignore[arg-type]
