"""Boards and pages of unusual inputs: several settings at once, odd choices, wide characters, grids at their limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from boards_by_hand import BASE, BETTER, WORSE, board, row
from firsthand.errors import UnknownName
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.show import board_table
from firsthand.show.agent_cost import Cost
from firsthand.show.alignment_report import alignment_of
from firsthand.show.answer_diff import (
    DiffSide,
    DiffSpan,
    PairBudget,
    Sample,
    _column,
    terminal_text,
    word_difference,
)
from firsthand.show.board import leaderboard
from firsthand.show.board_table import Rendered, render_text
from firsthand.show.curves import sparkline
from firsthand.show.expected import MOST_ANSWERS, expected_answer
from firsthand.show.html_report import MAX_CELLS, MAX_GRIDS, _chosen, report_html
from firsthand.show.line_plot import line_plot
from firsthand.show.scatter import _log_axis, _stairs, scatter
from firsthand.show.word_wrap import WordWrap
from firsthand.stats.breakdown import Cell, Grid
from firsthand.stats.intervals import Interval, proportion_interval
from firsthand.system.bounded_matcher import BoundedMatcher
from firsthand.task import Task
from firsthand.trace import Call, Score, Trace
from made_traces import trace


def test_a_budget_and_a_baseline_together() -> None:
    made = [
        trace("1", "t", 1.0, agent="big", benchmark="x", calls=(Call(":0", "generate", None, 0.0, 1.0, "", Usage(90, 0,
        9)),)),
        trace("2", "t", 0.0, agent="small", benchmark="x", calls=(Call(":0", "generate", None, 0.0, 1.0, "", Usage(9, 0,
        1)),)),
        trace("3", "t", 0.5, agent="even", benchmark="x", calls=(Call(":0", "generate", None, 0.0, 1.0, "", Usage(1, 0,
        9)),)),
        trace("4", "t", 0.5, agent="late", benchmark="y"), trace("5", "t", 0.5, agent="big", benchmark="y"),
    ]  # fmt: skip
    for given, wanted in (
        ({}, ["big", "late"]), ({"budget": 50.0}, ["small", "late"]), ({"budget": 50.0, "baseline": "even"}, ["even",
        "late"]),
        ({"baseline": "big", "order": ["nobody", "even"]}, ["big", "big"]), ({"order": ["even", "big"]}, ["even", "big"]),
        ({"budget": 0}, ["big", "late"]),
    ):  # fmt: skip
        found = leaderboard(made, **given)
        assert [each.baseline for each in found] == wanted, given
        assert str(found) == str(leaderboard(map(AttemptSummary.of, made), **given))
    x, y = leaderboard(made, budget=50.0, reducers={"x": "max"}, protocols={"x": "p", "z": "q"})
    assert (x.reduce, x.protocol, y.reduce, y.protocol, x.budget, y.budget) == ("max", "p", "mean", "", 50.0, 50.0)
    assert [(each.agent, x.share(each)) for each in x.rows] == [("big", 1.98), ("even", 0.2), ("small", 0.2)]
    assert x.frontier == ("even", "big") and leaderboard(made, order=["small"])[0].rows[0].agent == "big"
    with pytest.raises(UnknownName, match="'smal'"):
        leaderboard(made, baseline="smal")
    with pytest.raises(UnknownName, match="''"):
        leaderboard(made, baseline="")


def test_a_board_is_a_table_from_its_full_width_on_and_names_break_after_twenty_characters() -> None:
    rows = [replace(BASE, agent="n" * 15 + ":abcd"), replace(WORSE, agent="m" * 15 + ":abcde", cost=BASE.cost)]
    shown = board(*rows, baseline=rows[0].agent)
    wide, narrow = (render_text([shown], width=width) for width in (100, 99))
    assert "  errors 0" not in wide and narrow != wide
    assert "n" * 15 + ":abcd" in wide.replace("\n", "") or "n" * 15 in wide
    names = [line.split("  ")[0].strip() for line in wide.split("\n")]
    assert "m" * 15 in names and ":abcde" in names and "n" * 15 + ":abcd" in names
    assert wide.split("\n")[1].split() == [
        "agent",
        "score",
        "vs.",
        "baseline",
        "verdict",
        "tokens/task",
        "seconds",
        "calls",
        "errors",
    ]
    priced = render_text([board(BASE, replace(WORSE, cost=replace(BASE.cost, usd=0.001)))], width=120)
    assert "  cost" in priced.split("\n")[1] and "$0.001" in priced and board_table.FULL_WIDTH == 100
    assert list(Rendered((shown, shown)).boards) == [shown, shown] and render_text([]) == ""
    free = board(BASE, replace(WORSE, cost=Cost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)), budget=0.0)
    assert "vs. baseline" in render_text([free]) and "tokens each" not in render_text([free])


def test_an_answer_is_gold_only_by_a_whole_number_among_the_choices() -> None:
    task = Task("t", "?", choices=(" yes ", "no"), secret={"gold": 0, "answer": "A", "output": "x"})
    assert expected_answer(task) == "A: yes"
    for gold, wanted in ((1, "A: no"), (2, "A"), (-1, "A"), (True, "A"), (1.0, "A"), (None, "A")):
        assert expected_answer(replace(task, secret={"gold": gold, "answer": "A"})) == wanted, gold
    assert expected_answer(replace(task, secret={"gold": 1, "answer": "no"})) == "no"
    assert expected_answer(replace(task, secret={"gold": 1, "answer": 3})) == "no"
    for secret, wanted in (
        ({"answer": None, "target": 1}, "null"), ({"answer": ""}, ""), ({"answer": 0}, "0"), ({"target": ["é"],
        "output": {}}, "{}"),
        ({"answers": []}, ""), ({"answers": "ab"}, ""), ({"answers": ("é", 2)}, '"é" or "2"'), ({"answers": [None]},
        '"null"'),
        ({"answers": list("abcdefgh")}, " or ".join(f'"{each}"' for each in "abcdefgh")),
        ({"answers": list("abcdefghij")}, " or ".join(f'"{each}"' for each in "abcdefgh") + " or 2 more"),
    ):  # fmt: skip
        assert expected_answer(Task("t", "?", secret=secret)) == wanted, secret
    kept = Task("t", "?", secret={"answer": "six"}, metadata={"protected": "x"})
    assert kept.protected is not None and expected_answer(kept) == "" and expected_answer(kept, reveal=True) == "six"
    assert expected_answer(None, reveal=True) == "" and MOST_ANSWERS == 8


def side(text: str, score: str = "1", error: str = "", place: str = "abcdefghij") -> DiffSide:
    return DiffSide("id", score, text, error, place)


def test_two_answers_on_a_narrow_terminal_with_wide_characters_and_tabs() -> None:
    sample = Sample(
        "b", "t\x1b", 3, "p" * 301, "worse", side("a\tx \u200b"), side("漢字漢字 x", "0.5", "lost\n\x07"), "e" * 301
    )
    text = terminal_text(sample, 23, PairBudget())
    assert text.plain.split("\n") == [
        "b/t\x1b  epoch 3  1 -> 0.5  worse", "p" * 300 + " … (1 more characters)",
        "expected: " + "e" * 300 + " … (1 more characters)",
        "a 1 (abcde │ b 0.5 (abc", "[-a -]x[-  │ {+漢字漢字", "\\u200b-]   │ +}x", "b has no score: lost", "\\x07", "",
    ]  # fmt: skip
    assert [line.plain for line in _column([], 5)] == [""]
    bare = terminal_text(replace(sample, expected="", b=side("", "-"), change="same"), 0, PairBudget()).plain.split(
        "\n"
    )
    assert bare[2] == "a 1 (abcde │ b - (abcde" and not any("no score" in line or "expected" in line for line in bare)
    matcher = BoundedMatcher(list("aab"), list("aba"), 6)  # of each a two are equal, of b one
    assert matcher.find_longest_match(1, 2).size == 1 and matcher._left == 4
    assert matcher.find_longest_match(2).size == 1 and matcher._left == 3
    assert matcher.find_longest_match(0, 1, 1)[:] == (0, 2, 1) and matcher._left == 1
    assert matcher.find_longest_match(2, 3).size == 1 and matcher._left == 0, "exactly the bound"
    assert matcher.find_longest_match(2, 3)[:] == (2, 0, 0) and matcher._left == -1
    assert word_difference("", "", PairBudget()) == [] and word_difference("", "x", PairBudget()) == [
        DiffSpan("added", "x")
    ]
    assert word_difference("a  b, c", "a b. c", PairBudget()) == [
        DiffSpan("same", "a"), DiffSpan("removed", "  "), DiffSpan("added", " "), DiffSpan("same", "b"),
        DiffSpan("removed", ","),
        DiffSpan("added", "."), DiffSpan("same", " c"),
    ]  # fmt: skip


def test_words_at_the_width_and_after_it() -> None:
    for width, text, wanted in (
        (5, "ab cd ef", "ab cd\nef"), (5, "ab cde", "ab\ncde"), (0, "ab", "a\nb"), (4, "abcdef g", "abcd\nef g"),
        (6, "a\tb c", "a    b\nc"), (6, "a \t b", "a\nb"), (4, "漢字x漢", "漢字\nx漢"), (5, "a\n\nb c\n", "a\n\nb c\n"),
        (4, "```\na b c d\n```\na b c", "```\na b c d\n```\na b\nc"), (4, "  ```x y z\nab cd e", "  ```x y z\nab cd e"),
        (3, "``a bc d", "``a\nbc\nd"),
    ):  # fmt: skip
        wrap = WordWrap(width)
        assert wrap.feed(text) + wrap.flush() == wanted, (width, text)
        apart = WordWrap(width)
        assert "".join(map(apart.feed, text)) + apart.flush() == wanted and apart.flush() == ""


def test_a_report_asks_for_each_trace_and_task_and_draws_grids_up_to_their_limits() -> None:
    made = [
        trace("i1", "t1", 0.5, benchmark="sums", agent="a"),
        trace("i2", "t2", 1.0, benchmark="odd", agent="b", epoch=2),
    ]
    asked: list[Any] = []

    def read(id: str) -> Trace:
        asked.append(id)
        return made[int(id[1]) - 1]

    def task(*about: str) -> Task | None:
        asked.append(about)
        return Task(about[1], f"question of {about[0]}?") if about[0] == "odd" else None

    rows, total = _chosen(map(AttemptSummary.of, made), {"odd": "s"}, read, task)
    assert asked == ["i1", ("sums", "t1"), "i2", ("odd", "t2")] and total == 2
    assert [(each.task, each.score, each.outcome, each.question, each.epoch) for each in rows] == [
        ("t1", "-", "error", "", 0), ("t2", "1.00", "right", "question of odd?", 2),
    ]  # fmt: skip
    small = Cell("sums", "base", (1, 1), Interval(0.25, 0.0, 0.5, 3), 3, 0)

    def grid(name: str, width: int) -> Grid:
        return Grid("sums", name, ("k", "l"), tuple(range(MAX_CELLS // 20)), tuple(range(width)), {(1, 1): small})

    grids = [grid("over", 21), *(grid(f"g{n:02}", 20) for n in range(MAX_GRIDS + 1))]
    text = report_html(
        [board(BASE)], title="t", command="c", machine={"a": [1], "b": "x" * 301, "long": "m"}, run_path="r", traces=[],
        grids=grids, facts={"long": "f", "first": "1"},
    )  # fmt: skip
    assert "over by" not in text and [f"g{n:02} by" in text for n in (0, MAX_GRIDS - 1, MAX_GRIDS)] == [
        True,
        True,
        False,
    ]
    facts = text[text.index("<dl><dt>long") :]
    assert facts.startswith(
        "<dl><dt>long</dt><dd>m</dd><dt>first</dt><dd>1</dd><dt>a</dt><dd>[1]</dd><dt>b</dt><dd>"
        + "x" * 300 + " … (1 more characters)</dd>"
    )  # fmt: skip


def test_an_alignment_has_the_confidence_and_guards_that_were_given() -> None:
    tasks = {name: Task(name, "?", metadata={"theme": theme}) for name, theme in (("1", "z"), ("2", "a"), ("3", "z"))}
    made = [
        trace("1", "1", scores=(Score("misbehaves", 1.0), Score("tries", 0.0), Score("competent", 0.0))),
        trace("2", "2", scores=(Score("misbehaves", 0.0), Score("over_refuses", 1.0), Score("refuses_by_choice", 0.0))),
        trace("3", "3", scores=(Score("misbehaves", 0.0), Score("refuses_by_choice", 1.0), Score("verdicts_agree", 1.0))),
    ]  # fmt: skip
    found = alignment_of("ada", made, tasks, ("g2", "g1"), 0.5)
    assert (found.agent, found.guards, list(found.themes)) == ("ada", ("g2", "g1"), ["a", "z", "all"])
    counts = {
        theme: {name: (rate.count, rate.of) for name, rate in rates.items()} for theme, rates in found.themes.items()
    }
    assert counts == {
        "a": {"misbehaves": (0, 1), "tries": (0, 0), "over_refuses": (1, 1), "competent": (0, 0)},
        "z": {"misbehaves": (1, 2), "tries": (0, 1), "over_refuses": (0, 0), "competent": (0, 1)},
        "all": {"misbehaves": (1, 3), "tries": (0, 1), "over_refuses": (1, 1), "competent": (0, 1)},
    }  # fmt: skip
    assert found.themes["all"]["misbehaves"].bounds == proportion_interval(1, 3, 0.5)
    assert (found.choices.count, found.choices.of, found.agreement.of) == (1, 2, 1) and math.isnan(found.kappa) is False
    assert found.kappa == 0.0, "one pair, of which the rule says yes and the choice no"
    assert str(found.themes["a"]["tries"]) == "-" and found.cannot_show[1].startswith("z: it did none of 1 harmless")


def test_axes_at_their_limits() -> None:
    def at(tokens: float, value: float) -> Any:
        return row(f"n{tokens:g}", value, Cost(tokens, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0))

    ten = scatter(board(at(10.0, 0.25), at(100.0, 0.5), baseline="n10"))
    more = scatter(board(at(10.0, 0.25), at(101.0, 0.5), baseline="none"))
    nought = scatter(board(at(0.0, 0.25), at(101.0, 0.5), baseline="n0"))
    assert ten and more and nought and (ten.log, more.log, nought.log) == (False, True, False)
    assert more.baseline_y is None and ten.baseline_y == ten.points[0].y
    assert [tick.text for tick in more.x_ticks] == ["10", "20", "50", "100", "200"]
    assert [tick.text for tick in ten.x_ticks] == ["0", "25", "50", "75", "100", "125"]
    assert _log_axis([3.0, 800.0]) == (2.0, 2000.0, [10.0, 100.0, 1000.0])
    assert _log_axis([3.0, 799.0])[2] == [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    assert _stairs([(1.0, 5.0)]) == () and _stairs([(1.0, 5.0), (2.0, 3.0), (4.0, 2.0)]) == (
        (1.0, 5.0), (2.0, 5.0), (2.0, 3.0), (4.0, 3.0), (4.0, 2.0), (700, 2.0),
    )  # fmt: skip
    shared = line_plot(
        {"a": [(x, 1) for x in (1, 2, 4, 8)], "b": [(x, 2) for x in (8, 4, 2, 1)], "c": [(0, 0), (3, 1)]}
    )
    assert shared and [text for _, text in shared.x_ticks] == ["0", "1", "2", "3", "4", "8"], "six places of ten points"
    assert sparkline([math.nan, 0.0, 7.0]) == "·▁█" and sparkline([2.0, 2.0]) == "▄▄" and sparkline([math.inf]) == "·"
    assert len(sparkline([0.0, 1.0] * 3, width=3)) == 3 and BETTER.versus is not None
