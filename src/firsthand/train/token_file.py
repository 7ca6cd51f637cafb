"""Token files: a corpus larger than memory, encoded once, memory-mapped, and read in an order that is shuffled by blocks.

tokens.bin      the ids of all documents one after another, int32, little-endian
starts.bin      the place of each document's first token, and the number of all tokens, int64
tokens.json     counts, the SHA-256 of tokens.bin and starts.bin, the tokenizer's fingerprint, and of a part of a corpus how
                it was divided; written last

Texts are read one at a time. A folder without tokens.json was not finished and is built again.
"""

# D documents, P pieces

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firsthand.errors import ConfigError, DataError, StoreError, reason_of
from firsthand.hub.content_hash import content_hash
from firsthand.message import Json
from firsthand.system.new_file import write_new
from firsthand.system.ordinary_file import open_ordinary
from firsthand.system.own_file import expect_own_tree, read_own_json
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.data_order import expect_same_data, order
from firsthand.train.documents import Corpus, SourceText, encode_documents
from firsthand.train.streams import Stream

TOKENS, STARTS, META = "tokens.bin", "starts.bin", "tokens.json"
BLOCK_PIECES = 4096
"""Pieces of a block: at a context of 256, a million tokens, so 4 MB are near each other on the disk."""


@dataclass(frozen=True)
class Split:
    """The division of a corpus into documents that are held out and others, as `is_held_out` tells them apart."""

    fraction: float
    """About so many of the documents are held out."""
    seed: int
    texts: str = ""
    """The SHA-256 of all texts, those of the other part too; empty if it is not known yet."""


def write_part(
    documents: Iterable[SourceText], tokenizer: Tokenizer, folder: Path, split: Split, *, held_out: bool
) -> Corpus:
    """Encode the documents that are held out, or the others, into a token file that records the split; returns the corpus.

    DataError if the texts are not those of the split, or none is in this part, StoreError if the disk is full.
    """
    found = hashlib.sha256()

    def hashed() -> Iterator[SourceText]:
        for document in documents:
            raw = document.text.encode("utf-8", "surrogatepass")
            found.update(len(raw).to_bytes(8, "little") + raw)
            yield document
        if split.texts not in ("", found.hexdigest()):  # raised before tokens.json is written
            raise DataError(
                f"the texts are not those that {folder.parent} was filled from, and its part {folder.name} is missing: give "
                "the same texts in the same order, or another folder"
            )

    part = part_of(hashed(), split.fraction, seed=split.seed, held_out=held_out)
    return write_token_file(
        part, tokenizer, folder,
        more=lambda: {"split": {"fraction": split.fraction, "seed": split.seed, "texts": found.hexdigest()}},
    )  # fmt: skip


def write_token_file(
    documents: Iterable[SourceText], tokenizer: Tokenizer, folder: Path, *, more: Callable[[], Json] = dict
) -> Corpus:
    """Encode the documents one by one into a token file; returns it memory-mapped.

    `more` is called once all documents are read, for further fields of tokens.json.
    DataError if there is no text, StoreError if the disk is full.
    """
    expect_own_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / META).unlink(missing_ok=True)
    digests, starts, num_bytes, total = {name: hashlib.sha256() for name in (TOKENS, STARTS)}, [0], 0, 0
    try:
        (folder / TOKENS).unlink(missing_ok=True)  # a reader may have it mapped
        with (folder / TOKENS).open("xb") as tokens:
            for document in documents:
                encoded = encode_documents([document], tokenizer)
                raw = encoded.ids.astype("<i4").tobytes()
                tokens.write(raw)
                digests[TOKENS].update(raw)
                total += len(encoded.ids)
                num_bytes += encoded.num_bytes
                starts.append(total)
        raw = np.array(starts, dtype="<i8").tobytes()
        write_new(folder / STARTS, raw)
        digests[STARTS].update(raw)
        meta = {
            "documents": len(starts) - 1, "tokens": total, "bytes": num_bytes, "tokenizer": tokenizer.fingerprint,
            "sha256": {name: each.hexdigest() for name, each in digests.items()}, **more(),
        }  # fmt: skip
        write_new(folder / META, json.dumps(meta, indent=2) + "\n")
    except OSError as error:
        raise StoreError(
            f"the token file in {folder} cannot be written ({error.strerror or error}): make room, then try again"
        ) from None
    if not total:
        (folder / META).unlink()
        raise DataError(f"there is no text for the token file in {folder}: give a file or a folder with texts")
    return open_token_file(folder, tokenizer)


