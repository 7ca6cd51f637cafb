"""What can go wrong under every pattern: each attempt ends within its limits, in a Trace that says what happened."""

import asyncio
import json

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ModelError
from firsthand.loop.budget import Limits
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, ToolCall, assistant
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace

PATTERNS = (
    *("direct", "chain", "cot", "self_consistency", "react", "react_cot", "parallel", "orchestrate"),
    *("evaluator_optimizer", "route", "plan_execute", "code_act"),
    *("react:native=true", "cot:extract=true", "react_cot:first=cot"),
    *("tot:breadth=2", "tot_dfs:visits=5", "reflexion", "reflexion(react):trials=2", "parallel(tot:breadth=1):n=2"),
    *("self_consistency(react):samples=3", "orchestrate(react)", "parallel(plan_execute(cot)):n=2", "route(react,cot)"),
)
EXAMPLES = [{"question": "What is 1 + 1?", "answer": "#### 2"}]
SUM = Task("1", "What is 3 * 4?", hint="a number", metadata={"examples": EXAMPLES}, secret={"answer": "12"})


@tool(effect="write")
def python(code: str) -> str:
    """Run Python and return what it prints."""
    return "12"


def flood_of_lines():
    """More of all that a pattern might act on than fits one answer."""
    return "\n".join(f"{i}. step\nAction: calculator[{i}]\n```python\nprint({i})\n```" for i in range(200))


def flood_of_calls(many=100):
    return assistant("", *(ToolCall(f"c{i}", "calculator", {"expression": "1"}) for i in range(many)))


def broken_json():
    text = '1. {"step": \nThought: x\nAction: calculator[{"expression": ]\nFinal'
    return assistant(text, ToolCall("c", "calculator", {}, invalid='{"expression": '))


def unknown_tool():
    text = "1. google it\nAction: google[3 * 4]\n```python\nimport google\n```"
    return assistant(text, ToolCall("c", "google", {"q": "3 * 4"}))


FAULTS = {
    "says the same for ever": lambda: "1. again\nThought: again.\nAction: calculator[3*4]\n```python\nprint(3*4)\n```",
    "returns nothing": lambda: assistant(""),
    "returns no parts": lambda: Message("assistant", ()),
    "calls unknown tools": unknown_tool,
    "emits broken JSON": broken_json,
    "writes without end": flood_of_lines,
    "calls without end": flood_of_calls,
    "says odd characters": lambda: "\x00\ud800\u202e{}{0}%s[[[((( \n" * 50,
}


async def attempt(text, model, limits=None, journal=None):
    pattern, options = catalog.pattern(text)
    agent = Agent(text, model, pattern, options, (calculator, python), limits=limits or Limits())
    return await rollout(agent, SUM, journal=journal)


def alone():
    """Whether no task but the running one is left."""
    return asyncio.all_tasks() == {asyncio.current_task()}


def check(trace):
    """What holds for every trace."""
    assert trace.stop_reason in ("done", "error", "tokens", "calls", "seconds", "depth")
    if trace.stop_reason == "error" or trace.error is not None:
        assert trace.error is not None
        assert trace.stop_reason == "error" or (trace.error.kind == "LimitExceeded" and not trace.calls)
    assert trace.error is None or trace.error.traceback is None, "a bug of ours, not a fault of the model"
    assert trace.stop_reason != "done" or isinstance(trace.answer, str)
    assert trace.stop_reason != "error" or trace.answer is None
    assert Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    opened = [event.data["name"] for event in trace.events if event.kind == "branch" and event.data["status"] == "open"]
    ended = [event.data["name"] for event in trace.events if event.kind == "branch" and event.data["status"] != "open"]
    assert set(opened) <= set(ended)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_model_that_misbehaves_ends_in_a_trace(pattern, fault):
    reply = FAULTS[fault]()

    async def go():
        trace = await attempt(pattern, Scripted(lambda *_: reply), Limits(calls=60))
        assert alone()
        return trace

    trace = asyncio.run(go())
    check(trace)
    assert len(trace.calls) <= 60 and trace.stop_reason in ("done", "calls")


@pytest.mark.slow
def test_of_ten_thousand_calls_in_a_turn_few_are_run_and_all_are_answered():
    replies = iter([flood_of_calls(10_000), "The answer is 12"])
    trace = asyncio.run(attempt("react:native=true", Scripted(lambda *_: next(replies))))
    check(trace)
    ran = [call.kind for call in trace.calls].count("tool")
    assert trace.answer == "12" and ran < 200
    assert sum(node.message.role == "tool" for node in trace.nodes) == 10_000
    assert [event.data for event in trace.events] == [{"asked": 10_000, "run": ran}]


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("limit", [Limits(calls=2), Limits(tokens=150), Limits(seconds=0.02), Limits(depth=1)])
def test_a_limit_that_strikes_in_the_middle_is_the_stop_reason(pattern, limit):
    async def go():
        model = Scripted(lambda *_: FAULTS["says the same for ever"](), delay_s=0.015 if limit.seconds else 0)
        trace = await attempt(pattern, model, limit)
        assert alone()
        return trace

    trace = asyncio.run(go())
    check(trace)
    assert trace.stop_reason in {"done", *limit.to_json()}
    assert len(trace.calls) <= 2 or not limit.calls
    assert trace.usage.total_tokens <= 150 + 400 or not limit.tokens


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_model_that_fails_is_an_error_in_the_trace_or_an_outcome(pattern):
    async def go():
        trace = await attempt(pattern, Scripted(error=ModelError("out of order")), Limits(calls=60))
        assert alone()
        return trace

    trace = asyncio.run(go())
    check(trace)
    told = trace.error.message if trace.error else trace.answer
    assert "out of order" in told


class Stalling(Scripted):
    """Answers `lively` requests and then no more, until `go` is set."""

    def __init__(self, lively):
        super().__init__(lambda *_: "1. again\nThought: go on.\nAction: calculator[3*4]\n```python\nprint(3*4)\n```")
        self.lively, self.stalled, self.go = lively, asyncio.Event(), asyncio.Event()

    async def _take(self, asked):
        await super()._take(asked)
        if len(self.asked) > self.lively:
            self.stalled.set()
            await self.go.wait()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_interrupted_attempt_leaves_no_task_and_is_finished_later(pattern):
    async def go():
        journal, model = MemoryJournal(), Stalling(lively=1)
        running = asyncio.create_task(attempt(pattern, model, Limits(calls=60), journal))
        waiting = asyncio.create_task(model.stalled.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        cut = not running.done()
        running.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert alone() and running.cancelled() == cut
        kept = len(journal.entries)
        model.go.set()
        again = await attempt(pattern, model, Limits(calls=60), journal)
        whole = await attempt(pattern, model, Limits(calls=60))
        assert alone()
        return cut, kept, again, whole

    cut, kept, again, whole = asyncio.run(go())
    check(again)
    assert (again.answer, len(again.nodes)) == (whole.answer, len(whole.nodes))
    assert [call.id for call in sorted(again.calls, key=lambda c: c.id)] == sorted(call.id for call in whole.calls)
    assert sum(call.replayed for call in again.calls) == kept or not cut


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_shows_a_secret_to_a_model(pattern):
    secret = Task("1", SUM.prompt, hint="a number", metadata=SUM.metadata, secret={"answer": "SECRET"})
    model = Scripted({"numbered list": "1. a", "": "Final Answer: 12. The answer is 12"})
    found, options = catalog.pattern(pattern)
    agent = Agent("a", model, found, options, (calculator, python))
    trace = asyncio.run(rollout(agent, secret))
    assert model.asked and "SECRET" not in str(model.asked) and trace.error is None
