"""Queries, comparisons, kept attempts, exports and curves of runs, each called by itself."""

from __future__ import annotations

import gc
import html
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.studio import kept_traces
from firsthand.studio.attempt_query import AttemptQuery, _condition, _of_model
from firsthand.studio.comparison_slices import CostPoint, _scale, cost_plots, metadata_keys, scatter_points, slices_of
from firsthand.studio.kept_traces import KeptTraces, _head_of, _read, _usage_of, _without_collection
from firsthand.studio.run_export import _attempt, exported
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import CollectedTask, TaskCollections
from firsthand.studio.typed_filter import Term
from firsthand.studio.views.arena_views import costs_of, latest_votes, standings_of
from firsthand.studio.views.comparison_views import _side, chosen_pairs, contest_of, plots_of, sides_of
from firsthand.studio.views.run_views import boards_of
from firsthand.task import Task
from firsthand.trace import Call, Event, Node, Score, Trace
from studio_page_outline import asked, outline
from studio_small_home import entered
from studio_varied_home import write_runs

Two = tuple[Run, Run]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def two(home: Path) -> Iterator[Two]:
    first, second = write_runs(home)
    with store.open_run(first, home) as one, store.open_run(second, home) as other:
        yield one, other


def refusal(action: Any) -> str:
    with pytest.raises(ConfigError) as told:
        action()
    return str(told.value)


def test_conditions_on_attempts_are_sql_with_their_values(two: Two) -> None:
    def made(field: str, operator: Any, value: str) -> tuple[str, list[Any]]:
        sql, values = _condition(Term(field, operator, value))
        return sql, list(values)

    names = ("benchmark", "task", "agent", "error")
    assert made("", ":", "AnN") == (
        "(" + " OR ".join(f"instr(lower(coalesce({name}, '')), ?)" for name in names) + ")", ["ann"] * 4,
    )  # fmt: skip
    assert made("id", ":", "Ab") == (
        "((id >= ? AND id < ?) OR (attempt >= ? AND attempt < ?))", ["Ab", "Ab\U0010ffff"] * 2,
    )  # fmt: skip
    assert made("seconds", ":", "2") == ("duration_s = ?", [2.0]) and made("cost", ">=", "2") == (
        "cost_usd >= ?",
        [2.0],
    )
    assert made("agent", "=", "Ann") == ("lower(coalesce(agent, '')) = ?", ["ann"])
    assert made("stop", ":", "Done") == ("instr(lower(coalesce(stop_reason, '')), ?)", ["done"])
    sql, values = made("score.Exact", ":", "0.5")
    assert (
        sql.endswith(" ORDER BY seq DESC LIMIT 1) = ?")
        and values == ["Exact", 0.5]
        and made("is", ":", "failed") == ("error IS NOT NULL", [])
    )
    assert made("score.a", ">", "0")[0].endswith(" > ?")
    for operator, value, found in ((":", "M-", ["ann", "bob"]), ("=", "m-BOB", ["bob"]), ("=", "m-", [])):
        sql, values = _of_model(Term("model", operator, value, True), two[0].database)  # type: ignore[arg-type]
        assert (sql, list(values)) == (f"agent IN ({', '.join('?' * len(found))})", found)
    query = AttemptQuery.parse("-model:bob agent:a seconds>1")
    where, bound = query._where(two[0].database)
    assert where.split(" AND ")[2:] == [
        "NOT (agent IN (?))", "instr(lower(coalesce(agent, '')), ?)", "duration_s > ?",
    ] and bound == ("bob", "a", 1.0)  # fmt: skip
    assert [AttemptQuery.parse("", sort)._order() for sort in ("", "finished", "-finished", "cost", "-cost")] == [
        "seq", "seq", "seq DESC", "cost_usd IS NULL, cost_usd, seq", "cost_usd IS NULL, cost_usd DESC, seq",
    ]  # fmt: skip


