"""One tool call of an attempt: refused, replayed from the journal, or approved, run and recorded.

Left out: budgets and deadlines, which the Context checks before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from firsthand.errors import AnswerPending, GuardRefused, OutcomeUnknown, ToolError, nearest
from firsthand.loop.answer_time import LATE, check_time, timed
from firsthand.loop.approval import approval_key
from firsthand.loop.asked_at import asking
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders
from firsthand.loop.calling import caller
from firsthand.loop.private_texts import READERS
from firsthand.loop.request_key import request_key
from firsthand.message import ERROR, Json, ToolCall, ToolResult, canonical
from firsthand.tool import LASTING, Tool, marked, usage
from firsthand.tool_arguments import read_arguments

MAX_DIFFERENCE = 200
"""Characters of each of two results that an event `rebuilt_otherwise` shows."""


def tool_request(call: ToolCall) -> str:
    """The key of a tool call in a journal, like `request_key` for models."""
    return request_key("tool", canonical([call.name, call.arguments, call.invalid]))


class Ran(NamedTuple):
    """A finished tool call."""

    result: ToolResult
    """As the model reads it."""
    arguments: Json
    """As the tool got them; as the model gave them where it was not called."""
    told: Json | None = None
    """Fields of a failed call that clients of a served agent read in place of the record's: empty if the guards have judged
    the error, None if they have not. Clients then read that the call failed."""


async def run_call(
    attempt: Attempt,
    call: ToolCall,
    *,
    borders: Borders,
    request: str,
    recorded: Json | None,
    detail: Json | None = None,
) -> Ran:
    """Run, replay or refuse a call. `recorded` is the journal's entry: the intent, then the result.

    The journal holds what the tool gave; guards judge it again when it is replayed. `detail`, the call's record, says from
    the time when the tool is called that it is, since the call may be broken off before it has a result.
    """
    detail = {} if detail is None else detail
    tool, effect = attempt.tools.get(call.name), borders.effect
    if tool is None:
        told = _told("the model called a tool that there is not", name=None)
        return Ran(_refused(call, _no_tool(call.name, attempt.tools)), call.arguments, told)
    try:
        given = call.arguments if call.invalid is None else read_arguments(call.invalid)
    except ToolError as error:
        text = f"{call.name} was not run: {error}"
        return Ran(_refused(call, text), call.arguments, _told(f"{call.name} was not run: its arguments are ambiguous"))
    if given is None:
        text = f"the arguments of {call.name} are not valid JSON: {(call.invalid or '')[:200]}"
        told = _told(f"{call.name} was not run: its arguments are not valid JSON")
        return Ran(_refused(call, f"{text}: write an object, {usage(tool)}"), call.arguments, told)
    try:
        arguments = await borders.call(tool, given)
    except ToolError as error:
        result = _refused(call, str(error))
        if recorded is None:
            await attempt.keep(effect, request, _entry(result))
        return Ran(result, given, told_of(error))
    finished = recorded is not None and "content" in recorded
    contained = attempt.is_contained(tool)
    was_run = recorded is not None and finished and bool(recorded.get("ran", not recorded["is_error"]))
    rebuilds = tool.effect == "write" or (contained and was_run)
    if recorded is not None and finished and (not rebuilds or _was_late(recorded)):
        if was_run:
            detail |= _running(arguments)
            if tool.effect in LASTING and attempt.is_of_environment(tool):  # it may be one that nothing outside keeps
                attempt.note("not_repeated", tool=tool.name, call=effect)
        return await _read(borders, tool, call, _replayed(call, recorded), recorded, arguments)
    began = recorded is not None and not recorded.get("waiting")
    if began and tool.effect in LASTING and not contained:
        # The journal holds the intent but no result: the process died in between, so it may have happened.
        text = f"{call.name} was interrupted while it ran; it may have taken effect, so it is not repeated"
        detail |= _running(arguments)
        return Ran(_refused(call, text), arguments, {})
    try:
        result = await _run_approved(
            attempt,
            tool,
            call,
            arguments,
            effect=effect,
            request=request,
            detail=detail,
            recorded=recorded,
            settled=contained and (was_run or attempt.redone is not None),
        )
    except ToolError as error:
        result = _refused(call, str(error))
    if recorded is not None and finished:
        _note_difference(attempt, effect, result, recorded)
    if recorded is not None and not (result.is_error or recorded.get("is_error", True)):
        # It ran again to rebuild the attempt's world. What the model was told stands, times in it included, so that the
        # replies that followed are found in the journal too.
        return await _read(borders, tool, call, _replayed(call, recorded), recorded, arguments)
    unknown: Json = {"ran": True} if result.is_error and detail.get("ran") else {}
    await attempt.keep(effect, request, _entry(result) | unknown)
    return await _read(borders, tool, call, result, {}, arguments)


async def _read(
    borders: Borders, tool: Tool, call: ToolCall, result: ToolResult, recorded: Json, arguments: Json
) -> Ran:
    """The result as the model reads it: past the guards, and between marks where it comes from outside.

    A fork's record holds what the parent's model read, which has passed already.
    """
    told: Json | None = None if recorded.get("shown") else {}
    if told is not None:
        try:
            result = await borders.result(tool, result)
        except ToolError as error:
            result, told = _refused(call, str(error)), told_of(error)
    if result.origin is not None:
        head = ERROR if result.is_error and result.content.startswith(ERROR) else ""
        result = replace(result, content=f"{head}{marked(result.content.removeprefix(head), result.origin)}")
    return Ran(result, arguments, told if result.is_error else None)


def told_of(error: ToolError) -> Json | None:
    """Return the text for clients of a guard's refusal; None for any other error."""
    return _told(error.told) if isinstance(error, GuardRefused) else None


