"""Models that a world asks itself: their replies are recorded with the attempt, and nobody is asked twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.context import Context
from firsthand.errors import ModelError, WorldFailed
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, Message, ToolCall
from firsthand.model import Completion
from firsthand.providers.cached import Replay
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs.forking import Fork, fork
from firsthand.task import Task
from firsthand.tool import Tool, tool, tool_from_function
from firsthand.trace import Trace
from firsthand.worlds.puzzles.puzzle_judge import ModelHost
from firsthand.worlds.tau.customers import ModelCustomer

TASK = Task("t", "Talk to the customer.")


class Killed(BaseException):
    """The process dies here."""


class Counter:
    """A customer's model that counts its messages, under a prefix that tells when it was asked."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.asked, self.seeds = prefix, 0, list[int | None]()
        self.model = Scripted(self._reply, name="scripted:customer", fingerprint="customer")

    def _reply(self, messages: Sequence[Message], sampling: Any, index: int) -> str:
        self.asked += 1
        self.seeds.append(sampling.seed)
        return f"{self.prefix}{sum(message.role == 'user' for message in messages)}"


class Shop:
    """A world in which one customer is talked to."""

    def __init__(self, model: Any) -> None:
        self.customer = ModelCustomer("You want tea.", model)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def final_state(self) -> Json:
        messages = self.customer._messages
        return {"heard": [each.text for each in messages if each.role == "assistant"], "tokens": self.customer.tokens}

    @property
    def tools(self) -> Sequence[Tool]:
        @tool(effect="write")
        async def respond(content: str) -> str:
            """Say something."""
            return await self.customer.reply(content)

        return (respond,)


def talker(times: int, kill_at: int | None = None) -> Callable[..., Any]:
    """A pattern that asks the agent's model what to say, and says it to the customer."""

    async def talk(task: Task, ctx: Context) -> str:
        for number in range(times):
            if number == kill_at:
                raise Killed
            ctx = await ctx.say(f"Turn {number}").generate()
            ctx = ctx.say(await ctx.call(ToolCall(f"c{number}", "respond", {"content": ctx.text})))
        return ctx.text if ctx.node is not None else ""

    return talk


def attempt(
    customer: Any, journal: Any, times: int = 3, kill: int | None = None, model: Any = None, seed: int = 0
) -> Trace:
    agent = Agent("a", model or Scripted(lambda messages, *_: f"say {len(messages)}"), talker(times, kill))
    setting = NamedSetting("shop", environment=lambda task: Shop(customer))
    return asyncio.run(rollout(agent, TASK, benchmark=setting, journal=journal, seed=seed))


def heard(trace: Trace) -> list[str]:
    found: list[str] = trace.final_state["heard"]
    return found


@pytest.mark.parametrize("kill", [1, 2])
def test_a_resumed_attempt_does_not_ask_its_customer_again(kill: int) -> None:
    first, later, journal = Counter("first "), Counter("later "), MemoryJournal()
    with pytest.raises(Killed):
        attempt(first.model, journal, kill=kill)
    resumed = attempt(later.model, journal)
    assert heard(resumed) == [*(f"first {n}" for n in range(1, kill + 1)), *(f"later {n}" for n in range(kill + 1, 4))]
    assert (first.asked, later.asked) == (kill, 3 - kill)
    whole = attempt(Counter("first ").model, MemoryJournal())
    assert resumed.final_state["tokens"] == whole.final_state["tokens"]
    assert not [each for each in resumed.events if each.kind == "rebuilt_otherwise"]


def test_the_replies_of_a_call_that_was_cut_off_are_found_again() -> None:
    first, later, journal = Counter("first "), Counter("later "), MemoryJournal()
    attempt(first.model, journal, times=1)
    journal.entries = {key: reply for key, reply in journal.entries.items() if "content" not in reply}
    assert heard(attempt(later.model, journal, times=1)) == ["first 1"]


def test_a_customer_of_a_list_goes_on_after_the_replies_that_were_given() -> None:
    journal = MemoryJournal()
    with pytest.raises(Killed):
        attempt(Scripted(["one", "two", "three"], name="scripted:customer", fingerprint="customer"), journal, kill=2)
    assert heard(
        attempt(Scripted(["one", "two", "three"], name="scripted:customer", fingerprint="customer"), journal)
    ) == ["one", "two", "three"]


def test_a_customer_costs_the_agent_nothing_and_is_asked_under_a_seed_of_the_attempt() -> None:
    counters = [Counter("x"), Counter("x"), Counter("x")]
    journal = MemoryJournal()
    attempt(counters[0].model, journal)
    assert len(journal.replies()) == 6 and len(journal.replies("world")) == 3
    attempt(counters[1].model, MemoryJournal())
    attempt(counters[2].model, MemoryJournal(), seed=1)
    assert counters[0].seeds == counters[1].seeds and len({*counters[0].seeds, *counters[2].seeds}) == 6


