"""One replica: a model, and perhaps an embedder, that does jobs which arrive as messages (see `replica_messages.py`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from firsthand import __version__, catalog
from firsthand.cluster.outbox import PATIENCE_S, Outbox
from firsthand.cluster.replicas.replica_messages import (
    delta_json,
    failure_message,
    prompt_of,
    sampling_of,
    text_prompt_of,
    tool_of,
)
from firsthand.engine.core.engine_config import EngineConfig, default_kv_bytes
from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub import model_lookup
from firsthand.message import Json
from firsthand.model import (
    AdapterCapability,
    AdapterModel,
    CountingEmbedder,
    Delta,
    Embedder,
    Sampling,
    TokenCapability,
    TokenModel,
    close,
)
from firsthand.providers.local_embedder import LocalEmbedder
from firsthand.system import request_owner
from firsthand.system.ordinary_file import open_ordinary


@runtime_checkable
class EngineModel(Protocol):
    """A model that an engine of ours computes; its config counts until it is loaded."""

    config: EngineConfig


@runtime_checkable
class RestorableAdapters(Protocol):
    """A model whose adapters can be put back as they were before a change."""

    async def kept_adapter(self, name: str) -> Any:
        """The adapter that is loaded under a name now, for `restore_adapter`; None if there is none."""

    async def restore_adapter(self, name: str, kept: Any) -> None:
        """Put back the adapter that `kept_adapter` returned."""


@runtime_checkable
class UpdatableModel(Protocol):
    """A model whose weights can be replaced while it answers."""

    async def update(self, state: Mapping[str, Any], version: int, *, digest: str) -> None:
        """Replace the weights by name, between two steps; the digest goes into the fingerprint."""


@runtime_checkable
class FreeCallsModel(Protocol):
    """A model that may sample tool calls without a grammar."""

    free_calls: bool


@runtime_checkable
class _HasFingerprint(Protocol):
    """An embedder that tells what decides its vectors."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal vectors."""


