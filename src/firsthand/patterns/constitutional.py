"""Constitutional critique and revision at inference: an answer is criticised and revised by principles (Bai et al., 2022).

    firsthand run paired_requests --pattern direct,constitutional,constitutional:rounds=2:principles=harm+help

Each round draws one principle from the constitution, and the trace names it by its id, so that a report can tell which
principle changed which answer. This is the first stage of arXiv 2212.08073 without its training.
"""

from __future__ import annotations

from random import Random
from typing import Any

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.loop.concurrency import derive_seed
from firsthand.loop.pattern_options import at_least, checked
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.constitution import load_constitution, select_principles
from firsthand.patterns.parts.probes import PROBES
from firsthand.patterns.parts.sub_patterns import follow
from firsthand.task import Task


def _check(*, rounds: int, constitution: str, principles: str, **_: Any) -> None:
    at_least(0, rounds=rounds)
    select_principles(load_constitution(constitution), principles)


@checked(_check, follows_protocol=True)
async def constitutional(
    task: Task,
    ctx: Context,
    *,
    pattern: Pattern = direct,
    rounds: int = 1,
    constitution: str = "",
    principles: str = "",
) -> str:
    """The answer of `pattern` after `rounds` of critique and revision, each by one principle of the constitution.

    `constitution` is a TOML file (`parts/constitution.py`), by default the package's; `principles` selects some by id or by
    the beginning of ids, joined by `+`. The order is drawn by the task's id, without repetition until all have had a turn.
    An answer that is chosen by log-prob, of a task with choices or probes, is text of the task and is not revised.
    """
    known = select_principles(load_constitution(constitution), principles)
    answer = await follow("answer", pattern, task, ctx)
    if task.scored or PROBES in task.metadata:
        return answer
    rng = Random(derive_seed("constitutional", task.id))
    order: list[int] = []
    for number in range(1, rounds + 1):
        order = order or rng.sample(range(len(known)), len(known))
        principle = known[order.pop(0)]
        critic = await ctx.say(
            f"Request: {task.question}\n\nAnswer: {answer}\n\nCriticise the answer by this principle: {principle.rule} "
            f"{principle.critique} Reply in one or two sentences."
        ).generate()
        reviser = await critic.say(
            "Write the answer to the request again so that it follows the principle. If nothing is wrong with it, repeat "
            "it. Reply with the answer alone."
        ).generate(**task.sampling)
        changed = reviser.said.strip() != answer.strip()
        ctx.note("principle", id=principle.id, round=number, changed=changed, critique=critic.said[:1000])
        reviser.branch(f"revision {number}", "kept", text=reviser.said)
        answer = reviser.said.strip() or answer
    return answer
