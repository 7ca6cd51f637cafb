"""Half surrogates in what the MCP server sends become U+FFFD, so that no result ends the connection."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import Client, MCPError

from firsthand.serve.mcp.mcp_server import McpServer, Offer
from firsthand.serve.mcp.older_tasks import OlderTasks
from firsthand.serve.mcp.served_tool import ServedTool, served
from firsthand.serve.mcp.whole_texts import whole
from firsthand.tool import tool

HALF, MADE = "a\ud83db", "a\ufffdb"


def test_texts_of_any_depth_are_made_whole_and_what_was_whole_is_the_same_object() -> None:
    for fine in (
        "a",
        "é😀",
        None,
        5,
        [1, "a"],
        ("b",),
        {"k": ["x", {"y": "é"}]},
        types.TextContent(type="text", text="é"),
    ):
        assert whole(fine) is fine
    assert whole(HALF) == MADE and whole([HALF, "b"]) == [MADE, "b"] and whole((HALF,)) == (MADE,)
    assert whole({"k": {HALF: [1, HALF]}, "é": 2}) == {"k": {MADE: [1, MADE]}, "é": 2}
    result = types.CallToolResult(
        content=[types.TextContent(type="text", text=HALF), types.TextContent(type="text", text="c")],
        structured_content={"a": HALF},
    )
    made = whole(result)
    assert [each.text for each in made.content] == [MADE, "c"] and made.structured_content == {"a": MADE}
    assert made.content[1] is result.content[1] and made.model_dump_json()


def test_results_errors_and_progress_with_half_surrogates_reach_the_client() -> None:
    heard: list[str | None] = []

    @tool(effect="read")
    def halves(text: str) -> str:
        """Gives half a pair."""
        return HALF

    async def fails(arguments, exchange):
        await exchange.progress(1, 2, HALF)
        raise MCPError(-32000, HALF, {"why": HALF})

    async def told(progress, total, message):
        heard.append(message)

    async def main():
        made = McpServer(Offer([served(halves), ServedTool("fails", "Fails.", {"type": "object"}, fails)]))
        try:
            async with Client(made.server, cache=None) as client:
                result = await client.call_tool("halves", {"text": "x"})
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("fails", {}, progress_callback=told)
                return result, caught.value.error
        finally:
            await made.close()

    result, error = asyncio.run(main())
    assert result.content[0].text == MADE and (error.message, error.data) == (MADE, {"why": MADE})
    assert heard in ([MADE], [])  # progress may come after the answer


def test_what_an_older_task_asks_of_the_client_is_made_whole() -> None:
    sent: list[types.ElicitRequest] = []

    async def send_request(request, kind, metadata):
        sent.append(request)

    brought = SimpleNamespace(bring=lambda task, answers: None)
    context = SimpleNamespace(request_id=1, session=SimpleNamespace(send_request=send_request))
    schema = types.ElicitRequestFormParams.model_validate(
        {"message": HALF, "requestedSchema": {"type": "object", "properties": {}}}
    )
    asked = types.ElicitRequest(params=schema)
    task = SimpleNamespace(call=SimpleNamespace(id="t"))
    asyncio.run(OlderTasks._ask(SimpleNamespace(_tasks=brought), context, task, "k", asked))
    assert sent[0].params.message == MADE and sent[0].model_dump_json()
