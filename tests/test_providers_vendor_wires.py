"""What is sent to Anthropic's and Google's own APIs and read from them, field by field."""

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Sampling, ToolSpec, Usage
from firsthand.providers import anthropic_wire, google_wire
from firsthand.providers.finish_reasons import FailedAnswer
from firsthand.providers.google import _retry_delay, _seeded

ADD = ToolSpec("add", "Adds.", {"type": "object"})
CALL, BROKEN = ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "sub", {}, "{")
THOUGHT = Reasoning("hm", {"type": "thinking", "thinking": "hm", "signature": "s"})
SIGNED = Reasoning("", {"thoughtSignature": "sig"})


@pytest.mark.parametrize(
    ("start", "end", "usage"),
    [
        ((10, 1000, 200, 1), (0, 0, 0, 50), (1210, 1000, 50, 200)),
        ((10, 1000, 200, 1), (None, None, None, 50), (1210, 1000, 50, 200)),
        ((10, 1000, 200, 9), (10, None, None, 0), (1210, 1000, 9, 200)),
        ((10, 0, 0, 1), (None, 1000, None, 50), (1010, 1000, 50, 0)),
        ((0, 0, 0, 0), (10, 1000, 200, 50), (1210, 1000, 50, 200)),
        ((1210, 0, 0, 1), (10, 1000, 200, 50), (1210, 1000, 50, 200)),
        ((1209, 0, 0, 1), (10, 1000, 200, 50), (1210, 1000, 50, 200)),
        ((1211, 0, 0, 1), (10, 1000, 200, 50), (1211, 0, 50, 0)),
    ],
)
def test_counts_of_an_anthropic_stream_only_grow_and_those_of_the_prompt_are_one(start, end, usage):
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    stream = anthropic_wire.MessageStream()
    stream.add({"type": "message_start", "message": {"usage": dict(zip(names, start, strict=True))}})
    stream.add(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": dict(zip(names, end, strict=True))}
    )
    prompt, cached, answer, written = usage
    assert stream.usage == Usage(prompt, cached, answer, cache_write_tokens=written) == stream.completion().usage


@pytest.mark.parametrize("end", [{}, {"promptTokenCount": 0, "cachedContentTokenCount": 0}, None])
def test_counts_of_a_google_stream_are_not_erased_by_an_end_without_them(end):
    stream = google_wire.CandidateStream()
    stream.add({"usageMetadata": {"promptTokenCount": 9, "cachedContentTokenCount": 4, "candidatesTokenCount": 1}})
    last = None if end is None else {**end, "candidatesTokenCount": 5}
    stream.add({"candidates": [{"finishReason": "STOP"}], "usageMetadata": last})
    assert stream.usage == Usage(9, 4, 1 if end is None else 5)


def test_an_anthropic_request_holds_what_was_asked_and_no_more():
    def body_of(conversation, sampling=None, tools=(), stream=False):
        return anthropic_wire.request("m", conversation, sampling or Sampling(max_tokens=5), tools, stream=stream)

    said = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert body_of([user("Hi")]) == {"model": "m", "max_tokens": 5, "messages": said}
    sampling = Sampling(max_tokens=5, stop=("a", "b"), grammar=Grammar("json_schema", '{"type": "object"}'))
    full = body_of([system("S"), system(""), system("T"), user("Hi")], sampling, [ADD], stream=True)
    assert full == {
        "model": "m",
        "max_tokens": 5,
        "messages": said,
        "system": "S\n\nT",
        "tools": [{"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}],
        "stop_sequences": ["a", "b"],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "stream": True,
    }
    called = body_of([user("Hi"), assistant("", CALL, BROKEN, CALL), Message("tool", (ToolResult("c1", "add", "3"),))])
    assert called["tools"] == [{"name": name, "input_schema": {"type": "object"}} for name in ("add", "sub")]
    assert called["tool_choice"] == {"type": "none"}
    for source, schema in (("true", {}), ("false", {"not": {}})):
        formed = body_of([user("Hi")], Sampling(grammar=Grammar("json_schema", source)))
        assert formed["output_config"]["format"]["schema"] == schema
    with pytest.raises(ConfigError, match=r"the stop string '\\n' is white space, which Anthropic's API refuses"):
        body_of([user("Hi")], Sampling(stop=("a", "\n")))


def test_anthropic_turns_alternate_and_results_come_first():
    conversation = [
        user("Hi"),
        user(" "),
        user("there"),
        assistant("", CALL, BROKEN),
        Message("tool", (Text("beside"), ToolResult("c1", "add", "3"), ToolResult("c2", "sub", "no", True))),
        user("go"),
        system("A"),
        system("B"),
        Message("user", (THOUGHT, Text("x"))),
        Message("assistant", (THOUGHT, SIGNED, Text("So \n"), Text("far  "))),
    ]
    text = lambda said: {"type": "text", "text": said}  # noqa: E731
    assert anthropic_wire.messages(conversation) == [
        {"role": "user", "content": [text("Hi"), text("there")]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "sub", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "3"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "no", "is_error": True},
                text("beside"),
                text("go"),
            ],
        },
        {"role": "system", "content": [text("A")]},
        {"role": "system", "content": [text("B")]},
        {"role": "user", "content": [text("x")]},
        {"role": "assistant", "content": [THOUGHT.state, text("So \n"), text("far")]},
    ]
    assert anthropic_wire.messages([]) == []
    ends_in_call = anthropic_wire.messages([assistant("a ", CALL)])
    assert ends_in_call[0]["content"][0] == text("a ")


