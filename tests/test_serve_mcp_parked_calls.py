"""Calls of MCP tools that wait for input over several requests: who may go on with one, and who hears of it meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError

from firsthand.serve.mcp.running_call import ParkedCalls
from firsthand.serve.mcp.served_tool import ServedTool
from mcp_contexts import ASK, chose, context, said

SHAPE = {"type": "object", "properties": {"n": {"type": "integer"}}}


def params(**more: Any) -> types.CallToolRequestParams:
    return types.CallToolRequestParams(name="t", **more)


async def told(work: Any) -> tuple[int, str]:
    """The error that a request is answered with, which comes at once."""
    with pytest.raises(MCPError) as caught:
        await asyncio.wait_for(work, 2)
    return caught.value.error.code, caught.value.error.message


def test_a_call_that_goes_on_tells_the_request_that_brought_its_input_and_goes_on_for_its_client_alone() -> None:
    goes = asyncio.Event()

    async def run(arguments: Any, exchange: Any) -> str:
        await exchange.progress(1, 3, "begun")
        background = asyncio.create_task(between(exchange))
        first = (await exchange.ask("a", ASK)).content["w"]
        await background
        await exchange.progress(3, 3, "goes on")
        await exchange.log("info", first)
        return f"{exchange.client} {arguments} {first} {(await exchange.ask('a', ASK)).content['w']}"

    async def between(exchange: Any) -> None:
        await goes.wait()
        await exchange.progress(2, 3, "meanwhile")
        await exchange.log("debug", "unheard")

    async def main() -> None:
        parked = ParkedCalls(lambda *_: None)
        tool = ServedTool("t", "d", SHAPE, run)
        begun, brought, last = (context(client="ann") for _ in range(3))

        async def called(ctx: Any, **more: Any) -> Any:
            return await asyncio.wait_for(parked.call(tool, ctx, params(**more)), 2)

        asked = await called(begun, arguments={"n": 1})
        assert asked == types.InputRequiredResult(input_requests={"a": ASK}, request_state=asked.request_state)
        goes.set()
        for _ in range(5):
            await asyncio.sleep(0)
        call = parked._calls[asked.request_state]
        assert call.exchange.status == "2/3 meanwhile" and call.exchange.ctx is None
        gone = (-32602, "this call waits for no input any more: call again without state")
        answer = {"request_state": asked.request_state, "input_responses": {"a": chose(w="x")}}
        for other in (context(client="bob"), context()):
            assert await told(parked.call(tool, other, params(**answer))) == gone
        assert list(parked._calls) == [asked.request_state], "it still waits for its own client"
        again = await called(brought, **answer)
        assert again.request_state == asked.request_state and list(again.input_requests) == ["a+"]
        unanswered = await called(context(client="ann"), request_state=asked.request_state)
        assert list(unanswered.input_requests) == ["a+"], "without an answer it asks again"
        result = await called(last, request_state=asked.request_state, input_responses={"a+": chose(w="y")})
        assert said(result) == "ann {'n': 1} x y"
        sessions: list[Any] = [each.session for each in (begun, brought, last)]
        assert [each.told for each in sessions] == [[(1, 3, "begun")], [(3, 3, "goes on")], []]
        assert [each.logged for each in sessions] == [[], [("info", "x", 7)], []]
        assert parked._calls == {} and await told(parked.call(tool, brought, params(**answer))) == gone
        assert said(await called(begun, arguments={"n": "x"})).startswith("error: t cannot take these arguments: n: ")

    asyncio.run(main())


def test_a_call_that_is_prepared_becomes_another_with_the_arguments_it_was_given() -> None:
    given: list[Any] = []

    async def prepare(arguments: Any, exchange: Any) -> Any:
        return {"n": arguments["n"] + (await exchange.ask("more", ASK)).content["n"]}

    async def run(arguments: Any, exchange: Any) -> str:
        return f"ran with {arguments['n']} for {exchange.client}"

    async def escalate(tool: Any, call: Any, ctx: Any, arguments: Any) -> Any:
        given.append((tool.name, ctx.session, arguments, call.exchange.client, call.task.get_name()))
        return await call.task

    async def main() -> None:
        parked = ParkedCalls(escalate)
        tool = ServedTool("t", "d", SHAPE, run, prepare=prepare)
        first, second, third = (context(client="ann") for _ in range(3))
        asked = await parked.call(tool, first, params(arguments={"n": 1}))
        assert list(asked.input_requests) == ["more"] and given == []
        answer = {"request_state": asked.request_state, "input_responses": {"more": chose(n=4)}}
        assert said(await parked.call(tool, second, params(**answer))) == "ran with 5 for ann"
        at_once = params(arguments={"n": 2}, input_responses={"more": chose(n=7)})
        assert said(await parked.call(tool, third, at_once)) == "ran with 9 for ann"
        assert given == [
            ("t", second.session, {"n": 5}, "ann", "firsthand-mcp-t"),
            ("t", third.session, {"n": 9}, "ann", "firsthand-mcp-t"),
        ]  # fmt: skip
        assert parked._calls == {}
        waits = await parked.call(tool, first, params(arguments={"n": 1}))
        call = parked._calls[waits.request_state]
        await parked.close()
        assert call.task.cancelled() and parked._calls == {}

    asyncio.run(asyncio.wait_for(main(), 10))
