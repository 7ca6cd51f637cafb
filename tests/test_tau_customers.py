"""A customer of tau-bench that a model plays: what it says behind its thoughts, and where a conversation is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.errors import WorldFailed
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Json, Message
from firsthand.model import Completion, FinishReason, TokenCapability
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.cached import Replay
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.tau.customers import GREETING, MAX_TURNS, STOP, Customer, ModelCustomer, RuleCustomer, spoken
from firsthand.worlds.tau.service_desk import ServiceDesk
from firsthand.worlds.tau.service_world import ServiceWorld
from firsthand.worlds.world import WorldEnvironment, failure_reason

AGAIN, YES = "As I said: I want my lamp.", "Yes, please go ahead."
ADD = '{"name": "calculate", "arguments": {"expression": "1 + 1"}}'


class Cut(Scripted):
    """Answers that end for these reasons in turn, and the most tokens that each was allowed."""

    def __init__(self, *answers: tuple[str, FinishReason]) -> None:
        super().__init__([text for text, _ in answers], name="scripted:played", fingerprint="played")
        self.ends, self.allowed = [end for _, end in answers], list[int]()

    async def complete(self, prompt: Any, sampling: Any, **options: Any) -> list[Completion]:
        self.allowed.append(sampling.max_tokens)
        return [
            replace(each, finish_reason=self.ends.pop(0))
            for each in await super().complete(prompt, sampling, **options)
        ]


class Recorded:
    """The replies of a journal by request, as a run's store gives them."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.by_request = {request: reply for (_, request), reply in journal.entries.items()}

    def reply(self, request: str) -> Json | None:
        return self.by_request.get(request)


class Opening(Cut):
    """One whose chat template opens a thought, or does not."""

    prompt = b"<|assistant|><think>\n"
    is_alive = True
    load = stream_many = detokenize = rate = counters = Scripted.complete  # never called

    async def tokenize(self, prompt: Any, tools: Any = (), **options: Any) -> list[int]:
        return list(range(len(self.prompt)))

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [self.prompt[at : at + 1] for at in ids]


def replies(model: Scripted, count: int) -> list[str]:
    customer = ModelCustomer("You want tea.", model)
    return [asyncio.run(customer.reply("ok?")) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"<think>I must not write {STOP} yet</think>\nYes,\n do it.", "Yes, do it."),
        (f" \n<think>a\nb</think> {STOP}", STOP),
        (f"not {STOP} yet</think>\n\nYes.", "Yes."),  # the prompt opened it
        ("a</think><think>b</think>Yes.", "Yes."),
        ("Yes. <think>what else?</think> And no.", "Yes. And no."),
        ("Yes.<think>what else", "Yes."),
        ("<think>what else", ""),
        ("<think></think>", ""),
        ("I think so. <b>Yes</b>", "I think so. <b>Yes</b>"),
    ],
)
def test_a_message_is_what_stands_behind_its_thoughts(text: str, said: str) -> None:
    assert spoken(text) == said
    if said:
        assert replies(Scripted([text]), 1) == [said]


def test_the_thought_of_a_customer_is_not_in_its_own_conversation_either() -> None:
    seen: list[list[str]] = []

    def reply(messages: Sequence[Message], sampling: Any, index: int) -> str:
        seen.append([each.text for each in messages if each.role == "assistant"])
        return f"<think>{STOP}?</think>word {len(messages)}"

    assert replies(Scripted(reply), 3) == ["word 2", "word 4", "word 6"] and seen[2] == ["word 2", "word 4"]


def test_a_thought_longer_than_a_message_gets_more_tokens_and_a_message_does_not() -> None:
    model = Cut(
        ("<think>hm", "length"),
        ("<think>hm</think>Yes.", "stop"),
        ("long and", "length"),
        ("", "length"),
        ("No.", "stop"),
    )
    assert replies(model, 3) == ["Yes.", "long and", "No."] and model.allowed == [160, 2_048, 160, 160, 2_048]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([("", "stop")], "it ended by 'stop'"),
        ([("<think>hm</think>", "stop")], "it ended by 'stop'"),
        ([("", "content_filter")], "it ended by 'content_filter'"),
        ([("<think>a", "length"), ("<think>a b", "length")], "its 2048 tokens ended before"),
        ([("<think>a", "length"), ("<think>a b", "stop")], "it ended by 'stop'"),
    ],
)
def test_a_customer_that_says_nothing_fails_the_attempt(answers: list[tuple[str, FinishReason]], why: str) -> None:
    with pytest.raises(WorldFailed, match=f"^scripted:played, which plays the customer, said nothing: {why}$"):
        replies(Cut(*answers), 1)


