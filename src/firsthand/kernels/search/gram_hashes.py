"""Hashes of the word n-grams of a text, and a Bloom filter of them.

A word is a run of ASCII letters, digits and bytes above 127; ASCII letters count as lower case; all else separates words.
Case and punctuation beyond ASCII are the caller's. Two texts with equal n-grams give equal hashes of 64 bits.
"""

# mypy: disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import kernel

_BASIS, _PRIME, _STEP = np.uint64(14695981039346656037), np.uint64(1099511628211), np.uint64(0x9E3779B97F4A7C15)
_ZERO, _ONE, _MIX, _SHIFT = np.uint64(0), np.uint64(1), np.uint64(0xBF58476D1CE4E5B9), np.uint64(31)


@kernel
def gram_hashes(text: Any, n: int, hashes: Any, ends: Any, ring: Any) -> int:
    """Writes the hash of each n-gram and the place after its last byte; returns how many there are.

    Args:
        text: Bytes, shape (B), uint8.
        n: Words of an n-gram.
        hashes: Shape (B // 2 + 1) or more, uint64, written.
        ends: As long, int64, written.
        ring: Shape (n), uint64, overwritten.
    """
    power = _ONE
    for _ in range(n):
        power = power * _STEP
    word, rolling = _BASIS, _ZERO
    words = count = 0
    inside = False
    size = text.shape[0]
    for place in range(size + 1):
        byte = text[place] if place < size else np.uint8(32)
        upper = 65 <= byte <= 90
        if upper or 97 <= byte <= 122 or 48 <= byte <= 57 or byte > 127:
            lower = np.uint64(byte) + (np.uint64(32) if upper else _ZERO)
            word = (word ^ lower) * _PRIME
            inside = True
        elif inside:
            slot = words % n
            rolling = rolling * _STEP + word
            if words >= n:
                rolling -= ring[slot] * power
            ring[slot] = word
            words += 1
            if words >= n:
                hashes[count] = (rolling ^ (rolling >> _SHIFT)) * _MIX
                ends[count] = place
                count += 1
            word = _BASIS
            inside = False
    return count


@kernel
def bloom_add(hashes: Any, bits: Any, probes: int) -> None:
    """Sets the bits of each hash in a Bloom filter of 64-bit words, whose number is a power of two."""
    mask = np.uint64(bits.shape[0] * 64 - 1)
    for i in range(hashes.shape[0]):
        at = hashes[i]
        step = (at >> np.uint64(33)) | _ONE
        for _ in range(probes):
            where = at & mask
            bits[where >> np.uint64(6)] |= _ONE << (where & np.uint64(63))
            at += step * _PRIME
    return


@kernel
def bloom_has(hashes: Any, bits: Any, probes: int, found: Any) -> None:
    """Writes for each hash whether the filter may hold it; of those that it does not hold, a few are found too."""
    mask = np.uint64(bits.shape[0] * 64 - 1)
    for i in range(hashes.shape[0]):
        at = hashes[i]
        step = (at >> np.uint64(33)) | _ONE
        found[i] = True
        for _ in range(probes):
            where = at & mask
            if not (bits[where >> np.uint64(6)] >> (where & np.uint64(63))) & _ONE:
                found[i] = False
                break
            at += step * _PRIME
