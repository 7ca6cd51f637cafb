"""Reads the codes of a tile's record (`tiled_weights`), and expands them to bytes for many rows."""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from firsthand.kernels.products.dot_instructions import BYTES
from firsthand.kernels.products.tiled_weights import LANES, Kind
from firsthand.kernels.vectors import LONG, constant

_intrinsic: Any = intrinsic
_WORDS = ir.VectorType(ir.IntType(16), 2 * LANES)


def widened(kind: Kind) -> Kind:
    """The same with bytes for codes."""
    return kind._replace(bits=8)


def emit_codes(builder: Any, kind: Kind, record: Any, group: int) -> Any:
    """Emit the codes of four inputs and 16 outputs as 64 bytes."""
    if kind.bits == 8:
        return builder.load(_vector(builder, kind, record, group), align=32)
    both = builder.load(_vector(builder, kind, record, group // 2), align=32)
    low = builder.lshr(both, constant(BYTES, 4)) if group % 2 else builder.and_(both, constant(BYTES, 15))
    if kind.bits == 4:
        return low
    high, extra = builder.load(_vector(builder, kind, record, kind.groups // 2), align=32), kind.bits - 4
    by = 4 - group * extra  # to the left; processors shift 16 bits, not 8
    words = builder.bitcast(high, _WORDS)
    words = builder.shl(words, constant(_WORDS, by)) if by >= 0 else builder.lshr(words, constant(_WORDS, -by))
    mask = ((1 << extra) - 1) << 4  # what came from a neighbouring byte falls away
    return builder.or_(low, builder.and_(builder.bitcast(words, BYTES), constant(BYTES, mask)))


def _vector(builder: Any, kind: Kind, record: Any, number: int) -> Any:
    place = builder.gep(record, [ir.Constant(LONG, kind.head_bytes + 4 * LANES * number)])
    return builder.bitcast(place, BYTES.as_pointer())


def widen(kind: Kind) -> Any:
    """An intrinsic that writes so many records with bytes for codes to an address: `widen(records, count, target)`."""
    wide = widened(kind)

    def typed(typing: Any, records: Any, count: Any, target: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            source, to = (builder.inttoptr(args[i], ir.IntType(8).as_pointer()) for i in (0, 2))
            with cgutils.for_range(builder, args[1]) as loop:
                record = builder.gep(source, [builder.mul(loop.index, ir.Constant(LONG, kind.record_bytes))])
                place = builder.gep(to, [builder.mul(loop.index, ir.Constant(LONG, wide.record_bytes))])
                cgutils.raw_memcpy(builder, place, record, ir.Constant(LONG, kind.head_bytes), 1)
                for group in range(kind.groups):
                    codes = emit_codes(builder, kind, record, group)
                    codes = builder.add(codes, constant(BYTES, wide.zero - kind.zero))
                    builder.store(codes, _vector(builder, wide, place, group), align=32)
            return context.get_dummy_value()

        index = types.intp
        return types.void(index, index, index), generate

    return _intrinsic(typed)
