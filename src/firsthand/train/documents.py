"""Texts as pretraining data: read from files, folders or JSONL, encoded, and packed into batches of an exact size.

Each step has exactly `batch_tokens` predicted tokens. A document longer than the context is cut into pieces that overlap by
one token, so that every token but a document's first is predicted once an epoch; no token attends to another document.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.system.given_folder import files_below
from firsthand.system.json_values import values_in_text
from firsthand.system.packed_stream import filled_lines, open_gzip
from firsthand.system.packed_text import expect_text
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.data_order import digest, expect_same_data, order, split
from firsthand.train.streams import Stream

MAX_LINE_BYTES = 1 << 28
"""A gzip file of 3 MB may be one line of 3 GB."""
MAX_LINE_VALUES = 2_000_000
"""JSON values of a line: two bytes of it may become an object of 64."""
MAX_DOCUMENT_BYTES = 1 << 30
"""Of a file that is one document, unpacked."""
_PIECE = 1 << 18


@dataclass(frozen=True)
class SourceText:
    """One text, and where it came from."""

    text: str
    source: str


def read_documents(
    paths: Sequence[Path], *, suffixes: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[SourceText]:
    """Every text below the paths, sorted by path: a file is a document, of a .jsonl file each line's `text`.

    In folders, `suffixes` keeps files whose names end so, before a `.gz` or with it (none: all), and `exclude` leaves out
    paths and folder names that match a pattern such as `test*`. Empty texts are left out. DataError for what is missing, is
    no UTF-8, or has no `text`.
    """
    documents = list(stream_documents(paths, suffixes=suffixes, exclude=exclude))
    if not documents:
        raise DataError(f"there is no text in {', '.join(map(str, paths))}: give a file, a folder, or other suffixes")
    return documents


def stream_documents(
    paths: Sequence[Path], *, suffixes: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[SourceText]:
    """Yields what `read_documents` returns, one text at a time; of a .jsonl file one line is in memory."""
    for path in paths:
        for file in _files(path, suffixes, exclude):
            is_jsonl = file.name.removesuffix(".gz").endswith(".jsonl")
            for document in _from_jsonl(file) if is_jsonl else [SourceText(_text_of(file), str(file))]:
                if document.text:
                    yield document


def split_documents(
    documents: Sequence[SourceText], fraction: float, *, seed: int = 0
) -> tuple[list[SourceText], list[SourceText]]:
    """The documents to train on and those held out, about this fraction of them and at least one.

    Equal texts stay together. A single document is cut after a line, and its end is held out.
    ConfigError if nothing would be left to train on.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"holdout is {fraction}: expected a fraction from 0 to below 1")
    if fraction == 0:
        return list(documents), []
    if len(documents) == 1:
        text, source = documents[0].text, documents[0].source
        cut = text.rfind("\n", 0, int(len(text) * (1 - fraction))) + 1 or int(len(text) * (1 - fraction))
        if not 0 < cut < len(text):
            raise ConfigError(f"{source} is too short to hold out a part of it: give more text, or holdout 0")
        return [SourceText(text[:cut], source)], [SourceText(text[cut:], source)]
    return split(documents, fraction, seed=seed, key=lambda each: each.text)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Encoded documents one after another."""

    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    """The place of each document's first token, and at the end the number of all tokens."""
    num_bytes: int
    """Bytes of the texts in UTF-8."""

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted in an epoch: all but each document's first."""
        return len(self.ids) - (len(self.starts) - 1)

    def pieces(self, context: int) -> list[tuple[int, int]]:
        """Start and stop of each piece of at most `context` tokens; a piece begins with the last token of the one before."""
        found: list[tuple[int, int]] = []
        for start, stop in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            found += [(at, min(at + context, stop)) for at in range(start, stop - 1, context - 1)]
        return found


def encode_documents(documents: Iterable[SourceText], tokenizer: Tokenizer) -> Corpus:
    """Encodes each document as plain text between the tokenizer's begin and end tokens. DataError without an end token."""
    if tokenizer.eos_id is None:
        raise DataError("the tokenizer has no end token, so a model could not learn where texts end: name an eos_token")
    begin = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
    arrays, num_bytes = [], 0
    for document in documents:
        arrays.append(np.array([*begin, *tokenizer.encode(document.text), tokenizer.eos_id], dtype=np.int32))
        num_bytes += len(document.text.encode("utf-8", "replace"))
    starts = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
    return Corpus(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), starts, num_bytes)


