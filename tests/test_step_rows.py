"""Operations on a row of a compiled step against their formulas, and the counters by which threads share its work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
from firsthand.kernels.step import phases, row_ops, thread_team
from firsthand.kernels.step.thread_team import counters
from interpreted_ir import FUNCTIONS
from interpreted_kernels import Interpreter

RUN = Interpreter()


def normal(seed: int, size: int) -> Any:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def rms(x: Any, weights: Any, eps: float) -> Any:
    return x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + eps) * weights


def test_operations_on_rows_are_their_formulas() -> None:
    values, weights = normal(1, 60), normal(2, 60)
    x = values[5:37].astype(np.float64)
    assert RUN(row_ops.inverse_rms)(values, 5, 32, np.float32(0.5)) == pytest.approx(
        1 / math.sqrt((x**2).mean() + 0.5), rel=1e-6
    )
    out = np.full(50, 7, np.float32)
    RUN(row_ops.normalise)(values, 5, 32, weights, 9, np.float32(0.5), out, 3)
    np.testing.assert_allclose(out[3:35], rms(x, weights[9:41], 0.5), rtol=1e-5)
    assert (out[:3] == 7).all() and (out[35:] == 7).all()
    added = values.copy()
    RUN(row_ops.add_row)(added, 5, 32, weights, 9)
    expected = values.copy()
    expected[5:37] += weights[9:41]
    np.testing.assert_array_equal(added, expected)

    gates = np.zeros(40, np.float32)
    gates[4:36] = np.linspace(-9, 9, 32)
    gates[4:36:5] = 0
    x, ups = gates[4:36].astype(np.float64), weights[7:39]
    for activation, share in (
        (row_ops.SILU, x),
        (row_ops.GELU_TANH, 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    ):
        mixed = gates.copy()
        RUN(row_ops.gate_row)(mixed, 4, 32, weights, 7, activation)
        np.testing.assert_allclose(mixed[4:36], x / (1 + np.exp(-share)) * ups, rtol=2e-5, atol=1e-7)
        np.testing.assert_array_equal(mixed[[*range(4), *range(36, 40)]], gates[[*range(4), *range(36, 40)]])


def test_the_highest_and_the_mass_of_a_row_count_its_own_values_alone() -> None:
    values = np.full(3000, 90, np.float32)
    values[7:2114] = np.random.default_rng(1).normal(size=2107) - 50
    for place in (7, 1030, 2113):
        values[place] += 20
        row = values[7:2114]
        top = RUN(row_ops.highest)(values, 7, 2107)
        assert top == row.max()
        expected = np.exp((row.astype(np.float64) - row.max()) * 0.5).sum()
        assert RUN(row_ops.mass)(values, 7, 2107, top, np.float32(0.5)) == pytest.approx(expected, rel=1e-6)
    values[7:23] = -1e9
    assert RUN(row_ops.highest)(values, 7, 16) == -1e9
    assert [RUN(row_ops.highest)(values, 2112, width) for width in (1, 2)] == [values[2112], values[2112:2114].max()]
    assert RUN(row_ops.mass)(values, 7, 5, np.float32(-1e9), np.float32(1)) == 5


def test_a_row_of_logits_is_capped_rated_and_its_first_best_token_found() -> None:
    logits = np.full(40, 99, np.float32)
    logits[3:22] = np.linspace(-4, 3, 19)
    logits[[9, 15]] = 6
    before = logits[3:22].astype(np.float64)
    best, normaliser = RUN(phases.rate_row)(logits, 3, 19, np.float32(0))
    assert (best, normaliser) == (6, pytest.approx(math.log(np.exp(before).sum()), abs=1e-5))
    assert logits[3:22].tolist() == before.tolist()
    best, normaliser = RUN(phases.rate_row)(logits, 3, 19, np.float32(2))
    capped = 2 * np.tanh(before / 2)
    np.testing.assert_allclose(logits[3:22], capped, rtol=1e-6)
    assert (best, normaliser) == (6, pytest.approx(math.log(np.exp(capped).sum()), abs=1e-5))
    assert (logits[:3] == 99).all() and (logits[22:] == 99).all()
    for cap in (0.5, 1.0):
        small = np.array([1.5, -2, 0.25], np.float32)
        RUN(phases.rate_row)(small, 0, 3, np.float32(cap))
        np.testing.assert_allclose(small, cap * np.tanh(np.array([1.5, -2, 0.25]) / cap), rtol=1e-6)
    logits[21] = 50
    assert RUN(phases.rate_row)(logits, 3, 19, np.float32(0))[0] == 18
    strange = np.full(19, np.nan, np.float32)
    best, normaliser = RUN(phases.rate_row)(strange, 0, 19, np.float32(0))
    assert best in range(19) and math.isnan(normaliser)


def test_threads_take_every_item_once_and_wait_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    team = counters(3)
    assert len(team) == 48 and not team.any()
    assert [RUN(thread_team.take)(team, 1) for _ in range(3)] == [0, 1, 2]
    RUN(thread_team.done)(team, 1)
    RUN(thread_team.done)(team, 1)
    assert np.flatnonzero(team).tolist() == [16, 24] and team[[16, 24]].tolist() == [3, 2]
    RUN(thread_team.wait)(team, 1, 2)
    yielded: list[int] = []

    def offer_core() -> None:
        yielded.append(1)
        if len(yielded) == 2:
            team[24] = 5

    looks = Interpreter(offer_core=offer_core, SPINS=3)
    looks(thread_team.wait)(team, 1, 5)
    assert len(yielded) == 2
    seen: list[int] = []

    def look(counters: Any, at: int) -> int:
        assert counters is team and at == 24
        seen.append(1)
        return 4 + (len(seen) > 5)

    yielded.clear()
    Interpreter(look=look, offer_core=lambda: yielded.append(len(seen)), SPINS=3)(thread_team.wait)(team, 1, 5)
    assert yielded == [4, 5] and len(seen) == 6  # after three looks in vain
    yielded[:] = [1, 1]
    monkeypatch.setitem(FUNCTIONS, "sched_yield", lambda: yielded.append(2))
    RUN.intrinsic(thread_team.offer_core)
    assert yielded == [1, 1, 2]
    called: list[int] = []
    thread_team.together(1, lambda: called.append(1))
    assert called == [1]
    thread_team.together(3, lambda: called.append(2))
    thread_team._executor(2).submit(int).result()  # after those before it
    thread_team._executor(2).shutdown()
    thread_team._executor.cache_clear()
    assert called == [1, 2, 2, 2]
    assert (thread_team.LINE, thread_team.SPINS) == (8, 1000)  # a line of 64 bytes
