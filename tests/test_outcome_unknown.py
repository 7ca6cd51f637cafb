"""A lasting call that was late or broke may have taken effect: guards count it, and no plan makes it again."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from firsthand import Agent, Task
from firsthand.declaration import Declaration
from firsthand.errors import OutcomeUnknown, ToolError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall, ToolResult
from firsthand.patterns.plan_mode import _Caller, plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import Kept
from firsthand.safety.plans.plan_program import PlanError
from firsthand.safety.policy import CallPolicy
from firsthand.safety.rules.case import same_call
from firsthand.tool import tool_from_function
from firsthand.tool_calls import has_run
from firsthand.trace import Call

ALL = Approval({"irreversible": "allow"})
PAID: list[float] = []
MAY = "; it may have taken effect: find out before you call it again"


def payer(ends="late", effect="external"):
    """A tool `pay` that notes the amount, and ends in one of several ways."""
    PAID.clear()

    async def pay(amount: float, note: str = "") -> str:
        if ends == "said" and amount > 5:
            raise ToolError("the account is closed")
        PAID.append(amount)
        if ends == "answered":
            raise OutcomeUnknown("the bank said 504", answered=True)
        if ends == "late":
            await asyncio.sleep(60)
        if ends == "broken":
            raise RuntimeError("connection lost")
        return "paid"

    declares = Declaration(spends=("amount",))
    return tool_from_function(pay, effect=effect, timeout_s=0.05, declares=declares)


def attempt(tool, pattern, replies=(), guard=None, journal=None):
    agent = Agent("a", Scripted(list(replies)), pattern, tools=(tool,), guard=guard, approval=ALL)
    return asyncio.run(rollout(agent, Task("t", "Pay 10 euro."), journal=journal or MemoryJournal()))


async def twice(task, ctx):
    made = [await ctx.call(ToolCall("c", "pay", {"amount": amount})) for amount in (10, 10.0)]
    return json.dumps([each.content for each in made])


@pytest.mark.parametrize("effect", ["external", "irreversible", "write", "read"])
@pytest.mark.parametrize(("ends", "said"), [
    ("late", "pay did not finish within 0.05 s"), ("broken", "pay failed: RuntimeError: connection lost"),
    ("said", "the account is closed"), ("answered", "the bank said 504"),
])  # fmt: skip
def test_a_late_or_broken_lasting_call_may_have_taken_effect(ends, said, effect):
    unsure = ends != "said" and effect in ("external", "irreversible")
    trace = attempt(payer(ends, effect), twice)
    assert [has_run(call) for call in trace.calls] == [unsure] * 2
    assert json.loads(trace.answer) == [f"Error: {said}{MAY if unsure and ends != 'answered' else ''}"] * 2


def test_the_errors_of_a_tool_tell_what_it_did_from_what_nobody_knows():
    for ends, error in (("late", OutcomeUnknown), ("broken", OutcomeUnknown), ("said", ToolError)):
        with pytest.raises(ToolError) as caught:
            asyncio.run(payer(ends)({"amount": 10}))
        assert type(caught.value) is error

    def broken() -> str:
        raise KeyError("x")

    with pytest.raises(OutcomeUnknown):
        asyncio.run(tool_from_function(broken, effect="external")({}))


@pytest.mark.parametrize("ends", ["late", "broken", "answered", "said"])
def test_once_only_denies_a_call_again_that_may_have_taken_effect_in_a_resumed_attempt_and_a_fork_too(ends):
    journal, guard = MemoryJournal(), CallPolicy(rules=("once_only",))
    first = attempt(payer(ends), twice, guard=guard, journal=journal)
    denied = [0, int(ends != "said")]
    assert [str(call.error).count("rule once_only") for call in first.calls] == denied
    assert [10] * denied[1] == PAID
    for kept in (journal, Kept(MemoryJournal(), first, {first.calls[0].id: first.calls[0]})):
        again = attempt(payer(ends), twice, guard=guard, journal=kept)
        assert PAID == [] and [str(call.error).count("rule once_only") for call in again.calls] == denied
        assert has_run(again.calls[0]) is (ends != "said")


# -- plan mode --


def plan(text):
    return f"```\n{text}\n```"


PAY = 'pay(amount=10)\nanswer("done")'
UNSURE = "pay may have taken effect and was not called again: find out before you repeat the task"


def errors(trace):
    return [event.data["error"] for event in trace.events if event.kind == "plan" and "error" in event.data]


@pytest.mark.parametrize("ends", ["late", "broken"])
@pytest.mark.parametrize("effect", ["external", "irreversible"])
def test_no_later_plan_makes_a_call_again_that_may_have_taken_effect(ends, effect):
    again = plan('pay(amount=10.0, note="")\nanswer("done")')
    trace = attempt(payer(ends, effect), plan_mode, [plan(PAY), again, plan(PAY)])
    assert PAID == [10] and trace.answer == UNSURE
    assert (
        errors(trace)
        == ["the call of pay has no result but may have taken effect: do not make it again"]
        + ["the call of pay may have taken effect before, so it is not made again"] * 2
    )


@pytest.mark.parametrize(("effect", "paid"), [("external", [10]), ("irreversible", [10]), ("write", [10, 10])])
def test_a_lasting_call_that_gave_a_result_is_not_made_again_however_a_later_plan_writes_it(effect, paid):
    again = plan('answer(pay(amount=10.0, note=""))')
    trace = attempt(payer("well", effect), plan_mode, [plan("pay(amount=10)\nx = 1 / 0"), again])
    assert paid == PAID and trace.answer == "paid"


def test_a_default_that_the_tool_fills_in_by_itself_makes_no_other_call():
    remote = replace(payer("well"), validate=dict, defaults={"note": "none"})
    assert same_call(remote, {"amount": 10}) == same_call(remote, {"amount": 10.0, "note": "none"})
    assert same_call(remote, {"amount": 10}) != same_call(remote, {"amount": 10, "note": "rent"})


def test_a_call_that_is_refused_is_not_taken_for_an_equal_one_that_was_made():
    async def pay(amount: float) -> str:
        if PAID:
            raise ToolError("the account is closed")
        PAID.append(amount)
        return "paid"

    PAID.clear()
    paying = tool_from_function(pay, effect="external")
    both = plan("pay(amount=10)\npay(amount=10)")
    trace = attempt(paying, plan_mode, [both] * 3)
    assert PAID == [10] and errors(trace) == ["the call of pay was refused or failed"] * 3 and trace.answer == ""


def test_equal_lasting_calls_of_one_plan_are_each_made_once():
    twice_paid = plan("pay(amount=10)\npay(amount=10.0)\nx = 1 / 0")
    trace = attempt(payer("well"), plan_mode, [twice_paid, plan('pay(amount=10.0)\npay(amount=10)\nanswer("done")')])
    assert PAID == [10, 10] and trace.answer == "done"


def test_a_plan_without_the_call_gives_its_own_answer_and_another_call_is_made():
    trace = attempt(payer(), plan_mode, [plan(PAY), plan('answer("The payment is open.")')])
    assert PAID == [10] and trace.answer == "The payment is open."
    trace = attempt(payer(), plan_mode, [plan(PAY), plan("pay(amount=11)"), plan("x = 1 / 0")])
    assert PAID == [10, 11] and trace.answer == UNSURE


@pytest.mark.parametrize("effect", ["read", "write"])
def test_a_call_without_a_lasting_effect_is_made_again_by_the_next_plan(effect):
    trace = attempt(payer("late", effect), plan_mode, [plan(PAY)] * 3)
    assert PAID == [10] * 3 and trace.answer == ""


def test_a_call_that_its_tool_refused_may_be_made_again_and_one_with_wrong_arguments_is_an_error():
    trace = attempt(payer("said"), plan_mode, [plan(PAY)] * 3)
    assert errors(trace) == ["the call of pay was refused or failed"] * 3 and trace.answer == ""
    trace = attempt(payer("said"), plan_mode, [plan('pay(amount="much")'), plan("pay(amount=5)\nanswer(1)")])
    assert PAID == [5] and trace.answer == "1"


def test_a_call_that_is_refused_is_not_taken_for_one_that_was_made_during_it():
    inner = Call("0:1", "tool", None, 0.0, 0.0, "another request", detail={"name": "note", "ran": True})

    class Refusing:
        attempt = SimpleNamespace(calls=[])

        async def call(self, call):
            self.attempt.calls.append(inner)
            return ToolResult("c", call.name, "Error: no", is_error=True)

    caller = _Caller(Refusing(), {"pay": payer()})
    with pytest.raises(PlanError, match="the call of pay was refused or failed"):
        asyncio.run(caller.call("pay", {"amount": 10}, {}))
    assert not caller.unsure


def test_a_call_whose_result_was_withheld_is_not_made_again():
    class Withholding:
        name = "withholding"

        def result(self, view, tool, result):
            return GuardVerdict.blocked(self.name, "no")

    assert attempt(payer("well"), plan_mode, [plan(PAY)] * 3, guard=Withholding()).answer == UNSURE and PAID == [10]
    assert attempt(payer("well", "write"), plan_mode, [plan(PAY)] * 3, guard=Withholding()).answer == ""
    assert PAID == [10] * 3


def test_a_resumed_attempt_does_not_make_a_call_again_that_was_interrupted():
    journal = MemoryJournal()
    replies = [plan(PAY)] * 3

    async def killed():
        agent = Agent("a", Scripted(list(replies)), plan_mode, tools=(slow,), approval=ALL)
        running = asyncio.ensure_future(rollout(agent, Task("t", "Pay 10 euro."), journal=journal))
        while not PAID:
            await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])

    slow = payer("late", "irreversible")
    object.__setattr__(slow, "timeout_s", 30.0)
    asyncio.run(killed())
    assert PAID == [10]
    trace = attempt(payer("well", "irreversible"), plan_mode, replies, journal=journal)
    assert PAID == [] and trace.answer == UNSURE
