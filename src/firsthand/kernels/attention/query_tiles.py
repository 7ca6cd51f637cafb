"""The two inner loops of attention for several queries at once, with every sum in a register.

Each is emitted in LLVM for a number of queries: a loaded key or value serves all of them, and enough independent sums hide
the latency of a multiply-add. The number of queries changes no bit: each query has its own sums, over head dimensions
(scores) or positions (mixing) in ascending order.
"""

# R queries of a tile, P vectors of positions, C vectors of a value's columns

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from firsthand.kernels.vectors import FLOATS, LANES, emit_prefetch, llvm_function, pointer_to, read_floats, splat_in

_intrinsic: Any = intrinsic
_INT = ir.IntType(64)
SEGMENT = 128
"""Positions of a segment: softmax is computed within segments, which start at multiples of it, and then merged."""

AHEAD = 2 * SEGMENT // LANES
"""Distance from the slots of a segment's values to those of the next segment's keys."""


def _registers() -> int:
    """The number of vectors of 16 floats for sums: 30 of 32 with AVX-512 (two are left to the compiler), else 8."""
    return 30 if binding.get_host_cpu_features().get("avx512f") else 8


REGISTERS = _registers()
MOST = 8 if REGISTERS > 8 else 3
"""The largest number of queries of a tile."""


def beside(queries: int) -> int:
    """The number of vectors (1, 2 or 4) per step of so many queries, such that sums and operands fit the registers."""
    return max(width for width in (1, 2, 4) if width * queries + width + queries <= REGISTERS or width == 1)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.call(llvm_function(builder, "llvm.fma.v16f32", FLOATS, [FLOATS] * 3), [a, b, c])


def _constant(value: int) -> Any:
    return ir.Constant(_INT, value)


def _not_unrolled(module: Any) -> Any:
    """Metadata that keeps LLVM from unrolling a loop, which would need more registers than there are."""
    wish = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([ir.MetaDataString(module, "loop"), ir.Constant(_INT, len(module.metadata))])
    loop.operands = (loop, wish)  # a loop's name is a node that begins with itself
    return loop


