"""Answers what an MCP server asks for during a call: a completion of the agent's model, an answer of the user, the roots.

A completion is an effect of the attempt: guarded, paid from its budget, journalled and traced under the tool call. A
question to the user goes through the agent's approval. Outside of a call nothing is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import mcp_types as types
from pydantic import FileUrl

from firsthand.context import Context
from firsthand.errors import AnswerPending, FirsthandError
from firsthand.loop.approval import Decision
from firsthand.loop.calling import CallPosition
from firsthand.loop.form import form_fields
from firsthand.message import Json, Message, Text
from firsthand.model import ToolSpec
from firsthand.tool import Tool
from firsthand.tools.mcp.server_declaration import ServerDeclaration

MAX_REQUESTS = 8
"""The most completions and questions of one call."""
MAX_ROOTS = 100
"""How often a call is answered with the list of roots."""
MAX_COMPLETION = 4_096
"""The most tokens of one completion, whatever the server asks for."""
MAX_MESSAGE = 20_000
"""The most characters of a question's text that the trace keeps."""
_REFUSED = -1
"""JSON-RPC code for a request that the user or the budget refused."""

_ONE_ATTEMPT = (
    ", and on a shared connection while one attempt is calling alone, as requests do not name the call that they belong to: "
    "declare the server with shared = false"
)


