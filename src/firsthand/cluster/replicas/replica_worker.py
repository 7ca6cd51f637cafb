"""The far side: a model, and perhaps an embedder, that carry out jobs which come as messages (see `wire.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Any, cast

from firsthand import __version__, catalog
from firsthand.cluster.outbox import PATIENCE_S, Outbox
from firsthand.cluster.replicas.replica_messages import delta_json, failed, prompt_of, sampling_of, tool_of
from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub import model_lookup
from firsthand.message import Json
from firsthand.model import Delta, Embedder, Sampling, TokenModel
from firsthand.providers.local_embedder import LocalEmbedder


class Replica:
    """Carries out jobs, as many at a time as it is given."""

    def __init__(self, model: TokenModel | None, embedder: Embedder | None = None):
        self.model, self.embedder = model, embedder
        self._outbox = Outbox()
        self._running: dict[int, asyncio.Task[None]] = {}
        self.undoing: Callable[[], Awaitable[None]] | None = None
        """Makes the adapters what they were before the last change; None when that was settled."""

    async def begin(self) -> Json:
        """Load and use the model once; what must be the same in all replicas, and what a server must know of it."""
        told: Json = {"same": {"firsthand": __version__}}
        if self.model is not None:
            facts = await self.model.load()
            await warm_up(self.model)
            told["same"] |= {"model": self.model.fingerprint}
            told |= {"facts": asdict(facts), "counters": dict(await self.model.counters())}
        if self.embedder is not None:
            await self.embedder.embed(["Hello"])
            told["same"] |= {"embedder": getattr(self.embedder, "fingerprint", self.embedder.name)}
            told["embedder"] = self.embedder.name
        return told

    def take(self, messages: Sequence[Json]) -> None:
        """Begin what is asked, end what is no longer wanted."""
        for message in messages:
            job = message["job"]
            if message["kind"] == "do":
                self._running[job] = asyncio.create_task(self._carry_out(job, message))
            elif (task := self._running.get(job)) is not None:
                task.cancel()

    async def said(self, patience_s: float = PATIENCE_S) -> list[Json]:
        """What has come up since it was asked last, waiting a little for the first of it."""
        return await self._outbox.said(patience_s)

    async def close(self) -> None:
        """End every job, and let go of the models."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for part in (self.model, self.embedder):
            if (close := getattr(part, "close", None)) is not None:
                await asyncio.to_thread(close)

    async def _carry_out(self, job: int, message: Json) -> None:
        try:
            if message["method"] == "stream_many":
                knows_prompt = False
                async with aclosing(self._stream(message)) as deltas:
                    async for delta in deltas:
                        if knows_prompt and delta.completion is not None:  # its ids went with the first of the answers
                            delta = replace(delta, completion=replace(delta.completion, prompt_ids=None))
                        knows_prompt |= delta.completion is not None
                        self._outbox.say({"kind": "delta", "job": job, "delta": delta_json(delta)})
                self._outbox.say({"kind": "end", "job": job, "value": None})
            else:
                value = await _METHODS[message["method"]](self, message)
                self._outbox.say({"kind": "end", "job": job, "value": value})
        except Exception as error:
            self._outbox.say(failed(job, error))
        finally:
            del self._running[job]

    def _stream(self, body: Json) -> AsyncGenerator[Delta, None]:
        found = self.model_of(body).stream_many(
            prompt_of(body["prompt"]),
            sampling_of(body["sampling"]),
            tools=[tool_of(tool) for tool in body["tools"]],
            **body["options"],
        )
        return cast(AsyncGenerator[Delta, None], found)

    @property
    def the_model(self) -> TokenModel:
        """The model, where there is one."""
        assert self.model is not None
        return self.model

    def model_of(self, body: Json) -> TokenModel:
        """The model, with the adapter that a job names if it names one."""
        name = body.get("adapter")
        return self.the_model if name is None else cast(Any, self.the_model).with_adapter(name)


async def _tokenize(replica: Replica, body: Json) -> list[int]:
    prompt = prompt_of(body["prompt"])
    tools = [tool_of(tool) for tool in body["tools"]]
    return await replica.the_model.tokenize(cast(Any, prompt), tools, template=body["template"])


async def _detokenize(replica: Replica, body: Json) -> str:
    return await replica.the_model.detokenize(body["ids"])


