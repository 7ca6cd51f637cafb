"""Each dialect of spans: all columns and all messages of one span, and which attribute wins."""

from __future__ import annotations

from typing import Any

from firsthand.ingest.dialects import genai_dialect, langfuse_dialect, openinference_dialect, openllmetry_dialect
from firsthand.ingest.dialects.span_facts import (
    SpanContent,
    SpanFacts,
    first_of,
    said,
)
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.translate import content_of, dialects_of, facts_of
from firsthand.message import Message, Text, ToolCall, ToolResult


def span(events: Any = (), name: str = "call", **attributes: Any) -> IncomingSpan:
    """A span with these attributes; `__` stands for a dot."""
    made = IncomingSpan("1" * 32, "2" * 16, "", name, 10, 20, {k.replace("__", "."): v for k, v in attributes.items()})
    made.events = [{"name": each, "at_ns": 1, "attributes": held} for each, held in events]
    return made


def columns(facts: SpanFacts) -> dict[str, Any]:
    """The columns that are not empty, with the texts that are found when asked for."""
    found = {name: getattr(facts, name) for name in facts.__slots__}
    found["input"], found["output"] = said(facts.input), said(facts.output)
    return {name: value for name, value in found.items() if value not in ("", 0, (), None, "span")}


def u(text: str) -> Message:
    return Message("user", (Text(text),))


def a(text: str) -> Message:
    return Message("assistant", (Text(text),))


def s(text: str) -> Message:
    return Message("system", (Text(text),))


# -- Langfuse --


def test_langfuse_is_read_whole() -> None:
    o = "langfuse__observation__"
    full = {
        f"{o}type": "Generation", f"{o}model__name": "m", "session__id": "s", "langfuse__session__id": "s2", "user__id": "",
        "langfuse__user__id": "u2", "langfuse__trace__tags": '["a", "b"]', f"{o}level": "error",
        f"{o}status_message": "broke", f"{o}input": '[{"role": "user", "content": "hi"}]', f"{o}output": '"said \\"x\\""',
        f"{o}usage_details": '{"input": 5, "output": 7, "cache_read_input_tokens": 3, "bad": "x"}',
        f"{o}cost_details": '{"input": 0.5, "output": 0.25, "total": 9}', "langfuse__trace__input": "other",
    }  # fmt: skip
    assert columns(langfuse_dialect.facts(span(**full))) == {
        "what": "generate", "model": "m", "prompt_tokens": 8, "cached_tokens": 3, "completion_tokens": 7, "cost_usd": 9.0,
        "session": "s", "user": "u2", "input": "hi", "output": 'said "x"', "tags": ("a", "b"), "error": "broke",
    }  # fmt: skip
    held = langfuse_dialect.content(span(**full))
    assert (held.asked, held.answered) == ([u("hi")], [a('said "x"')])
    kinds = {"embedding": "embed", "TOOL": "tool", "retriever": "retrieve", "agent": "agent", "chain": "chain",
             "guardrail": "guard", "evaluator": "evaluate", "span": "span", "event": "span", "other": "span"}  # fmt: skip
    assert {kind: langfuse_dialect.facts(span(**{f"{o}type": kind})).what for kind in kinds} == kinds
    for usage, counts in (
        ({"prompt_tokens": 1, "completion_tokens": 2, "input_cached_tokens": 3}, (4, 3, 2)),
        ({"input_tokens": 1, "output_tokens": 2, "input_cache_read": 3}, (4, 3, 2)),
        ({"input": "4", "prompt_tokens": 1, "output": 2.9, "total": -1}, (4, 0, 2)),
        ("none", (0, 0, 0)),
    ):
        found = langfuse_dialect.facts(span(**{f"{o}usage_details": usage}))
        assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == counts
    assert langfuse_dialect.facts(span(**{f"{o}cost_details": {"input": 0.5, "output": 0.25}})).cost_usd == 0.75
    calm = langfuse_dialect.facts(span(**full | {f"{o}level": "WARNING"}))
    assert calm.error is None, "only a level of error is one"
    tool = langfuse_dialect.content(span(**full | {f"{o}type": "tool", f"{o}input": '{"x": 1}', f"{o}output": "done"}))
    assert tool == SpanContent(tool="call", arguments={"x": 1}, result="done")


