"""Products of 8-bit activations with blockwise weights: the compiled inner loops, and the tiled memory they read.

Integers first: the products of a block are summed as whole numbers, which is exact in any order, and only then scaled
and added to a float32 sum, block after block. So a row has the same bits whatever rows are computed with it, on any
number of threads and with any of the instruction sets below. Activations are rounded to 8 bits in blocks of 32 inputs,
as ggml does.

Weights are tiled: 16 outputs lie together, and a tile is a list of records, one a block, each with 16 scales, 16
minimums where the type has them, and the codes of 4 inputs x 16 outputs a vector. One stream of memory, read once from
front to back.

x86 with AVX-512 VNNI or AVX-VNNI multiplies bytes in one instruction; AVX2 goes through 16 bits; elsewhere LLVM gets
plain code, which is right but not fast. Left out: instructions of ARM (i8mm) and AMX.
"""

# O outputs, K inputs, B inputs of a block, T tiles of 16 outputs, N rows, R rows of one inner loop
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from firsthand.nn.blockwise import Blockwise
from firsthand.nn.kernels.jit import called, kernel, named
from firsthand.nn.kernels.rows import round_row
from firsthand.nn.kernels.vectors import llvm_function

_intrinsic: Any = intrinsic
LANES = 16
_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT, _HALF = ir.FloatType(), ir.HalfType()
_FLOATS, _HALVES, _INTS = (ir.VectorType(kind, LANES) for kind in (_FLOAT, _HALF, _INT))
_BYTES = ir.VectorType(_BYTE, 4 * LANES)


class Kind(NamedTuple):
    """How the records of a tile are laid out."""

    bits: int
    block: int
    has_minimums: bool
    half: bool
    """Scales and minimums are float16 (where that is exact), else float32."""

    @property
    def head_bytes(self) -> int:
        """Bytes of a record before its codes."""
        return LANES * (2 if self.half else 4) * (2 if self.has_minimums else 1)

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.head_bytes + LANES * self.block * self.bits // 8


KINDS = (
    Kind(4, 32, True, True),
    Kind(4, 32, False, True),
    Kind(8, 32, False, True),
    Kind(8, 32, True, False),
    Kind(4, 32, True, False),
    Kind(8, 16, False, False),
)
"""Every type becomes one of these: Q4_1; Q4_0; Q5_0, Q8_0 and ours; Q5_1 and Q5_K; Q4_K; Q6_K."""


