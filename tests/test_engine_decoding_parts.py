"""How tokens are chosen: draws on a device, filters, ends, ratings and what is looked up, to the last number."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.engine.compute.module_runner import summary
from firsthand.engine.core.sequence import Sequence, SequenceChunk
from firsthand.engine.decoding.batched_sampler import DrawSettings, _pass, draw_after, draw_rows
from firsthand.engine.decoding.constraint import bits, has, ids_of
from firsthand.engine.decoding.drafts import PromptLookup
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
from firsthand.engine.decoding.speculative import DraftRequest
from firsthand.engine.decoding.token_choice import failed, output, rate, sample
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow

SCORES = [2.0, -1.0, 0.5, 3.0, 0.0, 1.0, -2.0, 2.5]


def row(values: list[float] = SCORES, **more: Any) -> LogitRow:
    scores = torch.tensor(values)
    return LogitRow(scores, int(scores.argmax()), float(scores.logsumexp(0)), **more)


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
        answering(sampling=Sampling(temperature=1, presence_penalty=0.5)),
        answering(token_filter=TokenFilter(8, min_tokens=2)),
        answering(sampling=Sampling(temperature=1, logit_bias=((1, 1.0),))),
        answering(token_filter=TokenFilter(8, bad=[(1, 2)])),
    ):  # fmt: skip
        assert drawn(made) is None
    assert drawn(answering(), 1) is None and drawn(answering(), 2, (7,)) is None
    assert [DrawSettings(1.0, k, p, m, 0.5).is_on_policy for k, p,
    m in ((0, 1, 0), (1, 1, 0), (0, 0.9, 0), (0, 1, 0.1))] == [
        True, False, False, False,
    ]  # fmt: skip
    assert not DrawSettings(0.9, 0, 1, 0, 0.5).is_on_policy and not DrawSettings(0.9, 0, 1, 0.1, 0.5).sorts


def test_what_changes_a_distribution_is_known() -> None:
    for fields, plain, on_policy in (
        ({"temperature": 1}, True, True), ({"temperature": 0.9}, True, False), ({"temperature": 1, "top_k": 1}, True, False),
        ({"temperature": 1, "top_p": 0.9}, True, False), ({"temperature": 1, "min_p": 0.1}, True, False),
        ({"temperature": 1, "repetition_penalty": 1.1}, False, False),
        ({"temperature": 1, "presence_penalty": -1}, False, False),
        ({"temperature": 1, "frequency_penalty": 1}, False, False),
        ({"temperature": 1, "logit_bias": ((0, 1.0),)}, False, False),
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


def test_a_filter_forbids_by_list_by_sequence_and_before_enough_tokens() -> None:
    def after(made: TokenFilter, *answer: int, written: Any = None) -> list[int]:
        words = None if written is None else bits(written, 40)
        return ids_of(made.after([9, 9, *answer], 2, words)).tolist()

    single = TokenFilter(5, bad=[(1,), (3,)])
    assert single.is_lasting and single.binds(100, 2) and after(single) == after(single, 1, 2) == [0, 2, 4]
    pair = TokenFilter(5, bad=[(1, 2), (1, 4), (0, 1, 3), (4,)])
    assert after(pair) == [0, 1, 2, 3] and after(pair, 1) == [0, 1, 3] and after(pair, 0, 1) == [0, 1]
    assert after(pair, 0, 1, 0) == [0, 1, 2, 3] and after(pair, 1, 0) == [0, 1, 2, 3]
    assert ids_of(pair.after([1, 9], 1, None)).tolist() == [0, 1, 2, 3], "the prompt is no part of it"
    least = TokenFilter(5, min_tokens=2, ends=[0, 4])
    assert not least.is_lasting and [least.binds(count, 2) for count in (0, 1, 2)] == [True, True, False]
    assert after(least) == after(least, 1) == [1, 2, 3] and after(least, 1, 1) == [0, 1, 2, 3, 4]
    assert after(least, written=[0, 3]) == [3] and after(least, written=[0]) == [0], (
        "the grammar lets nothing but the end"
    )
    assert after(TokenFilter(40, allowed=[1, 39], bad=[(2, 39)]), 2) == [1]
    assert after(TokenFilter(40, allowed=[1, 39]), written=[39]) == [39]
    assert after(TokenFilter(5, allowed=[1]), written=[1, 33]) == [1], "no token beyond those of the model"
    assert after(TokenFilter(70, bad=[(2, 64)]), 2, written=[1, 39]) == [1, 39], "one that no mask reaches needs none"
    for made, written, said in (
        (TokenFilter(5, allowed=[1], bad=[(1,)]), None, "leave none together"),
        (TokenFilter(5, allowed=[1]), [2], "min_tokens and the grammar leave none"),
        (TokenFilter(5, min_tokens=1, ends=[0], bad=[(0,)]), [0], "no token may follow the 0 of the answer"),
    ):
        with pytest.raises(ConfigError, match=said):
            after(made, written=written)
    assert after(TokenFilter(5)) == [0, 1, 2, 3, 4] and not TokenFilter(5).binds(0, 2)
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


def looked_up(tokens: list[int], most: int) -> list[int]:
    return PromptLookup().propose([DraftRequest(Sequence(0, 0, tokens, 1), most)])[0]


@pytest.mark.parametrize(
    "tokens, most, expected",
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], 5, [4, 5, 6]), ([1, 2, 3, 4, 5, 6, 1, 2, 3], 2, [4, 5]), ([7, 7, 7, 7], 5, [7, 7, 7]),
        ([9, 1, 2, 3, 4, 8, 1, 2, 3, 5, 9, 1, 2, 3], 6, [4, 8, 1, 2]),
        ([8, 1, 2, 3, 4, 8, 1, 2, 3, 5, 0, 1, 2, 3], 9, [5, 0, 1]),
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


def test_a_row_that_is_not_finite_gives_a_token_of_the_vocabulary_and_leaves_the_others() -> None:
    nan = math.nan
    logits = torch.tensor([[nan] * 4, [0.0, 1.0, 2.0, 3.0], [0.0, nan, 1.0, 2.0], [math.inf, 0.0, 1.0, 2.0]])
    for settings, token in (
        (DrawSettings(1.0, 0, 1.0, 0.0, 0.0), 0),
        (DrawSettings(1.0, 0, 1.0, 0.0, 0.5), 3),
        (DrawSettings(1.0, 2, 1.0, 0.0, 0.5), 3),
        (DrawSettings(1.0, 0, 0.5, 0.0, 0.5), 3),
        (DrawSettings(1.0, 0, 1.0, 0.3, 0.5), 3),
    ):
        found = draw_rows(logits, [settings] * 4, otherwise=torch.tensor([9, 9, 9, 9]))
        alone = draw_rows(logits[1:2], [settings], otherwise=torch.tensor([9]))
        assert int(found.tokens[1]) == int(alone.tokens[0]) == token and found.logprobs[1] == alone.logprobs[0]
        assert all(0 <= each < 4 for each in found.tokens.tolist())
    weights = torch.tensor([[0.5, 0.0, 0.25, 0.25, 0.0], [nan] * 5, [0.5, 0.25, nan, 0.0, 0.25], [0.0] * 5]).double()
    for number, place in ((0.0, 0), (0.49, 0), (0.5, 2), (0.75, 3), (1.0, 3)):
        places, taken, wholes = _pass(weights, torch.full((4, 1), number, dtype=torch.float64))
        assert int(places[0]) == place and float(taken[0]) == float(weights[0, place]) and float(wholes[0]) == 1.0
        assert places[1:].tolist() == [[4], [4], [0]], "NaN passes no number"
        assert float(wholes[3]) == 0.0 and wholes[1:3].isnan().all()
