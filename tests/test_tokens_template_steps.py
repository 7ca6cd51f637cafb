"""A chat template's steps counted one by one, its calls and tests by themselves; runs, turns and stop strings of a chat."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from byte_tokens import BYTES, END, IDS, START, TOKENIZER, ids, made
from counted_templates import environment, steps_of
from firsthand.errors import ConfigError, PromptTooLong, TemplateError
from firsthand.message import Message, Sampled, Text, assistant, system, user
from firsthand.model import ToolSpec
from firsthand.tokens.incremental_decoding import IncrementalDetokenizer, StopString, StopStrings, _Matcher
from firsthand.tokens.templates import chat_template, meters, render_budget
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.templates.render_budget import MAX_STEPS, MAX_TOTAL, RenderBudget, Weight, dict_of, inside
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tokens.templates.untrusted_text import TextMasks
from firsthand.tokens.tokenizer import TextRun


def test_each_turn_call_filter_comparison_and_slice_is_a_step() -> None:
    counted = {
        "a{{ v }}": ("a[1, 2, 3]", 0),
        "{% for x in v %}{{ x }}{% endfor %}": ("123", 3),
        "{% for x in v if x > 1 %}{{ x }}{% endfor %}": ("23", 3 + 3 * 2 + 2),
        "{% for x in [] %}{% else %}none{% endfor %}": ("none", 0),
        "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1) }}{{ f(2) }}": ("12", 4),
        "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}": ("<in>", 4),
        "{{ 1 < 2 < 3 }}": ("True", 3),
        "{{ v == [1, 2, 3] and 'a' in 'ab' }}": ("True", 4),
        "{{ 'abc'[1:] }}{{ v[::-1] }}{{ v[0] }}": ("bc[3, 2, 1]1", 2),
        "{{ 'a' ~ v ~ 1 }}": ("a[1, 2, 3]1", 0),
        "{{ 1 + 2 * 3 }}": ("7", 2),
        "{{ v | length }}{{ t | upper }}": ("3X", 1 + 2),
        "{{ v | map('string') | list | join }}": ("123", 0),
        "{{ n is odd }}{{ v is defined }}{{ n is divisibleby 3 }}": ("TrueTrueTrue", 1 + 2),
        "{{ 'ab'.upper() }}": ("AB", 2),
        "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}": ("2", 1),
        "{{ (1, 2)[0] }}{{ {'a': 1}.a }}": ("11", 0),
    }
    found = {source: steps_of(source, v=[1, 2, 3], n=9, t="x") for source in counted}
    lazy = "{{ v | map('string') | list | join }}"
    assert found.pop(lazy)[0] == counted.pop(lazy)[0]
    assert found == counted


def test_filters_that_compare_values_take_any_list_and_are_priced_by_its_characters() -> None:
    given: dict[str, Any] = {"v": [3, 1, 2, 1], "d": {"b": 1, "A": 2}, "t": ("x", "y"), "m": [{"k": "b"}, {"k": "a"}]}
    shown = {
        "{{ v | sort }}{{ v | sort(reverse=true) }}": "[1, 1, 2, 3][3, 2, 1, 1]",
        "{{ d | dictsort }}": "[('A', 2), ('b', 1)]",
        "{{ v | max }}{{ v | min }}{{ t | max }}{{ d | min }}": "31yA",
        "{{ v | select('odd') | sort | join('-') }}": "1-1-3",
        "{{ v | map('string') | max }}": "3", "{{ v | unique | list }}": "[3, 1, 2]", "{{ m | map(attribute='k') | sort }}":
        "['a', 'b']", "{% for k, g in m | groupby('k') %}{{ k }}{{ g | length }}{% endfor %}": "a1b1",
        "{{ n | upper }}|{{ v | upper }}|{{ 'ab c' | title }}": "|[3, 1, 2, 1]|Ab C", "{{ n | sort | list }}": "[]",
        "{{ 'abc' | list }}{{ n | map('upper') | list }}{{ [] | select | list }}": "['a', 'b', 'c'][][]",
    }  # fmt: skip
    assert {source: SandboxedTemplate(source).render(given) for source in shown} == shown

    def charged(name: str, *args: Any) -> tuple[int, int]:
        own = environment()
        left, steps = own._budget._left, own._budget._steps
        found = own._before_filter(name, args[0], list(args[1:]))
        found = list(found) if name in ("map", "unique") else found
        return left - own._budget._left, steps - own._budget._steps

    values = ["ab", "c"]  # 3 characters; 5 values, its size among them
    assert charged("sort", values) == (8, 1) and charged("max", iter(values)) == (8, 3), "what is lazy is read first"
    assert charged("upper", "abc", "de") == (0, 1) and charged("title", "abc") == (16 * 3, 1)
    assert charged("list", "abc") == (16 * 3, 0) and charged("list", values) == charged("first", values) == (0, 0)
    assert charged("map", values) == charged("unique", values) == (0, 2) and charged("map", []) == (0, 0)
    own = environment()
    for text in ("%5d", "%(a)s", "%"):
        with pytest.raises(TemplateError) as error:
            own._format_percent(text, 1)
        assert str(error.value) == "the chat template formats with widths or names; only %s, %d and %% may"


def test_a_template_has_as_many_expressions_as_the_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import nodes

    source = "{{ [1, (2, 3)] }}{{ a[1:][b] ~ c }}{{ {'k': {}} }}{% for x, y in a %}{{ x < y <= 3 }}{% endfor %}"
    tree = environment().parse(source)
    size = sum(1 for _ in tree.find_all(nodes.Node))
    monkeypatch.setattr(meters, "MAX_NODES", size)
    metered = meters.add_meters(tree)
    asked = [each.node.name for each in metered.find_all(nodes.Call)]
    assert sorted(asked) == [*["compared"] * 3, "joined", "sliced", "tick", *["weighed"] * 4], "all but the names x, y"
    tree = environment().parse(source)
    monkeypatch.setattr(meters, "MAX_NODES", size - 1)
    with pytest.raises(TemplateError, match=f"^the chat template has more than {size - 1} expressions and statements$"):
        meters.add_meters(tree)


def test_tests_of_a_template_look_at_numbers_cases_and_sizes_first() -> None:
    own = environment()
    steps = own._budget._steps
    found = [own.tests[name](*given) for name, given in (
        ("even", (4,)), ("odd", (4,)), ("divisibleby", (9, 3)), ("even", (2.0,)), ("lower", ("aB",)), ("upper", ("AB",)),
        ("lower", (["a"],)), ("in", ("a", ["a"])), ("eq", (1, 2)), ("greaterthan", (3, 2)),
    )]  # fmt: skip
    assert found == [True, False, True, True, False, True, True, True, False, True]
    assert steps - own._budget._steps == 1 + 1 + 2 + 1 + 1 + 1 + 1 + 2 + 2 + 2, "a step for each operand"
    for name, given, told in (
        ("odd", ("a",), "the chat template tests whether str is odd"),
        ("divisibleby", (4, None), "the chat template tests whether NoneType is divisibleby"),
        ("even", (1 << 4096,), "the chat template makes a number of 4097 bits"),
    ):
        with pytest.raises(TemplateError) as error:
            own.tests[name](*given)
        assert str(error.value) == told
    assert own.tests["even"](1 << 4095) and own.tests["divisibleby"](-(1 << 4095), 1)
    before = own._budget._steps
    assert own.tests["defined"](3) and own.tests["string"]("a") and own._budget._steps == before


def test_only_listed_methods_are_called_and_each_is_given_its_own_arguments() -> None:
    def call(method: Any, *args: Any, **kwargs: Any) -> Any:
        return environment().call(None, method, *args, **kwargs)

    assert call("a-b-c".rsplit, "-", 1) == ["a-b", "c"] and call("a-b-c".split, maxsplit=1, sep="-") == ["a", "b-c"]
    assert call("aXaX".replace, "a", "b", 1) == "bXaX" and call(",".join, ["a", 3]) == "a,3" and call(",".join) == ""
    assert call({"a": 1}.get, "b", 7) == 7 and call([3, 4, 3].count, 3) == 2 and call((3, 4).index, 4) == 1
    assert call("{0} {b} {{}}".format, 1, b="x", _loop_vars={}, _block_vars={}) == "1 x {}"
    for text in ("{:>5}", "{a.b}", "{0[1]}", "{!r}"):
        with pytest.raises(TemplateError, match=r"formats with widths or attributes; only \{\} and \{name\} may$"):
            call(text.format, 1)
    for method, name in (("a".encode, "encode"), ([].append, "append"), ({}.update, "update"), (print, "print")):
        with pytest.raises(TemplateError, match=f"^the chat template calls '{name}', which is not allowed$"):
            call(method)
    with pytest.raises(TemplateError, match=r"^the chat template calls 'int', which is not allowed$"):
        call(7)
    own = environment()
    assert own.call(None, own.tick) == "" and own._budget._steps == MAX_STEPS - 1, "a meter is no call itself"
    now = SandboxedTemplate("{{ strftime_now('%d %H') }}", now=datetime(2024, 3, 5, 7))
    assert now.render({}) == "05 07"
    with pytest.raises(TemplateError, match=r"^the chat template failed: UndefinedError: 'strftime_now' is undefined$"):
        SandboxedTemplate("{{ strftime_now('%d') }}").render({})
    with pytest.raises(TemplateError, match=r"^the chat template failed: it is nested too deeply or calls itself "):
        SandboxedTemplate("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").render({})


def test_a_budget_measures_each_value_as_often_as_it_is_reached_but_what_was_given_once() -> None:
    budget = RenderBudget()
    inner = ["ab", 3]
    assert budget.measure(["x", inner, inner]) == Weight(1 + 3 + 1 + 2 * (1 + 2 + 2), 5), "with its size, to be early"
    assert budget.measure({"key": ("é", None)}) == Weight(3 + 1 + 3 + 2, 4) and budget.measure("abc") == Weight(1, 3)
    assert budget.measure(7) == Weight(1, 0) and budget.measure({"a": 1}.items()) == Weight(2 + 3 + 2, 1)
    budget.start({"inner": inner, "name": "x"})
    assert budget.measure([inner, inner]) == Weight(3 + 2, 2 * (2 + 3 * 4)), "4 for each value and its characters"
    assert budget.weighed([0] * 32) and budget._steps == MAX_STEPS - 1, "a step for each 64 values"
    assert budget.weighed(inner) is inner and budget.weighed("a" * 999) and budget._steps == MAX_STEPS - 1
    assert budget.compared([1]) == [1] and budget._steps == MAX_STEPS - 2
    assert budget.text(["a", 1]) == "['a', 1]" and MAX_TOTAL - budget._left == 1 + 4 * 5
    assert budget.text("a") == "a" and budget.text(3) == "3" and MAX_TOTAL - budget._left == 21
    assert [budget.chars(each) for each in ("ab", ["ab", "c"], 7)] == [2, 3, 0]
    assert inside({"a": 1, "b": 2}) == ("a", "b", 1, 2) and inside({"a": 1}.values()) == (1,) and inside("ab") == ()
    budget.start({})
    assert dict_of(budget)([("a", 1), ("b", 2)], b=3) == {"a": 1, "b": 3} and budget._steps == MAX_STEPS - 2
    assert dict_of(budget)({"a": 1}, a=2) == {"a": 2} and dict_of(budget)() == {}
    budget._steps = 1
    assert budget.tick() == ""
    with pytest.raises(TemplateError, match=r"^the chat template takes too many steps: it loops far longer"):
        budget.tick()
    budget.start({})
    budget._left = 5
    budget.charge(5)
    with pytest.raises(TemplateError, match=f"^the chat template makes more than {MAX_TOTAL} characters and items"):
        budget.charge(1)
    budget.start({})
    budget._deadline = 0.0
    for _ in range(render_budget._READS - 1):
        budget.read()
    with pytest.raises(TemplateError, match=r"^the chat template takes too long: it looks up far more"):
        budget.read()


def test_a_message_is_masked_in_its_content_and_arguments_and_elsewhere_where_it_names_a_control_token() -> None:
    masks = TextMasks(["x"], lambda text: "!" in text)
    message = {
        "role": "assistant", "name": "!n", "content": " hi ", "tool_calls": [
            {"id": "!i", "type": "function", "function": {"name": "f", "arguments": {"a": "v", "b!": [1, "w"]}}},
            {"id": "j", "function": {"name": "g! ", "arguments": {}}},
        ],
    }  # fmt: skip
    before = repr(message)
    masked = masks.mask_message(message)

    def mask(number: int) -> str:
        return f'{masks._open}{number}"{masks._close}'

    assert masks._texts == ["!n", "hi", "!i", "b!", "v", "b!", "w", "g!", "g!"] and repr(message) == before
    assert masked == {
        "role": "assistant", "name": mask(0), "content": f" {mask(1)} ", "tool_calls": [
            {"id": mask(2), "type": "function",
             "function": {"name": "f", "arguments": {"a": mask(4), mask(5): [1, mask(6)]}}},
            {"id": "j", "function": {"name": f"{mask(8)} ", "arguments": {}}},
        ],
    }  # fmt: skip
    assert masks.mask_within({"a": ("b", "c!")}, always=False) == {"a": ["b", mask(9)]}
    assert masks.mask("  ") == "  " and masks.mask("") == "" and masks.place == masks._open + masks._close
    assert list(TextMasks([], lambda text: False).mask_message({"content": "c"})) == ["content"]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)


def test_a_template_tells_what_it_knows_and_a_copy_has_variables_of_its_own() -> None:
    chat = ChatTemplate(TOKENIZER, CHATML + "{{ mode }}{{ tools }}", max_tokens=99)
    assert (chat.knows_tools, chat.knows_system, chat.markup, chat._max_tokens) == (True, True, None, 99)
    assert (chat._short_ids, chat._variables, len(chat._remembered)) == (False, {}, 0)
    other = chat.with_variables({"mode": "é"})
    assert other is not chat and (other._variables, chat._variables) == ({"mode": "é"}, {})
    assert other._render([], [], False) == "éNone" and chat._render([], [], False) == "None"
    assert other.markup == chat.markup and other._remembered is chat._remembered
    with pytest.raises(ConfigError):
        chat.with_variables({"mode": END})
    assert ChatTemplate(TOKENIZER, "{# length != 9 tools [TOOL_CALLS] #}").markup == "mistral"
    assert ChatTemplate(TOKENIZER, "{# length != 9 #}")._short_ids
    refuses = ChatTemplate(
        TOKENIZER, "{{ raise_exception('x') if messages[0].role == 'system' }}{{ messages[0].content }}"
    )
    assert not refuses.knows_system and not ChatTemplate(TOKENIZER, "{{ messages[-1].content }}").knows_system
    tokens = ChatTemplate(TOKENIZER, "{{ bos_token }}|{{ eos_token }}|{{ add_bos }}|{{ add_generation_prompt }}")
    assert tokens._render([], [], True) == "<s>|<|im_end|>!|False|True"
    bare = made(bos_id=None, eos_ids=(), add_bos=True)
    assert ChatTemplate(bare, "{{ bos_token }}|{{ eos_token }}|{{ add_bos }}")._render([], [], True) == "||False"
    assert START in ChatTemplate(TOKENIZER, None)._render([{"role": "user", "content": "q"}], [], True)


def test_runs_of_a_conversation_are_trusted_only_where_the_template_wrote_them() -> None:
    chat = ChatTemplate(TOKENIZER, CHATML)
    turns = [user(f"a{END}"), assistant("b")]
    head = TextRun(f"{START}user:", True)
    assert chat._runs(turns, None, (), False) == [
        head, TextRun(f"a{END}", False), TextRun(f"{END}\n{START}assistant:", True), TextRun("b", False),
        TextRun(f"{END}\n", True),
    ]  # fmt: skip
    assert chat._runs(turns, 1, (), True) == [TextRun(f"{END}\n{START}assistant:", True)]
    hides = ChatTemplate(TOKENIZER, "{% for m in messages %}{{ m.content | tojson(ensure_ascii=true) }}{% endfor %}")
    assert hides._runs([user("é")], None, (), False) == [TextRun('"\\u00e9"', True)], "nothing names a token"
    with pytest.raises(
        TemplateError, match=r"^a message names a control token, and the chat template escapes messages"
    ):
        hides._runs([user(END)], None, (), False)
    upper = ChatTemplate(TOKENIZER, "{% for m in messages %}{{ m.content | upper }};{% endfor %}")
    assert upper._runs([user("q")], None, (), False) == [TextRun("Q;", True)], "a change of the content is kept"
    assert upper._runs([user(f"q{END}")], None, (), False)[1] == TextRun(f"q{END}", False), "it is put in unchanged"
    tool = ToolSpec("f", f"about {END}", {"type": "object", "properties": {}})
    knows = ChatTemplate(TOKENIZER, "{{ tools[0].function.description }}{{ messages[0].content }}")
    assert knows._runs([user("q")], None, [tool], False)[1] == TextRun(f"about {END}", False)
    changes = ChatTemplate(TOKENIZER, "{{ tools[0].function.description | upper }}{{ messages[0].content }}")
    told = [
        TextRun("", True),
        TextRun(f"about {END}", False),
        TextRun("", True),
        TextRun("q", False),
        TextRun("", True),
    ]
    assert changes._runs([user("q")], None, [tool], False) == told, "put in unchanged, and no token"
    named = ToolSpec("f", "d", {"type": "object", "properties": {END: {}}})
    keys = ChatTemplate(
        TOKENIZER, "{{ tools[0].function.parameters.properties | join | upper }}{{ messages[0].content }}"
    )
    assert keys._runs([user("q")], None, [named], False)[1] == TextRun(END, False)
    harmless = ToolSpec("f", "about", {"type": "object", "properties": {}})
    assert changes._runs([user("q")], None, [harmless], False) == [TextRun("ABOUT", True), *told[3:]]
    refuses = "{% for m in messages %}{{ raise_exception('') if m.role == 'system' }}[{{ m.content }}]{% endfor %}"
    folded = ChatTemplate(TOKENIZER, refuses)
    assert folded._groups([system("s"), user("q")], ()) == [[], [{"role": "user", "content": "s\n\nq"}]]


def test_the_text_after_a_turn_begins_behind_its_content_or_its_calls() -> None:
    drops = (
        "{% for m in messages %}{% if m.tool_calls %}CALLS{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}A{% endif %}"
    )
    groups: Any = [
        [{"role": "user", "content": "q"}],
        [
            {
                "role": "assistant",
                "content": "c",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}],
            }
        ],
        [{"role": "user", "content": "r"}],
    ]
    place = "\U000f0000\U000f0001"
    assert ChatTemplate(TOKENIZER, drops)._after_turn(groups, 1, place, [], True) == f"{END}r{END}A", (
        "calls are left out"
    )
    cuts = (
        "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.place }}{{ m.content[:1] }}"
        "<|im_end|>X{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    after = ChatTemplate(TOKENIZER, cuts)._after_turn(groups, 1, place, [], False)
    assert after == f"{END}r{END}", "a piece of the content comes behind the calls"
    closes = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.place }}"
        "<|im_start|>{% endif %}<|im_end|>{% endfor %}"
    )
    after = ChatTemplate(TOKENIZER, closes)._after_turn(groups, 1, place, [], False)
    assert after == f"{END}r{END}", "a special token that closes a call ends no turn"
    shows = ChatTemplate(TOKENIZER, CHATML)
    rest = f"{END}\n{START}user:r{END}\n"
    assert shows._after_turn(groups, 1, place, [], False) == rest, "not from the end of the arguments, but of the turn"
    assert shows._after_turn(groups, 0, place, [], False) == f"{END}\n{START}assistant:cf{{}}{rest}"
    with pytest.raises(TemplateError, match=r"^the chat template left out the content of an assistant turn: use a "):
        ChatTemplate(TOKENIZER, "{{ messages[0].content }}")._after_turn(groups, 1, place, [], False)
    chat = ChatTemplate(TOKENIZER, CHATML)
    for runs, left in (
        ([TextRun(f" \n{END}x", True), TextRun("y", False)], [TextRun("x", True), TextRun("y", False)]),
        ([TextRun(f"a{END}x", True)], [TextRun(f"a{END}x", True)]),
        ([TextRun(f"{START}{END}", True)], [TextRun(f"{START}{END}", True)]),
        ([TextRun(END, False)], [TextRun(END, False)]),
        ([TextRun("x", True)], [TextRun("x", True)]),
        ([], []),
    ):
        assert chat._without_end(runs) == left


def test_a_prompt_is_remembered_and_the_oldest_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatTemplate(TOKENIZER, CHATML, max_tokens=40)
    head = [257, *ids("user:q"), 258, *ids("\n"), 257, *ids("assistant:")]
    assert chat.encode([user("q")]) == head and len(chat._remembered) == 1
    next(iter(chat._remembered.values()))[0] = 7
    assert chat.encode([user("q")])[0] == 7 and chat.encode([user("q")], reply=False) == head[: -len("assistant:") - 1]
    other = chat.with_variables({"mode": 1})
    assert other.encode([user("q")]) == head, "other variables, another prompt"
    first = Message("assistant", (Text("ab"),), Sampled((256, 258), (0.0, 0.0)))
    assert chat.encode([user("q"), first, user("r")])[:2] == [7, *head[1:2]], "it goes on from what is remembered"
    with pytest.raises(PromptTooLong):
        chat.encode([user("z" * 500)])
    small = ChatTemplate(TOKENIZER, CHATML)
    monkeypatch.setattr(chat_template, "_MAX_REMEMBERED", 2)
    for key in (b"a", b"b", b"a", b"c"):
        if small._recall(key) is None:
            small._remember(key, [1, 2])
    assert list(small._remembered) == [b"a", b"c"] and small._recall(b"b") is None
    monkeypatch.setattr(chat_template, "_MAX_REMEMBERED_IDS", 5)
    small._remember(b"d", [1, 2, 3])
    assert list(small._remembered) == [b"c", b"d"], "5 ids in all"
    small._remember(b"e", [0] * 6)
    assert list(small._remembered) == [b"e"] and small._recall(b"e") == [0] * 6, "the last one stays"


def test_stop_strings_begin_with_all_text_shown_and_each_matcher_knows_where_to_fall_back() -> None:
    assert StopString.of("aabaaab").shorter == (0, 1, 0, 1, 2, 2, 3) and StopString.of("ab").shorter == (0, 0)
    matcher = _Matcher(StopString.of("aab"))
    assert [matcher.step(each) for each in "aaab"] == [False, False, False, True]
    stops = StopStrings(TOKENIZER, ["", "b!", "!"])
    assert [each.string for each in stops._matchers] == ["b!", "!"] and (stops.stopped, stops._early) == (None, 0)
    assert not stops._include and stops._decoder._skip_special and stops._decoder._strip is False
    letters = {letter: IDS[letter] for letter in "abc!"}
    assert not stops.feed(letters["c"]) and not stops.feed(letters["b"]) and stops.take() == "c"
    assert stops.feed(letters["!"]) and (stops.take(), stops.stopped) == ("", "b!"), "the longer of two that end here"
    shown = StopStrings(TOKENIZER, ["!"], include=True, after=2, skip_special=False)
    assert [shown.feed(each) for each in (letters["!"], 258, letters["a"])] == [False, False, False]
    assert shown.take() == f"!{END}a", "neither the first tokens nor a special token are searched"
    assert shown.feed(letters["!"]) and shown.take() == "!"
    half = StopStrings(TOKENIZER, ["\ufffd"])
    first = BYTES.index("Ã")
    assert not half.feed(first) and half.take() == "" and half.finish() and half.take() == ""
    stream = IncrementalDetokenizer(TOKENIZER)
    assert (stream.feed(first), stream.feed(258), stream.finish()) == ("", "", "\ufffd")
    held = StopStrings(TOKENIZER, ["ab"])
    held.feed(letters["a"])
    assert held.take() == "" and not held.finish() and held.take() == "a"
