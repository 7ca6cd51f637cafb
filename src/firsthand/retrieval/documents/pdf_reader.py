"""Reads PDF by PDFium, page by page. Encrypted files and pages without text are said; there is no OCR.

PDFium parses bytes of strangers in C++: call this in a bounded process alone.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from contextlib import closing
from typing import Any

from firsthand.errors import DataError, MissingExtra
from firsthand.retrieval.document import Document, Location
from firsthand.retrieval.documents.clean_text import clean, clean_line
from firsthand.retrieval.documents.file_content import MAX_TITLE_CHARS, FileContent, ReadSettings
from firsthand.retrieval.documents.line_hyphens import DIVIDED, join_divided_words
from firsthand.retrieval.documents.pdf_annotations import draw_annotations
from firsthand.retrieval.documents.pdf_baselines import code_of, marks_before, whole_text, without_signs, written

MAX_PAGES = 20_000
_HYPHEN = re.compile("[\x02\ufffe]\\r?\\n?")
"""PDFium's mark of a word that was divided at the end of a line: U+0002 in bounded text, U+FFFE in whole text."""
_ANGLE_SAMPLES = 64
_BACKWARDS = (90, 180)
"""Degrees by which text is turned clockwise as it is shown where PDFium reverses its lines, or the cells of a line."""
_BLANKS = frozenset(map(ord, " \n"))


def read_pdf(data: bytes, name: str, settings: ReadSettings) -> FileContent:
    """The text of all pages, each a place. DataError if there is a password, or no text at all."""
    try:
        import pypdfium2
    except ImportError:
        raise MissingExtra("pypdfium2", "rag", "reading PDF") from None
    pdfium: Any = pypdfium2  # it has no types
    try:
        opened = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise DataError("it is encrypted and needs a password: save it without one") from None
        raise DataError(f"it is no PDF that can be read: {clean_line(str(error))}") from None
    with closing(opened) as pdf:
        if len(pdf) > MAX_PAGES:
            raise DataError(f"it has {len(pdf)} pages, and at most {MAX_PAGES} are read: divide it")
        pages, problems = _pages(pdf, pdfium)
        title = clean_line(str(pdf.get_metadata_dict().get("Title") or ""))[:MAX_TITLE_CHARS]
    places, written, length = [], [], 0
    for number, page in enumerate(pages, 1):
        if page.strip():
            places.append(Location(length, "page", str(number)))
            written.append(page)
            length += len(page)
    if not written:
        raise DataError(f"none of its {len(pages)} pages has text: it may be scanned, and needs OCR first")
    empty = [number for number, page in enumerate(pages, 1) if not page.strip()]
    notes = [f"without text, perhaps scanned: {_numbers(empty)}"] if empty else []
    text, moved, dropped = clean("".join(written), places)
    return FileContent(
        (Document(name, text, title, meta={"kind": "pdf"}, locations=moved),), tuple(notes + problems + dropped)
    )


def _pages(pdf: Any, pdfium: Any) -> tuple[list[str], list[str]]:
    pages, broken, left_out = [], [], []
    for number in range(len(pdf)):
        try:
            with closing(pdf[number]) as page:
                changed, undrawn = draw_annotations(page, pdfium.raw)
                text = "" if changed else _page_text(page, pdfium.raw)
            if changed:
                with closing(pdf[number]) as page:
                    text = _page_text(page, pdfium.raw)
            pages.append(text)
            left_out += [number + 1] if undrawn else []
        except pdfium.PdfiumError:
            pages.append("")
            broken.append(number + 1)
    joined = [page.rstrip() + "\n\n" for page in join_divided_words(pages)]
    notes = [f"cannot be read: {_numbers(broken)}"] if broken else []
    if left_out:
        notes.append(f"comments, or form values without an appearance, that are not read: {_numbers(left_out)}")
    return joined, notes


def _page_text(page: Any, raw: Any) -> str:
    """The text of a page, turned first if most of it would be read backwards."""
    rotation = page.get_rotation()
    with closing(page.get_textpage()) as shown:
        upright = _upright_rotation(shown, raw, rotation)
        if (rotation - upright) % 360 not in _BACKWARDS:
            return _lines(shown, page, raw)
    page.set_rotation(upright)
    with closing(page.get_textpage()) as shown:
        return _lines(shown, page, raw)


def _upright_rotation(shown: Any, raw: Any, rotation: int) -> int:
    """The rotation of the page, in degrees clockwise, at which most characters stand upright; the present one on a tie."""
    count = shown.count_chars()
    votes: Counter[int] = Counter()
    for index in range(0, count, -(-count // _ANGLE_SAMPLES) or 1):
        angle = raw.FPDFText_GetCharAngle(shown, index)
        if angle >= 0 and not raw.FPDFText_IsGenerated(shown, index):
            votes[round(-angle / (math.pi / 2)) % 4 * 90] += 1
    return max((rotation, *votes), key=lambda degrees: votes[degrees])


def _lines(shown: Any, page: Any, raw: Any) -> str:
    """The text within the page's edges, with all line breaks.

    PDFium's bounded text leaves out breaks between lines of one height, such as those of a turned page; its whole text
    has them, but also what lies beyond the edges. Neither parts stacked digits or marks raised ones: baselines do.
    """
    marks = marks_before(shown, raw)
    bounded = _marked(shown.get_text_bounded())
    whole = _marked(whole_text(shown, raw, marks) if marks else without_signs(shown.get_text_range()))
    lines = _chosen_lines(whole, "".join(bounded.split()))
    return written(_bounded_lines(shown, page.get_bbox(), raw, marks) if lines is None else lines)


def _chosen_lines(whole: str, chars: str) -> str | None:
    """The lines that have these characters; None if a line has only some of them."""
    kept, at = [], 0
    for line in whole.split("\n"):
        told = "".join(line.split())
        if chars.startswith(told, at):
            kept.append(line)
            at += len(told)
    return "\n".join(kept) if at == len(chars) else None


def _bounded_lines(shown: Any, edges: tuple[float, float, float, float], raw: Any, marks: dict[int, str]) -> str:
    """The characters within the edges one by one, which is slower; lines with none of them are left out."""
    left, bottom, right, top = edges
    box = x0, x1, y0, y1 = [ctypes.c_double() for _ in range(4)]
    places = [ctypes.byref(each) for each in box]
    kept: list[str] = []
    for index in range(shown.count_chars()):
        code = code_of(shown, raw, index)
        if marks.get(index) == "\n":
            kept.append("\n")
        if code in _BLANKS:
            kept.append(chr(code))
        elif not code or not raw.FPDFText_GetCharBox(shown, index, *places):
            continue
        elif min(x1.value, right) > max(x0.value, left) and min(y1.value, top) > max(y0.value, bottom):
            kept.append(marks.get(index, "").strip("\n") + chr(code))
    text = "".join(kept).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _marked("\n".join(line.strip(" ") for line in text.split("\n") if line.strip()))


def _marked(text: str) -> str:
    return _HYPHEN.sub(DIVIDED, text).replace("\r\n", "\n")


def _numbers(pages: list[int]) -> str:
    shown = ", ".join(map(str, pages[:10]))
    return f"page{'s' * (len(pages) > 1)} {shown}{f' and {len(pages) - 10} more' if len(pages) > 10 else ''}"
