"""The same request gives the same tokens and log-probs, bit for bit, whatever else the engine does."""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch

from engine_tiny import VOCAB, drain, in_blocks_of_4_bits, logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.quant import best_mode
from thorough import part

pytestmark = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")

Answer = tuple[tuple[int, ...], tuple[float, ...]]


def requests(count: int, seed: int, longest: int = 13) -> list[Request]:
    """A mix of prompts, many of which begin alike, and of ways to sample."""
    rng = random.Random(seed)
    shared = [rng.randrange(VOCAB) for _ in range(70)]
    made = []
    for i in range(count):
        prompt = shared[: rng.choice([0, 16, 33, 70])] + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 40))]
        ways = [
            Sampling(max_tokens=rng.randrange(1, longest + 1)),
            Sampling(max_tokens=rng.randrange(1, longest + 1), temperature=1.0, seed=i),
            Sampling(max_tokens=longest, temperature=0.7, top_p=0.9, top_k=20, seed=i, repetition_penalty=1.2),
            Sampling(max_tokens=longest, temperature=1.3, min_p=0.02, seed=i, frequency_penalty=0.3),
        ]
        made.append(Request(tuple(prompt), rng.choice(ways), n=rng.choice([1, 1, 3])))
    return made


def answer(outputs: list[Output]) -> Answer:
    assert all(output.error is None for output in outputs)
    return tokens(outputs), logprobs(outputs)


def engine_of(**settings: Any) -> Engine:
    """A tiny engine; with weights of `4 bits` they are in a GGUF file's own blocks."""
    if settings.get("weights") != "4 bits":
        return tiny_engine(**settings)
    return Engine(
        in_blocks_of_4_bits(tiny_model()), EngineConfig(**{"kv_memory_bytes": 1 << 21, **settings, "weights": "auto"})
    )


def alone(request: Request, **settings: object) -> list[Answer]:
    engine = engine_of(**settings)
    engine.add(request)
    found = drain(engine)
    return [answer(found[0, index]) for index in range(request.n)]


@cache
def all_alone(weights: str, kv_cache: str, longest: int) -> list[list[Answer]]:
    """What each request gets in an engine of its own, on one thread."""
    return [alone(request, weights=weights, kv_cache=kv_cache) for request in requests(60, 1, longest)]


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


COMPANY: dict[str, dict[str, Any]] = {
    "roomy": {},
    "two threads": {"threads": 2},
    "chunked prompts": {"max_batch_tokens": 13, "max_sequences": 5, "threads": 3},
    "preempted": {"kv_memory_bytes": 16 * 512 * 12, "max_sequences": 8},
    "both": {"kv_memory_bytes": 16 * 512 * 12, "max_batch_tokens": 21, "max_sequences": 9, "threads": 2},
    "speculating": {"speculation": "prompt_lookup", "speculate_below": 30},
}
KINDS = [
    ("float32", "float32"),
    ("float16", "float32"),
    ("float16", "float16"),
    ("int8", "float32"),
    ("int8", "int8"),
    ("int8", "float16"),
    ("4 bits", "float16"),
]
"""Weights, keys and values; the last is what a GGUF file gets."""


def company_and_kinds() -> Iterator[Any]:
    """The hardest companies for some kinds; all others are slow, as are caches of int8, which another kernel reads.

    The memory that runs out for caches of float32 is too much for smaller ones to run out of it.
    """
    for weights, kv_cache in KINDS:
        for name, settings in COMPANY.items():
            if "kv_memory_bytes" not in settings or kv_cache == "float32":
                hardest = ("both", "speculating") if weights == "float32" else ("chunked prompts", "speculating")
                is_quick = name in hardest and kv_cache != "int8"
                is_quick &= (weights, kv_cache) != ("int8", "float16")  # as the blocks of 4 bits beside it
                marks = () if is_quick else (pytest.mark.slow,)
                yield pytest.param(settings, weights, kv_cache, id=f"{weights}-{kv_cache}-{name}", marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "weights", "kv_cache"), part(list(company_and_kinds()), 5))
