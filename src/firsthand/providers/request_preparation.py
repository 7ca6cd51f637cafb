"""Prepares requests of a local model in threads that its clients share fairly.

All that follows from sampling settings alone (tables of stop strings, tokens of `bad_words`, masks of allowed tokens) is
derived once for all prompts and answers that share one Sampling object, or large settings that are the same, piece by
piece, so that others have their turn between two pieces.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from firsthand.embed.fair_pool import FairPool
from firsthand.engine.core.request_checks import check_ids
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.errors import ConfigError
from firsthand.model import Sampling
from firsthand.tokens.generation_limits import NO_LIMITS, GenerationLimits
from firsthand.tokens.incremental_decoding import StopString
from firsthand.tokens.tokenizer import TextRun, Tokenizer

if TYPE_CHECKING:
    from firsthand.engine.core.engine_thread import EngineWorker

THREADS = 4
SMALL = 2048
"""Settings of at most this many characters and ids are derived at once: a turn in a thread would take longer."""
PIECE = 8192
"""Characters of stop strings or `bad_words` that one piece of work takes, some 50 ms."""
EACH = 48
"""Characters that take as long as it takes to begin with another string or word."""
T = TypeVar("T")


class LoadedModel(Protocol):
    """The parts of a loaded model that settings are derived for."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def worker(self) -> EngineWorker: ...
    @property
    def limits(self) -> GenerationLimits: ...


@dataclass(frozen=True, eq=False)
class DerivedSampling:
    """All that requests need of their sampling settings besides these, the same for any prompt and answer."""

    stop: tuple[StopString, ...]
    stop_ids: frozenset[int]
    """The tokens that end an answer."""
    bad_sequences: tuple[tuple[int, ...], ...]
    """Token sequences that no answer may complete, by the model's files and by `bad_words`."""
    token_filter: TokenFilter | None
    """None if every token is allowed."""


class Preparation:
    """The threads of one loaded model, and what was derived of settings in use. Thread-safe, for any number of event
    loops."""

    def __init__(self) -> None:
        self._pool = FairPool(THREADS, name="firsthand-prepare")
        self._lock = threading.Lock()
        self._derived: dict[int, tuple[weakref.ref[Sampling], Future[DerivedSampling]]] = {}
        """By the id of a Sampling, while that exists: large ones take milliseconds to compare."""
        self._alike: weakref.WeakValueDictionary[object, Future[DerivedSampling]] = weakref.WeakValueDictionary()
        """By what is derived from, of large settings: replicas of a server get an object of their own for each prompt."""

    async def run(self, work: Callable[[], T], *, owner: str, call: object = None) -> T:
        """Returns the result of some work, done in a thread when its owner has a turn, and of its calls this one."""
        return await asyncio.wrap_future(self._pool.submit(work, owner=owner, call=call))

    async def derived(self, loaded: LoadedModel, sampling: Sampling, *, owner: str) -> DerivedSampling:
        """Returns what follows from the settings for this model; large ones are derived in turns of `owner`.

        ConfigError for a word of `bad_words` without tokens, ModelError for ids outside the vocabulary.
        """
        future = self._future(loaded, sampling, owner)
        if future.done():
            return future.result()
        return await asyncio.shield(asyncio.wrap_future(future))  # others wait for it too

    def _future(self, loaded: LoadedModel, sampling: Sampling, owner: str) -> Future[DerivedSampling]:
        """Returns the future of what follows from the settings, which is begun, or done, if it is new."""
        with self._lock:
            if known := self._derived.get(id(sampling)):
                return known[1]
            is_large = size(sampling) > SMALL
            found = self._alike.get(_sources(sampling)) if is_large else None
            made: Future[DerivedSampling] = found or Future()
            gone = partial(_forget, self._derived, id(sampling))
            self._derived[id(sampling)] = (weakref.ref(sampling, gone), made)
            made.add_done_callback(partial(_forget_error, gone))
            if found is not None:
                return found
            if is_large:
                self._alike[_sources(sampling)] = made
                self._queue(_derive(loaded, sampling), made, owner)
            else:
                _finish(_derive(loaded, sampling), made)
            return made

    def _queue(self, pieces: _Pieces, made: Future[DerivedSampling], owner: str) -> None:
        self._pool.submit(partial(self._go_on, pieces, made, owner), owner=owner, call=made)

    def _go_on(self, pieces: _Pieces, made: Future[DerivedSampling], owner: str) -> None:
        """Do one piece, and queue the next."""
        try:
            next(pieces)
            self._queue(pieces, made, owner)
        except StopIteration as end:
            made.set_result(end.value)
        except BaseException as error:
            made.set_exception(error)


