"""What is offered over MCP without a wire: pages, templates, tools, agents, benchmarks, indexes and sessions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import MCPError

from firsthand.benchmark import Benchmark
from firsthand.errors import StoreError, ToolError
from firsthand.serve.admission.active_request import ActiveRequest, attach
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.mcp import mcp_transports
from firsthand.serve.mcp.agent_offer import offer_agents
from firsthand.serve.mcp.benchmark_offer import _known, described, offer_benchmarks
from firsthand.serve.mcp.index_offer import offer_index
from firsthand.serve.mcp.mcp_server import McpServer, Offer, ServedPrompt, ServedResource, _page
from firsthand.serve.mcp.mcp_transports import _opens_session
from firsthand.serve.mcp.served_tool import ServedTool, failed, served
from firsthand.serve.mcp.session_door import _result, _turn_id, _turn_of
from firsthand.task import Task
from firsthand.tool import tool_from_function
from served_agent import Desk, clerk


def test_a_list_has_pages_of_five_hundred_and_cursors_of_its_own() -> None:
    entries = list(range(1000))

    def page(cursor: str | None, count: int = 1000) -> Any:
        return _page(entries[:count], types.PaginatedRequestParams(cursor=cursor))

    assert _page(entries, None) == page(None) == (entries[:500], "500")
    assert (
        page("500") == (entries[500:], None)
        and page("500", 501) == ([500], None)
        and page(None, 500) == (entries[:500], None)
    )
    assert page("1000") == ([], None)
    for cursor in ("1001", "-1", "x", "\u0663", "1" * 5_000):
        with pytest.raises(MCPError, match="this cursor was not given by this server"):
            page(cursor)


def test_a_template_gives_the_parts_of_an_address() -> None:
    async def read(uri: str, parts: Any) -> Any:
        return []

    made = ServedResource("x://a.b/{one}/c/{two}", "n", "d", read)
    assert made.is_template and made.parts_of("x://a.b/%C3%A9/c/z%2Fy") == {"one": "é", "two": "z/y"}
    for uri in ("x://aXb/1/c/2", "x://a.b/1/c/", "x://a.b/1/2/c/3", "x://a.b/1/c/2/"):
        assert made.parts_of(uri) is None
    assert not ServedResource("x://a", "n", "d", read).is_template


def test_a_tool_is_described_and_its_arguments_are_checked_before_it_runs() -> None:
    async def run(arguments: Any, exchange: Any) -> Any:
        if arguments.get("n") == 0:
            raise ToolError("zero")
        return "text" if arguments.get("n") == 1 else failed("own")

    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}},
    }
    made = ServedTool("t", "Does.", schema, run, as_task="must", title="T", output_schema={"type": "object"})
    shown = made.described()
    assert (shown.name, shown.title, shown.description, shown.input_schema) == ("t", "T", "Does.", schema)
    assert shown.execution is not None and shown.execution.task_support == "required"
    assert replace(made, as_task="may").described().execution.task_support == "optional"  # type: ignore[union-attr]
    assert replace(made, as_task="never").described().execution is None and shown.output_schema == {"type": "object"}
    assert made.problem({"n": 1}) is None
    for arguments, said in (
        ({"n": "x"}, "t cannot take these arguments: n: 'x' is not of type 'integer'"),
        ({"l": ["a", 2]}, "t cannot take these arguments: l.1: 2 is not of type 'string'"),
    ):
        wrong = made.problem(arguments)
        assert wrong is not None and wrong.is_error and wrong.content[0].text == said  # type: ignore[union-attr]

    def check(arguments: Any) -> None:
        if arguments:
            raise ToolError("no")

    own = replace(made, check=check)
    assert own.problem({}) is None and own.problem({"n": 1}).content[0].text == "no"  # type: ignore[union-attr]
    for n, text, is_error in ((1, "text", None), (2, "own", True), (0, "zero", True)):
        result = asyncio.run(made.result({"n": n}, None))  # type: ignore[arg-type]
        assert result.content[0].text == text and bool(result.is_error) is bool(is_error)  # type: ignore[union-attr]


def test_a_tool_of_ours_says_what_it_may_do() -> None:
    def go(a: int) -> str:
        """Goes."""
        return str(a)

    for effect, origin, hints in (
        ("read", None, (True, False, True, False)), ("read", "the web", (True, False, True, True)),
        ("write", None, (False, False, False, False)), ("external", None, (False, False, False, True)),
        ("irreversible", None, (False, True, False, True)),
    ):  # fmt: skip
        made = served(tool_from_function(go, effect=effect, origin=origin))  # type: ignore[arg-type]
        notes = made.annotations
        assert notes is not None
        assert (notes.read_only_hint, notes.destructive_hint, notes.idempotent_hint, notes.open_world_hint) == hints
        assert (made.name, made.description) == ("go", "Goes.") and made.problem({"a": "x"}) is not None
    assert asyncio.run(made.run({"a": 3}, None)) == "3"  # type: ignore[arg-type]


def test_agents_benchmarks_and_indexes_are_offered_by_names_of_their_own(tmp_path: Path) -> None:
    offer = Offer()
    agents = [clerk(Desk()), replace(clerk(Desk()), name="-Dr. Who! ")]
    offer_agents(offer, agents, None)  # type: ignore[arg-type]
    assert [tool.name for tool in offer.tools] == ["ask_clerk", "ask_Dr__Who"]
    alone = Offer()
    offer_agents(alone, agents[:1], None)  # type: ignore[arg-type]
    (tool,) = alone.tools
    assert (tool.name, tool.as_task, tool.resumes) == ("ask", "may", True)
    assert tool.description == "Asks the agent clerk (scripted:clerk) a question, and returns its answer."
    long = Offer()
    offer_agents(long, [replace(agents[0], name="x" * 80)] * 2, None)  # type: ignore[arg-type]
    assert len(long.tools[0].name) == 64
    for given, count in ((agents[:1], 1), ([], 0)):
        made = Offer()
        offer_benchmarks(made, ["game24"], given)
        assert (len(made.resources), len(made.tools)) == (1, count)
    assert made.resources[0].uri == "firsthand://benchmark/game24" and made.resources[0].mime_type == "application/json"
    for name in ("a", "b"):
        folder = tmp_path / f"{name} docs"
        folder.mkdir()
        (folder / "one.txt").write_text("The moon is far.")
    for only, names in ((True, ["search", "lookup"]), (False, ["search_a_docs", "lookup_a_docs"])):
        found = Offer()
        offer_index(found, str(tmp_path / "a docs"), only=only)
        assert [each.name for each in found.tools] == names
        template, one = found.resources
        assert template.uri == "firsthand://index/a_docs/{document}" and one.uri == "firsthand://index/a_docs/one.txt"
        (contents,) = asyncio.run(one.read(one.uri, {}))
        assert contents.text == "The moon is far." and contents.mime_type == "text/plain"  # type: ignore[union-attr]
        with pytest.raises(ToolError, match="no document 'none'"):
            asyncio.run(template.read("x", {"document": "none"}))


def test_a_benchmark_is_described_by_its_first_three_tasks() -> None:
    from firsthand import catalog

    body = described("game24", catalog.benchmark("game24"))
    tasks = catalog.benchmark("game24").tasks(0)
    assert body["tasks"] == len(tasks) and body["name"] == "game24"
    assert [each["id"] for each in body["examples"]] == [task.id for task in tasks[:3]]
    assert body["examples"][0]["prompt"] == tasks[0].prompt
    assert _known("agent", "a", {"a": 1}) == "a"
    with pytest.raises(
        ToolError, match="no agent 'clark' is served here; did you mean 'clerk'\\? there are clerk, other"
    ):
        _known("agent", "clark", {"clerk": 1, "other": 2})
    for name in ("y" * 100, "y" * 101):
        with pytest.raises(ToolError) as refused:
            _known("benchmark", name, {"a": 1, "b": 2})
        assert str(refused.value) == f"no benchmark {'y' * 100!r} is served here; there are a, b"


def test_a_scorer_is_told_by_its_name_its_function_s_or_as_a_score() -> None:
    class Named:
        """Has a name that is set when it is made."""

        def __init__(self, name: Any):
            self.name = name

        def __call__(self, task: Task, trace: Any) -> float:
            return 1.0

    def exact(task: Task, trace: Any) -> float:
        return 1.0

    def alias(task: Task, trace: Any) -> float:
        return 1.0

    alias.name = "closeness"  # type: ignore[attr-defined]
    scorers: Any = (Named("rubric"), exact, alias, partial(exact), Named(7))
    body = described("one", Benchmark("own", lambda seed: [Task(f"t{seed}", "?")], scorers, protocol="p"))
    assert body == {
        "name": "one", "description": "", "protocol": "p", "licence": "", "tasks": 1,
        "scorers": ["rubric", "exact", "closeness", "score", "7"],
        "examples": [{"id": "t0", "prompt": "?", "choices": []}],
    }  # fmt: skip
    assert described("none", Benchmark("own", lambda seed: [], (), protocol="p"))["scorers"] == []


def test_what_is_wrong_with_arguments_is_cut_to_300_characters() -> None:
    async def run(arguments: Any, exchange: Any) -> str:
        return "x"

    shape = {
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer"}},
        "additionalProperties": False,
    }
    made = ServedTool("t", "d", shape, run)
    begin, end = "t cannot take these arguments: n: '", "' is not of type 'integer'"

    def said(arguments: Any) -> str:
        wrong = made.problem(arguments)
        assert wrong is not None and wrong.is_error and len(wrong.content) == 1
        return str(wrong.content[0].text)  # type: ignore[union-attr]

    fits = 300 - len(end) - 1
    assert said({"n": "a" * fits}) == begin + "a" * fits + end
    assert said({"n": "a" * (fits + 1)}) == (begin + "a" * (fits + 1) + end)[:-1]
    assert said({"n": "a" * 9999}) == begin + "a" * 299
    assert said({}) == "t cannot take these arguments: arguments: 'n' is a required property"
    beyond = "Additional properties are not allowed ('m' was unexpected)"
    assert said({"n": 1, "m": 2}) == f"t cannot take these arguments: arguments: {beyond}"
    assert made.problem({"n": 1}) is None


def test_a_server_lists_its_tools_by_name_and_completes_a_hundred_values() -> None:
    async def get(arguments: Any, exchange: Any) -> Any:
        return None

    async def run(arguments: Any, exchange: Any) -> str:
        return "x"

    prompts = [ServedPrompt(name, "d", get, complete=lambda argument, text: [f"{argument}{text}{n}" for n in range(101)])
               for name in ("b", "a")]  # fmt: skip
    made = McpServer(Offer([ServedTool(name, "d", {}, run) for name in ("z", "y")], prompts=prompts))
    made.add(ServedTool("x", "d", {}, run))

    async def main() -> None:
        listed = await made._list_tools(None, None)  # type: ignore[arg-type]
        assert [tool.name for tool in listed.tools] == ["x", "y", "z"]
        assert [each.name for each in (await made._list_prompts(None, None)).prompts] == ["a", "b"]  # type: ignore[arg-type]
        for name, count in (("a", 100), ("none", 0)):
            params = types.CompleteRequestParams(
                ref=types.PromptReference(type="ref/prompt", name=name),
                argument=types.CompletionArgument(name="n", value="v"),
            )
            found = (await made._complete(None, params)).completion  # type: ignore[arg-type]
            assert (len(found.values), found.total, found.has_more) == (count, count and 101, bool(count))
        assert found.values == []

    asyncio.run(main())


def test_a_session_is_opened_by_a_post_of_an_older_revision_without_one() -> None:
    def opens(method: str, **headers: str) -> bool:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return _opens_session({"method": method, "headers": pairs})

    assert opens("POST") and opens("POST", mcp_protocol_version="2025-06-18")
    assert (
        not opens("GET")
        and not opens("POST", mcp_session_id="s")
        and not opens("POST", mcp_protocol_version="2026-07-28")
    )


def test_a_turn_of_a_session_is_told_by_its_state(tmp_path: Path) -> None:
    with opened_sessions(clerk(Desk()), tmp_path, tmp_path / "s") as sessions:
        store = sessions.store
        turn = store.add_turn(store.open_session("ann", "c").id, "q", id="mcp-7")
        asked = [store.asked("mcp-7", str(at), "pay", "read", {}, "?").id for at in range(2)]

        def told(state: Any, answer: str | None = None, error: str | None = None) -> Any:
            made = SessionTurn("mcp-7", turn.session, 1, state, "q", answer, error, "ann", "c")
            result = _result(sessions, made, "c")
            return result.content[0].text, bool(result.is_error), result.meta["org.firsthand/session"]  # type: ignore

        about = {"session": "c", "turn": "mcp-7"}
        assert told("completed", "42") == ("42", False, {**about, "state": "completed"})
        assert told("completed") == ("", False, {**about, "state": "completed"})
        assert told("failed", error="why") == ("clerk gave no answer: why", True, {**about, "state": "failed"})
        assert told("canceled") == ("clerk gave no answer: canceled", True, {**about, "state": "canceled"})
        text, is_error, more = told("input_required")
        assert (
            not is_error
            and more["approvals"] == ", ".join(asked)
            and f"({', '.join(asked)})" in text
            and "session='c'" in text
        )
        assert _turn_id("7") == "mcp-7" and _turn_id("") == ""
        assert _turn_of(sessions, "7", "ann") == turn
        assert _turn_of(sessions, "7", "bob") is None and _turn_of(sessions, "", "ann") is None


def test_what_opens_a_session_is_small_and_a_client_opens_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Endpoint:
        def __init__(self, manager: Any):
            self.manager = manager

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["user"].username)

    for name, value in (("MAX_OPENING_BYTES", 10), ("MAX_OPENING_VALUES", 3), ("MAX_OWN_SESSIONS", 2)):
        monkeypatch.setattr(mcp_transports, name, value)
    monkeypatch.setattr(mcp_transports, "StreamableHTTPASGIApp", Endpoint)
    made = McpServer(Offer(name="demo"))
    mounted = mcp_transports.mcp_app(made, "127.0.0.1")
    assert (mounted.prefix, mounted.work_methods, mounted.most_values) == (
        "/mcp",
        {"POST"},
        mcp_transports.MAX_VALUES,
    )
    owners = made.server.session_manager._session_owners

    def ask(body: bytes, *, client: str = "ann", method: str = "POST", **headers: str) -> str:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": "/mcp", "headers": named}
        attach(scope, ActiveRequest("r", Client(client, ClientLimits()), "/mcp", "application/json", body))
        seen.clear()
        try:
            asyncio.run(mounted.app(scope, None, None))  # type: ignore[arg-type]
        except Refusal as refusal:
            return f"{refusal.status} {refusal.message}"
        return "".join(seen)

    small = "413 the request that opens a session is kept with it: send less in it"
    assert ask(b"[1, 2]    ") == "ann" and ask(b"[1, 2]     ") == small, "ten bytes and no more"
    assert ask(b"[1,2,3]") == "ann" and ask(b"[1,2,3,4]") == small, "three values and no more"
    assert ask(b"[1,2,3,4]   ", mcp_session_id="s") == "ann"
    owners |= {"a": {"client_id": "ann"}, "b": {"client_id": "bob"}, "c": {"client_id": "ann"}}
    assert ask(b"{}") == "429 2 sessions of yours are open: end one with DELETE, or wait"
    assert ask(b"{}", client="bob") == "bob" and ask(b"{}", method="GET") == ask(b"{}", mcp_session_id="a") == "ann"
    del owners["c"]
    assert ask(b"{}") == "ann"


def test_a_document_that_is_not_there_or_cannot_be_read_tells_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one.txt").write_text("The moon is far.")
    offer = Offer()
    offer_index(offer, str(tmp_path), only=True)
    with pytest.raises(ToolError) as missing:
        asyncio.run(offer.resources[0].read("x", {"document": "n" * 200}))
    assert str(missing.value) == f"no document '{'n' * 100}' is served here"

    def damaged(*_: Any) -> None:
        raise StoreError(f"{tmp_path} is damaged")

    monkeypatch.setattr("firsthand.serve.mcp.index_offer.in_thread", damaged)
    with pytest.raises(ToolError) as unread:
        asyncio.run(offer.resources[0].read("x", {"document": "one.txt"}))
    assert str(unread.value) == "the documents cannot be read now: try again later"
    assert f"{tmp_path} is damaged" in caplog.text
