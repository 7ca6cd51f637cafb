"""Holds a pattern's external effects until it has its answer, and makes them then: what went wrong before sends nothing."""

from __future__ import annotations

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.loop.pattern_options import at_least, checked
from firsthand.patterns.react import react
from firsthand.safety.undo.staging import StagedCalls, committing
from firsthand.task import Task


@checked(lambda *, most, **_: at_least(1, most=most))
async def staged(task: Task, ctx: Context, *, pattern: Pattern = react, most: int = 100) -> str:
    """The answer of the pattern it leads, whose calls of `external` tools are made after it, in order.

    The model reads that a call is staged. A pattern that fails, or is ended by a limit or a guard, leaves everything unsent;
    so does one that staged more than `most` calls. The real calls cross guards and approval again, at the end of the
    attempt; the first that fails or is refused ends the commit, and the rest is noted as unsent.
    """
    outbox = StagedCalls()
    with ctx.attempt.stand_ins(outbox.stand_ins(ctx.attempt.tools.values())):
        answer = await pattern(task, ctx)
    sent, refused = 0, ""
    if len(outbox.held) > most:
        refused = f"{len(outbox.held)} calls were staged, and at most {most} are made"
    for call in outbox.held if not refused else ():
        with committing():
            result = await ctx.call(call)
        if result.is_error:
            refused = result.content
            break
        sent += 1
    ctx.note("committed", sent=sent, unsent=[call.name for call in outbox.held[sent:]], reason=refused)
    return answer
