"""Prompts of the MCP server that wait for an answer: nothing of them goes on once the request is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import ToolError
from firsthand.serve.mcp.mcp_server import McpServer, Offer, ServedPrompt
from mcp_contexts import ASK, MODERN, OLDER, chose, context


def asking(log: list[str]) -> McpServer:
    """A server with a prompt that asks for two things, one after the other, and logs how it goes on."""

    async def get(arguments: dict[str, str], exchange: Any) -> types.GetPromptResult:
        try:
            first = (await exchange.ask("first", ASK)).content["w"]
            log.append(first)
            second = (await exchange.ask("second", ASK)).content["w"]
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        finally:
            log.append("over")
        if second == "wrong":
            raise ToolError("no such word")
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=f"{first} {second}"))
        return types.GetPromptResult(messages=[message])

    return McpServer(Offer(prompts=[ServedPrompt("words", "Two words.", get)]))


async def settled() -> int:
    """The tasks beside the caller's that are left when all that can end has ended."""
    for _ in range(5):
        await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1


def test_a_prompt_that_waits_for_an_answer_is_ended_with_its_request() -> None:
    log: list[str] = []
    made = asking(log)

    async def get(version: str = MODERN, *answers: Any, **words: str) -> Any:
        responses = {key: chose(w=word) for key, word in words.items()} or None
        given = types.GetPromptRequestParams(name="words", input_responses=responses)  # type: ignore[arg-type]
        return await made._get_prompt(context(version, *answers), given)

    async def main() -> None:
        result = await get()
        assert list(result.input_requests) == ["first"] and result.request_state == "prompt"
        assert (await settled(), log) == (0, ["cancelled", "over"])
        log.clear()
        result = await get(first="sun")
        assert list(result.input_requests) == ["second"] and result.request_state == "prompt"
        assert (await settled(), log) == (0, ["sun", "cancelled", "over"]), "it is asked anew from its beginning"
        log.clear()
        result = await get(first="sun", second="moon")
        assert result.messages[0].content.text == "sun moon"
        assert (await settled(), log) == (0, ["sun", "over"])
        log.clear()
        with pytest.raises(ToolError, match="no such word"):
            await get(first="sun", second="wrong")
        assert (await settled(), log) == (0, ["sun", "over"])
        log.clear()
        result = await get(OLDER, chose(w="sun"), chose(w="moon"))
        assert result.messages[0].content.text == "sun moon" and (await settled(), log) == (0, ["sun", "over"])

    asyncio.run(main())
