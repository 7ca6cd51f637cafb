"""The calls of one answer run for a bounded time together; the next answer has its own."""

import asyncio

import pytest

from firsthand.agent import Agent
from firsthand.errors import ToolError
from firsthand.loop.answer_time import RUN_S, check_time, one_answer, timed
from firsthand.loop.journal import MemoryJournal
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool


def test_calls_begin_until_their_time_is_spent() -> None:
    check_time(1.0)  # outside of an answer
    with one_answer() as spent:
        spent.spent_s = RUN_S - 0.1
        check_time(60.0)
        spent.spent_s = RUN_S
        check_time(RUN_S / 4 + 0.1)
        with pytest.raises(
            ToolError, match=r"not run, for the calls of this message ran 600 s, and 600 s were expected"
        ):
            check_time(60.0)
        with timed():
            check_time(60.0)  # what a call asks for has its own time
        assert spent.spent_s > RUN_S


def test_a_call_after_the_time_of_an_answer_is_not_run_and_the_next_answer_begins_anew() -> None:
    ran = []

    @tool(effect="write")
    def work(n: int) -> str:
        """Work."""
        ran.append(n)
        return "done"

    is_late = [True, False]

    async def make(task, ctx):
        calls = [ToolCall(str(n), "work", {"n": n}) for n in range(3)]
        first = await ctx.call_all(calls)
        with one_answer() as spent:
            spent.spent_s = RUN_S if is_late.pop(0) else 0.0
            late = await ctx.call(ToolCall("9", "work", {"n": 9}))
        again = await ctx.call_all(calls)
        return "|".join(each.content[:14] for each in (*first, late, *again))

    agent, journal = Agent("a", Scripted([]), make, tools=(work,)), MemoryJournal()
    trace = asyncio.run(rollout(agent, Task("1", "Q"), journal=journal))
    assert trace.answer == "done|done|done|Error: not run|done|done|done" and ran == [0, 1, 2, 0, 1, 2]
    resumed = asyncio.run(rollout(agent, Task("1", "Q"), journal=journal))
    assert resumed.answer == trace.answer and 9 not in ran, "on resuming it stays what the model was told"


def test_the_time_that_a_tool_runs_is_counted_in_its_answer() -> None:
    with one_answer() as spent, timed():
        assert spent.spent_s == 0
    assert 0 < spent.spent_s < 60
