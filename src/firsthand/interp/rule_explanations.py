"""Explains a feature by the best simple rule on tokens, scored on held-out text beside a null; no judge model takes part.

Rules: the token, the token before, or a class of characters. A rule that is chosen on shuffled labels and scored in the
same way says what the search itself is worth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from firsthand.errors import DataError

MIN_TOKENS = 200
MIN_FIRING = 5


@dataclass(frozen=True)
class RuleExplanation:
    """A rule and how well it foretells on which held-out tokens the feature fires."""

    rule: str
    balanced_accuracy: float
    """The mean of the shares of firing and silent tokens that the rule gets right; 0.5 is chance."""
    null: float
    """The same for the best rule on shuffled labels."""


CLASSES = {
    "digits": str.isdigit, "letters": str.isalpha, "an upper-case first letter": lambda text: text[:1].isupper(),
    "upper case": lambda text: len(text) > 1 and text.isupper(), "punctuation": lambda text: not any(map(str.isalnum, text)),
}  # fmt: skip
_Row = tuple[str, str, bool]
"""Token, token before, and whether the feature fires."""


def explain(tokens: Sequence[str], fires: Sequence[bool], *, seed: int = 0) -> RuleExplanation | None:
    """The rule that is best on the first half of the tokens, scored on the second; None for a feature that fires too seldom.

    DataError for fewer than 200 tokens: a null means nothing there.
    """
    if len(tokens) != len(fires) or len(tokens) < MIN_TOKENS:
        raise DataError(
            f"{len(tokens)} tokens with {len(fires)} labels came: explaining a feature takes as many of each, "
            f"{MIN_TOKENS} or more"
        )
    half = len(tokens) // 2
    before = ["", *tokens[:-1]]
    rows = list(zip(tokens, before, map(bool, fires), strict=True))
    if min(sum(row[2] for row in rows[:half]), sum(row[2] for row in rows[half:])) < MIN_FIRING:
        return None
    rule = _best(rows[:half])
    labels = [row[2] for row in rows]
    Random(seed).shuffle(labels)
    mixed = [(one, other, label) for (one, other, _), label in zip(rows, labels, strict=True)]
    null = _best(mixed[:half])
    return RuleExplanation(_words(rule), _accuracy(rule, rows[half:]), _accuracy(null, mixed[half:]))


def _best(rows: Sequence[_Row]) -> tuple[str, str]:
    found = Counter(row[0] for row in rows if row[2]).most_common(6)
    previous = Counter(row[1] for row in rows if row[2]).most_common(6)
    rules = [("token", text) for text, _ in found] + [("before", text) for text, _ in previous]
    rules += [("class", name) for name in CLASSES] + [("class before", name) for name in CLASSES]
    return max(rules, key=lambda rule: _accuracy(rule, rows))


def _accuracy(rule: tuple[str, str], rows: Sequence[_Row]) -> float:
    right, totals = [0, 0], [0, 0]
    for row in rows:
        totals[row[2]] += 1
        right[row[2]] += _holds(rule, row) == row[2]
    return sum(share / max(total, 1) for share, total in zip(right, totals, strict=True)) / 2


def _holds(rule: tuple[str, str], row: _Row) -> bool:
    kind, value = rule
    text = row[1] if kind.endswith("before") else row[0]
    return bool(CLASSES[value](text.strip()) and text.strip()) if kind.startswith("class") else text == value


def _words(rule: tuple[str, str]) -> str:
    kind, value = rule
    place = "the token before" if kind.endswith("before") else "the token"
    return f"{place} is {value}" if kind.startswith("class") else f"{place} is {value!r}"
