"""Harmony, the format of gpt-oss: an answer is several messages, of which the analysis is a thought."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from byte_tokens import BYTES, added, description
from firsthand import grammar as forms
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import CallDelta, Sampling, ToolSpec
from firsthand.providers.local import Local
from firsthand.tokens.calls.call_grammar import markup_of, tool_grammar
from firsthand.tokens.calls.harmony_text import HarmonyCallStream, HarmonyText
from firsthand.tokens.incremental_decoding import StopStrings
from firsthand.tokens.llguidance_grammar import matcher_of, vocabulary
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import CHANNEL_TOKENS, Tokenizer
from served import Running, serving
from tiny import write_model

HTTP = httpx.Client(verify=False, timeout=60)
SPECIALS = [*sorted(CHANNEL_TOKENS), "<|constrain|>"]
TOKENS = {name: id for id, name in enumerate(SPECIALS, 256)}
PARAMETERS = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
ADD = ToolSpec("add", "", PARAMETERS)
SLOW = ToolSpec("slow", "", {**PARAMETERS, "allOf": [{"required": ["a"]}]})
THINK = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a":1}'
TEMPLATE = """{{ '<|start|>system<|message|>' + reasoning_effort | default('') + 'S<|end|>' }}
{%- if tools %}{{ tools | length }}{% endif %}{% for m in messages %}
{%- if m.role == 'assistant' and m.tool_calls %}{% if m.content and m.thinking %}{{ raise_exception('both') }}{% endif %}
{%- if m.content or m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + (m.content or m.thinking) }}
{{- '<|end|>' }}{% endif %}{{ '<|start|>assistant to=functions.' + m.tool_calls[0].function.name }}
{{- '<|channel|>commentary json<|message|>' + (m.tool_calls[0].function.arguments | tojson) + '<|call|>' }}
{%- elif m.role == 'assistant' and loop.last and not add_generation_prompt %}
{%- if m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- elif m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
{%- else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""
"""Has the rules of the published one: a thought stays before a call, and goes once there is an answer."""


def made(*, names: list[str] = SPECIALS, **changes: Any) -> Tokenizer:
    whole = description() | {"added_tokens": [added(id, name, special=True) for id, name in enumerate(names, 256)]}
    whole["model"]["vocab"] = {letter: id for id, letter in enumerate(BYTES)}
    whole["model"]["merges"] = []
    return Tokenizer(whole, **changes)


TOKENIZER = made(eos_ids=(TOKENS["<|return|>"],))


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, special=True)


def shown(text: str | list[int], *, calls: bool = False) -> str:
    reader = HarmonyText(TOKENIZER, calls=calls)
    pieces = [piece for id in (ids(text) if isinstance(text, str) else text) for piece in reader.feed(id)]
    return "".join(piece.text for piece in [*pieces, *reader.finish()])


def called(text: str | list[int]) -> tuple[str, tuple[ToolCall, ...]]:
    """The text and the calls, which are the same however the text is cut."""
    whole, found = shown(text, calls=True), []
    for size in (1, 3, len(whole) or 1):
        stream = HarmonyCallStream()
        pieces = [each for at in range(0, len(whole), size) for each in stream.feed(whole[at : at + size])]
        pieces += stream.finish()
        words = "".join(each for each in pieces if isinstance(each, str))
        parts = [each for each in pieces if isinstance(each, CallDelta)]
        for call in stream.calls:
            mine = [each for each in parts if f"call_{each.index}" == call.id]
            raw = "".join(each.arguments for each in mine)
            assert mine[0].name == call.name and raw.strip() == (call.invalid or raw.strip())
            assert call.invalid is not None or json.loads(raw) == call.arguments
        found.append((words, stream.calls))
    assert found[0] == found[1] == found[2]
    return found[0]


# -- the end of a turn --


def test_end_ends_a_message_of_harmony_and_not_its_turn() -> None:
    end, back, call = (TOKENS[name] for name in ("<|end|>", "<|return|>", "<|call|>"))
    assert TOKENIZER.eos_ids == {back, call} and TOKENIZER.closing_ids == {back, call, end} and TOKENIZER.has_channels
    named = made(eos_ids=(end, back))  # as some GGUF files do
    assert named.eos_ids == {back, call} and named.eos_id == back
    assert Tokenizer(**named.settings()).eos_ids == named.eos_ids
    for missing in sorted(CHANNEL_TOKENS - {"<|end|>"}):
        other = made(names=[name for name in SPECIALS if name != missing], eos_ids=())
        assert (
            other.token_id("<|end|>") in other.eos_ids and other.closing_ids == other.eos_ids and not other.has_channels
        )


# -- channels --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{THINK}2+2?{NEXT}{FINAL}It is 4.<|return|>", "<think>\n2+2?\n</think>\n\nIt is 4."),
        (f"{FINAL}It is 4.", "It is 4."), (f"{THINK}cut", "<think>\ncut"), (f"{THINK}only<|end|>", "<think>\nonly"),
        (f"{THINK}a{NEXT}{THINK}b{NEXT}{FINAL}c", "<think>\na\n\nb\n</think>\n\nc"),
        (f"<|channel|>commentary<|message|>I look.{NEXT}{FINAL}c", "I look.\n\nc"),
        (f"{FINAL}a{NEXT}{THINK}late{NEXT}{FINAL}b", "a\n\nb"), ("<|message|>bare", "bare"),
        ("<|channel|>other<|message|>x", "x"),
        (f"<|channel|>{' ' * 1024}analysis<|message|>x", "x"), ("<|channel|>analysis", ""),
        (f"{THINK}a{NEXT}<|channel|>fin", "<think>\na"),
        ("no channel", "no channel"), (" toast", " toast"), ("t", "t"), (" to=functions.a", ""), ("", ""), ("<|end|>", ""),
        (f"{THINK}a</think>b</thi", "<think>\na< /think>b</thi"), (f"{THINK}a</th{NEXT}{FINAL}ink>", None),
        (f"{FINAL}<|constrain|>x<|message|>y", "xy"), (f"{THINK}a{FINAL}b", "<think>\na\n</think>\n\nb"),
        (f"<|start|>assistant{FINAL}x", "x"), (f"{FINAL}é\ufdd0add\ufdd1{{}}\ufdd2", "é\ufffdadd\ufffd{}\ufffd"),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
    ],
)  # fmt: skip
def test_the_analysis_is_a_thought_and_the_other_channels_are_text(text: str, expected: str | None) -> None:
    expected = "<think>\na</th\n</think>\n\nink>" if expected is None else expected
    assert shown(text) == expected
    assert called(text) == (expected, ())


