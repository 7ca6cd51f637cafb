"""The log-prob that each token was drawn with, against the softmax of the processed logits over what remains of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from engine_tiny import VOCAB, drain, tiny_engine, tiny_model, tokens
from firsthand import grammar as g
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.engine.decoding.constraint import bits, ids_of
from firsthand.engine.decoding.sampler import choose, is_on_policy
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from grammar_tiny import engine as grammar_engine
from grammar_tiny import model as grammar_model
from grammar_tiny import request as grammar_request
from test_engine_sampler import reference

SIZES = [1, 2, 7, 31, 33, 500, 1023, 1025, 3001]
PENALTIES: dict[str, Any] = {"repetition_penalty": 1.4, "presence_penalty": 0.3, "frequency_penalty": 0.2}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 3.0},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.05},
    PENALTIES,
    {"logit_bias": ((0, 2.0), (1, -3.0))},
    {"temperature": 0.6, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 0.8, "top_p": 0.95, "min_p": 0.03, "logit_bias": ((0, 1.5),), **PENALTIES},
]


def sampling_of(settings: dict[str, Any], **more: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, "seed": 5, **settings, **more})


def expected(
    logits_V: torch.Tensor,
    sampling: Sampling,
    token: int,
    prompt: Sequence[int] = (),
    answer: Sequence[int] = (),
    allowed: np.ndarray | None = None,
) -> float:
    """The log-prob of a token by brute force: one step after another over the whole vocabulary."""
    if sampling.temperature == 0:
        return 0.0
    values = logits_V.double().tolist()
    counts = Counter(answer)
    for each in {*prompt, *answer}:
        factor = sampling.repetition_penalty
        values[each] = values[each] / factor if values[each] > 0 else values[each] * factor
    for each, times in counts.items():
        values[each] -= sampling.presence_penalty + sampling.frequency_penalty * times
    for each, bias in sampling.logit_bias:
        values[each] += bias
    ids = list(range(len(values))) if allowed is None else ids_of(allowed).tolist()
    probs = reference(torch.tensor([values[each] for each in ids], dtype=torch.float64), sampling)
    return math.log(float(probs[ids.index(token)]))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
def test_the_log_prob_of_a_draw_is_that_of_the_distribution_it_came_from(
    settings: dict[str, Any], masked: bool, dtype: torch.dtype
) -> None:
    sampling = sampling_of(settings)
    for size, number in product(SIZES, (0.0, 0.31, 0.77, 0.999999)):
        if any(token >= size for token, _ in sampling.logit_bias):
            continue
        made = torch.Generator().manual_seed(size)
        logits_V = (3 * torch.randn(size, generator=made)).to(dtype)
        prompt, answer = [0, size - 1], [size // 2, size // 2, size - 1]
        allowed = bits([token for token in range(size) if token % 3 != 1], size) if masked else None
        drawn = choose(logits_V, sampling, number=number, prompt=prompt, counts=Counter(answer), allowed=allowed)
        assert not masked or drawn.token % 3 != 1
        want = expected(logits_V, sampling, drawn.token, prompt, answer, allowed)
        assert drawn.logprob == pytest.approx(want, abs=2e-5), (size, number)


@pytest.mark.parametrize("settings", SETTINGS[:6] + SETTINGS[8:9], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_so_it_is_for_many_rows_drawn_at_once(settings: dict[str, Any], size: int) -> None:
    sampling = sampling_of(settings)
    logits_MV = 3 * torch.randn(24, size, generator=torch.Generator().manual_seed(size))
    draw = DrawSettings(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, 0.0)
    # a row that is drawn otherwise, so that no shortcut is taken for the whole batch
    draws = [draw._replace(number=row / 24, **({"temperature": 0.9} if row == 7 else {})) for row in range(23)]
    found = draw_rows(logits_MV, [*draws, None], otherwise=logits_MV.argmax(-1))
    assert float(found.logprobs[23]) == 0.0
    for row, (token, logprob) in enumerate(zip(found.tokens.tolist()[:23], found.logprobs.tolist(), strict=False)):
        of_row = sampling_of({**settings, **({"temperature": 0.9} if row == 7 else {})})
        assert logprob == pytest.approx(expected(logits_MV[row], of_row, token), abs=1e-6)


@torch.no_grad()
def logits_of(model: Decoder, ids: Sequence[int]) -> torch.Tensor:
    hidden_ND = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
    return model.logits(hidden_ND)


def behaviour(outputs: Sequence[Output]) -> tuple[float, ...]:
    return tuple(each for output in outputs for each in output.behaviour_logprobs)


def check(model: Decoder, asked: Request, outputs: Sequence[Output]) -> set[str]:
    """Compares an answer's behaviour log-probs with brute force; returns the kinds of tokens that there were."""
    answer, kinds = tokens(outputs), set[str]()
    rows = logits_of(model, [*asked.prompt, *answer])[len(asked.prompt) - 1 :]
    given = behaviour(outputs)
    assert len(given) == len(answer) > 0
    guide = asked.grammar.guide() if asked.grammar is not None else None
    for at, (token, logprob) in enumerate(zip(answer, given, strict=True)):
        allowed = None
        if guide is not None and guide.forced:
            assert logprob == 0.0
            kinds.add("forced")
        else:
            if guide is not None:
                allowed = guide.allowed
            if asked.sampling.allowed_token_ids is not None:
                only = bits(asked.sampling.allowed_token_ids, rows.shape[1])
                allowed = only if allowed is None else allowed & only[: len(allowed)]
            want = expected(rows[at], asked.sampling, token, asked.prompt, answer[:at], allowed)
            assert logprob == pytest.approx(want, abs=3e-4), (asked.sampling, at)
            kinds.add("drawn" if logprob < 0 else "certain")
        if guide is not None:
            guide.advance(token)
    return kinds