def test_the_prompt_of_a_langfuse_span_is_all_that_the_model_read() -> None:
    def counts(**usage: Any) -> tuple[int, int, int]:
        found = facts_of(span(**{"langfuse__observation__usage_details": usage}))
        return found.prompt_tokens, found.cached_tokens, found.completion_tokens

    cache = {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 500}
    assert counts(input=10, output=7, **cache, total=1517) == counts(input=10, output=7, **cache) == (1510, 1000, 7)
    assert counts(input=10, output=7, **cache, total=17) == (1510, 1000, 7), "a total without them tells nothing"
    assert counts(input=1510, output=7, **cache, total=1517) == (1510, 1000, 7), "a total tells that they are in it"
    assert counts(input=1000, output=7, cache_read_input_tokens=1000, total=1007) == (1000, 1000, 7)
    assert counts(input_tokens=1000, output_tokens=7, input_cache_read=900, total_tokens=1007) == (1000, 900, 7)
    reasoned = {"input": 60, "input_cache_read": 40, "output": 20, "output_reasoning": 60}
    assert counts(**reasoned, total=180) == counts(**reasoned) == (100, 40, 80), "as the handler of LangChain counts"
    assert counts(input=10, output=7, output_reasoning_tokens=90, total=107) == (10, 0, 97)
    assert counts(input=10, output=97, output_reasoning_tokens=90, total=107) == (10, 0, 97), "it is in it already"
    assert counts(**reasoned | {"input": 100}, total=180) == (100, 40, 80), "the prompt alone has its parts in it"
    assert counts(**reasoned | {"output": 80}, total=180) == (100, 40, 80), "the answer alone has its parts in it"
    assert counts(**reasoned | {"input": 100, "output": 80}, total=180) == (100, 40, 80)
    assert counts(**reasoned, total=150) == (100, 40, 50), "a total that no sum makes is the most"
    assert counts(output=7, output_audio_tokens=5, output_accepted_prediction_tokens=3) == (0, 0, 15)
    assert counts(output=7, output_audio_tokens=1e300) == (0, 0, 10**15)
    assert counts(input=10, input_audio_tokens=5) == (15, 0, 0)
    assert counts(input=10, output=7, total=12) == (10, 0, 7), "what `input` counts is of the prompt"
    assert counts(input=10, input_audio_tokens=1e300) == (10**15, 0, 0)
    nested = {"total_tokens": 1007, "prompt_tokens": 1000, "completion_tokens": 7}
    assert counts(**nested, prompt_tokens_details={"cached_tokens": 900}) == (1000, 900, 7)
    assert counts(input_tokens=1000, input_tokens_details={"cached_tokens": 900}) == (1000, 900, 0)
    assert counts(input_tokens=1000, prompt_tokens_details="none", input_tokens_details=[1]) == (1000, 0, 0)


def test_cached_tokens_that_a_prompt_does_not_hold_were_counted_beside_it() -> None:
    names = {"gen_ai__usage__input_tokens": 10, "gen_ai__usage__cache_read__input_tokens": 1000}
    found = facts_of(span(gen_ai__operation__name="chat", **names))
    assert (found.prompt_tokens, found.cached_tokens) == (1010, 1000)
    found = facts_of(span(gen_ai__operation__name="chat", **names | {"gen_ai__usage__input_tokens": 1000}))
    assert (found.prompt_tokens, found.cached_tokens) == (1000, 1000)
    found = facts_of(span(gen_ai__operation__name="chat", **names | {"gen_ai__usage__cache_read__input_tokens": 1e300}))
    assert (found.prompt_tokens, found.cached_tokens) == (10**15, 10**15)


