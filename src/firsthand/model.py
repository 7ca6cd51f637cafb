"""The Model and Embedder protocols, and the plain data of their requests and answers.

A prompt is either a conversation (a sequence of Messages, rendered by the model's own chat template) or a plain string,
which reaches the model as it is, for base models and for evaluations whose protocol fixes every character.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from firsthand.errors import ModelError
from firsthand.message import Json, Message
from firsthand.sampling import Sampling as Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Prompt = str | Sequence[Message]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True)
class Usage:
    """The cost of an answer; `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    cache_write_tokens: int = 0
    """Tokens of the prompt that an endpoint wrote to its cache, if it reports them: some charge more for these."""

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
            self.cache_write_tokens + other.cache_write_tokens,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(mine - its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def at_most(self, other: Usage) -> Usage:
        """The smaller one of each count."""
        return Usage(*(min(mine, its) for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))

    def to_json(self) -> Json:
        """The counts as a JSON object; written tokens have a key only where there are any."""
        body = dict(vars(self))
        if not self.cache_write_tokens:
            del body["cache_write_tokens"]
        return body


def lost_usage(error: BaseException) -> Usage:
    """Returns what the requests of a failed call cost, as far as it is known."""
    usage = getattr(error, "usage", None)
    return usage if isinstance(usage, Usage) else Usage()


def add_lost_usage(error: ModelError, usage: Usage) -> None:
    """Add to an error what requests cost that were paid for in vain."""
    error.usage = lost_usage(error) + usage


@dataclass(frozen=True)
class Completion:
    """One answer: the assistant message, why it ended, and what it cost."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    """For each token its most probable alternatives as (text, log-prob), if they were asked for."""
    lease: object = field(default=None, compare=False, repr=False)
    """While it is referenced, a local model keeps the prompt and the answer in memory for the next turn. Not data."""
    prompt_ids: tuple[int, ...] | None = None
    """The token ids of the prompt. None if the model does not report them."""
    adapter_version: int = 0
    """The version of the adapter that it was made with."""
    stop_string: str | None = None
    """The stop string that ended it. None if another thing did, or if the model does not report it."""
    has_control: bool = False
    """True if its tokens hold control tokens before their end, which no text of a client is ever encoded to."""
    reply_index: int | None = field(default=None, compare=False)
    """Which of the replies of an OrderedReplies model it is, from 0. None of any other model."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the weights that computed its tokens, in order; more than one if they were replaced meanwhile."""
        sampled = self.message.sampled
        return tuple(dict.fromkeys(sampled.versions or ())) if sampled is not None else ()

    def to_json(self) -> Json:
        """The completion as a JSON object."""
        body: Json = {
            "message": self.message.to_json(),
            "finish_reason": self.finish_reason,
            "usage": self.usage.to_json(),
        }
        if self.top_logprobs:
            body["top_logprobs"] = [[list(pair) for pair in token] for token in self.top_logprobs]
        if self.prompt_ids is not None:
            body["prompt_ids"] = list(self.prompt_ids)
        if self.adapter_version:
            body["adapter_version"] = self.adapter_version
        if self.stop_string is not None:
            body["stop_string"] = self.stop_string
        if self.has_control:
            body["has_control"] = True
        if self.reply_index is not None:
            body["reply_index"] = self.reply_index
        return body

    @staticmethod
    def from_json(body: Json) -> Completion:
        """The completion that `to_json` wrote."""
        return Completion(
            message=Message.from_json(body["message"]),
            finish_reason=body["finish_reason"],
            usage=Usage(**body["usage"]),
            top_logprobs=tuple(tuple((text, lp) for text, lp in token) for token in body.get("top_logprobs", ())),
            prompt_ids=tuple(body["prompt_ids"]) if "prompt_ids" in body else None,
            adapter_version=body.get("adapter_version", 0),
            stop_string=body.get("stop_string"),
            has_control=body.get("has_control", False),
            reply_index=body.get("reply_index"),
        )


@dataclass(frozen=True)
class CallDelta:
    """A piece of a tool call in a streamed answer.

    The first piece of a call has its id and name, as soon as the name is known; the `arguments` of its pieces, joined, are a
    JSON object. Where the call turns out to be broken, they are what could be read of it: the Completion is what counts.
    """

    index: int
    """The number of the call within the answer, from 0."""
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
    """The number of the answer it belongs to, where there are several."""
    token_ids: tuple[int, ...] = ()
    """The new tokens, if the model reports them; their text may come later, while a character or a stop string is open.

    Of all pieces they are those of the Completion's message: none that a stop string may still cut off is among them.
    """
    logprobs: tuple[float, ...] = ()
    """The natural log of the probability of each of these tokens."""
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    """As in a Completion, for each of these tokens."""
    waited_s: float | None = None
    """With the Completion: how long the answer waited in the queue, if the model reports it."""
    prompt_tokens: int | None = None
    """With the first piece of an answer: the tokens of its prompt, if the model reports them before the end."""
    num_held: int = 0
    """Tokens computed so far that no piece has: held back for a stop string, or cut off by one."""
    is_revised: bool = False
    """With the Completion: earlier pieces hold text that it lacks, as where a remote agent replaced a draft."""
    top_ids: tuple[tuple[int, ...], ...] = ()
    """The tokens of `top_logprobs`, if the model reports them: several may have one text, as parts of a character do."""


@dataclass(frozen=True)
class Likelihood:
    """The probability of a continuation after a prompt."""

    text: str
    logprob: float
    """Natural log of the probability of the whole continuation: the sum over its tokens."""
    num_tokens: int
    is_greedy: bool
    """True if each of its tokens was the most probable one."""

    def to_json(self) -> Json:
        """The likelihood as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True)
class Scored:
    """The likelihoods of several continuations of one prompt, in the order they were given, and their cost."""

    likelihoods: tuple[Likelihood, ...]
    usage: Usage

    def to_json(self) -> Json:
        """The likelihoods and their cost as a JSON object."""
        return {"likelihoods": [each.to_json() for each in self.likelihoods], "usage": self.usage.to_json()}

    @staticmethod
    def from_json(body: Json) -> Scored:
        """The likelihoods that `to_json` wrote."""
        return Scored(tuple(Likelihood(**each) for each in body["likelihoods"]), Usage(**body["usage"]))


@dataclass(frozen=True)
class ToolSpec:
    """The description of a tool for a model: `parameters` is the JSON schema of its arguments."""

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
    """Continues a prompt."""

    @property
    def name(self) -> str:
        """The name it was opened by, such as `smollm2`."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides its answers besides the request: equal fingerprints may share cached replies."""

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

        Lower `priority` goes first; requests of one `run` share the engine as one owner. `template` holds variables for the
        chat template. Requests with another `cache_salt` share no prefix cache with these, so that an answer's speed reveals
        no other client's prompt. Closing the iterator aborts all.
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
        """The log-prob of each token after the first, given those before it, with the `top` most probable ones."""

    async def counters(self) -> Mapping[str, float]:
        """The engine's counters and present load, by name."""


@runtime_checkable
class DistributionCapability(Protocol):
    """The part of a TokenModel in this process that gives whole distributions, for decoders outside the engine."""

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a turn. The model must be loaded."""

    def token_id(self, text: str) -> int | None:
        """The id of the added token that is spelled so; None if there is none. The model must be loaded."""

    async def tokenize_marked(self, text: str, marks: Collection[str]) -> list[int]:
        """The ids of a raw text in which `marks`, and no other texts, become the special tokens of their name."""

    async def next_logprobs(self, ids: Sequence[int], *, run: str = "") -> NDArray[np.float64]:
        """The log-prob of every token after `ids`, shape (vocabulary,). The model's own: no temperature, no cuts."""


class TokenModel(Model, TokenCapability, Protocol):
    """A Model that knows its tokens: one that runs in this process, or in replicas of it."""


class DistributionModel(TokenModel, DistributionCapability, Protocol):
    """A TokenModel that gives whole distributions."""


@runtime_checkable
class TokenCounter(Protocol):
    """A Model that counts the tokens of a prompt without answering it, and is no TokenModel."""

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Tokens that a prompt costs, with its tools and the continuations that are scored after it."""


@runtime_checkable
class RequestChecker(Protocol):
    """A Model that knows, before it is asked, what its endpoint has no field for."""

    def check_request(self, sampling: Sampling, *, chats: bool = True, scores: bool = False) -> None:
        """ConfigError for an agent's settings it cannot have, or for tasks of plain text (not `chats`) or log-probs."""


@runtime_checkable
class OrderedReplies(Protocol):
    """A Model that may hold a list of replies, gives each once, in order, and says which (`Completion.reply_index`)."""

    @property
    def is_ordered(self) -> bool:
        """True if it holds such a list."""

    def skip_replies(self, given: Collection[int]) -> None:
        """Go on after the replies of these indices, which a run that is resumed has had. Indices it knows change nothing."""


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
    """The deltas with text, part of a call, or the end. Closing it closes `deltas`, which aborts the answer.

    `Model.stream` is `stream_many` without the deltas whose text is still to come.
    """
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.text or delta.call or delta.completion:
                yield delta


@dataclass(frozen=True)
class ModelFacts:
    """The limits and abilities of a model."""

    context: int
    """Prompt and answer together have at most this many tokens."""
    vocab_size: int
    markup: Literal["hermes", "llama3", "mistral", "harmony"] | None
    """The syntax of its tool calls; None if not known."""
    thinks: bool
    """True if its answers may begin with a thought between `<think>` and `</think>`, as Harmony's analysis is shown too."""
    computed_by: str = ""
    """The instruction set of the compiled step, or torch and its device. It may decide a near tie."""
    recommended: Mapping[str, float] = field(default_factory=dict)
    """Sampling settings that its authors recommend, by the fields of a Sampling."""
    has_template: bool = True
    """False for a base model, which has no chat template."""
    hidden_ids: tuple[int, ...] = field(default=(), compare=False)
    """The tokens that no text shows unless it is asked for with special tokens."""
    strips_space: bool = field(default=False, compare=False)
    """True if the text of ids lacks the space with which their first word begins."""
    takes_effort: bool = field(default=False, compare=False)
    """True if its chat template has the variable `reasoning_effort`, as that of gpt-oss."""


BASE_MODEL = (
    "{name} has no chat template: it is a base model, which continues a text, so chat with an instruction-tuned one"
)
"""Told where a model without a template is to chat."""


@dataclass(frozen=True)
class TokenRating:
    """The log-prob of a token in its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most probable tokens there, as (id, log-prob)."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """The name it was opened by."""

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

    async def embed_counted(self, texts: Sequence[str], *, whole: bool = False) -> CountedVectors:
        """The vectors of the texts, and the tokens of each. With `whole`, raises PromptTooLong instead of truncating a text,
        before any vector is computed."""