def _told(text: str, **others: Json | None) -> Json:
    return {"result": f"{ERROR}{text}", **others}


def _running(arguments: Json) -> Json:
    """Returns the fields that a call's record has once its tool was called."""
    return {"arguments": arguments, "ran": True}


def _replayed(call: ToolCall, entry: Json) -> ToolResult:
    is_private = entry.get(READERS) == "user"
    origin, plain = entry.get("origin"), entry.get("plain")
    return ToolResult(call.id, call.name, entry["content"], entry["is_error"], origin, plain, is_private)


def _was_late(entry: Json) -> bool:
    return bool(entry["is_error"]) and str(entry["content"]).startswith(f"{ERROR}{LATE}")


def _entry(result: ToolResult) -> Json:
    """The result as the journal keeps it."""
    entry: Json = {"content": result.content, "is_error": result.is_error}
    entry |= {READERS: "user"} if result.is_private else {}
    return entry if result.origin is None else entry | {"origin": result.origin}


def _note_difference(attempt: Attempt, effect: str, result: ToolResult, recorded: Json) -> None:
    """Record an event `rebuilt_otherwise` if a call that ran again to rebuild the world has another result.

    A fork's record holds what guards let its parent read, which says nothing about what the tool gave.
    """
    if recorded.get("shown") and (attempt.agent.guards or result.origin is not None):
        return
    if (result.content, result.is_error) != (recorded["content"], recorded["is_error"]):
        told, found = (text[:MAX_DIFFERENCE] for text in (str(recorded["content"]), result.content))
        attempt.note("rebuilt_otherwise", tool=result.name, call=effect, recorded=told, result=found)


async def _run_approved(
    attempt: Attempt,
    tool: Tool,
    call: ToolCall,
    arguments: Json,
    *,
    effect: str,
    request: str,
    detail: Json,
    recorded: Json | None,
    settled: bool,
) -> ToolResult:
    """The tool's result, if the approval lets the call run. One that is `settled` was let through before."""
    checked = tool.validate(arguments)  # nobody is asked about a call that cannot be
    check_time(tool.timeout_s)
    if not settled:
        await approve(attempt, tool, arguments, effect)
    if tool.effect in LASTING and (recorded is None or recorded.get("waiting")):
        await attempt.keep(effect, request, {"started": True})
    detail |= _running(arguments)
    try:
        with timed(), asking(attempt.journal, effect, attempt.note):
            text = await tool.run(checked)
            here = caller()
            is_private = here is not None and here.branch.is_private
            return ToolResult(call.id, call.name, text, origin=tool.origin, is_private=is_private)
    except AnswerPending:  # the tool says that it has not acted yet: it is called again with the answer
        del detail["ran"]
        await attempt.keep(effect, request, {"waiting": True})
        raise
    except ToolError as error:
        text = str(error)
        if isinstance(error, OutcomeUnknown) and tool.effect in LASTING:
            text += "" if error.answered else "; it may have taken effect: find out before you call it again"
        else:
            del detail["ran"]
        return replace(_refused(call, text), origin=tool.origin or error.origin)


async def approve(attempt: Attempt, tool: Tool, arguments: Json, effect: str) -> None:
    """Raises ToolError if the call is not approved. The decision is journalled, so that resuming does not ask again."""
    approval = attempt.agent.approval
    verdict = approval.verdict(tool)
    if verdict == "allow":
        return
    place, request = approval_key(effect, tool, arguments)
    decided = attempt.journal.find(place, request) if verdict == "ask" else None
    if decided is None:
        decided = (await approval.decide(tool, arguments)).kept(tool)
        if verdict == "ask" and decided["by"] != "nobody":
            await attempt.keep(place, request, decided)
    told = {name: decided[name] for name in ("allowed", "by", "reason")}
    attempt.note("approval", tool=tool.name, arguments=arguments, effect=tool.effect, call=effect, **told)
    if not decided["allowed"]:
        raise ToolError(f"{tool.name} was not run: {decided['reason'] or 'it was not approved'}")


def _refused(call: ToolCall, text: str) -> ToolResult:
    return ToolResult(call.id, call.name, f"{ERROR}{text}", is_error=True)


def _no_tool(name: str, tools: Iterable[str]) -> str:
    """The error that a model reads when it calls an unknown tool."""
    known = sorted(tools)
    close = nearest(name, known) or nearest(name.rsplit(".", 1)[-1].lower(), known)
    hint = f" did you mean {close!r}?" if close else ""
    return f"no tool {name[:64]!r};{hint} there are {', '.join(known) or 'none'}"
