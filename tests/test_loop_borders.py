"""Guards at the borders of an attempt: what they see, change, claim, ask and note, and what is found again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, GuardBlocked, LimitExceeded, ModelError, ToolError
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.approval import Approval, Decision
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders, Sent
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Branch, derive_seed, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, ToolResult, assistant, user
from firsthand.model import Sampling, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from firsthand.tool import Tool, tool

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
    place = ":5 guard 0 call"
    assert attempt.claims == {"mail": {f"{place} 1": 2, f"{place} 3": 1}, "sms": {f"{place} 1": 1}}
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

    class Counting(Scripted):
        async def count_tokens(self, *args: Any) -> int:
            counted.append(args[0])
            return 3

    counted: list[Any] = []
    judge = Counting(["yes", "no"] * 2, name="scripted:judge")
    crossed(made(None, Views(do=both)), budget=Budget(Limits(calls=5)))
    assert counted == [], "without a limit of tokens none are counted"
    crossed(made(None, Views(do=both)), budget=Budget(Limits(tokens=7)))
    assert counted == ["a b c"]
    short = made(None, Views(do=both))
    tight = Budget(Limits(tokens=3 + 4 - 1))
    with pytest.raises(Exception, match="a call needs 7 tokens or more"):
        crossed(short, budget=tight)
    assert short.calls == [] and len(judge.asked) == 2


def test_a_guards_question_to_a_person_is_asked_once_unless_nobody_answered() -> None:
    asked: list[Any] = []
    answers = [Decision(False, "nobody", "gone"), Decision(True, "me", "fine")]

    async def ask(tool: Tool, arguments: Json) -> Decision:
        asked.append((tool.name, arguments))
        return answers[len(asked) - 1]

    async def approve(view: AttemptView) -> Decision:
        return replace(await view.approve(send, {"text": "t"}, "why"), once="")

    journal, guard = MemoryJournal(), Views(do=approve)
    for _ in range(3):
        crossed(made(journal, guard, approval=Approval(ask=ask)))
    assert guard.results == [answers[0], answers[1], answers[1]] and asked == [("send", {"text": "t"})] * 2


def test_a_prompt_is_sent_as_it_is_or_as_guards_left_it_with_the_nodes_that_stayed() -> None:
    class Rewrites:
        def __init__(self, extra: int = 0) -> None:
            self.extra = extra

        async def prompt(self, view: AttemptView, messages: Any) -> GuardVerdict:
            changed = [user(each.text.replace("secret", "***")) if "secret" in each.text else each for each in messages]
            if changed == list(messages):
                return GuardVerdict.passed("words")
            return GuardVerdict.replaced("words", [*changed, *[user("more")] * self.extra], "a secret")

    def sent(prompt: str | None, *guards: Any, said: str = "a secret") -> tuple[Any, Attempt]:
        attempt = made(None, *guards)

        async def main() -> Any:
            enter_branch(Branch())
            node = attempt.add_node(attempt.add_node(None, user("hello")), user(said))
            return await Borders(attempt, ":0", node, Budget(Limits())).prompt(prompt)

        return asyncio.run(main()), attempt

    plain, attempt = sent(None)
    assert plain == Sent((user("hello"), user("a secret")), {}) and attempt.events == []
    assert sent("raw secret")[0] == Sent("raw secret", {"prompt": "raw secret"})
    assert sent("raw secret", Rewrites())[0] == Sent("raw ***", {"prompt": "raw ***"})
    assert sent(None, Rewrites(), said="fine")[0] == Sent((user("hello"), user("fine")), {})
    found, attempt = sent(None, Rewrites())
    assert found == Sent((user("hello"), user("a ***")), {"messages": [0, user("a ***").to_json()]})
    (event,) = attempt.events
    assert event.data["original"] == [1] and event.data["border"] == "prompt" and event.data["at"] == 1
    with pytest.raises(ConfigError) as refused:
        sent("raw secret", Rewrites(1))
    assert str(refused.value) == "a guard replaced a text prompt by 2 messages: replace it by one"


def test_a_blocked_prompt_or_answer_ends_the_attempt_and_a_blocked_result_does_not() -> None:
    class Stops:
        def result(self, view: Any, tool: Tool, result: ToolResult) -> GuardVerdict:
            return GuardVerdict.blocked("r", "why")

        def answer(self, view: Any, answer: str) -> GuardVerdict:
            return GuardVerdict.blocked("r", "why") if answer == "bad" else GuardVerdict.replaced("r", answer + "!")

    attempt = made(None, Stops(), Stops())
    borders = Borders(attempt, ":0", None, Budget(Limits()))
    with pytest.raises(ToolError):
        asyncio.run(borders.result(send, ToolResult("1", "send", "x")))
    with pytest.raises(GuardBlocked):
        asyncio.run(borders.answer("bad"))
    assert asyncio.run(borders.answer("good")) == "good!!", "each guard sees what the one before it left"
    originals = [event.data["original"] for event in attempt.events]
    assert originals == ["x", "bad", "good", "good!"]


def test_a_guard_is_shown_the_tools_that_the_model_has_wherever_they_come_from() -> None:
    def named(name: str) -> Tool:
        return replace(find, spec=replace(find.spec, name=name))

    guard = Views()
    attempt = made(None, guard)
    box, room = SimpleNamespace(name="box", tools=(named("zoo"),)), SimpleNamespace(name="room", tools=(named("find"),))
    attempt.use((box,), room)  # type: ignore[arg-type]
    crossed(attempt)
    with attempt.stand_ins([named("send")]):
        crossed(attempt, ":6")
    first, second = (view.tools for view in guard.seen)
    assert [tool.name for tool in first] == [tool.name for tool in second] == ["find", "send", "zoo"]
    assert first[0] is room.tools[0] and first[1] is send and second[1].effect == "read"


def test_a_guards_question_has_the_seed_the_depth_and_the_budgets_of_its_place() -> None:
    judge = Scripted(["one", "two"], name="scripted:judge")

    async def ask(view: AttemptView) -> str:
        own = await view.ask("a b", model=judge, sampling=Sampling(max_tokens=3, seed=0))
        return own.message.text

    async def at(depth: int, budget: Budget, guard: Views, journal: MemoryJournal) -> Attempt:
        enter_branch(Branch())
        attempt = made(journal, guard)
        await Borders(attempt, ":5", None, budget, depth).call(send, {"text": "t"})
        return attempt

    guard, journal, parent = Views(do=ask), MemoryJournal(), Budget(Limits(tokens=6))
    child = Budget(Limits(depth=2), parent)
    asyncio.run(at(2, child, guard, journal))
    assert [(each.sampling.seed, each.sampling.max_tokens) for each in judge.asked if each.sampling] == [(0, 3)]
    assert (child.spent, parent.spent, parent.reserved_tokens, parent.calls) == (Usage(2, 0, 1), Usage(2, 0, 1), 0, 1)
    again = asyncio.run(at(2, child, guard, journal))
    assert (guard.results, len(judge.asked)) == (["one", "one"], 1)
    assert [(call.replayed, call.error, call.usage) for call in again.calls] == [(True, None, Usage(2, 0, 1))]
    assert (parent.spent, parent.calls) == (Usage(4, 0, 2), 2), "a replayed question costs what it had cost"
    with pytest.raises(LimitExceeded, match="groups are nested 3 deep, and the limit is 2"):
        asyncio.run(at(3, child, guard, MemoryJournal()))
    with pytest.raises(LimitExceeded, match=r"a call needs 5 tokens or more, prompt included, and 0 of 6 are left"):
        asyncio.run(at(2, child, guard, MemoryJournal()))
    assert len(judge.asked) == 1
    broken = Scripted(error=ModelError("gone"))

    async def fail(view: AttemptView) -> None:
        await view.ask("a b", model=broken, sampling=Sampling(max_tokens=3))

    attempt = made(None, Views(do=fail))
    with pytest.raises(ModelError):
        crossed(attempt, budget=(unpaid := Budget(Limits(tokens=9))))
    assert [(call.error, call.usage, call.detail) for call in attempt.calls] == [
        ("it was broken off before it had an answer", Usage(), {"model": broken.name})
    ]
    assert (unpaid.spent, unpaid.reserved_tokens) == (Usage(), 0)


def test_a_guard_sees_the_calls_before_the_place_it_judges_as_of_and_cannot_change_what_it_is_shown() -> None:
    class Deep:
        def call(self, view: AttemptView, tool: Tool, arguments: Json) -> GuardVerdict:
            seen.append([call.id for call in view.calls])
            arguments["to"].append("me")
            arguments["more"]["x"] = 2
            return GuardVerdict.passed("deep")

    seen: list[list[str]] = []
    attempt = made(None, Deep())
    given: Json = {"to": ["you"], "more": {}}

    async def main() -> None:
        enter_branch(Branch())
        for effect in (":4", ":0", ":2"):
            attempt.record("tool", effect, None, 0.0, "key")
        for as_of in (":2", "", ":0"):
            border = Borders(attempt, ":4", None, Budget(Limits()), as_of=as_of)
            assert await border.call(send, given) is given

    asyncio.run(main())
    assert seen == [[":0"], [":0", ":2"], []] and given == {"to": ["you"], "more": {}}


def test_claims_of_an_older_record_count_as_1_and_refused_ones_not_at_all() -> None:
    journal = MemoryJournal()
    for number, reply in enumerate((
        {"claim": "mail", "granted": True}, {"claim": "mail", "granted": False, "amount": 5, "item": ""},
        {"claim": "host", "granted": True, "amount": 0.5, "item": "a"}, {"completions": []},
    )):  # fmt: skip
        journal.record(f":0 guard 0 call {number}", "r", reply)

    async def claim(view: AttemptView) -> list[bool]:
        return [
            await view.claim("mail", 1.5, 0.75), await view.claim("mail", 1.5, 0.5), await view.claim("mail", 1.5, 0.001),
            await view.claim("host", 1, 0.5, "b"), await view.claim("host", 1, 0.75, "a"), await view.claim("host", 1),
            await view.claim("new", 0), await view.claim("new", 1), await view.claim("new", 1, 1, ""),
        ]  # fmt: skip

    guard = Views(do=claim)
    attempt = made(journal, guard)
    crossed(attempt)
    assert guard.results == [[False, True, False, True, False, False, False, True, False]]
    place = ":5 guard 0 call 2"
    assert attempt.claims == {"mail": {"": 1, place: 0.5}, "host": {"a": 0.5, "b": 0.5}, "new": {place: 1}}
