"""The tour's twenty steps, read from `tour.toml`: one idea, one command, what to look at, what to read next."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.errors import UnknownName, unknown
from firsthand.reading.reading_list import ReadingEntry, entry_named

_FILE = Path(__file__).parent / "tour.toml"


@dataclass(frozen=True)
class TourStep:
    """One step of the tour."""

    number: int
    """Its place, from 1."""
    id: str
    title: str
    idea: str
    """One sentence."""
    command: str
    """A command line of firsthand, run in the tour's folder."""
    look: str
    """One sentence on the table or plot that the command makes."""
    next: str
    """The id of the entry of the reading list to read next."""
    page: str
    """The page below `docs/` about it."""
    weights: bool = False
    """True: the command needs SmolLM2, which is fetched on first use."""
    after: str = ""
    """The id of the step whose results it uses."""
    makes: str = ""
    """A file or folder in the tour's folder that the command makes anew."""

    @property
    def reading(self) -> ReadingEntry:
        """The entry of the list to read next."""
        return entry_named(self.next)


@cache
def tour_steps() -> tuple[TourStep, ...]:
    """All steps, in order."""
    rows = tomllib.loads(_FILE.read_text(encoding="utf-8"))["step"]
    return tuple(TourStep(number, **row) for number, row in enumerate(rows, 1))


def tour_step(text: str) -> TourStep:
    """The step of a number or id. UnknownName if there is none."""
    steps = tour_steps()
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= len(steps):
        return steps[int(text) - 1]
    found = next((step for step in steps if step.id == text), None)
    if found is None:
        if text[:80].lstrip("-").isdigit():
            raise UnknownName(f"no step of the tour {text[:80]}: give a number from 1 to {len(steps)}, an id, or next")
        known = [*(step.id for step in steps), "next"]
        raise unknown("step of the tour", text[:80], known, see="firsthand tour")
    return found
