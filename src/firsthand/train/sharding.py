"""Sharded training (FSDP2): each process holds a part of every weight, gradient and optimizer state.

`sharded` spreads a model over the processes that `torchrun` started; forward passes gather one block at a time. Checkpoints
and saved models are gathered, so a run goes on with any number of processes. Every process must make as many passes as the
others, and each pass must reach every weight: `passes_of_rank` and `anchor` see to that.
"""

# N packed tokens, D hidden

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import whole_tensor
from firsthand.train.processes import rank, ranks

T = TypeVar("T")


def sharded(model: Decoder) -> Decoder:
    """The model with its weights spread over all processes: a unit for each block, and one for the rest.

    Gradients are summed over processes and not averaged, since each part of a loss is divided by its count over all of them.
    A model in one process stays as it is; one that is sharded already has nothing gathered any more.
    """
    if ranks() == 1 or is_sharded(model):
        forget_gathered(model)
        return model
    mesh = init_device_mesh(model.embed.weight.device.type, (ranks(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


def is_sharded(model: nn.Module) -> bool:
    """True if the model's weights are spread over processes."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict, gathered; every process must ask for it."""
    return {name: whole_tensor(value) for name, value in model.state_dict().items()}


def forget_gathered(model: nn.Module) -> None:
    """Drop what forward passes without a backward pass have gathered, before weights are read or changed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def anchor(model: Decoder, hidden_ND: Tensor) -> Tensor:
    """A term of value 0 whose gradient reaches every weight that is trained."""
    return 0.0 * model.logits(hidden_ND[-1:]).nan_to_num(0.0, 0.0, 0.0).sum()


PassPart = Literal["whole", "anchored", "idle"]
"""Of a pass: it stands alone, or it has a gradient for every weight of a sharded model, or for them it is made alone."""


def passes_of_rank(passes: Sequence[T], *, in_parts: bool) -> list[tuple[T, PassPart]]:
    """The passes that this process makes; with a sharded model as many as every other process, the last one idle."""
    own = passes[rank() :: ranks()]
    if not in_parts:
        return [(each, "whole") for each in own]
    made: list[tuple[T, PassPart]] = [(each, "anchored") for each in own]
    return made + [(passes[0], "idle")] * (math.ceil(len(passes) / ranks()) - len(own))


def like(whole: Tensor, own: Tensor) -> Tensor:
    """A whole tensor spread as another one is; as it is if that one is not sharded."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements)


def load_whole(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load gathered weights into the model, sharded or not; names that it does not have are an error of torch."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    model.load_state_dict({name: like(value, own[name]) for name, value in weights.items()}, strict=False)


def spread_state(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """An optimizer's gathered state with the tensors of each parameter spread as it is."""
    spread = {
        index: {
            name: like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    return {**state, "state": spread}


@torch.no_grad()
def clip_sharded(parameters: Sequence[Tensor], clip_norm: float) -> float:
    """Clips the gradients to a norm (0: no bound) over all processes, as `clip_grad_norm_` does; returns the norm before.

    Sharded gradients are counted part by part, others once.
    """
    gradients = [weight.grad for weight in parameters if weight.grad is not None]
    parts = [each.to_local() for each in gradients if isinstance(each, DTensor)]
    squares = torch.zeros((), dtype=torch.float64)
    for part in parts:
        squares += part.double().square().sum().cpu()
    distributed.all_reduce(squares)
    own = [each for each in gradients if not isinstance(each, DTensor)]
    for each in own:
        squares += each.double().square().sum().cpu()
    norm = float(squares.sqrt())
    scale = min(1.0, (clip_norm or math.inf) / (norm + 1e-6)) if math.isfinite(norm) else 1.0
    if scale < 1.0:
        for each in (*parts, *own):
            each.mul_(scale)
    return norm
