"""The models of a server by name: the model, its adapters and the embedder; loading, readiness, and facts about each."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from firsthand.cluster.replicas.replica_worker import warm_up
from firsthand.errors import FirsthandError
from firsthand.message import Message
from firsthand.model import (
    AdapterCapability,
    AdapterModel,
    Delta,
    Embedder,
    Model,
    ModelFacts,
    Prompt,
    Sampling,
    TokenCapability,
    TokenModel,
    ToolSpec,
)
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.models.replica_status import fleet_of
from firsthand.system import conversation_owner

LoadState = Literal["loading", "ready", "failed"]


@runtime_checkable
class _HasPath(Protocol):
    """A model that was read from a file or folder."""

    path: Path


@dataclass(frozen=True)
class ServedModel:
    """A model under a name that clients may give: the server's model, or one of its adapters."""

    name: str
    model: Model
    tokens: TokenModel | None
    """The same model, if it runs here."""
    facts: ModelFacts | None
    """None before it is loaded, and for a model that does not run here."""

    @property
    def thinks(self) -> bool:
        """True if the model's template knows thoughts, or if it is no model of tokens and says that it has some."""
        return self.facts.thinks if self.facts is not None else bool(getattr(self.model, "thinks", False))

    @property
    def call_settings(self) -> Sequence[str]:
        """The settings of a Sampling about tool calls that a model elsewhere takes."""
        return () if self.facts is not None else tuple(getattr(self.model, "call_settings", ()))

    def check_stated(self, fields: Mapping[str, Any]) -> None:
        """Refuse what a client states (not None) and the model's endpoint has no field for, but a temperature of 1, at
        which such an endpoint samples."""
        for name in () if self.facts is not None else getattr(self.model, "unsent_settings", ()):
            value = fields.get(name)
            if value is not None and (name, value) != ("temperature", 1):
                raise bad(f"{name} is {value}, and {self.name} has none: leave it out", name, "unsupported_parameter")

    @property
    def charges_turns(self) -> bool:
        """True for a served agent: its sessions charge clients for their turns, whichever door these came by."""
        return bool(getattr(self.model, "charges_turns", False))

    def token_model(self, field: str) -> TokenModel:
        """The model, if it runs here; else a Refusal that names the request's field."""
        if self.tokens is None:
            raise bad(f"{field} needs a model that runs here, and {self.name} does not", field, "unsupported_parameter")
        return self.tokens

    def check_ids(self, ids: Sequence[int], field: str) -> None:
        """Refuse ids that are no tokens of the model."""
        facts = self.facts
        if facts is not None and ids and max(ids) >= facts.vocab_size:
            raise bad(f"{field} holds {max(ids)}: the model's tokens go from 0 to {facts.vocab_size - 1}", field)

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse settings with ids that are no tokens of the model."""
        self.check_ids(sampling.stop_ids, "stop_token_ids")
        self.check_ids([token for token, _ in sampling.logit_bias], "logit_bias")
        self.check_ids(sampling.allowed_token_ids or (), "allowed_token_ids")

    @property
    def system_fingerprint(self) -> str | None:
        """OpenAI's name for all that decides an answer besides the request, the same wherever the same is served.

        That is the package, the model's files and how they are kept (`fingerprint`), and what computes. None for a model
        that does not run here, and once the files are gone that it was read from.
        """
        if self.facts is None:
            return None
        try:
            parts = f"{self.model.fingerprint}|{self.facts.computed_by}"
        except (FirsthandError, OSError):
            return None
        return f"fp_{hashlib.sha256(parts.encode()).hexdigest()[:10]}"

    def stream(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        priority: int = 0,
        run: str = "",
        owner: str = "",
        **options: Any,
    ) -> AsyncGenerator[Delta, None]:
        """The pieces of `n` answers. A model that does not run here ignores `priority` and `run`, and takes no options.

        What such a model keeps of conversations it keeps for each `owner` apart.
        """
        if self.tokens is None:
            return _stream_remote(self.model, prompt, sampling, tools, n, owner)
        return self.tokens.stream_many(prompt, sampling, tools=tools, n=n, priority=priority, run=run, **options)


class ServedModels:
    """The models that one server offers. `name` is what clients call the model; its own name if empty."""

    def __init__(self, model: Model | None, embedder: Embedder | None = None, *, name: str = ""):
        self.model, self.embedder = model, embedder
        self.name = name or (model.name if model else embedder.name if embedder else "")
        self.tokens: TokenModel | None = None
        """The model, if it runs here."""
        self.adapter_model: AdapterModel | None = None
        """The model, if it takes adapters."""
        if model is not None and isinstance(model, TokenCapability):
            self.tokens = model
            self.adapter_model = model if isinstance(model, AdapterCapability) else None
        self.state: LoadState = "loading"
        self.problem = ""
        """Why the state is `failed`."""
        self.facts: ModelFacts | None = None
        """Of a model that runs here, once it is loaded."""
        self.on_facts: Callable[[ModelFacts], None] = lambda facts: None
        """Told once the model is loaded, if it runs here."""
        self.created = int(time.time())

    @property
    def adapters(self) -> Mapping[str, Path]:
        """The folders of the adapters, by name."""
        return self.adapter_model.adapters if self.adapter_model else {}

    @property
    def names(self) -> dict[str, str | None]:
        """The names that clients may give, each with the name of the model that it is an adapter of."""
        names: dict[str, str | None] = {self.name: None}
        if self.embedder:
            names[self.embedder.name] = None
        return dict.fromkeys(self.adapters, self.name) | names

    def find(self, name: str | None) -> ServedModel:
        """The model or adapter of this name, by default the model; a Refusal if there is none, or if it is the embedder."""
        self.check_name(name)
        if self.model is None:
            raise bad("this server has a model for embeddings only: use /v1/embeddings", "model")
        if self.adapter_model is not None and name is not None and name != self.name and name in self.adapters:
            adapted = self.adapter_model.with_adapter(name)
            return ServedModel(name, adapted, adapted, self.facts)
        if name not in (None, self.name):
            raise bad(
                f"{name} makes embeddings and answers nothing: use /v1/embeddings, or the model {self.name}", "model"
            )
        return ServedModel(self.name, self.model, self.tokens, self.facts)

    def find_embedder(self, name: str | None) -> Embedder:
        """The embedder, under its name or none; a Refusal if there is none, and for the name of a model that answers."""
        self.check_name(name)
        if self.embedder is None:
            raise Refusal(501, "this server has no model for embeddings: start it with --embedder minilm")
        if self.model is not None and name not in (None, self.embedder.name):
            raise bad(f"{name} makes no embeddings here: give the model {self.embedder.name}", "model")
        return self.embedder

    def check_name(self, name: str | None) -> None:
        """Refuse the name of a model that is not served."""
        known = list(self.names)
        if name is not None and name not in known:
            raise Refusal(
                404,
                f"there is no model {name!r:.120} here: {' and '.join(known)}",
                param="model",
                code="model_not_found",
            )

    @property
    def is_ready(self) -> bool:
        """True if a request that came now would be answered."""
        return self.state == "ready" and (self.tokens is None or self.tokens.is_alive)

    def check_ready(self) -> None:
        """Raise a Refusal unless the models are ready."""
        if self.state == "loading":
            raise Refusal(503, "the model is being loaded: try again", code="loading", headers={"retry-after": "2"})
        if not self.is_ready:
            why = self._public_problem() or "its engine stopped"
            raise Refusal(503, f"the model has failed: {why}", code="failed", headers={"retry-after": "5"})

    async def load(self, write: Callable[..., None] = lambda event, **fields: None) -> None:
        """Load the models and use each once, so that no client waits for it; then they are ready, or have failed.

        `write` gets `ready` or `failed` with its fields, as `RequestLog.write`.
        """
        try:
            if self.tokens is not None:
                self.facts = await self.tokens.load()
                self.on_facts(self.facts)
                await warm_up(self.tokens)
                for name in [self.name, *self.adapters]:
                    await self.cache_fingerprint(name)
            if self.embedder is not None:
                await self.embedder.embed(["Hello"])
        except Exception as error:  # this runs in a task that nobody awaits, so that nobody else would hear of it
            is_known = isinstance(error, FirsthandError | OSError)
            self.state, self.problem = "failed", str(error) if is_known else f"{type(error).__name__}: {error}"
            write("failed", error=self.problem, **({} if is_known else {"traceback": traceback.format_exc()}))
            return
        self.state = "ready"
        write("ready", model=self.name)

    async def cache_fingerprint(self, name: str | None = None) -> None:
        """Compute a fingerprint in another thread, so that no answer waits until large files are hashed."""
        await asyncio.to_thread(lambda: self.find(name).system_fingerprint)

    async def counters(self) -> Mapping[str, float]:
        """The engine's numbers; none if it does not answer."""
        if self.tokens is not None and self.facts is not None:
            with suppress(FirsthandError, TimeoutError):
                return await asyncio.wait_for(self.tokens.counters(), 5)
        return {}

    def _public_problem(self) -> str:
        """The problem without the folders that files are in, which clients must not learn; the log has them."""
        fleet = fleet_of(self.model)
        text = self.problem or (fleet.problem if fleet else "")
        for folder in (_folder_of(self.model), _folder_of(self.embedder)):
            text = text if folder is None else text.replace(f"{folder}{os.sep}", "")
        return re.sub(r"(?<![\w:/])/(?:[^/\s'\"]+/)+", "", text)


def _folder_of(part: object) -> Path | None:
    return part.path.parent if isinstance(part, _HasPath) else None


async def _stream_remote(
    model: Model, prompt: Prompt | Sequence[int], sampling: Sampling, tools: Sequence[ToolSpec], n: int, owner: str
) -> AsyncGenerator[Delta, None]:
    """The answers of a model that does not run here; several come whole, one after another."""
    if owner:
        conversation_owner.enter(owner)
    text: Prompt = prompt if isinstance(prompt, str) else [each for each in prompt if isinstance(each, Message)]
    if n == 1:
        pieces = model.stream(text, sampling, tools=tools)
        try:
            async for delta in pieces:
                yield delta
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        return
    for index, completion in enumerate(await model.complete(text, sampling, tools=tools, n=n)):
        if completion.message.text:
            yield Delta(completion.message.text, index=index)
        yield Delta("", completion, index=index)
