"""Values of a chat template are weighed wherever they are handed on, a step for each 64 of them; one rendering at a time."""

from __future__ import annotations

import threading

import pytest

from counted_templates import environment, steps_of
from firsthand.errors import TemplateError
from firsthand.tokens.templates import render_budget
from firsthand.tokens.templates.render_budget import MAX_STEPS
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate

LONG = [0] * 64
"""129 values: itself, its size, and each of its own."""


def test_what_calls_filters_and_operators_are_given_and_give_is_weighed() -> None:
    counted = {
        "{{ v.k is none }}": 0,
        "{{ dict(a=v.k) is none }}": 1 + 2 + 2,  # the call, what it is given, and what it gives
        "{{ dict([('a', v.k)]) is none }}": 2 + 2 + 1 + 2 + 1 + 2,  # a tuple and a list before, and a pair
        "{{ namespace(a=v.k) is none }}": 1 + 2 + 2,
        "{{ (v.k + [1]) is none }}": 1 + 2,
        "{{ ([v.k] + []) is none }}": 2 + 1 + 2,
        "{{ [3] | sort(case_sensitive=v.k) is none }}": 1 + 2 + 1,
        "{{ [3] | sort(false, v.k) is none }}": 1 + 2 + 1,
        "{{ v.k | length }}": 1,
        "{{ v.k | reverse is none }}": 1 + 2,
        "{{ v.k.count(1) }}{{ (v.k, 1)[0].index(0) }}": 2 * (1 + 1 + 2) + 2,
        "{{ v.get('k') is none }}{{ v.get(1, v.k) is none }}": (1 + 2) + (1 + 2 + 2),
        "{{ 'x'.join(v.k) is none }}": 1 + 2 + 64,
    }
    assert {source: steps_of(source, v={"k": LONG})[1] for source in counted} == counted
    assert steps_of("{{ dict(a=v) is none }}{{ [v] is none }}", v=LONG) == ("FalseFalse", 1), (
        "what was given is one value"
    )
    made = environment()
    assert made._tojson([LONG], separators=(",", ":")) == f"[[{','.join('0' * 64)}]]"
    assert MAX_STEPS - made._budget._steps == 2


def test_a_single_call_touches_as_much_as_it_may_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def rendered(source: str) -> str:
        return SandboxedTemplate(source).render({})

    monkeypatch.setattr(render_budget, "MAX_WORK", 12)
    assert rendered("{{ 'xabx' | trim(chars='xyz') }}{{ 'abcdefgh'.replace('abcd', 'x') }}") == "abxefgh"
    assert rendered("{{ 'abcdefgh' | replace('efgh', '', 1) }}{{ 'abcdef'.strip('fa') }}") == "abcdbcde"
    for source, amount in (
        ("{{ 'xabxy' | trim(chars='xyz') }}", 15), ("{{ 'abcdefgh'.replace('abcde', 'x') }}", 13),
        ("{{ 'abcdefghi' | replace('efgh', '') }}", 13), ("{{ 'abcdefg'.strip('fa') }}", 14),
        ("{{ 'abcdefghijkl'.find('a') }}", 13), ("{{ 'abcdef'.rfind('abc') }}{{ 'abcdefg'.rfind('abc') }}", 3 * 5),
    ):  # fmt: skip
        with pytest.raises(
            TemplateError, match=rf"^the chat template compares or searches {amount} characters in one call$"
        ):
            rendered(source)
    made = environment()
    with pytest.raises(TemplateError, match=r"^the chat template makes a number of 4097 bits$"):
        made._sum([1], start=1 << 4096)
    assert made._sum([], start=-(1 << 4095)) == -(1 << 4095)
    assert made._indent("a\nb", 300) == f"a\n{' ' * 256}b" and made._indent("a\nb", 0) == "a\nb"


def test_blocks_leave_no_blanks_and_one_rendering_follows_another() -> None:
    source = "a\n  {% if true %}\n  x\n  {% generation %}\ny{{ z }}\n{% endgeneration %}\n{% endif %}\nb\n"
    assert SandboxedTemplate(source).render({"z": 1}) == "a\n  x\ny1\nb"
    template, order = SandboxedTemplate("{{ v }}"), list[str]()
    begun, second = threading.Event(), threading.Event()

    class First:
        def __str__(self) -> str:
            order.append("begins")
            begun.set()
            second.wait(0.05)
            order.append("ends")
            return "first"

    class Second:
        def __str__(self) -> str:
            order.append("second")
            second.set()
            return "second"

    found: list[str] = []
    threads = [
        threading.Thread(target=lambda v=v: found.append(template.render({"v": v}))) for v in (First(), Second())
    ]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert order == ["begins", "ends", "second"] and found == ["first", "second"]


def test_macros_and_a_loops_own_calls_are_steps_and_weigh_what_they_are_given_by_any_name() -> None:
    counted = {
        "{% macro m(n) %}{% if n %}{{ k(n - 1) }}{% endif %}{% endmacro %}"
        "{% macro k(n) %}{{ m(n) }}{% endmacro %}{{ m(3) }}": ("", 7 * 2 + 3),  # a step for each call, body and minus
        "{% macro m(a) %}{% endmacro %}{{ m(v.k) }}": ("", 2 + 2),
        "{% macro m(a) %}{% endmacro %}{{ m(a=v.k) }}": ("", 2 + 2),
        "{% macro m(a, b) %}{% endmacro %}{{ m(v.k, b=v.k) }}": ("", 2 + 4),
        "{% macro m() %}{{ caller(v.k) }}{% endmacro %}{% call(x) m() %}{{ x is none }}{% endcall %}": ("False", 4 + 2),
        "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}": ("TrueFalseTrue", 6),
        "{% for x in [1, 1, 2] %}{{ loop.cycle('a', 'b') }}{% endfor %}": ("aba", 6),
        "{% for x in [1] %}{{ loop.changed(v.k) }}{% endfor %}": ("True", 2 + 2),
        "{% for x in [1] %}{{ loop.cycle(v.k) is none }}{% endfor %}": ("False", 2 + 2 + 2),
        "{% for x in [1, [2]] recursive %}{{ loop(x) if x is sequence else x }}{% endfor %}": ("12", 3 + 1),
        "{% block b %}x{% endblock %}{{ self.b() }}": ("xx", 1),
    }  # fmt: skip
    assert {source: steps_of(source, v={"k": LONG}) for source in counted} == counted
    with pytest.raises(TemplateError, match=r"^the chat template calls 'iter', which is not allowed$"):
        steps_of("{{ v(1) }}", v=iter)
