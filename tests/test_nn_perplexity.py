"""Our perplexity of the real SmolLM2-135M GGUF against llama.cpp's, from the same token ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from firsthand.nn.attention import Packed
from firsthand.nn.weights import load

IDS = Path(__file__).parent / "data" / "dickens_1859.ids.json"
# By llama-cpp-python 0.3.36 on an x86-64 CPU. Recompute both, and our number, with
#   python bench/perplexity_llama_cpp.py SmolLM2-135M-Instruct.Q4_1.gguf --rival-python venv/bin/python
LLAMA_CPP_FLOAT32 = 51.2189  # the same weights written out in float32, float32 cache: the arithmetic that we do
LLAMA_CPP_Q4_1 = 51.5267  # the file as it is: its Q4_1 kernels round activations to 8 bits, which costs 0.6 %


@pytest.mark.weights
def test_perplexity_of_real_weights_is_that_of_llama_cpp(smollm2: Path) -> None:
    model, ids_N = load(smollm2), torch.tensor(json.loads(IDS.read_text()))
    assert len(ids_N) == 1618
    total = 0.0
    with torch.no_grad():
        hidden_ND = model(ids_N, torch.arange(len(ids_N)), Packed([len(ids_N)]))
        for rows_MD, targets_M in zip(hidden_ND[:-1].split(256), ids_N[1:].split(256), strict=True):
            total += torch.nn.functional.cross_entropy(model.logits(rows_MD), targets_M, reduction="sum").item()
    perplexity = float(torch.tensor(total / (len(ids_N) - 1)).exp())
    assert perplexity == pytest.approx(LLAMA_CPP_FLOAT32, rel=1e-3)
    assert perplexity == pytest.approx(LLAMA_CPP_Q4_1, rel=1e-2)
