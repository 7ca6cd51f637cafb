"""Overlap of a benchmark's items with a corpus by word n-grams, by a scan of the corpus or by a Bloom index of it.

An item is flagged if eight of its 13-grams stand in the corpus, or half of them where it has fewer than sixteen (Brown et
al., 2020, used one 13-gram; a share alone misses items in the middle of other text). Items of 8 to 12 words are compared by
8-grams; shorter ones are counted as too short, never as clean. `plain_words` says which spellings of a word are one.
"""

# B bytes, G n-grams

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firsthand.contamination.corpus_texts import UnreadText, corpus_files, pieces
from firsthand.contamination.leak_evidence import Evidence
from firsthand.contamination.plain_words import plain_words
from firsthand.contamination.text_twins import task_text
from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.kernels.search.gram_hashes import bloom_add, bloom_has, gram_hashes
from firsthand.system.new_file import replacing, write_new
from firsthand.system.ordinary_file import open_ordinary, read_bounded_text
from firsthand.system.plurals import count_of
from firsthand.task import Task

Hashes = NDArray[np.uint64]
LONG, SHORT = 13, 8
HITS = 8
SHARE = 0.5
PROBES = 7
BITS = 16
"""Bits of the Bloom index for each n-gram: with seven probes about 0.1 % of foreign n-grams are found too."""
VERSION = 4
ASKS = "Do the items' word n-grams stand in the corpus?"
LIMITS = "Finds the items' own words only: translations, paraphrases and items with other numbers are not seen."


@dataclass(frozen=True)
class FoundItem:
    """An item with n-grams in the corpus."""

    task_id: str
    hits: int
    grams: int
    where: str = ""
    """The file that holds most of them; empty for an index."""

    @property
    def flagged(self) -> bool:
        """True if enough of its n-grams stand in the corpus."""
        return self.hits >= HITS or self.hits >= SHARE * self.grams


