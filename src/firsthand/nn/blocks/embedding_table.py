"""Makes embedding tables."""

from __future__ import annotations

import torch
from torch import nn


def table(rows: int, width: int) -> nn.Embedding:
    """A table of torch's default values; on the meta device it has none, and torch's compiler is not imported for them.

    Filling a tensor of the meta device with normal values imports `torch._dynamo`: seconds, each time a model is loaded.
    """
    if torch.get_default_device().type == "meta":
        return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
    return nn.Embedding(rows, width)
