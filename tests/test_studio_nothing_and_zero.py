"""A score, cost or time of 0 is one, an empty text is not what is missing, and what comes after an odd item is taken too."""

from __future__ import annotations

import html
import math
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.message import Message, ToolCall, assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.pairing import compare
from firsthand.runs.score_totals import ScoreMean
from firsthand.runs.track import Track
from firsthand.studio import branch_conversation, comparison_slices
from firsthand.studio import span_detail as span_detail_module
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.attempt_spans import _numbers, first_spans_json, spans_of
from firsthand.studio.branch_conversation import message_blocks
from firsthand.studio.comparison_slices import cost_plots, metadata_keys, scatter_points, slices_of
from firsthand.studio.found_page import FoundPage
from firsthand.studio.project_store import ProjectStore
from firsthand.studio.prompt_library import PromptLibrary, TriedIn, tried_in
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.run_export import ExportedCurve, _curves, exported
from firsthand.studio.run_list import RunPage, earlier_run, run_page
from firsthand.studio.run_notes import RunNotes
from firsthand.studio.span_detail import span_detail
from firsthand.studio.span_search import refs_holding
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import CollectedTask, TaskCollection, TaskCollections
from firsthand.studio.trace_copies import as_test
from firsthand.studio.trace_difference import trace_difference
from firsthand.studio.typed_filter import parse_filter
from firsthand.task import Task
from firsthand.trace import Call, Node, Score, Trace
from studio_attempts import call, trace

FIELDS: dict[str, Any] = {"name": "text", "score": "number", "score.": "number"}
FLAGS = {"has": ("error",)}


def info(id: str, at: str = "1", *means: float | None, **config: Any) -> RunInfo:
    return RunInfo(
        id,
        Path(id),
        at,
        "done",
        config=config,
        scores=tuple(ScoreMean(f"b{n}", "ann", mean, 1) for n, mean in enumerate(means)),
    )


def test_a_mean_score_of_nothing_right_is_a_score() -> None:
    infos = [
        info("a", "1", 0.0),
        info("b", "2"),
        info("c", "3", None, 0.0, 0.5),
        info("d", "4", None),
        info("e", "5", 0.5),
    ]

    def found(text: str, sort: str = "") -> str:
        return "".join(each.id for each in run_page(infos, text, sort).rows)

    assert [found(text) for text in ("score=0", "score>=0", "has:score", "-has:score")] == ["a", "eca", "eca", "db"]
    assert [found("", sort) for sort in ("score", "-score")] == ["aecdb", "ecadb"], "of equal ones the newest first"
    late = [replace(each, config={"prompt": "p", "prompt_version": 1 + (each.id == "c")}) for each in infos]
    assert tried_in("p", late) == [TriedIn(late[2], 2, 0.25), *(
        TriedIn(late[n], 1, score) for n, score in ((0, 0.0), (1, None), (3, None), (4, 0.5))
    )]  # fmt: skip
    assert earlier_run(infos[4], [*infos, replace(infos[4], id="f")]) == infos[3], (
        "not one that has begun at the same time"
    )
    assert earlier_run(infos[4], [replace(infos[0], created_at="5"), infos[1]]) is None
    assert earlier_run(infos[3], infos[:1]) == infos[0] and earlier_run(infos[1], infos) is None


def test_a_bar_of_nothing_is_reached_by_anything() -> None:
    tasks = [
        CollectedTask(Task("t", "Q", secret={"answer": "1"}), "b", "r", "p", "", score) for score in (0.0, None, 0.5)
    ]
    text = as_regression_test(TaskCollection("s", tuple(tasks), 1))
    assert re.findall(r"'flexible', ([\d.]+)\)", text) == ["0.0", "1.0", "0.5"] and "'1 t'" in text and "'3 t'" in text
    for score, bar in ((0.0, "0.0"), (0.25, "0.25"), (None, "0.0")):
        scores = () if score is None else (Score("exact", score),)
        made = as_test("r", trace(scores=scores))
        assert f"\nBAR = {bar}\n" in made and "ATTEMPT = 'r', 'quiz/a task/ann/2'" in made
    odd = as_test('r"""\n1', replace(trace(), task_id="é/_", id="x\ny"))
    assert odd.startswith('"""Made from attempt xy of run r1: the same') and "def test_task_is_solved" in odd