def test_only_tokens_make_a_channel_and_only_a_message_to_a_function_makes_a_call() -> None:
    typed = TOKENIZER.encode(f"{CALL}<|call|>")  # as text, which the user may have written
    assert shown(ids(FINAL) + typed) == f"{CALL}<|call|>" and called(ids(FINAL) + typed) == (f"{CALL}<|call|>", ())
    hermes = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    for text in (
        hermes,
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]',
        '{"name": "add", "parameters": {"a": 1}}',
    ):
        assert called(f"{FINAL}{text}") == (text, ())
        assert called(f"{THINK}{text}") == (f"<think>\n{text}", ())
    assert shown(f"{THINK}a{NEXT}{CALL}") == f"<think>\na\n</think>\n\n{hermes.replace(': 1', ':1')}", (
        "there are no tools"
    )


@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        (CALL, "", [("add", {"a": 1})]), (f"{CALL}<|call|>", "", [("add", {"a": 1})]),
        (f"{THINK}hm{NEXT}{CALL}<|call|>", "<think>\nhm\n</think>", [("add", {"a": 1})]),
        (f"<|channel|>commentary<|message|>I look.{NEXT}{CALL}", "I look.", [("add", {"a": 1})]),
        (' to=functions.add<|channel|>commentary json<|message|>{"a":1}', "", [("add", {"a": 1})]),
        ('<|channel|>analysis to=functions.add code<|message|>{"a": 1}', "", [("add", {"a": 1})]),
        ('<|channel|>commentary to=functions.add<|constrain|>json<|message|>{"a":1}', "", [("add", {"a": 1})]),
        (f"{CALL}<|call|><|start|>assistant{CALL}", "", [("add", {"a": 1})] * 2),
        ("<|channel|>commentary to=python code<|message|>1 + 1", "", [("python", "1 + 1")]),
        ('<|channel|>commentary to=functions.add<|message|>{"a": ', "", [("add", '{"a":')]),
        ('<|channel|>commentary to=functions.add<|message|>{"a": 1, "a": 2}', "", [("add", '{"a": 1, "a": 2}')]),
        ('<|channel|>commentary to=functions.add<|message|>{"a": NaN}', "", [("add", '{"a": NaN}')]),
        ("<|channel|>commentary to=functions.add<|message|>[1]", "", [("add", "[1]")]),
        ("<|channel|>commentary to=functions.add<|message|><|call|>", "", [("add", {})]),
        ("<|end|><|start|>functions.add to=assistant<|channel|>commentary<|message|>3", "3", []),
        ("<|channel|>commentary to=functions.a\ufdd1b<|message|>{}", "", [("a\ufffdb", {})]),
        ("<|channel|>commentary to=user<|message|>Hi", "Hi", []),
        (f"{CALL}{NEXT}{FINAL}done", "done", [("add", {"a": 1})]),
    ],
)  # fmt: skip
def test_a_message_to_a_function_is_a_call(text: str, words: str, calls: list[tuple[str, Any]]) -> None:
    found, made = called(text)
    assert found == words
    assert [(call.name, call.arguments if call.invalid is None else call.invalid) for call in made] == calls


