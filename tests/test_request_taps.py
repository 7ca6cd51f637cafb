"""Taps of single requests: they see and edit their own tokens alone, and no cached prefix stands in for an edited token."""

from __future__ import annotations

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
