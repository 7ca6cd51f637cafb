"""No method, filter, test or operator that a chat template can reach is long in one call, or makes what memory cannot hold."""

# ruff: noqa: E501  (templates are written on one line)

from __future__ import annotations

import re
import threading
import time
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise, product

import pytest

from firsthand.errors import TemplateError
from firsthand.tokens.templates import template_sandbox
from firsthand.tokens.templates.meters import MAX_NODES
from firsthand.tokens.templates.render_budget import TIME_S, RenderBudget
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from thorough import part

CPU_S = 4.0
"""Less than a rendering may take in all; a call that is not priced takes minutes."""
VALUES = {
    "long": "'a' * 2**20",
    "ending": "'ab' ~ 'a' * 2**19",
    "other": "'a' * 2**19 ~ 'c'",
    "wide": "'āb' * 2**18",
    "words": "'ab ' * 2**18",
    "lines": "'a\\n' * 2**19",
    "braces": "'{}' * 2**19",
    "percents": "'%s' * 2**19",
    "digits": "'f' * 2**20",
    "letters": "'abcdefgh' * 2**16",
    "many": "['a' * 2**16] * 1000",
    "twin": "['a' * 2**16] * 1000",
    "colliding": "range(0, (2**61 - 1) * 2**18, 2**61 - 1)",
    "pair": "(long, ending)",
    "entries": "{'a': long, 'b': ending}",
    "given": "messages * 2**6",
    "numbers": "range(2**18) | list",
}
"""Values as large as a template may make them, by name."""
MESSAGES = [{"role": "user", "content": "x" * 2**16}] * 8
ENVIRONMENT = SandboxedTemplate("")._environment
STRING_METHODS = template_sandbox._METHODS[str]


STEPWISE = template_sandbox._LAZY | template_sandbox._SORTING | {"format", "join", "sum"}
"""Filters and methods that take a step for each value, so that the largest inputs take seconds."""


def with_values(source: str) -> str:
    """A source after the values that it names."""
    used = set(re.findall(r"\w+", source))
    used |= {"long", "ending"} if {"pair", "entries"} & used else set()
    return "".join("{% set " + name + " = " + value + " %}" for name, value in VALUES.items() if name in used) + source


def slow(expressions: Iterable[str], limit_s: float = CPU_S) -> list[tuple[str, float]]:
    """The expressions that take longer than that, each with its seconds of processor time."""
    found = []
    for expression in expressions:
        template = SandboxedTemplate(with_values("{{ (" + expression + ") is none }}"))
        start = time.thread_time()
        with suppress(TemplateError):
            template.render({"messages": MESSAGES})
        if (took := time.thread_time() - start) > limit_s:
            found.append((expression, took))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] * (name in STEPWISE)) for name in sorted(STRING_METHODS)]
)
def test_every_method_of_a_string_is_bounded_in_one_call(method: str) -> None:
    arguments = (
        "",
        "ending",
        "other",
        "letters",
        "wide",
        "(ending,) * 100",
        "many",
        "'a', 2**20",
        "'', long",
        "'a', 1",
    )
    subjects = ("words", "braces") if method in ("split", "rsplit", "format") else ("long", "lines")
    assert slow(f"{subject}.{method}({args})" for subject, args in part(list(product(subjects, arguments)), 7)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "subjects"),
    [
        (list, ("many", "given", "numbers")),
        (tuple, ("pair", "(long,) * 60")),
        (dict, ("entries", "messages[0]")),
    ],
)
def test_every_method_of_a_container_is_bounded_in_one_call(kind: type, subjects: tuple[str, ...]) -> None:
    arguments = ("", "'a' * 2**20", "'a' * 2**15 ~ 'c' * 2**15", "messages[0]", "twin")
    calls = product(subjects, sorted(template_sandbox._METHODS[kind]), arguments)
    assert slow(f"({subject}).{method}({args})" for subject, method, args in calls) == []


OPTIONS = {
    "map": ("'string'", "attribute='0.0.0'", "attribute='0.' * 2**20", "'lower'"),
    "select": ("'in', many", "'lower'", "'eq', other"),
    "reject": ("'in', numbers", "'upper'"),
    "selectattr": ("'content', 'in', many", "'0.' * 2**20"),
    "rejectattr": ("'content', 'eq', other",),
    "groupby": ("'content'", "'real'", "'0.' * 2**20"),
    "sort": ("attribute='content'", "attribute='a,' * 2**20", "case_sensitive=true"),
    "unique": ("attribute='content'", "true"),
    "trim": ("letters", "ending", "'a'"),
    "replace": ("'a', long", "'', ending", "ending, other"),
    "int": ("0, 16", "0, 32"),
    "tojson": ("indent=16", "ensure_ascii=true", "sort_keys=true"),
    "indent": ("ending", "256, true, true"),
    "join": ("long", "'', 'content'"),
    "format": ("long", "many"),
    "round": ("15",),
    "dictsort": ("by='value'",),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in STEPWISE)) for name in sorted(ENVIRONMENT.filters)],
)
def test_every_filter_is_bounded_in_one_call(name: str) -> None:
    drained = " | list | length" if name in template_sandbox._LAZY else ""
    calls = product([name for name in VALUES if name not in ("other", "twin")], ("", *OPTIONS.get(name, ())))
    limit_s = (
        TIME_S + CPU_S if name in STEPWISE else CPU_S
    )  # many steps end with the time limit, one call ends before it
    calls = part(list(calls), 11 if name in STEPWISE else 7)
    assert slow((f"{subject} | {name}({args}){drained}" for subject, args in calls), limit_s) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ENVIRONMENT.tests))
