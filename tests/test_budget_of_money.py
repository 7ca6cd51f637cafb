"""Tests of a limit on money under calls that run at once."""

import pytest

from firsthand.errors import LimitExceeded
from firsthand.loop.budget import Budget, Limits
from firsthand.model import Usage


def test_once_a_price_is_known_calls_at_once_do_not_overshoot_together() -> None:
    parent = Budget(Limits(cost_usd=1.0))
    budget = Budget(Limits(), parent)
    budget.charge(budget.reserve(100), Usage(cost_usd=0.25))
    granted = [budget.reserve(100) for _ in range(3)]
    with pytest.raises(
        LimitExceeded, match=r"0.2500 of 1.0000 USD are spent, and calls that run may cost 0.7500"
    ) as error:
        budget.reserve(100)
    assert error.value.limit == "cost_usd" and parent.hit == "cost_usd"
    assert budget.reserve(1) == 1, "a tool call costs nothing"
    for each in granted:
        budget.charge(each, Usage(cost_usd=0.2))
    assert parent.spent.cost_usd == pytest.approx(0.85) and parent.overspent is None
    budget.charge(budget.reserve(100), Usage())
    assert parent.open_calls == budget.open_calls == 0


def test_calls_in_a_row_use_all_of_the_money() -> None:
    budget = Budget(Limits(cost_usd=1.0))
    for _ in range(4):
        budget.charge(budget.reserve(100), Usage(cost_usd=0.25))
    with pytest.raises(LimitExceeded):
        budget.reserve(100)


def test_calls_that_cost_nothing_run_at_once_under_a_limit_of_money() -> None:
    budget = Budget(Limits(cost_usd=0.01))
    budget.charge(budget.reserve(100), Usage())
    assert [budget.reserve(100) for _ in range(500)] == [100] * 500


def test_what_a_run_spent_before_is_no_price_of_a_call() -> None:
    budget = Budget(Limits(cost_usd=1.0))
    budget.resume(Usage(cost_usd=0.9), 9)
    assert budget.reserve(100) == budget.reserve(100) == 100 and budget.calls == 11


def test_the_price_of_a_call_elsewhere_is_none_of_a_group_made_later() -> None:
    parent = Budget(Limits())
    parent.charge(parent.reserve(100), Usage(cost_usd=0.02))
    group = Budget(Limits(cost_usd=0.01), parent)
    assert (group.highest_usd, parent.highest_usd) == (0.0, 0.02)
    granted = [group.reserve(100) for _ in range(3)]
    assert granted == [100, 100, 100], "none of its own calls has cost anything yet"
    group.charge(granted[0], Usage(cost_usd=0.004))
    with pytest.raises(LimitExceeded) as error:
        group.reserve(100)
    assert str(error.value) == "0.0040 of 0.0100 USD are spent, and calls that run may cost 0.0080"
    assert (group.highest_usd, parent.highest_usd) == (0.004, 0.02)
