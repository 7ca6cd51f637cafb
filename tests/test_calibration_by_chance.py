"""A calibration error is above 0 by chance: a calibrated agent's interval reaches 0, an overconfident one's does not."""

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.stats.corpus_formulas import CHANCE_DRAWS, calibrated_bins, calibrated_rms, rms_calibration_error
from firsthand.stats.figure_stats import figure_interval
from firsthand.stats.figures import calibration, figures
from firsthand.trace import Score, Trace


def attempts(confidences: np.ndarray, right: np.ndarray, kind: str) -> list[Trace]:
    def score(sure: float, is_right: bool) -> Score:
        return (
            calibration("sure", sure, is_right)
            if kind == "ece"
            else Score("sure", float(is_right), {"confidence": sure})
        )

    return [
        Trace("i", "b", f"{n:03d}", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.0, scores=(score(float(s), bool(r)),))
        for n, (s, r) in enumerate(zip(confidences, right, strict=True))
    ]


def figure(confidences: np.ndarray, right: np.ndarray, kind: str) -> Figure:
    name = "sure" if kind == "ece" else "rms_calibration_error"
    return figures({"a": attempts(confidences, right, kind)})[name]["a"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ece", "rms"])
def test_calibrated_agents_reach_0_and_overconfident_ones_do_not(kind: str) -> None:
    rng = np.random.default_rng(3)
    reached = overconfident = 0
    for _ in range(8):
        sure = rng.uniform(0.3, 1, 100)
        found = figure_interval(figure(sure, rng.random(100) < sure, kind))
        reached += found.low == 0.0 and found.value > 0
        overconfident += figure_interval(figure(sure, rng.random(100) < sure - 0.25, kind)).low == 0.0
    assert reached >= 7 and overconfident == 0


def test_what_chance_makes_is_what_a_calibrated_agent_scores() -> None:
    rng = np.random.default_rng(5)
    sure = rng.uniform(0, 1, 250)
    drawn = calibrated_rms(sure.tolist())
    again = [rms_calibration_error(sure.tolist(), (rng.random(250) < sure).astype(float).tolist()) for _ in range(400)]
    assert len(drawn) == CHANCE_DRAWS and np.mean(drawn) == pytest.approx(np.mean(again), rel=0.1)
    assert np.quantile(drawn, 0.95) == pytest.approx(np.quantile(again, 0.95), rel=0.15)
    assert calibrated_rms([0.0, 1.0, 1.0]).max() == 0.0, "who is certain and calibrated is never wrong"


def test_the_bins_of_a_task_with_several_attempts_are_drawn_together() -> None:
    parts = np.zeros((1, 30))
    parts[0, 15:18] = [4, 2.0, 4]  # four attempts in one bin, each half sure
    drawn = calibrated_bins(parts)
    assert set(np.round(drawn, 6)) == {0.0, 0.25, 0.5} and np.mean(drawn == 0.5) == pytest.approx(2 / 16, abs=0.05)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_an_error_up_to_the_upper_quantile_of_chance_has_an_interval_from_0(confidence: float) -> None:
    def low(share: float, **more: object) -> float:
        by_chance = np.arange(1001) / 1000 * 0.5 / share  # the figure, 0.5, is at this share of what chance makes
        made = Figure(
            "e", tuple("abcdefgh"), lambda counts: 0.5 + (counts[:, 0] - 1) / 50, by_chance=lambda: by_chance, **more
        )
        return figure_interval(made, confidence=confidence).low

    upper = (1 + confidence) / 2
    plain = figure_interval(
        Figure("e", tuple("abcdefgh"), lambda counts: 0.5 + (counts[:, 0] - 1) / 50), None, confidence
    )
    assert plain.value == 0.5 and 0 < plain.low < 0.5
    for share, expected in (
        (0.5, 0.0), (confidence, 0.0), (confidence + 0.01, 0.0), (upper - 0.001, 0.0), (upper + 0.001, plain.low),
        (0.999, plain.low),
    ):  # fmt: skip
        assert low(share) == expected, share
    none = Figure("e", (), lambda counts: counts[:, :0].sum(1), by_chance=lambda: np.ones(9))
    assert np.isnan(figure_interval(none, confidence=confidence).value)
