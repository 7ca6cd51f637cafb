"""Values with labels: who wrote them, who may read them, and which of their fields may be believed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from firsthand.safety.rules.labels import Label, join_all

MAX_PARTS = 50_000
"""The most values within one: a plan could double a list line by line."""

_carried: ContextVar[dict[str, Label] | None] = ContextVar("firsthand_carried", default=None)


@contextmanager
def carrying(labels: dict[str, Label]) -> Iterator[None]:
    """Marks the block as a tool call whose arguments have these labels, so that the guard need not look for witnesses."""
    mark = _carried.set(labels)
    try:
        yield
    finally:
        _carried.reset(mark)


def carried() -> dict[str, Label] | None:
    """The labels of the arguments of the call under way; None where they are not known."""
    return _carried.get()


@dataclass(frozen=True)
class Labelled:
    """A value and its label."""

    value: Any
    label: Label = field(default_factory=Label)
    trusts: tuple[str, ...] = ()
    """Paths of the value's fields that may be believed; `.` is the value itself."""
    origin: str = ""

    def at(self, name: str) -> Labelled:
        """The value of a field of an object. KeyError if there is none, TypeError if this is no object."""
        if not isinstance(self.value, dict):
            raise TypeError
        inner = [path.partition(".") for path in self.trusts if path != "."]
        left = tuple(rest or "." for head, _, rest in inner if head in (name, "*"))
        return replace(self, value=self.value[name], trusts=left)._settled(name)

    def items(self) -> list[Labelled]:
        """The items of a list, each with the list's label. TypeError if this is no list."""
        if not isinstance(self.value, list):
            raise TypeError
        return [each if isinstance(each, Labelled) else replace(self, value=each)._settled() for each in self.value]

    def _settled(self, name: str = "") -> Labelled:
        if "." not in self.trusts or isinstance(self.value, dict | list):
            return self
        origins = frozenset({f"{self.origin}: {name}" if name else self.origin})
        return replace(self, label=Label("trusted", self.label.readers, origins))

    def under(self, condition: Label) -> Labelled:
        """The value where it depends on a condition too."""
        return self if condition == Label() else Labelled(self.value, self.label.join(condition))


def flat(value: Any) -> tuple[Any, Label]:
    """The plain value of nested labelled ones, and the join of their labels. ValueError beyond `MAX_PARTS` parts."""
    return _flat(value, count())


def _flat(value: Any, parts: count[int]) -> tuple[Any, Label]:
    if next(parts) > MAX_PARTS:
        raise ValueError
    if isinstance(value, Labelled):
        inner, label = _flat(value.value, parts)
        return inner, value.label.join(label)
    if isinstance(value, list):
        found = [_flat(each, parts) for each in value]
        return [inner for inner, _ in found], join_all(label for _, label in found)
    if isinstance(value, dict):
        pairs = {key: _flat(each, parts) for key, each in value.items()}
        return {key: inner for key, (inner, _) in pairs.items()}, join_all(label for _, label in pairs.values())
    return value, Label()
