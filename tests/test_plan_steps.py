"""Each step of a plan's run, called by itself: values, operators, calls, loops and the labels they leave."""

from __future__ import annotations

import ast
import asyncio
from typing import Any

import pytest

from firsthand.safety.plans.labelled import Labelled
from firsthand.safety.plans.plan_interpreter import (
    MAX_ITEMS,
    MAX_SIZE,
    MAX_STEPS,
    PlanRun,
    _Answered,
    _bounded,
    _shown,
)
from firsthand.safety.plans.plan_program import PlanError
from firsthand.safety.rules.labels import USER, Label


def of(*origins: str) -> Label:
    return Label("untrusted", frozenset({"ann"}), frozenset(origins))


LEFT, RIGHT, UNDER = of("left"), Label("trusted", None, frozenset({"right"})), of("under")


class Plan:
    """A run with names that have values, and what its tools and its reader were asked."""

    def __init__(self, *, strict: bool = False, made: dict[str, Labelled] | None = None, **names: Labelled):
        self.asked: list[Any] = []

        async def call(name: str, arguments: Any, labels: Any) -> Labelled:
            self.asked.append((name, arguments, labels))
            return Labelled(f"result {len(self.asked)}", of(name))

        async def read(text: str, question: str, kind: str) -> Any:
            self.asked.append((text, question, kind))
            return len(self.asked)

        self.run = PlanRun(call, read, made, strict=strict)
        self.run._names.update(names)

    def value(self, text: str, under: Label | None = None) -> Labelled:
        node = ast.parse(text, mode="eval").body
        return asyncio.run(self.run._value(node, under or Label()))

    def computed(self, text: str) -> Labelled:
        return asyncio.run(self.run._value(ast.parse(text, mode="eval").body, Label()))

    def block(self, text: str, under: Label | None = None) -> dict[str, Labelled]:
        asyncio.run(self.run._block(ast.parse(text).body, under or Label()))
        return self.run._names


def test_an_operator_computes_from_both_sides_in_order_and_is_labelled_by_both() -> None:
    plan = Plan(a=Labelled(7, LEFT), b=Labelled(2, RIGHT), s=Labelled("x", LEFT), t=Labelled("yx", RIGHT))
    both = LEFT.join(RIGHT)
    given = {
        "a + b": 9, "a - b": 5, "a * b": 14, "a / b": 3.5, "s + t": "xyx", "a == b": False, "a != b": True, "a < b": False,
        "a > b": True, "a <= b": False, "a >= b": True, "s in t": True, "s not in t": False, "t in s": False,
        "b < a and s in t": True, "a and b": 2, "a < b or s == t": False, "a < b or a": 7, "f'{a}-{t}'": "7-yx",
    }  # fmt: skip
    assert {text: plan.computed(text).value for text in given} == given
    assert [plan.computed("2 <= 2").value, plan.computed("2 < 2").value, plan.computed("2 >= 2").value] == [
        True, False, True,
    ]  # fmt: skip
    assert plan.computed("2 > 2").value is False and plan.computed("True * 3").value == 3
    assert (plan.computed("not a"), plan.computed("-a")) == (Labelled(False, LEFT), Labelled(-7, LEFT))
    assert plan.computed("a + b").label == plan.computed("b < a").label == plan.computed("f'{b}{s}'").label == both
    assert (plan.computed("a or b").label, plan.computed("a and b").label) == (LEFT, both)
    for text in ("s * b", "[a] * 2", "2 * 'ab'"):
        with pytest.raises(TypeError):
            plan.computed(text)
    with pytest.raises(PlanError, match=r"^line 2: Lambda is not part of the language$"):
        asyncio.run(plan.run._computed(ast.parse("\nlambda: 1").body[0].value, Label()))  # type: ignore[attr-defined]


def test_a_made_value_may_have_a_million_parts_or_1024_bits() -> None:
    for fits in ("x" * MAX_SIZE, [0] * MAX_SIZE, 2**1024 - 1, -(2**1024) + 1, 1e300, None):
        assert _bounded(fits) is fits
    for too_large in ("x" * (MAX_SIZE + 1), [0] * (MAX_SIZE + 1), 2**1024):
        with pytest.raises(ValueError):
            _bounded(too_large)
    assert (MAX_SIZE, MAX_ITEMS, MAX_STEPS) == (1_000_000, 500, 5_000)