def test_attempts_are_listed_with_their_neighbours_and_counts(two: Two) -> None:
    database = two[0].database
    page = AttemptQuery.parse("-is:right", "-tokens").page(database, 1, 2)
    assert [(row.id[-1], row.place, row.benchmark, row.task_id, row.agent, row.epoch, row.score, row.stop_reason, row.error,
             row.num_calls, row.tokens, row.cost_usd, row.duration_s) for row in page.rows] == [
        ("2", "p2", "quiz", "t1", "ann", 0, 0.25, "done", None, 1, 170, 0.125, 0.5),
        ("3", "p3", "quiz", "t0", "bob", 0, None, "error", "NetError: The net broke", 1, 150, 0.0, 4.0),
    ]  # fmt: skip
    assert (page.total, page.start, page.next_start) == (4, 1, 3)
    for sort, order in (("-tokens", "42310"), ("score", "42103"), ("-score", "01243"), ("seconds", "20134"),
                        ("-cost", "40123"), ("epoch", "02341"), ("task", "01324"), ("-agent", "34012")):  # fmt: skip
        query = AttemptQuery.parse("", sort)
        assert "".join(row.place[1] for row in query.page(database).rows) == order, sort
        for place, each in enumerate(order):
            before = f"p{order[place - 1]}" if place else None
            after = f"p{order[place + 1]}" if place < 4 else None
            assert query.beside(database, f"p{each}") == (before, after)
    assert AttemptQuery.parse("agent=ann").beside(database, "p3") == (None, None)
    assert AttemptQuery.parse("score>0").facets(database) == {
        "benchmark": [("quiz", 3)], "agent": [("ann", 3)], "is": [("wrong", 2), ("right", 1)], "stop": [("done", 3)],
    }  # fmt: skip
    assert AttemptQuery.parse("").facets(database, 1) == {
        "benchmark": [("quiz", 5)], "agent": [("ann", 3)], "is": [("wrong", 3)], "stop": [("done", 4)],
    }  # fmt: skip


def test_a_comparison_is_sliced_by_what_the_tasks_say_of_themselves(two: Two, tmp_path: Path) -> None:
    keys = metadata_keys(two[0], ["quiz", "none"])
    assert keys == {"level": {("quiz", "t0"): "easy", ("quiz", "t1"): "hard", ("quiz", "t2"): "hard"}}
    with store.create(tmp_path, {}, "keys") as run:
        run.add_tasks("b", [Task(f"k{n}", "?", metadata={"z": n % 2 == 0, "a": "x" * 81 + str(n), "c": 1.5 * n,
        "l": [n], "o": 1})
                            for n in range(25)])  # fmt: skip
        run.add_tasks("d", [Task("k0", "?", metadata={"o": 2})])
        found = metadata_keys(run, ["b", "d"])
        assert list(found) == ["o", "z"] and found["o"]["d", "k0"] == "2" and found["z"]["b", "k1"] == "False"
        assert list(metadata_keys(run, ["d"])) == []
    sides = sides_of([two[0], two[1]])
    contest = contest_of(sides[0], sides[2])
    slices = slices_of(contest.comparison, {**keys["level"], ("quiz", "t9"): "none"})
    assert [(each.benchmark, each.value, each.before, each.after, each.difference.difference,
    each.difference.n) for each in slices] == [
        ("quiz", "easy", 0.75, 0.25, -0.5, 1), ("quiz", "hard", 0.25, 0.75, 0.5, 1),
    ]  # fmt: skip
    assert [(each.benchmark, each.value) for each in slices_of(contest.comparison, {("quiz", "t1"): "v"})] == [
        ("quiz", "v")
    ]
    assert slices_of(contest.comparison, {}) == []
    pairs = {pair.task_id: (pair.a.value, pair.b.value) for pair in contest.comparison.pairs}
    assert pairs == {"t0": (0.75, 0.25), "t1": (0.25, 0.75)}
    assert [pair.task_id for pair in chosen_pairs(contest.comparison, "better")] == ["t1"]
    assert [_side(sides, key, 1) for key in ("", sides[3].key)] == [2, 3]
    assert refusal(lambda: _side(sides, "x" * 81, 0)) == f"no agent '{'x' * 80}' in the runs that are compared"


