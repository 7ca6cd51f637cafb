"""The compiled steps of decoders, in Python and by one thread, against the modules: options, adapters, blocks, experts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")
from adapters_tiny import adapter, merged
from engine_tiny import tiny_model
from firsthand.kernels.attention import work_split
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
from firsthand.kernels.products.float_products import FLOAT16
from firsthand.kernels.step import decoder_step, expert_step, thread_team
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.batched_lora import AdapterSpan, PackedAdapter, pack_adapter, spans_of
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_decoder import Cache, CompiledDecoder
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import pack
from interpreted_kernels import Interpreter

TEXTS = [[3, 17, 0, 11, 5, 9], [7, 7, 13]]
PLAIN = replace(
    tiny_model().architecture, vocab_size=19, hidden_size=32, intermediate_size=48, num_heads=3, num_kv_heads=1,
    max_position=64, tie_embeddings=False,
)  # fmt: skip
FULL = replace(
    PLAIN, num_heads=4, num_kv_heads=2, qkv_bias=True, o_bias=True, mlp_bias=True, qk_norm=True, norm_placement="sandwich",
    activation="gelu_tanh", embed_scale=1.7, attention_scale=0.3, windows=(4, None), ropes=(Rope(theta=50.0), Rope()),
    norm_eps=0.02, logit_softcap=2.5,
)  # fmt: skip


def multiply_dense(
    entry: Any, first: int, last: int, rows: int, x: Any, stride: int, out: Any, column: int, out_stride: int
) -> None:
    """The product of floats in numpy; the kernel's own has its tests in `test_product_kernel_bodies`."""
    address, kind, tiles, tile_bytes, inputs = map(int, entry)
    memory = (ctypes.c_byte * (tiles * tile_bytes)).from_address(address)
    tiles_TK16 = np.frombuffer(memory, np.float16 if kind == FLOAT16 else np.float32).reshape(tiles, inputs, 16)
    for tile in range(first, last):
        for row in range(rows):
            at = row * out_stride + column + 16 * tile
            out[at : at + 16] = x[row * stride : row * stride + inputs] @ tiles_TK16[tile].astype(np.float32)


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel of a step is its Python body, and one thread does the work of all."""
    monkeypatch.setattr(decoder_step, "run", Interpreter(LIFT_TILES=2, multiply_dense=multiply_dense)(decoder_step.run))
    monkeypatch.setattr(
        decoder_step, "head", Interpreter(LIFT_TILES=1, multiply_dense=multiply_dense)(decoder_step.head)
    )
    monkeypatch.setattr(expert_step, "run_experts", Interpreter(multiply_dense=multiply_dense)(expert_step.run_experts))
    monkeypatch.setattr(work_split, "plan", Interpreter()(work_split.plan))
    monkeypatch.setattr(work_split, "locate", Interpreter()(work_split.locate))
    monkeypatch.setattr(thread_team, "together", lambda threads, work: work())


def made(a: Architecture) -> Decoder:
    """Every norm and bias has numbers of its own."""
    model = initialise(Decoder(a), seed=3, std=0.3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval().requires_grad_(False)


def steps(
    compiled: CompiledDecoder,
    cuts: Sequence[tuple[int, int]],
    *,
    adapters: Sequence[PackedAdapter | None] = (None, None),
    near: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[np.ndarray]:
    """The states of both texts' tokens, computed in steps up to each pair of cuts, their rows wanted backwards."""
    a = compiled.model.architecture
    cache = Cache.empty(a, 4, 16, dtype, torch.device("cpu"), num_near=3 if near else None)
    for array in cache.arrays:
        array.fill(7)
    found = [np.zeros((len(text), a.hidden_size), np.float32) for text in TEXTS]
    done = (0, 0)
    for ends in cuts:
        chunks = [(text, start, end) for text, (start, end) in enumerate(zip(done, ends, strict=True)) if end > start]
        layouts = [
            Layout([PackedChunk(start, end, tables[text]) for text, start, end in chunks], 16, compiled.threads)
            for tables in ([[2], [1]], [[0], [2]])
        ]
        ids = [TEXTS[text][at] for text, start, end in chunks for at in range(start, end)]
        wanted = list(reversed(range(len(ids))))
        spans = spans_of([adapters[text] for text, _, _ in chunks], [end - start for _, start, end in chunks])
        states = compiled.hidden(ids, layouts[0], cache, wanted, near=layouts[1] if near else None, spans=spans)
        row = 0
        for text, start, end in chunks:
            found[text][start:end] = states[::-1][row : row + end - start]
            row += end - start
        done = ends
    return found


def by_modules(model: Decoder) -> list[np.ndarray]:
    return [model(torch.tensor(text), torch.arange(len(text)), Packed([len(text)])).numpy() for text in TEXTS]