def hashes_of(text: bytes, n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Shapes (G): the hash of each n-gram of words, and the byte after its end, of a text as `plain_words` gives it."""
    data = np.frombuffer(text, np.uint8)
    room = len(data) // 2 + 2
    hashes, ends = np.empty(room, np.uint64), np.empty(room, np.int64)
    count = int(gram_hashes(data, n, hashes, ends, np.zeros(n, np.uint64)))
    return hashes[:count], ends[:count]


def item_grams(tasks: Sequence[Task]) -> tuple[dict[str, tuple[int, Hashes]], list[str]]:
    """Task id -> (n, its distinct hashes), and the ids of tasks that are too short."""
    found: dict[str, tuple[int, Hashes]] = {}
    short = []
    for task in tasks:
        text = plain_words(task_text(task).encode("utf-8", "replace"))
        for n in (LONG, SHORT):
            hashes, _ = hashes_of(text, n)
            if len(hashes):
                found[task.id] = n, np.unique(hashes)
                break
        else:
            short.append(task.id)
    return found, short


class _Sought:
    """The n-grams of items of one n, the items that have each, and the file that has most of an item's so far."""

    def __init__(self, n: int, items: Sequence[tuple[str, Hashes]]):
        self.n, self.ids = n, [id for id, _ in items]
        self.sizes = np.array([len(own) for _, own in items])
        every = np.concatenate([own for _, own in items])
        order = np.argsort(every, kind="stable")
        self._owners = np.repeat(np.arange(len(items)), self.sizes)[order]
        self._hashes, self._starts = np.unique(every[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(every))
        self._seen = np.zeros(len(self._hashes), bool)
        self._most = np.zeros(len(items), np.int64)
        self._where = np.full(len(items), -1)
        self._files: list[str] = []

    def places_of(self, text: bytes) -> NDArray[np.int64]:
        """The places of the n-grams that stand in a text, with repetitions."""
        hashes, _ = hashes_of(text, self.n)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.unique(places[self._hashes[places] == hashes])

    def file_has(self, path: Path, places: Sequence[NDArray[np.int64]]) -> None:
        """Count what was found in the pieces of a file."""
        found = np.unique(np.concatenate(places)) if places else np.zeros(0, np.int64)
        if not len(found):
            return
        self._seen[found] = True
        hits = self._hits(found)
        better = hits > self._most
        self._most[better], self._where[better] = hits[better], len(self._files)
        self._files.append(str(path))

    def found(self) -> Iterator[FoundItem]:
        """Yields the items with n-grams in the files."""
        for item, hits in enumerate(self._hits(np.flatnonzero(self._seen))):
            if hits:
                yield FoundItem(self.ids[item], int(hits), int(self.sizes[item]), self._files[self._where[item]])

    def _hits(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shape (items): how many of these n-grams each item has."""
        counts = self._ends[places] - self._starts[places]
        first = np.repeat(self._starts[places] - np.cumsum(counts) + counts, counts)
        return np.bincount(self._owners[first + np.arange(len(first))], minlength=len(self.ids))


def scan_corpus(tasks: Sequence[Task], corpus: Path) -> tuple[list[FoundItem], list[str], int, list[str]]:
    """The items with n-grams in the corpus, the ids that are too short, the bytes read, and why files were not read whole.

    ConfigError if nothing was read.
    """
    grams, short = item_grams(tasks)
    owned = {n: [(id, own) for id, (m, own) in grams.items() if m == n] for n in (LONG, SHORT)}
    sought = [_Sought(n, items) for n, items in owned.items() if items]
    read = 0
    unread: list[str] = []
    for path in corpus_files(corpus):
        here: list[list[NDArray[np.int64]]] = [[] for _ in sought]
        for piece in _readable(path, unread):
            read += len(piece)
            text = plain_words(piece)
            for each, places in zip(sought, here, strict=True):
                places.append(each.places_of(text))
        for each, places in zip(sought, here, strict=True):
            each.file_has(path, places)
    _expect_text(read, corpus, unread)
    return [item for each in sought for item in each.found()], short, read, unread


def _mapped(path: Path) -> NDArray[np.uint64]:
    """The array of a .npy file, memory-mapped; OSError if it is no ordinary file, ValueError if it is another array."""
    with open_ordinary(path) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("bits.npy is of another version of the format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError("bits.npy holds objects")
        return np.memmap(file, dtype, "r", file.tell(), shape)


class CorpusIndex:
    """A Bloom filter of a corpus's n-grams, kept in a folder and memory-mapped."""

    def __init__(self, folder: Path):
        try:
            about = json.loads(read_bounded_text(folder / "index.json"))
            self.bits = _mapped(folder / "bits.npy")
            self.grams, self.source, self.read = int(about["grams"]), str(about["source"]), int(about["bytes"])
            version = about["version"]
            self.unread = [str(each) for each in about["unread"]] if version == VERSION else []
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"{folder} is no index of a corpus, or is damaged: {reason_of(error)}; build it again"
            ) from None
        if version != VERSION:
            raise DataError(
                f"{folder} is an index of version {str(version)[:60]}, and {VERSION} is read: build it again"
            )
        size = len(self.bits) if isinstance(self.bits, np.ndarray) and self.bits.ndim == 1 else 0
        if not size or size & (size - 1) or self.bits.dtype != np.uint64:
            raise DataError(f"{folder}: bits.npy is of another form than an index has: build it again")

    @staticmethod
    def build(corpus: Path, folder: Path) -> CorpusIndex:
        """Index a corpus in a new folder; ConfigError if the folder holds something already."""
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file: give a new folder for the index")
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: give a new folder for the index")
        files = corpus_files(corpus)
        size = sum(path.stat().st_size * (4 if path.suffix == ".gz" else 1) for path in files)
        words = 1 << max(
            10, int(np.ceil(np.log2(max(1, size * 2 * BITS // (6 * 64)))))
        )  # six bytes a word, two n-grams a word
        bits = np.zeros(words, np.uint64)
        grams = read = 0
        unread: list[str] = []
        for path in files:
            for piece in _readable(path, unread):
                read += len(piece)
                text = plain_words(piece)
                for n in (LONG, SHORT):
                    hashes, _ = hashes_of(text, n)
                    bloom_add(hashes, bits, PROBES)
                    grams += len(hashes)
        _expect_text(read, corpus, unread)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "bits.npy") as part, part.open("wb") as file:
            np.save(file, bits)
        about = {"version": VERSION, "grams": grams, "source": str(corpus), "bytes": read, "unread": unread}
        write_new(folder / "index.json", json.dumps(about))
        return CorpusIndex(folder)

    @property
    def false_rate(self) -> float:
        """The share of n-grams that are not in the corpus and are found all the same."""
        sample = np.ascontiguousarray(self.bits[:: max(1, len(self.bits) // 4096)])
        full = float(np.unpackbits(sample.view(np.uint8)).mean())
        return full**PROBES

    def look_up(self, tasks: Sequence[Task]) -> tuple[list[FoundItem], list[str]]:
        """The items with n-grams in the corpus, and the ids that are too short."""
        grams, short = item_grams(tasks)
        found = []
        for id, (_, own) in grams.items():
            here = np.zeros(len(own), bool)
            bloom_has(own, self.bits, PROBES, here)
            if here.any():
                found.append(FoundItem(id, int(here.sum()), len(own)))
        return found, short


def _readable(path: Path, unread: list[str]) -> Iterator[bytes]:
    """The pieces of a file; what is not read of it is added to `unread`."""
    try:
        yield from pieces(path)
    except UnreadText as error:
        unread.append(str(error))


def _expect_text(read: int, corpus: Path, unread: Sequence[str]) -> None:
    if not read:
        raise ConfigError(
            f"{corpus} holds no text that is read: give UTF-8 or .jsonl ({'; '.join(unread[:3]) or 'empty'})"
        )


def overlap_evidence(tasks: Sequence[Task], *, corpus: Path | None = None, index: Path | None = None) -> Evidence:
    """The overlap with a corpus, or with an index of one."""
    if index is not None:
        opened = CorpusIndex(index)
        found, short = opened.look_up(tasks)
        read, unread, source = (
            opened.read,
            opened.unread,
            f"an index of {opened.source}; {opened.false_rate:.1e} of foreign n-grams are found too",
        )
    elif corpus is not None:
        found, short, read, unread = scan_corpus(tasks, corpus)
        source = str(corpus)
    else:
        return Evidence("n-grams", ASKS, detail="not run: no corpus was given (--corpus DIR)", limits=LIMITS)
    flagged = sorted((each for each in found if each.flagged), key=lambda each: -each.hits)
    told = f"{len(flagged)} of {count_of(len(tasks), 'item', ',')} in {read / 1e6:,.1f} MB ({source})"
    if flagged:
        first = flagged[0]
        told += f"; {first.task_id} has {first.hits} of {first.grams} n-grams there" + (
            f", in {first.where}" if first.where else ""
        )
    if some := len(found) - len(flagged):
        told += f"; {count_of(some, 'item')} with fewer n-grams than count"
    if short:
        told += f"; {count_of(len(short), 'item')} too short to compare"
    if unread:
        told += f"; {count_of(len(unread), 'file')} not read whole: {'; '.join(unread[:3])}"
        told += f"; and {len(unread) - 3} more" if len(unread) > 3 else ""
    share = len(flagged) / max(1, len(tasks) - len(short))
    return Evidence(
        "n-grams", ASKS, share, None, len(tasks) - len(short), told, tuple(each.task_id for each in flagged), LIMITS,
        tuple(unread), len(short),
    )  # fmt: skip
