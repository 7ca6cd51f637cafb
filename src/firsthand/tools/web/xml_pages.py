"""XHTML as browsers tell it from HTML, and sections of CDATA, which are text as it stands.

In HTML there are such sections in SVG and MathML alone; elsewhere `<![CDATA[` begins a comment that the next `>` ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

CDATA, CDATA_END = "<![CDATA[", "]]>"
_HTML_IN_DRAWN = ("foreignobject", "desc", "title", "mtext", "annotation-xml")
"""Elements of SVG and MathML that hold HTML."""


def is_xhtml(content_type: str) -> bool:
    """True for the content type, in lower case, of pages that browsers parse as XML: `<p/>` is empty there."""
    return content_type == "application/xhtml+xml"


def is_xhtml_file(name: str) -> bool:
    """True if browsers parse a file of this name as XML."""
    return PurePath(name).suffix.lower() == ".xhtml"


def holds_cdata(names: Sequence[str], opened: Mapping[str, int], *, is_xml: bool) -> bool:
    """True if the innermost open element can hold CDATA; `names` are those of open elements, `opened` counts them."""
    if is_xml:
        return True
    if not (opened["svg"] or opened["math"]):
        return False
    return names[-1] in _HTML_IN_DRAWN or not any(opened[each] for each in _HTML_IN_DRAWN)
