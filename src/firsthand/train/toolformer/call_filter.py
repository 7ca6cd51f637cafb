"""Toolformer's filter: a call is kept where its result lowers the weighted loss of the tokens that follow it. Numpy only.

Schick et al., 2023, arXiv:2302.04761, section 2, "Filtering API calls", and appendix A for the weights.
"""

# T tokens of a text

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from firsthand.message import Json
from firsthand.tokens.calls.inline_call import InlineCall

Floats = NDArray[np.float64]

_UNSCALED = np.maximum(0.0, 1.0 - 0.2 * np.arange(5))
WEIGHTS_BY_DISTANCE: Floats = _UNSCALED / _UNSCALED.sum()
"""w_t = max(0, 1 - 0.2 t) / sum over s of max(0, 1 - 0.2 s): 1/3, 4/15, 1/5, 2/15, 1/15, then 0."""


@dataclass(frozen=True)
class ProposedCall:
    """A call that was sampled at a place of a text, with its result."""

    text: int
    """The number of the text."""
    place: int
    """The call is inserted before this token of the text."""
    call: InlineCall
    result: str
    num_sampled: int = field(default=1, compare=False)
    """So many samples at that place were this call."""


@dataclass(frozen=True)
class JudgedCall:
    """A proposed call with its losses."""

    proposed: ProposedCall
    without: float
    """L(empty): the loss of what follows without a call."""
    unanswered: float
    """L(e(c)): that loss after the call alone."""
    answered: float
    """L(e(c, r)): that loss after call and result, L+ in the paper."""

    @property
    def gain(self) -> float:
        """L- - L+, with L- = min(L(empty), L(e(c)))."""
        return min(self.without, self.unanswered) - self.answered

    def to_json(self, *, kept: bool) -> Json:
        """The call, its losses and the verdict as a JSON object."""
        proposed = self.proposed
        losses = {"without": self.without, "unanswered": self.unanswered, "answered": self.answered}
        return {
            "text": proposed.text, "place": proposed.place, "tool": proposed.call.name, "input": proposed.call.input,
            "result": proposed.result, "losses": losses, "gain": self.gain, "kept": kept,
        }  # fmt: skip


def weighted_loss(logprobs_T: Floats, start: int) -> float:
    """L_i: the sum of -w_{j-i} log p(x_j) over tokens j from `start` on; tokens beyond the text add nothing."""
    following = np.asarray(logprobs_T, dtype=np.float64)[start : start + len(WEIGHTS_BY_DISTANCE)]
    return float(-(WEIGHTS_BY_DISTANCE[: len(following)] * following).sum())


def best_places(start_probability_T: Floats, *, most: int, above: float) -> list[int]:
    """The places before which a call is most probable: at most `most`, each above the threshold tau_s, in text order.

    Entry t is the probability that the call begins before token t; entry 0 counts nothing.
    """
    probability_T = np.asarray(start_probability_T, dtype=np.float64).copy()
    probability_T[0] = -1.0
    ordered = np.argsort(-probability_T, kind="stable")[:most]
    return sorted(int(place) for place in ordered if probability_T[place] > above)


def kept_calls(judged: Iterable[JudgedCall], *, threshold: float) -> list[JudgedCall]:
    """Calls with a gain of at least tau_f; of several at one place that of the largest gain, the first of equal ones."""
    best: dict[tuple[int, int], JudgedCall] = {}
    for each in judged:
        key = each.proposed.text, each.proposed.place
        if each.gain >= threshold and (key not in best or each.gain > best[key].gain):
            best[key] = each
    return [best[key] for key in sorted(best)]


def shuffled_results(proposed: Sequence[ProposedCall], *, seed: int) -> list[ProposedCall]:
    """The calls with each other's results, none with its own place in the list: the control of the filter."""
    if len(proposed) < 2:
        return list(proposed)
    order = np.random.default_rng(seed).permutation(len(proposed))
    results = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [
        ProposedCall(each.text, each.place, each.call, proposed[results[at]].result, each.num_sampled)
        for at, each in enumerate(proposed)
    ]


def with_calls(ids_T: NDArray[np.int32], calls: Mapping[int, Sequence[int]]) -> NDArray[np.int32]:
    """The ids of a text with those of calls inserted, each before the token at its place."""
    parts: list[NDArray[np.int32]] = []
    done = 0
    for place in sorted(calls):
        parts += [ids_T[done:place], np.asarray(calls[place], dtype=np.int32)]
        done = place
    return np.concatenate([*parts, ids_T[done:]]).astype(np.int32)
