"""Answers of a local model over an engine thread that is told its outputs: whole, piece by piece, and with calls."""

import asyncio
import copy
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from firsthand.engine.core.outputs import Output
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, user
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers.local import Local
from firsthand.providers.local_calls import _is_readable, compile_calls
from firsthand.providers.local_completions import Loaded, SourceFormat, new_request
from firsthand.system import request_owner
from firsthand.tokens import pretrained
from firsthand.tokens.calls.call_grammar import tool_grammar
from firsthand.tokens.templates.chat_template import ChatTemplate
from tiny import write_tokenizer

ADD = ToolSpec("add", "Adds.", {"type": "object"})


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder)
    tokenizer = pretrained.load(folder)
    return Loaded(None, tokenizer, ChatTemplate(tokenizer, tokenizer.chat_template), SimpleNamespace())


class TellingWorker:
    """An engine thread that is told its outputs, and keeps its requests."""

    def __init__(self, *told: Output) -> None:
        self.told, self.asked, self.engine = (
            told,
            [],
            SimpleNamespace(architecture=SimpleNamespace(max_position=64, vocab_size=999)),
        )

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


def test_an_answer_says_whether_control_tokens_stand_before_its_end(loaded):
    tokenizer = loaded.tokenizer
    (a,), end, start = tokenizer.encode("a"), tokenizer.id_of("<|im_end|>"), tokenizer.id_of("<|im_start|>")

    def has_control(ids, reason, tools=(), **given):
        model = told(loaded, piece(0, ids, finish_reason=reason))
        model.free_calls = True
        (found,) = asyncio.run(model.complete([user("x")], Sampling(max_tokens=99, **given), tools=tools))
        return found.has_control

    assert not has_control([a, a], "length") and not has_control([a, end], "stop") and not has_control([], "stop")
    assert has_control([a, start], "length") and has_control([start, a, end], "stop")
    assert has_control([end, end], "stop") and has_control([a, end], "length", ignore_eos=True)
    assert has_control([a, start, end], "stop", skip_special_tokens=False), "no text is encoded to them"
    call = tokenizer.encode('<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', special=True)
    assert not has_control([*call, end], "stop", [ADD]) and has_control([*call, start, end], "stop", [ADD])


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
    assert [each.prompt_tokens for each in found] == [2, 2, None, None, None], (
        "told with the first piece of each answer"
    )
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


def test_each_of_several_answers_has_calls_of_its_own_however_their_pieces_alternate(loaded):
    wires = [
        f'{said} <tool_call>\n{{"name": "add", "arguments": {{"a": {n}}}}}\n</tool_call>'
        for n, said in enumerate(("So", "No"))
    ]
    ids = [loaded.tokenizer.encode(wire) for wire in wires]
    assert len(ids[0]) > 9 < len(ids[1])
    outputs = [
        piece(index, ids[index][part]) for part in (slice(0, 3), slice(3, 9), slice(9, None)) for index in (0, 1)
    ]
    model = told(loaded, *outputs, piece(1, [], finish_reason="stop"), piece(0, [], finish_reason="length"))
    model.free_calls = True
    found = asyncio.run(_all(model.stream_many([user("x")], Sampling(max_tokens=99), tools=[ADD], n=2)))
    for index, said in enumerate(("So", "No")):
        own = [each for each in found if each.index == index]
        assert "".join(each.text for each in own).strip() == said
        calls = [each.call for each in own if each.call is not None]
        assert (calls[0].index, calls[0].name, "".join(each.arguments for each in calls)) == (
            0,
            "add",
            f'{{"a": {index}}}',
        )
        assert [id for each in own for id in each.token_ids] == ids[index] and own[-1].completion is not None
        assert [each.arguments for each in own[-1].completion.message.tool_calls] == [{"a": index}]
        assert own[-1].completion.usage == Usage(*((2, 1) if index == 0 else (0, 0)), len(ids[index]))
    assert model._shared.loaded.worker.asked[0].n == 2


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


@pytest.mark.parametrize(("reason", "told_reason"), [("length", "length"), ("stop", "tool_calls")])
def test_an_answer_cut_within_a_call_ends_by_its_length(loaded, reason, told_reason):
    ids = loaded.tokenizer.encode('<tool_call>\n{"name": "add", "arguments": {"a"\n</tool_call>')
    model = told(loaded, piece(0, ids, finish_reason=reason))
    model.free_calls = True
    (answer,) = asyncio.run(model.complete([user("x")], Sampling(max_tokens=99), tools=[ADD]))
    (call,) = answer.message.tool_calls
    assert call.invalid is not None and (answer.finish_reason, answer.message.text) == (told_reason, "")


