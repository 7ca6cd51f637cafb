"""Votes of a judge model on a blind battle: asked in both orders, and a tie where the two verdicts differ."""

from __future__ import annotations

import re

from firsthand.arena.blind_battles import BlindBattle, vote
from firsthand.arena.blind_reasks import EXCHANGED
from firsthand.message import user
from firsthand.model import Model, Sampling
from firsthand.preference import Preference, Winner
from firsthand.runs.store import Run
from firsthand.system.forged_marks import defused

PROMPT = (
    "Two assistants answered one question. Decide which answer is better: more correct, more helpful and to the point. "
    "Length and order must not count. End your reply with one of [[A]], [[B]] or [[C]] for a tie.\n\n"
    "[Question]\n{question}\n\n[Answer of A]\n{a}\n\n[Answer of B]\n{b}"
)
_MARKS = ("[Question]", "[Answer of A]", "[Answer of B]")
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_WINNERS: dict[str, Winner] = {"A": "a", "B": "b", "C": "tie"}


async def judge_vote(
    run: Run, battle: BlindBattle, judge: Model, *, seed: int = 0, max_tokens: int = 400
) -> Preference | None:
    """Keeps the judge's vote; None if a reply of either order is cut off, or has no verdict in its last line.

    Marks of the prompt that stand in an answer or the question are changed, so that no answer writes the other's.
    """
    verdicts: list[Winner] = []
    for first, second in ((battle.a, battle.b), (battle.b, battle.a)):
        shown = (defused(each, _MARKS)[0] for each in (battle.task.prompt, first.answer or "", second.answer or ""))
        text = PROMPT.format(**dict(zip(("question", "a", "b"), shown, strict=True)))
        sampling = Sampling(temperature=0, max_tokens=max_tokens, seed=seed)
        (reply,) = await judge.complete([user(text)], sampling)
        found = _VERDICT.findall(reply.message.text.rstrip().rpartition("\n")[2])
        if not found or reply.finish_reason == "length":
            return None
        verdicts.append(_WINNERS[found[-1]])
    straight, turned = verdicts[0], EXCHANGED[verdicts[1]]
    winner: Winner = straight if straight == turned else "tie"
    more = {"orders": [straight, turned], "consistent": straight == turned}
    return vote(run, battle, winner, by=f"judge:{judge.name}", dwell_s=0.0, more=more)
