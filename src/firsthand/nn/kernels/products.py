"""Products of 8-bit activations with blockwise weights: the compiled inner loops.

Integers first: the products of a block are summed as whole numbers, which is exact in any order, and only then scaled
and added to a float32 sum, block after block. So a row has the same bits whatever rows are computed with it, on any
number of threads and with any of the instruction sets (`dots`). Weights are `tiled`, rows `rounded`.

An inner loop multiplies two tiles with the rows of a piece, so that a value which is loaded serves twice: processors load no
more vectors in a cycle than they multiply. Meanwhile it asks memory for weights that come next, evenly over the work, since
a processor that computes looks ahead by less than a block.
"""

# O outputs, K inputs, B inputs of a block, T tiles of 16 outputs, N rows, R rows of one inner loop
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from firsthand.nn.kernels.dots import BYTES, WORDS, add_products, instructions
from firsthand.nn.kernels.jit import called, kernel, named
from firsthand.nn.kernels.rounded import (
    BLOCK,
    HALF_OFFSETS,
    OFFSET,
    RECORD,
    SCALE,
    SHIFT,
    first_of_piece,
    pieces_of,
    round_row,
)
from firsthand.nn.kernels.tiled import KINDS, LANES, Kind, Tiles
from firsthand.nn.kernels.vectors import (
    FLOAT,
    FLOATS,
    HALVES,
    INT,
    INTS,
    LONG,
    constant,
    emit_loop,
    emit_prefetch,
    llvm_function,
    splat_in,
)

_intrinsic: Any = intrinsic
_BYTE = ir.IntType(8)
BUNCH = 1 << 18
"""Bytes of weights, about, that stay in the second cache while all rows are multiplied with them."""
FEW = 64
"""Rows up to which a bunch is a pair of tiles: it is then the rows that stay in the cache."""
LINE = 64
"""Bytes of a cache line."""
NEAR, NEAR_ROWS = 4096, 2
"""How many bytes ahead a loop of so few rows looks in its own tile: it reads as fast as memory gives."""


