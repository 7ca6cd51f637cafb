"""Tool calls are read while they come, however the text is cut, in each family's way and with the usual mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.message import ToolCall
from firsthand.model import CallDelta, ToolSpec
from firsthand.tokens.calls.call_parser import CallStream, parse
from thorough import repetitions

RECORDED = json.loads((Path(__file__).parent / "data" / "toolcalls.json").read_text(encoding="utf-8"))


def spec(name: str, *arguments: str) -> ToolSpec:
    return ToolSpec(name, "", {"type": "object", "properties": {each: {} for each in arguments}})


TOOLS = (spec("add", "a", "b"), spec("get_weather", "city", "unit"), spec("search", "query", "limit"))
Found = tuple[str, list[tuple[str, object]]]


def read(text: str) -> Found:
    """The words, and each call as its name and what its arguments are: an object, or the text that was broken."""
    words, calls = parse(text, TOOLS)
    return words, [(call.name, call.arguments if call.invalid is None else call.invalid) for call in calls]


def streamed(pieces: list[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """What a stream gives, the pieces of its calls held against the calls themselves."""
    stream = CallStream(TOOLS)
    out = [part for piece in pieces for part in stream.feed(piece)] + stream.finish()
    deltas = [part for part in out if isinstance(part, CallDelta)]
    for index, call in enumerate(stream.calls):
        own = [delta for delta in deltas if delta.index == index]
        assert (own[0].id, own[0].name) == (call.id, call.name)
        assert all(delta.name is None for delta in own[1:])
        if call.invalid is None:
            assert json.loads("".join(delta.arguments for delta in own)) == call.arguments
    assert {delta.index for delta in deltas} == set(range(len(stream.calls)))
    return "".join(part for part in out if isinstance(part, str)), stream.calls


# -- each family's way, from its model card or template --

WEATHER = ("get_weather", {"city": "San Francisco", "unit": "celsius"})
FAMILIES = {
    "llama 3.1, bare": '{"name": "get_weather", "parameters": {"city": "San Francisco", "unit": "celsius"}}',
    "llama 3.1, python_tag": '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": '
    '{"city": "San Francisco", "unit": "celsius"}}',
    "llama 3.1, built in": "<|python_tag|>get_weather.call(city=\"San Francisco\", unit='celsius')",
    "llama 3.2": "[get_weather(city='San Francisco', unit='celsius')]",
    "llama 4": "<|python_start|>[get_weather(city='San Francisco', unit='celsius')]<|python_end|>",
    "qwen": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "San Francisco", "unit": "celsius"}}\n</tool_call>',
    "mistral, list": '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "San Francisco", "unit": "celsius"}, '
    '"id": "9Ae3bDc2F"}]',
    "mistral, named": '[TOOL_CALLS]get_weather[CALL_ID]9Ae3bDc2F[ARGS]{"city": "San Francisco", "unit": "celsius"}',
    "mistral, tekken": '[TOOL_CALLS]get_weather{"city": "San Francisco", "unit": "celsius"}',
    "gemma, list": '[get_weather(city="San Francisco", unit="celsius")]',
    "gemma, tool_code": '```tool_code\nprint(get_weather(city="San Francisco", unit="celsius"))\n```',
    "gemma, json": '```json\n{"name": "get_weather", "parameters": {"city": "San Francisco", "unit": "celsius"}}\n```',
    "openai": '{"type": "function", "function": {"name": "get_weather", '
    '"arguments": "{\\"city\\": \\"San Francisco\\", \\"unit\\": \\"celsius\\"}"}}',
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_familys_call_is_read_whole_and_letter_by_letter(family: str) -> None:
    text = FAMILIES[family]
    assert read(text) == ("", [WEATHER])
    assert streamed(list(text)) == parse(text, TOOLS)


@pytest.mark.parametrize(
    "text",
    [
        '[add(a=1, b=2), search(query="x")]',
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]search[ARGS]{"query": "x"}',
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>\n<tool_call>{"name": "search", '
        '"arguments": {"query": "x"}}</tool_call>',
        '{"name": "add", "parameters": {"a": 1, "b": 2}}; {"name": "search", "parameters": {"query": "x"}}',
        '[{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "search", "arguments": {"query": "x"}}]',
        "```tool_code\nadd(1, b=2)\nsearch(query='x')\n```",
        '```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n{"name": "search", "arguments": {"query": "x"}}\n```',
    ],
)
def test_several_calls_of_one_answer_are_read_in_order(text: str) -> None:
    assert read(text) == ("", [("add", {"a": 1, "b": 2}), ("search", {"query": "x"})])


# -- the usual mistakes --

ADD = [("add", {"a": 1, "b": [2]})]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2,],},}</tool_call>',
        "<tool_call>{'name': 'add', 'arguments': {'a': 1, 'b': [2]}}</tool_call>",
        '<tool_call>{name: "add", arguments: {a: 1, b: [2]}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "{\'a\': 1, \'b\': [2]}"}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}',
        '<tool_call>\n```json\n{"name": "add", "arguments": {"a": 1, "b": [2]}}\n```\n</tool_call>',
        "<tool_call>add(a=1, b=[2])</tool_call>",
        '<tool_call>add\n{"a": 1, "b": [2]}</tool_call>',
        '```\n{"name": "add", "arguments": {"a": 1, "b": [2]}}\n```',
        '```json\n{"arguments": {"a": +1, "b": (2,)}, "name": "add"}\n```',
        "```tool_code\nresult = add(1, [2])\n```",
        '{"function": "add", "args": {"a": 1, "b": [2]}}',
    ],
)
def test_the_usual_mistakes_are_read_as_what_they_mean(text: str) -> None:
    assert read(text) == ("", ADD)
    assert read(f"I will add.\n{text}")[1] == ADD


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"x": "two\nlines"}', {"x": "two\nlines"}),
        ("{'x': 'say \"hi\"'}", {"x": 'say "hi"'}),
        ("{'x': 'it\\'s'}", {"x": "it's"}),
        ('{"x": "C:\\dir \\d+ \\u12"}', {"x": "C:\\dir \\d+ \\u12"}),
        ('{"x": "\\u00e9\\x41\\n"}', {"x": "éA\n"}),
        ('{"x": """a "b"\n\'c\'"""}', {"x": "a \"b\"\n'c'"}),
        ('{"x": True, "y": None, "z": 1_000, "w": .5}', {"x": True, "y": None, "z": 1000, "w": 0.5}),
        ('{"x": "</tool_call>"}', {"x": "</tool_call>"}),
        ('{"x": "<tool_call>{"}', {"x": "<tool_call>{"}),
        ("null", {}),
        ('""', {}),
    ],
)
def test_arguments_are_read_as_json_or_python_means_them(body: str, arguments: object) -> None:
    text = f'<tool_call>{{"name": "f", "arguments": {body}}}</tool_call>'
    assert read(text) == ("", [("f", arguments)])
    assert streamed(list(text)) == parse(text, TOOLS)


