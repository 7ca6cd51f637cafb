"""Calls that a request demands reach each endpoint in its own words."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import ConfigError, GrammarIgnored
from firsthand.grammar import choice
from firsthand.message import ToolCall, assistant, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers import anthropic_wire, google_wire, openai_request
from firsthand.providers.demanded_calls import demands_calls
from firsthand.providers.output_validation import check

TOOLS = (ToolSpec("add", "", {"type": "object"}), ToolSpec("sub", "", {"type": "object"}))
HI = [user("Hi")]


def openai(sampling: Sampling, tools: tuple[ToolSpec, ...] = TOOLS) -> Any:
    body = openai_request.request("m", HI, sampling, tools, 1, token_ids=False, limit="max_tokens")
    return {name: body[name] for name in ("tool_choice", "parallel_tool_calls") if name in body}


def anthropic(sampling: Sampling, tools: tuple[ToolSpec, ...] = TOOLS) -> Any:
    return anthropic_wire.request("m", HI, sampling, tools, stream=False).get("tool_choice")


def google(sampling: Sampling, tools: tuple[ToolSpec, ...] = TOOLS) -> Any:
    return google_wire.config(HI, sampling, tools).get("tool_config")


def test_each_protocol_has_its_own_field_and_none_where_nothing_is_demanded() -> None:
    assert openai(Sampling()) == {} and anthropic(Sampling()) is None and google(Sampling()) is None
    must = Sampling(tool_choice="required")
    assert openai(must) == {"tool_choice": "required"}
    assert anthropic(must) == {"type": "any"}
    assert google(must) == {"function_calling_config": {"mode": "ANY"}}
    named = Sampling(tool_choice="sub", parallel_tool_calls=False)
    function = {"type": "function", "function": {"name": "sub"}}
    assert openai(named) == {"tool_choice": function, "parallel_tool_calls": False}
    assert anthropic(named) == {"type": "tool", "name": "sub", "disable_parallel_tool_use": True}
    assert google(named) == {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["sub"]}}
    one = Sampling(parallel_tool_calls=False)
    assert openai(one) == {"parallel_tool_calls": False}
    assert anthropic(one) == {"type": "auto", "disable_parallel_tool_use": True}
    assert openai(one, ()) == {} and anthropic(one, ()) is None


@pytest.mark.parametrize("asked", [openai, anthropic, google])
@pytest.mark.parametrize(
    ("settings", "tools", "said"),
    [
        ({"tool_choice": "required"}, (), "tool_choice is 'required', and the request has no tools"),
        ({"tool_choice": "mul"}, TOOLS, r"tool_choice is 'mul': give auto, required, or a tool's name \(add, sub\)"),
        ({"tool_choice": "add", "grammar": choice(["a"])}, TOOLS, "and a grammar rules the answer: give one of them"),
    ],
)
def test_a_demand_that_cannot_be_met_is_refused(asked: Any, settings: Any, tools: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        asked(Sampling(**settings), tools)


def test_what_is_demanded_is_written_only_where_it_is_not_the_default() -> None:
    assert not {"tool_choice", "parallel_tool_calls"} & Sampling().to_json().keys()
    assert Sampling(tool_choice="add", parallel_tool_calls=False).to_json().items() >= {
        ("tool_choice", "add"), ("parallel_tool_calls", False),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="tool_choice is ''"):
        Sampling(tool_choice="")
    assert not demands_calls(Sampling(), ())


SHAPE = {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "required": ["a", "b"], "additionalProperties": False,
}  # fmt: skip
STRICT = Sampling(strict_tools=("sub", "mul"))


def test_strict_tools_are_named_to_each_protocol_and_others_are_as_before() -> None:
    def sent(sampling: Sampling) -> list[list[bool | None]]:
        wires = (
            openai_request.request("m", HI, sampling, TOOLS, 1, token_ids=False, limit="max_tokens")["tools"],
            anthropic_wire.request("m", HI, sampling, TOOLS, stream=False)["tools"],
        )
        return [[each.get("function", each).get("strict") for each in tools] for tools in wires]

    assert sent(Sampling()) == [[None, None]] * 2 and sent(STRICT) == [[None, True]] * 2
    assert google(STRICT) == {"function_calling_config": {"mode": "VALIDATED"}}
    assert google(STRICT, TOOLS[:1]) is None, "none of the strict ones is offered"
    assert google(replace(STRICT, tool_choice="required")) == {"function_calling_config": {"mode": "ANY"}}
    assert STRICT.to_json()["strict_tools"] == ["sub", "mul"] and "strict_tools" not in Sampling().to_json()


@pytest.mark.parametrize(
    ("call", "finish", "fits"),
    [
        (ToolCall("1", "sub", {"b": "x", "a": 1}), "tool_calls", True),
        (ToolCall("1", "sub", {"a": 1}), "tool_calls", False),
        (ToolCall("1", "sub", {"a": 1}), "stop", False),
        (ToolCall("1", "sub", {"a": "1", "b": "x"}), "tool_calls", False),
        (ToolCall("1", "sub", {"a": 1, "b": "x", "c": 0}), "tool_calls", False),
        (ToolCall("1", "sub", {}, '{"a": '), "tool_calls", False),
        (ToolCall("1", "sub", {"a": 1}), "length", True),
        (ToolCall("1", "add", {"a": 1}), "tool_calls", True),
        (ToolCall("1", "gone", {"a": 1}), "tool_calls", True),
    ],
)
def test_calls_of_strict_tools_are_checked(call: ToolCall, finish: Any, fits: bool) -> None:
    tools = [ToolSpec(name, "", SHAPE) for name in ("add", "sub")]
    answers = [Completion(assistant("", ToolCall("0", "sub", {"a": 0, "b": ""}), call), finish, Usage(3, 0, 2))]
    asyncio.run(check("m", answers, Sampling(), tools))
    if fits:
        asyncio.run(check("m", answers, STRICT, tools))
        return
    with pytest.raises(GrammarIgnored, match=r"m called sub with .* which does not fit the tool's schema") as caught:
        asyncio.run(check("m", answers, STRICT, tools))
    assert caught.value.answers == tuple(answers) and caught.value.usage == Usage(3, 0, 2)
