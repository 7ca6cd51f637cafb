"""Budgets below another: what each has spent, what it is charged for, and what is left."""

from __future__ import annotations

import pytest

from firsthand.errors import ConfigError, LimitExceeded
from firsthand.loop.budget import Budget, Limits
from firsthand.model import Usage


def test_a_budget_begins_with_nothing_spent_whatever_its_parent_has_spent() -> None:
    parent = Budget(Limits(tokens=1000, calls=3))
    parent.charge(parent.reserve(300), Usage(100, 0, 60, 0.5))
    parent.reserve(40)
    parent.hold(20, 1)
    parent.hit = "depth"
    child = Budget(Limits(tokens=200, cost_usd=0.25), parent)
    assert (child.spent, child.calls, child.reserved_tokens, child.held_tokens, child.held_calls, child.hit) == (
        Usage(), 0, 0, 0, 0, None
    )  # fmt: skip
    parent.calls = 0
    assert child.reserve(500) == 200 and child.tightest() == 0
    child.charge(200, Usage(7, 0, 5, 0.125))
    assert (child.spent, parent.spent) == (Usage(7, 0, 5, 0.125), Usage(107, 0, 65, 0.625))
    assert (child.reserved_tokens, parent.reserved_tokens, child.overspent) == (0, 60, None)


def test_an_overspent_budget_has_nothing_left_and_not_less() -> None:
    child = Budget(Limits(calls=9), parent := Budget(Limits(tokens=3_000, cost_usd=0.5)))
    assert child.reserve(2_000) == 2_000
    child.charge(1_500, Usage(4_000, 0, 500, 0.25))
    with pytest.raises(LimitExceeded) as refused:
        child.reserve(1_000, least=1_000)
    assert str(refused.value) == (
        "a call needs 1,000 tokens or more, prompt included, and 0 of 3,000 are left (4,500 used, 500 reserved)"
    )
    assert (parent.overspent, child.overspent, parent.hit, child.hit, child.calls) == (
        "tokens", None, "tokens", "tokens", 1,
    )  # fmt: skip
    parent.spent = Usage(0, 0, 0, 0.5)
    assert parent.overspent is None, "exactly what it may"
    with pytest.raises(LimitExceeded, match=r"^0\.5000 of 0\.5000 USD are spent$"):
        child.reserve(1)
    assert (parent.hit, child.calls, parent.reserved_tokens) == ("tokens", 1, 500), "the first limit that refused"


def test_calls_of_several_interrupted_tries_are_counted_once_when_they_are_replayed() -> None:
    root = Budget(Limits())
    leaf = Budget(Limits(tokens=100, calls=7), root)

    def state() -> list[tuple[int, int, int, int, int]]:
        return [
            (each.spent.total_tokens, each.reserved_tokens, each.calls, each.held_tokens, each.held_calls)
            for each in (leaf, root)
        ]

    leaf.hold(10, 2)
    leaf.hold(20, 3)
    leaf.hold(0, 0)
    assert state() == [(0, 30, 5, 30, 5), (0, 30, 5, 0, 0)]
    for usage, spent, left in ((Usage(4, 0, 2), 6, 24), (Usage(), 6, 24), (Usage(20), 26, 4), (Usage(9, 0, 1), 36, 0)):
        leaf.repay(usage)
        (held_calls,) = {5 - made for made in range(1, 5) if leaf.held_calls == 5 - made}
        assert state() == [(spent, left, 5, left, held_calls), (spent, left, 5, 0, 0)]
    leaf.repay(Usage(0, 0, 3))
    assert state() == [(39, 0, 5, 0, 0), (39, 0, 5, 0, 0)], "all five are replayed"
    leaf.repay(Usage(1, 0, 0, 0.5))
    assert state() == [(40, 0, 6, 0, 0), (40, 0, 6, 0, 0)] and root.spent.cost_usd == 0.5, "a sixth is one more"
    root.hold(5, 1)
    leaf.hold(7, 1)
    assert state() == [(40, 7, 7, 7, 1), (40, 12, 8, 5, 1)]
    leaf.repay(Usage(6))
    assert state() == [(46, 1, 7, 1, 0), (46, 7, 8, 0, 0)]
    with pytest.raises(LimitExceeded, match=r"^call budget exhausted: 7 calls made$"):
        leaf.reserve(1)
    assert (leaf.hit, root.hit) == ("calls", None)


def test_a_limit_is_above_0_and_written_where_it_is_set() -> None:
    for name in ("tokens", "calls", "seconds", "cost_usd", "depth"):
        for wrong in (0, -1, 0.0, float("nan")):
            with pytest.raises(ConfigError) as refused:
                Limits(**{name: wrong})
            assert str(refused.value) == (
                f"the limit {name} is {wrong!r}: give a number above 0, or leave it out for no limit"
            )
        assert Limits(**{"depth": None, name: 1}).to_json() == {name: 1}
    assert Limits(cost_usd=0.001, depth=None).to_json() == {"cost_usd": 0.001} and Limits().to_json() == {"depth": 64}
