"""Runs one call of a served tool beside the request that began it, so that it can wait for input over several requests."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext

from firsthand.message import Json
from firsthand.serve.mcp.exchange import ParkedExchange, capabilities_of, client_of
from firsthand.serve.mcp.served_tool import ServedTool

MAX_PARKED = 256
"""The most calls that wait for input at a time; the oldest of who has most of them is given up for another."""
PARKED_S = 600.0
"""Seconds that a call waits for input."""
SETTLE_S = 0.005
"""Seconds in which a call that asks for one thing may ask for more, so that all go to the client together."""


class RunningCall:
    """The work of a call, in a task of its own."""

    def __init__(self, name: str, work: Coroutine[Any, Any, Any], exchange: ParkedExchange, id: str = ""):
        self.id = id or secrets.token_urlsafe(18)
        self.exchange = exchange
        self.since = time.monotonic()
        self.task: asyncio.Future[Any] = asyncio.create_task(work, name=f"firsthand-mcp-{name}")
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled():
            task.exception()  # it is told where the result is asked for
        self.exchange.moved.set()

    async def settled(self) -> None:
        """Wait until the call is over, or has asked for all it can ask for now."""
        while not self.task.done():
            if self.exchange.pending:
                await asyncio.sleep(SETTLE_S)
                if self.exchange.pending or self.task.done():
                    return
            self.exchange.moved.clear()
            await self.exchange.moved.wait()

    def requests(self) -> dict[str, Any]:
        """The requests that wait for an answer."""
        return {key: asked.request for key, asked in self.exchange.pending.items()}

    def let_go(self) -> None:
        """Drop the outcome of a call that is over, which is kept elsewhere, and what its client brought along."""
        self.exchange = ParkedExchange(None, {}, {}, client=self.exchange.client)
        self.task = asyncio.get_running_loop().create_future()
        self.task.set_result(None)

    async def cancel(self) -> None:
        """End the call."""
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=5.0)


class ParkedCalls:
    """The calls that wait for their client to call again with input."""

    def __init__(self, escalate: Callable[[ServedTool, RunningCall, ServerRequestContext[Any, Any], Json], Any]):
        self._calls: dict[str, RunningCall] = {}
        self._escalate = escalate

    async def call(
        self, tool: ServedTool, ctx: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> Any:
        """The result of a call, or what it needs before it can go on."""
        self._forget_old()
        arguments = params.arguments or {}
        if params.request_state:
            call = self._calls.get(params.request_state)
            if call is None or call.exchange.client != client_of(ctx):
                raise MCPError(types.INVALID_PARAMS, "this call waits for no input any more: call again without state")
            del self._calls[call.id]
            call.exchange.ctx = ctx
            call.exchange.bring(params.input_responses or {})
        else:
            if (wrong := tool.problem(arguments)) is not None:
                return wrong
            exchange = ParkedExchange(ctx, capabilities_of(ctx), params.input_responses or {})
            first = tool.result if tool.prepare is None else tool.prepare
            call = RunningCall(tool.name, first(arguments, exchange), exchange)
        try:
            await call.settled()
        except BaseException:  # the client has gone
            call.task.cancel()
            raise
        if not call.task.done():
            return self._park(call)
        outcome = call.task.result()
        if tool.prepare is not None:  # what was missing is there: now the work itself
            call = RunningCall(tool.name, tool.result(outcome, call.exchange), call.exchange)
            return await self._escalate(tool, call, ctx, outcome)
        return outcome

    def _park(self, call: RunningCall) -> types.InputRequiredResult:
        call.exchange.ctx = None
        call.since = time.monotonic()
        self._calls[call.id] = call
        return types.InputRequiredResult(input_requests=call.requests(), request_state=call.id)

    def _forget_old(self) -> None:
        before = time.monotonic() - PARKED_S
        for id, call in list(self._calls.items()):
            if call.since < before:
                self._calls.pop(id).task.cancel()
        while len(self._calls) >= MAX_PARKED:
            counts = Counter(call.exchange.client for call in self._calls.values())
            greedy, _ = counts.most_common(1)[0]
            oldest = next(id for id, call in self._calls.items() if call.exchange.client == greedy)
            self._calls.pop(oldest).task.cancel()

    async def close(self) -> None:
        """End every call that waits."""
        for call in self._calls.values():
            await call.cancel()
        self._calls.clear()
