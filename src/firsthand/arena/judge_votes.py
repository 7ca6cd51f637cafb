"""Votes of a judge model on a blind battle: asked in both orders, and a tie where the two verdicts differ."""

from __future__ import annotations

from functools import partial

from firsthand.arena.blind_battles import BlindBattle, vote
from firsthand.arena.blind_reasks import EXCHANGED
from firsthand.loop.concurrency import Retry, with_retries
from firsthand.loop.endpoint_pace import Pace, pace_of
from firsthand.message import user
from firsthand.model import Model, Sampling
from firsthand.patterns.parts.written_labels import written_label
from firsthand.preference import Preference, Winner
from firsthand.runs.store import Run
from firsthand.system.forged_marks import defused

PROMPT = (
    "Two assistants answered one question. Decide which answer is better: more correct, more helpful and to the point. "
    "Length and order must not count. End your reply with a line that is [[A]], [[B]] or, for a tie, [[C]], and nothing "
    "else.\n\n[Question]\n{question}\n\n[Answer of A]\n{a}\n\n[Answer of B]\n{b}"
)
AGAIN = "Reply with one of these and nothing else: [[A]], [[B]], [[C]]."
"""Asked once where a reply has no verdict."""
_MARKS = ("[Question]", "[Answer of A]", "[Answer of B]")
_WINNERS: dict[str, Winner] = {"[[A]]": "a", "[[B]]": "b", "[[C]]": "tie"}


def judge_voter(judge: Model) -> str:
    """The name that the judge's votes are kept under."""
    return f"judge:{judge.name}"


async def judge_vote(
    run: Run, battle: BlindBattle, judge: Model, *, seed: int = 0, max_tokens: int = 400
) -> Preference | None:
    """Keeps the judge's vote; None if a reply of either order has no verdict, or is cut off, also when asked once more.

    A reply that names two verdicts has none, because a judge quotes what it judges. Marks of the prompt that stand in an
    answer or the question are changed, so that no answer writes the other's.

    Raises:
        ModelError: The judge failed, a passing fault after the usual retries; nothing is kept.
    """
    verdicts: list[Winner] = []
    for first, second in ((battle.a, battle.b), (battle.b, battle.a)):
        shown = (defused(each, _MARKS)[0] for each in (battle.task.prompt, first.answer or "", second.answer or ""))
        text = PROMPT.format(**dict(zip(("question", "a", "b"), shown, strict=True)))
        verdict = await _verdict(judge, text, Sampling(temperature=0, max_tokens=max_tokens, seed=seed))
        if verdict is None:
            return None
        verdicts.append(verdict)
    straight, turned = verdicts[0], EXCHANGED[verdicts[1]]
    winner: Winner = straight if straight == turned else "tie"
    more = {"orders": [straight, turned], "consistent": straight == turned}
    return vote(run, battle, winner, by=judge_voter(judge), dwell_s=0.0, more=more)


async def _verdict(judge: Model, text: str, sampling: Sampling) -> Winner | None:
    """The verdict that the judge writes, if need be when it is asked once more."""
    messages, pace = [user(text)], pace_of(judge) or Pace()
    for _ in range(2):
        (reply,) = await with_retries(partial(judge.complete, messages, sampling), Retry(), pace=pace)
        label = written_label(reply.message.text, tuple(_WINNERS))
        if label is not None and reply.finish_reason != "length":
            return _WINNERS[label]
        messages = [*messages, reply.message, user(AGAIN)]
    return None
