"""Budgets below another: what each has spent, what it is charged for, and what is left."""

from __future__ import annotations

import pytest

from firsthand.errors import LimitExceeded
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
