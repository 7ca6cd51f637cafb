"""Answers of a local model over an engine thread that is told its outputs: whole, piece by piece, and with calls."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

import adapters_tiny
from firsthand.engine.core.outputs import Output
from firsthand.message import Message, Sampled, Text, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers.local import Local
from firsthand.providers.local_completions import Loaded
from firsthand.system import request_owner
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate

ADD = ToolSpec("add", "Adds.", {"type": "object"})


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    adapters_tiny.write_house(folder)
    tokenizer = pretrained.load(folder / "model")
    return Loaded(None, tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template), SimpleNamespace())


class TellingWorker:
    """An engine thread that is told its outputs, and keeps its requests."""

    def __init__(self, *told: Output) -> None:
        self.told, self.asked, self.engine = told, [], SimpleNamespace(architecture=SimpleNamespace(max_position=64))

    async def submit(self, request):
        self.asked.append(request)
        for each in self.told:
            yield each

    def lease(self, ids, **given):
        return (tuple(ids), given)


def told(loaded, *outputs: Output) -> Local:
    model = Local("/none", name="m")
    model._shared.loaded = replace(loaded, worker=TellingWorker(*outputs))
    return model


def piece(index, ids, first=-1.0, **fields):
    logprobs = tuple(first - at for at in range(len(ids)))
    given = {
        "behaviour_logprobs": tuple(each / 2 for each in logprobs),
        "prompt_tokens": 2,
        "cached_tokens": 1,
        **fields,
    }
    return Output(0, index, tuple(ids), logprobs, False, **given)


def test_answers_come_by_their_index_with_one_prompt_and_all_that_was_sampled(loaded):
    a, b = loaded.tokenizer.encode("a")[0], loaded.tokenizer.encode("b")[0]
    model = told(
        loaded, piece(1, [b], version=3), piece(0, [a, a], first=-2.0, version=3, adapter_version=5),
        piece(1, [a], finish_reason="length", version=4), piece(0, [b], finish_reason="stop", version=4, adapter_version=5),
    )  # fmt: skip
    model.chosen = "red"
    model._shared.present.add("red")
    first, second = asyncio.run(model.complete("Hi", Sampling(max_tokens=3), n=2))
    (request,) = model._shared.loaded.worker.asked
    prompt = tuple(loaded.tokenizer.encode("Hi"))
    assert (request.prompt, request.n, request.adapter, request.priority, request.salt, request.taps) == (
        prompt, 2, "red", 0, "", None,
    )  # fmt: skip
    assert (request.owner, request.grammar, request.sampling.max_tokens) == (request_owner.current(), None, 3)
    assert first == Completion(
        Message("assistant", (Text("aab"),), Sampled((a, a, b), (-2.0, -3.0, -1.0), (-1.0, -1.5, -0.5), (3, 3, 4))),
        "stop", Usage(2, 1, 3), prompt_ids=prompt, adapter_version=5,
    )  # fmt: skip
    assert first.lease == ((*prompt, a, a, b), {"adapter": "red", "salt": ""})
    assert (second.message.text, second.finish_reason, second.usage) == ("ba", "length", Usage(0, 0, 2))
    assert second.message.sampled == Sampled((b, a), (-1.0, -1.0), (-0.5, -0.5), (3, 4))


def test_a_stream_of_several_answers_gives_each_piece_its_tokens_and_passes_all_on(loaded):
    a, b = loaded.tokenizer.encode("a")[0], loaded.tokenizer.encode("b")[0]
    model = told(
        loaded, piece(1, [b], top_logprobs=(((b, -0.3),),)),
        piece(0, [a, b], top_logprobs=(((a, -0.1),), ((b, -0.2),)), finish_reason="stop", waited_s=0.5),
        piece(1, [a], top_logprobs=(((b, -0.4),),), finish_reason="length", waited_s=0.25),
    )  # fmt: skip

    async def streamed(prompt, **given):
        return [each async for each in model.stream_many(prompt, Sampling(max_tokens=3, top_logprobs=1), **given)]

    found = asyncio.run(streamed([a, b], n=2, priority=7, run="me/you", cache_salt="s"))
    request = model._shared.loaded.worker.asked[-1]
    assert (request.prompt, request.n, request.priority, request.owner, request.salt) == ((a, b), 2, 7, "me/you", "s")
    tops = ((("a", -0.1),), (("b", -0.2),))
    assert [
        (each.text, each.index, each.token_ids, each.logprobs, each.top_logprobs, each.waited_s) for each in found
    ] == [
        ("b", 1, (b,), (-1.0,), ((("b", -0.3),),), None),
        ("ab", 0, (a, b), (-1.0, -2.0), tops, None),
        ("", 0, (), (), (), 0.5),
        ("a", 1, (a,), (-1.0,), ((("b", -0.4),),), None),
        ("", 1, (), (), (), 0.25),
    ]
    assert [None if each.completion is None else each.completion.usage for each in found] == [
        None, None, Usage(2, 1, 2), None, Usage(0, 0, 2),
    ]  # fmt: skip
    assert found[2].completion.top_logprobs == tops and found[4].completion.message.text == "ba"
    short = told(loaded, piece(0, []), piece(0, [a]), piece(0, [], finish_reason="stop"))
    shown = asyncio.run(_all(short.stream("x", Sampling())))
    assert [(each.text, each.completion is None) for each in shown] == [("a", True), ("", False)]


async def _all(stream):
    return [each async for each in stream]


def test_the_calls_in_a_stream_come_as_calls_and_carry_their_tokens(loaded):
    wire = 'So <tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    ids = loaded.tokenizer.encode(wire)
    model = told(loaded, piece(0, ids[:2]), piece(0, ids[2:]), piece(0, [], finish_reason="stop"))
    model.free_calls = True
    found = asyncio.run(_all(model.stream_many([user("x")], Sampling(max_tokens=99), tools=[ADD])))
    assert "".join(each.text for each in found).strip() == "So"
    assert [each.token_ids for each in found if each.token_ids] == [tuple(ids[:2]), tuple(ids[2:])]
    calls = [each.call for each in found if each.call is not None]
    assert calls[0].name == "add" and "".join(each.arguments for each in calls) == '{"a": 1}'
    whole = found[-1].completion
    assert whole.finish_reason == "tool_calls" and [each.arguments for each in whole.message.tool_calls] == [{"a": 1}]
    assert [each.completion is None for each in found[:-1]] == [True] * (len(found) - 1)


def test_what_only_began_like_a_call_is_text_once_the_answer_is_over(loaded):
    ids = loaded.tokenizer.encode("a <tool_c")
    model = told(loaded, piece(0, ids[:-1]), piece(0, ids[-1:], finish_reason="length"))
    model.free_calls = True
    found = asyncio.run(_all(model.stream_many([user("x")], Sampling(max_tokens=99), tools=[ADD])))
    assert "".join(each.text for each in found) == found[-1].completion.message.text == "a <tool_c"
    assert found[0].text.strip() == "a" and not any(each.call for each in found)


def test_a_stream_tells_its_template_what_it_is_given(loaded):
    said = ChatTemplate(loaded.tokenizer, "{{ mood }}{% for message in messages %}{{ message.content }}{% endfor %}")
    model = told(replace(loaded, chat=said), piece(0, [], finish_reason="stop"))
    asyncio.run(_all(model.stream_many([user("x")], Sampling(), template={"mood": "calm"})))
    asyncio.run(_all(model.stream_many([user("x")], Sampling())))
    decode = loaded.tokenizer.decode
    assert [decode(each.prompt) for each in model._shared.loaded.worker.asked] == ["calmx", "x"]
    assert asyncio.run(model.tokenize([user("x")], template={"mood": "b"})) == loaded.tokenizer.encode("bx")
