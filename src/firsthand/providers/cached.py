"""Answers from a store instead of a model: `Cached` asks the model only for what is missing, `Replay` never asks one.

Replies are found by `firsthand.model.request_key`, under which a run's journal keeps them too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from firsthand.errors import ModelError, StoreError
from firsthand.message import Json
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec, request_key


class Store(Protocol):
    """Where replies are found by the key of their request."""

    def reply(self, request: str) -> Json | None:
        """The reply to the request of this key, or None."""


@runtime_checkable
class Writer(Protocol):
    """A Store that takes new replies too."""

    def keep(self, request: str, reply: Json) -> None:
        """Keep the reply to the request of this key."""


class MemoryStore:
    """A Store and Writer that lives as long as its process."""

    def __init__(self) -> None:
        self.replies: dict[str, Json] = {}

    def reply(self, request: str) -> Json | None:
        """The reply to the request of this key, or None."""
        return self.replies.get(request)

    def keep(self, request: str, reply: Json) -> None:
        """Keep the reply in memory."""
        self.replies[request] = reply


class Cached:
    """The model, answering from the store what it holds. New replies are kept if the store has `keep`."""

    def __init__(self, model: Model, store: Store):
        self.name = model.name
        self.fingerprint = model.fingerprint
        self._model = model
        self._store = store

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers, kept or new."""
        key = request_key(self.fingerprint, prompt, sampling, tools, n)
        found = self._store.reply(key)
        if found is not None:
            return _completions(found, n)
        completions = await self._model.complete(prompt, sampling, tools=tools, n=n)
        self._keep(key, _body(completions))
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """One answer: a kept one in one piece, a new one as it comes."""
        key = request_key(self.fingerprint, prompt, sampling, tools, 1)
        found = self._store.reply(key)
        if found is not None:
            (completion,) = _completions(found, 1)
            yield Delta(completion.message.text, completion)
            return
        async for delta in self._model.stream(prompt, sampling, tools=tools):
            if delta.completion is not None:
                self._keep(key, _body([delta.completion]))
            yield delta

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihoods, kept or new."""
        key = request_key(self.fingerprint, prompt, continuations=continuations)
        found = self._store.reply(key)
        if found is not None:
            return _scored(found)
        scored = await self._model.score(prompt, continuations)
        self._keep(key, scored.to_json())
        return scored

    def _keep(self, key: str, body: Json) -> None:
        if isinstance(self._store, Writer):
            self._store.keep(key, body)


class Replay:
    """A Model that answers from the store alone; what the store does not hold is a ModelError that says what was asked.

    `fingerprint` must be the one of the model that gave the replies.
    """

    def __init__(self, store: Store, *, name: str, fingerprint: str):
        self.name = name
        self.fingerprint = fingerprint
        self._store = store

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """The `n` answers that were recorded."""
        found = self._store.reply(request_key(self.fingerprint, prompt, sampling, tools, n))
        if found is None:
            names = [spec.name for spec in tools]
            raise self._missing(prompt, f"with {_settings(sampling)}, tools {names}, n={n}")
        return _completions(found, n)

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """The answer that was recorded, in one piece."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta(completion.message.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihoods that were recorded."""
        found = self._store.reply(request_key(self.fingerprint, prompt, continuations=continuations))
        if found is None:
            raise self._missing(prompt, f"with the continuations {[each[:40] for each in continuations[:8]]}")
        return _scored(found)

    def _missing(self, prompt: Prompt, how: str) -> ModelError:
        last = prompt if isinstance(prompt, str) else prompt[-1].text if prompt else ""
        return ModelError(
            f"the replay of {self.name} holds no reply to {last[:80]!r} {how}: it answers only what was recorded, "
            "so keep the tasks, the pattern, the sampling and the seed as they were, or run without replay"
        )


def _settings(sampling: Sampling) -> str:
    """The settings that are not the defaults, and those one looks for first."""
    default = Sampling().to_json()
    shown = {key: value for key, value in sampling.to_json().items() if value != default.get(key)}
    return ", ".join(f"{key}={value}" for key, value in ({"max_tokens": sampling.max_tokens} | shown).items())


def _body(completions: Sequence[Completion]) -> Json:
    return {"completions": [completion.to_json() for completion in completions]}


def _completions(body: Json, n: int) -> list[Completion]:
    try:
        completions = [Completion.from_json(each) for each in body["completions"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(error) from None
    if len(completions) != n:
        raise StoreError(
            f"a stored reply holds {len(completions)} answers where {n} were asked for: the store is damaged"
        )
    return completions


def _scored(body: Json) -> Scored:
    try:
        return Scored.from_json(body)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> StoreError:
    return StoreError(
        f"a stored reply is not what was expected ({type(error).__name__}: {error}): the store is damaged"
    )
