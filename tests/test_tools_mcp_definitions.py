"""What a server's definitions and results become, and what is remembered of them, each as a whole value."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import mcp_types as types

from firsthand.errors import StoreError, ToolError
from firsthand.model import ToolSpec
from firsthand.tools.calculator import calculator
from firsthand.tools.mcp import bounded_schema
from firsthand.tools.mcp.approved_definitions import ApprovedDefinitions
from firsthand.tools.mcp.bounded_schema import MAX_RESULT_SCHEMA, BoundedValidator, ResultValidator, TooManySteps
from firsthand.tools.mcp.definitions import (
    MAX_DESCRIPTION,
    MAX_SCHEMA,
    ArgumentChecker,
    ToolDefinition,
    UnusableDefinition,
    difference,
    spec_of,
    tool_name,
)
from firsthand.tools.mcp.remote_tasks import _wait
from firsthand.tools.mcp.result_text import contents_text, messages_text, text_of_result
from firsthand.tools.mcp.server_declaration import ServerDeclaration
from firsthand.tools.mcp.tool_search import ranked
from forked_process import forked


def server(**settings: Any) -> ServerDeclaration:
    return ServerDeclaration("mail", **{"command": "serve", **settings})


# -- definitions --


def definition(schema: Any, description: str = "", name: str = "t") -> ToolDefinition:
    return ToolDefinition(name, description, schema, {})


def test_a_schema_keeps_its_structure_and_its_prose_goes_into_the_description() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "T",
        "description": "D",
        "properties": {
            "to": {"type": "string", "description": "  Who\n gets it. ", "default": "me", "minLength": 1, "x-other": 1},
            "title": {"type": ["integer", "null"], "title": "no", "enum": [1, 2], "description": " "},
            "any": True,
            "none": False,
            "tags": {"type": "array", "items": {"type": "string", "examples": ["x"]}, "maxItems": 3, "description": 5},
            "one": {"anyOf": [{"const": 1, "title": "x"}, {"$ref": "#/$defs/d"}], "not": {"type": "null"}},
            "map": {"type": "object", "additionalProperties": {"type": "number", "description": "y"}},
            "shut": {"type": "object", "additionalProperties": False},
        },
        "required": ["to", "gone", "one"],
        "$defs": {"d": {"type": "boolean", "$comment": "z"}},
    }
    structure = {
        "properties": {
            "to": {"type": "string", "minLength": 1},
            "title": {"type": ["integer", "null"], "enum": [1, 2]},
            "any": {},
            "none": {"not": {}},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            "one": {"anyOf": [{"const": 1}, {"$ref": "#/$defs/d"}], "not": {"type": "null"}},
            "map": {"type": "object", "additionalProperties": {"type": "number"}},
            "shut": {"type": "object", "additionalProperties": False},
        },
        "required": ["to", "one"],
        "$defs": {"d": {"type": "boolean"}},
        "type": "object",
    }
    told = definition(schema, "  Sends a letter. ", "send")
    assert spec_of(told, server(trusted=True)) == ToolSpec("mail__send", "Sends a letter.\nto: Who gets it.", structure)
    fenced = '<untrusted from="MCP server mail">\nSends a letter.\nto: Who gets it.\n</untrusted>'
    assert spec_of(told, server()).description == fenced == spec_of(told, server(trusted=True), fenced=True).description
    assert spec_of(told, server(), fenced=False).description == "Sends a letter.\nto: Who gets it."
    bare = spec_of(definition({}, " "), server())
    assert (bare.description, bare.parameters) == ("", {"type": "object", "properties": {}, "required": []})
    for size, end in ((MAX_DESCRIPTION, "x"), (MAX_DESCRIPTION + 1, " [cut]")):
        cut = spec_of(definition({}, "x" * size), server(trusted=True)).description
        assert cut == "x" * MAX_DESCRIPTION + end.removeprefix("x")


def nested(depth: int, kind: str = "items") -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {kind: {"a": schema} if kind == "properties" else [schema] if kind == "anyOf" else schema}
    return schema


def test_definitions_are_refused_beyond_their_limits_and_not_at_them() -> None:
    def sized(chars: int) -> Any:
        empty = {"properties": {"a": {"const": ""}}}
        return {"properties": {"a": {"const": "x" * (chars - len(json.dumps(empty)))}}}

    fine = (
        nested(24),
        nested(24, "properties"),
        nested(24, "anyOf"),
        sized(MAX_SCHEMA),
        {"properties": {"n" * 64: {}}},
        {"properties": {"a": {"$ref": "#"}}},
    )
    assert all(spec_of(definition(each), server()).parameters["type"] == "object" for each in fine)
    for schema, said in (
        (nested(25, "properties"), "its schema is nested more than 24 deep"),
        (nested(25, "anyOf"), "its schema is nested more than 24 deep"),
        (nested(25), "its schema is nested more than 24 deep"),
        (sized(MAX_SCHEMA + 1), "its schema has more than 64,000 characters"),
        ({"properties": {"n" * 65: {}}}, f"its argument '{'n' * 64}' has a name that is not printable or too long"),
        ({"properties": {"a\n": {}}}, r"its argument 'a\\n' has"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "its schema refers to 'other.json', which is outside of it"),
        ({"properties": {"a": {"$dynamicRef": 5}}}, "refers to '5'"),
        ({"properties": [1]}, "its schema has no table at 'properties'"),
        ({"anyOf": {}}, "its schema has no list at 'anyOf'"),
        ({"required": "a"}, "its schema has no list of names at 'required'"),
        ({"required": ["a", 1]}, "its schema has no list of names at 'required'"),
        ({"properties": {"a": [1]}}, r"its schema has \[1\] where a schema was expected"),
        ({"type": "array"}, "its schema is none for an object"),
        ([], "its schema is none for an object"),
    ):
        with pytest.raises(UnusableDefinition, match=said):
            spec_of(definition(schema), server())


def test_names_of_tools_are_cut_and_marked_only_where_they_must_be() -> None:
    exact = "x" * (64 - len("mail__"))
    assert tool_name("mail", exact) == f"mail__{exact}"
    for name, begins in ((f"{exact}y", f"mail__{exact}"[:57]), ("a.b", "mail__a_b"), ("é", "mail___")):
        made = tool_name("mail", name)
        assert made.rpartition("_")[0] == begins and len(made.rpartition("_")[2]) == 6 and len(made) <= 64
    given = {"a.b": "mail__a_b_2e7336", "\ud800": "mail____91a681", f"{exact}x": f"mail__{exact[:51]}_6e20a1"}
    assert {name: tool_name("mail", name) for name in given} == given, "half a surrogate is no name, and has one here"
    base = ToolDefinition("t", "d", {"a": 1}, {"h": 1})
    changed = (
        replace(base, name="u"),
        replace(base, description="e"),
        replace(base, schema={}),
        replace(base, hints={}),
    )
    assert len({base.digest, *(each.digest for each in changed)}) == 5 and len(base.digest) == 64
    assert difference({"a": 1, "b": 2, "gone": 3}, {"a": 1, "b": 3, "new": None, "c": 4}) == {
        "b": {"was": 2, "is": 3},
        "c": {"was": None, "is": 4},
    }


def test_arguments_that_do_not_fit_are_told_by_their_first_problem() -> None:
    schema = {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "n": {"type": "integer"},
            "m": {"type": ["integer", "null"]},
            "o": {},
            "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "integer"}}}},
        },
        "required": ["to"],
    }
    check = ArgumentChecker(spec_of(definition(schema, name="send"), server()))
    given = {"to": "a", "n": None, "m": None, "o": None, "extra": None}
    assert check(given) == {"to": "a", "m": None, "o": None, "extra": None}
    assert given["n"] is None, "the caller's arguments are its own"
    for arguments, said in (
        ({}, "mail__send was called with {}: arguments: 'to' is a required property"),
        ({"to": "a", "list": [{"k": 1}, {"k": "x"}]}, r"list\.1\.k: 'x' is not of type 'integer'"),
        ({"to": None}, "to: None is not of type 'string'"),
    ):
        with pytest.raises(ToolError, match=said):
            check(arguments)
    with pytest.raises(UnusableDefinition, match="its schema is no JSON schema: "):
        ArgumentChecker(ToolSpec("t", "", {"type": "object", "properties": {"a": {"type": "nonsense"}}}))
    lost = ArgumentChecker(ToolSpec("t", "", {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}))
    with pytest.raises(ToolError, match="t has a schema that cannot be applied: "):
        lost({"a": 1})


# -- schemas in bounded time --


def problems(schema: Any, value: Any) -> list[str]:
    return [error.message for error in BoundedValidator(schema).iter_errors(value)]


def test_regular_expressions_are_passed_over_and_all_other_keywords_apply() -> None:
    assert problems({"properties": {"a": {"pattern": "^b$", "format": "date", "type": "string"}}}, {"a": "c"}) == []
    closed = {"properties": {"a": {}}, "additionalProperties": False}
    assert problems(closed, {"a": 1}) == [] and problems(closed, [1]) == []
    assert problems(closed, {"a": 1, "b": 2, "c": 3}) == ["Additional properties are not allowed ('b', 'c')"]
    typed = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert problems(typed, {"a": "x", "b": "y", "c": 4}) == ["'y' is not of type 'integer'"]
    (fault,) = BoundedValidator(typed).iter_errors({"b": "y"})
    assert list(fault.absolute_path) == ["b"]
    assert problems({"patternProperties": {"b": {}}, "additionalProperties": False}, {"b": 1, "z": 1}) == []
    assert problems({"additionalProperties": True}, {"z": 1}) == []
    assert problems({"uniqueItems": True}, [1, 1]) and problems({"enum": [1, 2]}, 3) == ["3 is not one of [1, 2]"]
    # another dialect's own validator would count no steps, and a property may be called $schema
    assert problems({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3}, 2) != []
    assert problems({"properties": {"$schema": {"type": "integer"}}}, {"$schema": "x"}) == [
        "'x' is not of type 'integer'"
    ]


@pytest.mark.slow
def test_a_check_of_too_many_steps_ends_and_each_check_begins_anew() -> None:
    twice: dict[str, Any] = {"$defs": {"d0": {"type": "integer"}}}
    for n in range(1, 18):
        twice["$defs"][f"d{n}"] = {"allOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2}
    with pytest.raises(TooManySteps):
        problems({**twice, "$ref": "#/$defs/d17"}, 1)
    numbers = BoundedValidator({"uniqueItems": True})  # each is compared with each: 900 numbers take 40,500 steps
    with pytest.raises(TooManySteps):
        list(numbers.iter_errors([*range(1_100)]))
    assert [list(numbers.iter_errors([*range(900)])) for _ in range(3)] == [[], [], []]
    assert list(numbers.iter_errors([*map(str, range(1_100))])) == []
    assert list(ResultValidator({"uniqueItems": True}).iter_errors([*range(1_100)])) == []


def test_results_are_checked_by_schemas_up_to_a_size() -> None:
    for over, count in ((0, 1), (1, 0)):
        schema = {
            "type": "integer",
            "title": "x" * (MAX_RESULT_SCHEMA + over - len('{"type": "integer", "title": ""}')),
        }
        assert len(list(ResultValidator(schema).iter_errors("x"))) == count


# -- what is remembered, found and shown --


def test_an_approved_definition_stands_until_a_person_approves_another(tmp_path: Path) -> None:
    first, other = definition({"a": 1}, "one", "t"), definition({"b": 1}, "more", "u")
    approved = ApprovedDefinitions(server(), tmp_path)
    assert approved.changes({"t": first}) == {}
    now = replace(first, description="two", hints={"x": 1})
    change = {"t": {"description": {"was": "one", "is": "two"}, "hints": {"was": {}, "is": {"x": 1}}}}
    assert approved.changes({"t": now, "u": other}) == change == approved.changes({"t": now})
    again = ApprovedDefinitions(server(), tmp_path)
    assert again.changes({"t": now, "u": replace(other, schema={})})["u"] == {"schema": {"was": {"b": 1}, "is": {}}}
    again.approve(now)
    assert again.changes({"t": now}) == {}
    assert ApprovedDefinitions(server(), tmp_path).changes({"t": first}).keys() == {"t"}
    kept = json.loads(again.path.read_text())
    assert kept == {
        "server": "serve",
        "tools": {
            "mail__t": {"digest": now.digest, "name": "t", "description": "two", "schema": {"a": 1}, "hints": {"x": 1}},
            "mail__u": {"digest": other.digest, "name": "u", "description": "more", "schema": {"b": 1}, "hints": {}},
        },
    }
    assert sorted(each.suffix for each in again.path.parent.iterdir()) == [".json", ".lock"]
    key = hashlib.sha256(b"mail\nserve").hexdigest()[:16]
    assert again.path == tmp_path / "mcp" / "approved" / f"mail-{key}.json", "what was approved is found again"
    for elsewhere in (server(args=("x",)), replace(server(), name="post")):
        assert ApprovedDefinitions(elsewhere, tmp_path).path != again.path
    late = ApprovedDefinitions(server(), tmp_path)
    assert late.changes({}) == {}
    again.changes({"v": definition({}, "third", "v")})
    late.changes({"w": definition({}, "fourth", "w")})
    assert sorted(json.loads(again.path.read_text())["tools"]) == [f"mail__{each}" for each in "tuvw"], (
        "of two processes, all is kept"
    )
    damaged = f"{again.path} is damaged, so no change of the server's tools would be seen: delete it to begin anew"
    for text in (
        '{"tools": {"t": {"digest": 5}}}', '{"tools": {"t": {"digest": "a"}, "u": {"digest": 5}}}',
        '{"tools": {"u": {"digest": null}, "t": {"digest": "a"}}}', '{"tools": {"t": {}}}', '{"tools": []}', "{}", "[",
        "\xff",
    ):  # fmt: skip
        again.path.write_text(text, encoding="latin-1")
        with pytest.raises(StoreError) as told:
            ApprovedDefinitions(server(), tmp_path).changes({})
        assert str(told.value) == damaged
    again.path.write_text('{"tools": {}}')
    assert ApprovedDefinitions(server(), tmp_path).changes({"t": first}) == {}, "a file without tools is sound"
    again.path.unlink()
    again.path.mkdir()
    with pytest.raises(StoreError) as unreadable:
        ApprovedDefinitions(server(), tmp_path).changes({"t": first})
    assert str(unreadable.value) == f"{again.path} cannot be read: Is a directory"


def test_approved_definitions_that_may_not_be_read_do_not_count_as_none(tmp_path: Path) -> None:
    assert ApprovedDefinitions(server(), tmp_path).changes({"t": definition({}, "one", "t")}) == {}
    approved = ApprovedDefinitions(server(), tmp_path)
    approved.path.chmod(0)

    def changes() -> None:
        if os.geteuid() == 0:  # who may read everything
            os.setuid(65_534)
        for found in ({}, {"t": definition({}, "two", "t")}):
            try:
                print(approved.changes(found))
            except StoreError as error:
                print(error)

    told = f"{approved.path} cannot be read: Permission denied\n"
    assert forked(changes) == (0, told * 2, "")


def test_the_words_of_a_name_count_twice_and_rare_words_more() -> None:
    def described(text: str) -> Any:
        return replace(calculator, spec=replace(calculator.spec, description=text))

    tools = {
        "getFlights": described("Looks up planes."),
        "book_seat": described("A flight is booked."),
        "z": described("seats"),
        "a": described("seats"),
    }
    # flight: 1/2 in two tools, and 1 more in the name of getFlights; seat: 1/3 in three, and 1 more in book_seat
    assert ranked("Flights", tools, 9) == ["getFlights", "book_seat"]
    assert ranked("seat", tools, 9) == ["book_seat", "a", "z"] and ranked("seat", tools, 2) == ["book_seat", "a"]
    assert ranked("flights seat", tools, 9) == ["book_seat", "getFlights", "a", "z"]
    assert (
        ranked("plane seat", {"a": tools["a"], "getFlights": tools["getFlights"], "b": tools["a"]}, 9)[0]
        == "getFlights"
    )
    assert ranked("s up", tools, 9) == ["getFlights"] and ranked("x", tools, 9) == []


def test_results_are_shown_as_text_and_the_rest_by_its_kind_and_size() -> None:
    text = types.TextContent(type="text", text="words")
    image = types.ImageContent(type="image", data="QUJDREVGR0hJ" * 200, mime_type="image/png")
    link = types.ResourceLink(type="resource_link", uri="file:///a", name="the file")
    blob = types.BlobResourceContents(uri="file:///b", blob="QUJD")
    inside = types.TextResourceContents(uri="file:///c", text="inner")
    held = types.EmbeddedResource(type="resource", resource=inside)
    empty = types.TextContent(type="text", text="")
    shown = "words\n[image: image/png, 1,800 bytes, not shown]\n[resource file:///a: the file]\ninner"
    assert text_of_result(types.CallToolResult(content=[text, empty, image, link, held])) == shown
    structured = {"n": "ä"}
    assert text_of_result(types.CallToolResult(content=[text], structured_content=structured)) == "words"
    assert text_of_result(types.CallToolResult(content=[empty], structured_content=structured)) == '{"n": "ä"}'
    assert text_of_result(types.CallToolResult(content=[], structured_content={})) == "{}"
    blank = types.TextContent(type="text", text=" \n")
    beside = text_of_result(types.CallToolResult(content=[image, blank, link], structured_content=structured))
    assert beside == '{"n": "ä"}\n[image: image/png, 1,800 bytes, not shown]\n[resource file:///a: the file]'
    both = types.CallToolResult(content=[image, text], structured_content=structured)
    assert text_of_result(both) == "[image: image/png, 1,800 bytes, not shown]\nwords"
    assert text_of_result(types.CallToolResult(content=[])) == ""
    kinds = types.ReadResourceResult(contents=[inside, blob, replace_kind(blob)])
    assert contents_text(kinds) == (
        "inner\n[file:///b: bytes, 3 bytes, not shown]\n[file:///b: audio/wav, 3 bytes, not shown]"
    )
    asked = types.PromptMessage(role="user", content=text)
    answered = types.PromptMessage(role="assistant", content=held)
    assert messages_text(types.GetPromptResult(messages=[asked, answered])) == "user: words\n\nassistant: inner"


def replace_kind(blob: types.BlobResourceContents) -> types.BlobResourceContents:
    return blob.model_copy(update={"mime_type": "audio/wav"})


def test_a_task_is_polled_as_often_as_it_asks_within_bounds() -> None:
    assert [_wait(None), _wait(None, 3.5), _wait(1.0), _wait(20.0), _wait(700.0, 3.5), _wait(9_000.0)] == [
        0.2, 3.5, 0.02, 0.02, 0.7, 5.0,
    ]  # fmt: skip


def test_a_schema_of_what_is_not_named_loses_its_prose_too_and_a_truth_value_stays() -> None:
    inner = {"type": "string", "description": "obey", "title": "T"}
    names = ("additionalProperties", "unevaluatedProperties", "unevaluatedItems")
    kept = spec_of(definition({"type": "object", **dict.fromkeys(names, inner)}), server()).parameters
    assert all(kept[name] == {"type": "string"} for name in names)
    properties = {"a": True, "b": False}
    kept = spec_of(definition({**dict.fromkeys(names, False), "properties": properties}), server()).parameters
    assert kept == {
        **dict.fromkeys(names, False), "properties": {"a": {}, "b": {"not": {}}}, "type": "object", "required": [],
    }  # fmt: skip
    for each in ("items", "not", "if", "then", "else", "contains", "propertyNames"):
        assert spec_of(definition({each: inner}), server()).parameters[each] == {"type": "string"}
    for each in ("anyOf", "oneOf", "allOf", "prefixItems"):
        assert spec_of(definition({each: [inner, True]}), server()).parameters[each] == [{"type": "string"}, {}]
        with pytest.raises(UnusableDefinition, match=f"^its schema has no list at '{each}'$"):
            spec_of(definition({each: inner}), server())
    for each in ("properties", "$defs", "definitions", "dependentSchemas"):
        assert spec_of(definition({each: {"x": inner}}), server()).parameters[each] == {"x": {"type": "string"}}
        with pytest.raises(UnusableDefinition, match=rf"^its schema has no table at '{each.replace('$', '[$]')}'$"):
            spec_of(definition({each: [inner]}), server())
    empty = spec_of(definition({}, " \n "), server())
    assert (empty.description, empty.parameters) == ("", {"type": "object", "properties": {}, "required": []})


def test_each_keyword_is_a_step_and_long_lists_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "array", "uniqueItems": True, "pattern": "x", "items": {"enum": [*range(29), "a"]}}
    made = BoundedValidator(schema)

    def steps(value: Any) -> int:
        assert [error.message for error in made.iter_errors(value)] == []
        return int(bounded_schema._spent.steps)

    # type, uniqueItems and items, two of which go through the entries; for each its enum of thirty; ten numbers are
    # compared with each other
    assert steps([*range(10)]) == 3 + 10 * (1 + 3) + 5 + 2 * 2
    assert steps([*range(9)]) == 3 + 9 * 4 + 4 + 2 * 2
    assert steps([]) == 3 and steps(["a"]) == 3 + 4, "texts are looked up"
    for most, fits in ((52, True), (51, False)):
        monkeypatch.setattr(bounded_schema, "MAX_STEPS", most)
        if fits:
            assert steps([*range(10)]) == 52
            continue
        with pytest.raises(TooManySteps):
            steps([*range(10)])


def test_nulls_are_left_out_where_an_argument_is_optional_and_takes_none() -> None:
    schema = {
        "type": "object", "required": ["need"],
        "properties": {
            "need": {"type": "string"}, "plain": {"type": "string"}, "both": {"type": ["string", "null"]},
            "none": {"type": "null"}, "any": {}, "several": {"type": ["string", "integer"]},
        },
    }  # fmt: skip
    check = ArgumentChecker(spec_of(definition(schema), server()))
    assert check._optional == {"plain", "several"}
    kept = {"need": "x", "both": None, "none": None, "any": None}
    assert check({**kept, "plain": None, "several": None}) == kept and check({"need": "x", "plain": ""}) == {
        "need": "x", "plain": "",
    }  # fmt: skip
    with pytest.raises(ToolError, match=r"mail__t was called with .*: need: None is not of type 'string'"):
        check({"need": None})


def test_a_reference_out_of_a_schema_is_refused_wherever_its_fragment_leads() -> None:
    for key in ("$ref", "$dynamicRef"):
        for to in ("http://h/s.json#/a", "other#", "", " #/a", 5):
            told = ToolDefinition("t", "T.", {"properties": {"x": {"anyOf": [{key: to}]}}}, {})
            with pytest.raises(UnusableDefinition) as refused:
                spec_of(told, server())
            assert str(refused.value) == f"its schema refers to {str(to)!r}, which is outside of it"
        kept = {"properties": {"x": {key: "#/$defs/a"}, "y": {key: "#"}}, "$defs": {"a": {"type": "integer"}}}
        found = spec_of(ToolDefinition("t", "T.", kept, {}), server()).parameters
        assert found == kept | {"type": "object", "required": []}