def test_what_a_langfuse_observation_does_not_show_is_taken_from_its_trace() -> None:
    def both(**held: Any) -> tuple[str, str]:
        names = {"i": "langfuse__observation__input", "o": "langfuse__observation__output",
                 "ti": "langfuse__trace__input", "to": "langfuse__trace__output"}  # fmt: skip
        found = langfuse_dialect.facts(span(**{names[name]: value for name, value in held.items()}))
        return said(found.input), said(found.output)

    assert both(i="", ti="of the trace", to="out") == ("of the trace", "out") == both(ti="of the trace", o="", to="out")
    assert both(i="own", ti="t", o={"a": 1}) == ("own", '{"a": 1}') and both() == ("", "")
    assert both(i="{odd", o='"odd') == ("{odd", '"odd') and both(i="x" * 301)[0] == "x" * 300
    assert both(i='"' + "y" * 301 + '"')[0] == "y" * 300
    assert both(i='{"question": "q"}', o="[" + " " * 19_999 + "]") == ("q", "[" + " " * 299)
    only = langfuse_dialect.content(span(langfuse__trace__input="hi", langfuse__trace__output="yo"))
    assert (only.asked, only.answered) == ([u("hi")], [a("yo")])
    assert langfuse_dialect.speaks(span(langfuse__x=1)) and not langfuse_dialect.speaks(span(langfusex=1))


# -- OpenInference --


def test_openinference_is_read_whole() -> None:
    i, o = "llm__input_messages__", "llm__output_messages__"
    full = {
        "openinference__span__kind": "llm", "llm__model_name": "m", "embedding__model_name": "e", "session__id": "s",
        "user__id": "u", "tag__tags": ["t"], "tool__name": "n", "agent__name": "g", "llm__token_count__prompt": "5",
        "llm__token_count__prompt_details__cache_read": 2, "llm__token_count__completion": 7, "llm__cost__prompt": 0.5,
        "llm__cost__completion": 0.25,
        f"{i}0__message__role": "system", f"{i}0__message__content": "be", f"{i}1__message__role": "user",
        f"{i}1__message__contents__0__message_content__type": "text",
        f"{i}1__message__contents__0__message_content__text": "see ",
        f"{i}1__message__contents__1__message_content__type": "image",
        f"{i}1__message__contents__1__message_content__image__image__url": "http://i" + "x" * 300,
        f"{i}2__message__role": "tool", f"{i}2__message__content": "42", f"{i}2__message__tool_call_id": "c1",
        f"{i}2__message__name": "calc", f"{i}4__message__role": "user",
        f"{o}0__message__role": "assistant", f"{o}0__message__content": "",
        f"{o}0__message__tool_calls__0__tool_call__id": "c2",
        f"{o}0__message__tool_calls__0__tool_call__function__name": "calc",
        f"{o}0__message__tool_calls__0__tool_call__function__arguments": '{"x": 1}',
        f"{o}0__message__tool_calls__1__tool_call__function__name": "odd",
        f"{o}0__message__tool_calls__1__tool_call__function__arguments": "{x",
        f"{o}0__message__tool_calls__2__tool_call__id": "c3",
        "input__value": "I", "output__value": "O",
    }  # fmt: skip
    asked = [
        s("be"), Message("user", (Text("see "), Text("[image: http://i" + "x" * 192 + "]"))),
        Message("tool", (ToolResult("c1", "calc", "42"),)),
    ]  # fmt: skip
    calls = (ToolCall("c2", "calc", {"x": 1}), ToolCall("", "odd", {}, "{x"), ToolCall("c3", "", {}))
    assert columns(openinference_dialect.facts(span(**full))) == {
        "what": "generate", "model": "m", "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 7,
        "cost_usd": 0.75, "session": "s", "user": "u", "label": "n", "tags": ("t",),
        "input": "42", "output": 'calc({"x": 1})',
    }  # fmt: skip
    held = openinference_dialect.content(span(**full))
    assert (held.asked, held.answered) == (asked, [Message("assistant", calls)]) and held.tool == ""
    assert openinference_dialect.facts(span(**full | {"llm__cost__total": 3})).cost_usd == 3.0
    kinds = {"LLM": "generate", "EMBEDDING": "embed", "Chain": "chain", "RETRIEVER": "retrieve", "RERANKER": "rerank",
             "tool": "tool", "AGENT": "agent", "PROMPT": "chain", "GUARDRAIL": "guard", "EVALUATOR": "evaluate",
             "UNKNOWN": "span"}  # fmt: skip
    assert {kind: openinference_dialect.facts(span(openinference__span__kind=kind)).what for kind in kinds} == kinds
    bare = {"openinference__span__kind": "CHAIN", "input__value": '{"messages": [["x"]]}', "output__value": "O"}
    held = openinference_dialect.content(span(**bare))
    assert (held.asked, held.answered) == ([u("x")], [a("O")])
    assert openinference_dialect.content(span(**bare, llm__prompts=["p1", "p2"])).asked == [u("p1"), u("p2")]
    assert columns(openinference_dialect.facts(span(**bare | {"output__value": {"a": 1}}))) == {
        "what": "chain", "input": "x", "output": '{"a": 1}',
    }  # fmt: skip
    long = openinference_dialect.facts(span(**bare | {"input__value": "x" * 301, "output__value": "[" * 20_000}))
    assert (said(long.input), said(long.output)) == ("x" * 300, "[" * 300)
    tool = {"openinference__span__kind": "tool", "input__value": '{"x": 1}', "output__value": "[2]", "tool__id": "c"}
    assert openinference_dialect.content(span(**tool)) == SpanContent(
        tool="call", arguments={"x": 1}, result=[2], call_id="c"
    )
    named = openinference_dialect.content(span(**tool, tool__name="calc", tool_call__id="d"))
    assert (named.tool, named.call_id) == ("calc", "d")


