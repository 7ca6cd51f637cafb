"""A chat template can render what real templates render, and can neither get out nor use up the machine."""

# ruff: noqa: E501  (templates are written as models ship them)

from __future__ import annotations

import time
import tracemalloc
from datetime import datetime
from typing import Any

import pytest

from firsthand.errors import TemplateError
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate

MESSAGES = [{"role": "user", "content": " hello "}, {"role": "assistant", "content": "yo <|yo|>"}]


def render(source: str, **variables: Any) -> str:
    return SandboxedTemplate(source).render({"messages": MESSAGES} | variables)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{% for m in messages %}{{ m.role ~ ':' ~ m['content'] | trim }}{{ ',' if not loop.last }}{% endfor %}",
            "user:hello,assistant:yo <|yo|>",
        ),
        (
            "{% set ns = namespace(x=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
            "3",
        ),
        ("{% macro f(a, b='q') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(2, b=3) }}", "<1q><23>"),
        (
            "{{ {'a': [1, (2, 'é<')]} | tojson }}{{ {'a': 1} | tojson(indent=2) }}",
            '{"a": [1, [2, "é<"]]}{\n  "a": 1\n}',
        ),
        ("{{ messages[1:] | length }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "11"),
        ("{{ messages | map(attribute='role') | join('-') }}{{ messages[::-1][0].role }}", "user-assistantassistant"),
        ("{{ 'a {} {b}'.format(3, b=4) }}{{ '%s!' % 'hi' }}{{ '%s' | format('z') }}{{ 'x' | safe }}", "a 3 4hi!zx"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}{{ {'a': 1}.get('b', 'none') }}", "a=1none"),
        (
            "{{ messages[0].content.split('l')[-1].strip() }}{{ 'x' in 'xy' }}{{ 'abc'[1:] }}{{ 'a\nb' | indent(2) }}",
            "oTruebca\n  b",
        ),
        (
            "{% generation %}g{% endgeneration %}{{ tools is defined }}{{ missing is none }}{{ 7 // 2 }}{{ 2 ** 3 }}",
            "gFalseFalse38",
        ),
        (
            "{% set x %}abc{% endset %}{{ x | upper }}{% filter lower %}ABC{% endfilter %}{{ [3, 1] | sort | first }}{{ [1, 2] | sum }}",
            "ABCabc13",
        ),
        (
            "{% for m in messages %}{% if loop.index0 == messages | length - 1 %}{{ m.role }}{% endif %}{% endfor %}",
            "assistant",
        ),
        ("{% for t in [[1, [2]], 3] recursive %}{{ loop(t) if t is sequence else t }}{% endfor %}", "123"),
        ("  {% if true %}\n  a\n  {% endif %}\n", "  a\n"),
    ],
)
def test_what_real_templates_use_works(source: str, expected: str) -> None:
    assert render(source) == expected


def test_the_clock_is_the_one_passed_in() -> None:
    source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}none{% endif %}"
    assert render(source) == "none"
    assert SandboxedTemplate(source, now=datetime(2024, 7, 26)).render({}) == "26 Jul 2024"
    with pytest.raises(TemplateError):
        SandboxedTemplate("{{ strftime_now('%1000000000d') }}", now=datetime(2024, 7, 26)).render({})


def test_a_templates_refusal_is_passed_on_in_its_own_words() -> None:
    with pytest.raises(TemplateError, match="System role not supported"):
        render("{{ raise_exception('System role not supported') }}")


DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = NEXT %}{% endfor %}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(500000) %}{% for j in range(500000) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 9 ** 999999 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ lipsum(100000) }}",
        "{{ ('{}' * 1000000).format('a') }}",
        "{{ (('{0}' * 10000)).format('a' * 1000000) }}",
        "{{ (1).to_bytes(1000000000, 'big') }}",
        DOUBLING.replace("START", "'ab'").replace("NEXT", "ns.x + ns.x"),
        DOUBLING.replace("START", "'ab'").replace("NEXT", "ns.x ~ ns.x"),
        DOUBLING.replace("START", "'ab'").replace("NEXT", "[ns.x, ns.x] | join"),
        DOUBLING.replace("START", "[1]").replace("NEXT", "ns.x + ns.x"),
        DOUBLING.replace("START", "[1]").replace("NEXT", "[ns.x, ns.x]") + "{{ ns.x }}",
        DOUBLING.replace("START", "(1,)").replace("NEXT", "(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
        DOUBLING.replace("START", "1").replace("NEXT", "namespace(a=ns.x, b=ns.x)") + "{{ ns.x }}",
        DOUBLING.replace("START", "1").replace("NEXT", "dict(a=ns.x, b=ns.x)") + "{{ ns.x | tojson }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{{ ('a\n' * 100000) | indent('b' * 100000) }}",
        "{{ 1 | round(1000000000, 'ceil') }}",
        "{{ [1] | batch(1000000000, 2) | list }}",
        "{{ 'a'.ljust(100000000) }}",
        "{{ ('\\t' * 1000).expandtabs(10000000) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}",
        "{{ ('b' * 1000000).join(['a'] * 1000) }}",
        "{% for i in range(500000) %}{{ 'a' * 8000000 }}{% endfor %}",
        "{% for i in range(500000) %}{{ ('a' * 7000000) | upper | length }}{% endfor %}",
        "{% for i in range(500000) %}{% if ('a' * 700000 + 'b') in ('a' * 1500000) %}{% endif %}{% endfor %}",
        "{% for i in range(500000) %}{{ range(500000) | list | length }}{% endfor %}",
        "{{ messages | map('tojson', indent='a' * 1000000) | list }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ a" + ".b" * 50000 + " }}",
        "{{ 1" + "+1" * 50000 + " }}",
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "x" * 300_000,
        "{% if %}",
        "{{ 'a' | nothing }}",
    ],
)
def test_a_greedy_template_ends_soon_in_a_template_error(source: str) -> None:
    start = time.process_time()
    with pytest.raises(TemplateError):
        render(source)
    assert time.process_time() - start < 8.0


def test_a_text_that_is_too_long_is_refused_before_it_is_joined() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            render("{{ (['a'] * 50) | join('b' * 1000000) | length }}")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ namespace.__init__.__globals__['x'] }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{0[x]}'.format({}) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ messages | attr('append') }}",
        "{{ loop.__class__() }}",
        "{% include '/etc/passwd' %}",
        "{% extends '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ range.__self__.exit() }}",
        "{% macro m() %}{% endmacro %}{{ m.__globals__['x'] }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ environment.tick() }}",
        "{{ messages | map(attribute='__class__.__mro__') | list | first | first }}",
        "{{ 'x'.__format__('1000000000') }}",
        "{{ strftime_now('%Y') }}",
    ],
)
def test_there_is_no_way_out(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source)
    assert len(MESSAGES) == 2


@pytest.mark.slow
def test_a_template_that_went_too_far_works_for_the_next_conversation() -> None:
    template = SandboxedTemplate("{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}{{ n }}")
    with pytest.raises(TemplateError, match="steps"):
        template.render({"n": 5000})
    assert template.render({"n": 3}) == "3"


def test_a_long_conversation_stays_within_the_bounds() -> None:
    messages = [{"role": "user", "content": "word " * 200}] * 5000
    source = "{% for m in messages %}{% if m.role == 'user' and not (messages | length == loop.index) %}{{ m.content | trim }}{% endif %}{% endfor %}"
    assert len(SandboxedTemplate(source).render({"messages": messages})) == 4999 * 999
