"""Elements that are not shown: by HTML's and SVG's own rules, or since they say so themselves."""

from __future__ import annotations

import re

from firsthand.tools.web.inline_style import hides, style_of
from firsthand.tools.web.page_tags import attributes_of

_PIXEL = re.compile("0*[01](?:px)?")
_MAY_HIDE = re.compile("hidden|style|popover|display|visibility|opacity|font-size", re.IGNORECASE)
_NEVER_SHOWN = re.compile("datalist|audio|video|progress|meter")
"""Elements whose content no browser of today draws: suggestions, and what older ones show in their place."""
_DRAWN_ELSEWHERE = re.compile("defs|symbol|clippath|mask|pattern|marker")
"""Elements of SVG that are not drawn where they stand."""
_DRAWN_AGAIN = "katex-html"
"""KaTeX writes a formula twice: as MathML, and behind it as drawn."""


def is_hidden(name: str, attributes: str, *, in_svg: bool = False) -> bool:
    """True if an element is not shown. What a click opens, such as a tab's panel, is read; of what the page opens itself
    (`dialog`, `popover`) only what is open.
    """
    if name in ("html", "body"):
        return False
    if _NEVER_SHOWN.fullmatch(name) or (in_svg and _DRAWN_ELSEWHERE.fullmatch(name)):
        return True
    if name != "dialog" and not _MAY_HIDE.search(attributes):
        return False
    given = attributes_of(attributes)
    if given.get("role") == "tabpanel":
        return False
    if given.get("hidden", "until-found") != "until-found" or (name == "dialog" and "open" not in given):
        return True
    if "popover" in given and name != "dialog" and not in_svg:
        return True
    return hides(style_of(given, in_svg=in_svg))


def is_drawn_again(attributes: str) -> bool:
    """True if an element is KaTeX's drawn copy of a formula."""
    return _DRAWN_AGAIN in attributes.lower() and _DRAWN_AGAIN in attributes_of(attributes).get("class", "").split()


def is_pixel(name: str, attributes: str) -> bool:
    """True if an `iframe` is no larger than a pixel, such as those that count visitors."""
    given = attributes_of(attributes)
    return name == "iframe" and any(_PIXEL.fullmatch(given.get(side, "")) for side in ("width", "height"))