def test_every_test_is_bounded_in_one_call(name: str) -> None:
    pairs = [
        ("other", "other ~ ''"), ("many", "twin"), ("long", "many"), ("ending", "long"), ("'%1000000000d'", "1"),
        ("digits | int(0, 16)", "2"), ("numbers", "range(2**18) | list"), ("given", "given[:]"),
    ]  # fmt: skip
    calls = [f"[{left}] | select('{name}', {right}) | list" for left, right in pairs]
    calls += [f"[{left}] | select('{name}') | list" for left, _ in pairs]
    assert slow(calls) == []


@pytest.mark.parametrize(
    "expression",
    [
        "many == twin", "twin in [many]", "many < twin", "ending in long", "(ending, 1) in [(ending ~ '', 2)] * 100",
        "other in many", "given == given[:]", "many ~ ''", "[many] | string", "many + many", "many * 2**8",
        "entries ~ ''", "[long] * 2**17",
        "(digits | int(0, 16)) % (digits[1:] | int(0, 16))", "(digits | int(0, 32)) * 3",
        "dict(colliding | groupby('real'))",  
        "'%1000000000d' is even", "{'a': many}.items() ~ ''", "messages * 2**14 | tojson", "raise_exception(many)",
 "long.startswith((ending,) * 2**17)", "long.rsplit(sep=ending)",
    ],
)  # fmt: skip
def test_every_operator_is_bounded_in_one_call(expression: str) -> None:
    assert slow([expression]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "expression",
    [
        "namespace(colliding | groupby('real'))",
        "colliding | unique | list",
        "range(2**19) | select('in', numbers) | list",
    ],
)
def test_what_takes_many_steps_ends_with_the_time_limit(expression: str) -> None:
    assert [each for each, took in slow([expression]) if took > TIME_S + CPU_S] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "{% set x = long[1:] %}" * 1000,
        "{% for i in range(500000) if ending in long %}{% endfor %}" * 50,
        "{% for i in range(500000) if i < 0 %}{% endfor %}" * 1000,
        "{% for i in range(500000) %}{% set x = long[:-1] %}{% endfor %}",
        "{% for i in range(500000) if long.rfind(ending) %}{% endfor %}",
        "{% for i in range(500000) %}{% for x in [many, twin] %}{{ loop.changed(x) }}{% endfor %}{% endfor %}",
    ],
)
def test_repeating_a_bounded_call_ends_with_the_budget(body: str) -> None:
    template = SandboxedTemplate(with_values(body))
    start = time.thread_time()
    with pytest.raises(TemplateError):
        template.render({"messages": MESSAGES})
    assert time.thread_time() - start < TIME_S + CPU_S


def test_other_threads_run_while_a_template_searches() -> None:
    beats = [time.monotonic()]
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.01):
            beats.append(time.monotonic())

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(TemplateError, match="in one call"):
            SandboxedTemplate("{% set s = 'a' * 2**22 %}{{ s.rfind('ab' ~ 'a' * 2**21) }}").render({})
    finally:
        done.set()
        heart.join()
    assert max((after - before for before, after in pairwise([*beats, time.monotonic()]))) < 5.0


def test_a_search_from_the_end_gives_pythons_own_result() -> None:
    text = "one </think> two " * 2000
    source = "{{ s.rfind('</think>') }},{{ s.rsplit('</think>', 1)[1] }},{{ s.rpartition('two')[0] | length }},{{ s.rsplit(maxsplit=2)[2] }}"
    expected = f"{text.rfind('</think>')},{text.rsplit('</think>', 1)[1]},{len(text.rpartition('two')[0])},two"
    assert SandboxedTemplate(source).render({"s": text}) == expected
    source = "{{ s.strip('\n eno') }}|{{ s | trim }}|{{ s.split(sep=' ', maxsplit=1)[0] }}|{{ s[::-1][:3] }}|{{ s.split()[1] }}"
    assert SandboxedTemplate(source).render({"s": " one two one "}) == "tw|one two one|| en|two"


def test_a_split_is_bounded_in_its_pieces() -> None:
    for call in ("split(' ')", "rsplit(' ')", "split()", "splitlines()"):
        with pytest.raises(TemplateError, match="pieces"):
            SandboxedTemplate("{{ s." + call + " | length }}").render({"s": "a\n " * 2**19})
    assert SandboxedTemplate("{{ s.split(' ', 3) | length }}").render({"s": "a " * 2**19}) == "4"