CUTS = [(4, 1), (5, 3), (6, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "weights", "threads"),
    [
        (FULL, "float32", 3),
        (replace(PLAIN, activation="gelu", num_layers=1, windows=(None,), ropes=(Rope(),)), "float16", 1),
        (replace(PLAIN, norm_unit_offset=True, qk_norm=True, norm_eps=0.2, windows=(None, 3)), "float32", 1),
    ],
)
def test_a_step_has_the_states_and_the_logits_of_the_modules(
    in_python: None, a: Architecture, weights: Any, threads: int
) -> None:
    model = made(a)
    pack(model, weights)
    compiled = CompiledDecoder(model, threads=threads)
    with torch.inference_mode():
        expected = by_modules(model)
        states = np.concatenate(expected)[[3, 0, 7]]
        logits_MV = model.logits(torch.from_numpy(states))
    dtype = torch.int8 if weights == "float16" else torch.float32  # of the cache
    for found, wanted in zip(steps(compiled, CUTS, near=threads == 3, dtype=dtype), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=3e-5, atol=0.12 if dtype == torch.int8 else 3e-5)
    logits = compiled.logits(states)
    torch.testing.assert_close(logits.values, logits_MV, atol=3e-5, rtol=3e-5)
    assert logits.best == logits_MV.argmax(-1).tolist()
    np.testing.assert_allclose(logits.normalisers, logits_MV.logsumexp(-1).numpy(), atol=2e-5)


def test_the_rows_of_an_adapter_have_the_states_of_the_merged_model(in_python: None) -> None:
    model = made(replace(PLAIN, qkv_bias=True, activation="gelu", norm_eps=0.1))
    deltas = [adapter(model, 1, rank=17, scale=0.4), adapter(model, 2, rank=3)]
    deltas[1] = replace(
        deltas[1], deltas={k: v for k, v in deltas[1].deltas.items() if "k_proj" not in k and "up" not in k}
    )
    both = [merged(made(model.architecture), each) for each in deltas]
    packed = [pack_adapter(each, model, tiles_of="float32") for each in deltas]
    pack(model, "float32")
    compiled = CompiledDecoder(model)
    with torch.inference_mode():
        plain, *changed = (by_modules(each) for each in (made(model.architecture), *both))
        for adapters, expected in (
            ([packed[1], packed[0]], [changed[1][0], changed[0][1]]),
            ([None, packed[0]], [plain[0], changed[0][1]]),
        ):
            for found, wanted in zip(steps(compiled, CUTS[1:], adapters=adapters), expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=5e-5, atol=5e-5)
        states = np.concatenate([plain[0][:3], plain[1][:3]])
        logits = compiled.logits(states, [AdapterSpan(1, 3, packed[0]), AdapterSpan(4, 5, packed[1])])
        hidden = torch.from_numpy(states)
        for row, by in enumerate([model, both[0], both[0], model, both[1], model]):
            torch.testing.assert_close(logits.values[row], by.logits(hidden[row]), atol=5e-5, rtol=5e-5)


@pytest.mark.slow
def test_blocks_and_floats_stand_side_by_side(in_python: None) -> None:
    model = made(replace(PLAIN, intermediate_size=64, num_heads=2, qkv_bias=True))
    pack(model.layers[0].attention, "int8")
    pack(model.layers[1].mlp, "int8")
    pack(model.layers[0].mlp, "float16")
    pack(model, "float32")
    compiled = CompiledDecoder(model, threads=2)
    with torch.inference_mode():
        expected = by_modules(model)
    for found, wanted in zip(steps(compiled, CUTS[1:]), expected, strict=True):
        # equal but for roundings to 8 bits that fall on the other side
        assert np.abs(found - wanted).mean() < 2e-3 * np.abs(wanted).max()


EXPERTS = ExpertSettings(num_experts=3, per_token=2, width=16, layers=(True, True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "changes", "weights"),
    [
        (replace(EXPERTS, layers=(True, False), shared_width=32, has_shared_gate=True, scale=1.5, renormalise=False),
         {"activation": "gelu", "intermediate_size": 48}, "float32"),
        (replace(EXPERTS, num_experts=5, per_token=3), {"norm_placement": "sandwich", "o_bias": True, "norm_eps": 0.1},
         "float16"),
        (replace(EXPERTS, width=32, shared_width=64), {"num_heads": 2, "activation": "gelu_tanh"}, "int8"),
    ],
)  # fmt: skip
def test_a_step_of_experts_has_the_states_of_the_modules(
    in_python: None, settings: ExpertSettings, changes: dict[str, Any], weights: Any
) -> None:
    model = made(replace(PLAIN, experts=settings, **changes))
    pack(model, weights)
    compiled = CompiledDecoder(model, threads=2 if weights == "float16" else 1)
    with torch.inference_mode():
        expected = by_modules(model)
    for found, wanted in zip(steps(compiled, CUTS[1:]), expected, strict=True):
        if weights == "int8":
            assert np.abs(found - wanted).mean() < 3e-3 * np.abs(wanted).max()
        else:
            np.testing.assert_allclose(found, wanted, rtol=5e-5, atol=5e-5)
