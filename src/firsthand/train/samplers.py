"""Samplers: where a policy in training makes its rollouts, and how its weights get there before each batch.

`EngineSampler` is our engine, in this process or on replicas (`replica_policy.py`). It takes an adapter beside its weights,
or, where that is not possible (all weights are trained, DoRA), whole weights. An endpoint is in `endpoint_sampler.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from firsthand.model import Model
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter, LoRALinear, whole_tensor
from firsthand.nn.nf4 import FourBitLinear
from firsthand.nn.routed_lora import agents_of
from firsthand.providers.agents import AgentsModel
from firsthand.train.adapters.lora_training import adapter_of, merged_state
from firsthand.train.sharding import whole_state

POLICY = "policy"
"""The name of the adapter in training, where there is one."""


class Sampler(Protocol):
    """A model that samples, and takes the weights of the policy in training."""

    @property
    def model(self) -> Model:
        """The model that the rollouts ask."""
        ...

    async def send(self, version: int) -> None:
        """Give it the policy's present weights. Every process that trains calls it at the same time."""
        ...


class EnginePolicy(Model, Protocol):
    """A model of our engine whose weights and adapters can be replaced: a `Local`, or a `ReplicaPolicy`."""

    def expect_adapter(self, name: str) -> Model:
        """The model with an adapter that will be loaded before it is asked."""
        ...

    async def update(self, state: Mapping[str, Tensor], version: int) -> None:
        """Replace the weights."""
        ...

    async def update_adapter(self, name: str, adapter: Adapter, version: int) -> None:
        """Load an adapter under a name, in place of the one there."""
        ...


class EngineSampler:
    """Our engine, with the policy's weights or adapters."""

    def __init__(self, local: EnginePolicy, policy: Decoder):
        self.local, self.policy = local, policy
        self.agents = agents_of(policy)
        layers = [module for module in policy.modules() if isinstance(module, LoRALinear)]
        self._beside = bool(layers) and all(layer.magnitude is None for layer in layers)
        self._base_differs = any(isinstance(module, FourBitLinear) for module in policy.modules())
        self.model: Model = local
        if self.agents:
            self.model = AgentsModel(local, {name: local.expect_adapter(name) for name in self.agents})
        elif self._beside:
            self.model = local.expect_adapter(POLICY)
        self._has_adapter = bool(layers)

    async def send(self, version: int) -> None:
        """Load the policy's present weights into the engine: adapters, or all of them."""
        if not self._has_adapter:
            await self.local.update(whole_state(self.policy), version)
            return
        if not self._beside:
            await self.local.update(merged_state(self.policy), version)
            return
        if self._base_differs:  # once: rounded to 4 bits by the trainer, not by the file
            await self.local.update(merged_state(self.policy, adapted=False), 0)
            self._base_differs = False
        for agent in self.agents or ("",):
            await self.local.update_adapter(agent or POLICY, adapter_of(self.policy, agent=agent), version)


@torch.no_grad()
def weights_digest(model: Decoder) -> str:
    """A hash of the weights that are trained, 16 bytes in hex, by which rollouts are known to be theirs."""
    found = hashlib.blake2b(digest_size=16)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            found.update(name.encode())
            found.update(whole_tensor(weight).cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
