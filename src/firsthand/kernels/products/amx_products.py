"""Products for encoders on a processor's matrix tiles (AMX), compiled.

With two parts a float32 number is split into the sum of two bfloat16 ones, which leaves an error of some 2 ** -17 of it; of
the four products of two such pairs the three largest are computed. With one part it is rounded to bfloat16 (2 ** -9), for a
third of the products. Sums are float32 in a fixed order, so that rows are batch-invariant. A tile holds 16 rows of 32
numbers; one instruction multiplies two of them.

Shapes are not checked here: `nn/compiled_encoder.py` does. Widths are multiples of 32.
"""

# N rows, a multiple of 16 of which the last may be unused, O outputs, K inputs
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from firsthand.kernels.jit import inlined, kernel
from firsthand.kernels.products.int16_products import gelu, number, offset
from firsthand.kernels.vectors import (
    INTS,
    LANES,
    LANES_TYPE,
    SHORTS,
    constant,
    emit_loop,
    emit_prefetch,
    llvm_function,
    load,
    pointer_to,
)

_intrinsic: Any = intrinsic
ROWS = 16
"""Rows of a tile."""
STEP = 32
"""Inputs of a tile."""
PANEL = 32
"""Outputs computed together: two tiles of weights."""
TILE = ROWS * STEP
"""Numbers of a tile."""
_NEAR = 12
"""Steps of a panel's weights that stay in the nearest cache (48 KiB) while all rows pass by."""
_LINES = 8
"""Cache lines of the next panel's weights that are prefetched in a step."""
_BYTE, _LONG = ir.IntType(8), ir.IntType(64)
_SYSCALL, _REQUEST, _TILE_DATA = 158, 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)


def _chosen() -> bool:
    """True if numba was told to compile for another processor."""
    return any(getattr(config, name, None) for name in ("CPU_NAME", "CPU_FEATURES"))


@cache
def has_tiles() -> bool:
    """True if this processor has bfloat16 tiles, numba compiles for it, and Linux lets this process use them."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or _chosen():
        return False
    features = binding.get_host_cpu_features()
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512f")):
        return False
    request = ctypes.CDLL(None).syscall
    return bool(request(_SYSCALL, _REQUEST, _TILE_DATA) == 0)


def _tile(index: int) -> Any:
    return ir.Constant(_BYTE, index)


@_intrinsic
def tiles_on(typing: Any) -> Any:
    """Give all eight tiles of this thread 16 rows of 64 bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        layout = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [ROWS] * 8 + [0] * 8
        kind = ir.ArrayType(_BYTE, 64)
        name = "firsthand.tiles"
        held = builder.module.globals.get(name)
        if held is None:
            held = ir.GlobalVariable(builder.module, kind, name)
            held.linkage, held.global_constant, held.align = "internal", True, 64
            held.initializer = ir.Constant(kind, layout)
        place = builder.bitcast(held, _BYTE.as_pointer())
        builder.call(llvm_function(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [place.type]), [place])
        return context.get_dummy_value()

    return types.void(), generate


