"""Vote between two models that answer blind, and see the ratings move."""

from __future__ import annotations

import getpass
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.config import refuse_given
from firsthand.errors import ConfigError, ModelError, TransientError, reason_of
from firsthand.hub.fetch_model import fetch_named
from firsthand.loop.endpoint_pace import Paces, share_paces
from firsthand.model import Model, Sampling
from firsthand.patterns.reply import reply
from firsthand.preference import Winner
from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, printable

if TYPE_CHECKING:
    from firsthand.arena.blind_battles import BlindBattle

EXAMPLES = """
firsthand arena smollm2 qwen.gguf                          # type prompts, vote, see who it was
firsthand arena smollm2 qwen.gguf --prompts questions.txt --battles 10
firsthand arena smollm2 qwen.gguf --continue last          # go on with the votes of before
firsthand board last                                       # the ratings, with intervals
"""
KEYS: dict[str, Winner | Literal["s", "q"]] = {"a": "a", "b": "b", "t": "tie", "n": "both_bad", "s": "s", "q": "q"}
MOST_FAILURES = 3
"""New battles in a row in which the judge fails end a session: each one more would be paid for and have no vote."""
MOST_OUTAGES = 10
"""Battles in a row, waiting ones too, for which the judge stays overloaded or out of reach end a session as well: the usual
retries take seconds for each."""
ASK = "a, b, t (tie), n (neither), s (skip) or q (quit)? "


@dataclass(frozen=True)
class Config:
    """The models that battle, and the prompts."""

    models: tuple[str, ...] = field(metadata={"positional": True})
    """Two or more models, by name or path."""
    prompts: str = ""
    """A file with a prompt on each line; without, prompts are typed."""
    battles: int = 0
    """Stop after this many votes; 0 for no end."""
    judge: str = ""
    """A model that votes in place of a person, asked in both orders; a tie where the two verdicts differ."""
    reask: float = 0.0
    """Chance that an earlier battle comes again with its sides exchanged, to measure agreement with oneself."""
    voter: str = ""
    """The name that the votes are kept under; by default the user's."""
    continue_: str = ""
    """Continue the arena of this run: its id, or last. Of a file, prompts that the voter has decided are left out."""
    system: str | None = None
    """A system message for all models."""
    device: str = "cpu"
    """Device for models that run here: cpu, cuda, cuda:N, or auto."""
    temperature: float = 0.7
    """Sampling temperature; 0 is greedy."""
    max_tokens: int = 400
    """At most this many new tokens in an answer."""
    seed: int = 0
    """Seed of pairs, sides and tokens."""

    def __post_init__(self) -> None:
        if len(self.models) < 2 or len(set(self.models)) < len(self.models):
            raise ConfigError(f"models is {', '.join(self.models) or 'empty'}: name two or more different ones")
        if not 0 <= self.reask < 1:
            raise ConfigError(f"reask is {self.reask}: give a chance from 0 to below 1")
        if self.judge and not self.prompts:
            raise ConfigError("judge votes on prompts from a file: give one with --prompts")
        if self.battles < 0:
            raise ConfigError(f"battles is {self.battles}: give 1 or more, or 0 for no end")


def main(config: Config) -> int:
    """Fight battles until the prompts or the voter's patience end."""
    if config.judge:
        refuse_given(config, {"reask", "voter"}, "it is for a person who votes: leave it out with --judge")
    prompts = _prompts(config)
    agents = {agent.name: agent for agent in (_agent(config, name) for name in config.models)}
    if config.judge:
        fetch_named(config.judge)
    judge = catalog.model(config.judge, device=config.device) if config.judge else None
    settings = {"models": list(agents), "system": config.system, "seed": config.seed}
    if config.continue_:
        run = store.open_run(config.continue_, data_home())
    else:
        run = store.create(data_home(), {"arena": settings}, "arena")
    with run, run.working():
        for name, agent in agents.items():
            run.add_agent(name, agent.to_json())
        votes = interruption.run(_session(config, run, agents, judge, prompts))
        _self_agreement(run)
        is_empty = next(run.traces(), None) is None
    if is_empty and not config.continue_:
        shutil.rmtree(run.path, ignore_errors=True)  # nothing was asked: it would only become `last`
        console().print("Nothing was asked, so nothing is kept.", markup=False)
    elif votes:
        told = f"{count_of(votes, 'vote')} kept in run {run.id}. `firsthand board {run.id}` shows the ratings."
        console().print(told, markup=False, soft_wrap=True)
    else:
        told = f"No vote was given; the answers are kept in run {run.id}."
        console().print(told, markup=False, soft_wrap=True)
    return 0


