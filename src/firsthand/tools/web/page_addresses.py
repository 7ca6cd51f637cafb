"""Addresses that a page names: of links and frames, relative to the page or to what its first `<base href>` says.

A browser takes the base for all links of a page, those before it too; so addresses are joined when the page is read.
"""

from __future__ import annotations

from urllib.parse import urljoin

_MAX_URL = 500
_SHOWN = ("http://", "https://", "/")
_NO_BASE = ("data:", "javascript:")


class PageAddresses:
    """Writes addresses into the pieces of a page's text."""

    def __init__(self, page: str, pieces: list[str]):
        """`page`: the page's own address, or an empty text."""
        self._page = self.base = page
        """Where links lead from, as far as the page has been read."""
        self._pieces = pieces
        self._written: list[tuple[int, str, str, str]] = []
        """(number of the piece, text before the address, the address as written, text behind it)."""
        self.has_base = False

    def take_base(self, url: str) -> None:
        """Take the address of a `base` element; the first one counts, even if it is none that can be used."""
        if not (url and not self.has_base):
            return
        self.has_base = True
        if len(url) <= _MAX_URL and not url.lower().startswith(_NO_BASE):
            self.base = _joined(self._page, url) or self._page

    def write(self, before: str, url: str, behind: str) -> None:
        """Write an address, and the text around it. They are shown if `finish` finds that it leads to a page."""
        self._written.append((len(self._pieces), before, url, behind))
        self._pieces.append(f"{before}{url}{behind}")

    def finish(self) -> None:
        """Join all addresses with the page's base."""
        for number, before, url, behind in self._written:
            url = _joined(self.base, url)
            self._pieces[number] = f"{before}{url}{behind}" if url.startswith(_SHOWN) and len(url) <= _MAX_URL else ""


def is_written(url: str) -> bool:
    """True if an address leads somewhere else than to a place on the page itself, and is no longer than one is shown."""
    return bool(url) and len(url) <= _MAX_URL and not url.startswith("#")


def _joined(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:
        return ""
