"""The phases that steps of different decoders share: the attention of a layer, and the final norm of the wanted rows.

`decoder_step` and `expert_step` put them in order; the phases themselves are in `phases`.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from firsthand.kernels.attention.attention_tables import KeyValues, RowView, Work
from firsthand.kernels.jit import called
from firsthand.kernels.step.phases import attend_rows, round_rows, turn_rows
from firsthand.kernels.step.row_ops import normalise
from firsthand.kernels.step.step_tables import (
    ANGLES,
    ATTENTION_NORM,
    FIRST_BLOCK,
    FIRST_MERGED,
    FIRST_TASK,
    LAST_BLOCK,
    LAST_MERGED,
    LAST_TASK,
    LAYER_KIND,
    PLAN,
    WINDOW,
)
from firsthand.kernels.step.thread_team import done, take, wait
from firsthand.kernels.vectors import LANES


@called
def attend_layer(
    team: Any, phase: int, threads: int, layer: int, shape: Any, weights: Any, batch: Any, cache: Any, memory: Any
) -> None:
    """Turn a layer's queries and keys, write keys and values to the cache, attend, and round the heads: four phases.

    Queries, keys and values are side by side in `memory.wide`; the heads go to `memory.rest` and `memory.rounded`.
    """
    q_width = shape.num_heads * shape.head_dim
    qkv_width = q_width + 2 * shape.num_kv_heads * shape.head_dim
    scale_block = shape.num_kv_heads * shape.block_size  # numbers of a block: scales, values, keys
    value_block, key_block = scale_block * ((shape.head_dim + LANES - 1) // LANES * LANES), scale_block * shape.head_dim
    if len(cache.key_scales) == 0:
        scale_block = 0
    settings = weights.layers[layer]
    first, last = cache.spans[layer, FIRST_BLOCK], cache.spans[layer, LAST_BLOCK]
    pages = KeyValues(
        cache.keys[first * key_block : last * key_block],
        cache.values[first * value_block : last * value_block],
        cache.key_scales[first * scale_block : last * scale_block],
        cache.value_scales[first * scale_block : last * scale_block],
    )
    slots_of_rows = batch.places[cache.spans[layer, LAYER_KIND]]
    place, angles = weights.places[layer], settings[ANGLES]
    turn_rows(team, phase, threads, shape, weights, place, angles, batch.positions, memory.wide, slots_of_rows, pages)
    plan = batch.plans[settings[PLAN]]
    tasks, merged = (
        batch.tasks[plan[FIRST_TASK] : plan[LAST_TASK]],
        batch.merged[plan[FIRST_MERGED] : plan[LAST_MERGED]],
    )
    work = Work(batch.tables, tasks, batch.members, batch.positions, batch.slots[settings[PLAN]])
    heads = RowView(memory.wide, 0, qkv_width)
    attend_rows(team, phase + 1, threads, heads, pages, work, merged, shape, settings[WINDOW], memory)
    round_rows(team, phase + 3, threads, len(batch.ids), memory.rest, q_width, memory.rounded)


@called
def finish_rows(team: Any, phase: int, shape: Any, weights: Any, batch: Any, memory: Any, hidden: Any) -> None:
    """Put the wanted rows through the final norm into `hidden`: M D. An item is a row."""
    final = weights.places[shape.num_layers, ATTENTION_NORM]
    while True:
        item = take(team, phase)
        if item >= len(batch.wanted):
            break
        source, at = batch.wanted[item] * shape.width, item * shape.width
        normalise(memory.stream, source, shape.width, weights.vectors, final, shape.eps, hidden, at)
        done(team, phase)
    wait(team, phase, len(batch.wanted))
