"""Self-consistency: several chains of thought, and the answer most of them agree on (Wang et al., 2022)."""

from __future__ import annotations

from collections import Counter

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.patterns.answers import extract_answer, normal_form
from firsthand.patterns.cot import opening
from firsthand.task import Task


async def self_consistency(
    task: Task, ctx: Context, *, samples: int = 8, temperature: float = 0.7, shots: int = 0
) -> str:
    """The most common answer of `samples` chains of thought, unweighted; of equally common ones the first seen.

    Answers are compared in normal form (72.0 is 72); chains without an answer do not vote. The paper samples 40 at 0.7.
    """
    if samples < 1:
        raise ConfigError(f"samples is {samples}: give 1 or more chains to vote")
    chains = await opening(task, ctx, shots).sample(samples, temperature=temperature)
    answers = [extract_answer(chain.text, task) for chain in chains]
    given = [answer for answer in answers if answer is not None]
    votes = Counter(normal_form(answer) for answer in given)
    ctx.note("votes", votes=dict(votes), unparsed=len(answers) - len(given))
    if not votes:
        return chains[0].text.strip()
    winner = votes.most_common(1)[0][0]  # Counter keeps the order of first sight among equals
    return next(answer for answer in given if normal_form(answer) == winner)
