"""Scaling laws by hand: optima, parabolas of budgets, the envelope of training curves, intervals and plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.train.scaling.bootstrap_fit import Bootstrapped
from firsthand.train.scaling.compute_frontier import Frontier, envelope_frontier, isoflop_frontier
from firsthand.train.scaling.compute_planner import compute_of, plan_training, predict_loss
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.parametric_fit import Fit
from firsthand.train.scaling.scaling_points import COLUMNS, ScalingPoints, read_points


def test_laws_and_their_optima_are_those_of_the_formulas() -> None:
    law = Chinchilla(1.0, 8.0, 27.0, 1 / 3, 1 / 3)
    assert float(law.loss(np.array(8.0), np.array(27.0))) == pytest.approx(1 + 8 / 2 + 27 / 3)
    uneven = Chinchilla(0.0, 2.0, 3.0, 0.25, 0.75)
    assert (uneven.parameters_exponent, uneven.tokens_exponent) == (0.75, 0.25) and uneven.values() == (
        0,
        2,
        3,
        0.25,
        0.75,
    )
    best = uneven.optimum(6e4)  # g = (.25 x 2) / (.75 x 3)
    assert best.parameters == pytest.approx(0.5 / 2.25 * 1e4**0.75) and best.tokens == pytest.approx(
        1e4 / best.parameters
    )
    assert best.loss == pytest.approx(2 * best.parameters**-0.25 + 3 * best.tokens**-0.75)
    kaplan = Kaplan(10.0, 20.0, 1.0, 1.0)
    assert float(kaplan.loss(np.array(5.0), np.array(10.0))) == 4 and kaplan.values() == (10, 20, 1, 1)
    assert kaplan.optimum(1200) == pytest.approx((10, 20, 2)) and kaplan.parameters_exponent == 0.5
    steep = Kaplan(10.0, 20.0, 1.0, 2.0)
    assert float(steep.loss(np.array(2.5), np.array(10.0))) == pytest.approx((2 + 2) ** 2)
    assert steep.parameters_exponent == pytest.approx(2 / 3)
    for flops in (0.0, -1.0, math.inf, math.nan):
        for each in (law, kaplan):
            with pytest.raises(ConfigError, match="expected a number above 0, such as 1e18"):
                each.optimum(flops)


def points_of(*runs: tuple[float, float, float]) -> ScalingPoints:
    """Runs of (flops, parameters, loss)."""
    flops, sizes, losses = np.array(runs).T
    return ScalingPoints(sizes, flops / (6 * sizes), losses)


def budget(
    flops: float, best: float, floor: float, *sizes: float, curve: float = 1.0
) -> list[tuple[float, float, float]]:
    """Runs of one budget whose losses are a parabola in log size."""
    return [(flops, size, floor + curve * math.log(size / best) ** 2) for size in sizes]


def test_parabolas_of_two_budgets_give_their_vertices_and_the_law_through_them() -> None:
    runs = [*budget(2400, 20, 1.5, 8, 20, 60), *budget(600, 10, 2.0, 5, 10, 40)]
    found = isoflop_frontier(points_of(*runs))
    assert found.flops == pytest.approx((600, 2400))
    for optimum, expected in zip(found.optima, ((10, 10, 2.0), (20, 20, 1.5)), strict=True):
        assert optimum == pytest.approx(expected)
    assert (found.parameters_exponent, found.tokens_exponent) == pytest.approx((0.5, 0.5))
    assert found.coefficient == pytest.approx(10 / 600**0.5)
    beyond = found.optimum(5400)
    assert (beyond.parameters, beyond.tokens) == pytest.approx((30, 30)) and math.isnan(beyond.loss)
    near = [*budget(600, 10, 2, 5), *budget(624, 10, 2, 10), *budget(648, 10, 2, 40), *budget(9600, 20, 1, 8, 20, 60)]
    assert isoflop_frontier(points_of(*near)).flops == pytest.approx(((600 * 624 * 648) ** (1 / 3), 9600))
    with pytest.raises(DataError, match="1 of 4 budgets have a lowest loss between three or more sizes"):
        isoflop_frontier(points_of(*near), tolerance=0.03)
    for other in (
        budget(60, 3, 3, 2, 4),
        budget(60, 3, 3, 2, 3, 4, curve=-1),
        budget(60, 9, 3, 2, 3, 4),
        budget(60, 1, 3, 2, 3, 4),
    ):
        assert isoflop_frontier(points_of(*runs, *other)) == found
        with pytest.raises(DataError, match="1 of 2 budgets"):
            isoflop_frontier(points_of(*runs[:3], *other))


def curve(size: float, loss: Callable[[float], float], *flops: float) -> list[tuple[float, float, float]]:
    """A training curve: the losses of one size at several computes."""
    return [(each, size, loss(math.log(each))) for each in flops]


def test_the_envelope_takes_the_lowest_curve_at_each_compute() -> None:
    first = curve(1.0, lambda x: 20 - x, 6, 600, 60)
    second = curve(2.0, lambda x: 22 - 1.5 * x, 600, 6)  # they cross at e^4, which is 54.6
    found = envelope_frontier(points_of(*first, *second), budgets=5)
    grid = [6 * 100 ** (step / 4) for step in range(5)]
    assert found.flops == pytest.approx(grid)
    assert [each.parameters for each in found.optima] == [1, 1, 2, 2, 2]
    assert [each.tokens for each in found.optima] == pytest.approx(
        [flops / (6 * size) for flops, size in zip(grid, (1, 1, 2, 2, 2), strict=True)]
    )
    assert [each.loss for each in found.optima] == pytest.approx(
        [20 - math.log(flops) if flops < 54 else 22 - 1.5 * math.log(flops) for flops in grid]
    )
    x = np.log(grid)
    slope = ((x - x.mean()) * (np.log([1, 1, 2, 2, 2]) - np.log([1, 1, 2, 2, 2]).mean())).sum() / (
        (x - x.mean()) ** 2
    ).sum()
    assert found.parameters_exponent == pytest.approx(slope) and found.tokens_exponent == pytest.approx(1 - slope)
    early, late = curve(1.0, lambda x: 20 - x, 6, 500), curve(2.0, lambda x: 22 - 1.5 * x, 20, 6000)
    cut = envelope_frontier(points_of(*early, *late), budgets=13)  # one alone is missing its rivals
    assert cut.flops == pytest.approx([6 * 10 ** (step / 4) for step in (3, 4, 5, 6, 7)])
    assert [each.parameters for each in cut.optima] == [1, 2, 2, 2, 2]
    with pytest.raises(DataError, match="fewer than two sizes are the best at any compute"):
        envelope_frontier(points_of(*first, *curve(2.0, lambda x: 21 - x, 6, 600)), budgets=5)


@pytest.mark.parametrize(
    ("spans", "missing"),
    [
        (((1, 1e4), (1, 1e4), (1, 1e4)), 0.0),  # all three everywhere
        (((1, 1e4), (100, 1e4), (1, 1e4)), 0.4),  # the middle one lacks at 1 and 10
        (((1, 1e4), (1, 1e4), (1e3, 1e4)), 0.2),
        (((1, 1e2), (1, 1e4), (1, 1e4)), 0.2),
        (((1, 1e2), (100, 1e4), (10, 1e4)), 0.5),  # of four budgets: at 1 one curve is alone
    ],
)
def test_the_envelope_counts_budgets_at_which_the_next_size_has_no_curve(
    spans: Sequence[tuple[float, float]], missing: float
) -> None:
    # at budgets 1, 10, 100, 1000 and 10,000 the lowest of the three is 0, 0, 1, 1 and 2, where it is there
    losses = [[1, 2, 8, 9, 9], [5, 5, 3, 4, 7], [9, 9, 9, 6, 2]]
    grid = [10.0**power for power in range(5)]
    rows = [
        (flops, 2.0**size, loss) for size, (low, high) in enumerate(spans)
        for flops, loss in zip(grid, losses[size], strict=True) if low <= flops <= high
    ]  # fmt: skip
    found = envelope_frontier(points_of(*rows), budgets=5)
    assert found.missing_rivals == pytest.approx(missing)


def test_an_envelope_of_short_curves_has_no_exponent() -> None:
    law = Chinchilla(1.8, 480.0, 2100.0, 0.35, 0.37)

    def frontier(least: float, most: float) -> Frontier:
        sizes, tokens = map(np.ravel, np.meshgrid(np.geomspace(1e7, 1e10, 9), np.geomspace(least, most, 12)))
        return envelope_frontier(ScalingPoints(sizes, tokens, law.loss(sizes, tokens)))

    whole = frontier(1e8, 1e12)
    assert whole.missing_rivals == 0 and whole.parameters_exponent == pytest.approx(law.parameters_exponent, abs=0.02)
    some = frontier(1e9, 1e11)
    assert 0.3 < some.missing_rivals < 0.45 and some.parameters_exponent == pytest.approx(0.542, abs=0.01)
    with pytest.raises(DataError, match=r"at 8\d% of the budgets the size next to the best has no curve"):
        frontier(2e9, 2e10)


def test_an_interval_is_of_the_draws_and_a_plan_of_its_figures() -> None:
    laws = tuple(Chinchilla(float(e), 1.0, 1.0, 0.5, 0.5) for e in range(21))
    law = Chinchilla(7.0, 1.0, 1.0, 0.5, 0.5)
    fitted = Bootstrapped(Fit(law, 0.0, 1.0, 0.0, 9), laws, 0.9)
    found = fitted.interval(lambda each: each.e)
    assert (found.value, found.low, found.high) == pytest.approx((7, 1, 19))
    some = fitted.interval(lambda each: math.inf if each.e > 10 else each.e)
    assert (some.low, some.high) == pytest.approx((0.5, 9.5))
    assert set(fitted.parameters()) == {"e", "a", "b", "alpha", "beta", "parameters_exponent"}
    assert fitted.parameters()["parameters_exponent"].value == 0.5
    points = points_of((60.0, 1.0, 3.0), (30.0, 2.0, 3.0))
    plan = plan_training(fitted, points, 600.0)
    assert (plan.flops, plan.extrapolates) == (600, 10) and plan.tokens_per_parameter == pytest.approx(1)
    assert (plan.parameters.value, plan.tokens.low, plan.loss.value) == pytest.approx((10, 10, 7 + 2 / 10**0.5))
    assert (plan.loss.low, plan.loss.high) == pytest.approx((1 + 2 / 10**0.5, 19 + 2 / 10**0.5))
    assert predict_loss(fitted, 4.0, 16.0).value == pytest.approx(7 + 0.5 + 0.25)
    for size, tokens in ((0, 1), (1, 0), (-1, 1)):
        with pytest.raises(ConfigError, match="expected numbers above 0"):
            predict_loss(fitted, size, tokens)
    assert (
        compute_of(2, 10, utilisation=0.5) == 36_000
        and compute_of(1, 1) == 3600 * 0.6
        and compute_of(1, 1, utilisation=1)
    )
    for bad in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1.1)):
        with pytest.raises(ConfigError, match="and a utilisation of at most 1"):
            compute_of(bad[0], bad[1], utilisation=bad[2])


def test_of_two_columns_for_one_quantity_the_better_name_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"

    def read(text: str) -> tuple[float, ...]:
        file.write_text(text)
        [row] = np.stack([(found := read_points(file)).parameters, found.tokens, found.loss], 1).tolist()
        return tuple(row)

    for first, second in pairwise(COLUMNS["parameters"]):
        assert read(f"{second},{first},tokens,loss\n1,2,3,4\n") == (2, 3, 4)
        assert read(f"{first},{second},tokens,loss\n1,2,3,4\n") == (1, 3, 4)
    for first, second in pairwise(COLUMNS["tokens"]):
        assert read(f"n,{second.upper()},{first.title()},loss\n1,2,3,4\n") == (1, 3, 4)
    for first, second in pairwise(COLUMNS["flops"]):
        assert read(f"n,{second},{first},loss\n2,12,36,4\n") == (2, 36 / 12, 4)
    assert read("n,final loss,loss, D \n1,2,3,4\n") == (1, 4, 3) == read("n,loss,c,final loss,tokens\n1,3,9,2,4\n")