def test_a_thought_that_the_prompt_opened_and_nothing_closed_is_no_message() -> None:
    model = Opening((f"I wait with {STOP}", "length"), ("I wait.</think>Yes.", "stop"), ("Yes.", "stop"))
    assert isinstance(model, TokenCapability)
    assert replies(model, 2) == ["Yes.", "Yes."] and model.allowed == [160, 2_048, 160]
    plain = Opening(("I want to", "length"))
    plain.prompt = b"<|assistant|><think>\n\n</think>\n\n"
    assert replies(plain, 1) == ["I want to"] and plain.allowed == [160]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("I need your email to continue.", "My email is a@b.c."),
        ("To go on we'll need your zip", "My zip is 10001."),
        ("Tell me your email and zip.", "My email is a@b.c, my zip is 10001."),
        ("Let me know your email.", "My email is a@b.c."),
        ("I need your order number.", AGAIN),
        ("Share the order number with me.", AGAIN),
        ("Please provide your order number and the reason.", AGAIN),
        ("Please provide the order id, or anything else that helps.", AGAIN),
        ("Could you provide us with additional details?", AGAIN),
        ("Please provide your zip.", "My zip is 10001."),
        ("What else can I do for you?", "No, that is all."),
        ("It is cancelled. Tell me what else you need, or how else can I help?", "No, that is all."),
        ("Is there any other issue?", "No, that is all."),
        ("What else is in the order?", AGAIN),
        ("Let me know which one you prefer.", AGAIN),
        ("Which payment method would you like to use?", AGAIN),
        ("Thank you. And how many, then?", AGAIN),
        ("May I ask what the reason is?", AGAIN),
        ("Let me know if you want it.", YES),
        ("Let us know whether that is right.", YES),
        ("Let me know if you want to proceed.", YES),
        ("I need your confirmation.", YES),
        ("Is this what you want?", YES),
        ("What about the red one?", YES),
        ("How does that sound?", YES),
        ("This is what I will do:\n- cancel #W1\nIs that right?", YES),
        ("Do you have any questions, or shall I go ahead?", YES),
        ("Let me check that for you.", "OK."),
        ("Found it. I’ll look at the items now", "OK."),
        ("I cannot do that. I will transfer you to a human agent.", "OK."),
        ("I'm looking at it. Hold on!", "OK."),
        ("I need to see the order first.", "OK."),
        ("Let me check. It is cancelled.", STOP),
        ("I will cancel it. Done. I'll be happy to help again.", STOP),
        ("I will not cancel it.", STOP),
        ("Your order has been cancelled. Let me know.", STOP),
        ("Let me know if you have any other questions.", STOP),
        ("...", STOP),
        ("?", YES),
        ("Is there anything else I can help with?", "No, that is all."),
        ("It is cancelled. Please feel free to ask. Any further questions?", "No, that is all."),
        ("What is your email? Is there anything else?", "My email is a@b.c."),
    ],
)
def test_a_customer_by_rules_answers_requests_in_any_form_and_waits(said: str, answer: str) -> None:
    customer = RuleCustomer("You want your lamp.", {"email": "a@b.c", "zip": "10001"})
    assert asyncio.run(customer.reply(said)) == answer


def test_a_customer_by_rules_says_once_that_nothing_else_is_wanted() -> None:
    customer = RuleCustomer("You want it.", {})
    more = "Done. Anything else?"
    assert [asyncio.run(customer.reply(each)) for each in (more, "ok?", more)] == ["No, that is all.", YES, STOP]
    asyncio.run(customer.first(GREETING))
    assert asyncio.run(customer.reply(more)) == "No, that is all."


def attempt(customer: Callable[[], Customer], replies: Sequence[str], journal: Any = None, model: Any = None) -> Trace:
    agent = Agent("a", model or Scripted(list(replies)), thought_action, {"constrained": False, "max_steps": 50})

    def world(task: Task) -> WorldEnvironment:
        return WorldEnvironment(ServiceWorld(ServiceDesk({}), customer(), greeted=False), rounds=40)

    setting = NamedSetting("shop", environment=world)
    return asyncio.run(rollout(agent, Task("t", "Serve."), benchmark=setting, journal=journal or MemoryJournal()))