def test_values_are_constants_of_the_user_names_fields_items_and_what_is_made_of_them() -> None:
    box = Labelled({"id": "7", "who": {"name": "ann"}}, LEFT, ("who.name",), "box")
    plan = Plan(box=box, rows=Labelled([5, 6], LEFT, origin="box"), key=Labelled("id", RIGHT), at=Labelled(1, RIGHT))
    assert plan.value("'é'") == Labelled("é", USER) and plan.value("None") == Labelled(None, USER)
    assert plan.value("box") is box
    assert plan.value("box.who") == Labelled({"name": "ann"}, LEFT, ("name",), "box")
    assert plan.value("box.who.name") == Labelled("ann", Label("trusted", LEFT.readers, frozenset({"box: name"})),
                                                  (".",), "box")  # fmt: skip
    assert plan.value("box['id']") == Labelled("7", LEFT, (), "box")
    assert plan.value("rows[1]") == Labelled(6, LEFT, (), "box") and plan.value("rows[-2]").value == 5
    assert plan.value("box[key]") == Labelled("7", LEFT.join(RIGHT))
    assert plan.value("rows[at]") == Labelled(6, LEFT.join(RIGHT))
    assert plan.value("[rows, 3]") == Labelled([plan.value("rows"), Labelled(3, USER)])
    assert plan.value("{key: 1, 2: rows}") == Labelled(
        {"id": Labelled(1, USER), "2": plan.value("rows")}, RIGHT.join(USER)
    )
    with pytest.raises(PlanError, match=r"^line 1: the name boxes has no value$"):
        plan.value("boxes")
    for text, error in (("rows.x", TypeError), ("box[0]", TypeError), ("box.no", KeyError), ("rows[2]", IndexError)):
        with pytest.raises(error):
            plan.value(text)


def test_the_5000th_step_is_the_last() -> None:
    plan = Plan()
    plan.run._steps = MAX_STEPS - 1
    assert plan.value("1").value == 1
    with pytest.raises(PlanError, match=r"^the plan takes more than 5000 steps$"):
        plan.value("1")


def test_a_list_is_made_of_the_items_that_pass_all_tests_and_leaves_the_name_as_it_was() -> None:
    rows = Labelled([3, 8, 5, 9], LEFT, origin="box")
    for strict, label in ((False, Label()), (True, LEFT.join(RIGHT).join(USER))):
        plan = Plan(strict=strict, rows=rows, x=Labelled("mine", USER), least=Labelled(4, RIGHT))
        found = plan.value("[x - 1 for x in rows if x > least if x < 9]")
        assert found == Labelled([Labelled(7, LEFT.join(USER)), Labelled(4, LEFT.join(USER))], label)
        assert plan.run._names["x"] == Labelled("mine", USER)
    plan = Plan(rows=Labelled([], LEFT))
    assert plan.value("[y for y in rows]") == Labelled([]) and set(plan.run._names) == {"rows"}
    assert Plan(strict=True, rows=rows).value("[y for y in rows]").label == LEFT
    assert Plan(rows=rows).value("[y for y in rows]").label == Label()
    many = Plan(rows=Labelled([1] * 501))
    assert len(asyncio.run(many.run._items(Labelled([1] * 500)))) == 500
    with pytest.raises(PlanError, match=r"^a loop has 501 items: at most 500 are carried out$"):
        many.value("[y for y in rows]")


def test_a_tool_gets_plain_arguments_with_the_label_of_each_and_of_the_place_under_an_empty_name() -> None:
    plan = Plan(to=Labelled([Labelled("ann", LEFT), "bob"], RIGHT))
    labels = {"to": RIGHT.join(LEFT).join(UNDER), "body": USER.join(UNDER), "": UNDER}
    sent = Labelled("result 1", of("send").join(labels["to"]).join(labels["body"]))
    assert plan.value("send(to=to, body='hi')", UNDER) == sent
    assert plan.asked == [("send", {"to": ["ann", "bob"], "body": "hi"}, labels)]
    with pytest.raises(_Answered) as answered:
        plan.value("answer(to)", UNDER)
    assert answered.value.value == Labelled(plan.run._names["to"].value, RIGHT.join(UNDER))
    with pytest.raises(ValueError):
        plan.value("answer(to, 1)")
    assert plan.value("look()").value == "result 2" and plan.asked[1] == ("look", {}, {"": Label()})


def test_the_reader_gets_text_question_and_kind_and_its_answer_depends_on_all_three() -> None:
    kind = Labelled("number", of("kind"))
    plan = Plan(page=Labelled("a page", LEFT), rows=Labelled([1, "é"], LEFT), ask=Labelled("who?", RIGHT), kind=kind)
    assert plan.value("read(page, ask)") == Labelled(1, LEFT.join(RIGHT))
    assert plan.value("read(rows, 'how many?', kind)") == Labelled(2, LEFT.join(USER).join(of("kind")))
    assert plan.value("read(page, question=ask, kind=kind)").value == 3
    assert plan.asked == [
        ("a page", "who?", "text"), ('[1,"é"]', "how many?", "number"), ("a page", "who?", "number"),
    ]  # fmt: skip
    assert list(plan.run.made) == [
        '1 read ["a page","who?","text"]', '1 read [[1,"é"],"how many?","number"]', '1 read ["a page","who?","number"]',
    ]  # fmt: skip


