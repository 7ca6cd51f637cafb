"""Finds claims by place: `kv_cache_cost` is `architecture/kv_cache_cost.py`; nothing needs registering."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.claims.claim import SECTIONS, Claim, Judge, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.errors import ConfigError, unknown

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class NamedClaim:
    """A claim with its place: file, section, experiment and judge."""

    name: str
    section: str
    claim: Claim
    measure: Callable[[Lab], Measurement] | None
    """None if it cannot be tested here."""
    judge: Judge

    @property
    def cost_s(self) -> float:
        """CPU seconds that it takes; 0 where nothing is measured."""
        return self.claim.cost_s if self.measure else 0.0


def claim_names() -> dict[str, list[str]]:
    """Section -> the names of its claims, sorted; none of them is loaded."""
    return {section: sorted(path.stem for path in (_FOLDER / section).glob("[a-z]*.py")) for section in SECTIONS}


@cache
def all_claims() -> dict[str, NamedClaim]:
    """Name -> claim, by section and then by name."""
    return {name: _load(section, name) for section, names in claim_names().items() for name in names}


def chosen_claims(names: Iterable[str]) -> list[NamedClaim]:
    """The claims that names, names of sections, or `all` stand for, in the list's order. UnknownName for others."""
    known, wanted = all_claims(), set[str]()
    for name in names:
        if name == "all":
            wanted |= set(known)
        elif name in SECTIONS:
            wanted |= {each.name for each in known.values() if each.section == name}
        elif name in known:
            wanted.add(name)
        else:
            raise unknown("claim", name, [*known, *SECTIONS, "all"], see="firsthand claims")
    return [each for each in known.values() if each.name in wanted]


def fitting(claims: Iterable[NamedClaim], budget_s: float | None) -> tuple[list[NamedClaim], list[NamedClaim]]:
    """The claims that fit into a budget of CPU seconds, the cheapest first, and those that do not; each in its order.

    ConfigError if there is none that fits.
    """
    chosen = list(claims)
    if budget_s is None:
        return chosen, []
    left, kept = budget_s, set[str]()
    for each in sorted(chosen, key=lambda each: each.cost_s):
        if each.cost_s > left:
            break
        left -= each.cost_s
        kept.add(each.name)
    measured = [each for each in chosen if each.measure]
    if measured and not any(each.name in kept for each in measured):
        least = min(measured, key=lambda each: each.cost_s)
        raise ConfigError(
            f"budget is {budget_s:g} s: none of the {len(measured)} claims fits; the shortest, {least.name}, takes "
            f"{least.cost_s:g} s, and all of them {sum(each.cost_s for each in chosen):.0f} s"
        )
    return [each for each in chosen if each.name in kept], [each for each in chosen if each.name not in kept]


def _load(section: str, name: str) -> NamedClaim:
    module = importlib.import_module(f"{__package__}.{section}.{name}")
    claim: Claim = module.CLAIM
    if not claim.cannot:
        return NamedClaim(name, section, claim, module.measure, module.judge)

    def judge(measurement: Measurement) -> Verdict:
        return ruling("cannot be tested here", claim.cannot)

    return NamedClaim(name, section, claim, None, judge)
