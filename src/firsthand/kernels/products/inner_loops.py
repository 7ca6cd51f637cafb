"""The inner loops of blockwise products: two tiles of weights times the rows of a piece.

Two tiles, so that each loaded value is used twice: processors load no more vectors per cycle than they multiply. A loop also
prefetches the next weights evenly over its work, since hardware looks ahead by less than a block.
"""

# R rows of a loop
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from firsthand.kernels.products.dot_instructions import add_products
from firsthand.kernels.products.rounded_rows import BLOCK, HALF_OFFSETS, OFFSET, RECORD, SCALE, SHIFT
from firsthand.kernels.products.tile_codes import emit_codes
from firsthand.kernels.products.tiled_weights import LANES, Kind
from firsthand.kernels.vectors import (
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
    own_function,
    splat_in,
)

_intrinsic: Any = intrinsic
_BYTE = ir.IntType(8)
LINE = 64
"""Bytes of a cache line."""
NEAR, NEAR_ROWS = 8192, 2
"""A loop of at most NEAR_ROWS rows is bound by memory and prefetches NEAR bytes ahead."""


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
        added = self._add_record(weights, sums) if parts == 1 else self._add_halves(weights, sums)
        return self._add_minimums(weights, added) if self.kind.has_minimums else added

    def _ask_near(self, weights: list[Any]) -> None:
        """Prefetch some kilobytes ahead, into the first-level cache."""
        for place in weights:
            for line in range(0, self.kind.record_bytes * BLOCK // self.kind.block, LINE):
                emit_prefetch(self.builder, self.builder.gep(place, [ir.Constant(LONG, NEAR + line)]), 3)

    def _ask_next(self, index: Any) -> None:
        """Prefetch this block's share of the following tiles, into the second-level cache."""
        b, lines = self.builder, self.values["lines"]
        with cgutils.for_range(b, lines) as loop:
            line = b.add(b.mul(index, lines), loop.index)
            emit_prefetch(b, b.gep(self.values["next_weights"], [b.mul(line, ir.Constant(LONG, LINE))]), 2)

    def _whole(self, records: list[Any], part: int) -> list[Any]:
        """Sums of products of a record, for each row and tile."""
        b, kind, each = self.builder, self.kind, len(records)
        whole = [start for r in range(self.rows) for start in [self._offset(r, part)] * each]
        for group in range(kind.groups):
            codes = [emit_codes(b, kind, record, group) for record in records]
            for r in range(self.rows):
                values = self._splat(r, part * kind.block + 4 * group, INT)
                for t in range(each):
                    whole[r * each + t] = add_products(b, whole[r * each + t], codes[t], values, self.how)
        return whole

    def _add_record(self, records: list[Any], sums: list[Any]) -> list[Any]:
        """The sums, and the whole numbers of a record times the scales of weights and row."""
        b, each = self.builder, len(records)
        whole, weights = self._whole(records, 0), [self._numbers(record, 0) for record in records]
        rows = [self._splat(r, SCALE, FLOAT) for r in range(self.rows)]
        return [
            self._fma(b.sitofp(whole[i], FLOATS), b.fmul(rows[i // each], weights[i % each]), sums[i])
            for i in range(len(sums))
        ]

    def _add_halves(self, records: list[Any], sums: list[Any]) -> list[Any]:
        """The same for two records of 16 inputs, which share the scale of the row: it is multiplied once."""
        b, each = self.builder, len(records)
        scaled: list[Any] = []
        for part in range(2):
            halves = [b.gep(record, [ir.Constant(LONG, part * self.kind.record_bytes)]) for record in records]
            floats = [b.sitofp(number, FLOATS) for number in self._whole(halves, part)]
            weights = [self._numbers(half, 0) for half in halves] * self.rows
            scaled = [
                self._fma(number, weight, scaled[i]) if part else b.fmul(number, weight)
                for i, (number, weight) in enumerate(zip(floats, weights, strict=True))
            ]
        return [self._fma(scaled[i], self._splat(i // each, SCALE, FLOAT), sums[i]) for i in range(len(sums))]

    def _add_minimums(self, records: list[Any], sums: list[Any]) -> list[Any]:
        """The sums, and the minimums times the sum of what the row has."""
        each = len(records)
        minimums = [self._numbers(record, 1) for record in records]
        return [
            self._fma(self._splat(i // each, SHIFT, FLOAT), minimums[i % each], total) for i, total in enumerate(sums)
        ]

    def _fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once."""
        return self.builder.call(llvm_function(self.builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3), [a, b, c])

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

    def _numbers(self, record: Any, place: int) -> Any:
        """The scales (place 0) or minimums (1) of a record as 16 floats."""
        b = self.builder
        kind = HALVES if self.kind.half else FLOATS
        at = b.gep(record, [ir.Constant(LONG, place * LANES * (2 if self.kind.half else 4))])
        loaded = b.load(b.bitcast(at, kind.as_pointer()), align=32)
        return b.fpext(loaded, FLOATS) if self.kind.half else loaded


_ARGUMENTS = ("rows", "first_weights", "second_weights", "next_weights", "lines", "inputs", "rounded", "rounded_at", "out",
              "first_out", "second_out", "out_stride")  # fmt: skip


def _declared(module: Any, kind: Kind, rows: int, how: str, takes: list[Any]) -> Any:
    """The loop as a function of the module."""

    def emit(builder: Any, args: Any) -> None:
        values = dict(zip(_ARGUMENTS, args, strict=True))
        values["rounded"] = builder.bitcast(values["rounded"], _BYTE.as_pointer())
        for address in ("first_weights", "second_weights", "next_weights"):
            values[address] = builder.inttoptr(values[address], _BYTE.as_pointer())
        _Loop(builder, kind, rows, how, values).emit()

    shape = f"{kind.bits}_{kind.block}_{kind.has_minimums:d}{kind.half:d}"
    return own_function(module, f"firsthand_product_{shape}_{rows}_{how}", takes, emit)


def piece_loop(kind: Kind, sizes: Sequence[int], how: str) -> Any:
    """An intrinsic that computes the outputs of two tiles for a piece of one of these sizes. Its arguments are `_ARGUMENTS`.

    Nothing is checked. The weights are addresses of tiles, and of `lines` cache lines a block to ask for meanwhile;
    `rounded_at` and the outs are places in flat arrays.
    """

    def piece(
        typing: Any,
        rows: Any,
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
            after = builder.append_basic_block()
            choice = builder.switch(args[0], after)
            for size in sizes:
                choice.add_case(ir.Constant(LONG, size), block := builder.append_basic_block())
                builder.position_at_end(block)
                builder.call(_declared(builder.module, kind, size, how, [value.type for value in given]), given)
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        at = types.intp
        return types.void(at, at, at, at, at, at, rounded, at, out, at, at, at), generate

    return _intrinsic(piece)
