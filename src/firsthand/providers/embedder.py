"""Embedders as models of an experiment: `embedder:minilm` embeds texts, and refuses to answer.

An agent of an embedder and the pattern `embed` is what an embedding benchmark ranks, with the intervals and paired tests of
any other run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, ModelError
from firsthand.model import Completion, Delta, Embedder, Prompt, Sampling, Scored, ToolSpec

if TYPE_CHECKING:
    from firsthand.providers.local_embedder import LocalEmbedder


def open_model(text: str) -> EmbeddingModel:
    """Returns the embedder of that name or folder, as a model; nothing is loaded yet."""
    from firsthand.providers.local_embedder import open_embedder

    if not text:
        raise ConfigError("embedder: names no embedder: write embedder:minilm, or embedder:FOLDER")
    opened: LocalEmbedder = open_embedder(text)
    return EmbeddingModel(opened, opened.fingerprint)


class EmbeddingModel:
    """A Model that embeds; it raises ModelError when it is asked to answer or to score."""

    def __init__(self, embedder: Embedder, fingerprint: str):
        self.embedder = embedder
        self.name = f"embedder:{embedder.name}"
        self.fingerprint = fingerprint

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a vector for each text, all of one length and Euclidean length 1."""
        return await self.embedder.embed(texts)

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Raises ModelError."""
        raise self._refusal()

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        """Raises ModelError."""
        raise self._refusal()

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Raises ModelError."""
        raise self._refusal()

    def _refusal(self) -> ModelError:
        return ModelError(f"{self.name} embeds texts and does not write: attempt embedding tasks by --pattern embed")
