"""Scaling laws by hand: fits and their starts, bootstrap draws, frontiers, plans, and each run of a small sweep."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.errors import ConfigError, DataError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.train.scaling import flop_counts
from firsthand.train.scaling.bootstrap_fit import (
    Bootstrapped,
    Range,
    _bootstrapped,
)
from firsthand.train.scaling.compute_frontier import Frontier, envelope_frontier, isoflop_frontier
from firsthand.train.scaling.compute_planner import compute_of, plan_training, predict_loss
from firsthand.train.scaling.flop_counts import matrix_parameters
from firsthand.train.scaling.hidden_markov import HiddenMarkov
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.parametric_fit import Fit, _fit, _minimum, fit_chinchilla, fit_kaplan, huber
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points, write_points
from firsthand.train.scaling.scaling_sweep import SourceTexts, _loss, _seed, run_sweep, sweep_architecture
from firsthand.train.scaling.sweep_config import SweepConfig

LAW = Chinchilla(1.7, 400.0, 900.0, 0.34, 0.28)
KAPLAN = Kaplan(9e12, 5e12, 0.08, 0.1)
SIZES, TOKENS = np.array([1e6, 1e6, 8e6, 8e6, 6e7, 6e7, 5e8]), np.array([3e7, 2e9, 1e8, 5e9, 4e8, 9e9, 7e9])


def points_of(law: Chinchilla | Kaplan) -> ScalingPoints:
    return ScalingPoints(SIZES, TOKENS, law.loss(SIZES, TOKENS))


def test_a_fit_finds_the_law_of_exact_points_from_the_grid_or_from_a_beginning() -> None:
    points = points_of(LAW)
    for found in (
        fit_chinchilla(points, starts=1),
        fit_chinchilla(points, begin=Chinchilla(1.5, 300.0, 700.0, 0.3, 0.3)),
    ):
        assert found.law.values() == pytest.approx(LAW.values(), rel=1e-3)
        assert found.points == 7 and found.objective < 1e-9 and found.max_error < 1e-5 and found.r_squared > 1 - 1e-9
    near = Kaplan(8e12, 6e12, 0.09, 0.12)
    kaplan = fit_kaplan(points_of(KAPLAN), begin=near)
    assert kaplan.law.values() == pytest.approx(KAPLAN.values(), rel=1e-2) and kaplan.points == 7
    for fit, least in ((fit_chinchilla, 5), (fit_kaplan, 4)):
        few = points.take(np.arange(least - 1))
        with pytest.raises(DataError) as refused:
            fit(few)
        assert str(refused.value) == (
            f"{least - 1} points came: the law has {least} parameters, so give more points, a dozen or so"
        )
        for rows, text in (
            ([0, 1, 0, 1, 0], "all points have 1e+06 parameters"),
            ([6, 6, 6, 6, 6], "all points have 5e+08 pa"),
        ):
            with pytest.raises(DataError, match=text.replace("+", r"\+")):
                fit(points.take(np.array(rows)))


def test_a_published_fit_minimises_the_mean_with_loose_ends_and_so_stops_early() -> None:
    points = points_of(LAW)
    begin = Chinchilla(1.5, 300.0, 700.0, 0.3, 0.3)
    loose, tight = fit_chinchilla(points, begin=begin, as_published=True), fit_chinchilla(points, begin=begin)
    assert loose.objective > tight.objective and loose.law.alpha != pytest.approx(0.34, rel=1e-3)
    wide = fit_chinchilla(points, begin=begin, delta=10.0)
    assert wide.law.values() == pytest.approx(LAW.values(), rel=1e-2)


@pytest.mark.parametrize(("fit", "law"), [(fit_chinchilla, LAW), (fit_kaplan, KAPLAN)])
def test_a_fit_minimises_the_huber_loss_of_its_own_threshold(fit: Any, law: Any) -> None:
    """One point is off: with a small threshold it moves nothing, with a large one it counts as in least squares."""
    exact = points_of(law)
    points = ScalingPoints(SIZES, TOKENS, exact.loss * np.array([1, 1, 1, 1.2, 1, 1, 1]))
    found = {delta: fit(points, begin=law, delta=delta) for delta in (1e-3, 1.0)}
    residuals = {delta: np.log(each.law.loss(SIZES, TOKENS)) - np.log(points.loss) for delta, each in found.items()}
    for delta, other in ((1e-3, 1.0), (1.0, 1e-3)):
        objective = float(huber(residuals[delta][None], delta)[0])
        assert found[delta].objective == pytest.approx(objective, rel=1e-9)
        assert objective < 0.99 * float(huber(residuals[other][None], delta)[0])
    assert fit(points, begin=law).law == found[1e-3].law
    for delta in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match=rf"^delta is {delta}: expected a number above 0$"):
            fit(points, begin=law, delta=delta)


def test_a_fit_tells_its_huber_loss_and_errors() -> None:
    law, points = Chinchilla(1.0, 2.0, 3.0, 1.0, 1.0), ScalingPoints([1.0, 2.0], [1.0, 4.0], [5.0, 3.0])
    residuals = [math.log(6 / 5), math.log(2.75 / 3)]
    mean = (math.log(5) + math.log(3)) / 2
    spread = (math.log(5) - mean) ** 2 + (math.log(3) - mean) ** 2
    found = _fit(law, points, 0.1)
    assert (found.law, found.points) == (law, 2)
    assert found.objective == pytest.approx(0.1 * (residuals[0] - 0.05) + 0.5 * residuals[1] ** 2)
    assert found.r_squared == pytest.approx(1 - sum(each**2 for each in residuals) / spread)
    assert found.max_error == pytest.approx(0.2)
    assert math.isnan(_fit(law, ScalingPoints([1.0, 2.0], [1.0, 4.0], [3.0, 3.0]), 0.1).r_squared)
    assert huber(np.array([[0.5, -3.0], [1.0, -1.0]]), 1.0).tolist() == [0.125 + 2.5, 1.0]


def test_the_best_of_the_starts_that_were_chosen_is_the_minimum() -> None:
    seen: list[int] = []

    def residuals(x_SK: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Two valleys: a deep one at (3, 5), and one that keeps a residual of 0.5 at x < 0."""
        seen.append(len(x_SK))
        penalty = np.where(x_SK[:, [0]] < 0, 0.5, 0.0)
        first, second = np.abs(x_SK[:, [0]]) - 3, x_SK[:, [1]] - 5
        sign, one, none = np.sign(x_SK[:, [0]]), np.ones((len(x_SK), 1)), np.zeros((len(x_SK), 1))
        return np.hstack([first, second, penalty]), (np.hstack([sign, none, none]), np.hstack([none, one, none]))

    grid = np.array([[-3.1, 5.0], [9.0, 9.0], [-2.0, 4.0]])
    assert _minimum(residuals, grid, 1.0, 1, 1e-12).tolist() == pytest.approx([-3, 5], abs=1e-5), "the best start alone"
    assert sum(seen[:16]) == 3
    assert _minimum(residuals, grid, 1.0, None, 1e-12).tolist() == pytest.approx([3, 5], abs=1e-5)
    assert _minimum(residuals, grid, 1.0, 3, None).tolist() == pytest.approx([3, 5], abs=1e-2)

    def line(x_SK: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Four points whose residuals are 0.5 or more at first and rise by `steep` a unit."""
        slopes = np.full((len(x_SK), 4), steep)
        return steep * x_SK[:, [0]] + np.array([0.5, 0.5, 0.75, 1.0]), (slopes,)

    for steep, stays in ((0.009, True), (0.011, False)):  # L-BFGS stops at a gradient below 1e-5; it is 1e-3 * steep
        assert (_minimum(line, np.zeros((1, 1)), 1e-3, 1, None).tolist() == [0.0]) == stays, "the mean's, not the sum's"
        (found,) = _minimum(line, np.zeros((1, 1)), 1e-3, 1, 1e-12).tolist()
        assert -0.75 / steep - 1 <= found <= -0.5 / steep + 1, "between the medians"
    for delta in (0.0, -1.0):
        with pytest.raises(ConfigError) as refused:
            _minimum(residuals, grid, delta, None, None)
        assert str(refused.value) == f"delta is {delta}: expected a number above 0"


def test_draws_are_of_as_many_points_with_replacement_and_none_of_one_size_alone() -> None:
    points = ScalingPoints([1.0, 2.0, 2.0], [5.0, 5.0, 7.0], [3.0, 4.0, 6.0])
    whole = Fit(Kaplan(1.0, 2.0, 3.0, 4.0), 0.0, 1.0, 0.0, 3)
    begun = []

    def refit(drawn: ScalingPoints, begin: Kaplan) -> Fit[Kaplan]:
        begun.append(begin)
        return Fit(Kaplan(float(drawn.loss.sum()), float(len(drawn)), 3.0, 4.0), 0.0, 1.0, 0.0, len(drawn))

    found = _bootstrapped(points, lambda: whole, refit, 20, 0.5, 6)
    rng, expected = np.random.default_rng(6), []
    while len(expected) < 20:
        rows = rng.integers(3, size=3)
        if np.ptp(points.parameters[rows]) and np.ptp(points.tokens[rows]):
            expected.append(float(points.loss[rows].sum()))
    assert [each.nc for each in found.draws] == expected and {each.dc for each in found.draws} == {3.0}
    assert (found.fit, found.confidence, set(begun)) == (whole, 0.5, {whole.law})
    assert found.interval(lambda law: law.nc) == Range(1.0, *map(float, np.quantile(expected, (0.25, 0.75))))
    for resamples, confidence, text in (
        (19, 0.9, "resamples is 19: percentiles need 20 or more, better 200"),
        (20, 0.49, "confidence is 0.49: expected 0.5 or more and below 1"),
        (20, 1.0, "confidence is 1.0: expected 0.5 or more and below 1"),
    ):
        with pytest.raises(ConfigError) as refused:
            _bootstrapped(points, lambda: whole, refit, resamples, confidence, 6)
        assert str(refused.value) == text


def test_intervals_pass_over_draws_that_have_no_such_figure() -> None:
    laws = tuple(Chinchilla(float(e), 2.0, 3.0, 0.25, 0.75) for e in (1, 2, 3, 4, 5))
    found = Bootstrapped(Fit(Chinchilla(2.5, 2.0, 3.0, 0.25, 0.75), 0.0, 1.0, 0.0, 9), laws, 0.5)
    assert found.interval(lambda law: math.nan if law.e == 5 else law.e) == Range(2.5, 1.75, 3.25)
    told = found.parameters()
    assert list(told) == ["e", "a", "b", "alpha", "beta", "parameters_exponent"]
    assert told["e"] == Range(2.5, 2.0, 4.0) and told["parameters_exponent"] == Range(0.75, 0.75, 0.75)
    points = ScalingPoints([1e3, 2e3], [1e4, 5e4], [3.0, 4.0])
    plan, best = plan_training(found, points, 1.2e9), found.fit.law.optimum(1.2e9)
    assert (plan.flops, plan.extrapolates) == (1.2e9, pytest.approx(1.2e9 / (6 * 2e3 * 5e4)))
    assert plan.parameters == Range(best.parameters, *[pytest.approx(best.parameters)] * 2)
    assert plan.tokens.value == pytest.approx(1.2e9 / 6 / best.parameters) and plan.loss.value == best.loss
    assert plan.loss.high - plan.loss.low == pytest.approx(2.0)
    assert plan.tokens_per_parameter == pytest.approx(best.tokens / best.parameters)
    predicted = predict_loss(found, 16.0, 81.0)
    base = 2 * 16**-0.25 + 3 * 81**-0.75
    assert predicted == Range(*(pytest.approx(each + base) for each in (2.5, 2.0, 4.0)))
    for given in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="expected numbers above 0"):
            predict_loss(found, *given)
    assert compute_of(2.0, 5.0, utilisation=0.25) == 2 * 3600 * 5 * 0.25 and compute_of(1.0, 1.0) == 3600 * 0.6
    assert compute_of(1.0, 1.0, utilisation=1.0) == 3600
    for hours, speed, share in ((0.0, 1.0, 0.5), (1.0, 0.0, 0.5), (1.0, 1.0, 0.0), (1.0, 1.0, 1.01)):
        with pytest.raises(ConfigError) as refused:
            compute_of(hours, speed, utilisation=share)
        assert str(refused.value) == (
            f"hours is {hours:g}, the speed {speed:g} FLOP/s and utilisation {share:g}: expected numbers above 0, and a "
            "utilisation of at most 1"
        )


def at_budget(
    flops: float, sizes: list[float], vertex: float, floor: float, curve: float
) -> list[tuple[float, float, float]]:
    return [(n, flops / (6 * n), floor + curve * (math.log(n) - math.log(vertex)) ** 2) for n in sizes]


def test_isoflop_budgets_count_with_three_sizes_and_a_lowest_loss_between_them() -> None:
    rows = [
        *at_budget(6e12, [1e3, 3e3, 2e4, 9e4], 5e3, 3.0, 0.2), *at_budget(6e14, [2e4, 9e4, 4e5], 6e4, 2.5, 0.1),
        *at_budget(6e16, [1e5, 9e5], 3e5, 2.0, 0.1),  # two sizes
        *at_budget(6e17, [1e5, 2e5, 3e5], 9e5, 2.0, 0.1),  # the best is larger
        *at_budget(6e18, [1e5, 2e5, 4e5], 2e5, 2.0, -0.1),  # upside down
    ]  # fmt: skip
    points = ScalingPoints(*np.array(rows[::-1]).T)
    found = isoflop_frontier(points)
    assert found.flops == pytest.approx((6e12, 6e14))
    assert [each.parameters for each in found.optima] == pytest.approx([5e3, 6e4], rel=1e-6)
    assert [each.tokens for each in found.optima] == pytest.approx([1e12 / 5e3, 1e14 / 6e4], rel=1e-6)
    assert [each.loss for each in found.optima] == pytest.approx([3.0, 2.5])
    a = math.log(12) / math.log(100)
    assert found.parameters_exponent == pytest.approx(a) and found.tokens_exponent == pytest.approx(1 - a)
    assert found.coefficient == pytest.approx(5e3 / 6e12**a, rel=1e-6)
    best = found.optimum(6e13)
    assert best.parameters == pytest.approx(5e3 * 10**a) and best.tokens == pytest.approx(1e13 / best.parameters)
    assert math.isnan(best.loss)
    with pytest.raises(DataError) as refused:
        isoflop_frontier(ScalingPoints(*np.array(rows[:4] + rows[7:]).T))
    assert str(refused.value).startswith(
        "1 of 4 budgets have a lowest loss between three or more sizes: train sizes on both sides of the best one"
    )
    twice = at_budget(6e16, [1e5, 9e5, 9e5], 2e5, 2.0, 0.1)
    spread = [(n, tokens, loss + more) for (n, tokens, loss), more in zip(twice, (0.0, 0.1, -0.1), strict=True)]
    for again in (twice, spread, [*spread, spread[0]]):
        with pytest.raises(DataError, match="1 of 2 budgets"):
            isoflop_frontier(ScalingPoints(*np.array([*rows[:4], *again]).T))
    drifting = [(n, tokens * 1.04**at, loss) for at, (n, tokens, loss) in enumerate(rows[:3] + rows[4:7])]
    assert len(isoflop_frontier(ScalingPoints(*np.array(drifting).T)).flops) == 2
    with pytest.raises(DataError, match="0 of 6 budgets"):
        isoflop_frontier(ScalingPoints(*np.array(drifting).T), tolerance=0.03)


def test_the_envelope_takes_the_lowest_curve_where_it_has_rivals() -> None:
    curves = {10.0: ([1.0, 16.0, 256.0], [5.0, 3.0, 2.9]), 40.0: ([4.0, 64.0, 1024.0], [6.0, 2.5, 1.0])}
    rows = [
        (n, c / (6 * n), loss) for n, (flops, losses) in curves.items() for c, loss in zip(flops, losses, strict=True)
    ]
    found = envelope_frontier(ScalingPoints(*np.array(rows[::-1]).T), budgets=11)  # 1, 2, 4, ... 1024
    expected = []
    for power in range(2, 9):  # both curves are there from 4 to 256
        losses = {n: float(np.interp(power, np.log2(flops), values)) for n, (flops, values) in curves.items()}
        best = min(losses, key=lambda n: losses[n])
        expected.append((2.0**power, best, 2.0**power / (6 * best), losses[best]))
    assert found.flops == pytest.approx([each[0] for each in expected])
    assert [tuple(each) for each in found.optima] == [pytest.approx(each[1:]) for each in expected]
    assert {each[1] for each in expected} == {10.0, 40.0}
    slope, offset = np.polyfit(np.log([e[0] for e in expected]), np.log([e[1] for e in expected]), 1)
    assert (found.parameters_exponent, found.coefficient) == pytest.approx((slope, math.exp(offset)))
    assert found.tokens_exponent == pytest.approx(1 - slope) and isinstance(found, Frontier)
    with pytest.raises(DataError) as refused:
        envelope_frontier(ScalingPoints(*np.array(rows[:3]).T))
    assert str(refused.value) == (
        "fewer than two sizes are the best at any compute: give curves of several sizes that cross"
    )


def test_points_are_read_with_a_mark_at_the_beginning_and_written_with_ten_digits(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_bytes("\ufeffParams,FLOPs,Loss\n10,600,3.5\n".encode())
    points = read_points(path)
    assert (points.parameters.tolist(), points.tokens.tolist(), points.loss.tolist()) == ([10], [10], [3.5])
    write_points(ScalingPoints([1 / 3], [2e10], [1.25]), path)
    assert path.read_bytes() == b"parameters,tokens,flops,loss\r\n0.3333333333,2e+10,4e+10,1.25\r\n"


SOURCE = HiddenMarkov(np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))


def test_an_entropy_rate_leaves_out_the_beginnings_and_tells_its_error() -> None:
    found = SOURCE.entropy_rate(tokens=50, texts=4, burn_in=3, seed=2)
    nats = -SOURCE.logprobs(SOURCE.sample(4, 3 + 13, seed=2))[:, 3:].mean(1)
    assert found == pytest.approx((nats.mean(), nats.std(ddof=1) / 2))


def test_after_a_token_that_the_source_never_gives_no_text_has_any_probability() -> None:
    source = HiddenMarkov(np.full((2, 2), 0.5), np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]))
    found = source.logprobs(np.array([[0, 2, 0], [0, 1, 0]]))
    assert found.tolist()[0] == [pytest.approx(np.log(0.375)), -np.inf, -np.inf]
    assert found.tolist()[1] == pytest.approx(np.log([0.375, 0.625, 0.375]))


def test_texts_of_the_source_depend_on_the_seed_and_the_step_alone() -> None:
    config = SweepConfig(texts=2, context=3, tokens=(30, 60))
    batches = SourceTexts(SOURCE, config, 5, 1)
    found = iter(batches)
    for step in (1, 2):
        rows = next(found)
        assert [each.ids.tolist() for each in rows] == SOURCE.sample(2, 3, seed=_seed(5, step)).tolist()
        assert all(each.ce is not None and each.ce.tolist() == [0, 1, 1] for each in rows)
    assert batches.state() == {"step": 3} and _seed(5, 0) == np.random.SeedSequence([5, 1]).generate_state(1)[0]
    batches.load({"step": 1})
    assert next(iter(batches))[0].ids.tolist() == SOURCE.sample(2, 3, seed=_seed(5, 1))[0].tolist()


@pytest.mark.slow
def test_a_sweep_trains_each_length_to_the_end_of_a_schedule_of_its_own() -> None:
    config = SweepConfig(
        widths=(16, 8), tokens=(60, 30), layers=1, context=3, texts=2, eval_texts=3, learning_rate=0.01, seed=4
    )
    told: list[tuple[int, int, float]] = []
    found = run_sweep(SOURCE, config, told=lambda *row: told.append(row))
    held_out = SOURCE.sample(3, 3, seed=_seed(4, -1))
    assert found.floor == pytest.approx(-SOURCE.logprobs(held_out)[:, 1:].mean())
    sizes = [matrix_parameters(sweep_architecture(width, config, 3)) for width in (16, 8)]
    assert [row[:2] for row in told] == [(sizes[0], 30), (sizes[0], 60), (sizes[1], 30), (sizes[1], 60)]
    assert found.points.loss.tolist() == [row[2] for row in told] and found.points.tokens.tolist() == [30, 60, 30, 60]
    assert found.points.parameters.tolist() == [sizes[0], sizes[0], sizes[1], sizes[1]]

    def losses(decoder: Decoder, ids: np.ndarray) -> torch.Tensor:
        rows = []
        for text in torch.from_numpy(ids):
            logits = decoder.logits(decoder(text, torch.arange(len(text)), Packed([len(text)])))
            rows.append(-logits[:-1].log_softmax(-1).gather(1, text[1:, None])[:, 0])
        return torch.stack(rows)

    for steps, row in ((5, told[0]), (10, told[1])):
        decoder = initialise(Decoder(sweep_architecture(16, config, 3)), seed=4)
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
        stable = steps - round(0.2 * steps)
        for step in range(1, steps + 1):
            falling = 1.0 if step <= stable else (steps - step + 1) / (steps - stable + 1)
            optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, step / 20) * falling
            optimizer.zero_grad()
            losses(decoder, SOURCE.sample(2, 3, seed=_seed(4, step - 1))).mean().backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
        expected = float(losses(decoder, held_out).mean().detach())
        assert row[2] == pytest.approx(expected, abs=2e-5) and _loss(decoder, held_out) == pytest.approx(
            expected, abs=1e-6
        )


def test_the_speed_of_a_machine_is_its_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 2.0, 2.0, 2.25, 4.0, 5.0])  # the beginning, and both ends of three products
    monkeypatch.setattr(flop_counts, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert flop_counts.measured_flops_per_second(size=3, seconds=5.0) == 4 * 54, "54 operations in a quarter second"
    ticks = iter([1.0, 1.0, 1.5])
    assert flop_counts.measured_flops_per_second(size=2, seconds=0.0) == 32, "one product at least"


def test_points_are_as_many_parameters_tokens_and_losses_in_one_row_above_0() -> None:
    for arrays in ([np.ones((2, 2))] * 3, [np.array(1.0)] * 3, [[1.0], [1.0, 2.0], [1.0]], [[1.0, 2.0]] * 2 + [[1.0]]):
        shapes = [np.shape(each) for each in arrays]
        with pytest.raises(DataError) as refused:
            ScalingPoints(*arrays)
        assert str(refused.value) == f"points of shapes {shapes} came: give one number of each for each run"
    for wrong in (0.0, -1.0, math.nan, math.inf):
        for at in range(3):
            arrays = [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
            arrays[at][1] = wrong
            with pytest.raises(DataError) as refused:
                ScalingPoints(*arrays)
            assert str(refused.value) == (
                "a point has a parameter count, tokens or a loss that is not a number above 0: leave it out"
            )
    points = ScalingPoints([1, 2], [3, 4], [5, 6])
    assert len(points) == 2 and points.loss.dtype == np.float64 and points.flops.tolist() == [18, 48]
    assert len(ScalingPoints([], [], [])) == 0
