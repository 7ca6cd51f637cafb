"""8-bit dot products, with the instructions that the processor has.

x86 with AVX-512 VNNI or AVX-VNNI multiplies bytes in one instruction; AVX2 goes through 16 bits; elsewhere LLVM gets
plain code, which is correct but slow. All give the same integers. Left out: ARM's i8mm, and AMX.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]

from firsthand.kernels.products.tiled_weights import LANES
from firsthand.kernels.vectors import INT, INTS, constant, llvm_function

BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)


def instructions() -> str:
    """The byte products that this processor supports: `vnni512`, `vnni256`, `avx2` or `plain`."""
    features = binding.get_host_cpu_features()
    if features.get("avx512vnni"):
        return "vnni512"
    if features.get("avxvnni"):
        return "vnni256"
    return "avx2" if features.get("avx2") else "plain"


def add_products(builder: Any, sums: Any, codes: Any, values: Any, how: str) -> Any:
    """sums[lane] + the four products of a lane: of its unsigned bytes in `codes` with its signed bytes in `values`."""
    if how == "vnni512":
        multiply = llvm_function(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, [INTS, BYTES, BYTES])
        return builder.call(multiply, [sums, codes, builder.bitcast(values, BYTES)])
    if how == "vnni256":
        ints, bytes_ = ir.VectorType(INT, 8), ir.VectorType(ir.IntType(8), 32)
        multiply = llvm_function(builder, "llvm.x86.avx512.vpdpbusd.256", ints, [ints, bytes_, bytes_])
        parts = zip(*(_halves(builder, x) for x in (sums, codes, builder.bitcast(values, BYTES))), strict=True)
        return _joined(builder, *(builder.call(multiply, list(part)) for part in parts))
    if how == "avx2":
        return _add_products_in_shorts(builder, sums, codes, values)
    wide = builder.bitcast(codes, INTS)
    for byte in range(4):
        code = builder.and_(builder.lshr(wide, constant(INTS, 8 * byte)), constant(INTS, 255))
        value = builder.ashr(builder.shl(values, constant(INTS, 24 - 8 * byte)), constant(INTS, 24))
        sums = builder.add(sums, builder.mul(code, value))
    return sums


def _add_products_in_shorts(builder: Any, sums: Any, codes: Any, values: Any) -> Any:
    """AVX2: bytes 0 and 2 of a lane, then 1 and 3, as 16-bit numbers whose products are added in pairs."""
    short = ir.IntType(16)
    shorts, half, ints = ir.VectorType(short, 32), ir.VectorType(short, 16), ir.VectorType(INT, 8)
    multiply = llvm_function(builder, "llvm.x86.avx2.pmadd.wd", ints, [half, half])
    code, value = builder.bitcast(codes, shorts), builder.bitcast(values, shorts)
    eight = constant(shorts, 8)
    even = (builder.and_(code, constant(shorts, 255)), builder.ashr(builder.shl(value, eight), eight))
    odd = (builder.lshr(code, eight), builder.ashr(value, eight))
    for pair in (even, odd):
        parts = zip(*(_halves(builder, x) for x in pair), strict=True)
        sums = builder.add(sums, _joined(builder, *(builder.call(multiply, list(part)) for part in parts)))
    return sums


def _halves(builder: Any, vector: Any) -> list[Any]:
    count = vector.type.count // 2
    return [
        builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT, count), list(range(at, at + count))))
        for at in (0, count)
    ]


def _joined(builder: Any, low: Any, high: Any) -> Any:
    count = low.type.count * 2
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(INT, count), list(range(count))))
