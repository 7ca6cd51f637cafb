"""Renders one self-contained HTML page from a template of this folder and its style, filled with untrusted values.

A page makes no network request and runs no script but its own, `NAME.js`, if it has one; its content-security policy
forbids the rest and names style and script by their hashes. Values are escaped, and their control and direction characters
are made visible.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need; any other steers or hides text."""


def page_html(name: str, **values: Any) -> str:
    """The page that `NAME.html.j2` makes of the values, and of the style and script beside it with their hashes."""
    from markupsafe import Markup

    own: dict[str, Any] = {}
    for what, suffix in (("style", "css"), ("script", "js")):
        file = _FOLDER / f"{name}.{suffix}"
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            own[what] = Markup(text)
            own[f"{what}_hash"] = "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _environment().get_template(f"{name}.html.j2").render(**values, **own)


@cache
def _environment() -> Environment:
    """The template environment, which caches compiled templates: compiling takes a third of the time of a small run."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )


def visible(text: str) -> str:
    """The text with what steers or hides written out, such as `\\u202e`: controls, format characters, lone surrogates."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char.isprintable() or char in "\n\t" or char in _JOINERS:
        return char
    code = ord(char)
    never = (
        unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        or code & 0xFFFE == 0xFFFE
        or 0xFDD0 <= code < 0xFDF0
    )
    return (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}") if never else char
