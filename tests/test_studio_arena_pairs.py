"""Rounds of the arena: which two models answer, one run for rounds that begin at once, and what closing keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.arena.blind_battles import battles_of
from firsthand.arena.pair_choice import choose_pair
from firsthand.errors import ConfigError, ModelError, StoreError, UnknownName
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import arena_rounds
from firsthand.studio.arena_rounds import ArenaRounds, Round


def agents(*names: str) -> dict[str, Agent]:
    return {name: Agent(name, Scripted(lambda *_: "x", name=f"scripted:{name}"), reply) for name in names}


async def answered(made: Round) -> Round:
    assert made.work is not None
    await made.work
    assert made.problem == "" and made.battle is not None
    return made


def test_the_models_of_a_round_are_drawn_by_the_seed_its_number_and_the_votes_so_far(tmp_path: Path) -> None:
    names = ("teal", "amber", "zinc", "cobalt")

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents(*names), seed=3)
        chosen, others = [], []
        for number, prompt in enumerate((" " * 19_999 + "x", "Q", "Q", "Q", "Q")):
            made = await answered(await rounds.start(prompt))
            assert rounds.run is not None and made.battle is not None
            table, _ = battles_of(rounds.run, names)
            first, second = choose_pair(table, np.random.default_rng([3, number]))
            assert (made.a.agent.name, made.b.agent.name) == (names[first], names[second]), number
            for side, trace in ((made.a, made.battle.a), (made.b, made.battle.b)):
                assert (trace.agent_name, trace.seed, trace.epoch) == (side.agent.name, 3, number)
            chosen.append((first, second))
            others.append([choose_pair(table, np.random.default_rng(seed)) for seed in ([3, 0], [number], [0, number])])
        for column in range(3):
            assert [each[column] for each in others] != chosen, "another seed would draw others"
        with pytest.raises(ConfigError, match=r"^the prompt has 20,001 characters: at most 20,000 are taken$"):
            await rounds.start("x" * 20_000 + " ")
        rounds.close()

    asyncio.run(play())


def test_rounds_that_begin_at_once_are_of_one_run_and_have_their_own_numbers(tmp_path: Path) -> None:
    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents("amber", "cobalt"))
        for made in await asyncio.gather(rounds.start("One?"), rounds.start("Two?")):
            await answered(made)
        assert rounds.run is not None
        kept = {(row.task_id, row.epoch) for row in rounds.run.rows()}  # two attempts of each round
        assert {task for task, _ in kept} == {made.task.id for made in rounds._rounds.values()}
        assert len(kept) == 2 and sorted(number for _, number in kept) == [0, 1]
        rounds.close()

    asyncio.run(play())
    (info,) = store.list_runs(tmp_path)
    assert (info.num_traces, info.status) == (4, "done")


def test_a_vote_that_cannot_be_kept_does_not_lose_those_after_it(tmp_path: Path) -> None:
    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents("amber", "cobalt"))
        made = [await answered(await rounds.start(prompt)) for prompt in ("One?", "Two?", "Three?")]
        for each in made:
            each.ready_at = 0.0
        rounds.vote(made[0], "a", [], "ann", undo_s=60)
        rounds.vote(made[2], "b", ["safe"], "ann", undo_s=60)
        made[0].reasons = (object(),)  # type: ignore[assignment]  # which no run can hold
        run = rounds.run
        assert run is not None
        rounds.close()
        assert [each.kept is not None for each in made] == [False, False, True] and rounds.run is None
        with store.open_run(run.id, tmp_path) as kept:
            assert [(each.task_id, each.winner) for each in kept.preferences()] == [(made[2].task.id, "b")]
        for each in made:
            if each.keeper is not None:
                each.keeper.cancel()

    asyncio.run(play())


def test_a_vote_that_the_store_refuses_is_tried_again_told_and_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena_rounds, "RETRY_S", 0.01)
    monkeypatch.setattr(arena_rounds, "MOST_ROUNDS", 1)

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents("amber", "cobalt"))
        first = await answered(await rounds.start("One?"))
        first.ready_at = 0.0
        assert rounds.run is not None
        real, tries = rounds.run.add_preference, []

        def full(preference: Any) -> None:
            tries.append(preference)
            if len(tries) < 5:
                raise StoreError("the disk is full")
            real(preference)

        monkeypatch.setattr(rounds.run, "add_preference", full)
        rounds.vote(first, "a", [], "ann", undo_s=60)
        with pytest.raises(
            StoreError, match=r"^the vote is not kept yet, and is tried again every 0 s: the disk is full$"
        ):
            rounds.reveal(first)
        rounds.vote(first, "a", [], "ann", undo_s=0)
        second = await answered(await rounds.start("Two?"))
        assert rounds.get(first.id) is first and first.keeper is not None
        await asyncio.wait_for(first.keeper, 10)
        assert first.kept is not None and len(tries) == 5 and rounds.reveal(first)["winner"] == "a"
        assert [each.winner for each in rounds.run.preferences()] == ["a"]
        await answered(await rounds.start("Three?"))
        for old in (first, second):  # a kept vote, and none
            with pytest.raises(UnknownName):
                rounds.get(old.id)
        third = next(iter(rounds._rounds.values()))
        third.ready_at = 0.0
        rounds.vote(third, "b", [], "ann", undo_s=0.05)
        rounds.close()
        assert third.keeper is not None
        await asyncio.wait([third.keeper])
        assert third.keeper.cancelled() and third.kept is not None

    asyncio.run(play())


@pytest.mark.parametrize("silent", ["model", "both"])
def test_of_a_round_that_failed_no_vote_is_taken_whatever_was_said(tmp_path: Path, silent: str) -> None:
    broken = Scripted(["x"], name="scripted:broken", error=ModelError("no power"))

    async def play() -> None:
        ours = {**agents("amber"), "broken": Agent("broken", broken, reply)}
        if silent == "both":
            ours["amber"] = Agent("amber", broken, reply)
        rounds = ArenaRounds(tmp_path, ours)
        made = await rounds.start("Which?")
        assert made.work is not None
        await made.work
        side = "A" if silent == "both" or made.a.agent.name == "broken" else "B"
        assert made.problem == f"{side} failed: no power. No vote is taken." and made.battle is None
        assert {each.agent.name: each.text for each in (made.a, made.b)} == {
            "broken": "",
            "amber": "" if silent == "both" else "x",
        }
        for now_s in (0.0, 1e6):
            made.shown(now_s)
        assert [event async for event in rounds.events(made)] == [{"problem": made.problem}] and made.ready_at is None
        with pytest.raises(ConfigError, match="both answers must be complete before the vote"):
            rounds.vote(made, "a", [], "ann")
        assert rounds.reveal(made) == {"a": made.a.agent.name, "b": made.b.agent.name, "winner": None}
        run = rounds.run
        assert run is not None and run.preferences() == []
        rounds.close()

    asyncio.run(play())


def test_a_round_that_cannot_be_fought_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*given: Any, **named: Any) -> Any:
        raise OSError("no room")

    async def play() -> None:
        rounds = ArenaRounds(tmp_path, agents("amber", "cobalt"))
        monkeypatch.setattr("firsthand.arena.blind_battles.fight", full)
        made = await rounds.start("Which?")
        assert made.work is not None
        await made.work
        assert made.problem == "The round ended without answers: no room" and made.battle is None
        assert (made.a.text, made.b.text) == ("", "")
        rounds.close()

    asyncio.run(play())


def test_models_that_are_named_later_are_not_of_an_arena_that_stands(tmp_path: Path) -> None:
    async def play() -> None:
        given = agents("amber", "cobalt")
        rounds = ArenaRounds(tmp_path, given)
        given.pop("amber")
        given["teal"] = agents("teal")["teal"]
        made = await answered(await rounds.start("Which?"))
        assert {made.a.agent.name, made.b.agent.name} == {"amber", "cobalt"} == set(rounds.agents)
        assert rounds.run is not None and rounds.run.config["arena"]["models"] == ["amber", "cobalt"]
        rounds.close()

    asyncio.run(play())
