"""Scores of optimising a proxy with a known true reward: the Goodhart gap at every n of best-of-n, and mitigations.

All expectations over best-of-k of N recorded candidates are exact order statistics: the best of k draws without replacement
is the i-th of N in rising order with probability C(i-1, k-1) / C(N, k).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class BestOf(NamedTuple):
    """Expected rewards of the best of `k` candidates by the proxy."""

    k: int
    kl: float
    """log k - (k-1)/k, in nats."""
    proxy: float
    true: float
    held_out: float


def expected_best(order_by: Sequence[float], values: Sequence[float], k: int) -> float:
    """Return the expected value of the candidate that is the best of `k` by `order_by`; ties are drawn from evenly."""
    total = len(order_by)
    assert 1 <= k <= total, f"best of {k} of {total}"
    places = sorted(range(total), key=lambda at: order_by[at])
    expected, begin = 0.0, 0
    while begin < total:
        end = begin
        while end < total and order_by[places[end]] == order_by[places[begin]]:
            end += 1
        chance = sum(math.comb(rank, k - 1) for rank in range(begin, end)) / math.comb(total, k)
        expected += chance * sum(values[places[at]] for at in range(begin, end)) / (end - begin)
        begin = end
    return expected


def best_of_curve(proxies: Sequence[float], truths: Sequence[float], held_out: Sequence[float]) -> list[BestOf]:
    """Return the curve at k = 1, 2, 4, ... and N."""
    total = len(proxies)
    ks = sorted({2**power for power in range(total.bit_length()) if 2**power <= total} | {total})
    return [
        BestOf(
            k,
            math.log(k) - (k - 1) / k,
            *(expected_best(proxies, values, k) for values in (proxies, truths, held_out)),
        )
        for k in ks
    ]
