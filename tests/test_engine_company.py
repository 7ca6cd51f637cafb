"""Requests of every kind in one engine that is short of memory, each bit for bit what it is alone."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from engine_tiny import drain, in_blocks_of_4_bits
from firsthand import grammar as g
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output, join_outputs
from firsthand.engine.core.sequence import Request
from firsthand.model import Sampling
from firsthand.nn import weights as files
from firsthand.nn.quant import best_mode
from firsthand.tokens import pretrained
from grammar_tiny import grammars, model, tokenizer
from thorough import part, repetitions

pytestmark = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")

REQUESTS, SCORES = repetitions(320, 130), repetitions(60, 24)
BLOCK_BYTES = 16 * 512
"""Of 16 positions in float32."""
KINDS = [("4 bits", "float16"), ("int8", "float16"), ("float32", "float32")]
"""Weights, keys and values. The first is what a GGUF file gets."""
GRAMMARS = [
    g.regex(r"[0-9]{3}-[a-z]{1,9}"),
    g.choice(["yes, of course", "no, never"]),
    g.json_schema({"type": "object", "properties": {"a_long_name": {"enum": ["one", "two"]}}, "required": ["a_long_name"],
                   "additionalProperties": False}),
]  # fmt: skip


class Score(NamedTuple):
    """Continuations to be rated."""

    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    top: int
    asked: dict[str, Any]


class Told(NamedTuple):
    """All that a caller sees of an answer, however it was cut into outputs."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]
    is_greedy: bool
    finish_reason: str | None


class EndsAtFive:
    """Ends an answer with its fifth token of the lower half of the vocabulary."""

    def __init__(self) -> None:
        self.seen = 0

    def feed(self, token_id: int) -> bool:
        self.seen += token_id < 300
        return self.seen == 5


