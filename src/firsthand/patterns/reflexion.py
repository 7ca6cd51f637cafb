"""Reflexion: try, find out whether it failed, say in words why, and try again with the lesson (Shinn et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.concurrency import current_branch
from firsthand.loop.pattern_options import checked
from firsthand.message import Message
from firsthand.patterns.cot import cot
from firsthand.patterns.parts.feedback import Evaluator, EvaluatorKind, Feedback, evaluator_for
from firsthand.patterns.parts.sub_patterns import note_shared_world, world_tools
from firsthand.task import Task

Strategy = Literal["reflexion", "last_attempt", "both", "none"]
MAX_CHARS = 12_000
"""Characters at the end of a trial that the reflection, or the next trial, is shown."""


def _check(*, trials: int, memory: int, **_: Any) -> None:
    if trials < 1 or memory < 1:
        raise ConfigError(f"trials is {trials} and memory {memory}: give 1 or more of each")


@checked(_check)
async def reflexion(
    task: Task,
    ctx: Context,
    *,
    pattern: Pattern = cot,
    trials: int = 3,
    memory: int = 3,
    evaluator: EvaluatorKind = "auto",
    strategy: Strategy = "reflexion",
    evaluate: Evaluator | None = None,
) -> str:
    """The answer of the first trial of `pattern` that the evaluator passes, or of the last of `trials`.

    After a failed trial the model writes down what to do otherwise, and the last `memory` of these reflections stand under
    the question in the next one. A trial is judged by `evaluate`, or else by the model's own tests where the task asks for
    code, or by the model itself; never by the scorer. Other strategies show the last attempt, both, or nothing. The paper
    resets the environment for each trial; here a trial goes on in the world that the last one left, and the trace says so by
    an event `shared_world`.
    """
    judge = evaluate or evaluator_for(task, evaluator)
    reflections: list[str] = []
    last, changing = "", world_tools(ctx)
    for trial in range(1, trials + 1):
        note_shared_world(ctx, trial, changing)
        began = len(ctx.attempt.calls)
        answer = await pattern(remembering(task, reflections[-memory:], last), ctx)
        at = last_said(ctx, began)
        said = transcript(ctx.attempt.conversation(at)) or f"assistant: {answer}"
        feedback = await judge(task, ctx, answer)
        status, path = "done" if feedback.passed else "failed", current_branch().path
        ctx.note("branch", name=f"trial.{trial}", at=at, status=status, score=None, text=answer[:200], path=path)
        if feedback.passed or trial == trials:
            return answer
        if strategy in ("reflexion", "both"):
            asked = reflection_prompt(task, said, feedback, reflections[-memory:])
            reflections.append((await ctx.say(asked).generate()).said.strip())
        if strategy in ("last_attempt", "both"):
            last = said
    raise AssertionError("the last trial returns")


def remembering(task: Task, reflections: Sequence[str], last: str = "") -> Task:
    """The task with the reflections of earlier trials after its question."""
    parts = [task.prompt]
    if last:
        parts.append(f"You tried this before and failed. This was the end of your last attempt:\n{last}")
    if reflections:
        listed = "\n".join(f"{number}. {text}" for number, text in enumerate(reflections, 1))
        parts.append(f"You tried this before and failed. What to do otherwise, in your own words:\n{listed}")
    return replace(task, prompt="\n\n".join(parts))


def reflection_prompt(task: Task, said: str, feedback: Feedback, reflections: Sequence[str]) -> str:
    """The prompt after a failed trial: the problem, the attempt, its feedback, and earlier reflections."""
    earlier = "\n".join(f"{number}. {text}" for number, text in enumerate(reflections, 1))
    return (
        f"This problem was attempted, and the attempt failed.\n\nProblem:\n{task.question}\n\nAttempt:\n{said}\n\n"
        f"What came of it:\n{feedback.text}\n\n"
        + (f"Earlier reflections:\n{earlier}\n\n" if earlier else "")
        + "Do not solve the problem now. Say in a few sentences what went wrong, and what to do otherwise next time."
    )


def last_said(ctx: Context, since: int) -> int | None:
    """The node of the last answer among the calls from `since` on that were made in this branch, or else below it.

    Other branches of the attempt may be under way at the same time: what they say is not looked at.
    """
    here = current_branch().path
    said = [(call.id.rpartition(":")[0], call.nodes[0]) for call in ctx.attempt.calls[since:] if call.nodes]
    own = [node for path, node in said if path == here]
    below = sorted((path, node) for path, node in said if not here or path.startswith(f"{here}/"))
    return own[-1] if own else below[-1][1] if below else None


def transcript(messages: Sequence[Message]) -> str:
    """The end of a conversation as text, after its first message, which holds the question."""
    lines = [f"{message.role}: {shown(message)}" for message in messages[1:]]
    return "\n".join(lines)[-MAX_CHARS:]


def shown(message: Message) -> str:
    """The text of a message and its tool calls."""
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n".join([message.text, *calls]).strip()