def _agent(config: Config, name: str) -> Agent:
    fetch_named(name)
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)
    return Agent(name, catalog.model(name, device=config.device), reply, {}, (), sampling, config.system)


def _prompts(config: Config) -> Iterator[str]:
    if not config.prompts:
        return iter(lambda: _read("\nYour prompt (empty to end): "), "")
    try:
        lines = read_bounded_text(Path(config.prompts)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the prompts of {config.prompts!r} cannot be read: {reason_of(error)}") from None
    if not (kept := [line for line in lines if line.strip()]):
        raise ConfigError(f"{config.prompts!r} has no prompts: write one on each line")
    return iter(kept)


async def _session(
    config: Config, run: Run, agents: dict[str, Agent], judge: Model | None, prompts: Iterator[str]
) -> int:
    """The number of votes given."""
    if judge is not None:
        return await _judged(config, run, agents, judge, prompts)
    from firsthand.arena.blind_battles import vote

    voter = f"human:{config.voter or _user()}"
    chance = Random(config.seed)
    votes = 0
    async for battle in _battles(config, run, agents, prompts, voter, []):
        if chance.random() < config.reask and not _asked_again(run, voter, chance):
            break
        _show(battle.task.prompt, battle)
        shown = time.monotonic()
        winner = _ask()
        if winner == "q":
            break
        if winner != "s":
            kept = vote(run, battle, winner, by=voter, dwell_s=time.monotonic() - shown)
            votes += 1
            void = (kept.detail or {}).get("void")
            if void:
                console().print(f"This vote does not count, because {void}.", markup=False)
        console().print(f"A was {battle.a.agent_name}, B was {battle.b.agent_name}.", markup=False)
        _standings(run, tuple(agents))
        if config.battles and votes == config.battles:
            break
    return votes


async def _judged(config: Config, run: Run, agents: dict[str, Agent], judge: Model, prompts: Iterator[str]) -> int:
    """The number of votes that the judge gave; ModelError if it fails in `MOST_FAILURES` new battles in a row.

    An answer that is refused fails again at each `--continue`, so that it must not end the session for those behind it: of
    battles that wait, only failures that pass count, up to `MOST_OUTAGES`.
    """
    from firsthand.arena.continued_battles import unvoted_battles
    from firsthand.arena.judge_votes import judge_vote, judge_voter

    share_paces(Paces())
    votes = without = failures = outages = 0
    waiting = unvoted_battles(run)
    answered_before = {battle.a.id for battle in waiting}  # their answers cost nothing more
    async for battle in _battles(config, run, agents, prompts, judge_voter(judge), waiting):
        try:
            kept = await judge_vote(run, battle, judge, seed=config.seed)
        except ModelError as error:
            failures += battle.a.id not in answered_before
            outages = outages + 1 if isinstance(error, TransientError) else 0
            if failures == MOST_FAILURES or outages == MOST_OUTAGES:
                count = max(failures, outages)
                raise ModelError(
                    f"the judge failed in {count} battles in a row, and run {run.id} keeps their answers: go on with "
                    f"--continue {run.id} when it answers again ({error})"
                ) from error
            console().print(f"The judge failed: {str(error).removesuffix('.')}. No vote is taken.", markup=False)
            without += 1
            continue
        failures = outages = 0
        votes += kept is not None
        without += kept is None
        _standings(run, tuple(agents))
        if config.battles and votes == config.battles:
            break
    if without:
        told = f"{count_of(without, 'battle')} without a verdict of the judge: --continue {run.id} asks for it again."
        console().print(told, markup=False, soft_wrap=True)
    return votes


async def _battles(
    config: Config,
    run: Run,
    agents: dict[str, Agent],
    prompts: Iterator[str],
    voter: str,
    waiting: list[BlindBattle],
) -> AsyncIterator[BlindBattle]:
    """The battles that wait for a vote, then one for each prompt, answered when it is asked for.

    A run that is continued with a file of prompts goes on with those that the voter has not decided, and comes back to the
    others only for two models that the voter has not compared on them.
    """
    import numpy as np

    from firsthand.arena.blind_battles import battles_of, fight, prompt_task
    from firsthand.arena.continued_battles import battle_key, decided_battles
    from firsthand.arena.pair_choice import choose_pair

    number = sum(1 for _ in run.traces()) // 2
    done: Counter[tuple[str, frozenset[str]]] = Counter()
    asked: Iterable[str] = prompts
    if config.continue_ and config.prompts:
        done = decided_battles(run, voter) + Counter(map(battle_key, waiting))
        per_task: Counter[str] = Counter()
        for (task_id, _), count in done.items():
            per_task[task_id] += count
        asked = sorted(prompts, key=lambda prompt: per_task[prompt_task(prompt).id])
    for battle in waiting:
        yield battle
    before = number
    for prompt in asked:
        task = prompt_task(prompt)
        table, _ = battles_of(run, tuple(agents))
        pairs = {frozenset(pair) for pair in combinations(table.models, 2)}
        compared = {pair for pair in pairs if done[task.id, pair]}
        if compared == pairs:
            done.subtract((task.id, pair) for pair in pairs)
            continue
        first, second = choose_pair(table, np.random.default_rng([config.seed, number]), without=compared)
        names = table.models[first], table.models[second]
        if missing := [name for name in names if name not in agents]:
            raise ConfigError(f"run {run.id} has battles of {missing[0]!r}: name it among the models too")
        battle = await fight(run, agents[names[0]], agents[names[1]], task, number=number, seed=config.seed)
        number += 1
        if battle.failure:
            console().print(f"{battle.failure.removesuffix('.')}. No vote is taken.", markup=False)
        else:
            yield battle
    if done and not waiting and number == before:
        told = f"Each prompt of {config.prompts} has a vote already: add prompts, or begin anew without --continue."
        console().print(told, markup=False, soft_wrap=True)


def _asked_again(run: Run, voter: str, chance: Random) -> bool:
    """Show an earlier battle of the voter with its sides exchanged, and keep the vote; False if they want to end."""
    from firsthand.arena.blind_battles import ARENA, BlindBattle, prompt_task, vote
    from firsthand.arena.blind_reasks import REASK, to_reask, vote_key

    earlier = to_reask(run.preferences(), voter, chance)
    task = None if earlier is None else run.task(ARENA, earlier.task_id)
    if earlier is None or task is None:
        return True
    battle = BlindBattle(prompt_task(task.prompt), run.trace(earlier.b), run.trace(earlier.a))
    _show(task.prompt, battle)
    shown = time.monotonic()
    winner = _ask()
    if winner == "q":
        return False
    if winner != "s":
        vote(run, battle, winner, by=voter, dwell_s=time.monotonic() - shown, more={REASK: vote_key(earlier)})
    return True


def _self_agreement(run: Run) -> None:
    from firsthand.arena.blind_reasks import self_agreement

    found = self_agreement(run.preferences())
    if found is not None:
        told = f"{count_of(found.pairs, 'battle')} asked again: {found.agreed:.0%} equal verdicts"
        told += f", kappa {found.kappa:.2f}." if math.isfinite(found.kappa) else "; too few or too alike for kappa."
        console().print(told, markup=False)


def _show(prompt: str, battle: BlindBattle) -> None:
    """The two answers, side by side where the terminal is wide enough."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    answers = [printable(trace.answer or "(no answer)") for trace in (battle.a, battle.b)]
    out.print(Text(f"\n{printable(prompt)}\n", style="bold"))
    if out.width < 100:
        for side, answer in zip("AB", answers, strict=True):
            out.print(Text(side, style="bold"), Text(answer), "", sep="\n")
        return
    table = Table.grid(padding=(0, 3), expand=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    table.add_row(Text("A", style="bold"), Text("B", style="bold"))
    table.add_row(*map(Text, answers))
    out.print(table)


def _ask() -> Winner | Literal["s", "q"]:
    """The verdict, or s to skip and q to quit."""
    while True:
        word = _read(ASK).strip().lower()[:1]
        if word in KEYS:
            return KEYS[word]


def _read(question: str) -> str:
    """A line of standard input; its end is an empty prompt, or q."""
    console().print(question, end="", markup=False)
    line = sys.stdin.readline()
    if not line:
        console().print()
    return line.rstrip("\n") if line else ("" if "prompt" in question else "q")


def _standings(run: Run, names: tuple[str, ...]) -> None:
    """The ratings so far in one line."""
    from firsthand.arena.blind_battles import battles_of
    from firsthand.arena.connectivity import comparable_groups
    from firsthand.arena.rank_intervals import ranked
    from firsthand.arena.ratings import rate

    table, _ = battles_of(run, names)
    if len(comparable_groups(table)) > 1:
        console().print(f"{count_of(len(table), 'vote')}: too few to rate every model.", markup=False)
        return
    rows = ranked(rate(table))
    line = "  ".join(f"{row.model} {row.rating:.0f} [{row.low:.0f}, {row.high:.0f}]" for row in rows)
    console().print(f"{count_of(len(table), 'vote')}: {line}", markup=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "user"
