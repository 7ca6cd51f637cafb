"""Single effects of an attempt, called by hand: what guards ask, sizes, turns, time, replies, warming up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from firsthand.errors import LimitExceeded, ModelError, TransientError
from firsthand.loop.approval import Approval, Decision, approval_key
from firsthand.loop.attempt import Attempt
from firsthand.loop.borders import Borders, _View
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.call_cost import CallCost
from firsthand.loop.concurrency import Branch, Retry, current_branch, derive_seed, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.loop.listener import Began, Piece
from firsthand.loop.open_call import OpenCall
from firsthand.loop.prompt_size import estimated_size
from firsthand.loop.reply_body import Continued
from firsthand.loop.request_key import request_key
from firsthand.loop.warm_up import make_ready, warm_up
from firsthand.message import Json, Message, Sampled, Text, assistant, canonical, user
from firsthand.model import Completion, Delta, Sampling, ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.tool import Tool, tool
from firsthand.trace import Call, Event, PromptIds
from jumping_clock import run_by_the_clock
from open_calls import Worded, attempt_of, open_call, untimed, within


@tool(effect="external", name="look_up")
def look_up(query: str) -> str:
    """Look a query up."""
    raise AssertionError("its items come from elsewhere")


# -- what guards ask --


def test_a_guards_question_is_paid_recorded_and_answered_once() -> None:
    judge = Scripted(["yes no", "never"], name="scripted:judge")
    attempt = attempt_of(Scripted(["own"]))
    budget = Budget(Limits(tokens=20, calls=3))
    borders = Borders(attempt, ":5", 0, budget, 2)
    asked = Sampling(max_tokens=6)

    def ask(view: Any, model: Any = judge, sampling: Sampling = asked) -> Any:
        return within(lambda: view.ask("a b c", model, sampling))

    view = _View(borders, ":5 guard 0 call")
    assert ask(view).message.text == "yes no" and view.count == 1
    sampling = replace(asked, seed=derive_seed(7, ":5 guard 0 call 0"))
    request = request_key(judge.fingerprint, "a b c", sampling, (), 1)
    made = Call(
        ":5 guard 0 call 0",
        "guard",
        0,
        0,
        0,
        request,
        Usage(3, 0, 2),
        (),
        {"model": "scripted:judge", "answer": "yes no"},
    )
    assert untimed(attempt.calls) == [made] and attempt.nodes[2:] == []
    assert (budget.spent, budget.calls, budget.reserved_tokens) == (Usage(3, 0, 2), 1, 0)
    again = attempt_of(Scripted(), journal=attempt.journal)  # type: ignore[arg-type]
    poor = Budget(Limits(tokens=1))
    assert ask(_View(Borders(again, ":5", 0, poor), ":5 guard 0 call")).message.text == "yes no"
    assert untimed(again.calls) == [replace(made, replayed=True)] and len(judge.asked) == 1
    assert poor.spent == Usage(3, 0, 2)
    assert ask(view, None, replace(asked, seed=5)).message.text == "own", (
        "the agent's model is asked where none is given"
    )
    assert attempt.agent.model.asked[0].sampling == replace(asked, seed=5)  # type: ignore[attr-defined]
    with pytest.raises(LimitExceeded, match="a call needs 9 tokens or more, prompt included, and 8 of"):
        ask(_View(replace(borders, budget=Budget(Limits(tokens=8))), ":6 guard 0 call"))
    with pytest.raises(LimitExceeded, match="groups are nested 2 deep, and the limit is 1"):
        ask(_View(replace(borders, budget=Budget(Limits(depth=1))), ":6 guard 0 call"))
    calls = len(attempt.calls)
    with pytest.raises(ModelError):
        ask(view, Scripted(error=ModelError("gone")))
    failed = attempt.calls[calls]
    assert (failed.id, failed.error) == (":5 guard 0 call 2", "it was broken off before it had an answer")
    assert failed.usage == Usage() and failed.detail == {"model": "scripted"} and budget.reserved_tokens == 0


def test_a_claim_is_granted_up_to_its_most_and_kept_with_what_was_asked() -> None:
    attempt = attempt_of(Scripted())
    view = _View(Borders(attempt, ":5", 0, Budget(Limits())), ":5 guard 1 call")

    async def claims() -> list[bool]:
        return [
            await view.claim("k", 3, 2), await view.claim("k", 3, 2), await view.claim("k", 3),
            await view.claim("k", 4, 0.5, "i"), await view.claim("k", 4, 1, "i"), await view.claim("k", 9, 0),
            await view.claim("k", 9, -1), await view.claim("k", float("inf"), float("inf")), await view.claim("m", 1),
        ]  # fmt: skip

    assert within(claims) == [True, False, True, True, True, False, False, False, True]
    place = ":5 guard 1 call"
    assert attempt.claims == {"k": {f"{place} 1": 2, f"{place} 3": 1, "i": 1}, "m": {f"{place} 1": 1}}
    entries = list(attempt.journal.entries.items())  # type: ignore[attr-defined]
    assert [(effect, body) for (effect, _), body in entries[1:4]] == [
        (":5 guard 1 call 1", {"claim": "k", "granted": False, "amount": 2, "item": "", "at": f"{place} 2"}),
        (":5 guard 1 call 2", {"claim": "k", "granted": True, "amount": 1, "item": "", "at": f"{place} 3"}),
        (":5 guard 1 call 3", {"claim": "k", "granted": True, "amount": 0.5, "item": "i", "at": f"{place} 4"}),
    ]
    assert [key for (_, key), _ in (entries[2], entries[3])] == [
        request_key("claim", canonical(["k", 3])), request_key("claim", canonical(["k", 4, 0.5, "i"])),
    ]  # fmt: skip
    resumed = attempt_of(Scripted(), journal=attempt.journal)  # type: ignore[arg-type]
    later = _View(Borders(resumed, ":6", 0, Budget(Limits())), ":6 guard 0 call")
    assert within(lambda: later.claim("k", 4.5, 1)) is False and resumed.claims == attempt.claims


def test_a_guards_question_to_a_person_has_its_reason_and_its_answer_is_kept() -> None:
    asked: list[Any] = []

    async def ask(tool: Tool, arguments: Json) -> Decision:
        asked.append((tool.name, arguments))
        return Decision(True, "nobody" if len(asked) == 1 else "me", "fine")

    attempt = attempt_of(Scripted(), approval=Approval(ask=ask))
    view = _View(Borders(attempt, ":5", 0, Budget(Limits())), ":5 guard 0 call")
    for by in ("nobody", "me", "me"):
        found = within(lambda: view.approve(look_up, {"query": "q"}, "why"))
        assert replace(found, once="") == Decision(True, by, "fine") and bool(found.once) == (by == "me")
    assert asked == [("look_up", {"query": "q"})] * 2
    key = approval_key(":5", look_up, {"query": "q"})
    kept = {"allowed": True, "by": "me", "reason": "fine", "once": found.once}
    shown = approval_key(":5", look_up, {"query": "q"}, "why")[1]
    assert attempt.journal.entries == {(key[0], shown): kept, key: kept}  # type: ignore[attr-defined]


# -- size, turn and time --


class Uncounted:
    """A model of an endpoint: how many tokens a prompt has is not known before it is sent."""

    name = fingerprint = "far"


def test_prompts_are_counted_once_where_tokens_are_limited_and_one_branch_at_a_time() -> None:
    attempt = attempt_of(Scripted())
    unlimited, limited = open_call(attempt), open_call(attempt, budget=Budget(Limits(), Budget(Limits(tokens=9))))
    entries: Any = attempt.journal.entries  # type: ignore[attr-defined]
    assert within(lambda: unlimited.size("a b c")) == 0 and entries == {}
    assert within(lambda: limited.size("a b c", continuations=["d", "e f"])) == 6
    (place,) = entries
    assert place[0] == ":4" and entries[place] == {"size": 6}
    entries[place] = {"size": 41}
    assert within(lambda: limited.size("a b c", continuations=["d", "e f"])) == 41, "a resumed attempt gets the same"
    assert within(lambda: limited.size("a b c")) == 3
    offered = [ToolSpec("t", "Do", {"type": "object"}), ToolSpec("other", "Do it", {})]
    endpoint = open_call(attempt_of(Uncounted()), budget=limited.budget)
    for prompt in ("abcde", (user("abcde"), assistant("f"))):
        bare, more = (
            within(lambda specs=specs, prompt=prompt: endpoint.size(prompt, specs)) for specs in ((), offered)
        )
        assert (bare, more) == (estimated_size(prompt), estimated_size(prompt, offered)) and more > bare + 20
        assert within(lambda prompt=prompt: endpoint.size(prompt, offered[:1])) == estimated_size(prompt, offered[:1])

    async def order(call: Any) -> list[str]:
        told: list[str] = []

        async def turn(name: str) -> None:
            async with call.turn():
                told.append(f"{name} comes")
                await asyncio.sleep(0)
                told.append(f"{name} goes")

        await asyncio.gather(turn("a"), turn("b"))
        return told

    assert within(lambda: order(limited)) == ["a comes", "a goes", "b comes", "b goes"]
    assert within(lambda: order(unlimited)) == ["a comes", "b comes", "a goes", "b goes"]
    steps: list[Any] = []
    attempt.listener = steps.append
    assert not attempt.has_begun
    limited.begin("memory")
    assert attempt.has_begun and steps == [Began(":4", "memory", 1, {})]


def test_a_call_ends_with_its_time_and_an_own_timeout_stays_its_own() -> None:
    attempt = attempt_of(Scripted())

    async def wait(deadline_s: float, error: Exception | None = None) -> str:
        async with open_call(attempt, deadline_s=deadline_s).in_time():
            if error is not None:
                raise error
            await asyncio.sleep(0 if deadline_s > 1 else 9)
        return "done"

    assert within(lambda: wait(float("inf"))) == within(lambda: wait(attempt.elapsed_s() + 60)) == "done"
    with pytest.raises(LimitExceeded) as up:
        within(lambda: wait(attempt.elapsed_s() + 0.001))
    assert (up.value.limit, str(up.value)) == ("seconds", "the time for this part of the attempt is up")
    own = TimeoutError("of the model")
    with pytest.raises(TimeoutError) as raised:
        within(lambda: wait(attempt.elapsed_s() + 60, own))
    assert raised.value is own


def test_a_call_has_the_time_that_is_left_of_the_attempt() -> None:
    class Late:
        """An attempt that began ten seconds ago."""

        def elapsed_s(self) -> float:
            return 10.0

    async def wait(deadline_s: float, length_s: float) -> str:
        call: Any = OpenCall(Late(), Budget(Limits()), None, deadline_s, ":0", 0)  # type: ignore[arg-type]
        assert call.started_s == 10.0
        async with call.in_time():
            await asyncio.sleep(length_s)
        return "done"

    def took(deadline_s: float, length_s: float) -> tuple[str, float]:
        found, seconds = run_by_the_clock(wait(deadline_s, length_s))
        return str(found), seconds

    up = "the time for this part of the attempt is up"
    assert [took(deadline_s, length_s) for deadline_s, length_s in (
        (13.0, 2.75), (13.0, 3.25), (10.0, 1.0), (9.0, 1.0), (float("inf"), 1e6),
    )] == [("done", 2.75), (up, 3.0), (up, 0.0), (up, 0.0), ("done", 1e6)]  # fmt: skip


# -- replies --


def test_a_model_that_fails_for_a_while_is_asked_again_and_its_reply_kept_before_it_is_used() -> None:
    attempt = attempt_of(Scripted(), retry=Retry(3, 0.001, 0.004))
    tries: list[int] = []

    async def ask() -> Json:
        tries.append(len(attempt.journal.entries))  # type: ignore[attr-defined]
        if len(tries) < 3:
            raise TransientError("busy", retry_after_s=0.0016 * len(tries))
        return {"completions": []}

    cost = CallCost(Budget(Limits()), 5)
    assert within(lambda: attempt.reply(":1", "k", ask, None, cost)) == {"completions": []} and tries == [0, 0, 0]
    assert cost.usage == Usage(), "a busy server's refusals cost nothing"
    assert attempt.journal.entries == {(":1", "k"): {"completions": []}}  # type: ignore[attr-defined]
    assert [(event.kind, event.data) for event in attempt.events] == [
        ("retry", {"attempt": 1, "error": "busy", "wait_s": 0.002}),
        ("retry", {"attempt": 2, "error": "busy", "wait_s": 0.003}),
    ]
    assert not attempt.has_begun and isinstance(attempt.events[0], Event)
    other: Json = {"completions": [Completion(assistant("x"), "stop", Usage(1, 0, 2)).to_json()]}
    assert within(lambda: attempt.reply(":2", "k", ask, other, cost)) is other and len(tries) == 3 and attempt.has_begun
    assert cost.usage == Usage(1, 0, 2)


def test_a_reply_is_on_record_and_settled_before_it_is_given_on() -> None:
    log: list[str] = []

    class Durable(MemoryJournal):
        def record(self, effect: str, request: str, reply: Json) -> None:
            log.append(f"record {effect}")
            super().record(effect, request, reply)

        async def settled(self) -> None:
            await asyncio.sleep(0)
            log.append("settled")

    attempt = attempt_of(Scripted(), journal=Durable())

    async def ask() -> Json:
        log.append("asked")
        return {"completions": []}

    async def main() -> None:
        await attempt.reply(":0", "k", ask, None, CallCost(Budget(Limits())))
        log.append("given")
        await attempt.keep(":1", "k", {"started": True})
        log.append("kept")

    within(main)
    assert log == ["asked", "record :0", "settled", "given", "record :1", "settled", "kept"]


def listening(model: Any) -> Any:
    attempt = attempt_of(model)
    attempt.listener = lambda step: None
    return attempt


def test_one_answer_is_streamed_to_who_listens_to_streams_and_several_are_not() -> None:
    def pieces(n: int, listener: Any) -> tuple[list[str], int]:
        model, heard = Worded(["one two", "b", "c"]), list[Any]()
        attempt = attempt_of(model)
        attempt.listener = listener(heard)
        made = within(lambda: attempt.complete(":1", "q", Sampling(), (), n))
        return [each.message.text for each in made], sum(isinstance(step, Piece) for step in heard)

    class Hears:
        def __init__(self, heard: list[Any], streams: bool = True) -> None:
            self.heard, self.streams = heard, streams

        def __call__(self, step: Any) -> None:
            self.heard.append(step)

    assert pieces(1, Hears) == pieces(1, lambda heard: heard.append) == (["one two"], 2)
    assert pieces(2, Hears) == (["one two", "b"], 0)
    assert pieces(1, lambda heard: Hears(heard, False)) == pieces(1, lambda heard: None) == (["one two"], 0)

    class Endless(Scripted):
        async def stream(self, *args: Any, **options: Any) -> Any:
            async for delta in super().stream(*args, **options):
                if delta.completion is None:
                    yield delta

    class Trailing(Scripted):
        async def stream(self, *args: Any, **options: Any) -> Any:
            async for delta in super().stream(*args, **options):
                yield delta
            yield Delta("")

    (made,) = within(lambda: listening(Trailing(["late"])).complete(":1", "q", Sampling(), (), 1))
    assert made.message.text == "late", "a piece after the Completion changes nothing"
    attempt, heard = attempt_of(Endless(["x"])), list[Any]()
    attempt.listener = heard.append
    with pytest.raises(ModelError) as ended:
        within(lambda: attempt.complete(":1", "q", Sampling(), (), 1))
    assert str(ended.value) == "scripted ended its stream without a Completion: the last Delta must carry it"
    assert heard == [Piece(":1", "x")]


def test_a_prompt_continues_the_nearest_answer_above_or_the_last_call_from_its_node() -> None:
    attempt = attempt_of(Scripted())

    def said(*ids: int) -> Message:
        return Message("assistant", (Text("x"),), Sampled(ids, (0.0,) * len(ids)))

    def generated(effect: str, at: int | None, ids: tuple[int, ...] | None, *nodes: int) -> None:
        attempt.record_generation(effect, at, 0.0, f"k{effect}", nodes=nodes, ids=ids, specs=())

    def main() -> None:
        first, second = attempt.add_node(1, said(4, 5)), attempt.add_node(1, said(6))
        generated(":0", 1, (1, 2, 3), first, second)
        generated(":1", 1, (1, 2, 9), third := attempt.add_node(1, said(7)))
        below = attempt.add_node(second, Message("user", (Text("y"),)))
        generated(":2", below, (1, 2, 3, 6, 8), last := attempt.add_node(below, said(11)))
        generated(":3", last, None)
        prompts = [call.prompt for call in attempt.calls]
        assert prompts == [PromptIds((1, 2, 3)), PromptIds((9,), 0, 0, 2), PromptIds((8,), 0, 1, 4), None]
        assert attempt._ids_of(0, 1) == (1, 2, 3, 6) and attempt._ids_of(1, 0) == (1, 2, 9, 7)
        assert attempt._ids_of(2, 0) == (1, 2, 3, 6, 8, 11)
        assert attempt._continued(below) == attempt._continued(second) == Continued("k:0", 1, (1, 2, 3, 6))
        assert attempt._continued(third) == Continued("k:1", 0, (1, 2, 9, 7))
        assert attempt._continued(1) is None and attempt._continued(None) is None
        generated(":4", 1, None, attempt.add_node(1, said(3)))  # its ids are not known, so no prompt continues it
        generated(":5", 1, (1, 2, 9, 7, 3, 3))  # it gave no answer, so no prompt continues it
        assert attempt._prompt(1, (5, 5)) == PromptIds((5, 5)), "nothing is shared"
        assert attempt._prompt(1, (1, 2, 9, 7, 3)) == PromptIds((3,), 1, 0, 4), "the last call from the node"
        assert attempt._prompt(last, (1, 2, 3, 6, 8, 11, 0)) == PromptIds((0,), 2, 0, 6)
        generated(":6", 0, (), attempt.add_node(0, said(1)))
        assert attempt.calls[-1].prompt == PromptIds(()), "no ids are known ids"
        begun = Attempt(attempt.agent, (), MemoryJournal(), 0)
        top = begun.add_node(None, said(4))
        begun.record_generation(":0", None, 0.0, "first", nodes=(top,), ids=(3,), specs=())
        assert top == 0 and begun._continued(begun.add_node(top, said(5))) == Continued("first", 0, (3, 4))
        assert begun._prompt(top, (3, 4, 6)) == PromptIds((6,), 0, 0, 2)
        completion = Completion(said(12), "stop", Usage(7, 0, 1), prompt_ids=(1, 2, 3, 6, 8, 11, 0))
        body = attempt.to_reply([completion], last)
        assert {name: body["prompt"][name] for name in ("ids", "after", "sample", "kept")} == {
            "ids": [0], "after": "k:2", "sample": 0, "kept": 6,
        }  # fmt: skip
        assert attempt.from_reply(body, last) == [completion]
        unknown = [replace(completion, prompt_ids=None)]
        assert attempt.from_reply(body, first) == unknown, "another call is continued there"
        other = body | {"prompt": body["prompt"] | {"sample": 1}}
        assert attempt.from_reply(other, last) == unknown == attempt.from_reply(body, None)

    async def alone() -> None:
        main()

    within(alone)


# -- warming up --


def test_a_model_that_is_not_loaded_is_loaded_and_answers_two_tokens_before_the_clock_begins() -> None:
    told: list[Any] = []

    class Cold:
        def __init__(self, name: str, alive: bool = False, fails: str = "") -> None:
            self.name, self.is_alive, self.fails = name, alive, fails

        async def load(self) -> None:
            told.append((self.name, "load"))
            if self.fails == "load":
                raise ModelError("no file")

        async def stream_many(self, prompt: Any, sampling: Sampling, **options: Any) -> Any:
            told.append((self.name, prompt, sampling.max_tokens, sampling.temperature, options))
            try:
                yield 1
                if self.fails == "stream":
                    raise ModelError("no answer")
                yield 2
                told.append((self.name, "all"))
            finally:
                told.append((self.name, "closed"))

        async def tokenize(self, *args: Any, **more: Any) -> list[int]: ...  # type: ignore[empty-body]
        async def detokenize(self, ids: Any) -> str: ...  # type: ignore[empty-body]
        def spell(self, ids: Any) -> list[bytes]: ...  # type: ignore[empty-body]
        async def rate(self, *args: Any, **more: Any) -> list[Any]: ...  # type: ignore[empty-body]
        async def counters(self) -> dict[str, float]: ...  # type: ignore[empty-body]

    class NoTokens:
        is_alive = False

    text, apart = "The quick brown fox jumps over the lazy dog.", {"cache_salt": "warm-up"}
    models: Any = [Scripted(), NoTokens(), Cold("warm", alive=True), Cold("a"), Cold("b", fails="stream"), Cold("c")]
    asyncio.run(make_ready(models))
    asked = {name: [(name, "load"), (name, text, 2, 0, apart)] for name in "abcd"}
    whole = [*asked["a"], ("a", "all"), ("a", "closed"), *asked["b"], ("b", "closed"), *asked["c"], ("c", "all")]
    assert told == [*whole, ("c", "closed")]
    told.clear()
    broken: Any = [Cold("x", fails="load"), Cold("d")]
    with pytest.raises(ModelError):
        asyncio.run(make_ready(broken))
    assert told == [("x", "load")]
    told.clear()
    asyncio.run(warm_up(broken))
    assert told == [("x", "load"), *asked["d"], ("d", "all"), ("d", "closed")]


def test_a_branch_of_a_group_adds_no_last_node_and_orders_its_calls_by_its_place() -> None:
    attempt = attempt_of(Scripted())

    async def main() -> None:
        enter_branch(Branch("0.1", 1, place=(2, 0, 0, 1)))
        attempt.add_node(1, Message("user", (Text("x"),)))
        attempt.record("tool", "0.1:3", 2, attempt.elapsed_s() - 5, "k", detail={"a": 1})
        assert current_branch().path == "0.1"

    asyncio.run(main())
    assert attempt.last_of_root == 1 and attempt.order == {"0.1:3": (2, 0, 0, 1, 3, 1)}
    (call,) = attempt.calls
    assert 5 <= call.duration_s < 9 and untimed([call]) == [Call("0.1:3", "tool", 2, 0, 0, "k", detail={"a": 1})]
