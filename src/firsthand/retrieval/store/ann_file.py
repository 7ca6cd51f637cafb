"""The approximate side file of a large index: faiss's inverted lists of 8-bit vectors, beside the index's file.

It is derived and may be deleted. It names the rows that it covers by a checksum of their numbers and codes, and is not used
if they are others. The rows are searched by their codes of 8 bits; the vectors in the index's file decide.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firsthand.errors import MissingExtra, StoreError
from firsthand.retrieval.chunk_index import Vectors
from firsthand.retrieval.store.search_rows import Ints, SearchRows
from firsthand.system.new_file import write_new
from firsthand.system.ordinary_file import open_ordinary

_BATCH = 20_000
_LEAST_ALIVE = 0.75
_FRESH = 0.8
PROBED = 1 / 32
"""The share of lists that a search looks into; 16 lists at least."""


@dataclass(frozen=True)
class AnnReport:
    """The approximate side file of an index, as it is now."""

    covered: int
    """Chunks in it; 0 if it is damaged, or of other chunks than the index has."""
    chunks: int
    """Searchable chunks of the index; those that are not covered are searched exactly."""
    recall: float | None
    """Share of the true nearest chunks that its candidates hold; None if it covers none, or too few."""
    queries: int
    k: int


class AnnFile:
    """Inverted lists over the first `count` rows. It covers nothing if there is no side file that fits."""

    def __init__(self, lists: Any, count: int, digest: str):
        self._lists, self.count, self._digest = lists, count, digest
        self._checked: tuple[Ints | None, bool] = (None, False)

    @classmethod
    def built(cls, index: Path, rows: SearchRows) -> AnnFile:
        """Train and fill the lists with all rows, and write them beside the index."""
        try:
            import faiss
        except ImportError:
            raise MissingExtra("faiss-cpu", "ann", "an approximate side file") from None
        count = len(rows.numbers)
        if not count:
            raise StoreError(f"{index} has no chunks: index documents first")
        lists = max(1, min(4 * math.isqrt(count), count // 39))
        made = faiss.index_factory(rows.dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        chosen = np.sort(np.random.default_rng(0).choice(count, size=min(count, 64 * lists), replace=False))
        made.train(rows.vectors.approximate(chosen))
        for first in range(0, count, _BATCH):
            made.add(rows.vectors.approximate(np.arange(first, min(first + _BATCH, count))))
        digest = rows.digest(count)
        body = faiss.serialize_index(made).tobytes()
        try:
            write_new(ann_path(index), _head(count, digest, hashlib.sha256(body).hexdigest()) + body)
        except OSError as error:
            raise StoreError(
                f"{ann_path(index)} cannot be written ({error.strerror}): make room, then build again"
            ) from None
        return cls(made, count, digest)

    @classmethod
    def opened(cls, index: Path, rows: SearchRows) -> AnnFile:
        """The side file beside an index; one that covers nothing if there is none or no faiss, or it is damaged."""
        try:
            import faiss

            with open_ordinary(ann_path(index)) as file:
                raw = file.read()
            name, count, digest, checksum = raw[: _HEAD - 1].decode().split()
            body = raw[_HEAD:]
            if name != _NAME or hashlib.sha256(body).hexdigest() != checksum:
                return cls(None, 0, "")
            lists = faiss.deserialize_index(np.frombuffer(body, dtype=np.uint8))
            if not isinstance(lists, faiss.IndexIVFScalarQuantizer) or lists.d != rows.dimension:
                return cls(None, 0, "")
            return cls(lists if lists.ntotal == int(count) else None, int(count), digest)
        except (ImportError, OSError, ValueError, RuntimeError, MemoryError):
            return cls(None, 0, "")

    def covers(self, rows: SearchRows) -> bool:
        """True if these are the rows that it was built of, and most of them are still there."""
        if self._lists is None or len(rows.numbers) < self.count:
            return False
        if self._checked[0] is not rows.numbers:  # a changed index has other arrays
            self._checked = (rows.numbers, rows.digest(self.count) == self._digest)
        return self._checked[1] and float(rows.alive[: self.count].mean()) >= _LEAST_ALIVE

    def fresh_for(self, rows: SearchRows) -> bool:
        """True if it covers these rows but for a fifth of them at most, which were stored later."""
        return self.covers(rows) and self.count >= _FRESH * len(rows.numbers)

    def nearest(self, query: Vectors, k: int) -> Ints:
        """The rows of some 4 k highest approximate scores (50 at least), ascending."""
        import faiss

        probes = max(16, int(self._lists.nlist * PROBED))
        settings = faiss.SearchParametersIVF(nprobe=min(probes, self._lists.nlist))
        _, found = self._lists.search(query[None], max(50, 4 * k), params=settings)
        return np.sort(found[0][found[0] >= 0]).astype(np.int64)


_NAME = "firsthand-ann-1"
_HEAD = 200


def _head(count: int, digest: str, checksum: str) -> bytes:
    return f"{_NAME} {count} {digest} {checksum}".ljust(_HEAD - 1).encode() + b"\n"


def ann_path(index: Path) -> Path:
    """The side file of an index."""
    return index.with_name(f"{index.name}.ann")
