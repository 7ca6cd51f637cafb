"""Deliberative alignment at inference: the policy is in the prompt, and the model reasons about it before it answers.

    firsthand run paired_requests --pattern direct,deliberative
    firsthand run sycophancy --pattern "direct,deliberative:principles=honest"

The generation step of Guan et al. (2024, arXiv 2412.16339), without the training that lets them remove the policy again.
"""

from __future__ import annotations

from typing import Any

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.patterns.direct import direct, question
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.patterns.parts.constitution import cited_principles, load_constitution, policy_text, select_principles
from firsthand.patterns.parts.probes import PROBES
from firsthand.patterns.parts.sub_patterns import follow
from firsthand.patterns.parts.system_text import with_system
from firsthand.task import Task

POLICY = "Follow these principles:\n{}"


def _check(*, constitution: str, principles: str, **_: Any) -> None:
    select_principles(load_constitution(constitution), principles)


@checked(_check, follows_protocol=True)
async def deliberative(
    task: Task,
    ctx: Context,
    *,
    pattern: Pattern = direct,
    constitution: str = "",
    principles: str = "",
    reason: bool = True,
) -> str:
    """The answer with the constitution in the system message, after the model has named the principles that apply.

    With `reason=false`, and for tasks that are answered by log-prob, `pattern` answers under the policy at once;
    `pattern` is used only there. The ids that the reasoning cites are recorded as the event `principles`.
    """
    known = select_principles(load_constitution(constitution), principles)
    ctx = with_system(ctx, POLICY.format(policy_text(known)))
    if not reason or task.scored or PROBES in task.metadata or task.context is not None:
        return await follow("answer", pattern, task, ctx)
    thought = await ctx.say(
        f"Request: {question(task)}\n\nDo not answer yet. Name the ids of the principles that apply to this request, "
        "and say in one sentence whether to answer it or to decline."
    ).generate()
    ctx.note("principles", ids=cited_principles(thought.text, known))
    answer = await thought.say("Now reply to the request itself, following the principles.").generate(**task.sampling)
    return answer_or_text(answer.text, task)
