"""Models that run here: our engine with its tokenizer and chat template is a Model.

The file is read when the first answer is wanted, once, in a thread, however many ask for it together. Everything that
decides an answer is in the fingerprint: the bytes of the model's files, how its weights are packed, and our version.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path

import torch

from firsthand import __version__
from firsthand.engine.checks import check_ids
from firsthand.engine.devices import pick_device
from firsthand.engine.engine import Engine
from firsthand.engine.grammar import CompiledGrammar, Grammars
from firsthand.engine.outputs import Output
from firsthand.engine.sequence import Request
from firsthand.engine.settings import EngineConfig
from firsthand.engine.worker import EngineWorker
from firsthand.errors import ConfigError, ModelError, ModelFileError
from firsthand.message import Message, Sampled, Text
from firsthand.model import (
    CallDelta,
    Completion,
    Delta,
    FinishReason,
    Likelihood,
    ModelFacts,
    Prompt,
    Sampling,
    Scored,
    TokenRating,
    ToolSpec,
    Usage,
)
from firsthand.nn import weights
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import adapter_files
from firsthand.nn.quant import best_mode
from firsthand.providers import hub
from firsthand.providers.contents import content_hash, model_files
from firsthand.tokens import pretrained
from firsthand.tokens.chat import Chat
from firsthand.tokens.stream import StopStrings
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.tokens.toolcalls import CallStream
from firsthand.tokens.toolgrammar import Markup, tool_grammar

_LONG = 20_000
"""A prompt of more characters is encoded in another thread, so that other answers go on."""
ADAPTER = "+lora:"
"""Stands between the name of a model and the folder of its adapter."""


def open_model(text: str) -> Local:
    """The model of that name or path, pulled first if it is not here; nothing is loaded yet.

    `MODEL+lora:FOLDER` is the model with the adapter of that folder merged into its weights.
    """
    base, plus, folder = text.partition(ADAPTER)
    if plus:
        adapter_files(folder)  # said now, and not after a download
    return Local(hub.resolve(base), name=text, adapter=folder if plus else None)


@dataclass(frozen=True)
class Loaded:
    """A model in memory."""

    worker: EngineWorker
    tokenizer: Tokenizer
    chat: Chat
    grammars: Grammars


@dataclass
class Answer:
    """One answer as it comes in."""

    stop: StopStrings
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[tuple[tuple[str, float], ...]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Length of the certain text after each token."""
    text: str = ""
    last: Output | None = None

    def add(self, output: Output, tokenizer: Tokenizer) -> str:
        """Take in an output; returns the text it makes certain."""
        if output.error is not None:
            raise output.error
        piece = ""
        for token_id in output.token_ids:
            self.stop.feed(token_id)
            piece += self.stop.take()
            self.ends.append(len(self.text) + len(piece))
        if output.is_last:
            self.stop.finish()
            piece += self.stop.take()
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        for alternatives in output.top_logprobs:
            self.top_logprobs.append(tuple((tokenizer.decode([i], skip_special=False), lp) for i, lp in alternatives))
        self.text += piece
        self.last = output
        return piece

    @property
    def kept(self) -> int:
        """How many tokens the message keeps: all, unless a stop string cut the text and its end falls between two tokens.

        Where it falls inside a token the tokens are kept whole, so that a later prompt holds what was really sampled.
        """
        if self.stop.stopped is None or len(self.text) not in self.ends:
            return len(self.token_ids)
        return self.ends.index(len(self.text)) + 1


