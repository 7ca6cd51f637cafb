"""A region of tool calls, parsed by itself: its calls, the pieces passed on, the state it leaves, the text after it."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.tokens.calls.call_region import CallRegion
from firsthand.tokens.calls.call_source import CLOSINGS, CallSink, CallSource
from firsthand.tokens.calls.call_value import CallValue, PartialCall, name_in, read_object
from firsthand.tokens.calls.lenient_json import Reader

TOOLS = {"add": ("a", "b"), "f": ()}
CALL, END = "<tool_call>", "</tool_call>"
FENCED = "```tool_code"


def parsed(
    mark: str,
    *pieces: str,
    closing: str | None = None,
    marked: bool = True,
    code: bool = False,
    final: bool = True,
    backtracks: int = 0,
) -> tuple[Any, ...]:
    """The calls (a broken one as its text), the deltas, the end as a tuple or `waits`, the rest, the backtracks."""
    source, sink = CallSource(), CallSink()
    source.backtracks = backtracks
    end_mark = CLOSINGS.get(mark, "") if closing is None else closing
    region = CallRegion(source, sink, mark, end_mark, TOOLS, is_marked=marked, is_code=code)
    outcome: Any = False
    for number, piece in enumerate(pieces):
        source.add(piece)
        outcome = True
        while outcome is True:
            outcome = region.step(final and number == len(pieces) - 1)
        if outcome is not False:
            break
    end: Any = "waits"
    if outcome is not False:
        end = tuple("a value" if isinstance(each, CallValue) else each for each in outcome)
    calls = [(call.name, call.arguments if call.invalid is None else call.invalid) for call in sink.calls]
    deltas = [each if isinstance(each, str) else (each.index, each.name, each.arguments) for each in sink.take()]
    return calls, deltas, end, source.text[source.at :], source.backtracks


DONE = ("", "", False, None, 0)
ADDED = ([("add", {"a": 1})], [(0, "add", ""), (0, None, '{"a": 1}')])
BOTH = ([("add", {"a": 1}), ("f", {})], [*ADDED[1], (1, "f", ""), (1, None, "{}")])
ADD = '{"name": "add", "arguments": {"a": 1}}'
F = '{"name": "f", "arguments": {}}'


def test_a_marked_region_ends_at_its_mark_or_with_its_calls() -> None:
    assert parsed(CALL, f" {ADD} ,;\n{END} rest") == (*ADDED, DONE, " rest", 0)
    assert parsed(CALL, f"{ADD},  ;rest") == (*ADDED, ("  ", END, False, None, 0), "rest", 0), "the mark may still come"
    assert parsed(CALL, f"{ADD}}}])\t{F}{END}") == (*BOTH, DONE, "", 0)
    for other in ("[TOOL_CALLS]x", "<|python_end|>x"):
        assert parsed(CALL, ADD + other) == (*ADDED, ("", END, False, None, 0), other, 0)
    assert parsed(CALL, f"```json\n{ADD}\n```{END}") == (*ADDED, DONE, "", 0)
    assert parsed(CALL, f"{ADD}```json") == (*ADDED, ("", END, False, None, 0), "", 0)
    assert parsed("[TOOL_CALLS]", f"[{ADD}, {F}] z") == (*BOTH, (" ", "", False, None, 0), "z", 0)
    both = [(0, "f", ""), (0, None, "{}"), (1, "f", '[{"name": "f"}, 3]')]
    assert parsed("[TOOL_CALLS]", '[{"name": "f"}, 3] z') == (
        [("f", {}), ("f", '[{"name": "f"}, 3]')], both, (" ", "", False, None, 0), "z", 0,
    )  # fmt: skip


def test_a_call_in_python_or_with_its_name_before_it_is_read_in_each_spelling() -> None:
    tag = "<|python_tag|>"
    three = ([("add", {"a": 1, "b": 2})], [(0, "add", ""), (0, None, '{"a": 1, "b": 2}')])
    after = (" ", "", False, None, 0)
    assert parsed(tag, "print( add(1, b=2)) tail") == (*three, after, "tail", 0)
    assert parsed(tag, "f.call() tail") == ([("f", {})], [(0, "f", ""), (0, None, "{}")], after, "tail", 0)
    assert parsed(tag, "x = add(1, 2)") == (*three, DONE, "", 0)
    assert parsed(tag, "[add(1), f()] tail") == (*BOTH, after, "tail", 0)
    named = ([("add", {"a": 2})], [(0, "add", ""), (0, None, '{"a": 2}')])
    assert parsed("[TOOL_CALLS]", 'add[CALL_ID]abc[ARGS]{"a": 2}[TOOL_CALLS]') == (*named, DONE, "[TOOL_CALLS]", 0)
    assert parsed("[TOOL_CALLS]", 'add {"a": 2}.') == (*named, DONE, ".", 0)
    assert parsed(FENCED, "\nx = add(1)\nf()\n``` z", closing="```") == (*BOTH, DONE, " z", 0)
    end = (" ", "```", False, None, 0)
    assert parsed(FENCED, "add(1) f() y = f()\n``` z", closing="```") == (*BOTH, end, "y = f()\n``` z", 0)


@pytest.mark.parametrize("mark", ["<|python_tag|>", "[TOOL_CALLS]", CALL])
def test_a_marked_list_without_a_value_is_a_broken_call_and_what_follows_is_text(mark: str) -> None:
    for text, rest in (("[] tail", "tail"), ("[ ] tail", "tail"), ("[]", ""), ("[ ]\n", "")):
        calls, deltas, end, left, backtracks = parsed(mark, text)
        body = text[: text.index("]") + 1]
        assert (calls, deltas, left, backtracks) == ([("", body)], [(0, "", body)], rest, 0)
        assert end == (text[len(body) : len(text) - len(rest)], CLOSINGS.get(mark, ""), False, None, 0)
    for bracket in "])}":
        assert parsed(CALL, f"{bracket} z") == ([], [], (CALL, "", False, None, 3), f"{bracket} z", 1), "none was open"
    assert parsed("<|python_tag|>", "[add(1),] z")[0] == [("add", {"a": 1})]


def test_the_form_of_built_in_tools_has_the_names_of_its_tools_arguments() -> None:
    tag, after = "<|python_tag|>", (" ", "", False, None, 0)
    both = ([("add", {"a": 1, "b": 2})], [(0, "add", ""), (0, None, '{"a": 1, "b": 2}')])
    for text in ("add.call(1, 2)", "add.call(1, b=2)", "add.call(a=1, b=2)", "print(add.call(1, 2))"):
        assert parsed(tag, f"{text} z") == (*both, after, "z", 0), text
    assert parsed(tag, "[add.call(1), f.call()] z") == (*BOTH, after, "z", 0)
    for text, name in (("add.calls(1)", "add.calls"), ("g.call(1)", "g"), ("call(1)", "call"), ("f.call(1)", "f")):
        begun = [(0, name, ""), (0, None, "{")]
        assert parsed(tag, text) == ([(name, text)], begun, DONE, "", 0), "no tool has names for it"
    assert parsed(tag, "g.call(a=1) z")[0] == [("g", {"a": 1})], "names need no tool"


def test_a_mark_without_a_call_is_text_and_one_with_a_bracket_is_a_broken_call() -> None:
    def text(mark: str, place: int) -> tuple[Any, ...]:
        return (mark, "", False, None, place)

    assert parsed(CALL, " \n") == ([], [], text(CALL, 2), " \n", 1)
    assert parsed(CALL, "just words") == ([], [], text(CALL, 10), "just words", 1)
    assert parsed("[TOOL_CALLS]", "add [1]") == ([], [], text("[TOOL_CALLS]", 7), "add [1]", 1)
    for backtracks, rest in ((15, "just words"), (16, "")):
        shown = CALL if rest else f"{CALL}just words"
        assert parsed(CALL, "just words", backtracks=backtracks) == ([], [], text(shown, 10), rest, 16)
    for begun in ('["a', "[TOOL_CALLS]x"):
        assert parsed(CALL, begun)[0] == [("", begun)] and parsed(CALL, begun)[2:] == (DONE, "", 0)
    broken = [("", "just (words")], [(0, "", "just (words")]
    assert parsed(CALL, "just (words ") == (*broken, DONE, "", 0)
    assert parsed("<|python_tag|>", " words ") == ([("", "words")], [(0, "", "words")], DONE, "", 0)
    assert parsed(CALL, f" {END}x") == ([("", "")], [(0, "", "")], DONE, "x", 0)
    for empty in ("x = ", " ```json\n```\n", ",;", "f = g = "):
        body = empty.strip()
        assert parsed(CALL, f"{empty}{END}x") == ([("", body)], [(0, "", body)], DONE, "x", 0), "its text is reported"
    assert parsed(CALL, f"{ADD} x = {END}y")[0] == ADDED[0]


@pytest.mark.parametrize(
    ("body", "broken", "sent", "rest", "backtracks"),
    [
        (f'{{"name": "add", "arguments": {{"a": nope}}}} {END} z', '{"name": "add", "arguments": {"a": nope}}',
         ['{"a": '], " z", 0),
        (f'{{"name": "add", "arguments": {{"a": {END} z', '{"name": "add", "arguments": {"a":', ['{"a": '], " z", 0),
        (f'{{"name": "add", "arguments": "nope"}}{END}', "nope", [], "", 0),
        (f'{{"name": "add", "arguments": {{"a": "{END} z', '{"name": "add", "arguments": {"a": "',
         [f'{{"a": "{END} z'], " z", 1),
        (f'{{"name": "add", "arguments": {{"a": "{CALL}{{"name": "f"}}', '{"name": "add", "arguments": {"a": "',
         [f'{{"a": "{CALL}{{"'], f'{CALL}{{"name": "f"}}', 1),
    ],
)  # fmt: skip
def test_a_broken_call_ends_at_the_next_mark_even_one_inside_of_its_string(
    body: str, broken: str, sent: list[str], rest: str, backtracks: int
) -> None:
    deltas = [(0, "add", ""), *[(0, None, each) for each in sent]]
    assert parsed(CALL, body) == ([("add", broken)], deltas, DONE, rest, backtracks)
    if backtracks:
        assert parsed(CALL, body, backtracks=15)[3:] == (rest, 16)
        assert parsed(CALL, body, backtracks=16)[3:] == ("", 16), "no text is parsed again without end"


def test_closing_brackets_that_are_missing_before_the_mark_are_put_in() -> None:
    deltas = [(0, "add", ""), (0, None, '{"a": 1'), (0, None, "}")]
    assert parsed(CALL, f'{{"name": "add", "arguments": {{"a": 1{END} z') == (ADDED[0], deltas, DONE, " z", 0)
    nameless = '{"name": "", "arguments": {}}'
    assert parsed(CALL, nameless + END) == ([("", nameless)], [(0, "", nameless)], DONE, "", 0)
    begun = '{"name": "add", "arguments": {"a": 1}'
    assert parsed(CALL, begun, "</tool_", final=False) == ([], ADDED[1], "waits", "</tool_", 0)
    assert parsed(CALL, begun, "</tool_", "call>x", final=False) == (*ADDED, DONE, "x", 0)


def test_an_unmarked_value_is_a_call_or_text_as_a_whole() -> None:
    def plain(*pieces: str, **more: Any) -> tuple[Any, ...]:
        return parsed("", *pieces, closing="", marked=False, **more)

    assert plain(f'{ADD}; {{"x": 2}} z') == (*ADDED, ('; {"x": 2}', "", False, None, 0), " z", 0)
    assert plain('{"x": 2} z') == ([], [], ('{"x": 2}', "", False, None, 0), " z", 0)
    assert plain('{"x": 2', final=False) == ([], [], ('{"x": ', "", False, "a value", 0), "2", 0)
    assert plain(f'{ADD}; {{"x": 2', final=False) == (*ADDED, ('; {"x": ', "", False, "a value", 0), "2", 0)
    assert plain(f"[{F}, 4] z") == ([], [], (f"[{F}, 4]", "", False, None, 0), " z", 0)
    whole = '{"name": "add", "arguments": {"a": 1} z'
    assert plain(whole) == ([("add", whole)], ADDED[1], DONE, "", 0), "it was meant as a call"
    assert plain('{"name": "add" z') == ([], [], ("{", "", False, None, 15), '"name": "add" z', 1)
    assert plain(f'{ADD} {{"name": "f" z') == (*ADDED, (' {"name": "f" ', "", False, None, 0), "z", 0)
    assert plain('{"name": "add", "arguments": {"a": 1}, "z', final=False) == ([], ADDED[1], "waits", "", 0)
    assert plain('[{"name": "add", "arguments": {"a": 1}, "z', final=False) == ([], [], "waits", "", 0)


def test_an_unmarked_list_in_python_holds_calls_of_known_tools() -> None:
    def code(*pieces: str, final: bool = True) -> tuple[Any, ...]:
        return parsed("", *pieces, closing="", marked=False, code=True, final=final)

    assert code("[add(1), f()] z") == (*BOTH, (" ", "", False, None, 0), "z", 0)
    assert code("[g(1)] z") == ([], [], ("[", "", False, None, 3), "g(1)] z", 1), "g takes no unnamed argument"
    assert code("[g(a=1)] z")[0] == [("g", {"a": 1})], "one of no known tool is one once it is whole"
    assert code("[g(a=1", final=False)[1] == []
    assert code("[add(1), g(2)] z") == (*ADDED, (", g(", "", False, None, 0), "2)] z", 0)
    assert code("[add(1) , 3] z") == (*ADDED, ("  ", "", False, None, 0), "3] z", 0)
    assert code("[add(1), [f()]] z") == (*ADDED, (" ", "", False, None, 0), "[f()]] z", 0)
    assert code("[add(x)] z") == ([("add", "[add(x)] z")], [(0, "add", ""), (0, None, '{"x": ')], DONE, "", 0)
    assert code("[g(x)] z") == ([], [], ("[", "", False, None, 4), "g(x)] z", 1)
    assert code("[add(1), g(", final=False) == (*ADDED, "waits", "", 0)


def test_a_fence_without_a_call_goes_on_as_a_fence() -> None:
    def fenced(*pieces: str, final: bool = True) -> tuple[Any, ...]:
        return parsed("```json", *pieces, closing="```", marked=False, final=final)

    assert fenced(f"\n{F}\n``` z")[2:] == (DONE, " z", 0)
    assert fenced('\n{"y": 1}\n``` z') == ([], [], ('```json\n{"y": 1}', "", True, None, 0), "\n``` z", 0)
    assert fenced('\n{"y": 1', final=False) == ([], [], ('```json\n{"y": ', "", True, "a value", 0), "1", 0)
    assert fenced("\n``` z") == ([], [], ("```json", "", True, None, 1), "\n``` z", 1)
    assert fenced("\nwords") == ([], [], ("```json", "", True, None, 1), "\nwords", 1)


def test_what_may_go_on_is_waited_for_up_to_a_limit() -> None:
    for mark, text, left in (
        (CALL, "add", "add"),
        (CALL, "add" + " " * 159, "add" + " " * 159),
        (CALL, "add" + " " * 160, " " * 15),
        (CALL, "```js", "```js"),
        (CALL, "<|py", "<|py"),
        ("<|python_tag|>", "print(", "print("),
        ("<|python_tag|>", "print(" + "a" * 158, "print(" + "a" * 158),
        ("<|python_tag|>", "[ad", "[ad"),
        (FENCED, "\nnope! " + "y" * 40, "nope! " + "y" * 40),
    ):
        found = parsed(mark, text, closing="```" if mark == FENCED else None, final=False)
        assert found == ([], [], "waits", left, 0), text
    found = parsed("<|python_tag|>", "print(" + "a" * 159, final=False)
    assert found == ([], [(0, "print", ""), (0, None, "{")], "waits", "a" * 159, 0), "a tool may have that name"


def value_of(text: str, name: str | None = None) -> CallValue:
    value = CallValue(Reader(), name)
    assert value.feed(text, 0, True) == len(text)
    return value


def drafts(value: CallValue) -> list[tuple[Any, ...]]:
    return [(each.name, "".join(each.pieces), each.is_object, each.given, each.complete, each.invalid)
            for each in value.drafts]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "verdict", "found"),
    [
        ('{"id": 1, "type": "function", "function": {"name": "f", "parameters": {"a": [1]}}}', "call",
         [("f", '{"a": [1]}', True, True, True, None)]),
        ('{"args": "{\'a\': 1}", "function": "f"}', "call", [("f", '{"a": 1}', True, True, True, None)]),
        ('{"name": "f", "arguments": null}', "call", [("f", "{}", True, True, True, None)]),
        ('{"name": "f", "arguments": "  "}', "call", [("f", "{}", True, True, True, None)]),
        ('{"name": "f", "arguments": [1, "x"]}', "call", [("f", '[1, "x"]', False, True, True, '[1, "x"]')]),
        ('{"name": "f", "arguments": 7}', "call", [("f", "7", False, True, True, "7")]),
        ('{"name": "f", "arguments": "é{"}', "call", [("f", '"é{"', False, True, True, "é{")]),
        ('{"function": {"name": "f"}, "arguments": {"a": 1}}', "call", [("f", '{"a": 1}', True, True, True, None)]),
        ('{"name": "f"}', "call", [("f", "{}", True, False, True, None)]),
        ('{"name": "f", "name": "g", "args": {}, "arguments": {"a": 1}}', "call", [("f", "{}", True, True, True, None)]),
        ('{"name": 3, "arguments": {}}', "none", [("", "{}", True, True, True, None)]),
        ('{"x": 1, "name": "f", "arguments": {}}', "none", [("f", "{}", True, True, True, None)]),
        ('{"name": "f", "arguments": {}, "x": 1}', "call", [("f", "{}", True, True, True, None)]),
        ('[{"name": "f"}, {"tool_call_id": 1, "name": "g", "args": {"b": 2}}]', "call",
         [("f", "{}", True, False, True, None), ("g", '{"b": 2}', True, True, True, None)]),
        ('[{"name": "f"}, 3]', "none", [("f", "{}", True, False, True, None)]),
        ('[{"name": "f"}, {"arguments": {}}]', "none",
         [("f", "{}", True, False, True, None), ("", "{}", True, True, True, None)]),
        ('[{}, {"name": "f"}]', "none", [("", "{}", True, False, True, None), ("f", "{}", True, False, True, None)]),
        ("[]", "none", []),
        ("4", "none", []),
    ],
)  # fmt: skip
def test_a_value_is_one_call_or_several_with_their_arguments_as_an_object(
    text: str, verdict: str, found: list[tuple[Any, ...]]
) -> None:
    value = value_of(text)
    assert (value.verdict, drafts(value)) == (verdict, found)
    assert value.is_list is text.startswith("[")
    assert value.has_other_values is (
        text in ("[]", "4") or any(part in text for part in (", 3]", '{"name": 3', '}, {"a', "[{},"))
    )


def test_the_arguments_of_a_named_call_are_the_whole_value() -> None:
    value = value_of('{"name": "x", "arguments": {"a": 1}}', "f")
    assert drafts(value) == [("f", '{"name": "x", "arguments": {"a": 1}}', True, True, True, None)]
    assert (value.verdict, value.has_other_values, PartialCall("f").is_call) == ("call", False, False)
    assert read_object(" {'a': [1,]} ") == '{"a": [1]}' and read_object("{} x") is None
    assert read_object("[1]") is None and read_object("{") is None and read_object("3") is None
    for body, name in (
        ('{"name": "f", "name": "g"', "f"),
        ("{'name' = 'a b'", "a b"),
        ('name: "f"', ""),
        ('"name":"' + "n" * 128 + '"', "n" * 128),
        ('"name":"' + "n" * 129 + '"', ""),
        ('"name": ""', ""),
        ('"name"         :"f"', ""),
        ('"name"        :        "f"', "f"),
    ):
        assert name_in(body) == name


def test_a_value_that_is_no_call_ends_a_region_without_a_mark_and_is_its_text() -> None:
    both = f"[{F}, 3]"
    for value in (
        "[3]",
        both,
        f"[3, {F}]",
        f"[{F}, [2]]",
        "{}",
        "[]",
        '{"a": 1}',
        '{"name": 3}',
        '[{"arguments": {}}]',
    ):
        end = (value, "", False, None, 0)
        calls, deltas, found, rest, backtracks = parsed("", f"{ADD} {value} z", marked=False)
        assert (calls, deltas, rest, backtracks) == (*ADDED, " z", 0) and found in (end, (f" {value}", *end[1:])), value
        alone = parsed("", f"{value} z", marked=False)
        assert alone == ([], [], end, " z", 0), value
    marked = parsed(CALL, f"{ADD} {both} {END}z")
    assert marked[0] == [("add", {"a": 1}), ("f", {}), ("f", both)] and marked[2:] == (DONE, "z", 0)
    assert parsed(CALL, f"[3]{END}z")[0] == [("", "[3]")] and parsed(CALL, f"[]{END}z")[0] == [("", "[]")]
    fenced = parsed("```json", f"{ADD} {both}\n```z", closing="```", marked=False)
    assert fenced[:2] == ADDED and fenced[2][1:] == ("```", False, None, 0) and fenced[3] == "\n```z"
