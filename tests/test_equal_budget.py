"""Patterns get the same tokens: knobs are turned by measurement, what was spent is told, and the frontier is drawn."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firsthand import run_sync
from firsthand.experiment.equal_budget import KNOBS, SLACK, Fitted, best_value, equalise, free_knob, knob_of, next_value
from firsthand.loop.critical_path import critical_seconds
from firsthand.model import Usage
from firsthand.patterns.react import react
from firsthand.patterns.self_consistency import self_consistency
from firsthand.runs.store import list_runs, open_run
from firsthand.show.board import caveats, leaderboard
from firsthand.show.board_table import render_text
from firsthand.show.html_report import report_html
from firsthand.show.scatter import scatter
from firsthand.stats.pareto import frontier
from firsthand.trace import Call, Score, Trace


def settle(cost: Callable[[int], float], default: int, budget: float) -> tuple[int, dict[int, float]]:
    """The value chosen and all that was measured on the way."""
    points = {default: cost(default)}
    for _ in range(5):
        value = next_value(points, budget)
        if value is None:
            break
        assert value not in points and value >= 1
        points[value] = cost(value)
    return best_value(points, budget), points


@given(
    fixed=st.floats(0, 500), unit=st.floats(1, 300), bend=st.floats(0, 0.5), default=st.integers(1, 12),
    budget=st.floats(50, 20_000),
)  # fmt: skip
@example(fixed=198.0, unit=1.0, bend=0.0, default=1, budget=396.0)  # it spends a hundredth more: that is more
def test_a_knob_that_spends_more_comes_close_to_the_budget_and_not_over(
    fixed: float, unit: float, bend: float, default: int, budget: float
) -> None:
    def cost(value: int) -> float:
        return fixed + unit * value ** (1 + bend)

    value, points = settle(cost, default, budget)
    assert len(points) <= 6
    if cost(1) > (1 + SLACK) * budget:
        assert value == min(points)
        return
    assert points[value] <= (1 + SLACK) * budget or min(points) > 1
    if value < 8 * default:  # further than that takes more rounds than there are
        assert cost(value + 1) > 0.75 * budget or bend > 0.2 or fixed > budget / 2


def test_a_straight_line_is_met_exactly() -> None:
    assert settle(lambda n: 40 + 23 * n, 8, 1000)[0] == 41
    assert settle(lambda n: 40 + 23 * n, 8, 100)[0] == 2
    assert settle(lambda n: 40 + 23 * n, 8, 10) == (1, {8: 224, 4: 132, 1: 63})
    assert settle(lambda n: 40 + 23 * n, 8, 224)[1] == {8: 224}  # it fits as it is


def test_the_most_expensive_pattern_as_it_is_sets_the_budget_with_a_knob_or_without() -> None:
    asked: list[list[str]] = []

    def costs(text: str) -> float:
        samples = int(text.partition("samples=")[2] or 8)
        return 1000.0 if text == "direct" else 100.0 * samples

    async def measure(patterns: Sequence[str]) -> dict[str, float]:
        asked.append(list(patterns))
        return {text: costs(text) for text in patterns}

    both = ["direct", "self_consistency"]
    assert asyncio.run(equalise(both, None, measure)) == (
        1000.0,
        [
            Fitted("direct", None, None, 1000.0),
            Fitted("self_consistency:samples=10", "samples", 10, 1000.0),
        ],
    )
    assert asked[0] == both and asked[-1] == ["self_consistency:samples=10"]
    asked.clear()
    found = asyncio.run(equalise(both, 300.0, measure))
    assert found == (
        300.0,
        [Fitted("direct", None, None, None), Fitted("self_consistency:samples=3", "samples", 3, 300.0)],
    )
    assert asked[0] == ["self_consistency"] and asked[-1] == ["self_consistency:samples=3"], (
        "what has no knob costs what it costs"
    )


def test_a_knob_that_saturates_is_left_where_turning_it_stops_to_matter() -> None:
    value, points = settle(lambda n: min(n, 3) * 100, 6, 900)
    assert value == 6 and len(points) == 2


def test_a_pattern_declares_its_knob_by_the_name_of_an_option() -> None:
    async def tot(task: Any, ctx: Any, *, samples: int = 3, breadth: int = 5) -> str:
        return ""

    async def odd(task: Any, ctx: Any, *, n: str = "4") -> str:
        return ""

    assert knob_of(self_consistency) == ("samples", 8) and knob_of(react) == ("max_steps", 6)
    assert knob_of(tot) == ("breadth", 5) and knob_of(odd) is None and len(set(KNOBS)) == len(KNOBS)
    assert free_knob("direct") is None and free_knob("react:max-steps=3") is None
    knob = free_knob("self_consistency:shots=1")
    assert knob is not None and knob.at(9) == "self_consistency:shots=1:samples=9"


def test_without_a_budget_all_get_what_the_most_expensive_costs() -> None:
    asked: list[str] = []

    async def measure(patterns: Sequence[str]) -> Mapping[str, float]:
        asked.extend(patterns)
        return {text: cost(text) for text in patterns}

    def cost(text: str) -> float:
        value = int(text.rpartition("=")[2]) if "=" in text else 8
        return {"direct": 20.0, "react": 1210.0}.get(text.partition(":")[0], 40.0 + 30 * value)

    budget, fitted = run_sync(equalise(["direct", "self_consistency", "react"], None, measure))
    assert budget == 1210 and [each.pattern for each in fitted] == [
        "direct", "self_consistency:samples=39", "react:max_steps=6",
    ]  # fmt: skip
    assert [each.knob for each in fitted] == [None, "samples", "max_steps"]
    asked.clear()
    _, (_, vote) = run_sync(equalise(["direct", "self_consistency:samples=4"], 500, measure))
    assert vote.pattern == "self_consistency:samples=4"
    assert asked == []  # nothing is to be turned, so nothing is measured


# -- the frontier --


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6) | st.just(float("nan"))), max_size=12))
def test_the_frontier_is_what_nobody_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(a: tuple[float, float]) -> bool:
        return any(b[0] <= a[0] and b[1] >= a[1] and b != a for b in points if b[1] == b[1])

    expected = {index for index, point in enumerate(points) if point[1] == point[1] and not dominated(point)}
    found = frontier(points)
    assert set(found) == expected and len(found) == len(expected)
    assert [points[index][0] for index in found] == sorted(points[index][0] for index in found)


def made(agent: str, task: int, value: float, tokens: int, **changes: Any) -> Trace:
    calls = (Call(":0", "generate", None, 0.0, 2.0, "r", Usage(tokens - 10, 5, 10)),)
    return Trace(
        f"{agent}{task}", "sums", str(task), {"name": agent}, 0, 0, "2026-11-25", 3.0, calls=calls,
        scores=(Score("exact", value),), **changes,
    )  # fmt: skip


def traces() -> list[Trace]:
    spec = {"vote:samples=9": (0.5, 980), "direct": (0.3, 30), "react": (0.2, 610), "tot:breadth=3": (0.7, 1010)}
    return [made(name, i, float(i < 40 * share), cost) for name, (share, cost) in spec.items() for i in range(40)]


def test_the_board_tells_budget_share_path_and_frontier_against_the_cheapest() -> None:
    (board,) = leaderboard(traces(), budget=1000)
    assert board.baseline == "direct" and board.frontier == ("direct", "vote:samples=9", "tot:breadth=3")
    text = render_text([board])
    assert "40 tasks, 1,000 tokens each" in text and "vs. cheapest" in text and "(cheapest)" in text
    assert text.count("◆ frontier") == 3 and "98% used" in text and "path 2.0 s" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "by share used: direct (3%), react (61%)." in " ".join(caveats(board))
    body = board.to_json()
    assert body["budget"] == 1000 and body["frontier"][0] == "direct"
    assert {row["agent"]: row["share"] for row in body["rows"]}["react"] == 0.61
    json.dumps(body)
    (plain,) = leaderboard(traces())
    assert plain.baseline == "vote:samples=9" and "frontier" not in render_text([plain])


def test_the_report_draws_the_frontier() -> None:
    boards = leaderboard(traces(), budget=1000)
    picture = scatter(boards[0])
    assert picture is not None and len(picture.frontier) == 6
    assert [x for x, _ in picture.frontier] == sorted(x for x, _ in picture.frontier)
    html = report_html(boards, title="t", command="c", machine={}, run_path="/r", traces=traces())
    assert len(re.findall(r'<path class="frontier" d="M[\d. L]+"/>', html)) == 1
    assert html.count("◆ on the Pareto frontier") == 3 and "98 % of the budget" in html and "1,000 tokens each" in html


def test_the_critical_path_is_the_longest_chain_of_calls() -> None:
    def path(**seconds: float) -> float:
        calls = tuple(
            Call(f"{where.replace('_', '.').replace('x', '/')}:{i}", "generate", None, 0.0, took, "r")
            for i, (where, took) in enumerate(seconds.items())
        )
        return critical_seconds(Trace("0", "b", "t", {"name": "a"}, 0, 0, "", 9.0, calls=calls))

    assert path() == 0.0
    assert path(**{"": 2.0}) == 2.0
    assert path(**{"": 1.0, "0_0": 3.0, "0_1": 5.0, "1_0": 2.0}) == 1 + 5 + 2
    assert path(**{"0_0": 1.0, "0_0x0_0": 4.0, "0_0x0_1": 3.0, "0_1": 4.5}) == 1 + 4
    assert path(**{"0_3x1_2x0_7": 1.5}) == 1.5
    deep = path(**{"x".join(["0_0"] * depth): 1.0 for depth in range(1, 40)})
    assert deep == 39


# -- the command --


@pytest.fixture
def cli(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    script = {"step by step": "Let me see. The answer is 32", "Question": "Action: calculator[3 * 4]"}
    Path("script.json").write_text(json.dumps(script | {"Observation": "Final Answer: 7", "": "42"}))

    return cli


RUN = ["run", "arithmetic:levels=1", "--limit", "10", "--model", "scripted:script.json"]


@pytest.mark.slow
def test_a_run_at_equal_budgets_says_what_it_chose_and_can_be_repeated(cli: Any, tmp_path: Path) -> None:
    patterns = "direct,self_consistency,react"
    code, out, err = cli(*RUN, "--pattern", patterns, "--equal-budget")
    assert (code, err) == (0, "")
    chosen = re.search(
        r"^budget    (\d+) tokens an attempt, measured on 8 tasks .*-calibration-\w+: (.*)$", out, re.MULTILINE
    )
    assert (
        chosen and chosen[2].startswith("direct (unchanged); self_consistency:samples=") and "react:max_steps=6" in out
    )
    with open_run("last", tmp_path / "home") as run:
        spent = {row.agent: row.tokens for row in run.rows()}
        assert run.config["equal_budget"] == chosen[1] and len(run.done()) == 30
    budget = int(chosen[1])
    (voting,) = [tokens for name, tokens in spent.items() if name.startswith("self_consistency")]
    assert 0.9 * budget <= voting <= 1.05 * budget
    assert len(list_runs(tmp_path / "home")) == 2
    assert f"{budget:,} tokens each" in cli("show", "last")[1]
    again = re.search(r"^reproduce firsthand (.*)$", out, re.MULTILINE)
    assert again is not None
    code, out, err = cli(*shlex.split(again[1]), "--json")
    assert (code, err) == (0, "") and len(list_runs(tmp_path / "home")) == 3  # nothing had to be measured again
    (board,) = json.loads(out)["boards"]
    assert board["budget"] == budget and board["baseline"] == "direct"
    assert {row["agent"] for row in board["rows"]} == spent.keys()
    assert cli("run", "--resume")[0] == 0 and len(list_runs(tmp_path / "home")) == 3
    assert cli("run", "--replay", "last", "--json")[0] == 0


@pytest.mark.slow
def test_a_budget_of_ones_own_needs_only_what_can_be_turned(cli: Any, tmp_path: Path) -> None:
    code, out, _ = cli(*RUN, "--pattern", "direct,self_consistency", "--equal-budget", "300")
    assert code == 0 and "self_consistency:samples=40" in out
    with open_run(list_runs(tmp_path / "home")[-1].path, tmp_path / "home") as run:
        assert "direct" not in run.agents() or run.config["name"] != "calibration"


@pytest.mark.slow
def test_a_budget_is_measured_by_one_attempt_at_each_task(cli: Any, tmp_path: Path) -> None:
    words = ["--pattern", "self_consistency", "--equal-budget", "300", "--epochs", "2", "--limit", "3"]
    code, _, err = cli(*RUN, *words)
    assert (code, err) == (0, "")
    epochs = {}
    for info in list_runs(tmp_path / "home"):
        with open_run(info.path, tmp_path / "home") as run:
            epochs["calibration" in info.id] = sorted({row.epoch for row in run.rows()})
    assert epochs == {True: [0], False: [0, 1]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--equal-budget", "arithmetic"], "give a number of tokens"),
        (["--equal-budget", "0"], "give a number of tokens"),
        (["--equal-budget", "--model", "scripted:script.json,scripted:echo"], "name one model"),
    ],
)
def test_a_mistake_is_one_line(cli: Any, tmp_path: Path, words: list[str], expected: str) -> None:
    code, _, err = cli(*RUN, *words)
    assert code == 2 and expected in err and err.count("\n") == 1 and not (tmp_path / "home" / "runs").exists()


def test_a_value_within_the_slack_on_either_side_is_good_enough_and_one_outside_is_not() -> None:
    assert SLACK == 0.05
    for cost, found in ((950.0, None), (1000.0, None), (1050.0, None), (949.0, 210), (900.0, 223)):
        assert next_value({100: 480.0, 200: cost}, 1000) == found, cost
    # a line through two values: the one below the budget is good enough, whatever was measured above it
    for below, found in ((950.0, None), (949.0, 212)):
        assert next_value({200: below, 300: 1370.0}, 1000) == found, below
    for only, found in ((950.0, None), (1050.0, None), (949.9, 2 * 8), (1050.1, 4)):
        assert next_value({8: only}, 1000) == found, only
    assert next_value({1: 1050.1}, 1000) is None and next_value({1: 1050.1, 2: 2000.0}, 1000) is None
    assert best_value({1: 1050.0, 2: 1050.1, 3: 1040.0}, 1000) == 1 and best_value({3: 9.0, 2: 9.0}, 1) == 2