@_intrinsic
def tiles_off(typing: Any) -> Any:
    """Free the tiles, so that a switch of threads need not save them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(llvm_function(builder, "llvm.x86.tilerelease", ir.VoidType(), []), [])
        return context.get_dummy_value()

    return types.void(), generate


def _emit_tiles(context: Any, builder: Any, signature: Any, args: Any, tall: int, parts: int) -> None:
    """Emit `add_tiles` for 16 or 32 rows: accumulators are the tiles 0 to 3, rows 4 and 5, weights 6 and 7."""
    place = _BYTE.as_pointer()
    load_tile = llvm_function(builder, "llvm.x86.tileloadd64", ir.VoidType(), [_BYTE, place, _LONG])
    store_tile = llvm_function(builder, "llvm.x86.tilestored64", ir.VoidType(), [_BYTE, place, _LONG])
    multiply = llvm_function(builder, "llvm.x86.tdpbf16ps", ir.VoidType(), [_BYTE] * 3)
    x_from, w_from, begin, out_from = (pointer_to(builder, context, signature, args, i) for i in (0, 3, 7, 10))
    fresh = args[9]
    start = builder.select(fresh, begin, out_from)
    line = builder.mul(args[12], number(4))  # bytes
    start_line = builder.select(fresh, number(0), line)
    start_row = builder.select(fresh, number(0), args[12])
    # After some 140 products without a store the next one takes 1,000 cycles more (Xeon, Sapphire Rapids): store one a step.
    awake = builder.bitcast(cgutils.alloca_once(builder, ir.ArrayType(_BYTE, 2 * TILE)), place)

    def read(tile: int, pointer: Any, stride: Any = number(64)) -> None:  # noqa: B008
        builder.call(load_tile, [_tile(tile), builder.bitcast(pointer, place), stride])

    def at(base: Any, row_tile: int, column_tile: int, row: Any) -> Any:
        return builder.gep(offset(builder, base, (row, number(row_tile * ROWS))), [number(column_tile * LANES)])

    for r in range(tall):
        for c in range(2):
            read(2 * r + c, at(start, r, c, start_row), start_line)

    def step(k: Any, sums: list[Any]) -> list[Any]:
        rows = [offset(builder, x_from, (k, number(parts * TILE)), (args[2], number(r))) for r in range(tall)]
        weights = offset(builder, w_from, (k, number(2 * parts * TILE)))

        def read_rows(low: int) -> None:
            for r in range(tall):
                read(4 + r, builder.gep(rows[r], [number(low * TILE)]))

        def read_weights(low: int) -> None:
            for c in range(2):
                read(6 + c, builder.gep(weights, [number(low * 2 * TILE + c * TILE)]))

        def add_all(order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
            for each in order if tall == 2 else (0, 1):
                builder.call(multiply, [_tile(each), _tile(4 + each // 2), _tile(6 + each % 2)])

        for line_ahead in range(_LINES):
            emit_prefetch(builder, builder.gep(weights, [builder.add(args[6], number(line_ahead * STEP))]), 2)
        read_weights(0)
        if parts == 2:
            read_rows(1)
            add_all((0, 2, 1, 3))  # a tile of weights is free two products before it is loaded anew
        read_rows(0)
        add_all()
        if parts == 2:
            read_weights(1)
            add_all((0, 2, 1, 3))
        builder.call(store_tile, [_tile(7), awake, number(64)])
        return []

    emit_loop(builder, args[5], [], step)
    for r in range(tall):
        for c in range(2):
            target = builder.bitcast(at(out_from, r, c, args[12]), place)
            builder.call(store_tile, [_tile(2 * r + c), target, line])


def _adder(tall: int, parts: int) -> Any:
    def typed(
        typing: Any, x: Any, x_at: Any, x_next: Any, weights: Any, w_at: Any, count: Any, beyond: Any,
        begin: Any, begin_at: Any, fresh: Any, out: Any, out_at: Any, line: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit_tiles(context, builder, signature, args, tall, parts)
            return context.get_dummy_value()

        i = types.intp
        return types.void(x, i, i, weights, i, i, i, begin, i, types.boolean, out, i, i), generate

    return _intrinsic(typed)


_add_16_rows, _add_32_rows, _add_16_rounded, _add_32_rounded = (_adder(t, p) for p in (2, 1) for t in (1, 2))


@inlined
def add_tiles(
    x: Any, x_at: int, x_next: int, weights: Any, w_at: int, count: int, beyond: int, begin: Any, begin_at: int,
    fresh: bool, out: Any, out_at: int, line: int, tall: bool, parts: int,
) -> None:  # fmt: skip
    """Add the products of `count` steps to 16 rows x 32 outputs, or 32 if `tall`; to the 32 at `begin` if `fresh`.

    The second tile of rows lies `x_next` numbers behind the first; rows of `out` are `line` apart. Weights are prefetched
    `beyond` numbers ahead.
    """
    if parts == 2:
        if tall:
            _add_32_rows(x, x_at, x_next, weights, w_at, count, beyond, begin, begin_at, fresh, out, out_at, line)
        else:
            _add_16_rows(x, x_at, x_next, weights, w_at, count, beyond, begin, begin_at, fresh, out, out_at, line)
    elif tall:
        _add_32_rounded(x, x_at, x_next, weights, w_at, count, beyond, begin, begin_at, fresh, out, out_at, line)
    else:
        _add_16_rounded(x, x_at, x_next, weights, w_at, count, beyond, begin, begin_at, fresh, out, out_at, line)


@inlined
def ahead(row: int, steps: int, parts: int) -> int:
    """Distance from a step's weights to those of the next panel that 32 rows prefetch.

    Eight times 32 rows prefetch all with two parts, four times with one.
    """
    of_a_step = 2 * parts * TILE
    return steps * of_a_step + row // (2 * ROWS) % (of_a_step // STEP // _LINES) * _LINES * STEP


@_intrinsic
def store_split(typing: Any, numbers: Any, at: Any, value: Any) -> Any:
    """Write 16 floats as bfloat16 numbers, high parts at an index and low parts a tile behind; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half, sixteen = constant(INTS, 0x8000), constant(INTS, 16)
        kind = args[2].type
        high = builder.lshr(builder.add(builder.bitcast(args[2], INTS), half), sixteen)
        rest = builder.fsub(args[2], builder.bitcast(builder.shl(high, sixteen), kind))
        low = builder.lshr(builder.add(builder.bitcast(rest, INTS), half), sixteen)
        place = pointer_to(builder, context, signature, args, 0)
        for part, behind in ((high, 0), (low, TILE)):
            target = builder.bitcast(builder.gep(place, [number(behind)]), SHORTS.as_pointer())
            builder.store(builder.trunc(part, SHORTS), target, align=2)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, LANES_TYPE), generate


