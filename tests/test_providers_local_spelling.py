"""How a local model's forbidden words are spelled, whose request it is, and what becomes of an answer with calls."""

from types import SimpleNamespace

import pytest

from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, ModelError
from firsthand.message import Sampled, Text, ToolCall, user
from firsthand.model import CallDelta, Delta, Sampling, ToolSpec, Usage
from firsthand.providers.local_completions import (
    completion,
    deltas,
    encode,
    encode_pair,
    is_long,
    new_request,
)
from firsthand.providers.request_preparation import bad_sequences
from firsthand.system import request_owner
from firsthand.tokens.generation_limits import NO_LIMITS

ADD = ToolSpec("add", "Adds.", {"type": "object"})
CALL, BROKEN = ToolCall("call_0", "add", {}), ToolCall("call_1", "add", {}, "{")


class Spelling:
    """A tokenizer of one token for each letter, which begins a text with 1 unless it goes on in one."""

    eos_ids = frozenset({9})

    def encode_runs(self, runs, *, continuing=False):
        ((text, trusted),) = runs
        assert not trusted
        return [] if text == "#" else [*([] if continuing else [1]), *map(ord, text)]


def test_a_forbidden_word_is_spelled_at_the_beginning_and_within_with_and_without_a_blank():
    def spelled(word):
        letters = [tuple(map(ord, word)), tuple(map(ord, f" {word}"))]
        return tuple(sorted({*letters, *((1, *each) for each in letters)}))

    assert bad_sequences(Spelling(), ["  no "]) == spelled("no ")
    assert bad_sequences(Spelling(), ["b", "a", " b"]) == (*spelled("b"), *spelled("a"))
    assert bad_sequences(Spelling(), ()) == ()
    with pytest.raises(ConfigError) as refused:
        bad_sequences(Spelling(), ["a", "#"])
    told = "the word '#' of bad_words has no tokens in this model's vocabulary: leave it out"
    assert str(refused.value) == told


def test_a_request_is_of_the_run_that_it_names_or_of_whoever_asks():
    loaded = SimpleNamespace(
        tokenizer=Spelling(), sources=None, chat=SimpleNamespace(has_channels=False), limits=NO_LIMITS
    )
    for run, owner in (("", "ann"), ("me", "me")):
        with request_owner.set_owner("ann"):
            request, _ = new_request(loaded, [5], Sampling(), (), 1, None, run=run)
        assert request == Request(prompt=(5,), sampling=Sampling(), n=1, stop_ids=frozenset({9}), owner=owner)
    sources = SimpleNamespace(
        tokenizer=Spelling(), sources=SimpleNamespace(starts=(7, 8)), chat=loaded.chat, limits=NO_LIMITS
    )
    request, _ = new_request(sources, [5, 6], Sampling(), (), 1, None, "red", 2, "me", "salt")
    assert (request.prompt, request.source, request.adapter, request.priority, request.salt) == (
        (7, 8), (5, 6), "red", 2, "salt",
    )  # fmt: skip


def test_calls_are_read_where_there_are_tools_and_one_that_was_cut_is_no_end_by_calls():
    asked, leased = [], []

    def made(text, calls, reason, tools=(ADD,), *, raw="raw", kept=2, stopped="X", last=7, source=(), is_first=True):
        def parse(given, of, *, thought):
            assert thought.feed("t") == ("", "t"), "the prompt opens none"
            asked.append((given, of))
            return text, calls

        def lease(ids, *, adapter, salt):
            leased.append((ids, adapter, salt))
            return "lease"

        tokenizer = SimpleNamespace(
            has_control=lambda ids, calls: False, eos_ids=frozenset({8}), token_bytes=lambda id: b"t"
        )
        chat, worker = SimpleNamespace(parse=parse), SimpleNamespace(lease=lease)
        loaded = SimpleNamespace(chat=chat, worker=worker, tokenizer=tokenizer)
        output = Output(0, 0, (), (), True, finish_reason=reason, prompt_tokens=4, cached_tokens=3, adapter_version=6)
        answer = SimpleNamespace(
            last=output, text=raw, kept=kept, token_ids=[5, 6, last], logprobs=[-1.0, -2.0, -3.0],
            behaviour_logprobs=[-0.1, -0.2, -0.3], versions=[1, 1, 2], top_logprobs=[("a",), ("b",), ("c",)],
            stop=SimpleNamespace(stopped=stopped, channels=None),
        )  # fmt: skip
        request = Request(
            prompt=(1, 2), sampling=Sampling(), stop_ids=frozenset({8, 9}), adapter="red", salt="s", source=source
        )
        return completion(loaded, request, answer, tools, is_first)

    whole = made("said", (CALL,), "stop")
    assert whole.message.parts == (Text("said"), CALL) and whole.finish_reason == "tool_calls"
    assert asked == [("raw", (ADD,))] and leased == [((1, 2, 5, 6), "red", "s")]
    assert whole.message.sampled == Sampled((5, 6), (-1.0, -2.0), (-0.1, -0.2), (1, 1))
    assert (whole.usage, whole.prompt_ids, whole.adapter_version) == (Usage(4, 3, 3), (1, 2), 6)
    assert (whole.stop_string, whole.lease, whole.top_logprobs) == ("X", "lease", (("a",), ("b",)))
    for text, calls, reason, parts, ended in (
        ("", (CALL,), "stop", (CALL,), "tool_calls"), ("", (), "stop", (Text(""),), "stop"),
        ("", (CALL,), "length", (CALL,), "tool_calls"), ("", (BROKEN,), "stop", (BROKEN,), "stop"),
        ("", (CALL, BROKEN), "length", (CALL, BROKEN), "length"), ("t", (BROKEN, CALL), "length", None, "tool_calls"),
        ("t", (), "length", (Text("t"),), "length"),
    ):  # fmt: skip
        found = made(text, calls, reason, raw="raw {\n")
        assert found.message.parts == (parts or (Text("t"), BROKEN, CALL)) and found.finish_reason == ended
    for raw, stopped, last, reason, ended in (
        ("{", None, 7, "stop", "tool_calls"), ("{", None, 8, "stop", "tool_calls"),  # 8 ends every answer
        ("{", None, 9, "stop", "stop"), ("{</tool_call>", None, 9, "stop", "tool_calls"),  # 9 was asked for
        ("{</tool_call>\n", "X", 7, "stop", "tool_calls"), ("{</tool_call>", None, 7, "length", "length"),
    ):  # fmt: skip
        found = made("", (BROKEN,), reason, raw=raw, stopped=stopped, last=last)
        assert found.finish_reason == ended, "a call that ended before the answer was cut is broken in itself"
    asked.clear()
    bare = made("no", (CALL,), "stop", (), is_first=False)
    assert bare.message.parts == (Text("raw"),) and bare.usage == Usage(0, 0, 3) and asked == []
    leased.clear()
    read = made("t", (), "stop", source=(3, 3, 3, 3, 3))
    assert (read.usage, read.prompt_ids, read.lease, leased) == (Usage(5, 3, 3), (3, 3, 3, 3, 3), None, [])


