"""One forward of a decoder, compiled whole: from token ids to hidden states and logits, several threads side by side.

`run` is the life of a step, phase after phase (`phases`). Everything it needs comes as flat arrays and tables of numbers,
made once by `nn/compiled_decoder.py`, so that one compilation serves every model.
"""

# N packed tokens, M wanted rows, D hidden, F intermediate, H query heads, G kv heads, K head_dim, V vocabulary
# L layers, S adapters, P pieces of their rows
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import kernel
from firsthand.kernels.step.lora_products import adapt
from firsthand.kernels.step.phases import (
    DOWN_BIAS,
    GATE_BIAS,
    O_BIAS,
    UP_BIAS,
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
from firsthand.kernels.step.thread_team import done, take, wait
from firsthand.kernels.vectors import LANES

PHASES_OF_A_LAYER, PHASES_BESIDE, PHASES_OF_THE_HEAD = 11, 2, 3
ADAPTED_PHASES_OF_A_LAYER = 4
"""More for each layer, and one for the head, in a step with adapters; they are counted after all others."""
Q, K, V, O, GATE, UP, DOWN = range(7)  # noqa: E741
"""Columns of the table of matrices, and of those of adapters."""
ATTENTION_NORM, ATTENTION_OUT_NORM, MLP_NORM, MLP_OUT_NORM = range(4)
"""Columns of the table of places in `vectors`."""


@kernel
def run(
    team: Any, threads: int, sizes: Any, numbers: Any, matrices: Any, columns: Any, places: Any, layers: Any, vectors: Any,
    embed: Any, cos: Any, sin: Any, ids: Any, positions: Any, kv_places: Any, spans: Any, keys: Any, values: Any,
    key_scales: Any, value_scales: Any, tables: Any, plans: Any, tasks: Any, members: Any, slots: Any, merged: Any,
    wanted: Any, pieces: Any, adapters: Any, low: Any, rank: int, lift: Any, stream: Any, wide: Any, rest: Any,
    rounded: Any, partials: Any, hidden: Any,
) -> None:  # fmt: skip
    """Compute N packed tokens, and put the wanted ones' states after the final norm into `hidden`: M D.

    `sizes`: layers, D, F, H, G, K, slots of a block, activation, and whether there are dense matrices or adapters; `rounded`
    is empty where there are only dense matrices. `numbers`: eps, attention scale, embedding factor. `layers`: for each
    layer its window (0 is none), which of `plans` it uses, and where its angles begin in `cos` and `sin`. `plans`: for
    each window the first task and the one after the last, and the same for merged rows; `slots`: for each window, N.
    `spans`: for each layer its row of `kv_places`, and its first block in `keys` and the others and the one after its last.
    The last row of `places` has the final norm in its first column. `pieces`, `low`, `rank` and `lift` are as in `adapt`,
    and so is `adapters`, for each layer and the head.
    """
    num_layers, width, inner, heads, kv_heads, head_dim = sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5]
    block_size, activation, has_dense, rows = sizes[6], sizes[7], sizes[8], len(ids)
    eps, scale = numbers[0], numbers[1]
    q_width = heads * head_dim
    qkv_width = q_width + 2 * kv_heads * head_dim
    embed_rows(team, 0, threads, ids, width, embed, numbers[2], stream, vectors, places[0, ATTENTION_NORM], eps, rest,
               rounded)  # fmt: skip
    phase, more = 1, PHASES_OF_A_LAYER * num_layers + PHASES_BESIDE
    scale_block = kv_heads * block_size  # numbers of a block: scales, values, keys
    value_block, key_block = scale_block * ((head_dim + LANES - 1) // LANES * LANES), scale_block * head_dim
    if len(key_scales) == 0:
        scale_block = 0
    for layer in range(num_layers):
        matrix, place = matrices[layer], places[layer]
        first, last, slots_of_rows = spans[layer, 1], spans[layer, 2], kv_places[spans[layer, 0]]
        layer_keys, layer_values = (
            keys[first * key_block : last * key_block],
            values[first * value_block : last * value_block],
        )
        layer_key_scales, layer_value_scales = (
            key_scales[first * scale_block : last * scale_block],
            value_scales[first * scale_block : last * scale_block],
        )
        window, plan = layers[layer, 0], plans[layers[layer, 1]]
        products(team, phase, threads, matrix, columns, Q, O, rows, rest, width, rounded, wide, qkv_width)
        adapt(team, more, pieces, adapters[layer], columns, Q, O, rows, rest, width, low, rank, lift, wide, qkv_width)
        turn_rows(team, phase + 1, threads, rows, wide, vectors, place, heads, kv_heads, head_dim, eps, cos, sin,
                  layers[layer, 2], positions, slots_of_rows, layer_keys, layer_values, layer_key_scales,
                  layer_value_scales, block_size)  # fmt: skip
        attend_rows(team, phase + 2, threads, wide, qkv_width, layer_keys, layer_values, layer_key_scales,
                    layer_value_scales, tables, tasks[plan[0] : plan[1]], members, positions, slots[layers[layer, 1]],
                    merged[plan[2] : plan[3]], heads, kv_heads, head_dim, block_size, scale, window, partials,
                    rest)  # fmt: skip
        round_rows(team, phase + 4, threads, rows, rest, q_width, rounded)
        products(team, phase + 5, threads, matrix, columns, O, GATE, rows, rest, q_width, rounded, wide,
                 width)  # fmt: skip
        adapt(
            team, more + 1, pieces, adapters[layer], columns, O, GATE, rows, rest, q_width, low, rank, lift, wide, width
        )
        enter_rows(team, phase + 6, threads, rows, width, stream, wide, vectors, place[O_BIAS],
                   place[ATTENTION_OUT_NORM], place[MLP_NORM], eps, rest, rounded)  # fmt: skip
        products(team, phase + 7, threads, matrix, columns, GATE, DOWN, rows, rest, width, rounded, wide,
                 2 * inner)  # fmt: skip
        adapt(team, more + 2, pieces, adapters[layer], columns, GATE, DOWN, rows, rest, width, low, rank, lift, wide,
              2 * inner)  # fmt: skip
        gate_rows(team, phase + 8, threads, rows, inner, wide, vectors, place[GATE_BIAS], place[UP_BIAS], activation,
                  has_dense, rest, rounded)  # fmt: skip
        products(team, phase + 9, threads, matrix, columns, DOWN, DOWN + 1, rows, rest, inner, rounded, wide,
                 width)  # fmt: skip
        adapt(team, more + 3, pieces, adapters[layer], columns, DOWN, DOWN + 1, rows, rest, inner, low, rank, lift, wide,
              width)  # fmt: skip
        following = places[layer + 1, ATTENTION_NORM] if layer + 1 < num_layers else -1
        enter_rows(team, phase + 10, threads, rows, width, stream, wide, vectors, place[DOWN_BIAS], place[MLP_OUT_NORM],
                   following, eps, rest, rounded)  # fmt: skip
        phase += PHASES_OF_A_LAYER
        more += ADAPTED_PHASES_OF_A_LAYER
    while True:
        item = take(team, phase)
        if item >= len(wanted):
            break
        normalise(stream, wanted[item] * width, width, vectors, places[num_layers, 0], eps, hidden, item * width)
        done(team, phase)
    wait(team, phase, len(wanted))


@kernel
def head(
    team: Any, threads: int, entry: Any, hidden: Any, rows: int, width: int, vocab: int, cap: Any, rounded: Any,
    logits: Any, stride: int, best: Any, normaliser: Any, pieces: Any, adapters: Any, low: Any, rank: int, lift: Any,
) -> None:  # fmt: skip
    """The logits of some rows of hidden states, for each row the most probable token, and log(sum(e ** logit))."""
    zero = np.zeros(1, dtype=np.int64)
    round_rows(team, 0, threads, rows, hidden, width, rounded)
    products(team, 1, threads, entry, zero, 0, 1, rows, hidden, width, rounded, logits, stride)
    adapt(team, PHASES_OF_THE_HEAD, pieces, adapters, zero, 0, 1, rows, hidden, width, low, rank, lift, logits, stride)
    while True:
        row = take(team, 2)
        if row >= rows:
            break
        best[row], normaliser[row] = rate_row(logits, row * stride, vocab, cap)
        done(team, 2)
    wait(team, 2, rows)