@pytest.mark.parametrize("body", ["{x: y}", '{"a": 1 "b": 2}', "{'x': 'it's'}", '{"x": 1e999}', "{1, 2}", '{"a":: 1}'])
def test_what_could_be_meant_in_two_ways_is_not_guessed(body: str) -> None:
    call = f'{{"name": "f", "arguments": {body}}}'
    assert read(f"<tool_call>{call}</tool_call> on") == ("on", [("f", call)])


def test_a_call_cut_off_by_the_token_limit_is_broken_even_where_only_brackets_are_missing() -> None:
    for text in ('{"name": "add", "arguments": {"a": 1', '<tool_call>{"name": "add", "arguments": {"a": 1}'):
        assert read(text)[1] == [("add", text.removeprefix("<tool_call>"))]


def test_a_string_without_an_end_costs_its_own_call_and_not_the_next() -> None:
    good = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    bad = '{"name": "search", "arguments": {"query": "tea}}'
    assert read(f"<tool_call>{bad}</tool_call>{good}") == ("", [("search", bad), ("add", {"a": 1})])


def test_the_name_of_a_tool_that_does_not_exist_is_kept() -> None:
    assert read('[fly(to="Rome")]') == ("", [("fly", {"to": "Rome"})])
    assert read("[fly('Rome')]") == ("[fly('Rome')]", [])  # no call that could be made, and no mark that says it is one


@pytest.mark.parametrize(
    "text",
    [
        "Use <tool_call> to call, or [TOOL_CALLS].",
        "[see (1)] and [a](b)\n[x(1)]",
        '{"calls": [\n{"name": "f", "arguments": {}}\n]}',
        '```python\n{"name": "f", "arguments": {}}\n```',
        '[{"name": "f", "arguments": {}}, 3]',
        '{"name": "Ada", "born": 1815, "arguments": {}}',
        "print(1)\n[1, 2, 3]\n  \n",
        "``` {} ``` and ```json",
    ],
)
def test_text_that_only_looks_like_a_call_is_text(text: str) -> None:
    assert parse(text, TOOLS) == (text, ())
    assert streamed(list(text)) == (text, ())


# -- streaming --


