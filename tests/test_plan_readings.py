"""A plan that is written anew reads again what another call may have changed, and nothing else."""

import asyncio
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.loop.approval import Approval
from firsthand.patterns.plan_mode import plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import Effect, tool_from_function

ALL = Approval({"irreversible": "allow"})


class Account:
    """A balance of 100, its tools, and how often it was read. `ends` is how a payment of more than 50 ends."""

    def __init__(self, effect: Effect = "external", ends: str = "") -> None:
        self.left, self.reads = 100, 0

        def balance(of: str = "me") -> str:
            self.reads += 1
            return str(self.left)

        def pay(amount: int) -> str:
            if amount > 50 and ends == "refused":
                raise ToolError("too much")
            self.left -= amount
            if amount > 50 and ends == "late":
                raise OutcomeUnknown("no answer came")
            return "paid"

        self.tools = (tool_from_function(balance, effect="read"), tool_from_function(pay, effect=effect))

    def answer(self, *plans: str) -> Any:
        model = Scripted([f"```\n{each}\n```" for each in plans])
        agent = Agent("a", model, plan_mode, tools=self.tools, approval=ALL)
        return asyncio.run(rollout(agent, Task("t", "Pay, and tell what is left."))).answer


@pytest.mark.parametrize("effect", ["write", "external", "irreversible"])
def test_what_was_read_before_a_change_is_read_again_behind_it(effect: Effect) -> None:
    account = Account(effect)
    first = "b = balance()\npay(amount=30)\nx = 1 / 0"
    assert account.answer(first, 'pay(amount=30)\nanswer(f"{balance()} left")') == "70 left"
    assert account.left == 70 and account.reads == 2


def test_a_plan_that_begins_as_the_one_before_sees_what_that_one_saw() -> None:
    account = Account()
    begun = "a = balance()\npay(amount=30)\nb = balance()\npay(amount=30)\nc = [balance(), balance()]\n"
    assert account.answer(f"{begun}x = 1 / 0", f'{begun}answer(f"{{a}} {{b}} {{c}}")') == '100 70 ["40","40"]'
    assert account.left == 40 and account.reads == 4


def test_a_reading_behind_fewer_more_or_other_changes_is_another_one() -> None:
    begun = "pay(amount=10)\npay(amount=10)\nx = balance()\nx = 1 / 0"
    for again, reads in (
        ("pay(amount=10)\npay(amount=10)", 1), ("pay(amount=10)", 2), ("pay(amount=10)\npay(amount=10)\npay(amount=10)", 2),
        ("pay(amount=10)\npay(amount=20)", 2), ("pay(amount=20)", 2), ("x = 1", 2),
    ):  # fmt: skip
        account = Account()
        assert account.answer(begun, f"{again}\nanswer(balance())") == str(account.left), again
        assert account.reads == reads, again


def test_readers_and_readings_without_a_change_between_are_not_asked_again() -> None:
    account = Account()
    begun = 'x = balance()\ny = balance(of="you")\n'
    assert account.answer(f"{begun}x = 1 / 0", f"{begun}answer([x, y])") == '["100", "100"]' and account.reads == 2


@pytest.mark.parametrize(("effect", "ends", "left", "reads"), [
    ("external", "late", 40, 2), ("external", "refused", 100, 1), ("write", "late", 40, 2), ("irreversible", "late", 40, 2),
])  # fmt: skip
def test_what_was_read_before_a_payment_that_may_have_been_made_is_read_again(
    effect: Effect, ends: str, left: int, reads: int
) -> None:
    account = Account(effect, ends)
    assert account.answer("b = balance()\npay(amount=60)", "answer(balance())") == str(left)
    assert (account.left, account.reads) == (left, reads)


def test_a_change_is_made_once_behind_whatever_other_changes() -> None:
    account = Account()
    again = "pay(amount=20)\npay(amount=10)\nanswer(balance())"
    assert account.answer("pay(amount=10)\npay(amount=20)\nx = 1 / 0", again) == "70" and account.left == 70
    account = Account(ends="late")
    again = "pay(amount=10)\nanswer(balance())"
    assert account.answer("pay(amount=10)\npay(amount=60)", again) == "30" and account.left == 30
