"""Optimizers of a model: AdamW of torch, and Muon for the matrices of blocks. Weight decay is for matrices only."""

# O outputs, K inputs of a matrix

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from firsthand.errors import TrainingError
from firsthand.nn.lora import whole_tensor
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.sharding import like


def optimizer_for(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of every parameter that takes a gradient; a tied head counts once.

    Stacks of matrices, such as those of latent attention, are AdamW's, with decay.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    blocks = [weight for name, weight in weights.items() if _is_block_matrix(name, weight)]
    others = [weight for name, weight in weights.items() if weight.dim() >= 2 and not _is_block_matrix(name, weight)]
    vectors = [weight for weight in weights.values() if weight.dim() < 2]
    betas, decay = (settings.beta1, settings.beta2), settings.weight_decay
    if settings.optimizer == "muon":
        groups = [
            {"params": blocks, "weight_decay": decay, "orthogonal": True},
            {"params": others, "weight_decay": decay, "orthogonal": False},
            {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
        ]
        kept = [group for group in groups if group["params"]]
        return Muon(kept, lr=settings.lr, momentum=settings.momentum, betas=betas, eps=settings.eps)
    groups = [{"params": blocks + others, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = all(weight.device.type in ("cpu", "cuda") and weight.is_floating_point() for weight in weights.values())
    kept = [group for group in groups if group["params"]]
    if len({isinstance(weight, DTensor) for weight in weights.values()}) > 1:  # a sharded model and a whole value head
        return torch.optim.AdamW(kept, lr=settings.lr, betas=betas, eps=settings.eps, foreach=False)
    return torch.optim.AdamW(kept, lr=settings.lr, betas=betas, eps=settings.eps, fused=fused)


def _is_block_matrix(name: str, weight: Tensor) -> bool:
    """True for a matrix of a block, as against embeddings, the head and value heads."""
    return weight.dim() == 2 and "layers." in name


def expect_every_weight(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """TrainingError unless every parameter of the model that takes a gradient is in a group of the optimizer."""
    inside = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    left_out = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) not in inside]
    if left_out:
        raise TrainingError(
            f"weights that take a gradient are in no group of the optimizer ({', '.join(left_out[:3])}; {len(left_out)} in "
            "all), so they would never change: give it all of them, or freeze these"
        )


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for the matrices of blocks; AdamW in groups with `orthogonal` False.

    K. Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon): G = momentum with Nesterov's look-ahead, W -= lr *
    newton_schulz(G). Updates are scaled by 0.2 sqrt(max(O, K)) to the root mean square of AdamW's (Liu et al., 2025,
    arXiv:2502.16982, eq. 4), so that both share one rate and one decay.
    """

    def __init__(
        self,
        groups: Any,
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ):
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": 0.0, "orthogonal": True}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    direction = self._muon if group["orthogonal"] else self._adam
                    update = direction(weight, weight.grad, group)
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _muon(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        ahead = torch.add(gradient, state["momentum"], alpha=group["momentum"])
        return like(newton_schulz(whole_tensor(ahead)), weight) * (0.2 * math.sqrt(max(weight.shape)))

    def _adam(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        update: Tensor = state["mean"] / (1 - beta1 ** state["step"]) / root
        return update


def check_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """ValueError unless a state is of the kinds and shapes that this AdamW or Muon gives its own."""
    own = [weight for group in optimizer.param_groups for weight in group["params"]]
    owners = [group for group in optimizer.param_groups for _ in group["params"]]
    if [index for group in state["param_groups"] for index in group["params"]] != list(range(len(own))):
        raise ValueError("its groups do not list each weight once, in order")
    for mine, kept in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for name in (mine.keys() & kept.keys()) - {"params"}:
            if not _is_alike(kept[name], mine[name]):
                raise ValueError(f"{name} is {str(kept[name])[:40]!r} where {mine[name]!r} is of its kind")
    for index, entries in state["state"].items():
        if not 0 <= index < len(own) or entries.keys() != _entries_of(owners[index]):
            raise ValueError(f"weight {index} has {', '.join(sorted(map(str, entries)))[:80]}")
        for name, value in entries.items():
            shape = () if name == "step" else tuple(own[index].shape)
            if not isinstance(value, Tensor) and not (name == "step" and _is_alike(value, 1)):
                raise ValueError(f"{name} of weight {index} is {str(value)[:40]!r}")
            if isinstance(value, Tensor) and (tuple(value.shape) != shape or not value.is_floating_point()):
                raise ValueError(f"{name} of weight {index} is {value.dtype} {tuple(value.shape)}, not floats {shape}")


def with_own_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state with rates, betas, decay and all other settings of groups as the optimizer has them, from the recipe."""
    groups = [
        {**mine, "params": kept["params"]}
        for mine, kept in zip(optimizer.param_groups, state["param_groups"], strict=True)
    ]
    return {**state, "param_groups": groups}


def _entries_of(group: dict[str, Any]) -> set[str]:
    """The names of what is kept of each weight of a group once it was updated."""
    if "orthogonal" not in group:
        return {"step", "exp_avg", "exp_avg_sq"}
    return {"momentum"} if group["orthogonal"] else {"step", "mean", "square"}


def _is_alike(value: Any, own: Any) -> bool:
    """True for a finite number in place of a number, a pair of them for a pair, and a truth value or none for another."""
    if isinstance(own, tuple):
        return isinstance(value, tuple) and len(value) == len(own) and all(map(_is_alike, value, own))
    if own is None or isinstance(own, bool):
        return value is None or isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def newton_schulz(matrix_OK: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values moved to about 1 (0.68 to 1.13), same shape: O K.

    Five steps of X <- aX + (b A + c A^2) X, A = X X^T, with Jordan's a, b, c = 3.4445, -4.7750, 2.0315, from the matrix over
    its Frobenius norm. In bfloat16 on a GPU, else in float32.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix_OK.to(torch.bfloat16 if matrix_OK.is_cuda else torch.float32)
    x = x / (x.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix_OK.dtype)
