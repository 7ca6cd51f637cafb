"""Text that forms and annotations of a PDF page show."""

from __future__ import annotations

import importlib.util

import pytest

import written_documents as written
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.pdf_reader import read_pdf

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pypdfium2") is None, reason="pypdfium2 is not installed: pip install 'firsthand[rag]'"
)
FIELD = "/Subtype /Widget /FT /Tx /T (dose) /V (50 mg)"
DRAWN = "/AP << /N 7 0 R >>"
NOTE = "comments, or form values without an appearance, that are not read: page 1"


def read(annotation: str, rect: str = "120 195 200 215") -> FileContent:
    """A page that says `Prescribed dose:` with this annotation; object 7 is an appearance that draws `50 mg`."""
    content, drawn = "BT /F 12 Tf 10 200 Td (Prescribed dose:) Tj ET", "BT /F 12 Tf 2 4 Td (50 mg) Tj ET"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [6 0 R] >> >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 4 0 R /Annots [6 0 R] "
        "/Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Type /Annot /Rect [{rect}] {annotation} >>",
        f"<< /Type /XObject /Subtype /Form /BBox [0 0 80 20] /Resources << /Font << /F 5 0 R >> >> "
        f"/Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
    ]
    return read_pdf(written.pdf_of([each.encode() for each in objects]), "a.pdf", ReadSettings())


@pytest.mark.parametrize("kind", [FIELD, "/Subtype /FreeText /Contents (50 mg)"])
def test_what_a_field_or_annotation_shows_is_read(kind: str) -> None:
    for flags in (0, 4):
        content = read(f"{kind} /F {flags} {DRAWN}")
        assert content.documents[0].text.split() == ["Prescribed", "dose:", "50", "mg"]
        assert content.notes == ()


@pytest.mark.parametrize("flags", [2, 6, 32, 36])
def test_what_a_viewer_hides_is_not_read(flags: int) -> None:
    for appearance in (DRAWN, ""):
        content = read(f"{FIELD} /F {flags} {appearance}")
        assert content.documents[0].text.split() == ["Prescribed", "dose:"]
        assert content.notes == ()


def test_fields_beyond_the_edges_are_not_read() -> None:
    assert read(f"{FIELD} /F 4 {DRAWN}", "500 195 580 215").documents[0].text.split() == ["Prescribed", "dose:"]


@pytest.mark.parametrize(
    "annotation", [FIELD, "/Subtype /FreeText /Contents (50 mg)", "/Subtype /Text /Contents (wrong, see the letter)"]
)
def test_comments_and_values_without_an_appearance_are_told(annotation: str) -> None:
    content = read(f"{annotation} /F 4")
    assert content.documents[0].text.split() == ["Prescribed", "dose:"]
    assert content.notes == (NOTE,)


@pytest.mark.parametrize(
    "annotation",
    [
        "/Subtype /Link /Contents (a link)",
        "/Subtype /Text /Contents ()",
        "/Subtype /Widget /FT /Tx /T (dose) /V ()",
        "/Subtype /Widget /FT /Tx /T (dose)",
    ],
)
def test_links_and_empty_fields_are_not_told(annotation: str) -> None:
    assert read(f"{annotation} /F 4").notes == ()
