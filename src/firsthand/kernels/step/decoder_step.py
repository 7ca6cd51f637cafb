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

from firsthand.kernels.attention.attention_tables import KeyValues, RowView, Work
from firsthand.kernels.jit import kernel
from firsthand.kernels.step.lora_products import adapt
from firsthand.kernels.step.phases import (
    attend_rows,
    embed_rows,
    enter_rows,
    gate_rows,
    products,
    rate_row,
    round_rows,
    turn_rows,
)
from firsthand.kernels.step.row_ops import normalise
from firsthand.kernels.step.step_tables import (
    ANGLES,
    ATTENTION_NORM,
    ATTENTION_OUT_NORM,
    DOWN,
    DOWN_BIAS,
    FIRST_BLOCK,
    FIRST_MERGED,
    FIRST_TASK,
    GATE,
    LAST_BLOCK,
    LAST_MERGED,
    LAST_TASK,
    LAYER_KIND,
    MLP_NORM,
    MLP_OUT_NORM,
    O_BIAS,
    PLAN,
    WINDOW,
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
from firsthand.kernels.vectors import LANES

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
    scale_block = shape.num_kv_heads * shape.block_size  # numbers of a block: scales, values, keys
    value_block, key_block = scale_block * ((shape.head_dim + LANES - 1) // LANES * LANES), scale_block * shape.head_dim
    if len(cache.key_scales) == 0:
        scale_block = 0
    hidden_in = Inputs(memory.rest, width, memory.rounded)
    heads_in, inner_in = Inputs(memory.rest, q_width, memory.rounded), Inputs(memory.rest, inner, memory.rounded)
    qkv, hidden_out = Outputs(memory.wide, qkv_width), Outputs(memory.wide, width)
    gate_up = Outputs(memory.wide, 2 * inner)
    for layer in range(shape.num_layers):
        matrix, place, entries = weights.matrices[layer], places[layer], adapted.entries[layer]
        window, which, angles = (
            weights.layers[layer, WINDOW],
            weights.layers[layer, PLAN],
            weights.layers[layer, ANGLES],
        )
        first, last = cache.spans[layer, FIRST_BLOCK], cache.spans[layer, LAST_BLOCK]
        slots_of_rows = batch.places[cache.spans[layer, LAYER_KIND]]
        pages = KeyValues(
            cache.keys[first * key_block : last * key_block],
            cache.values[first * value_block : last * value_block],
            cache.key_scales[first * scale_block : last * scale_block],
            cache.value_scales[first * scale_block : last * scale_block],
        )
        plan = batch.plans[which]
        work = Work(
            batch.tables,
            batch.tasks[plan[FIRST_TASK] : plan[LAST_TASK]],
            batch.members,
            batch.positions,
            batch.slots[which],
        )
        merged = batch.merged[plan[FIRST_MERGED] : plan[LAST_MERGED]]
        product = Product(matrix, weights.columns, Q, O)
        products(team, phase, threads, product, rows, hidden_in, qkv)
        adapt(team, more, adapted, entries, product, rows, hidden_in, qkv)
        turn_rows(
            team, phase + 1, threads, shape, weights, place, angles, batch.positions, memory.wide, slots_of_rows, pages
        )
        attend_rows(
            team, phase + 2, threads, RowView(memory.wide, 0, qkv_width), pages, work, merged, shape, window, memory
        )
        round_rows(team, phase + 4, threads, rows, memory.rest, q_width, memory.rounded)
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
    while True:
        item = take(team, phase)
        if item >= len(batch.wanted):
            break
        source, final = batch.wanted[item] * width, places[shape.num_layers, ATTENTION_NORM]
        normalise(memory.stream, source, width, vectors, final, eps, hidden, item * width)
        done(team, phase)
    wait(team, phase, len(batch.wanted))


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
