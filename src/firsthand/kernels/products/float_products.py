"""Products of float32 rows with float16 or float32 weights, compiled, with a fixed order of every sum.

An output is the sum over pieces of 128 inputs in order; within a piece even and odd inputs have a sum each. The order is
the same for any number of rows and threads, so rows are batch-invariant. MKL and FBGEMM choose the order by the number of
rows and threads.

Weights are tiled: 16 outputs lie together, and a tile has for each input the 16 weights. One stream of memory, read once
from front to back. Shapes are not checked here: `nn/quant.py` does.
"""

# O outputs, K inputs, T tiles of 16 outputs, N rows, R rows of one inner loop
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from firsthand.kernels.jit import called, kernel, named
from firsthand.kernels.products.tiled_weights import KINDS, aligned
from firsthand.kernels.vectors import FLOATS, HALVES, LANES, emit_loop, llvm_function, own_function, splat_in

_intrinsic: Any = intrinsic
PIECE = 128
"""Inputs whose products are added up before they join the sum of all."""
FLOAT16, FLOAT32 = len(KINDS), len(KINDS) + 1
"""Numbers of the two kinds, after those of `products`."""
_LONG = ir.IntType(64)


@dataclass(frozen=True)
class DenseTiles:
    """A matrix in the memory layout of the inner loops."""

    memory: NDArray[Any]
    """T K 16, float16 or float32; begins at a multiple of 64 bytes. An odd K has an input of zeros more."""
    outputs: int
    inputs: int

    def entry(self) -> list[int]:
        """Address, kind, tiles, bytes of a tile, inputs: a row of the compiled step's table."""
        kind = FLOAT16 if self.memory.dtype == np.float16 else FLOAT32
        return [self.memory.ctypes.data, kind, len(self.memory), self.memory[0].nbytes, self.memory.shape[1]]


