"""Samples a token from a row of logits, compiled: two or three passes over the vocabulary, without sorting it.

Each kernel returns the token and its log-prob under the distribution it was drawn from, whose normaliser the draw needs
anyway. Sums are float64 over pieces of 1,024 tokens, in the order of their ids. Importing this file imports numba.
"""

# V vocabulary

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import called, kernel
from firsthand.kernels.step.row_ops import highest
from firsthand.kernels.vectors import LANES, add, exp, largest, load, mul, splat, store, sub, total

PIECE = 1024
_ZERO = np.float32(0.0)
_LARGEST = float(np.finfo(np.float32).max)
"""Above it a factor is infinite, and 0 times it, for the most probable token, is NaN."""


@called
def _weigh(logits: Any, start: int, top: Any, factor: Any, floor: Any, weights: Any) -> Any:
    """Write e ** ((logit - top) * factor) for a piece, 0 below `floor`, and return their sum."""
    sums = splat(_ZERO)
    size = min(PIECE, len(logits) - start)
    for place in range(0, size // LANES * LANES, LANES):
        lanes = exp(mul(sub(load(logits, start + place), splat(top)), splat(factor)))
        store(weights, place, lanes)
        if floor == _ZERO:
            sums = add(sums, lanes)
    for place in range(size // LANES * LANES, size):
        weights[place] = np.exp((logits[start + place] - top) * factor)
    if floor == _ZERO:
        rest = 0.0
        for place in range(size // LANES * LANES, size):
            rest += weights[place]
        return total(sums) + rest
    whole = 0.0
    for place in range(size):
        if weights[place] < floor:
            weights[place] = _ZERO
        whole += weights[place]
    return whole


@kernel
def draw(logits: Any, temperature: float, min_p: float, number: float) -> Any:
    """The token at which the cumulative weight, in the order of ids, passes `number` (in [0, 1)) of the whole, and its
    log-prob.

    Tokens less probable than min_p times the most probable one are left out.
    """
    top, factor, floor = (
        highest(logits, 0, len(logits)),
        np.float32(min(1.0 / temperature, _LARGEST)),
        np.float32(min_p),
    )
    weights = np.empty(PIECE + LANES, dtype=np.float32)
    pieces = (len(logits) + PIECE - 1) // PIECE
    sums = np.empty(pieces, dtype=np.float64)
    whole = 0.0
    for piece in range(pieces):
        sums[piece] = _weigh(logits, piece * PIECE, top, factor, floor, weights)
        whole += sums[piece]
    target, before, piece = whole * number, 0.0, 0
    while piece < pieces - 1 and before + sums[piece] <= target:
        before += sums[piece]
        piece += 1
    _weigh(logits, piece * PIECE, top, factor, floor, weights)
    last = 0
    for place in range(min(PIECE, len(logits) - piece * PIECE)):
        if weights[place] > _ZERO:
            last = place
            before += weights[place]
            if before > target:
                break
    return piece * PIECE + last, np.log(np.float64(weights[last])) - np.log(whole)


@kernel
def draw_nucleus(logits: Any, temperature: float, top_p: float, min_p: float, number: float) -> Any:
    """As `draw`, from the most probable tokens that together reach top_p (Holtzman et al., 2020), in descending order.

    Tokens that each have less than (1 - top_p) / V of the whole cannot be among them, so only the others are sorted.
    """
    top, factor = highest(logits, 0, len(logits)), np.float32(min(1.0 / temperature, _LARGEST))
    weights = np.empty(PIECE + LANES, dtype=np.float32)
    whole = 0.0
    for start in range(0, len(logits), PIECE):
        whole += _weigh(logits, start, top, factor, _ZERO, weights)
    least = np.float32((1.0 - top_p) * whole / len(logits) * 0.999)
    ids, found, count = np.empty(256, dtype=np.int64), np.empty(256, dtype=np.float32), 0
    for start in range(0, len(logits), PIECE):
        _weigh(logits, start, top, factor, _ZERO, weights)
        size = min(PIECE, len(logits) - start)
        for vector in range(0, size, LANES):
            if vector + LANES <= size and largest(load(weights, vector)) < least:
                continue
            for place in range(vector, min(vector + LANES, size)):
                if weights[place] < least:
                    continue
                if count == len(ids):
                    ids, found = np.concatenate((ids, ids)), np.concatenate((found, found))
                ids[count], found[count] = start + place, weights[place]
                count += 1
    order = np.argsort(-found[:count], kind="mergesort")
    enough, mass, kept, kept_mass = top_p * whole, 0.0, 0, 0.0
    while kept < count and (kept == 0 or (mass < enough and found[order[kept]] >= np.float32(min_p))):
        mass += found[order[kept]]
        kept += 1
    kept_mass = mass
    target, mass = kept_mass * number, 0.0
    for place in range(kept):
        mass += found[order[place]]
        if mass > target:
            return ids[order[place]], np.log(np.float64(found[order[place]])) - np.log(kept_mass)
    return ids[order[kept - 1]], np.log(np.float64(found[order[kept - 1]])) - np.log(kept_mass)
