"""Parts that choose tokens: draws on a device, filters, drafts and their pace, grammars and their cache, to the last number."""

from __future__ import annotations

import json
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_engine, tiny_model
from firsthand.engine.compute.module_runner import summary
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Sequence, SequenceChunk
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_after, draw_rows
from firsthand.engine.decoding.constraint import Grammars, bits, has, ids_of
from firsthand.engine.decoding.drafts import DraftModel, NgramIndex, PromptLookup, Shadow, match_length, speculator
from firsthand.engine.decoding.grammar_cache import GrammarCache, Growth
from firsthand.engine.decoding.sampler import (
    candidates,
    choose,
    draw,
    is_on_policy,
    is_plain,
    most_probable,
    penalise,
    uniform,
)
from firsthand.engine.decoding.speculative import DraftRequest, Pace, Speculator
from firsthand.engine.decoding.token_choice import failed, output, rate, sample
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import regex
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow
from firsthand.tokens.tokenizer import Tokenizer

SCORES = [2.0, -1.0, 0.5, 3.0, 0.0, 1.0, -2.0, 2.5]


def row(values: list[float] = SCORES, **more: Any) -> LogitRow:
    scores = torch.tensor(values)
    return LogitRow(scores, int(scores.argmax()), float(scores.logsumexp(0)), **more)


# -- draws --


