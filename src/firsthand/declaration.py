"""Declares the facts of a tool from which its guard, its approval, its undo and its threat model follow.

    @tool(effect="external", declares=Declaration(authority=("to",), recipients=("to",), rate=5))
    def send_email(to: str, body: str) -> str: ...

Facts are those of the tool, written once beside it; `safety/policy.py` decides from them. A tool without a Declaration is
refused by a guarded agent. Paths of fields are dotted, `*` stands for any key of an object, `~` for the keys themselves and
`.` for the whole; an item of a list counts as the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from firsthand.errors import ConfigError
from firsthand.message import Json

Readers = Literal["public", "user"]
"""Those who may read what a tool gives: everybody, or the user alone."""


@dataclass(frozen=True)
class Undo:
    """Reversal of a tool's effect: the state that a call would change, and the function that restores it."""

    capture: Callable[[Json], Any]
    """Arguments -> the state that the call would change, as JSON. Equal states give equal JSON."""
    restore: Callable[[Json, Any], object]
    """Arguments and a captured state -> puts that state back. Doing it twice is doing it once."""


class Rehearsal(str):
    """A dry run that the tool can hold itself to: its text, and the effect that it knows again.

    `loop.calling.expected_effect` gives the tool the effect of the dry run that was approved when it makes the call.
    """

    effect: str

    def __new__(cls, text: str, effect: str = "") -> Rehearsal:
        made = super().__new__(cls, text)
        made.effect = effect
        return made


@dataclass(frozen=True)
class Declaration:
    """The facts of a tool besides its effect."""

    authority: tuple[str, ...] = ()
    """Arguments that decide where power goes: recipients, paths, addresses, ids of what is changed."""
    trusts: tuple[str, ...] = ()
    """Fields of the result that may be believed, such as `id` or `participants`; nobody but the tool writes them."""
    recipients: tuple[str, ...] = ()
    """Arguments that name those who will read the other arguments."""
    readers: Readers = "public"
    """Those who may read the result."""
    clean: bool = False
    """True if nobody outside can write any of the result: the session stays trusted after it."""
    paths: tuple[str, ...] = ()
    """Arguments that are paths of files: they must stay inside the folder."""
    grants: bool = False
    """True if the tool gives somebody a permission that outlives the call."""
    rate: int | None = None
    """Most calls in one attempt."""
    spends: tuple[str, ...] = ()
    """Arguments that are amounts which the call spends; `policy:spend=N` bounds their sum over an attempt."""
    undo: Undo | None = field(default=None, compare=False)
    """Takes the effect back; None if it cannot be."""
    dry_run: Callable[[Json], object] | None = field(default=None, compare=False)
    """Arguments -> a text on what the call would do, shown in the question; changes nothing. A `Rehearsal` also
    holds the call to what was shown."""
    tells: str = ""
    """The reader of all arguments of every call besides those that `recipients` names, such as a search service; empty for
    nobody. The tools of one reader name it alike: it may be told what they gave."""

    def __post_init__(self) -> None:
        if self.rate is not None and self.rate < 1:
            raise ConfigError(f"rate is {self.rate}: give the most calls of one attempt, 1 or more, or leave it out")
        if self.readers not in ("public", "user"):
            raise ConfigError(f"readers is {self.readers!r:.80}: public or user was expected")
        if not isinstance(self.tells, str):
            raise ConfigError(f"tells is {self.tells!r:.80}: the name of who reads the arguments was expected")
        for name in ("authority", "trusts", "recipients", "paths", "spends"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(each, str) and each for each in value):
                raise ConfigError(f"{name} is {value!r:.80}: a tuple of names was expected")

    @property
    def powers(self) -> tuple[str, ...]:
        """All arguments that must come from somebody who may decide: authority and recipients."""
        return tuple(dict.fromkeys((*self.authority, *self.recipients)))


def fields_at(data: Any, path: str) -> list[Any]:
    """The values at a dotted path of JSON data, through lists; see the module for `*`, `~` and `.`."""
    return _items(values_at(data, path))


def values_at(data: Any, path: str) -> list[Any]:
    """The same, with a list at the end of the path as one value, so that an empty one is seen."""
    found = [data]
    for name in () if path == "." else path.split("."):
        inner: list[Any] = []
        for each in _items(found):
            if isinstance(each, dict):
                inner += list(each) if name == "~" else list(each.values()) if name == "*" else _at(each, name)
        found = inner
    return found


def _at(body: Json, name: str) -> list[Any]:
    return [body[name]] if name in body else []


def _items(values: Sequence[Any]) -> list[Any]:
    """The values, with lists replaced by what they hold."""
    return [item for value in values for item in (_items(value) if isinstance(value, list | tuple) else [value])]
