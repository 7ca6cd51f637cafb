"""Plans are carried out as Python does: what is not reached is not done, and values keep their type and digits."""

import asyncio

import pytest

from firsthand import Agent, Task
from firsthand.patterns.plan_mode import plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.plans.labelled import Labelled
from firsthand.safety.plans.plan_interpreter import PlanRun
from firsthand.safety.plans.plan_number import StatedNumber, as_number, decoded
from firsthand.safety.plans.plan_program import PlanError, parse_plan
from firsthand.safety.rules.labels import USER, Label
from firsthand.tool import tool

BAD = Label("untrusted", frozenset(), frozenset({"t"}))


def carried_out(text, results=None, **options):
    """The value of the plan's answer, and the calls that it made with their labels."""
    made, given = [], {"pay": Labelled(True), **(results or {})}

    async def call(name, arguments, labels):
        made.append((name, labels[""]))
        return given[name]

    async def read(*asked):
        raise AssertionError

    found = asyncio.run(PlanRun(call, read, **options).run(parse_plan(text, list(given))))
    return found, made


def value(text, **results):
    return carried_out(f"answer({text})", {name: Labelled(each) for name, each in results.items()})[0].value


@pytest.mark.parametrize(("text", "calls"), [
    ("False and pay()", 0), ("True or pay()", 0), ("True and pay()", 1), ("False or pay()", 1), ("1 and 0 and pay()", 0),
    ("0 or 1 or pay()", 0), ("True and pay() and pay()", 2), ("pay() if False else 1", 0), ("1 if False else pay()", 1),
    ("1 if True else pay()", 0), ("pay() if True else pay()", 1), ("[pay() for x in [1] if x == 2]", 0),
    ("[x for x in [1, 2] if x == 2 if pay()]", 1), ("[x for x in [1, 2] if x == 2 and pay()]", 1),
    ("[x for x in [1] if x if pay()]", 1), ("not (True or pay())", 0), ("[] and pay()", 0), ("'' or pay()", 1),
])  # fmt: skip
def test_a_call_that_python_would_not_reach_is_not_made(text, calls):
    assert len(carried_out(f"answer({text})")[1]) == calls


@pytest.mark.parametrize(("text", "found"), [
    ("'' or 'nobody'", "nobody"), ("'ann' or 'nobody'", "ann"), ("1 and 2", 2), ("0 and 2", 0), ("[] or [1]", None),
    ("1 and 0 or 3", 3), ("len([]) > 0 and first([]).x == 1", False), ("2 if 1 > 0 else 3", 2), ("2 if [] else 3", 3),
])  # fmt: skip
def test_and_or_and_conditions_give_the_value_that_python_gives(text, found):
    given = value(text)
    assert given == found if found is not None else [each.value for each in given] == [1]


def test_what_was_looked_at_is_in_the_label_and_what_was_not_is_not():
    results = {"t": Labelled("x", BAD), "n": Labelled("", BAD)}

    def label(text, **options):
        return carried_out(f"answer({text})", results, **options)[0].label

    for text in (
        "t() and 1",
        "n() or 1",
        "n() and 1",
        "1 and t()",
        "1 if t() else 2",
        "1 if n() else 2",
        "t() or 1 or 2",
    ):
        assert label(text) == (BAD if text.startswith(("n() and", "t() or")) else BAD.join(USER)), text
    for text in ("0 and t()", "1 or t()", "1 if 1 else t()", "1 and 2 or t()"):
        assert label(text) == USER, text
    assert label("t() and 0 and 2") == label("n() or 1 or 2") == label("0 or t() and 1") == BAD.join(USER)
    trusted = Labelled({"id": 1}, BAD, ("id",), "l")
    assert not carried_out("answer((t() and l()).id)", {**results, "l": trusted})[0].label.is_trusted


@pytest.mark.parametrize("text", [
    "t() and pay() and 1", "1 and t() and 1 and pay()",
    "t() and pay()", "n() or pay()", "1 and t() and pay()", "pay() if t() else 1", "1 if n() else pay()",
    "[pay() for x in [1] if t()]", "[x for x in [1] if t() if pay()]",
])  # fmt: skip
@pytest.mark.parametrize("strict", [False, True])
def test_strict_counts_what_decided_that_a_call_is_made(text, strict):
    _, made = carried_out(f"answer({text})", {"t": Labelled("x", BAD), "n": Labelled("", BAD)}, strict=strict)
    (under,) = [label for name, label in made if name == "pay"]
    assert under.is_trusted is not strict