def test_a_prompt_with_a_sign_in_its_name_is_found_by_its_last_number(tmp_path: Path) -> None:
    kept = PromptLibrary(SqliteStore(tmp_path))
    for name, texts in (("a@b", ("one", "two")), ("a", ("three",))):
        for text in texts:
            kept.add(name, text, "me", "n" * 401)
    for reference, found in (
        ("a@b", ("a@b", 2, "two")), ("a@b@1", ("a@b", 1, "one")), ("a@b@2", ("a@b", 2, "two")), ("a", ("a", 1, "three")),
        ("a@1", ("a", 1, "three")),
    ):  # fmt: skip
        assert kept.text(reference) == found
    for reference, says in (
        ("a@b@3", "the prompt 'a@b' has no version 3: it has 1 to 2"),
        ("a@0", "the prompt 'a' has no version 0: it has 1 to 1"),
        ("a@", "no prompt 'a@'"), ("@1", "no prompt ''"), ("a@x", "no prompt 'a@x'"), ("a@²", "no prompt 'a@²'"),
        ("", "no prompt"),
    ):  # fmt: skip
        with pytest.raises(UnknownName) as told:
            kept.text(reference)
        assert says in str(told.value), reference
    assert (
        kept.add("a", "three", "you", after=1) == 1
        and kept.add("a", "three ", "you") == 2
        and kept.add("a", "three", "me") == 3
    )
    assert len(kept.versions("a")[0].note) == 400


def test_a_filter_has_forty_terms_and_its_quoted_words_their_blanks_and_signs() -> None:
    assert len(parse_filter(" x" * 40, FIELDS, FLAGS)) == 40
    with pytest.raises(ConfigError, match="the filter has more than 40 terms"):
        parse_filter("x " * 41, FIELDS, FLAGS)
    for text, found in (
        ('" a b "', ("", ":", " a b ", False)), ('-name=" x"', ("name", "=", " x", True)), ('":x"', ("", ":", ":x", False)),
        ('-"<"', ("", ":", "<", True)), ("score.a-b>=-1e2", ("score.a-b", ">=", "-1e2", False)),
        ("--x", ("", ":", "-x", True)),
        ("has=error", ("has", "=", "error", False)), ("a-b", ("", ":", "a-b", False)),
    ):  # fmt: skip
        (term,) = parse_filter(text, FIELDS, FLAGS)
        assert (term.field, term.operator, term.value, term.is_negated) == found, text
    for text in (
        '""',
        "-",
        "name:",
        'name=""',
        ":x",
        "=",
        "has:Error",
        "has>error",
        "score:nan",
        "score<inf",
        "name<x",
        '"a"b',
        'a"',
    ):
        with pytest.raises(ConfigError, match="the filter"):
            parse_filter(text, FIELDS, FLAGS)


def test_curves_of_an_export_draw_finite_numbers_and_end_with_the_last_value_finite_or_not(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "r", command=["train"]) as run, Track(run) as track:
        for step, (a, b, c) in enumerate(((math.nan, 1.0, 2.0), (math.inf, 3.0, 2.0), (-math.inf, math.nan, 2.0))):
            track.log({"a": a, "b": b, "c": c}, step=10 + 5 * step)
        track.log({"d": -1.0}, step=7)
        track.flush()
        assert repr(list(_curves(run))) == repr([  # NaN equals NaN there
            ExportedCurve("a", (), math.nan, math.nan, 20, -math.inf),
            ExportedCurve("b", ("0.0,155.0 300.0,5.0",), 1.0, 3.0, 20, math.nan),
            ExportedCurve("c", ("0.0,80.0 300.0,80.0 600.0,80.0",), 2.0, 2.0, 20, 2.0),
            ExportedCurve("d", ("0.0,80.0",), -1.0, -1.0, 7, -1.0),
        ])  # fmt: skip
        for n, task in enumerate(("t10", "t2", "t1")):
            run.append(Trace(f"x{n}", "quiz", task, {"name": "ann"}, 0, 0, "", 1.0, answer=f"of {task}", place=f"p{n}"))
        text, count, left = exported(run)
        page = html.unescape(text)
        assert (count, left) == (3, 0) and page.index("of t1") < page.index("of t10") < page.index("of t2")