def test_an_anthropic_reply_is_read_block_by_block():
    blocks = [
        {"type": "thinking", "thinking": "h\ud800", "signature": "s", "n": 3},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "Hi"},
        {"type": "server_tool_use", "name": "search"},
        {"type": "tool_use", "id": "c", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "name": "add", "input": "{"},
    ]
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5, "output_tokens": 6}
    found = anthropic_wire.read_completion({"content": blocks, "stop_reason": "end_turn", "usage": usage})
    assert found == Completion(
        Message(
            "assistant",
            (
                Reasoning("h\ufffd", {"type": "thinking", "thinking": "h\ufffd", "signature": "s"}),
                Reasoning("", {"type": "redacted_thinking", "data": "d"}),
                Text("Hi"),
                ToolCall("c", "add", {"a": 1}),
                ToolCall("call_6", "add", {}, "{"),
            ),
        ),
        "tool_calls",
        Usage(12, 4, 6, cache_write_tokens=5),
    )
    for given, calls, expected in (
        ("stop_sequence", 0, "stop"),
        ("max_tokens", 1, "length"),
        ("model_context_window_exceeded", 0, "length"),
        ("refusal", 1, "content_filter"),
        ("stop_sequence", 1, "tool_calls"),
    ):
        content = blocks[5:6] * calls
        read = anthropic_wire.read_completion({"content": content, "stop_reason": given, "stop_sequence": "X"})
        assert (read.finish_reason, read.stop_string) == (expected, "X")
        assert read.message.parts == ((ToolCall("c", "add", {"a": 1}),) if calls else (Text(""),))
    with pytest.raises(FailedAnswer):
        anthropic_wire.read_completion({"content": [], "stop_reason": "tool_use"})
    assert (
        anthropic_wire.read_completion({"content": [], "stop_reason": "end_turn", "stop_sequence": 3}).stop_string
        is None
    )
    odd = anthropic_wire.read_completion({"content": [{"type": "text", "text": 3}, {"type": "text", "text": "a"}]})
    assert odd.message.parts == (Text("a"),)
    only_thought = anthropic_wire.read_completion({"content": blocks[1:2], "stop_reason": "end_turn"})
    assert only_thought.message.parts[1:] == (Text(""),)
    for body, said in (
        ({}, "no content but nothing: check"),
        ({"content": [3], "id": 1}, "no content but content, id: "),
    ):
        with pytest.raises(ModelError, match=said):
            anthropic_wire.read_completion(body)


