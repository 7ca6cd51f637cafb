"""Attributes of each dialect one by one: which name goes first, and the messages, parts and calls that are read."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from firsthand.ingest import translate
from firsthand.ingest.dialects import genai_dialect, langfuse_dialect, openinference_dialect, openllmetry_dialect
from firsthand.ingest.dialects.genai_dialect import _add, _of_event
from firsthand.ingest.dialects.langfuse_dialect import _counts, _given, _shown
from firsthand.ingest.dialects.openinference_dialect import _contents, _messages, _tool_calls, _value_preview
from firsthand.ingest.dialects.openllmetry_dialect import _messages as prompts
from firsthand.ingest.dialects.openllmetry_dialect import _tool_calls as prompt_calls
from firsthand.ingest.dialects.span_facts import (
    MAX_DEPTH,
    SpanContent,
    SpanFacts,
    _is_flat,
    _listed,
    _part,
    _tool_call,
    count_of_tokens,
    first_of,
    message,
    one_message,
    preview,
    said,
    text_of,
    words_of,
)
from firsthand.ingest.dialects.span_outputs import unquoted
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.translate import content_of, facts_of
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult

U, G, OI = "gen_ai.usage.", "gen_ai.", "openinference.span.kind"
OWN = "traceloop.association.properties."
ASKED: list[tuple[ModuleType, str, tuple[str, ...]]] = [
    (genai_dialect, "model", (f"{G}response.model", f"{G}request.model")),
    (genai_dialect, "prompt_tokens", (f"{U}input_tokens", f"{U}prompt_tokens")),
    (genai_dialect, "cached_tokens", (f"{U}cache_read.input_tokens", f"{U}cache_read_input_tokens")),
    (genai_dialect, "completion_tokens", (f"{U}output_tokens", f"{U}completion_tokens")),
    (genai_dialect, "cost_usd", ("firsthand.usage.cost_usd", f"{U}cost", f"{U}total_cost", "operation.cost")),
    (genai_dialect, "session", (f"{G}conversation.id", "session.id")),
    (genai_dialect, "user", ("user.id", "enduser.id")),
    (genai_dialect, "label", (f"{G}tool.name", f"{G}agent.name")),
    (openinference_dialect, "model", ("llm.model_name", "embedding.model_name", "reranker.model_name")),
    (openinference_dialect, "prompt_tokens", ("llm.token_count.prompt",)),
    (openinference_dialect, "cached_tokens", ("llm.token_count.prompt_details.cache_read",)),
    (openinference_dialect, "completion_tokens", ("llm.token_count.completion",)),
    (openinference_dialect, "cost_usd", ("llm.cost.total",)),
    (openinference_dialect, "session", ("session.id",)),
    (openinference_dialect, "user", ("user.id",)),
    (openinference_dialect, "label", ("tool.name", "agent.name")),
    (openllmetry_dialect, "model", (f"{G}response.model", f"{G}request.model", "llm.request.model")),
    (openllmetry_dialect, "prompt_tokens", (f"{U}prompt_tokens", f"{U}input_tokens", "llm.usage.prompt_tokens")),
    (openllmetry_dialect, "cached_tokens", (f"{U}cache_read_input_tokens", f"{U}cache_read.input_tokens")),
    (openllmetry_dialect, "completion_tokens", (f"{U}completion_tokens", f"{U}output_tokens",
                                               "llm.usage.completion_tokens")),
    (openllmetry_dialect, "session", tuple(
        f"{OWN}{name}" for name in ("session_id", "session.id", "thread_id", "conversation_id", "chat_id")
    )),
    (openllmetry_dialect, "user", (f"{OWN}user_id", f"{OWN}user.id")),
    (openllmetry_dialect, "label", ("traceloop.entity.name", "traceloop.workflow.name")),
    (langfuse_dialect, "model", ("langfuse.observation.model.name",)),
    (langfuse_dialect, "session", ("session.id", "langfuse.session.id")),
    (langfuse_dialect, "user", ("user.id", "langfuse.user.id")),
]  # fmt: skip


def span(attributes: dict[str, Any], events: Any = (), name: str = "call") -> IncomingSpan:
    return IncomingSpan(
        "1" * 32, "2" * 16, "", name, 1, 2, attributes, [{"name": n, "attributes": a} for n, a in events]
    )


def u(text: str) -> Message:
    return Message("user", (Text(text),))


def a(text: str) -> Message:
    return Message("assistant", (Text(text),))


def test_of_several_names_the_first_that_is_there_counts() -> None:
    for dialect, field, names in ASKED:
        is_text = field in ("model", "session", "user", "label")
        for at in range(len(names)):
            given = {name: f"v{number}" if is_text else number + 3 for number, name in enumerate(names) if number >= at}
            found = getattr(dialect.facts(span(given)), field)
            assert found == (f"v{at}" if is_text else at + 3), (dialect.__name__, field, names[at])
    usage = "langfuse.observation.usage_details"
    for field, names in (
        ("prompt_tokens", ("input", "prompt_tokens", "input_tokens")),
        ("cached_tokens", ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read")),
        ("completion_tokens", ("output", "completion_tokens", "output_tokens")),
    ):
        for at in range(len(names)):
            given = {name: number + 3 for number, name in enumerate(names) if number >= at}
            assert getattr(langfuse_dialect.facts(span({usage: given})), field) == at + 3
    costs = {"llm.cost.prompt": 0.5, "llm.cost.completion": 0.25}
    assert openinference_dialect.facts(span(costs)).cost_usd == 0.75
    assert openinference_dialect.facts(span({**costs, "llm.cost.total": 2})).cost_usd == 2.0
    for dialect, names in (
        (genai_dialect, (f"{G}operation.name", f"{G}system", f"{G}provider.name")), (openinference_dialect, (OI,)),
        (openllmetry_dialect, ("traceloop.span.kind", "llm.request.type", f"{G}prompt.0.role", f"{G}completion.0.role",
                               "traceloop.x")),
        (langfuse_dialect, ("langfuse.observation.type", "langfuse.x")),
    ):  # fmt: skip
        assert [dialect.speaks(span({name: 0})) for name in names] == [True] * len(names)
        assert not dialect.speaks(
            span({"langfus.x": 1, "traceloop": 1, f"{G}prompt.1.role": 1, f"{G}request.model": "m"})
        )


# -- messages and parts --


def test_parts_are_read_by_their_type() -> None:
    for part, found in (
        ({"type": "text", "text": "t", "content": "no"}, Text("t")), ({"type": "input_text", "content": "c"}, Text("c")),
        ({"type": "output_text", "text": {"é": 1}}, Text('{"é": 1}')), ({"text": "bare"}, Text("bare")), (5, Text("5")),
        ({"type": None, "text": 5}, Text('{"type": null, "text": 5}')),
        ({"type": "image", "text": "x"}, Text('{"type": "image", "text": "x"}')),
        ({"type": "reasoning", "content": "c", "thinking": "t"}, Reasoning("c", {})),
        ({"type": "thinking", "thinking": "t", "text": "x"}, Reasoning("t", {})),
        ({"type": "thinking", "text": "x", "summary": "s"}, Reasoning("x", {})),
        ({"type": "tool_call", "id": "i", "name": "f", "arguments": {"x": 1}}, ToolCall("i", "f", {"x": 1})),
        ({"type": "tool_call_response", "response": "a", "result": "b", "id": "i", "tool_use_id": "j", "name": "f"},
         ToolResult("i", "f", "a")),
        ({"type": "tool_result", "result": "b", "content": "c", "tool_use_id": "j", "call_id": "k"},
         ToolResult("j", "", "b")),
        ({"type": "tool_result", "content": "c", "output": "d", "call_id": "k", "is_error": 1},
         ToolResult("k", "", "c", True)),
        ({"type": "function_call_output", "output": [1]}, ToolResult("own", "", "[1]")),
    ):  # fmt: skip
        assert _part(part, "user", {"tool_call_id": "own"}) == [found], part
    for body, call in (
        ({"id": "i", "call_id": "j", "name": "f", "arguments": '{"x": 1}', "args": {"y": 2}}, ToolCall("i", "f", {"x": 1})),
        ({"call_id": "j", "name": "f", "args": {"y": 2}, "input": {"z": 3}}, ToolCall("j", "f", {"y": 2})),
        ({"function": {"name": "g", "input": {"z": 3}}, "name": "no", "id": 5}, ToolCall("5", "g", {"z": 3})),
        ({"function": "f", "name": "h", "arguments": "[1]"}, ToolCall("", "h", {}, "[1]")),
        ({"name": None, "arguments": None}, ToolCall("", "", {})), ({"arguments": ""}, ToolCall("", "", {})),
        ({"arguments": 0}, ToolCall("", "", {}, "0")),
    ):  # fmt: skip
        assert _tool_call(body) == call, body
    assert [_listed(each) for each in (None, "", [], 0, "x", ["y"])] == [[], [], [], [0], ["x"], ["y"]]
    tools = {"role": "Function", "content": ["4", {"type": "tool_use", "name": "f"}], "tool_call_id": "c", "name": "n"}
    assert one_message(tools) == Message("tool", (Text("4"), ToolCall("", "f", {}))), "with a call it is no result"
    assert one_message({"role": "tool", "content": ["4", "2"], "name": "n"}) == Message(
        "tool", (ToolResult("", "n", "42"),)
    )
    assert one_message({"type": "ai", "content": "x", "role": ""}) == a("x") and one_message(
        {"message": "x"}
    ) == Message("user", (Text(""),))
    assert one_message({"message": {"role": "model", "content": "x"}, "role": "user", "content": "no"}) == a("x")
    assert one_message({"lc": 1, "id": ["HumanMessage"], "kwargs": {"content": "q"}}) == u("q")
    result = one_message(
        {"lc": 1, "id": ["a", "ToolMessage"], "kwargs": {"content": "r", "tool_call_id": "c", "name": "f"}}
    )
    assert result == Message("tool", (ToolResult("c", "f", "r"),))


def test_values_are_read_in_the_first_form_that_holds() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = {"k": deep}
    assert _is_flat(deep) and not _is_flat([deep]) and not _is_flat([[], deep]) and _is_flat([[], 2, deep["k"]])
    assert _is_flat("x") and _is_flat([]) and _is_flat([[], {"a": {}}])
    assert text_of({"a": False, "b": [], "c": 0.0, "d": "x"}, "a", "b", "c", "d") == "0.0" and text_of({"a": "x"}) == ""
    tokens = {"a": -1, "b": (1 << 40) + 1, "c": "12.9", "d": True, "e": 1e16}
    assert [count_of_tokens(tokens, *names) for names in ("ab", "c", "dc", "e", "z")] == [
        (1 << 40) + 1,
        12,
        12,
        10**15,
        0,
    ]
    assert (
        words_of('["x", 2]') == ("x", "2")
        and words_of('{"a": 1}') == ()
        and words_of(5) == ()
        and words_of("[x") == ("[x",)
    )
    assert said("x") == "x" and said(lambda: "y") == "y" and said(lambda: [][0]) == ""
    asked: list[str] = []
    lazy = first_of(lambda: str(asked.append("one") or ""), lambda: str(asked.append("two") or "b"))
    assert asked == [] and said(lazy) == "b" and asked == ["one", "two"]
    assert first_of("a", lambda: "b") == "a" and callable(first_of("", lambda: "b"))
    assert (
        message("AI", iter([Text("x")])) == a("x")
        and message(0, ()).role == "assistant"
        and message("odd", ()).role == "user"
    )
    both = [u("first"), Message("assistant", (ToolCall("i", "f", {"x": 1}), ToolCall("j", "g", {}))), a(" \n")]
    assert preview(both) == 'f({"x": 1})' and preview([u(" é" * 200)]) == ("é " * 150) and preview([a("")]) == ""
    full = SpanFacts("tool", "m", 1, 0, 3, 0.0, "s", "", "l", "", "o", (), None)
    full.filled_from(SpanFacts("agent", "n", 9, 8, 7, 0.5, "t", "v", "k", "i", "p", ("x",), "e"))
    assert full == SpanFacts("tool", "m", 1, 8, 3, 0.5, "s", "v", "l", "i", "o", ("x",), "e")


# -- GenAI --


def test_genai_s_messages_come_from_attributes_and_events_in_order() -> None:
    found = SpanContent([u("before")], [a("before")])
    _add(found, {f"{G}system_instructions": '[{"content": "be", "type": "text"}]', f"{G}input.messages": '["q"]',
                 f"{G}output.messages": '[{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]'})  # fmt: skip
    assert found.asked == [u("before"), Message("system", (Text("be"),)), u("q")]
    assert found.answered == [a("before"), a("x"), Message("tool", (ToolResult("", "", "y"),))]
    _add(found, {f"{G}input.messages": "", f"{G}system_instructions": ""})
    assert len(found.asked) == 3 and len(found.answered) == 3
    for held, made in (
        ({"content": "c"}, u("c")), ({"content": "c", "role": "assistant"}, a("c")), ({"gen_ai.event.content": "c"}, u("c")),
        ({"gen_ai.event.content": '{"content": "c", "role": "ai"}'}, a("c")),
        ({"gen_ai.event.content": '{"content": "c"}'}, u("c")),
        ({"content": "c", "gen_ai.event.content": "no"}, u("c")), ({}, Message("user", (Text(""),))),
        ({"gen_ai.event.content": "[1]"}, u("1")),
    ):  # fmt: skip
        assert _of_event("user", held) == made, held
    memory = genai_dialect.facts(span({f"{G}operation.name": "memory_search", f"{G}tool.call.arguments": "x" * 301}))
    assert (memory.what, memory.input, memory.output) == ("tool", "x" * 300, "")
    quiet = genai_dialect.facts(span({f"{G}operation.name": "chat"}))
    assert (quiet.input, quiet.output) == ("", "")
    for given in (span({f"{G}input.messages": '["q"]'}), span({}, [("gen_ai.user.message", {"content": "q"})])):
        assert said(genai_dialect.facts(given).input) == "q"
    assert said(genai_dialect.facts(span({f"{G}output.messages": '["r"]'})).output) == "r"
    call = {
        f"{G}tool.name": "f",
        f"{G}tool.call.arguments": '{"x": 1}',
        f"{G}tool.call.result": "[2]",
        f"{G}tool.call.id": "c",
    }
    assert genai_dialect.content(span(call)) == SpanContent([], [], "f", {"x": 1}, [2], "c")


# -- Langfuse --


def test_langfuse_s_values_are_shown_without_their_quotes() -> None:
    assert _counts({"k": '{"a": "2", "b": -1, "c": true, "d": 0}'}, "k") == {"a": 2.0, "d": 0.0}
    assert _counts({"k": "[1]"}, "k") == _counts({}, "k") == {}
    for value, inner in {
        '"é\\n"': "é\n",
        '"x': '"x',
        '"a" 1': '"a" 1',
        '"': '"',
        '"a" "b"': '"a" "b"',
        '""': "",
        "x": "x",
    }.items():
        assert unquoted(value) == inner
    assert unquoted(7) == 7 and unquoted(None) is None
    for values, shown in (
        ((None, "", "x", "y"), "x"), (('"quoted"',), "quoted"), (('"' + "q" * 301 + '"',), "q" * 300),
        (('["hi"]', "no"), "hi"),
        (("[]",), "[]"), ((0, "x"), "0"), (({"é": 1},), '{"é": 1}'), ((), ""), (("[" + "x" * 20_000,), "[" + "x" * 299),
        ((False,), "false"),
    ):  # fmt: skip
        names = [f"v{place}" for place in range(len(values))]
        assert _shown(_given(span(dict(zip(names, values, strict=True))), *names)) == shown
    own = span({"v": '"quoted"'})
    own.scope = "langfuse-sdk"
    assert _given(own, "v") == '"quoted"', "Langfuse's own SDKs send texts as they are"
    o = "langfuse.observation."
    text = span({f"{o}input": '"Capital\\nof Italy?"', f"{o}output": '"Rome"'})
    assert langfuse_dialect.content(text) == SpanContent([u("Capital\nof Italy?")], [a("Rome")])
    text.attributes[f"{o}type"] = "tool"
    assert (
        langfuse_dialect.content(text).result == "Rome"
        and langfuse_dialect.content(text).arguments == "Capital\nof Italy?"
    )
    tool = span(
        {f"{o}type": "TOOL", f"{o}input": '{"x": 1}', f"{o}output": "[2]", "langfuse.trace.input": "no"}, name="f"
    )
    assert langfuse_dialect.content(tool) == SpanContent([], [], "f", {"x": 1}, [2])
    trace = span(
        {
            "langfuse.trace.input": "q",
            "langfuse.trace.output": '[{"role": "user", "content": "r"}, {"role": "system", "content": "s"}]',
        }
    )
    assert langfuse_dialect.content(trace) == SpanContent([u("q")], [a("r"), Message("system", (Text("s"),))])
    own = {f"{o}input": "own", "langfuse.trace.input": "no", f"{o}output": "mine", "langfuse.trace.output": "no"}
    assert langfuse_dialect.content(span(own)) == SpanContent([u("own")], [a("mine")])
    costs = {
        f"{o}cost_details": {"input": 1, "output": 2, "total": 0},
        f"{o}level": "Error",
        "langfuse.trace.tags": "t",
    }
    found = langfuse_dialect.facts(span(costs))
    assert (found.cost_usd, found.error, found.tags, said(found.input)) == (0, "", ("t",), "")


# -- OpenInference --


def test_openinference_s_messages_are_flattened_by_number() -> None:
    def flat(*fields: dict[str, Any], prefix: str = "m") -> dict[str, Any]:
        return {f"{prefix}.{at}.message.{name}": value for at, one in enumerate(fields) for name, value in one.items()}

    call = {"tool_calls.0.tool_call.function.name": "f", "tool_calls.0.tool_call.id": "c",
            "tool_calls.0.tool_call.function.arguments": '{"x": 1}', "tool_calls.1.tool_call.id": "d",
            "tool_calls.1.tool_call.function.arguments": "odd", "tool_calls.3.tool_call.id": "lost"}  # fmt: skip
    parts = {"contents.0.message_content.text": "t", "contents.1.message_content.type": "image",
             "contents.1.message_content.image.image.url": "u" * 201, "contents.2.message_content.text": {"é": 1},
             "contents.4.message_content.text": "lost"}  # fmt: skip
    calls = (ToolCall("c", "f", {"x": 1}), ToolCall("d", "", {}, "odd"))
    assert tuple(_tool_calls(flat(call), "m.0.message.")) == calls
    image = f"[image: {'u' * 200}]"
    assert _contents(flat(parts), "m.0.message.") == [Text("t"), Text(image), Text('{"é": 1}')]
    given = flat({"role": "system", "content": "be"}, {"role": "user", "content": "q", **parts}, {**call},
                 {"role": "TOOL", "content": "4", "contents.0.message_content.text": "2", "tool_call_id": "c", "name": "f"},
                 {"role": "assistant", "content": ""}, {}, {"role": "user", "content": "lost"})  # fmt: skip
    assert _messages(given, "m") == [
        Message("system", (Text("be"),)), Message("user", (Text("q"), Text("t"), Text(image), Text('{"é": 1}'))),
        Message("assistant", calls), Message("tool", (ToolResult("c", "f", "42"),)), a(""),
    ]  # fmt: skip
    assert (
        _messages(given, "n") == []
        and _value_preview({"v.value": '["hi"]'}, "v") == "hi"
        and _value_preview({}, "v") == ""
    )
    assert _value_preview({"v.value": "x" * 301}, "v") == "x" * 300 and _value_preview({"v.value": [1]}, "v") == "[1]"
    long = [f'["hi",{" " * size}"lo"]' for size in (19_988, 19_989)]
    assert [len(each) for each in long] == [19_999, 20_000]
    assert [_value_preview({"v.value": each}, "v") for each in long] == ["lo", long[1][:300]]
    assert (
        _value_preview({"v.value": "{" * 20_000}, "v") == "{" * 300 and _value_preview({"v.value": "[]"}, "v") == "[]"
    )
    asked, answered = (
        flat({"role": "user", "content": "q"}, prefix="llm.input_messages"),
        flat({"content": "r"}, prefix="llm.output_messages"),
    )
    both = {OI: "llm", **asked, **answered, "input.value": "no", "output.value": "no", "llm.prompts": '["no"]'}
    assert openinference_dialect.content(span(both)) == SpanContent([u("q")], [a("r")])
    found = openinference_dialect.facts(span(both | {"tag.tags": ["t"]}))
    assert (found.what, said(found.input), said(found.output), found.tags) == ("generate", "q", "r", ("t",))
    values = {
        OI: "CHAIN",
        "input.value": "i",
        "output.value": '[{"role": "user", "content": "o"}, {"role": "tool", "content": "p"}]',
    }
    plain = openinference_dialect.content(span(values))
    assert plain == SpanContent([u("i")], [a("o"), Message("tool", (ToolResult("", "", "p"),))])
    assert openinference_dialect.content(span(values | {"llm.prompts": '["p"]'})).asked == [u("p")]
    tool = {OI: "tool", "input.value": '{"x": 1}', "output.value": "[2]", "tool.id": "d"}
    assert openinference_dialect.content(span(tool)) == SpanContent([], [], "call", {"x": 1}, [2], "d")
    named = openinference_dialect.content(span(tool | {"tool.name": "f", "tool_call.id": "c"}))
    assert (named.tool, named.call_id) == ("f", "c")


# -- OpenLLMetry --


def test_openllmetry_s_messages_are_flattened_by_number() -> None:
    call = {"p.0.tool_calls.0.name": "f", "p.0.tool_calls.0.id": "c", "p.0.tool_calls.0.arguments": '{"x": 1}',
            "p.0.tool_calls.1.name": 5, "p.0.tool_calls.1.arguments": "odd", "p.0.tool_calls.2.id": "lost"}  # fmt: skip
    calls = (ToolCall("c", "f", {"x": 1}), ToolCall("", "5", {}, "odd"))
    assert tuple(prompt_calls(call, "p.0.")) == calls
    given = call | {
        "p.1.role": "user", "p.1.content": '[{"type": "text", "text": "a"}, "b"]', "p.2.content": {"é": 1},
        "p.3.role": "tool", "p.3.content": "4", "p.3.tool_call_id": "c", "p.3.name": "f", "p.4.role": "assistant",
        "p.4.content": "", "p.6.role": "user",
    }  # fmt: skip
    assert prompts(given, "p") == [
        Message("user", calls), Message("user", (Text("a"), Text("b"))), u('{"é": 1}'),
        Message("tool", (ToolResult("c", "f", "4"),)), a(""),
    ]  # fmt: skip
    assert prompts({"x.completion.0.content": "r"}, "x.completion") == [a("r")]
    kinds = {"Workflow": "chain", "task": "chain", "AGENT": "agent", "tool": "tool", "other": "span"}
    assert {kind: openllmetry_dialect.facts(span({"traceloop.span.kind": kind})).what for kind in kinds} == kinds
    types = {
        "Chat": "generate",
        "completion": "generate",
        "embedding": "embed",
        "embeddings": "embed",
        "rerank": "rerank",
        "x": "span",
    }
    assert {kind: openllmetry_dialect.facts(span({"llm.request.type": kind})).what for kind in types} == types
    assert openllmetry_dialect.facts(span({"traceloop.span.kind": "task", "llm.request.type": "chat"})).what == "chain"
    assert openllmetry_dialect.facts(span({f"{G}prompt.0.role": "user"})).what == "generate"
    entity = {"traceloop.span.kind": "Tool", "traceloop.entity.input": '{"x": 1}', "traceloop.entity.output": "[2]"}
    assert openllmetry_dialect.content(span(entity)) == SpanContent([], [], "call", {"x": 1}, [2])
    assert openllmetry_dialect.content(span(entity | {"traceloop.entity.name": "f"})).tool == "f"
    other = openllmetry_dialect.content(span(entity | {"traceloop.span.kind": "task", f"{G}prompt.0.content": "q"}))
    assert other == SpanContent([u("q")], [a("[2]")])
    found = openllmetry_dialect.facts(span({"traceloop.entity.input": "i" * 301, f"{G}completion.0.content": "r"}))
    assert (said(found.input), said(found.output)) == ("i" * 300, "r")


# -- all together --


def test_dialects_are_known_by_names_that_are_few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, Any] = {}
    monkeypatch.setattr(translate, "_spoken", known)
    monkeypatch.setattr(translate, "_MOST_SPOKEN", 2)
    few = {OI: "TOOL", **{f"a{at}": 1 for at in range(199)}}
    assert facts_of(span(few)).what == "tool" == facts_of(span({**few, "one": 1})).what and list(known) == [tuple(few)]
    assert facts_of(span({"x" * 8001: 1})).what == "span" and len(known) == 1
    assert facts_of(span({"x" * 8000: 1})).what == "span" and len(known) == 2
    assert facts_of(span({OI: "LLM"})).what == "generate" and len(known) == 2, "no more are remembered"
    mixed = span(
        {
            "langfuse.observation.input": "i",
            OI: "TOOL",
            "input.value": '{"x": 1}',
            "tool_call.id": "c",
            "output.value": "o",
            f"{G}system": "x",
            f"{G}tool.call.id": "d",
            f"{G}tool.call.arguments": "[1]",
            f"{G}tool.name": "g",
        },
        name="n",
    )
    assert content_of(mixed) == SpanContent([u("i")], [], "n", {"x": 1}, "o", "c")
    found = facts_of(span({OI: "CHAIN", "session.id": "", "gen_ai.conversation.id": 5, "enduser.id": "e"}))
    assert (found.what, found.session, found.user) == ("chain", "5", "e")


def test_a_text_that_openinference_calls_json_is_without_its_quotes() -> None:
    words = {"application/json": ("in", "Rome")}
    for said_in in ("application/json", "text/plain", None):
        held = {"openinference.span.kind": "CHAIN", "input.value": '"in"', "output.value": '"Rome"'}
        held |= {"input.mime_type": said_in, "output.mime_type": said_in} if said_in else {}
        asked, answered = words.get(said_in or "", ('"in"', '"Rome"'))
        assert openinference_dialect.content(span(held)) == SpanContent([u(asked)], [a(answered)])
        assert said(openinference_dialect.facts(span(held)).output) == answered
        tool = openinference_dialect.content(span(held | {"openinference.span.kind": "TOOL"}))
        assert (tool.arguments, tool.result) == (asked, answered)
