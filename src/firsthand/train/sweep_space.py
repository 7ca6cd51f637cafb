"""The space of a sweep: which settings its trials have. Pure functions of the spec and a seed; no torch.

lr=1e-4,3e-4,1e-3        these values, in every combination with others
lr=log:1e-5:1e-2         drawn, uniform in the logarithm
dropout=uniform:0:0.3    drawn, uniform
layers=int:2:8           drawn, whole numbers from 2 to 8
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from firsthand.errors import ConfigError

MAX_TRIALS = 10_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Drawn:
    """A range that values are drawn from."""

    kind: str
    """`log`, `uniform` or `int`."""
    low: float
    high: float

    def draw(self, source: random.Random) -> str:
        """One value within the range: in 4 digits, or in more where these would leave fewer than 100 values."""
        if self.kind == "int":
            return str(source.randint(int(self.low), int(self.high)))
        if self.kind == "uniform":
            return self._written(source.uniform(self.low, self.high))
        return self._written(math.exp(source.uniform(math.log(self.low), math.log(self.high))))

    def _written(self, value: float) -> str:
        """The value rounded; an end of the range where that is outside of it."""
        place = math.floor(math.log10(max(abs(self.low), abs(self.high))))
        digits = place + 1 - math.floor(math.log10((self.high - self.low) / 100))
        text = f"{value:.{min(max(digits, 4), 17)}g}"
        within = min(max(float(text), self.low), self.high)
        return text if within == float(text) else repr(within).removesuffix(".0")


Space = Mapping[str, Sequence[str] | Drawn]


def parse_space(specs: Sequence[str]) -> Space:
    """The space that these specs name. ConfigError for one that cannot be read, or names a setting twice."""
    space: dict[str, Sequence[str] | Drawn] = {}
    for spec in specs:
        name, equals, text = spec.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigError(f"{spec!r:.80} is no setting: give NAME=VALUE,VALUE or NAME=log:LOW:HIGH")
        if name in space:
            raise ConfigError(f"{name} is given twice: put all its values after one name")
        space[name] = _range(name, text) if text.split(":")[0] in ("log", "uniform", "int") else _values(name, text)
    return space


def _values(name: str, text: str) -> Sequence[str]:
    values = text.split(",")
    if not all(values) or len(set(values)) < len(values):
        raise ConfigError(f"the values of {name} are {text!r:.80}: give different ones, separated by commas")
    return values


def _range(name: str, text: str) -> Drawn:
    kind, *ends = text.split(":")
    try:
        low, high = map(float, ends)
    except ValueError:
        raise ConfigError(f"{name} is {text!r:.80}: give a range as {kind}:LOW:HIGH") from None
    whole = kind != "int" or (low.is_integer() and high.is_integer())
    if not (math.isfinite(low) and math.isfinite(high) and low < high and whole and (kind != "log" or low > 0)):
        least = " above 0" if kind == "log" else ""
        raise ConfigError(
            f"{name} is {text!r:.80}: give {'whole' if kind == 'int' else 'two'} numbers{least}, the lower first"
        )
    return Drawn(kind, low, high)


def combinations(space: Space, *, trials: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """The settings of each trial: every combination of listed values, or `trials` draws. No two are equal.

    ConfigError if ranges come without `trials`, or there are too many combinations.
    """
    ranges = [name for name, values in space.items() if isinstance(values, Drawn)]
    if trials is None:
        if ranges:
            raise ConfigError(f"{ranges[0]} is a range: say with --trials how many settings are drawn")
        lists = [list(values) for values in space.values() if not isinstance(values, Drawn)]
        total = math.prod(map(len, lists))
        if total > MAX_TRIALS:
            raise ConfigError(f"these settings have {total:,} combinations: give --trials to draw some of them")
        return [dict(zip(space, chosen, strict=True)) for chosen in product(*lists)]
    if not 1 <= trials <= MAX_TRIALS:
        raise ConfigError(f"trials is {trials}: give 1 to {MAX_TRIALS}")
    found = dict.fromkeys(tuple(each.items()) for each in _draws(space, trials, random.Random(f"sweep {seed}")))
    return [dict(items) for items in found]


def _draws(space: Space, trials: int, source: random.Random) -> Iterator[dict[str, str]]:
    """At least `trials` draws, fewer different ones where the space is smaller than that."""
    seen: set[tuple[str, ...]] = set()
    for _ in range(20 * trials):
        drawn = {
            name: values.draw(source) if isinstance(values, Drawn) else source.choice(list(values))
            for name, values in space.items()
        }
        if tuple(drawn.values()) not in seen:
            seen.add(tuple(drawn.values()))
            yield drawn
        if len(seen) == trials:
            return


def survivors(values: Sequence[float], count: int, *, minimise: bool) -> list[int]:
    """The places of the `count` best values, best first; NaN is the worst, and of equal ones the earlier is better."""
    sign = 1 if minimise else -1
    order = sorted(range(len(values)), key=lambda at: (math.isnan(values[at]), sign * values[at], at))
    return order[:count]
