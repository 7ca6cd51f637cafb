"""A decoder with mixtures of experts as one compiled function. A file of its own, so that other models do not compile it.

Attention is `decoder_step`'s, phase for phase; the experts' phases are `expert_phases`. Rows with adapters go through the
modules. The head is `decoder_step.head`.
"""

# N packed tokens, M wanted rows, D hidden, L layers
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import kernel
from firsthand.kernels.step.expert_phases import (
    add_experts,
    expert_products,
    gate_sorted_rows,
    gather_rows,
    group_rows,
    route_rows,
)
from firsthand.kernels.step.expert_tables import CHOSEN, DOWN_OF, GATE_OF, HAS_COMMON, ExpertMemory, ExpertTables
from firsthand.kernels.step.layer_attention import attend_layer, finish_rows
from firsthand.kernels.step.phases import embed_rows, enter_rows, products
from firsthand.kernels.step.step_tables import (
    ATTENTION_NORM,
    ATTENTION_OUT_NORM,
    GATE,
    MLP_NORM,
    MLP_OUT_NORM,
    O_BIAS,
    Batch,
    CacheTables,
    Inputs,
    ModelShape,
    Norms,
    O,
    Outputs,
    Product,
    Q,
    Weights,
    WorkingMemory,
)

PHASES_OF_A_LAYER, PHASES_BESIDE = 16, 2


@kernel
def run_experts(
    team: Any, threads: int, sizes: Any, factors: Any, weights_: Any, batch_: Any, cache_: Any, experts_: Any,
    expert_sizes: Any, expert_scale: Any, memory_: Any, expert_memory_: Any, hidden: Any,
) -> None:  # fmt: skip
    """Compute N packed tokens as `decoder_step.run` does, with experts in place of the MLP of each layer.

    `experts_` is a plain tuple of the first three fields of `ExpertTables`; `expert_sizes` and `expert_scale` are the rest.
    """
    shape = ModelShape(
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], factors[0], factors[1],
        factors[2],
    )  # fmt: skip
    weights, batch, cache = Weights(*weights_), Batch(*batch_), CacheTables(*cache_)
    experts = ExpertTables(
        experts_[0], experts_[1], experts_[2], expert_sizes[0], expert_sizes[1], expert_sizes[2], expert_sizes[3],
        expert_sizes[4], expert_sizes[5], expert_scale[0],
    )  # fmt: skip
    memory, expert_memory = WorkingMemory(*memory_), ExpertMemory(*expert_memory_)
    rows, width, eps = len(batch.ids), shape.width, shape.eps
    q_width = shape.num_heads * shape.head_dim
    qkv_width = q_width + 2 * shape.num_kv_heads * shape.head_dim
    places, vectors, alone = weights.places, weights.vectors, np.zeros(1, dtype=np.int64)
    embed_rows(team, 0, threads, batch.ids, shape, weights, memory)
    phase = 1
    hidden_in, heads_in = Inputs(memory.rest, width, memory.rounded), Inputs(memory.rest, q_width, memory.rounded)
    qkv, hidden_out = Outputs(memory.wide, qkv_width), Outputs(memory.wide, width)
    logits = Outputs(expert_memory.logits, experts.stride)
    inner_stride = 2 * experts.inner
    for layer in range(shape.num_layers):
        matrix, place, kind = weights.matrices[layer], places[layer], experts.layers[layer]
        products(team, phase, threads, Product(matrix, weights.columns, Q, O), rows, hidden_in, qkv)
        attend_layer(team, phase + 1, threads, layer, shape, weights, batch, cache, memory)
        products(team, phase + 5, threads, Product(matrix, weights.columns, O, GATE), rows, heads_in, hidden_out)
        norms = Norms(vectors, place[O_BIAS], place[ATTENTION_OUT_NORM], place[MLP_NORM], eps)
        enter_rows(team, phase + 6, threads, rows, width, norms, memory)

        router = Product(experts.routers[layer], alone, 0, 1)
        products(team, phase + 7, threads, router, rows, hidden_in, logits)
        route_rows(team, phase + 8, threads, rows, kind, experts, expert_memory)
        group_rows(team, phase + 9, rows, kind, experts, expert_memory)
        sorted_rows = rows * (kind[CHOSEN] + kind[HAS_COMMON])
        gather_rows(team, phase + 10, threads, sorted_rows, width, memory.rest, experts, expert_memory)
        wide, states = expert_memory.wide, expert_memory.states
        expert_products(
            team, phase + 11, threads, kind, experts, expert_memory, GATE_OF, DOWN_OF, states, width, wide, inner_stride
        )
        gate_sorted_rows(team, phase + 12, threads, sorted_rows, shape.activation, kind, experts, expert_memory)
        expert_products(
            team, phase + 13, threads, kind, experts, expert_memory, DOWN_OF, DOWN_OF + 1, wide, inner_stride, states,
            width,
        )  # fmt: skip
        add_experts(team, phase + 14, threads, rows, width, kind, experts, expert_memory, memory.wide)
        following = places[layer + 1, ATTENTION_NORM] if layer + 1 < shape.num_layers else -1
        norms = Norms(vectors, -1, place[MLP_OUT_NORM], following, eps)
        enter_rows(team, phase + 15, threads, rows, width, norms, memory)
        phase += PHASES_OF_A_LAYER
    finish_rows(team, phase, shape, weights, batch, memory, hidden)
