"""Models that answer from a store: `Cached` asks its model only for what is missing, `Replay` never asks one.

Replies are found by `firsthand.loop.request_key`, under which a run's journal keeps them too, in the same shape
(`firsthand.loop.reply_body`).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

from firsthand.errors import FirsthandError, ModelError, StoreError
from firsthand.loop.prompt_size import estimated_size, prompt_size, size_key
from firsthand.loop.reply_body import Continued, ReplyChain, answered, from_body, to_body
from firsthand.loop.request_key import request_key
from firsthand.message import Json, Message, canonical
from firsthand.model import Completion, Delta, Model, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers.replies_by_place import Found, PlacedStore, RepliesByPlace, Store

MAX_KNOWN = 1024
"""Replies whose token ids are remembered, so that a conversation's next turn need not be put together from its first."""
MAX_KNOWN_IDS, MAX_CHAIN_IDS, MAX_STORE_IDS = 8_000_000, 50_000_000, 1_000_000_000
"""Token ids that are remembered in all, and of the links of chains for one request and for a whole store; beyond it, the ids
of a prompt are not known."""
_NOT_A_REPLY = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError)
"""The errors of reading a body that is no reply."""


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


class Replies:
    """The replies of a store, with the token ids of their prompts put together.

    `by_place`, where a store knows them, finds the reply of the place that asks; see `RepliesByPlace`.
    """

    def __init__(self, store: Store, by_place: RepliesByPlace | None = None):
        self.store = store
        self._by_place = by_place
        self._ids: OrderedDict[tuple[str, int], array[int]] = OrderedDict()
        """A request, as `_within` names it, and a sample -> the ids of the prompt and the answer."""
        self._left = MAX_STORE_IDS
        self._count = 0
        """The token ids that `_ids` holds."""
        self._continued: OrderedDict[str, tuple[str, int]] = OrderedDict()
        """A conversation by its hash, and the request and answer that it ends with."""

    def find(self, key: str, n: int) -> list[Completion] | None:
        """The `n` answers kept under a key, or None. StoreError if the store holds anything else there."""
        found = self._found(key)
        if found is None:
            return None
        if found.reply is None:
            raise ModelError(f"the call failed when it was recorded: {found.error}")
        body, attempt = found.reply, found.attempt
        try:
            self._learn(body, attempt)
            completions = from_body(body, lambda earlier, sample: self._earlier(_within(attempt, earlier), sample))
            for each in completions:
                _check_usage(each.usage)
        except _NOT_A_REPLY as error:
            raise _damaged(error) from None
        if len(completions) != n:
            raise StoreError(
                f"a stored reply holds {len(completions)} answers where {n} were asked for: the store is damaged"
            )
        self._remember(_within(attempt, key), completions)
        return completions

    def _found(self, key: str) -> Found | None:
        if self._by_place is not None:
            return self._by_place.find(key)
        reply = self.store.reply(key)
        return None if reply is None else Found(reply)

    def _of_attempt(self, attempt: str, key: str) -> Json | None:
        """The last reply to a request within an attempt; without one, within the whole store."""
        if not attempt or not isinstance(self.store, PlacedStore):
            return self.store.reply(key)
        effects = [effect for place, effect in self.store.replied_at(key) if place == attempt]
        return self.store.reply_at(attempt, effects[-1], key) if effects else None

    def keep(self, key: str, prompt: Prompt, completions: Sequence[Completion]) -> None:
        """Keep the answers to a prompt, if the store takes any."""
        if not isinstance(self.store, Writer):
            return
        self.store.keep(key, to_body(completions, self._continued_by(prompt)))
        self._remember(key, completions)
        if not isinstance(prompt, str):
            for sample, completion in enumerate(completions):
                self._continued[_conversation([*prompt, completion.message])] = (key, sample)
            while len(self._continued) > MAX_KNOWN:
                self._continued.popitem(last=False)

    def _continued_by(self, prompt: Prompt) -> Continued | None:
        """The kept answer that a prompt goes on from."""
        if isinstance(prompt, str):
            return None
        last = next((at for at in range(len(prompt) - 1, -1, -1) if prompt[at].sampled is not None), None)
        found = None if last is None else self._continued.get(_conversation(prompt[: last + 1]))
        ids = None if found is None else self._ids.get(found)
        return None if found is None or ids is None else Continued(*found, ids.tolist())

    def _learn(self, body: Json, attempt: str) -> None:
        """Find the ids of the replies that a body continues, the first one first."""
        missing: dict[str, Json] = {}
        last = body
        left = MAX_CHAIN_IDS
        while (prompt := body.get("prompt")) and "after" in prompt:
            key = prompt["after"]
            known = (_within(attempt, key), prompt["sample"]) in self._ids
            found = None if known else self._of_attempt(attempt, key)
            if found is None or key in missing:
                break
            size = _ids_in(found)
            left, self._left = left - size, self._left - size
            if min(left, self._left) < 0 or len(missing) == MAX_KNOWN:
                return
            missing[key] = body = found
        links = [*reversed(missing.items())]
        if not links:
            return
        first = links[0][1].get("prompt") or {}
        chain = ReplyChain(
            self._ids.get((_within(attempt, first["after"]), first["sample"])) if "after" in first else ()
        )
        for (_, found), (_, after) in zip(links, [*links[1:], ("", last)], strict=True):
            chain.go_on(found, after["prompt"]["sample"])
        if chain.ids is not None:
            self._keep_ids(_within(attempt, links[-1][0]), last["prompt"]["sample"], chain.ids)

    def _earlier(self, key: str, sample: int) -> Sequence[int] | None:
        ids = self._ids.get((key, sample))
        return None if ids is None else ids.tolist()

    def _remember(self, key: str, completions: Sequence[Completion]) -> None:
        for sample, completion in enumerate(completions):
            if (ids := answered(completion)) is not None:
                self._keep_ids(key, sample, array("q", ids))

    def _keep_ids(self, key: str, sample: int, ids: array[int]) -> None:
        self._count += len(ids) - len(self._ids.pop((key, sample), ()))
        self._ids[key, sample] = ids
        while len(self._ids) > MAX_KNOWN or (self._count > MAX_KNOWN_IDS and len(self._ids) > 1):
            self._count -= len(self._ids.popitem(last=False)[1])


