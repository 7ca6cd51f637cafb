"""Reads an element's own `style`: if it says that its text is hidden, struck, raised or lowered, or stands apart.

Style sheets are not read, and neither are properties that only move or colour text.
"""

from __future__ import annotations

import re

from firsthand.system.raised_text import Level

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_ZERO = re.compile(r"0*+(?:\.0*+)?+(?:[a-z]{1,4}|%)?+")
_LENGTH = re.compile(r"([+-]?)(\d{0,9}(?:\.\d{1,9})?)(px|pt|em|rem|ex|ch|%)")
_PIXELS = {"px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "%": 0.2}
"""Pixels of a unit in text of usual size."""
_SEEN_PIXELS = 3
"""Text that is moved by less stands on its line, as an icon beside a word does."""
_LEVELS: dict[str, Level] = {"super": "^", "sub": "_"}
_LEVEL_KEYS = ("vertical-align", "baseline-shift", "font-variant-position")
_DECORATIONS = ("text-decoration", "text-decoration-line", "-webkit-text-decoration", "-webkit-text-decoration-line")
_SVG_ATTRIBUTES = ("display", "visibility", "opacity", "font-size", "baseline-shift", "text-decoration")
_APART = ("block", "flex", "grid", "table", "list-item", "flow-root", "table-row", "table-cell", "table-caption")


def style_of(given: dict[str, str], *, in_svg: bool = False) -> dict[str, str]:
    """The declarations of an element's `style`: of a property the last one, or the last `!important` one. In SVG attributes
    of the same names count too, and less. Names and values of the attributes are given in lower case.
    """
    style = {key: given[key] for key in _SVG_ATTRIBUTES if key in given} if in_svg else {}
    important: set[str] = set()
    for declared in _COMMENT.sub("", given.get("style", "")).split(";"):
        key, _, value = declared.partition(":")
        key, (bare, _, flag) = key.strip(), value.partition("!")
        if flag.strip() == "important":
            important.add(key)
        elif key in important:
            continue
        style[key] = bare.strip()
    return style


def hides(style: dict[str, str]) -> bool:
    """True if these declarations leave nothing to be seen."""
    return (
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or any(_ZERO.fullmatch(style.get(key, "1")) is not None for key in ("font-size", "opacity"))
    )


def strikes(style: dict[str, str]) -> bool:
    """True if text is drawn with a line through it."""
    return any("line-through" in style.get(key, "").split() for key in _DECORATIONS)


def level_of(style: dict[str, str]) -> Level:
    """The level on which text is drawn: by its name, or by how far it is moved from the line."""
    for key in _LEVEL_KEYS:
        value = style.get(key, "")
        if level := _LEVELS.get(value) or _moved(value):
            return level
    if style.get("position") != "relative":
        return ""
    return _moved(style.get("bottom", "")) or {"^": "_", "_": "^"}.get(_moved(style.get("top", "")), "")  # type: ignore[return-value]


def stands_apart(style: dict[str, str]) -> bool:
    """True if text is drawn as a block of its own, and not beside the words around it."""
    return style.get("display", "") in _APART


def _moved(value: str) -> Level:
    """The level of text that is moved up by so much, or down by a negative length."""
    found = _LENGTH.fullmatch(value)
    if found is None or float(found[2] or 0) * _PIXELS[found[3]] < _SEEN_PIXELS:
        return ""
    return "_" if found[1] == "-" else "^"