def is_written(folder: Path) -> bool:
    """True if a whole token file is in the folder."""
    return (folder / META).exists()


def open_token_file(folder: Path, tokenizer: Tokenizer, *, check: bool = False) -> Corpus:
    """The corpus of a token file, memory-mapped; with `check` every byte is read and compared with its hash.

    DataError if a file is missing, has another size or hash, or was encoded by another tokenizer.
    """
    meta = _meta(folder)
    if meta["tokenizer"] != tokenizer.fingerprint:
        raise DataError(
            f"the token file in {folder} was encoded by another tokenizer: give another folder to write one"
        )
    if meta["tokens"] < 1 or meta["documents"] < 1:
        raise DataError(f"the token file in {folder} has no tokens: delete {folder} to have it written again")
    _expect_sizes(folder, meta)
    if check:
        _expect_hashes(folder, meta, _sha256)
    with open_ordinary(folder / TOKENS) as tokens, open_ordinary(folder / STARTS) as places:
        ids, starts = np.memmap(tokens, dtype="<i4", mode="r"), np.memmap(places, dtype="<i8", mode="r")
    if starts[0] != 0 or starts[-1] != meta["tokens"] or bool((np.diff(starts) < 0).any()):
        raise DataError(
            f"{folder / STARTS} does not divide the tokens into documents: delete {folder} to have it written again"
        )
    return Corpus(ids, starts, meta["bytes"])


def expect_as_written(folder: Path) -> None:
    """DataError unless a token file has the sizes and hashes that were recorded.

    Each file is read once, and its hash cached by path, size and time (`hub.content_hash`).
    """
    meta = _meta(folder)
    _expect_sizes(folder, meta)
    _expect_hashes(folder, meta, content_hash)


def _expect_sizes(folder: Path, meta: Json) -> None:
    sizes = {TOKENS: 4 * meta["tokens"], STARTS: 8 * (meta["documents"] + 1)}
    for name, size in sizes.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found != size:
            raise DataError(f"{path} has {found} bytes of {size}: delete {folder} to have it written again")


def _expect_hashes(folder: Path, meta: Json, hash_of: Callable[[Path], str]) -> None:
    for name, written in meta["sha256"].items():
        path = folder / name
        if hash_of(path) != written:
            raise DataError(f"{path} is not what was written (its SHA-256 differs): delete {folder} to have it again")


def token_digest(folder: Path) -> str:
    """The recorded hash of a token file, by which a resumed run knows its data again."""
    return str(_meta(folder)["sha256"][TOKENS])


def split_of(folder: Path) -> Split | None:
    """The split of which a token file is a part; None if it does not say so, as those before 0.23."""
    split: Split | None = _meta(folder)["split"]
    return split


def _meta(folder: Path) -> Json:
    try:
        meta = read_own_json(folder / META)
        split = meta.get("split")
        return {
            **meta,
            "sha256": {name: str(meta["sha256"][name]) for name in (TOKENS, STARTS)},
            "tokenizer": str(meta["tokenizer"]),
            **{name: int(meta[name]) for name in ("tokens", "documents", "bytes")},
            "split": None
            if split is None
            else Split(float(split["fraction"]), int(split["seed"]), str(split["texts"])),
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{folder} holds no token file ({type(error).__name__}: {reason_of(error)}): give a folder that was "
            "written as one"
        ) from None


