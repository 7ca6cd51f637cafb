"""The parts of `gate` and `compare` on small runs whose scores are given: checks, gaps, names, tables, JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import compare, gate
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.flaky import Flaky
from firsthand.runs.pairing import Attempted, Comparison, Pair
from firsthand.runs.store import Run
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.figures import micro_f1
from firsthand.stats.intervals import Bounds
from firsthand.stats.non_inferiority import Check, Gaps
from firsthand.stats.paired import Differences, PairedDifference
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    widen(monkeypatch, gate, compare)
    return tmp_path


def exact(value: float, style: float | None = None) -> dict[str, Any]:
    return {"exact": value} | ({} if style is None else {"style": style})


@pytest.fixture
def two(home: Path) -> tuple[Run, Run]:
    """Agents ada and bob in both, cyd in the second alone. `sums` have exact and style, `words` exact alone."""
    first = scored_run(home, "one", {
        "ada": {"sums": {"s0": [exact(1, 0.5)], "s1": [exact(1, 0.25), exact(0, 0.75)], "s2": [None, exact(1, 1)]},
                "words": {"w0": [exact(0)], "w1": [exact(1)], "w2": [None]}},
        "bob": {"sums": {"s0": [exact(0, 0)]}},
    })  # fmt: skip
    second = scored_run(home, "two", {
        "ada": {"sums": {"s0": [exact(0, 0.25)], "s1": [exact(1, 1), exact(1, 0.5)], "s2": [exact(1, 0.5), exact(1, 0)]},
                "words": {"w0": [exact(1)], "w1": [None]}},
        "bob": {"sums": {"s0": [exact(1, 1)]}},
        "cyd": {"sums": {"s0": [exact(0.5, 0)]}},
    })  # fmt: skip
    return first, second


# -- gate --


def test_the_drop_of_a_score_goes_before_that_of_its_benchmark_and_of_all(two: tuple[Run, Run]) -> None:
    found = compare.compare(*two, agent_a="ada", score="style", error_value=None)
    drops = {"": 0.01, "sums": 0.02, "sums/style": 0.05, "words/style": 0.07}
    made = gate.make_check(found, "sums", "style", drops, 0.9)
    # s0 0.5 to 0.25, s1 the mean of 0.25 and 0.75 to that of 1 and 0.5, s2 1 to the mean of 0.5 and 0
    assert (made.agent, made.benchmark, made.score, made.max_drop, made.confidence) == (
        "ada", "sums", "style", 0.05, 0.9,
    )  # fmt: skip
    assert made.differences == Differences((-0.25, 0.25, -0.75), False, True)
    assert made.baseline == pytest.approx((0.5 + 0.5 + 1) / 3) and made.candidate == pytest.approx(1.25 / 3)
    assert made.worse == ("s2: 1 -> 0.25", "s0: 0.5 -> 0.25") and (made.ruling, made.reason) == ("inconclusive", "")
    assert made.gaps == Gaps(1, 0, 0, 0)
    # all three tasks' attempts disagree in one run or the other, s0's between the runs of one agent and seed
    assert {(each.benchmark, each.task_id, each.where) for each in made.flaky} >= {
        ("sums", "s0", "between"), ("sums", "s1", "a"), ("sums", "s1", "b"), ("sums", "s2", "b"),
    }  # fmt: skip
    assert {each.benchmark for each in made.flaky} == {"sums"}
    assert gate.make_check(found, "sums", "exact", drops, 0.9).max_drop == 0.02
    assert gate.make_check(found, "words", "exact", drops, 0.9).max_drop == 0.01
    whole = compare.compare(*two, agent_a="ada", score="exact", error_value=0.0)
    told = {name: gate.make_check(whole, name, "exact", drops, 0.9).flaky for name in ("sums", "words")}
    assert all({each.benchmark for each in flaky} == {name} for name, flaky in told.items()), told
    other = compare.compare(*two, agent_a="bob", agent_b="cyd", score="exact")
    made = gate.make_check(other, "sums", "exact", drops, 0.9)
    assert (made.agent, made.baseline, made.candidate, made.worse) == ("cyd vs. bob", 0.0, 0.5, ())


def test_gaps_are_counted_for_one_benchmark(two: tuple[Run, Run]) -> None:
    found = compare.compare(*two, agent_a="ada")
    assert gate.gaps_of(found, "sums") == Gaps(1, 0, 0, 0) and gate.gaps_of(found, "words") == Gaps(1, 1, 1, 0)
    found = replace(found, changed=(("sums", "a"), ("words", "b"), ("sums", "c")), missing=(("sums", "a"),))
    assert gate.gaps_of(found, "sums") == Gaps(1, 0, 1, 2) and gate.gaps_of(found, "other") == Gaps(0, 0, 0, 0)


def test_a_mean_is_over_tasks_and_losses_are_sorted_by_size(two: tuple[Run, Run]) -> None:
    assert gate.mean({"a": (1.0, 0.0, 0.0, 0.0), "b": (1.0,)}) == 0.625 and math.isnan(gate.mean({}))
    a = {"x": (0.5,), "y": (1.0, 0.0), "z": (1.0,), "w": (0.2,), "v": (1.0,)}
    b = {"x": (0.25,), "y": (0.0,), "z": (1.0,), "w": (0.7,), "u": (0.0,)}
    assert gate.got_worse(a, b, lower_is_better=False) == ["y: 0.5 -> 0", "x: 0.5 -> 0.25"]
    assert gate.got_worse(a, b, lower_is_better=True) == ["w: 0.2 -> 0.7"]


def test_names_given_to_a_gate_are_benchmarks_and_scores_that_it_checks(two: tuple[Run, Run]) -> None:
    run, other = two
    scored = {"exact": {"sums": "exact", "words": "exact"}, "style": {"sums": "style"}}

    def checked(*benchmarks: str, drops: tuple[str, ...] = ("1%",)) -> None:
        config = gate.Config(run.id, other.id, max_drop=drops, benchmark=benchmarks)
        gate.check_names(config, gate.allowed_drops(drops), scored, run)

    checked("sums", "words", drops=("3%", "sums=1%", "sums/style=2%", "words/exact=3%"))
    for benchmarks, drops, told in (
        (("sums/exact",), (), "no benchmark 'sums/exact'; `firsthand show RUN` shows all"),
        (("sums/exac",), (), "no benchmark 'sums/exac'; did you mean 'sums'? `firsthand show RUN` shows all"),
        (("sums", "word"), (), "no benchmark 'word'; did you mean 'words'?"),
        ((), ("words/style=1%",), "no checked benchmark or benchmark/score 'words/style'; did you mean 'sums/style'?"),
        ((), ("exact=1%",), "no checked benchmark or benchmark/score 'exact'"),
    ):
        with pytest.raises(UnknownName) as refused:
            checked(*benchmarks, drops=drops)
        assert str(refused.value).startswith(told.replace("RUN", run.id))
    assert gate.allowed_drops(()) == {"": 0.01} and gate.allowed_drops(("0", "a/b=c=2%")) == {"": 0.0, "a/b=c": 0.02}
    for drops, told in (
        (("a=1%", "2%", "a=3%"), "max_drop is a=1%,2%,a=3%: it gives two drops for a"),
        (("0.1", "2%"), "max_drop is 0.1,2%: it gives two drops for all scores"),
        (("a=-0.1",), "max_drop is 'a=-0.1': a drop is 0 or more, such as 1%"),
    ):
        with pytest.raises(ConfigError) as wrong:
            gate.Config("a", "b", max_drop=drops)
        assert str(wrong.value) == told


def test_scores_to_check_are_the_first_of_each_benchmark_or_the_named_ones(two: tuple[Run, Run]) -> None:
    def asked(*scores: str) -> dict[str, dict[str, str | None]]:
        return gate.scores_to_check(gate.Config("", "", score=scores), *two, {})

    assert asked() == {"exact": {"sums": None, "words": None}}
    failed = scored_run(two[0].path.parent.parent, "failed", {"ada": {"sums": {"s0": [None]}}})
    assert gate.scores_to_check(gate.Config("", ""), failed, failed, {}) == {"no score": {"sums": None}}
    assert asked("style", "exact") == {"style": {"sums": "style"}, "exact": {"sums": "exact", "words": "exact"}}


def test_every_agent_and_benchmark_gets_a_check_by_the_settings(two: tuple[Run, Run]) -> None:
    def checks(**more: Any) -> list[Any]:
        config = gate.Config(two[0].id, two[1].id, **more)
        return [(c.agent, c.benchmark, c.score, c.max_drop, c.differences.values, c.confidence, c.gaps)
                for c in gate.all_checks(config, *two)]  # fmt: skip

    both = Gaps(1, 0), Gaps(1, 1, 1)
    assert checks(max_drop=("3%", "words=4%"), confidence="90%") == [
        ("ada", "sums", "exact", 0.03, (-1.0, 0.5, 0.0), 0.9, both[0]),
        ("ada", "words", "exact", 0.04, (1.0,), 0.9, both[1]),
        ("bob", "sums", "exact", 0.03, (1.0,), 0.9, Gaps()), ("bob", "words", "exact", 0.04, (), 0.9, Gaps()),
    ]  # fmt: skip
    # as 0 a failed attempt lowers s2 of the first to 0.5, and w1 of the second to 0
    zero = checks(errors="zero", agent_a="ada", benchmark=("words",), score=("exact",))
    assert zero == [("ada", "words", "exact", 0.01, (1.0, -1.0), 0.95, both[1])]
    [(agent, _, score, _, values, *_)] = checks(errors="zero", agent_a="ada", agent_b="cyd", benchmark=("sums",))
    assert (agent, score, values) == ("cyd vs. ada", "exact", (-0.5,))
    [(*_, values, _, _)] = checks(reduce="max", agent_a="ada", benchmark=("sums",), score=("style",))
    assert values == (-0.25, 0.25, -0.5)


def test_a_figure_is_checked_in_place_of_the_scores_it_is_made_of(home: Path) -> None:
    def labels(*found: str) -> list[Any]:
        return [{"labels": micro_f1("labels", {each}, {"x"})} for each in found]

    one = scored_run(home, "one", {"ada": {"tags": {"t0": labels("x"), "t1": labels("x"), "t2": labels("y")}}})
    two = scored_run(home, "two", {"ada": {"tags": {"t0": labels("y"), "t1": labels("x"), "t2": labels("y")}}})
    [check] = gate.all_checks(gate.Config(one.id, two.id), one, two)
    assert isinstance(check.differences, FigureDifference) and check.score == "labels"
    # micro F1: 2 right of 3 labels found and 3 wanted, then 1 of 3
    assert (check.baseline, check.candidate) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert check.worse == ("t0: 1 -> 0",)


def test_a_gate_prints_a_row_for_each_check_and_ten_details(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = tuple(f"t{n}: 1 -> 0" for n in range(9))
    flaky = (Flaky("sums", "f", "b", (1.0, 0.5)),)
    one = Check("ada", "sums", "exact", 0.01, Differences((0.25, -0.5, 0.0), False, True), 0.95, "fail", "it dropped",
                Gaps(2), 0.75, 0.5, worse, flaky)  # fmt: skip
    nothing = Check("bob", "words", "f1", 0.01, Differences((), True, True), 0.95, "inconclusive", "no task")
    gate.print_checks("b vs. a", [one, nothing])
    told = words(capsys.readouterr().out)
    bounds = one.bounds
    assert told[:2] == ["b vs. a", "benchmark score agent tasks baseline candidate difference ruling"]
    assert told[2] == f"sums exact ada 3 0.7500 0.5000 -8.33% [{bounds.low:+.2%}, {bounds.high:+.2%}] fail"
    assert told[3:5] == ["words f1 bob 0 - - - inconclusive", "sums, exact, ada: it dropped"]
    assert told[5:7] == ["missing: 2 attempts of the baseline without a score", "worse: t0: 1 -> 0"] and told[14:] == [
        "worse: t8: 1 -> 0", "and 1 more: --markdown or --json lists them", "words, f1, bob: no task",
    ]  # fmt: skip
    gate.print_checks("b vs. a", [replace(one, flaky=())])
    told = words(capsys.readouterr().out)
    assert told[-1] == "worse: t8: 1 -> 0" and len(told) == 14
    assert isinstance(bounds, Bounds)


def test_a_gate_says_and_writes_its_ruling(
    two: tuple[Run, Run], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (run.id for run in two)
    config = gate.Config(a, b, agent_a="bob", errors="drop", max_drop=("50%",))
    with pytest.raises(UnknownName, match="no benchmark 'sum'"):
        gate.main(replace(config, benchmark=("sum",)))
    files = home / "g.xml", home / "g.md"
    ruled = replace(config, junit=files[0], markdown=files[1], benchmark=("sums",))
    assert gate.main(ruled) == 4
    told = words(capsys.readouterr().out)
    assert told[0] == f"{b} vs. {a}" and told[2].startswith("sums exact bob 1 0.0000 1.0000 +100.00% [")
    assert told[-1] == "gate: inconclusive" and told[3].startswith("sums, exact, bob: ")
    assert files[1].read_text().startswith(f"## Gate: inconclusive\n\n{b} vs. {a}\n")
    assert f'<testsuite name="{b} vs. {a}" tests="1"' in files[0].read_text() and 'skipped="1"' in files[0].read_text()
    for given, code in (("pass", 0), ("fail", 1), ("report", 4)):
        assert gate.main(replace(ruled, inconclusive=given, json=True)) == code  # type: ignore[arg-type]
        body = json.loads(capsys.readouterr().out)
        assert body["ruling"] == {0: "pass", 1: "fail", 4: "inconclusive"}[code]
        assert [(each["agent"], each["benchmark"], each["ruling"]) for each in body["checks"]] == [
            ("bob", "sums", "inconclusive")
        ]
        assert ('failures="1"' in files[0].read_text()) == (given == "fail")
    # errors fail whatever the scores are, unless they are dropped
    assert gate.main(gate.Config(a, b, agent_a="ada", benchmark=("words",))) == 1
    assert "errors: 1 attempt of the baseline without a score, 1 attempt of the candidate" in capsys.readouterr().out
    gate.main(gate.Config(a, b, agent_a="ada", benchmark=("words",), errors="zero"))
    assert "errors: " not in capsys.readouterr().out
    empty = scored_run(home, "none", {"ada": {}})
    with pytest.raises(ConfigError) as refused:
        gate.main(gate.Config(empty.id, empty.id))
    assert str(refused.value) == "nothing to check: the baseline has no finished attempt on those benchmarks"


# -- compare --


def pair(task: str, a: float, b: float, benchmark: str = "sums") -> Pair:
    return Pair(benchmark, task, Attempted((a,), (f"ia{task}",), 0, (0,), (f"pa{task}-0123456789",)),
                Attempted((b,), (f"ib{task}",), 0, (0,), (f"pb{task}-0123456789",)))  # fmt: skip


COMPARISON = Comparison(
    "one/ada", "two/bob", (pair("s", 0.5, 0.5), pair("t", 0.25, 1), pair("u", 1, 0.5), pair("v", 1, 0, "words")),
    only_a=tuple(("sums", f"x{n}") for n in range(6)), only_b=(("words", "y"),), changed=(("sums", "z"), ("words", "z2")),
    unscored=({"sums": 2, "words": 1}, {"sums": 0}),
)  # fmt: skip
FOUND = {
    ("sums", "exact"): PairedDifference(0.125, -0.25, 0.5, 0.25, 3, 1, 2, 4, "inconclusive", 0.75),
    ("sums", "f1"): PairedDifference(-0.5, -0.75, -0.25, 0.0005, 3, 0, 0, 0, "worse", 0.5),
    ("words", "exact"): PairedDifference(-1, -1, 1, 0.5, 1, 0, 1, 0, "inconclusive", 1.0),
}


def test_a_comparison_is_printed_with_changed_tasks_and_what_was_left_out(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compare.Config(("a", "b"), confidence="90%", limit=2)
    compare.print_comparison(COMPARISON, FOUND, config)
    head = [
        "two/bob vs. one/ada", "benchmark score tasks difference (90% CI) p better / worse / same verdict",
        "sums exact 3 +0.125 [-0.250, +0.500] 0.250 1 / 2 / 4 inconclusive",
        "sums f1 3 -0.500 [-0.750, -0.250] <0.001 - worse",
        "words exact 1 -1.000 [-1.000, +1.000] 0.500 0 / 1 / 0 inconclusive",
        "sums, exact: minimum detectable effect 0.750 (80% power)",
        "changed tasks (3)", "task a b trace in a trace in b",
    ]  # fmt: skip
    # what got worse comes first, the largest difference first
    assert words(capsys.readouterr().out) == [
        *head, "words/v 1 0 pav-0123 pbv-0123", "sums/u 1 0.5 pau-0123 pbu-0123",
        "3 attempts of a without a score, counted as 0", "6 tasks only in a: x0, x1, x2, x3, x4", "1 task only in b: y",
        "2 tasks not paired, because the task itself changed: z, z2",
    ]  # fmt: skip
    bare = replace(COMPARISON, pairs=COMPARISON.pairs[:1], only_a=(), only_b=(), changed=(), unscored=({}, {"sums": 1}))
    compare.print_comparison(bare, {}, replace(config, errors="drop"))
    assert words(capsys.readouterr().out)[2:] == ["1 attempt of b without a score, left out"]
    uneven = replace(bare, unscored=({}, {}), unmade=({"sums": 1, "words": 1}, {"sums": 0}), evened=(("sums", "s"),))
    compare.print_comparison(uneven, {}, config)
    assert words(capsys.readouterr().out)[2:] == [
        "2 attempts of a not made yet, so what hangs or takes long may be left out: let the run end if it "
        "goes on, or finish it with `firsthand run --resume`",
        "1 task reduced over as many attempts as both sides have",
    ]


def test_a_comparison_as_json_has_figures_below_the_first_score() -> None:
    repeated = replace(
        COMPARISON, repeated=True, pairs=COMPARISON.pairs[:3], unmade=({}, {"sums": 3}), evened=(("sums", "s"),)
    )
    assert compare.to_json(repeated, FOUND) == {
        "a": "one/ada", "b": "two/bob",
        "benchmarks": {
            "sums": {"score": "exact", **FOUND["sums", "exact"].to_json(), "figures": {"f1": FOUND["sums", "f1"].to_json()}},
            "words": {"score": "exact", **FOUND["words", "exact"].to_json(), "figures": {}},
        },
        "tasks": [
            {"benchmark": "sums", "task": "s", "a": 0.5, "b": 0.5, "change": "same"},
            {"benchmark": "sums", "task": "t", "a": 0.25, "b": 1, "change": "better"},
            {"benchmark": "sums", "task": "u", "a": 1, "b": 0.5, "change": "worse"},
        ],
        "only_a": [["sums", f"x{n}"] for n in range(6)], "only_b": [["words", "y"]],
        "changed": [["sums", "z"], ["words", "z2"]], "unscored": {"a": {"sums": 2, "words": 1}, "b": {"sums": 0}},
        "unmade": {"a": {}, "b": {"sums": 3}}, "retried": {"a": {}, "b": {}}, "evened": [["sums", "s"]],
        "flaky": [{"task": "t", "where": "between", "values": [0.25, 1]},
                  {"task": "u", "where": "between", "values": [1, 0.5]}],
    }  # fmt: skip


def test_flaky_tasks_are_listed_up_to_the_limit(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Flaky("sums", f"t{n}", "a", (1.0, n / 4)) for n in range(3)]
    compare.print_flaky(found, 2)
    assert words(capsys.readouterr().out) == ["flaky tasks (3)", "task in scores", "sums/t0 a 1 0", "sums/t1 a 1 0.25"]


def test_agents_are_compared_by_the_settings(two: tuple[Run, Run]) -> None:
    def made(having: dict[str, str | None], **more: Any) -> list[tuple[str, str, dict[str, tuple[float, float]]]]:
        config = compare.Config((two[0].id, two[1].id), **more)
        found = compare.compare_all(config, *two, having)
        return [(each.a.split("/")[1], each.b.split("/")[1],
                 {p.task_id: (p.a.value, p.b.value) for p in each.pairs}) for each in found]  # fmt: skip

    every: dict[str, str | None] = {"sums": None, "words": None}
    assert made(every) == [
        ("ada", "ada", {"s0": (1, 0), "s1": (0.5, 1), "s2": (0.5, 1), "w0": (0, 1), "w1": (1, 0)}),
        ("bob", "bob", {"s0": (0, 1)}),
    ]
    dropped = made(every, errors="drop", agent_a="ada", benchmark="sums")
    assert dropped == [("ada", "ada", {"s0": (1, 0), "s1": (0.5, 1), "s2": (1, 1)})]
    # without the score words must not count as 0
    assert made({"sums": "style"}, agent_a="ada", agent_b="cyd", reduce="max") == [("ada", "cyd", {"s0": (0.5, 0)})]
    with pytest.raises(UnknownName, match=f"no benchmark 'word'; did you mean 'words'.*firsthand show {two[0].id}"):
        made(every, benchmark="word")


def test_differences_are_b_minus_a_of_each_benchmark(two: tuple[Run, Run]) -> None:
    config = compare.Config((two[0].id, two[1].id), agent_a="ada", confidence="80%")
    [every] = compare.compare_all(config, *two, {"sums": None, "words": None})
    found = compare.differences_of(config, every, *two, {})
    assert {key: (each.difference, each.n, each.better, each.worse, each.same) for key, each in found.items()} == {
        ("sums", "exact"): (pytest.approx((-1 + 0.5 + 0.5) / 3), 3, 2, 1, 0), ("words", "exact"): (0.0, 2, 1, 1, 0),
    }  # fmt: skip
    wide = compare.differences_of(replace(config, confidence="99%"), every, *two, {})
    assert wide["sums", "exact"].high > found["sums", "exact"].high
    named = replace(config, score="style")
    [styled] = compare.compare_all(named, *two, {"sums": "style"})
    [(key, one)] = compare.differences_of(named, styled, *two, {}).items()
    # s2 of the first is 0 where it failed and 1 where it did not
    assert key == ("sums", "style") and one.difference == pytest.approx((-0.25 + 0.25 - 0.25) / 3)


def test_samples_are_shown_up_to_the_limit_and_written_whole(
    two: tuple[Run, Run], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = home / "page.html"
    config = compare.Config((two[0].id, two[1].id), agent_a="ada", limit=2, diff=True, html=page, only="better")
    assert compare.main(config) == 0
    out = capsys.readouterr().out
    assert out.count("there are more: --limit shows them, and --html writes them into a file") == 1
    text = page.read_text()
    assert f"{two[1].id}/ada vs. {two[0].id}/ada" in text
    # worse s0 and w1, better s1, s2 and w0: three samples
    assert compare.main(replace(config, limit=3, html=None)) == 0
    out = capsys.readouterr().out
    assert "there are more" not in out and "flaky tasks" not in out
    assert compare.main(replace(config, diff=False, html=None, flaky=True, only="changed")) == 0
    # s0, s1 and s2, w0 and w1 between the runs, s1 and, its error as 0, s2 within the first
    assert "flaky tasks (7)" in capsys.readouterr().out


def test_settings_of_a_comparison_that_do_not_go_together(home: Path) -> None:
    for given, told in (
        ({"limit": 0}, "limit is 0: give 1 or more"), ({"confidence": "30%"}, "confidence is "),
        ({"reduce": "best"}, "best"),
        *(({"runs": ("a",), **one}, "runs is a: agent-a, agent-b, diff, html and flaky are for two runs, A and B")
          for one in ({"agent_a": "x"}, {"agent_b": "x"}, {"diff": True}, {"html": home}, {"flaky": True})),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            compare.Config(**{"runs": ("a", "b"), **given})  # type: ignore[arg-type]
        assert told in str(refused.value)
    assert compare.Config(("a", "b", "c"), limit=1).correct == "holm"


def test_an_agent_whose_name_has_slashes_is_named_whole(two: tuple[Run, Run]) -> None:
    found = compare.compare(*two, agent_a="ada", score="exact")
    for a, b, shown in (
        ("org/name", "org/name", "org/name"), ("a/b/c", "b/c", "b/c vs. a/b/c"), ("ada", "org/ada", "org/ada vs. ada"),
    ):  # fmt: skip
        sides = replace(found, a=f"one/{a}", b=f"two/{b}")
        assert gate.make_check(sides, "sums", "exact", {"": 0.01}, 0.9).agent == shown
