"""A cross-encoder as a scorer of pairs: it reads query and passage together (Nogueira and Cho, 2019).

One model is loaded for a path in a process; `close_cross_encoders` unloads all.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from firsthand.loop.concurrency import in_thread
from firsthand.providers.local_cross_encoder import LocalCrossEncoder, open_cross_encoder
from firsthand.retrieval.retrievers.reranking import PairScorer

_open: dict[str, LocalCrossEncoder] = {}
_lock = threading.Lock()


def by_cross_encoder(model: str | LocalCrossEncoder) -> PairScorer:
    """Scores a text by a cross-encoder: an open one, or the folder or `hf:org/name` of one, which is opened once.

    The first score raises UnknownName for a path without a model, ModelFileError for files that are no cross-encoder.
    """

    async def score(query: str, texts: Sequence[str]) -> Sequence[float]:
        opened = await in_thread(lambda: _opened(model)) if isinstance(model, str) else model
        return await opened.score(query, texts)

    return score


def close_cross_encoders() -> None:
    """Unloads the cross-encoders that were opened by name."""
    with _lock:
        for model in _open.values():
            model.close()
        _open.clear()


def _opened(name: str) -> LocalCrossEncoder:
    with _lock:
        if name not in _open:
            _open[name] = open_cross_encoder(name)
        return _open[name]
