"""Taps of single requests: they see and edit their own tokens alone, and no cached prefix stands in for an edited token."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import tiny_engine, tiny_model
from firsthand.engine.compute.request_taps import RequestTap, RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError
from firsthand.interp.activations import run_with_cache, run_with_edits
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder

SITE = "blocks.1.resid.post"
PROMPT = tuple(range(3, 27))


@pytest.fixture
def model() -> Decoder:
    return tiny_model()


@pytest.fixture
def engine() -> Engine:
    return tiny_engine(weights="float32")


def asked(taps: dict[str, RequestTap] | None = None, *, edits: bool = True, n: int = 1, tokens: int = 3) -> Request:
    found = None if taps is None else RequestTaps(taps, edits=edits)
    return Request(PROMPT, Sampling(temperature=0, max_tokens=tokens), n=n, taps=found)


def finished(engine: Engine) -> dict[int, list[Output]]:
    outputs: dict[int, list[Output]] = {}
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.request_id, []).append(output)
    return outputs


def tokens(outputs: list[Output]) -> list[int]:
    return [id for output in outputs for id in output.token_ids]


def kept(found: dict[int, Tensor]) -> RequestTap:
    def read(values: Tensor, positions: range, index: int) -> None:
        found.update(zip(positions, values.clone(), strict=True))
        values.zero_()  # a copy: the model goes on with its own

    return read


def negated(values: Tensor, positions: range, index: int) -> Tensor:
    return -values


def test_a_request_reads_its_own_activations_and_its_answer_is_as_without(engine: Engine, model: Decoder) -> None:
    found: dict[int, Tensor] = {}
    plain = engine.add(asked())
    before = tokens(finished(engine)[plain])
    tapped = engine.add(asked({SITE: kept(found)}, edits=False))
    beside = engine.add(asked())
    outputs = finished(engine)
    assert tokens(outputs[tapped]) == tokens(outputs[beside]) == before
    cached = engine.stats().cached_tokens
    assert cached > 0  # a reading tap reuses prefixes, whose tokens it does not see
    text = [*PROMPT, *before]
    exact = run_with_cache(model, text[:-1], SITE).cache[SITE]
    assert max(found) == len(text) - 2 and len(found) < len(text) - 1
    for position, values in found.items():
        torch.testing.assert_close(values, exact[position], atol=1e-4, rtol=1e-4)


def test_an_edit_reaches_its_own_request_alone_and_equals_run_with_edits(engine: Engine, model: Decoder) -> None:
    first = engine.add(asked())
    before = tokens(finished(engine)[first])
    edited, beside = engine.add(asked({"blocks.0.attn.out": negated})), engine.add(asked())
    outputs = finished(engine)
    assert tokens(outputs[beside]) == before
    wanted = [*PROMPT]
    for _ in range(3):
        logits = run_with_edits(model, wanted, {"blocks.0.attn.out": torch.neg})
        wanted.append(int(logits[-1].argmax()))
    assert tokens(outputs[edited]) == wanted[len(PROMPT) :] != before


def test_edited_tokens_are_neither_taken_from_the_prefix_cache_nor_left_in_it(engine: Engine) -> None:
    seen: dict[int, Tensor] = {}

    def looked(values: Tensor, positions: range, index: int) -> Tensor:
        seen.update(zip(positions, values, strict=True))
        return -values

    for _ in range(2):
        plain = engine.add(asked())
        before = tokens(finished(engine)[plain])
    cached = engine.stats().cached_tokens
    for _ in range(2):  # two of them share nothing either
        seen.clear()
        engine.add(asked({SITE: looked}))
        (outputs,) = finished(engine).values()
        assert set(range(len(PROMPT))) <= set(seen)
        assert outputs[-1].cached_tokens == 0
    assert engine.stats().cached_tokens == cached
    again = engine.add(asked())
    assert tokens(finished(engine)[again]) == before


def test_samples_of_one_tapped_request_share_its_prompt_and_are_told_apart(engine: Engine) -> None:
    indices: set[int] = set()

    def noted(values: Tensor, positions: range, index: int) -> Tensor:
        if positions.start >= len(PROMPT):
            indices.add(index)
        return -values

    request = engine.add(asked({SITE: noted}, n=2))
    outputs = finished(engine)[request]
    one, two = ([output for output in outputs if output.index == index] for index in (0, 1))
    assert tokens(one) == tokens(two) and indices == {0, 1}


def test_a_tap_that_fails_ends_its_own_request_alone(engine: Engine) -> None:
    def broken(values: Tensor, positions: range, index: int) -> Tensor:
        return values[:, :1]

    failing, fine = engine.add(asked({SITE: broken})), engine.add(asked())
    outputs = finished(engine)
    assert "returned" in str(outputs[failing][-1].error) and outputs[fine][-1].error is None
    lying = engine.add(asked({SITE: negated}, edits=False))
    assert "only reads" in str(finished(engine)[lying][-1].error)


def raising(values: Tensor, positions: range, index: int) -> Tensor:
    raise ValueError("a tap of somebody")


HOSTILE: tuple[RequestTap, ...] = (
    raising,
    lambda values, positions, index: values * float("nan"),
    lambda values, positions, index: values[:, :1],
    lambda values, positions, index: values.double() if index else values.to(torch.int32),
    lambda values, positions, index: "no tensor",  # type: ignore[return-value, arg-type]
    lambda values, positions, index: values.resize_(10_000_000).fill_(3.0)[: len(positions)],
    lambda values, positions, index: values.mul_(-1e30),
    negated,
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whatever_taps_do_in_a_batch_the_other_requests_answer_as_alone(seed: int) -> None:
    """Requests with hostile taps come, go and are aborted in steps of the same batch; memory is short, so some wait."""
    rng = random.Random(seed)
    prompts = [tuple(rng.randrange(3, 90) for _ in range(rng.randrange(3, 60))) for _ in range(6)]

    def plain(number: int) -> Request:
        return Request(prompts[number], Sampling(temperature=0, max_tokens=6), n=1)

    alone: dict[int, list[int]] = {}
    for number in range(len(prompts)):
        engine = tiny_engine(weights="float32")
        engine.add(plain(number))
        alone[number] = tokens(next(iter(finished(engine).values())))
    engine = tiny_engine(weights="float32", kv_memory_bytes=1 << 17)
    free = engine.stats().free_blocks
    asked_for: dict[int, int] = {}
    others: list[int] = []
    found: dict[int, list[Output]] = {}
    for _ in range(40):
        if len(asked_for) < 18 and rng.random() < 0.5:
            number = rng.randrange(len(prompts))
            asked_for[engine.add(plain(number))] = number
        if rng.random() < 0.5:
            taps = RequestTaps({SITE: rng.choice(HOSTILE)}, edits=rng.random() < 0.8)
            sampling = Sampling(temperature=0, max_tokens=6)
            others.append(engine.add(Request(rng.choice(prompts), sampling, n=rng.choice((1, 2)), taps=taps)))
        if others and rng.random() < 0.2:
            engine.abort(rng.choice(others))
        for output in engine.step() if engine.has_work else ():
            found.setdefault(output.request_id, []).append(output)
    for id, outputs in finished(engine).items():
        found.setdefault(id, []).extend(outputs)
    assert len(asked_for) > 8 and len(others) > 8
    for id, number in asked_for.items():
        assert found[id][-1].error is None and tokens(found[id]) == alone[number]
    errors = {str(output.error) for id in others for output in found.get(id, []) if output.error is not None}
    assert len(errors) >= 3 and engine.stats().free_blocks == free, errors


@pytest.mark.parametrize(("site", "told"), [("blocks.9.resid.post", "did you mean"), ("logits", "do not reach logits")])
def test_a_site_that_is_not_there_is_refused_before_anything_runs(engine: Engine, site: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        engine.add(asked({site: negated}))
    assert not engine.has_work


def test_a_requests_tap_comes_after_those_of_the_engine(engine: Engine) -> None:
    seen: list[Any] = []
    engine.tap({SITE: torch.zeros_like})
    engine.add(asked({SITE: lambda values, positions, index: seen.append(float(values.abs().max()))}, edits=False))
    finished(engine)
    engine.tap(None)
    assert seen and set(seen) == {0.0}