@pytest.mark.parametrize("text", [
    "n() and answer(1)", "t() or answer(1)", "t() or 1 or answer(1)", "answer(1) if n() else 2", "2 if t() else answer(1)",
    "1 and (n() and answer(1))", "[answer(1) for x in [1] if n()]", "[x for x in [1] if 0 or n() if answer(1)]",
])  # fmt: skip
def test_strict_counts_an_end_that_was_not_reached_in_all_that_follows(text):
    results = {"t": Labelled("x", BAD), "n": Labelled("", BAD)}
    for strict in (False, True):
        _, made = carried_out(f"x = {text}\npay()", results, strict=strict)
        assert made[-1][0] == "pay" and made[-1][1].is_trusted is not strict


@pytest.mark.parametrize("text", [
    "[n() and answer(1), pay()]", "[2 if t() else answer(1), pay()]", "[[answer(1) for x in [1] if n()], pay()]",
    "[[answer(1) for x in l()], pay()]", "[x for x in [1, 2] if pay() if n() if answer(1)]",
    "text([n() and answer(1), pay()])",
])  # fmt: skip
def test_strict_counts_an_end_that_was_not_reached_in_the_rest_of_its_line(text):
    results = {"t": Labelled("x", BAD), "n": Labelled("", BAD), "l": Labelled([], BAD)}
    for strict in (False, True):
        _, made = carried_out(f"x = {text}", results, strict=strict)
        assert [under for name, under in made if name == "pay"][-1].is_trusted is not strict


@pytest.mark.parametrize(("text", "found"), [
    ('f"{10/3:.2f} {5:03d} {7:>3}|{1234567:,}"', "3.33 005   7|1,234,567"), ('f"{0.5:.0%} {-1:+d} {2:}"', "50% -1 2"),
    ('f"{True!s} {2!s:>3} {[1]!s:>4}"', "true   2  [1]"), ('f"{v:.1f} {v!s:>5} {v}"', "1.1  1.10 1.10"),
    ('f"{255:x} {1e3:.1e}"', "ff 1.0e+03"), ('f"{v:>6}|{v:6}|{v:<6}|{v:*^6}|{v:}"', "  1.10|  1.10|1.10  |*1.10*|1.10"),
    ('f"{v:06}|{v:+}|{v:=6}|{[1]:}|{True:}"', "0001.1|+1.1|   1.1|[1]|true"),
])  # fmt: skip
def test_formats_of_f_strings_are_carried_out(text, found):
    assert carried_out(f"v = look()\nanswer({text})", {"look": Labelled(StatedNumber("1.10"))})[0].value == found


@pytest.mark.parametrize("text", [
    "{1!r}", "{1!a}", "{1=}", "{1:{2}}", "{1:{2}d}", "{1:1000}", "{1:.1000f}", "{1:9999d}", "{1:c}", "{1:n}", "{1:?}",
])  # fmt: skip
def test_formats_that_are_not_carried_out_are_refused_with_their_line(text):
    with pytest.raises(PlanError, match=r"^line 1: (write formats like|![ra] is not part)"):
        parse_plan(f'answer(f"{text}")', [])


@pytest.mark.parametrize(("text", "said"), [
    ("7 % 2", "Mod is not part of the language"), ("x is None", "Is is not part of the language"),
    ("1 < 2 < 3", "compare two values at a time, and join comparisons with and"),
    ("[a for a in [1] for b in [2]]", "a comprehension has one for"), ("~1", "Invert is not part of the language"),
    ("[a for [a, b] in [1]]", "loop over one name"),
])  # fmt: skip
def test_what_the_language_leaves_out_is_refused_with_its_line_before_anything_is_done(text, said):
    with pytest.raises(PlanError, match=f"^line 2: {said}$"):
        parse_plan(f"x = 1\ny = {text}", [])


def test_a_format_is_labelled_and_one_that_does_not_fit_is_an_error():
    assert carried_out('answer(f"{t():>3}")', {"t": Labelled("x", BAD)})[0].label == BAD
    with pytest.raises(PlanError, match=r"^line 1: ValueError$"):
        value("f\"{'x':.2f}_{'x':d}\"")
    assert len(value('f"{1:999d}"')) == 999


def test_functions_of_the_language_refuse_what_they_would_drop():
    for text in ("sorted([2, 1], reverse=True)", "answer(value=1)", "number('1', base=2)"):
        with pytest.raises(PlanError, match="takes no arguments by name"):
            parse_plan(text, [])
    parse_plan('answer(read("x", question="y", kind="text"))', [])


