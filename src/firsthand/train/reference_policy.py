"""The policy before training, for log-probs of a reference: a copy of all weights, or the base with its adapter off.

An adapter that began as nothing is turned off; one that was gone on with is put back to its beginning for the moment, so no
second copy of the model is kept. So is a sharded model, of which each process keeps its part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import LoRALinear
from firsthand.nn.routed_lora import adapters_off
from firsthand.train.sharding import forget_gathered, is_sharded


class ReferencePolicy:
    """A model as it was when this was made, before any update."""

    def __init__(self, model: Decoder, *, is_fresh: bool = True):
        """`is_fresh` tells that the model's adapter, if it has one, changes nothing yet."""
        self.model = model
        self.copy: Decoder | None = None
        self.beginning: list[tuple[nn.Parameter, Tensor]] = []
        has_adapter = any(isinstance(module, LoRALinear) for module in model.modules())
        if not has_adapter and not is_sharded(model):
            self.copy = copy.deepcopy(model).eval()
        elif not (has_adapter and is_fresh):
            trained = [weight for weight in model.parameters() if weight.requires_grad]
            self.beginning = [(weight, weight.detach().clone()) for weight in trained]

    @contextmanager
    def there(self) -> Iterator[Decoder]:
        """The model of that time, within the block: change nothing in it."""
        if self.copy is not None:
            yield self.copy
        elif self.beginning:
            with self._put_back():
                yield self.model
        else:
            with adapters_off(self.model):
                yield self.model

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        now = [weight.detach().clone() for weight, _ in self.beginning]
        try:
            self._set([before for _, before in self.beginning])
            yield
        finally:
            self._set(now)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        forget_gathered(self.model)
        for (weight, _), value in zip(self.beginning, values, strict=True):
            weight.copy_(value)
