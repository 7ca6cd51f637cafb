"""Figures of a corpus, calibration, agreement, cells by metadata and the summary of a run: exact values of small cases."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from firsthand.benchmark import Figure
from firsthand.errors import ConfigError
from firsthand.stats.confidence_formulas import brier_score, expected_calibration_error, selective_accuracy
from firsthand.stats.corpus_formulas import FORMULAS, calibrated_bins, calibrated_rms, rms_calibration_error
from firsthand.stats.figure_stats import FigureDifference, figure_interval, figure_value
from firsthand.stats.figures import CALIBRATION, calibration, figure_detail, figures, has_figures, micro_f1, slow_figure
from firsthand.stats.rater_agreement import (
    Judged,
    _decided,
    _longer,
    agreement,
    cohen_kappa,
    krippendorff_alpha,
    majority,
)
from firsthand.trace import Failure, Score, Trace


def attempt(
    agent: str, task: str, *scores: Score, epoch: int = 0, error: bool = False, benchmark: str = "sums", **rest: Any
) -> Trace:
    failed = Failure("ModelError", "gone") if error else None
    key = f"{benchmark}-{agent}-{task}-{epoch}"
    return Trace(key, benchmark, task, {"name": agent}, epoch, 0, "", 2.0, scores=scores, error=failed, **rest)


# -- formulas --


def test_formulas_of_sums() -> None:
    def of(name: str, *sums: float) -> float:
        return float(FORMULAS[name].of(np.array([sums]))[0])

    assert of("micro_f1", 2, 1, 3) == 0.5 and of("micro_f1", 0, 0, 0) == 1.0 and of("micro_f1", 0, 1, 0) == 0.0
    assert of("share", 3, 4) == 0.75 and of("share", 0, 0) == 0.0
    # precisions 3/4, 2/3, 1/2 and, smoothed, 1/2 of 1; answers of 4 for references of 5
    bleu = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25 * math.exp(1 - 5 / 4)
    assert of("bleu", 3, 2, 1, 0, 4, 3, 2, 1, 4, 5) == pytest.approx(bleu)
    assert of("bleu", 3, 2, 1, 0, 4, 3, 2, 1, 4, 3) == pytest.approx((1 / 8) ** 0.25), "a longer answer is not rewarded"
    assert of("bleu", *[0.0] * 9, 5) == 0.0 == of("bleu", 3, 2, 1, 0, 4, 3, 2, 0, 4, 4)
    # order 1: 3 of 4 and of 6 in both; order 2: 1 of 2 and of 4; the other orders are not seen
    precision, recall = (3 / 4 + 1 / 2) / 2, (3 / 6 + 1 / 4) / 2
    assert of("chrf", 4, 6, 3, 2, 4, 1, *[0, 3, 0], *[0.0] * 9) == pytest.approx(
        5 * precision * recall / (4 * precision + recall)
    )
    assert of("chrf", *[0.0] * 18) == 0.0
    assert FORMULAS["bleu"].empty is not None and FORMULAS["bleu"].empty(list(range(10))) == [0.0] * 9 + [9]
    assert FORMULAS["chrf"].empty is not None and FORMULAS["chrf"].empty(list(range(1, 19)))[:5] == [0, 2, 0, 0, 5]
    assert FORMULAS["micro_f1"].empty is not None and FORMULAS["micro_f1"].empty([2, 5, 3]) == [0.0, 0.0, 5]
    assert FORMULAS["share"].empty is not None and FORMULAS["share"].empty([2, 5]) == [0.0, 5]
    assert [name for name, each in FORMULAS.items() if each.lower_is_better] == ["calibration_error"]


def test_answers_of_equal_confidence_share_a_bin_in_any_order() -> None:
    right = [1.0] * 90 + [0.0] * 10
    for hits in (right, right[::-1], [float(n % 10 > 0) for n in range(100)]):
        assert expected_calibration_error([0.9] * 100, hits) == pytest.approx(0, abs=1e-12)
        assert expected_calibration_error([0.5] * 100, hits) == pytest.approx(0.4)
        assert selective_accuracy([0.9] * 100, hits) == pytest.approx(0.9)
    # .2 .5 .5 | .5 .5 .9 with bins=2: all of 0.5 lie in the first
    sure = [0.5, 0.2, 0.5, 0.9, 0.5, 0.5]
    for hits in ([1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]):
        assert expected_calibration_error(sure, hits, 2) == pytest.approx((2.2 - 1 + 0.1) / 6)
        assert selective_accuracy(sure, hits, 0.5) == pytest.approx((1 + 2 * 0.25) / 3), "the surest, and two of four"
        assert selective_accuracy(sure, hits, 5 / 6) == pytest.approx((1 + 4 * 0.25) / 5)


def test_calibration_by_bins_of_equal_numbers_and_of_the_surest() -> None:
    sure, right = [0.9, 0.1, 0.8, 0.6, 0.4], [1, 0, 0, 1, 1]
    # in order .1 .4 | .6 .8 | .9 with bins=3: two longer by one
    assert expected_calibration_error(sure, right, 3) == pytest.approx(
        (2 * abs(0.25 - 0.5) + 2 * abs(0.7 - 0.5) + 0.1) / 5
    )
    assert expected_calibration_error(sure, right) == pytest.approx((0.1 + 0.1 + 0.8 + 0.4 + 0.6) / 5)
    assert brier_score(sure, right) == pytest.approx((0.01 + 0.01 + 0.64 + 0.16 + 0.36) / 5)
    assert selective_accuracy(sure, right, 0.4) == 0.5 and selective_accuracy(sure, right) == 1.0
    assert selective_accuracy([0.5, 0.5], [0, 1], 0.5) == 0.5 and selective_accuracy(sure, right, 1) == 0.6
    for call in (
        lambda: selective_accuracy(sure, right, 0),
        lambda: selective_accuracy(sure, right, 1.1),
        lambda: brier_score([], []),
        lambda: brier_score([0.5], [1, 0]),
        lambda: brier_score([1.1], [1]),
    ):
        with pytest.raises(ConfigError):
            call()
    # bins of two: .1 .4 are one right of two; the rest, .6 .8 .9, is one bin of three
    first, last = (0.5 - 1) ** 2 / 2, (2.3 - 2) ** 2 / 3
    assert rms_calibration_error(sure, right, bin_size=2) == pytest.approx(math.sqrt((first + last) / 5))
    assert rms_calibration_error(sure, right, bin_size=2, published=True) == pytest.approx(math.sqrt(first / 5))
    assert math.isnan(rms_calibration_error([], [])) and rms_calibration_error([0.5], [1]) == 0.5
    with pytest.raises(ConfigError):
        rms_calibration_error([0.5], [1, 0])
    assert (calibrated_rms([1.0, 0.0, 1.0]) == 0).all() and len(calibrated_rms([0.5])) == 400
    assert (calibrated_bins(np.array([[2.0, 2.0, 1.0, 1.0, 0.0, 0.0]])) == 0).all()
    assert set(calibrated_bins(np.array([[1.0, 0.5, 0.0]]))) == {0.5}


# -- figures --


def test_scores_carry_their_share_of_a_figure() -> None:
    assert figure_detail("share", [1, 2], why="x") == {"corpus": {"figure": "share", "sums": [1.0, 2.0]}, "why": "x"}
    for name, sums in (("none", [1]), ("share", [1, 2, 3])):
        with pytest.raises(
            ConfigError, match=r"is no figure of a corpus: there are bleu \(10 sums\), chrf \(18 sums\)"
        ):
            figure_detail(name, sums)
    assert micro_f1("f1", ["a", "b", "b"], ["b", "c", "d"]) == Score("f1", 0.4, figure_detail("micro_f1", (1, 1, 2)))
    assert micro_f1("f1", [], []).value == 1.0 and micro_f1("f1", ["a"], []).value == 0.0
    sure = calibration("sure", 0.25, True)
    assert (
        sure.value == 0.75
        and sure.detail["corpus"]["sums"][6:9] == [1.0, 0.25, 1.0]
        and sum(sure.detail["corpus"]["sums"]) == 2.25
    )
    assert calibration("sure", 1.0, False).detail["corpus"]["sums"][27:] == [1.0, 1.0, 0.0]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="0 to 1 was expected"):
            calibration("sure", wrong, True)


def test_figures_add_up_the_attempts_of_each_agent() -> None:
    def share(right: int, of: int) -> Score:
        return Score("parts", right / of, figure_detail("share", [right, of]))

    made = {
        "ada": [
            attempt("ada", "t2", share(1, 4)),
            attempt("ada", "t1", share(2, 2)),
            attempt("ada", "t1", share(0, 4), epoch=1),
        ],
        "bo": [attempt("bo", "t1", error=True), attempt("bo", "t2", share(3, 4)), attempt("bo", "t9", error=True)],
    }
    found = figures(made)["parts"]
    assert {agent: (figure.tasks, figure_value(figure)) for agent, figure in found.items()} == {
        "ada": (("t1", "t2"), 0.3), "bo": (("t1", "t2", "t9"), 3 / (4 + 4 + 4)),
    }  # fmt: skip
    assert found["ada"].values == {"t1": [1.0, 0.0], "t2": [0.25]}
    assert found["bo"].values == {"t1": [0.0], "t2": [0.75], "t9": [0.0]}
    assert figures(made, errors=False)["parts"]["bo"].tasks == ("t2",)
    assert figures({"ada": [*made["ada"], attempt("ada", "t3", Score("parts", 0.5))]}) == {}
    plain = {
        "ada": [
            attempt("ada", "t1", Score("exact", 1.0, {"confidence": 0.75})),
            attempt("ada", "t2", Score("exact", 0.0)),
        ]
    }
    error = figures(plain)[CALIBRATION]["ada"]
    assert (
        error.tasks == ("t1",)
        and figure_value(error) == 0.25
        and error.lower_is_better
        and error.values == {"t1": [0.25]}
    )
    assert (
        has_figures(made["ada"]) and has_figures(plain["ada"]) and not has_figures([attempt("a", "t", Score("x", 1.0))])
    )

    def own(traces: Any) -> list[Figure]:
        return [slow_figure("whole", ("a", "b"), lambda chosen: sum(chosen) / 10)]

    both = figures(plain, own)
    assert (
        figure_value(both["whole"]["ada"]) == 0.1
        and both["whole"]["ada"].slow
        and both["whole"]["ada"].method == "percentile"
    )
    assert "exact" not in figures({**plain, "bo": [attempt("bo", "t1", Score("exact", 1.0))]}, lambda traces: [
        replace(slow_figure("exact", ("a",), lambda chosen: 1.0))] if len(traces) == 2 else [])  # fmt: skip


@pytest.mark.parametrize("lower", [False, True])
def test_an_agent_that_failed_takes_no_figure_from_the_others(lower: bool) -> None:
    def own(traces: Any) -> list[Figure]:
        names = ("exact", "second") if any(each.scores for each in traces) else ()
        return [replace(slow_figure(name, ("t1",), lambda chosen: 0.75), lower_is_better=lower) for name in names]

    scores = (Score("exact", 1.0), Score("second", 0.5))
    made = {
        "ada": [attempt("ada", "t1", *scores)],
        "bo": [
            attempt("bo", "t1", error=True),
            attempt("bo", "t2", error=True),
            attempt("bo", "t2", error=True, epoch=1),
        ],
        "cy": [attempt("cy", "t1")],
    }
    found = figures(made, own)
    first, second = found["exact"], found["second"]
    assert figure_value(first["ada"]) == figure_value(second["ada"]) == 0.75 and set(second) == {"ada"}
    assert set(first) == {"ada", "bo", "cy"} and {each.lower_is_better for each in first.values()} == {lower}
    assert first["bo"].tasks == (() if lower else ("t1", "t2")) and first["cy"].tasks == ()
    assert math.isnan(figure_value(first["bo"])) if lower else figure_value(first["bo"]) == 0.0
    assert math.isnan(figure_value(first["cy"]))
    assert figure_interval(first["bo"]).n == len(first["bo"].tasks)
    assert figures(made, own, errors=False)["exact"]["bo"].tasks == ()
    made["cy"] = [attempt("cy", "t1", replace(scores[0])), attempt("cy", "t2")]
    found = figures(made, lambda traces: own(traces) if len(traces) == 1 else [])
    assert "exact" not in found and set(found["second"]) == {"ada"}


def test_a_difference_of_figures_pairs_their_common_tasks() -> None:
    def mean_of(tasks: str, *values: float) -> Figure:
        return Figure("f", tuple(tasks), lambda counts: counts @ np.array(values) / counts.sum(1),
                      values={task: [value] for task, value in zip(tasks, values, strict=True)})  # fmt: skip

    a, b = mean_of("abc", 1.0, 0.5, 0.25), mean_of("dcb", 0.0, 0.75, 0.25)
    found = FigureDifference.between(a, b, draws=200)
    assert (found.mean, found.n, found.counts, found.unit) == (pytest.approx(0.375 - 0.5), 2, (1, 1), True)
    assert (
        found.values == pytest.approx((0.25, -0.5), abs=1e-4)
        and len(found.draws) == 200
        and found.draws[0] == pytest.approx(-0.5)
    )
    back = found.reversed
    assert (back.mean, back.counts, back.values) == (
        pytest.approx(0.125),
        (1, 1),
        pytest.approx((-0.25, 0.5), abs=1e-4),
    )
    assert back.draws == tuple(-each for each in found.draws[::-1]) and found.p_below(0.0) == pytest.approx(
        back.p_above(-0.0)
    )
    none = FigureDifference.between(a, mean_of("z", 1.0))
    assert (none.n, none.draws, none.counts) == (0, (), (0, 0)) and math.isnan(none.mean)
    lower = FigureDifference.between(replace(a, lower_is_better=True), b, draws=50)
    assert lower.counts == (1, 1) and lower.lower_is_better
    equal = FigureDifference(0.0, (0.0,) * 9, 4, (0, 0), unit=True)
    assert equal.equal and equal.method == "equal draws" and equal.error == 0.0 and found.method == "paired bootstrap"
    assert equal.p_above(-0.5) == 0.5**4 and equal.p_above(0.0) == 1.0
    assert FigureDifference(0.5, (), 4, (1, 0)).bounds() == (-math.inf, math.inf)
    assert (
        math.isnan(figure_value(Figure("f", (), lambda counts: counts.sum(1))))
        and figure_interval(Figure("f", (), lambda c: c)).n == 0
    )


# -- judges and people --


def test_agreement_of_three_items_figure_by_figure() -> None:
    judged = [
        Judged("1", ("A", "A", "B"), "A", longer="A", first=0.75, consistent=True),
        Judged("2", ("tie", "B", "A"), "tie", longer="B"),
        Judged("3", ("B", "B", "B"), "A", longer="B", first=0.25, consistent=False),
    ]
    found = agreement(judged)
    assert (found.items, found.votes) == (3, 9)
    assert found.with_humans.value == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found.among_humans is not None and found.among_humans.value == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert found.decided is not None and found.decided.value == pytest.approx(2 / 6), (
        "six votes of two items are decided"
    )
    assert (
        found.first is not None
        and found.first.value == 0.5
        and found.consistent is not None
        and found.consistent.value == 0.5
    )
    assert found.longer_judge is not None and found.longer_judge.value == 0.5, (
        "items 1 and 3 are decided, and A is longer once"
    )
    assert found.longer_humans is not None and found.longer_humans.value == pytest.approx((2 + 1 + 3) / 8)
    assert found.length_bias is not None and found.length_bias.value == pytest.approx(0.5 - 6 / 8)
    # majorities A and B with verdicts A and A: agreement 1/2, by chance 1/2
    assert found.kappa.value == 0.0 and found.kappa_humans is not None and found.alpha_humans is not None
    assert found.alpha_with_judge == krippendorff_alpha([(*each.humans, each.verdict) for each in judged])
    body = found.to_json()
    assert (
        body["items"] == 3
        and body["with_humans"]["value"] == found.with_humans.value
        and body["alpha_humans"] == found.alpha_humans
    )
    assert _decided(judged[1]) == (0, 0.0) and _decided(judged[2]) == (0.0, 1.0) and _decided(judged[0]) == (2 / 3, 1.0)
    assert _longer(judged[1], judged[1].humans) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert _longer(replace(judged[0], longer=None), ("A",)) == (0.0, 0.0)
    alone = agreement([Judged("1", ("A",), "A")])
    assert (alone.among_humans, alone.kappa_humans, alone.alpha_humans, alone.first, alone.length_bias) == (None,) * 5
    assert majority(["A", "B"]) is None and majority(["A", "B", "A"]) == "A"
    # squared distances: seen (0 + 1 + 4) / 3, by chance the mean over all nine pairs of 1,2,3 and 1,3,1
    chance = sum((a - b) ** 2 for a in (1, 2, 3) for b in (1, 3, 1)) / 9
    assert cohen_kappa([1, 2, 3], [1, 3, 1], weights="interval") == pytest.approx(1 - (5 / 3) / chance)
    assert math.isnan(cohen_kappa(["a"], ["a"])) and math.isnan(krippendorff_alpha([["a", "a"], ["a"]]))
    for call in (
        lambda: cohen_kappa([1], [1], weights="ordinal"),
        lambda: cohen_kappa([1], [1, 2]),
        lambda: cohen_kappa([], []),
    ):
        with pytest.raises(ConfigError):
            call()
