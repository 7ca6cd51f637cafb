"""Computations that attempts of one embedding benchmark share, made once for an embedder in a process.

Examples, candidates and whole sets of texts would be too long for every task: the benchmark's module has a function `shared`
that returns them, which tasks name. Vectors are float64 copies of what the embedder gives; they are no effects of an attempt
and are computed again when a run is resumed.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.model import Embedder
from firsthand.system.option_spec import bind_options, parse_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float64]

T = TypeVar("T")
_tables: dict[str, Json] = {}
_made: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Task[Any]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FewShotClassifiers:
    """Logistic regressions, each fitted to a sample of few examples per label."""

    weights: Vectors
    """Shape (draws, labels, features)."""
    biases: Vectors
    """Shape (draws, labels)."""
    labels: tuple[str, ...]

    def predict(self, vector_F: Vectors) -> list[str]:
        """Returns the label that each classifier gives a vector."""
        logits_DL = self.weights @ vector_F + self.biases
        return [self.labels[int(place)] for place in logits_DL.argmax(axis=1)]


def shared_data(spec: str) -> Json:
    """Returns what the benchmark that a task names shares among its tasks, read once in a process."""
    if spec not in _tables:
        parsed = parse_spec(spec)
        function = catalog.module_attribute("benchmark", parsed.name, "shared")
        _tables[spec] = function(**bind_options(parsed, function))
    return _tables[spec]


async def once(key: str, make: Callable[[], Awaitable[T]]) -> T:
    """Returns the result of `make`, which is awaited once for all that ask under one key; a failed one is made again."""
    tasks = _made.setdefault(asyncio.get_running_loop(), {})
    running = tasks.get(key)
    if running is None or (running.done() and (running.cancelled() or running.exception() is not None)):
        running = tasks[key] = asyncio.ensure_future(make())
    found: T = await asyncio.shield(running)
    return found


async def vectors_of(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Returns the vectors of texts, shape (texts, dimension)."""
    import numpy as np

    made = np.asarray(await embedder.embed(list(texts)), np.float64)
    return made.reshape(len(texts), -1)


async def shared_vectors(embedder: Embedder, fingerprint: str, texts: Sequence[str]) -> Vectors:
    """Returns the vectors of many texts, computed once for an embedder."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    return await once(f"vectors {fingerprint} {digest}", lambda: vectors_of(embedder, texts))


def few_per_label(labels: Sequence[str], per_label: int, draws: int, seed: int) -> list[list[int]]:
    """Returns for each draw the places of at most `per_label` examples of each label, as MTEB samples them.

    The order of all examples is shuffled with one seed again and again, each draw from the order of the draw before.
    """
    import numpy as np

    if per_label < 1 or draws < 1:
        raise ConfigError(f"{draws} draws of {per_label} examples per label were asked for: give 1 or more of each")
    order, found = list(range(len(labels))), []
    for _ in range(draws):
        np.random.RandomState(seed).shuffle(order)
        seen: dict[str, int] = {}
        chosen = []
        for place in order:
            if seen.get(labels[place], 0) < per_label:
                chosen.append(place)
                seen[labels[place]] = seen.get(labels[place], 0) + 1
        found.append(chosen)
    return found
