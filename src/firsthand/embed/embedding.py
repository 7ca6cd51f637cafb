"""Text embeddings: tokenised, sorted by length, and packed without padding; each text attends to itself alone.

An encoder (BERT family) runs in compiled kernels where they fit and are faster, one pack of texts per core, else in
torch. A decoder runs in torch, with causal attention unless its files say that it attends in both directions. Not
included: caching, prompts for queries and documents; reranking is in `relevance.py`.
"""

# N packed tokens, D hidden, B texts

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from firsthand.embed.embedding_config import (
    EmbeddingConfig,
    Pooling,
    model_folder,
    read_embedding_config,
)
from firsthand.embed.embedding_metadata import gguf_embedding_config
from firsthand.embed.fair_pool import FairPool
from firsthand.errors import ConfigError, ModelError, ModelFileError, PromptTooLong
from firsthand.formats.gguf_file import read_gguf
from firsthand.formats.model_files import read_json
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_encoder import CompiledEncoder, arithmetic_here, can_compile, is_fast_here
from firsthand.nn.decoder import Decoder
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.encoder_arithmetic import Precision
from firsthand.nn.families import bert
from firsthand.tokens import pretrained
from firsthand.tokens.tokenizer import TextRun, Tokenizer

T = TypeVar("T")
Floats = NDArray[np.float32]
_Tokenised = tuple[list[int], bool]
"""A text's ids, and whether it was truncated."""
PACK_TOKENS = 512
"""Tokens computed together, unless a single text has more: larger packs leave the CPU's caches."""
WINDOW = 2048
"""Texts sorted together; `embed_batches` keeps at most twice as many in memory."""
PIECE_CHARS = 16_384
"""Characters tokenised together where other calls wait, unless a single text has more."""
_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class Embedded:
    """The vectors of some texts, in order."""

    vectors: Floats
    """Shape (B, D), each of Euclidean length 1."""
    num_tokens: tuple[int, ...]
    """Computed tokens of each text."""
    truncated: tuple[bool, ...]
    """For each text, True if it was longer than the model takes and was cut at the end."""


class Forward(Protocol):
    """Computes the last hidden states of packed texts."""

    def __call__(self, ids_N: NDArray[np.int64], lengths: Sequence[int]) -> Floats:
        """Returns hidden states of shape (N, D)."""
        ...


