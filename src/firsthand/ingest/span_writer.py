"""The writer of received spans: a thread that decodes, redacts and keeps what waits, several requests in one
transaction, and a second one for large requests, so that small ones never wait for their redaction.

A request is answered after its transaction is on disk, so what a sender was told is kept is kept, whenever the
process is killed. What waits is bounded in bytes; a full queue, a full disk or a closed writer is an answer that
senders retry.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from firsthand.errors import DataError, FirsthandError, StoreError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.otlp_protobuf import decode_protobuf
from firsthand.ingest.trace_store import ReadySpan, SpanPreparer, TraceStore

MAX_REQUEST_BYTES = 128 << 20
"""Of one request, after it is inflated."""
MAX_WAITING_BYTES = 256 << 20
MAX_WAITING = 10_000
MAX_MEMBERS = 1000
"""Of the compressed body of one request; senders write one."""
_PART = 64 << 10
_SPANS, _BYTES = 4096, 16 << 20
"""A transaction takes requests until it has so many spans or bytes, inflated."""
LARGE_BYTES = 1 << 20
"""A request of more, inflated, is one for the second thread."""
Encoding = Literal["", "identity", "gzip", "deflate"]


@dataclass(frozen=True)
class WriteOutcome:
    """The end of one request."""

    num_kept: int = 0
    rejected: int = 0
    """Spans without valid ids."""
    problem: str = ""
    """Why nothing of it was kept."""
    retry: bool = False
    """True if the sender may send it again as it is."""


@dataclass
class _Waiting:
    decode: Callable[..., tuple[list[IncomingSpan], int]]
    """Takes the body if there is one."""
    size: int
    done: Callable[[WriteOutcome], None]
    body: Callable[[int], bytes] | None = None
    """Gives the inflated body of at most so many bytes, or raises _TooLarge."""


class _TooLarge(DataError):
    """A body has more bytes than are taken."""


class SpanWriter:
    """Takes requests from any thread and writes them from its own."""

    def __init__(self, store: TraceStore, preparer: SpanPreparer):
        self.store = store
        self._preparer = preparer
        self._waiting: deque[_Waiting] = deque()
        self._large: deque[_Waiting] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._closed = self._all_are_sorted = False
        self._thread = threading.Thread(target=self._work, name="span-writer", daemon=True)
        self._thread.start()
        self._large_thread = threading.Thread(target=self._work_large, name="large-span-writer", daemon=True)
        self._large_thread.start()

    def submit(
        self, raw: bytes, kind: Literal["protobuf", "json"], encoding: Encoding, done: Callable[[WriteOutcome], None]
    ) -> bool:
        """Queue the body of a request; False if there is no room, and then `done` is not called.

        `done` is called from one of the writer's threads, after the spans are on disk or were refused.
        """
        decode = decode_protobuf if kind == "protobuf" else decode_json
        return self._submit(_Waiting(decode, len(raw), done, lambda most: inflated(raw, encoding, most)))

    def submit_spans(
        self, decode: Callable[[], tuple[list[IncomingSpan], int]], size: int, done: Callable[[WriteOutcome], None]
    ) -> bool:
        """Queue spans that a function gives, called in the writer's thread."""
        return self._submit(_Waiting(decode, size, done))

    def close(self) -> None:
        """Write what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            self._all_are_sorted = True
            self._changed.notify_all()
        self._large_thread.join()

    def _submit(self, one: _Waiting) -> bool:
        with self._changed:
            if (
                self._closed
                or len(self._waiting) + len(self._large) >= MAX_WAITING
                or (self._size and self._size + one.size > MAX_WAITING_BYTES)
            ):
                return False
            self._waiting.append(one)
            self._size += one.size
            self._changed.notify_all()
            return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
            self._write_some()

    def _work_large(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._large or self._all_are_sorted)
                if not self._large:
                    return
                one = self._large.popleft()
            self._write(
                deque([one]), MAX_REQUEST_BYTES
            )  # alone: a transaction of several would be as large as all of them

    def _write_some(self) -> None:
        self._write(self._waiting, min(LARGE_BYTES, MAX_REQUEST_BYTES))

    def _write(self, waiting: deque[_Waiting], most: int) -> None:
        """Decode and write requests in one transaction, and tell each how it ended; larger ones than `most` are put off."""
        taken: list[tuple[_Waiting, list[ReadySpan], int]] = []
        refused: list[tuple[_Waiting, WriteOutcome]] = []
        spans = size = freed = 0
        while spans < _SPANS and size < _BYTES and waiting:
            one = waiting.popleft()
            try:
                if one.body is None:
                    decoded, rejected = one.decode()
                else:
                    body = one.body(most)
                    size += len(body)
                    decoded, rejected = one.decode(body)
                    del body
                ready = self._preparer.prepared(decoded)
            except FirsthandError as error:
                if isinstance(error, _TooLarge) and waiting is self._waiting:
                    with self._changed:
                        self._large.append(one)
                        self._changed.notify_all()
                    continue
                refused.append((one, WriteOutcome(problem=str(error))))
            except MemoryError:
                refused.append(
                    (one, WriteOutcome(problem="the request needs more memory than there is: send less at once"))
                )
            except Exception as error:  # a request must not end the writer
                refused.append((one, WriteOutcome(problem=f"the request cannot be read ({type(error).__name__})")))
            else:
                spans += len(ready)
                taken.append((one, ready, rejected))
            size += one.size
            freed += one.size
        self._keep(taken, refused)
        with self._changed:
            self._size -= freed
        for one, outcome in refused:
            one.done(outcome)

    def _keep(
        self, taken: list[tuple[_Waiting, list[ReadySpan], int]], refused: list[tuple[_Waiting, WriteOutcome]]
    ) -> None:
        """Write them together, or where that fails one by one, so that one cannot spoil the others."""
        try:
            self.store.add([each for _, ready, _ in taken for each in ready])
            kept = taken
        except Exception:
            kept = []
            for each in taken:
                try:
                    self.store.add(each[1])
                    kept.append(each)
                except StoreError as error:
                    told = str(error).replace(
                        str(self.store.folder), "the store"
                    )  # the sender is no owner of this machine
                    may_retry = not isinstance(error.__cause__, OverflowError)
                    refused.append((each[0], WriteOutcome(problem=told, retry=may_retry)))
                except Exception as error:
                    refused.append((each[0], WriteOutcome(problem=f"a span cannot be kept ({type(error).__name__})")))
        for one, ready, rejected in kept:
            one.done(WriteOutcome(len(ready), rejected))


def inflated(raw: bytes, encoding: Encoding, most: int | None = None) -> bytes:
    """The body of a request; DataError if it is damaged, or larger than `most` bytes, MAX_REQUEST_BYTES by default."""
    if encoding in ("", "identity"):  # the doors bound these
        if most is not None and len(raw) > most:
            raise _too_large(most)
        return raw
    most = MAX_REQUEST_BYTES if most is None else most
    pieces: list[bytes] = []
    size = at = 0
    try:
        for _ in range(MAX_MEMBERS):
            if at >= len(raw):
                break
            inflater = zlib.decompressobj(31 if encoding == "gzip" else 15)
            while not inflater.eof:
                if at >= len(raw):
                    raise DataError(f"the body is cut short: whole {encoding} was expected")
                part = raw[at : at + _PART]  # in parts, because what follows a member is copied
                piece = inflater.decompress(part, most - size + 1)
                size += len(piece)
                if size > most:
                    raise _too_large(most)
                pieces.append(piece)
                at += len(part) - len(inflater.unused_data)
        if at < len(raw):
            raise DataError(f"the body has more than {MAX_MEMBERS} members of {encoding}: send it in one")
    except zlib.error as error:
        raise DataError(f"the body is no {encoding}: {error}") from None
    return b"".join(pieces)


def _too_large(most: int) -> _TooLarge:
    return _TooLarge(f"the request is larger than {most >> 20} MiB: send less at once")