def test_documents_of_a_retriever_are_its_result_where_it_has_no_other() -> None:
    d = "retrieval__documents__"
    held = {"openinference__span__kind": "RETRIEVER", "input__value": "who?", f"{d}0__document__content": "doc one",
            f"{d}0__document__score": 0.5, f"{d}1__document__id": "d2", f"{d}2__document__content": "doc three",
            f"{d}4__document__content": "behind a gap"}  # fmt: skip
    assert content_of(span(**held)).result == "doc one\n\nd2\n\ndoc three"
    assert said(facts_of(span(**held)).output) == "doc one\n\nd2\n\ndoc three"
    assert said(
        facts_of(span(**{f"{d}0__document__content": "x" * 301}, openinference__span__kind="RETRIEVER")).output
    ) == ("x" * 300)
    told = span(**held, output__value="told")
    assert (content_of(told).result, content_of(told).answered, said(facts_of(told).output)) == (
        None,
        [a("told")],
        "told",
    )
    ranked = {"openinference__span__kind": "RERANKER", "reranker__output_documents__0__document__content": "best"}
    assert content_of(span(**held | ranked)).result == "best"
    assert content_of(span(openinference__span__kind="RETRIEVER")).result is None


def test_a_total_alone_is_counted_as_the_prompt() -> None:
    def counts(**given: int) -> tuple[int, int]:
        named = {f"llm__token_count__{name}": number for name, number in given.items()}
        found = facts_of(span(openinference__span__kind="EMBEDDING", **named))
        return found.prompt_tokens, found.completion_tokens

    assert counts(total=77) == (77, 0) and counts(total=77, completion=70) == (7, 70)
    assert counts(total=7, completion=70) == (0, 70) and counts(total=77, prompt=70) == (70, 0)


# -- OpenLLMetry --


