"""Prepares the experts of a decoder for the compiled step (`kernels/step/expert_step.py`): tables and working memory."""

# N packed tokens, D hidden, F widest expert, E experts, C rows of a token

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firsthand.kernels.attention.kv_pages import LANES
from firsthand.kernels.step.expert_tables import ExpertMemory
from firsthand.nn.blocks.experts import ExpertRouter, MixtureOfExperts
from firsthand.nn.blocks.mlp import MLP
from firsthand.nn.decoder import Block, Decoder
from firsthand.nn.matrices import GATED_MLP
from firsthand.nn.quant import BlockLinear, DenseLinear

if TYPE_CHECKING:
    from firsthand.kernels.products.float_products import DenseTiles

Floats = NDArray[np.float32]
_LEAVES = tuple(matrix.leaf for matrix in GATED_MLP)


def why_experts_not_compiled(model: Decoder) -> str | None:
    """Returns None if the compiled step can run the experts of a model that has some, else the reason in a few words."""
    e = model.architecture.experts
    assert e is not None, "this architecture has no experts"
    if e.score not in ("softmax", "softmax_of_chosen"):
        return f"its router's score is {e.score}"
    if e.groups_per_token != e.num_groups:
        return f"its router chooses {e.groups_per_token} of {e.num_groups} groups"
    if e.has_bias or e.has_correction or model.architecture.mlp_bias:
        return "its experts or its router have biases"
    for mixture in _mixtures(model):
        router: nn.Module = mixture.router
        if type(router) is not ExpertRouter or any(type(each) is not MLP for each in mixture.experts):
            return "its experts or its router are of another type"
        if router.weight.device.type != "cpu" or router.weight.dtype != torch.float32:
            return "its router is not float32 on the CPU"
        gate: nn.Module | None = mixture.shared_gate
        if gate is not None and not isinstance(gate, (nn.Linear, DenseLinear, BlockLinear)):
            return f"the gate of its shared expert is a {type(gate).__name__}"
    return None


def mlps_of(block: Block) -> list[nn.Module]:
    """The MLPs of a block: its experts and the shared one, or the only one."""
    mixture = block.mlp
    if not isinstance(mixture, MixtureOfExperts):
        return [mixture]
    return [*mixture.experts, *([] if mixture.shared is None else [mixture.shared])]


def width_of(mlp: nn.Module) -> int:
    """Outputs of an MLP's gate."""
    width: Any = mlp.get_submodule(_LEAVES[0]).out_features
    return int(width)


def linears_of(mlp: nn.Module) -> list[nn.Module]:
    """Gate, up and down."""
    return [mlp.get_submodule(leaf) for leaf in _LEAVES]


def _mixtures(model: Decoder) -> Iterator[MixtureOfExperts]:
    for block in model.layers:
        if isinstance(block, Block) and isinstance(block.mlp, MixtureOfExperts):
            yield block.mlp


class CompiledExperts:
    """The experts of all layers, ready for the compiled step."""

    def __init__(self, model: Decoder, packed: Sequence[Sequence[Sequence[BlockLinear | DenseTiles]]]):
        """`packed`: gate, up and down of each MLP of each layer, in the order of `mlps_of`."""
        from firsthand.kernels.products.float_products import tile_floats

        settings = model.architecture.experts
        assert settings is not None, "this architecture has no experts"
        self._width = model.architecture.hidden_size
        routers, layers, first = list["DenseTiles | None"](), [], 0
        for block, mlps in zip(model.layers, packed, strict=True):
            assert isinstance(block, Block)
            mixture = block.mlp
            if isinstance(mixture, MixtureOfExperts):
                weights = _router_rows(mixture)
                routers.append(tile_floats(weights.detach().contiguous().numpy(), np.float32))
                is_gated = mixture.shared_gate is not None
                layers.append([first, len(mixture.experts), settings.per_token, mixture.shared is not None, is_gated])
            else:
                routers.append(None)
                layers.append([first, 0, 0, True, False])
            first += len(mlps)
        every = [matrix for mlps in packed for mlp in mlps for matrix in mlp]
        self._held = (packed, routers)  # keeps what the addresses point to
        self._has_blocks = any(isinstance(matrix, BlockLinear) for matrix in every)
        has_dense = not all(isinstance(matrix, BlockLinear) for matrix in every)
        entries = np.array([[matrix.entry() for matrix in mlp] for mlps in packed for mlp in mlps], dtype=np.int64)
        self._tables = (
            entries,
            np.array(layers, dtype=np.int64),
            np.array([[router.entry() if router else [0] * 5] for router in routers], dtype=np.int64),
        )
        self._inner = int(entries[:, 0, 2].max()) * LANES
        self._widest = max(self._inner, self._width)
        self._stride = max(len(router.memory) for router in routers if router) * LANES
        self._most = max(layer[2] + layer[3] for layer in layers)
        self._experts = max(layer[1] + layer[3] for layer in layers)
        renormalise = settings.renormalise or settings.score == "softmax_of_chosen"
        sizes = [self._stride, self._most, self._inner, self._widest, renormalise, has_dense]
        self._sizes = np.array(sizes, dtype=np.int64)
        self._scale = np.array([settings.scale], dtype=np.float32)
        self._rows = 0

    def run(self, threads: int, num_layers: int, rows: int, step: tuple[Any, ...], out: Floats) -> None:
        """Compute a step of so many rows. `step` holds the arguments of `run_experts` that are not about experts."""
        from firsthand.kernels.step.expert_step import PHASES_BESIDE, PHASES_OF_A_LAYER, run_experts
        from firsthand.kernels.step.thread_team import counters, together

        team, memory = counters(PHASES_OF_A_LAYER * num_layers + PHASES_BESIDE), self._memory_of(rows)
        *tables, buffers = step
        arguments = (team, threads, *tables, self._tables, self._sizes, self._scale, buffers, memory, out)
        together(threads, lambda: run_experts(*arguments))

    def _memory_of(self, rows: int) -> tuple[NDArray[Any], ...]:
        """Working memory for so many rows, which lives on until more are needed."""
        if rows > self._rows:
            from firsthand.kernels.products.rounded_rows import BLOCK, RECORD

            self._rows = rows
            pairs = rows * self._most
            records = pairs * (self._widest // BLOCK) if self._has_blocks else 0
            self._memory = ExpertMemory(
                logits=np.empty(rows * self._stride, dtype=np.float32),
                chosen=np.empty(pairs, dtype=np.int64),
                shares=np.empty(pairs, dtype=np.float32),
                places=np.empty(pairs, dtype=np.int64),
                starts=np.zeros(self._experts + 2, dtype=np.int64),
                tokens=np.empty(pairs, dtype=np.int64),
                owners=np.empty(pairs, dtype=np.int64),
                rounded=np.empty(records * RECORD, dtype=np.uint8),
                wide=np.empty(pairs * 2 * self._inner, dtype=np.float32),
                states=np.empty(pairs * self._width, dtype=np.float32),
            )
        return tuple(self._memory)


def _router_rows(mixture: MixtureOfExperts) -> Tensor:
    """The rows of the router, then the gate of the shared expert; the inputs of neither are rounded."""
    if mixture.shared_gate is None:
        return mixture.router.weight
    return torch.cat([mixture.router.weight, mixture.shared_gate.weight.float()])
