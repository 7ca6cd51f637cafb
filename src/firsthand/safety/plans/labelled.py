"""Values with labels: who wrote them, who may read them, and which of their fields may be believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from firsthand.loop.concurrency import Branch, entered_branch
from firsthand.safety.rules.labels import Label, join_all

MAX_PARTS = 50_000
"""The most values within one: a plan could double a list line by line."""

MAX_TEXT = 20_000_000
"""The most characters within one, a text that stands in it twice counted twice."""
TEXT_PER_PART = 100
"""Characters that are as much work as one value."""

_carried: ContextVar[tuple[Branch | None, dict[str, Label] | None]] = ContextVar(
    "firsthand_carried", default=(None, None)
)


@contextmanager
def carrying(labels: dict[str, Label]) -> Iterator[None]:
    """Marks the block as a tool call whose arguments have these labels, so that the guard need not look for witnesses.

    The label under an empty name is that of the conditions under which the call is made.
    """
    mark = _carried.set((entered_branch(), labels))
    try:
        yield
    finally:
        _carried.reset(mark)


def carried() -> dict[str, Label] | None:
    """The labels of the arguments of the call under way; None where they are not known.

    An agent that a tool asks has a branch of its own: its calls are not those that the labels are of.
    """
    branch, labels = _carried.get()
    return labels if branch is entered_branch() else None


@dataclass(frozen=True)
class Labelled:
    """A value and its label.

    A declaration lifts the integrity of a trusted field above that of the result, never above that of its `floor`.
    """

    value: Any
    label: Label = field(default_factory=Label)
    trusts: tuple[str, ...] = ()
    """Paths of the value's fields that may be believed; `.` is the value itself."""
    origin: str = ""
    floor: Label = field(default_factory=Label)
    """The part of the label that trusted fields have too: of the arguments and conditions that chose the value."""

    def at(self, name: str) -> Labelled:
        """The value of a field of an object. KeyError if there is none, TypeError if this is no object."""
        if not isinstance(self.value, dict):
            raise TypeError
        inner = [path.partition(".") for path in self.trusts if path != "."]
        left = tuple(rest or "." for head, _, rest in inner if head in (name, "*"))
        return self._within(self.value[name], left, name)

    def item(self, index: int) -> Labelled:
        """An item of a list, with the list's label. TypeError if this is no list."""
        if not isinstance(self.value, list):
            raise TypeError
        return self._within(self.value[index], self.trusts)

    def items(self) -> list[Labelled]:
        """The items of a list, each with the list's label. TypeError if this is no list."""
        if not isinstance(self.value, list):
            raise TypeError
        return [self._within(each, self.trusts) for each in self.value]

    def _within(self, value: Any, trusts: tuple[str, ...], name: str = "") -> Labelled:
        """A part of the value: it depends on all that the whole does."""
        if isinstance(value, Labelled):
            return value.under(self.label)
        return replace(self, value=value, trusts=trusts)._settled(name)

    def _settled(self, name: str = "") -> Labelled:
        if "." not in self.trusts or isinstance(self.value, dict | list):
            return self
        origins = frozenset({f"{self.origin}: {name}" if name else self.origin})
        return replace(self, label=Label("trusted", self.label.readers, origins).join(self.floor))

    def under(self, condition: Label) -> Labelled:
        """The value where it depends on a condition too."""
        if condition == Label():
            return self
        label = self.label.join(condition)
        if not self.trusts:
            return Labelled(self.value, label)
        return replace(self, label=label, floor=self.floor.join(condition))


class Flat(NamedTuple):
    """The plain value of nested labelled ones, the join of their labels, and the work of walking through them."""

    plain: Any
    label: Label
    work: int
    """The values within, and one more for each `TEXT_PER_PART` characters."""


def flat(value: Any) -> tuple[Any, Label]:
    """The plain value and the joined label. ValueError beyond `MAX_PARTS` parts or `MAX_TEXT` characters."""
    return flattened(value)[:2]


def flattened(value: Any) -> Flat:
    """The plain value, its label and the work it was. ValueError beyond `MAX_PARTS` parts or `MAX_TEXT` characters."""
    walk = _Walk()
    plain = walk.plain(value)
    return Flat(plain, join_all(walk.labels.values()), walk.parts + walk.characters // TEXT_PER_PART)


class _Walk:
    """One walk through a value: what it has met."""

    def __init__(self) -> None:
        self.parts = self.characters = 0
        self.labels: dict[int, Label] = {}

    def plain(self, value: Any) -> Any:
        self.parts += 1
        if isinstance(value, str):
            self.characters += len(value)
        if self.parts > MAX_PARTS + 1 or self.characters > MAX_TEXT:
            raise ValueError
        if isinstance(value, Labelled):
            self.labels[id(value.label)] = value.label
            return self.plain(value.value)
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, dict):
            self.characters += sum(len(str(key)) for key in value)
            return {key: self.plain(each) for key, each in value.items()}
        return value