def test_agents_are_points_by_score_and_cost_with_their_frontier(two: Two) -> None:
    first, second = two
    named = [(first, "ann", "A"), (first, "bob", "B"), (second, "cat", "C"), (second, "none", "N")]
    asked: list[Run] = []
    totals = Run.totals

    def counted(run: Run) -> Any:
        asked.append(run)
        return totals(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "totals", counted)
        ((_, points, unit), nothing) = cost_plots(named, ["quiz", "none"])
    assert asked == [first, second], "the totals of a run are asked for once"
    assert nothing == ("none", [], "tokens")
    low, high = math.log(0.875 / 3), math.log(0.75)
    middle = round(5 + 90 * (math.log(0.5) - low) / (high - low), 2)
    assert (points, unit) == (
        [CostPoint("A", 0.5, 0.875 / 3, 5.0, 95.0, True), CostPoint("B", 0.0, 0.5, middle, 5.0, False),
         CostPoint("C", 0.5, 0.75, 95.0, 95.0, False)], "USD",
    )  # fmt: skip
    assert cost_plots([(first, "ann", "A")], ["none"])[0][1:] == ([], "tokens")
    rows = [
        ("a", 0.5, 10.0, 0.0),
        ("b", 0.75, 1000.0, 2.0),
        ("c", math.nan, 20.0, 1.0),
        ("d", 0.25, 0.0, 1.0),
        ("e", 1.0, 100.0, 1.0),
    ]
    points, unit = scatter_points(rows)
    assert unit == "tokens" and [(each.name, each.cost, each.x, each.y, each.on_frontier) for each in points] == [
        ("a", 10.0, 5.0, 5.0, True), ("b", 1000.0, 95.0, 50.0, False), ("e", 100.0, 50.0, 95.0, True),
    ]  # fmt: skip
    assert (
        scatter_points([]) == ([], "tokens")
        and _scale([2.0, 2.0]) == [50.0, 50.0]
        and _scale([3.0, 1.0, 2.0]) == [95.0, 5.0, 50.0]
    )
    ((name, plotted, unit),) = plots_of(sides_of([second, first]))
    assert (name, unit, [each.name for each in plotted]) == (
        "quiz", "USD", [f"{second.id}/ann", f"{second.id}/cat", f"{first.id}/ann", f"{first.id}/bob"],
    )  # fmt: skip
    assert [each.name for each in plots_of(sides_of([second]))[0][1]] == ["ann", "cat"] and plots_of(
        sides_of([second])[:1]
    ) == []
    assert costs_of([first, second]) == {
        "ann": ((421 + 718) / 6, 7.375 / 6),
        "bob": (350 / 2, 0.5),
        "cat": (278.0, 0.75),
    }
    assert standings_of([first], ()) == "no votes" and latest_votes([first]) == []


def test_boards_of_a_run_are_those_of_its_agents_in_their_order(two: Two, tmp_path: Path) -> None:
    boards, problems = boards_of(two[1])
    assert problems == [] and [board.benchmark for board in boards] == ["quiz"]
    assert [row.agent for row in boards[0].rows] == ["ann", "cat"]
    with store.create(tmp_path, {}, "empty") as run:
        assert boards_of(run) == ([], [])


def test_an_attempt_is_kept_decoded_until_it_is_scored_and_without_protected_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace(number: int, **more: Any) -> Trace:
        calls = (Call(":0", "generate", 0, 0.0, 1.0, "r", usage=Usage(7, 2, 3, 0.5), nodes=(1,)),
                 Call(":1", "generate", 1, 0.0, 1.0, "r", usage=Usage(10, 4, 5, 0.25, cache_write_tokens=6),
                 nodes=(2,)))  # fmt: skip
        nodes = (
            Node(None, user("a question of some length")),
            Node(0, assistant("an answer of some length")),
            Node(1, assistant("B")),
        )
        return Trace(f"x{number}", "quiz", "t", {"name": "ann"}, number, 0, "", 1.0, nodes=nodes, calls=calls,
        place=f"p{number}",
                     scores=(Score("s", 0.5),), **more)  # fmt: skip

    with store.create(tmp_path, {}, "kept") as run:
        secret = trace(1, events=(Event("protected", 0.0, {"why": "its authors ask"}),))
        for each in (trace(0), secret, trace(2), trace(3)):
            run.append(each)
        kept = KeptTraces()
        one = kept.get(run, "p0")
        assert (
            kept.get(run, "p0") is one and (one.number, one.size, one.has_messages) == (1, 5, True) and one.run is run
        )
        assert one.usage == Usage(17, 6, 8, 0.75, cache_write_tokens=6) and one.trace.nodes == trace(0).nodes
        assert one.head == replace(one.trace, nodes=(), calls=(), events=()) and _head_of(one.body) == one.head
        assert json.loads(one.spans)["columns"]["ref"] == ["", "call:0", "call:1"] and one.first_spans["total"] == 3
        bare = {"prompt_tokens": 7, "cached_tokens": 2, "completion_tokens": 3, "cost_usd": 0.5}
        assert _usage_of({"calls": [{"usage": bare}]}) == Usage(7, 2, 3, 0.5) and _usage_of({"calls": []}) == Usage()
        hidden = kept.get(run, "p1")
        assert "some length" not in json.dumps(hidden.body) and hidden.head.nodes == () and hidden.size == 6
        assert hidden.trace.nodes[0].message.text != secret.nodes[0].message.text and hidden.head.scores == (
            Score("s", 0.5),
        )
        run.add_score(trace(0), 1, "late", "judge", Score("late", 1.0))
        again = kept.get(run, "p0")
        assert again is not one and [score.name for score in again.head.scores] == ["s", "late"] == [
            score.name for score in again.trace.scores
        ]
        assert Trace.from_json(_read(run, "p2", 1).body) == trace(2)
        with pytest.raises(TypeError, match="messages, calls or events are no list"):
            _head_of({**one.body, "events": {}})
        monkeypatch.setattr(kept_traces, "MOST_KEPT", 2)
        kept.get(run, "p0")
        kept.get(run, "p2")
        assert [key[1] for key in kept._kept] == ["p0", "p2"]
        monkeypatch.setattr(kept_traces, "MOST_CALLS", 9)
        kept.get(run, "p0")
        kept.get(run, "p3")
        assert [key[1] for key in kept._kept] == ["p3"]
    for was_on in (False, True):
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(KeyError), _without_collection():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is was_on


