"""A score of harm is better when it is lower: in comparisons, gates, tables, boards and the Studio."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.benchmark import Figure
from firsthand.benchmarks.bold import toxic_words
from firsthand.boards.board_spec import BoardSpec
from firsthand.boards.make_board import make_board
from firsthand.boards.read_results import read_results
from firsthand.cli import main
from firsthand.runs.store import Run, create
from firsthand.scorers.concerns.audit_verdicts import alignment_verdicts
from firsthand.show.board import leaderboard
from firsthand.show.html_report import report_html
from firsthand.stats.breakdown import cells
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.multiple_comparisons import all_pairs, compare_to_baseline
from firsthand.stats.paired import Differences, judged, paired_difference
from firsthand.stats.power_analysis import spread
from firsthand.stats.run_summary import summary
from firsthand.stats.task_scores import harm_benchmarks, task_scores
from firsthand.studio.access import Access
from firsthand.studio.comparison_slices import cost_plots, scatter_points, slices_of
from firsthand.studio.studio_app import create_app
from firsthand.studio.views.comparison_views import Side, chosen_pairs, contest_of
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Score, Trace, Usage

HARM: Mapping[str, Any] = {"is_harm": True}
TASKS = 12
CALL = Call(":0", "generate", None, 0.0, 1.0, "r", Usage(5, 1, 2, 0.25))
BOTH = pytest.mark.parametrize("detail", [HARM, {}])


def attempt(run: Run, agent: str, task: int, value: float | None, detail: Mapping[str, Any] = HARM, epoch: int = 0,
            then: tuple[Score, ...] = ()) -> None:  # fmt: skip
    failed = Failure("ModelError", "gone") if value is None else None
    scores = () if value is None else (Score("obeyed", value, dict(detail)), *then)
    place = f"{agent}{task}{epoch}"
    run.append(Trace(place, "b", f"t{task}", {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=failed,
                     calls=(CALL,)))  # fmt: skip


def made(home: Path, name: str, agents: Mapping[str, float | None], detail: Mapping[str, Any] = HARM) -> Run:
    """A run in which each agent has one value on all tasks but the last, where it has 0, or has failed throughout."""
    run = create(home, {}, name)
    run.add_tasks("b", [Task(f"t{n}", "?", metadata={"kind": "xy"[n % 2]}) for n in range(TASKS)])
    for agent, value in agents.items():
        run.add_agent(agent, {"name": agent})
        for n in range(TASKS):
            attempt(run, agent, n, 0.0 if value is not None and n == TASKS - 1 else value, detail)
    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


@BOTH
def test_a_gate_stops_a_rise_of_harm_and_passes_its_fall(
    detail: Mapping[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    safe, open_ = made(home, "safe", {"a": 0.0}, detail), made(home, "open", {"a": 1.0}, detail)
    rise, fall = (
        printed(capsys, "gate", *runs, "--max-drop", "20%") for runs in ((safe.id, open_.id), (open_.id, safe.id))
    )
    worse, better = (rise, fall) if detail else (fall, rise)
    assert (worse[0], better[0]) == (1, 0)
    (check,), (passed,) = worse[1]["checks"], better[1]["checks"]
    word = "rose" if detail else "dropped"
    assert check["reason"] == f"the score {word} by more than 20.00%"
    assert passed["reason"] == f"a {'rise' if detail else 'drop'} of more than 20.00% is excluded"
    assert (check["better"], check["worse"], len(check["worse_tasks"])) == (0, 11, 11)
    assert (passed["better"], passed["worse"], passed["worse_tasks"]) == (11, 0, [])
    assert check["difference"] == pytest.approx(11 / 12 if detail else -11 / 12)
    main(["gate", safe.id, open_.id, "--max-drop", "20%", "--markdown", str(home / "gate.md")])
    assert f" | {'+' if detail else '-'}20.00% | " in (home / "gate.md").read_text()


@BOTH
def test_comparisons_call_a_rise_of_harm_worse(
    detail: Mapping[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(home, "r", {"safe": 0.0, "open": 1.0, "half": 0.5}, detail)
    word, opposite = ("worse", "better") if detail else ("better", "worse")
    _, (found,) = printed(capsys, "compare", run.id, run.id, "--agent-a", "safe", "--agent-b", "open")
    of = found["benchmarks"]["b"]
    assert (of["verdict"], of[word], of[opposite], of["same"]) == (word, 11, 0, 1)
    assert [each["change"] for each in found["tasks"]].count(word) == 11
    for words in (("compare", run.id), ("compare", run.id, "--score", "obeyed")):
        _, pairs = printed(capsys, *words)
        assert {(each["a"], each["b"]): each["verdict"] for each in pairs} == {
            ("safe", "open"): word, ("safe", "half"): word, ("open", "half"): opposite,
        }  # fmt: skip


@BOTH
def test_the_table_of_a_run_begins_with_the_least_harm(detail: Mapping[str, Any], home: Path) -> None:
    run = made(home, "r", {"dead": None, "open": 1.0, "safe": 0.0, "half": 0.5}, detail)
    (board,) = leaderboard(run.summaries(), baseline="half")
    ranked = [row.agent for row in board.rows]
    verdicts = {row.agent: row.versus.verdict for row in board.rows if row.versus and row.versus.n}
    assert board.lower_is_better == board.to_json()["lower_is_better"] == bool(detail)
    assert board.frontier[0] == ("safe" if detail else "open")
    html = report_html([board], title="t", command="c", machine={}, run_path="p", traces=[])
    if detail:
        assert (ranked, verdicts) == (["safe", "half", "open", "dead"], {"safe": "better", "open": "worse"})
        assert "obeyed: lower is better" in html
        (alone,) = leaderboard(run.summaries(), baseline="dead")  # nothing is paired with it, and harm is harm still
        assert [row.agent for row in alone.rows] == ["safe", "half", "open", "dead"]
        assert all(row.versus.lower_is_better for row in alone.rows if row.versus)
    else:
        assert ranked[:2] == ["open", "half"] and verdicts["open"] == "better" and verdicts["safe"] == "worse"
        assert "obeyed: higher is better" in html


@BOTH
def test_a_board_of_runs_ranks_the_least_harm_first(detail: Mapping[str, Any], home: Path) -> None:
    run = made(home, "r", {"open": 1.0, "safe": 0.0}, detail)
    board = make_board(read_results([run.path], home), BoardSpec("mine"))
    assert [line.model for line in board.sections[0].lines] == (["safe", "open"] if detail else ["open", "safe"])


@BOTH
def test_the_studio_compares_harm_as_lower_is_better(detail: Mapping[str, Any], home: Path) -> None:
    run = made(home, "r", {"safe": 0.0, "open": 1.0}, detail)
    contest = contest_of(Side(run, "safe"), Side(run, "open"))
    word = "worse" if detail else "better"
    assert contest.differences["b"].verdict == word
    assert {pair.change for pair in chosen_pairs(contest.comparison, "changed")} == {word}
    kinds = {("b", f"t{n}"): "gone" if n == TASKS - 1 else "risen" for n in range(TASKS)}
    slices = slices_of(contest.comparison, kinds)
    assert [each.value for each in slices] == (["risen", "gone"] if detail else ["gone", "risen"])
    assert {each.value: each.difference.verdict for each in slices}["risen"] == word
    ((_, points, _),) = cost_plots([(run, agent, agent) for agent in run.agents()], ["b"])
    assert [point.name for point in points if point.on_frontier] == ["safe" if detail else "open"]
    rows = [("cheap, harmful", 1.0, 1.0, 0.0), ("dear, safe", 0.0, 9.0, 0.0), ("dear, harmful", 1.0, 9.0, 0.0)]
    best = [point.name for point in scatter_points(rows, lower_is_better=bool(detail))[0] if point.on_frontier]
    assert best == (["cheap, harmful", "dear, safe"] if detail else ["cheap, harmful"])


@BOTH
def test_the_studios_page_says_what_an_error_counts_as(detail: Mapping[str, Any], home: Path) -> None:
    run = made(home, "r", {"safe": 0.0, "open": 1.0}, detail)
    access = Access()
    access.port = 8123
    with TestClient(create_app(home, access, {}), base_url="http://127.0.0.1:8123") as client:
        client.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        page = client.get(f"/compare?run={run.id}").text
    said = "an error counts 0, or is left out where lower is better (b)." if detail else "an error counts 0."
    assert said in page and ("▼ worse" in page) == bool(detail) and ("▲ better" in page) != bool(detail)


@pytest.mark.parametrize("binary", [True, False])
def test_a_difference_of_harm_has_the_same_numbers_and_the_opposite_verdict(binary: bool) -> None:
    a = {f"t{n}": [1.0 if binary else 0.5 + n / 100] for n in range(12)} | {"u": [0.0], "v": [0.0]}
    b = {f"t{n}": [0.0] for n in range(12)} | {"u": [0.0], "v": [1.0]}
    plain = paired_difference(a, b)
    harm = judged(Differences.between(a, b, lower_is_better=True))
    assert (plain.verdict, plain.better, plain.worse, plain.same) == ("better", 12, 1, 1)
    assert (harm.verdict, harm.better, harm.worse, harm.same) == ("worse", 1, 12, 1)
    numbers = ("difference", "low", "high", "p_value", "n", "detectable", "method")
    assert [getattr(harm, each) for each in numbers] == [getattr(plain, each) for each in numbers]
    turned = judged(Differences.between(a, b, lower_is_better=True).reversed)
    assert (turned.verdict, turned.better, turned.worse) == ("better", 12, 1)
    assert compare_to_baseline({"a": a}, b, lower_is_better=True)["a"].verdict == "worse"
    assert all_pairs({"b": b, "a": a}, lower_is_better=True)["b", "a"].verdict == "worse"
    assert compare_to_baseline({"a": a}, b)["a"].verdict == all_pairs({"b": b, "a": a})["b", "a"].verdict == "better"


def test_nothing_in_common_keeps_the_direction() -> None:
    assert judged(Differences.between({}, {}, lower_is_better=True)).lower_is_better
    assert not judged(Differences.between({}, {})).lower_is_better
    empty = Figure("e", (), lambda counts: counts, lower_is_better=True)
    assert FigureDifference.between(empty, empty).lower_is_better


def test_the_spread_of_harm_is_that_of_the_attempts_that_ran(tmp_path: Path) -> None:
    run = create(tmp_path, {"reduce": "max"}, "r")
    run.add_tasks("b", [Task(f"t{n}", "?") for n in range(4)])
    run.add_agent("a", {"name": "a"})
    values = {"t0": [1.0, 0.0], "t1": [1.0, 1.0], "t2": [0.0, 1.0]}
    for n in range(4):
        for epoch in range(2):
            attempt(run, "a", n, values[f"t{n}"][epoch] if n < 3 else None, epoch=epoch)
    (line,) = summary(run, reduce="mean")
    (reduced,) = summary(run)
    assert line.spread == reduced.spread == spread(values) and (line.spread.tasks, line.spread.attempts) == (3, 6)


def later_score(tmp_path: Path, detail: Mapping[str, Any]) -> Run:
    """A run of an agent that ran, whose answers were scored later too, and one whose attempts all failed."""
    run = made(tmp_path, "r", {"ran": 1.0, "dead": None}, detail)
    for each in run.summaries(agent="ran"):
        run.add_score(run.trace(each.id), 1, "rubric", "a judge", Score("rubric", 0.5))
    return run


def test_an_agent_that_failed_throughout_did_no_harm_and_none_is_told(tmp_path: Path) -> None:
    run = later_score(tmp_path / "harm", HARM)
    assert ("b", "dead") not in task_scores(run, ["b"])
    lines = {line.agent: (line.score.n, line.left_out, line.spread.tasks) for line in summary(run)}
    assert lines == {"ran": (TASKS, 0, TASKS), "dead": (0, TASKS, 0)}
    assert {cell.agent: cell.score.n for cell in cells(run, ["kind"])}["dead"] == 0
    other = later_score(tmp_path / "other", {})
    assert task_scores(other, ["b"])["b", "dead"]["t0"] == (0.0,)


def test_a_benchmark_is_of_harm_by_the_score_that_is_asked_for(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "r")
    run.add_tasks("b", [Task("t0", "?")])
    run.add_agent("a", {"name": "a"})
    attempt(run, "a", 0, 1.0, then=(Score("right", 1.0), Score("planted_share", 1.0, dict(HARM))))
    assert harm_benchmarks(run) == harm_benchmarks(run, "obeyed") == harm_benchmarks(run, "planted_share") == {"b"}
    assert harm_benchmarks(run, "right") == harm_benchmarks(run, "gone") == set()


def test_rates_of_misbehaviour_and_toxic_words_are_scores_of_harm() -> None:
    secret = {
        "bad_calls": ["pay"],
        "good_calls": ["look"],
        "misuse": False,
        "bad_text": "x",
        "good_text": "y",
        "group": "g",
    }
    found: dict[str, bool] = {}
    for kind in ("risk", "harmless"):
        task = Task("t", "?", secret=secret | {"kind": kind})
        events = (
            Event("audit_branch", 0.0, {"name": "opening", "reply": "done", "calls": []}),
            Event("probe", 0.0, {"name": "choice", "logprobs": [-1.0, -2.0]}),
        )
        trace = Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 1.0, events=events)
        found |= {score.name: score.is_harm for score in (*alignment_verdicts(task, trace), toxic_words(task, trace))}
    assert found == {
        "aligned": False, "misbehaves": True, "misbehaves_at_first": True, "tries": True, "misbehaves_by_choice": True,
        "verdicts_agree": False, "over_refuses": True, "competent": False, "refuses_by_choice": True, "toxic_words": True,
    }  # fmt: skip


def test_a_run_ranked_by_a_figure_has_the_figures_direction(home: Path) -> None:
    run = made(home, "r", {"open": 1.0, "safe": 0.0}, {})

    def error(traces: Any) -> list[Figure]:
        tasks, values = zip(*((each.task_id, each.value("obeyed")) for each in traces), strict=True)
        return [Figure("obeyed", tasks, lambda counts: counts @ values / counts.sum(1), lower_is_better=True)]

    (board,) = leaderboard([run.trace(each.id) for each in run.summaries()], figures={"b": error})
    assert board.lower_is_better and [row.agent for row in board.rows] == ["safe", "open"]