def test_a_deeply_nested_call_is_broken() -> None:
    _, (call,) = called(f"<|channel|>commentary to=functions.add<|message|>{'[' * 20_000}")
    assert call.invalid == "[" * 20_000


@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        (["\n"], f"{THINK}a{NEXT}{FINAL}b", "<think>\na\n</think>\n\nb"), (["think"], f"{THINK}a{NEXT}{FINAL}b", None),
        (["ab"], f"{THINK}xa{NEXT}{FINAL}b", "<think>\nxa\n</think>\n\nb"),
        (["b"], f"{THINK}a{NEXT}{FINAL}xby", "<think>\na\n</think>\n\nx"), (["a"], f"{THINK}xay{NEXT}", "<think>\nx"),
        (["a"], f"{THINK}xay{NEXT}{FINAL}b", "<think>\nx"),
    ],
)  # fmt: skip
def test_stop_strings_are_sought_in_what_the_model_wrote(stop: list[str], text: str, expected: str | None) -> None:
    watch = StopStrings(TOKENIZER, stop, channels=HarmonyText(TOKENIZER))
    parts = []
    for id in ids(text):
        watch.feed(id)
        parts.append(watch.take())
    watch.finish()
    assert "".join([*parts, watch.take()]) == (expected or "<think>\na\n</think>\n\nb")
    assert watch.stopped == (stop[0] if stop[0] in ("a", "b") else None)


def test_a_stop_string_within_min_tokens_is_text() -> None:
    watch = StopStrings(TOKENIZER, ["b"], after=len(ids(FINAL)) + 1, channels=HarmonyText(TOKENIZER))
    assert [watch.feed(id) for id in ids(f"{FINAL}bab")][-3:] == [False, False, True]
    assert watch.take() == "ba"


# -- prompts --


def rendered(*turns: Message, reply: bool = True) -> str:
    template = ChatTemplate(TOKENIZER, TEMPLATE)
    return TOKENIZER.decode(template.encode(turns, [ADD], reply=reply), skip_special=False).partition("S<|end|>1")[2]