_Pieces = Generator[None, None, DerivedSampling]


def derive(loaded: LoadedModel, sampling: Sampling) -> DerivedSampling:
    """Returns what follows from the settings for this model, at once. Raises what `Preparation.derived` raises."""
    made: Future[DerivedSampling] = Future()
    _finish(_derive(loaded, sampling), made)
    return made.result()


def size(sampling: Sampling) -> int:
    """The number of characters and ids in settings that take time to derive, with `EACH` for each string or word."""
    texts = (*sampling.stop, *sampling.bad_words)
    return sum(map(len, texts)) + EACH * len(texts) + len(sampling.allowed_token_ids or ())


def _sources(sampling: Sampling) -> object:
    """All settings that others are derived from."""
    allowed = None if sampling.allowed_token_ids is None else tuple(sampling.allowed_token_ids)
    ends = (tuple(sampling.stop_ids), sampling.ignore_eos, sampling.min_tokens)
    return tuple(sampling.stop), tuple(sampling.bad_words), allowed, ends


def bad_sequences(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The tokens of words at the beginning of a text and inside it, each with and without a space before it.

    ConfigError for a word that has no tokens.
    """
    return tuple(dict.fromkeys(spelled for word in words for spelled in _spellings(tokenizer, word)))


def _spellings(tokenizer: Tokenizer, word: str) -> list[tuple[int, ...]]:
    bare = word.lstrip() or word
    runs = [[TextRun(bare, False)], [TextRun(f" {bare}", False)]]
    spelled = {tuple(tokenizer.encode_runs(run, continuing=within)) for run in runs for within in (False, True)}
    if () in spelled:
        raise ConfigError(f"the word {word!r} of bad_words has no tokens in this model's vocabulary: leave it out")
    return sorted(spelled)


def _derive(loaded: LoadedModel, sampling: Sampling) -> _Pieces:
    """Yields between two pieces of work, and returns all."""
    stop = []
    for strings in _pieces(sampling.stop):
        stop += [StopString.of(string) for string in strings]
        yield
    bad: dict[tuple[int, ...], None] = {}
    for words in _pieces(sampling.bad_words):
        bad |= dict.fromkeys(bad_sequences(loaded.tokenizer, words))
        yield
    ends = (frozenset() if sampling.ignore_eos else loaded.tokenizer.eos_ids).union(sampling.stop_ids)
    allowed = None
    limits = loaded.limits
    if bad or sampling.allowed_token_ids is not None or sampling.min_tokens or limits != NO_LIMITS:
        architecture = loaded.worker.engine.architecture
        if sampling.allowed_token_ids is not None:
            check_ids(sampling.allowed_token_ids, "allowed_token_ids", architecture)
            yield
        allowed = TokenFilter.of(sampling, architecture.vocab_size, bad=bad, ends=ends, limits=limits)
    return DerivedSampling(tuple(stop), ends, tuple(dict.fromkeys((*limits.forbidden, *bad))), allowed)


def _pieces(texts: Sequence[str]) -> Generator[list[str], None, None]:
    """The texts in lists of about `PIECE` characters, with `EACH` for each text."""
    piece: list[str] = []
    num_chars = 0
    for text in texts:
        piece.append(text)
        num_chars += len(text) + EACH
        if num_chars >= PIECE:
            yield piece
            piece, num_chars = [], 0
    if piece:
        yield piece


def _finish(pieces: _Pieces, made: Future[DerivedSampling]) -> None:
    try:
        while True:
            next(pieces)
    except StopIteration as end:
        made.set_result(end.value)
    except Exception as error:
        made.set_exception(error)


def _forget(derived: dict[int, tuple[weakref.ref[Sampling], Future[DerivedSampling]]], key: int, _: object) -> None:
    derived.pop(key, None)


def _forget_error(forget: Callable[[object], None], made: Future[DerivedSampling]) -> None:
    """Keep no error: the frames of its traceback would keep the settings."""
    if made.exception() is not None:
        forget(None)