ENGINES: list[dict[str, Any]] = [
    {},
    {"graphs": "off", "block_size": 8},
    {"graphs": "on", "block_size": 8},
    {"speculation": "prompt_lookup", "speculate_below": 200},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENGINES, ids=["compiled", "modules", "fixed shapes", "guesses"])
def test_every_way_to_sample_gives_the_log_prob_of_its_draw(settings: dict[str, Any]) -> None:
    config = EngineConfig(weights="float32", kv_cache="float32", kv_memory_bytes=1 << 21, **settings)
    engine = Engine(tiny_model(), config)
    assert (engine.runner.fused is None) == ("graphs" in settings)
    prompt = (3, 1, 4, 1, 5) * 4
    requests = [
        Request((at, *prompt), sampling_of(each, max_tokens=12, **more), n=1 + at % 2)
        for at, (each, more) in enumerate(
            product([*SETTINGS, {"temperature": 0.0}], ({}, {"allowed_token_ids": tuple(range(0, VOCAB, 2))}))
        )
    ]
    added = [engine.add(each) for each in requests]
    found = drain(engine)
    if "speculation" in settings:
        assert engine.stats().accepted_tokens > 0
    for id, asked in zip(added, requests, strict=True):
        for index in range(asked.n):
            outputs = found[id, index]
            kinds = check(tiny_model(), asked, outputs)
            assert kinds == {"certain"} if asked.sampling.temperature == 0 else "drawn" in kinds
            on_policy = is_on_policy(asked.sampling) and asked.sampling.allowed_token_ids is None
            same = all(output.behaviour_logprobs == output.logprobs for output in outputs)
            assert same == on_policy, "the same numbers exactly where the model's own distribution was sampled"


@pytest.mark.parametrize("settings", [{}, {"speculation": "prompt_lookup"}], ids=["plain", "guesses"])
def test_under_a_grammar_forced_tokens_are_certain_and_others_drawn_among_the_allowed(settings: dict[str, Any]) -> None:
    schema = g.json_schema({
        "type": "object",
        "properties": {"a_long_name": {"enum": ["one of the values", "another"]}, "number": {"type": "integer"}},
        "required": ["a_long_name", "number"],
        "additionalProperties": False,
    })  # fmt: skip
    engine = grammar_engine(weights="float32", **settings)
    requests = [grammar_request(schema, sampling_of(each, max_tokens=60)) for each in (*SETTINGS, {"temperature": 0.0})]
    added = [engine.add(each) for each in requests]
    found = drain(engine)
    kinds = [check(grammar_model(), each, found[id, 0]) for id, each in zip(added, requests, strict=True)]
    assert all("forced" in each for each in kinds) and sum("drawn" in each for each in kinds) > 5


def test_a_scored_continuation_was_not_drawn() -> None:
    engine = tiny_engine()
    engine.add_score((1, 2, 3), [(4, 5), (6,)])
    assert [behaviour(outputs) for outputs in drain(engine).values()] == [(), ()]