def test_a_thought_goes_to_the_template_apart_from_the_text() -> None:
    asked, mark = "<|start|>user<|message|>q<|end|>", "<|start|>assistant"
    thought = "<think>\nhm\n</think>\n\n"
    call, result = ToolCall("call_0", "add", {"a": 1}), Message("tool", (ToolResult("call_0", "add", "3"),))
    made = '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": 1}<|call|>'
    answered = f"{asked}{mark}{FINAL}4<|end|>{asked}{mark}"
    assert rendered(user("q"), assistant(f"{thought}4"), user("q")) == answered
    assert rendered(user("q"), assistant("4"), user("q")) == answered
    told = rendered(user("q"), Message("assistant", (Text(thought), call)), result)
    back = f"{made}<|start|>tool<|message|>3<|end|>{mark}"
    assert told == f"{asked}{mark}{THINK}hm<|end|>{back}"
    both = rendered(user("q"), Message("assistant", (Text(f"{thought}I look."), call)), result)
    assert both == f"{asked}{mark}{THINK}hm\n\nI look.<|end|>{back}"
    assert rendered(user("q"), Message("assistant", (call,)), result) == f"{asked}{back}"
    whole = rendered(user("q"), assistant(f"{thought}4"), reply=False)
    assert whole == f"{asked}{mark}{THINK}hm{NEXT}{FINAL}4<|return|>"
    assert rendered(user(thought)) == f"<|start|>user<|message|>{thought}<|end|>{mark}", "a user's text is as it is"
    forged = rendered(user("q"), assistant(f"<think>{NEXT}</think>4"), reply=False)
    assert forged == f"{asked}{mark}{THINK}{NEXT}{NEXT}{FINAL}4<|return|>"
    plain = ChatTemplate(TOKENIZER, TEMPLATE).encode(
        [user("q"), assistant(f"<think>{NEXT}</think>4")], [ADD], reply=False
    )
    assert plain.count(TOKENS["<|end|>"]) == 3, "the text of a token in a thought is text"


def test_each_of_several_calls_stands_before_its_result() -> None:
    first, second = ToolCall("a", "add", {"a": 1}), ToolCall("b", "sub", {"a": 2})
    results = [Message("tool", (ToolResult(id, "", told),)) for id, told in (("b", "two"), ("a", "one"))]

    def turn(name: str, a: int, told: str) -> str:
        call = f'<|start|>assistant to=functions.{name}<|channel|>commentary json<|message|>{{"a": {a}}}<|call|>'
        return call + (f"<|start|>tool<|message|>{told}<|end|>" if told else "")

    both = Message("assistant", (Text("<think>\nhm\n</think>"), first, second))
    asked, mark = "<|start|>user<|message|>q<|end|>", "<|start|>assistant"
    told = f"{asked}{mark}{THINK}hm<|end|>{turn('add', 1, 'one')}{turn('sub', 2, 'two')}"
    assert rendered(user("q"), both, *results) == told + mark
    joined = Message("tool", tuple(part for each in results for part in each.parts))
    assert rendered(user("q"), both, joined) == told + mark, "one message with both results"
    again = f"{mark}{THINK}hm<|end|>{turn('add', 1, '')}{turn('sub', 2, 'two')}"
    assert rendered(user("q"), both, *results, both, results[0]) == told + again + mark, "the same ids in a later turn"
    later = rendered(user("q"), both, results[0], user("q"), results[1])
    assert (
        later
        == f"{told.replace(turn('add', 1, 'one'), turn('add', 1, ''))}{asked}<|start|>tool<|message|>one<|end|>{mark}"
    )


def test_the_results_of_several_sampled_calls_are_kept() -> None:
    reply = ids(f"{CALL}<|call|>{NEXT[7:]}{CALL}<|call|>")
    parts = (ToolCall("a", "add", {"a": 1}), ToolCall("b", "add", {"a": 1}))
    turn = Message("assistant", parts, Sampled(tuple(reply), (0.0,) * len(reply)))
    results = [Message("tool", (ToolResult(id, "", told),)) for id, told in (("a", "one"), ("b", "two"))]
    template = ChatTemplate(TOKENIZER, TEMPLATE)
    made = TOKENIZER.decode(template.encode([user("q"), turn, *results]))
    assert "one" in made and "two" in made


def test_sampled_turns_stay_as_they_are_and_get_no_second_end() -> None:
    template = ChatTemplate(TOKENIZER, TEMPLATE)
    reply = ids(f"{THINK}hm{NEXT}{FINAL}4<|return|>")
    turn = Message("assistant", (Text("<think>\nhm\n</think>\n\n4"),), Sampled(tuple(reply), (0.0,) * len(reply)))
    first = template.encode([user("q")])
    longer = template.encode([user("q"), turn, user("r")])
    assert longer == first + reply + ids("<|start|>user<|message|>r<|end|><|start|>assistant")
    reply = ids(f"{THINK}hm{NEXT}{CALL}<|call|>")
    parts = (Text("<think>\nhm\n</think>"), ToolCall("call_0", "add", {"a": 1}))
    turn = Message("assistant", parts, Sampled(tuple(reply), (0.0,) * len(reply)))
    result = Message("tool", (ToolResult("call_0", "add", "3"),))
    assert template.encode([user("q"), turn, result]) == first + reply + ids(
        "<|start|>tool<|message|>3<|end|><|start|>assistant"
    )


