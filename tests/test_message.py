import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand.loop.request_key import request_key
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, canonical
from firsthand.model import Completion, Sampling, Usage

words = st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
parts = st.one_of(
    st.builds(Text, words),
    st.builds(ToolCall, words, words, st.dictionaries(words, json_values, max_size=3), st.none() | words),
    st.builds(ToolResult, words, words, words, st.booleans()),
)


@st.composite
def sampled(draw):
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 200_000), st.floats(-50, 0), st.floats(-50, 0), st.integers(0, 2)), max_size=5
        )
    )
    ids, logprobs, behaviour, versions = (tuple(row[place] for row in rows) for place in range(4))
    behaviour = draw(st.sampled_from([None, behaviour, logprobs, (0.0,) * len(rows)]))
    return Sampled(ids, logprobs, behaviour, draw(st.sampled_from([None, versions, (3,) * len(rows)])))


messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(parts, max_size=4).map(tuple),
    st.none() | sampled(),
)


@pytest.mark.slow
@given(messages)
def test_a_message_survives_json(message):
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message


@pytest.mark.slow
@given(
    messages,
    st.sampled_from(["stop", "length", "tool_calls"]),
    st.integers(0, 10**6),
    st.sampled_from([None, (), (5, 6)]),
)
def test_a_completion_survives_json(message, reason, tokens, prompt):
    tops = ((("a", -0.5), ("b", -1.0)),)
    completion = Completion(message, reason, Usage(tokens, 0, tokens), tops, prompt_ids=prompt)
    assert Completion.from_json(json.loads(json.dumps(completion.to_json()))) == completion


def test_log_probs_and_versions_that_say_little_are_stored_as_little():
    ids, logprobs = tuple(range(1000)), tuple(-0.001 * place for place in range(1000))
    bare = len(json.dumps(Sampled(ids, logprobs).to_json()))
    for behaviour in (logprobs, (0.0,) * 1000):
        assert len(json.dumps(Sampled(ids, logprobs, behaviour, (4,) * 1000).to_json())) < bare + 80
    for behaviour in ((0.0, -1.0), (-1.0, 0.0), (-1.0, -1.0), (-0.5, -0.25), (0.0, 0.0)):
        drawn = Sampled((1, 2), (-0.5, -0.25), behaviour)
        assert Sampled.from_json(json.loads(json.dumps(drawn.to_json()))) == drawn
    assert Completion(
        Message("assistant", (), Sampled((1, 2, 3), (0.0,) * 3, None, (4, 4, 5))), "stop", Usage()
    ).versions == (4, 5)


def test_text_leaves_out_tool_calls():
    message = assistant("thinking", ToolCall("1", "add", {"a": 1}))
    assert message.text == "thinking"
    assert [call.name for call in message.tool_calls] == ["add"]
    assert assistant("", ToolCall("1", "add", {})).parts == (ToolCall("1", "add", {}),)


@pytest.mark.slow
@given(st.dictionaries(words, json_values, max_size=5))
def test_equal_objects_have_equal_canonical_text(body):
    backwards = dict(reversed(body.items()))
    assert canonical(body) == canonical(backwards)


def test_every_part_of_a_request_decides_its_key():
    base = request_key("m", "hello", Sampling())
    others = [
        request_key("n", "hello", Sampling()),
        request_key("m", "hello!", Sampling()),
        request_key("m", "hello", Sampling(seed=1)),
        request_key("m", "hello", Sampling(), n=2),
        request_key("m", "hello", None),
        request_key("m", "hello", Sampling(), continuations=["a"]),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_a_key_is_the_same_in_every_process():
    code = "from firsthand.loop.request_key import *; print(request_key('m', 'héllo', Sampling(stop=('a',))))"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert elsewhere == request_key("m", "héllo", Sampling(stop=("a",)))


def test_how_tokens_were_drawn_and_by_which_weights_decides_no_answer():
    said = Message("assistant", (Text("a"),), Sampled((1, 2), (-0.5, -0.25)))
    drawn = Message("assistant", (Text("a"),), Sampled((1, 2), (-0.5, -0.25), (-0.1, 0.0), (3, 3)))
    assert request_key("m", [said], Sampling()) == request_key("m", [drawn], Sampling())
    other = Message("assistant", (Text("a"),), Sampled((1, 3), (-0.5, -0.25)))
    assert request_key("m", [said], Sampling()) != request_key("m", [other], Sampling())
