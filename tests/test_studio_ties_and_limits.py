"""Ties, limits and order in what the Studio keeps: queues, prompts, data sets, accounts, votes, and a page's events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.message import assistant, user
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import arena_rounds, branch_conversation, task_collection
from firsthand.studio.accounts import CHANGES_A_MINUTE, GUESS_S, GUESSES, GUESSES_OF_ADDRESS, Accounts, User, _digest
from firsthand.studio.annotation_queue import OPEN_S, AnnotationQueue, Queues, queue_of_form
from firsthand.studio.arena_rounds import AnsweringSide, ArenaRounds, Round
from firsthand.studio.live_events import changes, mark_of, marks_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.playground import Playground, PlaygroundTrial, _described, _sampling, forked
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import TaskCollections, as_lines
from firsthand.studio.token_colours import laid_out
from firsthand.task import Task
from firsthand.trace import Event, Node, Trace


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
    # ann and bob have p0 and p1 in common, ann and cyd p2 and p3: the first two by name. Both say yes to p1 at 0.5.
    assert state.kappa == pytest.approx(0.0)
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
        "id": "t1", "prompt": "Q", "target": "é" * 2001, "from": {"run": "", "attempt": "t1"},
    }  # fmt: skip
    says = "trace t3 has no question, so no task can be made of it"
    assert refused(sets.add_received, "s", [row("t2", "R"), row("t3", " \n")]) == says and len(sets.get("s").tasks) == 2
    assert sets.add_received("s", [row("t2", "R")]) == 1, "as many as the limit are kept"
    assert refused(sets.add_received, "s", [row("t4", "S")]) == "the data set would have 4 tasks: at most 3 are kept"
    sets.remove("s", "other", "t1")
    assert len(sets.get("s").tasks) == 3
    sets.remove("s", "traces", "t1")
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
    assert not accounts.may_change_now(ann) and accounts.may_change_now(bob)
    now[0] = 60.0
    assert accounts.may_change_now(ann), "what is a minute old counts no more"
    assert len(accounts._changes["ann"]) == len(accounts._changes["bob"]) == 2

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


# -- the arena --


def agents() -> dict[str, Agent]:
    return {name: Agent(name, Scripted(lambda *_: "x", name=f"scripted:{name}"), reply) for name in ("amber", "cobalt")}


def test_a_vote_keeps_its_first_time_and_its_last_words_and_one_keeper(tmp_path: Path) -> None:
    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents())
        made = Round("r", Task("t", "Q"), *(AnsweringSide(each) for each in agents().values()))
        assert refused(rounds.vote, made, "a", [], "ann") == "both answers must be complete before the vote"
        made.battle = object()  # type: ignore[assignment]
        assert refused(rounds.vote, made, "a", [], "ann") == "both answers must be complete before the vote"
        made.ready_at = 0.0
        rounds.vote(made, "a", ["style", "safe", "style"], "ann", undo_s=60)
        first, dwell_s = made.keeper, made.dwell_s
        assert (made.winner, made.reasons, made.by) == ("a", ("style", "safe"), "ann") and dwell_s > 0
        made.ready_at = -1000.0
        rounds.vote(made, "tie", [], "bob", undo_s=60)
        second = made.keeper
        assert (made.winner, made.reasons, made.by, made.dwell_s) == ("tie", (), "bob", dwell_s)
        await asyncio.sleep(0)
        assert first is not None and first.cancelled() and second is not None and not second.done()
        rounds.undo(made)
        await asyncio.sleep(0)
        assert second.cancelled() and (made.winner, made.keeper) == (None, None)
        rounds.undo(made)
        rounds.vote(made, "b", [], "ann", undo_s=60)
        assert made.dwell_s > dwell_s + 900, "after an undo the time is taken anew"
        rounds.undo(made)
        made.problem = "It broke."
        assert rounds.reveal(made) == {"a": "amber", "b": "cobalt", "winner": None}

    asyncio.run(play())


def test_rounds_that_failed_or_are_answered_hold_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_rounds, "MOST_UNDER_WAY", 2)

    def opened() -> Any:
        raise StoreError("it would begin")

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents())
        rounds._open = opened  # type: ignore[method-assign]
        for id in "abcd":
            rounds._rounds[id] = Round(id, Task("t", "Q"), *(AnsweringSide(each) for each in agents().values()))
        rounds._rounds["a"].problem, rounds._rounds["b"].battle = "It broke.", object()  # type: ignore[assignment]
        with pytest.raises(ConfigError, match="2 rounds are under way: wait for one of them to end"):
            await rounds.start("Q")
        rounds._rounds["c"].problem = "It broke too."
        with pytest.raises(StoreError, match="it would begin"):
            await rounds.start("Q")

    asyncio.run(play())


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


# -- trials --


def test_a_trial_is_described_by_what_was_given_and_keeps_what_was_not() -> None:
    bare = PlaygroundTrial(("m",), "Q", temperature=0.0, at=0, seed=0)
    assert _described(bare) == {"models": ("m",), "prompt": "Q", "temperature": 0.0, "seed": 0, "epochs": 1}
    fork = PlaygroundTrial(("m", "n"), system="", run="r", attempt="p", is_plain=True, alternatives=0, max_tokens=1)
    assert _described(fork) == {
        "models": ("m", "n"), "max_tokens": 1, "alternatives": 0, "epochs": 1, "run": "r", "attempt": "p", "at": 0,
        "is_plain": True,
    }  # fmt: skip
    own = agents()["amber"].sampling
    sampled = _sampling(bare, own)
    assert (sampled.temperature, sampled.max_tokens, sampled.top_logprobs) == (0.0, own.max_tokens, own.top_logprobs)
    given = _sampling(fork, own)
    assert (given.temperature, given.max_tokens, given.top_logprobs) == (own.temperature, 1, 0)


def test_a_fork_keeps_the_rules_of_its_parent_that_allow_nothing(tmp_path: Path) -> None:
    (agent, _) = agents().values()
    config = {
        "benchmarks": ["arithmetic"], "model": ["scripted:echo"], "pattern": ["reply"], "tools": ["calculator"],
        "approve": ["read=allow", "calculator=deny", "irreversible=ask"],
    }  # fmt: skip
    parent = Trace(
        "t", "arithmetic", "t0", {"name": "reply", "model": "scripted:echo", "pattern": "reply"}, 0, 0, "then", 1.0
    )
    trial = PlaygroundTrial(("amber",), run="r", attempt="p")
    with store.create(tmp_path, config, "ruled", command=["firsthand", "run", "arithmetic"]) as parents:
        made, setting = forked(trial, agent, parents, parent)
        assert made.approval.rules == {"external": "ask", "calculator": "deny", "irreversible": "ask"}
        assert (
            made.name == "reply@amber"
            and setting.name == "arithmetic"
            and [t.name for t in made.tools] == ["calculator"]
        )
        (tool,) = made.tools
        decision = asyncio.run(made.approval.ask(tool, {}))  # type: ignore[operator]
        assert (decision.allowed, decision.by) == (False, "nobody")
        assert decision.reason == f"calculator needs approval ({tool.effect}), and the Studio asks nobody"


def test_a_fork_is_followed_at_its_parents_epoch_unless_it_is_protected(tmp_path: Path) -> None:
    (agent, _) = agents().values()
    trial = PlaygroundTrial(("amber",), run="r", attempt="p0", say="And?")
    nodes = (Node(None, user("Q")), Node(0, assistant("A")))
    heard: list[Any] = []

    async def fork(parents: Any) -> Trace:
        run, work = Playground(tmp_path, {"amber": agent})._forks(trial, [agent], parents)
        listener = run.feed.listener

        def listened(place: Any, **more: Any) -> Any:
            heard.append((place.id, place.epoch, more))
            return listener(place, **more)

        run.feed.listener = listened  # type: ignore[method-assign]
        await work()
        (made,) = run.traces()
        assert run.info.num_planned == 1 and run.info.status == "done" and "fork-quiz" in run.id
        run.close()
        return made

    for events in ((), (Event("protected", 0.0, {"why": "x"}),)):
        parent = Trace("t", "quiz", "t0", {"name": "a"}, 2, 7, "then", 1.0, nodes=nodes, place="p0", events=events)
        with store.create(tmp_path, {}, "bare") as parents:
            parents.add_tasks("quiz", [Task("t0", "Q")])
            parents.append(parent)
            made = asyncio.run(fork(parents))
        assert made.answer == "x" and made.epoch == 2, made.error
        assert heard == ([] if events else [(made.place, 2, {"pieces": True})]), events
        heard.clear()


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
