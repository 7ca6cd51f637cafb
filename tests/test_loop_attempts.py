"""One attempt's record, call by call: what guards see, claim and note, what is journalled, streamed and told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.attempt import Attempt, cost_of
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Branch, Retry, derive_seed, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Json, ToolCall, ToolResult, assistant, user
from firsthand.model import Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Event, Trace

TASK = Task("1", "one two three", secret={"answer": "12"})


@tool(effect="external")
def send(text: str) -> str:
    """Send a text."""
    return f"sent {text}"


@tool(effect="read")
def find(text: str) -> str:
    """Find a text."""
    raise ValueError(f"no {text}")


def made(journal: MemoryJournal | None = None, *guards: Any, **agent: Any) -> Attempt:
    whole = Agent("a", Scripted(["x"]), direct, guard=tuple(guards), **agent)
    return Attempt(whole, (send, find), journal or MemoryJournal(), 3, task=TASK)


class Views:
    """A guard that keeps what it is shown, and does to it what it was made for."""

    def __init__(self, verdict: Any = None, do: Any = None) -> None:
        self.verdict, self.do = verdict or GuardVerdict.passed("views"), do
        self.seen: list[Any] = []
        self.results: list[Any] = []

    async def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
        self.seen.append(view)
        arguments["text"] = "changed in place"
        if self.do is not None:
            self.results.append(await self.do(view))
        verdict: GuardVerdict = self.verdict
        return verdict


def crossed(attempt: Attempt, effect: str = ":5", budget: Budget | None = None, node: int | None = None) -> Any:
    async def main() -> Any:
        enter_branch(Branch())
        return await Borders(attempt, effect, node, budget or Budget(Limits())).call(send, {"text": "t"})

    return asyncio.run(main())


def test_a_guard_is_shown_the_attempt_up_to_its_effect_and_copies_of_arguments() -> None:
    guard = Views()
    attempt = made(None, guard)

    async def fill() -> None:
        enter_branch(Branch())
        node = attempt.add_node(attempt.add_node(None, user("q")), assistant("a"))
        for effect in (":1", ":0", ":5", ":6"):
            attempt.record("tool", effect, node, 0.0, "key")

    asyncio.run(fill())
    assert crossed(attempt, node=1) == {"text": "t"}
    (view,) = guard.seen
    assert (view.task, view.agent, view.node) == (TASK.public(), "a", 1) and view.task.secret == {}
    assert [message.text for message in view.messages] == ["q", "a"]
    assert [call.id for call in view.calls] == [":0", ":1"] and [each.name for each in view.tools] == ["find", "send"]
    assert attempt.guard_passes == {"views call": 1} and attempt.events == []


def test_each_verdict_but_a_silent_pass_is_an_event_with_what_was_there_before() -> None:
    def events(verdict: GuardVerdict, task: Task = TASK) -> tuple[Any, Json]:
        attempt = made(None, Views(verdict))
        attempt.task = task
        try:
            passed = crossed(attempt)
        except Exception as error:
            passed = str(error)
        (event,) = attempt.events
        assert event.kind == "guard"
        return passed, event.data

    base = {"guard": "Views", "border": "call", "rule": "r", "effect": ":5", "at": None, "tool": "send"}
    other = {"text": "other"}
    assert events(GuardVerdict.passed("r", "why", {"k": 1})) == (
        {"text": "t"},
        {**base, "action": "pass", "reason": "why", "detail": {"k": 1}},
    )
    assert events(GuardVerdict.replaced("r", other)) == (
        other,
        {**base, "action": "replace", "reason": "", "original": {"text": "t"}},
    )
    assert events(GuardVerdict.blocked("r", "")) == (
        "send was not run: no reason was given (rule r)",
        {**base, "action": "block", "reason": "", "original": {"text": "t"}},
    )
    protected = replace(TASK, metadata={"protected": "asked"})
    assert events(GuardVerdict.replaced("r", other, "w", {"k": 1}), protected) == (
        other,
        {**base, "action": "replace", "reason": "w"},
    )
    for verdict, said in (
        ("fine", "the guard Views returned 'fine' at call: a GuardVerdict was expected"),
        (GuardVerdict.replaced("r", "x"), "the guard Views replaced call by 'x': see docs/guards.md for its type"),
    ):
        with pytest.raises(ConfigError) as refused:
            crossed(made(None, Views(verdict)))
        assert str(refused.value) == said


def test_refusals_at_each_border_say_what_was_stopped_and_why() -> None:
    class Stops:
        def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
            return GuardVerdict.blocked("r", "secret")

        def answer(self, view: Any, answer: str) -> GuardVerdict:
            return GuardVerdict.blocked("r", "rude")

        async def prompt(self, view: Any, messages: Any) -> GuardVerdict:
            return GuardVerdict.blocked("r", "long")

    borders = Borders(made(None, Stops()), ":0", None, Budget(Limits()))
    for crossing, said in (
        (borders.result(send, ToolResult("1", "send", "x")), "the result of send was withheld: secret (rule r)"),
        (borders.answer("x"), "the answer was blocked: rude (rule r)"),
        (borders.prompt("x"), "the prompt was blocked: long (rule r)"),
    ):
        with pytest.raises(Exception, match=r"rule r") as refused:
            asyncio.run(crossing)  # type: ignore[arg-type]
        assert str(refused.value) == said


def test_claims_add_up_over_branches_items_count_once_and_a_resumed_attempt_still_counts_them() -> None:
    async def claim(view: AttemptView) -> list[bool]:
        asked = [
            ("mail", 3, 2),
            ("mail", 3, 2),
            ("mail", 3, 1),
            ("mail", 3, 0),
            ("mail", 9, float("inf")),
            ("sms", 1, 1),
        ]
        return [await view.claim(key, most, amount) for key, most, amount in asked]

    async def items(view: AttemptView) -> list[bool]:
        asked = [("a", 2), ("b", 2), ("a", 2), ("c", 2), ("a", 5)]
        return [await view.claim("host", 5, amount, item) for item, amount in asked]

    journal = MemoryJournal()
    guard = Views(do=claim)
    attempt = made(journal, guard)
    crossed(attempt)
    assert guard.results == [[True, False, True, False, False, True]]
    assert attempt.claims == {"mail": {"": 3}, "sms": {"": 1}}
    again = Views(do=claim)
    resumed = made(journal, again)
    crossed(resumed)
    assert again.results == guard.results and resumed.claims == attempt.claims, "what was claimed is granted as it was"
    crossed(resumed, ":6")
    assert again.results[1] == [False] * 6, "and counts against what is asked next"
    held = Views(do=items)
    crossed(made(None, held))
    assert held.results == [[True, True, True, False, False]], "a second claim of an item takes the place of the first"


def test_what_a_guard_does_once_and_asks_is_found_again_under_its_own_number() -> None:
    ran: list[str] = []
    journal, judge = MemoryJournal(), Scripted(["yes", "no"], name="scripted:judge")

    async def both(view: AttemptView) -> Any:
        async def act(name: str) -> Json:
            ran.append(name)
            inner = await view.once({"inner": name}, lambda: done(name))
            return {"did": name, "inner": inner}

        async def done(name: str) -> Json:
            return {"inner": name}

        first = await view.once({"name": "x"}, lambda: act("one"))
        answer = await view.ask("a b c", model=judge, sampling=Sampling(max_tokens=4))
        second = await view.once({"name": "x"}, lambda: act("two"))
        return first, answer.message.text, second

    guard = Views(do=both)
    attempt = made(journal, guard)
    budget = Budget(Limits(tokens=100, calls=5))
    crossed(attempt, budget=budget)
    assert guard.results == [
        ({"did": "one", "inner": {"inner": "one"}}, "yes", {"did": "two", "inner": {"inner": "two"}})
    ]
    (call,) = attempt.calls
    assert (call.kind, call.id, call.detail) == (
        "guard",
        ":5 guard 0 call 1",
        {"model": "scripted:judge", "answer": "yes"},
    )
    assert judge.asked[0].sampling == Sampling(max_tokens=4, seed=derive_seed(3, ":5 guard 0 call 1"))
    assert (budget.spent, budget.calls, budget.reserved_tokens) == (
        call.usage,
        1,
        0,
    ) and call.usage.total_tokens == 3 + 1
    again = Views(do=both)
    crossed(made(journal, again))
    assert again.results == guard.results and ran == ["one", "two"] and len(judge.asked) == 1
    short = made(None, Views(do=both))
    tight = Budget(Limits(tokens=3 + 4 - 1))
    with pytest.raises(Exception, match="a call needs 7 tokens or more"):
        crossed(short, budget=tight)
    assert short.calls == [] and len(judge.asked) == 1


def test_a_guards_question_to_a_person_is_asked_once_unless_nobody_answered() -> None:
    asked: list[Any] = []
    answers = [Decision(False, "nobody", "gone"), Decision(True, "me", "fine")]

    async def ask(tool: Tool, arguments: Json) -> Decision:
        asked.append((tool.name, arguments))
        return answers[len(asked) - 1]

    async def approve(view: AttemptView) -> Decision:
        return await view.approve(send, {"text": "t"}, "why")

    journal, guard = MemoryJournal(), Views(do=approve)
    for _ in range(3):
        crossed(made(journal, guard, approval=Approval(ask=ask)))
    assert guard.results == [answers[0], answers[1], answers[1]] and asked == [("send", {"text": "t"})] * 2


def test_tools_of_an_attempt_are_its_own_its_sources_and_stand_ins() -> None:
    class Source:
        name = "box"
        version = 0
        tools: Sequence[Tool] = (replace(send, spec=replace(send.spec, name="box__a")),)

        async def open(self) -> None: ...

        async def close(self) -> None: ...

    attempt, source = made(), Source()
    assert list(attempt.tools) == ["send", "find"]
    attempt.use([source])  # type: ignore[list-item]
    assert sorted(attempt.tools) == ["box__a", "find", "send"]
    attempt.refresh_tools()
    assert attempt.events == []
    source.version, source.tools = 1, (replace(send, spec=replace(send.spec, name="box__b")),)
    attempt.refresh_tools()
    assert [(event.kind, event.data) for event in attempt.events] == [
        ("tools_changed", {"added": ["box__b"], "removed": ["box__a"]})
    ]
    attempt.refresh_tools()
    assert len(attempt.events) == 1
    stand_in = replace(find, spec=replace(find.spec, description="other"))
    with attempt.stand_ins([stand_in]):
        assert attempt.tools["find"] is stand_in and len(attempt.tools) == 3
        with attempt.stand_ins([]):
            assert attempt.tools["find"] is find
        assert attempt.tools["find"] is stand_in
    assert attempt.tools["find"] is find
    attempt.offer([replace(send, spec=replace(send.spec, name="more"))])
    assert "more" in attempt.tools
    with pytest.raises(ConfigError) as refused:
        attempt.offer([find])
    assert str(refused.value) == "the memory of a has a tool 'find', and there is one: leave one out"


def test_nodes_stand_under_their_parents_and_the_last_outside_of_groups_is_known() -> None:
    attempt = made()

    async def main() -> None:
        enter_branch(Branch())
        first = attempt.add_node(None, user("a"))
        second = attempt.add_node(first, assistant("b"))
        enter_branch(Branch("0.0"))
        third = attempt.add_node(first, assistant("c"))
        assert (first, second, third, attempt.last_of_root) == (0, 1, 2, 1)
        assert attempt.path(third) == (0, 2) and attempt.path(None) == () == attempt.conversation(None)
        assert [message.text for message in attempt.conversation(second)] == ["a", "b"]
        assert attempt.generated(third) == (False, False)
        attempt.record_generation(":0", first, 0.0, "k", nodes=(third, second), ids=None, specs=[send.spec, find.spec])
        attempt.record_generation(":1", first, 0.0, "k", nodes=(), ids=(1, 2), specs=[find.spec])
        assert attempt.generated(second) == (False, True) and attempt.tool_specs == [send.spec, find.spec]
        assert [(call.tools, call.nodes, call.prompt is None) for call in attempt.calls] == [
            ((0, 1), (2, 1), True),
            ((1,), (), False),
        ]
        assert attempt.turn() is attempt.turn()

    asyncio.run(main())


def test_what_a_journal_holds_of_calls_was_paid_for() -> None:
    journal = MemoryJournal()
    completion = {"usage": Usage(3, 1, 2).to_json()}
    for place, reply in enumerate(
        (
            {"completions": [completion, completion]},
            {"likelihoods": [], "usage": Usage(7).to_json()},
            {"content": "x", "is_error": False},
            {"started": True},
            {"memory": "id"},
            {"items": []},
            {"size": 4},
            {"claim": "k", "granted": True},
        )
    ):
        journal.record(f":{place}", "k", reply)
    assert made(journal).paid() == (2 * 5 + 7, 6) and made().paid() == (0, 0)
    assert cost_of({"completions": [completion]}) == Usage(3, 1, 2)


def test_a_single_answer_is_streamed_to_a_listener_that_hears_each_step() -> None:
    steps: list[Any] = []

    async def pattern(task: Task, ctx: Context) -> str:
        first = await ctx.say(task.prompt).generate()
        await first.say("more").sample(2)
        await ctx.call(ToolCall("1", "find", {"text": "x"}))
        return first.text

    def attempted(listener: Any) -> Trace:
        model = Scripted(["one two", "three", "four"])
        return asyncio.run(rollout(Agent("a", model, pattern, tools=(send, find)), TASK, listener=listener))

    trace = attempted(steps.append)
    assert [type(step).__name__ for step in steps[:2]] == ["Added", "Began"] and isinstance(steps[0], Added)
    began = [(step.id, step.kind, step.at, step.detail) for step in steps if isinstance(step, Began)]
    assert began == [
        (":0", "generate", 0, {"n": 1}),
        (":1", "generate", 2, {"n": 2}),
        (":2", "tool", None, {"name": "find", "arguments": {"text": "x"}}),
    ]
    pieces = [step for step in steps if isinstance(step, Piece)]
    assert {step.id for step in pieces} == {":0"} and "".join(step.text for step in pieces) == "one two" == trace.answer
    assert [step.id for step in steps if type(step).__name__ == "Call"] == [":0", ":1", ":2"]
    silent: list[Any] = []

    class Still:
        streams = False

        def __call__(self, step: Any) -> None:
            silent.append(step)

    assert attempted(Still()).answer == "one two" and not any(isinstance(step, Piece) for step in silent)
    assert len(silent) == len(steps) - len(pieces)
    failing: list[Any] = []

    def fails(step: Any) -> None:
        failing.append(step)
        raise ValueError

    assert attempted(fails).answer == "one two" and len(failing) == 1, "it is not called again"


def test_transient_faults_are_noted_with_their_number_and_wait_and_others_are_recorded() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    model = Scripted(["x"], failures=2)
    agent = Agent("a", model, pattern, retry=Retry(3, 0.001, 0.002))
    trace = asyncio.run(rollout(agent, TASK))
    assert trace.answer == "x"
    retries = [event.data for event in trace.events if event.kind == "retry"]
    assert [each["attempt"] for each in retries] == [1, 2] and all(0 < each["wait_s"] <= 0.002 for each in retries)
    broken = Scripted(["x"], error=ModelError("gone"))
    trace = asyncio.run(rollout(Agent("a", broken, pattern), TASK))
    (call,) = trace.calls
    assert (call.kind, call.id, call.error, call.nodes, call.usage) == ("generate", ":0", "gone", (), Usage())
    assert trace.error is not None and trace.error.kind == "ModelError"
    assert issubclass(TransientError, Exception) and isinstance(retries[0]["error"], str)


def test_calls_of_the_model_are_recorded_with_all_that_decided_them() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        at = ctx.say(task.prompt)
        answers = await at.sample(2, temperature=0.5)
        found = await at.score([" a", " b"])
        return f"{answers[1].text} {found[1].logprob}"

    journal = MemoryJournal()
    model = Scripted(["x", "y z", "u", "v"], score=lambda prompt, text: -1.0 if text == " a" else -2.0)
    agent = Agent("a", model, pattern, tools=(send,), sampling=Sampling(max_tokens=9))
    trace = asyncio.run(rollout(agent, TASK, journal=journal, seed=5))
    assert trace.answer == "y z -2.0"
    generate, score = trace.calls
    seed = derive_seed(derive_seed(5, trace.benchmark, "1", 0), ":0")
    sampling = Sampling(max_tokens=9, temperature=0.5, seed=seed)
    assert generate.detail == {"finish_reasons": ["stop", "stop"], "sampling": sampling.to_json(), "tools": []}
    assert (generate.id, generate.kind, generate.at, generate.nodes, generate.replayed) == (
        ":0",
        "generate",
        0,
        (1, 2),
        False,
    )
    assert (score.id, score.kind, score.at, score.detail["prompt"]) == (":1", "score", 0, None)
    assert len(score.detail["likelihoods"]) == 2 and len(score.detail) == 2
    again = asyncio.run(rollout(agent, TASK, journal=journal, seed=5))
    assert [replace(c, started_s=0, duration_s=0, replayed=False) for c in again.calls] == [
        replace(c, started_s=0, duration_s=0) for c in trace.calls
    ]
    assert all(call.replayed for call in again.calls) and len(model.asked) == 2
    other = asyncio.run(rollout(agent, TASK, journal=journal, seed=6))
    assert not other.calls[0].replayed and other.calls[1].replayed, "a score needs no seed"


def test_an_answer_that_was_cut_by_a_budget_is_found_again_by_what_it_was_granted() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.prompt).generate()).text

    journal = MemoryJournal()
    model = Scripted(lambda *_: "w " * 20)
    agent = Agent("a", model, pattern, sampling=Sampling(max_tokens=10), limits=Limits(tokens=3 + 4))
    first = asyncio.run(rollout(agent, TASK, journal=journal))
    assert first.calls[0].detail["sampling"]["max_tokens"] == 4 and first.stop_reason == "tokens"
    granted = [reply for (effect, key), reply in journal.entries.items() if key.startswith("granted:")]
    assert granted == [{"granted": 4, "height": 0}]
    roomy = replace(agent, limits=Limits(tokens=500))
    again = asyncio.run(rollout(roomy, TASK, journal=journal))
    assert again.calls[0].replayed and again.calls[0].detail == first.calls[0].detail and len(model.asked) == 1
    fresh = asyncio.run(rollout(roomy, TASK, journal=MemoryJournal()))
    assert fresh.calls[0].detail["sampling"]["max_tokens"] == 10 and fresh.stop_reason == "done"
    assert isinstance(first.events[-1], Event)
