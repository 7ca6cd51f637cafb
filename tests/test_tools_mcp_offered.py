"""The tools of an MCP server as they are read, offered, called and noted, over a connection that answers as told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.loop.approval import Decision
from firsthand.loop.calling import CallPosition
from firsthand.tools.mcp import remote_tools
from firsthand.tools.mcp.remote_tools import RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration


class Connection:
    """An open connection with a client that has these tools."""

    def __init__(self, *tools: types.Tool, **capabilities: Any) -> None:
        self.listed, self.changed, self.reads, self.is_lost = list(tools), set[str](), 0, False
        self.timeouts: list[Any] = []
        self.checked: list[str] = []
        self.called: list[Any] = []
        self.reports: list[tuple[float, float | None, str | None]] = []
        self.result: Any = types.CallToolResult(content=[types.TextContent(type="text", text="done")])
        self.answers = SimpleNamespace(check_answered=self.checked.append)
        offered = {"tools": object(), "resources": None, "prompts": None, **capabilities}
        self.client = SimpleNamespace(
            server_capabilities=SimpleNamespace(**offered), list_tools=self.list_tools, call_tool=self.call_tool,
            server_info=SimpleNamespace(name="n" * 101, version="v" * 101), protocol_version="2025-11-25",
        )  # fmt: skip

    async def list_tools(self, cursor: str | None) -> Any:
        self.reads += 1
        return SimpleNamespace(tools=list(self.listed), next_cursor=None)

    async def call_tool(self, name: str, arguments: Any, progress_callback: Any) -> Any:
        self.called.append((name, arguments, progress_callback is not None))
        for report in self.reports if progress_callback is not None else ():
            await progress_callback(*report)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def request(self, send: Any, *, timeout_s: float | None = None) -> Any:
        self.timeouts.append(timeout_s)
        return await send(self.client)


class Noted:
    """The context of a call: keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.attempt = SimpleNamespace(agent=None)

    def note(self, kind: str, **fields: Any) -> None:
        self.notes.append((kind, fields))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))


def tool(name: str, text: str | None = "T.", **schema: Any) -> types.Tool:
    return types.Tool(name=name, description=text, input_schema={"type": "object", **schema})


def opened(*tools: types.Tool, trusted: bool = True, **settings: Any) -> tuple[RemoteTools, Connection]:
    source = RemoteTools(ServerDeclaration("s", command="serve", trusted=trusted, opening_s=7.0, **settings))
    made = Connection(*tools)
    source._connection = made  # type: ignore[assignment]
    return source, made


@pytest.mark.usefixtures("home")
def test_a_list_of_tools_is_read_again_where_it_changed_and_counts_where_it_differs() -> None:
    hints = types.ToolAnnotations(read_only_hint=True, title="T")
    first = tool("b").model_copy(update={"annotations": hints})
    source, made = opened(tool("a", None), first, tool("hidden"), only=("a", "b", "c"))

    async def main() -> None:
        made.changed |= {"tools", "prompts"}
        await source.refresh()
        assert made.changed == {"prompts"} and made.timeouts == [7.0]
        assert {name: (each.description, each.hints) for name, each in source.definitions.items()} == {
            "a": ("", {}), "b": ("T.", {"readOnlyHint": True, "title": "T"}),
        }  # fmt: skip
        assert [each.name for each in source.tools] == ["s__a", "s__b"] and source.version == 1
        await source.refresh()
        assert made.reads == 1, "nothing was said to have changed"
        made.changed.add("tools")
        await source.refresh()
        assert (made.reads, source.version, source.changes) == (2, 1, {})
        made.listed[1] = tool("b", "other")
        made.changed.add("tools")
        await source.refresh()
        assert source.version == 2 and list(source.changes) == ["b"]
        assert source.changes["b"]["description"] == {"was": "T.", "is": "other"}
        made.listed = [tool("c", type="array")]
        made.changed.add("tools")
        await source.refresh()
        assert source.version == 3 and source.tools == () and source.changes == {}
        assert source.left_out == {"c": "its schema is none for an object"}
        made.client.server_capabilities.tools = None
        made.changed.add("tools")
        await source.refresh()
        assert made.reads == 4 and made.changed == {"prompts"}

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_the_schemas_of_a_server_share_one_limit_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [tool("b", properties={"x": {}}), tool("a"), tool("c")]
    sizes = {each.name: len(json.dumps(each.input_schema)) for each in tools}

    def offered(most: int) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(remote_tools, "MAX_SCHEMA_CHARS", most)
        source, made = opened(*tools)
        made.changed.add("tools")
        asyncio.run(source.refresh())
        said = f"the schemas of this server have more than {most:,} characters"
        assert set(source.left_out.values()) <= {said}
        return [each.name[3:] for each in source.tools], sorted(source.left_out)

    whole = sum(sizes.values())
    assert offered(whole) == (["a", "b", "c"], []) and offered(whole - 1) == (["a", "b"], ["c"])
    assert offered(sizes["a"]) == (["a"], ["b", "c"]) and offered(sizes["a"] - 1) == ([], ["a", "b", "c"])