def test_text_comes_at_once_and_a_call_as_soon_as_its_name_is_known() -> None:
    stream = CallStream(TOOLS)
    assert stream.feed("Let me add") == ["Let me add"]
    assert stream.feed(" <b> a < b.\n<tool") == [" <b> a < b."]
    assert stream.feed('_call>\n{"name": "ad') == []
    assert stream.feed('d", "argu') == [CallDelta(0, "call_0", "add")]
    assert stream.feed('ments": {"a": 1, ') == [CallDelta(0, arguments='{"a": 1')]
    assert stream.feed("'b': 2") == [CallDelta(0, arguments=', "b": ')]
    assert stream.feed("}}") == [CallDelta(0, arguments="2}")]
    assert stream.feed("\n</tool_call>\n") == stream.finish() == []
    assert stream.calls == (ToolCall("call_0", "add", {"a": 1, "b": 2}),)


def test_json_that_is_no_call_is_released_at_the_first_key_that_no_call_has() -> None:
    stream = CallStream()
    assert stream.feed('{"name": "Ada", ') == []
    assert stream.feed('"born": 18') == ['{"name": "Ada", "born":']
    assert stream.feed("15, ") == [" 1815,"]
    assert stream.feed('"x": "a') == [' "x": "a']


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_cut_of_a_recorded_answer_gives_what_the_whole_gives(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([row["text"] for row in RECORDED] + list(FAMILIES.values())))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert streamed(pieces) == parse(text, TOOLS)


MARKUP = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<|python_start|>", "<|python_end|>", "```json",
        "```tool_code", "```", "\n", " ", "{", "}", "[", "]", "(", ")", '"', "'", "\\", ",", ":", "=", "x", "name", "1",
        '"name": "add"', '"arguments": {', "'args': ", "add(", "a=1", "[add(", "print(", '{"name": "x"', "<", "`", "[T",
        "true", '"""', "\\u00", "[ARGS]", '{"answer": 1}', "é", ";", "null", "function",
    ]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(MARKUP, max_size=24), st.randoms(use_true_random=False))
def test_any_cut_of_any_text_gives_what_the_whole_gives(tokens: list[str], random: object) -> None:
    text = "".join(tokens)
    whole = parse(text, TOOLS)
    assert streamed(list(text)) == whole
    assert streamed(tokens) == whole
    assert all(call.invalid is None or call.arguments == {} for call in whole[1])


# -- what the models here really wrote --


def test_recorded_answers_hold_the_calls_that_a_reader_finds_in_them() -> None:
    by_model: dict[str, list[tuple[str, tuple[ToolCall, ...]]]] = {}
    for row in RECORDED:
        by_model.setdefault(row["model"], []).append((row["text"], parse(row["text"], TOOLS)[1]))
    qwen = by_model["qwen2.5-coder-0.5b-instruct.gguf"]
    smol = by_model["SmolLM2-135M-Instruct.Q4_1.gguf"]
    for text, calls in qwen:
        assert len(calls) == text.count('"name"'), text  # it writes nothing with a name that is no call
    broken = [(text, call) for text, calls in qwen for call in calls if call.invalid is not None]
    assert [text for text, _ in broken] == ['{"name": "get_weather", "arguments": {"city": "上海", "unit": "C"}']
    assert sum(bool(calls) for _, calls in smol) == 1  # told of the tools in words, it does not call them
    assert sum(len(calls) == 2 for _, calls in qwen) >= 3


# -- hostile text --


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 5_000,
        '<tool_call>{"a":"' * 4_000,
        "\n{" * 8_000,
        "\n[f(" * 800,
        "<tool_call>[" + "1," * 20_000,
        '<tool_call>{"</tool_call>' * 3_000,
        "<tool_call>{\"</tool_call>{'" * 3_000,
        "```json\n{" * 4_000,
        "```tool_code\n" + "f(1)\n" * 5_000,
        '<tool_call>{"name": "a", "arguments": {"x": "' + '\\"' * 40_000,
        "[f(" * 20_000,
        "`" * 40_000,
        '<tool_call>{"name": "a", "arguments": {}}</tool_call>' * 1_500,
        '\n[{"name": "a"},' * 4_000,
        "<tool_call>" + "(" * 40_000,
        "<tool_call>print(" * 4_000,
        '{"name":"a","arguments":"' + "{'a':" * 5_000 + '"}',
    ],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    with at_most_cpu_s(4):
        parse(text, TOOLS)


def test_hostile_text_in_small_pieces_takes_linear_time() -> None:
    with at_most_cpu_s(5):
        for unit in ("<tool_call>{", "[ ", "```", "{'", "\n  "):
            streamed([unit] * 800)
        streamed(['<tool_call>{"name": "a", "arguments": {"x": "', *["ab"] * 8_000, '"}}'])


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["[", "{", '{"', "<tool_call>", '<tool_call>{"a":"', "\n{", "9", " ", "f(", "```json\n{", "\\"]
)
def test_megabytes_of_anything_are_read(unit: str) -> None:
    with at_most_cpu_s(repetitions(18, 3)):
        parse("<tool_call>" + unit * (repetitions(3_000_000, 500_000) // len(unit)), TOOLS)
