"""What bounds a model here: the machine's measured speeds, corrected by what an engine was seen to reach.

A figure that a benchmark reached is a fact, and a bound below it was measured wrongly. So what was kept raises the bounds
that it disproves. Left out: measuring again (`speeds`), and a model's own arithmetic (`providers/planner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from firsthand.measure.machine_speeds import Speeds, faster_of
from firsthand.measure.measurements import Result

INT16 = "int16"
"""How the compiled encoder keeps its weights."""


@dataclass(frozen=True)
class SpeedLimits:
    """The speeds of a machine, and what was measured on it."""

    speeds: Speeds
    """The greatest of those measured by themselves and in benchmarks."""
    results: tuple[Result, ...]

    def read_gb_s(self, size_bytes: int) -> float:
        """10^9 bytes a second at which so many bytes of weights can be read.

        What a model reached says nothing of a larger one, which has less of itself in the caches.
        """
        seen = [result.read_gb_s for result in self.results if result.weight_bytes >= size_bytes]
        return max([self.speeds.read_gb_s, *seen])

    def products_gop_s(self, weights: str) -> float:
        """10^9 operations a second of products with weights of a kind."""
        kind = _numbers(weights)
        seen = [result.products_gop_s for result in self.results if _numbers(result.weights) == kind]
        return max([known_products(self.speeds, weights), *seen])


def speed_limits(speeds: Speeds, results: Sequence[Result]) -> SpeedLimits:
    """The bounds of this machine, from its speeds and from what was kept for it."""
    return SpeedLimits(reduce(faster_of, (result.speeds for result in results), speeds), tuple(results))


def seen(results: Sequence[Result]) -> dict[str, float]:
    """The most that benchmarks saw the machine do, by field of Speeds: whatever says less was measured wrongly."""
    found: dict[str, float] = {}
    for result in results:
        field = "float32_gflop_s" if _numbers(result.weights) == "float" else "int8_gop_s"
        for name, value in (("read_gb_s", result.read_gb_s), (field, result.products_gop_s)):
            found[name] = max(found.get(name, 0.0), value)
    return found


def known_products(speeds: Speeds, weights: str) -> float:
    """10^9 operations a second of the products that weights of a kind take part in, as they were measured alone.

    Numbers of 16 bits take twice the room of those of 8, and so at least twice the instructions.
    """
    kind, whole = _numbers(weights), speeds.int8_gop_s
    if kind == "float" or whole is None:
        return speeds.float32_gflop_s
    return whole if kind == "int8" else max(whole / 2, speeds.float32_gflop_s)


def _numbers(weights: str) -> str:
    """What is multiplied where the engine keeps weights so: whole numbers, unless they are floats."""
    if weights in ("float32", "float16"):
        return "float"
    return "int16" if weights == INT16 else "int8"
