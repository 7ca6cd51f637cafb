"""The parser of tool calls step by step: one look at plain text, at a line, at a fence, at an escape, at a quote."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.model import CallDelta, ToolSpec
from firsthand.tokens.calls.call_parser import _PIECE, CallStream, _partial_mark_length
from firsthand.tokens.calls.call_region import CallRegion, RegionEnd, _ends, starts_unmarked_call
from firsthand.tokens.calls.call_source import FENCE, LONGEST, CallSink, CallSource
from firsthand.tokens.calls.call_value import CallValue, PartialCall
from firsthand.tokens.calls.lenient_json import JsonPiece, Reader

TOOLS = (ToolSpec("add", "", {"properties": {"b": {}, "a": {}}}), ToolSpec("f", "", {}))
END = "</tool_call>"


def looked(text: str, *, final: bool = False, **state: Any) -> tuple[Any, ...]:
    """One look: if there is more to do, what is passed on, the place, the state that differs, and the region."""
    stream = CallStream(TOOLS)
    stream._line_begins = False
    for name, value in state.items():
        setattr(stream, f"_{name}", value)
    stream._source.add(text)
    more = stream._plain(final)
    names = ("line_begins", "in_fence", "missing_mark", "unmarked_from")
    held = {name: value for name in names if (value := getattr(stream, f"_{name}"))}
    region = stream._region
    begun = None if region is None else (region.mark, region.closing, region.is_marked, region.is_code)
    assert region is None or region.tools == {"add": ("b", "a"), "f": ()}
    return more, stream._sink.take(), stream._source.at, held, begun


def test_plain_text_is_read_to_the_next_mark_or_line_and_what_may_be_a_mark_waits() -> None:
    assert looked("abc <tool") == (False, ["abc"], 4, {}, None)
    assert looked("abc <tool", final=True) == (False, ["abc <tool"], 9, {}, None)
    assert looked("ab\ncd\n") == (True, ["ab"], 2, {"line_begins": True}, None)
    assert looked("ab\ncd", in_fence=True) == (False, ["ab\ncd"], 5, {"in_fence": True}, None)
    assert looked("x<tool_call>y") == (True, ["x"], 12, {}, ("<tool_call>", END, True, False))
    assert looked("x[TOOL_CALLS]y") == (True, ["x"], 13, {}, ("[TOOL_CALLS]", "", True, False))
    assert looked("<|python_start|>") == (True, [], 16, {}, ("<|python_start|>", "<|python_end|>", True, False))
    assert looked(f"x{END}y") == (True, [f"x{END}"], 13, {}, None), "a mark that ends nothing is text"
    assert looked(f"x{END}y", missing_mark=END) == (True, ["x"], 13, {}, None)
    kept = {"missing_mark": "<|python_end|>"}
    assert looked(f"x{END}y", missing_mark="<|python_end|>") == (True, [f"x{END}"], 13, kept, None)
    lengths = [_partial_mark_length(text, at) for text, at in (
        ("ab<tool", 0), ("ab<tool", 3), ("``", 0), ("``", 1), ("<|python_start|", 0), ("x<|python_start|", 1),
        ("<", 0), ("", 0), ("tool", 0), ("[TOOL_CALLS", 1), ("<tool_call><|py", 0),
    )]  # fmt: skip
    assert lengths == [5, 0, 2, 1, 15, 15, 1, 0, 0, 0, 4] and LONGEST == 16


def test_a_fence_is_a_call_by_its_word_and_else_text_until_it_closes() -> None:
    assert looked("x```json\n{") == (True, ["x"], 8, {}, ("```json", FENCE, False, False))
    for word in ("tool_code", "tool_call", "tool_calls"):
        assert looked(f"```{word}\n") == (True, [], 3 + len(word), {}, (f"```{word}", FENCE, True, False))
    assert looked("x```\n{") == (True, ["x"], 4, {}, (FENCE, FENCE, False, False))
    assert looked("x```") == (False, ["x"], 1, {}, None), "its word may still come"
    assert looked("x```", final=True) == (True, ["x"], 4, {}, (FENCE, FENCE, False, False))
    assert looked("x```c++\ny") == (True, ["x```c++"], 7, {"in_fence": True}, None)
    assert looked("x```y", in_fence=True) == (True, ["x```"], 4, {}, None)
    assert looked("x```y", missing_mark=FENCE) == (True, ["x"], 4, {}, None)
    assert looked("x```y", missing_mark=FENCE, in_fence=True) == (True, ["x"], 4, {}, None)


def test_a_line_may_begin_with_a_call_unless_its_bracket_is_known_to_be_text() -> None:
    line = {"line_begins": True}
    assert looked(" \n ", **line) == (False, [], 3, line, None)
    assert looked(' {"a', **line) == (True, [], 1, line, ("", "", False, False))
    assert looked("[f(1)", **line) == (True, [], 0, line, ("", "", False, True))
    assert looked("[ {", **line) == (True, [], 0, line, ("", "", False, False))
    for waits in ("[f", "[TOOL_C", "[", "[ "):
        assert looked(waits, **line) == (False, [], 0, line, None), waits
    for text in ("[1", "x{", "(f", "[f]"):
        assert looked(text, **line) == (True, [], 0, {}, None), text
    assert looked("[f", final=True, **line) == (True, [], 0, {}, None)
    at_two = {"unmarked_from": 2}
    assert looked(' {"a', **line, **at_two) == (True, [], 1, at_two, None), "it was read before and is no call"
    assert looked('  {"a', **line, **at_two) == (True, [], 2, {**line, **at_two}, ("", "", False, False))
    source = CallSource()
    source.add("x[[")
    source.at = 1
    assert starts_unmarked_call(source, False) is True
    source.at = 2
    assert starts_unmarked_call(source, False) is None and starts_unmarked_call(source, True) is False


def test_the_state_after_a_region_is_the_one_that_it_left() -> None:
    stream = CallStream()
    stream._unmarked_from, stream._region = 7, object()  # type: ignore[assignment]
    value = CallValue(Reader())
    assert stream._end_region(RegionEnd("text ", END, True, value, 5)) is True
    assert (stream._region, stream._missing_mark, stream._in_fence, stream._skipping) == (None, END, True, value)
    assert (stream._unmarked_from, stream._line_begins, stream._sink.take()) == (7, False, ["text"])
    stream._end_region(RegionEnd(unmarked_from=9))
    assert (stream._missing_mark, stream._in_fence, stream._skipping, stream._unmarked_from) == ("", False, None, 9)
    stream._source.add('{"a": [1')
    stream._skipping = value
    assert stream._skip(value, False) is False and stream._skipping is value and stream._sink.take() == [' {"a": [']
    assert stream._skip(value, True) is True and stream._skipping is None and stream._sink.take() == ["1"]
    whole = CallStream()
    whole._source.add("[1, 2] {")
    whole._skipping = value = CallValue(Reader())
    assert whole._skip(value, False) is True and whole._skipping is None and whole._source.at == 6
    broken = CallStream()
    broken._source.add("[1 2]")
    broken._skipping = value = CallValue(Reader())
    assert broken._skip(value, False) is True and broken._source.at == 3 and broken._sink.take() == ["[1"]


def test_all_that_is_certain_comes_with_its_piece_and_blanks_at_the_end_only_without_calls() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    stream = CallStream()
    assert stream.feed(f"{call} x") == [CallDelta(0, "call_0", "f", ""), CallDelta(0, arguments="{}"), "x"]
    assert stream.feed(f" {call} \n")[:1] == [CallDelta(1, "call_1", "f", "")] and stream.finish() == []
    plain = CallStream()
    assert plain.feed("a \n") == ["a"] and plain.finish() == [" \n"] and plain.calls == ()
    assert CallStream().finish() == [] and CallStream().feed("") == []
    long = "x" * _PIECE
    assert CallStream().feed(f"{long}y") == [f"{long}y"] and CallStream().feed(long) == [long]
    cut = CallStream()
    assert cut.feed("x" * (_PIECE - 5) + call)[1:] == [CallDelta(0, "call_0", "f", ""), CallDelta(0, arguments="{}")]


def test_a_region_begins_unread_and_its_ends_are_its_own_marks() -> None:
    region = CallRegion(CallSource(), CallSink(), "m", "c", {}, is_marked=True)
    assert (region.is_code, region._in_list, region._broken, region._looked_back) == (False, False, False, False)
    assert (region._raw, region._found, region._value, region._draft, region._sent) == ([], 0, None, 0, None)
    assert RegionEnd() == ("", "", False, None, 0)
    for closing, mark, pattern in (
        (END, "<tool_call>", r"</tool_call>|<tool_call>"), ("", "[TOOL_CALLS]", r"\[TOOL_CALLS\]"),
        (FENCE, "```json", "```"), ("", "", None),
    ):  # fmt: skip
        found = _ends(closing, mark)
        assert (None if found is None else found.pattern) == pattern
    draft = PartialCall()
    assert (draft.name, draft.pieces, draft.is_object, draft.given, draft.complete, draft.invalid) == (
        "", [], False, False, False, None,
    )  # fmt: skip
    assert not draft.is_call
    draft.end()
    assert (draft.complete, draft.pieces, draft.is_object, draft.given) == (True, ["{}"], True, False)
    given = PartialCall("f")
    given.given, given.pieces = True, ["3"]
    given.end()
    assert (given.complete, given.pieces, given.is_object, given.is_call) == (True, ["3"], False, False)
    named, bare = CallValue(Reader(), ""), CallValue(Reader())
    assert [each.name for each in named.drafts] == [""] and named._whole and bare.drafts == [] and not bare._whole
    assert (bare.verdict, bare.is_list, bare.has_other_values, bare._kept) == ("open", False, False, None)


def test_the_end_of_a_broken_call_is_looked_for_in_all_but_what_may_be_half_a_mark() -> None:
    def sought(text: str, *, final: bool = False, mark: str = "<tool_call>", closing: str = END) -> tuple[Any, ...]:
        source, sink = CallSource(), CallSink()
        source.add(text)
        region = CallRegion(source, sink, mark, closing, {}, is_marked=True)
        region._broken = True
        outcome = region._seek_end(final)
        return outcome, source.at, region._looked_back, [call.invalid for call in sink.calls]

    assert sought("(" * 15) == (False, 0, False, []) and sought("(" * 16) == (False, 1, True, [])
    assert sought("(" * 40) == (False, 25, True, []), "15 characters may be the beginning of a mark"
    done = RegionEnd()
    assert sought(f"{'(' * 9}{END}x") == (done, 9 + len(END), True, ["(" * 9])
    assert sought(f"{'(' * 9}<tool_call>x") == (done, 9, True, ["(" * 9]), "the next call begins there"
    assert sought(f"( {END}", final=True) == (done, 2 + len(END), True, ["("])
    assert sought("( x ", final=True) == (done, 4, True, ["( x"])
    assert sought("(", final=True, mark="m", closing="c") == (done, 1, False, ["("])
    assert sought("(" * 40, mark="m", closing="c") == (False, 40, False, []), "nothing can end it but the text's end"
    text, at, _, calls = sought("words", final=True)
    assert (text, at, calls) == (RegionEnd("<tool_call>", unmarked_from=5), 0, []), "no call after the mark: it is text"
    assert sought("words", final=True, mark="<|python_tag|>", closing="")[3] == ["words"]


@pytest.mark.parametrize(
    ("text", "final", "after", "pieces"),
    [
        ("\\", False, 0, []), ("\\", True, 0, []), ("\\u00e9x", False, 6, ["\\u00e9"]), ("\\x41F", False, 4, ["\\u0041"]),
        ("\\x4", False, 0, []), ("\\x4", True, 1, ["\\\\"]), ("\\u12G4", False, 1, ["\\\\"]), ("\\u", False, 0, []),
        ("\\n", False, 2, ["\\n"]), ("\\/", False, 2, ["\\/"]), ('\\"', False, 2, ['\\"']), ("\\'", False, 2, ["'"]),
        ("\\\nx", False, 2, [""]), ("\\q", False, 1, ["\\\\"]), ("\\\\n", False, 2, ["\\\\"]),
    ],
)  # fmt: skip
def test_an_escape_is_read_as_json_or_python_has_it_or_stays_as_it_is(
    text: str, final: bool, after: int, pieces: list[str]
) -> None:
    for before in ("", "n\\"):
        reader = Reader()
        assert reader._escape(before + text, len(before), final) == len(before) + after and reader._pieces == pieces


def read(text: str, final: bool = False, **given: Any) -> tuple[str, int, bool, bool]:
    reader = Reader(**given)
    at = reader.feed(text, 0, final)
    return "".join(piece.json for piece in reader.drain()), at, reader.done, reader.broken


def test_quotes_may_be_one_or_three_and_the_last_ones_wait_for_their_third() -> None:
    for quote in "\"'":
        assert read(quote) == read(quote * 2) == ("", 0, False, False), "it may be the first of three"
        assert read(quote * 2, True) == read(f"{quote}{quote} ") == ('""', 2, True, False)
        assert read(quote, True) == ('"', 1, False, False)
        assert read(f"{quote * 3}a{quote * 2}") == ('"a', 4, False, False)
        inner = "'" if quote == "'" else '\\"'
        assert read(f"{quote * 3}a{quote * 2}b{quote * 3}") == (f'"a{inner}{inner}b"', 10, True, False)
        assert read(f"{quote * 3}a{quote * 2}", True) == (f'"a{inner}{inner}', 6, False, False)
        assert read(f"{quote * 7}") == ('""', 6, True, False), "an empty one, and the next"
    assert read("'a\"b\n\x01é'") == ('"a\\"b\\n\\u0001é"', 8, True, False)
    assert read("'ab") == ('"ab', 3, False, False) and read("{'ab") == ("{", 4, False, False), "a key comes whole"
    reader = Reader()
    assert reader.feed("{'a': 'b", 0, False) == 8
    assert reader.drain() == [
        JsonPiece("begin", 0, "{"), JsonPiece("key", 1, '"a": ', "a"), JsonPiece("begin", 1, '"'),
        JsonPiece("more", 1, "b"),
    ]  # fmt: skip
    assert reader.feed("x'}", 1, False) == 3 and reader.done
    assert reader.drain() == [
        JsonPiece("more", 1, '"'), JsonPiece("end", 1, ""), JsonPiece("more", 0, "}"), JsonPiece("end", 0, ""),
    ]  # fmt: skip
    assert reader.drain() == [] and reader.feed("{}", 0, True) == 0, "a value that is done reads no more"


def test_arguments_take_the_next_position_until_one_has_a_name() -> None:
    names = ("b", "a")
    assert read("1, [2])", call=True, positional=names) == ('{"b": 1, "a": [2]}', 7, True, False)
    assert read("1, a='x', c=2)", call=True, positional=names) == ('{"b": 1, "a": "x", "c": 2}', 14, True, False)
    assert read("1, 2, 3)", call=True, positional=names)[1:] == (6, False, True), "there is no third position"
    assert read("c=1, 2)", call=True, positional=names)[1:] == (5, False, True), "none after a name"
    assert read("'b': 1)", call=True, positional=names)[1:] == (3, False, True), "a name is no string"
    assert read("c: 1)", call=True)[1:] == (1, False, True) and read("{c=1}")[1:] == (2, False, True)
    assert read(")", call=True) == ("{}", 1, True, False) and read("c=1,)", call=True) == ('{"c": 1}', 5, True, False)
    assert read("{a-b: 1, c: x}")[:2] == ('{"a-b": 1, "c": ', 12)
    closing = Reader()
    closing.feed('{"a": [1, {', 0, True)
    assert closing.close() and closing.done
    assert "".join(piece.json for piece in closing.drain()) == '{"a": [1, {}]}'
    for cut in ('{"a": "b', '{"a"', '{"a":', "[tru"):
        reader = Reader()
        reader.feed(cut, 0, False)
        assert reader.close() is (cut == "[tru"), cut
    comma = Reader()
    comma.feed("[1,}", 0, False)
    assert comma.broken and comma.close() and not comma.broken and comma.done
