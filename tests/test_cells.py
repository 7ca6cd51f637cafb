"""Scores by length, depth or position come from any stored run: the same figures as of the tasks alone."""

import json
import math
import random
import re
from pathlib import Path

import pytest

from firsthand.cli import main
from firsthand.commands.print_run import write_report
from firsthand.commands.summary import _cells
from firsthand.errors import ConfigError
from firsthand.experiment.settings import stored_settings
from firsthand.runs.store import create, open_run
from firsthand.show.board import leaderboard
from firsthand.show.heatmap import STEPS, heat, score_cells, shade
from firsthand.show.html_report import report_html
from firsthand.stats.breakdown import Cell, cells, grids, own_grids
from firsthand.stats.effective_length import effective
from firsthand.stats.power_analysis import Spread
from firsthand.stats.run_summary import SummaryRow
from firsthand.stats.score_statistics import Interval, mean_interval
from firsthand.system.terminal import console
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace
from test_report import Tags

LENGTHS, DEPTHS = (512, 1024, 10_000), (0, 50, 100)


def add(run, agent, task, epoch, value, benchmark="deep"):
    scores = () if value is None else (Score("exact", value),)
    error = Failure("ModelError", "gone") if value is None else None
    key = f"{benchmark}-{agent}-{task}-{epoch}"
    run.append(Trace(key, benchmark, task, {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two agents, eight haystacks at each depth and length, two attempts each; and a benchmark without such keys."""
    rng = random.Random(2)
    run = create(tmp_path_factory.mktemp("cells"), {"benchmarks": ["deep"]}, "cells")
    slots = [(length, depth, number) for number in range(8) for length in LENGTHS for depth in DEPTHS]
    run.add_tasks(
        "deep",
        [
            Task(
                f"{n}-{d}-{i}", "?", metadata={"length": n, "depth": d, "half": "ab"[i % 2], "cluster": f"haystack {i}"}
            )
            for n, d, i in slots
        ],
    )
    run.add_tasks("flat", [Task("one", "?", metadata={"level": 1}), Task("two", "?")])
    for agent in ("cot", "direct"):
        run.add_agent(agent, {"name": agent})
        for n, d, i in slots:
            for epoch in range(2):
                add(run, agent, f"{n}-{d}-{i}", epoch, float(rng.random() < (0.95 if n < 10_000 else 0.3)))
        add(run, agent, "one", 0, 1.0, "flat")
        add(run, agent, "two", 0, 0.5, "flat")
    add(run, "cot", "512-0-0", 0, None)  # the last try counts, and it failed
    return run


def values_of(run, agent, wanted):
    """What the traces say, grouped by hand."""
    tasks = run.tasks()
    found = {}
    for trace in run.traces(benchmark="deep", agent=agent):
        if wanted(tasks["deep", trace.task_id].metadata):
            found.setdefault(trace.task_id, []).append(trace.value() or 0.0)
    return found


@pytest.mark.slow
def test_each_cell_is_the_mean_of_its_tasks_with_their_interval(run):
    found = cells(run, ["depth", "length"])
    assert [cell.values for cell in found if cell.agent == "cot"] == [(d, n) for d in DEPTHS for n in LENGTHS]
    assert {cell.benchmark for cell in found} == {"deep"} and len(found) == 18
    for cell in found:
        depth, length = cell.values
        values = values_of(run, cell.agent, lambda m, d=depth, n=length: m["depth"] == d and m["length"] == n)
        expected = mean_interval(values)
        assert (cell.score.value, cell.score.low, cell.score.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
        assert cell.score.n == 8 and cell.attempts == 16 and cell.score.clusters == 0
    assert [cell.errors for cell in found if cell.values == (0, 512)] == [1, 0]


def test_tasks_that_share_a_haystack_within_a_cell_are_allowed_for(run):
    for cell in cells(run, ["length"]):
        values = values_of(run, cell.agent, lambda m, n=cell.values[0]: m["length"] == n)
        expected = mean_interval(values, clusters=run.clusters()["deep"])
        assert cell.score.clusters == expected.clusters == 8 and cell.score.n == 24
        assert (cell.score.low, cell.score.high) == pytest.approx((expected.low, expected.high))


def test_confidence_and_any_key_are_taken(run):
    wide, narrow = cells(run, ["length"], 0.99)[2].score, cells(run, ["length"], 0.8)[2].score
    assert wide.value == narrow.value and wide.high - wide.low > narrow.high - narrow.low
    assert [cell.values for cell in cells(run, ["level"])][:2] == [(1,), ("",)]  # a task without the key has a cell too
    three = cells(run, ["half", "depth", "length"])
    assert len(three) == 36 and three[0].values == ("a", 0, 512) and three[0].score.n == 4


def test_a_key_that_no_task_has_is_refused_with_those_there_are(run):
    with pytest.raises(
        ConfigError, match=r"no task of the run has 'lenght'.*did you mean 'length'.*cluster, depth, half"
    ):
        cells(run, ["lenght"])
    with pytest.raises(ConfigError, match="name each key once"):
        cells(run, ["length", "length"])
    with pytest.raises(ConfigError, match="one or two keys"):
        grids([], ["a", "b", "c"])


def test_a_grid_has_the_first_key_down_and_the_second_across(run):
    cot, direct = grids(cells(run, ["depth", "length"]), ["depth", "length"])
    assert (cot.agent, direct.agent) == ("cot", "direct") and cot.rows == DEPTHS and cot.columns == LENGTHS
    assert cot.cells[50, 1024].values == (50, 1024)
    [curve, _] = grids(cells(run, ["depth"]), ["depth"])
    assert curve.rows == DEPTHS and curve.columns == ("",) and curve.column_name == ""
    assert [grid.by for grid in own_grids(run)] == [("depth", "length")] * 2  # and none of `flat`


def test_the_grid_is_drawn_with_an_interval_in_each_cell(run):
    grid = grids(cells(run, ["depth", "length"]), ["depth", "length"])[0]
    out = console()
    with out.capture() as captured:
        out.print(heat(grid))
    text = captured.get()
    assert "cot on deep: depth x length" in text and re.search(r"depth \\ length\s+512\s+1024\s+10000", text)
    assert text.count("(8") == 9 and "(8, 1 err)" in text
    value, bounds = score_cells(grid.cells[100, 10_000])
    assert value in text and bounds in text


def test_shades_follow_the_score():
    def cell(value):
        return Cell("b", "a", (1,), Interval(value, 0, 1, 3), 3, 0)

    assert [shade(cell(value)) for value in (0.0, 0.5, 1.0)] == [0, 4, STEPS]
    assert [shade(cell(value)) for value in (0.05, 0.06, 0.94, 0.95)] == [0, 1, 8, STEPS]  # to the nearest of 9
    assert shade(cell(-0.01)) is shade(cell(1.01)) is None
    assert shade(None) is shade(cell(math.nan)) is shade(cell(7.0)) is None
    assert score_cells(None) == ("-", "")
    assert score_cells(Cell("b", "a", (1,), Interval(0.5, -math.inf, math.inf, 1), 1, 0)) == ("0.50", "unknown (1)")


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [(0.07, 1.0, ".07-1"), (0.0, 0.999, "0-1"), (10.07, 20.5, "10.07-20.50"), (-0.25, 100.07, "-.25-100.07")],
)
def test_bounds_are_told_to_two_decimals_whatever_the_scale(low, high, bounds):
    assert score_cells(Cell("b", "a", (1,), Interval(0.5, low, high, 4), 4, 2)) == ("0.50", f"{bounds} (4, 2 err)")


def one(length, value, low, high):
    return Cell("ruler", "direct", (length,), Interval(value, low, high, 40), 40, 0)


def test_the_effective_length_is_the_last_that_reaches_the_threshold():
    found = [
        one(4096, 0.95, 0.9, 0.99),
        one(8192, 0.87, 0.8, 0.93),
        one(16384, 0.84, 0.78, 0.9),
        one(32768, 0.5, 0.4, 0.6),
    ]
    [each] = effective(found, 0.856)
    assert (each.last, each.sure, each.failing, each.gaps, each.is_end) == (8192, 4096, 32768, (), False)
    assert each.sentence("length") == (
        "direct on ruler: the last length that reaches 0.856 is 8192; surely reached up to 4096, surely not at 32768."
    )
    [never] = effective(found[3:], 0.856)
    assert never.last is None and never.sentence("length").startswith(
        "direct on ruler: no length reaches 0.856; surely "
    )
    [all_of_them] = effective(found[:2], 0.856)
    assert all_of_them.is_end and "where the measurement ends" in all_of_them.sentence("length")
    [gap] = effective([found[3], found[0]], 0.856)
    assert gap.gaps == (32768,) and "(but 32768 does not)" in gap.sentence("length")


def test_summary_prints_grids_curves_tables_and_json(run, capsys):
    assert main(["summary", str(run.path), "--by", "depth,length"]) == 0
    assert "direct on deep: depth x length" in (out := capsys.readouterr().out) and "95% CI" in out
    assert main(["summary", str(run.path), "--by", "half,depth,length"]) == 0
    assert capsys.readouterr().out.count("deep") == 36
    assert main(["summary", str(run.path), "--by", "length", "--threshold", "85.6%"]) == 0
    out = capsys.readouterr().out
    assert "cot on deep: the last length that reaches 0.856 is 1024" in out and "surely not at 10000" in out
    assert main(["summary", str(run.path), "--by", "length", "--threshold", "0.856", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [cell["by"]["length"] for cell in body["cells"]] == [*LENGTHS, *LENGTHS]
    assert body["effective"][0]["last"] == 1024 and body["cells"][0]["score"]["clusters"] == 8


@pytest.mark.parametrize("flags", [["--threshold", "0.5"], ["--by", "depth,length", "--threshold", "0.5"],
                                   ["--by", "nothing"], ["--by", "length", "--threshold", "much"]])  # fmt: skip
def test_what_summary_cannot_do_is_refused(run, flags, capsys):
    assert main(["summary", str(run.path), *flags]) == 2
    assert "threshold" in (said := capsys.readouterr().err) or "no task of the run has" in said


def test_hostile_keys_and_values_are_shown_harmless(tmp_path, capsys):
    run = create(tmp_path, {}, "hostile")
    evil = "</td><script>alert(1)</script>\x1b[31m\u202e"
    other = Task("t1", "?", metadata={"position": [1, {"a": 2}]})
    run.add_tasks("deep", [Task("t0", "?", metadata={"position": evil}), other])
    run.add_agent("ada", {"name": "ada"})
    add(run, "ada", "t0", 0, 1.0)
    add(run, "ada", "t1", 0, 0.0)
    assert main(["summary", str(run.path), "--by", "position"]) == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    boards, drawn = leaderboard(run.traces()), own_grids(run)
    html = report_html(boards, title="t", command="c", machine={}, run_path="r", traces=(), grids=drawn)
    assert "img" not in Tags(html).names and "position" in html and "\u202e" not in html


@pytest.mark.slow
def test_the_report_shows_the_grids_of_its_benchmarks(run):
    with open_run(run.path, run.path.parent) as again:
        traces = list(again.traces())
        html = Path(write_report(again, stored_settings(again), traces, leaderboard(traces), {})).read_text(
            encoding="utf-8"
        )
    assert html.count('<table class="heat">') == 2 and "cot by depth and length" in html
    assert len(re.findall(r'<td class="h\d">', html)) == 18 and not Tags(html).open


def test_a_summary_has_four_digits_from_two_thousand_tasks_on() -> None:
    for n, shown in ((1999, "0.250\n[0.231, 0.270]"), (2000, "0.2500\n[0.2310, 0.2700]")):
        score = Interval(0.25, 0.231, 0.27, n, "Wilson")
        row = SummaryRow("b", "a", score, Spread(0.1, 0.1, n, n), n, 0, 1.0, 1.0, 0.0)
        assert _cells(row)[1] == shown
    row = SummaryRow("b", "a", Interval(0.5, -math.inf, math.inf, 1), Spread(0.1, 0.1, 1, 1), 1, 0, 1.0, 1.0, 0.0)
    assert _cells(row)[1] == "0.500\nunknown"


def test_a_cell_of_what_is_no_number_or_text_is_named_by_its_json(tmp_path):
    kinds = [True, False, 1, 0.5, "x", None, [1, "é"], {"a": None}]
    with create(tmp_path, {"benchmarks": ["b"]}, "kinds") as run:
        run.add_tasks("b", [Task(str(n), "?", metadata={"kind": kind}) for n, kind in enumerate(kinds)])
        run.add_agent("a", {"name": "a"})
        for n in range(len(kinds)):
            run.append(Trace(str(n), "b", str(n), {"name": "a"}, 0, 0, "", 1.0, scores=(Score("s", n / 10),)))
        found = [(cell.values[0], cell.score.value) for cell in cells(run, ["kind"])]
    assert found == [
        (0.5, 0.3), (1, 0.2), ("", 0.5), ('[1, "é"]', 0.6), ("false", 0.1), ("true", 0.0), ("x", 0.4), ('{"a": null}', 0.7),
    ]  # fmt: skip
