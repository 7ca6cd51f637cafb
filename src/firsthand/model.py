"""What answers: the Model and Embedder protocols, and the plain data that goes in and comes out.

A prompt is either a conversation (a sequence of Messages, rendered by the model's own chat template) or a plain string,
which reaches the model as it is, for base models and for evaluations whose protocol fixes every character.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from firsthand.message import Json, Message, canonical
from firsthand.sampling import Sampling as Sampling

Prompt = str | Sequence[Message]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class Usage:
    """What an answer cost; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_usd + other.cost_usd,
        )

    def to_json(self) -> Json:
        """The counts as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class Completion:
    """One answer: the assistant message, why it ended, and what it cost."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    """For each token its most probable alternatives as (text, log-prob), if they were asked for."""
    lease: object = field(default=None, compare=False, repr=False)
    """While it is referenced, a model that runs here keeps prompt and answer in memory for the next turn. No data."""
    versions: tuple[int, ...] = ()
    """Versions of the weights that made its tokens, in order: more than one if they were replaced meanwhile; none if all
    tokens are of those that were loaded first, version 0."""
    adapter_version: int = 0
    """The version of the adapter that it was made with."""

    def to_json(self) -> Json:
        """The completion as a JSON object."""
        body: Json = {
            "message": self.message.to_json(),
            "finish_reason": self.finish_reason,
            "usage": self.usage.to_json(),
        }
        if self.top_logprobs:
            body["top_logprobs"] = [[list(pair) for pair in token] for token in self.top_logprobs]
        if self.versions:
            body["versions"] = list(self.versions)
        if self.adapter_version:
            body["adapter_version"] = self.adapter_version
        return body

    @staticmethod
    def from_json(body: Json) -> Completion:
        """The completion that `to_json` wrote."""
        return Completion(
            message=Message.from_json(body["message"]),
            finish_reason=body["finish_reason"],
            usage=Usage(**body["usage"]),
            top_logprobs=tuple(tuple((text, lp) for text, lp in token) for token in body.get("top_logprobs", ())),
            versions=tuple(body.get("versions", ())),
            adapter_version=body.get("adapter_version", 0),
        )


@dataclass(frozen=True)
class CallDelta:
    """A piece of a tool call in a streamed answer.

    The first piece of a call has its id and name, as soon as the name is known; the `arguments` of its pieces, joined, are a
    JSON object. Where the call turns out to be broken, they are what could be read of it: the Completion is what counts.
    """

    index: int
    """Which of the answer's calls this is, from 0."""
    id: str = ""
    name: str | None = None
    """None in every piece but the first."""
    arguments: str = ""


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer: new text, or a piece of a tool call; the last piece carries the whole Completion."""

    text: str
    completion: Completion | None = None
    call: CallDelta | None = None
    index: int = 0
    """Which of several answers it belongs to."""
    token_ids: tuple[int, ...] = ()
    """The tokens that came, if the model tells; their text may come later, where a character or a stop string is open."""
    logprobs: tuple[float, ...] = ()
    """The natural log of the probability of each of these tokens."""
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    """As in a Completion, for each of these tokens."""
    waited_s: float | None = None
    """With the Completion: how long the answer waited until the model began with it, if the model tells."""


@dataclass(frozen=True)
class Likelihood:
    """How probable a continuation is after a prompt."""

    text: str
    logprob: float
    """Natural log of the probability of the whole continuation: the sum over its tokens."""
    num_tokens: int
    is_greedy: bool
    """Whether each of its tokens was the most probable one."""

    def to_json(self) -> Json:
        """The likelihood as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class Scored:
    """The likelihoods of several continuations of one prompt, in the order they were given, and what they cost."""

    likelihoods: tuple[Likelihood, ...]
    usage: Usage

    def to_json(self) -> Json:
        """The likelihoods and their cost as a JSON object."""
        return {"likelihoods": [each.to_json() for each in self.likelihoods], "usage": self.usage.to_json()}

    @staticmethod
    def from_json(body: Json) -> Scored:
        """What `to_json` wrote."""
        return Scored(tuple(Likelihood(**each) for each in body["likelihoods"]), Usage(**body["usage"]))


@dataclass(frozen=True)
class ToolSpec:
    """What a model is told of a tool: `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Json

    def to_json(self) -> Json:
        """The spec in the shape of OpenAI's `tools` field, which chat templates expect."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


class Model(Protocol):
    """Anything that continues a prompt."""

    @property
    def name(self) -> str:
        """The name a user gave to find it, such as `smollm2`."""

    @property
    def fingerprint(self) -> str:
        """What decides its answers besides the request: equal fingerprints may share cached replies."""

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers to one prompt; the tokens of the prompt are counted in the usage of the first."""

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        """One answer, piece by piece. Closing the iterator aborts it."""

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihood of each continuation after the prompt, which is computed once."""


