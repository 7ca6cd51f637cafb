"""Penalties, cuts, draws and scores on rows of a few logits, and how an engine's parts are put together."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine_tiny import tiny_model
from firsthand.engine.compute.source_cache import check_replaceable, check_source
from firsthand.engine.core.assembly import _zero_null_blocks, assemble
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding import sampler, token_choice
from firsthand.engine.decoding.constraint import CompiledGrammar, Grammars, bits
from firsthand.engine.decoding.drafts import DraftModel
from firsthand.engine.decoding.grammar_cache import Growth
from firsthand.engine.memory.available_memory import _pages
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.grammar import regex
from firsthand.model import Sampling
from firsthand.nn.architecture import Rope
from firsthand.nn.compiled_decoder import LogitRow
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.sourced_decoder import SourcedDecoder


def row(*scores: float, **more: Any) -> LogitRow:
    values = torch.tensor(scores)
    return LogitRow(values, int(values.argmax()), float(values.logsumexp(0)), **more)


def test_penalties_and_biases_change_the_tokens_that_they_name() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0])
    everything = Sampling(
        repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((3, -1.5), (1, 0.75))
    )
    counts = Counter({0: 2})
    assert sampler.penalise(logits, everything, [1], counts).tolist() == [0.0, -1.25, 0.5, 1.5]
    assert logits.tolist() == [2.0, -1.0, 0.5, 3.0] and counts == {0: 2}
    assert sampler.penalise(logits, Sampling(), [1], counts) is logits
    assert sampler.penalise(logits, Sampling(repetition_penalty=2.0), [0, 1], Counter()).tolist() == [
        1.0,
        -2.0,
        0.5,
        3.0,
    ]
    assert sampler.penalise(logits, Sampling(presence_penalty=0.5), [1, 3], Counter()).tolist() == logits.tolist()
    assert sampler.penalise(logits, Sampling(frequency_penalty=1.0), [], Counter({2: 3, 1: 1})).tolist() == [
        2,
        -2,
        -2.5,
        3,
    ]


def test_candidates_are_cut_by_number_then_by_probability_then_by_the_best() -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, 1.5])

    def cut(**settings: Any) -> tuple[list[int], list[float]]:
        ids, weights = sampler.candidates(logits, Sampling(temperature=0.5, **settings))
        assert weights.dtype == torch.float64
        return ids.tolist(), [round(each, 6) for each in weights.tolist()]

    w = [math.exp(-4), 1.0, math.exp(-2), math.exp(-1)]
    found = [round(each, 6) for each in w]
    assert cut() == ([0, 1, 2, 3], found)
    assert cut(min_p=0.1) == ([1, 2, 3], found[1:]) and cut(min_p=0.2) == ([1, 3], [1.0, found[3]])
    assert cut(top_k=3) == ([1, 3, 2], [1.0, found[3], found[2]]) and cut(top_k=9)[0] == [1, 3, 2, 0]
    assert cut(top_k=3, min_p=0.2)[0] == [1, 3] and cut(top_k=1)[0] == [1]
    whole = sum(w)
    assert cut(top_p=1.0 / whole - 0.001)[0] == [1] and cut(top_p=1.0 / whole + 0.001)[0] == [1, 3]
    assert cut(top_p=(1 + w[3]) / whole + 0.001)[0] == [1, 3, 2] and cut(top_p=0.0001)[0] == [1]
    two = 1.0 / (1 + w[3])
    assert cut(top_k=2, top_p=two - 0.001)[0] == [1] and 1.0 / whole < two - 0.001, "of what top-k leaves"
    assert cut(top_p=0.999, min_p=0.2)[0] == [1, 3]
    for count, top_p, kept in ((200, 0.9, 180), (200, 0.999, 200), (100, 0.64, 64), (100, 0.65, 65), (1000, 0.6, 600)):
        ids, _ = sampler.candidates(torch.zeros(count), Sampling(temperature=1.0, top_p=top_p))
        assert abs(len(ids) - kept) <= (1 if count == 1000 else 0)


def test_a_draw_takes_the_candidate_that_passes_the_number() -> None:
    ids, weights = torch.tensor([7, 3, 5]), torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    for number, token, share in (
        (0.0, 7, 0.25),
        (0.2499, 7, 0.25),
        (0.25, 3, 0.25),
        (0.4999, 3, 0.25),
        (0.5, 5, 0.5),
        (0.9999, 5, 0.5),
    ):
        assert sampler.draw(ids, weights, number) == (token, pytest.approx(math.log(share)))
    token, logprob = sampler.draw(ids[:0], weights[:0], 0.5)
    assert token == 0 and math.isnan(logprob) and not sampler.is_usable(logprob) and sampler.is_usable(-math.inf)
    assert math.isnan(sampler.draw(ids, weights * 0, 0.5).logprob)
    scores = torch.tensor([0.0, 1.0, 3.0, 2.0], dtype=torch.float64)
    cold, warm = Sampling(temperature=0.0), Sampling(temperature=1.0, top_k=2)
    given: dict[str, Any] = {"prompt": [], "counts": Counter()}
    assert sampler.choose(scores, cold, number=0.9, **given) == (2, 0.0)
    assert sampler.choose(scores, cold, number=0.9, allowed=bits([0, 1, 3], 4), **given) == (3, 0.0)
    for number, place in ((0.0, 2), (0.99, 3)):
        assert sampler.choose(scores, warm, number=number, **given).token == place
    found = sampler.choose(scores, warm, number=0.99, allowed=bits([0, 1, 3], 4), **given)
    assert found == (1, pytest.approx(1 - math.log(math.exp(1) + math.exp(2))))
    assert not sampler.can_compile(scores) and not sampler.can_compile(scores.float().expand(2, 4).T)


def test_the_most_probable_tokens_come_first_with_their_log_probs() -> None:
    made = row(1.0, 3.0, 2.0)
    whole = math.log(math.exp(1) + math.exp(3) + math.exp(2))
    assert sampler.most_probable(made, 0) == () and [token for token, _ in sampler.most_probable(made, 9)] == [1, 2, 0]
    (best, second) = sampler.most_probable(made, 2)
    assert best == (1, pytest.approx(3 - whole)) and second == (2, pytest.approx(2 - whole))


def test_a_sampled_token_is_appended_told_to_all_who_follow_and_reported() -> None:
    whole = math.log(math.exp(1) + math.exp(3) + math.exp(2))

    def one(**fields: Any) -> Sequence:
        return Sequence(4, 1, [9, 0], 1, **{"max_tokens": 9, "sampling": Sampling(temperature=0.0), **fields})

    plain = one(sampling=Sampling(temperature=0.0, top_logprobs=1))
    found = token_choice.sample(plain, row(1.0, 3.0, 2.0), 6)
    assert (found.token_ids, found.version, found.is_greedy, found.finish_reason) == ((1,), 6, True, None)
    assert found.logprobs == (pytest.approx(3 - whole),) and found.behaviour_logprobs == (0.0,)
    assert (
        found.top_logprobs == (((1, pytest.approx(3 - whole)),),)
        and plain.tokens == [9, 0, 1]
        and plain.counts == {1: 1}
    )
    drawn = token_choice.sample(
        one(sampling=Sampling(temperature=0.5)), row(1.0, 3.0, 2.0, drawn=2, drawn_logprob=-0.12345678), 6
    )
    assert (drawn.token_ids, drawn.is_greedy, drawn.behaviour_logprobs, drawn.top_logprobs) == (
        (2,),
        False,
        (-0.1234568,),
        (),
    )
    own = token_choice.sample(one(sampling=Sampling(temperature=1.0)), row(1.0, 3.0, 2.0, drawn=2), 6)
    assert own.behaviour_logprobs == own.logprobs == (pytest.approx(2 - whole),)
    fed: list[Any] = []
    guide: Any = SimpleNamespace(forced=[], allowed=bits([0, 1], 3), advance=fed.append, is_done=True)
    for fields, reason in (
        ({"stop_ids": frozenset({1})}, "stop"), ({"stopper": SimpleNamespace(feed=lambda token: token == 1)}, "stop"),
        ({"stopper": SimpleNamespace(feed=lambda token: token == 2)}, None), ({"guide": guide}, "stop"),
        ({"max_tokens": 2}, "length"), ({"max_tokens": 3}, None), ({"max_tokens": 2, "stop_ids": frozenset({1})}, "stop"),
    ):  # fmt: skip
        assert token_choice.sample(one(**fields), row(1.0, 3.0, 2.0), 0).finish_reason == reason
    assert fed == [1]
    with pytest.raises(
        ModelError, match=r"^the model's logits are not numbers \(NaN or infinite\): its weights are damaged or"
    ):
        token_choice.sample(broken := one(), row(1.0, math.nan, 2.0), 0)
    assert broken.tokens == [9, 0]


def test_a_continuation_is_scored_token_by_token_with_the_whole_row_of_its_first() -> None:
    made = Sequence(4, 1, [9, 2, 1, 0], 2, goal="score", sampling=Sampling(top_logprobs=1), keeps_distribution=True)
    first, second = row(1.0, 3.0, 2.0), row(0.5, 0.0, 4.0)
    assert token_choice.rate(made, 1, first, 3) == [] and made.is_greedy
    (found,) = token_choice.rate(made, 2, second, 4)
    assert (found.token_ids, found.version, found.is_greedy, found.finish_reason) == ((1, 0), 4, False, "stop")
    assert found.logprobs == (first.logprob(1), second.logprob(0)) and found.behaviour_logprobs == ()
    assert [top[0][0] for top in found.top_logprobs] == [1, 2]
    assert found.distribution is not None and found.distribution.tolist() == pytest.approx(
        [first.logprob(token) for token in range(3)]
    )
    late = Sequence(4, 1, [9, 2, 0, 2], 2, goal="score")
    assert token_choice.rate(late, 1, first, 3) == [] and not late.is_greedy
    (found,) = token_choice.rate(late, 2, second, 3)
    assert not found.is_greedy and found.distribution is None and found.top_logprobs == (), "one was not the best"
    (empty,) = token_choice.rate(Sequence(4, 1, [9, 2], 2, goal="score"), 1, first, 3)
    assert (empty.token_ids, empty.logprobs, empty.is_greedy, empty.finish_reason, empty.distribution) == (
        (),
        (),
        True,
        "stop",
        None,
    )


def test_an_invalid_or_outgrown_grammar_is_known_without_compiling_it() -> None:
    made = Grammars(SimpleNamespace(vocab_size=70))  # type: ignore[arg-type]
    good, bad = regex("ab"), regex("cd")
    assert made.find(good) is None and made.num_bytes == 0
    compiled = CompiledGrammar(good, 70, SimpleNamespace(), (), None, growth=Growth())
    made._cache.put((good, True), compiled)
    made._cache.put((bad, False), "no text fits")
    assert (
        made.find(good) is compiled is made.compile(good)
        and made.find(good, forcing=False) is None
        and made.find(bad) is None
    )
    assert made.num_bytes == compiled.num_bytes + 1_000 + 4 * 12
    for ask in (made.find, made.compile):
        with pytest.raises(ConfigError, match=r"^no text fits$"):
            ask(bad, forcing=False)
    compiled.growth.is_spoiled = True
    assert made.find(good) is None and made._outgrown == {hash(good)}
    made._outgrown.update(range(10_000))
    assert made.find(good) is None and made._outgrown == {hash(good)}, "they are not kept without end"


def test_an_engine_is_put_together_of_parts_that_fit() -> None:
    memory = 2048 * 24  # a block of 4 float32 tokens takes 2048 bytes
    common: dict[str, Any] = {"block_size": 4, "kv_memory_bytes": memory, "kv_cache": "float32", "weights": "float32"}
    config = EngineConfig(**common, max_batch_tokens=100, max_sequences=7)
    parts = assemble(tiny_model(), config, None)
    model = parts.runner.model
    assert (
        not model.training and not any(each.requires_grad for each in model.parameters()) and parts.weights == "float32"
    )
    assert (
        parts.pool.num_blocks,
        parts.pool.block_size,
        parts.runner.block_size,
        len(parts.runner.pages[0].values),
    ) == (24, 4, 4, 24)
    s = parts.scheduler
    assert (s.pool, s.max_batch_tokens, s.max_sequences, s.shared_prompt_tokens) == (parts.pool, 100, 7, 64)
    assert parts.speculator is None and parts.adapters._tiles_of is None and parts.runner.modules is not None
    assert parts.runner.modules.steps is None and parts.runner.pages[0].values.dtype == torch.float32
    graphs = assemble(tiny_model(), EngineConfig(**common, graphs="on"), None).runner.modules
    assert graphs is not None and graphs.steps is not None
    drafted = assemble(tiny_model(), config, tiny_model(1))
    assert (
        drafted.pool.num_blocks == 12
        and drafted.speculator is not None
        and isinstance(drafted.speculator.drafter, DraftModel)
    )
    assert drafted.speculator.drafter.pool.num_blocks == 12
    assert drafted.speculator.drafter.runner.pages[0].values.dtype == torch.float32
    lone = replace(tiny_model().architecture, num_layers=1, windows=(None,), ropes=(Rope(),))
    smaller = assemble(tiny_model(), config, initialise(Decoder(lone), seed=1, std=0.3))
    assert smaller.pool.num_blocks == 16, "2048 bytes of the model and 1024 of the draft model a block"
    auto = EngineConfig(**{**common, "kv_cache": "auto"})
    of_two = assemble(tiny_model(), auto, tiny_model(1).to(torch.bfloat16))
    assert of_two.pool.num_blocks == 16 and of_two.speculator is not None
    drafter = of_two.speculator.drafter
    assert isinstance(drafter, DraftModel) and drafter.runner.pages[0].values.dtype == torch.bfloat16
    assert of_two.runner.pages[0].values.dtype == torch.float32
    halves = assemble(tiny_model(), EngineConfig(**{**common, "kv_cache": "float16"}), None)
    assert halves.pool.num_blocks == 48 and halves.runner.pages[0].values.dtype == torch.float16
    mixed = assemble(tiny_model(window=8), config, None)
    near, far = mixed.pool.pools[1], mixed.pool.pools[0]
    assert [len(assemble(tiny_model(window=window), config, None).pool.pools) for window in (255, 256)] == [2, 1]
    assert (near.window, far.window) == (8, None) and near.num_blocks + far.num_blocks == 48
    assert [len(pages.values) for pages in mixed.runner.pages] == [near.num_blocks, far.num_blocks]
    for pages in mixed.runner.pages:
        for tensor in pages.tensors:
            tensor.fill_(math.nan)
    _zero_null_blocks(mixed.runner, mixed.pool)
    for pages, is_zero in zip(mixed.runner.pages, (True, False), strict=True):
        for tensor in pages.tensors:
            assert bool((tensor[0] == 0).all()) is is_zero and bool(tensor[1:].isnan().all())


def test_an_encoder_decoder_reads_a_source_within_its_context_and_keeps_its_weights() -> None:
    model = SourcedDecoder.__new__(SourcedDecoder)
    object.__setattr__(model, "architecture", SimpleNamespace(max_position=3, vocab_size=9))
    check_source((1, 2, 8), model)
    with pytest.raises(ConfigError) as told:
        check_source((), model)
    assert (
        str(told.value) == "the model is an encoder-decoder and the request has no source: give the text that it reads"
    )
    with pytest.raises(PromptTooLong) as long:
        check_source((1, 2, 3, 4), model)
    assert str(long.value) == "the source has 4 tokens: the model reads at most 3, so shorten it"
    with pytest.raises(ModelError, match=r"^token 1 of the source is 9: expected a whole number from 0 to 8$"):
        check_source((1, 9), model)
    with pytest.raises(
        ConfigError, match=r"^the weights of an encoder-decoder cannot be replaced in an engine: open the new files"
    ):
        check_replaceable(model)
    assert _pages("SC_NO_SUCH_NUMBER") is None
