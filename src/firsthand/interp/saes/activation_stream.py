"""Streams activations of a model on real text to a trainer: shuffled, never stored, and the same again after a stop.

Texts are read in a seeded order, a chunk of pieces at a time; the tokens of a chunk are shuffled and leave as batches. The
first token of a piece is left out: its activation is many times larger in most models and says nothing of the text.
"""

# N tokens, D hidden

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from torch import Tensor

from firsthand.errors import ConfigError, DataError
from firsthand.interp.activations import read_activations, sites_matching
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.train.documents import Corpus


class ActivationStream:
    """Batches of activations at one site, without end; `position` counts those that were given."""

    def __init__(
        self, model: Decoder, corpus: Corpus, site: str, *, batch: int = 2048, context: int = 128, chunk: int = 64,
        seed: int = 0,
    ):  # fmt: skip
        """`chunk` pieces of at most `context` tokens are in memory. DataError for texts that are too short."""
        (self.site,) = expect_one(sites_matching(model, site), site)
        if batch < 1 or chunk < 1 or not 2 <= context <= model.architecture.max_position:
            raise ConfigError(
                f"batch is {batch}, chunk {chunk} and context {context}: expected 1 or more, 1 or more, and 2 to the "
                f"model's {model.architecture.max_position}"
            )
        self.model, self.corpus, self.batch, self.chunk, self.seed = model, corpus, batch, chunk, seed
        self.pieces = pieces_of(corpus, context)
        if not self.pieces:
            raise DataError(f"the texts have no piece of {context} tokens: give more text, or a shorter context")
        if (context - 1) * chunk < batch:
            raise ConfigError(
                f"a chunk of {chunk} pieces of {context} tokens gives no batch of {batch}: give more pieces, "
                "or a smaller batch"
            )
        self.context = context
        self.position = 0

    @property
    def batches_per_chunk(self) -> int:
        """Whole batches of a chunk; the rest of its tokens are left out."""
        return (self.context - 1) * self.chunk // self.batch

    def __iter__(self) -> Iterator[Tensor]:
        """Yields N D from the position on; a stream that is moved to an earlier position gives the same again."""
        while True:
            number, first = divmod(self.position, self.batches_per_chunk)
            rows_ND = self.read(self.chunk_of(number))
            generator = torch.Generator().manual_seed(derive_seed("activations", self.seed, number) % 2**63)
            order_N = torch.randperm(len(rows_ND), generator=generator)
            for index in range(first, self.batches_per_chunk):
                self.position += 1
                yield rows_ND[order_N[index * self.batch : (index + 1) * self.batch]]

    def chunk_of(self, number: int) -> list[list[int]]:
        """The token ids of a chunk's pieces, each epoch in an order of its own."""
        texts = []
        for index in range(number * self.chunk, (number + 1) * self.chunk):
            epoch, place = divmod(index, len(self.pieces))
            start = self.pieces[self._order(epoch)[place]]
            texts.append(self.corpus.ids[start : start + self.context].tolist())
        return texts

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """The activations of all tokens but each text's first: N D."""
        return activations_at(self.model, texts, self.site)

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_epoch", None) != epoch:
            self._places = list(range(len(self.pieces)))
            Random(derive_seed("pieces", self.seed, epoch)).shuffle(self._places)
            self._epoch = epoch
        return self._places


def activations_at(model: Decoder, texts: Sequence[Sequence[int]], site: str, *, first: bool = False) -> Tensor:
    """Activations of the tokens of equally long texts, without each text's first unless asked for: N D."""
    parts = []
    for start in range(0, len(texts), 8):
        group = texts[start : start + 8]
        rows_ND = read_activations(model, group, site)[site].flatten(1)
        rows_BTD = rows_ND.reshape(len(group), -1, rows_ND.shape[1])
        parts.append((rows_BTD if first else rows_BTD[:, 1:]).flatten(0, 1))
    return torch.cat(parts)


def pieces_of(corpus: Corpus, context: int) -> list[int]:
    """The starts of whole pieces of `context` tokens; the ends of texts that fill none are left out."""
    starts = zip(corpus.starts[:-1].tolist(), corpus.starts[1:].tolist(), strict=True)
    return [at for start, stop in starts for at in range(start, stop - context + 1, context)]


def expect_one(sites: Sequence[str], given: str) -> Sequence[str]:
    """ConfigError unless a pattern stands for one site."""
    if len(sites) != 1:
        raise ConfigError(f"{given!r} stands for {len(sites)} sites: name one, such as blocks.8.resid.post")
    return sites
