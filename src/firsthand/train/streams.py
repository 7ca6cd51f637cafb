"""Token streams: the form in which every algorithm hands its data to `fit`. Numpy only.

A `Stream` is one token sequence with per-token weights for each part of the loss. `micro_batches` groups the streams of a
step into forward passes, and `packed` lays one group out as flat arrays without padding.
"""

# T tokens of a stream, N tokens of a packed group, S streams of it

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.system.new_file import replacing
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.own_file import expect_own_tree
from firsthand.system.zip_members import expect_bounded, most_unpacked

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

WEIGHTS = ("ce", "pg", "ref_kl", "value")
"""The fields that are weights of a part of the loss, finite and 0 or more."""
_VALUES = ("advantage", "behaviour", "reference", "returns", "old_values")
_NEEDS = {"pg": ("advantage", "behaviour"), "ref_kl": ("reference",), "value": ("returns",)}


@dataclass(frozen=True, eq=False)
class Stream:
    """One token sequence as training data.

    Each array has one entry per token; entry t is about predicting ids[t] from ids[:t], and entry 0 counts nothing. Lists
    are converted to arrays. DataError for arrays of another length, weights below 0 or not finite, or a weight without the
    values that its part of the loss reads.
    """

    ids: Ints
    """T"""
    ce: Floats | None = None
    """T: weight of the cross-entropy of token t; a pair loss sums log-probs with these weights too."""
    pg: Floats | None = None
    """T: weight of the policy-gradient term, 0 for tokens that the policy did not sample."""
    advantage: Floats | None = None
    """T"""
    behaviour: Floats | None = None
    """T: log-prob under the distribution that was sampled (after temperature, cuts, grammar)."""
    reference: Floats | None = None
    """T: log-prob under the reference policy, for `ref_kl` and pairs."""
    ref_kl: Floats | None = None
    """T: weight of the divergence from the reference."""
    value: Floats | None = None
    """T: weight of the value loss."""
    returns: Floats | None = None
    """T: the value to learn."""
    old_values: Floats | None = None
    """T: the values when the rollout was made, for a clipped value loss."""
    pair: int | None = None
    """Streams of one step with equal numbers form one comparison: a DPO pair, K ranked answers, a KTO row alone."""
    label: float | None = None
    """Chosen +1, rejected -1, or rank or desirability, as the pair loss reads it."""
    group: str = ""
    """Prompt or task, for metrics and lineage."""
    source: str = ""
    """Trace id, or file and line."""
    adapter: str = ""
    """The agent whose adapter it trains, where agents have one each."""

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu" or ids.min() < 0:
            raise self._error(
                "ids", f"{ids.dtype} of shape {ids.shape}", "a sequence of 1 or more token ids, 0 or above"
            )
        object.__setattr__(self, "ids", ids.astype(np.int32))
        for name in (*WEIGHTS, *_VALUES):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, self._checked(name, given))
        for name, needed in _NEEDS.items():
            missing = [each for each in needed if getattr(self, each) is None]
            if getattr(self, name) is not None and missing:
                raise self._error(missing[0], "missing", f"log-probs or values beside the weights {name!r}")
        if (self.pair is None) != (self.label is None):
            raise self._error("pair and label", f"{self.pair} and {self.label}", "both, or neither")

    def _checked(self, name: str, given: Any) -> Floats:
        array = np.asarray(given, dtype=np.float32)
        if array.shape != self.ids.shape:
            raise self._error(name, f"of shape {array.shape}", f"one number for each of {len(self.ids)} tokens")
        if name in WEIGHTS:
            array = array.copy()
            array[0] = 0  # nothing comes before the first token
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise self._error(
                    name, "negative or not finite", "weights of 0 or more; a sign belongs to the advantage"
                )
        used = self._counted_by(name)
        if used is not None and not np.isfinite(array[used > 0]).all():
            raise self._error(name, "not finite at a token that counts", "finite numbers, or weight 0 for such tokens")
        return array

    def _counted_by(self, name: str) -> Floats | None:
        """The weights of the part of the loss that reads these values."""
        weights = next((weight for weight, needed in _NEEDS.items() if name in needed), None)
        return (
            None
            if weights is None or getattr(self, weights) is None
            else np.asarray(getattr(self, weights), np.float32)
        )

    def _error(self, field: str, came: str, expected: str) -> DataError:
        where = f" ({self.source})" if self.source else ""
        return DataError(f"a stream's {field} came as {came}{where}: expected {expected}")

    def __len__(self) -> int:
        return len(self.ids)