def tile_floats(values_OK: NDArray[np.float32], dtype: type[np.float16] | type[np.float32]) -> DenseTiles:
    """The matrix as tiles, with rows of zeros up to a multiple of 16."""
    outputs, inputs = values_OK.shape
    count, whole, width = -(-outputs // LANES), outputs // LANES, inputs + inputs % 2
    memory = aligned(count * width * LANES * np.dtype(dtype).itemsize).view(dtype).reshape(count, width, LANES)
    memory[:, inputs:] = 0
    memory[:whole, :inputs] = values_OK[: whole * LANES].reshape(whole, LANES, inputs).transpose(0, 2, 1)
    if whole < count:
        memory[whole] = 0
        memory[whole, :inputs, : outputs - whole * LANES] = values_OK[whole * LANES :].T
    return DenseTiles(memory, outputs, inputs)


def untile_floats(tiles: DenseTiles) -> NDArray[np.float32]:
    """The inverse of `tile_floats`: O K."""
    turned = tiles.memory[:, : tiles.inputs].transpose(0, 2, 1).reshape(-1, tiles.inputs)[: tiles.outputs]
    return np.ascontiguousarray(turned, dtype=np.float32)


def _emit(builder: Any, rows: int, stored: Any, values: dict[str, Any]) -> None:
    """The inner loop of one tile and R rows, with all sums in registers, and the stores of its results."""

    def constant(value: int) -> Any:
        return ir.Constant(_LONG, value)

    def times(a: Any, b: Any) -> Any:
        return builder.mul(a, b)

    fma = llvm_function(builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3)
    zeros = [ir.Constant(FLOATS, [0.0] * LANES)]
    bytes_each = LANES * (2 if stored == HALVES else 4)
    lines = [
        builder.gep(values["x"], [builder.add(values["x_at"], times(values["x_stride"], constant(r)))])
        for r in range(rows)
    ]

    def weights_of(k: Any) -> Any:
        place = builder.bitcast(builder.gep(values["weights"], [times(k, constant(bytes_each))]), stored.as_pointer())
        loaded = builder.load(place, align=bytes_each)
        return builder.fpext(loaded, FLOATS) if stored == HALVES else loaded

    def add_input(k: Any, sums: list[Any]) -> list[Any]:
        weights = weights_of(k)
        inputs = (splat_in(builder, builder.load(builder.gep(line, [k])), FLOATS) for line in lines)
        return [builder.call(fma, [x, weights, held]) for x, held in zip(inputs, sums, strict=True)]

    def piece(index: Any, totals: list[Any]) -> list[Any]:
        first = times(index, constant(PIECE))
        left = builder.sub(values["inputs"], first)
        pairs = builder.lshr(builder.select(builder.icmp_signed("<", left, constant(PIECE)), left, constant(PIECE)),
                             constant(1))  # fmt: skip

        def pair(p: Any, sums: list[Any]) -> list[Any]:
            k = builder.add(first, builder.shl(p, constant(1)))
            return [*add_input(k, sums[:rows]), *add_input(builder.add(k, constant(1)), sums[rows:])]

        sums = emit_loop(builder, pairs, zeros * (2 * rows), pair)
        both = [builder.fadd(even, odd) for even, odd in zip(sums[:rows], sums[rows:], strict=True)]
        return [builder.fadd(total, part) for total, part in zip(totals, both, strict=True)]

    pieces = builder.udiv(builder.add(values["inputs"], constant(PIECE - 1)), constant(PIECE))
    for r, total in enumerate(emit_loop(builder, pieces, zeros * rows, piece)):
        at = builder.add(values["out_at"], times(values["out_stride"], constant(r)))
        target = builder.gep(values["out"], [at])
        builder.store(total, builder.bitcast(target, FLOATS.as_pointer()), align=4)


_ARGUMENTS = ("weights", "inputs", "x", "x_at", "x_stride", "out", "out_at", "out_stride")


def _declared(module: Any, stored: Any, rows: int, takes: list[Any]) -> Any:
    """The loop as a function of the module."""

    def emit(builder: Any, args: Any) -> None:
        values = dict(zip(_ARGUMENTS, args, strict=True))
        values["weights"] = builder.inttoptr(values["weights"], ir.IntType(8).as_pointer())
        _emit(builder, rows, stored, values)

    name = f"firsthand_dense_{'half' if stored == HALVES else 'float'}_{rows}"
    return own_function(module, name, takes, emit)


def _inner_loop(stored: Any, rows: int) -> Any:
    """An intrinsic that computes the 16 outputs of a tile for `rows` rows. Its arguments are `_ARGUMENTS`.

    Nothing is checked. `weights` is the address of the tile; `x` and `out` are flat arrays with the place of the first row
    and the step to the next.
    """

    def product(
        typing: Any, weights: Any, inputs: Any, x: Any, x_at: Any, x_stride: Any, out: Any, out_at: Any, out_stride: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = [
                context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, args, strict=True)
            ]
            builder.call(_declared(builder.module, stored, rows, [value.type for value in given]), given)
            return context.get_dummy_value()

        at = types.intp
        return types.void(at, at, x, at, at, out, at, at), generate

    return _intrinsic(product)


def _make_multiply(stored: Any) -> Any:
    """A function that multiplies rows with the tiles of one kind."""
    one, two, four, eight = (_inner_loop(stored, rows) for rows in (1, 2, 4, 8))

    @called
    @named("multiply_halves" if stored == HALVES else "multiply_floats")
    def multiply_kind(
        address: int, tile_bytes: int, inputs: int, first_tile: int, last_tile: int, rows: int, x: Any, stride: int,
        out: Any, column: int, out_stride: int,
    ) -> None:  # fmt: skip
        for tile in range(first_tile, last_tile):
            at, row, to = address + tile * tile_bytes, 0, column + tile * LANES
            while row + 8 <= rows:
                eight(at, inputs, x, row * stride, stride, out, row * out_stride + to, out_stride)
                row += 8
            if row + 4 <= rows:
                four(at, inputs, x, row * stride, stride, out, row * out_stride + to, out_stride)
                row += 4
            if row + 2 <= rows:
                two(at, inputs, x, row * stride, stride, out, row * out_stride + to, out_stride)
                row += 2
            if row < rows:
                one(at, inputs, x, row * stride, stride, out, row * out_stride + to, out_stride)

    return multiply_kind


_multiply_halves, _multiply_floats = _make_multiply(HALVES), _make_multiply(FLOATS)


@called
def multiply_dense(
    entry: Any, first_tile: int, last_tile: int, rows: int, x: Any, stride: int, out: Any, column: int, out_stride: int
) -> None:
    """Multiply rows with some tiles of the matrix of this `DenseTiles.entry`."""
    if entry[1] == FLOAT16:
        _multiply_halves(entry[0], entry[3], entry[4], first_tile, last_tile, rows, x, stride, out, column, out_stride)
    else:
        _multiply_floats(entry[0], entry[3], entry[4], first_tile, last_tile, rows, x, stride, out, column, out_stride)


@kernel
def _product(entry: Any, rows: Any, first_tile: int, last_tile: int, out: Any) -> None:
    multiply_dense(entry, first_tile, last_tile, rows.shape[0], rows.reshape(-1), rows.shape[1], out.reshape(-1), 0,
                   out.shape[1])  # fmt: skip


def dense_product(rows_NK: NDArray[np.float32], tiles: DenseTiles) -> NDArray[np.float32]:
    """Returns rows times a matrix: N O; single-threaded."""
    if tiles.inputs % 2:
        rows_NK = np.pad(rows_NK, ((0, 0), (0, 1)))
    out = np.empty((len(rows_NK), len(tiles.memory) * LANES), dtype=np.float32)
    _product(np.array(tiles.entry(), dtype=np.int64), rows_NK, 0, len(tiles.memory), out)
    return out[:, : tiles.outputs]