def test_an_anthropic_stream_is_put_together():
    stream = anthropic_wire.MessageStream()

    def add(kind, **fields):
        return stream.add({"type": kind, **fields})

    def piece(index, kind, **fields):
        return add("content_block_delta", index=index, delta={"type": kind, **fields})

    add("message_start", message={"usage": {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 2}})
    assert add("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}) == ""
    assert piece(0, "thinking_delta", thinking="h") + piece(0, "thinking_delta", thinking="m") == ""
    assert piece(0, "signature_delta", signature="s") == ""
    assert add("content_block_start", index=1, content_block={"type": "text", "text": "H"}) == "H"
    assert piece(1, "text_delta", text="i") == "i"
    assert piece(1, "text_delta", text=3) == piece(1, "odd_delta", text="x") == ""
    add("content_block_start", index=3, content_block={"type": "tool_use", "id": "a", "name": "f", "input": {}})
    piece(3, "input_json_delta", partial_json="")
    piece(3, "input_json_delta", partial_json='{"x"')
    piece(3, "input_json_delta", partial_json=": 1}")
    add("content_block_start", index=4, content_block={"type": "tool_use", "name": "g", "input": {}})
    add("content_block_start", index=5, content_block={"type": "tool_use", "name": 3, "input": {}})
    assert piece(2, "text_delta", text="!") == "!"  # a block that was not begun
    assert stream.take_calls() == [
        CallDelta(0, "a", "f"),
        CallDelta(0, arguments='{"x"'),
        CallDelta(0, arguments=": 1}"),
        CallDelta(1, "call_4", "g"),
    ]
    assert stream.take_calls() == []
    add("message_delta", delta={"stop_reason": "stop_sequence", "stop_sequence": "X"}, usage={"output_tokens": 9})
    add("message_delta", delta={"stop_reason": None}, usage={"input_tokens": None})
    assert not stream.finished
    add("message_stop")
    assert stream.finished
    whole = stream.completion()
    assert whole.message.parts == (
        Reasoning("hm", {"type": "thinking", "thinking": "hm", "signature": "s"}),
        Text("Hi"),
        Text("!"),
        ToolCall("a", "f", {"x": 1}),
        ToolCall("call_4", "g", {}),
        ToolCall("call_5", "", {}),
    )
    assert (whole.finish_reason, whole.usage, whole.stop_string) == ("tool_calls", Usage(9, 2, 9), "X")


def test_blocks_of_anthropic_that_share_an_index_are_all_in_the_answer():
    stream = anthropic_wire.MessageStream()

    def begin(index, **block):
        return stream.add({"type": "content_block_start", "index": index, "content_block": block})

    def piece(index, kind, **fields):
        return stream.add({"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}})

    told = piece(0, "text_delta", text="zero ") + begin(0, type="text", text="one ")
    told += piece(0, "text_delta", text="and ") + begin(0, type="text", text="two")
    begin(0, type="tool_use", id="a", name="f")
    piece(0, "input_json_delta", partial_json='{"x": 1}')
    told += begin(1, type="text", text=" three")
    begin(0, type="tool_use", id="b", name="g")
    piece(0, "input_json_delta", partial_json='{"y": 2}')
    told += piece(1, "text_delta", text="!")
    whole = stream.completion()
    assert whole.message.text == told == "zero one and two three!"
    assert whole.message.tool_calls == (ToolCall("a", "f", {"x": 1}), ToolCall("b", "g", {"y": 2}))
    assert [(each.index, each.id) for each in stream.take_calls()] == [(0, "a"), (0, ""), (1, "b"), (1, "")]
    high = anthropic_wire.MessageStream()
    for index, text in ((7, "a"), (3, "b"), (3, "c"), (8, "d")):
        high.add({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": text}})
    assert high.completion().message.text == "bacd"


def test_an_anthropic_stream_leaves_its_events_alone_and_keeps_the_reason_it_was_given():
    stream = anthropic_wire.MessageStream()
    begun = {"type": "tool_use", "id": "a", "name": "f", "input": {}, "text": "x"}
    assert stream.add({"type": "content_block_start", "index": 0, "content_block": begun}) == ""
    assert begun["input"] == {}
    stream = anthropic_wire.MessageStream()
    stream.add({"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": "X"}})
    stream.add({"type": "message_delta", "delta": {}})
    stream.add({"type": "ping"})
    whole = stream.completion()
    assert (whole.finish_reason, whole.stop_string, whole.message) == ("length", "X", assistant(""))


def test_a_google_request_holds_what_was_asked_and_no_more():
    quiet = Sampling(max_tokens=5, temperature=0.0)
    always = {
        "max_output_tokens": 5,
        "temperature": 0.0,
        "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
    }
    assert google_wire.config([user("Hi")], quiet, []) == always
    sampling = Sampling(
        max_tokens=5, temperature=0.5, top_p=0.9, top_k=3, presence_penalty=0.1, frequency_penalty=0.2, seed=2**31 + 1,
        stop=("a",), grammar=Grammar("json_schema", '{"type": "object"}'),
    )  # fmt: skip
    assert google_wire.config([system("S"), system("T"), user("Hi"), system("late")], sampling, [ADD]) == always | {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 1,
        "stop_sequences": ["a"],
        "system_instruction": "S\n\nT",
        "tools": [
            {
                "function_declarations": [
                    {"name": "add", "description": "Adds.", "parametersJsonSchema": {"type": "object"}}
                ]
            }
        ],
        "response_mime_type": "application/json",
        "response_json_schema": {"type": "object"},
    }
    any_json = google_wire.config([], Sampling(grammar=Grammar("json_schema", "true")), [])
    assert any_json["response_mime_type"] == "application/json" and "response_json_schema" not in any_json
    no_json = google_wire.config([], Sampling(grammar=Grammar("json_schema", "false")), [])
    assert no_json["response_json_schema"] == {"not": {}}


def test_a_seed_or_a_penalty_of_google_is_left_out_only_where_there_is_none():
    base = {
        "max_output_tokens": 7,
        "temperature": 0.0,
        "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
    }
    for given, sent in (
        ({"seed": 0}, {"seed": 0}), ({"seed": 2**31 - 1}, {"seed": 2**31 - 1}), ({"seed": 2**31}, {"seed": 0}),
        ({"presence_penalty": -0.5}, {"presence_penalty": -0.5}),
        ({"frequency_penalty": -0.25}, {"frequency_penalty": -0.25}), ({"top_k": 1}, {"top_k": 1}), ({"top_p": 0.5}, {}),
        ({"temperature": 0.01, "top_p": 1.0}, {"temperature": 0.01, "top_p": 1.0}),
    ):  # fmt: skip
        settings = {"max_tokens": 7, "temperature": 0.0, **given}
        assert google_wire.config([user("Hi")], Sampling(**settings), []) == base | sent, given


def test_google_turns_carry_signatures_with_the_part_that_follows():
    conversation = [
        system("S"),
        user("Hi"),
        user(""),
        Message("tool", (ToolResult("c0", "add", "3"), ToolResult("c1", "sub", "no", True))),
        Message(
            "assistant", (THOUGHT, Text("a"), SIGNED, CALL, Text("b"), SIGNED, THOUGHT, Text("c"), SIGNED, Text(""))
        ),
        system("late"),
        Message("user", (SIGNED, Text("d"))),
    ]
    assert google_wire.contents(conversation) == [
        {
            "role": "user",
            "parts": [
                {"text": "Hi"},
                {"functionResponse": {"id": "c0", "name": "add", "response": {"result": "3"}}},
                {"functionResponse": {"id": "c1", "name": "sub", "response": {"error": "no"}}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "a"},
                {"functionCall": {"id": "c1", "name": "add", "args": {"a": 1}}, "thoughtSignature": "sig"},
                {"text": "b"},
                {"text": "c"},
                {"text": "", "thoughtSignature": "sig"},
            ],
        },
        {"role": "user", "parts": [{"text": "late"}, {"text": "d"}]},
    ]


def gemini(*parts, finish="STOP", **rest):
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish}], **rest}


def test_a_google_reply_is_read_part_by_part():
    parts = [
        {"text": "hm", "thought": True, "thoughtSignature": "t"},
        {"thought": True},
        {"text": ""},
        {"text": "Hi\ud800"},
        {"text": "", "thoughtSignature": "u"},
        {"functionCall": {"id": "c", "name": "add", "args": {"a": 1}}, "thoughtSignature": "v"},
        {"functionCall": {"name": "add"}},
        {"inlineData": {}, "thoughtSignature": ""},
        "odd",
    ]
    usage = {
        "promptTokenCount": 3, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 4, "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 9,
    }  # fmt: skip
    assert google_wire.read_completion(gemini(*parts, usageMetadata=usage)) == Completion(
        Message(
            "assistant",
            (
                Reasoning("hm", {"thoughtSignature": "t"}),
                Reasoning("", {}),
                Text("Hi\ufffd"),
                Reasoning("", {"thoughtSignature": "u"}),
                Text(""),
                Reasoning("", {"thoughtSignature": "v"}),
                ToolCall("c", "add", {"a": 1}),
                ToolCall("call_1", "add", {}),
            ),
        ),
        "tool_calls",
        Usage(5, 5, 9),
    )
    for given, expected in (
        ("MAX_TOKENS", "length"),
        *((each, "content_filter") for each in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT")),
        *((each, "content_filter") for each in ("SPII", "LANGUAGE")),
        ("STOP", "stop"),
    ):
        read = google_wire.read_completion(gemini(finish=given))
        assert (read.finish_reason, read.message) == (expected, assistant(""))
    for given in ("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "OTHER"):
        with pytest.raises(FailedAnswer):
            google_wire.read_completion(gemini({"text": "a"}, finish=given))
    for given, expected in (
        ("CONTINUATION", "length"),
        ("ESCALATION", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
    ):
        assert google_wire.read_completion(gemini(finish=given)).finish_reason == expected
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 2}}
    for finish in ("STOP", "OTHER", "MAX_TOKENS", None):
        cut = google_wire.read_completion(gemini({"text": "a"}, finish=finish, **blocked))
        assert (cut.message.text, cut.finish_reason) == ("a", "content_filter"), "blocked after its beginning"
    refused = Completion(Message("assistant", (Text(""),)), "content_filter", Usage(2))
    assert google_wire.read_completion(blocked) == google_wire.read_completion(blocked | {"candidates": []}) == refused
    assert google_wire.read_completion(gemini({"text": "a"}, **blocked)).message.text == "a"
    for body, said in (
        ({}, "no candidates but nothing: "),
        ({"candidates": [1], "x": 1}, "no candidates but candidates, x: "),
    ):
        with pytest.raises(ModelError, match=said):
            google_wire.read_completion(body)


def test_a_google_stream_is_put_together():
    stream = google_wire.CandidateStream()
    assert stream.add(gemini({"text": "h", "thought": True}, finish=None, modelVersion="1")) == ""
    assert stream.add(gemini({"text": "m", "thought": True}, {"text": "H"}, {"text": "i"}, finish=None)) == "Hi"
    assert stream.add(gemini({"text": "!", "thoughtSignature": "s"}, {"text": "?"}, finish=None)) == "!?"
    call = {"functionCall": {"id": "a", "name": "f", "args": {"x": "é"}}}
    assert stream.add(gemini(call, {"functionCall": {"name": "g"}}, {"text": "x"}, finish=None)) == "x"
    assert stream.take_calls() == [CallDelta(0, "a", "f", '{"x": "é"}'), CallDelta(1, "call_1", "g", "{}")]
    assert stream.take_calls() == [] and not stream.finished
    assert stream.add({"candidates": [], "usageMetadata": {"promptTokenCount": 3}}) == ""
    assert stream.add({"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": None}) == ""
    assert stream.finished
    assert stream.completion() == Completion(
        Message(
            "assistant",
            (
                Reasoning("hm", {}),
                Reasoning("", {"thoughtSignature": "s"}),
                Text("Hi!"),
                Text("?"),
                ToolCall("a", "f", {"x": "é"}),
                ToolCall("call_1", "g", {}),
                Text("x"),
            ),
        ),
        "length",
        Usage(3),
    )
    thought = google_wire.CandidateStream()
    assert thought.add(gemini({"thought": True} | call, {"thought": True, "text": "t"}, {"text": "a"})) == "a"
    assert thought.take_calls() == [] and thought.completion().message.tool_calls == ()
    later = google_wire.CandidateStream()
    assert later.add(gemini({"inlineData": {}}, {"text": "a"}, finish="MAX_TOKENS")) == "a"
    assert later.add(gemini({"text": "b"}, finish=None)) == "b"
    assert (later.completion().message.text, later.completion().finish_reason) == ("ab", "length")
    refused = google_wire.CandidateStream()
    refused.add({"promptFeedback": {"blockReason": "SAFETY"}})
    assert refused.finished and refused.completion().finish_reason == "content_filter"
    empty = google_wire.CandidateStream()
    empty.add({})
    assert not empty.finished
    with pytest.raises(ModelError, match="holds no candidates but nothing"):
        empty.completion()


def test_each_of_googles_answers_has_a_seed_of_its_own():
    assert [_seeded(Sampling(seed=5), i).seed for i in range(3)] == [5, 6, 7]
    assert _seeded(Sampling(), 3).seed is None


def test_googles_wait_is_in_the_details_of_the_error():
    assert _retry_delay({"details": ["x", {"retryDelay": "soon"}, {"retryDelay": "34.5s"}]}) == "34.5"
    assert _retry_delay({"details": [{"retryDelay": "34s"}]}) == "34"
    for details in (None, {"retryDelay": "3s"}, [{"retryDelay": "3"}], [{"retryDelay": 3}], [{"retryDelay": ".5s"}]):
        assert _retry_delay({"details": details}) is None