class DocumentBatches:
    """Batches of exactly `batch_tokens` predicted tokens from a corpus, in a seeded order of pieces, without end.

    The last piece of a batch is cut where the batch is full; the rest of it begins the next one.
    """

    def __init__(self, corpus: Corpus, *, batch_tokens: int, context: int, seed: int = 0):
        """ConfigError for a context below 2 or a batch below 1 token."""
        if context < 2 or batch_tokens < 1:
            raise ConfigError(f"context is {context} and batch_tokens {batch_tokens}: expected 2 and 1 or more")
        self.corpus = corpus
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.drawn = 0
        """Pieces that were begun, over all epochs."""
        self.offset = 0
        """Tokens of the piece under way that were predicted; 0 if none is."""
        self._pieces = corpus.pieces(context)
        self._digest = digest([corpus.ids])
        if not self._pieces:
            raise ConfigError("the texts have no token to predict: give more text")

    def __iter__(self) -> Iterator[list[Stream]]:
        """Yields the streams of one step at a time."""
        count = len(self._pieces)
        at: tuple[int, npt.NDArray[np.int64]] | None = None
        while True:
            batch, missing = [], self.batch_tokens
            while missing:
                epoch, index = divmod(self.drawn, count)
                if at is None or at[0] != epoch:
                    at = epoch, order(self.seed, epoch, count)
                start, stop = self._pieces[at[1][index]]
                start += self.offset
                taken = min(missing, stop - start - 1)
                batch.append(_piece(self.corpus.ids[start : start + taken + 1]))
                missing -= taken
                is_whole = start + taken + 1 == stop
                self.drawn, self.offset = (self.drawn + 1, 0) if is_whole else (self.drawn, self.offset + taken)
            yield batch

    @property
    def epochs(self) -> float:
        """Number of completed passes over the corpus."""
        return self.drawn / len(self._pieces)

    def state(self) -> Json:
        """The position, that within a document included, and a digest of the data."""
        return {"drawn": self.drawn, "offset": self.offset, "data": self._digest}

    def load(self, state: Json) -> None:
        """Continue from a position. DataError if the data is not what it was."""
        expect_same_data(self._digest, state)
        self.drawn, self.offset = int(state["drawn"]), int(state["offset"])


def whole_pieces(corpus: Corpus, context: int) -> list[Stream]:
    """Every piece of a corpus once, in its order: what an evaluation reads."""
    return [_piece(corpus.ids[start:stop]) for start, stop in corpus.pieces(context)]


def _piece(ids: npt.NDArray[np.int32]) -> Stream:
    return Stream(ids, ce=np.ones(len(ids), np.float32))


def _files(path: Path, suffixes: Sequence[str], exclude: Sequence[str]) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}: give a text, a .jsonl file, or a folder of them")
    found = []
    for file in files_below(path):
        parts = file.relative_to(path).parts
        names = (*parts, "/".join(parts))
        left_out = any(fnmatch(name, pattern) for name in names for pattern in exclude)
        ends = tuple(suffixes)
        if not left_out and (not ends or file.name.endswith(ends) or file.name.removesuffix(".gz").endswith(ends)):
            found.append(file)
    return found


def _text_of(file: Path, most: int = MAX_DOCUMENT_BYTES) -> str:
    """The text of a file, unpacked if its name ends with .gz."""
    with _opened(file) as opened:
        held = io.BytesIO()  # a read of `most` bytes takes their memory at once, however short the file is
        while piece := opened.read(min(_PIECE, most + 1 - held.tell())):
            held.write(piece)
        raw = held.getvalue()
        if len(raw) > most:
            raise DataError(
                f"{file} is a text of more than {most:,} bytes: split it, or give a .jsonl of its documents"
            )
        if file.suffix == ".gz":
            expect_text(raw, str(file), most)
        return _decoded(raw, file, 0)


def _lines_of(file: Path) -> Iterator[str]:
    """Yields the lines of a file of UTF-8 with their ends."""
    place = 0
    with _opened(file) as opened:
        while line := opened.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{file} has a line of more than {MAX_LINE_BYTES >> 20} MiB after byte {place:,}")
            if file.suffix == ".gz":
                expect_text(line, f"a line of {file} after byte {place:,}")
            yield _decoded(line, file, place)
            place += len(line)


def _decoded(raw: bytes, file: Path, place: int) -> str:
    """The text of bytes at a place of the file."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text (byte {place + error.start}): convert it, or leave it out") from None


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if its name ends with .gz."""
    try:
        with file.open("rb") as raw, open_gzip(raw, file) if file.suffix == ".gz" else raw as opened:
            yield opened
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is no whole gzip file ({error}): download it again, or unpack it") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None


def _from_jsonl(file: Path) -> Iterator[SourceText]:
    for body, where in json_lines(file):
        if body.get("text") != "":  # as an empty file in a folder, it is left out
            yield SourceText(text_field(body, where), where)


def json_lines(file: Path) -> Iterator[tuple[Json, str]]:
    """Yields each object of a JSONL file, with file and line; blank lines are passed. DataError for a line that is none.

    One line is in memory at a time. A file whose name ends with .gz is unpacked.
    """
    for number, line in filled_lines(_lines_of(file), file):
        where = f"{file}:{number}"
        if values_in_text(line, MAX_LINE_VALUES) > MAX_LINE_VALUES:
            raise DataError(f"{where} holds more than {MAX_LINE_VALUES:,} JSON values: expected one document a line")
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is no JSON ({error}): expected one object a line") from None
        if not isinstance(body, dict):
            raise DataError(f"{where} is {type(body).__name__}: expected a JSON object")
        yield body, where


def text_field(body: Json, where: str) -> str:
    """The field `text` of a line. DataError if it is missing, no text, or empty."""
    text = body.get("text")
    if not isinstance(text, str) or not text:
        fields = ", ".join(map(str, list(body)[:6])) or "none"
        came = (
            "is empty"
            if text == ""
            else f"came as {type(text).__name__}"
            if "text" in body
            else f"is missing of {fields}"
        )
        raise DataError(f"{where}: the field `text` {came}: expected a text")
    return text
