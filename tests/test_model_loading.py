"""What loading a model does not do: fill tensors that a file fills, and import torch's compiler for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from firsthand.nn.blocks.embedding_table import table


def test_a_table_of_a_model_that_is_to_be_loaded_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[torch.Size] = []
    monkeypatch.setattr(nn.init, "normal_", lambda tensor, *others: filled.append(tensor.shape))
    with torch.device("meta"):
        empty = table(7, 3)
    assert filled == [] and empty.weight.is_meta and empty.weight.requires_grad
    assert (type(empty), empty.weight.shape, empty.num_embeddings, empty.embedding_dim) == (nn.Embedding, (7, 3), 7, 3)
    assert not table(7, 3).weight.is_meta and filled == [torch.Size((7, 3))]


@pytest.mark.slow
def test_no_compiler_of_torch_is_imported_to_load_a_model(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "model")
    code = "import sys; from firsthand.nn.weights import load; load(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    words = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"