class Recorded:
    """The replies of a journal by request, as a run's store gives them."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.by_request = {request: reply for (_, request), reply in journal.entries.items()}

    def reply(self, request: str) -> Json | None:
        return self.by_request.get(request)


def test_a_replay_takes_the_customers_words_from_the_run_and_asks_no_model() -> None:
    journal, later = MemoryJournal(), Counter("later ")
    whole = attempt(Counter("first ").model, journal)
    fingerprint = whole.agent["fingerprint"]
    replay = Replay(Recorded(journal), name="scripted", fingerprint=fingerprint)
    replayed = attempt(later.model, MemoryJournal(), model=replay)
    assert (heard(replayed), later.asked, replayed.error) == (heard(whole), 0, None)
    last = [key for key in journal.entries if key[0].startswith("world|")][-1]
    del journal.entries[last]
    missing = attempt(later.model, MemoryJournal(), model=Replay(Recorded(journal), name="s", fingerprint=fingerprint))
    assert missing.error is not None and missing.error.kind == "WorldFailed" and later.asked == 0
    assert "scripted:customer, which plays a part in the task, did not answer" in missing.error.message


def test_a_customer_who_does_not_answer_is_an_error_of_the_attempt_and_no_word_to_the_agent() -> None:
    def broken(*_: Any) -> str:
        raise ModelError("the line is dead")

    failed = attempt(Scripted(broken, name="scripted:customer", fingerprint="customer"), MemoryJournal())
    assert failed.error is not None and (failed.error.kind, failed.stop_reason) == ("WorldFailed", "error")
    assert not [node for node in failed.nodes if node.message.role == "tool"]


@pytest.mark.parametrize("say", [None, "Be kind."])
def test_a_fork_holds_the_dialogue_of_its_parent(say: str | None) -> None:
    first, later = Counter("first "), Counter("later ")
    parent = attempt(first.model, MemoryJournal())
    second_result = [index for index, node in enumerate(parent.nodes) if node.message.role == "tool"][1]
    agent = Agent("a", Scripted(lambda messages, *_: f"say {len(messages)}"), talker(3 if say is None else 1))
    setting = NamedSetting("shop", environment=lambda task: Shop(later.model))
    forked = asyncio.run(fork(Fork(parent, second_result, agent, say=say), TASK, benchmark=setting))
    assert (forked.error, heard(forked), later.asked) == (None, ["first 1", "first 2", "later 3"], 1)
    replies = [call.detail["asked"] for call in parent.calls if call.kind == "tool"]
    assert [Completion.from_json(each[0]["completions"][0]).message.text for each in replies] == heard(parent)


class Game(Shop):
    """A world that asks its model three questions in each call."""

    @property
    def tools(self) -> Sequence[Tool]:
        host = ModelHost(self.customer.model)

        @tool(effect="write")
        async def respond(content: str) -> str:
            """Ask."""
            return " ".join([await host._asked(f"{content} {n}?", ("yes", "no")) for n in range(3)])

        return (respond,)


def test_each_question_of_a_call_has_a_reply_of_its_own() -> None:
    asked: list[str] = []
    model, journal = Scripted(lambda messages, *_: asked.append(messages[-1].text) or "yes"), MemoryJournal()
    agent = Agent("a", Scripted(lambda *_: "so"), talker(1))
    setting = NamedSetting("g", environment=lambda task: Game(model))
    for _ in range(2):
        asyncio.run(rollout(agent, TASK, benchmark=setting, journal=journal))
    assert asked == ["so 0?", "so 1?", "so 2?"] and len(journal.replies("world")) == 3


@pytest.mark.parametrize("say", [None, "Be kind."])
def test_a_fork_gives_each_question_of_a_call_the_reply_that_it_had(say: str | None) -> None:
    said = ["yes", "no", "yes"]
    agent = Agent("a", Scripted(lambda *_: "so"), talker(1))
    host = Scripted(lambda messages, *_: said[int(messages[-1].text[-2])], name="scripted:h", fingerprint="h")
    parent = asyncio.run(
        rollout(agent, TASK, benchmark=NamedSetting("g", environment=lambda task: Game(host)), journal=MemoryJournal())
    )
    assert parent.answer == "yes no yes"
    last = len(parent.nodes) - 1
    later = Scripted([], name="scripted:h", fingerprint="h")
    other = Agent("a", Scripted(lambda *_: "so"), agent.pattern if say is None else talker(0))
    what = Fork(parent, last, other, say=say)
    forked = asyncio.run(fork(what, TASK, benchmark=NamedSetting("g", environment=lambda task: Game(later))))
    assert forked.error is None and not [each for each in forked.events if each.kind == "rebuilt_otherwise"]
    (made,) = (call for call in forked.calls if call.kind == "tool")
    assert (made.detail["result"], len(made.detail["asked"])) == ("yes no yes", 3)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_tool_that_says_that_its_world_failed_ends_the_attempt(is_async: bool) -> None:
    class Broken(Shop):
        @property
        def tools(self) -> Sequence[Tool]:
            def respond(content: str) -> str:
                """Say something."""
                raise WorldFailed("the shop is closed")

            async def later(content: str) -> str:
                """Say something."""
                return respond(content)

            return (tool_from_function(later if is_async else respond, effect="write", name="respond"),)

    agent = Agent("a", Scripted(lambda *_: "so"), talker(1))
    setting = NamedSetting("b", environment=lambda task: Broken(Counter("x").model))
    trace = asyncio.run(rollout(agent, TASK, benchmark=setting))
    assert trace.error is not None and (trace.error.kind, trace.error.message) == ("WorldFailed", "the shop is closed")