def test_agents_of_no_score_or_cost_have_a_place_and_values_of_nothing_are_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        values = [0, 0, 1, False, "", 0]
        run.add_tasks("quiz", [Task(f"t{n}", "Q", metadata={"n": value, "list": [1], "cluster": f"c{n // 2}"})
                               for n, value in enumerate(values)])  # fmt: skip
        for agent, scores, usd in (("ann", (0.0,) * 6, 0.0), ("bob", (1, 0, 1, 1, 0, 0.5), 0.5)):
            run.add_agent(agent, {"name": agent})
            for n, score in enumerate(scores):
                usage = Call(":0", "generate", None, 0.0, 0.5, "r", usage=Usage(100 if usd else 40, 0, 10, usd))
                run.append(Trace(f"{agent}{n}", "quiz", f"t{n}", {"name": agent}, 0, 0, "", 1.0, calls=(usage,),
                                 scores=(Score("exact", score),), place=f"{agent}{n}"))  # fmt: skip
        run.append(
            Trace("again", "quiz", "t0", {"name": "bob"}, 1, 0, "", 1.0, scores=(Score("exact", 1.0),), place="again")
        )
        points, unit = cost_plots([(run, "ann", "A"), (run, "bob", "B"), (run, "cat", "C")], ["quiz"])[0][1:]
        assert (unit, [(each.name, round(each.score, 6), each.on_frontier) for each in points]) == (
            "tokens", [("A", 0.0, True), ("B", round(3.5 / 6, 6), True)],
        )  # fmt: skip
        assert [each.cost for each in points] == [50.0, 660 / 7] and cost_plots([(run, "ann", "A")], ["other"])[0][
            1:
        ] == (
            [],
            "tokens",
        )
        keys = metadata_keys(run, ["quiz"])
        texts = ["0", "0", "1", "False", "", "0"]
        assert list(keys) == ["cluster", "n"] and keys["n"] == {("quiz", f"t{n}"): text for n, text in enumerate(texts)}
        comparison = compare(run, run, agent_a="ann", agent_b="bob", error_value=0.0)
        found = slices_of(comparison, keys["n"])
        assert {each.value: (each.difference.n, each.before, each.after) for each in found} == {
            "0": (3, 0.0, 0.5), "1": (1, 0.0, 1.0), "False": (1, 0.0, 1.0), "": (1, 0.0, 0.0),
        }  # fmt: skip
        assert next(each for each in found if each.value == "0").difference.clusters == 2
        monkeypatch.setattr(comparison_slices, "MAX_SLICES", 2)
        assert sorted(each.value for each in slices_of(comparison, keys["n"])) == ["", "0"], (
            "the largest, then by value"
        )
    assert scatter_points([("a", 0.5, 10.0, 0.0), ("b", 0.25, 20.0, 1.0)])[1] == "tokens"


def test_steps_of_two_attempts_are_compared_by_their_error_before_their_text() -> None:
    a = trace(
        calls=(call(":0", "tool", detail={"name": "f", "arguments": {"b": 1, "a": "é"}}, nodes=(), error="gone"),)
    )
    b = trace(calls=(call(":0", "tool", detail={"name": "f", "arguments": {"a": "é", "b": 1}}, nodes=(), error=""),))
    found = trace_difference(a, b)
    assert [(step.change, step.a and step.a.text, step.b and step.b.text) for step in found.steps] == [
        ("changed", "gone", '{"a": "é", "b": 1}')
    ]
    assert (found.first, found.num_same) == (0, 0) and trace_difference(a, a).first is None


