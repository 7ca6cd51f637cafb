"""Labels of values: who may have written them, who may read them, where they come from (Denning, 1976; FIDES, 2025)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from firsthand.declaration import Declaration
from firsthand.message import Json

Integrity = Literal["trusted", "untrusted"]


@dataclass(frozen=True)
class Label:
    """Integrity, readers and origins of a value. Joining takes the lower integrity, fewer readers and all origins."""

    integrity: Integrity = "trusted"
    readers: frozenset[str] | None = None
    """Those who may read it besides the user; None for everybody."""
    origins: frozenset[str] = frozenset()

    @property
    def is_trusted(self) -> bool:
        """True if nobody but the user, the operator or a trusted field decided it."""
        return self.integrity == "trusted"

    def join(self, other: Label) -> Label:
        """The label of a value that depends on both: associative, commutative and idempotent."""
        trusted = self.is_trusted and other.is_trusted
        readers = other.readers if self.readers is None else self.readers
        if self.readers is not None and other.readers is not None:
            readers = self.readers & other.readers
        return Label("trusted" if trusted else "untrusted", readers, self.origins | other.origins)

    def may_be_read_by(self, recipients: Iterable[str]) -> bool:
        """True if all of them may read it."""
        return self.readers is None or self.readers.issuperset(recipients)

    def to_json(self) -> Json:
        """The label as an event records it."""
        readers = "public" if self.readers is None else sorted(self.readers)
        return {"integrity": self.integrity, "readers": readers, "origins": sorted(self.origins)}


USER = Label(origins=frozenset({"user"}))
"""The user's own words."""


def join_all(labels: Iterable[Label]) -> Label:
    """The join of all; trusted and public for none."""
    return reduce(Label.join, labels, Label())


def label_of_result(tool: str, declares: Declaration | None) -> Label:
    """The label of what a tool gave as a whole. What is not declared is untrusted and private."""
    readers = None if declares is not None and declares.readers == "public" else frozenset[str]()
    trusted = declares is not None and declares.clean
    return Label("trusted" if trusted else "untrusted", readers, frozenset({tool}))