# -- grammars --


@cache
def compiled(grammar: Grammar) -> Any:
    return matcher_of(grammar, vocabulary(TOKENIZER))


def reads(grammar: Grammar, text: str) -> bool:
    matcher = compiled(grammar)
    matcher.reset()
    read = ids(text)
    return matcher.try_consume_tokens(read) == len(read) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("answer", "good", "bad"),
    [
        (forms.json_schema(PARAMETERS), '{"a": 1}', '{"a": 3}'), (forms.regex("ab+"), "abb", "b"),
        (forms.choice(["yes", "no"]), "no", "maybe"), (forms.lark('start: "x" y\ny: "z"'), "xz", "x"),
        (forms.gbnf('root ::= "p" "q"'), "pq", "p"),
    ],
)  # fmt: skip
def test_a_form_is_that_of_the_final_channel(answer: Grammar, good: str, bad: str) -> None:
    late = replace(answer, in_final=True)
    assert Grammar.from_json(json.loads(json.dumps(late.to_json()))) == late != answer
    assert "in_final" not in answer.to_json() and late.to_json()["in_final"] is True
    for before in (FINAL, f"{THINK}{bad}\n{good}{NEXT}{FINAL}", f"{THINK}{NEXT}{FINAL}"):
        assert reads(late, before + good) and not reads(late, before + bad) and not reads(answer, before + good)
    for wrong in (good, THINK + good, f"<|channel|>commentary<|message|>x{NEXT}{FINAL}{good}", f"{FINAL}{good}{NEXT}"):
        assert not reads(late, wrong)


def test_a_grammar_that_names_the_channels_is_known() -> None:
    assert forms.lark('start: <|channel|> "final"').names_channels
    described = 'start: call\ncall: %json {"type": "object", "description": "<|channel|>"}'
    assert not forms.lark(described).names_channels and not forms.regex(r"<\|channel\|>").names_channels
    assert not forms.choice(["<|channel|>"]).names_channels and tool_grammar([ADD], markup="harmony").names_channels


def test_a_call_in_harmony_has_arguments_that_fit() -> None:
    assert markup_of(TEMPLATE) == "harmony" and markup_of("<|channel|>") is None
    heads = (
        "<|channel|>commentary to=functions.add <|constrain|>json<|message|>",
        " to=functions.add<|channel|>commentary json<|message|>",
        "<|channel|>analysis to=functions.add<|message|>",
    )
    auto, required, named = (
        tool_grammar([ADD, replace(ADD, name="sub")], choice=choice, markup="harmony")
        for choice in ("auto", "required", "sub")
    )
    for head in heads:
        for before in ("", f"{THINK}hm{NEXT}", f"{THINK}hm{NEXT}<|channel|>commentary<|message|>I look.{NEXT}"):
            for grammar in (auto, required):
                assert reads(grammar, f'{before}{head}{{"a": 1}}') and not reads(grammar, f'{before}{head}{{"a": 3}}')
                assert not reads(grammar, f'{before}{head.replace("add", "other")}{{"a": 1}}')
            sub = head.replace("add", "sub")
            assert reads(named, f'{before}{sub}{{"a": 1}}') and not reads(named, f'{before}{head}{{"a": 1}}')
    free = tool_grammar([ToolSpec("add", "", {})], markup="harmony")
    assert reads(free, f"{heads[0]}{{}}") and not reads(free, f"{heads[0]}[1]"), "arguments are an object"
    for text in (f"{FINAL}Hello", f"{THINK}hm{NEXT}{FINAL}Hello"):
        assert reads(auto, text) and not reads(required, text) and not reads(named, text)