def test_tasks_of_traces_are_collected_once_and_without_what_is_not_there(tmp_path: Path) -> None:
    sets = TaskCollections(SqliteStore(tmp_path))
    row = {"id": "i" * 50, "question": "Q", "answer": "A" * 2001, "system": "", "history": [], "cluster": "s"}
    assert sets.add_received("x", [row, row, {**row, "question": "Q "}, {**row, "id": "j", "system": "S"}]) == 3
    assert sets.add_received("x", [row]) == 0 == sets.add_received("x", [])
    tasks = sets.get("x").tasks
    assert [(each.task.metadata, len(each.answer), each.score) for each in tasks] == [
        ({"cluster": "s"}, 2000, None), ({"cluster": "s"}, 2000, None), ({"system": "S", "cluster": "s"}, 2000, None),
    ]  # fmt: skip
    assert tasks[0].task.secret == {"answer": "A" * 2001}
    with pytest.raises(ConfigError, match=f"^trace {'i' * 40} has no question, so no task can be made of it$"):
        sets.add_received("y", [row, {**row, "question": " \n"}])
    assert [each.name for each in sets.all()] == ["x"]


def test_a_file_of_the_store_is_its_owners_and_a_project_is_not_named_in_a_refusal(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path / "new")
    assert kept.items("a") == [] and kept.logged("a") == [] and not (tmp_path / "new").exists()
    shared = ProjectStore(kept, "one")
    assert shared.put("view", "v", {"a": 0}) == 1 and shared.put("api-key", "k", {}) == 1
    assert stat.S_IMODE((tmp_path / "new" / "studio.sqlite").stat().st_mode) == 0o600
    assert [item.key for item in kept.items("one/view")] == ["v"] and [item.key for item in kept.items("api-key")] == [
        "k"
    ]
    for version, says in ((0, "is there already"), (2, "was changed in the meantime")):
        with pytest.raises(ConfigError, match=f"^the view 'v' {says}: open it again and repeat your change$"):
            shared.put("view", "v", {}, version=version)
    assert kept._connection is not None and not kept._connection.in_transaction
    kept._connection.execute("PRAGMA user_version = 7")
    kept.close()
    with pytest.raises(StoreError, match=r"was written by a newer firsthand \(schema 7\): update firsthand"):
        kept.items("one/view")
    assert kept._connection is None
    notes = RunNotes(SqliteStore(tmp_path))
    notes.keep("r", "\r\n a\r\nb \n", "me", 0)
    assert (notes.get("r").text, notes.get("r").version, notes.get("s").version) == ("a\nb", 1, 0)


