"""Reads the targets of a table with choices as one column: texts of choices, letters, or indices from 0.

A row by itself does not tell: with the choices 1, 2, 3 and 4 the target 2 is the second choice as a text, and the third as
an index. The other rows do, or else the user is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from firsthand.benchmarks.protocols.protocol import letter
from firsthand.errors import DataError

TargetKind = Literal["text", "letter", "index"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)
_WORDS = {"text": "the text of one", "letter": "the letter of one", "index": "an index from 0"}


class Target(NamedTuple):
    """A row's target, its choices, and its file and line."""

    text: str
    choices: tuple[str, ...]
    where: str

    def read_as(self, kind: TargetKind) -> int | None:
        """The index of the choice that the target names if it is of that kind; None if it names none."""
        if kind == "text":
            return self.choices.index(self.text) if self.choices.count(self.text) == 1 else None
        if kind == "letter":
            letters = [letter(index) for index in range(len(self.choices))]
            return letters.index(self.text.upper()) if self.text.upper() in letters else None
        fits = self.text.isdecimal() and len(self.text) < 10 and int(self.text) < len(self.choices)
        return int(self.text) if fits else None

    @property
    def form(self) -> Literal["number", "letter", "other"]:
        """The form of its text: the text of a choice may look like a number or a letter."""
        if self.text.isdecimal():
            return "number"
        return "letter" if len(self.text) == 1 and "A" <= self.text.upper() <= "Z" else "other"


def golds(targets: Sequence[Target], kind: TargetKind | Literal[""] = "") -> list[int]:
    """Return the index of each right choice, all targets read in the one way that fits every row, or as `kind`.

    In a mixed column, which no one way fits, the numbers, the single letters and the other texts are read by themselves,
    each in one way. DataError where two ways fit and differ, or none does.
    """
    kinds = (kind,) if kind else KINDS
    for each in targets:
        if all(each.read_as(one) is None for one in kinds):
            expected = f"{_WORDS[kind]} of" if kind else "a letter, index from 0, or text of"
            raise DataError(
                f"{each.where}: the target {each.text!r:.100} is not {expected} {len(each.choices)} choices"
            )
    alike = _read_alike(targets, kinds)
    if alike is not None:
        return alike
    found = [0] * len(targets)
    for form in sorted({each.form for each in targets}):
        places = [at for at, each in enumerate(targets) if each.form == form]
        own = [targets[at] for at in places]
        read = _read_alike(own, kinds)
        if read is None:
            raise _of_two_kinds(own, kinds)
        for at, index in zip(places, read, strict=True):
            found[at] = index
    return found


def _read_alike(targets: Sequence[Target], kinds: Sequence[TargetKind]) -> list[int] | None:
    """The indices by the kind that fits all targets; None if none does, DataError where two fit and differ."""
    fitting: dict[TargetKind, list[int]] = {}
    for kind in kinds:
        read = [index for index in (each.read_as(kind) for each in targets) if index is not None]
        if len(read) == len(targets):
            fitting[kind] = read
    if not fitting:
        return None
    (first, read), *others = fitting.items()
    for other, read_other in others:
        for each, one, two in zip(targets, read, read_other, strict=True):
            if one != two:
                article = "an" if other == "index" else "a"
                raise DataError(
                    f"{each.where}: the target {each.text!r:.100} is {each.choices[one]!r:.60} as a {first} and "
                    f"{each.choices[two]!r:.60} as {article} {other}, and all rows like it can be read both ways: say which "
                    f'with target_is = "{first}" or "{other}"'
                )
    return read


def _of_two_kinds(targets: Sequence[Target], kinds: Sequence[TargetKind]) -> DataError:
    """The error of targets that no one kind fits; names the first that cannot be read as those before it."""
    fitting, before, odd = set(kinds), targets[0], targets[0]
    for each in targets:
        left = {kind for kind in fitting if each.read_as(kind) is not None}
        if not left:
            odd = each
            break
        if left != fitting:
            fitting, before = left, each
    ways = " or ".join(_WORDS[kind] for kind in KINDS if kind in fitting)
    return DataError(
        f"{odd.where}: the target {odd.text!r:.100} is not {ways} of its choices, as {before.text!r:.100} is "
        f"({before.where}): write all targets in one way"
    )
