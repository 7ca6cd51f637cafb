"""What the routes share: the model and its state, who is being served, and the one way to get answers from it."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import os
import re
import time
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from firsthand.cluster.replicas.replica_worker import warm_up
from firsthand.errors import FirsthandError
from firsthand.message import Json
from firsthand.model import Delta, Embedder, Model, ModelFacts, Prompt, Sampling, TokenModel, ToolSpec, Usage
from firsthand.serve.http.api_keys import Client, Keys
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.request_body import parse_object
from firsthand.serve.http.server_settings import Settings
from firsthand.serve.openai.sampled_turns import Spoken
from firsthand.serve.openai.stored_responses import Store
from firsthand.serve.telemetry.metrics import Metrics
from firsthand.serve.telemetry.request_log import Log

if TYPE_CHECKING:
    from firsthand.serve.telemetry.request_spans import RequestSpan, Spans

State = Literal["loading", "ready", "draining", "failed"]


@dataclass(eq=False)
class Asked:
    """One request being served."""

    id: str
    client: Client
    route: str
    content_type: str | None = None
    raw: bytes = b""
    started_s: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None
    refusal: Refusal | None = None
    """Why it is cut short, if it is."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the log says of it."""
    path: Mapping[str, str] = field(default_factory=dict)
    """The variable parts of its path, by name."""
    span: RequestSpan | None = None
    """What OpenTelemetry is told of it, if it is told anything."""

    def json(self) -> Json:
        """The body. Refused if it is no JSON object."""
        return parse_object(self.raw, self.content_type)

    def cut(self, refusal: Refusal) -> None:
        """End it early: its task is cancelled, and tells the client why."""
        if self.refusal is None and self.task is not None and not self.task.done():
            self.refusal = refusal
            self.task.cancel()


