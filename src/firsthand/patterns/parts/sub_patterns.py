"""Lets one pattern lead others: sub-tasks, and named branches of the trace with their status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.errors import ConfigError, FirsthandError, GuardBlocked, MissingExtra, StoreError, UnknownName
from firsthand.loop.concurrency import current_branch
from firsthand.task import Task

_MISTAKES = (ConfigError, UnknownName, MissingExtra, StoreError, GuardBlocked)
"""Not failures of a branch: they end the attempt, for the user must act, a guard has blocked, or nothing can be recorded."""


@dataclass(frozen=True)
class BranchOutcome:
    """The outcome of a branch: an answer, or an error."""

    name: str
    answer: str = ""
    error: str | None = None
    cause: Exception | None = field(default=None, compare=False, repr=False)

    @property
    def failed(self) -> bool:
        """True if there is an error or no text."""
        return self.error is not None or not self.answer.strip()

    @property
    def report(self) -> str:
        """The outcome as text for a model."""
        if self.error is not None:
            return f"failed: {self.error}"
        return self.answer.strip() or "failed: it gave no answer"


def part_of(task: Task, name: str, prompt: str) -> Task:
    """A sub-task of `task` with a free-text answer."""
    return replace(task, id=f"{task.id}/{name}", prompt=prompt, choices=(), context=None, hint=None)


def world_tools(ctx: Context) -> list[str]:
    """The names of the tools that now change the task's environment."""
    return [tool.name for tool in ctx.tools if tool.effect != "read" and ctx.attempt.is_of_environment(tool)]


def note_shared_world(ctx: Context, runs: int, tools: Sequence[str]) -> None:
    """Record an event `shared_world` if a pattern runs several times in the one world that these tools change."""
    if runs > 1 and tools and not any(event.kind == "shared_world" for event in ctx.attempt.events):
        ctx.note("shared_world", runs=runs, tools=list(tools))


async def follow(name: str, pattern: Pattern, task: Task, ctx: Context) -> str:
    """The answer of `pattern`, whose start and end are noted in the trace under `name`."""
    ctx.branch(name, text=task.prompt)
    began = len(ctx.attempt.calls)
    branch = current_branch()
    outer, branch.name = branch.name, name
    try:
        answer = await pattern(task, ctx)
        if not isinstance(answer, str):
            raise ConfigError(
                f"the pattern of {name} returned {answer!r:.80} ({type(answer).__name__}): its answer must be a str"
            )
    except BaseException as error:  # noted, never kept back: a cancelled branch ends here too
        _ended(ctx, began).branch(name, "failed", text=_reason(error))
        raise
    finally:
        branch.name = outer
    _ended(ctx, began).branch(name, "done", text=answer)
    return answer


async def attempt(name: str, pattern: Pattern, task: Task, ctx: Context) -> BranchOutcome:
    """The outcome of `pattern`. A failure is an outcome too, so that siblings go on and the leading pattern can react."""
    try:
        return BranchOutcome(name, await follow(name, pattern, task, ctx))
    except _MISTAKES:
        raise
    except Exception as error:
        return BranchOutcome(name, error=_reason(error), cause=error)


def alive(outcomes: Sequence[BranchOutcome]) -> list[BranchOutcome]:
    """The outcomes that have an answer. If none has, and one failed with an error, that error is raised."""
    answered = [outcome for outcome in outcomes if not outcome.failed]
    causes = [outcome.cause for outcome in outcomes if outcome.cause is not None]
    if causes and not answered:
        raise causes[0]
    return answered


def _ended(ctx: Context, began: int) -> Context:
    """The Context at the last message that the model wrote in the running branch since then, to note its end there."""
    path = current_branch().path
    for call in reversed(ctx.attempt.calls[began:]):
        place = call.id.rpartition(":")[0]
        if call.nodes and (not path or place == path or place.startswith(f"{path}/")):
            return replace(ctx, node=call.nodes[-1])
    return ctx


def _reason(error: BaseException) -> str:
    kind = "" if isinstance(error, FirsthandError) else f"{type(error).__name__}: "
    return f"{kind}{error}"[:1000] or type(error).__name__
