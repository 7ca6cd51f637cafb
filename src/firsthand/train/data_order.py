"""The order of training data: a seeded permutation of each epoch, and batches that know their position. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.system.plurals import count_of
from firsthand.train.streams import WEIGHTS, Stream

T = TypeVar("T")
_HELD_OUT = 1 << 40
"""Stands for the epoch in the permutation whose first items are held out."""


def order(seed: int, epoch: int, count: int, *, block: int | None = None) -> npt.NDArray[np.int64]:
    """The permutation of so many items in an epoch, or in a block of it: a function of its arguments, on every machine.

    It sorts raw 64-bit draws of PCG64, whose stream numpy guarantees, unlike that of `permutation`.
    """
    words = [seed, epoch] if block is None else [seed, epoch, 1 + block]
    draws = np.random.PCG64(np.random.SeedSequence(words)).random_raw(count)
    return np.argsort(draws, kind="stable")


def split(
    items: Sequence[T], fraction: float, *, seed: int = 0, key: Callable[[T], Hashable] | None = None
) -> tuple[list[T], list[T]]:
    """The items to train on and those held out, at least one each; a fraction of 0 holds out none.

    Items of equal `key` stay together, so that nothing held out is trained on; by default streams of equal ids, and else
    equal items. A group that is larger than what is missing of the fraction is trained on; if all groups are, the smallest
    is held out.
    ConfigError if there is nothing left to train on, or if that smallest group is more than twice the fraction.
    """
    if fraction == 0:
        return list(items), []
    count = max(1, round(fraction * len(items)))
    if count >= len(items):
        raise ConfigError(
            f"the data has {count_of(len(items), 'item')}, and {count} would be held out: give more data, or holdout 0"
        )
    groups: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(_content(item) if key is None else key(item), []).append(place)
    if len(groups) == 1:
        raise ConfigError(
            f"the {len(items)} items of the data are equal, or all of one prompt, so none can be held out apart from the "
            "others: give more data, or holdout 0"
        )
    every = list(groups.values())
    drawn = [every[at] for at in order(seed, _HELD_OUT, len(every)).tolist()]
    held: set[int] = set()
    for places in drawn:
        if len(held) + len(places) <= count:
            held.update(places)
    if not held:
        smallest = min(drawn, key=len)
        part = len(smallest) / len(items)
        if len(smallest) > 2 * count:
            raise ConfigError(
                f"the smallest of the {len(drawn)} groups of equal items, or of one prompt, is {part:.1%} of the data, and "
                f"holdout is {fraction:g}: give more data, holdout {part:.2g} to hold that group out, or holdout 0"
            )
        held.update(smallest)
    return (
        [item for index, item in enumerate(items) if index not in held],
        [item for index, item in enumerate(items) if index in held],
    )


def _content(item: object) -> Hashable:
    """Returns the key by which two items are equal: the ids of a stream, else the item itself."""
    return item.ids.tobytes() if isinstance(item, Stream) else item


class StreamBatches:
    """Batches of whole streams in a seeded order, without end: an epoch's last batch is filled from the next epoch.

    `examples` are lists of streams that stay together, such as the two of a comparison.
    """

    def __init__(self, examples: Sequence[Sequence[Stream]], batch_size: int, *, seed: int = 0):
        """ConfigError for an empty list or a batch size below 1."""
        if not examples:
            raise ConfigError("there is no example to train on: give data with at least one")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: expected 1 or more")
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.drawn = 0
        """Examples that were yielded, over all epochs."""
        self._digest = digest(stream.ids for streams in examples for stream in streams)
        self._targets = targets_digest(examples)

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of `batch_size` examples at a time."""
        count = len(self.examples)
        at: tuple[int, npt.NDArray[np.int64]] | None = None
        while True:
            batch: list[Stream] = []
            for _ in range(self.batch_size):
                epoch, index = divmod(self.drawn, count)
                if at is None or at[0] != epoch:
                    at = epoch, order(self.seed, epoch, count)
                batch += _apart(self.examples[at[1][index]], len(batch))
                self.drawn += 1
            yield batch

    def state(self) -> Json:
        """The position, and digests of the data: of its ids, and of what they are trained to."""
        return {"drawn": self.drawn, "data": self._digest, "targets": self._targets}

    def load(self, state: Json) -> None:
        """Continue from a position. DataError if the data is not what it was, its labels and weights too."""
        expect_same_data(self._digest, state)
        if state.get("targets", self._targets) != self._targets:  # checkpoints of 0.21 and before have none
            raise DataError(
                "the labels of the data, the weights of its tokens or its pairs are not what the run began with: give the "
                "same data, or begin the run anew in another folder"
            )
        self.drawn = int(state["drawn"])


def _apart(example: Sequence[Stream], start: int) -> list[Stream]:
    """The streams of one example; comparisons are numbered by their place, since one may come twice in a batch."""
    return [stream if stream.pair is None else replace(stream, pair=start) for stream in example]


def streams_digest(streams: Sequence[Stream]) -> str:
    """A hash of streams, their ids and what they are trained to."""
    return f"{digest([stream.ids for stream in streams])} {targets_digest([streams])}"


def targets_digest(examples: Sequence[Sequence[Stream]]) -> str:
    """A hash of the streams' labels, pairs and weights; what a model computes, such as references, is not in it."""
    found = hashlib.sha256()
    for stream in chain.from_iterable(examples):
        weights = [getattr(stream, name) for name in WEIGHTS]
        found.update(f"{stream.pair} {stream.label} {[each is None for each in weights]}".encode())
        for each in weights:
            if each is not None:  # as long as the ids are
                found.update(np.ascontiguousarray(each, dtype="<f4").data)
    return found.hexdigest()


def digest(arrays: Iterator[npt.NDArray[np.int32]] | Sequence[npt.NDArray[np.int32]]) -> str:
    """A hash of token ids, by which a resumed run knows its data again."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(len(array).to_bytes(8, "little"))
        found.update(np.ascontiguousarray(array, dtype="<i4").data)
    return found.hexdigest()


def expect_same_data(own: str, state: Json) -> None:
    """DataError if a checkpoint was made on other data. ValueError if its position cannot be one."""
    if any(int(state.get(name, 0)) < 0 for name in ("drawn", "offset")):
        raise ValueError(f"its position in the data is {state}")
    if state.get("data") != own:
        raise DataError(
            "the data is not what the run began with (other texts, or another tokenizer): give the same data, or begin "
            "the run anew in another folder"
        )
