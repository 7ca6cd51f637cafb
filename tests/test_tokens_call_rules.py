"""The grammar of a model's tool calls and of ReAct's lines, rule by rule, for each markup and each kind of argument."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.model import ToolSpec
from firsthand.tokens.calls.call_grammar import (
    _calls,
    _frame,
    _input,
    action_grammar,
    bare_argument,
    markup_of,
    tool_grammar,
)
from firsthand.tokens.calls.call_parser import parse
from firsthand.tokens.llguidance_grammar import _json_item, _unforced, lark_json, lark_text

WORDS = r"WORDS: /(.|\n)*/"


def test_the_rules_around_calls_follow_the_markup_and_the_choice() -> None:
    body = '"\\n" call "\\n</tool_call>"'
    lazy = r"begun[lazy]: /(.|\n)*<tool_call>/"
    assert _frame("hermes", True, True) == [f"start: (begun {body})* WORDS", lazy, WORDS]
    assert _frame("hermes", True, False) == [f"start: begun {body} | WORDS", lazy, WORDS]
    one = f'"<tool_call>" {body}'
    assert _frame("hermes", False, False) == [f"start: {one}"]
    assert _frame("hermes", False, True) == [f'start: {one} ("\\n" {one})*']
    several, single = '" "? "[" call (", " call)* "]"', '" "? "[" call "]"'
    lazy = r"begun[lazy]: /(.|\n)*\[TOOL_CALLS\]/"
    assert _frame("mistral", True, True) == [f"start: WORDS | begun {several}", lazy, WORDS]
    assert _frame("mistral", True, False) == [f"start: WORDS | begun {single}", lazy, WORDS]
    assert _frame("mistral", False, True) == [f'start: "[TOOL_CALLS]" {several}']
    assert _frame("mistral", False, False) == [f'start: "[TOOL_CALLS]" {single}']
    bare = '"<|python_tag|>"? call'
    free = ["start: bare | WORDS | begun call", f"bare: {bare}", r"begun[lazy]: /[^{\s](.|\n)*<\|python_tag\|>/",
            r"WORDS: /([^{\s](.|\n)*)?/"]  # fmt: skip
    assert _frame("llama3", True, False) == free
    assert _frame("llama3", True, True) == [free[0], f'bare: {bare} ("; " call)*', *free[2:]]
    assert _frame("llama3", False, True) == [f'start: {bare} ("; " call)*'] and _frame("llama3", False, False) == [
        f"start: {bare}"
    ]


ADD = ToolSpec("add", "", {"properties": {"a": {"type": "integer"}}})
SAY = ToolSpec('s"é', "", {"type": "object", "properties": {}})


def test_a_call_has_its_name_and_arguments_in_the_models_own_words() -> None:
    rules = _calls([ADD, SAY], "hermes")
    add, say = r'"{\"name\": \"add\", \"arguments\": "', r'"{\"name\": \"s\\\"é\", \"arguments\": "'
    assert rules == [
        "call: call_0 | call_1",
        f'call_0: {add} {lark_json({"type": "object", **ADD.parameters})} "}}"',
        f'call_1: {say} {lark_json(SAY.parameters)} "}}"',
    ]
    assert '\\"parameters\\": ' in _calls([ADD], "llama3")[1] and '\\"arguments\\": ' in _calls([ADD], "mistral")[1]
    whole = tool_grammar([ADD, SAY])
    assert (whole.kind, whole.source) == ("lark", "\n".join([*_frame("hermes", True, True), *rules]))
    for choice, parallel, markup, specs in (
        ("required", True, "mistral", [ADD, SAY]), ("add", False, "llama3", [ADD]), ('s"é', True, "hermes", [SAY]),
    ):  # fmt: skip
        found = tool_grammar([ADD, SAY], choice=choice, parallel=parallel, markup=markup)  # type: ignore[arg-type]
        assert found.source == "\n".join([*_frame(markup, False, parallel), *_calls(specs, markup)])  # type: ignore[arg-type]
    longer = ToolSpec("add_all", "", {})
    assert tool_grammar([longer, ADD, SAY], choice="add").source == tool_grammar([ADD], choice="required").source
    for choice, specs, known in (("sub", [ADD, SAY], 'add, s"é'), ("sub", [], "none"), ("ad", [ADD], "add"),
                                 ("", [ADD, longer], "add, add_all"), ("Add", [ADD], "add")):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            tool_grammar(specs, choice=choice)
        assert str(error.value) == f"choice is {choice!r}: give auto, required, or the name of a tool ({known})"
    for choice in ("auto", "required"):
        with pytest.raises(ConfigError, match=r"^a grammar of tool calls needs a tool: give one or more$"):
            tool_grammar([], choice=choice)
    marks = {
        "": "hermes", "<tool_call>": "hermes", "tools <tool_call> [TOOL_CALLS]": "hermes", "tools [TOOL_CALLS] python_tag":
        "mistral", "tools <|python_tag|>": "llama3", 'tools "parameters": ': "llama3", 'tools "parameters":x': None,
    }  # fmt: skip
    assert {text: markup_of(text) for text in marks} == marks


def test_an_actions_input_is_bare_for_one_plain_argument_and_else_an_object() -> None:
    def of(*required: str, **properties: Any) -> dict[str, Any]:
        return {"properties": properties, **({"required": list(required)} if required else {})}

    text, number = {"type": "string"}, {"type": "number"}
    bare = [
        (of(a=text), "a"), (of(a=number, b=text), "a"), (of("b", a=text, b=number), "b"),
        (of("a", "b", a=text, b=text), None),
        (of("z", a=text), None), (of(a={"type": "array"}), None), (of(a={"type": "integer"}), "a"), ({}, None),
        (of(a={"type": "string", "pattern": "x"}), None), (of(a={"type": "string", "format": "date"}), None),
        (of(a=True), None), ({"properties": {"a": text}, "required": []}, "a"),
    ]  # fmt: skip
    assert [bare_argument(parameters) for parameters, _ in bare] == [name for _, name in bare]
    line = r"/[^\n\[\]{}]{1,400}/"
    assert _input(of(a=text)) == line and _input(of(a=number)) == lark_json(number) and _input({}) == '""'
    assert _input(of(a={"type": "string", "enum": ["x", 'y"']})) == r'("x" | "y\"")'
    mixed = {"type": "integer", "enum": [1, "x"]}
    assert _input(of(a=mixed)) == lark_json(mixed), "not all of them are texts"
    assert _input(of(a={"type": "string", "enum": ["x", 1]})) == line
    both = of("a", "b", a=text, b=text)
    assert _input(both) == lark_json(both)
    spec, none = ToolSpec("look", "", of(a=text)), ToolSpec("wait", "", {})
    lines = [
        "start: thought (action_0 | action_1 | final)", 'thought: "Thought: " LINE "\\n"', r"LINE: /[^\n]{1,400}/",
        'final: "Final Answer: " ANSWER', r"ANSWER: /[^\n]{1,400}/", f'action_0: "Action: look[" {line} "]"',
        'action_1: "Action: wait[" "" "]"',
    ]  # fmt: skip
    assert action_grammar([spec, none]).source == "\n".join(lines)
    assert action_grammar([none], final=False, thought=False).source == (
        'start: (action_0)\naction_0: "Action: wait[" "" "]"'
    )
    assert action_grammar([], thought=False).source == "\n".join(["start: (final)", *lines[3:5]])
    with pytest.raises(ConfigError, match=r"^there is no tool and no final answer to choose from: give one of them$"):
        action_grammar([], final=False)


def test_schemas_and_texts_become_items_of_a_rule_and_a_grammar_may_force_nothing() -> None:
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    loose = {**layout, "lenient": True, "coerce_one_of": True}
    for schema, body in ((True, {"anyOf": [{}]}), (False, {"not": {}}), ({"type": "é"}, {"type": "é"})):
        item = lark_json(schema)
        assert item.startswith("%json ") and "\n" not in item and json.loads(item[6:]) == {**body, "x-guidance": loose}
    assert json.loads(_json_item({"x-guidance": 1}, {"lenient": False})[6:]) == {
        "x-guidance": {**layout, "lenient": False}
    }
    assert lark_json({"a": "é"}).startswith('%json {"a": "é"') and lark_text('é"\n') == '"é\\"\\n"'
    unforced = '%llguidance {"no_forcing": true}'
    assert _unforced("start: x") == f"{unforced}\nstart: x"
    two = {"grammars": [{"json_schema": {"type": "null"}}, {"lark_grammar": "start: y", "name": "n"}], "max": 3}
    assert json.loads(_unforced(json.dumps(two))) == {
        "grammars": [{"lark_grammar": f'{unforced}\nstart: %json {{"type": "null"}}'},
                     {"lark_grammar": f"{unforced}\nstart: y", "name": "n"}],
        "max": 3,
    }  # fmt: skip


def test_a_whole_text_gives_its_words_and_its_calls() -> None:
    text, calls = parse('a <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>\n b ')
    assert text == "a \n b" and [(call.id, call.name, call.arguments, call.invalid) for call in calls] == [
        ("call_0", "f", {"x": 1}, None)
    ]  # fmt: skip
    assert parse(" no call ") == (" no call ", ()) and parse("") == ("", ())
    named = parse("[add(3)]", [ADD])
    assert named[0] == "" and named[1][0].arguments == {"a": 3} and parse("[add(3)]")[1] == ()