def test_openllmetry_is_read_whole() -> None:
    p, c, t = "gen_ai__prompt__", "gen_ai__completion__", "traceloop__association__properties__"
    full = {
        "llm__request__type": "Chat", "gen_ai__response__model": "answered", "gen_ai__request__model": "asked",
        "llm__request__model": "old", "gen_ai__usage__prompt_tokens": 5, "gen_ai__usage__input_tokens": 6,
        "gen_ai__usage__cache_read_input_tokens": 2, "gen_ai__usage__completion_tokens": 7, f"{t}session_id": "s",
        f"{t}chat_id": "no", f"{t}user_id": "u", "traceloop__workflow__name": "w",
        f"{p}0__role": "system", f"{p}0__content": "be", f"{p}1__content": '[{"type": "text", "text": "hi"}]',
        f"{p}2__role": "Tool", f"{p}2__content": "42", f"{p}2__tool_call_id": "c1", f"{p}2__name": "calc",
        f"{p}4__content": "after a gap", f"{c}0__content": "yo", f"{c}0__tool_calls__0__name": "calc",
        f"{c}0__tool_calls__0__id": "c2", f"{c}0__tool_calls__0__arguments": '{"x": 1}',
        f"{c}0__tool_calls__1__name": "odd", f"{c}0__tool_calls__1__arguments": "[1]", f"{c}1__tool_calls__0__name": "n",
    }  # fmt: skip
    assert columns(openllmetry_dialect.facts(span(**full))) == {
        "what": "generate", "model": "answered", "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 7,
        "session": "s", "user": "u", "label": "w", "input": "42", "output": "n({})",
    }  # fmt: skip
    held = openllmetry_dialect.content(span(**full))
    assert held.asked == [s("be"), u("hi"), Message("tool", (ToolResult("c1", "calc", "42"),))]
    calls = (Text("yo"), ToolCall("c2", "calc", {"x": 1}), ToolCall("", "odd", {}, "[1]"))
    assert held.answered == [Message("assistant", calls), Message("assistant", (ToolCall("", "n", {}),))]
    older = {"gen_ai__request__model": "asked", "llm__request__model": "old", "llm__usage__prompt_tokens": 3,
             "llm__usage__completion_tokens": 4, "gen_ai__usage__cache_read__input_tokens": 1, f"{t}thread_id": "th",
             f"{t}user.id": "u2", "traceloop__entity__name": "e", "traceloop__workflow__name": "w",
             "traceloop__entity__input": "x" * 301, "traceloop__entity__output": "out"}  # fmt: skip
    assert columns(openllmetry_dialect.facts(span(**older))) == {
        "model": "asked", "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 4, "session": "th", "user": "u2",
        "label": "e", "input": "x" * 300, "output": "out",
    }  # fmt: skip
    kinds = {"workflow": "chain", "TASK": "chain", "agent": "agent", "tool": "tool", "": "span"}
    assert {kind: openllmetry_dialect.facts(span(traceloop__span__kind=kind)).what for kind in kinds} == kinds
    types = {
        "chat": "generate",
        "completion": "generate",
        "Embedding": "embed",
        "embeddings": "embed",
        "rerank": "rerank",
    }
    assert {kind: openllmetry_dialect.facts(span(llm__request__type=kind)).what for kind in types} == types
    assert openllmetry_dialect.facts(span(traceloop__span__kind="task", llm__request__type="chat")).what == "chain"
    assert openllmetry_dialect.facts(span(**{f"{p}0__role": "user"})).what == "generate"
    tool = {"traceloop__span__kind": "tool", "traceloop__entity__input": '{"x": 1}', "traceloop__entity__output": "2"}
    assert openllmetry_dialect.content(span(**tool)) == SpanContent(tool="call", arguments={"x": 1}, result="2")
    assert openllmetry_dialect.content(span(**tool, traceloop__entity__name="calc")).tool == "calc"
    spoken = ("traceloop__span__kind", "llm__request__type", f"{p}0__role", f"{c}0__role", "traceloop__x")
    assert all(openllmetry_dialect.speaks(span(**{name: 1})) for name in spoken)
    assert not openllmetry_dialect.speaks(span(traceloopx=1, gen_ai__prompt__1__role="user"))


# -- GenAI --