class Replica:
    """Does jobs, as many at a time as arrive."""

    def __init__(self, model: TokenModel | None, embedder: Embedder | None = None):
        self.model, self.embedder = model, embedder
        self._outbox = Outbox()
        self._running: dict[int, asyncio.Task[None]] = {}
        self.undoing: Callable[[], Awaitable[None]] | None = None
        """Puts the adapters back as they were before the last change; None once that was settled."""

    async def begin(self) -> Json:
        """Load the model and use it once. Returns what must be the same in all replicas, and what a server needs to know."""
        description: Json = {"same": {"firsthand": __version__}}
        if self.model is not None:
            facts = await self.model.load()
            await warm_up(self.model)
            description["same"] |= {"model": self.model.fingerprint}
            description |= {"facts": asdict(facts), "counters": dict(await self.model.counters())}
        if self.embedder is not None:
            await self.embedder.embed(["Hello"])
            name = self.embedder.name
            fingerprint = self.embedder.fingerprint if isinstance(self.embedder, _HasFingerprint) else name
            description["same"] |= {"embedder": fingerprint}
            description["embedder"] = name
        return description

    def handle(self, messages: Sequence[Json]) -> None:
        """Start the jobs of the messages, and abort those that they abort."""
        for message in messages:
            job = message["job"]
            if message["kind"] == "do":
                self._running[job] = asyncio.create_task(self._do(job, message))
            elif (task := self._running.get(job)) is not None:
                task.cancel()

    async def outgoing(self, patience_s: float = PATIENCE_S) -> list[Json]:
        """The messages since the last call, after a short wait for the first of them."""
        return await self._outbox.take(patience_s)

    async def close(self) -> None:
        """Abort every job, and close the models."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(close, self.model, self.embedder)

    async def _do(self, job: int, message: Json) -> None:
        try:
            if message["method"] == "stream_many":
                knows_prompt = False
                async with aclosing(self._stream(message)) as deltas:
                    async for delta in deltas:
                        if knows_prompt and delta.completion is not None:  # its ids went with the first of the answers
                            delta = replace(delta, completion=replace(delta.completion, prompt_ids=None))
                        knows_prompt |= delta.completion is not None
                        self._outbox.put({"kind": "delta", "job": job, "delta": delta_json(delta)})
                self._outbox.put({"kind": "end", "job": job, "value": None})
            else:
                value = await _METHODS[message["method"]](self, message)
                self._outbox.put({"kind": "end", "job": job, "value": value})
        except Exception as error:
            self._outbox.put(failure_message(job, error))
        finally:
            del self._running[job]

    def _stream(self, body: Json) -> AsyncGenerator[Delta, None]:
        return self.model_of(body).stream_many(
            prompt_of(body["prompt"]),
            sampling_of(body["sampling"]),
            tools=[tool_of(tool) for tool in body["tools"]],
            **body["options"],
        )

    @property
    def the_model(self) -> TokenModel:
        """The model; for jobs that only replicas with a model get."""
        assert self.model is not None
        return self.model

    def model_of(self, body: Json) -> TokenModel:
        """The model, with the adapter that a job names if it names one."""
        name = body.get("adapter")
        return self.the_model if name is None else self.adapter_model.with_adapter(name)

    @property
    def adapter_model(self) -> AdapterModel:
        """The model, if it takes adapters; else a ConfigError."""
        model = self.the_model
        if not isinstance(model, AdapterCapability):
            raise ConfigError("the replicas' model takes no adapters beside it")
        return model

    async def keep_adapter(self, name: str) -> Callable[[], Awaitable[None]]:
        """A function that puts back what is loaded under a name now."""
        model = self.the_model
        if not isinstance(model, RestorableAdapters):
            raise ConfigError("the replicas' model takes no adapters beside it")
        return partial(model.restore_adapter, name, await model.kept_adapter(name))


async def _tokenize(replica: Replica, body: Json) -> list[int]:
    tools = [tool_of(tool) for tool in body["tools"]]
    return await replica.the_model.tokenize(text_prompt_of(body["prompt"]), tools, template=body["template"])


async def _detokenize(replica: Replica, body: Json) -> str:
    return await replica.the_model.detokenize(body["ids"])


async def _rate(replica: Replica, body: Json) -> list[Any]:
    ratings = await replica.model_of(body).rate(body["ids"], body["top"], **body["options"])
    return [[rating.token_id, rating.logprob, rating.top] for rating in ratings]


async def _score(replica: Replica, body: Json) -> Json:
    scored = await replica.model_of(body).score(text_prompt_of(body["prompt"]), body["continuations"])
    return scored.to_json()


async def _vocabulary(replica: Replica, body: Json) -> list[str]:
    """The bytes of every token, as Latin-1 text."""
    ids = range((await replica.the_model.load()).vocab_size)
    return [raw.decode("latin-1") for raw in replica.the_model.spell(ids)]


async def _load_adapter(replica: Replica, body: Json) -> str:
    """The fingerprint of the model with the adapter."""
    model, name = replica.adapter_model, body["name"]
    replica.undoing, undo = None, await replica.keep_adapter(name)
    try:
        await model.load_adapter(name, body["folder"], version=body["version"], replace=body["replace"])
        replica.undoing = undo
        return str(await asyncio.to_thread(lambda: model.with_adapter(name).fingerprint))
    except OSError as error:
        raise ModelFileError(f"the adapter {name!r} cannot be read: {error.strerror or error}") from None


async def _unload_adapter(replica: Replica, body: Json) -> str:
    replica.undoing, undo = None, await replica.keep_adapter(body["name"])
    await replica.adapter_model.unload_adapter(body["name"])
    replica.undoing = undo
    return ""


async def _undo_adapters(replica: Replica, body: Json) -> None:
    undo, replica.undoing = replica.undoing, None
    if undo is not None:
        await undo()


async def _settle_adapters(replica: Replica, body: Json) -> None:
    replica.undoing = None


async def _load_weights(replica: Replica, body: Json) -> str:
    """The SHA-256 of the file of weights that the model has now."""
    model, file = replica.the_model, Path(body["file"])
    if not isinstance(model, UpdatableModel):
        raise ConfigError("the replicas' model takes no new weights while it runs")
    state, digest = await asyncio.to_thread(_read_weights, file)
    await model.update(state, body["version"], digest=digest)
    return digest


def _read_weights(file: Path) -> tuple[dict[str, Any], str]:
    """The tensors of a safetensors file by name, and its SHA-256. ModelFileError if it cannot be read whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_ordinary(file) as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return load_file(file), digest
    except OSError as error:
        raise ModelFileError(f"the weights in {file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelFileError(f"{file} is no whole safetensors file ({error}): write the weights again") from None


async def _counters(replica: Replica, body: Json) -> dict[str, float]:
    return dict(await replica.the_model.counters())


async def _embed(replica: Replica, body: Json) -> Json:
    embedder, texts = replica.embedder, body["texts"]
    assert embedder is not None
    if not isinstance(embedder, CountingEmbedder):
        return {"vectors": await embedder.embed(texts)}
    with request_owner.set_owner(body["owner"]):
        counted = await embedder.embed_counted(texts, whole=body["whole"])
    return {
        "vectors": [[float(x) for x in vector] for vector in counted.vectors],
        "num_tokens": [int(count) for count in counted.num_tokens],
        "truncated": [bool(cut) for cut in counted.truncated],
    }


_METHODS: Mapping[str, Callable[[Replica, Json], Awaitable[Any]]] = {
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "rate": _rate,
    "score": _score,
    "vocabulary": _vocabulary,
    "load_adapter": _load_adapter,
    "unload_adapter": _unload_adapter,
    "undo_adapters": _undo_adapters,
    "settle_adapters": _settle_adapters,
    "load_weights": _load_weights,
    "counters": _counters,
    "embed": _embed,
}


async def warm_up(model: TokenModel) -> None:
    """Use a model once in every way, so that no client waits for what the first use compiles or reads."""
    for sampling in (Sampling(max_tokens=4), Sampling(max_tokens=4, temperature=1.0, top_p=0.9, seed=1)):
        async for _ in model.stream_many("Hello there", sampling, n=3):
            pass
    with suppress(ConfigError):  # an encoder-decoder does not rate the texts it reads
        await model.rate(await model.tokenize("one two three"), 2)


def open_replica(settings: Json) -> Replica:
    """The replica that settings describe: `model` and `embedder` by name or None, `engine` by its fields, and `neighbours`.

    With `free_calls` tool calls are sampled without a grammar.

    `neighbours` replicas on one machine share the memory of the KV cache that one alone would take. On a GPU each takes
    its share of what is free there.
    """
    model = None if settings["model"] is None else _open_model(settings)
    embedder = None
    if settings["embedder"] is not None:
        name = settings["embedder"]
        embedder = LocalEmbedder(model_lookup.resolve(name), name=name, threads=settings["engine"].get("threads"))
    return Replica(model, embedder)


def _open_model(settings: Json) -> TokenModel:
    model = catalog.model(settings["model"], device=settings.get("device", "cpu"))
    if not isinstance(model, TokenCapability):
        raise ConfigError(f"{settings['model']} does not run here, so it cannot have replicas: leave out --replicas")
    if isinstance(model, EngineModel):
        engine = dict(settings["engine"])
        if engine.get("kv_memory_bytes") is None and engine.get("device", model.config.device) == "cpu":
            engine["kv_memory_bytes"] = default_kv_bytes() // max(1, settings["neighbours"])
        model.config = replace(model.config, **engine)
    if settings.get("free_calls") and isinstance(model, FreeCallsModel):
        model.free_calls = True
    return model