class RequestAnswers:
    """The callbacks that the SDK's client calls for the requests of one server."""

    def __init__(self, server: ServerDeclaration, current: Callable[[], CallPosition | None]):
        self.server = server
        self._current = current
        self._counts: dict[str, int] = {}
        self._pending: dict[str, AnswerPending] = {}
        """The calls that cannot go on before somebody has answered, by effect."""
        self._turn = asyncio.Lock()
        self._sending: set[asyncio.Future[Any]] = set()

    def check_answered(self, effect: str) -> None:
        """AnswerPending if a question of this call waits for its answer: the call is made again once it is there."""
        if (pending := self._pending.pop(effect, None)) is not None:
            self._counts.pop(effect, None)
            raise pending

    async def sample(
        self, context: Any, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.ErrorData:
        """A completion of the agent's model. Requests are answered one by one, so that their effects keep their names."""
        async with self._turn:
            return await self._sample(params)

    async def _sample(self, params: types.CreateMessageRequestParams) -> types.CreateMessageResult | types.ErrorData:
        at = self._admit("sampling")
        if isinstance(at, types.ErrorData):
            return at
        tool = self._asking("sampling", f"{self.server.origin} asks the model for a completion.")
        shown = {"messages": [_shown(each) for each in params.messages], "system": params.system_prompt or ""}
        try:
            with at.active():
                decision = await self._decide(at, tool, shown)
            if not decision.allowed:
                return types.ErrorData(code=_REFUSED, message=decision.reason or "refused")
            at.enter()
            ctx = at.context
            if params.system_prompt:
                ctx = ctx.say(params.system_prompt, "system")
            for message in params.messages:
                ctx = ctx.say(_message(message))
            wanted: Json = {"max_tokens": max(1, min(params.max_tokens, MAX_COMPLETION))}
            if params.temperature is not None:
                wanted["temperature"] = max(0.0, params.temperature)
            if params.stop_sequences:
                wanted["stop"] = tuple(params.stop_sequences[:8])
            ctx = await ctx.generate(**wanted)
        except AnswerPending as pending:
            self._pending[at.effect] = pending
            return types.ErrorData(code=_REFUSED, message="nobody has answered yet")
        except FirsthandError as error:
            at.context.note("mcp_sampling", server=self.server.name, error=str(error))
            return types.ErrorData(code=_REFUSED, message=str(error))
        at.context.note("mcp_sampling", server=self.server.name, node=ctx.node)
        return types.CreateMessageResult(
            role="assistant",
            content=types.TextContent(type="text", text=ctx.text),
            model=ctx.attempt.agent.model.name,
            stop_reason="maxTokens" if _is_cut(ctx) else "endTurn",
        )

    async def elicit(self, context: Any, params: types.ElicitRequestParams) -> types.ElicitResult | types.ErrorData:
        """The user's answer to a question: the fields of a form, or consent to open a web page."""
        at = self._admit("elicitation")
        if isinstance(at, types.ErrorData):
            return at
        try:
            with at.active():
                return await self._elicit(at, params)
        except AnswerPending as pending:
            self._pending[at.effect] = pending
            return types.ElicitResult(action="cancel")

    async def _elicit(
        self, at: CallPosition, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        tool = self._asking("elicitation", f"{self.server.origin} asks you.")
        approval = at.context.attempt.agent.approval
        if approval.verdict(tool) == "deny":
            decision: Decision = await self._decide(at, tool, {})
            return types.ElicitResult(action="decline")
        if isinstance(params, types.ElicitRequestURLParams):
            if not params.url.lower().startswith(("http://", "https://")):
                return types.ErrorData(code=_REFUSED, message="only addresses of http and https are opened")
            decision = await self._decide(at, tool, {"message": params.message[:MAX_MESSAGE], "open": params.url})
            return types.ElicitResult(action="accept" if decision.allowed else "decline")
        schema = params.requested_schema
        schema = schema if isinstance(schema, dict) else schema.model_dump(by_alias=True, exclude_none=True)
        try:
            answered = await approval.fill(tool, params.message, form_fields(schema))
        except AnswerPending:
            raise
        except FirsthandError as error:
            return types.ErrorData(code=_REFUSED, message=str(error))
        message = params.message[:MAX_MESSAGE]
        at.context.note("mcp_elicitation", server=self.server.name, message=message, answer=answered)
        if answered is None:
            return types.ElicitResult(action="decline")
        return types.ElicitResult(action="accept", content=answered)

    async def roots(self, context: Any) -> types.ListRootsResult | types.ErrorData:
        """The declared folders."""
        if (at := self._current()) is not None:
            count = self._counts[f"{at.effect} roots"] = self._counts.get(f"{at.effect} roots", 0) + 1
            if count > MAX_ROOTS:
                return types.ErrorData(code=_REFUSED, message=f"more than {MAX_ROOTS} lists of roots in one call")
        found = [types.Root(uri=FileUrl(Path(each).as_uri()), name=Path(each).name) for each in self.server.roots]
        return types.ListRootsResult(roots=found)

    async def dispatch(self, request: Any) -> Any:
        """The answer to a request that came inside of another reply."""
        match request:
            case types.CreateMessageRequest() if self.server.sampling:
                return await self.sample(None, request.params)
            case types.ElicitRequest() if self.server.elicitation:
                return await self.elicit(None, request.params)
            case types.ListRootsRequest():
                return await self.roots(None)
        return types.ErrorData(code=types.METHOD_NOT_FOUND, message="this client does not answer that")

    def in_background(self, sending: Coroutine[Any, Any, Any]) -> None:
        """Send what nobody waits for, such as the cancelling of a task."""
        task = asyncio.ensure_future(sending)
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Future[Any]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of: the server may be gone

    def _admit(self, what: str) -> CallPosition | types.ErrorData:
        """The call that the request belongs to, if it may be answered."""
        at = self._current()
        if at is None:
            said = f"{what} is answered during a tool call only"
            return types.ErrorData(code=_REFUSED, message=said + (_ONE_ATTEMPT if self.server.shared else ""))
        count = self._counts[at.effect] = self._counts.get(at.effect, 0) + 1
        if count > MAX_REQUESTS:
            at.context.note(f"mcp_{what}", server=self.server.name, error="too many requests")
            return types.ErrorData(code=_REFUSED, message=f"more than {MAX_REQUESTS} requests in one call")
        return at

    def _asking(self, what: Literal["sampling", "elicitation"], text: str) -> Tool:
        """The request as a Tool, for rules and questions: the rule for it is `SERVER__sampling` or `SERVER__elicitation`."""
        spec = ToolSpec(f"{self.server.name}__{what}", text, {"type": "object", "properties": {}})
        return Tool(spec, "external", _none, dict, origin=self.server.origin, over=self.server.target, request=what)

    async def _decide(self, at: CallPosition, tool: Tool, arguments: Json) -> Decision:
        attempt = at.context.attempt
        verdict = attempt.agent.approval.verdict(tool)
        if verdict == "allow" and tool.request == "elicitation":  # a question is asked, whatever is allowed
            decision: Decision = await attempt.agent.approval.ask(tool, arguments)
        else:
            decision = await attempt.agent.approval.decide(tool, arguments)
        if verdict != "allow" or tool.request == "elicitation":
            attempt.note(
                "approval", tool=tool.name, arguments=arguments, effect=tool.effect,
                allowed=decision.allowed, by=decision.by, reason=decision.reason,
            )  # fmt: skip
        return decision


def _none() -> None:
    return None


def _message(message: types.SamplingMessage) -> Message:
    blocks = message.content if isinstance(message.content, list) else [message.content]
    texts = [block.text if isinstance(block, types.TextContent) else f"[{block.type}]" for block in blocks]
    return Message(message.role, (Text("\n".join(texts)),))


def _is_cut(ctx: Context) -> bool:
    """True if the token limit ended the answer that a Context is after."""
    calls = (call for call in reversed(ctx.attempt.calls) if call.kind == "generate" and ctx.node in call.nodes)
    return "length" in next((call.detail.get("finish_reasons", ()) for call in calls), ())


def _shown(message: types.SamplingMessage) -> str:
    return f"{message.role}: {_message(message).text}"