@pytest.mark.parametrize(
    "use",
    [
        "{{ x }}", "{{ x ~ '' }}", "{{ x | tojson }}", "{{ x | join }}", "{{ x | string }}", "{{ '%s' % [x] }}",
        "{{ x | upper }}", "{{ '{}'.format(x) }}", "{{ raise_exception(x) }}", "{{ x | sort }}", "{{ x | replace('b', '') }}",
        "{{ x | indent }}", "{{ x is lower }}", "{{ x | trim }}",
    ],
)  # fmt: skip
def test_the_text_of_a_list_is_charged_before_it_is_made(use: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match="more than"):
            SandboxedTemplate("{% set x = ['a' * 2**18] * 200 %}" + use).render({})
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_template_with_too_many_expressions_is_not_compiled() -> None:
    with pytest.raises(TemplateError, match="expressions"):
        SandboxedTemplate("{{ a }}" * MAX_NODES)


def test_a_search_from_the_end_is_priced_by_length_times_pattern() -> None:
    budget = RenderBudget()
    for name in ("rfind", "rindex", "rsplit", "rpartition", "strip", "lstrip", "rstrip"):
        budget.before_method("a" * 2**20, name, ("b" * 16, -1))
        with pytest.raises(TemplateError, match="one call"):
            budget.before_method("a" * 2**20, name, ("b" * 2**12, -1))
    budget.before_method("a" * 2**20, "find", ("b" * 2**19,))  # CPython's search from the start is linear


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ ['b', 'A', 'c'] | sort | join }}{{ ['b', 'A', 'b'] | unique | join }}", "AbcbA"),
        ("{{ [] | map | list }}{{ none_here | map('upper') | list }}{{ {'a': 1} | list }}", "[][]['a']"),
        ("{{ [3, 1] | min }}{{ [3, 1] | max }}{{ {'b': 1, 'a': 2} | dictsort }}", "13[('a', 2), ('b', 1)]"),
        ("{{ 'ab' | list }}{{ 'xaxx' | trim('x') }}{{ 'an apple' | title }}{{ 5 | upper }}", "['a', 'b']aAn Apple5"),
        ("{{ dict([('a', 1)], b=2) }}{{ dict(a=1).a }}{{ namespace(x=2).x }}", "{'a': 1, 'b': 2}12"),
        ("{{ [1, 2, 3] | select('odd') | list }}{{ 4 is divisibleby(2) }}{{ 'A' is upper }}", "[1, 3]TrueTrue"),
        ("{% for x in [1, 2, 3] if x > 1 %}{{ loop.index }}{{ x }}{{ loop.length }};{% endfor %}", "122;232;"),
        ("{{ 'abc'[::-1] }}{{ 'abc'[-2:] }}{{ (1, 2, 3)[1:] }}{{ range(9)[2:4] | list }}", "cbabc(2, 3)[2, 3]"),
        ("{{ {'a': [1]} | tojson(indent=1) }}{{ 'ff' | int(0, 16) }}{{ no | upper }}", '{\n "a": [\n  1\n ]\n}255'),
        ("{% for k, g in messages | groupby('role') %}{{ k }}{{ g | length }}{% endfor %}", "user8"),
    ],
)
def test_priced_calls_give_what_jinja_gives(source: str, expected: str) -> None:
    assert SandboxedTemplate(source).render({"messages": MESSAGES}) == expected


@pytest.mark.slow
def test_a_range_of_wide_numbers_is_refused_and_lists_are_charged_for_each_number() -> None:
    wide = "{% set b = 2**62 + (2**62 - 1) %}{{ range(b, BOUND)|list|length }}"
    assert SandboxedTemplate(wide.replace("BOUND", "b")).render({}) == "0"
    for bounds in ("b, b + 1", "-b - 1, -b", "0, 1, b + 1"):
        with pytest.raises(
            TemplateError, match=r"^the chat template asks for a range of numbers of more than 63 bits$"
        ):
            SandboxedTemplate(wide.replace("b, BOUND", bounds)).render({})
    lists = "{% set n = 10**18 %}" + "{% for _ in COUNT %}{% set a = range(n, n + 1000)|list %}{% endfor %}ok"
    assert SandboxedTemplate(lists.replace("COUNT", "range(4096)")).render({}) == "ok"
    with pytest.raises(TemplateError, match="more than 67108864 characters and items in all"):
        SandboxedTemplate(lists.replace("COUNT", "range(4300)")).render({})


@pytest.mark.slow
def test_a_long_conversation_is_listed_sorted_and_cut() -> None:
    """What templates do with their messages: `list`, `selectattr`, `reverse`, a slice."""
    messages = [{"role": "user", "content": str(index)} for index in range(20_000)]
    source = """{%- set found = messages|selectattr("role", "equalto", "user")|list -%}{{ (messages[1:]|list)|length }}
    {{- found|reverse|list|length }}{{ range(messages|length)|list|last }}"""
    assert SandboxedTemplate(source).render({"messages": messages}) == "199992000019999"
