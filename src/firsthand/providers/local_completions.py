"""Translates between text and tokens for local models: prompts to requests, engine outputs to completions.

No tensors: `local` loads models and calls their engines.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from firsthand.engine.core.outputs import Output
from firsthand.engine.core.request_checks import check_num_answers
from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import CompiledGrammar, Grammars
from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.message import Message, Sampled, Text, ToolCall
from firsthand.model import CallDelta, Completion, Delta, FinishReason, Prompt, Sampling, ToolSpec, Usage
from firsthand.providers.request_preparation import DerivedSampling, Preparation, derive
from firsthand.system import request_owner
from firsthand.tokens.calls.call_parser import CallStream
from firsthand.tokens.calls.harmony_text import HarmonyCallStream, HarmonyText, parse_harmony
from firsthand.tokens.calls.thought_text import OPEN, ThoughtText
from firsthand.tokens.generation_limits import NO_LIMITS, GenerationLimits
from firsthand.tokens.incremental_decoding import StopStrings
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer

if TYPE_CHECKING:
    from firsthand.engine.core.engine_thread import EngineWorker

_TAIL = 8
"""Tokens at the end of a prompt that are searched for a tag: it may be of several, with line ends behind it."""
_LONG = 2048
"""A text of more characters is encoded in another thread, so that it does not block the event loop."""


@dataclass(frozen=True)
class SourceFormat:
    """The tokens that an encoder-decoder expects around a source text, and those that its outputs begin with."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    starts: tuple[int, ...]

    def encode(self, tokenizer: Tokenizer, prompt: Prompt, most: int) -> tuple[int, ...]:
        """The ids of a source text; of messages their texts, a blank line between two."""
        if not isinstance(prompt, str):
            prompt = "\n\n".join(message.text for message in prompt)
        return (*self.before, *tokenizer.encode(prompt, most=most), *self.after)


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    worker: EngineWorker
    tokenizer: Tokenizer
    chat: ChatTemplate
    grammars: Grammars
    sources: SourceFormat | None = None
    """Of an encoder-decoder: its prompts are source texts."""
    limits: GenerationLimits = NO_LIMITS
    """The limits of outputs that the model's own files state."""
    preparation: Preparation = field(default_factory=Preparation, compare=False)

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its answer."""
        return self.worker.engine.architecture.max_position

    def with_variables(self, template: Mapping[str, Any] | None) -> Loaded:
        """The same, its chat template told more (see `ChatTemplate.with_variables`)."""
        return replace(self, chat=self.chat.with_variables(template)) if template else self


@dataclass
class AnswerInProgress:
    """One answer under way."""

    stop: StopStrings
    hidden: frozenset[int] = frozenset()
    """The tokens whose text is left out if they end the answer."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    behaviour_logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    """Of the weights, one for each token."""
    top_logprobs: list[tuple[tuple[str, float], ...]] = field(default_factory=list)
    top_ids: list[tuple[int, ...]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Length of the final text after each token."""
    text: str = ""
    last: Output | None = None
    given: int = 0
    """Number of tokens that `take` has given."""

    def add(self, output: Output, tokenizer: Tokenizer) -> str:
        """Add an output; returns the text that is final with it."""
        if output.error is not None:
            raise output.error
        piece = ""
        last = len(output.token_ids) - 1 if output.finish_reason == "stop" else -1
        for place, token_id in enumerate(output.token_ids):
            if place != last or token_id not in self.hidden:
                self.stop.feed(token_id)
            piece += self.stop.take()
            self.ends.append(len(self.text) + len(piece))
        if output.is_last:
            self.stop.finish()
            piece += self.stop.take()
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        self.behaviour_logprobs += output.behaviour_logprobs
        self.versions += [output.version] * len(output.token_ids)
        for alternatives in output.top_logprobs:
            texts = [tokenizer.token_bytes(id).decode("utf-8", "replace") for id, _ in alternatives]
            self.top_logprobs.append(tuple((text, lp) for text, (_, lp) in zip(texts, alternatives, strict=True)))
            self.top_ids.append(tuple(id for id, _ in alternatives))
        self.text += piece
        self.last = output
        return piece

    @property
    def kept(self) -> int:
        """The number of tokens the message keeps: all, unless a stop string cut the text off before the last ones.

        The token that it begins in is kept. Before the end: the tokens that no stop string can cut off any more.
        """
        if not self.stop.cuts:
            return len(self.token_ids)
        return min(bisect_left(self.ends, len(self.text)) + 1, len(self.token_ids))

    def take(self) -> slice:
        """Returns the place of the tokens that became certain to be kept since the last call."""
        since, self.given = self.given, self.kept
        return slice(since, self.given)