@dataclass(eq=False)
class Door:
    """A model, and everything that stands between it and its clients."""

    model: Model | None
    settings: Settings
    keys: Keys
    embedder: Embedder | None = None
    name: str = ""
    """What clients call the model; its own name if empty."""
    log_target: Any = None
    spans: Spans | None = None
    """Who tells OpenTelemetry of requests, if that was asked for."""
    state: State = "loading"
    problem: str = ""
    """Why the state is `failed`."""
    facts: ModelFacts | None = None
    """Of a model that runs here, once it is loaded."""
    asked: set[Asked] = field(default_factory=set)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.log = Log(self.log_target, self.metrics)
        self.name = self.name or (self.model.name if self.model else self.embedder.name if self.embedder else "")
        self.by_client: dict[str, int] = {}
        self.spent: dict[str, deque[tuple[float, int]]] = {}
        """When each client with such a limit had how many tokens, in the last minute."""
        self.spoken = Spoken()
        self.stored = Store(most=self.settings.stored_responses, most_bytes=self.settings.stored_bytes)
        self.loading = asyncio.Lock()
        """Held while an adapter is read: one at a time, so that readers do not take all threads."""

    @property
    def names(self) -> dict[str, str | None]:
        """What clients may ask for, each with the name of the model that it is an adapter of."""
        names: dict[str, str | None] = {self.name: None}
        if self.embedder:
            names[self.embedder.name] = None
        return dict.fromkeys(adapters(self.model), self.name) | names

    def of(self, name: str | None) -> Door:
        """The same door to the model with that adapter; this one if the name is no adapter's."""
        if self.model is None or name == self.name or name not in adapters(self.model):
            return self
        door = copy.copy(self)
        door.model, door.name = with_adapter(self.model, name), name
        return door

    @property
    def tokens(self) -> TokenModel | None:
        """The model, if its tokens are known here."""
        return cast(TokenModel, self.model) if hasattr(self.model, "stream_many") else None

    @property
    def is_ready(self) -> bool:
        """Whether a request that came now would be answered."""
        return self.state == "ready" and (self.tokens is None or bool(getattr(self.model, "is_alive", True)))

    @property
    def system_fingerprint(self) -> str | None:
        """OpenAI's name for all that decides an answer besides the request, the same wherever the same is served.

        That is the package, the model's files and how they are kept (`fingerprint`), and what computes. None for a model
        that is not here, and where the files are gone that it was read from.
        """
        if self.model is None or self.facts is None:
            return None
        try:
            decides = f"{self.model.fingerprint}|{self.facts.computed_by}"
        except (FirsthandError, OSError):
            return None
        return f"fp_{hashlib.sha256(decides.encode()).hexdigest()[:10]}"

    async def know_fingerprint(self, name: str | None = None) -> None:
        """Read what the fingerprint is made of now, in another thread, so that no answer waits for large files."""
        await asyncio.to_thread(lambda: self.of(name).system_fingerprint)

    def refuse_unready(self) -> None:
        """Raise a Refusal unless the server answers requests."""
        if self.state == "draining":
            close = {"retry-after": "5", "connection": "close"}
            raise Refusal(503, "the server is stopping: ask another one", code="draining", headers=close)
        if self.state == "loading":
            raise Refusal(503, "the model is being loaded: try again", code="loading", headers={"retry-after": "2"})
        if not self.is_ready:
            why = self._told_problem() or "its engine stopped"
            raise Refusal(503, f"the model has failed: {why}", code="failed", headers={"retry-after": "5"})

    def _told_problem(self) -> str:
        """The problem without the folders that files are in, which are no client's business; the log has them."""
        text = self.problem or getattr(self.model, "problem", "")
        for part in (self.model, self.embedder):
            if isinstance(path := getattr(part, "path", None), Path):
                text = text.replace(f"{path.parent}{os.sep}", "")
        return re.sub(r"(?<![\w:/])/(?:[^/\s'\"]+/)+", "", text)

    def the_model(self, asked: str | None) -> Model:
        """The model, if it has the name that was asked for."""
        self.check_name(asked)
        if self.model is None:
            raise bad("this server has a model for embeddings only: use /v1/embeddings", "model")
        return self.model

    def check_name(self, asked: str | None) -> None:
        """Refuse a model that is not here."""
        known = list(self.names)
        if asked is not None and asked not in known:
            raise Refusal(
                404,
                f"there is no model {asked!r:.120} here: {' and '.join(known)}",
                param="model",
                code="model_not_found",
            )

    def token_model(self, field: str) -> TokenModel:
        """The model, if its tokens are known here; else a Refusal that names the field."""
        if self.tokens is None:
            raise bad(f"{field} needs a model that runs here, and {self.name} does not", field, "unsupported_parameter")
        return self.tokens

    def check_ids(self, ids: Sequence[int], field: str) -> None:
        """Refuse ids that are no tokens of the model."""
        facts = self.facts
        if facts is not None and ids and max(ids) >= facts.vocab_size:
            raise bad(f"{field} holds {max(ids)}: the model's tokens go from 0 to {facts.vocab_size - 1}", field)

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse settings that name ids which are no tokens of the model."""
        self.check_ids(sampling.stop_ids, "stop_token_ids")
        self.check_ids([token for token, _ in sampling.logit_bias], "logit_bias")
        self.check_ids(sampling.allowed_token_ids or (), "allowed_token_ids")

    def options(self, asked: Asked, salt: str | None, template: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the model is told of a request besides prompt and sampling: only what is not as always."""
        if self.settings.private_caches and self.tokens is not None:
            salt = f"{asked.client.name}/{salt or ''}"
        return ({"cache_salt": salt} if salt else {}) | ({"template": template} if template else {})

    def wait_for_tokens_s(self, client: Client) -> float:
        """How long until a client may have tokens again; 0 if it may now."""
        spent, now = self.spent.get(client.name), time.monotonic()
        if not client.limits.tokens_per_minute or spent is None:
            return 0.0
        while spent and spent[0][0] <= now - 60:
            spent.popleft()
        had = sum(count for _, count in spent)
        for at, count in spent:
            if had < client.limits.tokens_per_minute:
                break
            had -= count
            if had < client.limits.tokens_per_minute:
                return at + 60 - now
        return 0.0

    async def warm_up(self) -> None:
        """Load the model and use it once, so that no client waits for it; then the server is ready."""
        try:
            if self.tokens is not None:
                self.facts = await self.tokens.load()
                await warm_up(self.tokens)
                for name in self.names:
                    await self.know_fingerprint(name)
            if self.embedder is not None:
                await self.embedder.embed(["Hello"])
        except Exception as error:  # whatever it is, nobody else is told: this runs in a task that nobody awaits
            is_known = isinstance(error, FirsthandError | OSError)
            self.state, self.problem = "failed", str(error) if is_known else f"{type(error).__name__}: {error}"
            trace = {} if is_known else {"traceback": traceback.format_exc()}
            self.log.write("failed", error=self.problem, **trace)
            return
        if self.state == "loading":
            self.state = "ready"
        self.log.write("ready", model=self.name)

    async def counters(self) -> Mapping[str, float]:
        """The engine's numbers; none if it is not there."""
        if self.tokens is not None and self.facts is not None:
            with suppress(FirsthandError, TimeoutError):
                return await asyncio.wait_for(self.tokens.counters(), 5)
        return {}

    async def answers(
        self,
        asked: Asked,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        priority: int = 0,
        user: str = "",
        **options: Any,
    ) -> AsyncGenerator[Delta, None]:
        """The pieces of `n` answers as they come, counted. Closing the iterator aborts what is under way."""
        begun = time.monotonic()
        if asked.span is not None:
            asked.span.asks(self.name, prompt, sampling, n)
        last: dict[int, float] = {}
        run = f"{asked.client.name}/{user}"[:256]
        async with aclosing(self._deltas(prompt, sampling, tools, n, priority, run, options)) as deltas:
            async for delta in deltas:
                if delta.token_ids or (delta.text and not delta.completion):
                    now = time.monotonic()
                    if delta.index in last:
                        self.metrics.between_tokens.observe(now - last[delta.index])
                    else:
                        if not last:
                            asked.notes["ttft_ms"] = round(1000 * (now - begun), 1)
                        self.metrics.first_token.observe(now - begun)
                    last[delta.index] = now
                if delta.completion is not None:
                    self._count(asked, delta.completion.usage)
                    if asked.span is not None:
                        asked.span.answered(delta.completion, delta.waited_s)
                yield delta

    def _deltas(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        tools: Sequence[ToolSpec],
        n: int,
        priority: int,
        run: str,
        options: Mapping[str, Any],
    ) -> AsyncGenerator[Delta, None]:
        """The pieces of `n` answers from whatever the model is."""
        if self.tokens is None:
            return self._deltas_from_afar(cast(Prompt, prompt), sampling, tools, n)
        found = self.tokens.stream_many(prompt, sampling, tools=tools, n=n, priority=priority, run=run, **options)
        return cast(AsyncGenerator[Delta, None], found)

    async def _deltas_from_afar(
        self, text: Prompt, sampling: Sampling, tools: Sequence[ToolSpec], n: int
    ) -> AsyncGenerator[Delta, None]:
        """The same from a model that is not here, which gives several answers at their end."""
        assert self.model is not None
        if n == 1:
            pieces = cast(AsyncGenerator[Delta, None], self.model.stream(text, sampling, tools=tools))
            async with aclosing(pieces) as deltas:
                async for delta in deltas:
                    yield delta
            return
        for index, completion in enumerate(await self.model.complete(text, sampling, tools=tools, n=n)):
            if completion.message.text:
                yield Delta(completion.message.text, index=index)
            yield Delta("", completion, index=index)

    def _count(self, asked: Asked, usage: Usage) -> None:
        tokens = self.metrics.tokens
        counted = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "completion": usage.completion_tokens}
        if asked.client.limits.tokens_per_minute and usage.total_tokens:
            had = self.spent.setdefault(asked.client.name, deque())
            had.append((time.monotonic(), usage.total_tokens))
        for kind, count in counted.items():
            tokens[kind] += count
            asked.notes[f"{kind}_tokens"] = asked.notes.get(f"{kind}_tokens", 0) + count


def adapters(model: Model | None) -> dict[str, Path]:
    """The folders of the adapters beside a model, by name."""
    return dict(getattr(model, "adapters", {}))


def with_adapter(model: Model, name: str) -> Model:
    """The model that answers with one of its adapters."""
    view: Model = cast(Any, model).with_adapter(name)
    return view