def _sha256(path: Path) -> str:
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_held_out(text: str, fraction: float, *, seed: int) -> bool:
    """True for about this fraction of texts, by a hash of each alone: none is counted first, equal ones go together."""
    drawn = hashlib.sha256(f"held out {seed} {text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(drawn[:8], "little") < fraction * 2.0**64


def part_of(documents: Iterable[SourceText], fraction: float, *, seed: int, held_out: bool) -> Iterator[SourceText]:
    """Yields the documents that are held out, or the others."""
    for document in documents:
        if is_held_out(document.text, fraction, seed=seed) == held_out:
            yield document


@dataclass(frozen=True, eq=False)
class PieceIndex:
    """The pieces of at most `context` tokens of a corpus, by number, without a list of them."""

    starts: npt.NDArray[np.int64]
    context: int
    before: npt.NDArray[np.int64]
    """D + 1: the pieces of the documents before each, and of all."""

    @staticmethod
    def of(corpus: Corpus, context: int) -> PieceIndex:
        """The index of a corpus; a piece begins with the last token of the one before, as in `Corpus.pieces`."""
        targets = np.diff(corpus.starts) - 1
        counts = -(-np.maximum(targets, 0) // (context - 1))
        return PieceIndex(corpus.starts, context, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    def __len__(self) -> int:
        return int(self.before[-1])

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Start and stop of a piece."""
        document = int(np.searchsorted(self.before, number, side="right")) - 1
        start = int(self.starts[document]) + (number - int(self.before[document])) * (self.context - 1)
        return start, min(start + self.context, int(self.starts[document + 1]))


class BlockBatches:
    """Batches of exactly `batch_tokens` predicted tokens of a token file, without end.

    Every epoch has its own order of blocks, and of the pieces within each; so all are read once an epoch, near each other on
    the disk. The last piece of a batch is cut where the batch is full, and the rest of it begins the next one.
    """

    def __init__(
        self, corpus: Corpus, digest: str, *, batch_tokens: int, context: int, seed: int = 0, block: int = BLOCK_PIECES
    ):
        """ConfigError for a context below 2, a batch below 1 token, a block below 1 piece, or a corpus without a piece."""
        if context < 2 or batch_tokens < 1 or block < 1:
            raise ConfigError(
                f"context is {context}, batch_tokens {batch_tokens} and block {block}: expected 2, 1 and 1 or more"
            )
        self.corpus, self.batch_tokens, self.seed, self.block = corpus, batch_tokens, seed, block
        self.pieces = PieceIndex.of(corpus, context)
        self.drawn = 0
        """Pieces that were begun, over all epochs."""
        self.offset = 0
        """Tokens of the piece under way that were predicted; 0 if none is."""
        self._digest = f"{digest}:{context}:{block}"
        if not len(self.pieces):
            raise ConfigError("the texts have no token to predict: give more text")

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of one step at a time."""
        numbers = self._numbers()
        number = next(numbers)
        while True:
            batch, missing = [], self.batch_tokens
            while missing:
                start, stop = self.pieces[number]
                start += self.offset
                taken = min(missing, stop - start - 1)
                ids = np.asarray(self.corpus.ids[start : start + taken + 1], dtype=np.int32)
                batch.append(Stream(ids, ce=np.ones(len(ids), np.float32)))
                missing -= taken
                self.offset += taken
                if start + taken + 1 == stop:
                    self.drawn, self.offset = self.drawn + 1, 0
                    number = next(numbers)
            yield batch

    def _numbers(self) -> Iterator[int]:
        """Yields the pieces by number from the position on."""
        total = len(self.pieces)
        epoch, skipped = divmod(self.drawn, total)
        while True:
            for block in order(self.seed, epoch, -(-total // self.block)).tolist():
                first = block * self.block
                size = min(self.block, total - first)
                if skipped >= size:
                    skipped -= size
                    continue
                within = order(self.seed, epoch, size, block=block)
                yield from (first + within[skipped:]).tolist()
                skipped = 0
            epoch += 1

    @property
    def epochs(self) -> float:
        """Number of completed passes over the corpus."""
        return self.drawn / len(self.pieces)

    def state(self) -> Json:
        """The position, that within a piece included, and the hash of the data."""
        return {"drawn": self.drawn, "offset": self.offset, "data": self._digest}

    def load(self, state: Json) -> None:
        """Continue from a position. DataError if the data is not what it was."""
        expect_same_data(self._digest, state)
        self.drawn, self.offset = int(state["drawn"]), int(state["offset"])
