"""Tensor data that means harm: any bytes in any quantised type give numbers or NaN, and NaN ends its own request alone."""

from __future__ import annotations

from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine_tiny import drain, logprobs, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.sampler import _choose, candidates, draw
from firsthand.errors import ModelError
from firsthand.formats.gguf_file import READABLE
from firsthand.kernels.products.blockwise import GGUF_TYPES, from_gguf
from firsthand.model import Sampling
from firsthand.nn.quant import BlockLinear
from test_blockwise import matrix, products, random_bytes, tile

POISONS = {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "largest": 65504.0, "smallest": 6e-8}
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where the float16 numbers of a block lie; at its begin for the others."""
SMALL = {"threads": 1, "kv_memory_bytes": 1 << 21}


def poisoned(kind: str, poison: str, outputs: int = 37, inputs: int = 512) -> NDArray[np.uint8]:
    """A tensor of whose rows every third is poisoned."""
    raw = random_bytes(kind, outputs, inputs, 0)
    if poison in ("all ones", "all zeros", "noise"):
        fill = {"all ones": 255, "all zeros": 0}.get(poison)
        raw[::3] = fill if fill is not None else np.random.default_rng(1).integers(0, 256, raw[::3].shape)
        return raw
    value = np.frombuffer(np.float16(POISONS[poison]).tobytes(), np.uint8)
    blocks = raw.reshape(outputs, -1, GGUF_TYPES[kind][0])
    for at in SCALES.get(kind, (0,)):
        blocks[::3, 1, at : at + 2] = value
    return raw


@pytest.mark.parametrize("poison", [*POISONS, "all ones", "all zeros", "noise"])
@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_a_poisoned_row_spoils_its_own_output_and_no_other(kind: str, poison: str) -> None:
    made = from_gguf(kind, poisoned(kind, poison), (37, 512))
    rows = np.random.default_rng(2).normal(size=(9, 512)).astype(np.float32)
    rows[3], rows[4] = 0, rows[4] * np.float32(1e30)
    found = products.product(rows, tile(made))
    expected = products.product(rows, tile(matrix(kind)))
    sound = np.arange(37) % 3 != 0
    np.testing.assert_array_equal(found[:, sound], expected[:, sound])
    with np.errstate(all="ignore"):
        finite = np.isfinite(made.values()).all(axis=1)
    assert not np.isfinite(found[:, ~finite]).any()
    assert np.isfinite(found[:4][:, finite]).all()
    if poison in ("nan", "inf", "minus inf"):
        np.testing.assert_array_equal(finite, sound)


@pytest.mark.parametrize("kind", READABLE)
def test_every_type_is_read_whatever_its_bytes_are(kind: str) -> None:
    quant = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quant]
    raw = np.random.default_rng(3).integers(0, 256, (4, 64 * size), dtype=np.uint8)
    raw[0], raw[1] = 255, 0
    with np.errstate(all="ignore"):
        assert gguf.quants.dequantize(raw, quant).shape == (4, 64 * block)


def hostile_engine(poison: str, *, kind: str = "Q4_0", rows: slice = slice(None), **settings: object) -> Engine:
    """An engine whose head, or one row of it, is poisoned."""
    model = tiny_model(tied=False)
    with torch.no_grad():
        values = model.lm_head.weight.detach().numpy()
        raw = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
        blocks = raw.reshape(len(values), -1, GGUF_TYPES[kind][0])
        if poison == "all ones":
            blocks[rows] = 255
        else:
            blocks[rows, :, 0:2] = np.frombuffer(np.float16(POISONS[poison]).tobytes(), np.uint8)
        model.lm_head = BlockLinear(from_gguf(kind, raw, values.shape), None)  # type: ignore[assignment]
    return Engine(model, EngineConfig(**{**SMALL, **settings}))  # type: ignore[arg-type]


SAMPLINGS = {
    "greedy": Sampling(temperature=0.0, max_tokens=3),
    "with log-probs": Sampling(temperature=0.0, max_tokens=3, top_logprobs=3),
    "drawn": Sampling(temperature=1.0, max_tokens=3),
    "top-p": Sampling(temperature=1.0, max_tokens=3, top_p=0.9),
    "top-k": Sampling(temperature=1.0, max_tokens=3, top_k=5),
    "min-p": Sampling(temperature=1.0, max_tokens=3, min_p=0.1),
    "penalised": Sampling(temperature=0.7, max_tokens=3, presence_penalty=1.0, repetition_penalty=1.5),
    "biased": Sampling(max_tokens=3, logit_bias=((7, -50.0), (0, 5.0))),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", [None, 7, 95], ids=["every row", "one row", "the last row"])
@pytest.mark.parametrize("poison", ["nan", "all ones", "inf", "minus inf"])
@pytest.mark.parametrize("how", SAMPLINGS)
def test_logits_that_are_no_numbers_are_an_error_and_never_a_token(how: str, poison: str, row: int | None) -> None:
    engine = hostile_engine(poison, rows=slice(row, None if row is None else row + 1))
    asked = [engine.add(Request((1, 5, 2), SAMPLINGS[how], n=2)), engine.add(Request((9,), SAMPLINGS[how]))]
    scored = engine.add_score((1, 5), [[3], [4]])
    found = drain(engine)
    masked = row is not None and "inf" in poison  # such a row may be minus infinity: a token that is never drawn
    for key in ((asked[0], 0), (asked[0], 1), (asked[1], 0)):
        made, error = tokens(found[key]), found[key][-1].error
        assert (isinstance(error, ModelError) and "not numbers" in str(error)) or (masked and len(made) == 3)
        assert row not in made and np.isfinite(logprobs(found[key])).all() and (masked or not made)
    for index in range(2):
        error = found[scored, index][-1].error
        assert isinstance(error, ModelError) or (masked and np.isfinite(found[scored, index][-1].logprobs).all())
    assert not engine.has_work


def test_the_largest_scales_give_numbers_or_an_error() -> None:
    engine = hostile_engine("largest")
    asked = engine.add(Request((1, 5, 2), Sampling(max_tokens=4), n=2))
    found = drain(engine)
    for index in range(2):
        made, error = tokens(found[asked, index]), found[asked, index][-1].error
        assert isinstance(error, ModelError) or (len(made) == 4 and np.isfinite(logprobs(found[asked, index])).all())


@pytest.mark.parametrize("how", [each for each, sampling in SAMPLINGS.items() if sampling.temperature > 0])
@pytest.mark.parametrize(
    "logits", [[float("nan")] * 9, [0.0] * 8 + [float("nan")], [float("inf")] * 9, [-float("inf")] * 9]
)
def test_a_draw_from_what_is_no_number_has_no_log_prob(how: str, logits: list[float]) -> None:
    sampling = replace(SAMPLINGS[how], logit_bias=())
    assert np.isnan(draw(*candidates(torch.tensor(logits), sampling), 0.5).logprob)  # as on a GPU, uncompiled
    assert 0 <= _choose(torch.tensor(logits), sampling, 0.5).token < 9  # the engine looks at the whole row's log-prob