class _Loop:
    """Emits the inner loop of two tiles and R rows: over the blocks, with all sums in registers."""

    def __init__(self, builder: Any, kind: Kind, rows: int, how: str, values: dict[str, Any]):
        self.builder, self.kind, self.rows, self.how, self.values = builder, kind, rows, how, values

    def emit(self) -> None:
        """The whole loop, and the stores of its results."""
        both = ["first", "second"]
        has_registers = self.how == "vnni512" and self.rows > NEAR_ROWS
        for tiles in [both] if has_registers else [[tile] for tile in both]:
            self._emit_tiles(tiles)

    def _emit_tiles(self, tiles: list[str]) -> None:
        b, each = self.builder, len(tiles)
        blocks = b.udiv(self.values["inputs"], ir.Constant(LONG, BLOCK))
        zeros = [constant(FLOATS, 0.0)] * (self.rows * each)
        for i, total in enumerate(emit_loop(b, blocks, zeros, lambda index, sums: self._block(tiles, index, sums))):
            row = b.mul(self.values["out_stride"], ir.Constant(LONG, i // each))
            target = b.gep(self.values["out"], [b.add(self.values[f"{tiles[i % each]}_out"], row)])
            b.store(total, b.bitcast(target, FLOATS.as_pointer()), align=4)

    def _block(self, tiles: list[str], index: Any, sums: list[Any]) -> list[Any]:
        """All of 32 inputs: one record of each row, and one or two of each tile."""
        b, parts = self.builder, BLOCK // self.kind.block
        block = b.mul(index, ir.Constant(LONG, self.rows * RECORD))
        self.inputs = b.gep(self.values["rounded"], [b.add(self.values["rounded_at"], block)])
        along = b.mul(index, ir.Constant(LONG, self.kind.record_bytes * parts))
        weights = [b.gep(self.values[f"{tile}_weights"], [along]) for tile in tiles]
        if self.rows <= NEAR_ROWS:
            self._ask_near(weights)
        elif "first" in tiles:
            self._ask_next(index)
        scaled: list[Any] = []
        for part in range(parts):
            records = [b.gep(place, [ir.Constant(LONG, part * self.kind.record_bytes)]) for place in weights]
            scaled = self._add_scaled(records, self._whole(records, part), scaled)
        return self._add_rows(records, scaled, sums)

    def _ask_near(self, weights: list[Any]) -> None:
        """Ask for what lies ahead in the same tile, into the first cache."""
        for place in weights:
            for line in range(0, self.kind.record_bytes * BLOCK // self.kind.block, LINE):
                emit_prefetch(self.builder, self.builder.gep(place, [ir.Constant(LONG, NEAR + line)]), 3)

    def _ask_next(self, index: Any) -> None:
        """Ask for this block's share of what comes after these tiles, into the second cache."""
        b, lines = self.builder, self.values["lines"]
        with cgutils.for_range(b, lines) as loop:
            line = b.add(b.mul(index, lines), loop.index)
            emit_prefetch(b, b.gep(self.values["next_weights"], [b.mul(line, ir.Constant(LONG, LINE))]), 2)

    def _whole(self, records: list[Any], part: int) -> list[Any]:
        """Sums of products of a record, for each row and tile."""
        b, kind, each = self.builder, self.kind, len(records)
        whole = [start for r in range(self.rows) for start in [self._offset(r, part)] * each]
        for group in range(kind.groups):
            codes = [self._codes(record, group) for record in records]
            for r in range(self.rows):
                values = self._splat(r, part * kind.block + 4 * group, INT)
                for t in range(each):
                    whole[r * each + t] = add_products(b, whole[r * each + t], codes[t], values, self.how)
        return whole

    def _add_scaled(self, records: list[Any], whole: list[Any], scaled: list[Any]) -> list[Any]:
        """Whole numbers times the scales of the weights, and what the record before has."""
        b = self.builder
        scales = [self._numbers(record, 0) for record in records] * self.rows
        floats = [b.sitofp(number, FLOATS) for number in whole]
        if not scaled:
            return [b.fmul(number, scale) for number, scale in zip(floats, scales, strict=True)]
        fma = llvm_function(b, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3)
        return [b.call(fma, list(each)) for each in zip(floats, scales, scaled, strict=True)]

    def _add_rows(self, records: list[Any], scaled: list[Any], sums: list[Any]) -> list[Any]:
        """The sums and what a block adds: times the scales of the rows, with the minimums of the weights."""
        b, has_minimums = self.builder, self.kind.has_minimums
        fma = llvm_function(b, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3)
        minimums = [self._numbers(record, 1) for record in records] if has_minimums else []
        results = []
        for r in range(self.rows):
            scale = self._splat(r, SCALE, FLOAT)
            shift = self._splat(r, SHIFT, FLOAT) if has_minimums else None
            for t in range(len(records)):
                i = r * len(records) + t
                value = b.call(fma, [scaled[i], scale, sums[i]])
                results.append(b.call(fma, [shift, minimums[t], value]) if has_minimums else value)
        return results

    def _splat(self, r: int, byte: int, kind: Any) -> Any:
        """A number of row r's record, in all lanes."""
        b = self.builder
        place = b.gep(self.inputs, [ir.Constant(LONG, r * RECORD + byte)])
        value = b.load(b.bitcast(place, kind.as_pointer()), align=4)
        return splat_in(b, value, INTS if kind is INT else FLOATS)

    def _offset(self, r: int, part: int) -> Any:
        """- zero x the sum of a row's codes."""
        if self.kind.zero == 0:
            return constant(INTS, 0)
        offset = self._splat(r, OFFSET if self.kind.block == BLOCK else HALF_OFFSETS + 4 * part, INT)
        by = (128 // self.kind.zero).bit_length() - 1
        return self.builder.ashr(offset, constant(INTS, by)) if by else offset

    def _vector(self, record: Any, number: int) -> Any:
        """A vector of a record's codes, as they are packed."""
        b = self.builder
        place = b.gep(record, [ir.Constant(LONG, self.kind.head_bytes + 4 * LANES * number)])
        return b.load(b.bitcast(place, BYTES.as_pointer()), align=32)

    def _codes(self, record: Any, group: int) -> Any:
        """Codes of four inputs."""
        b, kind = self.builder, self.kind
        if kind.bits == 8:
            return self._vector(record, group)
        both = self._vector(record, group // 2)
        low = b.lshr(both, constant(BYTES, 4)) if group % 2 else b.and_(both, constant(BYTES, 15))
        if kind.bits == 4:
            return low
        high, extra = self._vector(record, kind.groups // 2), kind.bits - 4
        by = 4 - group * extra  # to the left
        words = b.bitcast(high, WORDS)
        words = b.shl(words, constant(WORDS, by)) if by >= 0 else b.lshr(words, constant(WORDS, -by))
        mask = ((1 << extra) - 1) << 4  # what came from a neighbouring byte falls away
        return b.or_(low, b.and_(b.bitcast(words, BYTES), constant(BYTES, mask)))

    def _numbers(self, record: Any, place: int) -> Any:
        """The scales (place 0) or minimums (1) of a record as 16 floats."""
        b = self.builder
        kind = HALVES if self.kind.half else FLOATS
        at = b.gep(record, [ir.Constant(LONG, place * LANES * (2 if self.kind.half else 4))])
        loaded = b.load(b.bitcast(at, kind.as_pointer()), align=32)
        return b.fpext(loaded, FLOATS) if self.kind.half else loaded


_ARGUMENTS = ("first_weights", "second_weights", "next_weights", "lines", "inputs", "rounded", "rounded_at", "out",
              "first_out", "second_out", "out_stride")  # fmt: skip


def _declared(module: Any, kind: Kind, rows: int, how: str, takes: list[Any]) -> Any:
    """The loop as a function of its own, known to its module alone: LLVM would else compile a copy wherever it is called."""
    name = f"firsthand_product_{KINDS.index(kind)}_{rows}_{how}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), takes), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    values = dict(zip(_ARGUMENTS, function.args, strict=True))
    values["rounded"] = builder.bitcast(values["rounded"], _BYTE.as_pointer())
    for name in ("first_weights", "second_weights", "next_weights"):
        values[name] = builder.inttoptr(values[name], _BYTE.as_pointer())
    _Loop(builder, kind, rows, how, values).emit()
    builder.ret_void()
    return function


def inner_loop(kind: Kind, rows: int, how: str | None = None) -> Any:
    """An intrinsic that computes the outputs of two tiles for `rows` rows. Its arguments are `_ARGUMENTS`.

    Nothing is checked. The weights are addresses of tiles, and of `lines` cache lines a block to ask for meanwhile;
    `rounded_at` and the outs are places in flat arrays.
    """
    how = how or instructions()

    def product(
        typing: Any,
        first_weights: Any,
        second_weights: Any,
        next_weights: Any,
        lines: Any,
        inputs: Any,
        rounded: Any,
        rounded_at: Any,
        out: Any,
        first_out: Any,
        second_out: Any,
        out_stride: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = [
                context.make_array(kind_of)(context, builder, value).data if isinstance(kind_of, types.Array) else value
                for kind_of, value in zip(signature.args, args, strict=True)
            ]
            builder.call(_declared(builder.module, kind, rows, how, [value.type for value in given]), given)
            return context.get_dummy_value()

        at = types.intp
        return types.void(at, at, at, at, at, rounded, at, out, at, at, at), generate

    return _intrinsic(product)


def _make_piece(kind: Kind, how: str | None) -> Any:
    """A function that multiplies a piece of rows with two tiles."""
    one, two, three, four, five, six = (inner_loop(kind, rows, how) for rows in range(1, 7))

    @called
    @named(f"piece_{KINDS.index(kind)}_{how or instructions()}")
    def multiply_piece(
        rows: int, first: int, second: int, following: int, lines: int, inputs: int, rounded: Any, at: int, out: Any,
        first_out: int, second_out: int, stride: int,
    ) -> None:  # fmt: skip
        if rows == 6:
            six(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)
        elif rows == 5:
            five(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)
        elif rows == 4:
            four(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)
        elif rows == 3:
            three(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)
        elif rows == 2:
            two(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)
        else:
            one(first, second, following, lines, inputs, rounded, at, out, first_out, second_out, stride)

    return multiply_piece


def _make_multiply(kind: Kind, how: str | None = None) -> Any:
    """A function that multiplies rows with the tiles of one kind, two at a time."""
    multiply_piece = _make_piece(kind, how)

    @called
    @named(f"multiply_{KINDS.index(kind)}_{how or instructions()}")
    def multiply_kind(
        address: int, tiles: int, tile_bytes: int, inputs: int, first_pair: int, last_pair: int, rows: int, rounded: Any,
        out: Any, column: int, out_stride: int,
    ) -> None:  # fmt: skip
        pieces, blocks = pieces_of(rows), inputs // BLOCK
        bunch = 1 if rows <= FEW else max(1, BUNCH // (2 * tile_bytes))
        for start in range(first_pair, last_pair, bunch):
            end = min(start + bunch, last_pair)
            following = address + 2 * end * tile_bytes
            left = 2 * (min(end + bunch, last_pair) - end) * tile_bytes
            share = pieces * (end - start) * blocks * LINE
            lines = (left + share - 1) // share
            for piece in range(pieces):
                row, until = first_of_piece(piece, rows), first_of_piece(piece + 1, rows)
                at, to = row * blocks * RECORD, row * out_stride + column
                for pair in range(start, end):
                    one = 2 * pair
                    other = min(one + 1, tiles - 1)  # an odd last tile is computed twice
                    if left <= 0:
                        lines = 0
                    multiply_piece(until - row, address + one * tile_bytes, address + other * tile_bytes, following, lines,
                                   inputs, rounded, at, out, to + one * LANES, to + other * LANES, out_stride)  # fmt: skip
                    following += lines * blocks * LINE
                    left -= lines * blocks * LINE

    return multiply_kind


(
    _multiply_0, _multiply_1, _multiply_2, _multiply_3, _multiply_4, _multiply_5, _multiply_6, _multiply_7
) = (_make_multiply(kind) for kind in KINDS)  # fmt: skip


@called
def multiply(
    entry: Any, first_pair: int, last_pair: int, rows: int, rounded: Any, out: Any, column: int, out_stride: int
) -> None:
    """Rows times some pairs of tiles of the matrix whose `Tiles.entry` is given."""
    address, kind, tiles, tile_bytes, inputs = entry[0], entry[1], entry[2], entry[3], entry[4]
    if kind == 0:
        _multiply_0(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 1:
        _multiply_1(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 2:
        _multiply_2(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 3:
        _multiply_3(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 4:
        _multiply_4(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 5:
        _multiply_5(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    elif kind == 6:
        _multiply_6(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)
    else:
        _multiply_7(address, tiles, tile_bytes, inputs, first_pair, last_pair, rows, rounded, out, column, out_stride)


@kernel
def _product(entry: Any, rows: Any, rounded: Any, out: Any) -> None:
    count, width = rows.shape
    flat = rows.reshape(-1)
    for row in range(count):
        round_row(flat, row * width, width, rounded, row, count)
    multiply(entry, 0, (entry[2] + 1) // 2, count, rounded, out.reshape(-1), 0, out.shape[1])


def product(rows_NK: NDArray[np.float32], tiles: Tiles) -> NDArray[np.float32]:
    """Rows, rounded to 8 bits, times a matrix: N O. In this thread alone."""
    count, width = rows_NK.shape
    rounded = np.empty(count * width // BLOCK * RECORD, dtype=np.uint8)
    out = np.empty((count, tiles.num_tiles * LANES), dtype=np.float32)
    if count:
        _product(np.array(tiles.entry(), dtype=np.int64), rows_NK, rounded, out)
    return out[:, : tiles.outputs]
