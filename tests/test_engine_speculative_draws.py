"""Prompt look-up leaves the distribution of sampled answers as it is, with cuts and penalties too: a statistical test."""

from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from engine_tiny import drain, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder
from test_engine_sampler import reference
from thorough import part

VOCAB, COUNT = 6, 6000


def every_run_of_three() -> tuple[int, ...]:
    """A text in which each run of three tokens stands once (de Bruijn), so that look-up always finds one to go on from."""
    text, seen = [0, 0], set[tuple[int, ...]]()
    while len(seen) < VOCAB**3:
        token = next(t for t in reversed(range(VOCAB)) if (*text[-2:], t) not in seen)
        seen.add((*text[-2:], token))
        text.append(token)
    return tuple(text)


def penalised(
    logits_V: torch.Tensor, sampling: Sampling, prompt: tuple[int, ...], answer: tuple[int, ...]
) -> torch.Tensor:
    """Penalties token by token, as their definitions say."""
    found = logits_V.tolist()
    for token in range(VOCAB):
        if token in prompt or token in answer:
            positive = found[token] > 0
            found[token] *= 1 / sampling.repetition_penalty if positive else sampling.repetition_penalty
        times = answer.count(token)
        found[token] -= sampling.frequency_penalty * times + sampling.presence_penalty * (times > 0)
    return torch.tensor(found)


@torch.no_grad()
def exact(model: Decoder, prompt: tuple[int, ...], sampling: Sampling) -> dict[tuple[int, ...], float]:
    """The probability of each answer of three tokens."""
    shares: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        longer: dict[tuple[int, ...], float] = {}
        for answer, share in shares.items():
            ids = torch.tensor([*prompt, *answer])
            hidden_ND = model(ids, torch.arange(len(ids)), Packed([len(ids)]))
            logits_V = model.logits(hidden_ND[-1:])[0]
            row = reference(penalised(logits_V, sampling, prompt, answer), sampling)
            longer |= {(*answer, token): share * float(row[token]) for token in range(VOCAB) if row[token] > 0}
        shares = longer
    return shares


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    part(
        [
            pytest.param({}, id="temperature"),
            pytest.param({"top_p": 0.8}, id="top_p"),
            pytest.param({"top_k": 4, "top_p": 0.95}, id="top_k and top_p"),
            pytest.param(
                {"repetition_penalty": 1.3, "frequency_penalty": 0.6, "presence_penalty": 0.4}, id="penalties"
            ),
            pytest.param(
                {"top_k": 5, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2, "frequency_penalty": 0.5}, id="all"
            ),
        ],
        4,
    ),
)
def test_answers_that_were_looked_up_have_the_distribution_of_the_model(settings: dict[str, float]) -> None:
    prompt = every_run_of_three()
    assert {prompt[i : i + 3] for i in range(len(prompt) - 2)} == set(product(range(VOCAB), repeat=3))
    model, sampling = tiny_model(vocab_size=VOCAB), Sampling(max_tokens=3, temperature=3.0, **settings)  # type: ignore[arg-type]
    shares = exact(model, prompt, sampling)
    assert sum(shares.values()) == pytest.approx(1)
    config = EngineConfig(kv_memory_bytes=1 << 24, weights="float32", speculation="prompt_lookup", speculate_below=200)
    engine = Engine(model, config)
    for seed in range(COUNT):
        engine.add(Request(prompt, Sampling(max_tokens=3, temperature=3.0, seed=seed, **settings)))  # type: ignore[arg-type]
    found = Counter(tokens(outputs) for outputs in drain(engine).values())
    stats = engine.stats()
    assert 0.02 * COUNT < stats.accepted_tokens < stats.drafted_tokens - 0.02 * COUNT, "both verdicts are common"
    assert set(found) <= set(shares), "what is cut or forbidden never comes"
    common = [key for key, share in shares.items() if share * COUNT >= 5]
    observed = [*(found[key] for key in common), COUNT - sum(found[key] for key in common)]
    expected = [*(shares[key] * COUNT for key in common), COUNT - sum(shares[key] * COUNT for key in common)]
    if expected[-1] < 5:
        rare = expected.pop()
        expected[-1] += rare
        observed[-2:] = [observed[-2] + observed[-1]]
    assert len(observed) > 20 and chisquare(observed, expected).pvalue > 1e-3
    assert chisquare([*observed[1:], observed[0]], expected).pvalue < 1e-6, "the test would see another distribution"