class Local:
    """A model of ours, from a .gguf file or a Hugging Face folder.

    With tools, and no grammar in the sampling, each call that it writes in its own markup is held to the tool's schema;
    `free_calls` leaves that off. `adapter` is a folder with a LoRA adapter, merged into the weights when they are read.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        config: EngineConfig | None = None,
        free_calls: bool = False,
        adapter: Path | str | None = None,
    ):
        self.path = Path(path)
        self.name = name or str(path)
        self.config = config or EngineConfig()
        self.free_calls = free_calls
        self.adapter = None if adapter is None else Path(adapter)
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None

    @cached_property
    def fingerprint(self) -> str:
        """What decides the model's answers, as 16 hex digits."""
        parts = [content_hash(file) for file in model_files(self.path)]
        if self.adapter is not None:
            parts += ["lora", *map(content_hash, adapter_files(self.adapter))]
        config = self.config
        arithmetic = [
            config.device,
            config.weights,
            config.kv_cache,
            best_mode("cpu"),
            str(find_spec("numba") is not None),
            *(["free calls"] if self.free_calls else []),
        ]
        digest = hashlib.sha256("|".join([*parts, *arithmetic, __version__]).encode())
        return f"local:{digest.hexdigest()[:16]}"

    def put_on(self, device: str) -> None:
        """Compute on `cpu`, `cuda`, `cuda:N`, or `auto`, which is CUDA where there is one. To be said before it is loaded.

        ConfigError for a device that is not there.
        """
        self.config = replace(self.config, device=pick_device(device))
        self.__dict__.pop("fingerprint", None)

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers; the prompt is computed once."""
        loaded = await self._ready()
        grammar = await self._grammar(loaded, sampling, tools)
        request, new_answer = self._request(loaded, prompt, sampling, tools, n, grammar)
        answers = [new_answer() for _ in range(n)]
        async with aclosing(loaded.worker.submit(request)) as outputs:
            async for output in outputs:
                answers[output.index].add(output, loaded.tokenizer)
        return [_completion(loaded, request, answer, tools, index == 0) for index, answer in enumerate(answers)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """One answer, piece by piece. Closing the iterator aborts it."""
        async with aclosing(self.stream_many(prompt, sampling, tools=tools)) as deltas:
            async for delta in deltas:
                if delta.text or delta.call or delta.completion:
                    yield delta

    async def stream_many(
        self,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        *,
        tools: Sequence[ToolSpec] = (),
        n: int = 1,
        priority: int = 0,
        run: str = "",
    ) -> AsyncGenerator[Delta, None]:
        """`n` answers at once, their pieces as they come (see `TokenModel`)."""
        loaded = await self._ready()
        grammar = await self._grammar(loaded, sampling, tools)
        make = partial(self._request, loaded, prompt, sampling, tools, n, grammar, priority, run)
        request, new_answer = await asyncio.to_thread(make) if _is_long(prompt) else make()
        answers = [new_answer() for _ in range(n)]
        streams = [CallStream(tools) if tools else None for _ in range(n)]
        async with aclosing(loaded.worker.submit(request)) as outputs:
            async for output in outputs:
                index, answer, calls = output.index, answers[output.index], streams[output.index]
                known = len(answer.top_logprobs)
                piece = answer.add(output, loaded.tokenizer)
                pieces = [piece] if calls is None else calls.feed(piece)
                if output.is_last and calls is not None:
                    pieces = [*pieces, *calls.finish()]
                first, *others = list(_deltas(pieces, index)) or [Delta("", index=index)]
                top = tuple(answer.top_logprobs[known:])
                yield replace(first, token_ids=output.token_ids, logprobs=output.logprobs, top_logprobs=top)
                for delta in others:
                    yield delta
                if output.is_last:
                    yield Delta("", _completion(loaded, request, answer, tools, index == 0), index=index)

    async def load(self) -> ModelFacts:
        """Bring the model into memory, if it is not there, and say what it is."""
        loaded = await self._ready()
        architecture = loaded.worker.engine.architecture
        thinks = "<think>" in (loaded.tokenizer.chat_template or "")
        return ModelFacts(architecture.max_position, loaded.tokenizer.vocab_size, loaded.chat.markup, thinks)

    async def tokenize(self, prompt: Prompt, tools: Sequence[ToolSpec] = ()) -> list[int]:
        """The ids that a prompt reaches the model as."""
        loaded = await self._ready()
        return list(await asyncio.to_thread(_encode, loaded, prompt, tools))

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        loaded = await self._ready()
        check_ids(ids, "tokens", loaded.worker.engine.architecture)
        return loaded.tokenizer.decode(ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """The exact bytes of each token. The model must be loaded."""
        assert self._loaded is not None
        return [self._loaded.tokenizer.token_bytes(id) for id in ids]

    async def rate(self, ids: Sequence[int], top: int = 0, *, priority: int = 0, run: str = "") -> list[TokenRating]:
        """How probable each token after the first was, given those before it, with the `top` most probable ones."""
        loaded = await self._ready()
        if len(ids) < 2:
            return []
        (found,) = await loaded.worker.score(ids[:1], [ids[1:]], top=top, priority=priority, run=run)
        tops = found.top_logprobs or ((),) * len(found.logprobs)
        return [TokenRating(*each) for each in zip(ids[1:], found.logprobs, tops, strict=True)]

    async def counters(self) -> Mapping[str, float]:
        """What the engine has done and is doing: the numbers of its Stats by name. ModelError if it has stopped."""
        loaded = await self._ready()
        found = asdict(await loaded.worker.stats())
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    @property
    def is_alive(self) -> bool:
        """Whether the model is in memory and its engine takes requests."""
        return self._loaded is not None and self._loaded.worker.is_alive

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """The likelihood of each continuation; prefixes in common are computed once.

        After a string, prompt and continuation are encoded together and cut where the prompt's own encoding ends, spaces at
        its end counted to the continuation, as lm-evaluation-harness does. After messages the continuation is encoded alone.
        """
        loaded = await self._ready()
        pairs = [_encode_pair(loaded, prompt, continuation) for continuation in continuations]
        for (_, ids), continuation in zip(pairs, continuations, strict=True):
            if not ids:
                raise ModelError(f"the continuation {continuation!r} has no tokens: give some text to score")
        by_prefix: dict[tuple[int, ...], list[int]] = {}
        for index, (prefix, _) in enumerate(pairs):
            by_prefix.setdefault(prefix, []).append(index)
        found: dict[int, Likelihood] = {}
        cached = 0
        for prefix, indices in by_prefix.items():
            results = await loaded.worker.score(prefix, [pairs[index][1] for index in indices])
            cached += results[0].cached_tokens
            for index, result in zip(indices, results, strict=True):
                logprob, count = sum(result.logprobs), len(result.logprobs)
                found[index] = Likelihood(continuations[index], logprob, count, result.is_greedy)
        computed = sum(map(len, by_prefix)) + sum(len(ids) for _, ids in pairs)
        return Scored(tuple(found[index] for index in range(len(pairs))), Usage(computed, cached))

    def close(self) -> None:
        """Let go of the model. Answers under way get an error."""
        with self._lock:
            if self._loaded is not None:
                self._loaded.worker.close()
            self._loaded = None

    async def _ready(self) -> Loaded:
        loaded = self._loaded
        return loaded if loaded is not None else await asyncio.to_thread(self._load)

    def _load(self) -> Loaded:
        with self._lock:
            loaded = self._loaded
            if loaded is None:
                loaded = load(self.path, self.config, self.adapter)
                self._loaded = loaded
                weakref.finalize(self, loaded.worker.close)  # at exit too: no thread inside torch may outlive Python
            return loaded

    async def _grammar(self, loaded: Loaded, sampling: Sampling, tools: Sequence[ToolSpec]) -> CompiledGrammar | None:
        """What the answers must look like, read for this model in another thread if it is new."""
        if sampling.grammar is not None:
            known = loaded.grammars.find(sampling.grammar)
            return known or await asyncio.to_thread(loaded.grammars.compile, sampling.grammar)
        markup = loaded.chat.markup
        if not tools or self.free_calls or markup is None:
            return None
        return await asyncio.to_thread(_compile_calls, loaded.grammars, tools, markup)

    def _request(
        self,
        loaded: Loaded,
        prompt: Prompt | Sequence[int],
        sampling: Sampling,
        tools: Sequence[ToolSpec],
        n: int,
        grammar: CompiledGrammar | None,
        priority: int = 0,
        run: str = "",
    ) -> tuple[Request, Callable[[], Answer]]:
        """The engine's request, and what makes an Answer for each sample."""
        tokenizer = loaded.tokenizer
        ids = _ids(prompt)
        raw = isinstance(prompt, str) or ids is not None

        def new_stop() -> StopStrings:
            return StopStrings(tokenizer, sampling.stop, continuing=raw or sampling.grammar is not None)

        ends = frozenset() if sampling.ignore_eos else tokenizer.eos_ids
        request = Request(
            prompt=_encode(loaded, prompt, tools) if ids is None else ids,  # type: ignore[arg-type]
            sampling=sampling,
            n=n,
            stop_ids=ends.union(sampling.stop_ids),
            stopper=new_stop if sampling.stop else None,
            grammar=grammar,
            priority=priority,
            run=run,
        )
        return request, lambda: Answer(new_stop())


