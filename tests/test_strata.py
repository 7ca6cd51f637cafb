"""Fixed groups of tasks: the variance within them, beside weighted least squares, published formulas and simulations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interval_coverage import paired_strata, strata_coverage, stratified_figure

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.runs.pairing import compare
from firsthand.runs.store import Run, create
from firsthand.runs.task_groups import TaskGroups, same_problem
from firsthand.show.board import caveats, leaderboard
from firsthand.stats.bootstrap import MIN_STRATUM, bootstrap, drawn, unit_strata, units
from firsthand.stats.comparison_design import from_one, from_pair
from firsthand.stats.intervals import mean_interval
from firsthand.stats.paired import Differences, paired_difference, tango_interval
from firsthand.stats.run_summary import summary
from firsthand.stats.strata import cluster_freedom, strata_units, stratified_error, stratified_freedom
from firsthand.task import Task
from firsthand.trace import Score, Trace

SUBJECTS = ["art"] * 6 + ["law"] * 4 + ["physics"] * 10
VALUES = [0.9, 0.8, 1.0, 0.7, 0.9, 0.6, 0.1, 0.2, 0.0, 0.3, *np.linspace(0.4, 0.7, 10)]


def by_task(values: Any) -> dict[str, list[float]]:
    return {f"t{number}": [float(each)] for number, each in enumerate(values)}


def groups(strata: list[str], clusters: dict[str, str] | None = None) -> TaskGroups:
    return TaskGroups(clusters or {}, {f"t{number}": each for number, each in enumerate(strata)})


def test_the_error_is_that_of_a_stratified_sample():
    parts = [VALUES[:6], VALUES[6:10], VALUES[10:]]
    expected = math.sqrt(sum((len(x) / 20) ** 2 * np.var(x, ddof=1) / len(x) for x in parts))  # Cochran (1977), 5.4
    found = strata_units(VALUES, SUBJECTS)
    assert stratified_error(found) == pytest.approx(expected, rel=1e-12)
    assert stratified_freedom(found) == pytest.approx(20**2 / (36 / 5 + 16 / 3 + 100 / 9), rel=1e-12)


def test_the_error_over_clusters_is_the_cr2_sandwich_of_a_regression_on_strata():
    rng = np.random.default_rng(7)
    strata = ["a"] * 24 + ["b"] * 16
    clusters = [f"a{i % 5}" for i in range(24)] + [f"b{i % 4}" for i in range(10)] + ["b9"] * 6
    values = rng.normal(size=40)
    design = np.array([[float(s == "a"), float(s == "b")] for s in strata])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    maker, mean_of = np.eye(40) - hat, design.mean(axis=0) @ np.linalg.inv(design.T @ design) @ design.T
    meat, columns = 0.0, []
    for name in sorted(set(clusters)):
        own = [i for i in range(40) if clusters[i] == name]
        roots, vectors = np.linalg.eigh(maker[np.ix_(own, own)])
        adjusted = mean_of[own] @ (vectors / np.sqrt(roots)) @ vectors.T
        meat += float(adjusted @ (maker @ values)[own]) ** 2
        columns.append(maker[:, own] @ adjusted)
    found = strata_units(list(values), strata, clusters)
    assert stratified_error(found) == pytest.approx(math.sqrt(meat), rel=1e-9)
    spectrum = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    assert stratified_freedom(found) == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-9)


def test_one_stratum_is_no_stratum_and_single_tasks_are_taken_together():
    assert strata_units(VALUES, ["all"] * 20) == ()
    single = strata_units([0.1, 0.2, 0.3, 0.4, 0.9, 0.5], ["a", "a", "b", "b", "c", "d"])
    assert sorted(map(len, single)) == [2, 2, 2] and ((0.9, 1), (0.5, 1)) in single
    lone = strata_units([0.1, 0.2, 0.3, 0.4, 0.5, 0.9], ["a", "a", "a", "b", "b", "c"])
    assert [len(units) for units in lone] == [3, 3]  # the single task joins the smaller one
    assert strata_units([0.1, 0.2, 0.9], ["a", "a", "c"]) == ()


def test_strata_that_share_a_cluster_are_one():
    values, strata = [0.1, 0.4, 0.2, 0.9, 0.3, 0.5], ["a", "a", "b", "b", "c", "c"]
    shared = strata_units(values, strata, ["1", "2", "2", "3", "4", "5"])
    assert [len(units) for units in shared] == [2, 3] and (pytest.approx(0.6), 2) in shared[1]


def test_a_stratum_that_is_one_cluster_has_its_tasks_drawn_one_by_one():
    named = {f"t{number}": each for number, each in enumerate(SUBJECTS)}
    found = TaskGroups({"t0": "passage", **{t: s for t, s in named.items() if s == "law"}}, named)
    assert dict(found) == {"t0": "passage"} and found.strata["t7"] == "law"
    assert dict(TaskGroups(named, named)) == {}
    two = {"t0": "p", "t1": "p", "t2": "q"}
    assert dict(TaskGroups(two, dict.fromkeys(two, "s"))) == two


def test_intervals_within_strata_leave_out_what_strata_differ_by():
    plain, found = mean_interval(by_task(VALUES)), mean_interval(by_task(VALUES), clusters=groups(SUBJECTS))
    assert found.method == "stratified t" and found.value == plain.value and found.inflation < 0.6
    units = strata_units(VALUES, SUBJECTS)
    from scipy import stats

    freedom, error = stratified_freedom(units), stratified_error(units)
    points = mean_interval(by_task([10 * each for each in VALUES]), clusters=groups(SUBJECTS))  # of no known ends
    half = 10 * stats.t.ppf(0.975, freedom) * error
    assert (points.low, points.high) == pytest.approx((points.value - half, points.value + half))
    centre = ((freedom + 1) * found.value + 0.5) / (freedom + 2)  # of one task more, half at 0 and half at 1
    squares = (freedom + 1) * (freedom * error**2 + (found.value - centre) ** 2) + (centre**2 + (1 - centre) ** 2) / 2
    wider = stats.t.ppf(0.975, freedom + 1) * math.sqrt(squares / (freedom + 1) / (freedom + 2))
    assert found.low == pytest.approx(min(centre - wider, found.value - half / 10))
    binary = [1.0] * 9 + [0.0] + [1.0] + [0.0] * 9
    both = mean_interval(by_task(binary)), mean_interval(by_task(binary), clusters=groups(["x"] * 10 + ["y"] * 10))
    assert both[1].method == "stratified Wilson" and both[1].high - both[1].low < both[0].high - both[0].low
    assert mean_interval(by_task([1.0] * 5 + [0.0] * 5), clusters=groups(["x"] * 5 + ["y"] * 5)).method == "Wilson"
    assert mean_interval(by_task(VALUES), clusters=groups(["all"] * 20)) == plain


def test_paired_differences_within_strata_have_their_error_in_interval_and_test():
    a = [
        min(1.0, value + (0.15 if subject == "art" else 0.01)) for value, subject in zip(VALUES, SUBJECTS, strict=True)
    ]
    found = Differences.between(by_task(a), by_task(VALUES), groups(SUBJECTS))
    differences = [x - y for x, y in zip(a, VALUES, strict=True)]
    assert found.method == "stratified t"
    assert found.error == pytest.approx(stratified_error(strata_units(differences, SUBJECTS)))
    assert found.p_value == pytest.approx(2 * found.p_above(0.0)) and found.p_above(
        found.bounds(0.9).low
    ) == pytest.approx(0.05)
    rng = np.random.default_rng(3)
    right = [float(x) for x in rng.random(80) < 0.6]
    other = [float(x) for x in np.concatenate([rng.random(40) < 0.9, rng.random(40) < 0.3])]
    tango = Differences.between(by_task(other), by_task(right), groups(["x"] * 40 + ["y"] * 40))
    assert tango.method == "stratified Tango"
    better, worse = tango.counts
    d = np.array(other) - np.array(right)
    within = sum(np.var(part, ddof=1) * 40 for part in (d[:40], d[40:])) / 80**2
    from scipy import stats

    scale = np.var(d, ddof=1) / 80 / within * (1.959963984540054 / stats.t.ppf(0.975, 78)) ** 2
    assert tango.bounds() == pytest.approx(tango_interval(better * scale, worse * scale, 80 * scale), abs=1e-9)
    assert paired_difference(by_task(other), by_task(right)).method == "Tango"


@pytest.mark.parametrize(("sizes", "binary"), [((20,) * 14, True), ((10,) * 3, False), ((2,) * 40, True)])
def test_strata_are_covered(sizes, binary):
    held, without, width = strata_coverage(sizes, 0.35, binary, 150)
    assert 150 * 0.95 - 3 * math.sqrt(150 * 0.95 * 0.05) <= held and without >= held - 3 and width < 97


@pytest.mark.slow
def test_equal_agents_that_differ_in_every_stratum_are_told_apart_at_the_level():
    found, plain = paired_strata((20,) * 14, 0.2, 500)
    assert plain <= found <= 500 * 0.05 + 3 * math.sqrt(500 * 0.05 * 0.95)


def test_plans_know_strata():
    design = from_one(by_task(VALUES), 0.5, groups(SUBJECTS))
    assert design.design_effect == pytest.approx(
        mean_interval(by_task(VALUES), clusters=groups(SUBJECTS)).inflation ** 2
    )
    assert "strata reducing the variance to" in design.basis and from_one(by_task(VALUES), 0.5).design_effect == 1
    shifted = [value * 0.9 for value in VALUES]
    assert from_pair(by_task(VALUES), by_task(shifted), groups(SUBJECTS)).design_effect < 1


# -- stored runs --


def made(home: Path, metadata: Any, shift: float = 0.0, agent: str = "ada", name: str = "quiz") -> Run:
    run = create(home, {"seed": 0}, name)
    run.add_agent(agent, {"name": agent})
    run.add_tasks("quiz", [Task(f"t{n}", "?", metadata=metadata(n)) for n in range(20)])
    for number, value in enumerate(VALUES):
        scores = (Score("part", max(0.0, value - shift * (number % 3))),)
        run.append(Trace(f"{agent}-{number}", "quiz", f"t{number}", {"name": agent}, 0, 0, "", 1.0, scores=scores))
    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def test_a_task_says_its_stratum_and_tables_summary_and_comparison_follow(home: Path, capsys: Any) -> None:
    run = made(home, lambda n: {"stratum": SUBJECTS[n]})
    assert run.clusters()["quiz"].strata["t0"] == "art"
    (line,) = summary(run)
    (board,) = leaderboard(run.summaries(), clusters=run.clusters())
    assert line.score.method == board.rows[0].score.method == "stratified t"
    assert (line.score.low, line.score.high) == pytest.approx((board.rows[0].score.low, board.rows[0].score.high))
    assert any("fixed strata" in each for each in caveats(board))
    other = made(home, lambda n: {"stratum": SUBJECTS[n]}, 0.05)
    assert main(["compare", run.id, other.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["benchmarks"]["quiz"]["method"] == "stratified t"
    assert main(["summary", run.id]) == 0
    assert "within strata" in capsys.readouterr().out


def test_a_column_of_the_command_line_names_the_strata(home: Path, capsys: Any) -> None:
    run = made(home, lambda n: {"subject": SUBJECTS[n]})
    other = made(home, lambda n: {"subject": SUBJECTS[n]}, 0.05)
    methods = {
        "summary": lambda found: found[0]["score"]["method"],
        "show": lambda found: found[0]["rows"][0]["score"]["method"],
    }
    for command, method in methods.items():
        for words, expected in ((["--strata", "subject"], "stratified t"), ([], "t")):
            assert main([command, run.id, "--json", *words]) == 0
            assert method(json.loads(capsys.readouterr().out)) == expected
    assert main(["power", run.id, "--strata", "subject", "--json"]) == 0
    assert "strata" in json.loads(capsys.readouterr().out)[0]["basis"]
    bounds = {}
    for words in ([], ["--strata", "subject"]):
        main(["gate", run.id, other.id, "--max-drop", "10%", "--json", *words])
        bounds[len(words)] = json.loads(capsys.readouterr().out)["checks"][0]["low"]
    assert bounds[2] != bounds[0]
    assert main(["compare", run.id, other.id, "--strata", "subjct"]) == 2
    assert "did you mean 'subject'?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no task has"):
        run.clusters("colour")


def test_a_run_of_before_pairs_with_one_whose_tasks_have_a_stratum_where_they_had_a_cluster(home: Path) -> None:
    old, new = made(home, lambda n: {"cluster": SUBJECTS[n]}), made(home, lambda n: {"stratum": SUBJECTS[n]})
    found = compare(old, new)
    assert len(found.pairs) == 20 and not found.changed
    assert isinstance(found.clusters["quiz"], TaskGroups) and not found.clusters["quiz"]
    assert same_problem(Task("a", "?", metadata={"cluster": "x"}), Task("a", "?", metadata={"stratum": "y"}))
    assert not same_problem(Task("a", "?", metadata={"level": 1}), Task("a", "?", metadata={"level": 2}))
    old.add_tasks("quiz", [Task("t0", "?", metadata={"stratum": "art"})])  # a resumed run keeps its task as it was
    assert cluster_freedom([1] * 4) == pytest.approx(3)


def test_a_subject_of_mmlu_is_a_stratum() -> None:
    from firsthand.benchmarks.mmlu import read_item

    row = {"subject": "high_school_physics", "question": "?", "choices": ["a", "b", "c", "d"], "gold": 1}
    found = read_item(row, "test-00000", "here").metadata
    assert found == {"subject": "high school physics", "stratum": "high school physics"}


def test_a_bootstrap_draws_as_many_units_of_each_stratum_as_it_has():
    strata = ["a"] * 12 + ["b"] * 20
    labels = [f"{number // 2}" for number in range(12)] + [f"{number}" for number in range(100, 120)]
    unit_T = units(32, None)
    (counts,) = drawn(unit_T, 500, stratum_U=unit_strata(unit_T, strata))
    assert set(counts[:, :12].sum(axis=1)) == {12} and set(counts[:, 12:].sum(axis=1)) == {20}
    assert counts.max() > 2 and counts.mean(axis=0) == pytest.approx(np.ones(32), abs=0.25)
    assert unit_strata(unit_T, None) is None and unit_strata(unit_T, ["x"] * 32) is None
    assert unit_strata(units(32, labels), strata) is None  # 6 clusters are too few, and join the other stratum
    (plain,) = drawn(unit_T, 500)
    assert len(set(plain[:, :12].sum(axis=1))) > 5


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"a": MIN_STRATUM, "b": MIN_STRATUM}, [["a"], ["b"]]),
        ({"a": MIN_STRATUM - 1, "b": MIN_STRATUM, "c": 30}, [["a", "b"], ["c"]]),  # joins the smallest that is enough
        ({"a": 6, "b": 6, "c": 30}, [["a", "b"], ["c"]]),
        ({"a": 6, "b": 2, "c": 30, "d": 20}, [["a", "b", "d"], ["c"]]),
        ({"a": 2, "b": 3, "c": 4}, None),
    ],
)
def test_strata_of_few_units_are_drawn_together(sizes, expected):
    strata = [name for name, size in sizes.items() for _ in range(size)]
    found = unit_strata(np.arange(len(strata)), strata)
    if expected is None:
        assert found is None
        return
    together: dict[int, set[str]] = {}
    for name, number in zip(strata, found, strict=True):
        together.setdefault(int(number), set()).add(name)
    assert sorted(map(sorted, together.values())) == expected


def test_figures_over_strata_have_the_error_within_them():
    scores = np.concatenate([np.random.default_rng(1).normal(0, 0.1, 60), np.random.default_rng(2).normal(5, 0.3, 30)])
    strata = ["a"] * 60 + ["b"] * 30
    found = bootstrap(lambda counts: counts @ scores / 90, 90, strata=strata)
    units_H = strata_units(scores.tolist(), strata)
    assert found.error == pytest.approx(stratified_error(units_H), rel=0.05)
    half = 1.96 * stratified_error(units_H)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)
    assert bootstrap(lambda counts: counts @ scores / 90, 90).error > 5 * found.error


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "width"), [((50, 50), 55), ((100, 30, 12, 4, 1), 95)])
def test_micro_f1_over_strata_is_covered_by_narrower_intervals(sizes, width):
    held, alone, false, percent = stratified_figure(sizes, 40)
    assert held >= 35 and alone >= held and percent < width and false <= 6


def test_a_run_with_strata_draws_its_figures_within_them(tmp_path: Path) -> None:
    from firsthand.stats.figures import micro_f1

    rng = np.random.default_rng(5)
    with create(tmp_path, {}, "figures") as run:
        tasks = [
            Task(f"t{number}", "q", metadata={"subject": "easy" if number < 40 else "hard"}) for number in range(80)
        ]
        run.add_tasks("labels", tasks)
        for agent in ("one", "two"):
            for number in range(80):
                found = {each for each in "abcdefgh" if rng.random() < (0.98 if number < 40 else 0.3)}
                score = micro_f1("f1", found, set("abcdefgh"))
                place, about = f"{agent}-{number}", {"name": agent}
                run.append(Trace(place, "labels", f"t{number}", about, 0, 0, "", 1.0, scores=(score,)))
        plain, within = (summary(run, strata=each)[0].score for each in (None, "subject"))
        assert within.value == plain.value and within.high - within.low < 0.7 * (plain.high - plain.low)


def test_a_difference_of_figures_is_drawn_within_strata() -> None:
    from interval_coverage import micro_f1_figure

    from firsthand.stats.figure_stats import FigureDifference

    rng = np.random.default_rng(3)
    easy = np.tile([9.0, 1.0, 1.0], (30, 1)) + rng.integers(0, 2, (30, 3))
    hard = np.tile([2.0, 8.0, 8.0], (30, 1)) + rng.integers(0, 2, (30, 3))
    better = micro_f1_figure(np.concatenate([easy, hard]))
    worse = micro_f1_figure(np.concatenate([np.tile([2.0, 8.0, 8.0], (30, 1)), hard]))
    strata = TaskGroups({}, {name: "easy" if number < 30 else "hard" for number, name in enumerate(better.tasks)})
    within, plain = (FigureDifference.between(better, worse, groups, draws=1000) for groups in (strata, None))
    assert within.mean == plain.mean and within.error < 0.4 * plain.error and within.gain > 2 and plain.gain == 1


def test_benchmarks_come_in_their_order_and_keep_their_clusters_beside_others_strata(tmp_path: Path) -> None:
    with create(tmp_path, {}, "order") as run:
        run.add_tasks("first", [Task("1", "q", metadata={"cluster": "p"}), Task("2", "q", metadata={"cluster": "p"})])
        run.add_tasks("second", [Task("1", "q", metadata={"stratum": "x"}), Task("2", "q", metadata={"stratum": "y"})])
        run.add_tasks("first", [Task("3", "q")])
        assert run.benchmarks() == ["first", "second"]
        found = run.clusters()
        assert found["first"] == {"1": "p", "2": "p"} and isinstance(found["second"], TaskGroups)
