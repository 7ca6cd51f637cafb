"""`firsthand mcp`: tools, indexes, benchmarks and agents over MCP, in both revisions, with tasks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx
import mcp_types as types
from mcp import Client, MCPError

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.commands.mcp import Config, make_server
from firsthand.errors import ConfigError, OutcomeUnknown, ToolError
from firsthand.loop.approval import Approval
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.serve.mcp.agent_offer import CallRecord, offer_agents
from firsthand.serve.mcp.benchmark_offer import offer_benchmarks
from firsthand.serve.mcp.index_offer import offer_index
from firsthand.serve.mcp.mcp_server import McpServer, Offer, ServedResource
from firsthand.serve.mcp.served_tool import ServedTool, served
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.mcp.remote_tasks import TasksOfServer
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.server_requests import RequestAnswers

ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def talk(offer, use, mode="auto", **client):
    """What `use` makes of a client that is connected in process."""

    async def main():
        made = McpServer(offer)
        try:
            async with Client(made.server, mode=mode, cache=None, **client) as connected:
                return await use(connected, made)
        finally:
            await made.close()

    return asyncio.run(main())


def offered(*tools, **more):
    return Offer(list(tools), **more)


def echo(name="echo", run=None, **more):
    async def say(arguments, exchange):
        return arguments["text"]

    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    return ServedTool(name, "Repeats.", schema, run or say, **more)


def said(result):
    return result.content[0].text


ASK = types.ElicitRequest(
    params=types.ElicitRequestFormParams(
        message="Which?", requested_schema={"type": "object", "properties": {"word": {"type": "string"}}}
    )
)


async def ask_a_word(arguments, exchange):
    reply = await exchange.ask("word", ASK)
    return f"{arguments['text']} {(reply.content or {}).get('word')}"


async def answer_word(context, params):
    return types.ElicitResult(action="accept", content={"word": "moon"})


def tasks_client():
    answers = RequestAnswers(ServerDeclaration("peer", command="x"), lambda: None)

    async def dispatch(request):
        return types.ElicitResult(action="accept", content={"word": "moon"})

    answers.dispatch = dispatch
    return [TasksOfServer(answers)]


# -- tools --


@ERAS
def test_tools_are_listed_by_name_and_called(mode):
    async def use(client, made):
        names = [each.name for each in (await client.list_tools()).tools]
        return names, said(await client.call_tool("b", {"text": "hello"}))

    assert talk(offered(echo("b"), echo("a")), use, mode) == (["a", "b"], "hello")


@ERAS
def test_a_tool_of_ours_says_what_it_may_do_and_checks_its_arguments(mode):
    async def use(client, made):
        (listed,) = (await client.list_tools()).tools
        good = await client.call_tool("calculator", {"expression": "2+3*4"})
        bad = await client.call_tool("calculator", {"expression": "2+"})
        wrong = await client.call_tool("calculator", {"text": "2"})
        return listed.annotations.read_only_hint, said(good), bad.is_error, wrong.is_error, said(wrong)

    hint, good, bad, wrong, text = talk(offered(served(catalog.tool("calculator"))), use, mode)
    assert (hint, good, bad, wrong) == (True, "14", True, True) and "it takes expression: string" in text


@ERAS
def test_an_unknown_tool_is_an_error_of_the_protocol(mode):
    async def use(client, made):
        with pytest.raises(MCPError, match="no tool 'nothing'"):
            await client.call_tool("nothing", {})

    talk(offered(echo()), use, mode)


@ERAS
def test_a_bug_of_a_tool_tells_the_client_nothing_of_it(mode):
    async def broken(arguments, exchange):
        raise KeyError("/secret/path")

    async def use(client, made):
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": "x"})
        return str(caught.value.error)

    assert "secret" not in talk(offered(echo(run=broken)), use, mode)


def test_a_thousand_tools_come_in_pages():
    async def use(client, made):
        first = await client.list_tools()
        second = await client.list_tools(cursor=first.next_cursor)
        with pytest.raises(MCPError, match="not given by this server"):
            await client.list_tools(cursor="-1")
        return len(first.tools), len(second.tools), second.next_cursor

    assert talk(offered(*(echo(f"t{i:03}") for i in range(1000))), use) == (500, 500, None)


@ERAS
def test_a_tool_asks_the_clients_user_in_either_revision(mode):
    async def use(client, made):
        return said(await client.call_tool("echo", {"text": "full"}))

    assert talk(offered(echo(run=ask_a_word)), use, mode, elicitation_callback=answer_word) == "full moon"


@ERAS
def test_a_client_that_cannot_ask_its_user_is_told_what_is_missing(mode):
    async def use(client, made):
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": "full"})
        return caught.value.error.data

    data = talk(offered(echo(run=ask_a_word)), use, mode)
    assert data == {"requiredCapabilities": {"elicitation": {}}}


def test_a_call_that_waits_runs_once_and_its_state_serves_once():
    runs = []

    async def counted(arguments, exchange):
        runs.append(1)
        return await ask_a_word(arguments, exchange)

    async def use(client, made):
        session, answers = client.session, {"word": types.ElicitResult(action="accept", content={"word": "moon"})}
        first = await session.call_tool("echo", {"text": "new"}, allow_input_required=True)
        assert list(first.input_requests) == ["word"]
        answered = dict(input_responses=answers, request_state=first.request_state, allow_input_required=True)
        with pytest.raises(MCPError):  # the state belongs to these arguments
            await session.call_tool("echo", {"text": "other"}, **answered)
        done = await session.call_tool("echo", {"text": "new"}, **answered)
        with pytest.raises(MCPError, match="no input any more"):
            await session.call_tool("echo", {"text": "new"}, **answered)
        return said(done)

    result = talk(offered(echo(run=counted)), use, elicitation_callback=answer_word)
    assert (result, len(runs)) == ("new moon", 1)


def test_calls_that_wait_end_with_the_server():
    ended = []

    async def waits(arguments, exchange):
        try:
            return await ask_a_word(arguments, exchange)
        finally:
            ended.append(1)

    async def use(client, made):
        await client.session.call_tool("echo", {"text": "x"}, allow_input_required=True)
        assert ended == []

    talk(offered(echo(run=waits)), use, elicitation_callback=answer_word)
    assert ended == [1]


# -- tasks --


@pytest.mark.slow
def test_a_call_becomes_a_task_for_a_client_that_knows_them():
    async def slow(arguments, exchange):
        await exchange.progress(1, 2, "half")
        await asyncio.sleep(0.05)
        return await ask_a_word(arguments, exchange)

    async def use(client, made):
        result = await client.call_tool("echo", {"text": "full"})
        (task,) = made.tasks.tasks.values()
        return said(result), task.state()["status"]

    found = talk(
        offered(echo(run=slow, as_task="may")), use, extensions=tasks_client(), elicitation_callback=answer_word
    )
    assert found == ("full moon", "completed")


def test_a_cancelled_call_cancels_its_task():
    async def forever(arguments, exchange):
        await asyncio.sleep(600)

    async def use(client, made):
        calling = asyncio.ensure_future(client.call_tool("echo", {"text": "x"}))
        while not made.tasks.tasks:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        calling.cancel()
        (task,) = made.tasks.tasks.values()
        until = time.monotonic() + 10
        while not task.is_over and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return task.state()["status"]

    assert talk(offered(echo(run=forever, as_task="may")), use, extensions=tasks_client()) == "cancelled"


def test_an_error_of_a_tool_completes_its_task_and_an_error_of_the_protocol_fails_it():
    async def fails(arguments, exchange):
        raise ToolError("no such thing")

    async def breaks(arguments, exchange):
        raise MCPError(types.INTERNAL_ERROR, "broken")

    async def use(client, made):
        first = await client.call_tool("fails", {"text": "x"})
        with pytest.raises(OutcomeUnknown, match=r"^MCP server peer failed its task \(code -32603\): broken$"):
            await client.call_tool("breaks", {"text": "x"})
        return first.is_error, said(first), sorted(task.state()["status"] for task in made.tasks.tasks.values())

    offer = offered(echo("fails", fails, as_task="may"), echo("breaks", breaks, as_task="must"))
    assert talk(offer, use, extensions=tasks_client()) == (True, "no such thing", ["completed", "failed"])


@ERAS
def test_a_client_without_tasks_waits_or_is_refused(mode):
    async def use(client, made):
        waited = said(await client.call_tool("may", {"text": "x"}))
        with pytest.raises(MCPError) as caught:
            await client.call_tool("must", {"text": "x"})
        return waited, caught.value.error

    waited, error = talk(offered(echo("may", as_task="may"), echo("must", as_task="must")), use, mode)
    assert waited == "x"
    if mode == "legacy":  # as its specification says; the extension came later
        assert error.code == types.METHOD_NOT_FOUND and "as a task" in error.message
    else:
        assert error.data == {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


# -- resources --


def test_a_template_matches_one_part_between_slashes():
    async def read(uri, parts):
        return []

    template = ServedResource("test://a/{id}/b", "n", "d", read)
    assert template.parts_of("test://a/x%2Fy/b") == {"id": "x/y"}
    assert template.parts_of("test://a/x/y/b") is None and template.parts_of("test://a/x/bb") is None


@ERAS
def test_an_index_is_searched_and_its_documents_are_resources(tmp_path, mode):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "moon.md").write_text("The moon is made of green cheese.")
    (docs / "sun.md").write_text("The sun is hot.")
    offer = Offer()
    offer_index(offer, str(docs), only=True)

    async def use(client, made):
        found = said(await client.call_tool("search", {"query": "green cheese"}))
        uris = [str(each.uri) for each in (await client.list_resources()).resources]
        read = (await client.read_resource(uris[0])).contents[0].text
        with pytest.raises(MCPError):
            await client.read_resource("firsthand://index/docs/nothing.md")
        return found, uris, read

    found, uris, read = talk(offer, use, mode)
    assert "green cheese" in found and read == "The moon is made of green cheese."
    assert uris == ["firsthand://index/docs/moon.md", "firsthand://index/docs/sun.md"]


def adding_agent(name="adder", **more):
    async def add(task, ctx):
        ctx = await ctx.say(task.prompt).generate()
        return ctx.text

    return Agent(name, Scripted(lambda messages, sampling, index: "7"), add, **more)


@ERAS
def test_a_benchmark_is_described_and_run_with_progress(mode):
    offer = Offer()
    offer_benchmarks(offer, ["arithmetic"], [adding_agent()])
    progress = []

    async def heard(done, total, message):
        progress.append((done, total))

    async def use(client, made):
        (resource,) = (await client.list_resources()).resources
        body = json.loads((await client.read_resource(str(resource.uri))).contents[0].text)
        asked = {"benchmark": "arithmetic", "limit": 3}
        result = await client.call_tool("run_benchmark", asked, progress_callback=heard)
        unknown = await client.call_tool("run_benchmark", {"benchmark": "arithmetik"})
        return body, result, said(unknown)

    body, result, unknown = talk(offer, use, mode)
    assert body["tasks"] > 3 and len(body["examples"]) == 3 and "secret" not in json.dumps(body["examples"])
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    (row,) = result.structured_content["rows"]
    assert (row["agent"], row["attempts"], row["errors"]) == ("adder", 3, 0)
    with store.open_run(result.structured_content["run"], data_home()) as run:
        assert len(list(run.traces())) == 3
    assert "did you mean 'arithmetic'" in unknown


@tool(effect="irreversible")
def launch(target: str) -> str:
    """Launches at a target."""
    return f"launched at {target}"


def launching_agent(**more):
    async def act(task, ctx):
        return (await ctx.call(ToolCall("c", "launch", {"target": "the moon"}))).content

    return Agent("launcher", Scripted([]), act, tools=(launch,), **more)


@ERAS
@pytest.mark.parametrize("approves, answer", [(True, "launched at the moon"), (False, "the user did not approve")])
def test_an_agents_approvals_are_asked_of_the_clients_user(mode, approves, answer):
    record, questions, heard = CallRecord(), [], []
    offer = Offer()
    offer_agents(offer, [launching_agent()], record)

    async def decide(context, params):
        questions.append(params.message)
        return types.ElicitResult(action="accept", content={"approve": approves})

    async def progress(done, total, message):
        heard.append(message)

    async def use(client, made):
        return await client.call_tool("ask", {"question": "go"}, progress_callback=progress)

    result = talk(offer, use, mode, elicitation_callback=decide)
    assert answer in said(result) and "target: the moon" in questions[0]
    if mode == "legacy":
        assert heard == ["calls launch"]
    about = result.meta["org.firsthand/trace"]
    with store.open_run(about["run"], data_home()) as run:
        (trace,) = run.traces()
    record.close()
    assert trace.id == about["trace"] and [e.data["allowed"] for e in trace.events if e.kind == "approval"] == [
        approves
    ]


def test_a_client_without_elicitation_leaves_an_approval_denied():
    offer = Offer()
    offer_agents(offer, [launching_agent(approval=Approval())], record := CallRecord())

    async def use(client, made):
        return said(await client.call_tool("ask", {"question": "go"}))

    assert "the client cannot ask its user" in talk(offer, use)
    record.close()


def test_an_agents_failure_is_a_result_that_says_why():
    async def fails(task, ctx):
        raise ConfigError("this cannot work")

    offer = Offer()
    offer_agents(offer, [Agent("failing", Scripted([]), fails)], record := CallRecord())

    async def use(client, made):
        return await client.call_tool("ask", {"question": "go"})

    result = talk(offer, use)
    record.close()
    assert result.is_error and said(result) == "failing gave no answer: this cannot work"


# -- the command --


def test_the_command_serves_what_its_flags_name():
    made = make_server(Config(tools=("calculator",), benchmark=("arithmetic",), model="scripted:echo"), CallRecord())
    assert sorted(tool.name for tool in made.offer.tools) == ["ask", "calculator", "run_benchmark"]


@pytest.mark.parametrize(
    "flags, said",
    [
        ({}, "nothing to serve"),
        ({"tools": ("calculator", "calculator")}, "two tools named 'calculator'"),
        ({"tools": ("mcp:uvx mcp-server-time",)}, "passes no other MCP server on"),
    ],
)
def test_flags_that_serve_nothing_or_one_name_twice_are_refused(flags, said):
    with pytest.raises(ConfigError, match=said):
        make_server(Config(**flags), CallRecord())


def started(*flags):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "firsthand", "mcp", *flags],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.slow
def test_an_agent_of_ours_uses_a_server_of_ours_over_stdio():
    async def use(task, ctx):
        return (await ctx.call(ToolCall("c", "ours__calculator", {"expression": "6*7"}))).content

    server = ServerDeclaration(
        "ours", command=sys.executable, args=("-m", "firsthand", "mcp", "--tools", "calculator"), trusted=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)}, opening_s=120,
    )  # fmt: skip
    from firsthand.tools.mcp.remote_tools import EachAttempt

    trace = asyncio.run(rollout(Agent("a", Scripted([]), use, tools=(EachAttempt(server),)), Task("t", "q")))
    assert trace.answer == "42"
    assert [event.data["revision"] for event in trace.events if event.kind == "mcp_server"] == ["2026-07-28"]


@pytest.mark.slow
def test_the_command_ends_when_its_client_goes():
    with started("--tools", "calculator") as process:
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_over_http_the_command_checks_host_and_key_and_closes_its_port(tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[ann]\nkey = "sk-0123456789abcdef0123456789abcdef"\n')
    with started("--tools", "calculator", "--http", "--port", "0", "--keys", str(keys)) as process:
        try:
            url = ""
            while "/mcp" not in url:
                url = process.stdout.readline().decode().partition(" at ")[2].partition(" ")[0]
            assert httpx.post(url, json={}).status_code == 401
            with httpx.Client(headers={"authorization": "Bearer sk-0123456789abcdef0123456789abcdef"}) as http:
                body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
                assert http.post(url, json=body, headers={"host": "evil.example"}).status_code == 421
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.post(url, json={})
