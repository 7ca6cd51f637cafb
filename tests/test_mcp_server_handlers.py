"""The handlers of the MCP server called one by one: lists, resources, prompts, calls in each revision, parked calls."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types
from mcp import MCPError
from pydantic import ValidationError

from firsthand.errors import ConfigError, StoreError, ToolError
from firsthand.serve.admission.active_request import request_of
from firsthand.serve.mcp.exchange import (
    DirectExchange,
    ParkedExchange,
    capabilities_of,
    client_of,
    current_exchange,
    exchanging,
    is_given_up,
)
from firsthand.serve.mcp.mcp_server import (
    McpServer,
    Offer,
    ServedPrompt,
    ServedResource,
    _by_revision,
    _hide_bugs,
    _set_level,
)
from firsthand.serve.mcp.running_call import MAX_PARKED, RunningCall
from firsthand.serve.mcp.served_tool import ServedTool
from firsthand.serve.mcp.server_tasks import EXTENSION
from mcp_contexts import ASK, MODERN, OLDER, OLDEST, chose, context

SHAPE: Any = {"type": "object", "properties": {"text": {"type": "string"}}}


def told(work: Any) -> tuple[int, str, Any]:
    """Code, message and data of the error that a handler answers with."""
    with pytest.raises(MCPError) as caught:
        asyncio.run(work)
    return caught.value.error.code, caught.value.error.message, caught.value.error.data


def wire(result: Any) -> Any:
    return result if isinstance(result, dict) else result.model_dump(by_alias=True, mode="json", exclude_none=True)


def called(name: str, **more: Any) -> types.CallToolRequestParams:
    return types.CallToolRequestParams(name=name, **more)


def resources() -> list[ServedResource]:
    async def read(uri: str, parts: dict[str, str]) -> Any:
        text = f"{uri} {sorted(parts.items())}"
        if parts.get("part") == "tool":
            raise ToolError("no such part")
        if parts.get("part") == "store":
            raise StoreError("the disk is full")
        return [types.TextResourceContents(uri=uri, text=text, mime_type="text/plain")]

    return [
        ServedResource("x://b", "B", "The b.", read),
        ServedResource("x://t/{part}", "T", "One part.", read, "text/markdown"),
        ServedResource("x://a", "A", "The a.", read, "application/json"),
        ServedResource("x://t/{one}/{two}", "U", "Two parts.", read),
    ]


def test_resources_and_templates_are_listed_apart_in_the_order_of_the_offer() -> None:
    made = McpServer(Offer(resources=resources()))
    ctx = context()
    plain = asyncio.run(made._list_resources(ctx, None))
    assert wire(plain)["resources"] == [
        {"uri": "x://b", "name": "B", "description": "The b.", "mimeType": "text/plain"},
        {"uri": "x://a", "name": "A", "description": "The a.", "mimeType": "application/json"},
    ]
    assert plain.next_cursor is None
    templates = asyncio.run(made._list_templates(ctx, None))
    assert wire(templates)["resourceTemplates"] == [
        {"uriTemplate": "x://t/{part}", "name": "T", "description": "One part.", "mimeType": "text/markdown"},
        {"uriTemplate": "x://t/{one}/{two}", "name": "U", "description": "Two parts.", "mimeType": "text/plain"},
    ]
    second = types.PaginatedRequestParams(cursor="1")
    assert [each.name for each in asyncio.run(made._list_resources(ctx, second)).resources] == ["A"]
    assert [each.name for each in asyncio.run(made._list_templates(ctx, second)).resource_templates] == ["U"]
    many = [ServedResource(f"x://{at}{part}", str(at), "", made.offer.resources[0].read)
            for at in range(501) for part in ("", "/{p}")]  # fmt: skip
    long = McpServer(Offer(resources=many))
    assert asyncio.run(long._list_resources(ctx, None)).next_cursor == "500"
    assert asyncio.run(long._list_templates(ctx, None)).next_cursor == "500"


def test_a_resource_is_read_by_its_address_or_by_the_parts_that_fill_its_template() -> None:
    made = McpServer(Offer(resources=resources()))

    def read(uri: str, version: str = MODERN) -> Any:
        return made._read_resource(context(version), types.ReadResourceRequestParams(uri=uri))

    for uri, text in (
        ("x://a", "x://a []"),
        ("x://t/%C3%A9", "x://t/%C3%A9 [('part', 'é')]"),
        ("x://t/1/2", "x://t/1/2 [('one', '1'), ('two', '2')]"),
    ):
        assert wire(asyncio.run(read(uri)))["contents"] == [{"uri": uri, "text": text, "mimeType": "text/plain"}]
    assert told(read("x://t/tool")) == (-32602, "no such part", {"uri": "x://t/tool"})
    assert told(read("x://t/store")) == (-32603, "the disk is full", {"uri": "x://t/store"})
    for version, code in ((MODERN, -32602), (OLDER, -32002)):
        assert told(read("x://c", version)) == (code, "there is no such resource", {"uri": "x://c"})
    for handler in (made._subscribe, made._unsubscribe):
        params: Any = types.SubscribeRequestParams(uri="x://a")
        assert asyncio.run(handler(context(), params)) == types.EmptyResult()
    assert asyncio.run(_set_level(context(), types.SetLevelRequestParams(level="info"))) == types.EmptyResult()


def prompts() -> list[ServedPrompt]:
    async def get(arguments: dict[str, str], exchange: Any) -> types.GetPromptResult:
        more = ""
        if "ask" in arguments:
            more = str((await exchange.ask("word", ASK)).content)
        text = f"{sorted(arguments.items())}{more} {type(exchange).__name__}"
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
        return types.GetPromptResult(messages=[message])

    arguments = tuple(types.PromptArgument(name=name, required=required)
                      for name, required in (("a", True), ("b", None), ("c", True)))  # fmt: skip
    return [
        ServedPrompt("z", "Last.", get),
        ServedPrompt("p", "First.", get, arguments, lambda name, text: [f"{name}{text}{at}" for at in range(3)]),
    ]


def test_prompts_are_listed_by_name_and_need_their_required_arguments() -> None:
    made = McpServer(Offer(prompts=prompts()))
    assert wire(asyncio.run(made._list_prompts(context(), None)))["prompts"] == [
        {"name": "p", "description": "First.",
         "arguments": [{"name": "a", "required": True}, {"name": "b"}, {"name": "c", "required": True}]},
        {"name": "z", "description": "Last.", "arguments": []},
    ]  # fmt: skip

    many = McpServer(Offer(prompts=[ServedPrompt(f"{at:03}", "", prompts()[0].get) for at in range(501)]))
    first = asyncio.run(many._list_prompts(context(), None))
    rest = asyncio.run(many._list_prompts(context(), types.PaginatedRequestParams(cursor=first.next_cursor)))
    assert (len(first.prompts), first.next_cursor, rest.next_cursor) == (500, "500", None)
    assert [each.name for each in rest.prompts] == ["500"], "each is on one page"

    def get(name: str, version: str = MODERN, **arguments: str) -> Any:
        given = types.GetPromptRequestParams(name=name, arguments=arguments or None)
        return made._get_prompt(context(version), given)

    def text(work: Any) -> str:
        return str(asyncio.run(work).messages[0].content.text)

    assert told(get("q")) == (-32602, "there is no prompt 'q'", None)
    assert told(get("p")) == (-32602, "the prompt p needs a, c", None)
    assert told(get("p", b="1", c="2")) == (-32602, "the prompt p needs a", None)
    assert text(get("p", a="1", c="")) == "[('a', '1'), ('c', '')] ParkedExchange"
    assert text(get("z")) == "[] ParkedExchange" and text(get("z", OLDER)) == "[] DirectExchange"

    def completed(ref: Any, argument: str, value: str) -> Any:
        params = types.CompleteRequestParams(ref=ref, argument=types.CompletionArgument(name=argument, value=value))
        return asyncio.run(made._complete(context(), params)).completion

    found = completed(types.PromptReference(type="ref/prompt", name="p"), "a", "x")
    assert (found.values, found.total, found.has_more) == (["ax0", "ax1", "ax2"], 3, False)
    refs: Any = (types.PromptReference(type="ref/prompt", name="z"),
                 types.ResourceTemplateReference(type="ref/resource", uri="p"))  # fmt: skip
    for ref in refs:
        found = completed(ref, "a", "x")
        assert (found.values, found.total, found.has_more) == ([], 0, False)


def test_a_prompt_that_asks_is_asked_anew_with_the_answer_or_asks_on_the_older_stream() -> None:
    made = McpServer(Offer(prompts=prompts()))

    def get(version: str, *answers: Any, asks: bool = True, **more: Any) -> Any:
        given = types.GetPromptRequestParams(name="z", arguments={"ask": "1"}, **more)
        return made._get_prompt(context(version, *answers, asks=asks), given)

    async def first() -> Any:
        result = await get(MODERN)
        return wire(result), len(asyncio.all_tasks())

    asked, tasks = asyncio.run(first())
    assert asked["requestState"] == "prompt" and list(asked["inputRequests"]) == ["word"]
    assert asked["inputRequests"]["word"]["params"]["message"] == "Which?" and tasks <= 2
    for result in (get(MODERN, input_responses={"word": chose(w="moon")}), get(OLDER, chose(w="moon"))):
        assert "[('ask', '1')]{'w': 'moon'} " in asyncio.run(result).messages[0].content.text
    code, message, _ = told(get(MODERN, asks=False))
    assert (code, message) == (types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                               "this tool needs a client with the capability elicitation")  # fmt: skip


def tools(log: list[Any]) -> list[ServedTool]:
    def runs(name: str) -> Any:
        async def run(arguments: Any, exchange: Any) -> Any:
            log.append((name, arguments, type(exchange).__name__, exchange.client))
            if arguments.get("text") == "wrong":
                raise ConfigError("not like that")
            return f"{name} {arguments.get('text')}"

        return run

    async def prepare(arguments: Any, exchange: Any) -> Any:
        if arguments.get("text") == "unfit":
            raise ToolError("nothing to prepare")
        return {"text": str((await exchange.ask("word", ASK)).content["w"])}

    return [
        ServedTool("quick", "", SHAPE, runs("quick")),
        ServedTool("may", "", SHAPE, runs("may"), as_task="may"),
        ServedTool("must", "", SHAPE, runs("must"), as_task="must"),
        ServedTool("first", "", SHAPE, runs("first"), as_task="may", prepare=prepare),
        ServedTool("plain", "", SHAPE, runs("plain"), prepare=prepare),
    ]


def outcome(result: Any) -> str:
    """A text, a text of an error, or the state of a task."""
    if isinstance(result, dict):
        return f"task {result['status']}"
    if isinstance(result, types.InputRequiredResult):
        return f"asks {', '.join(result.input_requests or ())}"
    return f"{'error ' if result.is_error else ''}{result.content[0].text}"


def test_a_call_runs_at_once_or_as_a_task_by_its_tool_its_revision_and_its_client() -> None:
    log: list[Any] = []
    made = McpServer(Offer(tools(log)))

    async def call(version: str, name: str, text: str = "t", **client: Any) -> str:
        try:
            result = await made._call_tool(context(version, **client), called(name, arguments={"text": text}))
        except MCPError as error:
            return f"refused {error.error.code} {error.error.message}"
        await asyncio.sleep(0)
        return outcome(result)

    async def main() -> None:
        assert await call(MODERN, "none") == "refused -32602 there is no tool 'none'"
        for name, version, tasks, expected in (
            ("quick", MODERN, True, "quick t"), ("quick", OLDER, False, "quick t"), ("may", MODERN, False, "may t"),
            ("may", MODERN, True, "task working"), ("may", OLDER, True, "may t"), ("must", MODERN, True, "task working"),
            ("must", MODERN, False, f"refused {types.MISSING_REQUIRED_CLIENT_CAPABILITY} "
                                    "this needs a client with the Tasks extension"),
            ("must", OLDER, True, "refused -32601 must is called as a task: send `task` with the call"),
            ("must", OLDEST, True, f"refused {types.MISSING_REQUIRED_CLIENT_CAPABILITY} "
                                   "this needs a client with the Tasks extension"),
            ("first", MODERN, True, "asks word"), ("plain", MODERN, True, "asks word"),
        ):  # fmt: skip
            assert await call(version, name, tasks=tasks, client="ann") == expected, (name, version, tasks)
        for version, kind in ((MODERN, "ParkedExchange"), (OLDER, "DirectExchange")):
            log.clear()
            await call(version, "quick", "v", client="ann")
            assert log == [("quick", {"text": "v"}, kind, "ann")]
            assert await call(version, "quick", "wrong") == "error not like that"
            wrong = await call(version, "quick", 3)  # type: ignore[arg-type]
            assert wrong == "error quick cannot take these arguments: text: 3 is not of type 'string'"
        assert await call(MODERN, "may", 3, tasks=True) == (  # type: ignore[arg-type]
            "error may cannot take these arguments: text: 3 is not of type 'string'"
        )
        empty = await made._call_tool(context(OLDER), called("quick"))
        assert outcome(empty) == "quick None"
        await made.close()

    asyncio.run(main())


def test_what_a_tool_asks_for_first_comes_before_the_work_in_each_revision() -> None:
    log: list[Any] = []
    made = McpServer(Offer(tools(log)))

    async def main() -> None:
        direct = context(OLDER, chose(w="moon"))
        assert outcome(await made._call_tool(direct, called("plain", arguments={"text": "t"}))) == "plain moon"
        ((request, kind, related),) = direct.session.sent  # type: ignore[attr-defined]
        assert (request, kind, related) == (ASK, types.ElicitResult, 7)
        unfit = called("plain", arguments={"text": "unfit"})
        assert outcome(await made._call_tool(context(OLDER), unfit)) == "error nothing to prepare"
        for name, tasks, expected in (
            ("plain", True, "plain sun"), ("first", False, "first sun"), ("first", True, "task working"),
        ):  # fmt: skip
            log.clear()
            ctx = context(client="ann", tasks=tasks)
            asked = await made._call_tool(ctx, called(name, arguments={"text": "t"}))
            again = called(name, request_state=asked.request_state, input_responses={"word": chose(w="sun")})
            with pytest.raises(MCPError, match="this call waits for no input any more: call again without state"):
                await made._call_tool(context(client="bob", tasks=tasks), again)
            assert outcome(await made._call_tool(ctx, again)) == expected
            await asyncio.sleep(0.001)
            assert log == [(name, {"text": "sun"}, "ParkedExchange", "ann")]
            with pytest.raises(MCPError, match="this call waits for no input any more"):
                await made._call_tool(ctx, again)
            seeded = called(name, arguments={"text": "t"}, input_responses={"word": chose(w="sun")})
            assert outcome(await made._call_tool(ctx, seeded)) == expected, "the answer came with the call"
        assert [task.owner for task in made.tasks.tasks.values()] == ["ann", "ann"]
        await made.close()
        assert made.tasks.tasks == {} and made._parked._calls == {}

    asyncio.run(main())


def test_calls_that_wait_are_bounded_and_the_greediest_client_gives_one_up() -> None:
    made = McpServer(Offer(tools([])))

    async def ask(client: str) -> Any:
        return (await made._call_tool(context(client=client), called("plain", arguments={}))).request_state

    async def main() -> None:
        kept: dict[str, list[Any]] = {"ann": [], "bob": []}
        names = ["ann", *["bob"] * 3, *["ann"] * (MAX_PARKED - 4)]
        for name, state in zip(names, await asyncio.gather(*map(ask, names)), strict=True):
            kept[name].append(state)
        calls = made._parked._calls
        assert len(calls) == MAX_PARKED and all(call.exchange.ctx is None for call in calls.values())
        anns = [id for id, call in calls.items() if call.exchange.client == "ann"]
        newest = await ask("bob")
        assert len(calls) == MAX_PARKED and anns[0] not in calls and set(anns[1:]) < set(calls) and newest in calls
        assert all(state in calls for state in kept["bob"])
        calls[newest].since -= 600.5
        calls[anns[1]].since -= 599.0
        made._parked._forget_old()
        assert newest not in calls and anns[1] in calls
        await made.close()

    asyncio.run(main())


def test_a_method_that_a_revision_lacks_is_not_found_and_bugs_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(name: str, ctx: Any, params: Any) -> str:
        return f"{name} {ctx.protocol_version} {params}"

    def older(ctx: Any, params: Any) -> Any:
        return handler("older", ctx, params)

    def newer(ctx: Any, params: Any) -> Any:
        return handler("newer", ctx, params)

    def chosen(version: str, *handlers: Any) -> Any:
        return _by_revision(*handlers)(context(version, method="tasks/x"), 5)

    assert asyncio.run(chosen(MODERN, older, newer)) == f"newer {MODERN} 5"
    assert asyncio.run(chosen("2027-01-01", older, newer)) == "newer 2027-01-01 5"
    assert asyncio.run(chosen(OLDER, older, newer)) == f"older {OLDER} 5"
    for version, handlers in ((OLDEST, (older, newer)), (OLDER, (None, newer)), (MODERN, (older, None))):
        assert told(chosen(version, *handlers)) == (-32601, f"the revision {version} has no tasks/x", None)

    async def breaks(ctx: Any) -> Any:
        if ctx.params is not None:
            raise ctx.params
        return "fine"

    assert asyncio.run(_hide_bugs(context(), breaks)) == "fine"
    assert told(_hide_bugs(context(params=MCPError(-5, "own", [1])), breaks)) == (-5, "own", [1])  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR, "firsthand"):
        hidden = told(_hide_bugs(context(params=KeyError("secret"), method="m/x"), breaks))
    assert hidden == (-32603, "the server failed for a reason of its own", None)
    with pytest.raises(ValidationError) as invalid:
        types.Tool.model_validate({})
    with pytest.raises(ValidationError):  # the SDK says what does not fit
        asyncio.run(_hide_bugs(context(params=invalid.value), breaks))
    assert [record.getMessage() for record in caplog.records] == ["a bug in the answer to m/x"]


def test_who_listens_for_tasks_must_know_them() -> None:
    made = McpServer(Offer())

    def listen(**params: Any) -> Any:
        return made._listen(context(params=params), types.SubscriptionsListenRequestParams.model_construct())

    code, message, data = told(listen(notifications={"taskIds": ["1"]}))
    assert (code, message) == (types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs a client with the Tasks extension")
    assert data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


def test_a_call_is_cancelled_by_a_notification_and_over_http_by_a_closed_stream_of_the_newer_revision() -> None:
    class Channel:
        cancel_requested = asyncio.Event()

    for version, by_stream in ((MODERN, True), (OLDER, False)):
        ctx = context(version, client="ann")
        exchanges = (DirectExchange(ctx), ParkedExchange(ctx, {}, {}))
        assert [each.is_cancelled for each in exchanges] == [False, False]
        request_of(ctx.request.scope).client_left = True  # type: ignore[union-attr]
        assert [each.is_cancelled for each in exchanges] == [by_stream, by_stream]
        exchanges[1].ctx = None
        assert not exchanges[1].is_cancelled, "it waits for its client, or has become a task"
        exchanges[1].is_ended = True
        assert exchanges[1].is_cancelled
        over_stdio = context(version)
        over_stdio.session._request_outbound = Channel()  # type: ignore[assignment]
        assert not DirectExchange(over_stdio).is_cancelled and not ParkedExchange(over_stdio, {}, {}).is_cancelled
        Channel.cancel_requested.set()
        assert DirectExchange(over_stdio).is_cancelled and ParkedExchange(over_stdio, {}, {}).is_cancelled
        Channel.cancel_requested.clear()
    assert not is_given_up(context(name="1")), "a request that no server of ours admitted"


def test_a_prepared_call_ends_with_the_request_that_waits_for_it() -> None:
    async def main() -> list[bool]:
        made = McpServer(Offer())
        tool = ServedTool("t", "", SHAPE, lambda *_: asyncio.sleep(9))  # type: ignore[arg-type]
        ctx = context()
        call = RunningCall("t", asyncio.sleep(9), ParkedExchange(ctx, {}, {}))
        waiting = asyncio.create_task(made._after_input(tool, call, ctx, {}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.wait({call.task}, timeout=1)
        return [waiting.cancelled(), call.task.cancelled()]

    assert asyncio.run(main()) == [True, True]


def test_an_exchange_of_an_older_call_passes_everything_on_with_the_calls_id() -> None:
    ctx = context(OLDER, chose(w=1), client="ann")
    exchange = DirectExchange(ctx)
    assert (exchange.client, exchange.task, exchange.note, exchange.is_cancelled) == ("ann", "", "", False)
    assert exchange.can("elicitation") and not exchange.can("roots")
    exchange.keep("n")
    assert exchange.note == ""

    async def main() -> None:
        assert await exchange.ask("k", ASK) == chose(w=1)
        await exchange.progress(1, 4, "one")
        await exchange.progress(2)
        await exchange.log("warning", "hot")
        with pytest.raises(MCPError, match="capability sampling"):
            await exchange.ask("k", types.CreateMessageRequest.model_construct())

    asyncio.run(main())
    session: Any = ctx.session
    assert session.sent == [(ASK, types.ElicitResult, 7)] and session.logged == [("warning", "hot", 7)]
    assert session.told == [(1, 4, "one"), (2, None, None)]
    assert capabilities_of(ctx) == {"elicitation": {}}
    ctx.session.client_capabilities = None  # type: ignore[misc]
    assert capabilities_of(ctx) == {}
    assert client_of(context()) is None and client_of(context(name="1")) is None
    outer: Any = "outer"
    inner: Any = "inner"
    with exchanging(outer):
        with pytest.raises(KeyError), exchanging(inner):
            assert current_exchange() == "inner"
            raise KeyError
        assert current_exchange() == "outer"
    with pytest.raises(LookupError):
        current_exchange()
