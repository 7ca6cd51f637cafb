"""The claims about agents that speak to tools and to one another, with small programs at the other end."""

import asyncio
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import a2a.client
import pytest

from firsthand.agent import Agent
from firsthand.claims.claim import Measurement, ruling
from firsthand.claims.lab import Lab
from firsthand.claims.patterns import a2a_across_frameworks, mcp_standard
from firsthand.errors import DataError, MissingExtra, ModelError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from served_agent import serving_agent

SUMS = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    given, schema = asked.get("params", {}), {"type": "object"}
    call = [given.get("name"), given.get("arguments")]
    right = call in (["times", {"a": 6, "b": 7}], ["calculator", {"expression": "6*7"}])
    found = {
        "initialize": {"protocolVersion": given.get("protocolVersion"), "capabilities": {"tools": {}},
                       "serverInfo": {"name": "sums", "version": "1"}},
        "tools/list": {"tools": [{"name": each, "description": each, "inputSchema": schema} for each in TOOLS]},
        "tools/call": {"content": [{"type": "text", "text": "42" if right else f"not {call}"}]},
    }.get(asked["method"])
    answer = {"error": {"code": -32601, "message": "none"}} if found is None else {"result": found}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""
"""A server of MCP by hand with TOOLS, which says 42 to the two right calls alone."""
PAIRS = (
    "official SDK, newest revision -> our server",
    "official SDK, legacy handshake -> our server",
    "Inspect -> our server",
    "our client -> a server of the official SDK",
)


def pairs_that_work(*worked):
    return Measurement(
        sum(worked) / 4,
        "pairs of client and server that list tools and call one with the right result",
        n=4,
        columns=("pair", "worked"),
        rows=tuple(zip(PAIRS, worked, strict=True)),
    )


@pytest.mark.slow
def test_each_client_lists_the_tools_and_calls_one_of_the_server(monkeypatch):
    monkeypatch.setattr(mcp_standard, "SERVER", ("-c", f"TOOLS = ['calculator']{SUMS}"))
    monkeypatch.setattr(mcp_standard, "FOREIGN", f"TOOLS = ['plus', 'times']{SUMS}")
    assert mcp_standard.measure(Lab(0)) == pairs_that_work(1.0, 1.0, 1.0, 1.0)
    monkeypatch.setattr(mcp_standard, "SERVER", ("-c", f"TOOLS = ['calculator', 'more']{SUMS}"))
    assert mcp_standard.measure(Lab(0)) == pairs_that_work(0.0, 0.0, 0.0, 1.0), "another list of tools"
    monkeypatch.setattr(mcp_standard, "SERVER", ("-c", f"TOOLS = ['calculators']{SUMS}"))
    monkeypatch.setattr(mcp_standard, "FOREIGN", f"TOOLS = ['plus']{SUMS}")
    assert mcp_standard.measure(Lab(0)).value == 0.0


HEARING = """
import sys
heard, note = sys.stdin, open(NOTE, "a")
class Lines:
    def __iter__(self):
        note.write("\\n")
        for line in heard:
            note.write(line)
            note.flush()
            yield line
sys.stdin = Lines()
"""
"""Writes an empty line to the file NOTE as the server starts, and then each line that it is sent."""


def test_the_pairs_open_a_server_each_by_the_handshake_that_they_are_named_after(tmp_path, monkeypatch):
    note = tmp_path / "note"
    head = f"NOTE = {str(note)!r}{HEARING}"
    monkeypatch.setattr(mcp_standard, "SERVER", ("-c", f"{head}TOOLS = ['calculator']{SUMS}"))
    monkeypatch.setattr(mcp_standard, "FOREIGN", f"{head}TOOLS = ['times']{SUMS}")
    assert mcp_standard.measure(Lab(0)).value == 1.0
    servers = [[json.loads(line) for line in each.splitlines() if line] for each in note.read_text().split("\n\n")]
    after = ["initialize", "notifications/initialized", "tools/list", "tools/call"]
    newest, legacy, inspect, ours = [[each["method"] for each in one] for one in servers]
    assert (legacy, inspect) == (after, after)
    assert newest == ours == ["server/discover", *after], "the newest revision first, and then what the server knows"
    asked = [(one[-1]["params"]["name"], one[-1]["params"]["arguments"]) for one in servers]
    assert asked == [*[("calculator", {"expression": "6*7"})] * 3, ("times", {"a": 6, "b": 7})]


