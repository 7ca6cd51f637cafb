"""Ties, limits and order in what the Studio keeps: queues, prompts, data sets, accounts, attempts, and a page's events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import assistant, user
from firsthand.studio import branch_conversation, live_events, task_collection
from firsthand.studio.accounts import CHANGES_A_MINUTE, GUESS_S, GUESSES, GUESSES_OF_ADDRESS, Accounts, User, _digest
from firsthand.studio.annotation_queue import OPEN_S, AnnotationQueue, Queues, queue_of_form
from firsthand.studio.live_events import changes, mark_of, marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import TaskCollections, as_lines
from firsthand.studio.token_colours import laid_out
from firsthand.trace import Node, Trace


def refused(work: Any, *given: Any, **named: Any) -> str:
    with pytest.raises((ConfigError, UnknownName)) as said:
        work(*given, **named)
    return str(said.value)


# -- queues --


def test_the_two_with_the_most_in_common_are_compared_and_the_largest_difference_comes_first(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    queues = Queues(kept)
    queues.make(AnnotationQueue("q", "run", ("p2", "p0", "p1", "p3"), "good", raters=2, shared=3))
    for rater, labels in {
        "dan": {"p3": 0.25}, "cyd": {"p2": 1.0, "p3": 0.0}, "ann": {"p0": 1.0, "p1": 0.5, "p2": 0.0, "p3": 0.25},
        "bob": {"p0": 0.0, "p1": 1.0},
    }.items():  # fmt: skip
        for place, value in labels.items():
            queues.rate("q", place, rater, value)
    state = queues.state("q")
    assert (state.done, state.pairs, state.same) == (4, 4, 0) and len(state.labels) == 9
    assert state.by_rater == (("ann", 4, 1.75 / 4), ("bob", 2, 0.5), ("cyd", 2, 0.5), ("dan", 1, 0.25))
    assert [(place, [each.rater for each in said]) for place, said in state.disagreements] == [
        ("p0", ["ann", "bob"]), ("p2", ["ann", "cyd"]), ("p1", ["ann", "bob"]), ("p3", ["ann", "cyd", "dan"]),
    ]  # fmt: skip
    # ann and bob have p0 and p1 in common, ann and cyd p2 and p3: the first two by name.
    assert state.kappa == pytest.approx(1 - 2 * (1 + 0.25) / (1 + 0 + 0.25 + 0.25))
    # interval alpha: squared differences of each item's pairs, over those of all nine labels
    units = [[0.0, 1.0], [1.0, 0.0], [0.5, 1.0], [0.25, 0.0, 0.25]]
    pooled = [value for unit in units for value in unit]
    seen = sum(sum((a - b) ** 2 for a in unit for b in unit) / (len(unit) - 1) for unit in units) / 9
    by_chance = sum((a - b) ** 2 for a in pooled for b in pooled) / (9 * 8)
    assert state.alpha == pytest.approx(1 - seen / by_chance)
    kept.close()


def test_an_item_that_one_has_rated_comes_before_the_first_and_a_place_is_open_for_ten_minutes(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    queues = Queues(kept)
    queues.make(AnnotationQueue("q", "run", ("c", "a", "b"), "good", raters=2, shared=2))
    assert queues.next_item("q", "ann", now=0) == "c" and queues.next_item("q", "bob", now=1, skip=["c"]) == "a"
    assert queues.next_item("q", "cyd", now=2) == "c", "the first of two that need one more"
    assert queues.next_item("q", "dan", now=3) == "a" and queues.next_item("q", "eve", now=4) == "b"
    assert queues.next_item("q", "fay", now=5) is None
    assert queues.next_item("q", "fay", now=OPEN_S - 0.5) is None
    assert queues.next_item("q", "fay", now=OPEN_S) == "c", "ann's time is over, and cyd has it still"
    queues.rate("q", "c", "ann", 0.0)
    assert queues.next_item("q", "ann", now=OPEN_S + 3.5) == "a", "one's own is not given again"
    kept.close()


@pytest.mark.parametrize("text", ["³", "٣", "1.0", "-1", "1 0", "1000000"])
def test_a_number_of_raters_is_written_in_at_most_six_plain_digits(text: str) -> None:
    says = f"raters is {text!r}: a whole number was expected"
    assert refused(queue_of_form, {"name": "q", "raters": text}, ["a"]) == says
    assert queue_of_form({"name": "q", "shared": "999999", "raters": " 3 "}, ["a", "b"]) == AnnotationQueue(
        "q", "", ("a", "b"), "", raters=3, shared=999999
    )


# -- prompts and data sets --


def test_a_prompt_may_have_an_at_sign_in_its_name(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    prompts = PromptLibrary(kept)
    for name, text in (("a", "one"), ("a@b", "two"), ("a@b", "three"), ("a@", "four")):
        prompts.add(name, text, "ann")
    asked = {each: prompts.text(each) for each in ("a", "a@1", "a@b", "a@b@1", "a@b@2", "a@", "a@@1")}
    assert asked == {
        "a": ("a", 1, "one"), "a@1": ("a", 1, "one"), "a@b": ("a@b", 2, "three"), "a@b@1": ("a@b", 1, "two"),
        "a@b@2": ("a@b", 2, "three"), "a@": ("a@", 1, "four"), "a@@1": ("a@", 1, "four"),
    }  # fmt: skip
    assert refused(prompts.text, "a@last") == "no prompt 'a@last'" and refused(prompts.text, "a@³") == "no prompt 'a@³'"
    assert refused(prompts.text, "a@b@3") == "the prompt 'a@b' has no version 3: it has 1 to 2"
    kept.close()


def test_a_data_set_holds_each_question_once_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_collection, "MAX_TASKS", 3)
    kept = SqliteStore(tmp_path)
    sets = TaskCollections(kept)

    def row(id: str, question: str, **more: Any) -> dict[str, Any]:
        return {"id": id, "question": question, "answer": "é" * 2001, "system": "", "history": [], "cluster": ""} | more

    rows = [row("t1", " Q "), row("t1", " Q ", answer="other"), row("t1", "Q", system="Be brief", cluster="c")]
    assert sets.add_received("s", rows) == 2 and sets.add_received("s", iter(rows[:1])) == 0
    found = sets.get("s")
    assert [(each.task.question, each.task.metadata, each.answer) for each in found.tasks] == [
        (" Q ", {}, "é" * 2000), ("Q", {"system": "Be brief", "cluster": "c"}, "é" * 2000),
    ]  # fmt: skip
    first = found.tasks[0]
    assert first.task.secret == {"answer": "é" * 2001} and (first.benchmark, first.run, first.place) == (
        "traces",
        "",
        "t1",
    )
    assert found.version == 2 and json.loads(as_lines(found).split("\n")[1]) == {
        "id": f"t1 {found.tasks[1].key}", "prompt": "Q", "target": "é" * 2001, "from": {"run": "", "attempt": "t1"},
    }  # fmt: skip
    says = "trace t3 has no question, so no task can be made of it"
    assert refused(sets.add_received, "s", [row("t2", "R"), row("t3", " \n")]) == says and len(sets.get("s").tasks) == 2
    assert sets.add_received("s", [row("t2", "R")]) == 1, "as many as the limit are kept"
    assert refused(sets.add_received, "s", [row("t4", "S")]) == "the data set would have 4 tasks: at most 3 are kept"
    sets.remove("s", "other", "t1")
    assert len(sets.get("s").tasks) == 3
    assert refused(sets.remove, "s", "traces", "t1") == (
        "2 tasks of 's' have the id 't1': open the data set again and remove one"
    )
    for each in found.tasks:
        sets.remove("s", "traces", "t1", each.key)
    assert [each.task.id for each in sets.get("s").tasks] == ["t2"]
    sets.remove("s", "traces", "t2")
    assert sets.all() == [] and refused(sets.remove, "s", "traces", "t2") == "no data set 's'"
    kept.close()


# -- accounts --


def test_changes_and_guesses_are_counted_in_a_window_that_ends_with_its_last_second(tmp_path: Path) -> None:
    now = [0.0]
    kept = SqliteStore(tmp_path)
    accounts = Accounts(kept, lambda: now[0])
    ann, bob = User("ann", "editor"), User("bob", "editor")
    assert all(accounts.may_change_now(ann) for _ in range(CHANGES_A_MINUTE)) and accounts.may_change_now(bob)
    now[0] = 59.9
    assert not accounts.may_change_now(ann) and accounts.may_change_now(bob) and not accounts.may_change_now(ann)
    assert len(accounts._changes["ann"]) == CHANGES_A_MINUTE + 1, "no more are kept than decide"
    now[0] = 60.0
    assert accounts.may_change_now(ann), "what is a minute old counts no more"
    assert len(accounts._changes["ann"]) == 3 and len(accounts._changes["bob"]) == 2

    now[0] = 1000.0
    assert [accounts._guess("ann", "home") for _ in range(GUESSES)] == [1000.0] * GUESSES
    assert accounts._guess("ann", "away") is None and accounts._guess("bob", "home") == 1000.0
    for at in range(GUESSES_OF_ADDRESS - GUESSES - 1):
        assert accounts._guess(f"x{at}", "home") == 1000.0
    assert accounts._guess("new", "home") is None and accounts._guess("new", "away") == 1000.0
    now[0] = 1000.0 + GUESS_S - 0.5
    assert accounts._guess("ann", "away") is None
    now[0] = 1000.0 + GUESS_S
    assert accounts._guess("ann", "home") == now[0]
    assert accounts._wrong == {"account ann": [now[0]], "address home": [now[0]]}, "what is over is forgotten"

    kept.put("account", "ann", {"role": "editor", "hash": "h", "made": ""})
    accounts._sessions = {_digest("s"): ("ann", "h", now[0] + 5), _digest("t"): ("ann", "old", now[0] + 5)}
    assert accounts.of_session("s") == ann and accounts.of_session("t") is None and accounts.of_session("u") is None
    now[0] += 5
    assert accounts.of_session("s") is None, "it ends at its time"
    kept.close()


# -- what a page is told --


def test_a_page_is_told_once_of_each_topic_that_has_changed_since_it_was_made(tmp_path: Path) -> None:
    async def told(topics: list[str], seen: str, count: int) -> list[str]:
        stream = changes(topics, runs, seen=seen, poll_s=0.001)
        found = [await anext(stream) for _ in range(count)]
        await stream.aclose()  # type: ignore[attr-defined]
        return found

    async def play() -> None:
        begun = "retry: 2000\n: the Studio tells what changes\n\n"
        seen = mark_of("runs", runs)
        assert marks_of(["traces", "runs"], runs) == f"{mark_of('traces', runs)} {seen}"
        (tmp_path / "runs").mkdir()
        assert mark_of("runs", runs) != seen and len(seen) == 16
        changed = 'event: changed\ndata: {"topic": "runs"}\n\n'
        assert await told(["run:x", "runs", "runs"], f"{mark_of('run:x', runs)} {seen}", 2) == [begun, changed]
        stream = changes(["runs", "traces"], runs, seen=mark_of("runs", runs), poll_s=0.001)
        assert await anext(stream) == begun
        coming = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
        assert not coming.done(), "nothing has changed"
        (tmp_path / "runs" / "index.sqlite").mkdir()
        assert await coming == changed
        await stream.aclose()  # type: ignore[attr-defined]

    runs = OpenRuns(tmp_path)
    asyncio.run(asyncio.wait_for(play(), 20))


def test_a_quiet_page_is_told_that_the_studio_is_there_some_time_after_the_last_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    poll_s = 2.0**-9
    monkeypatch.setattr(live_events, "PING_S", 3 * poll_s)
    reads: list[str] = []

    class Traces:
        @property
        def version(self) -> str:
            reads.append("a" if len(reads) < 2 else "b")
            return reads[-1]

    async def play() -> None:
        stream = changes(["traces"], OpenRuns(tmp_path), Traces(), poll_s=poll_s)  # type: ignore[arg-type]
        told = [(await anext(stream), len(reads)) for _ in range(4)]
        ping = ": still here\n\n"
        assert told[1:] == [('event: changed\ndata: {"topic": "traces"}\n\n', 3), (ping, 6), (ping, 9)]
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(play(), 20))


# -- an attempt --


def test_a_token_that_is_not_known_gets_at_most_forty_letters() -> None:
    for letters, pieces in ((0, ["", "b"]), (40, ["a" * 40, "b"]), (41, None)):
        assert laid_out("a" * letters + "b", [None, "b"]) == pieces
    assert laid_out("a" * 80 + "b", [None, "", "b"]) is None and laid_out("a" * 80 + "bc", [None, None, "b", "c"]) == [
        "a" * 80, "", "b", "c",
    ]  # fmt: skip
    assert laid_out("ab", ["a", "x"]) == ["a", "b"] and laid_out("ab", ["a", "x", "y"]) is None
    assert laid_out("abcd", ["a", "b"]) == ["a", "bcd"] and laid_out("", []) is None and laid_out("ab", [None]) is None


def test_a_long_branch_is_shown_by_its_beginning_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_conversation, "MAX_MESSAGES", 4)
    monkeypatch.setattr(branch_conversation, "MAX_BRANCHES", 2)

    def shown(count: int, *parents: int, leaf: int | None = None) -> tuple[list[int], int | None, int, int]:
        nodes = [Node(None if at == 0 else at - 1, user(f"n{at}")) for at in range(count)]
        nodes += [Node(parent, assistant(f"of {parent}")) for parent in parents]
        found = Trace("t", "q", "t0", {"name": "a"}, 0, 0, "", 1.0, nodes=tuple(nodes))
        made = branch_conversation.conversation(found, leaf)
        return [each.node for each in made.said], made.leaf, made.num_leaves, made.left_out

    assert shown(4) == ([0, 1, 2, 3], 3, 1, 0) and shown(7) == ([0, 1, 5, 6], 6, 1, 3)
    assert shown(3, 0, 0) == ([0, 4], 4, 3, 0) and shown(3, 0, 0, leaf=1) == ([0, 1, 2], 2, 3, 0)
    assert shown(3, 0, 0, leaf=5) == shown(3, 0, 0) and shown(3, 0, 0, leaf=0) == shown(3, 0, 0)
    assert shown(0) == ([], None, 0, 0)
    nodes = (
        Node(None, user("q")),
        Node(0, assistant("a")),
        Node(0, assistant("b")),
        Node(1, user("c")),
        Node(0, user("d")),
    )
    told = branch_conversation.conversation(Trace("t", "q", "t0", {"name": "a"}, 0, 0, "", 1.0, nodes=nodes), 3)
    assert [(each.node, each.siblings) for each in told.said] == [(0, ()), (1, (1, 2)), (3, ())]
    assert (told.leaf, told.leaves, told.num_leaves, told.leaf_of) == (3, (2, 3), 3, {1: 3, 2: 2})
