"""The compiled half of `paged_attention`: writing keys and values into blocks, and attention that reads them there.

Its arithmetic is over vectors of 16 floats with the order of every sum written down. A plain numba loop over floats either
may not be reordered, and is slow, or may (`fastmath`), and then its result depends on how it was compiled. Here `fma`
rounds once, each lane does what the code says, and LLVM maps a vector to whatever registers the machine has (one of
AVX-512, two of AVX2, four of NEON). First the vectors, then the kernels; they share a file because numba's cache on disk
notices changes only in the file that a kernel is in.

Importing this file imports numba. The kernels release Python's lock, so plain threads may run them side by side.
"""

# K head_dim, L K rounded up to whole vectors, S slots of a block
# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic, models, register_model

_njit: Any = njit
_intrinsic: Any = intrinsic
LANES = 16
"""Floats of a vector."""
TILE = 4
"""Queries that share a kv head and are computed together, so that four sums run side by side."""
LOWEST = np.float32(-1e30)
"""Stands for minus infinity where a difference of two of them must be 0 and not NaN."""
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


class Float16Lanes(types.Type):
    """The numba type of 16 floats of 32 bits."""

    def __init__(self) -> None:
        super().__init__(name="Float16Lanes")


LANES_TYPE = Float16Lanes()


@register_model(Float16Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def _address(builder: Any, context: Any, signature: Any, args: Any, position: int) -> Any:
    """A pointer to 16 floats that start at an index of a one-dimensional contiguous float32 array."""
    array = context.make_array(signature.args[position])(context, builder, args[position])
    start = builder.gep(array.data, [args[position + 1]])
    return builder.bitcast(start, _FLOATS.as_pointer())


@_intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The 16 floats of a flat array that start at an index. There is no bounds check."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(builder, context, signature, args, 0), align=4)

    return LANES_TYPE(array, types.intp), generate


@_intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 floats to a flat array from an index on. There is no bounds check."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(builder, context, signature, args, 0), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), generate


def _function(builder: Any, name: str, returns: Any, takes: list[Any]) -> Any:
    """LLVM's own function of that name, declared once a module."""
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(returns, takes), name)


@_intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element before it is needed; changes no value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        place = builder.bitcast(_address(builder, context, signature, args, 0), pointer)
        declared = _function(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, _INT, _INT, _INT])
        builder.call(declared, [place, *(ir.Constant(_INT, flag) for flag in (0, 3, 1))])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    zeros = ir.Constant(_INTS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


@_intrinsic
def splat(typing: Any, value: Any) -> Any:
    """One float in all 16 lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], _FLOATS)

    return LANES_TYPE(types.float32), generate


@_intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in each lane, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(_function(builder, "llvm.fma.v16f32", _FLOATS, [_FLOATS] * 3), args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), generate


def _binary(operation: str, doc: str) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, operation)(*args)

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate

    typed.__doc__ = doc
    return _intrinsic(typed)


add = _binary("fadd", "a + b in each lane.")
sub = _binary("fsub", "a - b in each lane.")
mul = _binary("fmul", "a * b in each lane.")


@_intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of a and b in each lane; a where either is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_unordered(">", *args), *args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), generate


@_intrinsic
def where_between(typing: Any, low: Any, high: Any, inside: Any, outside: Any) -> Any:
    """`inside` in the lanes from `low` up to but not including `high`, `outside` in the others."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.Constant(_INTS, list(range(LANES)))
        low, high = (_splat(builder, builder.trunc(bound, _INT), _INTS) for bound in args[:2])
        mask = builder.and_(builder.icmp_signed(">=", number, low), builder.icmp_signed("<", number, high))
        return builder.select(mask, args[2], args[3])

    return LANES_TYPE(types.intp, types.intp, LANES_TYPE, LANES_TYPE), generate


def _fold(operation: str) -> Any:
    """Combine lanes by halves: 8 with 8, 4 with 4, 2 with 2, 1 with 1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes, count = args[0], LANES
        while count > 1:
            count //= 2
            kind = ir.VectorType(_INT, count)
            left, right = (
                builder.shuffle_vector(lanes, lanes, ir.Constant(kind, list(range(first, first + count))))
                for first in (0, count)
            )
            if operation == "add":
                lanes = builder.fadd(left, right)
            else:
                lanes = builder.select(builder.fcmp_ordered(">", left, right), left, right)
        return builder.extract_element(lanes, ir.Constant(_INT, 0))

    return generate


@_intrinsic
def total(typing: Any, lanes: Any) -> Any:
    """The sum of the 16 lanes, by halves."""
    return types.float32(LANES_TYPE), _fold("add")


@_intrinsic
def largest(typing: Any, lanes: Any) -> Any:
    """The largest of the 16 lanes."""
    return types.float32(LANES_TYPE), _fold("max")


@_intrinsic
def power_of_two(typing: Any, lanes: Any) -> Any:
    """2 ** x for lanes that hold whole numbers from -126 to 127: the number becomes the float's exponent. NaN gives 1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = builder.call(_function(builder, "llvm.fptosi.sat.v16i32.v16f32", _INTS, [_FLOATS]), args)
        biased = builder.add(whole, ir.Constant(_INTS, [127] * LANES))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INTS, [23] * LANES)), _FLOATS)

    return LANES_TYPE(LANES_TYPE), generate


