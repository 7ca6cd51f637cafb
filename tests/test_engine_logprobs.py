"""Log-probs of sampled tokens: those of `Engine.score` bit for bit, and how near those of the model's own forward."""

from pathlib import Path
from typing import Any

import pytest
from rollout_logprobs import PROMPTS, Distance, distance, forward, sample, scored

from engine_tiny import VOCAB, in_blocks_of_4_bits, tiny_model
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.nn import weights as files
from firsthand.nn.quant import best_mode
from firsthand.tokens import pretrained
from thorough import part

pytestmark = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")

KINDS = [
    ("4 bits", "float16"),
    pytest.param("int8", "int8", marks=pytest.mark.slow),  # another kernel
    ("float16", "float16"),
    ("float16", "float32"),
    ("float32", "float32"),
]
"""Weights, keys and values."""
TEXTS = [tuple((7 * i + 3 * j) % VOCAB for j in range(5 + 20 * i)) for i in range(3)]


def engine_of(weights: str, kv_cache: str, **settings: Any) -> Engine:
    model = in_blocks_of_4_bits(tiny_model()) if weights == "4 bits" else tiny_model()
    kept = "auto" if weights == "4 bits" else weights
    return Engine(model, EngineConfig(kv_memory_bytes=1 << 21, weights=kept, kv_cache=kv_cache, **settings))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kv_cache"), KINDS)
def test_logprobs_of_a_rollout_are_those_of_score_bit_for_bit(weights: str, kv_cache: str) -> None:
    """In the engine that sampled, which knows the texts, and in one that never saw them and computes in other pieces."""
    engine = engine_of(weights, kv_cache, max_sequences=7, max_batch_tokens=30, speculation="prompt_lookup")
    answers = sample(engine, TEXTS, answers=3, tokens=40)
    other = engine_of(weights, kv_cache, max_sequences=4, max_batch_tokens=11)
    for answer in answers:
        assert len(answer.logprobs) == 40
        assert answer.logprobs == scored(engine, answer) == scored(other, answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "kv_cache", "largest", "mean"),
    [
        ("float32", "float32", 2e-5, 4e-6),
        ("float16", "float32", 2e-5, 4e-6),
        ("float16", "float16", 2e-2, 4e-3),
        ("int8", "float16", 0.5, 0.06),
        ("4 bits", "float16", 0.5, 0.06),
    ],
)
def test_logprobs_of_a_rollout_are_near_those_of_the_models_own_forward(
    weights: str, kv_cache: str, largest: float, mean: float
) -> None:
    engine = engine_of(weights, kv_cache)
    answers = sample(engine, TEXTS, answers=2, tokens=40)
    found = distance(answers, [forward(engine.runner.model, answer) for answer in answers])
    assert found.largest < largest and found.mean < mean
    if kv_cache == "float32":  # nothing but weights is rounded, and what they were before is further away
        trained = distance(answers, [forward(tiny_model(), answer) for answer in answers])
        assert (trained.largest < largest) == (weights == "float32")


@pytest.mark.weights
@pytest.mark.parametrize(
    ("weights", "kv_cache", "own", "trained"),
    part(
        [
            ("auto", "auto", Distance(1.5, 0.1), Distance(1.5, 0.1)),
            ("float16", "auto", Distance(1e-2, 2e-3), Distance(3e-2, 4e-3)),
            ("float32", "auto", Distance(1e-4, 2e-5), Distance(1e-4, 2e-5)),
        ],
        3,
    ),
)
def test_a_real_models_distances_are_within_what_the_documentation_says(
    smollm2: Path, weights: str, kv_cache: str, own: Distance, trained: Distance
) -> None:
    tokenizer, model = pretrained.load(smollm2), files.load(smollm2, keep_blocks=weights == "auto")
    engine = Engine(model, EngineConfig(weights=weights, kv_cache=kv_cache, kv_memory_bytes=1 << 27))  # type: ignore[arg-type]
    answers = sample(engine, [tuple(tokenizer.encode(text)) for text in PROMPTS], answers=1, tokens=32)
    assert all(answer.logprobs == scored(engine, answer) for answer in answers)
    for other, most in ((model, own), (files.load(smollm2), trained)):
        found = distance(answers, [forward(other, answer) for answer in answers])
        assert found.largest < most.largest and found.mean < most.mean, found
