"""Explains a feature by the best simple rule on tokens, scored on held-out text beside a null; no judge model takes part.

Rules: the token, the token before, or a class of characters. A rule that is chosen on shuffled labels and scored in the
same way says what the search itself is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


CLASSES: dict[str, Callable[[str], bool]] = {
    "digits": str.isdigit, "letters": str.isalpha, "an upper-case first letter": lambda text: text[:1].isupper(),
    "upper case": lambda text: len(text) > 1 and text.isupper(), "punctuation": lambda text: not any(map(str.isalnum, text)),
}  # fmt: skip
_Counts = Mapping[str, Sequence[int]]
"""Text -> silent and firing tokens."""


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
    labels = list(map(bool, fires))
    if min(sum(labels[:half]), sum(labels[half:])) < MIN_FIRING:
        return None
    shuffled = labels.copy()
    Random(seed).shuffle(shuffled)
    found = []
    for given in (labels, shuffled):
        first = (_counted(tokens[:half], given[:half]), _counted(before[:half], given[:half]))
        second = (_counted(tokens[half:], given[half:]), _counted(before[half:], given[half:]))
        rule = _best(*first)
        found.append((rule, _accuracy(rule, *second)))
    (rule, accuracy), (_, null) = found
    return RuleExplanation(_words(rule), accuracy, null)


def _counted(texts: Sequence[str], labels: Sequence[bool]) -> _Counts:
    """Silent and firing tokens of each text."""
    counts: dict[str, list[int]] = {}
    for text, label in zip(texts, labels, strict=True):
        counts.setdefault(text, [0, 0])[label] += 1
    return counts


def _best(tokens: _Counts, before: _Counts) -> tuple[str, str]:
    rules = [("token", text) for text in _most_firing(tokens)] + [("before", text) for text in _most_firing(before)]
    rules += [("class", name) for name in CLASSES] + [("class before", name) for name in CLASSES]
    return max(rules, key=lambda rule: _accuracy(rule, tokens, before))


def _most_firing(counts: _Counts) -> list[str]:
    firing = [text for text, (_, fires) in counts.items() if fires]
    return sorted(firing, key=lambda text: -counts[text][1])[:6]


def _accuracy(rule: tuple[str, str], tokens: _Counts, before: _Counts) -> float:
    kind, value = rule
    right, totals = [0, 0], [0, 0]
    for text, (silent, fires) in (before if kind.endswith("before") else tokens).items():
        totals[0], totals[1] = totals[0] + silent, totals[1] + fires
        holds = _is_of(value, text) if kind.startswith("class") else text == value
        right[holds] += fires if holds else silent
    return sum(share / max(total, 1) for share, total in zip(right, totals, strict=True)) / 2


def _is_of(name: str, text: str) -> bool:
    return bool(text.strip()) and bool(CLASSES[name](text.strip()))


def _words(rule: tuple[str, str]) -> str:
    kind, value = rule
    place = "the token before" if kind.endswith("before") else "the token"
    return f"{place} is {value}" if kind.startswith("class") else f"{place} is {value!r}"
