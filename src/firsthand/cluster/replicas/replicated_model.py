"""Several replicas as one model, and as one embedder.

Requests with a common prefix go to the same replica (`router.py`). An answer without a seed gets one here, so that another
replica can repeat it if its own is lost (`resume.py`). The server's process has neither weights nor a tokenizer, only the
bytes of each token, which it asks a replica for once.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.cluster.replicas import router
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.replica_adapters import SharedAdapter, SharedAdapters
from firsthand.cluster.replicas.replica_messages import TokenPrompt, delta_of, prompt_json
from firsthand.cluster.replicas.replica_weights import SharedWeights
from firsthand.cluster.replicas.resume import ShownAnswer
from firsthand.errors import ConfigError, ModelError
from firsthand.message import Json
from firsthand.model import Completion, Delta, ModelFacts, Prompt, Sampling, Scored, TokenRating, ToolSpec, shown_pieces
from firsthand.system import request_owner


class ReplicatedModel:
    """An AdapterModel that a fleet computes."""

    def __init__(self, fleet: Fleet, name: str):
        self.fleet, self.name = fleet, name
        self.shared = SharedAdapters(fleet)
        self.weights = SharedWeights(fleet)
        self.chosen: str | None = None
        """The adapter that it answers with."""
        self._vocabulary: list[bytes] = []

    @property
    def fingerprint(self) -> str:
        """The fingerprint of every replica's model. ModelError before the first is ready."""
        if self.fleet.description is None:
            raise ModelError("no replica is ready yet: load the model first")
        found = str(self.fleet.description["same"]["model"])
        if self.chosen is not None:
            found = self.shared.get(self.chosen).fingerprint
        loaded = self.weights.loaded
        return found if loaded is None else f"{found}, weights {loaded.digest[:16]}"

    @property
    def adapters(self) -> Mapping[str, Path]:
        """The folders of the adapters beside the weights, by name."""
        return {name: shared.folder for name, shared in self.shared.known.items()}

    def with_adapter(self, name: str) -> ReplicatedModel:
        """The model that answers with an adapter, under the adapter's name, in the same replicas."""
        self.shared.get(name)
        return self.expect_adapter(name)

    def put_adapter(self, name: str, folder: Path | str) -> None:
        """Let every replica load an adapter when it starts; before the first one has started."""
        if name in self.shared.known:
            raise ConfigError(f"two adapters have the name {name!r}: give each its own")
        self.shared.known[name] = SharedAdapter(Path(folder))

    async def load_adapter(self, name: str, folder: Path | str, *, version: int = 0, replace: bool = False) -> None:
        """Put an adapter beside the weights of every replica, or of none (see `replica_adapters.py`)."""
        await self.shared.load(name, Path(folder), version=version, replace=replace)

    def expect_adapter(self, name: str) -> ReplicatedModel:
        """The model with an adapter that is loaded before it is asked."""
        view = copy.copy(self)
        view.name = view.chosen = name
        return view

    async def load_weights(self, file: Path, version: int) -> None:
        """Replace the weights of every replica by those of a safetensors file (see `replica_weights.py`)."""
        await self.weights.load(file, version)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter for new requests, in every replica; those under way end with it."""
        await self.shared.unload(name)

    @property
    def is_alive(self) -> bool:
        """True if a replica is ready."""
        return self.fleet.is_alive

    @property
    def problem(self) -> str:
        """Why no replica is ready."""
        return self.fleet.problem

    async def load(self) -> ModelFacts:
        """Wait for the replicas; the facts of their model. ModelError if none can work."""
        description = await self.fleet.ready()
        if not self._vocabulary:
            spelled = await self.fleet.call({"method": "vocabulary"})
            self._vocabulary = [text.encode("latin-1") for text in spelled]
        return ModelFacts(**description["facts"])

    async def stream_many(
        self,
        prompt: TokenPrompt,
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        **options: Any,
    ) -> AsyncGenerator[Delta, None]:
        """`n` answers at once (see `TokenModel`). Other options are passed to the replica's model."""
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(62))
        body: Json = {
            "method": "stream_many",
            "prompt": prompt_json(prompt),
            "sampling": sampling.to_json(),
            "tools": [tool.to_json() for tool in tools],
            "adapter": self.chosen,
            "options": {"n": n, **options},
        }
        space = self._space(options.get("cache_salt", ""))
        prefix = router.prefix_hashes(prompt, tools, space=space)
        shown = [ShownAnswer() for _ in range(n)]
        served_by = -1
        prompt_ids: tuple[int, ...] | None = None
        async with aclosing(self.fleet.stream(body, prefix, weight=n)) as messages:
            async for message in messages:
                match message["kind"]:
                    case "placed":
                        served_by = message["replica"]
                    case "restarted":
                        for each in shown:
                            each.restart()
                    case "delta":
                        delta = delta_of(message["delta"])
                        if delta.completion is not None:
                            prompt_ids = delta.completion.prompt_ids or prompt_ids
                            delta = replace(delta, completion=replace(delta.completion, prompt_ids=prompt_ids))
                        fresh = shown[delta.index].rest(delta)
                        if fresh is not None:
                            if fresh.completion is not None:
                                # the next turn of the conversation should go to the replica that has it cached
                                answered = router.next_turn_hashes(prefix, fresh.completion.message, space=space)
                                self.fleet.router.note(served_by, answered)
                            yield fresh

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        """One answer, piece by piece."""
        return shown_pieces(self.stream_many(prompt, sampling, tools=tools))

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers."""
        found: dict[int, Completion] = {}
        async for delta in self.stream_many(prompt, sampling, tools=tools, n=n):
            if delta.completion is not None:
                found[delta.index] = delta.completion
        return [found[index] for index in range(n)]

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihood of each continuation."""
        body: Json = {"method": "score", "prompt": prompt_json(prompt), "continuations": list(continuations)}
        prefix = router.prefix_hashes(prompt, space=self._space())
        return Scored.from_json(await self.fleet.call({**body, "adapter": self.chosen}, prefix))

    async def tokenize(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The ids that a prompt reaches the model as."""
        body: Json = {
            "method": "tokenize",
            "prompt": prompt_json(prompt),
            "tools": [tool.to_json() for tool in tools],
            "template": template and dict(template),
        }
        ids: list[int] = await self.fleet.call(body)
        return ids

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        return str(await self.fleet.call({"method": "detokenize", "ids": list(ids)}))

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """The exact bytes of each token. The model must be loaded."""
        return [self._vocabulary[id] for id in ids]

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> list[TokenRating]:
        """The log-prob of each token after the first."""
        body: Json = {"method": "rate", "ids": list(ids), "top": top, "adapter": self.chosen, "options": options}
        found = await self.fleet.call(body, router.prefix_hashes(ids, space=self._space(options.get("cache_salt", ""))))
        return [TokenRating(id, lp, tuple((other, at) for other, at in best)) for id, lp, best in found]

    async def counters(self) -> Mapping[str, float]:
        """The counters of all engines together."""
        return await self.fleet.counters()

    def close(self) -> None:
        """End the replicas."""
        self.fleet.close()

    def _space(self, salt: str = "") -> object:
        """The prefix-cache space: prompts share prefixes with those of the same load of the adapter and the same salt."""
        loading = None if self.chosen is None else (self.chosen, self.shared.loadings[self.chosen])
        return (loading, self.weights.loaded and self.weights.loaded.digest, salt)


class EmbeddedTexts(NamedTuple):
    """A CountedVectors in plain lists."""

    vectors: list[list[float]]
    num_tokens: list[int]
    truncated: list[bool]


class ReplicatedEmbedder:
    """An Embedder that a fleet computes."""

    def __init__(self, fleet: Fleet, name: str):
        self.fleet, self.name = fleet, name

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text."""
        await self.fleet.ready()
        if not texts:
            return []
        vectors: list[list[float]] = (await self.embed_counted(texts)).vectors
        return vectors

    async def embed_counted(self, texts: Sequence[str], *, whole: bool = False) -> EmbeddedTexts:
        """The vectors of the texts, and the tokens of each. With `whole`, raises PromptTooLong instead of truncating a text,
        before any vector is computed."""
        owner = request_owner.current()
        found = await self.fleet.call({"method": "embed", "texts": list(texts), "whole": whole, "owner": owner})
        return EmbeddedTexts(found["vectors"], found["num_tokens"], found["truncated"])

    def close(self) -> None:
        """End the replicas."""
        self.fleet.close()
