"""`compare` and `gate` by strata, figures, named scores and several agents; what a page of samples holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import compare, gate
from firsthand.commands.compare import Config
from firsthand.runs.store import Run
from firsthand.show import answer_diff
from firsthand.stats.figures import micro_f1
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    """Four tasks of two letters with an exact score, a style, and labels that are a figure; bob has `exact` alone."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    widen(monkeypatch, gate, compare)

    def run(name: str, *values: tuple[float, float, str]) -> Run:
        tries = {task: [{"exact": exact, "style": style, "labels": micro_f1("labels", {label}, {"x"})}]
                 for task, (exact, style, label) in zip(("a1", "b1", "a2", "b2"), values, strict=True)}  # fmt: skip
        return scored_run(tmp_path, name, {"ada": {"tags": tries}, "bob": {"tags": {"a1": [{"exact": values[0][0]}]}}})

    return (run("one", (1, 0.5, "x"), (1, 0.25, "x"), (0, 1, "y"), (1, 1, "x")),
            run("two", (0, 0.25, "y"), (1, 0.25, "x"), (1, 0.5, "y"), (1, 1, "y")))  # fmt: skip


def test_strata_reach_the_tests_of_a_gate_and_of_a_comparison(two: tuple[Run, Run]) -> None:
    def strata(**more: Any) -> Any:
        [check] = gate.all_checks(gate.Config(two[0].id, two[1].id, agent_a="ada", **more), *two)
        return check.differences.strata

    assert strata() is None and strata(strata="letter") == ("in a", "in a", "in b", "in b")
    for name, expected in ((None, None), ("letter", {"a1": "a", "a2": "a", "b1": "b", "b2": "b"})):
        config = Config((two[0].id, two[1].id), agent_a="ada", strata=name)
        [made] = compare.compare_all(config, *two, {"tags": None})
        found = compare.differences_of(config, made, *two, {})["tags", "exact"]
        assert getattr(made.clusters.get("tags"), "strata", None) == expected, name
        assert ("strat" in found.method) == (name is not None)


def test_figures_are_compared_beside_the_first_score_and_alone_where_named(two: tuple[Run, Run]) -> None:
    def found(**more: Any) -> dict[str, float]:
        config = Config((two[0].id, two[1].id), agent_a="ada", **more)
        having = compare.benchmarks_with(config.score, *two, own={})
        [made] = compare.compare_all(config, *two, having)
        return {name: each.difference for (_, name), each in compare.differences_of(config, made, *two, {}).items()}

    # micro F1 falls from three right of four to one right
    assert found() == {"exact": 0.0, "labels": pytest.approx(0.25 - 0.75)}
    assert found(score="labels") == {"labels": pytest.approx(-0.5)}
    assert found(score="style") == {"style": pytest.approx(-0.75 / 4)}


def test_samples_show_the_named_score_of_the_chosen_changes(
    two: tuple[Run, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Any] = []
    real = compare.page
    monkeypatch.setattr(compare, "page", lambda *given: pages.append(given) or real(*given))
    config = Config(
        (two[0].id, two[1].id), agent_a="ada", score="style", diff=True, only="all", html=tmp_path / "p.html"
    )
    assert compare.main(config) == 0
    out = words(capsys.readouterr().out)
    shown = [line for line in out if line.startswith("tags/") and "epoch" in line]
    # worse first, the largest difference first, then what is the same
    assert shown == [
        "tags/a2 epoch 0 1 -> 0.5 worse", "tags/a1 epoch 0 0.5 -> 0.25 worse", "tags/b1 epoch 0 0.25 -> 0.25 same",
        "tags/b2 epoch 0 1 -> 1 same",
    ]  # fmt: skip
    [(title, samples, counts)] = pages
    assert title == f"{two[1].id}/ada vs. {two[0].id}/ada" and counts == [("worse", 2), ("better", 0), ("same", 2)]
    assert [(each.task_id, each.a.score, each.b.score) for each in samples] == [
        ("a2", "1", "0.5"), ("a1", "0.5", "0.25"), ("b1", "0.25", "0.25"), ("b2", "1", "1")
    ]  # fmt: skip
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    every = Config((two[0].id, two[1].id), html=tmp_path / "q.html", only="worse")
    pages.clear()
    assert compare.main(every) == 0
    assert pages[0][0] == "; ".join(f"{two[1].id}/{name} vs. {two[0].id}/{name}" for name in ("ada", "bob"))
    assert [each.task_id for each in pages[0][1]] == ["a1", "a1"] and pages[0][2] == [
        ("worse", 2),
        ("better", 1),
        ("same", 2),
    ]
    monkeypatch.setattr(compare, "MAX_SAMPLES", 0)
    monkeypatch.setattr(answer_diff, "MAX_SAMPLES", 0)
    pages.clear()
    compare.main(every)
    assert len(pages[0][1]) == 1, "one more than may be shown tells that there are more"


def test_each_agent_of_both_runs_is_compared_in_turn(two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    config = Config((two[0].id, two[1].id), limit=1, flaky=True)
    assert compare.main(config) == 0
    out = words(capsys.readouterr().out)
    heads = [f"{two[1].id}/{name} vs. {two[0].id}/{name}" for name in ("ada", "bob")]
    assert [line for line in out if line in heads] == heads
    assert [line for line in out if line.startswith(("changed", "flaky"))] == [
        "changed tasks (2)", "flaky tasks (2)", "changed tasks (1)", "flaky tasks (1)"
    ]  # fmt: skip
    assert sum(line.startswith("tags/") for line in out) == 4, "one of each"
    assert compare.main(Config((two[0].id, two[1].id), json=True, confidence="80%")) == 0
    body = json.loads(capsys.readouterr().out)
    assert [(each["a"], each["b"]) for each in body] == [
        (f"{two[0].id}/{name}", f"{two[1].id}/{name}") for name in ("ada", "bob")
    ]
    assert body[0]["benchmarks"]["tags"]["score"] == "exact" and list(body[0]["benchmarks"]["tags"]["figures"]) == [
        "labels"
    ]
    assert body[1]["benchmarks"]["tags"]["difference"] == -1 and body[1]["benchmarks"]["tags"]["n"] == 1


def test_two_runs_are_compared_side_by_side_and_any_other_number_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(compare, "compare_pairwise", lambda config: asked.append(config.runs) or 7)
    assert [compare.main(Config(runs)) for runs in (("a",), ("a", "b", "c"))] == [7, 7]
    assert asked == [("a",), ("a", "b", "c")]