def test_genai_is_read_whole() -> None:
    g = "gen_ai__"
    full = {
        f"{g}operation__name": "chat", f"{g}response__model": "answered", f"{g}request__model": "asked",
        f"{g}usage__input_tokens": 5, f"{g}usage__prompt_tokens": 6, f"{g}usage__cache_read__input_tokens": 2,
        f"{g}usage__output_tokens": 7, f"{g}usage__completion_tokens": 8, "firsthand__usage__cost_usd": 0.5,
        f"{g}usage__cost": 9, f"{g}conversation__id": "c", "session__id": "s", "user__id": "u", "enduser__id": "e",
        f"{g}tool__name": "", f"{g}agent__name": "g", f"{g}system_instructions": '[{"type": "text", "content": "be"}]',
        f"{g}input__messages": '[{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]',
        f"{g}output__messages": '[{"role": "user", "parts": [{"type": "text", "content": "yo"}]}]',
    }  # fmt: skip
    assert columns(genai_dialect.facts(span(**full))) == {
        "what": "generate", "model": "answered", "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 7,
        "cost_usd": 0.5, "session": "c", "user": "u", "label": "g", "input": "hi", "output": "yo",
    }  # fmt: skip
    held = genai_dialect.content(span(**full))
    assert (held.asked, held.answered) == ([s("be"), u("hi")], [a("yo")])
    kinds = {
        "chat": "generate", "generate_content": "generate", "text_completion": "generate", "completion": "generate",
        "embeddings": "embed", "retrieval": "retrieve", "execute_tool": "tool", "create_agent": "agent",
        "invoke_agent": "agent", "invoke_workflow": "chain", "plan": "chain", "guard": "guard", "search_memory": "tool",
        "other": "span",
    }  # fmt: skip
    assert {kind: genai_dialect.facts(span(gen_ai__operation__name=kind)).what for kind in kinds} == kinds
    counted = {f"{g}usage__input_tokens": 1, f"{g}request__model": "m"}
    assert genai_dialect.facts(span(**counted)).what == "generate"
    assert genai_dialect.facts(span(**counted, gen_ai__operation__name="plan")).what == "chain"
    assert {genai_dialect.facts(span(**{name: 1})).what for name in counted} == {"span"}
    tool = {f"{g}operation__name": "execute_tool", f"{g}tool__name": "calc", f"{g}tool__call__id": "c",
            f"{g}tool__call__arguments": '{"x": ' + "1" * 300 + "}", f"{g}tool__call__result": "r" * 301}  # fmt: skip
    assert columns(genai_dialect.facts(span(**tool))) == {
        "what": "tool", "label": "calc", "input": '{"x": ' + "1" * 294, "output": "r" * 300,
    }  # fmt: skip
    held = genai_dialect.content(span(**tool))
    assert (held.tool, held.arguments, held.result, held.call_id) == ("calc", {"x": int("1" * 300)}, "r" * 301, "c")
    spoken = ("operation__name", "system", "provider__name", "x")
    assert [genai_dialect.speaks(span(**{f"{g}{name}": 1})) for name in spoken] == [True, True, True, False]


def test_events_of_each_release_are_messages() -> None:
    events = [
        ("gen_ai.system.message", {"content": "be"}),
        ("gen_ai.user.message", {"gen_ai.event.content": '{"content": "hi"}'}),
        ("gen_ai.user.message", {"gen_ai.event.content": "plain", "role": "user"}),
        ("gen_ai.assistant.message", {"tool_calls": '[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]'}),
        ("gen_ai.tool.message", {"content": "42", "id": "c"}),
        ("gen_ai.choice", {"message": '{"content": "yo"}', "index": 0}),
        ("gen_ai.client.inference.operation.details", {
            "gen_ai.system_instructions": "", "gen_ai.input.messages": '["in"]',
            "gen_ai.output.messages": '[{"role": "assistant", "content": "out"}]',
        }),
        ("gen_ai.content.prompt", {"gen_ai.prompt": "old in"}),
        ("gen_ai.content.completion", {"gen_ai.completion": "old out"}),
        ("exception", {"content": "none of it"}),
    ]  # fmt: skip
    made = span(events, gen_ai__system="openai")
    held = genai_dialect.content(made)
    assert held.asked == [
        s("be"), u("hi"), u("plain"), Message("assistant", (ToolCall("c", "f", {}),)),
        Message("tool", (ToolResult("c", "", "42"),)), u("in"), u("old in"),
    ]  # fmt: skip
    assert [each.text for each in held.answered] == ["yo", "out", "old out"]
    assert {each.role for each in held.answered[1:]} == {"assistant"}
    assert columns(genai_dialect.facts(made)) == {"input": "old in", "output": "old out"}
    assert genai_dialect.content(span([("gen_ai.choice", None)], gen_ai__system="x")).answered == [
        Message("assistant", (Text(""),))
    ]


