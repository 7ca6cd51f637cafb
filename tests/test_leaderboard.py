"""A board is counted right from traces, says what can be concluded, and fits a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from firsthand.errors import UnknownName
from firsthand.model import Usage
from firsthand.show.board import caveats, findings, leaderboard
from firsthand.show.board_table import render, render_text
from firsthand.show.board_words import amount, p_text, seconds
from firsthand.trace import Call, Failure, Score, Trace


def attempt(agent, task, value, *, benchmark="sums", epoch=0, tokens=(100, 20), seconds_taken=2.0, **changes):
    """A finished attempt of one call."""
    usage = Usage(tokens[0], changes.pop("cached", 0), tokens[1], changes.pop("usd", 0.0))
    call = Call("0:0", "generate", None, 0.0, seconds_taken, "00", usage)
    extra = changes.pop("extra", ())
    scores = () if value is None else (Score("exact", value), *extra)
    return Trace(
        id=f"{agent}-{task}-{epoch}", benchmark=benchmark, task_id=str(task), agent={"name": agent}, epoch=epoch, seed=0,
        started_at="2026-11-25T00:00:00Z", duration_s=seconds_taken, calls=(call,), scores=scores, **changes,
    )  # fmt: skip


def two_agents():
    weak = [attempt("direct", i, float(i < 12)) for i in range(40)]
    strong = [attempt("cot", i, float(i < 30), tokens=(150, 330), seconds_taken=3.0) for i in range(40)]
    return weak + strong


def test_rows_are_ranked_and_compared_to_the_first_agent():
    (board,) = leaderboard(two_agents())
    assert [row.agent for row in board.rows] == ["cot", "direct"]
    assert (board.benchmark, board.metric, board.tasks, board.epochs, board.baseline) == (
        "sums",
        "exact",
        40,
        1,
        "direct",
    )
    best, first = board.rows
    assert best.score.value == 0.75 and first.versus is None
    assert (
        best.versus.verdict == "better" and best.versus.better == 18 and best.versus.difference == pytest.approx(0.45)
    )
    assert best.cost.tokens == 480 and best.cost.calls == 1 and best.cost.seconds_median == 3.0
    assert findings(board) == ["cot: better than direct by 0.45 (0.75 vs. 0.30, p<0.001), for 4.0x its tokens."]


def test_a_baseline_without_tokens_gives_no_ratio():
    free = [attempt("bm25", i, float(i < 12), tokens=(0, 0)) for i in range(40)]
    dear = [attempt("rerank", i, float(i < 30), tokens=(150, 330)) for i in range(40)]
    (board,) = leaderboard(free + dear)
    assert findings(board) == ["rerank: better than bm25 by 0.45 (0.75 vs. 0.30, p<0.001); bm25 reports no tokens."]
    (board,) = leaderboard(free + [attempt("dense", i, float(i < 12), tokens=(0, 0)) for i in range(40)])
    assert findings(board) == ["dense: inconclusive vs. bm25 (0.30 vs. 0.30, p=1.000)."]


def test_the_baseline_can_be_chosen_and_an_unknown_one_is_refused():
    (board,) = leaderboard(two_agents(), baseline="cot")
    assert board.row("direct").versus.verdict == "worse"
    with pytest.raises(UnknownName, match="did you mean 'direct'"):
        leaderboard(two_agents(), baseline="dirct")


def test_a_baseline_that_is_named_in_the_order_and_attempted_nothing_is_unknown():
    with pytest.raises(UnknownName, match="'react'"):
        leaderboard(two_agents(), baseline="react", order=["react", "cot", "direct"])
    other = [attempt("react", 0, 1.0, benchmark="words")]
    boards = leaderboard(two_agents() + other, baseline="react", order=["react", "cot", "direct"])
    assert [(board.benchmark, board.baseline) for board in boards] == [("sums", "cot"), ("words", "react")]
    (board,) = leaderboard(two_agents(), order=["react", "cot", "direct"])
    assert board.baseline == "cot"


def test_an_errored_attempt_scores_zero_and_is_counted():
    traces = [
        attempt("a", 0, 1.0),
        attempt("a", 1, 1.0, error=Failure("ModelError", "gone"), stop_reason="error"),
        attempt("a", 2, None, error=Failure("ModelError", "gone"), stop_reason="error"),
        attempt("a", 3, 0.0, stop_reason="tokens"),
        attempt("a", 4, float("nan")),
    ]
    (row,) = leaderboard(traces)[0].rows
    assert (row.score.value, row.score.n, row.errors, row.stopped) == (0.2, 5, 2, 1)


def test_epochs_are_averaged_within_the_task():
    traces = [attempt("a", task, float((task + epoch) % 2), epoch=epoch) for task in range(10) for epoch in range(4)]
    (board,) = leaderboard(traces)
    assert board.epochs == 4 and board.rows[0].score.n == 10 and board.rows[0].attempts == 40


def test_each_benchmark_has_its_board_and_other_scores_are_kept():
    traces = [attempt("a", 0, 1.0, extra=(Score("strict", 0.0),)), attempt("a", 0, 0.5, benchmark="words")]
    sums, words = leaderboard(traces)
    assert sums.rows[0].secondary["strict"].value == 0.0 and words.benchmark == "words"
    assert "strict 0.00" in render_text([sums])


def test_several_comparisons_are_corrected_and_it_says_so():
    third = [attempt("react", i, float(i < 17)) for i in range(40)]
    (alone,) = leaderboard([*two_agents()[:40], *third])
    (board,) = leaderboard(two_agents() + third)
    assert alone.row("react").versus.p_value <= board.row("react").versus.p_value
    assert "Holm" in " ".join(caveats(board)) and "Holm" not in " ".join(caveats(alone))
    assert "Minimum detectable effect with 40 tasks: 0." in caveats(board)[0]


def test_the_text_fits_a_hundred_columns_and_holds_no_control_characters():
    hostile = [attempt("evil\x1b[31m[red]" + "x" * 60, i, 1.0, tokens=(123456, 99999), cached=5000, usd=0.0123,
                       seconds_taken=1234.5, stop_reason="seconds") for i in range(40)]  # fmt: skip
    text = render_text(leaderboard(two_agents() + hostile))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "\x1b" not in text and "[red]" in text
    for shown in (
        "0.75",
        "[0.60, 0.86]",
        "+0.45",
        "better",
        "p<0.001",
        "480",
        "3.0 s",
        "$0.012",
        "40 limit",
        "(baseline)",
    ):
        assert shown in text


@pytest.mark.parametrize("width", [40, 60, 80, 90, 100, 140])
def test_a_narrow_terminal_loses_no_agent_and_no_figure(width):
    text = render_text(leaderboard(two_agents()), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    for shown in ("[0.60, 0.86]", "+0.45", "better", "480", "errors", "calls", "seconds"):
        assert shown in text
    for row in leaderboard(two_agents())[0].rows:
        assert any(line.startswith(row.agent) for line in text.splitlines())


def test_cells_that_are_wider_than_usual_cost_no_column():
    (board,) = leaderboard(two_agents())
    rows = []
    for row in board.rows:
        cost = replace(row.cost, seconds_median=99.4, seconds_mean=88.8, seconds_path=88.8)
        rows.append(replace(row, agent="self_consistency:samples=20", cost=cost, errors=987_654_321_098_765_432))
    text = render_text([replace(board, rows=tuple(rows), budget=1600.0)], width=100)
    assert max(map(len, text.splitlines())) <= 100 and text.count("987654321098765432") == 2


def test_better_is_green_and_worse_is_red():
    console = Console(width=100, color_system="standard", force_terminal=True)
    with console.capture() as captured:
        console.print(render(leaderboard(two_agents())))
    assert "\x1b[32mbetter" in captured.get() and "\x1b[31m" not in captured.get()


def test_boards_are_plain_json_even_with_nothing_scored():
    boards = leaderboard([attempt("a", 0, None), attempt("b", 1, None)])
    assert json.loads(json.dumps([board.to_json() for board in boards], allow_nan=False))[0]["metric"] == ""
    assert [row.to_json()["score"]["value"] for board in boards for row in board.rows] == [None, None]
    shown = render_text(boards)
    assert "Nothing was scored." in shown and "0.00" not in shown and " - " in shown
    assert leaderboard([]) == [] and render_text([]).strip() == ""


def test_agents_that_share_no_task_are_not_compared():
    (board,) = leaderboard([attempt("a", 0, 1.0), attempt("b", 1, 0.0)])
    assert board.row("b").versus.n == 0 and "inconclusive" in render_text([board])
    json.dumps(board.to_json(), allow_nan=False)


def test_numbers_are_short_and_never_rounded_across_a_border():
    assert [amount(x) for x in (0, 7.46, 340.2, 999.6, 1234, 123456, 3.4e6)] == [
        "0", "7.5", "340", "1.0k", "1.2k", "123k", "3.4M",
    ]  # fmt: skip
    assert [seconds(x) for x in (0.0123, 1.44, 186)] == ["12 ms", "1.4 s", "3.1 min"]
    assert p_text(0.04999) == "p=0.049990" and p_text(0.0004) == "p<0.001"


@pytest.mark.slow
def test_importing_the_judges_does_not_import_what_is_heavy():
    code = "import sys, firsthand.show.html_report, firsthand.show.board, firsthand.show.board_table; print([m for m in ('scipy', 'numpy', 'rich', 'torch', 'jinja2') if m in sys.modules])"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
