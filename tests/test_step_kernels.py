"""Parts of the compiled step in plain Python, as they are written: choosing experts, sharing rows, turning heads."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
from firsthand.kernels.step import expert_phases, expert_tables
from firsthand.kernels.step.expert_tables import CHOSEN, HAS_COMMON, IS_GATED, ROUTED
from firsthand.kernels.step.phases import rows_per_item
from firsthand.kernels.step.row_ops import gate_row_exactly, rotate_head
from firsthand.kernels.step.step_tables import TILES


def chosen(logits: list[float], count: int, *, common: int = 0, gated: int = 0, **settings: Any) -> list[Any]:
    """The experts of the second of two rows, and their weights."""
    layer = np.zeros(16, dtype=np.int64)
    layer[ROUTED], layer[CHOSEN], layer[HAS_COMMON], layer[IS_GATED] = len(logits) - gated, count, common, gated
    experts = SimpleNamespace(**{"stride": 6, "rows_of_token": 4, "renormalise": True, "scale": 1.0, **settings})
    padded = [9.0] * 6 + logits + [99.0] * (6 - len(logits))
    memory = SimpleNamespace(
        logits=np.array(padded, dtype=np.float32),
        chosen=np.full(8, -1, dtype=np.int64),
        shares=np.full(8, -1, dtype=np.float32),
    )
    expert_phases._choose.py_func(layer, experts, memory, 1)
    assert memory.chosen[:4].tolist() == memory.shares[:4].tolist() == [-1] * 4
    assert memory.chosen[4 + count + common :].tolist() == [-1] * (4 - count - common)
    used = slice(4, 4 + count + common)
    return [memory.chosen[used].tolist(), memory.shares[used].tolist()]


def test_the_experts_of_a_row_are_the_best_first_and_weighed_as_the_settings_say() -> None:
    logits = [0.5, 2.0, -1.0, 2.0]
    e = [math.exp(each) for each in logits]
    ids, shares = chosen(logits, 2)
    assert ids == [1, 3]  # the first of two equal ones
    assert shares == pytest.approx([0.5, 0.5])
    ids, shares = chosen(logits, 3, scale=2.5)
    assert ids == [1, 3, 0]
    assert shares == pytest.approx([2.5 * each / (e[1] + e[3] + e[0]) for each in (e[1], e[3], e[0])])
    ids, shares = chosen(logits, 3, renormalise=False, scale=2.5)
    assert shares == pytest.approx([2.5 * each / sum(e) for each in (e[1], e[3], e[0])])
    ids, shares = chosen(logits, 1, common=1)
    assert (ids, shares) == ([1, 4], pytest.approx([1.0, 1.0]))
    ids, shares = chosen([*logits, 0.75], 2, common=1, gated=1, scale=3.0)
    assert (ids, shares) == ([1, 3, 4], pytest.approx([1.5, 1.5, 1 / (1 + math.exp(-0.75))]))
    ids, shares = chosen([math.nan] * 3, 1)
    assert ids == [0]
    assert math.isnan(shares[0])
    large = chosen([1000.0, 999.0], 2)
    assert large[1] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


def test_rows_and_pairs_of_tiles_are_shared_out() -> None:
    counts = [
        rows_per_item.py_func(rows, threads)
        for rows, threads in ((0, 1), (1, 1), (3, 1), (4, 1), (12, 2), (31, 1), (32, 1), (33, 1), (95, 3), (900, 3))
    ]
    assert counts == [1, 1, 1, 2, 3, 15, 16, 16, 15, 16]
    entry = np.zeros((4, 5), dtype=np.int64)
    entry[:, TILES] = [1, 2, 5, 8]
    pairs = [expert_phases._pairs.py_func(entry, first, last) for first, last in ((0, 1), (0, 4), (1, 3), (2, 2))]
    assert pairs == [1, 9, 4, 0]
    assert len({ROUTED, CHOSEN, HAS_COMMON, IS_GATED, expert_tables.FIRST}) == 5


def test_a_head_is_turned_by_its_angles_and_a_gate_is_the_exact_gelu() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=12).astype(np.float32)
    angles = np.array([9.0, 0.3, -1.2, 2.0], dtype=np.float32)
    before = values.copy()
    rotate_head.py_func(values, 2, 6, np.cos(angles), np.sin(angles), 1)
    pairs = before[2:5] + 1j * before[5:8]
    turned = pairs * np.exp(1j * angles[1:])
    np.testing.assert_allclose(values[2:8], [*turned.real, *turned.imag], rtol=1e-5, atol=1e-6)
    assert values[:2].tolist() + values[8:].tolist() == before[:2].tolist() + before[8:].tolist()
    gates, ups = before.copy(), rng.normal(size=9).astype(np.float32)
    gate_row_exactly.py_func(gates, 3, 5, ups, 2)
    expected = [x / 2 * (1 + math.erf(x / math.sqrt(2))) * up for x, up in zip(before[3:8], ups[2:7], strict=True)]
    np.testing.assert_allclose(gates[3:8], expected, rtol=1e-5, atol=1e-7)
    assert gates[:3].tolist() + gates[8:].tolist() == before[:3].tolist() + before[8:].tolist()
