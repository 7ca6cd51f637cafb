"""RMSNorm against transformers, to the bit, in the dtype where the order of cast and product shows."""

from __future__ import annotations

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from firsthand.nn.blocks.norm import RMSNorm

torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("unit_offset", [False, True])
def test_norms_equal_those_of_transformers_to_the_bit(dtype: torch.dtype, unit_offset: bool) -> None:
    torch.manual_seed(0)
    theirs = (Gemma3RMSNorm if unit_offset else LlamaRMSNorm)(64, 1e-5)
    ours = RMSNorm(64, 1e-5, unit_offset=unit_offset)
    assert torch.equal(ours.weight, theirs.weight), "fresh weights leave the scale alone"
    with torch.no_grad():
        ours.weight.copy_(torch.randn(64))
        theirs.weight.copy_(ours.weight)
    x_ND = (torch.randn(200, 64) * 3).to(dtype)
    found_ND = ours.to(dtype)(x_ND)
    assert found_ND.dtype == dtype
    assert torch.equal(found_ND, theirs.to(dtype)(x_ND))