class Batches(Protocol):
    """The batches of a recipe: each is the streams of one step.

    An RL recipe makes its rollouts with the current weights when the next batch is asked for.
    """

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of each step, from the position that was loaded on."""
        ...

    def state(self) -> Json:
        """The position after the last batch that was yielded, as plain JSON data."""
        ...

    def load(self, state: Json) -> None:
        """Continue from a position that `state` returned."""
        ...


@dataclass(frozen=True, eq=False)
class PackedStreams:
    """Streams one after another as flat arrays, without padding."""

    ids: Ints
    """N"""
    positions: Ints
    """N: each token's place in its stream."""
    lengths: tuple[int, ...]
    """S: tokens of each stream."""
    row: Ints
    """N: the stream of each token."""
    arrays: dict[str, Floats]
    """N: every weight and value by its name, zeros for streams without it."""
    has: dict[str, npt.NDArray[np.bool_]]
    """S: whether a stream came with that array."""
    pair: Ints
    """S: the comparison, -1 for none."""
    label: Floats
    """S"""
    adapter: str = ""
    """The agent whose adapter they train."""

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """S: the place of each stream's last token."""
        return np.cumsum(self.lengths) - 1


def packed(streams: Sequence[Stream]) -> PackedStreams:
    """Lays streams out one after another, the shorter ones first: `Packed` attends to equal lengths as one batch."""
    ordered = sorted(streams, key=len)
    lengths = tuple(len(stream) for stream in ordered)
    names = (*WEIGHTS, *_VALUES)
    return PackedStreams(
        ids=np.concatenate([stream.ids for stream in ordered]),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        lengths=lengths,
        row=np.repeat(np.arange(len(ordered), dtype=np.int32), lengths),
        arrays={name: np.concatenate([_array(stream, name) for stream in ordered]) for name in names},
        has={name: np.array([getattr(stream, name) is not None for stream in ordered]) for name in names},
        pair=np.array([-1 if stream.pair is None else stream.pair for stream in ordered], dtype=np.int32),
        label=np.array([stream.label or 0.0 for stream in ordered], dtype=np.float32),
        adapter=ordered[0].adapter,
    )


def _array(stream: Stream, name: str) -> Floats:
    given: Floats | None = getattr(stream, name)
    return np.zeros(len(stream), np.float32) if given is None else given


def micro_batches(streams: Iterable[Stream], max_tokens: int) -> list[list[Stream]]:
    """Groups the streams of a step into forward passes of at most `max_tokens` tokens, comparisons whole, order kept.

    A stream or comparison that is longer goes alone, and streams of different agents' adapters never share a pass.
    """
    units: dict[Any, list[Stream]] = defaultdict(list)
    for index, stream in enumerate(streams):
        units[("alone", index) if stream.pair is None else ("pair", stream.pair)].append(stream)
    groups: list[list[Stream]] = []
    size = 0
    for unit in sorted(units.values(), key=lambda unit: unit[0].adapter):
        length = sum(map(len, unit))
        if not groups or size + length > max_tokens or groups[-1][0].adapter != unit[0].adapter:
            groups.append([])
            size = 0
        groups[-1] += unit
        size += length
    return groups


def counts(streams: Iterable[Stream]) -> dict[str, float]:
    """The divisor of each part of the loss over a whole step: the sum of its weights, and the number of comparisons."""
    streams = list(streams)
    found = {name: float(sum(_array(stream, name).sum(dtype=np.float64) for stream in streams)) for name in WEIGHTS}
    return found | {"pair": float(len({stream.pair for stream in streams if stream.pair is not None}))}


def num_answers(streams: Iterable[Stream]) -> int:
    """The number of rollouts that count for the policy gradient; the streams of one have one source."""
    return len({
        each.source or at for at, each in enumerate(streams) if each.pg is not None and (each.pg > 0).any()
    })  # fmt: skip


def save_streams(streams: Sequence[Stream], folder: Path, step: int) -> Path:
    """Writes the streams of a step as `step-N.npz`, to look at what made a loss NaN; returns its path."""
    expect_own_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step}.npz"
    arrays: dict[str, Any] = {}
    for index, stream in enumerate(streams):
        for field in fields(stream):
            if (value := getattr(stream, field.name)) is not None:
                arrays[f"{index}.{field.name}"] = np.asarray(value)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    return path


def load_streams(path: Path) -> list[Stream]:
    """Reads the streams of `save_streams`. DataError if the file is none."""
    rows: dict[int, dict[str, Any]] = defaultdict(dict)
    try:
        with open_ordinary(path) as file, np.load(file, allow_pickle=False) as found:
            for member in found.zip.infolist():
                expect_bounded(member)
            if sum(member.file_size for member in found.zip.infolist()) > most_unpacked(
                os.fstat(file.fileno()).st_size
            ):
                raise ValueError("it unpacks to far more than its size")
            for name in dict.fromkeys(found.files):  # a name may come a thousand times
                index, _, field = name.partition(".")
                rows[int(index)][field] = found[name] if found[name].ndim else found[name].item()
        return [Stream(**rows[index]) for index in sorted(rows)]
    except (OSError, ValueError, EOFError, BadZipFile, MemoryError, RuntimeError, zlib.error) as error:
        raise DataError(f"{path} holds no streams ({reason_of(error)}): give a file that `fit` saved") from None
    except TypeError:  # one array alone, or others than a stream's
        raise DataError(f"{path} holds no streams (its arrays are others): give a file that `fit` saved") from None
