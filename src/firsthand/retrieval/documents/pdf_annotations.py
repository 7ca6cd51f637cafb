"""Draws form fields and annotations of a PDF page into its content, and finds those whose text is not drawn."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANNOTATIONS = 20_000
"""Of a page; further ones are drawn without a look at them."""
_UNSEEN_FLAGS = 2 | 32
"""Hidden and NoView."""
_EMPTY_BYTES = 2
"""A string of nothing but its end, in UTF-16."""


def draw_annotations(page: Any, raw: Any) -> tuple[bool, bool]:
    """Draw a page's annotations; returns if its content has changed, so it is to be loaded again, and if text is left out.

    Left out are values of fields without an appearance, and comments, which viewers show on a click.
    """
    count = raw.FPDFPage_GetAnnotCount(page)
    if count < 1:
        return False, False
    left_out = False
    for index in reversed(range(min(count, MAX_ANNOTATIONS))):
        with _annotation(page, raw, index) as annotation:
            unseen = bool(annotation and raw.FPDFAnnot_GetFlags(annotation) & _UNSEEN_FLAGS)
            left_out |= bool(annotation) and not unseen and _has_text_undrawn(annotation, raw)
        if unseen:
            raw.FPDFPage_RemoveAnnot(page, index)
    return raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS, left_out


@contextmanager
def _annotation(page: Any, raw: Any, index: int) -> Iterator[Any]:
    opened = raw.FPDFPage_GetAnnot(page, index)
    try:
        yield opened
    finally:
        if opened:
            raw.FPDFPage_CloseAnnot(opened)


def _has_text_undrawn(annotation: Any, raw: Any) -> bool:
    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
        return False
    if kind not in (raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_FREETEXT):
        return _has_string(annotation, raw, b"Contents")
    drawn = raw.FPDFAnnot_GetAP(annotation, raw.FPDF_ANNOT_APPEARANCEMODE_NORMAL, None, 0) > _EMPTY_BYTES
    return not drawn and _has_string(annotation, raw, b"V" if kind == raw.FPDF_ANNOT_WIDGET else b"Contents")


def _has_string(annotation: Any, raw: Any, key: bytes) -> bool:
    if raw.FPDFAnnot_GetValueType(annotation, key) != raw.FPDF_OBJECT_STRING:
        return False
    return int(raw.FPDFAnnot_GetStringValue(annotation, key, ctypes.POINTER(raw.FPDF_WCHAR)(), 0)) > _EMPTY_BYTES