@_intrinsic
def _store_rounded(typing: Any, numbers: Any, at: Any, value: Any) -> Any:
    """Write 16 floats, rounded to bfloat16; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half, sixteen = constant(INTS, 0x8000), constant(INTS, 16)
        high = builder.lshr(builder.add(builder.bitcast(args[2], INTS), half), sixteen)
        place = builder.bitcast(pointer_to(builder, context, signature, args, 0), SHORTS.as_pointer())
        builder.store(builder.trunc(high, SHORTS), place, align=2)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, LANES_TYPE), generate


@inlined
def store_parts(numbers: Any, at: int, value: Any, parts: int) -> None:
    """`store_split` for two parts; for one, the rounded numbers."""
    if parts == 2:
        store_split(numbers, at, value)
    else:
        _store_rounded(numbers, at, value)


@inlined
def place_of(row: int, step: int, steps: int, parts: int) -> int:
    """Index of a row's 32 numbers of a step (of the high parts, if there are two)."""
    return (row // ROWS * steps + step) * parts * TILE + row % ROWS * STEP


@kernel
def round_rows(values: Any, num_rows: int, width: int, numbers: Any, parts: int) -> None:
    """Write rows as tiles of bfloat16 numbers."""
    steps = width // STEP
    for row in range(num_rows):
        for step in range(steps):
            place, at = place_of(row, step, steps, parts), row * width + step * STEP
            store_parts(numbers, place, load(values, at), parts)
            store_parts(numbers, place + LANES, load(values, at + LANES), parts)


@kernel
def products(
    numbers: Any, weights: Any, bias: Any, num_rows: int, width: int, outputs: int, out: Any, parts: int
) -> None:
    """out = rows times weights, plus bias: N O."""
    steps = width // STEP
    tiles_on()
    for first in range(0, steps, _NEAR):
        count = min(_NEAR, steps - first)
        _add_steps(numbers, steps, first, weights, steps, first, count, bias, num_rows, outputs, out, parts)
    tiles_off()


@inlined
def _add_steps(
    numbers: Any, row_steps: int, row_first: int, weights: Any, steps: int, first: int, count: int, bias: Any,
    num_rows: int, outputs: int, out: Any, parts: int,
) -> None:  # fmt: skip
    """Add the products of `count` steps, from `first` of the weights' and `row_first` of the rows', to N O."""
    pair = parts * TILE
    for panel in range(outputs // PANEL):
        for row in range(0, num_rows, 2 * ROWS):
            add_tiles(
                numbers, (row // ROWS * row_steps + row_first) * pair, row_steps * pair,
                weights, (panel * steps + first) * 2 * pair, count, ahead(row, steps, parts),
                bias, panel * PANEL, first == 0,
                out, row * outputs + panel * PANEL, outputs, row + ROWS < num_rows, parts,
            )  # fmt: skip


@kernel
def mlp(
    numbers: Any, up: Any, up_bias: Any, down: Any, down_bias: Any, num_rows: int, width: int, inner: int,
    wide: Any, sums: Any, out: Any, parts: int,
) -> None:  # fmt: skip
    """out = gelu(rows times `up`, plus bias) times `down`, plus bias: N D.

    The inner numbers are computed and used in turns, 384 of each row at a time, so that they stay in the cache.
    """
    steps, inner_steps, pair = width // STEP, inner // STEP, parts * TILE
    tiles_on()
    for first in range(0, inner_steps, _NEAR):
        count = min(_NEAR, inner_steps - first)
        for panel in range(first, first + count):
            for row in range(0, num_rows, 2 * ROWS):
                add_tiles(
                    numbers, row // ROWS * steps * pair, steps * pair,
                    up, panel * steps * 2 * pair, steps, ahead(row, steps, parts),
                    up_bias, panel * PANEL, True,
                    sums, 0, PANEL, row + ROWS < num_rows, parts,
                )  # fmt: skip
                for r in range(min(2 * ROWS, num_rows - row)):
                    # a panel of outputs is a step of the next product's inputs
                    place = place_of(row + r, panel - first, count, parts)
                    store_parts(wide, place, gelu(load(sums, r * PANEL)), parts)
                    store_parts(wide, place + LANES, gelu(load(sums, r * PANEL + LANES)), parts)
        _add_steps(wide, count, 0, down, inner_steps, first, count, down_bias, num_rows, width, out, parts)
    tiles_off()


def wide_steps(inner: int) -> int:
    """Steps of inner numbers that `mlp` holds at a time."""
    return min(_NEAR, inner // STEP)