def test_a_pair_works_if_42_comes_back_and_a_client_that_is_missing_is_named():
    def says(text):
        async def call():
            return text

        return call

    def raises(error):
        async def call():
            raise error

        return call

    calls = {"a": says("it is 42."), "b": says("6*7"), "c": raises(ValueError("42")), "d": says("420"), "e": says("")}
    assert mcp_standard._measured(calls) == Measurement(
        0.4,
        "pairs of client and server that list tools and call one with the right result",
        n=5,
        columns=("pair", "worked"),
        rows=(("a", 1.0), ("b", 0.0), ("c", 0.0), ("d", 1.0), ("e", 0.0)),
    )
    for name, package, extra in (("inspect_ai.tool", "inspect_ai", "inspect"), ("mcp.client.stdio", "mcp", "mcp")):
        with pytest.raises(MissingExtra) as told:
            mcp_standard._measured({"a": raises(ImportError("no", name=name)), "b": says("42")})
        assert str(told.value) == str(MissingExtra(package, extra, "a client of another maker"))


WAYS = ("JSONRPC, streamed", "JSONRPC, at once", "HTTP+JSON, streamed", "HTTP+JSON, at once")


def ways_that_work(*worked):
    return Measurement(
        sum(worked) / 4,
        "ways in which the official SDK's client gets the agent's answer",
        n=4,
        columns=("binding", "worked"),
        rows=tuple(zip(WAYS, worked, strict=True)),
    )


def speaker(reply):
    return Agent("speaker", Scripted(reply, name="scripted:speaker"), direct)


@pytest.mark.slow
def test_the_client_of_the_sdk_gets_the_words_of_an_agent_that_repeats_them(tmp_path, monkeypatch):
    said = a2a_across_frameworks.WORDS
    with serving_agent(speaker(lambda messages, sampling, index: f"I heard {messages[-1].text}!"), tmp_path) as server:

        @contextmanager
        def served():
            yield server.url

        monkeypatch.setattr(a2a_across_frameworks, "_served", served)
        assert a2a_across_frameworks.measure(Lab(0)) == ways_that_work(1.0, 1.0, 1.0, 1.0)
    with serving_agent(speaker(lambda messages, sampling, index: said[:-1]), tmp_path / "b") as server:
        found = [asyncio.run(a2a_across_frameworks._worked(server.url, "JSONRPC", each)) for each in (True, False)]
    assert found == [0.0, 0.0], "the answer lacks the last digit"
    assert asyncio.run(a2a_across_frameworks._worked(server.url, "JSONRPC", True)) == 0.0, "nobody serves any more"


def parts_of(*texts):
    return SimpleNamespace(parts=[SimpleNamespace(text=text) for text in texts])


NOTHING = parts_of()


def event(*artifacts, update=NOTHING):
    """An event of a task with these artifacts, and an update of one."""
    return SimpleNamespace(task=SimpleNamespace(artifacts=artifacts), artifact_update=SimpleNamespace(artifact=update))


@pytest.mark.parametrize(
    ("events", "works"),
    [
        ((), 0.0),
        ((event(),), 0.0),
        ((event(NOTHING),), 0.0),
        ((event(parts_of("the mill")), event(parts_of(" was built in 1871"))), 0.0),
        ((event(parts_of(f"I heard {a2a_across_frameworks.WORDS}!")),), 1.0),
        ((event(parts_of("no", a2a_across_frameworks.WORDS)),), 1.0),
        ((event(parts_of(a2a_across_frameworks.WORDS), parts_of("no")), event()), 1.0),
        ((event(parts_of("no")), event(update=parts_of(a2a_across_frameworks.WORDS, "no")), event()), 1.0),
        ((event(parts_of(a2a_across_frameworks.WORDS.upper())),), 0.0),
    ],
)
def test_a_way_works_if_the_words_stand_in_any_part_of_any_artifact(events, works, monkeypatch):
    asked = []

    class Factory:
        def __init__(self, config):
            asked.append((config.supported_protocol_bindings, config.streaming, config.httpx_client.timeout.read))

        async def create_from_url(self, url):
            asked.append(url)
            return self

        async def send_message(self, request):
            asked.append([part.text for part in request.message.parts])
            for each in events:
                yield each

    monkeypatch.setattr(pytest.importorskip("a2a.client"), "ClientFactory", Factory)
    assert asyncio.run(a2a_across_frameworks._worked("http://x:1", "HTTP+JSON", False)) == works
    assert asked == [(["HTTP+JSON"], False, 30), "http://x:1", ["the mill was built in 1871"]]


