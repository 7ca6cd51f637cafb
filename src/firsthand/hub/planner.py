"""Predicts a model's memory and speed on this machine: KV cache sizes, and bounds on tokens/s from measured speeds.

Decoding one answer reads every weight once per token, so memory bandwidth bounds it; a prompt is matrix products, so
their speed bounds that. The share of the bounds that our engine reaches comes from `firsthand bench`, for this model or
the most similar one. No bound is below what was measured here. Reads no weights and needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from firsthand.hub.inspection import Inspection
from firsthand.measure.machine import is_busy
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import DECODE, PREFILL, BenchResult
from firsthand.measure.speed_bounds import SpeedLimits, known_products, speed_limits
from firsthand.message import Json

PROMPT = 512
SEQUENCES = (1, 8, 32)
SEQUENCE_TOKENS = 2048


@dataclass(frozen=True)
class Bound:
    """Upper bounds for one weight format."""

    weights: str
    read_bytes: int
    """Bytes of weights read for each token of one answer."""
    decode: float
    """Tokens/s of one answer that memory bandwidth allows."""
    prefill: float | None
    """Tokens/s of a 512-token prompt that products allow; None if the file does not state its shape."""


@dataclass(frozen=True)
class Expected:
    """The expected speed of our engine, from a measurement."""

    measured_model: str
    measured_on: str
    is_same: bool
    """True if the measured model is this one."""
    weights: str
    decode_share: float
    """Share of its bound."""
    prefill_share: float | None
    decode: float
    """Tokens/s of one answer; the measured number itself for the same model."""
    prefill: float | None


@dataclass(frozen=True)
class ModelPlan:
    """A model's memory needs and predicted speed here."""

    kv_memory_bytes: int
    """The engine's default size of the KV cache."""
    kv_tokens: int | None
    """Of one conversation that fits it."""
    kv_bytes: dict[int, int]
    """Bytes of the KV cache for that many conversations of 2,048 tokens."""
    speeds: Speeds
    bounds: tuple[Bound, ...]
    expected: Expected | None
    """None if nothing was measured on this machine."""
    is_busy: bool = False
    """True if other programs ran during the measurement, so that the machine may exceed the bounds."""
    notes: tuple[str, ...] = ()
    """Sentences on the reliability of the bounds."""

    def to_json(self) -> Json:
        """Returns the plan as a JSON object."""
        return {**asdict(self), "kv_bytes": {str(count): size for count, size in self.kv_bytes.items()}}


def plan(
    facts: Inspection, speeds: Speeds, kv_memory_bytes: int, results: Sequence[BenchResult], model: str
) -> ModelPlan:
    """Returns the plan for a model of that name."""
    each = facts.kv_bytes_per_token
    kinds = {"float16": 2 * facts.decode_parameters, "int8": _int8_bytes(facts)}
    if facts.block_bytes:
        kinds["the file's blocks"] = facts.block_bytes
    most = speed_limits(speeds, results)
    return ModelPlan(
        kv_memory_bytes=kv_memory_bytes,
        kv_tokens=facts.tokens_in(kv_memory_bytes),
        kv_bytes={count: count * (facts.keys_and_values(SEQUENCE_TOKENS) or 0) for count in SEQUENCES} if each else {},
        speeds=most.speeds,
        bounds=tuple(_bound(facts, most, name, size) for name, size in kinds.items() if size),
        expected=expect(facts, most, model),
        is_busy=is_busy(most.speeds.load),
        notes=tuple(_notes(most, kinds)),
    )


def prefill_gflop(parameters: int, head: int, attention_width: int, tokens: int = PROMPT) -> float:
    """Returns 10^9 operations for each token of a prompt: two per weight, four per pair of positions that attend."""
    return (2 * (parameters - head) + 4 * attention_width * (tokens + 1) / 2) / 1e9


def expect(facts: Inspection, most: SpeedLimits, model: str) -> Expected | None:
    """Returns the expected speed, from a measurement of this model or the most similar in size; None without any."""
    useful = [result for result in most.results if result.figure(DECODE) and not result.quick]
    result, here = nearest(useful, facts, model)
    if result is None:
        return None
    decode, prefill = result.figure(DECODE), result.figure(PREFILL)
    assert decode is not None
    decode_share = decode.median * result.weight_bytes / (most.read_gb_s(result.weight_bytes) * 1e9)
    prefill_share = prefill.median * result.prefill_gflop / most.products_gop_s(result.weights) if prefill else None
    bound = _bound(facts, most, result.weights, _weight_bytes(facts, result))
    return Expected(
        measured_model=result.model,
        measured_on=result.date,
        is_same=here,
        weights=result.weights,
        decode_share=decode_share,
        prefill_share=prefill_share,
        decode=decode.median if here else decode_share * bound.decode,
        prefill=(prefill.median if here else prefill_share * bound.prefill)
        if prefill and prefill_share and bound.prefill
        else None,
    )


def _bound(facts: Inspection, most: SpeedLimits, weights: str, read_bytes: int) -> Bound:
    prefill = None
    if facts.head_parameters and facts.attention_width:
        gflop = prefill_gflop(facts.decode_parameters, facts.head_parameters, facts.attention_width)
        prefill = most.products_gop_s(weights) / gflop
    return Bound(weights, read_bytes, most.read_gb_s(read_bytes) * 1e9 / read_bytes, prefill)


def busy_note(speeds: Speeds) -> Iterator[str]:
    """Yields a sentence if the speeds were measured beside other work."""
    if is_busy(speeds.load):
        yield (
            f"These speeds were measured beside other programs (load {speeds.load:.1f}): the machine may do more. They are "
            "measured again when an hour has passed."
        )


def _notes(most: SpeedLimits, kinds: Mapping[str, int]) -> Iterator[str]:
    """Yields sentences on the reliability of the bounds for these weight formats and sizes."""
    yield from busy_note(most.speeds)
    for name, size in kinds.items():
        if most.read_gb_s(size) > most.speeds.read_gb_s:
            yield (
                f"Weights in {name} are bounded by what a benchmark here read in a second, {most.read_gb_s(size):.1f} GB: "
                "more than reading memory alone showed."
            )
        if most.products_gop_s(name) > known_products(most.speeds, name):
            yield (
                f"Prompts with weights in {name} are bounded by what a benchmark here reached, "
                f"{most.products_gop_s(name):.0f} x 10^9 operations/s: more than products alone showed."
            )


def _weight_bytes(facts: Inspection, result: BenchResult) -> int:
    """Returns the bytes of a model's weights in the format of a measured one."""
    floats = {"float32": 4, "float16": 2}.get(result.weights)
    return floats * facts.decode_parameters if floats else facts.block_bytes or _int8_bytes(facts)


def _int8_bytes(facts: Inspection) -> int:
    """Returns the bytes of weights rounded to 8 bits, with a 16-bit scale for every 32."""
    return math.ceil(facts.decode_parameters * 8.5 / 8)


def nearest(results: Sequence[BenchResult], facts: Inspection, model: str) -> tuple[BenchResult | None, bool]:
    """Returns the result of this model and True, or else that of the most similar size and False."""
    for result in results:
        if result.model == model or result.path == str(facts.path.resolve()):
            return result, True
    return min(results, key=lambda result: _distance(result.parameters, facts.decode_parameters), default=None), False


def _distance(one: int, other: int) -> float:
    return abs(math.log(max(1, one) / max(1, other)))
