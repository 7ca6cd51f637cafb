"""Drafts and their pace, shadows, kept grammars, and how an engine is put together, to the last number."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_engine, tiny_model
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding.constraint import Grammars, ids_of
from firsthand.engine.decoding.drafts import DraftModel, NgramIndex, PromptLookup, Shadow, match_length, speculator
from firsthand.engine.decoding.grammar_cache import GrammarCache, Growth
from firsthand.engine.decoding.sampler import (
    choose,
    uniform,
)
from firsthand.engine.decoding.speculative import DraftRequest, Pace, Speculator
from firsthand.errors import ConfigError
from firsthand.grammar import regex
from firsthand.model import Sampling
from firsthand.tokens.tokenizer import Tokenizer

SCORES = [2.0, -1.0, 0.5, 3.0, 0.0, 1.0, -2.0, 2.5]


def looked_up(tokens: list[int], most: int) -> list[int]:
    return PromptLookup().propose([DraftRequest(Sequence(0, 0, tokens, 1), most)])[0]


def test_runs_are_indexed_and_matches_measured() -> None:
    index = NgramIndex()
    index.extend([1, 2, 3, 1, 2, 3, 1])
    assert index.last == {(1, 2, 3): 6, (2, 3, 1): 4, (3, 1, 2): 5} and index.before == [0, 0, 0, 0, 0, 0, 3]
    assert (
        match_length([5, 1, 2, 6, 1, 2], 3) == 2 and match_length([1, 2, 1, 2], 2) == 2 and match_length([1, 2], 1) == 0
    )
    assert match_length([4] * 100, 50) == 32
    long = [*range(20, 60), 1, *range(20, 60)]
    assert looked_up(long, 99) == [(1, *range(20, 60))[at] for at in range(32)]
    nine = [token for number in range(10, 21) for token in (1, 2, 3, number)]
    assert looked_up([*([5] * 1), *nine, 1, 2, 3], 9)[0] == 20


def test_the_pace_follows_what_was_accepted() -> None:
    pace = Pace(4)
    told = []
    for drafted, accepted, num_tokens in ((4, 4, 10), (7, 7, 17), (7, 3, 20), (3, 0, 21), (1, 0, 30), (1, 0, 40), (1, 0, 50),
                                          (1, 0, 60), (1, 1, 80)):  # fmt: skip
        pace.learn(drafted, accepted, num_tokens=num_tokens, longest=7)
        told.append((pace.length, pace.rest, pace.rest_until))
    assert told == [
        (7, 1, 0),
        (7, 1, 0),
        (3, 1, 0),
        (1, 2, 23),
        (1, 4, 34),
        (1, 8, 48),
        (1, 16, 66),
        (1, 16, 76),
        (2, 1, 76),
    ]


class Drafter:
    """Proposes given tokens, and notes what it was asked."""

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.asked, self.forgotten = tokens, [], []  # type: ignore[var-annotated]

    def propose(self, requests: Any) -> Any:
        self.asked.append([(each.sequence.index, each.most) for each in requests])
        return [self.tokens for _ in requests]

    def forget(self, sequence: Sequence) -> None:
        self.forgotten.append(sequence.index)


def ready(index: int, **fields: Any) -> Sequence:
    return Sequence(0, index, [1, 2, 3], 2, **{"max_tokens": 20, "num_computed": 2, **fields})


def test_free_rows_of_a_step_are_shared_among_those_worth_drafting_for() -> None:
    drafter = Drafter(5, 6, 96, 7)
    made = Speculator(drafter, vocab_size=96, draft_tokens=7, max_rows=8)
    sequences = [ready(index) for index in range(3)]
    made.draft([*sequences, ready(3, num_computed=1)])
    assert drafter.asked == [[(0, 2), (1, 2), (2, 1)]]
    assert [each.draft for each in sequences] == [(5, 6), (5, 6), (5,)]
    drafter.asked.clear()
    made.draft([ready(4)])
    assert drafter.asked == [[(4, 4)]]
    made.draft([ready(5, max_tokens=3), ready(6, max_tokens=2), ready(7)])
    assert drafter.asked[-1] == [(5, 1), (7, 4)], "one token is left after this one, and none"
    made.draft([ready(index) for index in range(8)])
    assert len(drafter.asked) == 2, "no row is free"
    few = Speculator(Drafter(1), vocab_size=96, draft_tokens=2, max_rows=8)
    few.draft([sequences[0]])
    assert few.drafter.asked == [[(0, 2)]]  # type: ignore[union-attr]
    made.learn(sequences[0], 2, 0)
    made.learn(sequences[1], 2, 2)
    made.learn(ready(9), 3, 1)
    assert (made.num_drafted, made.num_accepted) == (7, 3)
    made.draft(sequences)
    assert drafter.asked[-1] == [(1, 3), (2, 2)], "the first rests for two tokens"
    sequences[0].tokens += [4, 5]
    sequences[0].num_computed = 4
    made.draft(sequences[:1])
    assert drafter.asked[-1] == [(0, 2)]
    made.forget(sequences[0])
    assert drafter.forgotten == [0] and sequences[0] not in made._paces

    class Broken(Drafter):
        def propose(self, requests: Any) -> Any:
            raise KeyError("x")

    lost = Speculator(Broken(), vocab_size=96, draft_tokens=2, max_rows=8)
    with pytest.warns(UserWarning, match="speculation is off: the drafter failed with KeyError"):
        lost.draft([ready(0)])
    assert lost.drafter is None
    lost.draft([ready(0)])


def test_a_speculator_is_what_config_and_draft_say() -> None:
    architecture = tiny_model().architecture

    def made(draft: Any = None, **config: Any) -> Any:
        return speculator(draft, EngineConfig(**config), architecture, num_blocks=6, kv_dtype=torch.float32)

    assert made() is None
    lookup = made(speculation="prompt_lookup", draft_tokens=5, speculate_below=9, max_batch_tokens=10, max_sequences=4)
    assert isinstance(lookup.drafter, PromptLookup)
    assert (lookup.draft_tokens, lookup.max_rows, lookup.vocab_size) == (5, 5, 96)
    model = made(tiny_model(1))
    assert isinstance(model.drafter, DraftModel) and model.drafter.pool.num_blocks == 6 and model.max_rows == 8
    assert model.drafter.max_batch_tokens == 512
    drafter = Drafter()
    assert made(drafter).drafter is drafter
    with pytest.raises(ConfigError, match="choose one of them"):
        made(drafter, speculation="prompt_lookup")
    with pytest.raises(ConfigError, match="the draft model has 97 tokens and the model 96"):
        made(tiny_model(1, vocab_size=97))


def test_a_shadow_keeps_what_was_computed_of_accepted_tokens() -> None:
    target = Sequence(0, 0, [1, 2, 3], 2)
    shadow = Shadow(target, Sequence(0, 0, [], 2))
    shadow.follow()
    assert shadow.own.tokens == [1, 2, 3] and shadow.num_known == 3 and shadow.draft == []
    shadow.own.tokens += [7, 8, 9]
    shadow.own.num_computed = 5
    assert shadow.draft == [7, 8, 9]
    target.tokens += [7, 5]
    shadow.follow()
    assert shadow.own.tokens == [1, 2, 3, 7, 5] and (shadow.own.num_computed, shadow.num_known) == (4, 5)
    shadow.own.tokens += [6]
    shadow.own.num_computed = 6
    target.tokens += [6]
    shadow.follow()
    assert (shadow.own.num_computed, shadow.draft) == (5, []), "the last one's logits are wanted"
    target.sampling, target.seed = Sampling(temperature=1.0), 3
    shadow.choose(torch.tensor(SCORES))
    number = uniform(3, 0, 6)
    assert shadow.draft == [
        choose(torch.tensor(SCORES), target.sampling, number=number, prompt=[], counts=Counter()).token
    ]


class Entry:
    """An entry of the cache with a size that may grow."""

    def __init__(self, size: int, used: bool = False):
        self.num_bytes, self.is_in_use = size, used


def test_grammars_are_kept_by_size_the_last_used_longest() -> None:
    cache: GrammarCache[str, Entry] = GrammarCache(3000)
    a, b = Entry(1000), Entry(1500, used=True)
    cache.put("a", a)
    cache.put("b", b)
    assert cache.num_bytes == 2500 and cache.get("a") is a
    cache.put("c", Entry(501))
    assert cache.get("b") is None and len(cache) == 2
    cache.put("bad", "no")
    assert cache.get("bad") == "no" and cache.num_bytes == 1000 + 501 + 1008
    a.num_bytes = 3001
    assert cache.get("a") is a and cache.get("a") is None, "one that has outgrown the cache is given once more"
    cache.put("large", Entry(3001))
    assert cache.get("large") is None and len(cache) == 2
    cache.put("exact", Entry(3000))
    assert len(cache) == 1
    cache.put("exact", Entry(1))
    assert cache.num_bytes == 1 and len(cache) == 1
    cache.put("used", b)
    cache.put("idle", Entry(2))
    assert not cache.drop_idle(lambda each: each.num_bytes == 1500) and cache.drop_idle(lambda each: each.num_bytes > 0)
    assert cache.get("exact") is None and cache.get("idle") is not None
    growth = Growth()
    base = (128 << 10) + 64 * 10
    assert growth.estimate("x" * 10) == base
    growth.seconds = 0.01
    assert growth.estimate("x" * 10) == base + int(0.01 * (200 << 20))
    growth.seconds = 99.0
    assert growth.estimate("x" * 10) == base + (32 << 20)


def test_each_tokenizer_has_a_vocabulary_of_its_own() -> None:
    pytest.importorskip("llguidance")
    from grammar_tiny import tokenizer

    first = tokenizer()
    body = json.loads(json.dumps(first.settings()["description"]))
    vocab = body["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    second = Tokenizer(body, eos_ids=sorted(first.eos_ids))
    assert second.vocab_size == first.vocab_size
    for each in (first, second, first):
        grammars = Grammars(each)
        compiled = grammars.compile(regex("[ax]"))
        assert grammars.compile(regex("[ax]")) is compiled is grammars.find(regex("[ax]"))
        assert grammars.find(regex("[ax]"), forcing=False) is None and compiled.vocab_size == each.vocab_size
        assert compiled.allowed is not None
        spelled = {each.decode([token]) for token in ids_of(compiled.allowed).tolist()}
        assert spelled == {"a", "x"}
        for _ in range(2):
            with pytest.raises(ConfigError):
                grammars.compile(regex("a("))
        with pytest.raises(ConfigError):
            grammars.find(regex("a("))
        assert grammars.num_bytes > 0


SITE = "blocks.1.resid.post"


def test_steps_of_fixed_shapes_are_left_while_taps_are_set() -> None:
    from firsthand.engine.core.sequence import Request

    def run(graphs: Any, taps: Any = None, request_taps: Any = None) -> list[int]:
        engine = tiny_engine(block_size=8, graphs=graphs, weights="float32")
        assert (engine.runner.modules is not None) and (engine.runner.modules.steps is not None) == (graphs == "on")
        engine.tap(taps)
        engine.add(Request(tuple(range(3, 20)), Sampling(max_tokens=6), taps=request_taps))
        return [token for _ in range(99) if engine.has_work for output in engine.step() for token in output.token_ids]

    seen: list[int] = []

    def negate(values: Tensor) -> Tensor:
        seen.append(len(values))
        return -values

    def of_request(values: Tensor, positions: range, index: int) -> Tensor:
        seen.append(len(values))
        return -values

    plain = run("on")
    assert plain == run("off") and len(plain) == 6
    tapped = run("on", {SITE: negate})
    assert seen == [17, 1, 1, 1, 1, 1] and tapped != plain and tapped == run("off", {SITE: negate})
    seen.clear()
    assert run("on", None, RequestTaps({SITE: of_request})) == tapped and seen == [17, 1, 1, 1, 1, 1]


@pytest.mark.slow
def test_an_engine_is_assembled_as_its_config_says() -> None:
    engine = tiny_engine(kv_memory_bytes=1 << 20, max_batch_tokens=96, max_sequences=9)
    assert (engine.pool.num_blocks, engine.scheduler.max_batch_tokens, engine.scheduler.max_sequences) == (128, 96, 9)
    assert engine.scheduler.shared_prompt_tokens == 64 and engine.runner.is_compiled and engine.speculator is None
    drafted = Engine(tiny_model(), EngineConfig(kv_memory_bytes=1 << 20, kv_cache="float32"), draft=tiny_model(1))
    assert drafted.pool.num_blocks == 64 and isinstance(drafted.speculator.drafter, DraftModel)  # type: ignore[union-attr]
    assert drafted.speculator.drafter.pool.num_blocks == 64  # type: ignore[union-attr]
    mixed = tiny_engine(window=32, kv_memory_bytes=1 << 20)
    assert len(mixed.pool.pools) == 2 and [part.window for part in mixed.pool.pools] == [None, 32]
    assert engine.runner.not_compiled is None and engine.stats().not_compiled is None
    odd = tiny_engine(block_size=8, weights="float32")
    assert odd.stats().not_compiled == "blocks have 8 slots, which is not a multiple of 16"
    engine.tap({SITE: lambda values: None})
    assert engine.stats().not_compiled == "taps are set"
    engine.tap(None)
    assert engine.stats().not_compiled is None


def test_the_counters_tell_what_was_computed_and_what_was_found() -> None:
    from firsthand.engine.core.sequence import Request

    engine = tiny_engine()
    for turn, (cached, prefill) in enumerate(((0, 20), (19, 21)), 1):
        engine.add(Request(tuple(range(1, 21)), Sampling(max_tokens=3)))
        assert (engine.stats().waiting, engine.stats().waiting_by_priority) == (1, {0: 1})
        while engine.has_work:
            engine.step()
        stats = engine.stats()
        assert (stats.requests, stats.steps, stats.prompt_tokens, stats.cached_tokens) == (
            turn,
            3 * turn,
            20 * turn,
            cached,
        )
        assert (stats.prefill_tokens, stats.decode_tokens, stats.running, stats.used_blocks) == (
            prefill,
            2 * turn,
            0,
            0,
        )
    assert stats.num_blocks == 256 and stats.free_blocks == 256
    prefix = engine.pin_prefix(range(1, 21))
    stats = engine.stats()
    assert (prefix.num_tokens, stats.pinned_prefixes, stats.pinned_blocks, stats.used_blocks, stats.free_blocks) == (
        20,
        1,
        2,
        2,
        254,
    )
    engine.unpin_prefix(prefix)
    assert engine.stats().pinned_blocks == 0
    one = engine.add_score((1, 2, 3), [(4,), (5, 6)], top=2, distribution=True)
    found = {}
    while engine.has_work:
        found |= {output.index: output for output in engine.step() if output.request_id == one}
    assert sorted(found) == [0, 1] and len(found[1].top_logprobs) == 2 and len(found[1].top_logprobs[0]) == 2
    assert found[0].distribution is not None and found[0].distribution.shape == (96,)
    assert found[0].logprobs[0] == pytest.approx(float(found[0].distribution[4]))


def test_an_entry_takes_the_place_of_its_keys_old_one_even_if_it_is_too_large_itself() -> None:
    cache: GrammarCache[str, Entry] = GrammarCache(3000)
    other = Entry(10)
    for large in (Entry(3001), "x" * 501):
        cache.put("other", other)
        cache.put("key", Entry(5))
        cache.put("key", large)
        assert cache.get("key") is None and cache.get("other") is other and (len(cache), cache.num_bytes) == (1, 10)
    cache.put("text", "x" * 500)
    assert cache.get("text") == "x" * 500 and cache.get("other") is None and (len(cache), cache.num_bytes) == (1, 3000)
    for key in "abc":
        cache.put(key, Entry(1000))
    cache.put("a", Entry(900))
    cache.put("d", Entry(1000))
    assert [cache.get(key) is not None for key in ("text", *"abcd")] == [False, True, False, True, True], (
        "what is put again was used last"
    )