@dataclass(frozen=True)
class Tiles:
    """A matrix in the memory layout of the inner loops."""

    memory: NDArray[np.uint8]
    """The records of all tiles; begins at a multiple of 64 bytes."""
    kind: int
    """Index into KINDS."""
    outputs: int
    inputs: int
    zero: int

    @property
    def num_tiles(self) -> int:
        """Tiles of 16 outputs; the last may hold fewer."""
        return -(-self.outputs // LANES)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile."""
        return KINDS[self.kind].record_bytes * (self.inputs // KINDS[self.kind].block)

    def entry(self) -> list[int]:
        """What the compiled code needs to know: address, kind, tiles, bytes of a tile, blocks, zero."""
        return [
            self.memory.ctypes.data,
            self.kind,
            self.num_tiles,
            self.tile_bytes,
            self.inputs // KINDS[self.kind].block,
            self.zero,
        ]


def tile(matrix: Blockwise) -> Tiles:
    """The matrix as tiles, with rows of zeros up to a multiple of 16."""
    outputs, inputs = matrix.codes.shape
    number = _kind_of(matrix)
    kind, count = KINDS[number], -(-outputs // LANES)
    blocks = inputs // kind.block
    heads = [matrix.scales] if matrix.minimums is None else [matrix.scales, matrix.minimums]
    parts = [_head(_padded(head, count), count, kind.half) for head in heads]
    codes = _padded(matrix.codes, count, matrix.zero).reshape(count, LANES, blocks, kind.block // 4, 4)
    codes = codes.transpose(0, 2, 3, 1, 4).reshape(count, blocks, kind.block // 4, 4 * LANES)
    if kind.bits == 4:
        codes = codes[:, :, 0::2] | (codes[:, :, 1::2] << np.uint8(4))
    records = np.concatenate([*parts, codes.reshape(count, blocks, -1)], axis=2)
    memory = aligned(records.size)
    memory[:] = records.reshape(-1)
    return Tiles(memory, number, outputs, inputs, matrix.zero)


def untile(tiles: Tiles) -> Blockwise:
    """The matrix that `tile` laid out."""
    kind = KINDS[tiles.kind]
    blocks = tiles.inputs // kind.block
    records = tiles.memory.reshape(tiles.num_tiles, blocks, kind.record_bytes)
    heads = records[:, :, : kind.head_bytes].reshape(tiles.num_tiles, blocks, -1, LANES * (2 if kind.half else 4))
    numbers = np.ascontiguousarray(heads).view(np.float16 if kind.half else np.float32).astype(np.float32)
    scales, *minimums = (
        numbers[:, :, i].transpose(0, 2, 1).reshape(-1, blocks)[: tiles.outputs] for i in range(numbers.shape[2])
    )
    codes = records[:, :, kind.head_bytes :].reshape(tiles.num_tiles, blocks, -1, 4 * LANES)
    if kind.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=3)
    codes = codes.reshape(tiles.num_tiles, blocks, kind.block // 4, LANES, 4).transpose(0, 3, 1, 2, 4)
    flat = codes.reshape(-1, tiles.inputs)[: tiles.outputs]
    return Blockwise(flat, scales, minimums[0] if minimums else None, tiles.zero, kind.bits)


def _kind_of(matrix: Blockwise) -> int:
    heads = [matrix.scales] if matrix.minimums is None else [matrix.scales, matrix.minimums]
    with np.errstate(over="ignore"):
        half = all(np.array_equal(head, head.astype(np.float16).astype(np.float32), equal_nan=True) for head in heads)
    wanted = Kind(matrix.bits, matrix.block, matrix.minimums is not None, half)
    for kind in (wanted, wanted._replace(half=False), wanted._replace(half=False, bits=8)):
        if kind in KINDS:
            return KINDS.index(kind)
    raise AssertionError(f"no inner loop for {wanted}")


def _padded(values: NDArray[Any], tiles: int, fill: int = 0) -> NDArray[Any]:
    missing = tiles * LANES - len(values)
    return np.pad(values, ((0, missing), (0, 0)), constant_values=fill) if missing else values


def _head(values: NDArray[np.float32], tiles: int, half: bool) -> NDArray[np.uint8]:
    """Scales or minimums as bytes: T, blocks, 16 numbers."""
    turned = np.ascontiguousarray(values.reshape(tiles, LANES, -1).transpose(0, 2, 1))
    return turned.astype(np.float16 if half else np.float32).view(np.uint8)


def aligned(size: int) -> NDArray[np.uint8]:
    """So many bytes of memory, which begin at a multiple of 64."""
    room = np.empty(size + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    zeros = ir.Constant(ir.VectorType(_INT, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def instructions() -> str:
    """Which byte products this processor has: `vnni512`, `vnni256`, `avx2` or `plain`."""
    features = binding.get_host_cpu_features()
    if features.get("avx512vnni"):
        return "vnni512"
    if features.get("avxvnni"):
        return "vnni256"
    return "avx2" if features.get("avx2") else "plain"


def _half_vectors(builder: Any, vector: Any) -> list[Any]:
    count = vector.type.count // 2
    return [
        builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_INT, count), list(range(at, at + count))))
        for at in (0, count)
    ]


def _joined(builder: Any, low: Any, high: Any) -> Any:
    count = low.type.count * 2
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INT, count), list(range(count))))


def _add_products(builder: Any, sums: Any, codes: Any, inputs: Any, how: str) -> Any:
    """sums[lane] + the four products of unsigned codes with signed inputs (4 bytes, the same for all lanes) of that lane."""
    values = _splat(builder, inputs, _INTS)
    if how == "vnni512":
        multiply = llvm_function(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, [_INTS, _BYTES, _BYTES])
        return builder.call(multiply, [sums, codes, builder.bitcast(values, _BYTES)])
    if how == "vnni256":
        ints, bytes_ = ir.VectorType(_INT, 8), ir.VectorType(_BYTE, 32)
        multiply = llvm_function(builder, "llvm.x86.avx512.vpdpbusd.256", ints, [ints, bytes_, bytes_])
        parts = zip(*(_half_vectors(builder, x) for x in (sums, codes, builder.bitcast(values, _BYTES))), strict=True)
        return _joined(builder, *(builder.call(multiply, list(part)) for part in parts))
    if how == "avx2":
        return _add_products_in_shorts(builder, sums, codes, values)
    wide = builder.bitcast(codes, _INTS)
    for byte in range(4):
        code = builder.and_(builder.lshr(wide, _constant(_INTS, 8 * byte)), _constant(_INTS, 255))
        value = builder.ashr(builder.shl(values, _constant(_INTS, 24 - 8 * byte)), _constant(_INTS, 24))
        sums = builder.add(sums, builder.mul(code, value))
    return sums


def _add_products_in_shorts(builder: Any, sums: Any, codes: Any, values: Any) -> Any:
    """AVX2: bytes 0 and 2 of a lane, then 1 and 3, as 16-bit numbers whose products are added in pairs."""
    shorts, ints, half = ir.VectorType(_SHORT, 32), ir.VectorType(_INT, 8), ir.VectorType(_SHORT, 16)
    multiply = llvm_function(builder, "llvm.x86.avx2.pmadd.wd", ints, [half, half])
    code, value = builder.bitcast(codes, shorts), builder.bitcast(values, shorts)
    eight = _constant(shorts, 8)
    even = (builder.and_(code, _constant(shorts, 255)), builder.ashr(builder.shl(value, eight), eight))
    odd = (builder.lshr(code, eight), builder.ashr(value, eight))
    for pair in (even, odd):
        parts = zip(*(_half_vectors(builder, x) for x in pair), strict=True)
        sums = builder.add(sums, _joined(builder, *(builder.call(multiply, list(part)) for part in parts)))
    return sums


class _Loop:
    """Emits the inner loop of one tile and R rows: over the blocks, with all sums in registers."""

    def __init__(self, builder: Any, kind: Kind, rows: int, how: str, values: dict[str, Any], *, fetches: bool):
        self.builder, self.kind, self.rows, self.how, self.values = builder, kind, rows, how, values
        self.fetches = fetches

    def emit(self) -> None:
        """The whole loop, and the stores of its results."""
        b = self.builder
        sums = [cgutils.alloca_once(b, _FLOATS) for _ in range(self.rows)]
        for place in sums:
            b.store(_constant(_FLOATS, 0.0), place)
        with cgutils.for_range(b, self.values["blocks"]) as loop:
            self._block(loop.index, sums)
        for r, place in enumerate(sums):
            target = b.gep(self.values["out"], [self._row("out", r)])
            b.store(b.load(place), b.bitcast(target, _FLOATS.as_pointer()), align=4)

    def _row(self, name: str, r: int) -> Any:
        """Where row r begins in an array."""
        b = self.builder
        return b.add(self.values[f"{name}_at"], b.mul(self.values[f"{name}_stride"], ir.Constant(_LONG, r)))

    def _block(self, index: Any, sums: list[Any]) -> None:
        b, kind = self.builder, self.kind
        record = b.gep(self.values["weights"], [b.mul(index, ir.Constant(_LONG, kind.record_bytes))])
        scales, totals = zip(*(self._row_numbers(index, r) for r in range(self.rows)), strict=True)
        offset = b.sub(ir.Constant(_INT, 0), self.values["zero"])
        whole = [_splat(b, b.mul(total, offset), _INTS) for total in totals]
        moved = b.mul(index, ir.Constant(_LONG, kind.block))
        inputs = [b.gep(self.values["codes"], [b.add(self._row("codes", r), moved)]) for r in range(self.rows)]
        if self.fetches:
            self._fetch_next(record)
        for group, codes in self._groups(record):
            for r in range(self.rows):
                four = b.bitcast(b.gep(inputs[r], [ir.Constant(_LONG, 4 * group)]), _INT.as_pointer())
                whole[r] = _add_products(b, whole[r], codes, b.load(four, align=4), self.how)
        self._scale(record, whole, scales, totals, sums)

    def _fetch_next(self, record: Any) -> None:
        """Ask for the record of the same place in the next tile, which is read when this tile has met all its rows."""
        b, kind = self.builder, self.kind
        pointer = _BYTE.as_pointer()
        fetch = llvm_function(b, "llvm.prefetch.p0i8", ir.VoidType(), [pointer, _INT, _INT, _INT])
        distance = b.mul(self.values["blocks"], ir.Constant(_LONG, kind.record_bytes))
        for line in range(0, kind.record_bytes, 64):
            place = b.gep(record, [b.add(distance, ir.Constant(_LONG, line))])
            b.call(
                fetch, [place, *(ir.Constant(_INT, number) for number in (0, 2, 1))]
            )  # to read, into the second cache, data

    def _row_numbers(self, index: Any, r: int) -> tuple[Any, Any]:
        """The scale of a row's block and the sum of its codes."""
        b = self.builder
        one = ir.Constant(_LONG, 1)
        first = self._row("scales", r)
        scale = b.load(
            b.gep(self.values["scales"], [b.add(first, index if self.kind.block == 32 else b.lshr(index, one))])
        )
        at = b.add(b.shl(first, one), index if self.kind.block == 16 else b.shl(index, one))
        total = b.load(b.gep(self.values["sums"], [at]))
        if self.kind.block == 32:
            total = b.add(total, b.load(b.gep(self.values["sums"], [b.add(at, one)])))
        return scale, total

    def _groups(self, record: Any) -> Any:
        """For each four inputs their number and their codes."""
        b, kind = self.builder, self.kind
        for vector in range(kind.block * kind.bits // 32):
            at = ir.Constant(_LONG, kind.head_bytes + 4 * LANES * vector)
            codes = b.load(b.bitcast(b.gep(record, [at]), _BYTES.as_pointer()), align=32)
            if kind.bits == 8:
                yield vector, codes
                continue
            yield 2 * vector, b.and_(codes, _constant(_BYTES, 15))
            yield 2 * vector + 1, b.lshr(codes, _constant(_BYTES, 4))

    def _numbers(self, record: Any, place: int) -> Any:
        """The scales (place 0) or minimums (1) of a record as 16 floats."""
        b = self.builder
        kind = _HALVES if self.kind.half else _FLOATS
        at = b.gep(record, [ir.Constant(_LONG, place * LANES * (2 if self.kind.half else 4))])
        loaded = b.load(b.bitcast(at, kind.as_pointer()), align=32)
        return b.fpext(loaded, _FLOATS) if self.kind.half else loaded

    def _scale(self, record: Any, whole: Any, scales: Any, totals: Any, sums: Any) -> None:
        """Add the block's whole numbers, scaled, to the float sums."""
        b = self.builder
        fma = llvm_function(b, "llvm.fma.v16f32", _FLOATS, [_FLOATS] * 3)
        weights = self._numbers(record, 0)
        minimums = self._numbers(record, 1) if self.kind.has_minimums else None
        for r in range(self.rows):
            scale = b.fmul(_splat(b, scales[r], _FLOATS), weights)
            value = b.call(fma, [b.sitofp(whole[r], _FLOATS), scale, b.load(sums[r])])
            if minimums is not None:
                shift = _splat(b, b.fmul(scales[r], b.sitofp(totals[r], _FLOAT)), _FLOATS)
                value = b.call(fma, [shift, minimums, value])
            b.store(value, sums[r])


_ARGUMENTS = ("weights", "blocks", "zero", "codes", "codes_at", "codes_stride", "scales", "sums", "scales_at",
              "scales_stride", "out", "out_at", "out_stride")  # fmt: skip


def _declared(module: Any, kind: Kind, rows: int, how: str, fetches: bool, takes: list[Any]) -> Any:
    """The loop as a function of its own, known to its module alone: LLVM would else compile a copy wherever it is called."""
    name = f"firsthand_product_{KINDS.index(kind)}_{rows}_{how}{'_fetching' if fetches else ''}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), takes), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    values = dict(zip(_ARGUMENTS, function.args, strict=True))
    values["codes"] = builder.bitcast(values["codes"], _BYTE.as_pointer())
    values["weights"] = builder.inttoptr(values["weights"], _BYTE.as_pointer())
    _Loop(builder, kind, rows, how, values, fetches=fetches).emit()
    builder.ret_void()
    return function


def inner_loop(kind: Kind, rows: int, how: str | None = None, *, fetches: bool = False) -> Any:
    """An intrinsic that computes the 16 outputs of a tile for `rows` rows. Its arguments are `_ARGUMENTS`.

    Nothing is checked. With `fetches` it asks memory for the next tile while it computes, which changes no number.
    `weights` is the address of the tile; `zero` an int32; `codes`, `scales`, `sums` and `out` flat arrays with the place of
    the first row and the step to the next (the place in `sums` is twice that in `scales`).
    """
    how = how or instructions()

    def product(
        typing: Any,
        weights: Any,
        blocks: Any,
        zero: Any,
        codes: Any,
        codes_at: Any,
        codes_stride: Any,
        scales: Any,
        sums: Any,
        scales_at: Any,
        scales_stride: Any,
        out: Any,
        out_at: Any,
        out_stride: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = [
                context.make_array(kind_of)(context, builder, value).data if isinstance(kind_of, types.Array) else value
                for kind_of, value in zip(signature.args, args, strict=True)
            ]
            builder.call(_declared(builder.module, kind, rows, how, fetches, [value.type for value in given]), given)
            return context.get_dummy_value()

        at = types.intp
        return types.void(at, at, types.int32, codes, at, at, scales, sums, at, at, out, at, at), generate

    return _intrinsic(product)


def _make_multiply(kind: Kind, how: str | None = None) -> Any:
    """A function that multiplies rows with the tiles of one kind."""
    one, two, four, eight = (inner_loop(kind, rows, how) for rows in (1, 2, 4, 8))
    eight_fetching = inner_loop(kind, 8, how, fetches=True)

    @called
    @named(f"multiply_{KINDS.index(kind)}_{how or instructions()}")
    def multiply_kind(
        address: int, tile_bytes: int, blocks: int, zero: Any, first_tile: int, last_tile: int, first_row: int,
        last_row: int, codes: Any, codes_stride: int, scales: Any, sums: Any, out: Any, column: int, out_stride: int,
    ) -> None:  # fmt: skip
        step = codes_stride // 32
        for tile in range(first_tile, last_tile):
            at, row, to = address + tile * tile_bytes, first_row, column + tile * LANES
            if row + 8 < last_row:  # memory brings the next tile while more rows are multiplied with this one
                eight_fetching(at, blocks, zero, codes, row * codes_stride, codes_stride, scales, sums, row * step, step,
                               out, row * out_stride + to, out_stride)  # fmt: skip
                row += 8
            while row + 8 <= last_row:
                eight(at, blocks, zero, codes, row * codes_stride, codes_stride, scales, sums, row * step, step, out,
                      row * out_stride + to, out_stride)  # fmt: skip
                row += 8
            if row + 4 <= last_row:
                four(at, blocks, zero, codes, row * codes_stride, codes_stride, scales, sums, row * step, step, out,
                     row * out_stride + to, out_stride)  # fmt: skip
                row += 4
            if row + 2 <= last_row:
                two(at, blocks, zero, codes, row * codes_stride, codes_stride, scales, sums, row * step, step, out,
                    row * out_stride + to, out_stride)  # fmt: skip
                row += 2
            if row < last_row:
                one(at, blocks, zero, codes, row * codes_stride, codes_stride, scales, sums, row * step, step, out,
                    row * out_stride + to, out_stride)  # fmt: skip

    return multiply_kind


_multiply_0, _multiply_1, _multiply_2, _multiply_3, _multiply_4, _multiply_5 = (_make_multiply(kind) for kind in KINDS)


@called
def multiply(
    entry: Any,
    first_tile: int,
    last_tile: int,
    first_row: int,
    last_row: int,
    codes: Any,
    codes_stride: int,
    scales: Any,
    sums: Any,
    out: Any,
    column: int,
    out_stride: int,
) -> None:
    """Rows times some tiles of the matrix whose `Tiles.entry` is given."""
    address, kind, tile_bytes, blocks, zero = entry[0], entry[1], entry[3], entry[4], np.int32(entry[5])
    if kind == 0:
        _multiply_0(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip
    elif kind == 1:
        _multiply_1(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip
    elif kind == 2:
        _multiply_2(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip
    elif kind == 3:
        _multiply_3(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip
    elif kind == 4:
        _multiply_4(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip
    else:
        _multiply_5(address, tile_bytes, blocks, zero, first_tile, last_tile, first_row, last_row, codes, codes_stride,
                    scales, sums, out, column, out_stride)  # fmt: skip


@kernel
def _product(entry: Any, rows: Any, codes: Any, scales: Any, sums: Any, out: Any) -> None:
    count, width = rows.shape
    flat = rows.reshape(-1)
    for row in range(count):
        round_row(flat, row * width, width, codes, row * width, scales, sums, row * (width // 32))
    multiply(entry, 0, entry[2], 0, count, codes, width, scales, sums, out.reshape(-1), 0, out.shape[1])


def product(rows_NK: NDArray[np.float32], tiles: Tiles) -> NDArray[np.float32]:
    """Rows, rounded to 8 bits, times a matrix: N O. In this thread alone."""
    count, width = rows_NK.shape
    codes, scales = np.empty(count * width, dtype=np.int8), np.empty(count * width // 32, dtype=np.float32)
    sums = np.empty(count * width // 16, dtype=np.int32)
    out = np.empty((count, tiles.num_tiles * LANES), dtype=np.float32)
    _product(np.array(tiles.entry(), dtype=np.int64), rows_NK, codes, scales, sums, out)
    return out[:, : tiles.outputs]
