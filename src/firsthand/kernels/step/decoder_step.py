"""A decoder's forward pass as one compiled function: from token ids to hidden states and logits, on several threads.

`run` goes through the phases of a step (`phases`). Weights and settings come as flat arrays and tables of numbers from
`nn/compiled_decoder.py`, so one compilation serves every model.
"""

# N packed tokens, M wanted rows, D hidden, F intermediate, H query heads, G kv heads, K head_dim, V vocabulary
# L layers, S adapters, P pieces of their rows
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import kernel
from firsthand.kernels.step.layer_attention import attend_layer, finish_rows
from firsthand.kernels.step.lora_products import adapt
from firsthand.kernels.step.phases import (
    embed_rows,
    enter_rows,
    gate_rows,
    products,
    rate_row,
    round_rows,
)
from firsthand.kernels.step.step_tables import (
    ATTENTION_NORM,
    ATTENTION_OUT_NORM,
    DOWN,
    DOWN_BIAS,
    GATE,
    MLP_NORM,
    MLP_OUT_NORM,
    O_BIAS,
    Adapted,
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
from firsthand.kernels.step.thread_team import done, take, wait

PHASES_OF_A_LAYER, PHASES_BESIDE, PHASES_OF_THE_HEAD = 11, 2, 3
ADAPTED_PHASES_OF_A_LAYER = 4
"""Additional phases of a layer in a step with adapters (the head has one); they are counted after all others."""


@kernel
def run(
    team: Any, threads: int, sizes: Any, factors: Any, weights_: Any, batch_: Any, cache_: Any, adapted_: Any,
    memory_: Any, hidden: Any,
) -> None:  # fmt: skip
    """Compute N packed tokens, and put the wanted ones' states after the final norm into `hidden`: M D.

    `sizes` and `factors` are the fields of `ModelShape` as two arrays; the others are plain tuples of the fields of
    `Weights`, `Batch`, `CacheTables`, `Adapted` and `WorkingMemory`.
    """
    shape = ModelShape(
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7], sizes[8], factors[0], factors[1],
        factors[2],
    )  # fmt: skip
    weights, batch, cache = Weights(*weights_), Batch(*batch_), CacheTables(*cache_)
    adapted, memory = Adapted(*adapted_), WorkingMemory(*memory_)
    rows, width, inner, eps = len(batch.ids), shape.width, shape.inner, shape.eps
    q_width = shape.num_heads * shape.head_dim
    qkv_width = q_width + 2 * shape.num_kv_heads * shape.head_dim
    places, vectors = weights.places, weights.vectors
    embed_rows(team, 0, threads, batch.ids, shape, weights, memory)
    phase, more = 1, PHASES_OF_A_LAYER * shape.num_layers + PHASES_BESIDE
    hidden_in = Inputs(memory.rest, width, memory.rounded)
    heads_in, inner_in = Inputs(memory.rest, q_width, memory.rounded), Inputs(memory.rest, inner, memory.rounded)
    qkv, hidden_out = Outputs(memory.wide, qkv_width), Outputs(memory.wide, width)
    gate_up = Outputs(memory.wide, 2 * inner)
    for layer in range(shape.num_layers):
        matrix, place, entries = weights.matrices[layer], places[layer], adapted.entries[layer]
        product = Product(matrix, weights.columns, Q, O)
        products(team, phase, threads, product, rows, hidden_in, qkv)
        adapt(team, more, adapted, entries, product, rows, hidden_in, qkv)
        attend_layer(team, phase + 1, threads, layer, shape, weights, batch, cache, memory)
        product = Product(matrix, weights.columns, O, GATE)
        products(team, phase + 5, threads, product, rows, heads_in, hidden_out)
        adapt(team, more + 1, adapted, entries, product, rows, heads_in, hidden_out)
        norms = Norms(vectors, place[O_BIAS], place[ATTENTION_OUT_NORM], place[MLP_NORM], eps)
        enter_rows(team, phase + 6, threads, rows, width, norms, memory)
        product = Product(matrix, weights.columns, GATE, DOWN)
        products(team, phase + 7, threads, product, rows, hidden_in, gate_up)
        adapt(team, more + 2, adapted, entries, product, rows, hidden_in, gate_up)
        gate_rows(team, phase + 8, threads, rows, shape, weights, place, memory)
        product = Product(matrix, weights.columns, DOWN, DOWN + 1)
        products(team, phase + 9, threads, product, rows, inner_in, hidden_out)
        adapt(team, more + 3, adapted, entries, product, rows, inner_in, hidden_out)
        following = places[layer + 1, ATTENTION_NORM] if layer + 1 < shape.num_layers else -1
        norms = Norms(vectors, place[DOWN_BIAS], place[MLP_OUT_NORM], following, eps)
        enter_rows(team, phase + 10, threads, rows, width, norms, memory)
        phase += PHASES_OF_A_LAYER
        more += ADAPTED_PHASES_OF_A_LAYER
    finish_rows(team, phase, shape, weights, batch, memory, hidden)


@kernel
def head(
    team: Any, threads: int, entry: Any, hidden: Any, width: int, vocab: int, cap: Any, rounded: Any, logits: Any,
    stride: int, best: Any, normaliser: Any, adapted_: Any,
) -> None:  # fmt: skip
    """The logits of some rows of hidden states, for each row the most probable token, and log(sum(e ** logit)).

    `entry` is that of the head's matrix: 1 5. `adapted_` is the tuple of an `Adapted` with the head's entries.
    """
    adapted = Adapted(*adapted_)
    rows = len(best)
    product = Product(entry, np.zeros(1, dtype=np.int64), 0, 1)
    states, out = Inputs(hidden, width, rounded), Outputs(logits, stride)
    round_rows(team, 0, threads, rows, hidden, width, rounded)
    products(team, 1, threads, product, rows, states, out)
    adapt(team, PHASES_OF_THE_HEAD, adapted, adapted.entries, product, rows, states, out)
    while True:
        row = take(team, 2)
        if row >= rows:
            break
        best[row], normaliser[row] = rate_row(logits, row * stride, vocab, cap)
        done(team, 2)
    wait(team, 2, rows)
