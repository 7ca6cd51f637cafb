"""A tool may name who reads all of its arguments: guards ask before a private result of others goes there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand import Agent, Task, catalog
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval, Decision
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.rules.case import CallCase, Earlier
from firsthand.safety.rules.labels import Label
from firsthand.safety.rules.policies import readers_cover_recipients
from firsthand.safety.rules.threat_model import _tells_unseen
from firsthand.tool import Tool, tool
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.web_search import web_search

SECRET = "the vault code of the user is quartz-lantern-9921-maple and nobody else may know it"
HERE, THERE = "MCP server weather", "MCP server notes"


@tool(effect="read", declares=Declaration(readers="user", tells=THERE))
def note(text: str = "") -> str:
    """A private note."""
    return SECRET


@tool(effect="read", declares=Declaration(tells=HERE))
def forecast(city: str) -> str:
    """The weather."""
    return "rain"


@tool(effect="external", declares=Declaration(("channel",), tells=HERE))
def post(channel: str, text: str) -> str:
    """Post a text."""
    return "rain"


@tool(effect="external", declares=Declaration(recipients=("to",), tells=HERE))
def send(text: str, to: str = "") -> str:
    """Send a text."""
    return "rain"


def passes(name: str, arguments: dict[str, Any], prompt: str = "Weather in Turin?") -> bool:
    """True if the default rules let this call be made after the note was read."""

    async def pattern(task: Task, ctx: Any) -> str:
        await ctx.call(ToolCall("1", "note", {}))
        return (await ctx.call(ToolCall("2", name, arguments))).content

    asked: list[str] = []

    def no(of: Tool, given: Any) -> Decision:
        asked.append(of.name)
        return Decision(False, "me")

    tools = (note, forecast, post, send)
    agent = Agent("a", Scripted([]), pattern, tools=tools, guard=catalog.guards(["policy"]), approval=Approval(ask=no))
    trace = asyncio.run(rollout(agent, Task("1", prompt)))
    assert asked == ([] if trace.answer in ("rain", SECRET) else [name])
    return trace.answer in ("rain", SECRET)


@pytest.mark.parametrize(
    "prompt", ["Weather in Turin?", "Ask the server", "Ask MCP servers weather", "MCP server weathers"]
)
def test_a_private_result_goes_in_no_argument_to_a_reader_whom_the_user_did_not_name(prompt: str) -> None:
    assert not passes("forecast", {"city": SECRET}, prompt)
    assert passes("forecast", {"city": "Turin, today"}, prompt)


def test_a_reader_that_the_user_names_or_that_gave_the_result_may_be_told() -> None:
    assert passes("forecast", {"city": SECRET}, "Tell it the MCP server (Weather).")
    assert passes("forecast", {"city": SECRET}, f"Is it true that {SECRET}?")
    assert passes("note", {"text": SECRET})


def test_a_call_goes_through_a_reader_where_the_user_named_all_places_that_it_goes_to() -> None:
    assert passes("send", {"text": SECRET, "to": "bob@home.example"}, "Send my note to bob@home.example")
    assert passes("post", {"text": SECRET, "channel": "family-only"}, "Post my note to family-only")
    assert not passes("send", {"text": SECRET}, "Send my note")
    assert not passes("send", {"text": SECRET, "to": "eve@x.example"}, "Send my note to bob@home.example")


def case(labels: dict[str, Label], tells: str = HERE, other: str = "note") -> CallCase:
    private = Declaration(readers="user", tells=THERE)
    of = replace(forecast, declares=Declaration(tells=tells))
    read = tuple(Earlier(name, "read", private, {}, SECRET, False) for name in ("note", other))
    return CallCase(of, {"city": "x"}, ("q",), read, labels=labels)


def test_a_plan_tells_a_reader_no_private_value_but_its_own() -> None:
    private, public = Label("untrusted", frozenset(), frozenset({"note"})), Label("untrusted", None, frozenset({"f"}))
    assert readers_cover_recipients(case({"city": public})) is None
    assert readers_cover_recipients(case({"city": private}, tells=THERE)) is None
    assert readers_cover_recipients(case({"city": private})) is not None
    both = case({"city": replace(private, origins=frozenset({"note", "memory"}))}, tells=THERE)
    memory = Earlier("memory", "reading", Declaration(readers="user"), {}, SECRET, False)
    assert readers_cover_recipients(replace(both, earlier=(*both.earlier, memory))) is not None
    unknown = case({"city": replace(private, origins=frozenset({"elsewhere"}))}, tells=THERE)
    assert readers_cover_recipients(unknown) is not None


def test_a_tool_that_is_read_outside_and_one_that_tells_recipients_too_is_seen_by_the_threat_model() -> None:
    free = replace(forecast, origin="the web", declares=Declaration())
    assert _tells_unseen(free) and not _tells_unseen(replace(free, declares=Declaration(tells="brave")))


def test_a_search_service_reads_each_query_and_a_server_what_its_tools_are_given() -> None:
    search = web_search(service="searxng", url="http://127.0.0.1:9")
    assert search.declares == Declaration(tells="searxng")
    quiet = ServerDeclaration("s", command="x", effects={"*": "read"}, recipients={"a*": ""})
    assert [quiet.declares(name).tells for name in ("ab", "b")] == ["", "MCP server s"]  # type: ignore[union-attr]
    silent = replace(quiet, recipients={"read_resource": " ", "get_prompt": "x"})
    assert [silent.declares_sending(name).tells for name in ("read_resource", "get_prompt")] == ["", "MCP server s"]
    with pytest.raises(ConfigError, match="tells is 3: the name"):
        Declaration(tells=3)  # type: ignore[arg-type]


def test_a_query_with_a_private_result_is_asked_about_unless_the_user_names_the_service() -> None:
    search = web_search(service="searxng", url="http://127.0.0.1:9")
    read = (Earlier("note", "read", note.declares, {}, SECRET, False),)

    def ruled(query: str, words: Sequence[str]) -> bool:
        return readers_cover_recipients(CallCase(search, {"query": query}, tuple(words), read)) is None

    assert not ruled(SECRET, ["Look."]) and ruled("weather in Turin", ["Look."])
    assert ruled(SECRET, ["Look it up with SearXNG."]) and not ruled(SECRET, ["Look it up with SearXNGs."])


def test_all_places_that_a_call_goes_to_must_be_the_users_words_for_its_reader_to_be() -> None:
    @tool(effect="write", declares=Declaration(("channel", "thread"), tells=HERE))
    def reply(channel: str, thread: str, text: str) -> str:
        """Reply in a thread."""
        return "rain"

    listed = Declaration(trusts=("id",), tells=HERE)
    read = (Earlier("list", "read", listed, {}, '{"id": "t-1"}', False), *case({}).earlier)
    given = {"channel": "family-only", "thread": "t-1", "text": SECRET}
    asked = CallCase(reply, given, ("Reply in family-only",), read)
    assert asked.unnamed_reader == HERE and readers_cover_recipients(asked) is not None
    assert not replace(asked, words=("Reply in family-only, thread t-1",)).unnamed_reader
