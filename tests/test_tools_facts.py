"""The facts of each tool: its effect, time, origin and declaration, and all that it passes on to what is behind it."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from answering_server import answer, refused, served
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError
from firsthand.sandbox.sandbox import Outcome, available
from firsthand.tools import fetch as fetching
from firsthand.tools.calculator import calculator
from firsthand.tools.fetch import fetch, fetcher, get
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.definitions import ToolDefinition
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.python import python
from firsthand.tools.shell import shell
from firsthand.tools.sql import sql
from firsthand.tools.web.addresses import Rules


def facts(tool: Any) -> tuple[Any, ...]:
    return tool.name, tool.effect, tool.timeout_s, tool.origin, tool.declares, tool.spec.parameters["required"]


def test_tools_say_what_they_do_and_what_guards_may_know_of_them(tmp_path: Path) -> None:
    clean, web = Declaration(clean=True), Declaration(authority=("url",), recipients=("url",))
    assert facts(calculator) == ("calculator", "read", 5.0, None, clean, ["expression"])
    assert facts(python) == ("python", "read", 60.0, None, clean, ["code"]) and python.ready is available
    assert facts(shell) == ("shell", "read", 60.0, None, clean, ["command"]) and shell.ready is available
    assert facts(fetch()) == ("fetch", "read", 30.0, "the web", web, ["url"])
    assert facts(fetcher(Rules(), total_s=2.5)) == ("fetch", "read", 12.5, "the web", web, ["url"])
    (tmp_path / "my.db").touch()
    query, schema, change = sql(str(tmp_path / "my.db"), write=True)
    private, origin = Declaration(readers="user"), "the database my.db"
    assert [each.name for each in sql(str(tmp_path / "my.db"))] == ["sql_query", "sql_schema"]
    assert [(each.name, each.effect, each.origin, each.declares) for each in (query, schema, change)] == [
        ("sql_query", "read", origin, private), ("sql_schema", "read", origin, private),
        ("sql_change", "irreversible", origin, private),
    ]  # fmt: skip
    assert query.declares.undo is None is query.declares.dry_run  # type: ignore[union-attr]
    assert None not in (change.declares.undo, change.declares.dry_run)  # type: ignore[union-attr]
    assert asyncio.run(calculator({"expression": " 2 × 3,000 ="})) == "6000"


def test_code_and_commands_go_to_the_sandbox_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ends = [Outcome("done", 0, "out\n", "err", 0.5, None, None, "x"), Outcome("error", 2, "", "", 0.5, None, None, "x")]

    class Sandbox:
        async def python(self, code: str, **more: Any) -> Outcome:
            asked.append((code, more))
            return ends[len(asked) > 3]

        async def shell(self, command: str, **more: Any) -> Outcome:
            asked.append((command, more))
            return ends[len(asked) > 3]

    for name in ("python", "shell"):
        monkeypatch.setattr(importlib.import_module(f"firsthand.tools.{name}"), "shared_sandbox", Sandbox)
    assert asyncio.run(python({"code": "```python\n1 +\n 1\n```"})) == "out\nerr"
    assert asyncio.run(python({"code": " x\n"})) == asyncio.run(shell({"command": "```\na\n```"})) == "out\nerr"
    assert asked == [("1 +\n 1", {"cell": True}), (" x\n", {"cell": True}), ("```\na\n```", {})]
    for tool, given in ((python, {"code": "x"}), (shell, {"command": "x"})):
        assert refused(tool, given) == "it ended with exit status 2"


def test_a_page_is_fetched_within_its_time_and_size_by_the_resolver_that_was_given() -> None:
    async def late(host: str, port: int) -> list[str]:
        assert (host, port) == ("slow.example", 80)
        await asyncio.Event().wait()
        return []

    url = "http://slow.example/" + "x" * 200
    tool = fetcher(Rules(), resolver=late, total_s=0.02)
    assert refused(tool, {"url": url}) == f"{url[:200]!r} did not come within 0.02 s"

    async def read(port: int, rules: Rules) -> Any:
        there = f"http://127.0.0.1:{port}/a#part"
        whole, cut = fetcher(rules), fetcher(rules, max_bytes=3)
        return port, await whole({"url": there}), await cut({"url": there})

    (port, whole, cut), came = served([answer(b"abcd", content_type="text/plain")], read)
    begin = f"http://127.0.0.1:{port}/a\n\n"
    assert (whole, cut) == (f"{begin}abcd", f"{begin}abc\n[only the first 3 bytes were read]") and len(came) == 2
    head = came[0].lower().split("\r\n")
    assert head[0] == "get /a http/1.1" and head[1:6] == [
        f"host: 127.0.0.1:{port}", "user-agent: firsthand",
        "accept: text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1", "accept-encoding: gzip, deflate",
        "connection: close",
    ]  # fmt: skip


def test_five_statuses_lead_on_and_others_are_pages_of_their_own() -> None:
    def got(*answers: bytes) -> tuple[Any, list[str]]:
        async def work(port: int, rules: Rules) -> Any:
            return await get(f"http://127.0.0.1:{port}/a/b", rules)

        return served([*answers], work)

    end = answer(b"end", "203 X", content_type="text/x")
    for status in (301, 302, 303, 307, 308):
        page, came = got(answer(b"", f"{status} X", location="../c?d#e"), end)
        assert (page.url.rpartition("/")[2], page.status, page.content_type, page.body, page.cut) == (
            "c?d", 203, "text/x", b"end", False,
        )  # fmt: skip
        assert [each.split(" ")[1] for each in came] == ["/a/b", "/c?d"]
    for first in (
        answer(b"here", "300 X", location="/c"),
        answer(b"here", "302 X"),
        answer(b"here", "309 X", location="/c"),
    ):
        page, came = got(first, end)
        assert (page.body, len(came)) == (b"here", 1)
    there = "ftp://h/x"
    said = refused(got, answer(b"", "302 X", location=there), end)
    assert said == f"{there!r} is no URL that can be fetched: http:// or https:// and a host are expected"
    assert fetching.trusted() is fetching.trusted()
    with pytest.raises(ConfigError, match=r"^ports is 'x': give numbers with \+ between them, as in 80\+443\+8080$"):
        fetch(ports="x")


# -- what several processes remember of a server --


def definition(name: str, text: str) -> ToolDefinition:
    return ToolDefinition(name, text, {"type": "object"}, {"readOnlyHint": True})


def test_the_definition_that_another_process_saw_first_stands(tmp_path: Path) -> None:
    declared = ServerDeclaration("s", url="https://h/mcp?key=k")
    mine, theirs = ApprovedDefinitions(declared, tmp_path), ApprovedDefinitions(declared, tmp_path)
    first, second, other = definition("x", "one"), definition("x", "two"), definition("a", "other")
    assert mine.changes({}) == theirs.changes({}) == {} and not mine.path.exists()
    change = {"x": {"description": {"was": "one", "is": "two"}}}
    assert mine.changes({"x": first}) == {}
    assert theirs.changes({"x": second, "a": other}) == change == theirs.changes({"a": other, "x": second})
    assert ApprovedDefinitions(declared, tmp_path).changes({"x": second}) == change
    kept = json.loads(mine.path.read_text())
    assert kept["server"] == "https://h/mcp" and list(kept["tools"]) == ["s__a", "s__x"]
    assert kept["tools"]["s__x"] == {
        "digest": first.digest, "name": "x", "description": "one", "schema": {"type": "object"},
        "hints": {"readOnlyHint": True},
    }  # fmt: skip
    theirs.approve(second)
    assert theirs.changes({"x": second}) == {} and list(theirs.changes({"x": first})) == ["x"]
    assert json.loads(mine.path.read_text())["tools"]["s__x"]["description"] == "two"
    assert [each.name for each in sorted(mine.path.parent.iterdir())] == sorted(
        [mine.path.name, mine.path.stem + ".lock"]
    )
    elsewhere = ApprovedDefinitions(ServerDeclaration("s", url="https://h/other"), tmp_path)
    renamed = ApprovedDefinitions(ServerDeclaration("t", url="https://h/mcp"), tmp_path)
    same = ApprovedDefinitions(ServerDeclaration("s", url="https://h/mcp?key=other"), tmp_path)
    assert len({elsewhere.path, renamed.path, mine.path}) == 3 and same.path == mine.path
