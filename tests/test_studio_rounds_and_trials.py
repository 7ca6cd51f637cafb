"""Rounds of the arena and trials of the playground, called without a browser: what is taken, what is kept, and where."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, ModelError, UnknownName
from firsthand.loop.listener import Began, Piece
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import arena_rounds, playground
from firsthand.studio.arena_rounds import AnsweringSide, ArenaRounds, Round, _common_prefix
from firsthand.studio.playground import Playground, PlaygroundTrial, _described
from firsthand.task import Task


def agents(**answers: str) -> dict[str, Agent]:
    return {
        name: Agent(name, Scripted(lambda *_, said=said: said, name=f"scripted:{name}", fingerprint=name), reply)
        for name, said in answers.items()
    }


TWO = agents(amber="yes", cobalt="no, or so")


async def shown(rounds: ArenaRounds, made: Round) -> list[Any]:
    return [event async for event in rounds.events(made, tick_s=0.001)]


def test_what_was_streamed_is_void_when_a_call_begins_again() -> None:
    side = AnsweringSide(TWO["amber"])
    side.hear(Piece("0", "He"))
    side.hear(Piece("0", "llo"))
    assert side.text == "Hello"
    for kind, left in (("tool", "Hello"), ("score", "Hello"), ("generate", "")):
        side.hear(Began("0", kind, None))  # type: ignore[arg-type]
        assert side.text == left


def test_a_studio_gives_five_seconds_to_undo_four_rounds_and_six_reasons() -> None:
    assert (arena_rounds.UNDO_S, arena_rounds.TICK_S, arena_rounds.MOST_UNDER_WAY, arena_rounds.MOST_ROUNDS) == (
        5,
        0.05,
        4,
        200,
    )
    assert arena_rounds.REASONS == ("correct", "complete", "clear", "follows the prompt", "style", "safe")
    limits = (playground.MOST_UNDER_WAY, playground.MAX_PROMPT_CHARS, playground.MAX_EPOCHS, playground.MAX_TOKENS)
    assert limits == (8, 100_000, 16, 32_768) and playground.REPLAY_WAIT_S == 20


def test_texts_are_sent_from_the_place_where_they_differ() -> None:
    for a, b, place in (
        ("", "ab", 0), ("ab", "abc", 2), ("abc", "abx", 2), ("abc", "ab", 2), ("abc", "x", 0), ("a", "a", 1), ("ab", "", 0),
    ):  # fmt: skip
        assert _common_prefix(a, b) == place


def test_a_round_is_shown_voted_on_undone_and_kept(tmp_path: Path) -> None:
    async def play() -> None:
        rounds = ArenaRounds(tmp_path, TWO, seed=3)
        made = await rounds.start("Is it?")
        assert rounds.get(made.id) is made and rounds.run is not None
        with pytest.raises(ConfigError, match="both answers must be complete before the vote"):
            rounds.vote(made, "a", [], "ann")
        with pytest.raises(ConfigError, match="the names are shown after the vote"):
            rounds.reveal(made)
        events = await shown(rounds, made)
        assert events[-1] == {"ready": True} and made.work is not None and made.work.done()
        texts = {"a": "", "b": ""}
        for event in events[:-1]:
            texts[event["side"]] = texts[event["side"]][: event["from"]] + event["text"]
        said = {each.agent.name: texts[side] for side, each in (("a", made.a), ("b", made.b))}
        assert said == {"amber": "yes", "cobalt": "no, or so"}
        for winner, reasons, says in (
            ("c", [], "winner is 'c': it is one of a, b, tie"),
            ("a", ["style", "x" * 50], "reason is 'x{40}': it is one of correct, complete, clear, follows"),
        ):
            with pytest.raises(ConfigError, match=says):
                rounds.vote(made, winner, reasons, "ann")
        rounds.vote(made, "a", ["style", "clear", "style"], "ann", undo_s=60)
        first, dwell_s = made.keeper, made.dwell_s
        rounds.undo(made)
        assert (made.winner, made.reasons, made.keeper, made.kept) == (None, (), None, None)
        rounds.vote(made, "b", ["safe"], "bob", undo_s=60)
        second = made.keeper
        rounds.vote(made, "b", ["safe", "clear", "safe"], "bob", undo_s=0)  # another reason: the same vote
        assert first is not None and second is not None and made.keeper is not None and made.dwell_s >= dwell_s
        await made.keeper
        assert first.cancelled() and second.cancelled() and made.kept is not None
        assert (made.kept.winner, made.kept.by) == ("b", "bob") and made.kept.detail is not None
        assert made.kept.detail["reasons"] == ["safe", "clear"]
        names = rounds.reveal(made)
        assert names == {
            "a": made.a.agent.name, "b": made.b.agent.name, "winner": "b", "void": "", "run": rounds.run.id,
            "attempts": [made.kept.a, made.kept.b],
        }  # fmt: skip
        with pytest.raises(ConfigError, match="the vote of this round is kept already: start a new one"):
            rounds.vote(made, "a", [], "ann")
        with pytest.raises(ConfigError, match="the vote was kept, 5 s after it was given or when the names were shown"):
            rounds.undo(made)
        waiting = await rounds.start("And now?")
        await shown(rounds, waiting)
        rounds.vote(waiting, "tie", [], "ann", undo_s=60)
        run = rounds.run.id
        rounds.close()
        assert waiting.kept is not None and rounds.run is None
        with store.open_run(run, tmp_path) as kept:
            assert [each.winner for each in kept.preferences()] == ["b", "tie"]
            assert sorted({row.epoch for row in kept.rows()}) == [0, 1]
        assert waiting.keeper is not None
        waiting.keeper.cancel()

    asyncio.run(play())


@pytest.mark.slow
def test_votes_go_on_in_the_last_run_that_nobody_holds(tmp_path: Path) -> None:
    async def run_of(rounds: ArenaRounds) -> str:
        made = await rounds.start("Is it?")
        assert rounds.run is not None and made.work is not None
        await made.work
        return rounds.run.id

    async def play() -> None:
        first, second = ArenaRounds(tmp_path, TWO), ArenaRounds(tmp_path, TWO)
        one, two = await run_of(first), await run_of(second)
        assert one != two  # the first is held
        assert await run_of(first) == one
        first.close()
        third = ArenaRounds(tmp_path, TWO)
        assert await run_of(third) == one
        assert third.run is not None and sorted({row.epoch for row in third.run.rows()}) == [0, 1, 2]
        others = [ArenaRounds(tmp_path, TWO, seed=1), ArenaRounds(tmp_path, {**TWO, **agents(teal="maybe")})]
        assert len({await run_of(each) for each in others} | {one, two}) == 4
        for each in (second, third, *others):
            each.close()

    asyncio.run(play())


def test_rounds_are_bounded_in_number_and_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_rounds, "MOST_UNDER_WAY", 1)
    monkeypatch.setattr(arena_rounds, "MOST_ROUNDS", 2)
    monkeypatch.setattr(arena_rounds, "MAX_PROMPT_CHARS", 6)

    async def play() -> None:
        with pytest.raises(ConfigError, match="the arena needs two models"):
            await ArenaRounds(tmp_path, agents(amber="x")).start("Is it?")
        rounds = ArenaRounds(tmp_path, TWO)
        with pytest.raises(ConfigError, match="the prompt has 7 characters: at most 6 are taken"):
            await rounds.start("Is it??")
        made = [await rounds.start("Is it?")]
        with pytest.raises(ConfigError, match="1 rounds are under way: wait for one of them to end"):
            await rounds.start("Is it?")
        for _ in range(2):
            await shown(rounds, made[-1])
            made.append(await rounds.start("Is it?"))
        await shown(rounds, made[-1])
        assert rounds.get(made[1].id) is made[1] and rounds.get(made[2].id) is made[2]
        with pytest.raises(UnknownName, match="this round is not known any more: start a new one"):
            rounds.get(made[0].id)
        rounds.close()

    asyncio.run(play())


def test_a_round_without_answers_says_so_and_names_both(tmp_path: Path) -> None:
    broken = Agent("broken", Scripted(["x"], name="scripted:broken", error=ModelError("no power")), reply)

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, {"amber": TWO["amber"], "broken": broken})
        made = await rounds.start("Is it?")
        events = await shown(rounds, made)
        assert events[-1] == {"problem": made.problem} and made.problem.endswith("No vote is taken.")
        assert sorted((rounds.reveal(made)["a"], rounds.reveal(made)["b"])) == ["amber", "broken"]
        assert rounds.reveal(made)["winner"] is None
        assert (made.battle, made.ready_at, made.kept) == (None, None, None)
        with pytest.raises(ConfigError, match="both answers must be complete before the vote"):
            rounds.vote(made, "a", [], "ann")
        assert rounds.run is not None and rounds.run.preferences() == []
        rounds.close()

    asyncio.run(play())


# -- trials --


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"models": ()}, "no model was chosen: choose one or more"),
        ({"prompt": " \n"}, "the prompt is empty: write a question"),
        ({"prompt": "x" * 99_999, "system": "yy"}, "the prompt has more than 100,000 characters"),
        ({"prompt": "x" * 99_999, "say": "yy"}, "the prompt has more than 100,000 characters"),
        ({"epochs": 0}, "epochs is 0: give 1 to 16"),
        ({"epochs": 17}, "epochs is 17: give 1 to 16"),
        ({"max_tokens": 0}, "max_tokens is 0: give 1 to 32,768"),
        ({"max_tokens": 32_769}, "max_tokens is 32769: give 1 to 32,768"),
    ],
)
def test_a_trial_is_bounded(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PlaygroundTrial(**{"models": ("m",), "prompt": "Q", **fields})
    PlaygroundTrial(("m",), "x" * 99_998, "y", say="z", epochs=16, max_tokens=32_768)
    PlaygroundTrial(("m",), attempt="p", epochs=1, max_tokens=1)


def test_a_prompt_is_put_to_each_model_as_often_as_asked(tmp_path: Path) -> None:
    async def play() -> str:
        made = Playground(tmp_path, TWO)
        trial = PlaygroundTrial(("amber", "cobalt"), "Q?", "Be brief", 0.0, 7, 2, seed=0, epochs=2)
        run = await made.start(trial)
        await made.settled()
        assert made.problems == {}
        with pytest.raises(
            UnknownName, match="no model 'x' was named when the Studio was started: there is amber, cobalt"
        ):
            await made.start(replace(trial, models=("amber", "x")))
        with pytest.raises(UnknownName, match="there is none; start the Studio with --model"):
            await Playground(tmp_path, {}).start(trial)
        return run

    id = asyncio.run(play())
    fork = PlaygroundTrial(("amber",), run="r", attempt="p", is_plain=True)
    assert _described(fork) == {
        "models": ("amber",), "epochs": 1, "run": "r", "attempt": "p", "at": 0, "is_plain": True,
    }  # fmt: skip
    assert [info.id for info in store.list_runs(tmp_path)] == [id]
    with store.open_run(id, tmp_path) as run:
        assert run.info.config == {
            "playground": {
                "models": ["amber", "cobalt"], "prompt": "Q?", "system": "Be brief", "temperature": 0.0, "max_tokens": 7,
                "alternatives": 2, "seed": 0, "epochs": 2,
            }
        }  # fmt: skip
        traces = [run.trace(row.place) for row in run.rows()]
        assert sorted((each.agent_name, each.epoch, each.answer) for each in traces) == [
            ("amber", 0, "yes"), ("amber", 1, "yes"), ("cobalt", 0, "no, or so"), ("cobalt", 1, "no, or so"),
        ]  # fmt: skip
        for each in traces:
            assert each.benchmark == "playground" and each.agent["system"] == "Be brief"
            sampling = Sampling(temperature=0.0, max_tokens=7, top_logprobs=2).to_json()
            assert each.agent["sampling"] == sampling and each.nodes[0].message.text == "Be brief"


def test_every_chosen_model_is_asked_in_its_order_and_one_that_is_named_later_is_not_known(tmp_path: Path) -> None:
    async def play() -> list[str]:
        given = {**TWO, **agents(teal="maybe")}
        made = Playground(tmp_path, given)
        given.clear()
        names = ("teal", "amber", "cobalt")
        runs = [
            await made.start(PlaygroundTrial(names, "Q?")),
            await made.start_tasks("s", [Task("t", "Q")], names, "none"),
        ]
        await made.settled()
        assert made.problems == {}
        return runs

    for id in asyncio.run(play()):
        with store.open_run(id, tmp_path) as run:
            assert [*run.agents()] == ["teal", "amber", "cobalt"], id
            said = {"teal": "maybe", "amber": "yes", "cobalt": "no, or so"}
            assert {each.agent_name: each.answer for each in run.traces()} == said


def test_a_data_set_is_put_to_models_with_its_check_and_prompt(tmp_path: Path) -> None:
    tasks = [Task("t1", "Q1", secret={"answer": "yes"}), Task("t2", "Q2", secret={"answer": "no"})]

    async def play() -> list[str]:
        made = Playground(tmp_path, {**TWO, "amber": replace(TWO["amber"], system="Rhyme")})
        with pytest.raises(ConfigError, match="no model was chosen: choose one or more"):
            await made.start_tasks("set", tasks, [], "exact")
        runs = [
            await made.start_tasks("set", tasks, ["amber"], "exact", ("brief", 3, "Be brief")),
            await made.start_tasks("set", tasks[:1], ["amber", "cobalt"], "none"),
        ]
        await made.settled()
        assert made.problems == {}
        return runs

    checked, plain = asyncio.run(play())
    with store.open_run(checked, tmp_path) as run:
        assert run.info.config == {
            "data_set": "set", "models": ["amber"], "check": "exact", "prompt": "brief", "prompt_version": 3,
        }  # fmt: skip
        traces = [run.trace(row.place) for row in run.rows()]
        assert {each.task_id: each.scores[0].value for each in traces} == {"t1": 1.0, "t2": 0.0}
        assert {each.agent["system"] for each in traces} == {"Be brief"} and {each.benchmark for each in traces} == {
            "set"
        }
    with store.open_run(plain, tmp_path) as run:
        traces = [run.trace(row.place) for row in run.rows()]
        assert {each.agent_name: each.agent.get("system") for each in traces} == {"amber": "Rhyme", "cobalt": None}
        assert run.info.config == {"data_set": "set", "models": ["amber", "cobalt"], "check": "none"}
        assert all(each.scores == () for each in traces) and len(traces) == 2


def test_trials_under_way_are_bounded_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "MOST_UNDER_WAY", 1)
    slow = {"slow": Agent("slow", Scripted(["x"], name="scripted:slow", delay_s=60.0), reply)}

    async def play() -> None:
        made = Playground(tmp_path, slow)
        await made.start(PlaygroundTrial(("slow",), "Q"))
        for again in (
            made.start(PlaygroundTrial(("slow",), "Q")),
            made.start_tasks("s", [Task("t", "Q")], ["slow"], "none"),
        ):
            with pytest.raises(ConfigError, match="1 trials are under way: wait for one of them to end"):
                await again
        await made.stop()
        await asyncio.sleep(0)
        assert made._work == {} and made.problems == {}

    asyncio.run(play())


def test_what_went_wrong_with_a_trial_is_kept_for_the_last_hundred(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closing:
        def __init__(self, id: str):
            self.id, self.closed = id, 0

        def close(self) -> None:
            self.closed += 1

    async def play() -> None:
        made = Playground(tmp_path, TWO)

        async def fail(error: Exception) -> None:
            raise error

        runs = [Closing(f"r{number}") for number in range(101)]
        for run in runs:
            await made._carry_out(run, lambda: fail(ConfigError("no room")))  # type: ignore[arg-type]
        assert list(made.problems) == [f"r{number}" for number in range(1, 101)] and made.problems["r1"] == "no room"
        odd = Closing("odd")
        await made._carry_out(odd, lambda: fail(ValueError("odd")))  # type: ignore[arg-type]
        assert made.problems["odd"] == "ValueError: odd" and {run.closed for run in (*runs, odd)} == {1}

    asyncio.run(play())
    assert capsys.readouterr().err == "A trial of the Studio failed: ValueError('odd')\n"
