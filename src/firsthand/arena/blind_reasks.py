"""Blind re-asks: a voter sees an earlier battle again with its sides exchanged; agreement with oneself, as kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from firsthand.preference import Preference, Winner
from firsthand.stats.rater_agreement import cohen_kappa

REASK = "reask_of"
"""Key in the detail of a vote that repeats an earlier one; such a vote does not count in ratings."""
EXCHANGED: dict[Winner, Winner] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}
"""The verdict as it reads with the sides exchanged."""


@dataclass(frozen=True)
class SelfAgreement:
    """The rate at which voters repeat their verdicts."""

    pairs: int
    agreed: float
    """The share of equal verdicts; tie and both_bad are one verdict."""
    kappa: float
    """Cohen's kappa of first and second verdicts."""
    first_side: float
    """The share of second verdicts that are for the other answer on the same side: a preference for a side."""


def to_reask(preferences: Sequence[Preference], voter: str, rng: Random, *, wait: int = 5) -> Preference | None:
    """One of the voter's votes to ask again, none of the last `wait`; None if all were asked again, or there are too few."""
    own = [each for each in preferences if each.by == voter and not is_reask(each)]
    again = {str((each.detail or {})[REASK]) for each in preferences if is_reask(each)}
    free = [each for each in own[: max(0, len(own) - wait)] if vote_key(each) not in again]
    return rng.choice(free) if free else None


def is_reask(preference: Preference) -> bool:
    """True for a vote that repeats an earlier one."""
    return bool((preference.detail or {}).get(REASK))


def vote_key(preference: Preference) -> str:
    """The name of a vote: its voter and its two traces."""
    return "|".join([preference.by, *sorted((preference.a, preference.b))])


def self_agreement(preferences: Sequence[Preference]) -> SelfAgreement | None:
    """The agreement of voters with themselves; None without a vote that repeats one."""
    first = {vote_key(each): each for each in reversed(preferences) if not is_reask(each)}
    pairs: list[tuple[str, str]] = []
    same_side = 0
    for each in preferences:
        before = first.get(vote_key(each)) if is_reask(each) else None
        if before is None:
            continue
        verdict = each.winner if each.a == before.a else EXCHANGED[each.winner]
        pairs.append((_plain(before.winner), _plain(verdict)))
        same_side += before.winner in ("a", "b") and each.winner == before.winner and each.a != before.a
    if not pairs:
        return None
    agreed = sum(one == two for one, two in pairs) / len(pairs)
    kappa = cohen_kappa([one for one, _ in pairs], [two for _, two in pairs])
    return SelfAgreement(len(pairs), agreed, kappa, same_side / len(pairs))


def _plain(winner: str) -> str:
    return "tie" if winner == "both_bad" else winner