def new_request(
    loaded: Loaded,
    prompt: Prompt | Sequence[int],
    sampling: Sampling,
    tools: Sequence[ToolSpec],
    n: int,
    grammar: CompiledGrammar | None,
    adapter: str | None = None,
    priority: int = 0,
    run: str = "",
    salt: str = "",
    derived: DerivedSampling | None = None,
) -> tuple[Request, Callable[[], AnswerInProgress]]:
    """The engine's request, and a factory for the Answer of each sample.

    `run` defaults to the current request owner, and `derived` is made of the sampling if it is not given.
    """
    check_num_answers(n)  # before so many Answers are made
    tokenizer = loaded.tokenizer
    ids = _ids(prompt)
    derived = derived or derive(loaded, sampling)
    raw = loaded.sources is None and (isinstance(prompt, str) or ids is not None)

    has_channels = not raw and sampling.skip_special_tokens and loaded.chat.has_channels
    reads_calls = bool(tools) and loaded.chat.markup == "harmony"

    def new_stop() -> StopStrings:
        continuing = raw or sampling.grammar is not None
        return StopStrings(
            tokenizer,
            derived.stop,
            skip_special=sampling.skip_special_tokens,
            continuing=continuing,
            after=sampling.min_tokens,
            include=sampling.include_stop_str_in_output,
            channels=HarmonyText(tokenizer, calls=reads_calls) if has_channels else None,
        )

    hidden = frozenset() if sampling.include_stop_str_in_output else derived.stop_ids
    read = encode(loaded, prompt, tools) if ids is None else ids  # type: ignore[arg-type]
    request = Request(
        prompt=read if loaded.sources is None else loaded.sources.starts,
        sampling=sampling,
        n=n,
        stop_ids=derived.stop_ids,
        stopper=new_stop if sampling.stop else None,
        bad_sequences=derived.bad_sequences,
        token_filter=derived.token_filter,
        grammar=grammar,
        priority=priority,
        owner=run or request_owner.current(),
        adapter=adapter,
        salt=salt,
        source=() if loaded.sources is None else read,
    )
    return request, lambda: AnswerInProgress(new_stop(), hidden)


def completion(
    loaded: Loaded, request: Request, answer: AnswerInProgress, tools: Sequence[ToolSpec], is_first: bool
) -> Completion:
    """A finished answer as a Completion. The prompt is counted with the first of several answers."""
    output = answer.last
    assert output is not None and output.finish_reason is not None
    text, calls = answer.text, tuple[ToolCall, ...]()
    if tools and _marks_calls(answer):
        text, calls = parse_harmony(text)
    elif tools:
        text, calls = loaded.chat.parse(text, tools, thought=thought_of(loaded, request))
    broken = calls[-1].invalid if calls else None
    is_cut = broken is not None and _is_cut(loaded, request, answer, broken)
    reason: FinishReason = "tool_calls" if calls and not is_cut else output.finish_reason
    parts = ((Text(text),) if text or not calls else ()) + calls
    kept = answer.kept
    sampled = Sampled(
        tuple(answer.token_ids[:kept]),
        tuple(answer.logprobs[:kept]),
        tuple(answer.behaviour_logprobs[:kept]),
        tuple(answer.versions[:kept]),
    )
    usage = Usage(
        prompt_tokens=(len(request.source) or output.prompt_tokens) if is_first else 0,
        cached_tokens=output.cached_tokens if is_first else 0,
        completion_tokens=len(answer.token_ids),
    )
    text_so_far = (*request.prompt, *sampled.token_ids)
    return Completion(
        Message("assistant", parts, sampled),
        reason,
        usage,
        tuple(answer.top_logprobs[:kept]),
        None if request.source else loaded.worker.lease(text_so_far, adapter=request.adapter, salt=request.salt),
        prompt_ids=request.source or request.prompt,
        adapter_version=output.adapter_version,
        stop_string=answer.stop.stopped,
        has_control=loaded.tokenizer.has_control(_before_end(request, answer, kept), calls=bool(calls)),
    )


def call_stream(
    loaded: Loaded, request: Request, answer: AnswerInProgress, tools: Sequence[ToolSpec]
) -> CallStream | HarmonyCallStream:
    """Finds the calls in an answer's text."""
    return HarmonyCallStream() if _marks_calls(answer) else CallStream(tools, thought=thought_of(loaded, request))


def _marks_calls(answer: AnswerInProgress) -> bool:
    return answer.stop.channels is not None and answer.stop.channels.marks_calls


def rules_final(loaded: Loaded, prompt: Prompt | Sequence[int], grammar: Grammar) -> bool:
    """True if a grammar rules the final channel of the answer: in a chat in Harmony, unless it names the channels."""
    is_chat = loaded.sources is None and not isinstance(prompt, str) and _ids(prompt) is None
    return loaded.chat.has_channels and is_chat and not grammar.names_channels


