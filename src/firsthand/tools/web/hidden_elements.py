"""Elements that say themselves that they are not shown."""

from __future__ import annotations

import re

from firsthand.tools.web.page_tags import attributes_of

_PIXEL = re.compile("0*[01](?:px)?")
_MAY_HIDE = re.compile("hidden|style", re.IGNORECASE)
_DRAWN_AGAIN = "katex-html"
"""KaTeX writes a formula twice: as MathML, and behind it as drawn."""
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_ZERO = re.compile(r"0*+(?:\.0*+)?+(?:[a-z]{1,4}|%)?+")


def is_hidden(name: str, attributes: str) -> bool:
    """True if an element says itself that it is not shown. What a click opens, such as a tab's panel, is read."""
    if name in ("html", "body") or (name != "dialog" and not _MAY_HIDE.search(attributes)):
        return False
    given = attributes_of(attributes)
    if given.get("role") == "tabpanel":
        return False
    if given.get("hidden", "until-found") != "until-found" or (name == "dialog" and "open" not in given):
        return True
    style: dict[str, str] = {}
    for declared in _COMMENT.sub("", given.get("style", "")).split(";"):
        key, _, value = declared.partition(":")
        style[key.strip()] = value.partition("!")[0].strip()
    return (
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or any(_ZERO.fullmatch(style.get(key, "1")) is not None for key in ("font-size", "opacity"))
    )


def is_drawn_again(attributes: str) -> bool:
    """True if an element is KaTeX's drawn copy of a formula."""
    return _DRAWN_AGAIN in attributes.lower() and _DRAWN_AGAIN in attributes_of(attributes).get("class", "").split()


def is_pixel(name: str, attributes: str) -> bool:
    """True if an `iframe` is no larger than a pixel, such as those that count visitors."""
    given = attributes_of(attributes)
    return name == "iframe" and any(_PIXEL.fullmatch(given.get(side, "")) for side in ("width", "height"))
