"""Gathers the allowed tokens' logits from a row, compiled: runs of 32 allowed tokens are copied as they are.

Importing this file imports numba.
"""

# V vocabulary, C allowed tokens

from __future__ import annotations

from typing import Any

import numpy as np

from firsthand.kernels.jit import kernel

WORD = 32
_ALL = np.uint32(0xFFFFFFFF)
_ONE = np.uint32(1)


@kernel
def take(logits: Any, words: Any) -> Any:
    """The logits of the ids whose bits are set, in ascending order of the ids: C float32."""
    size = min(len(logits), len(words) * WORD)
    values = np.empty(size, dtype=np.float32)
    count = 0
    for place in range((size + WORD - 1) // WORD):
        word, start = words[place], place * WORD
        if word == _ALL and start + WORD <= size:
            for i in range(WORD):
                values[count + i] = logits[start + i]
            count += WORD
        elif word != 0:
            for i in range(min(WORD, size - start)):
                if (word >> np.uint32(i)) & _ONE:
                    values[count] = logits[start + i]
                    count += 1
    return values[:count]


@kernel
def nth(words: Any, number: int) -> int:
    """The id of set bit number `number`, counted from 0; there must be so many."""
    for place in range(len(words)):
        word = words[place]
        ones = WORD if word == _ALL else 0
        if word != _ALL:
            rest = word
            while rest != 0:
                rest &= rest - _ONE
                ones += 1
        if number >= ones:
            number -= ones
            continue
        for i in range(WORD):
            if (word >> np.uint32(i)) & _ONE:
                if number == 0:
                    return place * WORD + i
                number -= 1
    return -1
