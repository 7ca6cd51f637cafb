"""A small board worked out by hand: every number of its rows, its table in three widths, and its sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.benchmark import Figure
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.show.agent_cost import Cost
from firsthand.show.board import Board, Row, attempts_of, caveats, finding, leaderboard, reducers_of
from firsthand.show.board_table import render_text
from firsthand.show.board_words import figure_text
from firsthand.stats.figure_stats import NO_INTERVAL
from firsthand.stats.figures import slow_figure
from firsthand.stats.intervals import Interval
from firsthand.stats.paired import PairedDifference
from firsthand.trace import Call, Failure, Score, Trace


def attempt(
    agent: str, task: int, epoch: int, scores: tuple[Score, ...], usage: Usage, seconds: float, *, calls: int = 1,
    error: str = "", stop: str = "done",
) -> Trace:  # fmt: skip
    """An attempt whose calls follow one another and take four fifths of its time."""
    each = 0.8 * seconds / calls
    made = tuple(
        Call(f"0:{n}", "generate", None, n * each, each, "", usage if n == 0 else Usage()) for n in range(calls)
    )
    failed = Failure("ModelError", error) if error else None
    return Trace(
        f"{agent}-{task}-{epoch}", "sums", f"t{task}", {"name": agent}, epoch, 0, "", seconds,
        calls=made, scores=scores, error=failed, stop_reason="error" if error else stop,
    )  # fmt: skip


def attempts() -> list[Trace]:
    """Direct solves t0 and t1 in epoch 0 alone; cot all but t5; late did not try t3, failed at t1, and was not judged."""
    made = []
    for n in range(6):
        for epoch in (1, 0):
            right = Score("exact", float(n < 2 and epoch == 0)), Score("length", n / 4)
            made.append(attempt("direct", n, epoch, right, Usage(100, 0, 20), 1.0 + n * n))
            solved = Score("exact", float(n < 5)), Score("length", n / 8)
            stop = "tokens" if n == 0 else "done"
            made.append(attempt("cot", n, epoch, solved, Usage(200, 40, 100, 0.02), 2.0 + n * n, calls=2, stop=stop))
            late = {
                1: (),
                2: (Score("exact", 1.0, failure="the judge is away", unjudged=epoch == 1),),
            }.get(n, (Score("exact", 1.0),))
            if n != 3:
                error = "gone" if n == 1 else ""
                made.append(attempt("late", n, epoch, late, Usage(50, 0, 1250, 0.001), 0.1, calls=3, error=error))
    return made


def test_every_number_of_a_row_is_that_of_its_agent() -> None:
    """Durations are 1, 2, 5, 10, 17 and 26 s, or a second more; a failure of the scorer counts as 0 unless unjudged."""
    [board] = leaderboard(attempts(), order=["direct", "late"], protocols={"sums": "asked twice"})
    assert (board.benchmark, board.metric, board.tasks, board.epochs, board.baseline) == (
        "sums", "exact", 6, 2, "direct",
    )  # fmt: skip
    assert (board.protocol, board.reduce, board.budget) == ("asked twice", "mean", None)
    shown = {
        row.agent: (round(row.score.value, 4), row.score.n, row.attempts, row.errors, row.stopped) for row in board.rows
    }
    assert shown == {
        "cot": (0.8333, 6, 12, 0, 2),
        "late": (0.6, 5, 10, 4, 0),
        "direct": (0.1667, 6, 12, 0, 0),
    }
    assert list(shown) == ["cot", "late", "direct"]
    costs = {row.agent: row.cost for row in board.rows}
    assert costs["direct"] == Cost(100, 0, 20, pytest.approx(61 / 6), 7.5, 1, 0, pytest.approx(0.8 * 61 / 6))
    assert costs["cot"] == Cost(
        200, 40, 100, pytest.approx(67 / 6), 8.5, 2, pytest.approx(0.02), pytest.approx(0.8 * 67 / 6)
    )
    assert costs["late"].tokens == 1300 and costs["late"].calls == 3
    secondary = {row.agent: {name: round(each.value, 4) for name, each in row.secondary.items()} for row in board.rows}
    assert secondary == {
        "cot": {"length": 0.3125, "pass@2": 0.8333, "pass^2": 0.8333},
        "late": {"length": 0.0},
        "direct": {"length": 0.625, "pass@2": 0.3333, "pass^2": 0.0},
    }
    versus = {row.agent: row.versus for row in board.rows}
    assert versus["direct"] is None and versus["cot"] is not None and versus["late"] is not None
    assert (versus["cot"].n, versus["cot"].better, versus["cot"].worse, versus["cot"].same) == (6, 5, 0, 1)
    assert versus["cot"].p_value == pytest.approx(2 * 2 / 2**5), "five gains of five, two-sided, times two comparisons"
    assert (versus["late"].n, versus["late"].better, versus["late"].worse, versus["late"].same) == (5, 3, 1, 1)
    assert board.frontier == ("direct", "cot")
    body = board.to_json()
    assert body["rows"][1]["agent"] == "late" and body["rows"][1]["cost"]["completion_tokens"] == 1250
    assert body["rows"][0]["share"] is None and body["rows"][2]["versus"] is None
    assert {key: body[key] for key in ("benchmark", "metric", "tasks", "epochs", "baseline", "protocol", "reduce")} == {
        "benchmark": "sums", "metric": "exact", "tasks": 6, "epochs": 2, "baseline": "direct",
        "protocol": "asked twice", "reduce": "mean",
    }  # fmt: skip
    assert body["findings"] == [
        "cot: inconclusive vs. direct (0.83 vs. 0.17, p=0.125), for 2.5x its tokens.",
        "late: inconclusive vs. direct (0.60 vs. 0.17, p=0.375), for 10.8x its tokens.",
    ]
    assert body["caveats"] == caveats(board) == [
        "No tokens were reported of 12 model calls of cot, 20 model calls of late: they count as 0, so the cost is higher.",
        "Errors: 4 attempts failed or could not be scored. Each counts as 0; one without a verdict of its judge is left "
        "out.",
        "Minimum detectable effect with 6 tasks: 0.90 (80% power).",
        "Each agent is compared to the baseline direct on the tasks both attempted, with 95% CIs, which hold jointly "
        "(Bonferroni). P-values are Holm-corrected for 2 comparisons.",
    ]  # fmt: skip


def test_summaries_give_the_same_board_and_agents_keep_the_order_they_were_named_in() -> None:
    traces = attempts()
    assert leaderboard(map(AttemptSummary.of, traces)) == leaderboard(traces)
    assert [board.baseline for board in leaderboard(traces)] == ["direct"]
    assert [board.baseline for board in leaderboard(traces, order=["nobody", "late", "direct"])] == ["late"]
    other = replace(traces[1], benchmark="words", id="other")
    both = leaderboard([*traces, other], baseline="late")
    assert [(board.benchmark, board.baseline) for board in both] == [("sums", "late"), ("words", "cot")]


def test_a_table_has_each_cell_under_its_heading() -> None:
    text = render_text(leaderboard(attempts(), order=["direct", "late"]))
    assert [line.rstrip() for line in text.split("\n")][:11] == [
        "sums: exact, 6 tasks, 2 epochs",
        "agent          score    vs. baseline  verdict       tokens/task     seconds  calls    cost   errors",
        "───────────────────────────────────────────────────────────────────────────────────────────────────",
        "cot             0.83           +0.67  inconclusive          300       8.5 s      2   $0.02        0",
        "        [0.44, 0.97]  [+0.00, +1.00]  p=0.125            200 in  avg 11.2 s                 2 limit",
        "                                                      40 cached",
        "",
        "late            0.60           +0.40  inconclusive         1.3k      100 ms      3  $0.001        4",
        "        [0.23, 0.88]  [-0.62, +1.00]  p=0.375             50 in  avg 100 ms",
        "direct          0.17      (baseline)                        120       7.5 s      1       -        0",
        "        [0.03, 0.54]                                     100 in  avg 10.2 s",
    ]
    assert text.count("Also measured") == 1
    assert "cot: length 0.31 [0.06, 0.62], pass@2 0.83 [0.44, 0.97], pass^2 0.83 [0.44, 0.97]\n" in text


def test_with_a_budget_shares_are_shown_and_the_cheapest_is_the_baseline() -> None:
    boards = leaderboard(attempts(), budget=400.0, order=["cot"])
    [board] = boards
    assert (board.baseline, board.budget) == ("direct", 400.0)
    assert [board.share(row) for row in board.rows] == [0.75, 3.25, 0.3]
    assert [row["share"] for row in board.to_json()["rows"]] == [0.75, 3.25, 0.3]
    assert caveats(board)[-1] == "More than 10% off the budget, by share used: cot (75%), late (325%), direct (30%)."
    text = render_text(boards, width=60)
    assert [line.rstrip() for line in text.split("\n")][:14] == [
        "sums: exact, 6 tasks, 2 epochs, 400 tokens each",
        "agent              score    vs. cheapest  verdict",
        "──────────────────────────────────────────────────────",
        "cot                 0.83           +0.67  inconclusive",
        "◆ frontier  [0.44, 0.97]  [+0.00, +1.00]  p=0.125",
        "  tokens/task 300, 200 in, 40 cached, 75% used",
        "  seconds 8.5 s, avg 11.2 s, path 8.9 s · calls 2",
        "  cost $0.02 · errors 0, 2 limit",
        "",
        "late                0.60           +0.40  inconclusive",
        "            [0.23, 0.88]  [-0.62, +1.00]  p=0.375",
        "  tokens/task 1.3k, 50 in, 325% used",
        "  seconds 100 ms, avg 100 ms, path 80 ms · calls 3",
        "  cost $0.001 · errors 4",
    ]
    near = leaderboard(attempts(), budget=320, order=["cot"])[0]
    assert "cot" not in caveats(near)[-1].split(":")[1], "94% of the budget is near enough"


def row(
    agent: str, value: float, *, tokens: float = 10.0, versus: PairedDifference | None = None, method: str = "t", n: int = 4,
    clusters: int = 0, errors: int = 0,
) -> Row:  # fmt: skip
    score = Interval(value, value - 0.1, value + 0.1, n, method, clusters=clusters)
    return Row(agent, score, versus, Cost(tokens, 0, 0, 1, 1, 1, 0), 4, errors, 0)


def difference(value: float, p_value: float, verdict: str, detectable: float = 0.3) -> PairedDifference:
    return PairedDifference(value, value - 0.2, value + 0.2, p_value, 4, 3, 1, 0, verdict, detectable)  # type: ignore[arg-type]


def test_a_finding_says_verdict_difference_scores_and_price() -> None:
    first = row("base", 0.5)
    assert finding(row("b", 0.8, tokens=25, versus=difference(0.3, 0.01, "better")), first) == (
        "b: better than base by 0.30 (0.80 vs. 0.50, p=0.010), for 2.5x its tokens."
    )
    assert finding(row("b", 0.2, tokens=0, versus=difference(-0.3, 0.01, "worse")), first) == (
        "b: worse than base by 0.30 (0.20 vs. 0.50, p=0.010); b reports no tokens."
    )
    free = row("base", 0.5, tokens=0)
    assert finding(row("b", 0.6, tokens=3, versus=difference(0.1, 0.5, "inconclusive")), free) == (
        "b: inconclusive vs. base (0.60 vs. 0.50, p=0.500); base reports no tokens."
    )
    assert finding(row("b", 0.6, tokens=0, versus=difference(0.1, 0.5, "inconclusive")), free).endswith("p=0.500).")
    unknown = finding(row("b", math.nan, tokens=3, versus=difference(math.nan, 1.0, "inconclusive")), free)
    assert unknown == "b: unknown vs. base; base reports no tokens."


def test_the_limits_of_a_board_are_said_where_they_apply() -> None:
    def board(*rows: Row, metric: str = "exact", tasks: int = 4, reduce: str = "mean") -> Board:
        return Board("sums", metric, tasks, 1, "base", rows, reduce=reduce)

    assert caveats(board(row("base", 0.5), metric="")) == ["Nothing was scored."]
    assert caveats(board(row("base", 0.5))) == ["Brackets are 95% CIs of the true score on tasks like these."]
    assert caveats(board(row("base", 0.5, clusters=1, errors=1), row("b", 0.5, clusters=3, method="stratified t",
                                                                    errors=2), tasks=1, reduce="max")) == [
        "Its tasks fall into 3 clusters, which CIs and tests account for.",
        "Its tasks are of fixed strata: CIs and tests have the variance within them.",
        "The attempts at a task are reduced by max.",
        "Errors: 3 attempts failed or could not be scored. Each counts as 0; one without a verdict of its judge is left "
        "out.",
        "Brackets are 95% CIs of the true score on tasks like this one.",
    ]  # fmt: skip
    boot = row("base", 0.5, method="BCa bootstrap")
    versus = row("b", 0.6, versus=difference(0.1, 0.5, "inconclusive", 0.2))
    assert caveats(board(boot, versus)) == [
        "exact is a corpus-level figure, with bootstrap CIs.",
        "Minimum detectable effect with 4 tasks: 0.20 (80% power).",
        "Each agent is compared to the baseline base on the tasks both attempted, with 95% CIs.",
    ]
    least = row("c", 0.6, versus=difference(0.1, 0.5, "inconclusive", 1.0))
    assert caveats(board(row("base", 0.5), least))[0] == (
        "Underpowered: with 4 tasks no difference is detectable with 80% power; run more."
    )
    unknown = row("c", 0.6, versus=difference(0.1, 0.5, "inconclusive", float("inf")))
    assert caveats(board(row("base", 0.5), unknown, versus))[0].startswith(
        "Minimum detectable effect with 4 tasks: 0.20"
    )


def test_more_than_eight_attempts_are_shown_at_doubling_numbers() -> None:
    def passes(epochs: int) -> list[str]:
        made = [
            attempt("a", task, epoch, (Score("exact", float(epoch == 0)),), Usage(1, 0, 1), 1.0)
            for task in range(2)
            for epoch in range(epochs)
        ]
        return list(leaderboard(made)[0].rows[0].secondary)

    assert passes(1) == []
    assert passes(8) == [f"pass{sign}{k}" for sign in "@^" for k in range(2, 9)]
    assert passes(9) == [f"pass{sign}{k}" for sign in "@^" for k in (2, 4, 8, 9)]
    assert passes(16) == [f"pass{sign}{k}" for sign in "@^" for k in (2, 4, 8, 16)]


def test_a_figure_without_an_interval_has_no_brackets() -> None:
    figure = Interval(0.5, 0.25, 0.75, 4, "t")
    assert figure_text("f1", figure) == "f1 0.50 [0.25, 0.75]"
    assert figure_text("f1", replace(figure, method=NO_INTERVAL)) == "f1 0.50"


def test_a_failed_attempt_counts_as_0_though_its_score_was_not_judged() -> None:
    unjudged = (Score("exact", 1.0, failure="the judge is away", unjudged=True),)
    made = [
        attempt("a", 0, 0, (Score("exact", 1.0),), Usage(1, 0, 1), 1.0),
        attempt("a", 1, 0, unjudged, Usage(1, 0, 1), 1.0, error="gone"),
        attempt("a", 2, 0, unjudged, Usage(1, 0, 1), 1.0),
    ]
    [row] = leaderboard(made)[0].rows
    assert (row.score.value, row.score.n, row.errors, row.attempts) == (0.5, 2, 2, 3)


def test_reducers_and_traces_are_asked_of_the_run_benchmark_by_benchmark() -> None:
    traces = {trace.id: replace(trace, benchmark="sums" if trace.seed else "maps") for trace in attempts()[:1]}
    traces |= {"other": replace(attempts()[1], id="other", benchmark="words")}
    run: Any = SimpleNamespace(
        reducer=lambda benchmark, asked: f"{asked} of {benchmark}", benchmarks=lambda: ["maps", "words"],
        trace=traces.__getitem__, summaries=lambda: map(AttemptSummary.of, traces.values()),
    )  # fmt: skip
    assert reducers_of(run) == {"maps": "None of maps", "words": "None of words"}
    assert reducers_of(run, "max") == {"maps": "max of maps", "words": "max of words"}
    assert [type(each) for each in attempts_of(run)] == [AttemptSummary, AttemptSummary]
    found = attempts_of(run, {"words": lambda made: []})
    assert type(found[0]) is AttemptSummary and found[1] is traces["other"]


def test_figures_of_a_benchmark_read_its_traces_and_are_shown_of_agents_that_have_them() -> None:
    given: list[object] = []

    def own(made: Sequence[Trace]) -> list[Figure]:
        given.extend(made)
        tasks = tuple(sorted({each.task_id for each in made}))
        [agent] = {each.agent_name for each in made}
        return [slow_figure("share", tasks, lambda chosen: 0.25)] if agent != "late" else []

    traces = attempts()
    [board] = leaderboard(traces, figures={"sums": own, "other": lambda made: []})
    assert all(type(each) is Trace for each in given) and len(given) == len(traces)
    shown = {row.agent: row.secondary["share"].value if "share" in row.secondary else None for row in board.rows}
    assert shown == {"cot": 0.25, "direct": 0.25, "late": None}


def test_the_first_score_of_all_is_the_metric_and_clusters_widen_the_comparison() -> None:
    traces = attempts()
    [board] = leaderboard([replace(traces[0], scores=()), *traces[1:]])
    assert board.metric == "exact"
    [alone] = leaderboard([replace(each, scores=()) for each in traces])
    assert alone.metric == "" and alone.baseline == "direct" and {row.versus for row in alone.rows} == {None}
    groups = {f"t{n}": f"c{n // 2}" for n in range(6)}
    plain, clustered = leaderboard(traces)[0].rows[0], leaderboard(traces, clusters={"sums": groups})[0].rows[0]
    assert plain.versus is not None and clustered.versus is not None
    assert (plain.versus.clusters, clustered.versus.clusters) == (0, 3) and clustered.score.clusters == 3