def test_company_threads_chunking_caching_and_preemption_change_no_bit(
    settings: dict[str, Any], weights: str, kv_cache: str, one_thread_again: None
) -> None:
    longest = 50 if "kv_memory_bytes" in settings else 13
    work = requests(60, 1, longest)
    engine = engine_of(**settings, weights=weights, kv_cache=kv_cache)
    assert engine.runner.fused is not None
    rng = random.Random(1)
    ids: dict[int, int] = {}
    found: dict[tuple[int, int], list[Output]] = {}
    waiting = list(range(len(work)))
    rng.shuffle(waiting)
    while waiting or engine.has_work:
        for _ in range(rng.choice([0, 0, 1, 4])):
            if waiting:
                place = waiting.pop()
                ids[engine.add(work[place])] = place
        for output in engine.step():
            found.setdefault((ids[output.request_id], output.index), []).append(output)
    engine.pool.check()
    stats = engine.stats()
    assert stats.cached_tokens > 0
    assert (stats.preemptions > 0) == ("kv_memory_bytes" in settings)
    torch.set_num_threads(1)
    for place, expected in enumerate(all_alone(weights, kv_cache, longest)):
        assert [answer(found[place, index]) for index in range(len(expected))] == expected


def test_a_fork_draws_what_a_single_request_of_that_index_would() -> None:
    sampling = Sampling(max_tokens=10, temperature=1.0, seed=5)
    three = alone(Request((1, 2, 3), sampling, n=3))
    assert alone(Request((1, 2, 3), sampling, n=1)) == three[:1]
    assert alone(Request((1, 2, 3), sampling, n=2), max_sequences=1) == three[:2]


def test_scores_equal_the_logprobs_of_the_same_tokens_when_sampled() -> None:
    sampling = Sampling(max_tokens=25, temperature=1.5, seed=9)
    ((sampled, expected),) = alone(Request((4, 5, 6), sampling))
    for settings in ({}, {"max_batch_tokens": 7, "max_sequences": 3}):
        engine = tiny_engine(**settings)
        scores = engine.score((4, 5, 6), [sampled, sampled[:7], [9, 9, 9, *sampled], sampled[:1]])
        assert scores[0].logprobs == expected
        assert scores[1].logprobs == expected[:7]
        assert scores[3].logprobs == expected[:1]


def test_no_seed_means_a_new_one_each_time() -> None:
    request = Request((1, 2, 3), Sampling(max_tokens=20, temperature=2.0))
    assert alone(request) != alone(request)


def test_windows_and_other_block_sizes_keep_the_bits() -> None:
    request = Request(tuple(range(60)), Sampling(max_tokens=30))
    assert alone(request, block_size=32) == alone(request) == alone(request, max_batch_tokens=9, max_sequences=2)
    small = {"max_batch_tokens": 9, "max_sequences": 2}
    assert alone(request, window=11, **small) == alone(request, window=11) != alone(request)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_plain_operation_of_the_model_works_row_by_row(threads: int) -> None:
    """Norms, rotations, activations, softmax: rows computed alone and in a batch have the same bits."""
    from firsthand.nn.quant import pack

    model = tiny_model()
    pack(model, "float16")
    torch.set_num_threads(threads)
    try:
        ids, positions = torch.arange(90) % VOCAB, torch.arange(90)
        with torch.no_grad():
            lengths = [1] * 90  # attention to oneself, so that rows are independent
            whole = model.logits(model(ids, positions, Packed(lengths))).log_softmax(-1)
            for size in (1, 2, 3, 17):
                rows = slice(40, 40 + size)
                part = model.logits(model(ids[rows], positions[rows], Packed([1] * size))).log_softmax(-1)
                assert torch.equal(part, whole[rows])
    finally:
        torch.set_num_threads(1)