def thought_of(loaded: Loaded, request: Request) -> ThoughtText:
    """The thought that an answer may begin with: open if the prompt ends with its tag, unless a grammar rules from there."""
    grammar = request.sampling.grammar
    is_free = grammar is None or grammar.after_thought or grammar.closes_thought
    return ThoughtText(is_open=is_free and _ends_in_thought(loaded, request.prompt))


def opens_thought(loaded: Loaded, prompt: Prompt | Sequence[int], tools: Sequence[ToolSpec]) -> bool:
    """True if the prompt, as the model is given it, ends with the tag that opens a thought."""
    ids = _ids(prompt)
    return _ends_in_thought(loaded, encode(loaded, prompt, tools) if ids is None else ids)  # type: ignore[arg-type]


def _ends_in_thought(loaded: Loaded, ids: Sequence[int]) -> bool:
    tail = b"".join(map(loaded.tokenizer.token_bytes, ids[-_TAIL:]))
    return tail.rstrip().endswith(OPEN.encode())


def _is_cut(loaded: Loaded, request: Request, answer: AnswerInProgress, broken: str) -> bool:
    """True if the answer was cut off by its length, or in its last, broken call by what the request says ends an answer.

    That is a stop string, or a stop token that is no end of the model's own. A call that ended before is broken in itself.
    """
    assert answer.last is not None
    if answer.last.finish_reason == "length":
        return True
    is_asked = answer.token_ids[-1] in request.stop_ids - loaded.tokenizer.eos_ids
    return (is_asked or answer.stop.stopped is not None) and answer.text.rstrip().endswith(broken)


def _before_end(request: Request, answer: AnswerInProgress, kept: int) -> list[int]:
    """The tokens that a message keeps, without one that ended it."""
    ids = answer.token_ids[:kept]
    ended = (
        answer.last is not None and answer.last.finish_reason == "stop" and bool(ids) and ids[-1] in request.stop_ids
    )
    return ids[:-1] if ended else ids


def deltas(pieces: Sequence[str | CallDelta], index: int) -> Iterator[Delta]:
    """Text and pieces of calls as Deltas."""
    for piece in pieces:
        if isinstance(piece, CallDelta):
            yield Delta("", call=piece, index=index)
        elif piece:
            yield Delta(piece, index=index)


def is_long(prompt: Prompt | Sequence[int]) -> bool:
    """Returns whether encoding the prompt may block the event loop for long; messages may, by their template."""
    if isinstance(prompt, str):
        return len(prompt) > _LONG
    return any(isinstance(each, Message) for each in prompt[:1])


def encode(loaded: Loaded, prompt: Prompt, tools: Sequence[ToolSpec] = ()) -> tuple[int, ...]:
    """The ids of a prompt, at least one. PromptTooLong for a text that clearly exceeds the model's context."""
    tokenizer = loaded.tokenizer
    if loaded.sources is not None:
        if tools:
            raise ConfigError("an encoder-decoder takes no tools: leave them out, or ask a chat model")
        return loaded.sources.encode(tokenizer, prompt, loaded.context)
    if not isinstance(prompt, str):
        return tuple(loaded.chat.encode(prompt, tools))
    ids = tokenizer.encode_prompt(prompt, most=loaded.context)
    if not ids and (start := tokenizer.start_id) is not None:
        ids = [start]
    if not ids:
        raise ModelError("the prompt is empty, and the model has no token to begin with: give some text")
    return tuple(ids)


def encode_pair(loaded: Loaded, prompt: Prompt, continuation: str) -> tuple[tuple[int, ...], list[int]]:
    """The ids of the prompt, and those of the continuation. An encoder-decoder's prompt is its source."""
    if loaded.sources is not None:
        return encode(loaded, prompt), loaded.tokenizer.encode(continuation)
    if not isinstance(prompt, str):
        asked = encode(loaded, prompt)
        return asked, loaded.tokenizer.encode_runs([TextRun(continuation, False)], after=asked)
    bare = prompt.rstrip(" ")
    prefix, whole = encode(loaded, bare), encode(loaded, prompt + continuation)
    if not bare and whole[:1] != prefix:  # the prompt is empty: its one token is the model's own beginning
        return prefix, list(whole)
    return whole[: len(prefix)], list(whole[len(prefix) :])


def _ids(prompt: Prompt | Sequence[int]) -> tuple[int, ...] | None:
    """The prompt if it is token ids; None for text or messages."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], Message)):
        return None
    return tuple(prompt) if prompt else None  # type: ignore[arg-type]