def _within(attempt: str, key: str) -> str:
    """The key of a request within an attempt; the same request of another attempt may have had another reply."""
    return f"{attempt} {key}" if attempt else key


def _ids_in(body: Json) -> int:
    """The token ids that the answers of a body have with their prompt, as it says."""
    prompt = body.get("prompt") or {"ids": ()}
    return (_count(prompt.get("kept", 0)) + len(prompt["ids"])) * max(1, len(body["completions"]))


def _count(value: object) -> int:
    """A whole number of 0 or more; ValueError if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{str(value)[:40]} stands in the place of a number of tokens")
    return value


def _check_usage(usage: Usage) -> None:
    """ValueError for counts that are no whole numbers, or a cost that is none: a run that adds them could not be read."""
    for name, value in vars(usage).items():
        if name != "cost_usd":
            _count(value)
    if not 0 <= usage.cost_usd < math.inf:
        raise ValueError(f"{str(usage.cost_usd)[:40]} stands in the place of a cost")


def _conversation(messages: Sequence[Message]) -> str:
    body = canonical([message.to_json() for message in messages])
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


class Cached:
    """The model, answering from the store what it holds. New replies are kept if the store has `keep`.

    A model whose weights change has another fingerprint then, and is asked anew. A reply during which they changed is not
    kept.
    """

    def __init__(self, model: Model, store: Store):
        self.name = model.name
        assert isinstance(model.fingerprint, str)  # a model's files are hashed now, not within a request
        self._model = model
        self._store = store
        self._replies = Replies(store)

    @property
    def fingerprint(self) -> str:
        """The model's own, as it is now."""
        return self._model.fingerprint

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers, kept or new."""
        before = self.fingerprint
        key = request_key(before, prompt, sampling, tools, n)
        found = self._replies.find(key, n)
        if found is not None:
            return found
        completions = await self._model.complete(prompt, sampling, tools=tools, n=n)
        if self._is_still(before):
            self._replies.keep(key, prompt, completions)
        return completions

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """One answer: a kept one in one piece, a new one as it comes."""
        before = self.fingerprint
        key = request_key(before, prompt, sampling, tools, 1)
        found = self._replies.find(key, 1)
        if found is not None:
            yield Delta(found[0].message.text, found[0])
            return
        async for delta in self._model.stream(prompt, sampling, tools=tools):
            if delta.completion is not None and self._is_still(before):
                self._replies.keep(key, prompt, [delta.completion])
            yield delta

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihoods, kept or new."""
        before = self.fingerprint
        key = request_key(before, prompt, continuations=continuations)
        found = self._store.reply(key)
        if found is not None:
            return _scored(found)
        scored = await self._model.score(prompt, continuations)
        if isinstance(self._store, Writer) and self._is_still(before):
            self._store.keep(key, scored.to_json())
        return scored

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Tokens that a prompt costs the model."""
        return await prompt_size(self._model, prompt, tools, continuations)

    def _is_still(self, fingerprint: str) -> bool:
        """True if the model has this fingerprint; one that was unloaded meanwhile has none."""
        try:
            return self.fingerprint == fingerprint
        except FirsthandError:
            return False


class Replay:
    """A Model that answers from the store alone; a request that the store does not hold is a ModelError that quotes it.

    A store that knows at which place each reply was given answers each call with the reply of its own place. So does a call
    that had failed there: it is a ModelError again.

    `fingerprint` must be the one of the model that gave the replies.
    """

    def __init__(self, store: Store, *, name: str, fingerprint: str, by_place: RepliesByPlace | None = None):
        """`by_place` is what another Replay of the same store has looked up so far."""
        self.name = name
        self.fingerprint = fingerprint
        self._store = store
        self._by_place = by_place or RepliesByPlace(store)
        self._replies = Replies(store, self._by_place)

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """The `n` answers that were recorded."""
        found = self._replies.find(request_key(self.fingerprint, prompt, sampling, tools, n), n)
        if found is None:
            names = [spec.name for spec in tools]
            raise self._missing(prompt, f"with {_settings(sampling)}, tools {names}, n={n}")
        return found

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """The answer that was recorded, in one piece."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta(completion.message.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihoods that were recorded."""
        found = self._by_place.find(request_key(self.fingerprint, prompt, continuations=continuations))
        if found is None:
            raise self._missing(prompt, f"with the continuations {[each[:40] for each in continuations[:8]]}")
        if found.reply is None:
            raise ModelError(f"the call failed when it was recorded: {found.error}")
        return _scored(found.reply)

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Tokens that a prompt was found to cost; an estimate where that was not recorded."""
        found = self._store.reply(size_key(self.fingerprint, prompt, tools, continuations))
        if found is None:
            return estimated_size(prompt, tools)
        try:
            return _count(found["size"])
        except _NOT_A_REPLY as error:
            raise _damaged(error) from None

    def beside(self, model: Model) -> Replay:
        """The Replay of another model's answers in the same store."""
        return Replay(self._store, name=model.name, fingerprint=model.fingerprint, by_place=self._by_place)

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


def _scored(body: Json) -> Scored:
    try:
        scored = Scored.from_json(body)
        _check_usage(scored.usage)
        return scored
    except _NOT_A_REPLY as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> StoreError:
    return StoreError(
        f"a stored reply is not what was expected ({type(error).__name__}: {error}): the store is damaged"
    )
