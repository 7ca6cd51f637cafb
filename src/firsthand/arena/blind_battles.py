"""Blind battles: two agents answer one prompt, and a vote between them is kept as a Preference in a run.

A vote does not count where an answer names its model, or the prompt asks whether it is that model, because the voter may
have known it. Every vote stays in the run, with the reason why it is void.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from firsthand.agent import Agent
from firsthand.arena.battle_table import BattleTable, question_name
from firsthand.arena.blind_reasks import is_reask
from firsthand.arena.self_naming import told_name
from firsthand.benchmark import NamedSetting
from firsthand.errors import ConfigError
from firsthand.loop.listener import Listener
from firsthand.message import Json
from firsthand.preference import Preference, Winner, utc_now
from firsthand.rollout import rollout
from firsthand.runs.store import Run
from firsthand.task import Task
from firsthand.trace import Trace

ARENA = "arena"
"""The benchmark name in the traces of battles."""


@dataclass(frozen=True)
class BlindBattle:
    """Two attempts at one prompt, in the order in which they are shown."""

    task: Task
    a: Trace
    b: Trace

    @property
    def failure(self) -> str:
        """The error of an attempt that gave no answer; empty if both did."""
        for side, trace in (("A", self.a), ("B", self.b)):
            if trace.error is not None:
                return f"{side} failed: {trace.error.message}"
        return ""


def prompt_task(prompt: str) -> Task:
    """The task of answering a prompt; its id is the prompt's hash, so equal prompts are one question."""
    if not prompt.strip():
        raise ConfigError("the prompt is empty: write a question")
    return Task(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16], prompt)


async def fight(
    run: Run,
    first: Agent,
    second: Agent,
    task: Task,
    *,
    number: int,
    seed: int,
    listeners: tuple[Listener | None, Listener | None] = (None, None),
) -> BlindBattle:
    """Both agents' attempts at a task, made at the same time and kept in the run before anyone votes.

    `number` tells the battles of a run apart: a prompt that comes again is answered anew. `listeners` are told of the steps
    of the two attempts while they are made.
    """
    setting = NamedSetting(ARENA)
    run.add_tasks(ARENA, [task])
    traces = await asyncio.gather(
        *(
            rollout(agent, task, benchmark=setting, epoch=number, seed=seed, listener=listener)
            for agent, listener in zip((first, second), listeners, strict=True)
        )
    )
    for trace in traces:
        run.append(trace)
    return BlindBattle(task, *traces)


def vote(
    run: Run,
    battle: BlindBattle,
    winner: Winner,
    *,
    by: str,
    dwell_s: float,
    reasons: Sequence[str] = (),
    more: Json | None = None,
) -> Preference:
    """Keeps a vote: seconds from showing to voting, the voter's reasons, why it is void if it is, and `more` about it."""
    detail = {"prompt_sha256": hashlib.sha256(battle.task.prompt.encode("utf-8", "surrogatepass")).hexdigest()}
    body: Json = {**detail, "dwell_s": round(dwell_s, 3), "void": void_reason(battle), **(more or {})}
    body |= {"reasons": list(reasons)} if reasons else {}
    preference = Preference(battle.task.id, battle.a.id, battle.b.id, winner, by, utc_now(), body)
    run.add_preference(preference)
    return preference


def shown_text(trace: Trace) -> str:
    """The text of an attempt as the model wrote it: its last message, of which the answer may be a part."""
    said = [node.message.text for node in trace.nodes if node.message.role == "assistant"]
    return said[-1] if said and said[-1].strip() else trace.answer or ""


def void_reason(battle: BlindBattle) -> str:
    """Why a vote on the battle does not count: an answer names its model or maker, or is asked for it; empty if neither."""
    for side, trace in (("A", battle.a), ("B", battle.b)):
        said = f"{trace.answer or ''}\n{shown_text(trace)}"
        name = told_name(str(trace.agent.get("model", trace.agent_name)), said, battle.task.prompt)
        if name:
            return f"{side} names itself: {name}"
    return ""


def battles_of(run: Run, models: Sequence[str] = ()) -> tuple[BattleTable, int]:
    """The votes of a run as battles between its agents, and how many votes were void.

    Args:
        run: A run with preferences, from the arena or from a pairwise judge.
        models: Agents to put first, whether they have battles or not.
    """
    rows = {row.id: row for row in run.rows()}
    agents = {known: row.agent for known, row in rows.items()}
    first = [each for each in run.preferences() if not is_reask(each)]
    counted = [each for each in first if not (each.detail or {}).get("void")]
    void = len(first) - len(counted)
    known = [each for each in counted if each.a in agents and each.b in agents and agents[each.a] != agents[each.b]]
    if lost := len(counted) - len(known):
        raise ConfigError(
            f"{lost} votes of run {run.id} name attempts that it does not hold: is the run a part of another?"
        )
    table = BattleTable.from_columns(
        [agents[each.a] for each in known],
        [agents[each.b] for each in known],
        [each.winner for each in known],
        voters=[each.by for each in known],
        questions=[question_name(rows[each.a].benchmark, each.task_id) for each in known],
        models=models,
    )
    return table, void
