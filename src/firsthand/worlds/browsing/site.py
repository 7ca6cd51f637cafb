"""A web site as an agent's errand: it answers requests, and knows when the errand is done and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple, Protocol

from firsthand.message import Json
from firsthand.worlds.browsing.chromium import Chromium, PageView


class Answer(NamedTuple):
    """A response: status, body with its type, and the address that a form leads to."""

    status: int
    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    location: str = ""


class Site(Protocol):
    """The state of one visit."""

    first: str
    """The path of the first page."""
    view: str
    """A script whose value is the page: its title, its text and its elements (see `chromium.FORM_CONTROLS`)."""
    clicks: Sequence[str]
    """The kinds of element that can be clicked."""
    verbs: Sequence[str]
    """Further actions besides clicking, typing and selecting: `hover`, `drag`, `press`."""

    @property
    def is_done(self) -> bool:
        """True once the errand is over, right or wrong."""

    def answer(self, method: str, path: str, given: Mapping[str, str]) -> Answer:
        """Returns the response to a request; `given` is the query of a GET or the form of a POST."""

    def begin(self, browser: Chromium) -> None:
        """Do what is left to do once the first page is there."""

    def follow(self, browser: Chromium) -> None:
        """Take note of what an action has done to the page."""

    def result(self) -> Json:
        """Returns the final state for the scorers."""

    def optimal(self, page: PageView) -> str:
        """The next action of a player that knows what is wanted."""

    def random_words(self, page: PageView, rng: Random) -> str:
        """Words for a text field, for the random player."""
