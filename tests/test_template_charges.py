"""Each operation of a chat template is charged what it makes, exactly, and is refused one beyond its limit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from firsthand.errors import TemplateError
from firsthand.tokens.calls.call_grammar import _frame, _input, bare_argument, markup_of
from firsthand.tokens.calls.lenient_json import JsonPiece, Reader
from firsthand.tokens.templates import render_budget, template_sandbox
from firsthand.tokens.templates.render_budget import MAX_STEPS, RenderBudget, Weight, nested_depth
from firsthand.tokens.templates.template_sandbox import MAX_SOURCE, SandboxedTemplate, _paths, _round, _strftime
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tokens.tokenizer import TextRun


def environment() -> Any:
    return SandboxedTemplate("")._environment


def charged(work: Any) -> tuple[Any, int, int]:
    """What work with a fresh environment gives, and the characters and steps that it was charged."""
    made = environment()
    budget = made._budget
    left, steps = budget._left, budget._steps
    found = work(made)
    return found, left - budget._left, steps - budget._steps


def test_a_source_a_range_and_a_path_may_be_as_long_as_their_limits() -> None:
    assert SandboxedTemplate("x" * MAX_SOURCE).render({}) == "x" * MAX_SOURCE
    with pytest.raises(TemplateError) as told:
        SandboxedTemplate("x" * (MAX_SOURCE + 1))
    assert str(told.value) == "the chat template has 262145 characters; at most 262144 are rendered"
    made = environment()
    assert made._range(2, MAX_STEPS + 2) == range(2, MAX_STEPS + 2)
    with pytest.raises(TemplateError, match=rf"^the chat template asks for a range of {MAX_STEPS + 1} numbers$"):
        made._range(MAX_STEPS + 1)
    path = "a." * 511 + "bc"
    assert made.filters["join"]([], "-", path) == ""
    with pytest.raises(TemplateError, match=r"^the chat template names an attribute of more than 1024 characters$"):
        made.filters["join"]([], "-", path + "d")
    given = ("a", "b", 3), {"attribute": "c"}
    firsts = {key: ["c", "a"] for key in ("groupby", "selectattr", "rejectattr")}
    others = {key: ["c", "b"] for key in ("sort", "unique", "min", "max", "sum", "join")}
    neither = {key: ["c"] for key in ("map", "select", "reject", "attr", "first")}
    for name, paths in (firsts | others | neither).items():
        assert list(_paths(name, *given)) == paths, name
        assert list(_paths(name, (), {"attribute": 3})) == list(_paths(name, (4, 5), {})) == [], name
    assert list(_paths("sort", (True, "a", "b"), {})) == ["a", "b"]
    for name in ("selectattr", "rejectattr", "groupby"):
        assert SandboxedTemplate(f"{{{{ [] | {name}('{path}') | list }}}}").render({}) == "[]"
        with pytest.raises(TemplateError, match=r"^the chat template names an attribute of more than 1024 characters$"):
            SandboxedTemplate(f"{{{{ [] | {name}('{path}d') | list }}}}").render({})


def test_a_rendering_leaves_nothing_of_its_variables_or_charges_behind() -> None:
    template = SandboxedTemplate("{{ 'a' ~ x }}{{ y | default('-') }}")
    budget = template._environment._budget
    for _ in range(2):
        assert template.render({"x": ["b"]}) == "a['b']-"
        assert (budget._given, budget._left, budget._steps) == ({}, render_budget.MAX_TOTAL, MAX_STEPS)
    with pytest.raises(TemplateError, match=r"^the chat template refuses this conversation: no$"):
        SandboxedTemplate("{{ raise_exception('no') }}").render({})
    failing = SandboxedTemplate("{{ 1 // 0 }}")
    with pytest.raises(TemplateError, match=r"^the chat template failed: ZeroDivisionError: "):
        failing.render({"x": 1})
    assert failing._environment._budget._given == {}
    with pytest.raises(TemplateError, match=r"^the chat template cannot be read: TemplateSyntaxError: "):
        SandboxedTemplate("{% if %}")


def test_operators_are_charged_for_what_they_make() -> None:
    def binop(operator: str, left: Any, right: Any) -> tuple[Any, int]:
        found, chars, _ = charged(lambda made: made.call_binop(None, operator, left, right))
        return found, chars

    assert binop("+", "ab", "cde") == ("abcde", 5) and binop("+", [1], [2, 3]) == ([1, 2, 3], 3)
    assert binop("*", "ab", 3) == ("ababab", 6) and binop("*", 2, [1, 2, 3]) == ([1, 2, 3] * 2, 6)
    assert binop("*", "ab", -3) == ("", 0) and binop("-", 5, 2) == (3, 0) and binop("**", 2, 10) == (1024, 0)
    assert binop("%", "%s-%s", ("a", "bc"))[0] == "a-bc" and binop("%", 7, 4) == (3, 0)
    made = environment()
    assert made.call_binop(None, "**", 3, 2_048) == 3**2_048, "2 bits times 2,048 are 4,096"
    for operator, left, right, bits in (
        ("**", 3, 2_049, 4_098),
        ("*", 1 << 4_096, 1, 4_097),
        ("+", 1, 1 << 4_096, 4_097),
    ):
        with pytest.raises(TemplateError, match=f"^the chat template makes a number of {bits} bits$"):
            made.call_binop(None, operator, left, right)
    assert made.call_binop(None, "*", 1 << 4_094, 2) == 1 << 4_095


def test_filters_are_charged_and_give_what_jinja_gives() -> None:
    assert charged(lambda made: made._join(["a", 2, "bc"], "--"))[:2] == ("a--2--bc", 4 + 2 * 3)
    assert charged(lambda made: made._join([{"n": "x"}, {"n": "yz"}], "", "n"))[0] == "xyz"
    assert charged(lambda made: made._replace("abab", "a", "xyz"))[:2] == ("xyzbxyzb", 4 + 2 * 3)
    assert charged(lambda made: made._replace("abab", "a", "x", 1))[0] == "xbab"
    assert charged(lambda made: made._indent("a\n\nb"))[:2] == ("a\n\n    b", 4 + 5 * 3)
    assert charged(lambda made: made._indent("a\n\nb", ">", True, True))[0] == ">a\n>\n>b"
    assert charged(lambda made: made.sliced("abcdef", 1, 5, 2))[:2] == ("bd", 2)
    for value, part, chars in (
        ("abcdef", "bd", 2), ([1, 2, 3, 4, 5], [2, 4], 2), ((1, 2, 3, 4, 5), (2, 4), 2), (("a",), (), 0),
        (range(9), range(1, 5, 2), 0),
    ):  # fmt: skip
        assert charged(lambda made, value=value: made.sliced(value, 1, 5, 2)) == (part, chars, 1), value
    for value in ("abc", [1, 2, 3], (1, 2, 3)):
        assert charged(lambda made, value=value: made.sliced(value, None, None, None)) == (value, 3, 1)
        assert charged(lambda made, value=value: made.sliced(value, -2, None, None)) == (value[1:], 2, 1)
        assert charged(lambda made, value=value: made.sliced(value, None, None, -1)) == (value[::-1], 3, 1)
    assert charged(lambda made: made.joined(["ab", 3, "c"]))[:2] == ("ab3c", 8), "each piece, and the whole"
    value = {"k": ["é", 1, None]}
    found, chars, _ = charged(lambda made: made._tojson(value))
    assert (found, chars) == ('{"k": ["é", 1, null]}', 2 + 4 * 11)
    assert charged(lambda made: made._tojson(value, indent=3))[1] == 2 + 11 * (4 + 3 * 2)
    assert (
        charged(lambda made: made._tojson({"b": 1, "a": "é"}, True, None, (",", ":"), True))[0]
        == '{"a":"\\u00e9","b":1}'
    )
    made = environment()
    assert made._tojson([1], indent=16) == f"[\n{' ' * 16}1\n]" and made._tojson([1], indent="-") == "[\n-1\n]"
    with pytest.raises(TemplateError, match=r"^the chat template indents JSON by more than 16$"):
        made._tojson([1], indent=17)
    assert made._sum([1, 2.5], start=1) == 4.5 and made._sum([{"a": 1}, {"a": 4}], "a") == 5
    for values, start in ((["a"], 0), ([1], "a")):
        with pytest.raises(TemplateError, match=r"^the chat template sums a value that is not a number$"):
            made._sum(values, start=start)
    found, chars, _ = charged(lambda made: made._format_percent("%s is %d%%", "ab", 7))
    assert (found, chars) == ("ab is 7%", 10 + 4 * (64 + 3))
    for text in ("%5s", "%(a)s", "%x", "%"):
        with pytest.raises(TemplateError, match="formats with widths or names"):
            made._format_percent(text, 1)
    assert [_round(2.346, 2), _round(25.0, -1), _round(1.5)] == [2.35, 20.0, 2.0]
    assert str(_round(3)) == "3.0", "as Jinja shows it"
    assert _round(1.0, 15) == 1.0 == _round(1.0, -0)
    for precision, method in ((16, "common"), (-16, "common"), (0, "ceil")):
        with pytest.raises(TemplateError, match="rounds by an unknown method"):
            _round(1.0, precision, method)
    now = datetime(2024, 3, 5, 7)
    assert _strftime(now, "%d %B %Y%%") == "05 March 2024%" and len(_strftime(now, "x" * 100)) == 100
    for form in ("x" * 101, "%10Y", "%", "%%%"):
        with pytest.raises(TemplateError, match="asks for a date in an unknown format"):
            _strftime(now, form)


def test_what_is_shown_filtered_or_formatted_is_charged_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def rendered(source: str, **given: Any) -> tuple[str, int]:
        template = SandboxedTemplate(source)
        budget = template._environment._budget
        budget.start(given)
        return template._compiled.render(given), render_budget.MAX_TOTAL - budget._left

    measured = 3 + 4 * (1 + 3 + 3)  # characters, and values: a list of three, itself among them
    assert rendered("{{ ['ab', 'c', 7] }}") == ("['ab', 'c', 7]", measured + 2 * 14), "as a value, piece and whole"
    assert rendered("{{ {'k': 'v'} }}")[1] == 2 + 4 * (1 + 2 + 2) + 2 * 10
    assert rendered("{{ v }}", v=7) == ("7", 2) and rendered("a{{ v }}", v="bcd") == ("abcd", 2 * 4)

    def call(method: Any, *args: Any, **kwargs: Any) -> tuple[Any, int]:
        return charged(lambda made: made.call(None, method, *args, **kwargs))[:2]

    assert call("{}{a}{{}}".format, "xy", a="z") == ("xyz{}", 4 * (64 + 3) + 9), "a brace, each for all that is put in"
    assert call("{a}{b}".format, a="xyz", b=1.5) == ("xyz1.5", 2 * (64 + 3 + 3) + 6)
    assert call("ab".join, ["x", "y"]) == ("xaby", 2 + 2 * 2) and call("a,b".split, ",") == (["a", "b"], 3 + 16 * 2)

    def filtered(name: str, value: Any, *args: Any) -> tuple[Any, int]:
        return charged(lambda made: made.call_filter(name, value, args))[:2]

    assert filtered("list", "abc") == (["a", "b", "c"], 2 * 16 * 3)
    assert filtered("list", (1, 2)) == ([1, 2], 16 * 2)
    assert (
        filtered("upper", "abc") == ("ABC", 3)
        and filtered("items", {"a": 1})[1] == 0
        and filtered("int", "12") == (12, 0)
    )
    assert filtered("first", [(1, 2, 3)]) == ((1, 2, 3), 3) and filtered("default", "", "ab", True) == ("ab", 2)
    assert filtered("sort", [3, 1, 2]) == ([1, 2, 3], 7 + 16 * 3), "a list of three is seven values"
    largest = 2**4_096 - 1
    assert filtered("int", str(largest)) == (largest, 0) and filtered("abs", -largest) == (largest, 0)
    for name, value in (
        ("int", str(largest + 1)),
        ("abs", -largest - 1),
        ("sum", [largest, 1]),
        ("max", [1, largest + 1]),
    ):
        with pytest.raises(TemplateError, match=r"^the chat template makes a number of 4097 bits$"):
            filtered(name, value)
    monkeypatch.setattr(render_budget, "MAX_WORK", 12)
    assert filtered("trim", "xabx", "xyz")[0] == "ab" and filtered("trim", "abcdefghijkl")[0] == "abcdefghijkl"
    assert filtered("trim", "abcdefghijkl", "z")[0] == "abcdefghijkl" == filtered("lower", "ABCDEFGHIJKL")[0]
    for text, *options in (("abcde", "xyz"), ("abcdefghijklm",), ("abcdefg", "xy"), ("abcdefghijklm", "")):
        amount = len(text) * max(1, *map(len, options), 1)
        with pytest.raises(
            TemplateError, match=f"^the chat template compares or searches {amount} characters in one call$"
        ):
            filtered("trim", text, *options)
    assert charged(lambda made: made.filters["trim"](" a "))[2] == 2, "a step for the call and one for its work"


def test_a_budget_measures_values_to_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = RenderBudget()
    assert budget.measure(["ab", {"c": (1, "def")}]) == Weight(13, 6) and budget.measure("abc") == Weight(1, 3)
    given = ["xy", "z"]
    budget.start({"given": given, "other": "o"})
    assert budget.measure([given, 5]) == Weight(5, 3 + 4 * 3), (
        "a given value is one, with four characters for each in it"
    )
    assert (nested_depth([]), nested_depth([[1], {"a": [2]}]), nested_depth("a")) == (1, 3, 0)
    assert [budget.chars(each) for each in ("abc", ["a", "bc"], 7)] == [3, 3, 0]
    monkeypatch.setattr(render_budget, "MAX_WEIGHT", 7)
    monkeypatch.setattr(render_budget, "MAX_TEXT", 6)
    assert budget.measure(["abc", "def", 1]) == Weight(7, 6)
    with pytest.raises(TemplateError, match=r"^the chat template makes a list or dict of more than 7 values$"):
        budget.measure([1, 2, 3, 4])
    with pytest.raises(TemplateError, match=r"^the chat template makes a list or dict of more than 6 characters$"):
        budget.measure(["abcd", "efg"])
    monkeypatch.setattr(render_budget, "MAX_WORK", 10)
    budget.work(10)
    with pytest.raises(TemplateError, match=r"^the chat template compares or searches 11 characters in one call$"):
        budget.work(11)
    monkeypatch.setattr(render_budget, "MAX_LENGTH", 5)
    budget.charge(5)
    with pytest.raises(TemplateError, match=r"^the chat template makes a value of 6 characters or items"):
        budget.charge(6)
    budget._steps = 1
    assert budget.tick() == ""
    with pytest.raises(TemplateError, match="takes too many steps"):
        budget.tick()
    budget._reads, budget._deadline = 254, 0.0
    budget.read()
    with pytest.raises(TemplateError, match="takes too long"):
        budget.read()


def test_masks_come_back_as_untrusted_text_escaped_as_the_template_did() -> None:
    masks = TextMasks(["\U000f0000"], lambda text: "!" in text)
    assert masks.place == "\U000f0001\U000f0002", "a character of a message is no mark"
    one, two, three = masks.mask(' a"b '), masks.mask("c"), masks.mask(" \n")
    assert (one[0], one[-1], three) == (" ", " ", " \n")
    escaped = two.replace('"', '\\"')
    assert masks.runs(f"<{one}>{escaped}.") == [
        TextRun("< ", True), TextRun('a"b', False), TextRun(" >", True), TextRun("c", False), TextRun(".", True),
    ]  # fmt: skip
    quoted = masks.mask('d"')
    for slashes, text in ((0, 'd"'), (1, 'd\\"'), (3, 'd\\\\\\"')):
        runs = masks.runs(quoted.replace('"', "\\" * slashes + '"'))
        assert runs is not None and runs[1].text == text
    unknown = two.replace("1", "9")
    assert masks.runs(unknown) == [TextRun("", True), TextRun("", False), TextRun("", True)]
    assert masks.runs(two.replace("1", "3"))[1] == TextRun("", False)  # type: ignore[index]
    assert masks.runs(two[:-1]) is None and masks.runs(two[1:]) is None and masks.runs("\\udb80\\udc01") is None
    call = {"id": "x!", "function": {"name": "f", "arguments": {"k": "v", "k!": 1}}}
    shown = masks.mask_message({"role": "user", "content": "w", "tool_calls": [call], "name": "n!"})
    assert set(shown) == {"role", "content", "tool_calls", "name"} and shown["role"] == "user"
    assert masks._texts[:5] == ['a"b', "c", 'd"', "n!", "w"]
    inner = shown["tool_calls"][0]
    assert inner["function"]["name"] == "f" and inner["id"] != "x!" and inner["function"]["arguments"]["k"] != "v"
    assert list(inner["function"]["arguments"])[1] != "k!" and list(inner["function"]["arguments"].values())[1] == 1


def test_pieces_of_near_json_keep_their_depths_keys_and_escapes() -> None:
    def pieces(text: str, final: bool = True, **more: Any) -> tuple[list[JsonPiece], int, bool, bool]:
        reader = Reader(**more)
        at = reader.feed(text, 0, final)
        return reader.drain(), at, reader.done, reader.broken

    begin, end = ("begin", 1, "[", ""), ("end", 1, "", "")
    assert pieces("{'é': [1,], b: \"x\\t\\q\"} z") == (
        [("begin", 0, "{", ""), ("key", 1, '"é": ', "é"), begin, ("begin", 2, "1", ""), ("end", 2, "", ""),
         ("more", 1, "]", ""), end, ("key", 1, ', "b": ', "b"), ("begin", 1, '"', ""), ("more", 1, 'x\\t\\\\q"', ""),
         end, ("more", 0, "}", ""), ("end", 0, "", "")],
        23, True, False,
    )  # fmt: skip
    for text, at in (("{'a'=1}", 4), ("{a:=1}", 3), ("[1 2]", 3), ("[,]", 1), ("{1: 2}", 1), ("[)", 1), ("[a]", 1)):
        assert pieces(text)[1:] == (at, False, True), text
    assert pieces("a: 1)", call=True)[1:] == (1, False, True) and pieces("a=1)", call=True)[1:] == (4, True, False)
    assert pieces("'ab", False)[0][1] == ("more", 0, "ab", "") and pieces("{'ab", False)[0] == [("begin", 0, "{", "")]
    assert pieces("'''a'b", False)[0][1:] == [("more", 0, "a'b", "")] and pieces("'''a''", False)[1] == 4
    assert pieces("'''a'bc", False)[1] == 7 and pieces("'''a'''", False)[2]
    for escape, json in (
        ("\\b", "\\b"),
        ("\\/", "\\/"),
        ("\\'", "'"),
        ("\\x4", "\\\\x4"),
        ("\\x41", "\\u0041"),
        ("\\\n", ""),
    ):
        assert pieces(f'"{escape}"')[0][1].json == f'{json}"'
    deep = "[" * 64
    assert pieces(deep)[1:] == (64, False, False) and pieces(deep + "[")[1:] == (64, False, True)


def test_the_rules_of_a_models_calls_follow_its_markup() -> None:
    for template, markup in (
        ("x", "hermes"),
        ("tools", None),
        ("tools <tool_call> [TOOL_CALLS]", "hermes"),
        ("tools [TOOL_CALLS] python_tag", "mistral"),
        ("tools python_tag", "llama3"),
        ('tools "parameters": ', "llama3"),
    ):
        assert markup_of(template) == markup
    body, mark = '"\\n" call "\\n</tool_call>"', '"<tool_call>"'
    assert _frame("hermes", False, True) == [f'start: {mark} {body} ("\\n" {mark} {body})*']
    assert _frame("hermes", False, False) == [f"start: {mark} {body}"]
    assert _frame("hermes", True, True)[0] == f"start: (begun {body})* WORDS"
    assert _frame("hermes", True, False)[0] == f"start: begun {body} | WORDS"
    assert _frame("mistral", False, True) == ['start: "[TOOL_CALLS]" " "? "[" call (", " call)* "]"']
    assert _frame("mistral", True, False)[0] == 'start: WORDS | begun " "? "[" call "]"'
    assert _frame("llama3", False, False) == ['start: "<|python_tag|>"? call']
    assert _frame("llama3", True, True)[:2] == [
        "start: bare | WORDS | begun call", 'bare: "<|python_tag|>"? call ("; " call)*',
    ]  # fmt: skip
    text, number = {"type": "string"}, {"type": "number"}
    for properties, required, name in (
        ({"a": text, "b": number}, [], "a"),
        ({"a": text, "b": number}, ["b"], "b"),
        ({"a": text, "b": text}, ["a", "b"], None),
        ({}, [], None),
        ({"a": {"type": "array"}}, [], None),
        ({"a": text | {"pattern": "x"}}, [], None),
        ({"a": True}, [], None),
    ):
        assert bare_argument({"properties": properties, "required": required}) == name
    assert _input({"properties": {}}) == '""' and _input({"properties": {"a": text}}) == "/[^\\n\\[\\]{}]{1,400}/"
    assert _input({"properties": {"a": text | {"enum": ["x", 'y"']}}}) == '("x" | "y\\"")'
    assert _input({"properties": {"a": number}}).startswith('%json {"type": "number", ')
    assert template_sandbox._MAX_BITS == 4096