@pytest.mark.parametrize(
    "temperature, top_k, top_p, min_p",
    [(1.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.2), (1.3, 3, 1.0, 0.0), (0.9, 0, 0.6, 0.0), (2.0, 5, 0.7, 0.3)],
)
def test_rows_are_drawn_together_as_each_alone(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.tensor([SCORES, SCORES[::-1], [0.5, 0.25, 0.75, 1.0, -0.5, 0.0, 1.25, 1.5]])
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for number in (0.0, 0.3, 0.62, 0.97, 1 - 2**-53):
        draws = [
            DrawSettings(temperature, top_k, top_p, min_p, number),
            None,
            DrawSettings(temperature, top_k, top_p, min_p, number / 2),
        ]
        found = draw_rows(logits, draws, otherwise=torch.tensor([7, 6, 5]))
        assert int(found.tokens[1]) == 6 and float(found.logprobs[1]) == 0.0
        for place, each in ((0, number), (2, number / 2)):
            alone = draw(*candidates(logits[place], sampling), each)
            assert int(found.tokens[place]) == alone.token
            told = 0.0 if is_on_policy(sampling) else alone.logprob
            assert float(found.logprobs[place]) == pytest.approx(told, abs=1e-12)


def test_rows_with_and_without_cuts_keep_their_own_settings() -> None:
    logits = torch.tensor([SCORES] * 3)
    draws = [
        DrawSettings(1.0, 0, 1.0, 0.0, 0.9),
        DrawSettings(0.5, 1, 1.0, 0.0, 0.9),
        DrawSettings(0.25, 0, 1.0, 0.0, 0.9),
    ]
    found = draw_rows(logits, draws, otherwise=torch.zeros(3, dtype=torch.long))
    plain = [
        draw(*candidates(logits[0], Sampling(temperature=heat, top_k=k)), 0.9)
        for heat, k in ((1.0, 0), (0.5, 1), (0.25, 0))
    ]
    assert found.tokens.tolist() == [each.token for each in plain] and found.tokens[1] == 3
    assert found.logprobs.tolist() == pytest.approx([each.logprob for each in plain]), "one is not from the model's own"
    whole = summary(logits, draws)
    assert (
        whole[0].tolist() == [3.0] * 3 and whole[1].tolist() == found.tokens.tolist() and whole[2].tolist() == [3.0] * 3
    )
    assert whole[3].tolist() == [SCORES[token] for token in found.tokens.tolist()]
    assert whole[4].tolist() == pytest.approx([math.log(sum(map(math.exp, SCORES)))] * 3, abs=1e-6)
    assert whole[5].tolist() == found.logprobs.tolist()
    assert summary(logits, []).tolist()[1] == [3.0] * 3 and summary(logits, [None] * 3).tolist()[5] == [0.0] * 3


def answering(**fields: Any) -> Sequence:
    sampling = fields.pop("sampling", Sampling(temperature=0.5, top_k=3, top_p=0.75, min_p=0.125))
    return Sequence(1, 2, [4, 5, 6], 2, sampling=sampling, seed=9, **fields)


def test_the_device_draws_only_what_the_host_need_not_see() -> None:
    def drawn(sequence: Sequence, position: int = 2, draft: tuple[int, ...] = ()) -> Any:
        return draw_after(SequenceChunk(sequence, 0, 3 + len(draft), draft), position)

    assert drawn(answering()) == DrawSettings(0.5, 3, 0.75, 0.125, uniform(9, 2, 3))
    assert drawn(answering(token_filter=TokenFilter(8, min_tokens=1))) is not None
    guide: Any = SimpleNamespace()
    for made in (
        answering(goal="score"), answering(followers=[answering()]), answering(guide=guide), answering(sampling=Sampling()),
        answering(sampling=Sampling(temperature=1, presence_penalty=0.5)), answering(token_filter=TokenFilter(8, min_tokens=2)),
        answering(sampling=Sampling(temperature=1, logit_bias=((1, 1.0),))), answering(token_filter=TokenFilter(8, bad=[(1, 2)])),
    ):  # fmt: skip
        assert drawn(made) is None
    assert drawn(answering(), 1) is None and drawn(answering(), 2, (7,)) is None
    assert [DrawSettings(1.0, k, p, m, 0.5).is_on_policy for k, p, m in ((0, 1, 0), (1, 1, 0), (0, 0.9, 0), (0, 1, 0.1))] == [
        True, False, False, False,
    ]  # fmt: skip
    assert not DrawSettings(0.9, 0, 1, 0, 0.5).is_on_policy and not DrawSettings(0.9, 0, 1, 0.1, 0.5).sorts


def test_what_changes_a_distribution_is_known() -> None:
    for fields, plain, on_policy in (
        ({"temperature": 1}, True, True), ({"temperature": 0.9}, True, False), ({"temperature": 1, "top_k": 1}, True, False),
        ({"temperature": 1, "top_p": 0.9}, True, False), ({"temperature": 1, "min_p": 0.1}, True, False),
        ({"temperature": 1, "repetition_penalty": 1.1}, False, False), ({"temperature": 1, "presence_penalty": -1}, False, False),
        ({"temperature": 1, "frequency_penalty": 1}, False, False), ({"temperature": 1, "logit_bias": ((0, 1.0),)}, False, False),
    ):  # fmt: skip
        sampling = Sampling(**fields)  # type: ignore[arg-type]
        assert (is_plain(sampling), is_on_policy(sampling)) == (plain, on_policy), fields
    logits = torch.tensor(SCORES)
    sampling = Sampling(
        repetition_penalty=2, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((0, 10.0), (7, -1.0))
    )
    expected = [2.0 / 2 + 10, -1.0 * 2, 0.5, 3.0 / 2 - 0.5 - 0.25 * 2, 0.0, 1.0, -2.0 * 2 - 0.5 - 0.25, 2.5 - 1]
    assert penalise(logits, sampling, [0, 1], Counter({3: 2, 6: 1})).tolist() == expected
    assert logits.tolist() == SCORES and penalise(logits, Sampling(), [0], Counter({3: 2})) is logits
    assert penalise(logits, Sampling(presence_penalty=1), [0], Counter()).tolist() == SCORES


def test_only_allowed_tokens_are_drawn_on_either_way() -> None:
    allowed = bits([0, 2, 7], 8)
    for logits in (torch.tensor(SCORES), torch.tensor(SCORES, dtype=torch.float64)):
        for heat, number, token in ((0.0, 0.5, 7), (1.0, 0.0, 0), (1.0, 0.999999, 7), (1.0, 0.4, 2)):
            sampling = Sampling(temperature=heat)
            found = choose(logits, sampling, number=number, prompt=[], counts=Counter(), allowed=allowed)
            weights = {each: math.exp(SCORES[each]) for each in (0, 2, 7)}
            share = weights[token] / sum(weights.values())
            assert found.token == token and found.logprob == pytest.approx(
                0.0 if heat == 0 else math.log(share), abs=1e-5
            )
    assert most_probable(row(), 3) == tuple((token, pytest.approx(row().logprob(token))) for token in (3, 7, 0))
    assert most_probable(row(), 0) == () and len(most_probable(row(), 99)) == 8


# -- one token of one sequence --


def test_a_token_ends_an_answer_by_what_it_is_or_by_the_number() -> None:
    def ended(**fields: Any) -> Any:
        made = Sequence(1, 2, [4, 5], 2, **{"sampling": Sampling(top_logprobs=2), "max_tokens": 2, **fields})
        found = sample(made, row(), 7)
        assert made.tokens == [4, 5, 3] and made.counts == Counter({3: 1})
        return found

    plain = ended()
    best = row().logprob(3)
    assert (plain.request_id, plain.index, plain.token_ids, plain.logprobs, plain.behaviour_logprobs) == (
        1,
        2,
        (3,),
        (best,),
        (0.0,),
    )
    assert (plain.is_greedy, plain.finish_reason, plain.version, plain.adapter, plain.adapter_version) == (
        True,
        None,
        7,
        None,
        0,
    )
    assert plain.top_logprobs == (((3, best), (7, row().logprob(7))),)
    assert ended(stop_ids=frozenset({3})).finish_reason == "stop" and ended(max_tokens=1).finish_reason == "length"
    assert ended(stop_ids=frozenset({3}), max_tokens=1).finish_reason == "stop"
    assert ended(stopper=SimpleNamespace(feed=lambda token: token == 3)).finish_reason == "stop"
    assert ended(sampling=Sampling()).top_logprobs == ()
    adapter: Any = SimpleNamespace(name="ad", version=5, id=1)
    found = ended(adapter=adapter, num_cached=9, waited_s=1.5)
    assert (found.adapter, found.adapter_version, found.cached_tokens, found.prompt_tokens, found.waited_s) == (
        "ad",
        5,
        2,
        2,
        1.5,
    )
    drawn = Sequence(1, 2, [4, 5], 2, sampling=Sampling(temperature=1.0), max_tokens=9)
    found = sample(drawn, row(drawn=0, drawn_logprob=-0.25), 0)
    assert (found.token_ids, found.is_greedy, found.behaviour_logprobs) == ((0,), False, (row().logprob(0),))
    drawn.sampling = Sampling(temperature=0.5)
    assert sample(drawn, row(drawn=0, drawn_logprob=-0.123456789), 0).behaviour_logprobs == (-0.1234568,)
    assert sample(drawn, row(drawn=0, drawn_logprob=1e-9), 0).behaviour_logprobs == (0.0,)
    filtered = Sequence(1, 0, [4], 1, max_tokens=9, token_filter=TokenFilter(8, allowed=[0, 1]))
    assert sample(filtered, row(), 0).token_ids == (0,)
    with pytest.raises(ModelError, match="the model's logits are not numbers"):
        sample(Sequence(1, 0, [4], 1, max_tokens=9), row([math.nan] * 8), 0)
    error = ModelError("x")
    lost = failed(drawn, 3, error)
    assert (lost.token_ids, lost.logprobs, lost.is_greedy, lost.error, lost.version, lost.finish_reason) == (
        (),
        (),
        False,
        error,
        3,
        None,
    )
    assert output(drawn, 1, (), (), True).cached_tokens == 0


def test_a_continuation_is_rated_token_by_token() -> None:
    made = Sequence(1, 0, [4, 5, 3, 0], 2, goal="score", sampling=Sampling(top_logprobs=1), keeps_distribution=True)
    assert rate(made, 1, row(), 2) == [] and made.logprobs == [row().logprob(3)] and made.is_greedy
    first = made.distribution
    (found,) = rate(made, 2, row(SCORES[::-1]), 2)
    assert found.token_ids == (3, 0) and found.finish_reason == "stop" and not found.is_greedy and found.version == 2
    assert found.logprobs == (row().logprob(3), row(SCORES[::-1]).logprob(0)) and found.behaviour_logprobs == ()
    assert [[token for token, _ in each] for each in found.top_logprobs] == [[3], [4]]
    assert found.distribution is first and first is not None and first.dtype == np.float64
    assert first.tolist() == pytest.approx([score - row().normaliser for score in SCORES])
    (empty,) = rate(Sequence(1, 0, [4, 5], 2, goal="score"), 1, row(), 0)
    assert empty.token_ids == () and empty.is_greedy and empty.finish_reason == "stop"


# -- filters --


def test_a_filter_forbids_by_list_by_sequence_and_before_enough_tokens() -> None:
    def after(made: TokenFilter, *answer: int, written: Any = None) -> list[int]:
        words = None if written is None else bits(written, 40)
        return ids_of(made.after([9, 9, *answer], 2, words)).tolist()

    single = TokenFilter(5, bad=[(1,), (3,)])
    assert single.is_lasting and single.binds(100) and after(single) == after(single, 1, 2) == [0, 2, 4]
    pair = TokenFilter(5, bad=[(1, 2), (1, 4), (0, 1, 3), (4,)])
    assert after(pair) == [0, 1, 2, 3] and after(pair, 1) == [0, 1, 3] and after(pair, 0, 1) == [0, 1]
    assert after(pair, 0, 1, 0) == [0, 1, 2, 3] and after(pair, 1, 0) == [0, 1, 2, 3]
    assert ids_of(pair.after([1, 9], 1, None)).tolist() == [0, 1, 2, 3], "the prompt is no part of it"
    least = TokenFilter(5, min_tokens=2, ends=[0, 4])
    assert not least.is_lasting and [least.binds(count) for count in (0, 1, 2)] == [True, True, False]
    assert after(least) == after(least, 1) == [1, 2, 3] and after(least, 1, 1) == [0, 1, 2, 3, 4]
    assert after(least, written=[0, 3]) == [3] and after(least, written=[0]) == [0], (
        "the grammar lets nothing but the end"
    )
    assert after(TokenFilter(40, allowed=[1, 39], bad=[(2, 39)]), 2) == [1]
    assert after(TokenFilter(40, allowed=[1, 39]), written=[39]) == [39]
    for made, written, said in (
        (TokenFilter(5, allowed=[1], bad=[(1,)]), None, "leave none together"),
        (TokenFilter(5, allowed=[1]), [2], "min_tokens and the grammar leave none"),
        (TokenFilter(5, min_tokens=1, ends=[0], bad=[(0,)]), [0], "no token may follow the 0 of the answer"),
    ):
        with pytest.raises(ConfigError, match=said):
            after(made, written=written)
    assert after(TokenFilter(5)) == [0, 1, 2, 3, 4] and not TokenFilter(5).binds(0)
    words = bits([0, 31, 32], 40)
    assert len(words) == 2 and [has(words, token) for token in (0, 1, 31, 32, 63, 64)] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert ids_of(bits(None, 33)).tolist() == list(range(33)) and not bits((), 33).any()


# -- drafts --


def looked_up(tokens: list[int], most: int) -> list[int]:
    return PromptLookup().propose([DraftRequest(Sequence(0, 0, tokens, 1), most)])[0]


@pytest.mark.parametrize(
    "tokens, most, expected",
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], 5, [4, 5, 6]), ([1, 2, 3, 4, 5, 6, 1, 2, 3], 2, [4, 5]), ([7, 7, 7, 7], 5, [7, 7, 7]),
        ([9, 1, 2, 3, 4, 8, 1, 2, 3, 5, 9, 1, 2, 3], 6, [4, 8, 1, 2]), ([8, 1, 2, 3, 4, 8, 1, 2, 3, 5, 0, 1, 2, 3], 9, [5, 0, 1]),
        ([1, 2, 3], 4, []), ([1, 2], 4, []), ([1, 2, 4, 9, 1, 2, 3], 4, []), ([1, 2, 3, 1, 2, 3], 4, [1, 2, 3]),
    ],
)  # fmt: skip
def test_what_followed_the_longest_and_latest_match_is_drafted(
    tokens: list[int], most: int, expected: list[int]
) -> None:
    assert looked_up(tokens, most) == expected
    lookup, growing = PromptLookup(), Sequence(0, 0, [], 1)
    for token in tokens:
        growing.tokens.append(token)
        (found,) = lookup.propose([DraftRequest(growing, most)])
    assert found == expected, "an index that grows with the text finds the same"
    lookup.forget(growing)
    lookup.forget(growing)
    assert lookup._indexes == {}


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


# -- grammars --


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


# -- taps and fixed shapes --

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
