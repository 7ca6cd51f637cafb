"""What a pattern may do: branches are values, budgets hold, faults are tried again, and replay repeats nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import LimitExceeded, ModelError, ToolError, TransientError
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.concurrency import Retry
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Completion, Prompt, Sampling, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Trace

TASK = Task("1", "What is 3 * 4?", secret={"answer": "12"})
QUICK = Retry(attempts=3, first_wait_s=0.001)


def numbered(messages: Any, sampling: Sampling, index: int) -> str:
    """An answer that follows from the request alone, so that it does not matter who asks first."""
    return f"{len(messages)} {sampling.seed} {index}"


def attempt(pattern: Any, model: Any = None, journal: MemoryJournal | None = None, **agent: Any) -> Trace:
    model = model or Scripted(numbered)
    return asyncio.run(rollout(Agent("a", model, pattern, **{"retry": QUICK, **agent}), TASK, journal=journal, seed=3))


def lines(trace: Trace) -> list[list[str]]:
    return [[message.text for message in branch] for branch in trace.branches()]


# -- branches --


def test_going_back_is_using_the_old_name() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        start = ctx.say("start")
        left = start.say("left")
        right = start.say("right").say("further")
        assert [message.text for message in start.messages] == ["start"]
        assert [message.text for message in left.messages] == ["start", "left"]
        return right.say("end").text

    trace = attempt(pattern)
    assert trace.answer == "end"
    assert lines(trace) == [["start", "left"], ["start", "right", "further", "end"]]
    assert [node.message.text for node in trace.nodes].count("start") == 1


def test_samples_are_siblings_under_one_prompt() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        first, second, third = await ctx.say("q").sample(3, temperature=1.0)
        deeper = await second.say("go on").generate()
        return "|".join([first.text, third.text, deeper.text])

    trace = attempt(pattern)
    assert [node.parent for node in trace.nodes] == [None, 0, 0, 0, 2, 4]
    assert trace.calls[0].nodes == (1, 2, 3) and trace.calls[0].at == 0
    assert len(list(trace.branches())) == 3
    assert trace.calls[0].usage.prompt_tokens == 1  # the common prompt is counted once


def test_a_system_message_opens_every_conversation() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.group([ctx.say("a").generate(), ctx.say("b").generate()])
        return ctx.text

    trace = attempt(pattern, system="Be brief.")
    assert trace.answer == "Be brief."
    assert [branch[0].role for branch in trace.branches()] == ["system", "system"]
    assert [node.message.role for node in trace.nodes].count("system") == 1


def test_the_agents_system_message_takes_the_place_of_the_tasks() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return " | ".join(message.text for message in ctx.messages)

    said = (system("Be long."), user("1 + 1"), assistant("2"))
    task = Task("t", "q", conversation=said)
    for given, opening in ((None, "Be long."), ("Be brief.", "Be brief.")):
        agent = Agent("a", Scripted(["x"]), pattern, system=given)
        assert asyncio.run(rollout(agent, task)).answer == f"{opening} | 1 + 1 | 2"


def test_a_context_before_the_first_message_says_so() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return ctx.text

    trace = attempt(pattern)
    assert trace.error is not None and trace.error.message == "this Context has no message yet"


def test_sampling_changes_hold_where_they_were_made() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        warm = ctx.say("q").sampled(temperature=0.7)
        await warm.generate(max_tokens=5)
        await warm.generate()
        await ctx.say("q").generate()
        return ""

    settings = [call.detail["sampling"] for call in attempt(pattern).calls]
    assert [each["temperature"] for each in settings] == [0.7, 0.7, 0.0]
    assert [each["max_tokens"] for each in settings] == [5, 512, 512]
    assert len({each["seed"] for each in settings}) == 3


def test_a_seed_that_was_asked_for_is_kept() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say("q").generate(seed=77)).text

    assert attempt(pattern).answer == "1 77 0"


async def tree(task: Task, ctx: Context, *, jitter: int = 0) -> str:
    """Branches in branches, each of which is slowed down at random."""
    rng = random.Random(jitter)

    async def branch(here: Context, depth: int) -> str:
        await asyncio.sleep(rng.random() / 300)
        here = await here.say(f"depth {depth}").generate(temperature=1.0)
        below = await here.group(branch(here.say(f"child {i}"), depth - 1) for i in range(2)) if depth else []
        return f"({here.text} {' '.join(below)})"

    return await branch(ctx.say(task.prompt), 2)


def test_names_seeds_and_answers_do_not_depend_on_timing() -> None:
    traces = [attempt(tree, options={"jitter": jitter}) for jitter in range(4)]
    first = sorted((call.id, call.request) for call in traces[0].calls)
    assert len(first) == 7 and len({id for id, _ in first}) == 7
    assert all(trace.answer == traces[0].answer for trace in traces)
    assert all(sorted((call.id, call.request) for call in trace.calls) == first for trace in traces)
    assert len({tuple(call.id for call in trace.calls) for trace in traces}) > 1  # they did run in different orders


def test_groups_one_after_the_other_have_names_of_their_own() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        asked = ctx.say("q")
        first = await ctx.group(asked.generate() for _ in range(2))
        second = await ctx.group(asked.generate() for _ in range(2))
        return str(len({each.text for each in (*first, *second)}))

    trace = attempt(pattern)
    assert sorted(call.id for call in trace.calls) == ["0.0:0", "0.1:0", "1.0:0", "1.1:0"]
    assert trace.answer == "4"  # each place has a seed of its own


def test_an_attempt_inside_a_group_has_names_of_its_own() -> None:
    async def inner(task: Task, ctx: Context) -> str:
        (text,) = await ctx.group([ctx.say("inner").generate()])
        return text.text

    async def outer(task: Task, ctx: Context) -> str:
        async def sub() -> str:
            trace = await rollout(Agent("inner", Scripted(numbered), inner), Task("sub", "?"))
            assert [call.id for call in trace.calls] == ["0.0:0"]
            return trace.answer or ""

        before = await ctx.say("q").generate()
        answers = await ctx.group([sub(), sub()])
        after = await before.say("r").generate()
        assert answers[0] == answers[1]
        return after.text

    trace = attempt(outer)
    assert trace.error is None, trace.error
    assert [call.id for call in trace.calls] == [":0", ":1"]


def test_notes_are_data_as_they_were() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        votes = {("a", 1): 1}
        ctx.note("votes", kind="majority", votes=votes, seen={3}, ctx=ctx)
        votes["b", 2] = 9
        return "x"

    [event] = attempt(pattern).events
    assert event.kind == "votes" and event.data["kind"] == "majority"
    assert event.data["votes"] == {"('a', 1)": 1} and event.data["seen"] == [3]
    assert isinstance(event.data["ctx"], str)


# -- budgets --


async def forever(task: Task, ctx: Context) -> str:
    ctx = ctx.say("go")
    while True:
        ctx = (await ctx.generate()).say("again")


@pytest.mark.parametrize(
    ("limits", "stop_reason"),
    [
        (Limits(tokens=200), "tokens"),
        (Limits(calls=3), "calls"),
        (Limits(seconds=0.3), "seconds"),
        (Limits(cost_usd=0.01), "cost_usd"),
    ],
)
def test_each_limit_ends_the_attempt_with_its_name(limits: Limits, stop_reason: str) -> None:
    class Priced(Scripted):
        async def complete(self, prompt: Prompt, sampling: Sampling, **rest: Any) -> list[Completion]:
            await asyncio.sleep(0.002)
            found = await super().complete(prompt, sampling, **rest)
            return [replace(each, usage=replace(each.usage, cost_usd=0.004)) for each in found]

    trace = attempt(forever, Priced(numbered), limits=limits)
    assert (trace.stop_reason, trace.error, trace.answer) == (stop_reason, None, None)
    assert [(event.kind, event.data["limit"]) for event in trace.events] == [("limit", stop_reason)]
    assert trace.calls


def test_nesting_without_end_is_stopped_by_depth() -> None:
    async def nest(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("q").generate()
        return (await ctx.group([nest(task, ctx)]))[0]

    trace = attempt(nest, limits=Limits(depth=5))
    assert trace.stop_reason == "depth" and len(trace.calls) == 6


@pytest.mark.parametrize(("limits", "most"), [(Limits(calls=7), 7), (Limits(tokens=2000), 4)])
def test_a_fan_out_of_200_overshoots_no_limit(limits: Limits, most: int) -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        start = ctx.say("q")

        async def branch() -> str:
            try:
                return (await start.generate(max_tokens=500)).text
            except LimitExceeded:
                return ""

        return " ".join(filter(None, await ctx.group(branch() for _ in range(200))))

    model = Scripted(lambda messages, sampling, index: "word " * 600, delay_s=0.01)
    trace = attempt(pattern, model, limits=limits)
    assert len(model.asked) == most
    assert trace.usage.total_tokens <= (limits.tokens or 1 << 30)
    assert trace.stop_reason == ("calls" if limits.calls else "tokens")


def test_many_samples_share_what_is_left_and_no_fewer_than_a_token_each() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return str(len(await ctx.say("q").sample(10)))

    fits = attempt(pattern, Scripted(lambda *_: "word " * 600), limits=Limits(tokens=25))
    assert fits.answer == "10" and fits.usage.completion_tokens == 20
    model = Scripted(lambda *_: "word")
    assert attempt(pattern, model, limits=Limits(tokens=9)).stop_reason == "tokens" and model.asked == []


def test_no_samples_at_all_is_a_clear_mistake() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return str(await ctx.say("q").sample(0))

    trace = attempt(pattern)
    assert trace.error is not None and trace.error.message == "n is 0: ask for 1 answer or more"


def test_a_budget_inside_the_budget_can_run_out_alone() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        part = ctx.within(Limits(calls=2))
        with pytest.raises(LimitExceeded) as limit:
            await forever(task, part)
        assert limit.value.limit == "calls"
        return (await ctx.say("still here").generate()).text

    trace = attempt(pattern, limits=Limits(calls=3))
    assert trace.stop_reason == "done" and len(trace.calls) == 3


def test_an_inner_budget_takes_from_the_outer_one() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return await forever(task, ctx.within(Limits(calls=100)))

    trace = attempt(pattern, limits=Limits(calls=2))
    assert trace.stop_reason == "calls" and len(trace.calls) == 2


def test_the_seconds_of_an_inner_budget_end_its_calls_and_no_others() -> None:
    @tool(effect="read")
    async def doze() -> str:
        """Sleep."""
        await asyncio.sleep(30)
        return "awake"

    async def pattern(task: Task, ctx: Context) -> str:
        with pytest.raises(LimitExceeded, match="time for this part") as limit:
            await ctx.within(Limits(seconds=0.02)).call(ToolCall("1", "doze", {}))
        assert limit.value.limit == "seconds"
        hurried = ctx.within(Limits(seconds=0.02)).within(Limits(seconds=60))
        await asyncio.sleep(0.03)
        with pytest.raises(LimitExceeded):
            await hurried.say("q").generate()
        return (await ctx.say("q").generate()).text

    trace = attempt(pattern, Scripted(numbered, delay_s=0.001), tools=(doze,))
    assert trace.error is None and trace.stop_reason == "done"


# -- faults --


def test_passing_faults_are_tried_again_and_noted() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say("q").generate()).text

    trace = attempt(pattern, Scripted(["fine"], failures=2))
    assert trace.answer == "fine" and len(trace.calls) == 1
    assert [(event.kind, event.data["attempt"]) for event in trace.events] == [("retry", 1), ("retry", 2)]
    assert "more failures follow" in trace.events[0].data["error"]


def test_a_fault_that_stays_is_a_failure_of_the_attempt() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say("q").generate()).text

    trace = attempt(pattern, Scripted(["never"], failures=99))
    assert trace.stop_reason == "error" and trace.error is not None
    assert (trace.error.kind, trace.error.traceback) == ("TransientError", None)
    assert len([event for event in trace.events if event.kind == "retry"]) == QUICK.attempts - 1
    assert trace.calls[0].error == trace.error.message


def test_a_pattern_may_catch_what_a_model_could_not_do() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        try:
            await ctx.say("q").generate()
        except ModelError:
            return "gave up"
        return ""

    trace = attempt(pattern, Scripted(error=ModelError("no such model")))
    assert trace.answer == "gave up" and trace.error is None
    assert trace.calls[0].error == "no such model" and trace.calls[0].nodes == ()


# -- tools --


@tool(effect="read")
def echo(text: str) -> str:
    """Give the text back.

    Args:
        text: Any text.
    """
    return f"key: {text}"


ALLOW = Approval({"irreversible": "allow"})


def calling(*calls: ToolCall) -> Callable[..., Awaitable[str]]:
    async def pattern(task: Task, ctx: Context) -> str:
        return "\n".join([(await ctx.call(call)).content for call in calls])

    return pattern


def test_a_wrong_call_is_a_result_that_says_what_was_wrong() -> None:
    pattern = calling(
        ToolCall("1", "ecko", {"text": "a"}),
        ToolCall("2", "echo", {}, invalid='{"text": '),
        ToolCall("3", "echo", {"words": "a"}),
        ToolCall("4", "echo", {"text": "fine"}),
    )
    trace = attempt(pattern, tools=(echo,))
    unknown, broken, wrong, fine = (trace.answer or "").split("\n")
    assert unknown.startswith("Error: no tool 'ecko'; did you mean 'echo'?")
    assert broken == 'Error: the arguments of echo are not valid JSON: {"text": : write an object, {"text": "<string>"}'
    assert wrong.startswith('Error: echo was called with {"words": "a"}') and wrong.endswith("it takes text: string")
    assert fine == "key: fine"
    assert [call.error is None for call in trace.calls] == [False, False, False, True]
    assert trace.stop_reason == "done"


def counted(effect: Any, *, fails: bool = False) -> tuple[Tool, list[str]]:
    runs: list[str] = []

    @tool(effect=effect)
    def act(text: str) -> str:
        """Act."""
        runs.append(text)
        if fails:
            raise ToolError("not today")
        return f"{text} {len(runs)}"

    return act, runs


@pytest.mark.parametrize(("effect", "runs_in_all"), [("read", 1), ("write", 2), ("external", 1), ("irreversible", 1)])
def test_on_replay_a_tool_runs_again_only_if_it_builds_the_attempts_own_world(effect: Any, runs_in_all: int) -> None:
    act, runs = counted(effect)
    journal = MemoryJournal()
    pattern = calling(ToolCall("1", "act", {"text": "x"}))
    first = attempt(pattern, journal=journal, tools=(act,), approval=ALLOW)
    second = attempt(pattern, journal=journal, tools=(act,), approval=ALLOW)
    assert first.answer == "x 1" and second.answer == "x 1"  # what the model was told stands
    assert len(runs) == runs_in_all
    assert second.calls[0].replayed and not first.calls[0].replayed


def test_a_failure_is_replayed_too() -> None:
    act, runs = counted("external", fails=True)
    journal = MemoryJournal()
    pattern = calling(ToolCall("1", "act", {"text": "x"}))
    for _ in range(2):
        trace = attempt(pattern, journal=journal, tools=(act,), approval=ALLOW)
        assert trace.answer == "Error: not today" and trace.calls[0].error == trace.answer
    assert len(runs) == 1


@pytest.mark.parametrize("effect", ["external", "irreversible"])
def test_a_tool_that_was_interrupted_outside_is_not_repeated_and_the_model_is_told(effect: Any) -> None:
    act, runs = counted(effect)
    journal = MemoryJournal()
    pattern = calling(ToolCall("1", "act", {"text": "x"}))
    attempt(pattern, journal=journal, tools=(act,), approval=ALLOW)
    [key] = journal.entries
    journal.entries[key] = {"started": True}  # as a process leaves it that dies while the tool runs
    trace = attempt(pattern, journal=journal, tools=(act,), approval=ALLOW)
    assert trace.answer == "Error: act was interrupted while it ran; it may have taken effect, so it is not repeated"
    assert len(runs) == 1


@pytest.mark.parametrize("effect", ["external", "irreversible"])
def test_the_intent_is_on_record_before_a_tool_reaches_outside(effect: Any) -> None:
    journal = MemoryJournal()

    @tool(effect=effect)
    async def act() -> str:
        """Look into the journal."""
        return str(list(journal.entries.values()))

    trace = attempt(calling(ToolCall("1", "act", {})), journal=journal, tools=(act,), approval=ALLOW)
    assert trace.answer == "[{'started': True}]"


def test_another_call_at_the_same_place_is_not_answered_from_the_journal() -> None:
    act, runs = counted("external")
    journal = MemoryJournal()
    attempt(calling(ToolCall("1", "act", {"text": "x"})), journal=journal, tools=(act,))
    trace = attempt(calling(ToolCall("1", "act", {"text": "y"})), journal=journal, tools=(act,))
    assert runs == ["x", "y"] and not trace.calls[0].replayed


# -- replay --


async def everything(task: Task, ctx: Context) -> str:
    """Samples, branches, a scoring, a tool call and a retry."""
    chains = await ctx.say(task.prompt).sample(2, temperature=1.0)
    texts = await ctx.group(thought(chain, i) for i, chain in enumerate(chains))
    likelihoods = await ctx.say("which?").score(texts)
    ctx.note("scored", values=[each.logprob for each in likelihoods])
    result = await ctx.call(ToolCall("1", "echo", {"text": texts[0]}))
    return (await ctx.say(result).generate()).text


async def thought(ctx: Context, index: int) -> str:
    return (await ctx.say(f"more {index}").generate()).text


def without_times(trace: Trace) -> Json:
    body = trace.to_json() | {"id": ""}
    for record in [body, *body["calls"], *body["events"]]:
        for key in ("started_at", "duration_s", "started_s", "at_s", "replayed"):
            record.pop(key, None)
    return body


def test_a_replay_is_the_same_trace_without_a_question_asked() -> None:
    journal = MemoryJournal()
    first = attempt(everything, Scripted(numbered), journal, tools=(echo,))
    model = Scripted(numbered, error=ModelError("it must not be asked"))
    second = attempt(everything, model, journal, tools=(echo,))
    assert first.error is None and len(first.calls) == 6
    assert without_times(second) == without_times(first)
    assert all(call.replayed for call in second.calls) and not any(call.replayed for call in first.calls)
    assert model.asked == []


def test_a_replay_charges_the_budget_what_was_spent() -> None:
    journal = MemoryJournal()
    limits = Limits(tokens=60, calls=9)
    first = attempt(forever, Scripted(numbered), journal, limits=limits)
    second = attempt(forever, Scripted(numbered), journal, limits=limits)
    assert first.stop_reason == second.stop_reason == "tokens"
    assert without_times(second)["calls"] == without_times(first)["calls"]


def test_an_interrupted_attempt_goes_on_where_it_was() -> None:
    journal = MemoryJournal()

    class Mortal(Scripted):
        async def complete(self, *args: Any, **rest: Any) -> list[Completion]:
            if len(self.asked) == 4:
                raise KeyboardInterrupt
            return await super().complete(*args, **rest)

    with pytest.raises(KeyboardInterrupt):
        attempt(everything, Mortal(numbered, fingerprint="scripted"), journal, tools=(echo,))
    assert len(journal.entries) == 5
    model = Scripted(numbered, fingerprint="scripted")
    resumed = attempt(everything, model, journal, tools=(echo,))
    whole = attempt(everything, Scripted(numbered, fingerprint="scripted"), tools=(echo,))
    assert without_times(resumed) == without_times(whole)
    assert len(model.asked) == 1 and sum(call.replayed for call in resumed.calls) == 5


def test_a_message_of_ones_own_is_said_as_it_is() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        ctx = ctx.say(assistant("a", ToolCall("1", "echo", {}))).say(ToolResult("1", "echo", "b")).say("c", "system")
        assert [message.role for message in ctx.messages] == ["assistant", "tool", "system"]
        return ctx.last.parts[0].text if isinstance(ctx.last.parts[0], Text) else ""

    assert attempt(pattern).answer == "c"


def test_a_retry_waits_as_long_as_was_asked() -> None:
    class Busy(Scripted):
        async def complete(self, *args: Any, **rest: Any) -> list[Completion]:
            if not self.asked:
                await super().complete(*args, **rest)
                raise TransientError("busy", retry_after_s=0.03)
            return await super().complete(*args, **rest)

    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say("q").generate()).text

    trace = attempt(pattern, Busy(lambda *_: "x"))
    assert trace.events[0].data == {"attempt": 1, "error": "busy", "wait_s": 0.03}
    assert trace.calls[0].duration_s >= 0.03 and trace.usage == Usage(1, 0, 1)