@pytest.mark.slow
def test_an_agent_that_fails_sends_no_words(tmp_path):
    def away(messages, sampling, index):
        raise ModelError(f"away: {messages[-1].text}")

    with serving_agent(speaker(away), tmp_path) as server:
        for binding, streams in a2a_across_frameworks.WAYS:
            assert asyncio.run(a2a_across_frameworks._worked(server.url, binding, streams)) == 0.0, (binding, streams)


@pytest.mark.slow
def test_each_way_asks_by_its_binding_and_is_streamed_where_it_says_so(tmp_path, monkeypatch):
    made, asked, real = [], [], a2a_across_frameworks._worked
    configured = a2a.client.ClientConfig

    def config(**given):
        made.append((given["supported_protocol_bindings"], given["streaming"]))
        return configured(**given)

    async def worked(url, binding, streams):
        asked.append((url, binding, streams))
        return 0.5 if binding == "JSONRPC" and not streams else await real(url, binding, streams)

    with serving_agent(speaker(lambda messages, sampling, index: messages[-1].text), tmp_path) as server:

        @contextmanager
        def served():
            yield server.url

        monkeypatch.setattr(a2a.client, "ClientConfig", config)
        monkeypatch.setattr(a2a_across_frameworks, "_served", served)
        monkeypatch.setattr(a2a_across_frameworks, "_worked", worked)
        found = a2a_across_frameworks.measure(Lab(0))
        ways = [("JSONRPC", True), ("JSONRPC", False), ("HTTP+JSON", True), ("HTTP+JSON", False)]
        assert asked == [(server.url, *way) for way in ways]
    assert made == [([binding], streams) for binding, streams in (ways[0], *ways[2:])]
    assert found.rows == tuple(zip(WAYS, (1.0, 0.5, 1.0, 1.0), strict=True))


def test_ways_are_told_in_their_order_and_the_share_is_of_all():
    assert a2a_across_frameworks._measured([1.0, 0.0, 0.0, 0.0]) == ways_that_work(1.0, 0.0, 0.0, 0.0)
    assert a2a_across_frameworks._measured([0.0, 1.0, 1.0, 1.0]) == ways_that_work(0.0, 1.0, 1.0, 1.0)


def test_all_ways_hold_some_hold_in_part_and_none_does_not():
    told = "{} of 4 ways work between our server and the SDK's client; both use that SDK's types"
    for worked, word, share in (
        ((1.0, 1.0, 1.0, 1.0), "holds here", "100%"),
        ((1.0, 0.0, 1.0, 1.0), "holds in part", "75%"),
        ((0.0, 0.0, 0.0, 1.0), "holds in part", "25%"),
        ((0.0, 0.0, 0.0, 0.0), "does not hold here", "0%"),
    ):
        assert a2a_across_frameworks.judge(ways_that_work(*worked)) == ruling(word, told.format(share))


def test_a_served_agent_is_found_by_its_line_and_is_ended_afterwards(tmp_path, monkeypatch):
    note = tmp_path / "note"
    program = (
        "import os, sys, time\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{os.getcwd()}} ' + open('agent.toml').read())\n"
        "print('see http://10.0.0.1:1 for more', flush=True)\n"
        "print('the agent is served at http://127.0.0.1:4567/v1, says it', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(a2a_across_frameworks, "SERVE", ("-S", "-c", program))
    with a2a_across_frameworks._served() as url:
        number, folder, told = note.read_text().split(" ", 2)
        assert url == "http://127.0.0.1:4567" and told == a2a_across_frameworks.AGENT
        os.kill(int(number), 0)
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)
    monkeypatch.setattr(a2a_across_frameworks, "SERVE", ("-S", "-c", "print('http://127.0.0.1:1 is busy')"))
    with (
        pytest.raises(
            DataError, match=r"^`firsthand serve --agent` ended before it served: run it by hand to see why$"
        ),
        a2a_across_frameworks._served(),
    ):
        pass


@pytest.mark.parametrize(
    ("module", "package", "extra"), [("a2a.client", "a2a", "a2a"), ("uvicorn", "uvicorn", "serve")]
)
def test_a_client_or_a_server_that_is_not_installed_is_named_with_its_extra(module, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as told:
        a2a_across_frameworks.measure(Lab(0))
    assert str(told.value) == str(MissingExtra(package, extra, "a client of A2A's own SDK"))