# -- all together --


def test_the_first_dialect_that_says_something_is_believed_and_others_fill_in() -> None:
    mixed = {
        "langfuse__observation__type": "span", "langfuse__observation__input": "", "openinference__span__kind": "AGENT",
        "llm__model_name": "m", "gen_ai__operation__name": "chat", "gen_ai__request__model": "other",
        "gen_ai__usage__input_tokens": 4, "gen_ai__tool__name": "calc", "gen_ai__tool__call__id": "c",
        "gen_ai__tool__call__result": "2", "gen_ai__input__messages": '["hi"]', "output__value": "out",
        "gen_ai__output__messages": '["no"]', "enduser__id": "e",
    }  # fmt: skip
    made = span(**mixed)
    assert dialects_of(made) == ("Langfuse", "OpenInference", "GenAI")
    assert columns(facts_of(made)) == {
        "what": "agent", "model": "m", "prompt_tokens": 4, "label": "calc", "input": "hi", "output": "out", "user": "e",
    }  # fmt: skip
    held = content_of(made)
    assert (held.asked, held.answered) == ([u("hi")], [a("out")])
    assert (held.tool, held.arguments, held.result, held.call_id) == ("calc", None, "2", "c")
    silent = span(session__id="s", gen_ai__conversation__id="g", enduser__id="e")
    assert columns(facts_of(silent)) == {"session": "s", "user": "e"} and content_of(silent) == SpanContent()
    assert columns(facts_of(span(gen_ai__conversation__id="g", user__id="u", enduser__id="e"))) == {
        "session": "g",
        "user": "u",
    }
    again = {"openinference__span__kind": "TOOL", "gen_ai__operation__name": "chat"}
    assert [facts_of(span(**again)).what for _ in range(2)] == ["tool", "tool"]
    one, second = SpanFacts("span", "m", session="s"), SpanFacts("tool", "n", user="u", error="e")
    one.filled_from(second)
    assert columns(one) == {"what": "tool", "model": "m", "session": "s", "user": "u", "error": "e"}
    assert first_of("a", lambda: "b") == "a" and first_of("", "b") == "b" and first_of("a", "") == "a"
    assert said(first_of(lambda: "", lambda: "b")) == "b" and said(first_of(lambda: "a", "b")) == "a"
    assert said(lambda: 1 / 0) == ""  # type: ignore[arg-type,return-value]


def test_an_error_without_words_is_one_and_takes_them_from_where_they_are() -> None:
    level: dict[str, Any] = {"langfuse__observation__level": "ERROR"}
    chat = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "m"}
    assert facts_of(span(**level)).error == facts_of(span(**level, **chat)).error == ""
    assert facts_of(span(**level, **chat, langfuse__observation__status_message="broke")).error == "broke"
    assert facts_of(span(**level, **chat, error__type="Timeout")).error == "Timeout"
    first = ("exception", {"exception.type": "KeyError", "exception.message": "the first"})
    for told, reason in (({"exception.type": "ValueError", "exception.message": "bad"}, "bad"),
                         ({"exception.type": "ValueError"}, "ValueError"), ({}, "the first")):  # fmt: skip
        assert (
            facts_of(span((first, ("exception", told), ("note", {})), **level, error__type="Timeout")).error == reason
        )
    failed = span((first,), **chat, error__type="Timeout")
    assert facts_of(failed).error is None, "an exception that was caught is no failure"
    failed.error = ""
    assert facts_of(failed).error == "the first"
    failed.error, failed.events = "said", []
    assert facts_of(failed).error is None
    failed.error, failed.attributes = "", {}
    assert facts_of(failed).error == ""
