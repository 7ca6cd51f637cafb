"""Backward passes that are written out: rotation, norm and short attention, beside torch's own."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from firsthand.nn.blocks import attention
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import Rotation, rotate
from firsthand.nn.blocks.short_attention import LONGEST, short_attention, suits
from firsthand.train.kept_memory import kept_memory
from firsthand.train.toy_tasks.toy_models import toy_model


def doubles(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def turns(tokens: int, width: int) -> Rotation:
    angles = doubles(tokens, width // 2, seed=9).detach()
    whole = torch.cat((angles, angles), -1)
    return Rotation(whole.cos(), whole.sin())


def test_a_rotation_keeps_the_dtype_of_what_it_turns() -> None:
    x = doubles(5, 3, 8, seed=0).detach().bfloat16().requires_grad_()
    assert rotate(x, turns(5, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("unit_offset", [False, True])
@pytest.mark.parametrize("shape", [(5, 8), (4, 3, 8)])
def test_a_norm_that_is_trained_equals_the_plain_one_and_has_its_gradient(
    unit_offset: bool, shape: tuple[int, ...]
) -> None:
    norm = RMSNorm(8, 1e-3, unit_offset=unit_offset)
    with torch.no_grad():
        norm.weight.copy_(doubles(8, seed=3))
    x = doubles(*shape, seed=1).detach().float().requires_grad_()
    seen = doubles(*shape, seed=2).detach().float()
    given = norm(x)
    given.backward(seen)  # type: ignore[no-untyped-call]
    weight = norm.weight.detach().double().requires_grad_()
    wide = x.detach().double().requires_grad_()
    expected = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-3) * (weight + float(unit_offset))
    expected.backward(seen.double())
    torch.testing.assert_close(given.double(), expected, atol=2e-6, rtol=0)
    assert x.grad is not None and wide.grad is not None and norm.weight.grad is not None and weight.grad is not None
    torch.testing.assert_close(x.grad.double(), wide.grad, atol=2e-6, rtol=0)
    torch.testing.assert_close(norm.weight.grad.double(), weight.grad, atol=2e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (3, 1)])
def test_short_attention_equals_the_kernel_of_torch_and_has_its_gradient(heads: int, groups: int) -> None:
    q, k, v = doubles(2, 7, heads, 8, seed=0), doubles(2, 7, groups, 8, seed=1), doubles(2, 7, groups, 8, seed=2)
    expected = attention._causal(q, k, v, 0.3, None, None)
    torch.testing.assert_close(short_attention(q, k, v, 0.3), expected, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(lambda q, k, v: short_attention(q, k, v, 0.3), (q, k, v))


def test_short_attention_is_for_short_sequences_that_are_trained_in_bfloat16() -> None:
    longest = torch.zeros(1, LONGEST, 1, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert suits(longest)
        assert not suits(longest.float())
        assert not suits(torch.zeros(1, LONGEST + 1, 1, 8, dtype=torch.bfloat16))
    assert not suits(longest)


def test_a_window_that_hides_tokens_is_never_left_out() -> None:
    q, k, v = (doubles(1, 6, 2, 8, seed=seed).detach().bfloat16().requires_grad_() for seed in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        near = attention._causal(q, k, v, 0.3, 2, None)
    mask = torch.ones(6, 6, dtype=torch.bool).tril() & torch.ones(6, 6, dtype=torch.bool).triu(-1)
    wide = [x.detach().float().transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(near.float(), expected.transpose(1, 2).flatten(0, 1), atol=0.02, rtol=0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_blocks_that_are_freed_come_back_without_the_kernel_and_are_given_back_in_the_end() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            np.ones(8_000_000, np.float32)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_memory():
        faults()
        kept = faults()
    assert 4 * kept < faults()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_what_was_kept_is_given_back_to_the_system_in_the_end() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    with kept_memory():
        before = resident()
        np.ones(50_000_000, np.float32)
        held = resident()
    assert held - before > 100_000_000 < held - resident()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_a_block_get_one_input_in_the_dtype_of_autocast(dtype: torch.dtype) -> None:
    model, _ = toy_model(["a", "b"], seed=0, context=16)
    seen: list[tuple[torch.dtype, int]] = []
    for part in (model.layers[0].attention, model.layers[0].mlp):
        part.register_forward_pre_hook(lambda module, given: seen.append((given[0].dtype, len(given[0]))))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        model(torch.tensor([1, 2, 3]), torch.arange(3), attention.Packed([3]))
    assert seen == [(dtype, 3)] * 2
