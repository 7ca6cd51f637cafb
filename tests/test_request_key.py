"""The address of a reply in journals and caches: whatever changes the reply changes the address."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from firsthand import grammar
from firsthand.errors import ConfigError
from firsthand.loop.request_key import request_key
from firsthand.message import Message, Text, ToolCall, ToolResult
from firsthand.model import Prompt, Sampling, ToolSpec
from firsthand.sampling import MAX_ALLOWED, MAX_BAD_WORDS, MAX_WORD_CHARS

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
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "strict_tools": ("add",),
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


EDGES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "max_tokens": ((1, 2), (0, -1)),
    "temperature": ((0.0, 99.9), (-0.1, 100.0, float("nan"), float("inf"))),
    "top_k": ((0, 1), (-1,)),
    "top_p": ((0.001, 1.0), (0.0, 1.001, float("nan"))),
    "min_p": ((0.0, 1.0), (-0.001, 1.001)),
    "repetition_penalty": ((0.001, 1.0, 9.0), (0.0, -1.0)),
    "presence_penalty": ((-100.0, 100.0), (-100.1, 100.1)),
    "frequency_penalty": ((-100.0, 100.0), (-100.1, 100.1)),
    "top_logprobs": ((0, 100), (-1, 101)),
    "stop": (((), ("a",) * 64), (("a",) * 65, ("",), ("a", ""))),
    "logit_bias": (
        (((1, 100.0),), ((1, -100.0),), ((1, 0.5),) * 1024),
        (((1, 100.1),), ((1, -100.1),), ((1, 0.5),) * 1025),
    ),
    "stop_ids": (((), (1,) * 64), ((1,) * 65,)),
    "min_tokens": ((0, 5), (-1,)),
    "allowed_token_ids": ((None, (1,), (1,) * MAX_ALLOWED), ((), (1,) * (MAX_ALLOWED + 1))),
    "bad_words": (
        ((), ("a" * MAX_WORD_CHARS,), ("a",) * MAX_BAD_WORDS),
        (("",), ("a" * (MAX_WORD_CHARS + 1),), ("a",) * (MAX_BAD_WORDS + 1)),
    ),
}
"""For each bounded setting the outermost values that are taken, and the nearest that are not."""


@pytest.mark.parametrize("name", EDGES)
def test_each_setting_is_taken_up_to_its_bound_and_refused_beyond_it_by_name(name: str) -> None:
    taken, refused = EDGES[name]
    for value in taken:
        assert getattr(Sampling(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ConfigError, match=f"^{name} is "):
            Sampling(**{name: value})


def test_settings_are_stored_without_what_they_leave_out_and_come_back() -> None:
    old = {
        "max_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "seed",
        "stop",
    }
    assert set(Sampling().to_json()) == old | {"frequency_penalty", "top_logprobs"}
    for name, value in OTHER.items():
        body = replace(Sampling(), **{name: value}).to_json()
        assert name in body and json.loads(json.dumps(body)) == body
    assert replace(Sampling(), allowed_token_ids=(0,)).to_json()["allowed_token_ids"] == [0]
    assert Sampling(seed=1).with_seed(5) == Sampling(seed=5)
