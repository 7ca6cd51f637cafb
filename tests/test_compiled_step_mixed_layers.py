"""A compiled step whose head is of another kind than its layers: rounded below plain, and the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from firsthand.kernels.attention.kv_pages import Layout, PackedChunk
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_decoder import Cache, CompiledDecoder
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import BlockLinear, pack

pytest.importorskip("numba")
A = Architecture(
    "qwen3", 50, 64, 96, 2, 4, num_kv_heads=2, head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def model() -> Any:
    return initialise(Decoder(A), seed=3, std=0.3)


def mixed(layers: str, head: str) -> Any:
    """A model whose layers, and whose head, are `plain` or `rounded`."""
    made: Any = model() if layers == "plain" else pack(model(), "int8")
    other: Any = model() if head == "plain" else pack(model(), "int8")
    made.lm_head = other.lm_head
    assert isinstance(made.lm_head, BlockLinear if head == "rounded" else nn.Linear)
    return made


@torch.no_grad()
@pytest.mark.parametrize(
    ("layers", "head", "blocks", "dense"),
    [
        ("plain", "plain", False, True),
        ("rounded", "rounded", True, False),
        ("rounded", "plain", True, True),
        ("plain", "rounded", True, True),
    ],
)
def test_a_head_of_another_kind_than_the_layers_has_what_it_reads(
    layers: str, head: str, blocks: bool, dense: bool
) -> None:
    from firsthand.kernels.products.rounded_rows import BLOCK, RECORD

    made = mixed(layers, head)
    compiled = CompiledDecoder(made)
    assert (compiled._has_blocks, compiled._has_dense) == (blocks, dense)
    ids = [7, 3, 40, 11, 0]
    cache = Cache.empty(A, 1, 16, torch.float32, torch.device("cpu"))
    found = compiled.hidden(ids, Layout([PackedChunk(0, 5, [0])], 16), cache, [4, 0])
    assert len(compiled._rounded) == 5 * (96 // BLOCK) * RECORD * blocks
    whole = made(torch.tensor(ids), torch.arange(5), Packed([5]))[[4, 0]]
    assert np.allclose(found, whole, atol=1e-4 if layers == "plain" else 0.1)
    logits, scores = compiled.logits(found), made.logits(torch.from_numpy(found))
    assert np.allclose(logits.values, scores, atol=1e-4 if head == "plain" else 0.1)
    assert logits.best == scores.argmax(1).tolist()


@torch.no_grad()
def test_a_head_that_was_replaced_is_read_again() -> None:
    made = mixed("rounded", "rounded")
    compiled = CompiledDecoder(made)
    made.lm_head = model().lm_head
    compiled.refresh()
    assert (compiled._has_blocks, compiled._has_dense) == (True, True)
    states = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    assert np.allclose(compiled.logits(states).values, made.logits(torch.from_numpy(states)), atol=1e-4)