def test_pieces_bear_the_number_of_their_answer_and_empty_texts_are_none():
    call = CallDelta(1, "c", "add")
    assert list(deltas(["", "a", call, "", "b"], 3)) == [
        Delta("a", index=3), Delta("", call=call, index=3), Delta("b", index=3),
    ]  # fmt: skip
    assert list(deltas([], 3)) == []


def test_what_may_take_long_to_encode_is_known_by_its_kind_and_length():
    for prompt, long in (
        ("a" * 2048, False), ("a" * 2049, True), ([user("a")], True), ([], False), ([5, user("a")], False),
        (list(range(3000)), False),
    ):  # fmt: skip
        assert is_long(prompt) is long
    loaded = SimpleNamespace(tokenizer=None, sources=SimpleNamespace(encode=lambda *given: given), context=12)
    assert encode(loaded, "a") == (None, "a", 12)
    with pytest.raises(ConfigError) as refused:
        encode(loaded, "a", [ADD])
    assert str(refused.value) == "an encoder-decoder takes no tools: leave them out, or ask a chat model"


def test_a_prompt_begins_with_the_models_own_token_where_it_needs_one_and_is_read_up_to_the_context():
    asked = []

    def loaded_of(add_bos, bos, eos):
        def read(text, *, most=None):
            asked.append((text, most))
            return [ord(letter) for letter in text]

        def runs_behind(runs, *, after):
            return [after[0], *read("".join(run.text for run in runs))]

        start = eos if bos is None else bos

        def prompt(text, *, most):
            return [*([start] if add_bos and start is not None else []), *read(text, most=most)]

        tokenizer = SimpleNamespace(encode=read, encode_prompt=prompt, encode_runs=runs_behind, start_id=start)
        chat = SimpleNamespace(encode=lambda messages, tools: [77, len(messages), len(tools)])
        return SimpleNamespace(tokenizer=tokenizer, sources=None, chat=chat, context=12)

    for add_bos, bos, eos, text, ids in (
        (True, 0, 3, "a", (0, 97)), (True, None, 0, "a", (0, 97)), (True, None, None, "a", (97,)),
        (False, 1, 3, "ab", (97, 98)), (False, 1, 3, "", (1,)), (False, None, 3, "", (3,)), (True, 1, 3, "", (1,)),
    ):  # fmt: skip
        assert encode(loaded_of(add_bos, bos, eos), text) == ids
    assert asked[0] == ("a", 12) and len(asked) == 7
    with pytest.raises(ModelError) as refused:
        encode(loaded_of(False, None, None), "")
    assert str(refused.value) == "the prompt is empty, and the model has no token to begin with: give some text"
    talk = [user("a"), user("b")]
    assert encode(loaded_of(True, 1, 2), talk, [ADD]) == (77, 2, 1)
    assert encode_pair(loaded_of(True, 1, 2), talk, "cd") == ((77, 2, 0), [77, 99, 100])
    for add_bos, prompt, continuation, pair in (
        (False, "a  ", "b", ((97,), [32, 32, 98])), (True, "a", " b", ((1, 97), [32, 98])), (False, "", "b", ((1,), [98])),
        (True, "", "b", ((1,), [98])), (False, "  ", "b", ((1,), [32, 32, 98])),
        (False, "a\n", "b", ((97, 10), [98])), (False, " a", "b", ((32, 97), [98])),
        (False, "a\n ", "b", ((97, 10), [32, 98])),
    ):  # fmt: skip
        assert encode_pair(loaded_of(add_bos, 1, 2), prompt, continuation) == pair
