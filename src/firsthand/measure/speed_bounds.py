"""Upper bounds for a model's speed: the machine's measured speeds, raised by what benchmarks reached.

A bound below a benchmarked figure was measured wrongly, so saved results raise the bounds that they disprove.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from firsthand.measure.machine_speeds import Speeds, faster_of
from firsthand.measure.measurements import BenchResult

INT16 = "int16"
"""The compiled encoder's weight format."""


@dataclass(frozen=True)
class SpeedLimits:
    """The speeds of a machine, and the results measured on it."""

    speeds: Speeds
    """The greatest of those measured alone and in benchmarks."""
    results: tuple[BenchResult, ...]

    def read_gb_s(self, size_bytes: int) -> float:
        """Returns 10^9 bytes a second at which this many bytes of weights can be read.

        A smaller model's result is not used: more of it stays in the caches.
        """
        seen = [result.read_gb_s for result in self.results if result.weight_bytes >= size_bytes]
        return max([self.speeds.read_gb_s, *seen])

    def products_gop_s(self, weights: str) -> float:
        """Returns 10^9 operations a second of products with weights of this format."""
        kind = _numbers(weights)
        seen = [result.products_gop_s for result in self.results if _numbers(result.weights) == kind]
        return max([known_products(self.speeds, weights), *seen])


def speed_limits(speeds: Speeds, results: Sequence[BenchResult]) -> SpeedLimits:
    """Returns the bounds of this machine, from its speeds and its saved results."""
    return SpeedLimits(reduce(faster_of, (result.speeds for result in results), speeds), tuple(results))


def benchmarked_speeds(results: Sequence[BenchResult]) -> dict[str, float]:
    """Returns the highest speeds that benchmarks reached, by field of Speeds."""
    found: dict[str, float] = {}
    for result in results:
        field = "float32_gflop_s" if _numbers(result.weights) == "float" else "int8_gop_s"
        for name, value in (("read_gb_s", result.read_gb_s), (field, result.products_gop_s)):
            found[name] = max(found.get(name, 0.0), value)
    return found


def known_products(speeds: Speeds, weights: str) -> float:
    """Returns 10^9 operations a second of products with weights of this format, measured alone.

    16-bit numbers take at least twice the instructions of 8-bit ones.
    """
    kind, whole = _numbers(weights), speeds.int8_gop_s
    if kind == "float" or whole is None:
        return speeds.float32_gflop_s
    return whole if kind == "int8" else max(whole / 2, speeds.float32_gflop_s)


def _numbers(weights: str) -> str:
    """Returns the number type multiplied for a weight format."""
    if weights in ("float32", "float16"):
        return "float"
    return "int16" if weights == INT16 else "int8"