class TextEmbedder:
    """A model with its tokenizer and embedding config. Thread-safe; `close` ends its threads."""

    def __init__(
        self,
        model: Encoder | Decoder,
        tokenizer: Tokenizer,
        config: EmbeddingConfig,
        *,
        compiled: bool | None = None,
        threads: int | None = None,
        precision: Precision = "float32",
    ):
        """`compiled`: True or False forces or forbids the compiled kernels; None uses them where they are faster.

        `precision="bfloat16"` lets them round to it, which is faster on a CPU with matrix tiles (AMX) and changes nothing
        elsewhere.
        """
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision is {precision!r}: give 'float32' or 'bfloat16'")
        if tokenizer.vocab_size > model.architecture.vocab_size:
            raise ModelFileError(
                f"the tokenizer has {tokenizer.vocab_size} tokens and the weights {model.architecture.vocab_size}: the "
                "files are from different models"
            )
        fits = isinstance(model, Encoder) and can_compile(model.architecture)
        if compiled and not fits:
            raise ConfigError(
                "compiled kernels were asked for: they take BERT encoders whose widths are multiples of 32"
            )
        self.tokenizer, self.config = tokenizer, config
        self.dimension = model.architecture.hidden_size
        self.is_compiled = fits and (compiled or (compiled is None and is_fast_here()))
        if self.is_compiled:
            assert isinstance(model, Encoder)
            self._forward: Forward = CompiledEncoder(model, arithmetic_here(precision)).forward
        else:
            self._forward = _torch_forward(model)
        workers = (threads or torch.get_num_threads()) if self.is_compiled else 1  # torch uses its own threads
        self._pool = FairPool(workers, name="firsthand-embed")
        self._tokenising = FairPool(1, name="firsthand-tokenise")  # so that nobody waits for a pack before it
        self._workers = workers

    def embed(self, texts: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> Embedded:
        """Returns the vectors of all texts. `stopped` is called before each pack; when it returns True, raises
        ModelError."""
        _check_is_list(texts)
        return self._joined(list(self.embed_batches(texts, stopped=stopped)))

    async def embed_in_turn(self, texts: Sequence[str], *, owner: str = "", whole: bool = False) -> Embedded:
        """Returns the vectors of all texts, and holds no thread while other calls have their turn.

        Owners share the threads fairly, and so do the calls of one owner: each waits for one pack of every other. With
        `whole`, raises PromptTooLong before any vector is computed if a text is longer than the model takes. A cancelled
        call stops after the current pack.
        """
        _check_is_list(texts)
        call = object()
        read = partial(self._tokenising.submit, owner=owner, call=call)
        pieces = [read(partial(self._tokenise_all, piece)) for piece in pieces_of(texts)]
        tokenised = [each for piece in await _results(pieces) for each in piece]
        for index, (ids, cut) in enumerate(tokenised):
            if whole and cut:
                raise PromptTooLong(f"input {index} has more tokens than the model takes ({len(ids)}): split it")
        firsts = range(0, len(tokenised), WINDOW)
        submit = partial(self._pool.submit, owner=owner, call=call)
        windows = [self._start(tokenised[first : first + WINDOW], submit) for first in firsts]
        await _results([future for window in windows for future in window.futures])
        return self._joined([self._finish(window) for window in windows])

    def embed_batches(
        self, texts: Iterable[str], *, batch_size: int = WINDOW, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Embedded]:
        """Yields the vectors of any number of texts, `batch_size` at a time, in order and in constant memory.

        A text's vector does not depend on `batch_size` (bit for bit with the compiled kernels).
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: give 1 or more")
        waiting: deque[_Window] = deque()
        stream, submit = iter(texts), partial(self._pool.submit, call=object())
        try:
            while window := list(islice(stream, batch_size)):
                waiting.append(self._start(self._tokenise_all(window), submit, stopped))
                if len(waiting) > 1:  # the next window is tokenised while one is computed
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for started in waiting:
                for future in started.futures:
                    future.cancel()

    def tokenise(self, text: str) -> tuple[list[int], bool]:
        """Returns a text's ids, and whether it was truncated. No text can forge a control token."""
        if not isinstance(text, str):
            raise ConfigError(f"a text to embed is {type(text).__name__} {str(text)[:80]!r}: give a str")
        config = self.config
        ids = encode_start(self.tokenizer, text.lower() if config.lower else text, config.max_text_tokens)
        cut = len(ids) > config.max_text_tokens
        whole = [*config.before, *ids[: config.max_text_tokens], *config.after]
        if not whole:  # an empty text and no special tokens
            start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
            if start is None:
                raise ModelError("an empty text has no tokens, and the model has no start token: leave it out")
            whole = [start]
        return whole, cut

    def close(self) -> None:
        """End the threads and drop work that has not started."""
        self._tokenising.shutdown()
        self._pool.shutdown()

    def _tokenise_all(self, texts: Sequence[str]) -> list[_Tokenised]:
        return [self.tokenise(text) for text in texts]

    def _start(
        self,
        tokenised: Sequence[_Tokenised],
        submit: Callable[[Callable[[], Floats]], Future[Floats]],
        stopped: Callable[[], bool] = lambda: False,
    ) -> _Window:
        order = sorted(range(len(tokenised)), key=lambda i: len(tokenised[i][0]), reverse=True)
        packs = packs_of([len(tokenised[i][0]) for i in order], self._workers)
        futures, first = [], 0
        for count in packs:
            mine = order[first : first + count]
            futures.append(submit(partial(self._pack, [tokenised[i][0] for i in mine], stopped)))
            first += count
        lengths, cut = tuple(len(ids) for ids, _ in tokenised), tuple(cut for _, cut in tokenised)
        return _Window(order, futures, lengths, cut)

    def _finish(self, window: _Window) -> Embedded:
        try:
            sorted_vectors = np.concatenate([future.result() for future in window.futures])
        finally:
            for future in window.futures:  # after an error, what has not begun need not
                future.cancel()
        vectors = np.empty_like(sorted_vectors)
        vectors[window.order] = sorted_vectors
        return Embedded(vectors, window.num_tokens, window.truncated)

    def _joined(self, parts: Sequence[Embedded]) -> Embedded:
        if not parts:
            return Embedded(np.zeros((0, self.dimension), np.float32), (), ())
        return Embedded(
            np.concatenate([part.vectors for part in parts]),
            tuple(count for part in parts for count in part.num_tokens),
            tuple(cut for part in parts for cut in part.truncated),
        )

    def _pack(self, texts: Sequence[list[int]], stopped: Callable[[], bool]) -> Floats:
        """Returns the vectors of texts that are computed together."""
        if stopped():
            raise ModelError("embedding was stopped before all texts were done")
        lengths = [len(ids) for ids in texts]
        hidden_ND = self._forward(np.concatenate([np.asarray(ids, np.int64) for ids in texts]), lengths)
        ends = np.cumsum(lengths)
        mode = self.config.pooling
        rows = [pool(hidden_ND[end - length : end], mode) for end, length in zip(ends, lengths, strict=True)]
        vectors = np.stack([row / max(np.sqrt(np.dot(row, row)), np.float32(1e-12)) for row in rows])
        if not np.isfinite(vectors).all():
            raise ModelError("the model gave numbers that are not finite: its weights may be damaged")
        return vectors


@dataclass(frozen=True)
class _Window:
    """Texts being computed: their sorted order, and the token count of each."""

    order: list[int]
    futures: list[Future[Floats]]
    num_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]


