"""A stream of a local model over an engine thread that is told its outputs: what it asks, its taps, and each output once."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, user
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.local_completions import new_request
from firsthand.system import request_owner
from firsthand.tokens.calls.call_grammar import tool_grammar
from test_providers_local_answers import ADD, loaded, piece, told

__all__ = ["loaded"]


def test_a_stream_is_asked_with_its_grammar_adapter_priority_owner_and_salt(loaded):
    asked = []

    class Compiling:
        known = None

        def find(self, grammar, *, forcing):
            asked.append(("find", grammar, forcing))
            return self.known

        def compile(self, grammar, *, forcing, owner):
            asked.append(("compile", grammar, forcing, owner))
            return "compiled"

        async def in_thread(self, make):
            return make()

    def request_of(sampling, prompt="Hi", known=None, free=False, **given):
        (a,) = loaded.tokenizer.encode("a")
        model = told(loaded, piece(0, [a], finish_reason="length"))
        model._shared.loaded = replace(model._shared.loaded, grammars=Compiling())
        model._shared.loaded.grammars.known = known
        model._shared.present.add("red")
        model.chosen, model.free_calls = "red", free

        async def all_of():
            return [each async for each in model.stream_many(prompt, sampling, **given)]

        found = asyncio.run(all_of())
        assert found[-1].completion.message.text == "a" == "".join(each.text for each in found)
        (request,) = model._shared.loaded.worker.asked
        return request

    words = Grammar("regex", "a+")
    given = {"priority": 4, "run": "ann/7", "cache_salt": "s"}
    request = request_of(Sampling(max_tokens=3, grammar=words, bad_words=("b",)), **given)
    assert (request.grammar, request.adapter, request.priority, request.owner, request.salt, request.n) == (
        "compiled", "red", 4, "ann/7", "s", 1,
    )  # fmt: skip
    assert asked == [("find", words, False), ("compile", words, False, "ann")]
    asked.clear()
    with request_owner.set_owner("bob/x"):
        known = request_of(Sampling(max_tokens=3, grammar=words), known="known", tools=[ADD])
    assert (known.grammar, known.owner, asked) == ("known", "bob/x", [("find", words, True)])
    asked.clear()
    tools = request_of(Sampling(max_tokens=3, allowed_token_ids=(1, 2)), [user("x")], tools=[ADD], run="eve")
    calls = tool_grammar([ADD], markup=loaded.chat.markup)
    assert tools.grammar == "compiled" and asked == [("compile", calls, False, "eve")]
    asked.clear()
    assert request_of(Sampling(max_tokens=3), [user("x")], tools=[ADD], free=True).grammar is None
    assert request_of(Sampling(max_tokens=3), [user("x")]).grammar is None and asked == []


def test_a_watched_request_has_the_monitors_tap_and_its_answers_their_scores(loaded):
    fits, model = [], told(loaded)
    monitor = SimpleNamespace(site="s", expect_fits=fits.append, scores=lambda values: [each * 2 for each in values])
    (a,) = loaded.tokenizer.encode("a")
    request, _ = new_request(loaded, [a, a], Sampling(), (), 2, None)
    held = model._shared.loaded
    same, plain = model._watched(held, request)
    answer = Completion(Message("assistant", (Text("x"),), Sampled((7, 8), (-1.0, -2.0))), "stop", Usage())
    assert same is request and plain(answer, 1) is answer and fits == []
    model.monitor = monitor
    watched, scored = model._watched(held, request)
    assert fits == [held.worker.engine.architecture] and watched.prompt == request.prompt and request.taps is None
    (tap,) = watched.taps.taps.values()
    assert list(watched.taps.taps) == ["s"] and watched.taps.edits is False
    tap([0.5, 1.5], range(0, 2), 0)
    tap([4.0], range(2, 3), 1)
    assert scored(answer, 1).message.sampled.monitor == (3.0, 8.0), "the prompt's last activation is shared"
    assert scored(answer, 0).message.sampled.monitor == (3.0, 0.0)


def test_each_output_of_a_stream_with_tools_gives_its_tokens_once_under_its_number(loaded):
    ids = loaded.tokenizer.encode('b<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>')
    (a,) = loaded.tokenizer.encode("a")

    def streamed(*outputs):
        model = told(loaded, *outputs)
        model.free_calls = True

        async def all_of():
            return [each async for each in model.stream_many([user("x")], Sampling(max_tokens=99), tools=[ADD], n=2)]

        return asyncio.run(all_of())

    single = [piece(1, [each], first=-float(at)) for at, each in enumerate(ids[:-1])]
    end = piece(1, ids[-1:], first=-99.0, finish_reason="stop")
    at_once = piece(1, ids, finish_reason="stop")
    for outputs in ([*single, end], [at_once]):
        found = streamed(piece(0, [a], finish_reason="length"), *outputs)
        ours = [each for each in found if each.index == 1]
        assert len(found) == len(ours) + 2 and ours == found[2:]
        assert sum((each.token_ids for each in ours), ()) == tuple(ids)
        given = [each.logprobs for each in outputs]
        assert [each.logprobs for each in ours if each.token_ids] == given
        calls = [each.call for each in ours if each.call is not None]
        assert calls[0].name == "add" and "".join(each.arguments for each in calls) == '{"a": 1}'
        assert "".join(each.text for each in ours) == "b" and ours[-1].completion.message.tool_calls[0].arguments == {
            "a": 1
        }
        assert all(each.completion is None for each in ours[:-1]) and not ours[-1].token_ids