# -- a whole model, and a server --


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    folder: Path = write_model(
        tmp_path_factory.mktemp("model") / "m", template=TEMPLATE, specials=SPECIALS, max_position=2048
    )
    return Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))


@pytest.fixture(scope="module")
def running(local: Local) -> Iterator[Running]:
    with serving(local, name="tiny") as found:
        yield found


def scripted(text: str) -> Grammar:
    """A grammar of one answer, which stands for a model that was trained to write it."""
    items = []
    while text:
        name = next((name for name in SPECIALS if text.startswith(name)), None)
        end = len(name) if name else min([at for each in SPECIALS if (at := text.find(each)) > 0] or [len(text)])
        items.append(text[:end] if name else json.dumps(text[:end]))
        text = text[end:]
    return forms.lark("start: " + " ".join(items))


def answer(local: Local, grammar: Grammar | None, prompt: Any = None, **options: Any) -> Any:
    tools = options.pop("tools", ())
    sampling = Sampling(max_tokens=options.pop("max_tokens", 90), temperature=0, grammar=grammar, **options)
    prompt = prompt or [user("2+2?")]

    async def both() -> Any:
        (whole,) = await local.complete(prompt, sampling, tools=tools)
        pieces = [each async for each in local.stream(prompt, sampling, tools=tools)]
        assert pieces[-1].completion is not None and pieces[-1].completion.message.parts == whole.message.parts
        assert "".join(each.text for each in pieces) == whole.message.text
        return whole

    return asyncio.run(both())


def test_a_model_in_harmony_answers_to_its_end(local: Local) -> None:
    facts = asyncio.run(local.load())
    assert facts.thinks and facts.markup == "harmony"
    said = scripted(f"{THINK}2+2 is 4{NEXT}{FINAL}It is 4.<|return|>")
    whole = answer(local, said)
    assert (whole.message.text, whole.finish_reason) == ("<think>\n2+2 is 4\n</think>\n\nIt is 4.", "stop")
    assert whole.has_control and len(whole.message.sampled.token_ids) == whole.usage.completion_tokens
    assert answer(local, said, stop=("\n",)).message.text == whole.message.text
    cut = answer(local, said, stop=(" is 4",))
    assert (cut.message.text, cut.stop_string) == ("<think>\n2+2", " is 4")
    raw = "2+2 is 4assistantfinalIt is 4."
    assert answer(local, said, prompt="Hi").message.text == f"analysis{raw}", "a raw prompt"
    assert answer(local, forms.choice(["yes", "no"]), prompt="Hi").message.text in ("yes", "no")
    kept = answer(local, said, skip_special_tokens=False).message.text
    assert kept.startswith(f"{THINK}2+2 is 4{NEXT}{FINAL}It is 4.")
    assert answer(local, said, max_tokens=4).finish_reason == "length"


def test_a_model_in_harmony_calls_tools(local: Local) -> None:
    whole = answer(local, scripted(f"{THINK}hm{NEXT}{CALL}<|call|>"), tools=[ADD])
    assert (whole.message.text, whole.finish_reason) == ("<think>\nhm\n</think>", "tool_calls")
    assert whole.message.tool_calls == (ToolCall("call_0", "add", {"a": 1}),)
    untold = answer(local, scripted(f"{CALL}<|call|>"))
    assert untold.message.text == '<tool_call>\n{"name": "add", "arguments": {"a":1}}\n</tool_call>'
    short = len(whole.message.sampled.token_ids) - 4
    cut = answer(local, scripted(f"{THINK}hm{NEXT}{CALL}<|call|>"), tools=[ADD], max_tokens=short)
    assert cut.finish_reason == "length" and cut.message.tool_calls[0].invalid
    stopped = answer(local, scripted(f"{CALL}<|call|>"), tools=[ADD], stop=('"a',))
    assert stopped.finish_reason == "stop" and stopped.message.tool_calls[0].invalid == "{"
    text = answer(local, scripted(f'{FINAL}{{"name": "add", "arguments": {{"a": 1}}}}<|return|>'), tools=[ADD])
    assert not text.message.tool_calls and text.finish_reason == "stop"


