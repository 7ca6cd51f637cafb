"""Tags as browsers find them, and the attributes in them."""

from __future__ import annotations

import html
import re
from html.entities import html5
from typing import Literal

_SPACE = r"[ \t\r\n\f]*+"
_VALUE = r"\"[^\"]*+\"|'[^']*+'|[^ \t\r\n\f>\"'][^ \t\r\n\f>]*+|(?=>|\Z)"
_NAMED_VALUE = rf"((?:=?+[^ \t\r\n\f/>=]++|=))(?:{_SPACE}={_SPACE}({_VALUE})|(?!{_SPACE}=))"
_ATTRIBUTE = re.compile(_NAMED_VALUE)
_TAG = re.compile(rf"</?([a-zA-Z][^ \t\r\n\f/>]*+)((?:[ \t\r\n\f/]++|{_NAMED_VALUE})*+)>")
"""As browsers find the end of a tag: quotes hold a `>` where they are a value, and not within a name."""
_ADDRESS = {
    name: re.compile(rf"\s{name}\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
    for name in ("href", "src", "srcdoc")
}
_ENTITY = re.compile(r"&#(?:[xX][0-9a-fA-F]{1,8}|[0-9]{1,8});?|&[a-zA-Z][a-zA-Z0-9]{1,31};")
_OLD_NAMES = "|".join(sorted((name for name in html5 if not name.endswith(";")), key=len, reverse=True))
_IN_TEXT = re.compile(rf"{_ENTITY.pattern}|&(?:{_OLD_NAMES})")
"""In text the names of HTML 4 need no semicolon, whatever follows."""
_WITHOUT_TEXT = ("hidden", "password", "checkbox", "radio", "file", "range", "color", "image")
"""Types of `input` that do not show their value as text."""
_TAG_BEGINS = re.compile("</?[a-zA-Z]")


def tag_at(source: str, at: int) -> re.Match[str] | None:
    """The tag that begins at this index, with its name and its attributes as groups; None if there is none, or no end."""
    return _TAG.match(source, at)


def begins_tag(source: str, at: int) -> bool:
    """True if a tag begins at this index, whether it ends or not."""
    return _TAG_BEGINS.match(source, at) is not None


def attributes_of(attributes: str) -> dict[str, str]:
    """The attributes of a tag by name, in lower case; of a name given twice the first."""
    given: dict[str, str] = {}
    for found in _ATTRIBUTE.finditer(attributes):
        given.setdefault(found[1].lower(), unescaped((found[2] or "").strip("\"'")).strip().lower())
    return given


def address_in(attributes: str, name: Literal["href", "src", "srcdoc"] = "href") -> str:
    """The address that a link, a base or a frame leads to, as written, or the page that a frame holds; empty without one."""
    found = _ADDRESS[name].search(f" {attributes.lstrip('/')}")
    return unescaped(next((each for each in found.groups() if each is not None), "").strip()) if found else ""


def shown_value(attributes: str) -> str:
    """The value that a field or button of this `input` shows; empty for boxes, passwords, and fields that are hidden."""
    if attributes_of(attributes).get("type", "text") in _WITHOUT_TEXT:
        return ""
    found = next((each for each in _ATTRIBUTE.finditer(attributes) if each[1].lower() == "value"), None)
    return unescaped((found[2] or "").strip("\"'")).strip() if found else ""


def unescaped(text: str) -> str:
    """The value of an attribute with its entities as characters."""
    return _ENTITY.sub(lambda found: html.unescape(found.group()), text)


def unescaped_text(text: str) -> str:
    """Text between tags with its entities as characters: `&lt5` is `<5` there, as browsers show it."""
    return _IN_TEXT.sub(lambda found: html.unescape(found.group()), text)
