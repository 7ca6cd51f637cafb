"""Small rooms of a run's file, row by row: its journal, tasks, later scores, feed, and the names and locks of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import assistant
from firsthand.model import Usage
from firsthand.runs import later_scores, store, stored_tasks
from firsthand.runs.feed import Both, Ended, Feed, Started, step_to_json
from firsthand.runs.removal import remove_run
from firsthand.runs.run_claims import claim_attempts, claim_scoring, expect_idle
from firsthand.runs.run_names import find_run, new_run_id, run_ids
from firsthand.runs.stored_journal import StoredJournal
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {}, "small") as made:
        yield made


def trace(id: str, place: str, **more: Any) -> Trace:
    return Trace(id, "b", more.pop("task", "t"), {"name": "a"}, more.pop("epoch", 0), 0, "", 1.0, place=place, **more)


def test_a_journal_finds_the_last_reply_of_its_own_attempt(run: store.Run) -> None:
    first, other = StoredJournal(run.database, "one"), StoredJournal(run.database, "two")
    assert first.find("0:1", "r") is None
    first.record("0:1", "r", {"n": 1})
    first.record("0:1", "r", {"n": 2})
    first.record("0:1", "s", {"n": 3})
    first.record("0:2", "r", {"n": 4})
    other.record("0:1", "r", {"n": 5})
    first.record("judge|0:1", "r", {"n": 6})
    again = StoredJournal(run.database, "one")
    for journal in (first, again):
        found = [journal.find(*key) for key in (("0:1", "r"), ("0:1", "s"), ("0:2", "r"), ("0:2", "s"), ("0:3", "r"))]
        assert found == [{"n": 2}, {"n": 3}, {"n": 4}, None, None]
    assert [other.find("0:1", "r"), other.find("0:2", "r")] == [{"n": 5}, None]
    assert [(*each[:2], each[2]["n"]) for each in again.entries()] == [
        ("0:1", "r", 2), ("0:1", "s", 3), ("0:2", "r", 4), ("judge|0:1", "r", 6),
    ]  # fmt: skip
    assert [[each["n"] for each in again.replies(part)] for part in ("", "judge", "x")] == [[2, 3, 4], [6], []]
    late = StoredJournal(run.database, "three")
    assert late.find("x", "r") is None
    late.record("x", "r\ud800", {"n": 7})
    assert late.find("x", "r\ud800") == {"n": 7} and late.find("x", "r") is None


def test_tasks_are_kept_by_benchmark_and_id_and_another_of_one_id_is_refused(run: store.Run) -> None:
    kept, files = run.database, {"columns": {"level": "own", "more": 1}}
    tasks = [
        Task("z", "Z?", metadata={"level": "1", "cluster": "c1"}), Task("a", "A?", metadata={"k": 1}, secret=files),
        Task("m", "M?"),
    ]  # fmt: skip
    stored_tasks.add_tasks(kept, "run7", "two", tasks)
    stored_tasks.add_tasks(kept, "run7", "one", [Task("a", "other", metadata={"cluster": "c2"})])
    stored_tasks.add_tasks(kept, "run7", "two", [replace(tasks[0], metadata={"level": "1", "cluster": "new"})])
    assert list(stored_tasks.tasks(kept)) == [("two", "z"), ("two", "a"), ("two", "m"), ("one", "a")]
    assert stored_tasks.benchmarks(kept) == ["two", "one"]
    assert stored_tasks.clusters(kept) == {"two": {"z": "c1"}, "one": {"a": "c2"}}
    assert [stored_tasks.task(kept, *key) for key in (("two", "a"), ("one", "z"))] == [tasks[1], None]
    found = list(stored_tasks.metadata(kept, "two"))
    assert found == [("z", {"level": "1", "cluster": "c1"}), ("a", {"level": "own", "more": 1, "k": 1}), ("m", {})]
    assert (
        list(stored_tasks.metadata(kept, "two", 1)) == found[:1] and list(stored_tasks.metadata(kept, "two", 0)) == []
    )
    with pytest.raises(StoreError) as told:
        stored_tasks.add_tasks(kept, "run7", "two", [Task("new", "N?"), replace(tasks[2], prompt="other?")])
    assert str(told.value) == (
        "task 'm' of two is not the one that run run7 already holds, so their results cannot be mixed: "
        "start a new run, or give it a name of its own"
    )
    assert stored_tasks.task(kept, "two", "new") is None, "all or none"


def test_later_scores_belong_to_a_try_and_a_name_to_one_scorer(run: store.Run) -> None:
    own = trace("1", "p1", scores=(Score("own", 1.0),))
    run.append(own)
    run.append(trace("2", "p2"))
    kept = run.database
    assert later_scores.with_scores(kept, own, 1) is own
    with kept.write() as connection:
        for number, name, scorer, score in (
            (1, "judge", "j one", Score("judge", 0.25, {"why": "w"})), (1, "judge", "j one", Score("judge", 0.5)),
            (2, "judge", "j one", Score("judge", 0.75)), (1, "exact", "e", Score("exact", 0.0, failure="E: x")),
        ):  # fmt: skip
            later_scores.insert_score(connection, "run7", own, number, name, scorer, score)
    for name, scorer in (("judge", "j two"), ("exact", "j one")):
        with pytest.raises(StoreError) as told, kept.write() as connection:
            later_scores.insert_score(connection, "run7", own, 1, name, scorer, Score(name, 1.0))
        given = "j one" if name == "judge" else "e"
        assert str(told.value) == (
            f"run run7 has scores named {name!r} already, given by {given}: give the new ones another name, as in --as NAME"
        )
    assert later_scores.score_names(kept) == {"judge": "j one", "exact": "e"}
    assert later_scores.scored(kept, "judge") == {("p1", 1): True, ("p1", 2): True}
    assert later_scores.scored(kept, "exact") == {("p1", 1): False} and later_scores.scored(kept, "none") == {}
    assert later_scores.with_scores(kept, own, 1).scores == (
        Score("own", 1.0), Score("judge", 0.5), Score("exact", 0.0, failure="E: x"),
    )  # fmt: skip
    assert later_scores.with_scores(kept, own, 2).scores == (Score("own", 1.0), Score("judge", 0.75))


def test_the_feed_keeps_steps_in_order_until_their_attempt_ends(run: store.Run) -> None:
    feed = Feed(run.database)
    call = Call(":0", "generate", 0, 1.0, 2.0, "r", Usage(1, 2, 3, 0.5), (1,),
                {"n": 1, "prompt": "p", "tools": [], "schemas": [], "top_logprobs": []}, True, "E")  # fmt: skip
    steps = [Started("b", "t", "a", 2), Added(1, Node(0, assistant("hi"))), Piece(":0", "one"), Piece(":0", " two"),
             Piece(":1", "x"), call, Event("note", 0.5, {"k": 1})]  # fmt: skip
    for step in steps:
        feed.add("p1", step)
    feed.add("p2", Started("b", "u", "a", 0))
    feed.flush()
    short = replace(call, detail={"n": 1})
    found = feed.after()
    assert [(each.place, each.step) for each in found] == [
        *[("p1", step) for step in (*steps[:5], short, steps[6])],
        ("p2", Started("b", "u", "a", 0)),
    ]
    assert [each.sequence for each in found] == list(range(1, len(found) + 1)) and feed.last() == len(found)
    assert feed.after(len(found) - 1) == found[-1:] and feed.after(1, 2) == found[1:3] and feed.after(len(found)) == []
    assert feed.under_way() == found and feed.under_way(2) == found[-2:]
    run.append(trace("new", "p1", scores=(Score("s", 0.5), Score("t", 1.0)), epoch=2, stop_reason="turns"))
    run.append(trace("bad", "p9", scores=(Score("s", 0.5),), error=Failure("E", "x"), stop_reason="error"))
    ended = feed.after()
    assert [(each.place, each.step) for each in ended] == [
        ("p2", Started("b", "u", "a", 0)), ("p1", Ended("new", "b", "t", "a", 2, 0.5, "turns", None)),
        ("p9", Ended("bad", "b", "t", "a", 0, None, "error", "E: x")),
    ]  # fmt: skip
    assert [each.place for each in feed.under_way()] == ["p2"]
    kind, body = step_to_json(call)
    feed.add_json("p3", kind, body)
    feed.add_json("p2", *step_to_json(Began(":0", "tool", 3, {"name": "x"})))
    feed.close()
    assert [(each.place, each.step) for each in feed.under_way()] == [
        ("p2", Started("b", "u", "a", 0)), ("p3", short), ("p2", Began(":0", "tool", 3, {"name": "x"})),
    ]  # fmt: skip
    for kind, body in (("ended", {}), ("other", {}), ("piece", [])):
        with pytest.raises(
            StoreError, match=f"a step is of the kind '{kind}': started, added, began, piece, call, event"
        ):
            feed.add_json("p3", kind, body)  # type: ignore[arg-type]


def test_pieces_go_to_those_listeners_that_stream() -> None:
    class Listener:
        def __init__(self, streams: bool | None):
            self.got: list[Any] = []
            if streams is not None:
                self.streams = streams

        def __call__(self, step: Any) -> None:
            self.got.append(step)

    piece, event = Piece(":0", "x"), Event("note", 0.0)
    for first, second, streams in ((True, False, True), (False, None, True), (False, False, False)):
        one, two = Listener(first), Listener(second)
        both = Both(one, two)
        both(piece)
        both(event)
        assert both.streams is streams
        assert one.got == ([piece, event] if first else [event])
        assert two.got == ([event] if second is False else [piece, event])


def test_runs_are_found_by_last_id_part_path_and_name(tmp_path: Path) -> None:
    made = new_run_id(datetime(2026, 3, 4, 5, 6, tzinfo=UTC), "  My Änd x" + "y" * 60)
    assert made[:16] == "2026-03-04-0506-" and made[16:-5] == "my-nd-x" + "y" * 32 and len(made[-4:]) == 4
    assert new_run_id(datetime(2026, 3, 4, tzinfo=UTC), "Ä")[16:-5] == "run"
    with pytest.raises(UnknownName, match=r"there are no runs in .*runs yet: `firsthand run` makes one"):
        find_run("last", tmp_path)
    names = ("2026-01-01-0000-math-aaaa", "2026-01-01-0000-math-bbbb", "2026-01-02-0000-code-cccc",
             "2026-01-03-0000-conversation-dddd")  # fmt: skip
    for age, name in enumerate((names[1], names[0], *names[2:])):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("run.sqlite", "lock"):
            (tmp_path / "runs" / name / file).write_text("")
            os.utime(tmp_path / "runs" / name / file, (age + 10, age + 10))
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / ".removed-x").mkdir()
    (tmp_path / "runs" / ".removed-x" / "run.sqlite").write_text("")
    assert run_ids(tmp_path) == list(names)

    def found(ref: str) -> str:
        path = find_run(ref, tmp_path)
        assert path.parent == tmp_path / "runs"
        return path.name

    assert found("last") == names[2] and found("code") == names[2] and found("CODE") == names[2]
    assert found(names[3]) == names[3] and found("bbbb") == names[1] and found("2026-01-02") == names[2]
    assert found(str(tmp_path / "runs" / names[0])) == names[0]
    assert found(str(tmp_path / "runs" / names[0] / "run.sqlite")) == names[0]
    for ref, says in (
        ("2026-01-01", "'2026-01-01' is the beginning of 2 runs (2026-01-01-0000-math-aaaa, 2026-01-01-0000-math-bbbb): "
         "give more of the id"),
        ("math", "2 runs are named 'math' (2026-01-01-0000-math-aaaa, 2026-01-01-0000-math-bbbb): give the id of one"),
        (str(tmp_path / "runs" / "empty"), f"{str(tmp_path / 'runs' / 'empty')!r} is not the folder of a run: it has no "
         "run.sqlite. `firsthand runs` shows all"),
    ):  # fmt: skip
        with pytest.raises(UnknownName) as told:
            find_run(ref, tmp_path)
        assert str(told.value) == says
    for ref in ("", "zzzz", "-", "x" * 5000, "a\0b"):
        with pytest.raises(UnknownName):
            find_run(ref, tmp_path)
    (tmp_path / "runs" / names[2] / "run.sqlite").unlink()
    os.utime(tmp_path / "runs" / names[0] / "lock", (5, 5))
    assert found("last") == names[1], "of one minute the one that was made last"


@pytest.mark.slow
def test_a_run_that_is_worked_on_can_be_claimed_once_and_is_not_removed(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "kept") as run:
        folder = run.path
    expect_idle(folder)
    with claim_attempts(folder), claim_scoring(folder, "one"), claim_scoring(folder, "two"):
        says = rf"^{folder.name} is being run by .*: wait until it ends, or end it first$"
        with pytest.raises(ConfigError, match=says):
            expect_idle(folder)
        with pytest.raises(ConfigError, match=rf"^{folder.name} is being given scores named 'two' by "):
            claim_scoring(folder, "two").__enter__()
        says = (
            rf"^{folder.name} is being worked on by process {os.getpid()} on .*: wait until it ends, or end it first$"
        )
        with pytest.raises(StoreError, match=says):
            remove_run(folder)
        assert folder.exists()
    left = folder.with_name(".removed-other")
    left.mkdir()
    (folder.parent / "link").symlink_to(folder)
    for wrong in (folder.parent / "link", folder.parent):
        with pytest.raises(StoreError, match="is not the folder of a run, and is kept"):
            remove_run(wrong)
    remove_run(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["index.sqlite", "link"]


def test_a_journal_tells_whether_a_lasting_call_may_have_acted(run: store.Run) -> None:
    ends: tuple[tuple[list[dict[str, Any]], bool], ...] = (
        ([], False),
        ([{"content": "read alone", "is_error": False}], False),
        ([{"started": True}], True),
        ([{"started": True}, {"waiting": True}], False),
        ([{"started": True}, {"waiting": True}, {"started": True}], True),
        ([{"started": True}, {"content": "sent", "is_error": False}], True),
        ([{"started": True}, {"content": "no", "is_error": True}], False),
        ([{"started": True}, {"content": "late", "is_error": True, "ran": True}], True),
    )
    for at, (replies, acted) in enumerate(ends):
        journal = run.journal(f"a.{at}")
        journal.record("0:0", "g", {"message": "a reply of the model"})
        journal.record("0:1", "refused", {"started": True})
        journal.record("0:1", "refused", {"content": "nothing was done", "is_error": True})
        for reply in replies:
            journal.record("0:2", "r", reply)
        assert run.journal(f"a.{at}").has_acted() == journal.has_acted() == acted, replies
