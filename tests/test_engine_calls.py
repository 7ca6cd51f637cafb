"""Each call of an engine on a small case: what it queues, refuses, returns, pins, replaces and counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters_tiny import adapter
from engine_tiny import plain_logprobs, tiny_model
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_stats import Stats
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request, Sequence, SequenceState
from firsthand.errors import ConfigError, ModelError, PromptTooLong, QueueFull
from firsthand.model import Sampling

BLOCK_BYTES = 4 * 2 * 2 * 16 * 2 * 4
"""4 tokens, 2 layers, 2 heads of 16, keys and values of 4 bytes."""


def small(num_blocks: int = 32, *, draft: Any = None, version: int = 0, **settings: Any) -> Engine:
    """An engine that runs by its modules, with blocks of 4 tokens."""
    defaults = {"block_size": 4, "weights": "float32", "max_batch_tokens": 9, "max_sequences": 2, "kv_cache": "float32"}
    config = EngineConfig(**{"kv_memory_bytes": num_blocks * BLOCK_BYTES, **defaults, **settings})
    engine = Engine(tiny_model(), config, draft=draft, version=version)
    engine.scheduler.clock = lambda: 50.0
    return engine


def parts(sequence: Sequence) -> dict[str, Any]:
    names = ("request_id", "index", "tokens", "num_prompt", "goal", "max_tokens", "priority", "owner", "salt", "taps")
    found = {name: getattr(sequence, name) for name in names}
    return found | {
        "source": sequence.source and sequence.source.ids,
        "adapter": sequence.adapter and sequence.adapter.name,
    }


def test_a_request_is_queued_with_all_that_it_says_and_as_many_tokens_as_fit_the_context() -> None:
    engine = small(80)
    engine.load_adapter("red", adapter(engine.runner.model, 1, only="q_proj"))
    taps = RequestTaps({"norm": lambda *_: None})
    assert engine.add(Request((1,), Sampling(max_tokens=4))) == 0
    request = Request(tuple(range(90)) + tuple(range(80)), Sampling(max_tokens=99, seed=8), n=2, stop_ids=frozenset({5}),
                      priority=3, owner="o", adapter="red", salt="s", taps=taps)  # fmt: skip
    assert engine.add(request) == 1 and engine.is_live(1) and not engine.is_live(2) and engine.has_work
    common = {"request_id": 1, "tokens": list(request.prompt), "num_prompt": 170, "goal": "generate", "max_tokens": 86,
              "priority": 3, "owner": "o", "salt": "s", "source": None, "adapter": "red", "taps": taps}  # fmt: skip
    lead, follower = engine.live.sequences(1)
    assert [parts(each) for each in (lead, follower)] == [common | {"index": 0}, common | {"index": 1}]
    assert (
        lead.followers == [follower]
        and lead.stop_ids == {5}
        and lead.seed == follower.seed == 8
        and lead.sampling is request.sampling
    )
    assert list(engine.scheduler.waiting) == [*engine.live.sequences(0), lead] and lead.arrived_s == 50.0
    assert engine.live.num_tokens == 341 and lead.adapter is not None and lead.adapter.num_live == 2
    assert [parts(each)["max_tokens"] for each in engine.live.sequences(0)] == [4]


def test_a_request_that_does_not_fit_changes_nothing() -> None:
    engine = small(8, max_waiting=1, max_live_tokens=40)
    for request, error, says in (
        (Request((1, 96)), ModelError, "token 1 of the prompt is 96: expected a whole number from 0 to 95"),
        (Request((1,), source=(3,)), ConfigError, "a source is given, and the model is no encoder-decoder"),
        (Request((1,), taps=RequestTaps({"logits": lambda *_: None})), ConfigError, "a request's taps do not reach logits"),
        (Request((1,), adapter="red"), ConfigError, "no adapter 'red' is loaded: there are none"),
        (Request((1,), Sampling(max_tokens=32)), PromptTooLong, "prompt and answer may need 36 tokens"),
        (Request((1, 2, 3), Sampling(max_tokens=2), n=14), ConfigError, "the request's answers have 42 prompt tokens"),
    ):  # fmt: skip
        with pytest.raises(error) as told:
            engine.add(request)
        assert str(told.value).startswith(says)
    assert engine.live.next_id == 0 and not engine.has_work and engine.live.num_refused == 0
    assert engine.add(Request((1, 2, 3), Sampling(max_tokens=29), n=13)) == 0
    with pytest.raises(QueueFull):
        engine.add(Request((1,), Sampling(max_tokens=1)))
    assert engine.live.num_refused == 1 and engine.live.next_id == 1


def test_continuations_are_queued_behind_their_prefix_with_all_that_was_given() -> None:
    engine = small()
    engine.load_adapter("red", adapter(engine.runner.model, 1, only="q_proj"))
    taps = RequestTaps({"norm": lambda *_: None})
    id = engine.add_score(
        (1, 2, 3),
        [(4,), (), [5, 6]],
        top=2,
        priority=-2,
        owner="o",
        adapter="red",
        salt="s",
        distribution=True,
        taps=taps,
    )
    lead, *others = engine.live.sequences(id)
    common = {"request_id": 0, "num_prompt": 3, "max_tokens": 0, "priority": -2, "owner": "o", "salt": "s", "source": None,
              "adapter": "red", "taps": taps}  # fmt: skip
    assert parts(lead) == common | {"index": -1, "tokens": [1, 2, 3], "goal": "prefix"} and lead.followers == others
    assert [parts(each) for each in others] == [
        common | {"index": index, "tokens": [1, 2, 3, *more], "goal": "score"}
        for index, more in enumerate(((4,), (), (5, 6)))
    ]
    assert all(each.keeps_distribution and each.sampling == Sampling(top_logprobs=2) for each in others)
    assert engine.live.num_tokens == 3 * 4 + 3 and lead.adapter is not None and lead.adapter.num_live == 4
    plain = engine.live.sequences(engine.add_score((7,), [(8,)]))
    defaults = {"priority": 0, "owner": "", "adapter": None, "salt": "", "taps": None, "source": None}
    assert all(parts(each) | defaults == parts(each) and not each.keeps_distribution for each in plain)
    assert plain[1].sampling == Sampling()


def test_a_score_that_does_not_fit_changes_nothing() -> None:
    engine = small(8, max_live_tokens=40)
    more: list[dict[str, Any]] = [{"top": 101}, {"priority": 1001}, {"owner": "x" * 257}, {"salt": 7}, {"source": (1,)},
            {"taps": RequestTaps({"logits": lambda *_: None})}, {"adapter": "red"}]  # fmt: skip
    starts = (
        "top is 101",
        "priority is 1001",
        "owner is ",
        "salt is 7",
        "a source is given",
        "a request's taps",
        "no adapter 'red'",
    )
    for fields, says in zip(more, starts, strict=True):
        with pytest.raises(ConfigError) as told:
            engine.add_score((1, 2), [(3,)], **fields)
        assert str(told.value).startswith(says)
    with pytest.raises(PromptTooLong, match="may need 36 tokens of memory"):
        engine.add_score((1, 2, 3), [(4,), tuple(range(30))])
    with pytest.raises(ConfigError, match="have 41 prompt tokens together"):
        engine.add_score((1, 2, 3, 4), [(5,)] * 5 + [tuple(range(8))])
    assert engine.live.next_id == 0
    assert engine.add_score((1, 2, 3, 4), [(5,)] * 5 + [tuple(range(7))]) == 0 and engine.live.num_tokens == 40
    assert small(8).add_score((1, 2, 3), [tuple(range(29))]) == 0


def test_scores_are_the_models_and_others_get_their_outputs_in_the_next_step() -> None:
    engine = small(max_sequences=4)
    engine.add(Request((9, 8), Sampling(max_tokens=5)))
    earlier = Output(7, 0, (1,), (-1.0,), True)
    engine._pending = [earlier]
    scores = engine.score((1, 2, 3), [(4, 5), (6,)])
    known = plain_logprobs(tiny_model(), [1, 2, 3, 4])
    expected = [[float(known[2, 4]), float(known[3, 5])], [float(known[2, 6])]]
    for score, values in zip(scores, expected, strict=True):
        assert score.logprobs == pytest.approx(values, abs=1e-4) and score.prompt_tokens == 3
    assert engine._pending[0] is earlier and len(engine._pending) > 2 and not engine.is_live(1)
    held = list(engine._pending)
    assert engine.scheduler.running and engine.has_work
    first = engine.step()
    assert first[: len(held)] == held and len(first) == len(held) + 1 and engine._pending == []
    assert engine.score((1, 2), []) == []
    engine._pending = [earlier]
    engine.abort(0)
    assert engine.has_work and engine.step() == [earlier] and not engine.has_work


def test_an_aborted_answer_or_request_gives_nothing_more_not_even_what_was_held_back() -> None:
    engine = small(max_sequences=8)
    ids = [engine.add(Request((1, 2, first), Sampling(max_tokens=9), n=3)) for first in (3, 4)]
    engine._pending = [Output(id, index, (1,), (0.0,), True) for id in ids for index in range(3)]
    engine.abort(0, 1)
    assert [(each.request_id, each.index) for each in engine._pending] == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [each.index for each in engine.live.sequences(0)] == [0, 2] and len(engine.scheduler.waiting) == 2
    engine.abort(0, 0)
    (left,) = engine.live.sequences(0)
    assert left.index == 2 and left in engine.scheduler.waiting and left.followers == []
    engine.abort(1)
    assert [(each.request_id, each.index) for each in engine._pending] == [(0, 2)] and not engine.is_live(1)
    for id, index in ((5, None), (0, 7), (0, -1)):
        engine.abort(id, index)
    assert engine.is_live(0) and engine.live.num_tokens == 3
    scored = engine.add_score((1, 2), [(3,)])
    engine.abort(scored, -1)
    assert len(engine.live.sequences(scored)) == 2, "the prefix is no answer"


def test_a_prefix_is_pinned_in_the_space_of_its_adapter_and_salt() -> None:
    engine = small()
    for name, seed in (("red", 1), ("blue", 2)):
        engine.load_adapter(name, adapter(engine.runner.model, seed, only="q_proj"))
    for name, salt, space in ((None, "", None), (None, "s", (None, "s")), ("blue", "", 2), ("blue", "s", (2, "s"))):
        engine.add(Request((1, 2, 3, 4, 5), Sampling(max_tokens=1), adapter=name, salt=salt))
        while engine.has_work:
            engine.step()
        pin = engine.pin_prefix((1, 2, 3, 4, 5, 6), adapter=name, salt=salt)
        assert (pin.num_tokens, pin.space, pin.is_pinned) == (5, space, True)
    assert engine.pin_prefix((1, 2, 3), adapter="red").num_tokens == 0 and len(engine.scheduler.pinned_prefixes) == 5
    engine.unpin_prefix(pin)
    assert not pin.is_pinned and len(engine.scheduler.pinned_prefixes) == 4
    for ids, adapter_name, salt, error in (
        ((), None, "", ModelError),
        ((96,), None, "", ModelError),
        ((1,), None, "x" * 257, ConfigError),
        ((1,), "green", "", ConfigError),
    ):
        with pytest.raises(error):
            engine.pin_prefix(ids, adapter=adapter_name, salt=salt)


def test_new_weights_have_a_version_and_the_running_answers_go_on_with_them() -> None:
    other = tiny_model(5)
    for recompute in (True, False):
        engine = small(version=3)
        assert engine.version == 3
        engine.add(Request((1, 2, 3), Sampling(max_tokens=9)))
        (first,) = engine.step()
        assert first.version == 3
        with pytest.raises(ConfigError, match="tensors are missing, unknown or of another shape"):
            engine.load({"embed.weight": other.embed.weight}, 4)
        assert engine.version == first.version == 3
        engine.load(other.state_dict(), 8, recompute=recompute)
        assert (len(engine.scheduler.running), len(engine.scheduler.waiting)) == ((0, 1) if recompute else (1, 0))
        (second,) = engine.step()
        assert second.version == engine.version == 8
        known = plain_logprobs(tiny_model(5), [1, 2, 3, *first.token_ids])
        assert (abs(second.logprobs[0] - float(known[3, second.token_ids[0]])) < 1e-3) is recompute
    engine = small()
    engine.add(Request((1, 2, 3), Sampling(max_tokens=9)))
    engine.step()
    engine.load(other.state_dict(), 1)
    assert engine.scheduler.running == [], "recomputed by default"
    engine = small(graphs="on")
    engine.add(Request((1, 2, 3), Sampling(max_tokens=9)))
    for _ in range(2):
        engine.step()
    assert engine.runner.modules is not None and engine.runner.modules.steps is not None
    assert len(engine.runner.modules.steps) == 1
    engine.load(other.state_dict(), 1)
    assert len(engine.runner.modules.steps) == 0, "steps of fixed shapes are made anew"


def test_an_engine_takes_its_threads_and_counts_only_blocks_that_hold_tokens() -> None:
    before = torch.get_num_threads()
    try:
        for asked, found in ((2, 2), (None, 2), (1, 1)):
            assert small(threads=asked).runner.threads == torch.get_num_threads() == found
    finally:
        torch.set_num_threads(before)
    for window, only in ((None, False), (8, True), (8, False)):
        model = tiny_model(window=window, only_windows=only)
        config = EngineConfig(block_size=4, kv_memory_bytes=32 * BLOCK_BYTES, kv_cache="float32", weights="float32")
        engine = Engine(model, config)
        stats, pools = engine.stats(), engine.pool.pools
        nulls = sum(pool.window is not None for pool in pools)
        assert nulls == (window is not None), "blocks that stand for what lies behind the window"
        assert stats.num_blocks == stats.free_blocks == sum(pool.num_blocks for pool in pools) - nulls
        engine.add(Request((1, 2, 3, 4, 5), Sampling(max_tokens=4)))
        engine.step()
        assert engine.stats().used_blocks == 2 * len(pools) == stats.num_blocks - engine.stats().free_blocks


def test_taps_are_set_and_taken_away_and_texts_are_computed_again() -> None:
    engine = small()
    seen: list[int] = []
    engine.add(Request((1, 2, 3), Sampling(max_tokens=9)))
    engine.step()
    engine.tap({"norm": lambda values: seen.append(len(values))})  # type: ignore[func-returns-value]
    assert engine.scheduler.running == [] and engine.runner.taps is not None
    engine.step()
    assert seen == [4] and engine.stats().not_compiled == "taps are set"
    with pytest.raises(ConfigError, match="no activation site 'nowhere'"):
        engine.tap({"nowhere": lambda values: None})
    engine.tap(None)
    assert engine.runner.taps is None and engine.scheduler.running == [] and engine.scheduler.num_preemptions == 2
    engine.step()
    assert seen == [4] and engine.stats().not_compiled == "blocks have 4 slots, which is not a multiple of 16"


def test_adapters_are_replaced_kept_by_those_that_use_them_and_forgotten_with_the_last() -> None:
    engine = small()
    model = engine.runner.model
    red = adapter(model, 1, only="q_proj")
    engine.load_adapter("red", red, version=2)
    engine.load_adapter("blue", engine.adapters.read(red))
    assert engine.adapters.versions == {"red": 2, "blue": 0}
    with pytest.raises(ConfigError, match="an adapter 'red' is loaded already"):
        engine.load_adapter("red", red)
    engine.add(Request((1, 2, 3, 4, 5), Sampling(max_tokens=1), adapter="red"))
    while engine.has_work:
        engine.step()
    assert engine.scheduler.pool.find([1, 2, 3, 4, 5], 1).num_tokens == 5
    engine.load_adapter("red", red, version=3, replace=True)
    assert engine.scheduler.pool.find([1, 2, 3, 4, 5], 1).num_tokens == 0 and engine.adapters.versions == {
        "red": 3,
        "blue": 0,
    }
    id = engine.add(Request((1, 2, 3, 4, 5), Sampling(max_tokens=9), n=2, adapter="red"))
    engine.step()
    engine.unload_adapter("red")
    assert engine.stats().adapters == 2 and engine.adapters.versions == {"blue": 0}
    engine.abort(id, 0)
    assert engine.stats().adapters == 2 and engine.scheduler.pool.find([1, 2, 3, 4, 5], 3).num_tokens == 5
    engine.abort(id, 1)
    assert engine.stats().adapters == 1 and engine.scheduler.pool.find([1, 2, 3, 4, 5], 3).num_tokens == 0
    assert engine.stats().adapter_bytes == engine.adapters.get("blue").packed.size_bytes > 0
    with pytest.raises(ConfigError, match="no adapter 'red' is loaded: there are blue"):
        engine.unload_adapter("red")


def test_a_sequence_is_ended_once_and_its_drafter_is_told() -> None:
    class Told:
        def __init__(self) -> None:
            self.forgotten: list[int] = []

        def propose(self, requests: Any) -> list[list[int]]:
            return [[] for _ in requests]

        def forget(self, sequence: Sequence) -> None:
            self.forgotten.append(sequence.index)

    told = Told()
    engine = small(draft=told)
    engine.load_adapter("red", adapter(engine.runner.model, 1, only="q_proj"))
    id = engine.add(Request((1, 2, 3), Sampling(max_tokens=9), n=2, adapter="red"))
    one, two = engine.live.sequences(id)
    engine.end(two)
    engine.end(two)
    assert told.forgotten == [1, 1] and two.state is SequenceState.FINISHED and one.adapter is not None
    assert one.adapter.num_live == 1 and engine.live.sequences(id) == [one] and engine.live.num_tokens == 3
    engine.end(one)
    assert one.adapter.num_live == 0 and not engine.is_live(id) and not engine.has_work


def test_the_statistics_of_an_engine_at_work() -> None:
    engine = small(max_waiting=1)
    engine.add(Request((1, 2, 3, 4, 5, 6), Sampling(max_tokens=5)))
    engine.step()
    engine.add(Request((10, 11, 12, 13, 14, 15), Sampling(max_tokens=5), priority=2))
    engine.step()
    engine.add(Request((20, 21), Sampling(max_tokens=5), priority=3))
    engine.pin_prefix((1, 2, 3, 4, 5, 6))
    with pytest.raises(QueueFull):
        engine.add(Request((1,), Sampling(max_tokens=2)))
    engine.scheduler.clock = lambda: 57.5
    common = {"drafted_tokens": 0, "accepted_tokens": 0, "forced_tokens": 0, "preemptions": 0, "oldest_wait_s": 7.5,
              "num_blocks": 32, "not_compiled": "blocks have 4 slots, which is not a multiple of 16",
              "refused": 1, "requests": 3}  # fmt: skip
    assert engine.stats() == Stats(
        steps=2, prompt_tokens=12, cached_tokens=0, prefill_tokens=12, decode_tokens=1, running=2, waiting=1,
        waiting_by_priority={3: 1}, used_blocks=4, pinned_blocks=2, cached_blocks=0, pinned_prefixes=1, **common,
    )  # fmt: skip
    assert engine.stats().free_blocks == 28
    engine.abort(1)
    engine.step()
    assert engine.stats() == Stats(
        steps=3, prompt_tokens=14, cached_tokens=0, prefill_tokens=14, decode_tokens=2, running=2, waiting=0,
        waiting_by_priority={}, used_blocks=4, pinned_blocks=2, cached_blocks=2, pinned_prefixes=1,
        **common | {"oldest_wait_s": 0.0},
    )  # fmt: skip


def test_the_counters_of_drafts_and_of_what_was_cached() -> None:
    engine = small(speculation="prompt_lookup", draft_tokens=3)
    assert engine.speculator is not None and engine.speculator.draft_tokens == 3
    engine.speculator.num_drafted, engine.speculator.num_accepted = 7, 4
    engine.counts.forced_tokens, engine.scheduler.num_preemptions, engine.scheduler.num_cached_tokens = 2, 5, 6
    found = engine.stats()
    assert (
        found.drafted_tokens,
        found.accepted_tokens,
        found.forced_tokens,
        found.preemptions,
        found.cached_tokens,
    ) == (7, 4, 2, 5, 6)
    threads = torch.get_num_threads()
    assert small(threads=1).config.threads == 1 and torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert small().architecture.vocab_size == 96
    for engine, limits in ((small(), (1 << 25, 20_000)), (small(max_live_tokens=77, max_waiting=5), (77, 5))):
        assert (engine.live.max_tokens, engine.live.max_waiting) == limits
