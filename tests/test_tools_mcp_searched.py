"""A search among the tools of an MCP server, its lists of resources and prompts, and a changed tool that is asked about."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

from firsthand.errors import ToolError
from firsthand.loop.approval import Decision
from firsthand.loop.calling import CallPosition
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.definitions import ToolDefinition
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.tool_search import ranked
from test_tools_mcp_offered import Connection, Noted, home, opened, tool

__all__ = ["home"]


def pages(part: str, *contents: list[Any]) -> Any:
    """A list of a server, in pages."""

    async def listed(cursor: str | None = None) -> Any:
        at = int(cursor or 0)
        following = str(at + 1) if at + 1 < len(contents) else None
        return SimpleNamespace(**{part: contents[at], "next_cursor": following})

    return listed


@pytest.mark.usefixtures("home")
def test_a_search_offers_what_it_found_from_then_on() -> None:
    source, made = opened(
        tool("read_mail", "Reads <b>mail</b>."), tool("send_mail", "Sends."), tool("clock", "Time."), lazy_above=2
    )
    made.changed.add("tools")

    async def main() -> None:
        await source.refresh()
        assert source.is_large and source.tools == (source._search,) and source.version == 1
        found = await source._search_tools("mails", 0)
        assert found.startswith("These tools are available now:\ns__read_mail ") and "send" not in found
        assert found.endswith("\nReads <b>mail</b>.") and ([each.name for each in source.tools], source.version) == (
            ["s__read_mail", "s__search_tools"], 2,
        )  # fmt: skip
        await source._search_tools("mail", 1)
        assert source.version == 2, "nothing is new"
        assert (await source._search_tools("time")).splitlines()[1:] == ["s__clock {}", "Time."]
        assert ([each.name for each in source.tools], source.version) == (
            ["s__clock", "s__read_mail", "s__search_tools"],
            3,
        )
        both = await source._search_tools("mail", 99)
        assert both.splitlines()[1].startswith("s__read_mail ") and both.splitlines()[3].startswith("s__send_mail ")
        assert source.version == 4 and len(source.tools) == 4
        assert await source._search_tools("weather") == "None of the 3 tools fits; try other words."

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_resources_and_prompts_are_listed_from_every_page() -> None:
    source, made = opened()

    def thing(**facts: Any) -> SimpleNamespace:
        return SimpleNamespace(**{"title": None, "name": "n", "description": None, **facts})

    made.client.list_resources = pages(
        "resources", [thing(uri="a://1", title="T", description="D")], [thing(uri="a://2")]
    )
    made.client.list_resource_templates = pages(
        "resource_templates", [thing(uri_template="a://{x}"), thing(uri_template="b://{y}", description="E")]
    )
    arguments = [SimpleNamespace(name="x", required=True), SimpleNamespace(name="y", required=False)]
    made.client.list_prompts = pages(
        "prompts", [thing(name="p", arguments=arguments, title="T", description="D")],
        [thing(name="q", arguments=None, title="T"), thing(name="r", arguments=[])],
    )  # fmt: skip

    async def broken(cursor: str | None = None) -> Any:
        raise ToolError("none")

    async def main() -> None:
        assert await source._list_resources() == (
            "a://1: T. D\na://2: n.\na://{x} (a template): n\nb://{y} (a template): E"
        )
        made.client.list_resource_templates = broken
        assert await source._list_resources() == "a://1: T. D\na://2: n."
        assert await source._list_prompts() == "p(x, y?): D\nq(): T\nr():"
        assert set(made.timeouts) == {7.0}
        made.client.list_resources, made.client.list_prompts = pages("resources", []), pages("prompts", [])
        assert await source._list_resources() == "There are none." == await source._list_prompts()
        capabilities = made.client.server_capabilities
        assert not await source._has("resources") and not await source._has("prompts")
        made.client.list_resource_templates = pages("resource_templates", [thing(uri_template="a")])
        assert await source._has("resources")
        capabilities.prompts = SimpleNamespace(list_changed=True)
        assert await source._has("prompts"), "there may be some later"
        made.client.protocol_version = "2026-07-28"
        assert not await source._has("prompts")

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_a_changed_tool_is_not_run_where_nobody_can_be_asked() -> None:
    source, made = opened(tool("a", "old"))
    made.changed.add("tools")

    async def main() -> None:
        await source.refresh()
        made.listed[0] = tool("a", "new")
        made.changed.add("tools")
        with pytest.raises(ToolError, match=r"^s__a changed after it was approved, and nobody can be asked here$"):
            await source._call("a", {})
        assert made.called == [] and list(source.changes) == ["a"]
        with pytest.raises(ToolError, match=r"^MCP server s does not offer 'b' any more$"):
            await source._call("b", {})

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_definitions_that_were_approved_elsewhere_stand_and_a_friends_tool_loses_its_marks_once_approved(
    tmp_path: Path,
) -> None:
    declared = ServerDeclaration("s", command="serve", trusted=True)
    approved = ApprovedDefinitions(declared, tmp_path / "elsewhere")
    approved.changes({name: ToolDefinition(name, "old", {"type": "object"}, {}) for name in "ab"})
    source = RemoteTools(declared, approved)
    made = source._connection = Connection(tool("a", "new"), tool("b", "more"), tool("c", "first"))  # type: ignore[assignment]
    made.changed.add("tools")

    async def ask(shown: Any, arguments: Any) -> Decision:
        return Decision(True, "me", "fine")

    async def main() -> None:
        await source.refresh()
        change = {"b": {"description": {"was": "old", "is": "more"}}}
        assert source.changes == {"a": {"description": {"was": "old", "is": "new"}}} | change
        marked = {"s__b": '<untrusted from="MCP server s">\nmore\n</untrusted>', "s__c": "first"}
        described = {each.name: each.spec.description for each in source.tools}
        assert described == {"s__a": '<untrusted from="MCP server s">\nnew\n</untrusted>'} | marked
        context = Noted()
        context.attempt = SimpleNamespace(agent=SimpleNamespace(approval=SimpleNamespace(ask=ask)), note=context.note)
        with CallPosition(context, "tool:0", None, None).active():  # type: ignore[arg-type]
            assert await source._call("a", {}) == "done"
        assert {each.name: each.spec.description for each in source.tools} == {"s__a": "new"} | marked
        assert source.changes == change, "the other is still to be asked about"

    asyncio.run(main())
    assert sorted(json.loads(approved.path.read_text())["tools"]) == ["s__a", "s__b", "s__c"]
    assert not (tmp_path / "mcp").exists(), "nothing is kept in the data home"


@pytest.mark.usefixtures("home")
def test_a_search_finds_five_tools_or_as_many_as_are_asked_for_from_one_to_ten() -> None:
    names = [f"mail_{letter}" for letter in "abcdefghijkl"]
    source, made = opened(*(tool(each, "d" * 301) for each in names), lazy_above=11)
    made.changed.add("tools")

    async def main() -> None:
        await source.refresh()
        assert (source.is_large, source.tools) == (True, (source._search,))
        for asked, count in (({"most": -3}, 1), ({"most": 1}, 1), ({}, 5), ({"most": 10}, 10), ({"most": 11}, 10)):
            lines = (await source._search_tools("mail", **asked)).splitlines()
            assert lines[1::2] == [f"s__{each} {{}}" for each in names[:count]], "ties in the order of names"
            assert lines[2::2] == ["d" * 300] * count
        assert [each.name for each in source.tools] == [*(f"s__{each}" for each in names[:10]), "s__search_tools"]

    asyncio.run(main())
    few, made = opened(*(tool(each) for each in names[:11]), lazy_above=11)
    made.changed.add("tools")
    asyncio.run(few.refresh())
    assert (few.is_large, len(few.tools)) == (False, 11)


@pytest.mark.usefixtures("home")
def test_a_search_is_among_the_tools_that_the_server_has_now() -> None:
    source, made = opened(tool("read_mail", "Reads mail."), tool("send_mail", "Sends."), tool("clock"), lazy_above=2)
    made.changed.add("tools")

    async def main() -> None:
        await source.refresh()
        assert await source._search_tools("weather") == "None of the 3 tools fits; try other words."
        assert made.reads == 1, "nothing was said to have changed"
        made.listed += [tool("weather", "Tells the weather.")]
        assert await source._search_tools("weather") == "None of the 3 tools fits; try other words.", "not said yet"
        made.changed.add("tools")
        found = await source._search_tools("weather")
        assert found == "These tools are available now:\ns__weather {}\nTells the weather." and made.reads == 2
        assert [each.name for each in source.tools] == ["s__weather", "s__search_tools"] and made.changed == set()
        made.listed = made.listed[1:]
        made.changed.add("tools")
        assert (await source._search_tools("mail")).splitlines() == [
            "These tools are available now:", "s__send_mail {}", "Sends.",
        ]  # fmt: skip
        assert [each.name for each in source.tools] == ["s__send_mail", "s__weather", "s__search_tools"]

    asyncio.run(main())


def test_tools_are_found_by_words_of_any_language() -> None:
    def told(description: str) -> Any:
        return SimpleNamespace(spec=SimpleNamespace(description=description))

    tools = {"a": told("查询天气预报"), "b": told("Отправить письмо клиенту"), "c": told("Größe einer Tür ändern"),
             "d": told("किताब खोजें"), "e": told("send a mail"), "f": told("網"), "g": told("ISO 8601")}  # fmt: skip
    asked = {
        "天气": "a",
        "письмо": "b",
        "Größe": "c",
        "ändern": "c",
        "किताब": "d",
        "mails": "e",
        "ＭＡＩＬ": "e",
        "網": "f",
        "8601": "g",
    }
    assert {query: ranked(query, tools, 5) for query in asked} == {query: [name] for query, name in asked.items()}
    assert ranked("气天 की a", tools, 5) == []
