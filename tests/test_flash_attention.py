"""Tiled attention and the textbook cache against SDPA and the packed pass: outputs, gradients, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import ConfigError
from firsthand.kernels.attention.flash_attention import flash_attention
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.textbook_cache import TextbookCache


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (8, 8), (9, 9), (33, 33), (5, 20)])
def test_tiled_attention_is_sdpa_with_its_gradients(queries: int, keys: int, is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, queries, 16), (2, 2, keys, 16), (2, 2, keys, 16))
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    theirs = [each.detach().clone().requires_grad_() for each in ours]
    mask = torch.ones(queries, keys, dtype=torch.bool)
    mask = mask.tril(keys - queries) if is_causal else mask
    found = flash_attention(*ours, scale=0.3, is_causal=is_causal, tile=8)
    expected = functional.scaled_dot_product_attention(*theirs, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    towards = torch.randn(found.shape, generator=generator)
    (found * towards).sum().backward()
    (expected * towards).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


def test_scores_of_any_size_neither_overflow_nor_vanish() -> None:
    q = torch.tensor([[[[1000.0], [-1000.0]]]])
    k = torch.tensor([[[[1.0], [-1.0], [0.5], [1.0]]]])
    v = torch.tensor([[[[1.0], [2.0], [3.0], [5.0]]]])
    found = flash_attention(q, k, v, scale=1.0, is_causal=False, tile=1)
    assert found.flatten().tolist() == pytest.approx([3.0, 2.0])


def test_what_is_kept_for_the_backward_pass_grows_with_the_length_and_not_its_square() -> None:
    def kept(length: int) -> int:
        sizes: list[int] = []
        q, k, v = (torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3))

        def record(each: torch.Tensor) -> torch.Tensor:
            sizes.append(each.numel())
            return each

        with torch.autograd.graph.saved_tensors_hooks(record, lambda each: each):
            flash_attention(q, k, v, scale=1.0, tile=16)
        return sum(sizes)

    assert kept(256) == 2 * kept(128)


def test_shapes_that_do_not_fit_are_refused() -> None:
    q, k = torch.zeros(1, 4, 3, 8), torch.zeros(1, 3, 5, 8)
    for query, keys, tile in ((q, k, 8), (q, torch.zeros(1, 2, 5, 16), 8), (q, torch.zeros(1, 2, 2, 8), 8), (q, q, 0)):
        with pytest.raises(ConfigError, match="expected"):
            flash_attention(query, keys, keys, scale=1.0, tile=tile)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("softcap", [None, 0.8])
def test_one_token_at_a_time_with_the_textbook_cache_is_the_whole_pass(
    window: int | None, softcap: float | None
) -> None:
    model = tiny_model(window=window)
    model = initialise(Decoder(replace(model.architecture, attention_softcap=softcap)), seed=3, std=0.3)
    ids = torch.randint(0, 96, (13,), generator=torch.Generator().manual_seed(1))
    cache = TextbookCache()
    with torch.no_grad():
        whole = model(ids, torch.arange(13), Packed([13]))
        parts = [model(ids[:6], torch.arange(6), cache)]
        for at in range(6, 13):
            assert cache.length(0) == cache.length(1) == at
            parts.append(model(ids[at : at + 1], torch.tensor([at]), cache))
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_a_cache_that_is_full_says_so() -> None:
    cache = TextbookCache(max_length=3)
    with torch.no_grad(), pytest.raises(ConfigError, match="4 tokens: expected at most max_length"):
        tiny_model()(torch.zeros(4, dtype=torch.long), torch.arange(4), cache)