@pytest.mark.parametrize(("text", "found"), [
    ("42", 42), ("12345678901234567", 12345678901234567), ("-7", -7), ("1,234,567", 1234567), ("007", 7), ("42.0", 42.0),
    ("12345678901234567.00", 12345678901234567), ("9007199254740993.", 9007199254740993), ("1e5", 1e5), ("12.50", 12.5),
    (12345678901234567, 12345678901234567), (2.5, 2.5), (True, 1), ("9007199254740992.0", 9007199254740992),
    ("4503599627370495.5", 4503599627370495.5), ("1.5e300", 1.5e300),
])  # fmt: skip
def test_a_number_keeps_its_type_and_digits(text, found):
    assert as_number(text) == found and type(as_number(text)) is type(found)


def test_decimals_that_a_number_would_lose_are_refused():
    for text in ("9007199254740993.5", "9007199254740991.5", "12,345,678,901,234,567.25", "-9007199254740992.5"):
        with pytest.raises(ValueError, match=r"^no number that keeps its digits$"):
            as_number(text)


@pytest.mark.parametrize(
    "text", ["1.10", "1e5", "2024", "-0", "12345678901234567890", "0.12345678901234567890", " 42\n"]
)
def test_a_tools_text_that_is_a_number_stays_as_it_is_written(text):
    found = decoded(text)
    assert found == text and type(found) is StatedNumber


@pytest.mark.parametrize(("text", "found"), [
    ("NaN", "NaN"), ("Infinity", "Infinity"), ("1e999", "1e999"), ('"x"', '"x"'), ("007", "007"), ("Friday", "Friday"),
    ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'), ('[{"a": 1, "a": 2}]', '[{"a": 1, "a": 2}]'), ("true", True), ("null", None),
    ("false", False), ('{"a": [1, "1"]}', {"a": [1, "1"]}), ("[NaN, 1]", ["NaN", 1]), ("[" * 99999, "[" * 99999),
])  # fmt: skip
def test_a_tools_text_is_decoded_where_nothing_of_it_is_lost(text, found):
    assert decoded(text) == found and type(decoded(text)) is type(found)


@pytest.mark.parametrize(("text", "found"), [
    ("a() + b()", 19.5), ("a() < b()", True), ("b() > a()", True), ("a() == 9", True), ("a() == '9'", True),
    ("a() == 9.0", True), ("b() == '10.50'", True), ("b() == '10.5'", False), ("-a()", -9), ("a() * 2", 18), ("2 * a()", 18),
    ("not z()", True), ("not a()", False), ("z() or 1", 1), ("1 if z() else 2", 2), ("z() and 1", "0"), ("a() in [9]", True),
    ("a() in ['9']", True), ("a() not in [9]", False), ("'0.5' in b()", True), ("a() + ' EUR'", "9 EUR"),
    ("text(b())", "10.50"),
    ("sorted([b(), a()])[0]", "9"), ("len(unique([a(), 9, b()]))", 2), ("[4, 5][z()]", 4), ("number(b())", 10.5),
    ("[x for x in [1] if z()]", []), ("len([x for x in [1] if a()])", 1), ("a() in {'9': 1}", True),
    ("a() in 'x9'", True), ("z() in b()", True),
])  # fmt: skip
def test_a_stated_number_is_a_number_beside_numbers_and_a_text_beside_texts(text, found):
    given = value(text, a=StatedNumber("9"), b=StatedNumber("10.50"), z=StatedNumber("0"))
    assert getattr(given, "value", given) == found


def test_a_statement_takes_zero_for_false():
    text = "if z():\n    answer(1)\nelse:\n    answer(2)"
    assert carried_out(text, {"z": Labelled(StatedNumber("0"))})[0].value == 2
    assert carried_out(text, {"z": Labelled(StatedNumber("0.10"))})[0].value == 1


def test_a_payment_behind_a_false_condition_is_not_made_and_a_text_reaches_the_tool_in_its_digits():
    done = []

    @tool(effect="external")
    def pay(to: str, amount: float) -> str:
        """Pay."""
        done.append((to, amount))
        return "true"

    @tool(effect="read")
    def balance() -> str:
        """Return the balance."""
        return "20.10"

    def run(plan):
        done.clear()
        agent = Agent("p", Scripted([f"```\n{plan}\n```"]), plan_mode, {"retries": 0}, (pay, balance))
        return asyncio.run(rollout(agent, Task("1", "Pay 20 to bob if I have 100."))).answer, list(done)

    assert run('answer("paid" if balance() >= 100 and pay(to="bob", amount=20) else "not paid")') == ("not paid", [])
    assert run("answer(pay(to=balance(), amount=balance()))") == ("true", [("20.10", 20.1)])
    answer, _ = run("answer(balance())")
    assert answer == "20.10" and type(answer) is str