def test_equal_calls_are_numbered_and_what_an_earlier_run_made_is_not_made_again() -> None:
    kept = {'2 send {"to":"a"}': Labelled("kept", RIGHT)}
    plan = Plan(made=kept)
    assert [plan.value("send(to='a')").value for _ in range(3)] == ["result 1", "kept", "result 2"]
    assert plan.value("send(to='b')").value == "result 3" and plan.run.made is kept
    assert list(kept) == ['2 send {"to":"a"}', '1 send {"to":"a"}', '3 send {"to":"a"}', '1 send {"to":"b"}']
    assert Plan().run.made == {} and Plan(made=(given := {})).run.made is given


def test_a_branch_taints_the_names_that_the_other_would_have_set_in_strict_runs() -> None:
    text = "if flag:\n    x = 1\n    y = 2\nelse:\n    z = 3\n    w = 4\n"
    for flag, taken, other in ((True, "xy", "z"), (False, "zw", "xy")):
        names = {name: Labelled(name, USER) for name in "xyz"}
        plan = Plan(strict=True, flag=Labelled(flag, LEFT), **names)
        found = plan.block(text, RIGHT)
        inner = RIGHT.join(LEFT)
        numbers = {"x": 1, "y": 2, "z": 3, "w": 4}
        assert {name: found[name] for name in taken} == {
            name: Labelled(numbers[name], USER.join(inner)) for name in taken
        }
        assert {name: found[name] for name in other} == {name: Labelled(name, USER.join(inner)) for name in other}
        assert ("w" in found) is not flag
    loose = Plan(flag=Labelled(True, LEFT), z=Labelled("z", USER)).block(text)
    assert (loose["x"], loose["z"]) == (Labelled(1, USER), Labelled("z", USER))


def test_a_loop_sets_its_name_to_each_item_and_taints_what_no_item_set() -> None:
    text = "for each in rows:\n    send(to=each)\n    last = each\n"
    rows = Labelled(["a", "b"], LEFT, origin="box")
    plan = Plan(strict=True, rows=rows)
    found = plan.block(text)
    assert [(name, given, labels[""]) for name, given, labels in plan.asked] == [
        ("send", {"to": "a"}, LEFT), ("send", {"to": "b"}, LEFT),
    ]  # fmt: skip
    assert (found["each"], found["last"]) == (Labelled("b", LEFT), Labelled("b", LEFT))
    none = Plan(strict=True, rows=Labelled([], LEFT), last=Labelled("old", USER)).block(text)
    assert none["last"] == Labelled("old", USER.join(LEFT)) and "each" not in none
    loose = Plan(rows=rows)
    assert loose.block(text)["each"] == Labelled("b", LEFT, (), "box") and loose.asked[1][2] == {
        "to": LEFT,
        "": Label(),
    }


def test_an_error_is_told_by_its_line_and_kind_alone_and_a_plan_error_as_it_is() -> None:
    errors = {
        "x = 1\ny = {'secret': 1}.other": "line 2: KeyError", "x = 1 + 'a'": "line 1: TypeError",
        "\n\nx = number('no')": "line 3: ValueError", "x = [1][5]": "line 1: IndexError", "x = 1 / 0": "line 1: "
        "ZeroDivisionError", "if 1:\n    x = 1 / 0": "line 2: ZeroDivisionError", "x = unknown": "line 1: the name "
        "unknown has no value", "x = 1e300 * 10.0 ** 2": "line 1: KeyError", "x = text()": "line 1: TypeError",
    }  # fmt: skip

    def said(text: str) -> str:
        with pytest.raises(PlanError) as error:
            Plan().block(text)
        return str(error.value)

    assert {text: said(text) for text in errors} == errors


def test_a_run_gives_its_answer_or_an_empty_text() -> None:
    plan = Plan()
    program = ast.parse("x = 'é'\nif x == 'é':\n    answer(x)\nanswer('late')\n")
    assert asyncio.run(plan.run.run(program.body)) == Labelled("é", USER)
    assert asyncio.run(plan.run.run(program.body[:1])) == Labelled("", Label())
    assert asyncio.run(plan.run.run([])) == Labelled("", Label())


def test_functions_keep_the_label_of_all_that_they_look_at() -> None:
    inner = Labelled(5, RIGHT)
    rows = Labelled([9, inner, 9, 7], LEFT)
    both = LEFT.join(RIGHT)
    plan = Plan(
        rows=rows, e=Labelled("é"), n=Labelled("2.5", LEFT), one=Labelled([inner], LEFT), bare=Labelled([inner])
    )
    given = {
        "first(rows)": Labelled(9, LEFT), "last(rows)": Labelled(7, LEFT), "len(rows)": Labelled(4, both),
        "sorted(rows)": Labelled([5, 7, 9, 9], both), "unique(rows)": Labelled([9, 5, 7], both),
        "text(rows)": Labelled("[9,5,9,7]", both), "text(e)": Labelled("é"), "number(n)": Labelled(2.5, LEFT),
        "first(one)": Labelled(5, both), "last(bare)": inner,
    }  # fmt: skip
    assert {text: plan.value(text) for text in given} == given
    assert (_shown("a"), _shown(1.5), _shown(None), _shown({"b": 1, "a": "é"})) == (
        "a",
        "1.5",
        "null",
        '{"a":"é","b":1}',
    )
