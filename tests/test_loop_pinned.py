"""The loop's small rules, each against a second computation: what had ended, what is replayed, paid, quoted, waited for."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.agent import Agent
from firsthand.context import MAX_CALLS, Context
from firsthand.errors import LimitExceeded
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.attempt import cost_of
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Branch, Retry, current_branch, enter_branch, group, had_ended
from firsthand.loop.pattern_options import check_options, checked
from firsthand.loop.protection import ANSWER_CHARS, SHORT_CHARS, shareable
from firsthand.loop.reply_body import Continued, answered, from_body, shared, to_body
from firsthand.message import Message, Sampled, Text, ToolCall, assistant
from firsthand.model import Completion, Sampling, ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool, tool_from_function
from firsthand.trace import Call, Event, Failure, Node, PromptIds, Score, Trace, prompt_ids

# -- what had ended --


async def grown(
    random: Random, depth: int, log: list[tuple[str, frozenset[str]]], before: frozenset[str]
) -> frozenset[str]:
    """Runs a random tree of effects and groups; logs each effect with all that was awaited before it, and returns all."""
    for _ in range(random.randint(1, 3)):
        if depth and random.random() < 0.5:
            seeds = [random.random() for _ in range(random.randint(1, 3))]
            made = await group(grown(Random(seed), depth - 1, log, before) for seed in seeds)
            before = before.union(*made)
        else:
            effect = current_branch().next_effect()
            log.append((effect, before))
            before |= {effect}
    return before


@pytest.mark.parametrize("seed", range(25))
def test_an_effect_had_ended_if_it_was_awaited_before(seed: int) -> None:
    log: list[tuple[str, frozenset[str]]] = []

    async def main() -> None:
        enter_branch(Branch())
        await grown(Random(seed), 3, log, frozenset())

    asyncio.run(main())
    for place, (effect, before) in enumerate(log):  # siblings that were made first are recorded, and had not ended
        assert {other for other, _ in log[: place + 1] if had_ended(other, effect)} == before, effect
        assert had_ended(f"{effect} guard 0 prompt 0", f"{effect} guard 1 call 1") is False  # of one place: neither


# -- replies as they are kept --

IDS = st.lists(st.integers(0, 3), max_size=8).map(tuple)


def completion(ids: tuple[int, ...] | None, text: str = "x") -> Completion:
    message = replace(assistant(text), sampled=Sampled((7,), (-0.5,)))
    return Completion(message, "stop", Usage(3, 0, 1), prompt_ids=ids)


@pytest.mark.slow
@given(IDS, IDS, st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_ids_of_a_prompt_come_back_from_what_they_add_to_an_earlier_one(
    ids: tuple[int, ...], earlier: tuple[int, ...], continues: bool
) -> None:
    same = next(
        (at for at, (a, b) in enumerate(zip(ids, earlier, strict=False)) if a != b), min(len(ids), len(earlier))
    )
    assert shared(ids, earlier) == same
    made = [completion(ids, "one"), completion(ids, "two")]
    body = to_body(made, Continued("key", 1, earlier) if continues else None)
    assert len(body["prompt"]["ids"]) == len(ids) - (same if continues else 0)

    def known(request: str, sample: int) -> tuple[int, ...]:
        assert (request, sample) == ("key", 1)
        return earlier

    assert from_body(body, known) == made
    if continues and same:  # the ids are not known where the earlier ones are not, or are not those of the time
        unknown = [replace(each, prompt_ids=None) for each in made]
        assert from_body(body, lambda request, sample: None) == unknown
        assert from_body(body, lambda request, sample: tuple(id + 1 for id in earlier)) == unknown
        assert from_body(body, lambda request, sample: earlier[: same - 1]) == unknown
    assert answered(made[0]) == (*ids, 7) and answered(completion(None)) is None


def test_a_reply_without_ids_is_kept_without_them() -> None:
    made = [completion(None)]
    body = to_body(made, Continued("key", 0, (1,)))
    assert (
        "prompt" not in body
        and from_body(body, lambda request, sample: (1,)) == made
        and to_body([])["completions"] == []
    )


def test_a_recorded_reply_costs_all_its_answers() -> None:
    usages = [Usage(10, 2, 3, 0.5), Usage(0, 0, 4, 0.25), Usage(1, 0, 0)]
    made = [replace(completion(None), usage=usage) for usage in usages]
    for count in range(4):
        assert cost_of(to_body(made[:count])) == sum(usages[:count], Usage())
    assert cost_of({"likelihoods": [], "usage": Usage(5).to_json()}) == Usage(5)
    assert cost_of({"content": "x"}) == cost_of({}) == Usage()


# -- protected text --

SECRET = "The question of a protected benchmark is never quoted anywhere."


def protected(**changes: Any) -> Trace:
    plain = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 1.0, (Node(None, Message("user", (Text(SECRET),))),))
    return replace(plain, events=(Event("protected", 0.0, {"why": "asked"}),), **changes)


@pytest.mark.parametrize("start", [0, 1, 20, len(SECRET) - SHORT_CHARS])
@pytest.mark.parametrize("before", ["", "no: "])
@pytest.mark.parametrize("after", ["", " (sic)"])
def test_an_error_that_quotes_a_short_piece_of_a_message_anywhere_is_withheld(
    start: int, before: str, after: str
) -> None:
    for size, withheld in ((SHORT_CHARS, True), (SHORT_CHARS - 1, False)):
        said = f"{before}{SECRET[start : start + size]}{after}"
        if not withheld:
            said = f"{before or '#'}{SECRET[start : start + size]}{after or '#'}"  # a letter less than a piece
        error = shareable(protected(error=Failure("E", said, "trace"))).error
        assert error is not None
        assert (error.message, error.traceback) == (
            (f"[withheld: {len(said)} characters]", None) if withheld else (said, "trace")
        )


def test_short_texts_are_kept_and_longer_ones_withheld_with_their_length() -> None:
    for size in (0, 1, SHORT_CHARS, SHORT_CHARS + 1, 100):
        text = "z" * size
        shown = text if size <= SHORT_CHARS else f"[withheld: {size} characters]"
        found = shareable(
            protected(scores=(Score("s", 0.5, {"k": [text, 3], "trace": {}}, failure=text),), final_state={"x": text})
        )
        assert found.scores == (Score("s", 0.5, {"k": [shown, 3]}, failure=shown),) and found.final_state == {
            "x": shown
        }
        answer = shareable(protected(answer=text)).answer
        assert answer == (text if size <= ANSWER_CHARS else f"[withheld: {size} characters]")
    assert shareable(protected()).nodes[0].message.text == f"[withheld: {len(SECRET)} characters]"
    plain = replace(protected(answer="z" * 99), events=())
    assert shareable(plain) is plain


# -- retries --


def test_waits_double_from_the_first_to_the_longest_and_are_half_to_whole() -> None:
    retry = Retry(first_wait_s=2.0, max_wait_s=10.0)
    for attempt, ceiling in ((1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (9, 10.0)):
        waits = [retry.wait_s(attempt, None, Random(seed)) for seed in range(200)]
        assert ceiling / 2 <= min(waits) < 0.55 * ceiling and 0.95 * ceiling < max(waits) <= ceiling
        assert [retry.wait_s(attempt, asked, Random(0)) for asked in (-1.0, 0.0, 3.0, 99.0)] == [0.0, 0.0, 3.0, 10.0]


# -- what a Context tells --


class Considering(Scripted):
    """A model that tells for each answer what it considered."""

    async def complete(self, *args: Any, **options: Any) -> list[Completion]:
        made = await super().complete(*args, **options)
        return [
            replace(each, top_logprobs=(((each.message.text, -0.5), ("no", -1.0)),) if options.get("n", 1) > 1 else ())
            for each in made
        ]


def test_each_answer_has_alternatives_of_its_own() -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        assert ctx.alternatives == []
        asked = ctx.say("q")
        answers = await asked.sample(3, top_logprobs=2)
        assert asked.alternatives == []
        for answer in answers:
            assert answer.alternatives == [[(answer.text, -0.5), ("no", -1.0)]]
        assert len({answer.text for answer in answers}) == 3
        assert (await answers[0].say("more").generate()).alternatives == []
        return "done"

    model = Considering(lambda messages, sampling, index: f"answer {index}")
    trace = asyncio.run(rollout(Agent("a", model, pattern), Task("1", "?")))
    assert trace.error is None and trace.answer == "done"


# -- budgets --


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_groups_may_be_nested_as_deep_as_the_limit_and_no_deeper(depth: int) -> None:
    budget = Budget(Limits(depth=depth))
    for inner in range(depth + 1):
        assert budget.reserve(0, inner, least=0) == 0
    with pytest.raises(LimitExceeded, match=f"nested {depth + 1} deep, and the limit is {depth}"):
        budget.reserve(0, depth + 1, least=0)
    assert budget.hit == "depth" and budget.calls == depth + 1


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 50), st.integers(1, 30)), max_size=12),
    st.tuples(*[st.none() | st.integers(1, 120)] * 3),
    st.tuples(*[st.none() | st.integers(1, 6)] * 3),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_tree_of_budgets_counts_what_its_calls_used_in_each_scope(
    asks: list[tuple[int, int, int, int]], tokens: tuple[int | None, ...], calls: tuple[int | None, ...]
) -> None:
    root = Budget(Limits(tokens=tokens[0], calls=calls[0]))
    middle = Budget(Limits(tokens=tokens[1], calls=calls[1]), root)
    chain = [root, middle, Budget(Limits(tokens=tokens[2], calls=calls[2]), middle)]
    used, made, hit = [0] * 3, [0] * 3, [None] * 3
    for scope, wanted, cost, least in asks:
        above = range(scope + 1)  # this budget and its parents
        left = [math.inf if (most := tokens[each]) is None else most - used[each] for each in above]
        full = [(most := calls[each]) is not None and made[each] >= most for each in above]
        refused = [each for each in reversed(above) if full[each] or left[each] < least]
        assert chain[scope].counts_tokens is any(tokens[each] is not None for each in above)
        if refused:
            with pytest.raises(LimitExceeded) as limit:
                chain[scope].reserve(wanted, least=least)
            assert limit.value.limit == ("calls" if full[refused[0]] else "tokens")
            for each in range(refused[0], scope + 1):  # all that it was refused for, up to the one that refused
                hit[each] = hit[each] or limit.value.limit  # type: ignore[call-overload]
        else:
            granted = chain[scope].reserve(wanted, least=least)
            assert granted == min([wanted, *left])
            assert all(chain[each].reserved_tokens == granted for each in above)
            chain[scope].pay(granted, Usage(cost))
            for each in above:
                used[each], made[each] = used[each] + cost, made[each] + 1
    for place, budget in enumerate(chain):
        assert (budget.spent.total_tokens, budget.calls, budget.reserved_tokens) == (used[place], made[place], 0)
        most = tokens[place]
        assert budget.hit == hit[place] and budget.overspent == (
            "tokens" if most is not None and used[place] > most else None
        )
        rest = [math.inf if (limit_ := tokens[each]) is None else limit_ - used[each] for each in range(place, -1, -1)]
        assert rest[budget.tightest()] == min(rest) and budget.tightest() == rest.index(min(rest))


@pytest.mark.parametrize("answers", [1, 3])
@pytest.mark.parametrize("short", [0, 1, 2, 15])
def test_an_answer_gets_the_tokens_that_are_left_and_what_cuts_it_is_told(answers: int, short: int) -> None:
    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.say("one two three").sample(answers)
        return "done"

    model = Scripted(lambda messages, sampling, index: "word " * 50)  # as many as it may
    limit = 3 + answers * (16 - short)
    agent = Agent("a", model, pattern, sampling=Sampling(max_tokens=16), limits=Limits(tokens=limit))
    trace = asyncio.run(rollout(agent, Task("1", "?")))
    asked = model.asked[0].sampling
    assert asked is not None and asked.max_tokens == 16 - short == trace.calls[0].detail["sampling"]["max_tokens"]
    assert trace.stop_reason == ("tokens" if short else "done") and trace.usage.total_tokens == limit


@pytest.mark.slow
@pytest.mark.parametrize("surplus", [-1, 0, 1, 5])
def test_calls_beyond_the_most_of_one_message_are_errors_and_are_not_run(surplus: int) -> None:
    ran: list[str] = []

    @tool(effect="read")
    def note(text: str) -> str:
        """Note a text."""
        ran.append(text)
        return text

    async def pattern(task: Task, ctx: Context) -> str:
        calls = [ToolCall(str(n), "note", {"text": str(n)}) for n in range(MAX_CALLS + surplus)]
        results = await ctx.call_all(calls)
        assert [(each.call_id, each.name) for each in results] == [(call.id, "note") for call in calls]
        assert [each.is_error for each in results] == [False] * min(len(calls), MAX_CALLS) + [True] * max(0, surplus)
        assert all(f"made {len(calls)} calls: make at most" in each.content for each in results[MAX_CALLS:])
        return "done"

    trace = asyncio.run(rollout(Agent("a", Scripted([]), pattern, tools=(note,)), Task("1", "?")))
    assert trace.error is None and sorted(ran, key=int) == [str(n) for n in range(min(MAX_CALLS, MAX_CALLS + surplus))]
    noted = [event.data for event in trace.events if event.kind == "too_many_calls"]
    assert noted == ([{"asked": MAX_CALLS + surplus, "run": MAX_CALLS}] if surplus > 0 else [])


def test_an_agents_options_go_before_those_a_pattern_was_made_with() -> None:
    def refuse(*, n: int, m: int) -> None:
        seen.append((n, m))

    @checked(refuse)
    async def pattern(task: Task, ctx: Context, *, n: int = 1, m: int = 2) -> str:
        return ""

    seen: list[tuple[int, int]] = []
    for made, options, found in (
        (pattern, {}, (1, 2)), (partial(pattern, n=5), {}, (5, 2)), (partial(pattern, n=5), {"n": 7}, (7, 2)),
        (partial(partial(pattern, n=5, m=6), n=8), {"m": 9}, (8, 9)),
    ):  # fmt: skip
        seen.clear()
        check_options(made, options)
        assert seen == [found]


def test_the_last_message_of_an_attempt_is_one_outside_of_its_groups() -> None:
    places: list[int | None] = []

    class Watches:
        def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
            places.append(view.node)
            return GuardVerdict.passed("looks")

    async def pattern(task: Task, ctx: Context) -> str:
        ctx = await ctx.say("q").generate()

        async def aside(number: int) -> None:
            await ctx.say(f"aside {number}").generate()

        await ctx.group(map(aside, range(2)))
        return ctx.text

    trace = asyncio.run(rollout(Agent("a", Scripted(["a", "b", "c"]), pattern, guard=Watches()), Task("1", "?")))
    assert trace.error is None and len(trace.nodes) == 6 and places == [1]


@pytest.mark.parametrize("effects", ["rr", "re", "er", "ee", "rwr", "rrirr", "rxr", "rrr"])
def test_calls_that_only_read_run_together_and_every_other_alone_and_in_order(effects: str) -> None:
    """r read, w write, e external, i irreversible, x no tool of that name."""
    running: list[str] = []
    seen: list[tuple[str, ...]] = []

    async def work(text: str) -> str:
        """Work."""
        running.append(text)
        for _ in range(20):
            await asyncio.sleep(0)
        seen.append(tuple(sorted(running)))
        running.remove(text)
        return text

    kinds: dict[str, Any] = {"r": "read", "w": "write", "e": "external", "i": "irreversible"}
    tools = [
        replace(tool_from_function(work, effect=kind), spec=ToolSpec(name, "", {})) for name, kind in kinds.items()
    ]
    tools = [replace(each, validate=lambda arguments: dict(arguments)) for each in tools]

    async def pattern(task: Task, ctx: Context) -> str:
        calls = [ToolCall(str(n), name, {"text": f"{n}{name}"}) for n, name in enumerate(effects)]
        results = await ctx.call_all(calls)
        assert [each.content for each in results if not each.is_error] == [
            f"{n}{x}" for n, x in enumerate(effects) if x != "x"
        ]
        return "done"

    approval = Approval(dict.fromkeys(("external", "irreversible"), "allow"))
    trace = asyncio.run(
        rollout(Agent("a", Scripted([]), pattern, tools=tuple(tools), approval=approval), Task("1", "?"))
    )
    assert trace.error is None and trace.answer == "done"
    reads, together = [(n, x) for n, x in enumerate(effects) if x == "r"], []
    for stretch in re.findall("[rx]+|[wei]", effects):
        together.append(len([x for x in stretch if x != "x"]))
    assert max(map(len, seen)) == max(together) and len(seen) == sum(together) and len(reads) == effects.count("r")
    assert all(len(each) == 1 for each in seen if not all(text.endswith("r") for text in each))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 9), IDS, IDS), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_prompt_is_put_together_from_those_it_continues(
    steps: list[tuple[int, tuple[int, ...], tuple[int, ...]]],
) -> None:
    calls: list[Call] = []
    nodes: list[Node] = []
    wholes: list[tuple[int, ...] | None] = []
    before: tuple[int, ...] | None = ()
    for index, (kept, added, answer) in enumerate(steps):
        sampled = Sampled(answer, (-0.5,) * len(answer))
        nodes.append(Node(index - 1 if index else None, replace(assistant(str(index)), sampled=sampled)))
        prompt = PromptIds(added, index - 1, 0, kept) if index else PromptIds(added)
        calls.append(Call(f":{index}", "generate", None, 0.0, 0.0, "", nodes=(index,), prompt=prompt))
        whole = added if not index else None if before is None or kept > len(before) else (*before[:kept], *added)
        wholes.append(whole)
        before = None if whole is None else (*whole, *answer)
        if index and kept <= len(wholes[index - 1] or ()):  # within the earlier prompt the answer does not count
            assert whole is None or whole[:kept] == (wholes[index - 1] or ())[:kept]
    assert [prompt_ids(calls, nodes, index) for index in range(len(calls))] == wholes
