import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand.errors import ConfigError, LimitExceeded
from firsthand.loop.budget import Budget, Limits
from firsthand.model import Usage


def test_no_limits_grant_everything():
    assert Budget(Limits()).reserve(10**9) == 10**9


def test_a_call_is_granted_what_is_left():
    budget = Budget(Limits(tokens=100))
    granted = budget.reserve(80)
    assert granted == 80
    assert budget.reserve(80) == 20
    with pytest.raises(LimitExceeded) as error:
        budget.reserve(1)
    assert error.value.limit == "tokens"
    budget.charge(granted, Usage(prompt_tokens=10, completion_tokens=5))
    assert budget.reserve(1000) == 100 - 20 - 15


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=30))
def test_concurrent_reservations_never_overshoot(calls):
    budget = Budget(Limits(tokens=200))
    open_calls = []
    for wanted, used in calls:
        try:
            open_calls.append((budget.reserve(wanted), used))
        except LimitExceeded:
            break
    for granted, used in open_calls:
        budget.charge(granted, Usage(completion_tokens=min(used, granted)))
    assert budget.spent.total_tokens <= 200 and budget.reserved_tokens == 0


def test_a_child_takes_from_its_parents():
    parent = Budget(Limits(tokens=100, calls=3))
    child = Budget(Limits(tokens=60), parent)
    assert child.reserve(100) == 60
    assert parent.reserve(100) == 40
    assert parent.calls == 2
    sibling = Budget(Limits(), parent)
    with pytest.raises(LimitExceeded):
        sibling.reserve(1)


def test_a_refused_reservation_changes_nothing():
    parent = Budget(Limits(calls=1))
    child = Budget(Limits(tokens=10), parent)
    child.reserve(10)
    before = (parent.calls, parent.reserved_tokens, child.calls, child.reserved_tokens)
    with pytest.raises(LimitExceeded):
        child.reserve(1)
    assert before == (parent.calls, parent.reserved_tokens, child.calls, child.reserved_tokens)


def test_calls_money_and_depth_are_limits_too():
    budget = Budget(Limits(calls=1, cost_usd=0.5, depth=2))
    with pytest.raises(LimitExceeded, match="nested 3 deep"):
        budget.reserve(1, depth=3)
    budget.charge(budget.reserve(1), Usage(cost_usd=0.6))
    with pytest.raises(LimitExceeded, match="call budget exhausted: 1 call made"):
        budget.reserve(1)
    paid = Budget(Limits(cost_usd=0.5))
    paid.charge(paid.reserve(1), Usage(cost_usd=0.6))
    with pytest.raises(LimitExceeded, match=r"0\.6000 of 0\.5000 USD"):
        paid.reserve(1)


@pytest.mark.parametrize("name", ["tokens", "calls", "seconds", "cost_usd", "depth"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"the limit {name} is 0"):
        Limits(**{name: 0})
