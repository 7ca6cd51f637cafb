"""Finds the battles of a continued run that have no vote, and the questions that a voter has decided."""

from __future__ import annotations

from collections import Counter, defaultdict

from firsthand.arena.blind_battles import ARENA, BlindBattle, prompt_task
from firsthand.arena.blind_reasks import is_reask
from firsthand.runs.attempts import TraceRow
from firsthand.runs.store import Run

BattleKey = tuple[str, frozenset[str]]
"""A task's id, and the names of the two agents that answered it."""


def battle_key(battle: BlindBattle) -> BattleKey:
    """The question and the agents of a battle, whatever their sides."""
    return battle.task.id, frozenset((battle.a.agent_name, battle.b.agent_name))


def unvoted_battles(run: Run) -> list[BlindBattle]:
    """The battles that nobody has voted on although both agents answered, in the order in which they were fought."""
    voted = {id for each in run.preferences() for id in (each.a, each.b)}
    fought: defaultdict[tuple[str, int], list[TraceRow]] = defaultdict(list)
    for row in run.rows(benchmark=ARENA):
        fought[row.task_id, row.epoch].append(row)
    found = []
    for (task_id, _), rows in fought.items():
        task = run.task(ARENA, task_id)
        if task is not None and len(rows) == 2 and not any(row.error or row.id in voted for row in rows):
            found.append(BlindBattle(prompt_task(task.prompt), *(run.trace(row.id) for row in rows)))
    return found


def decided_battles(run: Run, voter: str) -> Counter[BattleKey]:
    """Returns the number of votes by the voter for each question and pair of agents: void ones too, but no re-asked ones."""
    agents = {row.id: row.agent for row in run.rows(benchmark=ARENA)}
    return Counter(
        (each.task_id, frozenset((agents[each.a], agents[each.b])))
        for each in run.preferences()
        if each.by == voter and not is_reask(each) and each.a in agents and each.b in agents
    )
