"""The budget of one rendering, counted step by step: limits that are allowed, one more that is not, and prices of calls."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.utils import Namespace

from firsthand.errors import TemplateError
from firsthand.tokens.templates import render_budget
from firsthand.tokens.templates.render_budget import (
    MAX_LENGTH,
    MAX_STEPS,
    MAX_TOTAL,
    MAX_WORK,
    RenderBudget,
    Weight,
    dict_of,
    inside,
    is_container,
    nested_depth,
)


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(TemplateError) as found:
        call(*arguments)
    return str(found.value)


def spent(budget: RenderBudget, call: Any, *arguments: Any) -> tuple[int, int]:
    """Steps and characters that a call costs."""
    steps, left = budget._steps, budget._left
    call(*arguments)
    return steps - budget._steps, left - budget._left


def test_steps_are_counted_to_the_last_and_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = RenderBudget()
    many = "the chat template takes too many steps: it loops far longer than a prompt needs"
    budget._steps = 2
    assert [budget.tick(), budget.tick()] == ["", ""] and refused(budget.tick) == many
    budget.start({})
    assert (budget._steps, budget._left) == (MAX_STEPS, MAX_TOTAL) == (1 << 19, 1 << 26)
    budget._steps = 2
    taken: list[str] = []

    def take() -> None:
        for each in budget.ticking("abc"):
            taken.append(each)

    assert refused(take) == many
    assert taken == ["a", "b"]
    budget.start({})
    budget._deadline = -1.0
    assert refused(budget.tick) == many
    for _ in range(255):
        budget.read()
    assert refused(budget.read) == "the chat template takes too long: it looks up far more than a prompt needs"


def test_characters_and_work_are_charged_up_to_their_limits() -> None:
    budget = RenderBudget()
    assert spent(budget, budget.charge, 5) == (0, 5) and spent(budget, budget.charge_items, [1, 2]) == (0, 32)
    assert spent(budget, budget.work, MAX_WORK) == (1, 0)
    assert refused(budget.work, MAX_WORK + 1) == (
        f"the chat template compares or searches {MAX_WORK + 1} characters in one call"
    )
    budget.start({})
    budget.charge(MAX_LENGTH)
    assert refused(budget.charge, MAX_LENGTH + 1) == (
        f"the chat template makes a value of {MAX_LENGTH + 1} characters or items, more than a prompt needs"
    )
    budget.start({})
    budget._left = 3
    budget.charge(3)
    assert refused(budget.charge, 1) == f"the chat template makes more than {MAX_TOTAL} characters and items in all"
    budget.start({})
    assert budget.text(["ab", 3]) == "['ab', 3]" and MAX_TOTAL - budget._left == 2 + 4 * 5
    assert spent(budget, budget.text, "plain") == (0, 0) and spent(budget, budget.compared, "x") == (1, 0)
    assert [budget.chars(value) for value in ("abc", ["ab", {"c": 1}], 3)] == [3, 3, 0]
    assert budget.weighed([0] * 640) == [0] * 640 and budget._steps == MAX_STEPS - 1 - (1 + 640 + 640) // 64


def test_values_are_weighed_as_often_as_they_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = RenderBudget()
    # a container counts itself and its entries, and each entry again when it is reached
    assert (
        budget.measure("abc") == Weight(1, 3)
        and budget.measure(7) == Weight(1, 0)
        and budget.measure([]) == Weight(1, 0)
    )
    assert budget.measure(["ab", 1]) == Weight(1 + 2 + 2, 2) and budget.measure({"k": "vv"}) == Weight(1 + 2 + 2, 3)
    part = ["xy"]
    assert budget.measure([part, part]) == Weight(1 + 2 + 2 * (1 + 1 + 1), 4)
    given = ["abc", ["d"]]
    budget.start({"messages": given})
    assert budget.measure(given) == Weight(1, 3 + 4 + 4 + (4 + 1 + 4)) and budget._chars_given(given) == 20
    assert budget.measure([given[1]]) == Weight(1 + 1 + 1, 4 + 1 + 4) and budget.weighed(given) is given
    monkeypatch.setattr(render_budget, "MAX_WEIGHT", 5)
    monkeypatch.setattr(render_budget, "MAX_TEXT", 4)
    budget.start({})
    assert budget.measure(["ab", "cd"]) == Weight(5, 4)
    assert refused(budget.measure, [1, 2, 3]) == "the chat template makes a list or dict of more than 5 values"
    assert refused(budget.measure, ["abc", "de"]) == "the chat template makes a list or dict of more than 4 characters"


def test_a_method_of_a_text_is_priced_by_what_it_may_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, amounts = RenderBudget(), list[int]()
    monkeypatch.setattr(budget, "work", amounts.append)
    monkeypatch.setattr(render_budget, "MAX_ITEMS", 10)
    text = "ab\ncd\r\nef" + "x" * 3  # twelve characters
    for name, args in (("rfind", ("xyz",)), ("rfind", (text * 2,)), ("strip", ()), ("strip", ("ab",)), ("find",
    ("xyz",)), ("find", ()),
                       ("rsplit", (None, -1)), ("splitlines", ())):  # fmt: skip
        budget.before_method(text, name, args)
    assert amounts == [3 * (12 - 3 + 1), 24 * 1, 12, 24, 15, 12, 12, 12 * 10]
    assert MAX_TOTAL - budget._left == 8 * 12
    pieces = "the chat template splits a text into more than 10 pieces"
    assert refused(budget.before_method, "\n" * 11, "splitlines", ()) == pieces
    budget.before_method("\n" * 10 + "x", "splitlines", ())
    for limit, bound in ((-1, 11), (11, 11), (10, 10), (0, 0)):
        assert budget.before_method("x" * 11, "split", (",", limit)) == (",", bound)
    assert budget.before_method("x" * 10, "split", (",", -1)) == (",", -1)
    budget.start({})
    assert budget.after_method("split", ["a"] * 11) == ["a"] * 11 and MAX_TOTAL - budget._left == 16 * 11
    assert refused(budget.after_method, "split", ["a"] * 12) == pieces and budget.after_method("upper", "A") == "A"
    amounts.clear()
    budget.start({})
    budget.before_sort(["ab", "c", "d"])
    assert amounts == [(4 + 7) * 2] and MAX_TOTAL - budget._left == 11  # three values: two comparisons each
    budget.before_sort([])
    assert amounts[-1] == 1


def test_containers_show_what_is_inside_and_how_deep() -> None:
    space = Namespace(a=[1])
    assert inside({"a": 1}) == ("a", 1) and inside((1, 2)) == (1, 2) and inside({"a": 1}.values()) == (1,)
    assert inside(space) == ("a", [1]) and inside("ab") == () and inside({3}) == ()
    assert [is_container(each) for each in ([], (), {}, space, {}.items(), "a", 1, {1})] == [True] * 5 + [False] * 3
    assert [nested_depth(each) for each in (1, [], [1], [[1], 2], {"a": {"b": []}}, ("x", [["y"]]))] == [
        0,
        1,
        1,
        2,
        3,
        3,
    ]
    budget = RenderBudget()
    make = dict_of(budget)
    assert make() == {} and make({"a": 1}, b=2) == {"a": 1, "b": 2} and make([("a", 1), ("a", 2)], a=3) == {"a": 3}
    assert spent(budget, make, [("a", 1), ("b", 2)]) == (2, 0) and make([("x", 1)]) == {"x": 1}


def test_a_rendering_has_its_time_of_the_threads_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(render_budget.time, "thread_time", lambda: now[0])
    budget = RenderBudget()
    budget.start({})
    now[0] = 100.0 + render_budget.TIME_S
    assert budget.tick() == "" and [budget.read() for _ in range(256)] == [None] * 256, "the last moment is in time"
    now[0] = 105.001
    many = "the chat template takes too many steps: it loops far longer than a prompt needs"
    assert refused(budget.tick) == many and [budget.read() for _ in range(255)] == [None] * 255
    assert refused(budget.read) == "the chat template takes too long: it looks up far more than a prompt needs"
    budget.start({})
    assert budget.tick() == "" and [budget.read() for _ in range(256)] == [None] * 256, "another one has its own time"
    now[0] = 110.002
    assert refused(budget.tick) == many


def test_texts_in_given_values_are_weighed_at_any_depth_and_in_each_kind_of_container() -> None:
    messages = [{"role": "user", "content": ["abc", {"k": ("de", None)}]}, {}]
    deep = 4 + 4 + (4 + 4) + (4 + 7) + (4 + 4)  # the list, a dict, and `role`, `content` and `user`
    deep += 4 + (4 + 3) + (4 + (4 + 1) + (4 + (4 + 2) + 4))  # the list in it, `abc`, and the dict with the tuple
    deep += 4  # the empty dict
    budget = RenderBudget()
    budget.start({"messages": messages, "tools": None})
    assert budget._chars_given(messages) == deep == budget._chars_given(messages)
    first = deep - 4 - 4
    assert budget.measure(messages[0]) == Weight(1, first) and budget.measure(messages) == Weight(1, deep)
    assert budget.measure([messages, messages[0], "x"]) == Weight(1 + 3 + 3, deep + first + 1)
    budget.start(
        {"space": Namespace(a="bc"), "pairs": {"a": "bc"}.items(), "keys": {"abc": 1}.keys(), "two": ("a", "b")}
    )
    given = list(budget._given.values())
    assert [budget.measure(each) for each in given] == [
        Weight(1, 4 + 5 + 6), Weight(1, 4 + 4 + 5 + 6), Weight(1, 4 + 7), Weight(1, 4 + 5 + 5),
    ]  # fmt: skip
    budget.start({})
    assert budget._given_chars == {} and budget.measure({"ab": ["c"]}) == Weight(1 + 2 + 1 + 1 + 1 + 1, 3)