def test_attempts_with_lone_surrogates_are_found_by_them_and_have_neighbours(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        for n, task in enumerate(("a", "B\ud800", "c")):
            run.append(Trace(f"x{n}", "quiz", task, {"name": "ann"}, 0, 0, "", 1.0, place=f"p{task}"))

        def found(text: str) -> list[str]:
            return [row.id for row in AttemptQuery.parse(text).page(run.database).rows]

        for text, ids in (
            ("\ud800", ["x1"]), ("task:b\ud800", ["x1"]), ("task=b\ud800", ["x1"]), ("-\ud800", ["x0", "x2"]),
            ("id:pB\ud800", ["x1"]), ("id:pb", []), ("id=x1", ["x1"]), ("-task=a", ["x1", "x2"]),
            ("-error=x", ["x0", "x1", "x2"]),
            ("model=\ud800", []), ("-id:x1 -id:x2", ["x0"]), ("-quiz", []),
        ):  # fmt: skip
            assert found(text) == ids, text
        query = AttemptQuery.parse("", "-task")
        assert query.beside(run.database, "pB\ud800") == ("pa", None) and query.beside(run.database, "pc") == (
            None,
            "pa",
        )
        assert query.beside(run.database, "p\ud800") == (None, None)


def test_a_branch_may_have_colons_in_its_name() -> None:
    body = trace(calls=(call("a:b:0"), call("a:c:0"), call("a:b:1"))).to_json()
    assert first_spans_json(body, 2)["total"] == len(spans_of(body)) == 6
    assert [row.label for row in spans_of(body) if row.kind == "branch"] == ["a:b", "a:c"]
    assert _numbers("9" * 11 + "." + "9" * 5000) == ((99_999_999_999, ""), (1 << 60, "9" * 5000))


def test_a_call_that_is_no_json_is_shown_even_if_it_was_empty_and_so_many_siblings_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (empty,) = message_blocks(Message("assistant", (ToolCall("c", "f", {}, invalid=""),)))
    assert (empty.kind, empty.text, empty.title, empty.is_error) == ("call", "", "f", True)
    monkeypatch.setattr(branch_conversation, "MAX_BRANCHES", 2)
    nodes = (Node(None, user("Q")), *(Node(0, assistant(each)) for each in "abc"))
    found = branch_conversation.conversation(trace(nodes=nodes), 0)
    assert [(each.node, each.siblings) for each in found.said] == [(0, ()), (3, (1, 2))]
    assert (found.leaf, found.leaves, found.num_leaves, found.leaf_of) == (3, (1, 2), 3, {1: 1, 2: 2})


def test_branches_that_begin_together_stand_in_their_order() -> None:
    calls = (call("0.10:0"), call("0.2:0"), call("0.1:0", begun=0.5), call("0.3:0", begun=0.25))
    body = trace(calls=calls).to_json()
    assert [row.label for row in spans_of(body) if row.kind == "branch"] == ["0.2", "0.10", "0.3", "0.1"]


def test_what_a_call_was_asked_first_is_new_and_an_empty_error_is_no_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (
        Node(None, user("u0")), Node(0, assistant("a1")), Node(1, user("u2")), Node(2, assistant("a3")), Node(3, user("u4")),
    )  # fmt: skip
    calls = (
        call(":0", at=2, nodes=(3, 9), error=""), call(":1", at=0, nodes=(1,)), call(":2", at=4), call(":3", "tool", at=4),
        call(":4", "score", at=0, error="x" * 2001),
    )  # fmt: skip
    found = [span_detail(trace(nodes=nodes, calls=calls), f"call:{number}") for number in range(5)]
    assert [([each.node for each in one.new], one.num_before, [each.node for each in one.answers]) for one in found] == [
        ([0, 1, 2], 0, [3]), ([0], 0, [1]), ([4], 4, []), ([], 0, []), ([], 1, []),
    ]  # fmt: skip
    assert [dict(one.facts).get("error") for one in found] == [None, None, None, None, "x" * 2000]
    first = span_detail(trace(nodes=nodes, calls=calls[1:2]), "call:0")
    assert ([each.node for each in first.new], first.num_before) == ([0], 0), "the first message is one"
    monkeypatch.setattr(span_detail_module, "MAX_PROMPT_MESSAGES", 2)
    cut = span_detail(trace(nodes=nodes, calls=calls[2:3]), "call:0")
    assert ([each.node for each in cut.new], cut.num_before) == ([3, 4], 3)
    body = trace(nodes=nodes, calls=calls[1:2]).to_json()
    assert [refs_holding(body, words) for words in ("u0", "A1 ", "a3", "")] == [["call:0"], ["call:0"], [], ["call:0"]]


def test_beyond_the_last_page_there_is_no_next_one() -> None:
    for rows, total, start, following in (
        ((1, 2), 5, 0, 2), ((1, 2), 2, 0, None), ((), 9, 4, None), ((), 0, 0, None), ((1,), 3, 1, 2), ((1,), 2, 1, None),
    ):  # fmt: skip
        assert FoundPage(rows, total, start).next_start == following
        assert RunPage(rows, total, start, {}).next_start == following  # type: ignore[arg-type]


def test_a_store_whose_file_went_away_while_it_was_open_is_still_read(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("view", "a", {"x": None})
    for name in ("studio.sqlite", "studio.sqlite-wal", "studio.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert [item.body for item in kept.items("view")] == [{"x": None}]
    kept.close()
    assert kept.items("view") == [] and not (tmp_path / "studio.sqlite").exists()
    assert not kept.remove("view", "a\n") and not kept.remove("view", "b") and (tmp_path / "studio.sqlite").exists()
