"""Boards that are written down by hand: their table, JSON and picture whole, and the steps that make a board."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from boards_by_hand import BASE, BETTER, WORSE, board, row
from firsthand.errors import UnknownName
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.show.agent_cost import Cost, cost_of
from firsthand.show.board import (
    Board,
    Row,
    _board,
    _passes,
    _rank,
    _row,
    _values,
    caveats,
    findings,
    leaderboard,
)
from firsthand.show.board_table import _by_column, _cells, _plain, _render_board, _style, render, render_text
from firsthand.stats.figures import figure_detail
from firsthand.stats.intervals import Interval, mean_interval
from firsthand.stats.multiple_comparisons import compare_to_baseline
from firsthand.trace import Call, Failure, Score
from made_traces import trace
from same_values import same

ALL = board(BETTER, BASE, WORSE, budget=2000.0, protocol="as it is")
FOUND = [
    "better:a,b(c)-of-a-long-name: better than base by 0.50 (0.75 vs. 0.25, p=0.004), for 28.3x its tokens.",
    "worse: worse than base by 0.12 (0.12 vs. 0.25, p=0.031), for 0.7x its tokens.",
]
CAUTION = [
    "Errors: 2 attempts failed or could not be scored. Each counts as 0; one without a verdict of its judge is left out.",
    "Minimum detectable effect with 6 tasks: 0.50 (80% power).",
    "Each agent is compared to the baseline base on the tasks both attempted, with 95% CIs, which hold jointly "
    "(Bonferroni). P-values are Holm-corrected for 2 comparisons.",
    "More than 10% off the budget, by share used: better:a,b(c)-of-a-long-name (170%), base (6%), worse (4%).",
]


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def test_a_board_with_a_budget_is_drawn_with_shares_frontier_paths_and_all_it_found() -> None:
    assert lines(render_text([ALL], width=120)) == [
        "sums: exact, 6 tasks, 2 epochs, 2,000 tokens each",
        "agent                     score    vs. cheapest  verdict  tokens/task      seconds  calls    cost   errors",
        "─" * 106,
        "better                     0.75           +0.50  better          3.4k       62.0 s    7.5  $0.034        2",
        ":a,                [0.62, 1.00]  [+0.20, +0.80]  p=0.004      2.0k in   avg 75.0 s                 3 limit",
        "b(                                                         340 cached  path 40.0 s",
        "c)-of-a-long-name                                           170% used",
        "◆ frontier",
        "",
        "base                       0.25      (cheapest)                   120        2.0 s      1       -        0",
        "◆ frontier         [0.12, 0.50]                                100 in    avg 3.0 s",
        "                                                              6% used   path 1.5 s",
        "",
        "worse                      0.12           -0.12  worse             80       125 ms      1   $0.50        0",
        "◆ frontier         [0.00, 0.38]  [-0.25, -0.06]  p=0.031        60 in   avg 250 ms",
        "                                                              4% used  path 100 ms",
        "",
        "Also measured",
        "better:a,b(c)-of-a-long-name: length 2.50 [2.00, 3.00], spread? 0.50",
        "",
        *FOUND,
        *CAUTION[:2],
        "Each agent is compared to the baseline base on the tasks both attempted, with 95% CIs, which hold jointly "
        "(Bonferroni).",
        "P-values are Holm-corrected for 2 comparisons.",
        CAUTION[3],
    ]


def test_a_narrow_board_has_columns_below_its_rows_and_two_boards_follow_each_other() -> None:
    name = "a" * 9 + ":" + "b" * 10
    short = board(replace(BASE, agent=name), baseline=name, metric="", tasks=1, epochs=1)
    assert lines(render_text([short, board(BASE, BETTER)], width=99)) == [
        "sums: not scored, 1 task",
        "agent                 score  vs. baseline  verdict  tokens/task    seconds  calls  errors",
        "─────────────────────────────────────────────────────────────────────────────────────────",
        "aaaaaaaaa:bbbbbbbbbb      -    (baseline)                   120      2.0 s      1       0",
        "                                                         100 in  avg 3.0 s",
        "",
        "Nothing was scored.",
        "",
        "sums: exact, 6 tasks, 2 epochs",
        "agent                     score    vs. baseline  verdict  tokens/task     seconds  calls    cost",
        "────────────────────────────────────────────────────────────────────────────────────────────────",
        "base                       0.25      (baseline)                   120       2.0 s      1       -",
        "                   [0.12, 0.50]                                100 in   avg 3.0 s",
        "  errors 0",
        "",
        "better                     0.75           +0.50  better          3.4k      62.0 s    7.5  $0.034",
        ":a,                [0.62, 1.00]  [+0.20, +0.80]  p=0.004      2.0k in  avg 75.0 s",
        "b(                                                         340 cached",
        "c)-of-a-long-name",
        "  errors 2, 3 limit",
        "",
        "",
        "Also measured",
        "better:a,b(c)-of-a-long-name: length 2.50 [2.00, 3.00], spread? 0.50",
        "",
        "better:a,b(c)-of-a-long-name: better than base by 0.50 (0.75 vs. 0.25, p=0.004), for 28.3x its",
        "tokens.",
        "Errors: 2 attempts failed or could not be scored. Each counts as 0; one without a verdict of its",
        "judge is left out.",
        "Minimum detectable effect with 6 tasks: 0.31 (80% power).",
        "Each agent is compared to the baseline base on the tasks both attempted, with 95% CIs.",
    ]


def test_the_cells_of_a_row_and_their_styles() -> None:
    assert _cells(BETTER, ALL) == {
        "score": "0.75\n[0.62, 1.00]", "vs. baseline": "+0.50\n[+0.20, +0.80]", "vs. cheapest": "+0.50\n[+0.20, +0.80]",
        "verdict": "better\np=0.004", "tokens/task": "3.4k\n2.0k in\n340 cached\n170% used",
        "seconds": "62.0 s\navg 75.0 s\npath 40.0 s", "calls": "7.5", "cost": "$0.034", "errors": "2\n3 limit",
    }  # fmt: skip
    assert _cells(BASE, board(BASE, metric="")) == {
        "score": "-", "vs. baseline": "(baseline)", "vs. cheapest": "(cheapest)", "verdict": "",
        "tokens/task": "120\n100 in", "seconds": "2.0 s\navg 3.0 s", "calls": "1", "cost": "-", "errors": "0",
    }  # fmt: skip
    unused = replace(BASE, cost=Cost(0.0, 0.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0))
    assert _cells(unused, board(unused, budget=2000.0)) == {
        "score": "0.25\n[0.12, 0.50]", "vs. baseline": "(baseline)", "vs. cheapest": "(cheapest)", "verdict": "",
        "tokens/task": "0\n0 in\n0% used", "seconds": "2.0 s\navg 3.0 s\npath 0 ms", "calls": "0", "cost": "-",
        "errors": "0",
    }  # fmt: skip
    assert (
        caveats(board(unused, BETTER, budget=3300.0))[-1] == "More than 10% off the budget, by share used: base (0%)."
    )
    assert {name: board(BASE).to_json()[name] for name in ("protocol", "budget", "reduce")} == {
        "protocol": "", "budget": None, "reduce": "mean",
    }  # fmt: skip
    columns = ("score", "vs. baseline", "vs. cheapest", "verdict", "errors")
    dear = replace(WORSE, agent="dear", cost=replace(BETTER.cost, prompt_tokens=9000.0))
    lost = render_text([board(BETTER, BASE, dear, budget=2000.0)], width=120)
    assert lost.count("◆ frontier") == 2 and "◆" not in render_text([board(BETTER, BASE, dear)], width=120)
    assert [_style(BETTER, each) for each in columns] == ["", "green", "green", "green", ""]
    assert [_style(WORSE, each) for each in columns] == ["", "red", "red", "red", ""]
    unsure = replace(BETTER, versus=replace(BETTER.versus, verdict="inconclusive"))  # type: ignore[type-var]
    assert [_style(each, "verdict") for each in (BASE, unsure)] == ["", ""]
    assert (_plain("b" * 1000), _plain("b" * 1001)) == ("b" * 1000, "b" * 1000 + "…")
    path = replace(BETTER, agent="folder/with/several/parts/of/a/long/path.json")
    texts = [each.plain for each in _render_board(board(BASE, path), 30) if isinstance(each, Text)]
    at_separators = "folder/with/several/parts/of/\na/long/path.json: "  # and not after 30 characters, at `of/a`
    assert [text[48:54] for text in texts if text.startswith(at_separators)] == ["length", "better"]
    rows = [[Text("a"), Text("1"), Text("x\ny")], [Text("b"), Text("2"), Text("z")]]
    assert list(_by_column(["score", "errors"], rows)) == [["score", "1", "2"], ["errors", "x\ny", "z"]]
    assert _plain("a\x1b[2Jé\u202e") == "a?[2Jé?" and _plain("b" * 9000).endswith("b…")
    title, table = _render_board(ALL, 120)[:2]
    assert isinstance(title, Text) and title.style == "bold" and type(table).__name__ == "Table"
    assert type(_render_board(ALL, 99)[1]).__name__ == "FittedTable" != type(_render_board(ALL, 100)[1]).__name__
    wide = board(replace(BASE, score=Interval(1e6, 1e6, 1e6 + 1, 6)), BETTER, WORSE)  # 24 columns for 12, in 96
    kinds = [type(_render_board(wide, width)[1]).__name__ for width in (107, 108)]
    assert kinds == ["FittedTable", "Table"]
    free = board(
        replace(wide.rows[0], agent="twelve chars"), replace(BETTER, agent="b", cost=replace(BETTER.cost, usd=0.0))
    )
    kinds = [type(_render_board(free, width)[1]).__name__ for width in (103, 104)]  # 12 for the name, 92 for the rest
    assert kinds == ["FittedTable", "Table"]
    narrow: Any = _render_board(replace(ALL, rows=(replace(BASE, agent="abcdefghijklmnopq"), BETTER, WORSE)), 100)[1]
    assert narrow.columns[0]._cells[0].plain == "abcdefghijk\nlmnopq\n◆ frontier", "8 columns, and 3 that are left"
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard", no_color=False)
    console.print(render([ALL]))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[32m" in drawn and "\x1b[31m" in drawn


def test_a_board_as_json_has_its_rows_shares_and_conclusions() -> None:
    body = ALL.to_json()
    rows = body.pop("rows")
    assert body == {
        "benchmark": "sums", "metric": "exact", "tasks": 6, "epochs": 2, "baseline": "base", "budget": 2000.0,
        "frontier": ["worse", "base", "better:a,b(c)-of-a-long-name"], "findings": FOUND, "caveats": CAUTION,
        "protocol": "as it is", "reduce": "mean", "lower_is_better": False, "other_names": {},
    }  # fmt: skip
    assert rows[0] == {
        "agent": "better:a,b(c)-of-a-long-name",
        "score": {"value": 0.75, "low": 0.625, "high": 1.0, "n": 6, "method": "t", "error": 0.1},
        "versus": {
            "difference": 0.5, "low": 0.2, "high": 0.8, "p_value": 0.004, "n": 6, "better": 4, "worse": 1, "same": 1,
            "verdict": "better", "detectable": 0.3125, "method": "Tango", "clusters": 0,
        },
        "cost": {
            "prompt_tokens": 2000.0, "cached_tokens": 340.5, "completion_tokens": 1400.0, "seconds_mean": 75.0,
            "seconds_median": 62.0, "calls": 7.5, "usd": 0.034, "seconds_path": 40.0,
        },
        "attempts": 12, "errors": 2, "stopped": 3, "retried": {"attempts": 0, "most": 0},
        "secondary": {
            "length": {"value": 2.5, "low": 2.0, "high": 3.0, "n": 6, "method": "", "error": None},
            "spread\x1b": {"value": 0.5, "low": None, "high": None, "n": 6, "method": "none", "error": None},
        },
        "share": 1.7,
    }  # fmt: skip
    assert (rows[1]["versus"], rows[1]["share"], rows[2]["share"]) == (None, 0.06, 0.04)
    assert board(BASE).to_json()["rows"][0]["share"] is None and ALL.row("nobody") is None and ALL.row("base") == BASE
    assert findings(board(BETTER, baseline="gone")) == [], "without the baseline's row nothing is compared"


def test_the_caveats_of_a_board_each_where_it_applies() -> None:
    def interval(method: str, clusters: int = 0) -> Interval:
        return Interval(0.5, 0.25, 0.75, 6, method, 0.1, clusters)

    grouped = replace(BASE, score=interval("stratified BCa bootstrap", 3))
    assert caveats(board(grouped, replace(WORSE, versus=None, score=interval("t", 1), errors=1), reduce="max")) == [
        "Its tasks fall into 3 clusters, which CIs and tests account for.",
        "Its tasks are of fixed strata: CIs and tests have the variance within them.",
        "The attempts at a task are reduced by max.",
        "exact is a corpus-level figure, with bootstrap CIs.",
        "Errors: 1 attempt failed or could not be scored. Each counts as 0 in a mean, and in a figure as an empty answer or "
        "not at all; one without a verdict of its judge is left out.",
        "Brackets are 95% CIs of the true score on tasks like these.",
    ]
    assert caveats(board(BASE, tasks=1)) == ["Brackets are 95% CIs of the true score on tasks like this one."]
    assert caveats(board(BASE, tasks=2)) == ["Brackets are 95% CIs of the true score on tasks like these."]
    unknown = replace(WORSE, versus=replace(WORSE.versus, detectable=math.nan))  # type: ignore[type-var]
    assert caveats(board(BASE, unknown))[0] == (
        "Underpowered: with 6 tasks no difference is detectable with 80% power; run more."
    )
    assert caveats(board(BASE, unknown, replace(BETTER, errors=0)))[0].startswith(
        "Minimum detectable effect with 6 tasks: 0.31"
    )
    near = board(BASE, WORSE, budget=109.2)  # 109.9 %, and 73.3 %
    assert caveats(near)[-1] == "More than 10% off the budget, by share used: worse (73%)."
    assert len(caveats(board(BASE, replace(WORSE, cost=BASE.cost), budget=120.0))) == 2
    assert caveats(board(BASE, WORSE, metric="", budget=1.0)) == ["Nothing was scored."]


# -- how a board is made --


def made(agent: str, task: str, value: float | None, tokens: int = 10, *, epoch: int = 0, **more: Any) -> Any:
    calls = (Call(":0", "generate", None, 0.0, 0.5, "", Usage(tokens, tokens // 5, 2 * tokens, 0.25)),)
    more.setdefault("calls", calls)
    return trace(f"{agent}{task}{epoch}", task, value, agent=agent, epoch=epoch, **more)


def test_values_are_in_the_order_of_epochs_and_failures_count_as_0_but_for_absent_judges() -> None:
    away = (Score("s", 1.0, failure="away", unjudged=True),)
    attempts = [
        made("a", "u", 0.5, epoch=2), made("a", "t", 0.25), made("a", "u", 1.0, epoch=0), made("a", "u", None, epoch=1),
        made("a", "v", 1.0, scores=away), made("a", "t", 1.0, epoch=1, scores=away, error=Failure("Gone", "x")),
        made("a", "w", 1.0, scores=(Score("s", 1.0, failure="broken"),)), made("a", "x", 1.0, scores=(Score("t", 1.0),)),
    ]  # fmt: skip
    expected = {"u": [1.0, 0.0, 0.5], "t": [0.25, 0.0], "w": [0.0], "x": [0.0]}
    assert _values(attempts, "s") == expected == _values(map(AttemptSummary.of, attempts), "s")
    assert list(_values(attempts, "s")) == ["u", "t", "w", "x"]


def test_a_row_counts_errors_and_limits_and_averages_costs() -> None:
    attempts = [
        AttemptSummary.of(each)
        for each in (
            made("a", "t", 1.0, 10, stop_reason="tokens"), made("a", "u", None, 20, stop_reason="error"),
            made("a", "v", 1.0, 60, scores=(Score("s", 1.0), Score("z", 1.0, failure="broken"))),
            made("a", "w", None, 30, stop_reason="calls"), made("a", "x", 0.5, 5, calls=(), stop_reason="error"),
        )
    ]  # fmt: skip
    attempts = [replace(each, duration_s=float(n * n), critical_s=n / 2) for n, each in enumerate(attempts)]
    assert cost_of(attempts) == Cost(24.0, 4.8, 48.0, 6.0, 4.0, 0.8, 0.2, 1.0)
    values, others = {"t": [1.0], "u": [0.5]}, {"w": {"t": [0.25]}}
    passes = {"pass@2": Interval(0.5, 0.0, 1.0, 2)}
    found = _row("a", attempts, values, BETTER.versus, others, passes, {"t": "c", "u": "c"})
    assert same(found, Row(
        "a", found.score, BETTER.versus, cost_of(attempts), 5, 3, 1,
        {"w": mean_interval({"t": [0.25]}), "pass@2": passes["pass@2"]}, left_out=2,
    ))  # fmt: skip
    assert (found.score.value, found.score.clusters) == (0.75, 1)


def test_an_arena_s_battles_are_no_epochs_and_one_agent_is_the_baseline() -> None:
    attempts = {
        agent: [replace(made(agent, task, 0.0, 10, epoch=at), scores=()) for at, task in enumerate("tuvt")] for agent in "ab"
    }  # fmt: skip
    found = _board("arena", attempts, None, None, None, None, "mean")
    assert (found.metric, found.tasks, found.epochs) == ("", 3, 2), "prompt t had two battles"
    once = _board("arena", {agent: each[:3] for agent, each in attempts.items()}, None, None, None, None, "mean")
    assert once.epochs == 1
    for column, told in (("vs. baseline", "(baseline)"), ("vs. cheapest", "(cheapest)")):
        assert [_cells(row, found)[column] for row in found.rows] == [told, "-"]


def test_pass_at_k_is_for_each_k_up_to_eight_and_doubles_beyond() -> None:
    values = {"t": [1.0, 0.0, 0.0], "u": [1.0, 1.0, 1.0, 0.0]}
    found = _passes(values, {"t": "c", "u": "c"})
    assert {name: each.value for name, each in found.items()} == pytest.approx({
        "pass@2": (1 - 1 / 3 + 1) / 2, "pass@3": 1.0, "pass^2": (0 + 3 / 6) / 2, "pass^3": (0 + 1 / 4) / 2,
    })  # fmt: skip
    assert found["pass@2"].clusters == 1 and list(found) == ["pass@2", "pass@3", "pass^2", "pass^3"]
    assert _passes({"t": [1.0], "u": [1.0, 0.0]}, None) == {} == _passes({"t": [0.5, 1.0]}, None) == _passes({}, None)
    ks = [name[5:] for name in _passes({"t": [1.0] * 11}, None) if name[4] == "@"]
    assert ks == ["2", "4", "8", "11"]
    assert [name for name in _passes({"t": [1.0] * 8}, None) if "@" in name][-2:] == ["pass@7", "pass@8"]
    assert [name[5:] for name in _passes({"t": [1.0] * 16}, None) if name[4] == "^"] == ["2", "4", "8", "16"]


def test_agents_are_compared_to_the_baseline_of_their_board_and_ranked() -> None:
    attempts = {
        "a": [made("a", task, value, 30) for task, value in zip("tuvy", (1.0, 0.0, 0.5, 0.5), strict=True)],
        "b": [made("b", task, value, 10, epoch=3) for task, value in zip("tuvw", (1.0, 1.0, 0.25, 0.5), strict=True)],
    }
    values = {agent: _values(each, "s") for agent, each in attempts.items()}
    clusters = {"t": "c", "u": "c"}
    found = _board("b", attempts, None, None, clusters, None, "mean")
    assert (found.benchmark, found.metric, found.tasks, found.epochs, found.baseline) == ("b", "s", 5, 2, "a")
    assert [each.agent for each in found.rows] == ["b", "a"] and (found.budget, found.reduce) == (None, "mean")
    assert found.rows[0].versus == compare_to_baseline({"b": values["b"]}, values["a"], clusters=clusters)["b"]
    assert found.rows[1].versus is None and found.rows[1].score == mean_interval(values["a"], clusters=clusters)
    assert _board("b", attempts, "b", None, None, None, "mean").baseline == "b"
    assert _board("b", attempts, "gone", None, None, None, "mean").baseline == "a"
    cheap = _board("b", attempts, None, 50.0, None, None, "mean")
    assert (cheap.baseline, cheap.budget) == ("b", 50.0), "the cheapest of those with equal budgets"
    twice = {"a": [*attempts["a"], made("a", "t", 0.25, epoch=1)]}
    best = _board("b", twice, None, None, None, None, "max")
    assert best.rows[0].score.value == (1.0 + 0.0 + 0.5 + 0.5) / 4 and best.reduce == "max"
    flips = {
        "a": [made("a", "t", 1.0), made("a", "t", 0.0, epoch=1), made("a", "u", 0.0), made("a", "u", 0.0, epoch=1)]
    }
    reduced = _board("b", flips, None, None, clusters, None, "max").rows[0]
    assert (reduced.score.value, reduced.score.clusters, list(reduced.secondary)) == (0.5, 1, ["pass@2", "pass^2"])
    assert [each.value for each in reduced.secondary.values()] == [0.5, 0.0] and reduced.secondary[
        "pass@2"
    ].clusters == 1
    unscored = _board("b", {"a": [made("a", "t", 1.0, scores=())]}, None, None, None, None, "mean")
    assert unscored.metric == "" and unscored.rows[0].score.n == 0 and unscored.rows[0].secondary == {}
    high, low, none = (
        row("x", 0.5, BASE.cost),
        row("y", 0.25, BASE.cost),
        replace(BASE, score=Interval(math.nan, 0, 1, 0)),
    )
    assert sorted([none, low, high], key=lambda each: _rank(each, False)) == [high, low, none]
    assert sorted([none, high, low], key=lambda each: _rank(each, True)) == [low, high, none]


def test_a_corpus_figure_takes_the_place_of_the_first_score_and_has_no_pass_at_k() -> None:
    def share(agent: str, task: str, right: int, of: int) -> Any:
        scores = (Score("s", float(right > 1), figure_detail("share", (right, of))), Score("ok", float(right > 0)))
        return made(agent, task, 1.0, scores=scores)

    attempts = {
        "a": [share("a", "t", 1, 2), share("a", "u", 0, 6)] * 2,  # two attempts at each task
        "b": [share("b", "t", 2, 2), share("b", "u", 3, 6)] * 2,
    }
    found = _board("b", attempts, None, None, None, None, "mean")
    assert [(each.agent, each.score.value, list(each.secondary)) for each in found.rows] == [
        ("b", 5 / 8, ["ok"]), ("a", 1 / 8, ["ok"]),
    ]  # fmt: skip
    assert "bootstrap" in found.rows[0].score.method and found.rows[0].versus is not None
    assert found.rows[0].versus.difference == pytest.approx(0.5)


def test_leaderboards_take_what_each_benchmark_has_of_its_own() -> None:
    attempts = [
        made("a", "t", 1.0, benchmark="x"), made("b", "t", 0.0, benchmark="x"), made("b", "t", 0.5, benchmark="y"),
        made("c", "t", 1.0, benchmark="y"), made("b", "t", 1.0, benchmark="y", epoch=1),
        made("b", "u", 1.0, benchmark="y"), made("c", "u", 1.0, benchmark="y"),
    ]  # fmt: skip
    first, second = leaderboard(
        attempts, baseline="c", budget=7.0, order=["c", "b"], protocols={"y": "p"}, reducers={"y": "max"},
        clusters={"y": {"t": "g", "u": "g"}},
    )  # fmt: skip
    assert [each.score.clusters for each in second.rows] == [1, 1] and first.rows[0].score.clusters == 0
    assert (first.benchmark, first.baseline, first.protocol, first.reduce, first.budget) == ("x", "b", "", "mean", 7.0)
    assert (second.benchmark, second.baseline, second.protocol, second.reduce) == ("y", "c", "p", "max")
    assert [(each.agent, each.score.value) for each in second.rows] == [("c", 1.0), ("b", 1.0)]
    assert isinstance(first, Board) and leaderboard([]) == []
    assert [each.baseline for each in leaderboard(attempts)] == ["a", "b"]
    for given, hint in ((attempts, " did you mean 'c'?"), ([], "")):
        with pytest.raises(UnknownName) as refused:
            leaderboard(given, baseline="cc")
        assert str(refused.value) == f"no agent 'cc';{hint} `firsthand show RUN` shows all", (
            "no attempts at all as well"
        )
