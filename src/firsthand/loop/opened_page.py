"""The web page that a tool's server asks the user to open: known by the Tool's own `request`, and by no name or text."""

from __future__ import annotations

from firsthand.message import Json
from firsthand.tool import Tool

ASK_PAGE = "Open the page, then say yes; say no to decline."
"""The last line of such a question."""


def opened_page(tool: Tool, arguments: Json) -> str | None:
    """The page that the user is asked to open, such as to sign in there; None for a call and for any other request."""
    page = arguments.get("open") if tool.request == "elicitation" else None
    return page if isinstance(page, str) else None
