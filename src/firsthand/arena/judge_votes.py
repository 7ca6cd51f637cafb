"""Votes of a judge model on a blind battle: asked in both orders, and a tie where the two verdicts differ."""

from __future__ import annotations

import re

from firsthand.arena.blind_battles import BlindBattle, vote
from firsthand.arena.blind_reasks import EXCHANGED
from firsthand.message import user
from firsthand.model import Model, Sampling
from firsthand.preference import Preference, Winner
from firsthand.runs.store import Run

PROMPT = (
    "Two assistants answered one question. Decide which answer is better: more correct, more helpful and to the point. "
    "Length and order must not count. End your reply with one of [[A]], [[B]] or [[C]] for a tie.\n\n"
    "[Question]\n{question}\n\n[Answer of A]\n{a}\n\n[Answer of B]\n{b}"
)
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_WINNERS: dict[str, Winner] = {"A": "a", "B": "b", "C": "tie"}


async def judge_vote(
    run: Run, battle: BlindBattle, judge: Model, *, seed: int = 0, max_tokens: int = 400
) -> Preference | None:
    """Keeps the judge's vote; None if a reply of either order names no verdict, and then nothing is kept."""
    verdicts: list[Winner] = []
    for first, second in ((battle.a, battle.b), (battle.b, battle.a)):
        text = PROMPT.format(question=battle.task.prompt, a=first.answer or "", b=second.answer or "")
        sampling = Sampling(temperature=0, max_tokens=max_tokens, seed=seed)
        (reply,) = await judge.complete([user(text)], sampling)
        found = _VERDICT.findall(reply.message.text)
        if not found:
            return None
        verdicts.append(_WINNERS[found[-1]])
    straight, turned = verdicts[0], EXCHANGED[verdicts[1]]
    winner: Winner = straight if straight == turned else "tie"
    more = {"orders": [straight, turned], "consistent": straight == turned}
    return vote(run, battle, winner, by=f"judge:{judge.name}", dwell_s=0.0, more=more)