def test_a_terse_customer_is_not_cut_off_where_something_else_is_asked_or_done_between() -> None:
    def terse() -> Customer:
        return ModelCustomer("x", Scripted(lambda messages, *_: STOP if "Bye" in messages[-1].text else "Yes."))

    for said in (["Do 1?", "Do 2?", "Do 3?", "Do 4?"], ["Now?", ADD, "Now?", "Now?", ADD, "Now?"]):
        state = attempt(terse, [*said, "Bye"]).final_state
        assert state["ended"] == "customer stopped" and state["rounds"] == len(said) + 1
        assert state["result"]["heard"] == ["Yes."] * 4 + [STOP]


def test_equal_exchanges_end_a_conversation_as_looped() -> None:
    def polite() -> Customer:
        return ModelCustomer("x", Scripted(lambda messages, *_: "Thanks!"))

    state = attempt(polite, ["Welcome!"] * 9).final_state
    assert (state["ended"], state["rounds"], state["result"]["heard"]) == ("looped", 3, ["Thanks!"] * 3)
    assert failure_reason(state) == "loop"
    changing = attempt(lambda: ModelCustomer("x", Scripted(["a", "b", "a", "b", "a", STOP])), ["Hm?"] * 9)
    assert changing.final_state["ended"] == "customer stopped" and changing.final_state["rounds"] == 6
    ruled = attempt(lambda: RuleCustomer("x", {}), [*["ok?"] * 5, "Done."]).final_state
    assert ruled["ended"] == "customer stopped" and ruled["rounds"] == 6


def test_a_world_that_is_opened_again_has_heard_nothing() -> None:
    async def talked() -> tuple[str | None, str | None]:
        world = ServiceWorld(ServiceDesk({}), ModelCustomer("x", Scripted(["a"] * 3)), greeted=False)
        await world.open()
        for _ in range(3):
            await world.respond("Hm?")
        ended = world.ending
        await world.open()
        return ended, world.ending

    assert asyncio.run(talked()) == ("looped", None)


def test_thirty_messages_end_a_conversation_as_a_limit() -> None:
    state = attempt(lambda: ModelCustomer("x", Scripted(lambda m, *_: f"{len(m)}")), [ADD, *["ok?"] * 40]).final_state
    assert (state["ended"], len(state["result"]["said"]), state["rounds"]) == ("turns", MAX_TURNS, MAX_TURNS + 1)
    assert STOP not in state["result"]["heard"] and failure_reason({**state, "longest_loop": 1}) == "limit"
    assert attempt(lambda: RuleCustomer("x", {}), ["ok?"] * 40).final_state["ended"] == "turns"


def test_a_replay_asks_the_customers_model_for_no_tokens_either() -> None:
    class Gone(Opening):
        async def tokenize(self, prompt: Any, tools: Any = (), **options: Any) -> list[int]:
            raise AssertionError("the weights are not here")

    journal = MemoryJournal()
    thinking = Opening(("a", "length"), ("b</think>c", "stop"), (STOP, "stop"))
    first = attempt(lambda: ModelCustomer("x", thinking), ["A", "B"], journal)
    assert first.final_state["result"]["heard"] == ["c", STOP]
    plain = Opening(("long and", "length"), (STOP, "stop"))
    plain.prompt = b"<|assistant|>"
    second_journal = MemoryJournal()
    second = attempt(lambda: ModelCustomer("x", plain), ["A", "B"], second_journal)
    for whole, kept in ((first, journal), (second, second_journal)):
        replay = Replay(Recorded(kept), name="scripted", fingerprint=whole.agent["fingerprint"])
        replayed = attempt(lambda: ModelCustomer("x", Gone()), [], model=replay)
        assert replayed.error is None and replayed.final_state == whole.final_state


def test_what_a_customer_failed_to_say_is_asked_again_when_the_attempt_is_retried() -> None:
    journal = MemoryJournal()
    failed = attempt(lambda: ModelCustomer("x", Cut(("<think>", "length"), ("", "stop"))), ["Hi"], journal)
    assert failed.error is not None and "said nothing" in str(failed.error) and not failed.scores
    again = attempt(lambda: ModelCustomer("x", Cut(("<think>", "stop"), (STOP, "stop"))), ["Hi"], journal)
    assert again.error is None and again.final_state["ended"] == "customer stopped"
