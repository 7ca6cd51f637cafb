"""The address of a reply in journals and caches: whatever changes the reply changes the address."""

from dataclasses import fields, replace
from typing import Any

import pytest

from firsthand import grammar
from firsthand.message import Message, Text, ToolCall, ToolResult
from firsthand.model import Prompt, Sampling, ToolSpec, request_key

OTHER: dict[str, Any] = {
    "max_tokens": 511,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.9,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.2,
    "seed": 7,
    "stop": ("a",),
    "top_logprobs": 2,
    "grammar": grammar.choice(["yes", "no"]),
    "logit_bias": ((5, 1.0),),
    "stop_ids": (9,),
    "ignore_eos": True,
    "min_tokens": 2,
    "allowed_token_ids": (1, 2),
    "bad_words": ("no",),
    "skip_special_tokens": False,
    "include_stop_str_in_output": True,
}
"""For each setting a value that is not its default."""


@pytest.mark.parametrize("name", [each.name for each in fields(Sampling)])
def test_every_sampling_setting_is_part_of_the_key(name: str) -> None:
    base = Sampling()
    assert OTHER[name] != getattr(base, name)
    changed = replace(base, **{name: OTHER[name]})
    assert request_key("m", "hello", changed) != request_key("m", "hello", base)
    assert Sampling(**{**vars(base), name: OTHER[name]}) == changed


def test_settings_do_not_share_a_key_with_each_other() -> None:
    keys = [request_key("m", "hello", replace(Sampling(), **{name: value})) for name, value in OTHER.items()]
    assert len(set(keys)) == len(keys)


CALL = ToolCall("1", "add", {"a": 1})
PROMPTS: list[Prompt] = [
    "hello",
    "hello ",
    (Message("user", (Text("hello"),)),),
    (Message("system", (Text("hello"),)),),
    (Message("user", (Text("hel"), Text("lo"))),),
    (Message("user", (Text("hello"),)), Message("assistant", (CALL,))),
    (Message("user", (Text("hello"),)), Message("assistant", (ToolCall("1", "add", {"a": 2}),))),
    (Message("user", (Text("hello"),)), Message("assistant", (ToolCall("1", "sub", {"a": 1}),))),
    (Message("user", (Text("hello"),)), Message("assistant", (CALL,)), Message("tool", (ToolResult("1", "add", "2"),))),
    (Message("user", (Text("hello"),)), Message("assistant", (CALL,)), Message("tool", (ToolResult("1", "add", "3"),))),
    (
        Message("user", (Text("hello"),)),
        Message("assistant", (CALL,)),
        Message("tool", (ToolResult("1", "add", "2", is_error=True),)),
    ),
]


def test_every_part_of_a_prompt_is_part_of_the_key() -> None:
    keys = [request_key("m", prompt, Sampling()) for prompt in PROMPTS]
    assert len(set(keys)) == len(keys)


def test_every_part_of_a_tool_is_part_of_the_key() -> None:
    tools = [
        (),
        (ToolSpec("add", "Add.", {"type": "object"}),),
        (ToolSpec("sum", "Add.", {"type": "object"}),),
        (ToolSpec("add", "Add two.", {"type": "object"}),),
        (ToolSpec("add", "Add.", {"type": "object", "properties": {}}),),
    ]
    keys = [request_key("m", "hello", Sampling(), specs) for specs in tools]
    assert len(set(keys)) == len(keys)


def test_continuations_are_part_of_the_key_in_their_order() -> None:
    given = [[], ["a"], ["b"], ["a", "b"], ["b", "a"], ["ab"]]
    assert len({request_key("m", "hello", continuations=each) for each in given}) == len(given)