def test_the_longest_mark_of_a_raw_text_counts(loaded):
    model, end = told(loaded), loaded.tokenizer.token_id("<|im_end|>")
    found = asyncio.run(model.tokenize_marked("a<|im_end|><b", {"<", "<|im_end|>", "<|im"}))
    plain = loaded.tokenizer.encode
    assert found[:2] == [*plain("a"), end] and loaded.tokenizer.decode(found[2:]) == "<b"
    assert model.token_id("<|im_end|>") == end and model.token_id("none") is None and end in model.end_ids
    assert model.spell(plain("aé")) == [loaded.tokenizer.token_bytes(each) for each in plain("aé")]
    assert b"".join(model.spell(plain("aé"))) == "aé".encode()


class CheckedGrammars:
    """Compiles what has none of the forbidden words, and keeps what it was asked."""

    def __init__(self, *forbidden: str) -> None:
        self.forbidden, self.asked = forbidden, []

    def compile(self, grammar, **given):
        self.asked.append((grammar.source, given))
        if any(word in grammar.source for word in self.forbidden):
            raise ConfigError("no")
        return ("compiled", grammar.source)


COSTLY = ToolSpec("find", "Finds.", {"type": "object", "properties": {"q": {"pattern": "x+y", "maxLength": 3}}})
BAD = ToolSpec("bad", "Bad.", {"type": "object", "properties": {"unreadable": {"type": "integer"}}})


def test_a_schema_that_cannot_be_compiled_allows_any_object_of_its_tool_alone():
    def source(*tools):
        return tool_grammar(tools, markup="hermes").source

    loose = replace(BAD, parameters={"type": "object"})
    grammars = CheckedGrammars()
    assert compile_calls(grammars, [ADD, BAD], "hermes", owner="me") == ("compiled", source(ADD, BAD))
    assert grammars.asked == [(source(ADD, BAD), {"forcing": True, "owner": "me"})]
    partly = CheckedGrammars("unreadable")
    assert compile_calls(partly, [ADD, BAD], "hermes", False) == ("compiled", source(ADD, loose))
    assert [each for each, _ in partly.asked] == [source(ADD, BAD), source(ADD), source(BAD), source(ADD, loose)]
    assert all(given == {"forcing": False, "owner": ""} for _, given in partly.asked)
    with pytest.raises(ConfigError, match=r"^no$"):
        compile_calls(CheckedGrammars("add", "bad"), [ADD, BAD], "hermes")


def test_each_tool_is_tried_in_its_models_markup_while_there_is_time_and_all_are_loose_if_nothing_else_helps():
    def source(*tools):
        return tool_grammar(tools, markup="mistral").source

    def loose(tool):
        return replace(tool, parameters={"type": "object"})

    partly = CheckedGrammars("unreadable")
    assert compile_calls(partly, [COSTLY, BAD, ADD], "mistral") == ("compiled", source(COSTLY, loose(BAD), ADD))
    singly = [source(COSTLY, BAD, ADD), source(COSTLY), source(BAD), source(ADD)]
    assert [each for each, _ in partly.asked] == [*singly, source(COSTLY, loose(BAD), ADD)]

    class Crowded(CheckedGrammars):
        """Compiles tools that have a schema one by one alone."""

        def compile(self, grammar, **given):
            self.asked.append((grammar.source, given))
            if grammar.source in (source(COSTLY, ADD, BAD), source(COSTLY, ADD, loose(BAD)), source(BAD)):
                raise ConfigError("no")
            return ("compiled", grammar.source)

    crowded = Crowded()
    assert compile_calls(crowded, [COSTLY, ADD, BAD], "mistral", owner="me") == (
        "compiled",
        source(loose(COSTLY), loose(ADD), loose(BAD)),
    )
    assert all(given == {"forcing": True, "owner": "me"} for _, given in crowded.asked) and len(crowded.asked) == 6


