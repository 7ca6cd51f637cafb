"""Several replicas as one model and one embedder: what a server asks, and which replica does it.

Requests that begin alike go to the same replica (`router.py`). An answer without a seed is given one here, so that it can be
given again from its beginning when its replica is lost (`resume.py`). This side has neither weights nor a tokenizer, only
the spelling of each token, which it asks for once.
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
from firsthand.cluster.replicas.replica_adapters import Shared, SharedAdapters
from firsthand.cluster.replicas.replica_messages import TokenPrompt, delta_of, prompt_json
from firsthand.cluster.replicas.resume import Seen
from firsthand.errors import ConfigError, ModelError
from firsthand.message import Json
from firsthand.model import Completion, Delta, ModelFacts, Prompt, Sampling, Scored, TokenRating, ToolSpec, shown_pieces


class Replicated:
    """A TokenModel whose work is done by a fleet."""

    def __init__(self, fleet: Fleet, name: str):
        self.fleet, self.name = fleet, name
        self.shared = SharedAdapters(fleet)
        self.chosen: str | None = None
        """The adapter that it answers with."""
        self._vocabulary: list[bytes] = []

    @property
    def fingerprint(self) -> str:
        """What decides the answers: that of every replica. ModelError before the first is ready."""
        if self.fleet.told is None:
            raise ModelError("no replica has told yet what its model is: load it first")
        if self.chosen is not None:
            return self.shared.get(self.chosen).fingerprint
        return str(self.fleet.told["same"]["model"])

    @property
    def adapters(self) -> Mapping[str, Path]:
        """The folders of the adapters beside the weights, by name."""
        return {name: shared.folder for name, shared in self.shared.known.items()}

    def with_adapter(self, name: str) -> Replicated:
        """The model that answers with an adapter, under the adapter's name, in the same replicas."""
        self.shared.get(name)
        view = copy.copy(self)
        view.name = view.chosen = name
        return view

    def put_adapter(self, name: str, folder: Path | str) -> None:
        """Let every replica read an adapter when it starts; before the first one is there."""
        if name in self.shared.known:
            raise ConfigError(f"two adapters have the name {name!r}: give each its own")
        self.shared.known[name] = Shared(Path(folder))

    async def load_adapter(self, name: str, folder: Path | str, *, version: int = 0, replace: bool = False) -> None:
        """Put an adapter beside the weights of every replica, or of none (see `adapters.py`)."""
        await self.shared.load(name, Path(folder), version=version, replace=replace)

    async def unload_adapter(self, name: str) -> None:
        """Take an adapter away from new requests, in every replica; those under way end with it."""
        await self.shared.unload(name)

    @property
    def is_alive(self) -> bool:
        """Whether a replica is ready."""
        return self.fleet.is_alive

    @property
    def problem(self) -> str:
        """Why none is."""
        return self.fleet.problem

    async def load(self) -> ModelFacts:
        """Wait for the replicas, and say what the model is. ModelError if none can work."""
        told = await self.fleet.ready()
        if not self._vocabulary:
            spelled = await self.fleet.ask({"method": "vocabulary"})
            self._vocabulary = [text.encode("latin-1") for text in spelled]
        return ModelFacts(**told["facts"])

    async def stream_many(
        self,
        prompt: TokenPrompt,
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        **options: Any,
    ) -> AsyncGenerator[Delta, None]:
        """`n` answers at once (see `TokenModel`). Whatever else the replicas' model takes goes there as it is."""
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
        wanted = router.pieces(prompt, tools, space=space)
        seen = [Seen() for _ in range(n)]
        served_by = -1
        prompt_ids: tuple[int, ...] | None = None
        async with aclosing(self.fleet.carry(body, wanted, weight=n)) as said:
            async for message in said:
                match message["kind"]:
                    case "placed":
                        served_by = message["replica"]
                    case "again":
                        for each in seen:
                            each.again()
                    case "delta":
                        delta = delta_of(message["delta"])
                        if delta.completion is not None:
                            prompt_ids = delta.completion.prompt_ids or prompt_ids
                            delta = replace(delta, completion=replace(delta.completion, prompt_ids=prompt_ids))
                        fresh = seen[delta.index].rest(delta)
                        if fresh is not None:
                            if fresh.completion is not None:
                                # a conversation was answered: its next turn should go where it is known
                                answered = router.followed(wanted, fresh.completion.message, space=space)
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
        wanted = router.pieces(prompt, space=self._space())
        return Scored.from_json(await self.fleet.ask({**body, "adapter": self.chosen}, wanted))

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
        ids: list[int] = await self.fleet.ask(body)
        return ids

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        return str(await self.fleet.ask({"method": "detokenize", "ids": list(ids)}))

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """The exact bytes of each token. The model must be loaded."""
        return [self._vocabulary[id] for id in ids]

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> list[TokenRating]:
        """How probable each token after the first was."""
        body: Json = {"method": "rate", "ids": list(ids), "top": top, "adapter": self.chosen, "options": options}
        found = await self.fleet.ask(body, router.pieces(ids, space=self._space(options.get("cache_salt", ""))))
        return [TokenRating(id, lp, tuple((other, at) for other, at in best)) for id, lp, best in found]

    async def counters(self) -> Mapping[str, float]:
        """The numbers of all engines together."""
        return await self.fleet.counters()

    def close(self) -> None:
        """End the replicas."""
        self.fleet.close()

    def _space(self, salt: str = "") -> object:
        """With whose prompts these share what is known of them: those of the same loading of an adapter, and of one salt."""
        loading = None if self.chosen is None else (self.chosen, self.shared.loadings[self.chosen])
        return (loading, salt)


class Vectors(NamedTuple):
    """What an embedder of ours gives, with plain lists."""

    vectors: list[list[float]]
    num_tokens: list[int]
    truncated: list[bool]


class ReplicatedEmbedder:
    """An Embedder whose work is done by a fleet."""

    def __init__(self, fleet: Fleet, name: str):
        self.fleet, self.name = fleet, name

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text."""
        await self.fleet.ready()
        if not texts:
            return []
        vectors: list[list[float]] = (await self.embed_counted(texts)).vectors
        return vectors

    async def embed_counted(self, texts: Sequence[str]) -> Vectors:
        """The vectors, with the tokens of each text and whether it lost its end."""
        found = await self.fleet.ask({"method": "embed", "texts": list(texts)})
        return Vectors(found["vectors"], found["num_tokens"], found["truncated"])

    def close(self) -> None:
        """End the replicas."""
        self.fleet.close()
