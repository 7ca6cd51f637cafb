"""Rounds blocks of 32 weights to Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, compiled; bit for bit as the `gguf` package does.

Each block is rounded once, by its weight of largest magnitude or by its smallest and largest. Importing this file imports
numba.
"""

# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import inlined, kernel
from firsthand.kernels.vectors import absolute, larger, largest, load, splat, sub

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_SMALLEST = np.float32(2.0**-126)
"""Below it 1 / scale may be infinite; such a scale is 0 in float16 anyway."""


@inlined
def _inverse(scale: Any) -> Any:
    return _ONE / scale if abs(scale) >= _SMALLEST else _ZERO


@kernel
def round_centred(x: Any, half: int, scales: Any, head: int, out: Any) -> None:
    """Rounds blocks to codes around a middle, `half` (8 or 16) of them below it: Q4_0 and Q5_0.

    `x` is flat; `scales` gets the scale of each block; `out` is one row of bytes a block, whose first `head` bytes are left.
    """
    width = len(out) // len(scales)
    for block in range(len(scales)):
        at, to = block * 32, block * width
        low, high = load(x, at), load(x, at + 16)
        zero = splat(_ZERO)
        above = largest(larger(low, high))
        below = -largest(larger(sub(zero, low), sub(zero, high)))
        extreme = above
        if -below > above:
            extreme = below
        elif -below == above:  # the first of the two counts
            for i in range(32):
                if abs(x[at + i]) == above:
                    extreme = x[at + i]
                    break
        scale = extreme / np.float32(-half)
        inverse, middle = _inverse(scale), np.float32(half) + _HALF
        scales[block] = scale
        _write_codes(x, at, _ZERO, inverse, middle, 2 * half - 1, to, head, out)


@kernel
def round_between(x: Any, most: int, scales: Any, minimums: Any, head: int, out: Any) -> None:
    """Rounds blocks to codes from their smallest (0) to their largest weight (`most`, 15 or 31): Q4_1 and Q5_1."""
    width = len(out) // len(scales)
    for block in range(len(scales)):
        at, to = block * 32, block * width
        low, high = load(x, at), load(x, at + 16)
        zero = splat(_ZERO)
        above = largest(larger(low, high))
        below = -largest(larger(sub(zero, low), sub(zero, high)))
        scale = (above - below) / np.float32(most)
        scales[block], minimums[block] = scale, below + _ZERO  # no negative zero
        _write_codes(x, at, below, _inverse(scale), _HALF, most, to, head, out)


@inlined
def _write_codes(
    x: Any, at: int, origin: Any, inverse: Any, middle: Any, most: int, to: int, head: int, out: Any
) -> None:
    """Write a block's codes: four bits each, those of 32 fifth bits before them where `most` has five."""
    fifth = np.uint32(0)
    first = to + head + 4 * (most > 15)
    for i in range(16):
        a = min(np.int32((x[at + i] - origin) * inverse + middle), np.int32(most))
        b = min(np.int32((x[at + 16 + i] - origin) * inverse + middle), np.int32(most))
        out[first + i] = np.uint8((a & 15) | ((b & 15) << 4))
        fifth |= np.uint32(((a >> 4) << i) | ((b >> 4) << (i + 16)))
    if most > 15:
        for byte in range(4):
            out[to + head + byte] = np.uint8((fifth >> np.uint32(8 * byte)) & np.uint32(255))


@kernel
def round_bytes(x: Any, scales: Any, head: int, out: Any) -> None:
    """Rounds blocks to codes from -127 to 127, half away from zero: Q8_0."""
    width = len(out) // len(scales)
    for block in range(len(scales)):
        at, to = block * 32, block * width + head
        scale = largest(larger(absolute(load(x, at)), absolute(load(x, at + 16)))) / np.float32(127)
        inverse = _inverse(scale)
        scales[block] = scale
        for i in range(32):
            value = x[at + i] * inverse
            size = abs(value)
            whole = np.int32(size)
            whole += np.int32(np.float32(2) * (size - np.float32(whole)))
            out[to + i] = np.uint8(whole if value >= _ZERO else -whole)
