"""Calls in generated text, their values and marks, and what templates are given and may do, each as whole values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.errors import ConfigError, TemplateError
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, ToolSpec
from firsthand.tokens.calls.call_parser import CallStream, parse
from firsthand.tokens.calls.call_source import LONGEST, CallSink, CallSource
from firsthand.tokens.calls.call_value import name_in, read_object
from firsthand.tokens.calls.inline_call import InlineCall, parse_inline_call, without_inline_calls
from firsthand.tokens.templates.template_messages import digests, to_dicts, with_system_folded, with_tools_in_text
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tokens.templates.template_variables import check_variables
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tokens.tokenizer import TextRun

TOOLS = (ToolSpec("add", "", {"properties": {"a": {}, "b": {}}}),)


def read(text: str) -> tuple[str, list[Any]]:
    """The words and the calls, and they are the same letter by letter."""
    words, calls = parse(text, TOOLS)
    stream = CallStream(TOOLS)
    out = [part for letter in text for part in stream.feed(letter)] + stream.finish()
    assert "".join(part for part in out if isinstance(part, str)) == words and stream.calls == calls
    assert [call.id for call in calls] == [f"call_{place}" for place in range(len(calls))]
    return words, [(call.name, call.arguments) if call.invalid is None else (call.name, call.invalid) for call in calls]


ADD = '{"name": "add", "arguments": {"a": 1}}'


def test_fences_marks_and_brackets_are_read_as_calls_or_left_as_text():
    for text, wanted in {
        f"```json\n{ADD}\n```": ("", [("add", {"a": 1})]),
        f"```json\n{ADD[:-1]}\n```": ("", [("add", {"a": 1})]),  # only its last bracket is missing
        f"```json\n{ADD[:-1]}": ("", [("add", ADD[:-1])]),
        '```json\n{"other": 1\n```': ('```json\n{"other": 1\n```', []),
        f"```\n{ADD}\n``` and so": ("and so", [("add", {"a": 1})]),
        f"```python\n{ADD}\n```": (f"```python\n{ADD}\n```", []),
        "```tool_code\nprint(add(1, b=2))\n```": ("", [("add", {"a": 1, "b": 2})]),
        "```tool_code\nx = 3\n```": ("", [("", "x = 3")]),
        f"Hi\n\n<tool_call>{ADD}</tool_call>\n\nthere": ("Hi\n\n\n\nthere", [("add", {"a": 1})]),
        f"<tool_call>{ADD[:-1]}</tool_call>": ("", [("add", {"a": 1})]),
        "<tool_call>{'name': 'add', nonsense}</tool_call> so": ("so", [("add", "{'name': 'add', nonsense}")]),
        "a <tool_call> b": ("a <tool_call> b", []),
        f"[{ADD}, {ADD}]": ("", [("add", {"a": 1})] * 2),
        f"[{ADD}, 3]": (f"[{ADD}, 3]", []),
        f"[TOOL_CALLS][{ADD}, 3]": ("", [("add", {"a": 1}), ("add", f"[{ADD}, 3]")]),
        f'[{ADD}, {{"arguments": {{"a": 1}}}}]': (f'[{ADD}, {{"arguments": {{"a": 1}}}}]', []),
        f'[{{"id": "x"}}, {ADD}]': (f'[{{"id": "x"}}, {ADD}]', []), "[{}, {}]": ("[{}, {}]", []), "[]": ("[]", []),
        f'[{ADD}, {{"function": "sub", "index": 1}}]': ("", [("add", {"a": 1}), ("sub", {})]),
        f"[{ADD}, [{ADD}]]": (f"[{ADD}, [{ADD}]]", []), f'[{{"other": {ADD}}}]': (f'[{{"other": {ADD}}}]', []),
        '{"name": "add", "function": "sub", "arguments": {"a": 2}, "args": {"a": 3}}': ("", [("add", {"a": 2})]),
        '{"name": "add", "arguments": {"a": 1}, "other": 2}': ("", [("add", {"a": 1})]),
        '{"name": "add", "other": 2, "arguments": {}}': ('{"name": "add", "other": 2, "arguments": {}}', []),
        '{"other": 2, "name": "add", "arguments": {}}': ('{"other": 2, "name": "add", "arguments": {}}', []),
        '{"function": {"name": "add"}, "arguments": {"a": 1}}': ("", [("add", {"a": 1})]),
        '{"name": "add", "args": " \\n"}': ("", [("add", {})]), '{"name": "add", "parameters": "{}"}': ("", [("add", {})]),
        '{"name": "add", "name": "sub"}': ("", [("add", {})]), '{"name": 3, "args": {}}': ('{"name": 3, "args": {}}', []),
        '{"function": {"name": "add", "parameters": {"a": {"name": "x"}}}, "name": "sub"}':
            ("", [("add", {"a": {"name": "x"}})]),
        '{"function": {"function": {"name": "add"}}}': ('{"function": {"function": {"name": "add"}}}', []),
        f"{ADD}; {ADD}": ("", [("add", {"a": 1})] * 2),
        f"text {ADD}": (f"text {ADD}", []),
        "[add(1, b='x'), sub()]": ("", [("add", {"a": 1, "b": "x"}), ("sub", {})]),
        '[TOOL_CALLS]add[CALL_ID]x1[ARGS]{"b": 2}': ("", [("add", {"b": 2})]),
        "<|python_tag|>add.call(a=3)": ("", [("add", {"a": 3})]),
        "<|python_start|>[add(a=3)]<|python_end|>!": ("!", [("add", {"a": 3})]),
        '{"function": {"name": "add", "arguments": "{\\"a\\": 1}"}, "type": "function", "id": "x"}':
            ("", [("add", {"a": 1})]),
        '{"name": "add", "parameters": null}': ("", [("add", {})]), '{"name": "add", "args": ""}': ("", [("add", {})]),
        '<tool_call>{"name": "add", "arguments": 3}</tool_call>': ("", [("add", "3")]),
        '<tool_call>{"name": "add", "arguments": "x y"}</tool_call>': ("", [("add", "x y")]),
        '{"name": "add"}': ("", [("add", {})]), '{"arguments": {}}': ('{"arguments": {}}', []),
        "": ("", []), " \n": (" \n", []),
    }.items():  # fmt: skip
        assert read(text) == wanted, text


def test_a_source_knows_its_place_through_backtracks():
    source = CallSource()
    source.add("abcdef")
    source.at = 4
    source.add("gh")
    assert (source.text, source.at, source.place) == ("efgh", 0, 4)
    source.at = 3
    source.backtrack("fg")
    assert (source.text, source.at, source.place) == ("fgh", 0, 5)
    source.add("<tool_c")
    source.at = 3
    assert (
        source.might_be(("<tool_call>",))
        and not source.might_be(("[TOOL_CALLS]",))
        and len("<|python_start|>") == LONGEST
    )
    source.add("all> and more text")
    assert not source.might_be(("<tool_call> and more text",))


def test_a_sink_joins_text_and_holds_blanks_back():
    sink = CallSink()
    sink.add_text("a ")
    sink.add_text(" b\n")
    assert sink.take() == ["a  b"] and sink.blanks == ["\n"]
    sink.begin_call("add", "{")
    sink.add_arguments("}")
    sink.end_call("add", {}, None)
    sink.add_text(" ")
    sink.begin_call("sub")
    assert sink.take() == [
        CallDelta(0, "call_0", "add", "{"),
        CallDelta(0, arguments="}"),
        CallDelta(1, "call_1", "sub", ""),
    ]
    sink.end_call("sub", {}, "x")
    sink.add_text("z")
    assert sink.take() == ["\n z"] and sink.take() == []
    assert sink.calls == [ToolCall("call_0", "add", {}, None), ToolCall("call_1", "sub", {}, "x")]
    first = CallSink()
    first.add_text(" ")
    first.end_call("", {}, "x")
    first.add_text("\n y")
    assert first.take() == ["y"] and first.has_calls


def test_objects_and_names_are_found_in_broken_text():
    assert read_object(" {'a': 1,} ") == '{"a":1}' or json.loads(str(read_object(" {'a': 1,} "))) == {"a": 1}
    assert [read_object(text) for text in ("[1]", "{} x", "{", "", "3")] == [None] * 5
    assert [name_in(text) for text in ('{"name": "add", x', "'name' = 'b'", '"name" "c"', f'"name": "{"n" * 129}"')] == [
        "add", "b", "", "",
    ]  # fmt: skip
    assert name_in('"name"        :        "far"') == "far" and name_in('"name"         : "too"') == ""


def test_inline_calls_are_written_read_and_left_out():
    call = InlineCall("calc", " 2 + 3 ")
    assert (
        call.written() == " [calc( 2 + 3 )]"
        and call.written("5") == " [calc( 2 + 3 ) -> 5]"
        and call.written("") == " [calc( 2 + 3 ) -> ]"
    )
    assert parse_inline_call(" calc( 2 + 3 ) ") == call and parse_inline_call("f(a)(b)") == InlineCall("f", "a)(b")
    assert parse_inline_call("f(a\nb)") == InlineCall("f", "a\nb")
    assert [parse_inline_call(text) for text in ("3(a)", "f", "f(a", "x f(a)", "n" * 65 + "()")] == [None] * 5
    assert parse_inline_call("n" * 64 + "()") == InlineCall("n" * 64, "")
    assert without_inline_calls("a [f(1)] b[g(2) -> 4] c [h] [i(x]y)]") == "a b c [h] [i(x]y)]"


# -- templates --


def test_messages_become_dicts_one_for_each_tool_result():
    call = ToolCall("a long id", "add", {"a": 1})
    assert to_dicts(assistant("so", call, ToolCall("i", "sub", {}, "x"))) == [
        {"role": "assistant", "content": "so", "tool_calls": [
            {"type": "function", "id": "a long id", "function": {"name": "add", "arguments": {"a": 1}}},
            {"type": "function", "id": "i", "function": {"name": "sub", "arguments": {"invalid": "x"}}},
        ]},
    ]  # fmt: skip
    results = Message("tool", (ToolResult("i", "add", "3"), ToolResult("j", "sub", "")))
    assert to_dicts(results) == [
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "i"},
        {"role": "tool", "content": "", "name": "sub", "tool_call_id": "j"},
    ]  # fmt: skip
    assert to_dicts(user("")) == [{"role": "user", "content": ""}]
    empty = assistant("", ToolCall("i", "sub", {"a": 1}, ""))
    assert to_dicts(empty)[0]["tool_calls"][0]["function"] == {"name": "sub", "arguments": {"invalid": ""}}
    assert with_tools_in_text([empty], ())[0].text == "<tool_call>\n\n</tool_call>", "it is as invalid as any other"
    mixed = to_dicts(Message("user", (Text("a"), ToolResult("i", "add", "3"), Text("b"))), short_ids=True)
    assert (
        mixed[0] == {"role": "user", "content": "ab"}
        and len(mixed[1]["tool_call_id"]) == 9
        and mixed[1]["tool_call_id"].isalnum()
    )

    def keys(text: str, sampled: Sampled | None, *, seed: bytes = b"s") -> list[bytes]:
        return list(digests([Message("assistant", (Text(text),), sampled)], seed))

    one, other = Sampled((1, 2), (-0.5, -0.5)), Sampled((1, 2), (-0.25, -1.0))
    assert keys("a", one) == keys("a", other) and len({each for text, ids in (
        ("a", None), ("b", None), ("a", one), ("a", Sampled((1,), (0.0,))),
    ) for each in keys(text, ids)}) == 1 + 4, "ids decide, and not what they were worth"  # fmt: skip
    assert len(keys("a", None)) == 2 and not {*keys("a", None)} & {*keys("a", None, seed=b"t")}
    assert to_dicts(assistant("", call), short_ids=True)[0]["tool_calls"][0]["id"] != mixed[1]["tool_call_id"]


def test_tools_and_system_text_go_where_a_template_has_no_place_for_them():
    told = [system("Be brief."), user("Hi"), assistant("so", ToolCall("i", "add", {"a": "é"}),
            ToolCall("j", "sub", {}, "bro{ken")),
            Message("tool", (ToolResult("i", "add", "3"),))]  # fmt: skip
    tagged = with_tools_in_text(told, TOOLS)
    assert [each.role for each in tagged] == ["system", "user", "assistant", "user"]
    assert tagged[2].text == (
        'so\n<tool_call>\n{"name": "add", "arguments": {"a": "é"}}\n</tool_call>\n<tool_call>\nbro{ken\n</tool_call>'
    )
    assert tagged[3].text == "<tool_response>\n3\n</tool_response>" and tagged[0].text.startswith(
        "Be brief.\n\nYou may call one"
    )
    assert f"<tools>\n{json.dumps(TOOLS[0].to_json())}\n</tools>" in tagged[0].text
    assert with_tools_in_text(told, ())[0].text == "Be brief."
    bare = with_tools_in_text(told[1:], TOOLS)
    assert len(bare) == 4 and bare[0].role == "system" and bare[0].text == tagged[0].text.removeprefix("Be brief.\n\n")
    a, b, u, x = system("a"), system("b"), user("u"), assistant("x")
    for given, wanted in (
        ([a, u, b, x, u], [None, "a\n\nu", None, "x", "b\n\nu"]), ([a, b, u], [None, None, "a\n\nb\n\nu"]),
        ([u, x], ["u", "x"]),
        ([u, a], ["u", "a"]), ([a, x], ["a", "x"]), ([a, x, b], [None, "x", "a\n\nb"]), ([], []),
    ):  # fmt: skip
        folded = with_system_folded(given)
        assert [each and each.text for each in folded] == wanted and all(
            each is None or each.role != "system" for each in folded
        )


def test_variables_of_a_template_are_few_short_and_plain():
    def names(text: str) -> bool:
        return "<s>" in text

    good = {"a": None, "b": [1, (2.5, True)], "C_1": {"k": "x" * 256, 3: 2**53}, "d": -(2**53)}
    assert check_variables(good, names) == {
        "a": None,
        "b": [1, [2.5, True]],
        "C_1": {"k": "x" * 256, "3": 2**53},
        "d": -(2**53),
    }
    assert check_variables({f"v{i}": i for i in range(16)}, names) and check_variables({"a": [[[["x"]]]]}, names)
    for wrong, said in (
        ({f"v{i}": i for i in range(17)}, "the chat template gets 17 variables: give at most 16"),
        ({"a": [[[[["x"]]]]]}, "the template variable a is too large: give at most 256 values, nested 4 deep"),
        ({"a": [0] * 256}, "the template variable a is too large: give at most 256 values, nested 4 deep"),
        ({"1a": 0}, "'1a' is not a template variable that a request may set: give a name of letters, digits and _"),
        ({"messages": 0}, "'messages' is not a template variable that a request may set: give a name of letters, digits "
         "and _"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as found:
            check_variables(wrong, names)
        assert str(found.value) == said
    for wrong_value in ("x" * 257, "a<s>", 2**53 + 1, float("inf"), b"x", {"<s>": 1}):
        with pytest.raises(ConfigError, match=r"^the template variable v is or holds .* without control tokens$"):
            check_variables({"v": wrong_value}, names)
    assert len(check_variables({"a": [0] * 255}, names)["a"]) == 255


def test_masks_stand_for_texts_and_are_put_back_untrusted():
    masks = TextMasks(["a\U000f0000b"], lambda text: "<s>" in text)
    first, second = masks.mask("  a\n"), masks.mask('q"\\')
    assert (
        first == '  \U000f00010"\U000f0002\n' and masks.mask(" \n") == " \n" and masks.place == "\U000f0001\U000f0002"
    )
    assert masks.runs(f"<{first}>") == [TextRun("<  ", True), TextRun("a", False), TextRun("\n>", True)]
    written = json.dumps(second, ensure_ascii=False)[1:-1]
    assert masks.runs(written) == [TextRun("", True), TextRun('q\\"\\\\', False), TextRun("", True)]
    for damaged in ("\U000f0001", 'x"\U000f0002', '"\\udb80\\udc01"'):
        assert masks.runs(damaged) is None
    assert masks.runs('\U000f00019"\U000f0002') == [TextRun("", True), TextRun("", False), TextRun("", True)]
    assert masks.mask_within({"<s>": ["x", "<s>", 3]}, always=False) == {
        masks.mask("<s>").replace("4", "2"): ["x", masks.mask("<s>").replace("5", "3"), 3]
    }
    made = masks.mask_message(
        {
            "role": "assistant",
            "content": "c",
            "tool_calls": [{"id": "i", "function": {"name": "add", "arguments": {"a": "v"}}}],
        }
    )
    runs = masks.runs(made["content"] + made["tool_calls"][0]["function"]["arguments"]["a"]) or []
    assert [run.text for run in runs if not run.trusted] == ["c", "v"] and made["role"] == "assistant"
    assert made["tool_calls"][0]["function"]["name"] == "add" and made["tool_calls"][0]["id"] == "i"


def test_filters_of_a_template_follow_jinja_at_their_edges():
    def render(source: str, **given: Any) -> str:
        return SandboxedTemplate(source).render(given)

    for source, wanted in {
        "{{ [[1, 2], [3, 4]] | join('-', attribute=0) }}": "1-3", "{{ [[1, 2], [3, 4]] | join('-', 1) }}": "2-4",
        "{{ [{'a': 1}, {'a': 2}] | join(attribute='a') }}": "12", "{{ 'ab' | join(',') }}": "a,b",
        "{{ [] | join('x') }}": "",
        "{{ [[5, 6], [7, 8]] | sum(attribute=0) }}": "12", "{{ [1, 2.5] | sum(start=3) }}": "6.5", "{{ [] | sum }}": "0",
        "{{ 'aXbXc' | replace('X', '-') }}": "a-b-c", "{{ 'aXbXc' | replace('X', '-', 1) }}": "a-bXc",
        "{{ 'aXbXc' | replace('X', '-', 0) }}": "aXbXc", "{{ 'aXbXc'.replace('X', '') }}": "abc",
        "{{ 'a\\n\\nb' | indent }}|{{ 'a\\n\\nb' | indent(1, true, true) }}": "a\n\n    b| a\n \n b",
        "{{ 'a\\nb' | indent('>>') }}": "a\n>>b", "{{ 1.25 | round(1, 'common') }} {{ 3.5 | round }}": "1.2 4.0",
        "{{ 'a b  c'.split() | length }}{{ 'a,b,c'.split(',', 1)[1] }}{{ 'a,b,c'.rsplit(',', 1)[0] }}": "3b,ca,b",
        "{{ 'x{}y{n}'.format(1, n=2) }}{{ '%s-%d%%' % ('a', 3) }}{{ '%% %s' % 'b' }}": "x1y2a-3%% b",
        "{{ 'b'.join(['a', 'c']) }}": "abc",
        "{{ [3, 1, 2] | sort | join }}{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}": "12321",
        "{{ 6 is divisibleby(3) }}{{ 'a' is upper }}{{ range(2, 8, 3) | list }}": "TrueFalse[2, 5]",
        "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true) }}": '{"a": "é", "b": 1}',
        "{{ {'a': 1} | tojson(separators=(',', ':')) }}": '{"a":1}', "{{ 'é' | tojson(ensure_ascii=true) }}": '"\\u00e9"',
        "{{ [1] * 3 }}{{ 'ab' * 2 }}{{ 'a' + 'b' }}": "[1, 1, 1]ababab",
        "{{ dict(a=1) }}{{ dict([('b', 2)], c=3) }}": "{'a': 1}{'b': 2, 'c': 3}",
    }.items():  # fmt: skip
        assert render(source) == wanted, source
    for source, said in {
        "{{ raise_exception('no ' ~ 'x') }}": "the chat template refuses this conversation: no x",
        "{{ ['a'] | sum }}": "the chat template sums a value that is not a number",
        "{{ 2.5 | round(method='floor') }}": "the chat template rounds by an unknown method",
        "{{ '%5d' % 3 }}": "the chat template formats with widths or names; only %s, %d and %% may",
        "{{ '{:>9}'.format(3) }}": "the chat template formats with widths or attributes; only {} and {name} may",
        "{{ [] | tojson(indent=17) }}": "the chat template indents JSON by more than 16",
    }.items():
        with pytest.raises(TemplateError) as found:
            render(source)
        assert str(found.value) == said, source
    assert render("{{ [] | tojson(indent=16) }}") == "[]"
