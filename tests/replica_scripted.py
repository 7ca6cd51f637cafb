"""A model for replicas that says what it was asked, with adapters and weights that are no more than names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.message import assistant
from firsthand.model import CallDelta, Completion, Delta, Likelihood, ModelFacts, Scored, TokenRating, Usage


class Echo:
    """A token model: ids are characters, and a call is kept in `asked`."""

    is_alive = True

    def __init__(self, name: str = "echo"):
        self.name, self.fingerprint = name, f"local:{name}"
        self.asked: list[Any] = []
        self.is_closed = False

    async def load(self) -> ModelFacts:
        return ModelFacts(64, 5, None, False)

    async def stream_many(self, prompt: Any, sampling: Any, **options: Any) -> Any:
        self.asked.append(("stream_many", prompt, sampling, options))
        for index in range(options.get("n", 1)):
            yield Delta("a", index=index, token_ids=(1,), logprobs=(-0.5,))
            yield Delta("", call=CallDelta(0, "c", "add", "{}"), index=index)
            yield Delta("b", Completion(assistant("ab"), "stop", Usage(2, 0, 1), prompt_ids=(7, 8)), index=index)

    def stream(self, prompt: Any, sampling: Any, *, tools: Any = ()) -> Any:
        return self.stream_many(prompt, sampling, tools=tools)

    async def complete(self, prompt: Any, sampling: Any, *, tools: Any = (), n: int = 1) -> list[Completion]:
        return [Completion(assistant("ab"), "stop", Usage())] * n

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Scored:
        self.asked.append(("score", prompt, list(continuations)))
        return Scored(tuple(Likelihood(text, -len(text), 1, False) for text in continuations), Usage(3))

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        self.asked.append(("tokenize", prompt, list(tools), template))
        return [1, 2, 3]

    async def detokenize(self, ids: Sequence[int]) -> str:
        return "".join(chr(96 + id) for id in ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        return [bytes([250 + id]) for id in ids]

    async def rate(self, ids: Sequence[int], top: int = 0, **options: Any) -> list[TokenRating]:
        self.asked.append(("rate", list(ids), top, options))
        return [TokenRating(id, -float(id), (("x", -0.5),) * top) for id in ids[1:]]

    async def counters(self) -> Mapping[str, float]:
        return {"num_blocks": 9.0, "prompt_tokens": 4.0}

    def close(self) -> None:
        self.is_closed = True


class Adaptable(Echo):
    """An Echo with adapters and new weights."""

    def __init__(self, name: str = "echo"):
        super().__init__(name)
        self.beside: dict[str, str] = {}
        self.given: list[Any] = []

    @property
    def adapters(self) -> Mapping[str, Path]:
        return {name: Path(each) for name, each in self.beside.items()}

    def put_adapter(self, name: str, folder: Path | str) -> None:
        self.beside[name] = str(folder)

    def with_adapter(self, name: str) -> Echo:
        if name not in self.beside:
            raise ConfigError(f"no adapter {name}")
        view = Echo(f"{self.name}+{name}@{self.beside[name]}")
        view.asked = self.asked
        return view

    async def load_adapter(self, name: str, folder: Path | str, *, version: int = 0, replace: bool = False) -> None:
        self.given.append((name, str(folder), version, replace))
        if str(folder) == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        self.beside[name] = str(folder)

    async def unload_adapter(self, name: str) -> None:
        del self.beside[name]

    async def kept_adapter(self, name: str) -> Any:
        return self.beside.get(name)

    async def restore_adapter(self, name: str, kept: Any) -> None:
        self.beside.pop(name, None)
        if kept is not None:
            self.beside[name] = kept

    async def update(self, state: Mapping[str, Any], version: int, *, digest: str) -> None:
        self.given.append((sorted(state), version, digest))