async def _rate(replica: Replica, body: Json) -> list[Any]:
    ratings = await replica.model_of(body).rate(body["ids"], body["top"], **body["options"])
    return [[rating.token_id, rating.logprob, rating.top] for rating in ratings]


async def _score(replica: Replica, body: Json) -> Json:
    prompt = cast(Any, prompt_of(body["prompt"]))
    return (await replica.model_of(body).score(prompt, body["continuations"])).to_json()


async def _vocabulary(replica: Replica, body: Json) -> list[str]:
    """The bytes of every token, as text of Latin-1."""
    ids = range((await replica.the_model.load()).vocab_size)
    return [raw.decode("latin-1") for raw in replica.the_model.spell(ids)]


async def _load_adapter(replica: Replica, body: Json) -> str:
    """The fingerprint of the model with the adapter."""
    model, name = _adaptable(replica), body["name"]
    replica.undoing, kept = None, await model.kept_adapter(name)
    try:
        await model.load_adapter(name, body["folder"], version=body["version"], replace=body["replace"])
        replica.undoing = partial(model.restore_adapter, name, kept)
        return str(await asyncio.to_thread(lambda: model.with_adapter(name).fingerprint))
    except OSError as error:
        raise ModelFileError(f"the adapter {name!r} cannot be read: {error.strerror or error}") from None


async def _unload_adapter(replica: Replica, body: Json) -> str:
    model, name = _adaptable(replica), body["name"]
    replica.undoing, kept = None, await model.kept_adapter(name)
    await model.unload_adapter(name)
    replica.undoing = partial(model.restore_adapter, name, kept)
    return ""


async def _undo_adapters(replica: Replica, body: Json) -> None:
    undo, replica.undoing = replica.undoing, None
    if undo is not None:
        await undo()


async def _settle_adapters(replica: Replica, body: Json) -> None:
    replica.undoing = None


def _adaptable(replica: Replica) -> Any:
    if not hasattr(replica.model, "kept_adapter"):
        raise ConfigError("the replicas' model takes no adapters beside it")
    return replica.model


async def _counters(replica: Replica, body: Json) -> dict[str, float]:
    return dict(await replica.the_model.counters())


async def _embed(replica: Replica, body: Json) -> Json:
    embedder: Any = replica.embedder
    texts = body["texts"]
    if not hasattr(embedder, "embed_counted"):
        return {"vectors": await embedder.embed(texts)}
    found = await embedder.embed_counted(texts)
    return {
        "vectors": found.vectors.tolist(),
        "num_tokens": [int(count) for count in found.num_tokens],
        "truncated": [bool(cut) for cut in found.truncated],
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
    "counters": _counters,
    "embed": _embed,
}


async def warm_up(model: TokenModel) -> None:
    """Use a model once in every way, so that no client waits for what is compiled or read at its first use."""
    for sampling in (Sampling(max_tokens=4), Sampling(max_tokens=4, temperature=1.0, top_p=0.9, seed=1)):
        async for _ in model.stream_many("Hello there", sampling, n=3):
            pass
    await model.rate(await model.tokenize("one two three"), 2)


def open_replica(settings: Json) -> Replica:
    """The replica that settings describe: `model` and `embedder` by name or None, `engine` by its fields, and `neighbours`.

    So many replicas on one machine share the memory for keys and values that one alone would take. On a GPU each takes its
    share of what is free there.
    """
    model = None if settings["model"] is None else _open_model(settings)
    embedder = None
    if settings["embedder"] is not None:
        name = settings["embedder"]
        embedder = LocalEmbedder(model_lookup.resolve(name), name=name, threads=settings["engine"].get("threads"))
    return Replica(model, embedder)


def _open_model(settings: Json) -> TokenModel:
    model: Any = catalog.model(settings["model"], device=settings.get("device", "cpu"))
    if not hasattr(model, "stream_many"):
        raise ConfigError(
            f"{settings['model']} does not run here, so that there is nothing to put into replicas: serve it without"
        )
    if hasattr(model, "config"):
        from firsthand.engine.core.engine_config import default_kv_bytes

        engine = dict(settings["engine"])
        if engine.get("kv_memory_bytes") is None and engine.get("device", model.config.device) == "cpu":
            engine["kv_memory_bytes"] = default_kv_bytes() // max(1, settings["neighbours"])
        model.config = replace(model.config, **engine)
    return cast(TokenModel, model)
