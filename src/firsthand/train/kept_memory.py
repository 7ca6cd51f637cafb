"""Keep freed memory in the process while a loop allocates the same blocks again and again.

The C library maps large blocks and gives them back to the system when they are freed. A training step frees and allocates
hundreds of megabytes, and each page that comes back is zeroed by the kernel again: a tenth of a step of a small model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""`M_TRIM_THRESHOLD`, `M_TOP_PAD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""
_NEVER, _LARGE, _PAD, _PAGES = -1, 1 << 28, 1 << 26, 1 << 17


@contextmanager
def kept_memory() -> Iterator[None]:
    """In the block, blocks below 256 MB come from memory that stays with the process; afterwards what is free is given
    back. Does nothing where the C library is not glibc."""
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    for option, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD)):
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in ((_MMAP_THRESHOLD, _PAGES), (_TRIM_THRESHOLD, _PAGES), (_TOP_PAD, _PAGES)):
            library.mallopt(option, value)
        library.malloc_trim(0)
