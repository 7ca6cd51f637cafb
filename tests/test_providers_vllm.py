"""The provider `openai` against a real server that is under way, such as vLLM or SGLang, and our own engine on its weights.

    FIRSTHAND_ENDPOINT=openai:smollm2@http://127.0.0.1:8000/v1 FIRSTHAND_FOLDER=the/folder/that/it/serves \\
        pytest tests/test_providers_vllm.py -m slow

docs/cluster.md says how to start vLLM for it. Without these variables there is nothing to ask, and the tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from firsthand import catalog, grammar
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ModelError, PromptTooLong
from firsthand.message import Message, ToolResult, user
from firsthand.model import Sampling, ToolSpec
from firsthand.providers.local import Local
from firsthand.providers.openai import OpenAIModel

ENDPOINT = os.environ.get("FIRSTHAND_ENDPOINT", "")
FOLDER = os.environ.get("FIRSTHAND_FOLDER", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ENDPOINT, reason="FIRSTHAND_ENDPOINT names no server that is under way"),
]
HI = [user("What is the capital of France? Answer in one word.")]
ADD = ToolSpec(
    "add",
    "Adds two numbers.",
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
)


@pytest.fixture(scope="module")
def model() -> OpenAIModel:
    found = catalog.model(ENDPOINT)
    assert isinstance(found, OpenAIModel)
    return found


@pytest.fixture(scope="module")
def ours() -> Iterator[Local]:
    if not FOLDER:
        pytest.skip("FIRSTHAND_FOLDER does not say what the server serves")
    found = Local(FOLDER, config=EngineConfig(kv_memory_bytes=1 << 28, weights="float32"))
    yield found
    found.close()


def now(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_answers_come_whole_and_streamed_and_several_at_once(model: OpenAIModel) -> None:
    async def ask() -> Any:
        whole = await model.complete(HI, Sampling(max_tokens=12))
        pieces = [delta async for delta in model.stream(HI, Sampling(max_tokens=12))]
        many = await model.complete(HI, Sampling(max_tokens=12, temperature=1.0, seed=3), n=3)
        again = await model.complete(HI, Sampling(max_tokens=12, temperature=1.0, seed=3), n=3)
        return whole[0], pieces, many, again

    whole, pieces, many, again = now(ask())
    assert "paris" in whole.message.text.lower() and whole.usage.prompt_tokens > 10 and whole.finish_reason == "stop"
    assert "".join(piece.text for piece in pieces) == whole.message.text
    assert pieces[-1].completion.usage == whole.usage
    assert len(many) == 3 and len({each.message.text for each in many}) > 1
    assert [each.message.text for each in many] == [each.message.text for each in again]


def test_alternatives_and_token_ids_come_with_an_answer() -> None:
    name, _, url = ENDPOINT.removeprefix("openai:").partition("@")
    exact = OpenAIModel(name, url, return_token_ids=True)
    (found,) = now(exact.complete(HI, Sampling(max_tokens=6, top_logprobs=3)))
    sampled = found.message.sampled
    assert sampled is not None and len(sampled.token_ids) == len(sampled.logprobs) == found.usage.completion_tokens
    assert len(found.top_logprobs) == len(sampled.token_ids) and all(len(top) >= 3 for top in found.top_logprobs)
    assert abs(dict(found.top_logprobs[0]).get("Paris", found.top_logprobs[0][0][1]) - sampled.logprobs[0]) < 1e-6


SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("form", "fits"),
    [
        (
            grammar.json_schema({**SCHEMA, "additionalProperties": False}),
            lambda text: set(json.loads(text)) == {"city"},
        ),
        (grammar.regex("[A-Z]{3}-[0-9]{2}"), lambda text: len(text) == 6 and text[3] == "-"),
        (grammar.choice(["London", "Paris", "Rome"]), lambda text: text == "Paris"),
        (grammar.gbnf('root ::= "yes" | "no"'), lambda text: text in ("yes", "no")),
    ],
)
def test_answers_have_the_form_that_was_asked_for(model: OpenAIModel, form: Any, fits: Any) -> None:
    sampling = Sampling(max_tokens=60, grammar=form)
    for prompt in (HI, "The capital of France is "):
        (found,) = now(model.complete(prompt, sampling))  # what does not fit would be a ModelError
        assert fits(found.message.text) or (prompt is not HI and found.message.text)


def test_a_tool_call_is_read_whole_and_streamed_and_its_result_goes_back(model: OpenAIModel) -> None:
    """The grammar makes a small model call; the server's parser makes a call of its words."""
    called = grammar.regex(r'<tool_call>\n\{"name": "add", "arguments": \{"a": 2, "b": [0-9]\}\}\n</tool_call>')
    asked = [user("Use the tool: what is 2 + 3?")]

    async def ask() -> Any:
        name, _, url = ENDPOINT.removeprefix("openai:").partition("@")
        free = OpenAIModel(name, url)
        sampling = Sampling(max_tokens=60, grammar=called)
        body = free._body(asked, sampling, [ADD], 1)
        whole = free._read(await free._post("/chat/completions", body))[0]
        plain = await free.complete(asked, Sampling(max_tokens=4), tools=[ADD])
        results = Message("tool", (ToolResult(whole.message.tool_calls[0].id, "add", "5"),))
        after = await free.complete([*asked, whole.message, results], Sampling(max_tokens=12), tools=[ADD])
        return whole, plain, after

    whole, plain, after = now(ask())
    (call,) = whole.message.tool_calls
    assert call.name == "add" and call.arguments["a"] == 2 and whole.finish_reason == "tool_calls"
    assert plain[0].usage.completion_tokens >= 1 and after[0].usage.prompt_tokens > plain[0].usage.prompt_tokens


def test_the_log_probs_of_continuations_are_those_of_our_engine_on_the_same_weights(
    model: OpenAIModel, ours: Local
) -> None:
    prompt, continuations = "The capital of France is", [" Paris", " London", " a city of many bridges"]
    theirs, here = now(model.score(prompt, continuations)), now(ours.score(prompt, continuations))
    for one, other in zip(theirs.likelihoods, here.likelihoods, strict=True):
        assert one.num_tokens == other.num_tokens and one.is_greedy == other.is_greedy
        assert abs(one.logprob - other.logprob) < 0.1 * one.num_tokens + 0.05, "bfloat16 beside float32"


def test_a_prompt_that_is_too_long_and_a_model_that_is_not_there_are_told_apart(model: OpenAIModel) -> None:
    with pytest.raises(PromptTooLong):
        now(model.complete([user("word " * 100_000)], Sampling(max_tokens=4)))
    _, _, url = ENDPOINT.removeprefix("openai:").partition("@")
    with pytest.raises(ModelError, match=ENDPOINT.removeprefix("openai:").partition("@")[0]):
        now(OpenAIModel("no-such-model", url).complete(HI, Sampling(max_tokens=4)))
