"""Writer: the one thing that retrievers and answers need of a language model, in an attempt or outside of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from firsthand.context import Context
from firsthand.message import user
from firsthand.model import Model, Sampling, Usage
from firsthand.retrieval.corpus import refuse_within_read


class Writer(Protocol):
    """Continues prompts, and says how probable continuations are."""

    async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
        """`n` answers to a user's message; `settings` are those of a Sampling."""

    async def logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """The natural log of the probability of each continuation as the answer to a user's message."""


@dataclass(frozen=True)
class ContextWriter:
    """Writes through an attempt, so that every call is journalled, budgeted and guarded."""

    ctx: Context

    async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
        """`n` answers after the context's conversation."""
        refuse_within_read()
        return [each.text for each in await self.ctx.say(prompt).sample(n, **settings)]

    async def logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """The log-prob of each continuation after the context's conversation."""
        refuse_within_read()
        return [each.logprob for each in await self.ctx.say(prompt).score(continuations)]


@dataclass
class ModelWriter:
    """Writes with a model outside of attempts, and counts what it used."""

    model: Model
    sampling: Sampling = field(default_factory=Sampling)
    usage: Usage = field(default_factory=Usage)

    async def write(self, prompt: str, *, n: int = 1, **settings: Any) -> list[str]:
        """`n` answers of the model."""
        refuse_within_read()
        sampling = replace(self.sampling, **settings)
        completions = await self.model.complete((user(prompt),), sampling, n=n)
        self.usage += sum((each.usage for each in completions), Usage())
        return [each.message.text for each in completions]

    async def logprobs(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """The log-prob of each continuation."""
        refuse_within_read()
        scored = await self.model.score((user(prompt),), continuations)
        self.usage += scored.usage
        return [each.logprob for each in scored.likelihoods]


def writer_of(source: Context | Model) -> Writer:
    """The writer of an attempt's Context, or of a Model."""
    return ContextWriter(source) if isinstance(source, Context) else ModelWriter(source)