def load(path: Path, config: EngineConfig, adapter: Path | None = None) -> Loaded:
    """The model of a file or folder, in memory, its engine running."""
    tokenizer = pretrained.load(path)
    chat = Chat(tokenizer, tokenizer.chat_template)
    model = load_weights(path, config, adapter)
    if tokenizer.vocab_size > model.architecture.vocab_size:
        raise ModelFileError(
            f"{path} has {tokenizer.vocab_size} tokens in its tokenizer and {model.architecture.vocab_size} in its "
            "weights: the files do not belong together"
        )
    return Loaded(EngineWorker(Engine(model, config)), tokenizer, chat, Grammars(tokenizer))


def _compile_calls(grammars: Grammars, tools: Sequence[ToolSpec], markup: Markup) -> CompiledGrammar:
    """The grammar of calls of the tools. A schema that makes none counts as any object: its tool checks it."""
    with suppress(ConfigError):
        return grammars.compile(tool_grammar(tools, markup=markup))
    with suppress(ConfigError):
        return grammars.compile(tool_grammar([_readable(grammars, tool, markup) for tool in tools], markup=markup))
    return grammars.compile(tool_grammar([_loose(tool) for tool in tools], markup=markup))


def _readable(grammars: Grammars, tool: ToolSpec, markup: Markup) -> ToolSpec:
    try:
        grammars.compile(tool_grammar([tool], markup=markup))
    except ConfigError:
        return _loose(tool)
    return tool


