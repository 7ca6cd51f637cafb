"""Tests that marks which a guard puts into results are for the model alone: policies and plans read without them."""

import asyncio
import json
from typing import Any

import pytest

from firsthand import Agent, Task, catalog
from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.private_texts import private_texts
from firsthand.loop.tool_call import _replayed
from firsthand.message import Json, ToolCall, ToolResult
from firsthand.patterns.parts.self_tests import SelfTests
from firsthand.patterns.plan_mode import plan_mode
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import _reply
from firsthand.safety.spotlight import Spotlight
from firsthand.tool import Tool, tool
from firsthand.trace import Trace

BODY = "My bank password is open sesame tonight"


@tool(effect="external", declares=Declaration(authority=("to",), recipients=("to",)))
def send_mail(to: str, body: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


@tool(effect="read", origin="the inbox", declares=Declaration(trusts=("sender",), readers="user"))
def inbox() -> str:
    """Mails."""
    return json.dumps({"sender": "Ann Smith", "body": BODY})


def attempt(pattern: Any, guards: tuple[Any, ...], *replies: str) -> Trace:
    agent = Agent("c", Scripted(list(replies)), pattern, tools=(send_mail, inbox), guard=guards)
    return asyncio.run(rollout(agent, Task("1", "Answer whoever wrote.")))


def sends(body: str) -> Any:
    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.call(ToolCall("1", "inbox", {}))
        return (await ctx.call(ToolCall("2", "send_mail", {"to": "Ann Smith", "body": body}))).content

    return pattern


def given(*names: str) -> tuple[Any, ...]:
    return tuple(catalog.guards(names))


@pytest.mark.parametrize("names", [("spotlight", "policy"), ("policy", "spotlight"), ("policy", "spotlight:mark=_")])
def test_a_policy_decides_by_results_without_marks(names: tuple[str, ...]) -> None:
    trace = attempt(sends("hello"), given(*names))
    assert trace.answer is not None and trace.answer.startswith("sent") and not trace.calls[-1].detail["is_error"]
    mark = "_" if names[-1].endswith("_") else "^"
    read = trace.calls[0].detail
    assert f"Ann{mark}Smith" in read["result"] and read["plain"] == inbox_text()
    refused = attempt(sends(BODY), given(*names))
    assert "Ann Smith would read what inbox gave the user alone" in str(refused.answer)
    assert "plain" not in attempt(sends("hello"), given("policy")).calls[0].detail


def inbox_text() -> str:
    return json.dumps({"sender": "Ann Smith", "body": BODY})


def test_a_plan_reads_fields_without_marks() -> None:
    plan = '```python\nm = inbox()\nanswer(f"{m.sender}: {m.body}")\n```'
    for names in ((), ("spotlight",), ("spotlight", "policy")):
        assert attempt(plan_mode, given(*names), plan).answer == f"Ann Smith: {BODY}"


class Hides:
    """Replaces a word of results, and keeps what it saw."""

    def __init__(self) -> None:
        self.saw: list[str] = []

    def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
        self.saw.append(result.content)
        return GuardVerdict.replaced(
            "hides", ToolResult(result.call_id, result.name, result.content.replace("sesame", "[]"))
        )


@pytest.mark.parametrize("first", [True, False])
def test_a_guard_that_marks_comes_last_and_keeps_what_the_others_left(first: bool) -> None:
    hides = Hides()
    guards = (Spotlight(), hides) if first else (hides, Spotlight())
    trace = attempt(sends("hello"), guards)
    assert hides.saw[0] == inbox_text()
    detail = trace.calls[0].detail
    assert detail["plain"] == inbox_text().replace("sesame", "[]") and "open^[]^tonight" in detail["result"]


def test_two_marks_keep_the_text_before_the_first() -> None:
    class Stars:
        """A guard of a user's own, which makes a new result."""

        marks_results = True

        def result(self, view: AttemptView, tool: Tool, result: ToolResult) -> GuardVerdict:
            return GuardVerdict.replaced("stars", ToolResult(result.call_id, result.name, f"*{result.content}*"))

    for second in (Spotlight("_"), Stars()):
        detail = attempt(sends("hello"), (Spotlight(), second)).calls[0].detail
        assert detail["plain"] == inbox_text()


def test_a_private_result_is_known_by_its_marks_and_without() -> None:
    async def asks(task: Task, ctx: Context) -> str:
        await ctx.call(ToolCall("1", "code", {}))
        return (await ctx.say(said).generate()).text

    @tool(effect="read", declares=Declaration(readers="user"))
    def code() -> str:
        """A code."""
        return "correct horse"

    for said in ("correct^horse", "correct horse"):
        agent = Agent("c", Scripted(["sent"]), asks, tools=(code,), guard=given("spotlight", "peer"))
        trace = asyncio.run(rollout(agent, Task("1", "x")))
        assert (trace.answer, trace.stop_reason) == (None, "guard"), said


@pytest.mark.parametrize("secret", ["4711-0815-12", "sword-fish"])
@pytest.mark.parametrize("guard", ["policy", "peer"])
def test_what_a_mark_is_taken_out_of_is_known_as_the_model_reads_it(guard: str, secret: str) -> None:
    @tool(effect="read", declares=Declaration(readers="user"))
    def code() -> str:
        """A code."""
        return secret

    async def tells(task: Task, ctx: Context) -> str:
        shown = (await ctx.call(ToolCall("1", "code", {}))).content
        assert shown == secret.replace("-", "")
        await ctx.call(ToolCall("2", "inbox", {}))
        if guard == "peer":
            return (await ctx.say(f"It is {shown}").generate()).text
        return (await ctx.call(ToolCall("3", "send_mail", {"to": "Ann Smith", "body": f"It is {shown}"}))).content

    tools = (send_mail, inbox, code)
    agent = Agent("c", Scripted(["sent"]), tells, tools=tools, guard=given("spotlight:mark=-", guard))
    trace = asyncio.run(rollout(agent, Task("1", "Answer whoever wrote.")))
    assert trace.error is None and not str(trace.answer).startswith("sent")
    assert guard == "peer" or "what code gave the user alone" in str(trace.answer)


@pytest.mark.parametrize("text", ["a fine season came", "Alaska"])
def test_the_mark_is_explained_where_a_pattern_quotes_results(text: str) -> None:
    @tool(effect="read", origin="the notes")
    def look() -> str:
        """Look."""
        return text

    async def quotes(task: Task, ctx: Context) -> str:
        before = await ctx.say("Think.").generate()
        found = await ctx.call(ToolCall("1", "look", {}))
        return (await before.say(f"Observation: {found.content}").generate()).text

    model = Scripted(["ok", "ok"])
    asyncio.run(rollout(Agent("c", model, quotes, tools=(look,), guard=given("spotlight")), Task("1", "x")))
    noted = ["joined by ^" in str(prompt.prompt[0].text) for prompt in model.asked]
    assert noted == [False, " " in text]


def test_the_mark_is_explained_where_passages_are_quoted() -> None:
    @tool(effect="read", origin="the notes")
    def search(query: str) -> str:
        """Search."""
        return query

    async def ask(arguments: Json) -> list[Json]:
        return [{"text": "by the bay"}, {"text": "Alaska"}, {"text": "a fine season"}]

    async def quotes(task: Task, ctx: Context) -> str:
        items = await ctx.consult(search, {"query": "x"}, ask)
        return (await ctx.say("\n".join(item["text"] for item in items[1:])).generate()).text

    model = Scripted(["ok"])
    asyncio.run(rollout(Agent("c", model, quotes, guard=given("spotlight")), Task("1", "x")))
    first, second = model.asked[0].prompt[0].text, model.asked[0].prompt[1].text
    assert "joined by ^" in first and second == "Alaska\na^fine^season"


def test_a_fork_keeps_the_text_without_marks() -> None:
    trace = attempt(sends("hello"), given("spotlight", "policy"))
    entry = _reply(trace, trace.calls[0], 0)
    assert entry["plain"] == inbox_text() and "Ann^Smith" in entry["content"]
    result = _replayed(ToolCall("1", "inbox", {}), entry)
    assert (result.plain, result.content) == (inbox_text(), entry["content"])
    assert private_texts(trace.calls) == [inbox_text(), inbox_text().replace(" ", "^")]


def test_the_results_of_a_models_own_tests_are_read_without_marks() -> None:
    @tool(effect="read")
    def python(code: str) -> str:
        """Run code."""
        return "\nown test 0: passed\n\nown test 1: passed\n"

    async def judged(task: Task, ctx: Context) -> str:
        found = await SelfTests(["assert f(1) == 1", "assert f(2) == 2"])(task, ctx, "def f(x): return x")
        return str(found.passed)

    task = Task("1", "x", metadata={"entry_point": "f"})
    for names in ((), ("spotlight",)):
        agent = Agent("c", Scripted([]), judged, tools=(python,), guard=given(*names))
        assert asyncio.run(rollout(agent, task)).answer == "True"