@pytest.mark.usefixtures("home")
def test_a_call_notes_its_server_once_and_its_progress_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote_tools.MAX_PROGRESS == 50
    monkeypatch.setattr(remote_tools, "MAX_PROGRESS", 2)
    source, made = opened(tool("a"), tool("odd", type="array"))
    made.reports = [(0.1, None, None), (0.5, 1.0, "m" * 201), (0.75, 1.0, "left"), (1.0, 1.0, "end"), (2.0, None, "x")]
    context = Noted()
    at = CallPosition(context, "tool:3 x", None, None)  # type: ignore[arg-type]

    async def main() -> None:
        made.changed.add("tools")
        await source.refresh()
        (offered,) = source.tools
        assert await offered({"k": 1}) == "done" and context.notes == [] and made.checked == []
        with at.active():
            assert await offered({}) == "done" and await offered({}) == "done"
        assert made.called == [("a", {"k": 1}, False), ("a", {}, True), ("a", {}, True)]
        assert made.checked == ["tool:3 x"] * 2 and made.timeouts[-3:] == [None] * 3
        told = {"server": "s", "tool": "a"}
        progress = [
            ("mcp_progress", {**told, "done": 0.1, "total": None, "message": ""}),
            ("mcp_progress", {**told, "done": 0.5, "total": 1.0, "message": "m" * 200}),
            ("mcp_progress", {**told, "done": 1.0, "total": 1.0, "message": "end"}),
        ]
        said = {"name": "n" * 100, "version": "v" * 100}
        server = (
            "mcp_server",
            {
                "server": "s", "target": source.declaration.target, "revision": "2025-11-25", "said": said, "tools": 1,
                "left_out": {"odd": "its schema is none for an object"}, "changed": [],
            },
        )  # fmt: skip
        assert context.notes == [server, *progress, *progress]
        made.result = ToolError("lost")
        with at.active(), pytest.raises(ToolError, match=r"^lost$"):
            await offered({})
        assert len(made.checked) == 3, "a question that waits goes before the error"
        made.result = types.CallToolResult(content=[], is_error=True)
        with pytest.raises(ToolError, match=r"^a failed without a message$"):
            await offered({})

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_a_shared_server_is_noted_once_in_each_attempt_and_read_again_as_it_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_tools, "MAX_PROGRESS", 1)
    source, made = opened(tool("a"), tool("odd", type="array"), tool("b", "One."))
    made.reports = [(0.5, None, ""), (0.0, 0.0, "none to do"), (1.5, 1.0, "more than all"), (0.25, 1.0, "late")]
    first, second = Noted(), Noted()

    async def main() -> None:
        versions = [source.version]
        for listed in (
            made.listed, made.listed, [tool("a"), tool("b", "Two.")], [tool("b", "Two."), tool("a")], [tool("a")],
            [tool("a", x=1)], [],
        ):  # fmt: skip
            made.listed = list(listed)
            made.changed.add("tools")
            await source.refresh()
            assert made.changed == set()
            versions.append(source.version)
            assert list(source.left_out) == (["odd"] if len(listed) == 3 else [])
        assert versions == [0, 1, 1, 2, 2, 3, 4, 5] and source.tools == () and not source.definitions
        made.listed = [tool("a")]
        made.changed.add("tools")
        await source.refresh()
        for context in (first, second, first, second):
            with CallPosition(context, "tool:0 x", None, None).active():  # type: ignore[arg-type]
                await source.tools[0]({})
        for context in (first, second):
            progress = [(0.5, ""), (0.0, "none to do"), (1.5, "more than all")]
            assert [kind for kind, _ in context.notes] == ["mcp_server", *["mcp_progress"] * 6]
            assert [(note["done"], note["message"]) for _, note in context.notes[1:]] == progress * 2
        with pytest.raises(ToolError, match=r"^MCP server s does not offer 'b' any more$"):
            await source._call("b", {})

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_tools_that_are_read_again_keep_origin_and_time() -> None:
    source, made = opened(tool("a"), trusted=False)

    async def main() -> None:
        made.changed.add("tools")
        await source.refresh()
        (offered,) = source.tools
        assert offered.origin == "MCP server s" and offered.timeout_s == source.declaration.timeout_s + 5.0
        mine = source._own(source._list_prompts, "list_prompts")
        assert (mine.name, mine.effect, mine.origin) == ("s__list_prompts", "read", "MCP server s")
        assert mine.timeout_s == source.declaration.timeout_s + 5.0
        made.listed = [tool("a", "changed <x>")]
        made.changed.add("tools")
        await source.refresh()
        with pytest.raises(ToolError, match=r"^s__a changed after it was approved, and nobody can be asked here$"):
            await source._call("a", {})
        assert made.called == []
        assert source._described("s__a") == "changed <x>"
        asked: list[Any] = []
        decisions = [Decision(False, "me", "no"), Decision(True, "me")]

        async def ask(shown: Any, arguments: Any) -> Decision:
            asked.append((shown.name, shown.effect, shown.spec.description, arguments))
            return decisions.pop(0)

        context = Noted()
        context.attempt = SimpleNamespace(agent=SimpleNamespace(approval=SimpleNamespace(ask=ask)), note=context.note)
        changed, version = source.definitions["a"], source.version
        with CallPosition(context, "tool:0", None, None).active():  # type: ignore[arg-type]
            with pytest.raises(
                ToolError, match=r"^s__a was not run: its definition changed after it was approved, and"
            ):
                await source._call("a", {})
            assert made.called == [] and list(source.changes) == ["a"] and source.version == version
            assert await source._call("a", {"k": 1}) == "done"
        assert made.called == [("a", {"k": 1}, True)] and source.changes == {} and source.version == version + 1
        assert [each.name for each in source.tools] == ["s__a"] == list(source._all), "it is there once"
        said = "MCP server s changed the tool a after it was approved."
        question = (f"s__a@{changed.digest}", "irreversible", said,
                    {"change": 'description was: "T."\ndescription is: "changed <x>"'})  # fmt: skip
        assert asked == [question, question]
        change = {"description": {"was": "T.", "is": "changed <x>"}}
        assert [fields for kind, fields in context.notes if kind == "tool_changed"] == [
            {"tool": "s__a", "change": change, "allowed": False, "by": "me", "reason": "no"},
            {"tool": "s__a", "change": change, "allowed": True, "by": "me", "reason": ""},
        ]
        assert source._approved.changes({"a": changed}) == {}, "it stands from now on"

    asyncio.run(main())