_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(-0.693359375), np.float32(2.12194440e-4)
_ROUND = np.float32(12582912.0)
_C2, _C3, _C4 = np.float32(0.49999994), np.float32(0.16666667), np.float32(0.041666519)
_C5, _C6 = np.float32(0.0083369050), np.float32(0.0013908699)
_FLOOR = np.float32(-87.0)


@_njit(inline="always")
def exp(x: Any) -> Any:
    """e ** x for lanes of 0 and below, to about 2 units in the last place; below -87 it is e ** -87, about 1.6e-38."""
    x = larger(x, splat(_FLOOR))
    whole = sub(add(mul(x, splat(_LOG2_E)), splat(_ROUND)), splat(_ROUND))
    rest = fma(whole, splat(_LN2_LOW), fma(whole, splat(_LN2_HIGH), x))
    series = fma(splat(_C6), rest, splat(_C5))
    series = fma(series, rest, splat(_C4))
    series = fma(series, rest, splat(_C3))
    series = fma(series, rest, splat(_C2))
    series = fma(series, mul(rest, rest), add(rest, splat(_ONE)))
    return mul(series, power_of_two(whole))


@_njit(cache=True, nogil=True)
def write(k_NGK: Any, v_NGK: Any, keys: Any, values: Any, spans: Any, tables: Any, block_size: int) -> None:
    """Put each packed token's key and value into its slot."""
    num_kv_heads, head_dim = k_NGK.shape[1], k_NGK.shape[2]
    padded = (head_dim + LANES - 1) // LANES * LANES
    for chunk in range(len(spans)):
        for i in range(spans[chunk, 2]):
            row, position = spans[chunk, 0] + i, spans[chunk, 1] + i
            block, slot = tables[chunk, position // block_size], position % block_size
            for g in range(num_kv_heads):
                page = (block * num_kv_heads + g) * block_size
                for d in range(head_dim):
                    keys[page * head_dim + d * block_size + slot] = k_NGK[row, g, d]
                    values[(page + slot) * padded + d] = v_NGK[row, g, d]
                for d in range(head_dim, padded):
                    values[(page + slot) * padded + d] = _ZERO


@_njit(inline="always")
def _probabilities(scores: Any, low: int, high: int, maxima: Any, sums: Any, i: int) -> Any:
    """exp(score - maximum so far) in the visible lanes, 0 elsewhere, and the factor for what came before."""
    scores = where_between(low, high, scores, splat(LOWEST))
    old = maxima[i]
    new = max(old, largest(scores))
    maxima[i] = new
    factor = exp(splat(old - new))
    weights = where_between(low, high, exp(sub(scores, splat(new))), splat(_ZERO))
    store(sums, i * LANES, fma(load(sums, i * LANES), factor, weights))
    return weights, factor


@_njit(cache=True, nogil=True)
def attend(
    items: Any,
    q: Any,
    keys: Any,
    values: Any,
    spans: Any,
    tables: Any,
    block_size: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: Any,
    window: int,
    out_NHK: Any,
) -> None:
    """Attention for some items of work; each is four queries of one chunk that share a kv head. Window 0 is none."""
    group = num_heads // num_kv_heads
    padded = (head_dim + LANES - 1) // LANES * LANES
    queries = np.empty(TILE * head_dim, dtype=np.float32)
    mixed = np.empty(TILE * padded, dtype=np.float32)
    weights = np.empty(TILE * LANES, dtype=np.float32)
    sums = np.empty(TILE * LANES, dtype=np.float32)
    maxima = np.empty(TILE, dtype=np.float32)
    rows, heads, at = np.empty(TILE, np.int64), np.empty(TILE, np.int64), np.empty(TILE, np.int64)
    for item in range(len(items)):
        chunk, g, first = items[item, 0], items[item, 1], items[item, 2]
        row, start, count = spans[chunk, 0], spans[chunk, 1], spans[chunk, 2]
        for i in range(TILE):
            query = min(first + i, count * group - 1)  # a tile with fewer queries does its last one again
            rows[i], heads[i], at[i] = row + query // group, g * group + query % group, start + query // group
            for d in range(head_dim):
                queries[i * head_dim + d] = q[(rows[i] * num_heads + heads[i]) * head_dim + d] * scale
        mixed[:] = _ZERO
        sums[:] = _ZERO
        maxima[:] = LOWEST
        begin = max(at[0] - window + 1, 0) if window > 0 else 0
        end = at[TILE - 1] + 1
        for base in range(begin // LANES * LANES, end, LANES):
            page = (tables[chunk, base // block_size] * num_kv_heads + g) * block_size
            slot = base % block_size
            # blocks are scattered, so the processor cannot guess where the next one lies
            after = min(base + LANES, end - 1)
            next_page = (tables[chunk, after // block_size] * num_kv_heads + g) * block_size
            next_slot = after % block_size // LANES * LANES
            s0, s1, s2, s3 = splat(_ZERO), splat(_ZERO), splat(_ZERO), splat(_ZERO)
            for d in range(head_dim):
                k = load(keys, page * head_dim + d * block_size + slot)
                prefetch(keys, next_page * head_dim + d * block_size + next_slot)
                s0 = fma(splat(queries[d]), k, s0)
                s1 = fma(splat(queries[head_dim + d]), k, s1)
                s2 = fma(splat(queries[2 * head_dim + d]), k, s2)
                s3 = fma(splat(queries[3 * head_dim + d]), k, s3)
            lows0 = max(at[0] - window + 1 - base, 0) if window > 0 else 0
            lows1 = max(at[1] - window + 1 - base, 0) if window > 0 else 0
            lows2 = max(at[2] - window + 1 - base, 0) if window > 0 else 0
            lows3 = max(at[3] - window + 1 - base, 0) if window > 0 else 0
            w0, f0 = _probabilities(s0, lows0, at[0] + 1 - base, maxima, sums, 0)
            w1, f1 = _probabilities(s1, lows1, at[1] + 1 - base, maxima, sums, 1)
            w2, f2 = _probabilities(s2, lows2, at[2] + 1 - base, maxima, sums, 2)
            w3, f3 = _probabilities(s3, lows3, at[3] + 1 - base, maxima, sums, 3)
            store(weights, 0, w0)
            store(weights, LANES, w1)
            store(weights, 2 * LANES, w2)
            store(weights, 3 * LANES, w3)
            written = min(LANES, end - base)
            for c in range(0, padded, LANES):
                m0 = mul(load(mixed, c), f0)
                m1 = mul(load(mixed, padded + c), f1)
                m2 = mul(load(mixed, 2 * padded + c), f2)
                m3 = mul(load(mixed, 3 * padded + c), f3)
                for t in range(written):
                    v = load(values, (page + slot + t) * padded + c)
                    prefetch(values, (next_page + next_slot + t) * padded + c)
                    m0 = fma(splat(weights[t]), v, m0)
                    m1 = fma(splat(weights[LANES + t]), v, m1)
                    m2 = fma(splat(weights[2 * LANES + t]), v, m2)
                    m3 = fma(splat(weights[3 * LANES + t]), v, m3)
                store(mixed, c, m0)
                store(mixed, padded + c, m1)
                store(mixed, 2 * padded + c, m2)
                store(mixed, 3 * padded + c, m3)
        for i in range(TILE):
            share = _ONE / total(load(sums, i * LANES))
            for d in range(head_dim):
                out_NHK[rows[i], heads[i], d] = mixed[i * padded + d] * share