@runtime_checkable
class TokenCapability(Protocol):
    """The part that a TokenModel adds to a Model, for `isinstance`: with the whole it would read `fingerprint`."""

    @property
    def is_alive(self) -> bool:
        """True while its engine takes requests."""

    async def load(self) -> ModelFacts:
        """Bring the model into memory, if it is not there, and say what it is."""

    def stream_many(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        priority: int = 0,
        run: str = "",
        template: Mapping[str, Any] | None = None,
        cache_salt: str = "",
    ) -> AsyncGenerator[Delta, None]:
        """`n` answers at once, their pieces as they come, each with tokens and log-probs. A prompt may be token ids.

        Lower `priority` goes first; whoever shares a `run` shares the engine as one. The chat template is told `template`.
        Requests with another `cache_salt` share no memory with these, so that nobody learns from an answer's speed what they
        asked. Closing the iterator aborts all.
        """

    async def tokenize(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The ids that a prompt reaches the model as."""

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """The exact bytes of each token. The model must be loaded."""

    async def rate(
        self, ids: Sequence[int], top: int = 0, *, priority: int = 0, run: str = "", cache_salt: str = ""
    ) -> list[TokenRating]:
        """How probable each token after the first was, given those before it, with the `top` most probable ones."""

    async def counters(self) -> Mapping[str, float]:
        """What the engine has done and is doing: numbers by name."""


class TokenModel(Model, TokenCapability, Protocol):
    """A Model that knows its tokens: one that runs in this process, or in replicas of it."""


@runtime_checkable
class AdapterCapability(Protocol):
    """The part that an AdapterModel adds to a TokenModel, for `isinstance`."""

    @property
    def adapters(self) -> Mapping[str, Path]:
        """The folders of the adapters, by name."""

    def put_adapter(self, name: str, folder: Path | str) -> None:
        """Let an adapter be read together with the model; before the model is loaded."""

    def with_adapter(self, name: str) -> AdapterModel:
        """The model that answers with an adapter, under the adapter's name."""

    async def load_adapter(self, name: str, folder: Path | str, *, version: int = 0, replace: bool = False) -> None:
        """Load an adapter while answers are computed."""

    async def unload_adapter(self, name: str) -> None:
        """Take an adapter away from new requests; those under way end with it."""


class AdapterModel(TokenModel, AdapterCapability, Protocol):
    """A TokenModel that keeps LoRA adapters beside its weights."""


@runtime_checkable
class Closable(Protocol):
    """A model or embedder that holds memory, threads or processes."""

    def close(self) -> None:
        """Let go of them."""


def close(*parts: object) -> None:
    """Close those of the models and embedders that are Closable; the others, and None, need nothing."""
    for part in parts:
        if isinstance(part, Closable):
            part.close()


async def shown_pieces(deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The pieces that a reader sees: text, part of a call, or the end. Closing it closes `deltas`, which aborts the answer.

    So `Model.stream` is `stream_many` without the tokens whose text is still to come.
    """
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.text or delta.call or delta.completion:
                yield delta


@dataclass(frozen=True)
class ModelFacts:
    """What a model that runs here can take."""

    context: int
    """Prompt and answer together have at most this many tokens."""
    vocab_size: int
    markup: Literal["hermes", "llama3", "mistral"] | None
    """How it writes tool calls; None if that is not known."""
    thinks: bool
    """Whether its template knows thoughts between `<think>` and `</think>`."""
    computed_by: str = ""
    """What computes it: the instructions of the compiled step, or torch and its device. It may decide a near tie."""


@dataclass(frozen=True)
class TokenRating:
    """How probable a token was where it stood."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens there, as (id, log-prob)."""


class Embedder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def name(self) -> str:
        """The name a user gave to find it."""

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, all of one length, each of Euclidean length 1."""


class CountedVectors(Protocol):
    """The vectors of some texts, with what each text took."""

    @property
    def vectors(self) -> Iterable[Iterable[float]]:
        """A vector for each text."""

    @property
    def num_tokens(self) -> Sequence[int]:
        """Tokens computed for each text."""

    @property
    def truncated(self) -> Sequence[bool]:
        """True for each text that was longer than the model takes and lost its end."""


@runtime_checkable
class CountingEmbedder(Protocol):
    """An Embedder that counts tokens."""

    async def embed_counted(self, texts: Sequence[str]) -> CountedVectors:
        """The vectors of the texts, and the tokens of each."""


def prompt_to_json(prompt: Prompt) -> str | list[Json]:
    """A prompt as JSON: a string as it is, messages as their objects."""
    return prompt if isinstance(prompt, str) else [message.to_json() for message in prompt]


def request_key(
    fingerprint: str,
    prompt: Prompt,
    sampling: Sampling | None = None,
    tools: Sequence[ToolSpec] = (),
    n: int = 1,
    continuations: Sequence[str] = (),
) -> str:
    """SHA-256, in hex, of all that decides an answer: the address of a reply in a store."""
    body = {
        "model": fingerprint,
        "prompt": prompt_to_json(prompt),
        "sampling": None if sampling is None else sampling.to_json(),
        "tools": [spec.to_json() for spec in tools],
        "n": n,
        "continuations": list(continuations),
    }
    return hashlib.sha256(canonical(body).encode("utf-8", "surrogatepass")).hexdigest()