def work(seed: int) -> list[Request | Score]:
    """Prompts that begin alike, some of which repeat themselves; every way to choose, to end and to be served."""
    rng = random.Random(seed)
    vocab = tokenizer().vocab_size
    shared = [rng.randrange(vocab) for _ in range(120)]

    def prompt() -> tuple[int, ...]:
        own = [rng.randrange(vocab) for _ in range(rng.randrange(1, 40))]
        return (*shared[: rng.choice([0, 16, 33, 90, 120])], *own * rng.choice([1, 1, 4]))

    def asked() -> dict[str, Any]:
        return {"priority": rng.randrange(-2, 3), "owner": rng.choice("abc"), "salt": rng.choice(["", "", "", "salt"])}

    made: list[Request | Score] = []
    for i in range(REQUESTS):
        most = rng.choice([rng.randrange(1, 50), 100])
        ways: list[dict[str, Any]] = [
            {},
            {"top_logprobs": 3},
            {"temperature": 1.0, "seed": i},
            {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": i, "repetition_penalty": 1.2, "top_logprobs": 2},
            {"temperature": 1.3, "min_p": 0.02, "seed": i, "frequency_penalty": 0.3, "presence_penalty": 0.2},
            {"logit_bias": ((11, 60.0), (12, 59.0)), "temperature": 0.7, "seed": i},  # text that can be guessed, mostly
            {"logit_bias": ((5, 4.0), (9, -100.0)), "temperature": 0.5, "seed": i, "min_tokens": min(3, most)},
        ]
        grammar = rng.choice([None, None, None, *GRAMMARS])
        way = rng.choice(ways)
        if grammar is not None:
            way.pop("min_tokens", None)
        made.append(
            Request(
                prompt(),
                Sampling(max_tokens=most, **way),
                n=rng.choice([1, 1, 1, 2, 4]),
                stop_ids=tokenizer().eos_ids | frozenset(rng.sample(range(vocab), rng.choice([0, 0, 6]))),
                stopper=rng.choice([None, None, EndsAtFive]),
                grammar=None if grammar is None else grammars().compile(grammar),
                **asked(),
            )
        )
    for _ in range(SCORES):
        texts = tuple(
            tuple(rng.randrange(vocab) for _ in range(rng.randrange(0, 30))) for _ in range(rng.randrange(1, 5))
        )
        made.append(Score(prompt(), texts, rng.choice([0, 0, 2]), asked()))
    rng.shuffle(made)
    return made


def engine(weights: str, kv_cache: str, **settings: Any) -> Engine:
    decoder = in_blocks_of_4_bits(model()) if weights == "4 bits" else model()
    kept = "auto" if weights == "4 bits" else weights
    config = EngineConfig(**{"kv_memory_bytes": 1 << 23, "weights": kept, "kv_cache": kv_cache, **settings})
    return Engine(decoder, config)


def add(runner: Engine, job: Request | Score) -> int:
    if isinstance(job, Request):
        return runner.add(job)
    return runner.add_score(job.prefix, job.continuations, top=job.top, **job.asked)


def told(outputs: list[Output]) -> Told:
    (whole,) = join_outputs(outputs)
    assert whole.error is None
    return Told(whole.token_ids, whole.logprobs, whole.top_logprobs, whole.is_greedy, whole.finish_reason)


def is_beginning(part: Told, whole: Told) -> bool:
    """Whether an answer that was aborted is the beginning of the whole one."""
    return all(ours == theirs[: len(ours)] for ours, theirs in zip(part[:3], whole[:3], strict=True))


@pytest.fixture
def one_thread_again() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kv_cache"), part(KINDS, 2))
def test_each_of_hundreds_of_mixed_requests_is_bit_for_bit_what_it_is_alone(
    weights: str, kv_cache: str, one_thread_again: None
) -> None:
    rng = random.Random(7)
    jobs = work(3)
    share = {"float32": 1, "float16": 2}[kv_cache]
    crowded = engine(
        weights,
        kv_cache,
        kv_memory_bytes=BLOCK_BYTES * 40 // share,
        max_sequences=16,
        max_batch_tokens=90,
        speculation="prompt_lookup",
        speculate_below=90,
        threads=2,
    )
    assert crowded.runner.fused is not None and crowded.runner.threads == 2
    ids: dict[int, int] = {}
    found: dict[tuple[int, int], list[Output]] = {}
    dropped: set[tuple[int, int]] = set()
    waiting = list(range(len(jobs)))
    while waiting or crowded.has_work:
        for _ in range(rng.choice([0, 0, 1, 4])):
            if waiting:
                place = waiting.pop()
                ids[add(crowded, jobs[place])] = place
        live = [request_id for request_id in list(ids)[-40:] if crowded.is_live(request_id)]
        if live and rng.random() < 0.06:
            request_id, index = rng.choice(live), rng.choice([None, 0, 1])
            crowded.abort(request_id, index)
            dropped |= {(ids[request_id], i) for i in range(4) if index in (None, i)}
        for output in crowded.step():
            key = (ids[output.request_id], output.index)
            assert key not in dropped, "an aborted answer says nothing more"
            found.setdefault(key, []).append(output)
        crowded.pool.check()
    stats = crowded.stats()
    assert stats.used_blocks == 0 and stats.requests == REQUESTS + SCORES
    assert min(stats.cached_tokens, stats.preemptions, stats.accepted_tokens, stats.forced_tokens) > 30
    assert stats.accepted_tokens < stats.drafted_tokens
    torch.set_num_threads(1)
    compared = aborted = 0
    for place, job in enumerate(jobs):
        alone = engine(weights, kv_cache)
        add(alone, job)
        for (_, index), outputs in drain(alone).items():
            expected, mine = told(outputs), found.get((place, index), [])
            if mine and mine[-1].is_last:
                assert told(mine) == expected
                compared += 1
            else:
                assert (place, index) in dropped
                assert not mine or is_beginning(told(mine), expected)
                aborted += 1
    assert compared > 1.5 * REQUESTS and aborted > REQUESTS / 16


@pytest.mark.weights
def test_a_real_model_in_its_own_blocks_answers_in_a_crowd_as_alone(smollm2: Path, one_thread_again: None) -> None:
    """SmolLM2's own blocks of 4 bits and keys in float16, which is what `auto` is."""
    tokenizer = pretrained.load(smollm2)
    header = "You are a careful clerk. Repeat what is asked, then answer in one sentence.\n" * 3
    things = [
        "the harbour of Lisbon",
        "a list of 1, 2, 3, 4, 5, 6",
        "def total(items): return sum(items)",
        "an old map",
    ]
    ways: list[dict[str, Any]] = [
        {},
        {"top_logprobs": 2},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "seed": 2},
    ]
    jobs: list[Request | Score] = []
    for place in range(repetitions(24, 12)):
        text = f"{header if place % 3 else ''}Say {things[place % 4]}, {things[place % 4]}, and then {place}:"
        ids = tuple(tokenizer.encode(text))
        if place % 6 == 5:
            texts = (ids[-20:], ids[3:9])
            jobs.append(Score(ids, texts, 2, {"priority": 1}))
        else:
            sampling = Sampling(max_tokens=20 + 3 * place, **ways[place % 4])
            jobs.append(Request(ids, sampling, n=1 + place % 2, priority=place % 3, owner=str(place % 2)))
    decoder = files.load(smollm2, keep_blocks=True)
    positions = 16 * 60
    crowded = Engine(
        decoder,
        EngineConfig(
            kv_memory_bytes=positions * 23_040,
            max_sequences=8,
            max_batch_tokens=100,
            speculation="prompt_lookup",
            speculate_below=30,
            threads=2,
        ),
    )
    assert crowded.runner.fused is not None and crowded.pool.num_usable == positions // 16
    assert crowded.weights == "int8" and crowded.runner.pages[0].keys.dtype == torch.float16
    places = {add(crowded, job): place for place, job in enumerate(jobs)}
    found: dict[tuple[int, int], list[Output]] = {}
    while crowded.has_work:
        for output in crowded.step():
            found.setdefault((places[output.request_id], output.index), []).append(output)
    stats = crowded.stats()
    assert min(stats.cached_tokens, stats.preemptions, stats.accepted_tokens) > 0
    torch.set_num_threads(1)
    compared = 0
    for place, job in enumerate(jobs):
        alone = Engine(decoder, EngineConfig(kv_memory_bytes=1 << 25, threads=1))
        add(alone, job)
        for (_, index), outputs in drain(alone).items():
            assert told(found[place, index]) == told(outputs)
            compared += 1
    assert compared == len(found) > len(jobs)