@pytest.mark.usefixtures("home")
def test_words_of_a_stranger_stand_between_marks_and_those_of_a_friend_once_they_changed() -> None:
    async def described(trusted: bool) -> list[tuple[str, str, str | None]]:
        source, made = opened(tool("a", "One."), tool("b", "Same."), trusted=trusted, effects={"b": "read"})
        for _ in range(2):
            made.changed.add("tools")
            await source.refresh()
            made.listed[0] = tool("a", "Two.")
        assert list(source.changes) == ["a"]
        return [(each.spec.description, each.effect, each.origin) for each in source.tools]

    def between(text: str) -> str:
        return f'<untrusted from="MCP server s">\n{text}\n</untrusted>'

    first, second = asyncio.run(described(True)), asyncio.run(described(False))
    assert first == [(between("Two."), "external", None), ("Same.", "read", None)]
    assert second == [
        (between(text), effect, "MCP server s") for text, effect in (("Two.", "external"), ("Same.", "read"))
    ]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("lost", [True, False])
def test_a_call_whose_server_is_lost_may_have_taken_effect(lost: bool) -> None:
    kind = OutcomeUnknown if lost else ToolError
    source, made = opened(tool("a"))
    made.changed.add("tools")
    asyncio.run(source.refresh())
    made.result = kind("gone")
    with pytest.raises(ToolError, match="gone") as raised:
        asyncio.run(source._call("a", {}))
    assert type(raised.value) is kind

    made.result = types.CallToolResult(content=[types.TextContent(type="text", text="no money")], is_error=True)
    with pytest.raises(OutcomeUnknown, match=r"^no money$") as answered:
        asyncio.run(source._call("a", {}))
    assert answered.value.answered

    class Done:
        is_error, content, structured_content = False, (), None

        def __init__(self) -> None:
            made.changed.add("tools")

    async def acts(name: str, arguments: Any, progress_callback: Any) -> Any:
        return Done()

    async def fails(cursor: str | None) -> Any:
        raise ToolError("no list")

    made.client.call_tool, made.client.list_tools = acts, fails
    with pytest.raises(OutcomeUnknown, match="no list"):
        asyncio.run(source._call("a", {}))