def test_tasks_of_attempts_are_collected_with_their_answers_and_scores(two: Two, tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    sets, (first, second) = TaskCollections(kept), two
    assert sets.add("s", first, [first.trace(place) for place in ("p2", "p0", "p1")]) == 2
    assert sets.add("s", second, [second.trace("p3"), second.trace("p0")]) == 1
    task = Task("t1", "Q1?", secret={"answer": "1"}, metadata={"level": "hard"})
    found = sets.get("s").tasks
    assert found[0] == CollectedTask(task, "quiz", first.id, "p2", "the answer 2", 0.25)
    assert [(each.task.id, each.run, each.place, each.score) for each in found] == [
        ("t1", first.id, "p2", 0.25), ("t0", first.id, "p0", 1.0), ("t2", second.id, "p3", 0.5),
    ]  # fmt: skip
    lost = replace(first.trace("p0"), task_id="t" * 61)
    assert refusal(lambda: sets.add("s", first, [lost])) == (
        f"run {first.id} does not hold the task '{'t' * 60}', so it cannot be collected"
    )
    with store.create(tmp_path, {}, "secret") as run:
        run.add_tasks("quiz", [Task("t0", "Q?", metadata={"protected": "its authors ask"})])
        says = refusal(lambda: sets.add("s", run, [first.trace("p0")]))
        assert (
            says == "the task 't0' is protected (its authors ask): it is not collected"
            and len(sets.get("s").tasks) == 3
        )
        assert _attempt(run, first.trace("p0")).question == ""
    kept.close()


def test_an_export_says_what_its_run_holds(two: Two) -> None:
    names = {two[0].id: "FIRST", two[0].info.created_at: "MADE"}
    text, shown, left = exported(two[0], "agent:ann")
    said = outline(text[text.index("<body") :], names)
    assert (shown, left) == (3, 0) and said.startswith(
        "FIRST interrupted MADE, 5 attempts, 771 tokens, 1 error. Written by firsthand studio export; nothing "
        "is fetched when it is "
        'opened. Command and settings firsthand run first { "lr": 5 } quiz exact, 3 tasks, 2 epochs bob: '
        "inconclusive vs. ann "
    )
    attempts = " ".join(
        f"quiz / {task}, ann question {task.upper().replace('T', 'Q')}? expected {task[1]} answer the answer "
        f"{n} scores {score} exact "
        f"user #0 Ask {task} assistant #2 ann says {n} 1 more branches are in the run."
        for n, (task, score) in enumerate((("t0", "1"), ("t0", "0.5"), ("t1", "0.25")))
    )
    assert said.endswith(
        " 3 attempts with agent:ann task agent score ended by tokens quiz / t0(#a1) ann 1 done 120 quiz / "
        "t0(#a2) ann 0.5 done 131 "
        f"quiz / t1(#a3) ann 0.25 done 170 {attempts}"
    )
    made = _attempt(two[0], two[0].trace("p4"))
    assert (made.question, made.expected, made.said.leaf, made.trace.place) == ("Q2?", "2", 2, "p4")


@pytest.mark.slow
def test_curves_of_a_sweep_are_shown_with_what_differs_and_what_goes_with_the_result(tmp_path: Path) -> None:
    names: dict[str, str] = {}
    for number, (lr, name, losses) in enumerate(
        ((0.1, "sgd", (4.0, 2.0)), (0.01, "adam", (3.0, 1.0)), (0.001, "adam", (8.0, 5.0)))
    ):
        config = {"optim": {"lr": lr, "name": name}, "batch": 8}
        with store.create(tmp_path, config, f"tr{number}") as run, Track(run) as track:
            for step, value in enumerate(losses):
                track.log({"loss": value, "acc": number + step}, step=10 * step, at=1000.0 + step)
            track.text("sample", f"hello {number}", step=10 + number)
        names[run.id] = f"TR{number}"
    ids = {name: id for id, name in names.items()}
    all3 = "run=TR0&run=TR1&run=TR2"
    top = (
        " [ metrics {metric=} smoothing {smooth=0} {logx=} log steps {logy=} log values along x: step time "
        "since the start {clip=} "
        "without outliers group by group: nothing optim.lr optim.name ] "
    )
    heads = [f"TR{n}(/runs/TR{n}) interrupted" for n in range(3)]
    texts = [f"sample step {10 + n}, TR{n} hello {n}" for n in range(3)]
    note = (
        "over these runs. Settings may move together, so this is no proof of cause. "
        "setting strength direction measure runs "
    )
    form = "Settings and results [get /curves {run=TR0} {run=TR1} {run=TR2} result target: "
    differs = "What differs setting TR0 TR1 TR2 optim.lr 0.1 0.01 0.001 optim.name sgd adam adam Samples "
    with entered(tmp_path) as client:
        for key, says in {
            f"/curves?{all3}": "Curves " + ", ".join(heads) + top + form + "acc *loss Show ] Settings by how "
            "strongly they go with the "
            f"last loss {note}optim.lr 0.50 -0.50 rank correlation 3 optim.name 0.00 correlation ratio 3 "
            + differs + " ".join(texts),
            f"/curves?{all3}&target=acc&smooth=0.5&x=time": "Curves " + ", ".join(heads) + top + form + "*acc "
            "loss Show ] Settings by "
            f"how strongly they go with the last acc {note}optim.lr 1.00 -1.00 rank correlation 3 optim.name "
            "0.87 correlation ratio 3 "
            + differs + " ".join(texts),
            "/curves?run=TR1&run=TR0&run=TR1": "Curves " + ", ".join(heads[1::-1]) + top + "What differs "
            "setting TR1 TR0 optim.lr 0.01 "
            "0.1 optim.name adam sgd Samples " + " ".join(texts[1::-1]),
            "/curves?run=TR2": "Curves " + heads[2] + top.partition("group by")[0] + "] Settings setting TR2 "
            "optim.lr 0.001 optim.name "
            "adam batch 8 Samples " + texts[2],
        }.items():  # fmt: skip
            assert asked(client, key, names) == (says, 200), key
        page = client.get(
            "/curves", params=[("run", ids["TR0"]), ("run", ids["TR1"]), ("run", ids["TR2"]), ("smooth", "0.1")]
        ).text
        data = {name: html.unescape(value) for name, value in re.findall(r'data-([\w]+)="([^"]*)"', page)}
        source = "/curves.json?" + "".join(f"run={id}&" for id in names) + "points=1500"
        assert (
            data["source"] == source
            and f'href="{html.escape(source)}&amp;with=means"' in page
            and data["target"] == "loss"
        )
        assert json.loads(data["names"]) == ["acc", "loss"] and json.loads(data["runs"]) == list(names)
        assert json.loads(data["facts"]) == {
            ids[name]: {"optim.lr": lr, "optim.name": kind}
            for name, lr, kind in (("TR0", "0.1", "sgd"), ("TR1", "0.01", "adam"), ("TR2", "0.001", "adam"))
        }
        assert json.loads(data["axes"])["axes"] == [
            {"name": "optim.lr", "is_setting": True, "kind": "number", "log": True, "values": [0.1, 0.01, 0.001]},
            {"name": "optim.name", "is_setting": True, "kind": "word", "log": False, "values": ["sgd", "adam", "adam"]},
            {"name": "acc", "is_setting": False, "kind": "number", "log": False, "values": [1.0, 2.0, 3.0]},
            {"name": "loss", "is_setting": False, "kind": "number", "log": False, "values": [2.0, 1.0, 5.0]},
        ]
        given = [("run", ids["TR1"]), ("run", ids["TR0"]), ("metric", "loss"), ("with", "at")]
        assert client.get("/curves.json", params=given).json() == {"curves": [
            {"run": ids["TR1"], "name": "loss", "steps": [0, 10], "values": [3.0, 1.0], "at": [1000.0, 1001.0]},
            {"run": ids["TR0"], "name": "loss", "steps": [0, 10], "values": [4.0, 2.0], "at": [1000.0, 1001.0]},
        ]}  # fmt: skip
        curves = client.app.state.curves  # type: ignore[attr-defined]
        points = {key[2] for key in curves._kept}
        assert points == {750, 500}, "half of the 1500 points of a page of two metrics, and of 1000"
        client.get("/curves.json", params=[("run", ids["TR1"]), ("points", "1")])
        client.get("/curves.json", params=[("run", ids["TR1"]), ("points", "99999")])
        assert {key[2] for key in curves._kept} - points == {5, 2000}
