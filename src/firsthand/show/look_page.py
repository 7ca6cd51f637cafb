"""A model's heads and layers on one text: one self-contained HTML page."""

from __future__ import annotations

from typing import Any

from firsthand.show.feature_page import token_text
from firsthand.show.html_page import page_html


def look_page(title: str, look: Any) -> str:
    """The page of a `ModelLook`; tokens are untrusted and escaped."""
    return page_html("look", title=title, look=look, printable=token_text)
