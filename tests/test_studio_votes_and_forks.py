"""Votes and rounds of the arena, and trials and forks of the playground, in unusual cases."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.message import assistant, user
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import arena_rounds
from firsthand.studio.arena_rounds import AnsweringSide, ArenaRounds, Round
from firsthand.studio.paced_pair import PacedPair
from firsthand.studio.playground import Playground, PlaygroundTrial, _described, _sampling, forked
from firsthand.task import Task
from firsthand.trace import Event, Node, Trace


def refused(work: Any, *given: Any, **named: Any) -> str:
    with pytest.raises((ConfigError, UnknownName)) as said:
        work(*given, **named)
    return str(said.value)


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


class Held(Scripted):
    """A model that says its first word, and the rest once it is let go."""

    def __init__(self, said: str, go: asyncio.Event):
        super().__init__(lambda *_: said, name=f"scripted:{said[:4]}")
        self.go = go

    async def stream(self, *given: Any, **named: Any) -> Any:
        async for each in super().stream(*given, **named):
            yield each
            await self.go.wait()


@pytest.mark.slow
def test_each_side_is_told_of_its_own_answer_and_an_empty_one_is_named(tmp_path: Path) -> None:
    said = {"amber": "left hand", "cobalt": "right hand"}

    async def play() -> None:
        go = asyncio.Event()
        rounds = ArenaRounds(tmp_path, {name: Agent(name, Held(text, go), reply) for name, text in said.items()})
        made = await rounds.start("Which?")
        while not (made.a.text and made.b.text):
            await asyncio.sleep(0)
        sides = (made.a, made.b)
        assert [side.text for side in sides] == [said[side.agent.name].partition(" ")[0] + " " for side in sides]
        assert made.battle is None and not made.problem
        go.set()
        assert made.work is not None
        await made.work
        assert [side.text for side in sides] == [said[side.agent.name] for side in sides]
        made.pace = PacedPair(_began_s=0.0)
        whole = [{"side": name, "from": 0, "text": side.text} for name, side in zip("ab", sides, strict=True)]
        told = [each async for each in rounds.events(made, tick_s=0.001)]
        assert told[-1] == {"ready": True} and told[:-1] != []
        again = [each async for each in rounds.events(made)]
        assert again == [*whole, {"ready": True}], "a page that is loaded again gets both texts at once"
        rounds.close()
        silent = {name: Agent(name, Scripted(lambda *_: "", name="scripted:none"), reply) for name in said}
        rounds = ArenaRounds(tmp_path, silent)
        made = await rounds.start("Which?")
        assert made.work is not None
        await made.work
        assert (made.problem, made.a.text, made.b.text) == ("", "(no answer)", "(no answer)")
        assert made.battle is not None and made.battle.a.answer == made.battle.b.answer == ""
        rounds.close()

    asyncio.run(play())


def test_a_page_keeps_of_a_text_that_begins_again_what_still_holds(tmp_path: Path) -> None:
    one, two = (AnsweringSide(each) for each in agents().values())
    made = Round("r", Task("t", "Q"), one, two, PacedPair(_began_s=0.0))  # long ago: up to 600 characters come at once
    rounds = ArenaRounds(tmp_path, agents())

    async def play() -> None:
        events = rounds.events(made, tick_s=0.0)

        async def told(count: int) -> list[Any]:
            made.pace._last_s = 0.0
            return [await anext(events) for _ in range(count)]

        one.text, two.text = "Hello", "Good day"
        assert await told(2) == [{"side": "a", "from": 0, "text": "Hello"}, {"side": "b", "from": 0, "text": "Good "}]
        one.text = "Help me on"
        assert await told(2) == [{"side": "a", "from": 3, "text": "p me "}, {"side": "b", "from": 5, "text": "day"}]
        one.text = "He"
        assert await told(1) == [{"side": "a", "from": 2, "text": ""}], "what the other side has said stays"
        one.text, two.text, made.battle = "Hey", "Good day to you", object()  # type: ignore[assignment]
        assert await told(1) == [{"side": "a", "from": 2, "text": "y"}]
        assert await told(2) == [{"side": "b", "from": 8, "text": " to you"}, {"ready": True}]
        assert [each async for each in events] == [] and made.pace.is_over

    asyncio.run(asyncio.wait_for(play(), 5))


@pytest.mark.slow
def test_the_same_models_in_another_order_go_on_with_their_run(tmp_path: Path) -> None:
    def opened(given: dict[str, Agent], seed: int = 4) -> Any:
        rounds = ArenaRounds(tmp_path, given, seed=seed)
        run = rounds._open()
        info, names = run.info, list(run.agents())
        rounds.close()
        return info.id, info.config, names

    two = agents()
    first, config, names = opened({"cobalt": two["cobalt"], "amber": two["amber"]})
    bodies = {name: agent.to_json() for name, agent in two.items()}
    assert config == {"arena": {"models": ["amber", "cobalt"], "agents": bodies, "by": "studio", "seed": 4}}
    assert opened(two) == (first, config, names) and sorted(names) == ["amber", "cobalt"]
    rhymed = opened({**two, "amber": replace(two["amber"], system="Rhyme")})
    assert rhymed[0] != first, "another system message makes it another model"


# -- trials --


class Streamed(Scripted):
    """A model that counts the answers that it has streamed."""

    streamed = 0

    async def stream(self, *given: Any, **named: Any) -> Any:
        self.streamed += 1
        async for each in super().stream(*given, **named):
            yield each


def test_prompts_and_data_sets_are_streamed_to_their_pages_and_have_their_seed(tmp_path: Path) -> None:
    models = [Streamed(lambda *_: "x", name=f"scripted:{name}") for name in ("amber", "cobalt")]
    made = Playground(tmp_path, {model.name: Agent(model.name, model, reply) for model in models})

    async def play() -> list[str]:
        trial = PlaygroundTrial(("scripted:cobalt",), "Q", seed=9, epochs=2)
        runs = [await made.start(trial), await made.start(replace(trial, seed=None, epochs=1))]
        tasks = [Task("t1", "Q1", secret={"answer": "X"}), Task("t2", "Q2", secret={"answer": "x"})]
        runs.append(await made.start_tasks("mine", tasks, ["scripted:amber", "scripted:cobalt"], "normalised"))
        await made.settled()
        return runs

    found, ids = [], asyncio.run(play())
    for id in ids:
        with store.open_run(id, tmp_path) as run:
            found.append([(each.agent_name, each.task_id, each.epoch, each.seed) for each in run.traces()])
            assert (run.info.num_planned, run.status, run.info.command) == (len(found[-1]), "done", ())
            scores = {each.task_id: [(score.name, score.value) for score in each.scores] for each in run.traces()}
    question = found[0][0][1]
    assert [sorted(each) for each in found] == [
        [("scripted:cobalt", question, 0, 9), ("scripted:cobalt", question, 1, 9)],
        [("scripted:cobalt", question, 0, 0)],
        [(model.name, task, 0, 0) for model in models for task in ("t1", "t2")],
    ]
    assert [model.streamed for model in models] == [2, 5] and made.problems == {} and made._work == {}
    assert scores == {"t1": [("normalised", 1.0)], "t2": [("normalised", 1.0)]}
    for id, kind in zip(ids, ("playground", "playground", "data-set"), strict=True):
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d-\d{{4}}-{kind}-[a-z0-9]{{4}}", id)


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


@pytest.mark.slow
def test_a_fork_loads_nothing_that_its_run_names_but_what_is_installed(tmp_path: Path) -> None:
    (agent, _) = agents().values()
    config = {"benchmarks": ["arithmetic"], "model": ["scripted:echo"], "pattern": ["reply"]}
    parent = Trace("t", "arithmetic", "t0", {"name": "reply", "model": "scripted:echo"}, 0, 0, "then", 1.0)
    trial = PlaygroundTrial(("amber",), run="r", attempt="p")
    for kind, key, given, named in (
        ("benchmark", "benchmarks", ["arithmetic", "evil.py"], "evil.py"), ("tool", "tools", ["evil.py:x"], "evil.py:x"),
        ("pattern", "pattern", ["reply", "best_of_n(evil.py)"], "best_of_n(evil.py)"), ("guard", "guard", ["e.py"], "e.py"),
        ("memory", "memory", "notes:path=..", "notes:path=.."),
    ):  # fmt: skip
        with store.create(tmp_path, {**config, key: given}, "foreign", command=["firsthand", "run"]) as parents:
            said = refused(forked, trial, agent, parents, parent)
        assert said == (
            f"the run names the {kind} {named!r}, which may load a file, a server or a model: continue it in the terminal "
            "with `firsthand fork`"
        )


@pytest.mark.slow
def test_a_fork_is_followed_at_its_parents_epoch_unless_it_is_protected(tmp_path: Path) -> None:
    (agent, _) = agents().values()
    nodes = (Node(None, user("Q")), Node(0, assistant("A")))
    heard: list[Any] = []

    async def fork(parents: Any, trial: PlaygroundTrial) -> Trace:
        run, work = Playground(tmp_path, {"amber": agent})._forks(trial, [agent], parents)
        listener = run.feed.listener

        def listened(place: Any, **more: Any) -> Any:
            heard.append((place.id, place.epoch, more))
            return listener(place, **more)

        run.feed.listener = listened  # type: ignore[method-assign]
        await work()
        (made,) = run.traces()
        assert run.agents() == {"amber": made.agent}
        assert run.info.num_planned == 1 and run.info.status == "done" and "fork-quiz" in run.id
        run.close()
        return made

    protected = (Event("protected", 0.0, {"why": "x"}),)
    for events, say, at, seed in (((), "And?", 1, None), (protected, "And?", 1, 0), ((), "", 0, 3)):
        parent = Trace("t", "quiz", "t0", {"name": "a"}, 2, 7, "then", 1.0, nodes=nodes, place="p0", events=events)
        trial = PlaygroundTrial(("amber",), run="r", attempt="p0", at=at, say=say, seed=seed)
        with store.create(tmp_path, {}, "bare") as parents:
            parents.add_tasks("quiz", [Task("t0", "Q")])
            parents.append(parent)
            made = asyncio.run(fork(parents, trial))
        assert made.answer == "x" and made.epoch == 2, made.error
        assert made.seed == (7 if seed is None else seed)
        said = [(node.message.role, node.message.text) for node in made.nodes]
        before = [("user", "Q"), ("assistant", "A"), ("user", "And?")] if say else [("user", "Q")]
        assert said == [*before, ("assistant", "x")], "without a message the model answers what was asked"
        assert heard == ([] if events else [(made.place, 2, {"pieces": True})]), events
        heard.clear()


@pytest.mark.slow
def test_when_a_playground_has_stopped_its_trials_are_over_and_their_runs_free(tmp_path: Path) -> None:
    begun, ended, calls = [], [], []

    async def slow_to_leave(task: Task, ctx: Any) -> str:
        begun.append(task.id)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(9):
                await asyncio.sleep(0)
            ended.append(task.id)
        return "never"

    async def quick(task: Task, ctx: Any) -> str:
        calls.append(task.prompt)
        return "done"

    async def play() -> None:
        waits = Scripted(["x"], name="scripted:waits")
        known = {"waits": Agent("waits", waits, slow_to_leave), "quick": Agent("quick", waits, quick)}
        made = Playground(tmp_path, known)
        await made.stop()
        await made.settled()
        first = await made.start(PlaygroundTrial(("quick",), "Q"))
        await made.settled()
        assert calls == ["Q"] and store.open_run(first, tmp_path).status == "done"
        runs = [await made.start(PlaygroundTrial(("waits",), f"Q{number}")) for number in range(2)]
        runs.append(await made.start_tasks("set", [Task("t", "Q")], ["waits"], "none"))
        while len(begun) < 3:
            await asyncio.sleep(0)
        assert [store.open_run(each, tmp_path).status for each in runs] == ["running"] * 3 and ended == []
        await made.stop()
        assert sorted(ended) == sorted(begun) and len(ended) == 3
        assert [store.open_run(each, tmp_path).status for each in runs] == ["interrupted"] * 3
        assert made.problems == {} and [len(list(store.open_run(each, tmp_path).traces())) for each in runs] == [0] * 3
        again = await made.start(PlaygroundTrial(("quick",), "R"))
        await made.settled()
        assert calls == ["Q", "R"] and store.open_run(again, tmp_path).status == "done"
        await made.stop()

    asyncio.run(play())


@pytest.mark.slow
def test_a_model_that_is_named_twice_answers_once_and_is_planned_once(tmp_path: Path) -> None:
    nodes = (Node(None, user("Q")), Node(0, assistant("A")))
    parent = Trace("t", "quiz", "t0", {"name": "a"}, 0, 7, "then", 1.0, nodes=nodes, place="p0")

    async def started(trial: PlaygroundTrial, parents: Any = None) -> str:
        made = Playground(tmp_path, agents())
        id = await made.start(trial, parents)
        await made.settled()
        assert made.problems == {}
        return id

    names = ("amber", "amber", "cobalt", "amber")
    with store.create(tmp_path, {}, "bare") as parents:
        parents.add_tasks("quiz", [Task("t0", "Q")])
        parents.append(parent)
        forks = asyncio.run(started(PlaygroundTrial(names, run="r", attempt="p0", at=1, say="And?"), parents))
    prompts = asyncio.run(started(PlaygroundTrial(names, "Q?")))
    for id in (forks, prompts):
        with store.open_run(id, tmp_path) as run:
            models = [(each.agent["model"], len(run.tries(each.place))) for each in run.traces()]
            assert sorted(models) == [("scripted:amber", 1), ("scripted:cobalt", 1)]
            assert (run.info.num_traces, run.info.num_planned, run.info.status) == (2, 2, "done")
