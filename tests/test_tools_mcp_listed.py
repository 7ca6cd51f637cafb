"""What a server has besides its tools: whether it is offered, how it is listed, read and searched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, OutcomeUnknown, ToolError
from firsthand.model import ToolSpec
from firsthand.tool import Tool
from firsthand.tools.mcp import remote_tools
from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.tool_search import _words, ranked


class Told:
    """An open connection whose client gives these pages, or raises the error among them, and keeps what it was asked."""

    def __init__(self, capabilities: dict[str, Any], version: str = "2025-11-25", **pages: Any) -> None:
        self.pages, self.asked, self.changed, self.is_lost = pages, list[Any](), set[str](), False
        offered = {"tools": None, "resources": None, "prompts": None, **capabilities}
        self.client = self
        self.server_capabilities, self.protocol_version = SimpleNamespace(**offered), version

    def __getattr__(self, name: str) -> Any:
        async def asked(*given: Any, **more: Any) -> Any:
            self.asked.append((name, *given, *more.values()))
            pages = self.pages.get(name.removeprefix("list_"), [()])
            place = int(more.get("cursor") or 0)
            page = pages[place] if isinstance(pages, list) else pages
            if isinstance(page, Exception):
                raise page
            following = str(place + 1) if isinstance(pages, list) and place + 1 < len(pages) else None
            if not name.startswith("list_"):
                return page
            return SimpleNamespace(**{name.removeprefix("list_"): list(page)}, next_cursor=following)

        return asked

    async def request(self, send: Any, *, timeout_s: float | None = None) -> Any:
        self.asked.append(timeout_s)
        return await send(self)


LISTS, CHANGES = SimpleNamespace(list_changed=False), SimpleNamespace(list_changed=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))


def source(made: Told, **settings: Any) -> RemoteTools:
    found = RemoteTools(ServerDeclaration("s", command="serve", opening_s=7.0, timeout_s=4.0, **settings))
    found._connection = made  # type: ignore[assignment]
    return found


def resource(uri: str, name: str, title: str | None = None, description: str | None = None) -> types.Resource:
    return types.Resource(uri=uri, name=name, title=title, description=description)


def own(name: str, text: str = "T.") -> Tool:
    return Tool(ToolSpec(name, text, {"type": "object", "properties": {}}), "read", lambda: "", dict)


def test_what_a_server_has_is_asked_for_only_where_it_may_have_any() -> None:
    def has(part: str, made: Told) -> tuple[bool, list[str]]:
        answer = asyncio.run(source(made)._has(part))
        assert all(each == 7.0 for each in made.asked if not isinstance(each, tuple))
        return answer, [each[0].removeprefix("list_") for each in made.asked if isinstance(each, tuple)]

    both = {"resources": LISTS, "prompts": LISTS}
    one, lost = resource("lib:///a", "a"), ToolError("refused")
    assert has("resources", Told(both, resources=[(one,)])) == (True, ["resources"])
    assert has("resources", Told(both)) == (False, ["resources", "resource_templates"])
    assert has("resources", Told(both, resources=lost, resource_templates=[(one,)])) == (
        True, ["resources", "resource_templates"],
    )  # fmt: skip
    assert has("resources", Told(both, resources=lost, resource_templates=lost))[0] is False
    assert has("prompts", Told(both, resources=[(one,)])) == (False, ["prompts"])
    assert has("prompts", Told(both, prompts=[(one,)])) == (True, ["prompts"])
    later = {"resources": CHANGES, "prompts": LISTS}
    assert has("resources", Told(later)) == (True, []) and has("prompts", Told(later)) == (False, ["prompts"])
    assert has("resources", Told(later, "2026-07-28"))[0] is False, "it says so of whatever it serves"


def test_the_tools_for_resources_and_prompts_are_offered_as_declared_beside_the_servers_own() -> None:
    full = {"resources": CHANGES, "prompts": CHANGES}
    four = ["list_resources", "read_resource", "list_prompts", "get_prompt"]

    def extra(capabilities: dict[str, Any], *names: str, **settings: Any) -> list[str]:
        found = source(Told(capabilities), **settings)
        found._all = {f"s__{name}": own(f"s__{name}") for name in names}
        return [each.name.removeprefix("s__") for each in asyncio.run(found._extra_tools())]

    assert extra(full) == four and extra({"resources": CHANGES}) == four[:2] and extra({"prompts": CHANGES}) == four[2:]
    assert extra(full, resources=False) == four[2:] and extra(full, prompts=False) == four[:2] and extra({}) == []
    assert extra({"resources": LISTS, "prompts": LISTS}) == []
    assert extra(full, "read_resource", "other") == [four[0], *four[2:]], "the server's own tool of that name stands"
    found = source(Told(full), lazy_above=1)
    *_, prompt = asyncio.run(found._extra_tools())
    search = found._search
    assert (search.effect, search.origin, search.timeout_s) == ("write", "MCP server s", 9.0)
    facts = Declaration(("name", "arguments"), recipients=("name",), readers="user", tells="MCP server s")
    assert (prompt.effect, prompt.origin, prompt.declares) == ("external", "MCP server s", facts)
    assert source(Told(full), trusted=True)._own(found._read, "read_resource").origin is None


def test_lists_are_shown_line_by_line_whatever_was_left_out() -> None:
    pages = [
        (resource("lib:///a", "a", "The A", "Of books."), resource("lib:///b", "b")),
        (resource("lib:///c", "c", None, "C's."),),
    ]
    templates = [
        (
            types.ResourceTemplate(uri_template="lib:///{id}", name="by id"),
            types.ResourceTemplate(uri_template="x:{y}", name="n", description="D."),
        )
    ]
    made = Told({}, resources=pages, resource_templates=templates)
    assert asyncio.run(source(made)._list_resources()).split("\n") == [
        "lib:///a: The A. Of books.", "lib:///b: b.", "lib:///c: c. C's.", "lib:///{id} (a template): by id",
        "x:{y} (a template): D.",
    ]  # fmt: skip
    assert [each for each in made.asked if isinstance(each, tuple)] == [
        ("list_resources", None), ("list_resources", "1"), ("list_resource_templates", None),
    ]  # fmt: skip
    bare = Told({}, resources=[pages[1]], resource_templates=ToolError("no such method"))
    assert asyncio.run(source(bare)._list_resources()) == "lib:///c: c. C's."
    with pytest.raises(ToolError, match="lost"):
        asyncio.run(source(Told({}, resources=ToolError("lost")))._list_resources())
    arguments = [types.PromptArgument(name="book", required=True), types.PromptArgument(name="tone")]
    prompts = [
        (
            types.Prompt(name="praise", description="Praises.", title="P", arguments=arguments),
            types.Prompt(name="plain", title="Plain words"), types.Prompt(name="bare", arguments=[]),
        )
    ]  # fmt: skip
    shown = asyncio.run(source(Told({}, prompts=prompts))._list_prompts())
    assert shown == "praise(book, tone?): Praises.\nplain(): Plain words\nbare():"
    for name in ("_list_resources", "_list_prompts"):
        assert asyncio.run(getattr(source(Told({})), name)()) == "There are none."


def test_a_list_goes_on_until_no_cursor_comes_and_an_empty_one_is_one() -> None:
    left: list[Any] = ["", "b", None]
    sent: list[Any] = []

    async def send(client: Any, cursor: str | None) -> Any:
        sent.append(cursor)
        return SimpleNamespace(things=[len(sent)] * 2, next_cursor=left.pop(0))

    assert asyncio.run(source(Told({}))._pages(send, "things", 4)) == [1, 1, 2, 2, 3, 3] and sent == [None, "", "b"]
    left[:] = ["a", None]
    said = "MCP server s lists more than 1 things, which is the limit"
    with pytest.raises(ToolError, match=f"^{said}$"):
        asyncio.run(source(Told({}))._pages(send, "things", 1))


def test_a_resource_is_read_and_a_prompt_is_got_by_what_was_asked() -> None:
    contents = [
        types.TextResourceContents(uri="lib:///b", text="one"),
        types.TextResourceContents(uri="x:", text="two"),
    ]
    message = types.PromptMessage(role="user", content=types.TextContent(type="text", text="Praise it."))
    made = Told(
        {}, read_resource=SimpleNamespace(contents=contents), get_prompt=SimpleNamespace(messages=[message] * 2)
    )
    found = source(made)
    assert asyncio.run(found._read("lib:///b")) == "one\ntwo"
    assert asyncio.run(found._get_prompt("praise", {"book": "Emma"})) == "user: Praise it.\n\nuser: Praise it."
    asyncio.run(found._get_prompt("plain"))
    assert made.asked == [
        None, ("read_resource", "lib:///b"), None, ("get_prompt", "praise", {"book": "Emma"}), None,
        ("get_prompt", "plain", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("effects", "reads"),
    [({}, (True, True)), ({"get_prompt": "external", "read_resource": "external", "*": "write"}, (True, True)),
     ({"read_resource": "write"}, (False, True)), ({"get_prompt": "irreversible"}, (True, False))],
)  # fmt: skip
def test_of_a_prompt_or_resource_that_failed_nobody_need_find_out_unless_it_is_declared_to_do_more(
    effects: dict[str, str], reads: tuple[bool, bool]
) -> None:
    failed = OutcomeUnknown("MCP server s failed the request (code 0): Missing required arguments: {'who'}")
    found = source(Told({}, read_resource=failed, get_prompt=failed), effects=effects)
    for name, only_reads in zip(("_read", "_get_prompt"), reads, strict=True):
        with pytest.raises(OutcomeUnknown, match=r"Missing required arguments: \{'who'\}$") as told:
            asyncio.run(getattr(found, name)("greet"))
        assert told.value.answered == only_reads
        refuses = source(Told({}, read_resource=ToolError("refused"), get_prompt=ToolError("refused")), effects=effects)
        with pytest.raises(ToolError, match=r"^refused$") as refused:
            asyncio.run(getattr(refuses, name)("a"))
        assert type(refused.value) is ToolError


def test_a_search_makes_what_it_finds_available_and_counts_a_change_once() -> None:
    found = source(Told({}), lazy_above=1)
    found._all = {
        f"s__{name}": own(f"s__{name}", text)
        for name, text in (
            ("get_books", '<untrusted from="x">\nLends books.\n</untrusted>'),
            ("findUser", "U" * 400), ("sendMail", "Mails a user."),
        )
    }  # fmt: skip
    found._is_large = True
    assert found.tools == (found._search,)

    async def searched(*given: Any) -> str:
        return await found._search_tools(*given)

    assert asyncio.run(searched("zebra q")) == "None of the 3 tools fits; try other words." and found.version == 0
    first = asyncio.run(searched("a user", 1))
    assert first == f"These tools are available now:\ns__findUser {{}}\n{'U' * 300}" and found.version == 1
    assert asyncio.run(searched("user", -4)) == first and found.version == 1
    books, users, mails = (
        "s__get_books {}\nLends books.",
        f"s__findUser {{}}\n{'U' * 300}",
        "s__sendMail {}\nMails a user.",
    )
    all_three = "\n".join(["These tools are available now:", books, users, mails])
    assert asyncio.run(searched("user book", 11)) == all_three
    assert found.version == 2 and [each.name for each in found.tools] == [
        "s__findUser", "s__get_books", "s__sendMail", "s__search_tools",
    ]  # fmt: skip


def test_words_of_names_and_texts_are_ranked_by_how_rare_they_are() -> None:
    assert _words("getBooks by_ID x 12 a1") == {"get", "book", "by", "id", "12", "a1"}
    tools = {
        "b_user": own("b_user", "One user."),
        "a_user": own("a_user", "One user."),
        "mail": own("mail", "User mails."),
    }
    assert ranked("mail user", tools, 3) == ["mail", "a_user", "b_user"] and ranked("user", tools, 2) == [
        "a_user",
        "b_user",
    ]
    assert ranked("one", tools, 9) == ["a_user", "b_user"] and ranked("", tools, 9) == [] == ranked("user", tools, 0)


def test_a_shared_server_may_not_be_so_large_that_it_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    class Opening(Told):
        async def open(self) -> None:
            opened.append(self)

        async def close(self) -> None:
            opened.append("closed")

    def make(declaration: Any, sign_in: Any) -> Opening:
        tools = [(types.Tool(name=name, input_schema={"type": "object"}),) for name in ("a", "b")]
        made = Opening({"tools": LISTS, "prompts": CHANGES}, tools=tools)
        made.given = (declaration, sign_in)
        return made

    monkeypatch.setattr(remote_tools, "McpConnection", make)
    sign_in: Any = lambda: None  # noqa: E731

    def opening(**settings: Any) -> RemoteTools:
        found = RemoteTools(ServerDeclaration("s", command="serve", **settings), None, sign_in)
        asyncio.run(found.open())
        return found

    found = opening(shared=True, lazy_above=2)
    assert [each.name for each in found.tools] == ["s__a", "s__b", "s__list_prompts", "s__get_prompt"]
    assert opened[-1].given == (found.declaration, sign_in) and found.shared and found.version == 1
    large = opening(lazy_above=1)
    assert [each.name for each in large.tools] == ["s__search_tools", "s__list_prompts", "s__get_prompt"]
    with pytest.raises(ConfigError) as raised:
        opening(shared=True, lazy_above=1)
    assert str(raised.value) == (
        "the MCP server s has 2 tools, and what a search finds belongs to one attempt: declare it with shared = false, "
        "or with lazy_above = 2"
    )
    asyncio.run(found.close())
    assert opened[-1] == "closed"
    asyncio.run(EachAttempt(found.declaration)().close())
    assert len(opened) == 4, "what was never opened has nothing to close"


def test_addresses_and_names_are_asked_for_letter_by_letter() -> None:
    contents = [types.TextResourceContents(uri="x:", text="one")]
    message = types.PromptMessage(role="assistant", content=types.TextContent(type="text", text="Yes."))
    made = Told({}, read_resource=SimpleNamespace(contents=contents), get_prompt=SimpleNamespace(messages=[message]))
    found = source(made)
    uris = ["Lib:///Books/A%20b?Q=1#F", " lib:///a ", "LIB:///A", "lib:///a/", "é:ß", ""]
    assert [asyncio.run(found._read(uri)) for uri in uris] == ["one"] * 6
    given: list[tuple[str, Any]] = [("Praise It", {"Book": " Emma "}), ("praise", {}), (" x ", None)]
    for name, arguments in given:
        assert asyncio.run(found._get_prompt(name, arguments)) == "assistant: Yes."
    assert [each for each in made.asked if each is not None] == [
        *(("read_resource", uri) for uri in uris), *(("get_prompt", name, arguments) for name, arguments in given),
    ]  # fmt: skip
    for name in ("_read", "_get_prompt"):
        with pytest.raises(ToolError, match=r"^lost$"):
            asyncio.run(
                getattr(source(Told({}, read_resource=ToolError("lost"), get_prompt=ToolError("lost"))), name)("a")
            )
    none = source(Told({}, read_resource=SimpleNamespace(contents=[]), get_prompt=SimpleNamespace(messages=[])))
    assert asyncio.run(none._read("a")) == "" == asyncio.run(none._get_prompt("a"))
