"""What of an MCP server reaches a model as text, and how a server is named and declared: whole values and sentences."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import ConfigError, MissingExtra
from firsthand.tools.mcp.definitions import MAX_DESCRIPTION, ToolDefinition, spec_of
from firsthand.tools.mcp.mcp import mcp
from firsthand.tools.mcp.remote_tools import EachAttempt, RemoteTools
from firsthand.tools.mcp.result_text import block_text, contents_text, messages_text, text_of_result
from firsthand.tools.mcp.server_declaration import ServerDeclaration, declarations, read_declarations


def described(text: str, arguments: Any = None, *, trusted: bool = True) -> str:
    schema: Any = {"properties": {} if arguments is None else arguments}
    server = ServerDeclaration("s", command="serve", trusted=trusted)
    return spec_of(ToolDefinition("t", text, schema, {}), server).description


def test_a_description_holds_one_line_for_each_thing_that_is_said() -> None:
    to, cc = {"description": " Who\n\tgets  it. "}, {"description": "Who else."}
    assert described("", {"to": to}) == described(" \n", {"to": to}) == "to: Who gets it."
    assert described("", {"to": to, "x": {}, "cc": cc}) == "to: Who gets it.\ncc: Who else."
    assert described(" Sends.\n\nSlowly. ", {"to": to}) == "Sends.\n\nSlowly.\nto: Who gets it."
    silent: list[Any] = [
        {},
        {"description": ""},
        {"description": " \n"},
        {"description": 5},
        True,
        {"description": None},
    ]
    assert [described("", {"a": each}) for each in silent] == [""] * 6
    assert [described("T.", {"a": each, "to": to}) for each in silent] == ["T.\nto: Who gets it."] * 6
    assert described("") == described("", trusted=False) == "", "nothing stands between no marks"
    fenced = '<untrusted from="MCP server s">\nto: Who gets it.\n</untrusted>'
    assert described("", {"to": to}, trusted=False) == fenced
    assert described("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\u202ec"
    assert (
        described("x" * (MAX_DESCRIPTION - 3), {"a": {"description": "b"}})
        == "x" * (MAX_DESCRIPTION - 3) + "\na: [cut]"
    )
    assert described("x" * (MAX_DESCRIPTION - 5), {"a": {"description": "b"}}) == "x" * (MAX_DESCRIPTION - 5) + "\na: b"


def block(kind: str, data: str, mime: str) -> Any:
    made: Any = {"image": types.ImageContent, "audio": types.AudioContent}[kind]
    return made(type=kind, data=data, mime_type=mime)


def test_each_kind_of_content_is_told_by_its_words_or_by_its_kind_and_size() -> None:
    for kind in ("image", "audio"):
        assert block_text(block(kind, "QUJD", f"{kind}/x")) == f"[{kind}: {kind}/x, 3 bytes, not shown]"
        assert block_text(block(kind, "QUJD" * 1_000, "m" * 61)) == f"[{kind}: {'m' * 60}, 3,000 bytes, not shown]"
        assert block_text(block(kind, "", "a\x1b\u202e")) == f"[{kind}: a\\x1b\\u202e, 0 bytes, not shown]"
        assert block_text(block(kind, "QUJDREU=", "")) == f"[{kind}: , 5 bytes, not shown]"
        assert block_text(block(kind, "QQ==", "")) == f"[{kind}: , 1 bytes, not shown]"
    text = types.TextContent(type="text", text=" a\x1b\n")
    assert block_text(text) == " a\x1b\n"
    blob = types.BlobResourceContents(uri="file:///b\x1b", blob="QUJD" * 400, mime_type="k" * 61)
    assert block_text(types.EmbeddedResource(type="resource", resource=blob)) == (
        f"[file:///b\\x1b: {'k' * 60}, 1,200 bytes, not shown]"
    )
    inner = types.TextResourceContents(uri="file:///c", text="inner\n")
    assert block_text(types.EmbeddedResource(type="resource", resource=inner)) == "inner\n"
    link = types.ResourceLink(type="resource_link", uri="u" * 501, name="n" * 201)
    assert block_text(link) == f"[resource {'u' * 500}: {'n' * 200}]"
    assert (
        block_text(types.ResourceLink(type="resource_link", uri="u", name="a\x1b", title="T")) == "[resource u: a\\x1b]"
    )
    assert block_text(SimpleNamespace(type="video")) == "[video, not shown]"
    assert block_text(object()) == "[content, not shown]"
    sound = block("audio", "QUJD", "audio/wav")
    told = "[audio: audio/wav, 3 bytes, not shown]"
    result = types.CallToolResult(content=[sound, text, sound], structured_content={"n": 1})
    assert text_of_result(result) == f"{told}\n a\x1b\n\n{told}"
    assert text_of_result(types.CallToolResult(content=[sound])) == told
    for value, shown in (({"é": [1, None]}, '{"é": [1, null]}'), ({}, "{}")):
        assert text_of_result(types.CallToolResult(content=[], structured_content=value)) == shown
    long = types.BlobResourceContents(uri="x" * 501, blob="")
    assert contents_text(types.ReadResourceResult(contents=[long, inner])) == (
        f"[{'x' * 500}: bytes, 0 bytes, not shown]\ninner\n"
    )
    assert contents_text(types.ReadResourceResult(contents=[])) == ""
    said = [types.PromptMessage(role=role, content=each) for role, each in (("user", sound), ("assistant", text))]  # type: ignore[arg-type]
    assert messages_text(types.GetPromptResult(messages=said)) == f"user: {told}\n\nassistant:  a\x1b\n"


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "a client of MCP servers needs the package 'mcp': pip install 'firsthand[mcp]'"
    for missing in ("mcp", "mcp_types"):
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "firsthand.tools.mcp.remote_tools")
            without.setitem(sys.modules, missing, None)
            with pytest.raises(MissingExtra) as told:
                mcp("serve")
            assert str(told.value) == said
            with pytest.raises(ConfigError, match="names no server"):
                mcp(" ")
    for other in ("firsthand.tools.mcp.result_text", "firsthand.tools.mcp.connection"):
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "firsthand.tools.mcp.remote_tools")
            without.setitem(sys.modules, other, None)
            with pytest.raises(ModuleNotFoundError) as raised:
                mcp("serve")
            assert raised.value.name == other, "what is missing of our own is an error of ours"


def test_a_text_names_servers_that_are_opened_once_or_for_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    file = tmp_path / "s.toml"
    file.write_text("[servers.a]\ncommand = 'x'\nshared = true\n[servers.b]\ncommand = 'y'\n", encoding="utf-8-sig")
    both = mcp(str(file))
    assert [(type(each), each.name, each.declaration) for each in both] == [
        (kind, f"mcp:{name}", ServerDeclaration(name, command=command, shared=kind is RemoteTools))
        for kind, name, command in ((RemoteTools, "a", "x"), (EachAttempt, "b", "y"))
    ]
    (one,) = mcp("uvx mcp-server-time --tz UTC")
    assert isinstance(one, EachAttempt)
    assert one.declaration == ServerDeclaration("time", command="uvx", args=("mcp-server-time", "--tz", "UTC"))
    first, second = one(), one()
    assert first is not second and first.declaration == second.declaration == one.declaration and not first.shared


def test_a_file_that_is_no_toml_is_told_with_its_path_and_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    for content, said in (
        ("[servers.a]\ncommand = 'é'\n".encode("latin-1"), "'utf-8' codec can't decode byte 0xe9 in position 23: "),
        ("[servers.a]\n".encode("utf-16"), "'utf-8' codec can't decode byte 0xff in position 0: "),
        (b"[servers.a\n", "Expected ']' at the end of a table declaration"),
        (b"a = 1\na = 2\n", "Cannot overwrite a value"),
        (b"a = " + b"[" * 5_000, ""),
        (b"a = " + b"1" * 5_000, ""),
        (b".".join([b"a"] * 70) + b" = 1\n", "it has a key of more than 64 parts"),
        (b"x" * 300 + b"\n", ""),
    ):
        file.write_bytes(content)
        for read in (read_declarations, lambda path: declarations(str(path))):
            with pytest.raises(ConfigError) as told:
                read(file)
            text = str(told.value)
            assert text.startswith(f"{file} is no TOML: {said}") and len(text) <= len(f"{file} is no TOML: ") + 200
    for content in (b"", b"a = 1\n", b"[servers]\n", b"servers = 1\n", b"x = 1\n[servers.a]\ncommand = 'x'\n"):
        file.write_bytes(content)
        with pytest.raises(ConfigError) as told:
            read_declarations(file)
        assert str(told.value) == f"{file} declares no servers: tables [servers.NAME] were expected, and nothing else"
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none.toml", "No such file or directory")):
        with pytest.raises(ConfigError) as told:
            read_declarations(path)
        assert str(told.value) == f"{path} cannot be read: {reason}"
    file.write_text("[servers.a]\ncommand = 'é ü'\nargs = ['ß']\n", encoding="utf-8-sig")
    assert read_declarations(file) == {"a": ServerDeclaration("a", command="é ü", args=("ß",))}
