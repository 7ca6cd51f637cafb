"""Before a model runs: limits of a request, what a sequence needs, shares of a step and victims, to the last number."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine_tiny import VOCAB, tiny_model
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core import request_checks as checks
from firsthand.engine.core.admission import answer_sequences, score_sequences
from firsthand.engine.core.live_requests import LiveRequests
from firsthand.engine.core.prompt_shares import PromptShares
from firsthand.engine.core.request_queue import AGING_S, rank
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk, Source
from firsthand.engine.decoding.constraint import bits
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.prefix_cache import adapter_of, space_of
from firsthand.engine.memory.window_pool import SlidingWindowPool
from firsthand.errors import ConfigError, ModelError, PromptTooLong, QueueFull
from firsthand.model import Sampling

ARCHITECTURE = tiny_model().architecture


def sequence(id: int, count: int = 4, **fields: Any) -> Sequence:
    return Sequence(id, 0, list(range(count)), count, **fields)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"n": 0}, "n is 0: give 1 to 1024"),
        ({"n": 1025}, "n is 1025"),
        ({"priority": -1001}, "priority is -1001: give -1000 to 1000"),
        ({"priority": 1001}, "priority is 1001"),
        ({"owner": "x" * 257}, "owner is "),
        ({"salt": "x" * 257}, "salt is "),
        ({"prompt": (1,) * 256}, "the prompt has 256 tokens and at least 1 must follow: the model's context is 256"),
        ({"prompt": ()}, "the prompt is empty"),
        ({"prompt": (1, VOCAB)}, "token 1 of the prompt is 96: expected a whole number from 0 to 95"),
        ({"prompt": (1, 2, -1)}, "token 2 of the prompt is -1"),
        ({"prompt": "ab"}, "token 0 of the prompt is 'a'"),
        ({"stop_ids": frozenset(range(1025))}, "there are 1025 stop_ids: give at most 1024"),
        ({"stop_ids": frozenset({VOCAB})}, "of stop_ids is 96"),
        ({"sampling": Sampling(seed=2**64)}, "seed is "),
        ({"sampling": Sampling(seed=-(2**63) - 1)}, "seed is "),
        ({"sampling": Sampling(logit_bias=((VOCAB, 1.0),))}, "of logit_bias is 96"),
        ({"sampling": Sampling(stop_ids=(VOCAB,))}, "of stop_ids is 96"),
        ({"sampling": Sampling(allowed_token_ids=(VOCAB,))}, "of allowed_token_ids is 96"),
        ({"sampling": Sampling(bad_words=("a",))}, "bad_words that were not encoded"),
        ({"bad_sequences": ((1,), (2, VOCAB))}, "token 1 of bad sequence 1 is 96"),
        ({"bad_sequences": ((1,), ())}, "bad sequence 1 is empty"),
        ({"bad_sequences": ((1,),) * (checks.MAX_BAD_SEQUENCES + 1)}, "bad_sequences: give at most"),
        ({"stopper": 3}, "stopper is 3: give None or a function"),
    ],
)
def test_a_request_is_refused_just_beyond_each_limit(fields: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, ModelError)) as caught:
        checks.check_request(Request(**{"prompt": (1, 2), **fields}), ARCHITECTURE)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1024}, {"priority": -1000}, {"priority": 1000}, {"owner": "x" * 256, "salt": "y" * 256},
        {"prompt": (95,) * 255},
        {"sampling": Sampling(top_logprobs=100, seed=2**64 - 1)}, {"sampling": Sampling(seed=-(2**63))},
        {"sampling": Sampling(logit_bias=((95, 1.0), (0, 1.0)), stop_ids=(0, 95), allowed_token_ids=(0, 95))},
        {"stop_ids": frozenset({0, 95})}, {"bad_sequences": ((1,),) * checks.MAX_BAD_SEQUENCES},
        {"sampling": Sampling(bad_words=("a",)), "bad_sequences": ((1,),)},
    ],
)  # fmt: skip
def test_a_request_is_taken_at_each_limit(fields: dict[str, Any]) -> None:
    checks.check_request(Request(**{"prompt": (1, 2), **fields}), ARCHITECTURE)


def test_as_many_stop_ids_as_are_allowed_are_taken() -> None:
    wide = replace(ARCHITECTURE, vocab_size=2000)
    checks.check_request(Request((1,), stop_ids=frozenset(range(1024))), wide)
    with pytest.raises(ConfigError, match="there are 1025 stop_ids"):
        checks.check_request(Request((1,), stop_ids=frozenset(range(1025))), wide)


def test_a_score_is_checked_to_its_last_token() -> None:
    def check(prefix: Any, continuations: Any, **more: Any) -> None:
        checks.check_score(prefix, continuations, more.pop("priority", 0), more.pop("owner", ""), ARCHITECTURE, **more)

    check((1,) * 200, [(1,) * 56, (), (95,)], top=100, salt="x" * 256, priority=1000, owner="o" * 256)
    check((1,) * 256, [])
    for prefix, continuations, more, said in (
        ((1,) * 200, [(1,), (1,) * 57], {}, "the prompt has 200 tokens and at least 57 must follow"),
        ((1,), [(1,), (2, 96)], {}, "token 1 of continuation 1 is 96"),
        ((), [(1,)], {}, "the prefix is empty"),
        ((1,), [(1,), 5], {}, "continuation 1 is 5"),
        ((1,), 5, {}, "the argument continuations is 5: give a tuple or list of continuations"),
        (5, [], {}, "the prefix is 5: give a tuple or list of token ids"),
        ((1,), [(1,)], {"top": 101}, "top is 101"),
        ((1,), [(1,)], {"salt": "x" * 257}, "salt is"),
        ((1,), [(1,)], {"owner": "x" * 257}, "owner is"),
        ((1,), [(1,)], {"priority": 1001}, "priority is 1001"),
        ((1,), [()] * 65537, {}, "there are 65537 continuations: give at most 65536"),
    ):
        with pytest.raises((ConfigError, ModelError)) as caught:
            check(prefix, continuations, **more)
        assert said in str(caught.value), said
    checks.check_prefix((1, 2), "s", ARCHITECTURE)
    for tokens, salt in (((), ""), ((96,), ""), ((1,), "x" * 257)):
        with pytest.raises((ConfigError, ModelError)):
            checks.check_prefix(tokens, salt, ARCHITECTURE)


def test_a_sequence_has_room_up_to_the_last_block() -> None:
    pool, near = BlockPool(5, 16), BlockPool(8, 16, window=32)
    checks.check_room(60, 20, pool, 512)
    with pytest.raises(PromptTooLong, match="may need 96 tokens of memory and there is room for 80"):
        checks.check_room(61, 20, pool, 512)
    assert (near.num_usable, near.most_blocks_for(1000, 16), near.most_blocks_for(33, 16)) == (7, 5, 3)
    checks.check_room(1000, 0, near, 48)
    with pytest.raises(PromptTooLong, match="may need 128 tokens of memory and there is room for 112"):
        checks.check_room(1000, 0, near, 49)
    both = SlidingWindowPool(pool, near)
    assert (both.num_usable, both.num_available, both.num_blocks, both.block_size) == (12, 5, 5, 16)
    with pytest.raises(PromptTooLong, match="room for 80"):
        checks.check_room(81, 0, both, 16)


def test_the_queue_refuses_at_its_limits_and_counts_it() -> None:
    live = LiveRequests(max_tokens=10, max_waiting=2)
    live.check_room(10, num_waiting=1)
    with pytest.raises(ConfigError, match="have 11 prompt tokens together and the engine takes 10"):
        live.check_room(11, num_waiting=0)
    assert live.num_refused == 0
    with pytest.raises(QueueFull, match=r"2 requests wait \(at most 2 may\) and 0 prompt tokens"):
        live.check_room(1, num_waiting=2)
    answers = [sequence(0, 3), Sequence(0, 1, [1, 2, 3, 4, 5], 3, goal="score")]
    live.enter(answers)
    assert (live.num_tokens, live.next_id, len(live), 0 in live, 1 in live) == (8, 1, 1, True, False)
    live.check_room(2, num_waiting=0)
    with pytest.raises(QueueFull, match="8 prompt tokens are live"):
        live.check_room(3, num_waiting=0)
    assert live.num_refused == 2 and live.sequences(0) == answers and live.sequences(7) == []
    assert live.leave(answers[1]) and live.num_tokens == 3 and 0 in live and not live.leave(answers[1])
    assert live.leave(answers[0]) and live.num_tokens == 0 and 0 not in live and live.num_tokens == 0


def test_a_request_becomes_a_sequence_for_each_answer() -> None:
    taps, stopper = RequestTaps({}), lambda: SimpleNamespace(feed=lambda token: False)
    sampling = Sampling(seed=0, min_tokens=2, top_logprobs=1)
    request = Request(
        (1, 2, 3), sampling, 3, frozenset({9}), stopper, ((4, 5),), None, 7, "own", None, "salt", (8,), taps
    )
    made = answer_sequences(request, 5, VOCAB, max_tokens=6, adapter=None)
    assert [(each.request_id, each.index, each.tokens, each.num_prompt) for each in made] == [
        (5, index, [1, 2, 3], 3) for index in range(3)
    ]
    assert made[0].tokens is not made[1].tokens and made[0].followers == made[1:] and made[1].followers == []
    one = made[1]
    assert (one.seed, one.max_tokens, one.stop_ids, one.priority, one.owner, one.salt) == (0, 6, {9}, 7, "own", "salt")
    assert one.taps is taps and one.sampling is sampling and one.stopper is not made[0].stopper
    assert one.source is made[0].source and one.source is not None and one.source.ids == (8,)
    assert one.token_filter is made[0].token_filter and one.token_filter is not None and one.token_filter.binds(1, 3)
    ruled = replace(request, grammar=SimpleNamespace(guide=lambda: SimpleNamespace()))  # type: ignore[arg-type]
    guides = [each.guide for each in answer_sequences(ruled, 5, VOCAB, max_tokens=6, adapter=None)]
    assert None not in guides and len(set(map(id, guides))) == 3, "each answer stands at its own place in the grammar"
    few = Sampling(min_tokens=2, allowed_token_ids=(3, 4, 5, 9))
    strict = Request((1, 2), few, stop_ids=frozenset({9}), bad_sequences=((4, 5), (3,)))
    (held,) = answer_sequences(strict, 0, VOCAB, max_tokens=6, adapter=None)
    assert held.token_filter is not None
    for answer, may_follow in (((), (4, 5)), ((4,), (4,)), ((4, 4), (4, 9)), ((4, 9), (4, 5, 9))):
        mask = held.token_filter.after([1, 2, *answer], 2, None)
        assert mask.tolist() == bits(may_follow, VOCAB).tolist(), answer
    plain = answer_sequences(Request((1,)), 0, VOCAB, max_tokens=1, adapter=None)[0]
    assert (plain.token_filter, plain.source, plain.stopper, plain.guide, plain.taps) == (None,) * 5
    seeds = {answer_sequences(Request((1,)), 0, VOCAB, max_tokens=1, adapter=None)[0].seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**62 for seed in seeds)
    for fields in ({"allowed_token_ids": (1,)}, {"min_tokens": 1}):
        assert answer_sequences(Request((1,), Sampling(**fields)), 0, VOCAB, max_tokens=1, adapter=None)[0].token_filter


def test_continuations_follow_the_sequence_of_their_prefix() -> None:
    taps = RequestTaps({}, edits=False)
    lead, *others = score_sequences(
        (1, 2),
        [(3,), (4, 5)],
        6,
        top=3,
        priority=2,
        owner="o",
        adapter=None,
        salt="s",
        distribution=True,
        source=(9,),
        taps=taps,
    )
    assert (lead.index, lead.tokens, lead.num_prompt, lead.goal, lead.followers) == (-1, [1, 2], 2, "prefix", others)
    assert [(each.index, each.tokens, each.num_prompt, each.goal) for each in others] == [
        (0, [1, 2, 3], 2, "score"), (1, [1, 2, 4, 5], 2, "score"),
    ]  # fmt: skip
    for each in (lead, *others):
        assert (each.request_id, each.priority, each.owner, each.salt, each.taps) == (6, 2, "o", "s", taps)
        assert each.source is lead.source and each.source is not None and each.source.ids == (9,)
    assert [each.keeps_distribution for each in others] == [True, True] and others[0].sampling.top_logprobs == 3
    assert [(each.num_needed, each.first_logit_position) for each in (lead, *others)] == [(2, 1), (2, 1), (3, 1)]
    bare = score_sequences((1,), [(2,)], 0, top=0, priority=0, owner="", adapter=None)
    assert bare[0].source is None and not bare[1].keeps_distribution


def test_a_sequence_knows_where_it_stands() -> None:
    made = Sequence(3, 1, [1, 2, 3, 4, 5], 3)
    assert (made.num_answer, made.num_needed, made.first_logit_position, made.arrival, made.place) == (
        2,
        5,
        4,
        (3, 1),
        (3, 3, 1),
    )
    made.conversation = 0
    assert made.place == (0, 3, 1)
    made.num_computed = 4
    assert made.is_ready
    made.num_computed = 3
    assert not made.is_ready
    made.num_computed, made.followers = 4, [sequence(9)]
    assert not made.is_ready
    fresh = Sequence(3, 0, [1, 2], 2, num_computed=1)
    assert not fresh.is_ready, "there is no answer yet"
    made.append(7)
    made.append(7)
    assert made.tokens[-2:] == [7, 7] and made.counts == Counter({7: 2})
    chunk = SequenceChunk(made, 2, 9, (20, 21))
    assert (chunk.draft_start, chunk.tokens, chunk.without_draft()) == (
        7,
        [3, 4, 5, 7, 7, 20, 21],
        SequenceChunk(made, 2, 7),
    )
    assert chunk.logit_positions == range(6, 9)
    assert chunk.is_draft_accepted(6) and not chunk.is_draft_accepted(7)
    made.append(20)
    assert chunk.is_draft_accepted(7) and not chunk.is_draft_accepted(8)
    made.append(99)
    assert not chunk.is_draft_accepted(8) and not chunk.is_draft_accepted(7)
    scored = Sequence(0, 0, [1, 2, 3, 4], 2, goal="score", logprobs=[-1.0])
    assert (scored.num_needed, scored.first_logit_position) == (3, 2)
    adapter: Any = SimpleNamespace(id=4)
    spaces = [
        Sequence(1, 0, [1], 1), Sequence(1, 0, [1], 1, adapter=adapter), Sequence(1, 0, [1], 1, adapter=adapter, salt="s"),
        Sequence(1, 0, [1], 1, source=Source((5,))), Sequence(1, 0, [1], 1, adapter=adapter, taps=RequestTaps({})),
        Sequence(1, 0, [1], 1, adapter=adapter, taps=RequestTaps({}, edits=False)),
    ]  # fmt: skip
    assert [each.space for each in spaces] == [None, 4, (4, "s"), (None, "", (5,)), (4, "", "tapped", 1), 4]
    assert [adapter_of(each.space) for each in spaces] == [None, 4, 4, None, 4, 4]
    assert space_of(None, "", ()) is None and space_of(3, "s", (1,)) == (3, "s", (1,))


def test_each_owner_has_its_share_of_a_step() -> None:
    shares = PromptShares({(0, "a"): 10}, 64)
    a, b, later = sequence(0, owner="a"), sequence(1, owner="b"), sequence(2, owner="a", priority=1)
    assert [shares.left(each) for each in (a, b, later)] == [10, 64, 64]
    shares.take(a, 7)
    shares.take(a, -5)
    shares.take(b, 64)
    assert [shares.left(each) for each in (a, b, later)] == [3, 0, 64]
    shares.take(a, 5)
    assert shares.left(a) == 0


def scheduler(**more: Any) -> Scheduler:
    return Scheduler(
        BlockPool(64, 16), **{"max_batch_tokens": 128, "max_sequences": 32, "clock": lambda: 100.0, **more}
    )


def running(made: Scheduler, *owners: tuple[str, int, int], first: int = 0) -> list[Sequence]:
    """Sequences by (owner, priority, count), which run."""
    begun = []
    for owner, priority, count in owners:
        for _ in range(count):
            each = sequence(first + len(begun), owner=owner, priority=priority)
            each.arrived_s = 50.0
            made._start(each)
            begun.append(each)
    return begun


@pytest.mark.parametrize(
    "owners, waits, expected",
    [
        ([("a", 0, 1), ("b", 0, 9)], None, {(0, "b"): 32}),
        ([("a", 0, 1), ("b", 0, 8)], None, {(0, "a"): 32, (0, "b"): 32}),
        ([("a", 0, 1), ("b", 0, 8)], ("b", 0), {(0, "b"): 32}),
        ([("a", 1, 1), ("b", 0, 9)], None, {}),
        ([("a", 0, 1), ("b", 1, 9)], None, {(1, "b"): 32}),
        ([("a", 0, 3)], None, {}),
        ([("a", 0, 9), ("b", 0, 9)], None, {}),
        ([("a", 0, 9)], ("b", 0), {(0, "a"): 32}),
        ([], None, {}),
    ],
)
def test_prompts_are_cut_short_for_another_owner_of_few_requests(owners: Any, waits: Any, expected: Any) -> None:
    made = scheduler(shared_prompt_tokens=32)
    running(made, *owners)
    if waits:
        made.waiting.add(sequence(99, owner=waits[0], priority=waits[1]))
    assert made._prompt_shares()._most == expected
    whole = scheduler(shared_prompt_tokens=128)
    running(whole, *owners)
    assert whole._prompt_shares()._most == {} and whole._prompt_shares().left(sequence(0)) == 128
    assert scheduler().shared_prompt_tokens == 128


def test_a_waiting_request_preempts_the_last_of_lower_priority_or_of_the_busiest_owner() -> None:
    def victim(made: Scheduler, owner: str, *, arrived_s: float = 50.0) -> Sequence | None:
        new = sequence(50, owner=owner)
        new.arrived_s = arrived_s
        made.waiting.add(new)
        found = made._victim_for(new)
        made.waiting.discard(new)
        return found

    made = scheduler()
    low = running(made, ("a", 0, 1), ("b", 2, 2), ("c", 1, 1))
    assert victim(made, "d") is low[2], "the last by rank of those of lower priority"
    assert victim(made, "d", arrived_s=50.0 + 1.5 * AGING_S) is low[2]
    late = victim(made, "d", arrived_s=50.0 + 3 * AGING_S)
    assert late is None, "those of lower priority have waited for as long as that counts"
    made = scheduler()
    peers = running(made, ("a", 0, 3), ("b", 0, 2))
    assert victim(made, "d") is peers[2], "the youngest of the owner with most"
    assert victim(made, "b") is None, "it has something running"
    made = scheduler()
    running(made, ("a", 0, 1), ("b", 0, 1))
    assert victim(made, "d") is None, "each owner keeps one"
    assert victim(scheduler(), "d") is None


def test_ranks_age_and_the_oldest_wait_is_told() -> None:
    old, urgent = sequence(1, priority=1), sequence(2, priority=0)
    old.arrived_s, urgent.arrived_s = 0.0, AGING_S - 1
    assert rank(urgent) < rank(old) == (AGING_S, 1, 0)
    urgent.arrived_s = AGING_S + 1
    assert rank(old) < rank(urgent)
    made = scheduler()
    assert made.oldest_wait_s == 0.0 and not made.has_work
    for each, at in ((sequence(1), 90.0), (sequence(2), 60.0)):
        made.add(each)
        each.arrived_s = at
    assert made.oldest_wait_s == 40.0 and made.has_work