def _loop(
    builder: Any, first: Any, end: Any, state: list[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """Emit `for i in range(first, end): state = body(i, state)` and return the last state. The state is in registers."""
    before, inside, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.cbranch(builder.icmp_signed("<", first, end), inside, after)
    builder.position_at_end(inside)
    index = builder.phi(_INT)
    index.add_incoming(first, before)
    values = [builder.phi(FLOATS) for _ in state]
    for value, start in zip(values, state, strict=True):
        value.add_incoming(start, before)
    results = body(index, values)
    following = builder.add(index, _constant(1))
    index.add_incoming(following, builder.block)
    back = builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
    back.set_metadata("llvm.loop", _not_unrolled(builder.module))
    for value, result in zip(values, results, strict=True):
        value.add_incoming(result, builder.block)
    last = builder.block
    builder.position_at_end(after)
    final = [builder.phi(FLOATS) for _ in state]
    for value, start, result in zip(final, state, results, strict=True):
        value.add_incoming(start, before)
        value.add_incoming(result, last)
    return final


def _vector_at(builder: Any, pointer: Any) -> Any:
    return builder.bitcast(pointer, FLOATS.as_pointer())


def _data(builder: Any, context: Any, signature: Any, args: Any, position: int) -> Any:
    """A pointer to the first element of an array."""
    return context.make_array(signature.args[position])(context, builder, args[position]).data


def _at_places(builder: Any, data: Any, places: Any, width: int) -> list[Any]:
    """Pointers to the elements at `width` places."""
    return [builder.gep(data, [builder.load(builder.gep(places, [_constant(p)]))]) for p in range(width)]


def _divide(builder: Any, value: Any, divisor: int) -> tuple[Any, Any]:
    """Quotient and remainder of a number of 0 and above by a power of two."""
    return builder.lshr(value, _constant(divisor.bit_length() - 1)), builder.and_(value, _constant(divisor - 1))


def score(queries: int, width: int) -> Any:
    """The intrinsic that multiplies R queries with `width` vectors of keys.

    `score(q, q_at, keys, places, place_at, stride, head_dim, scores, scores_at, values, ahead_at)`: the first 16 dimensions
    of each query come first, then the next 16 of each; vector p begins at `places[place_at + p]`, and its next dimension
    `stride` later. Scores of query r go to `scores_at + r * SEGMENT` and on. Meanwhile the values of the same positions,
    from `places[ahead_at + p]` on, are prefetched.
    """

    def typed(
        typing: Any, q: Any, q_at: Any, keys: Any, places: Any, place_at: Any, stride: Any, head_dim: Any, scores: Any,
        scores_at: Any, values: Any, ahead_at: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            q_from, places_from, scores_from = (
                pointer_to(builder, context, signature, args, position) for position in (0, 3, 7)
            )
            stride, head_dim = args[5], args[6]
            starts = _at_places(builder, _data(builder, context, signature, args, 2), places_from, width)
            ahead_from = builder.gep(_data(builder, context, signature, args, 3), [args[10]])
            aheads = _at_places(builder, _data(builder, context, signature, args, 9), ahead_from, width)

            def step(d: Any, sums: list[Any]) -> list[Any]:
                along = builder.mul(d, stride)
                columns = [read_floats(builder, keys.dtype, builder.gep(start, [along])) for start in starts]
                part, within = _divide(builder, d, LANES)
                first = builder.gep(q_from, [builder.add(builder.mul(part, _constant(queries * LANES)), within)])
                for ahead in aheads:
                    emit_prefetch(builder, builder.gep(ahead, [builder.mul(d, _constant(LANES))]), 3)
                results = []
                for r in range(queries):
                    query = splat_in(builder, builder.load(builder.gep(first, [_constant(r * LANES)])), FLOATS)
                    results += [_fma(builder, query, columns[p], sums[r * width + p]) for p in range(width)]
                return results

            zero = ir.Constant(FLOATS, [0.0] * LANES)
            sums = _loop(builder, _constant(0), head_dim, [zero] * (queries * width), step)
            for i, total in enumerate(sums):
                at = _constant(i // width * SEGMENT + i % width * LANES)
                builder.store(total, _vector_at(builder, builder.gep(scores_from, [at])), align=4)
            return context.get_dummy_value()

        index = types.intp
        return types.void(q, index, keys, places, index, index, index, scores, index, values, index), generate

    return _intrinsic(typed)


def mix(queries: int, width: int) -> Any:
    """The intrinsic that adds weighted values to R rows of sums, `width` vectors of columns of them.

    `mix(weights, weights_at, values, column, places, place_at, stride, low, high, mixed, mixed_at, row, keys, key_stride)`:
    position t, from `low` to `high`, lies in vector t // 16 whose first value begins at `column + places[place_at + t //
    16]`; the next position's lies `stride` later. The weight of query r is at `weights_at + r * SEGMENT + t`, its sums `row`
    apart. Meanwhile the next segment's keys, which begin at `places[place_at + AHEAD + t // 16]`, are prefetched.
    """

    def typed(
        typing: Any, weights: Any, weights_at: Any, values: Any, column: Any, places: Any, place_at: Any, stride: Any,
        low: Any, high: Any, mixed: Any, mixed_at: Any, row: Any, keys: Any, key_stride: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weights_from, values_from, places_from, mixed_from = (
                pointer_to(builder, context, signature, args, position) for position in (0, 2, 4, 9)
            )
            column, stride, low, high, row, key_stride = args[3], args[6], args[7], args[8], args[11], args[13]
            keys_from = _data(builder, context, signature, args, 12)
            rows = [builder.gep(mixed_from, [builder.mul(row, _constant(r))]) for r in range(queries)]
            cells = [
                _vector_at(builder, builder.gep(start, [_constant(c * LANES)])) for start in rows for c in range(width)
            ]

            def step(t: Any, sums: list[Any]) -> list[Any]:
                vector, within = _divide(builder, t, LANES)
                place = builder.load(builder.gep(places_from, [vector]))
                first = builder.gep(values_from, [builder.add(place, builder.mul(within, stride))])
                # a line each of several vectors of keys in turn: processors fetch several streams faster than one
                round_, line = _divide(builder, t, LANES * width)
                along = builder.mul(builder.add(line, column), key_stride)
                for c in range(width):
                    vector = builder.add(builder.mul(round_, _constant(width)), _constant(AHEAD + c))
                    place = builder.load(builder.gep(places_from, [vector]))
                    emit_prefetch(builder, builder.gep(keys_from, [builder.add(place, along)]), 3)
                columns = [
                    read_floats(builder, values.dtype, builder.gep(first, [_constant(c * LANES)])) for c in range(width)
                ]
                results = []
                for r in range(queries):
                    at = builder.gep(weights_from, [builder.add(t, _constant(r * SEGMENT))])
                    weight = splat_in(builder, builder.load(at), FLOATS)
                    results += [_fma(builder, weight, columns[c], sums[r * width + c]) for c in range(width)]
                return results

            sums = _loop(builder, low, high, [builder.load(cell, align=4) for cell in cells], step)
            for cell, total in zip(cells, sums, strict=True):
                builder.store(total, cell, align=4)
            return context.get_dummy_value()

        index = types.intp
        returns = types.void(
            weights, index, values, index, places, index, index, index, index, mixed, index, index, keys, index
        )
        return returns, generate

    return _intrinsic(typed)