def load(
    path: Path | str,
    *,
    pooling: Pooling | None = None,
    compiled: bool | None = None,
    threads: int | None = None,
    precision: Precision = "float32",
) -> TextEmbedder:
    """Returns the embedder in a folder (encoder or decoder) or a .gguf file (decoder); ModelFileError if it is invalid.

    `pooling` overrides what the files say; if neither says, encoders use the mean and decoders the last token.
    """
    path = Path(path)
    folder = model_folder(path) if path.is_dir() else path
    tokenizer = pretrained.load(folder)
    model = _load_model(folder)
    if isinstance(model, Encoder):
        config = read_embedding_config(path, tokenizer, model.architecture.max_tokens, default="mean")
    elif path.is_dir():
        config = read_embedding_config(path, tokenizer, model.architecture.max_position, default="lasttoken")
    else:
        config = gguf_embedding_config(
            read_gguf(path).metadata, tokenizer, model.architecture.max_position, where=str(path), pooling=pooling
        )
    if pooling is not None:
        config = EmbeddingConfig(pooling, config.max_tokens, config.before, config.after, config.lower)
    return TextEmbedder(model, tokenizer, config, compiled=compiled, threads=threads, precision=precision)


def pool(hidden_TD: Floats, pooling: Pooling) -> Floats:
    """Returns one vector for a text's hidden states, shape (D,), not yet normalised."""
    if pooling == "mean":
        mean: Floats = hidden_TD.sum(0, dtype=np.float32) / np.float32(len(hidden_TD))
        return mean
    token: Floats = hidden_TD[0 if pooling == "cls" else -1]
    return token


def encode_start(tokenizer: Tokenizer, text: str, most: int) -> list[int]:
    """Returns a text's ids. A very long text is encoded only as far as its first `most` tokens need, cut before a space."""
    end = 16 * most
    while end < len(text) and (space := _SPACE.search(text, end)):
        ids = tokenizer.encode_runs([TextRun(text[: space.start()], False)])
        if len(ids) > most:
            return ids
        end = 4 * space.start()
    return tokenizer.encode_runs([TextRun(text, False)])


def _load_model(folder: Path) -> Encoder | Decoder:
    if folder.is_dir() and read_json(folder / "config.json").get("model_type") in bert.MODEL_TYPES:
        return weights.load_encoder(folder)
    return weights.load(folder, for_embeddings=True)


def _torch_forward(model: Encoder | Decoder) -> Forward:
    is_causal = isinstance(model, Decoder) and model.architecture.is_causal

    def forward(ids_N: NDArray[np.int64], lengths: Sequence[int]) -> Floats:
        device = next(model.parameters()).device
        positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        attend = Packed(lengths) if is_causal else Together(lengths)
        with torch.inference_mode():
            hidden_ND = model(torch.from_numpy(ids_N).to(device), positions, attend)
        values: Floats = hidden_ND.float().cpu().numpy()
        return values

    return forward


def _check_is_list(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ConfigError("embed takes a list of texts, not one text: put it in a list")


async def _results(futures: Sequence[Future[T]]) -> list[T]:
    """Returns what the futures give. After an error, or when cancelled, what has not begun is cancelled."""
    try:
        return await asyncio.gather(*map(asyncio.wrap_future, futures))
    finally:
        for future in futures:
            future.cancel()


def pieces_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """Returns the texts in pieces of up to PIECE_CHARS characters, in order; a longer text is a piece of its own."""
    pieces: list[list[str]] = []
    chars = PIECE_CHARS
    for text in texts:
        size = max(1, len(text)) if isinstance(text, str) else 1  # what is no text is told when it is tokenised
        if chars + size > PIECE_CHARS:
            pieces.append([])
            chars = 0
        pieces[-1].append(text)
        chars += size
    return list(pieces)


def packs_of(lengths: Sequence[int], workers: int) -> list[int]:
    """Returns how many of the sorted texts go into each pack: up to PACK_TOKENS, or an equal share per worker if fewer."""
    most = min(PACK_TOKENS, max(64, -(-sum(lengths) // workers)))
    counts: list[int] = []
    tokens = most
    for length in lengths:
        if tokens + length > most:
            counts.append(0)
            tokens = 0
        counts[-1] += 1
        tokens += length
    return counts
