"""Renders one self-contained HTML page from a template of this folder and its style, filled with untrusted values.

A page makes no network request and runs no script but its own, `NAME.js`, if it has one; its content-security policy
forbids the rest and names style and script by their hashes. Values are escaped, and their control and direction characters
are made visible.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
_STEERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0x2028, 0x2029, 0xFEFF}


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
    """The text with control characters, direction marks and lone surrogates written out, such as `\\u202e`."""
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    code = ord(char)
    control = (code < 0x20 and char not in "\n\t") or 0x7F <= code < 0xA0
    return f"\\u{code:04x}" if control or code in _STEERING or 0xD800 <= code < 0xE000 else char
