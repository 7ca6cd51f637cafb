"""Predicts an encoder's speed on this machine: a bound on texts/s from measured products, and the expected share of it.

A text costs two operations for each weight and token, and four for each pair of tokens and unit of attention width.
Decoders that embed are covered by `planner.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from firsthand.hub.inspection import Inspection
from firsthand.hub.planner import busy_note, nearest
from firsthand.measure.machine import is_busy
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import EMBEDDED, EMBEDDED_TOKENS, BenchResult
from firsthand.measure.speed_bounds import INT16, SpeedLimits, known_products, speed_limits
from firsthand.message import Json

TOKENS = 128
_KINDS = (INT16, "float32")


@dataclass(frozen=True)
class ExpectedTexts:
    """The expected speed of our encoder, from a measurement."""

    measured_model: str
    measured_on: str
    is_same: bool
    """True if the measured model is this one."""
    share: float
    """Share of the bound by products."""
    tokens: float
    """Tokens/s; the measured number itself for the same model."""
    texts: float | None
    """Documents/s of mixed length, for the same model."""


@dataclass(frozen=True)
class EncoderPlan:
    """An encoder's predicted speed here."""

    speeds: Speeds
    tokens_per_text: int
    texts: float | None
    """Bound on texts/s of that many tokens; None if the file does not state its shape."""
    expected: ExpectedTexts | None
    """None if no encoder was measured on this machine."""
    is_busy: bool
    notes: tuple[str, ...]

    def to_json(self) -> Json:
        """Returns the plan as a JSON object."""
        return asdict(self)


def plan_encoder(facts: Inspection, speeds: Speeds, results: Sequence[BenchResult], model: str) -> EncoderPlan:
    """Returns the plan for an encoder of that name."""
    most = speed_limits(speeds, results)
    bound = _tokens_bound(facts, most)
    return EncoderPlan(
        speeds=most.speeds,
        tokens_per_text=TOKENS,
        texts=bound and bound / TOKENS,
        expected=_expect(facts, most, model),
        is_busy=is_busy(most.speeds.load),
        notes=tuple(_notes(most)),
    )


def encoder_gflop(parameters: int, attention_width: int, tokens: float) -> float:
    """Returns 10^9 operations for each token of a text of this length, each of which attends to all others."""
    return (2 * parameters + 4 * attention_width * tokens) / 1e9


def _expect(facts: Inspection, most: SpeedLimits, model: str) -> ExpectedTexts | None:
    useful = [result for result in most.results if result.is_encoder and not result.quick]
    result, here = nearest(useful, facts, model)
    if result is None:
        return None
    texts, tokens = result.figure(EMBEDDED), result.figure(EMBEDDED_TOKENS)
    bound = _tokens_bound(facts, most)
    if texts is None or tokens is None or bound is None:
        return None
    share = tokens.median * result.prefill_gflop / _products(most)
    return ExpectedTexts(
        measured_model=result.model,
        measured_on=result.date,
        is_same=here,
        share=share,
        tokens=tokens.median if here else share * bound,
        texts=texts.median if here else None,
    )


def _tokens_bound(facts: Inspection, most: SpeedLimits) -> float | None:
    """Returns the bound on tokens/s for texts of `TOKENS` tokens."""
    if not facts.attention_width or not facts.decode_parameters:
        return None
    return _products(most) / encoder_gflop(facts.decode_parameters, facts.attention_width, TOKENS)


def _products(most: SpeedLimits) -> float:
    return max(most.products_gop_s(kind) for kind in _KINDS)


def _notes(most: SpeedLimits) -> Iterator[str]:
    yield from busy_note(most.speeds)
    if _products(most) > max(known_products(most.speeds, kind) for kind in _KINDS):
        yield (
            f"Texts are bounded by what a benchmark here reached, {_products(most):.0f} x 10^9 operations/s: more than "
            "products alone showed."
        )