def test_once_its_time_is_over_only_a_cheap_tool_is_tried():
    tried = []

    def compiled(grammar):
        tried.append(grammar.source)
        if "unreadable" in grammar.source:
            raise ConfigError("no")

    over, begun = 0.0, time.monotonic() + 60
    for tool, ends, readable, count in (
        (ADD, over, True, 1), (COSTLY, over, False, 0), (COSTLY, begun, True, 1), (BAD, begun, False, 1),
        (BAD, over, False, 1),
    ):  # fmt: skip
        tried.clear()
        assert (_is_readable(compiled, tool, "hermes", ends), len(tried)) == (readable, count), (tool.name, ends)


def begun(loaded, prompt, **settings):
    """The request, an answer of it and the stopper of its engine, and the texts of single tokens."""
    with_worker = replace(loaded, worker=TellingWorker())
    request, new = new_request(with_worker, prompt, Sampling(**settings), (), 1, None)
    return request, new(), request.stopper() if request.stopper else None


def test_an_answers_text_is_read_as_its_request_was_asked(loaded):
    tokenizer = loaded.tokenizer
    a, b = (tokenizer.encode(each)[0] for each in "ab")
    end = tokenizer.token_id("<|im_end|>")
    _, early, engines = begun(loaded, "Hi", stop=("b",), min_tokens=2)
    assert early.add(piece(0, [b, a, b, a], finish_reason="length"), tokenizer) == "ba" and early.stop.stopped == "b"
    assert [engines.feed(each) for each in (b, a, b)] == [False, False, True]
    _, at_once, _ = begun(loaded, "Hi", stop=("b",), min_tokens=0, include_stop_str_in_output=True)
    assert at_once.add(piece(0, [a, b], finish_reason="stop"), tokenizer) == "ab"
    _, shown, _ = begun(loaded, "Hi", skip_special_tokens=False)
    assert shown.add(piece(0, [a, end], finish_reason="length"), tokenizer) == "a<|im_end|>"
    request, plain, none = begun(loaded, [user("Hi")])
    assert plain.add(piece(0, [a, end], finish_reason="length"), tokenizer) == "a" and none is None
    assert request.prompt == tuple(loaded.chat.encode([user("Hi")], ()))


def test_an_answer_goes_on_from_plain_text_or_in_a_grammar_and_begins_after_messages(loaded):
    grammar = Grammar("regex", "a+")

    def continues(prompt, sampling, sources=None):
        _, new = new_request(replace(loaded, sources=sources), prompt, sampling, (), 1, None)
        return not new().stop._decoder._strip

    sources = SourceFormat((1,), (2,), (3,))
    tokenizer = copy.copy(loaded.tokenizer)
    tokenizer._strips_space = True
    loaded = replace(loaded, worker=TellingWorker(), tokenizer=tokenizer)
    for prompt, sampling, form, expected in (
        ("Hi", Sampling(), None, True), ([5, 6], Sampling(), None, True), ([user("a")], Sampling(), None, False),
        ([user("a")], Sampling(grammar=grammar), None, True), ("Hi", Sampling(), sources, False),
        ("Hi", Sampling(grammar=grammar), sources, True),
    ):  # fmt: skip
        assert continues(prompt, sampling, form) is expected, (prompt, sampling.grammar, form)


def test_the_last_of_several_calls_decides_whether_an_answer_was_cut_within_one(loaded):
    good = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    bad = '<tool_call>\n{"name": "add", "arguments": {"a"\n</tool_call>'
    for wire, reason in (
        (f"{good}\n{bad}", "length"),
        (f"{bad}\n{good}", "tool_calls"),
        (f"{good}\n{good}", "tool_calls"),
    ):
        model = told(loaded, piece(0, loaded.tokenizer.encode(wire), finish_reason="length"))
        model.free_calls = True
        (answer,) = asyncio.run(model.complete([user("x")], Sampling(max_tokens=999), tools=[ADD]))
        assert len(answer.message.tool_calls) == 2 and answer.finish_reason == reason


def test_an_adapter_that_no_request_has_loaded_yet_can_be_taken_away_once(loaded, tmp_path):
    model = told(loaded)
    model._shared.adapters["red"] = tmp_path
    asyncio.run(model.unload_adapter("red"))
    assert model.adapters == {}
    with pytest.raises(ConfigError, match=r"^no adapter 'red' is beside m$"):
        asyncio.run(model.unload_adapter("red"))
