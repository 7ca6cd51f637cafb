"""Adapters beside one model: rows of any of them in one step, each answer as if alone, none with another's memory."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from adapters_tiny import adapter, merged, write
from engine_tiny import VOCAB, drain, logprobs, tiny_model, tokens
from firsthand import grammar as g
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, FirsthandError, ModelFileError
from firsthand.model import Sampling
from firsthand.nn.quant import best_mode
from grammar_tiny import grammars, tokenizer
from lora_tiny import base

compiled = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")
NAMES = (None, "red", "green", "blue")
PROMPT = tuple(range(7, 47))
Answer = tuple[tuple[int, ...], tuple[float, ...]]


def make_engine(*, adapters: Iterable[str] = ("red", "green", "blue"), tied: bool = True, **settings: object) -> Engine:
    defaults = {"kv_memory_bytes": 1 << 21, "kv_cache": "float32", "weights": "float16"}
    draft = settings.pop("draft", None)
    model = settings.pop("model", None) or tiny_model(tied=tied, window=settings.pop("window", None))  # type: ignore[arg-type]
    like = tiny_model(tied=tied, vocab_size=model.architecture.vocab_size)  # type: ignore[attr-defined]
    engine = Engine(model, EngineConfig(**{**defaults, **settings}), draft=draft)  # type: ignore[arg-type]
    for seed, name in enumerate(adapters, 1):
        engine.load_adapter(
            name, adapter(like, seed, rank=(5, 16, 33)[seed % 3], only="q_proj" if name == "blue" else "")
        )
    return engine


def answer(outputs: list[Output]) -> Answer:
    assert all(output.error is None for output in outputs)
    return tokens(outputs), logprobs(outputs)


def alone(request: Request, **settings: object) -> list[Answer]:
    engine = make_engine(**settings)
    engine.add(request)
    found = drain(engine)
    return [answer(found[0, index]) for index in range(request.n)]


def requests(count: int, seed: int) -> list[Request]:
    """Prompts that begin alike, each with some adapter or none."""
    rng = random.Random(seed)
    shared = [rng.randrange(VOCAB) for _ in range(50)]
    made = []
    for i in range(count):
        prompt = shared[: rng.choice([0, 16, 33, 50])] + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 20))]
        ways = [
            Sampling(max_tokens=rng.randrange(1, 10)),
            Sampling(max_tokens=26, temperature=1.0, seed=i, top_logprobs=2),
            Sampling(max_tokens=9, temperature=0.8, seed=i, top_p=0.9, repetition_penalty=1.2),
        ]
        made.append(Request(tuple(prompt), rng.choice(ways), n=rng.choice([1, 1, 3]), adapter=NAMES[i % 4]))
    return made


@cache
def all_alone(weights: str) -> list[list[Answer]]:
    return [alone(request, weights=weights) for request in requests(16, 1)]


# -- what it computes --


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_batch_tokens": 11, "max_sequences": 10},
        {"kv_memory_bytes": 9 << 13, "max_batch_tokens": 24, "max_sequences": 20},
        {"speculation": "prompt_lookup", "threads": 3},
    ],
    ids=["together", "in chunks", "preempted", "guessed"],
)
def test_an_answer_is_the_same_bit_for_bit_in_any_company(weights: str, settings: dict[str, object]) -> None:
    try:
        engine = make_engine(weights=weights, **settings)
        ids = [engine.add(request) for request in requests(16, 1)]
        found = drain(engine)
    finally:
        torch.set_num_threads(1)
    for place, (request_id, expected) in enumerate(zip(ids, all_alone(weights), strict=True)):
        for index, want in enumerate(expected):
            outputs = found[request_id, index]
            assert answer(outputs) == want, (place, index)
            assert {output.adapter for output in outputs} == {NAMES[place % 4]}
    if "kv_memory_bytes" in settings:
        assert engine.stats().preemptions > 0


@compiled
def test_rows_of_the_base_are_those_of_an_engine_without_adapters() -> None:
    plain = [request for request in requests(16, 1) if request.adapter is None]
    bare = [alone(request, adapters=()) for request in plain]
    assert bare == [
        want for request, want in zip(requests(16, 1), all_alone("float16"), strict=True) if not request.adapter
    ]


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [(lambda: tiny_model(tied=False), 2e-4), (base, 2e-4)],
    ids=["compiled step", "modules"],
)
def test_an_adapter_beside_the_model_scores_as_one_merged_into_it(make: object, tolerance: float) -> None:
    model = make()  # type: ignore[operator]
    added = {name: adapter(make(), seed) for seed, name in enumerate(("red", "green"), 1)}  # type: ignore[operator]
    config = EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32")
    engine = Engine(model, config)
    assert (engine.runner.fused is None) == (make is base)
    for name, each in added.items():
        engine.load_adapter(name, each)
    text = [list(PROMPT[:21]), list(PROMPT[21:40])]
    jobs = {name: engine.add_score(text[0], text[1:], adapter=name) for name in (None, "red", "green")}
    found = drain(engine)  # all in the same steps
    for name, job in jobs.items():
        whole = make() if name is None else merged(make(), added[name])  # type: ignore[operator]
        (expected,) = Engine(whole, config).score(text[0], text[1:])
        assert logprobs(found[job, 0]) == pytest.approx(expected.logprobs, abs=tolerance), name
    assert len({logprobs(found[job, 0]) for job in jobs.values()}) == 3


WAYS: dict[str, dict[str, object]] = {
    "prompt look-up": {"speculation": "prompt_lookup"},
    "draft model": {"draft": 3},
    "int8 keys": {"kv_cache": "int8"},
    "windows": {"window": 20},
    "chunks": {"max_batch_tokens": 7, "max_sequences": 6},
    "preemption": {"kv_memory_bytes": 9 << 13},
}
KINDS: dict[str, Request] = {
    "n": Request(PROMPT, Sampling(max_tokens=14, temperature=1.0, seed=4), n=3),
    "penalties": Request(PROMPT[:9] * 3, Sampling(max_tokens=12, repetition_penalty=1.3, presence_penalty=0.2)),
    "alternatives": Request(PROMPT[3:], Sampling(max_tokens=5, top_logprobs=5, temperature=0.7, seed=2, min_p=0.05)),
    "grammar": Request(PROMPT[:9], Sampling(max_tokens=12, grammar=g.regex("[a-d]{4,8}"), temperature=1.0, seed=8)),
    "stop": Request(PROMPT[:20], Sampling(max_tokens=20), stop_ids=frozenset(range(0, VOCAB, 5))),
}


@pytest.mark.slow
@compiled
@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.slow) if way == "int8 keys" else way for way in WAYS],  # another kernel
)
def test_every_kind_of_request_works_with_adapters_in_every_way(way: str) -> None:
    vocab = tokenizer().vocab_size
    settings = dict(WAYS[way])
    kept = {name: settings[name] for name in ("kv_cache", "window") if name in settings}

    def model(**more: object) -> dict[str, object]:
        return {"model": tiny_model(vocab_size=vocab, window=kept.get("window")), **more}  # type: ignore[arg-type]

    if "draft" in settings:
        settings["draft"] = tiny_model(seed=3, vocab_size=vocab)
    asked = [
        replace(
            request, adapter=name, grammar=grammars().compile(request.sampling.grammar) if kind == "grammar" else None
        )
        for kind, request in KINDS.items()
        for name in (None, "red", "green")
    ]
    bare = {name: value for name, value in kept.items() if name != "window"}
    expected = [alone(request, **model(**bare)) for request in asked]
    settings.pop("window", None)
    engine = make_engine(**model(**settings))
    jobs = [engine.add(request) for request in asked]
    scores = {
        name: engine.add_score(PROMPT, [PROMPT[:5], PROMPT[5:9]], adapter=name) for name in (None, "red", "green")
    }
    found = drain(engine)
    for request, job, want in zip(asked, jobs, expected, strict=True):
        assert [answer(found[job, index]) for index in range(request.n)] == want, request
    for name, job in scores.items():
        lone = make_engine(**model(**bare)).score(PROMPT, [PROMPT[:5], PROMPT[5:9]], adapter=name)
        assert [logprobs(found[job, index]) for index in range(2)] == [each.logprobs for each in lone]
    if way == "preemption":
        assert engine.stats().preemptions > 0


# -- memory of texts --


def test_known_texts_belong_to_one_adapter_and_one_version_of_it() -> None:
    engine = make_engine(adapters=("red", "green"))

    def cached(name: str | None) -> int:
        job = engine.add(Request(PROMPT, Sampling(max_tokens=2), adapter=name))
        return drain(engine)[job, 0][-1].cached_tokens

    assert [cached(name) for name in (None, "red", "green")] == [0, 0, 0]
    assert [cached(name) for name in (None, "red", "green")] == [len(PROMPT) - 1] * 3
    engine.load_adapter("red", adapter(tiny_model(), 9), version=2, replace=True)
    assert [cached(name) for name in (None, "red", "green")] == [len(PROMPT) - 1, 0, len(PROMPT) - 1]
    engine.unload_adapter("red")
    engine.load_adapter("red", adapter(tiny_model(), 9))
    assert cached("red") == 0
    engine.load(tiny_model().state_dict(), version=1)
    assert [cached(name) for name in (None, "red", "green")] == [0, 0, 0]


def test_requests_that_come_together_share_a_beginning_within_one_adapter_only() -> None:
    engine = make_engine(adapters=("red", "green"))
    jobs = [engine.add(Request(PROMPT, Sampling(max_tokens=2), adapter=name)) for name in ("red", "red", "green", None)]
    found = drain(engine)
    assert [found[job, 0][-1].cached_tokens for job in jobs] == [0, len(PROMPT) - 1, 0, 0]


def test_an_adapter_that_goes_takes_its_texts_and_holds_along() -> None:
    engine = make_engine(adapters=("red",))
    engine.add(Request(PROMPT, Sampling(max_tokens=2)))
    drain(engine)
    before = engine.stats()
    engine.add(Request(PROMPT, Sampling(max_tokens=2), adapter="red"))
    drain(engine)
    held = engine.pin_prefix(PROMPT, adapter="red")
    assert held.num_tokens == len(PROMPT) and engine.pin_prefix(PROMPT, adapter=None).num_tokens == len(PROMPT)
    engine.unload_adapter("red")
    engine.pool.check()
    after = engine.stats()
    assert not held.is_pinned
    assert after.cached_blocks + after.used_blocks == before.cached_blocks + before.used_blocks
    assert (after.adapters, after.adapter_bytes, after.pinned_prefixes) == (0, 0, 1)


@pytest.mark.parametrize("window", [None, 20])
def test_an_adapter_takes_its_texts_of_every_salt_along_and_nobody_elses(window: int | None) -> None:
    engine = make_engine(adapters=("red", "green"), window=window)
    salts = ("", "ann", "bob")

    def ask_all(name: str | None) -> list[int]:
        jobs = [engine.add(Request(PROMPT, Sampling(max_tokens=2), adapter=name, salt=salt)) for salt in salts]
        found = drain(engine)
        return [found[job, 0][-1].cached_tokens for job in jobs]

    known, nothing = [len(PROMPT) - 1] * 3, [0] * 3
    assert [ask_all(name) for name in (None, "green")] == [nothing] * 2
    before = engine.stats()
    assert ask_all("red") == nothing
    held = [engine.pin_prefix(PROMPT, adapter="red", salt=salt) for salt in salts]
    kept = engine.pin_prefix(PROMPT, adapter="green", salt="ann")
    assert all(hold.num_tokens >= len(PROMPT) for hold in (*held, kept))
    engine.unload_adapter("red")
    engine.pool.check()
    assert kept.is_pinned and not any(hold.is_pinned for hold in held)
    after = engine.stats()
    assert after.cached_blocks + after.used_blocks == before.cached_blocks + before.used_blocks
    assert [ask_all(name) for name in (None, "green")] == [known] * 2


# -- coming and going while requests run --


@compiled
def test_requests_under_way_end_with_the_adapter_they_began_with() -> None:
    request = Request(PROMPT, Sampling(max_tokens=8), adapter="red", n=2)
    first, second = alone(request), alone(replace(request, adapter="green"))
    engine = make_engine(adapters=("red",))
    job = engine.add(request)
    late = engine.add(replace(request, prompt=PROMPT[:5]))
    outputs = [output for _ in range(3) for output in engine.step()]
    green = adapter(tiny_model(), 2, rank=33)
    engine.load_adapter("red", green, version=5, replace=True)
    assert engine.stats().adapters == 2
    newer = engine.add(request)
    engine.unload_adapter("red")
    with pytest.raises(ConfigError, match="no adapter 'red' is loaded: there are none"):
        engine.add(request)
    outputs += [output for each in drain(engine).values() for output in each]

    def of(job: int, index: int) -> list[Output]:
        return [output for output in outputs if (output.request_id, output.index) == (job, index)]

    assert [answer(of(job, index)) for index in range(2)] == first
    assert [answer(of(newer, index)) for index in range(2)] == second
    assert {each.adapter_version for each in of(job, 1)} == {0} and {each.adapter_version for each in of(newer, 1)} == {
        5
    }
    assert all(len(tokens(of(late, index))) == 8 for index in range(2))
    assert engine.stats().adapters == 0 and engine.stats().adapter_bytes == 0


@pytest.mark.slow
def test_a_thousand_random_operations_leave_nothing_behind() -> None:
    rng = random.Random(3)
    engine = make_engine(adapters=(), kv_memory_bytes=40 << 13, max_batch_tokens=32, max_sequences=16, max_adapters=3)
    packed = [engine.adapters.read(adapter(tiny_model(), seed, rank=seed)) for seed in range(1, 5)]
    live: list[int] = []
    for _ in range(1000):
        name = rng.choice(["red", "green", "blue", "black"])
        try:
            match rng.randrange(6):
                case 0:
                    engine.load_adapter(name, rng.choice(packed), replace=rng.random() < 0.5)
                case 1:
                    engine.unload_adapter(name)
                case 2 if live:
                    engine.abort(rng.choice(live))
                case 3:
                    engine.pin_prefix(PROMPT[: rng.randrange(1, 40)], adapter=rng.choice([None, name]))
                case _:
                    sampling = Sampling(max_tokens=rng.randrange(1, 6))
                    prompt = PROMPT[: rng.randrange(1, 40)]
                    live.append(
                        engine.add(Request(prompt, sampling, n=rng.choice([1, 2]), adapter=rng.choice([None, name])))
                    )
        except ConfigError:
            pass
        assert all(output.error is None for output in engine.step())
        engine.pool.check()
        assert len(engine.adapters) <= 3
    drain(engine)
    for name in list(engine.adapters.versions):
        engine.unload_adapter(name)
    while engine.scheduler.pinned_prefixes.drop_oldest():
        pass
    assert (engine.stats().adapters, engine.stats().adapter_bytes, engine.stats().used_blocks) == (0, 0, 0)


def test_the_bounds_on_adapters_hold_and_a_refusal_changes_nothing() -> None:
    engine = make_engine(adapters=("red", "green"), max_adapters=2)
    size = engine.stats().adapter_bytes
    with pytest.raises(ConfigError, match=r"no room for the adapter 'blue' .*raise max_adapters"):
        engine.load_adapter("blue", adapter(tiny_model(), 3))
    with pytest.raises(ConfigError, match="an adapter 'red' is loaded already"):
        engine.load_adapter("red", adapter(tiny_model(), 3))
    for name in ("", "a b", "x" * 300, "é", 7):
        with pytest.raises(ConfigError, match="an adapter's name is"):
            engine.load_adapter(name, adapter(tiny_model(), 3))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no adapter 'blue' is loaded: there are red, green"):
        engine.unload_adapter("blue")
    with pytest.raises(ConfigError, match="no adapter 'blue'"):
        engine.add_score(PROMPT, [PROMPT], adapter="blue")
    engine.load_adapter("red", adapter(tiny_model(), 3), replace=True)
    assert engine.adapters.versions == {"red": 0, "green": 0}
    with pytest.raises(ConfigError, match=f"takes .* bytes and all together may take {size // 4}"):
        make_engine(adapter_memory_bytes=size // 4, adapters=("green",))


def test_a_folder_that_is_unfit_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    engine = make_engine(adapters=("red",), max_adapter_rank=8)
    good = adapter(tiny_model(), 7, rank=4)
    write(tmp_path / "good", tiny_model(), good)
    write(tmp_path / "high", tiny_model(), adapter(tiny_model(), 7, rank=9))
    write(tmp_path / "other", base(), adapter(base(), 7, rank=4, only="q_proj"))
    write(tmp_path / "cut", tiny_model(), good)
    body = (tmp_path / "cut" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(body[:-8])
    write(tmp_path / "bare", tiny_model(), good)
    (tmp_path / "bare" / "adapter_config.json").unlink()
    before = engine.stats()
    for name, error, expected in [
        ("high", ConfigError, "has rank 9: at most 8 is allowed here"),
        ("other", ModelFileError, "lora_B .* expected"),
        ("cut", ModelFileError, "safetensors"),
        ("bare", ModelFileError, r"has no adapter_config\.json"),
        ("nowhere", ModelFileError, "is not a folder"),
    ]:
        with pytest.raises(error, match=expected):
            engine.load_adapter("new", tmp_path / name)
    with pytest.raises(ConfigError, match="an adapter of at most 999 is allowed here"):
        make_engine(adapters=(), adapter_memory_bytes=999).load_adapter("new", tmp_path / "good")
    assert engine.stats() == before
    engine.load_adapter("new", tmp_path / "good")
    job = engine.add(Request(PROMPT, Sampling(max_tokens=3), adapter="new"))
    other = make_engine(adapters=())
    other.load_adapter("same", good)
    same = other.add(Request(PROMPT, Sampling(max_tokens=3), adapter="same"))
    assert answer(drain(engine)[job, 0]) == answer(drain(other)[same, 0])


def test_adapters_are_read_in_another_thread_while_the_engine_steps(tmp_path: Path) -> None:
    engine = make_engine(adapters=())
    folder = write(tmp_path, tiny_model(), adapter(tiny_model(), 7))
    found: list[object] = []
    readers = [threading.Thread(target=lambda: found.append(engine.adapters.read(folder))) for _ in range(4)]
    engine.add(Request(PROMPT, Sampling(max_tokens=30)))
    for reader in readers:
        reader.start()
    drain(engine)
    for reader in readers:
        reader.join()
    assert len(found) == 4 and not any(isinstance(each, FirsthandError) for each in found)


@compiled
def test_an_adapter_is_kept_in_half_the_memory_unless_its_numbers_or_the_weights_need_more() -> None:
    small, large = adapter(tiny_model(), 1), adapter(tiny_model(), 1, scale=1e7)
    sizes = {}
    for weights in ("float16", "float32"):
        engine = make_engine(adapters=(), weights=weights)
        sizes[weights] = [engine.adapters.read(each).size_bytes for each in (small, large)]
    assert 2 * sizes["float16"][0] == sizes["float16"][1] == sizes["float32"][0] == sizes["float32"][1]