def _loose(tool: ToolSpec) -> ToolSpec:
    return replace(tool, parameters={"type": "object"})


def load_weights(path: Path, config: EngineConfig, adapter: Path | None = None) -> Decoder:
    """The model of a file or folder on the config's device."""
    if config.device == "cpu":
        return weights.load(path, keep_blocks=config.weights in ("auto", "int8"), adapter=adapter)
    pick_device(config.device)
    if config.weights not in ("auto", "float32"):
        raise ConfigError(
            f"weights is {config.weights!r}, which is for the CPU: on {config.device} give auto or float32"
        )
    dtype = torch.float32 if config.weights == "float32" else torch.bfloat16
    return weights.load(path, dtype=dtype, device=config.device, adapter=adapter)


def _ids(prompt: Prompt | Sequence[int]) -> tuple[int, ...] | None:
    """A prompt of token ids; None for a text or messages."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], Message)):
        return None
    return tuple(prompt) if prompt else None  # type: ignore[arg-type]


def _is_long(prompt: Prompt | Sequence[int]) -> bool:
    """Whether encoding it would hold up the loop."""
    if isinstance(prompt, str):
        return len(prompt) > _LONG
    return sum(len(each.text) for each in prompt if isinstance(each, Message)) > _LONG


def _encode(loaded: Loaded, prompt: Prompt, tools: Sequence[ToolSpec] = ()) -> tuple[int, ...]:
    """The ids of a prompt; never none at all."""
    tokenizer = loaded.tokenizer
    if not isinstance(prompt, str):
        return tuple(loaded.chat.encode(prompt, tools))
    ids = tokenizer.encode(prompt)
    if (tokenizer.add_bos or not ids) and (start := _start_id(tokenizer)) is not None:
        ids = [start, *ids]
    if not ids:
        raise ModelError("the prompt is empty, and the model has no token to begin with: give some text")
    return tuple(ids)


def _encode_pair(loaded: Loaded, prompt: Prompt, continuation: str) -> tuple[tuple[int, ...], list[int]]:
    """The ids of prompt and continuation, apart."""
    if not isinstance(prompt, str):
        return _encode(loaded, prompt), loaded.tokenizer.encode(continuation)
    bare = prompt.rstrip(" ")
    prefix, whole = _encode(loaded, bare), _encode(loaded, prompt + continuation)
    if not bare and whole[:1] != prefix:  # the prompt is empty: its one token is the model's own beginning
        return prefix, list(whole)
    return whole[: len(prefix)], list(whole[len(prefix) :])


def _start_id(tokenizer: Tokenizer) -> int | None:
    return tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id


def _deltas(pieces: Sequence[str | CallDelta], index: int) -> Iterator[Delta]:
    """Text and pieces of calls as pieces of a stream."""
    for piece in pieces:
        if isinstance(piece, CallDelta):
            yield Delta("", call=piece, index=index)
        elif piece:
            yield Delta(piece, index=index)


def _completion(
    loaded: Loaded, request: Request, answer: Answer, tools: Sequence[ToolSpec], is_first: bool
) -> Completion:
    """What the engine brought, as a message with its cost. The prompt is counted with the first of several answers."""
    output = answer.last
    assert output is not None and output.finish_reason is not None
    text, calls = loaded.chat.parse(answer.text, tools) if tools else (answer.text, ())
    is_cut = output.finish_reason == "length" and bool(calls) and calls[-1].invalid is not None
    reason: FinishReason = "tool_calls" if calls and not is_cut else output.finish_reason
    parts = ((Text(text),) if text or not calls else ()) + calls
    kept = answer.kept
    sampled = Sampled(tuple(answer.token_ids[:kept]), tuple(answer.logprobs[:kept]))
    usage = Usage(
        prompt_tokens=output.prompt_tokens if is_first else 0,
        cached_tokens=output.cached_tokens if is_first else 0,
        completion_tokens=len(answer.token_ids),
    )
    lease = loaded.worker.lease((*request.prompt, *sampled.token_ids))
    return Completion(Message("assistant", parts, sampled), reason, usage, tuple(answer.top_logprobs[:kept]), lease)