@pytest.mark.parametrize("tool", [ADD, SLOW])
def test_a_call_is_demanded_and_a_form_is_kept(local: Local, tool: ToolSpec) -> None:
    """The second schema is not cheap: its grammar is in a process of its own."""
    space, first, whole_word = (asyncio.run(local.tokenize(text))[-1] for text in ("x ", "xf", "x final"))
    for choice, tools in (("required", [tool]), (tool.name, [replace(tool, name="other"), tool])):
        whole = answer(local, None, tools=tools, tool_choice=choice, logit_bias=((space, 100.0),))
        assert [(call.name, call.arguments["a"] in (1, 2)) for call in whole.message.tool_calls] == [(tool.name, True)]
    formed = answer(local, forms.json_schema(tool.parameters), logit_bias=((first, 100.0), (whole_word, 100.0)))
    assert formed.finish_reason == "stop" and json.loads(formed.message.text)["a"] in (1, 2)
    assert b"".join(local.spell(formed.message.sampled.token_ids)).startswith(FINAL.encode())


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_gives_the_analysis_as_reasoning(running: Running, stream: bool) -> None:
    grammar = scripted(f"{THINK}2+2 is 4{NEXT}{FINAL}It is 4.<|return|>").source
    body = {"model": "tiny", "messages": [{"role": "user", "content": "2+2?"}], "max_tokens": 90, "stream": stream}
    body |= {"temperature": 0, "guided_grammar": grammar}
    reply = HTTP.post(running.url + "/v1/chat/completions", json=body)
    if stream:
        deltas = [
            json.loads(line[6:])["choices"][0]["delta"] for line in reply.text.split("\n") if line[:7] == "data: {"
        ]
        said = {key: "".join(each.get(key) or "" for each in deltas) for key in ("content", "reasoning_content")}
    else:
        said = reply.json()["choices"][0]["message"]
    assert (said["reasoning_content"], said["content"]) == ("2+2 is 4", "It is 4.")


def test_a_server_keeps_the_thought_before_a_call_and_drops_it_behind_an_answer(running: Running) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    ]

    def prompt(messages: list[dict[str, Any]]) -> str:
        told = HTTP.post(running.url + "/tokenize", json={"model": "tiny", "messages": messages}).json()
        return running.models.model._loaded.tokenizer.decode(told["tokens"], skip_special=False)  # type: ignore[attr-defined]

    assert f"<|start|>assistant{THINK}hm<|end|><|start|>assistant to=functions.add" in prompt(turns)
    answered = prompt([turns[0], {"role": "assistant", "content": "4", "reasoning_content": "hm"}, turns[0]])
    assert f"<|start|>assistant{FINAL}4<|end|>" in answered and "hm" not in answered


def test_reasoning_effort_is_the_templates_variable(running: Running) -> None:
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
    told: Any = {"model": "tiny", "max_tokens": 1}
    turns: Any = [{"role": "user", "content": "q"}]

    def chat(**more: Any) -> int:
        return client.chat.completions.create(**told, messages=turns, **more).usage.prompt_tokens

    none = chat()
    for effort in ("low", "high"):
        count = chat(extra_body=variable(effort))
        assert none < count == chat(reasoning_effort=effort)
        assert chat(reasoning_effort=effort, extra_body=variable(effort)) == count
        reply: Any = client.responses.create(model="tiny", input="q", max_output_tokens=1, reasoning={"effort": effort})
        assert reply.usage.input_tokens == count
    assert chat(reasoning_effort=None) == none
    for wrong in ("minimal", "none", "", "Low"):
        with pytest.raises(openai.BadRequestError, match="give one of low, medium, high") as refused:
            chat(reasoning_effort=wrong)
        assert refused.value.param == "reasoning_effort"
    with pytest.raises(openai.BadRequestError, match=r"reasoning\.effort is 'minimal'") as refused:
        client.responses.create(model="tiny", input="q", reasoning={"effort": "minimal"})
    assert refused.value.param == "reasoning.effort"
    with pytest.raises(openai.BadRequestError, match="differ"):
        chat(reasoning_effort="low", extra_body=variable("high"))


def variable(effort: str) -> dict[str, Any]:
    return {"chat_template_kwargs": {"reasoning_effort": effort}}
