"""Local models: our engine with a tokenizer and chat template, as a Model.

The file is loaded once, in a thread, when the first answer is requested. The fingerprint covers all that determines an
answer: the bytes of the model's files, the weight format, and our version.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import secrets
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from firsthand.engine.compute.adapter_slots import check_adapter_name
from firsthand.engine.compute.devices import pick_device
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.request_checks import check_ids
from firsthand.engine.core.sequence import Request
from firsthand.errors import ConfigError, PromptTooLong
from firsthand.hub import model_lookup
from firsthand.hub.content_hash import content_hash, model_files
from firsthand.model import Completion, Delta, ModelFacts, Prompt, Sampling, Scored, TokenRating, ToolSpec, shown_pieces
from firsthand.nn.activation_monitor import ActivationMonitor, read_monitor
from firsthand.nn.lora import Adapter, adapter_files
from firsthand.nn.steering_vector import SteeringVector, read_steering
from firsthand.providers.local_calls import answer_grammar, with_calls
from firsthand.providers.local_completions import (
    Loaded,
    call_stream,
    completion,
    deltas,
    encode,
    is_long,
    new_request,
)
from firsthand.providers.local_loading import fingerprint, load_model
from firsthand.providers.local_scoring import likelihoods
from firsthand.providers.local_shared import SavedAdapter, SharedModel
from firsthand.providers.monitored_requests import MonitoredRequest, model_taps
from firsthand.system import request_owner
from firsthand.tokens.calls.thought_text import CLOSE, OPEN
from firsthand.tokens.tokenizer import TextRun

LORA_MARK, ADAPTER_MARK = "+lora:", "+adapter:"
"""Separate a model's name from its adapter's folder: merged into the weights, or kept beside them."""
STEER_MARK, MONITOR_MARK = "+steer:", "+monitor:"
"""Separate all that from the files of a steering vector and of an activation monitor."""
_shared: weakref.WeakValueDictionary[Path, SharedModel] = weakref.WeakValueDictionary()
"""The models opened with an adapter beside them, while someone holds them."""


def open_model(text: str) -> Local:
    """Returns the model of that name or path, pulled if missing; nothing is loaded yet.

    `MODEL+lora:FOLDER` merges the adapter in that folder into the weights. `MODEL+adapter:FOLDER` keeps the adapter
    beside them, and all such models in one process share the base model. `+steer:FILE` or `+steer:FILE@STRENGTH` after
    them adds a steering vector at every token, and `+monitor:FILE` at the end scores the tokens of each answer by a
    monitor of activations.
    """
    watched, mark, file = text.rpartition(MONITOR_MARK)
    if mark:
        monitor = read_monitor(file)
        return open_model(watched).monitored_by(monitor, name=text)
    steered, mark, file = text.rpartition(STEER_MARK)
    if mark:
        vector = read_steering(file)
        return open_model(steered).steered_by(vector, name=text)
    name, plus, folder = text.partition(LORA_MARK if LORA_MARK in text else ADAPTER_MARK)
    if not plus:
        return Local(model_lookup.resolve(text), name=text)
    adapter_files(folder)  # fail before a download
    path = model_lookup.resolve(name)
    if plus == LORA_MARK:
        return Local(path, name=text, adapter=folder)
    base = Local(path, name=name)
    base._shared = _shared.setdefault(path.resolve(), base._shared)
    return base.with_adapter_folder(folder, name=text)


class Local:
    """A model run by our engine, from a .gguf file or a Hugging Face folder.

    With tools and no grammar in the sampling, tool calls in the model's own markup are constrained to the tools'
    schemas; `free_calls` turns that off. `adapter` is a folder with a LoRA adapter to merge into the weights.
    `adapters` maps names to folders of adapters kept beside the weights: `with_adapter(name)` is the model with one of
    them, in the same memory, and requests for all of them run in the same batches.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str | None = None,
        config: EngineConfig | None = None,
        free_calls: bool = False,
        adapter: Path | str | None = None,
        adapters: Mapping[str, Path | str] | None = None,
    ):
        self.path = Path(path)
        self.name = name or str(path)
        self.config = config or EngineConfig()
        self.free_calls = free_calls
        self.adapter = None if adapter is None else Path(adapter)
        self.chosen: str | None = None
        """Name of the adapter that it answers with."""
        self.monitor: ActivationMonitor | None = None
        """Scores the tokens of each answer; see `monitored_by`."""
        self.steering: SteeringVector | None = None
        """Is added to the activations of every token; see `steered_by`."""
        self._shared = SharedModel()
        for each, folder in (adapters or {}).items():
            self.put_adapter(each, folder)
        self._fingerprints: dict[str | None, tuple[object, str]] = {}
        """For the model and each adapter: the inputs of the fingerprint, and the fingerprint. Shared by all views."""

    @property
    def adapters(self) -> Mapping[str, Path]:
        """The folders of the adapters beside the weights, by name."""
        return dict(self._shared.adapters)

    def with_adapter(self, name: str) -> Local:
        """Returns the model with an adapter, under the adapter's name. It shares everything with this one."""
        if name not in self._shared.adapters:
            known = ", ".join(self._shared.adapters) or "none"
            raise ConfigError(f"no adapter {name[:80]!r} is beside {self.name}: there are {known}")
        view = copy.copy(self)
        view.name = view.chosen = name
        return view

    def put_adapter(self, name: str, folder: Path | str) -> None:
        """Add an adapter to load together with the model. Call it before the model is loaded."""
        check_adapter_name(name)
        adapter_files(folder)
        if name in self._shared.adapters:
            raise ConfigError(f"two adapters have the name {name!r}: give each its own")
        self._shared.adapters[name] = Path(folder)
        self._shared.given += (name,)

    def with_adapter_folder(self, folder: Path | str, *, name: str) -> Local:
        """Returns the model with the adapter in a folder, which is loaded when the first answer is requested."""
        folder = Path(folder).resolve()
        key = re.sub(r"[^A-Za-z0-9._-]", "_", folder.name) + "@" + hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self._shared.adapters[key] = folder
        view = self.with_adapter(key)
        view.name = name
        return view

    def monitored_by(self, monitor: ActivationMonitor, *, name: str) -> Local:
        """Returns the model with a monitor of activations: each answer's tokens come with scores (`Sampled.monitor`).

        Its steps run module by module, so log-probs differ from the compiled step's by rounding. ConfigError when it is
        loaded if the monitor does not fit the model, and at once if there is a monitor already.
        """
        if self.monitor is not None:
            raise ConfigError(f"{self.name} has a monitor already: give one")
        view = copy.copy(self)
        view.name, view.monitor = name, monitor
        return view

    def steered_by(self, vector: SteeringVector, *, name: str) -> Local:
        """Returns the model with a steering vector, which is added at every token of prompts and answers, scored ones too.

        Its steps run module by module, and no prefix is shared with other requests. ConfigError if it is steered already;
        a request fails if the vector does not fit the model.
        """
        if self.steering is not None:
            raise ConfigError(f"{self.name} has a steering vector already: give one")
        view = copy.copy(self)
        view.name, view.steering = name, vector
        return view

    @property
    def fingerprint(self) -> str:
        """Hash of all that determines the model's answers, 16 hex digits. ConfigError if the adapter was unloaded."""
        memory = self._shared
        beside = None if self.chosen is None else memory.folder(self.chosen)
        decides = (beside, memory.loadings[self.chosen], memory.weights, self.config)
        known = self._fingerprints.get(self.chosen)
        if known is None or known[0] != decides:
            known = self._fingerprints[self.chosen] = (decides, self._fingerprint(beside))
        modules = "" if self.monitor is None and self.steering is None else "+modules"
        steered = "" if self.steering is None else f"+steer:{self.steering.digest}"
        return known[1] + modules + steered

    def _fingerprint(self, beside: Path | None) -> str:
        parts = [content_hash(file) for file in model_files(self.path)]
        if self.adapter is not None:
            parts += ["lora", *map(content_hash, adapter_files(self.adapter))]
        if beside is not None and self.chosen in self._shared.from_memory:
            parts += ["beside", self._shared.from_memory[self.chosen]]
        elif beside is not None:
            parts += ["beside", *map(content_hash, adapter_files(beside))]
        return fingerprint(parts, self.config, free_calls=self.free_calls, weights=self._shared.weights)

    def put_on(self, device: str) -> None:
        """Compute on `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA if there is a GPU). Call it before the model is loaded.

        Raises ConfigError if the device is missing.
        """
        self.config = replace(self.config, device=pick_device(device))

    def hold_weights_in(self, format: str) -> None:
        """Hold the linear layers as `int8`, `float16` or `float32`; see `EngineConfig.weights`. Call it before loading."""
        self.config = replace(self.config, weights=format)  # type: ignore[arg-type]

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` answers; the prompt is computed once."""
        loaded = await self._ready()
        sampling = await with_calls(loaded, prompt, sampling, tools)
        grammar = await answer_grammar(loaded, sampling, tools, free=self.free_calls, owner=_client())
        derived = await loaded.preparation.derived(loaded, sampling, owner=_client())
        request, new_answer = new_request(loaded, prompt, sampling, tools, n, grammar, self.chosen, derived=derived)
        request, watch = self._watched(loaded, request)
        answers = [new_answer() for _ in range(n)]
        async with aclosing(loaded.worker.submit(request)) as outputs:
            async for output in outputs:
                answers[output.index].add(output, loaded.tokenizer)
        return [
            watch(completion(loaded, request, answer, tools, index == 0), index) for index, answer in enumerate(answers)
        ]

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        """Yields one answer, piece by piece. Closing the iterator aborts it."""
        return shown_pieces(self.stream_many(prompt, sampling, tools=tools))

    async def stream_many(
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
        """Yields the pieces of `n` answers as they come (see `TokenModel`)."""
        loaded = (await self._ready()).with_variables(template)
        sampling = await with_calls(loaded, prompt, sampling, tools)
        client = _client(run)
        grammar = await answer_grammar(loaded, sampling, tools, free=self.free_calls, owner=client)
        derived = await loaded.preparation.derived(loaded, sampling, owner=client)
        make = partial(
            new_request, loaded, prompt, sampling, tools, n, grammar, self.chosen, priority,
            run or request_owner.current(), cache_salt, derived,
        )  # fmt: skip
        prepare = partial(loaded.preparation.run, make, owner=client, call=derived)
        request, new_answer = await prepare() if is_long(prompt) else make()
        request, watch = self._watched(loaded, request)
        answers = [new_answer() for _ in range(n)]
        streams = [call_stream(loaded, request, each, tools) if tools else None for each in answers]
        async with aclosing(loaded.worker.submit(request)) as outputs:
            async for output in outputs:
                index, answer, calls = output.index, answers[output.index], streams[output.index]
                size = len(request.source or request.prompt) if answer.last is None else None
                piece = answer.add(output, loaded.tokenizer)
                fresh = answer.take()
                pieces = [piece] if calls is None else [*calls.feed(piece), *(calls.finish() if output.is_last else ())]
                first, *others = list(deltas(pieces, index)) or [Delta("", index=index)]
                yield replace(
                    first,
                    token_ids=tuple(answer.token_ids[fresh]),
                    logprobs=tuple(answer.logprobs[fresh]),
                    top_logprobs=tuple(answer.top_logprobs[fresh]),
                    top_ids=tuple(answer.top_ids[fresh]),
                    prompt_tokens=size,
                    num_held=len(answer.token_ids) - answer.given,
                )
                for delta in others:
                    yield delta
                if output.is_last:
                    whole = watch(completion(loaded, request, answer, tools, index == 0), index)
                    yield Delta("", whole, index=index, waited_s=output.waited_s)

    def _watched(self, loaded: Loaded, request: Request) -> tuple[Request, Callable[[Completion, int], Completion]]:
        """The request with the model's taps, and what adds the monitor's scores to a completion."""
        watched = None
        if self.monitor is not None:
            self.monitor.expect_fits(loaded.worker.engine.architecture)
            watched = MonitoredRequest(self.monitor)
        if (taps := model_taps(self.steering, watched)) is not None:
            request = replace(request, taps=taps)
        if watched is None:
            return request, lambda answer, index: answer
        return request, lambda answer, index: watched.scored(answer, request, index)

    async def load(self) -> ModelFacts:
        """Load the model if need be, and return its facts."""
        loaded = await self._ready()
        architecture = loaded.worker.engine.architecture
        template = loaded.tokenizer.chat_template or ""
        # DeepSeek-R1's first template only cuts thoughts off
        thinks = OPEN in template or CLOSE in template or loaded.chat.has_channels
        computed_by = loaded.worker.engine.runner.computed_by
        return ModelFacts(
            architecture.max_position,
            loaded.tokenizer.vocab_size,
            loaded.chat.markup,
            thinks,
            computed_by,
            model_lookup.card_sampling(self.path) | loaded.tokenizer.recommended,
            loaded.tokenizer.chat_template is not None,
            tuple(sorted(loaded.tokenizer.hidden_ids)),
            loaded.tokenizer.strips_leading_space,
            "reasoning_effort" in template,
        )

    async def tokenize(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), *, template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Returns the token ids of a prompt; PromptTooLong if they are more than the model's context."""
        loaded = (await self._ready()).with_variables(template)
        ids = list(await loaded.preparation.run(partial(encode, loaded, prompt, tools), owner=_client()))
        if len(ids) > loaded.context:
            raise PromptTooLong(
                f"the prompt has {len(ids)} tokens: the model's context is {loaded.context}, so shorten it"
            )
        return ids

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, without special tokens."""
        loaded = await self._ready()
        check_ids(ids, "tokens", loaded.worker.engine.architecture)
        return await asyncio.to_thread(loaded.tokenizer.decode, ids)

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """Returns the exact bytes of each token. The model must be loaded."""
        assert self._loaded is not None
        return [self._loaded.tokenizer.token_bytes(id) for id in ids]

    async def rate(
        self, ids: Sequence[int], top: int = 0, *, priority: int = 0, run: str = "", cache_salt: str = ""
    ) -> list[TokenRating]:
        """Returns the log-prob of each token after the first, with the `top` most probable tokens at its position."""
        loaded, run = await self._ready(), run or request_owner.current()
        if loaded.sources is not None:
            raise ConfigError(
                "an encoder-decoder does not rate the text it reads: leave out echo, or score its answers"
            )
        if len(ids) < 2:
            return []
        (found,) = await loaded.worker.score(
            ids[:1], [ids[1:]], top=top, priority=priority, owner=run, adapter=self.chosen, salt=cache_salt,
            taps=model_taps(self.steering, None),
        )  # fmt: skip
        tops = found.top_logprobs or ((),) * len(found.logprobs)
        return [TokenRating(*each) for each in zip(ids[1:], found.logprobs, tops, strict=True)]

    async def next_logprobs(self, ids: Sequence[int], *, run: str = "") -> NDArray[np.float64]:
        """Returns the log-prob of every token after `ids`, shape (vocabulary,), as the model gives it."""
        loaded, run = await self._ready(), run or request_owner.current()
        starts, source = (ids, ()) if loaded.sources is None else (loaded.sources.starts, ids)
        (found,) = await loaded.worker.score(
            starts, [starts[:1]], owner=run, adapter=self.chosen, distribution=True, source=source,
            taps=model_taps(self.steering, None),
        )  # fmt: skip
        assert found.distribution is not None
        return found.distribution

    def token_id(self, text: str) -> int | None:
        """Returns the id of the added token that is spelled so; None if there is none. The model must be loaded."""
        assert self._loaded is not None
        return self._loaded.tokenizer.token_id(text)

    async def tokenize_marked(self, text: str, marks: Collection[str]) -> list[int]:
        """Returns the ids of a raw text in which `marks`, and no other texts, become the special tokens of their name."""
        loaded = await self._ready()
        parts = re.split("(" + "|".join(map(re.escape, sorted(marks, key=len, reverse=True))) + ")", text)
        runs = [TextRun(part, part in marks) for part in parts if part]
        ids = loaded.tokenizer.encode_runs(runs, most=loaded.context)
        start = loaded.tokenizer.bos_id if loaded.tokenizer.add_bos else None
        return ids if start is None else [start, *ids]

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a turn. The model must be loaded."""
        assert self._loaded is not None
        return frozenset(self._loaded.tokenizer.eos_ids)

    async def counters(self) -> Mapping[str, float]:
        """Returns the numbers of the engine's Stats by name. ModelError if the engine has stopped."""
        loaded = await self._ready()
        found = asdict(await loaded.worker.stats())
        return {name: value for name, value in found.items() if isinstance(value, int | float)}

    @property
    def _loaded(self) -> Loaded | None:
        return self._shared.loaded

    @property
    def is_alive(self) -> bool:
        """True if the model is loaded and its engine accepts requests."""
        return self._loaded is not None and self._loaded.worker.is_alive

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Returns the likelihood of each continuation; shared prefixes are computed once.

        After a string, prompt and continuation are encoded together and split where the prompt's own encoding ends, its
        trailing spaces counted to the continuation, as in lm-evaluation-harness. After messages the continuation is
        encoded alone.
        """
        taps = model_taps(self.steering, None)
        return await likelihoods(await self._ready(), prompt, continuations, self.chosen, taps)

    async def load_adapter(self, name: str, folder: Path | str, *, version: int = 0, replace: bool = False) -> None:
        """Load an adapter beside the weights while the engine runs; see `Engine.load_adapter`."""
        await self._shared.load_adapter(await self._ready(), name, Path(folder), version=version, replace=replace)

    async def unload_adapter(self, name: str) -> None:
        """Refuse an adapter to new requests; running ones keep it to their end."""
        if name not in self._shared.adapters:
            raise ConfigError(f"no adapter {name[:80]!r} is beside {self.name}")
        self._fingerprints.pop(name, None)
        await self._shared.unload_adapter(await self._ready(), name)

    async def kept_adapter(self, name: str) -> SavedAdapter | None:
        """Returns what is loaded under a name, for `restore_adapter`; None if nothing is."""
        return await self._shared.kept_adapter(await self._ready(), name)

    async def restore_adapter(self, name: str, kept: SavedAdapter | None) -> None:
        """Restore the adapter that `kept_adapter` returned, from memory, or unload the name if it was None."""
        await self._shared.restore_adapter(await self._ready(), name, kept)

    async def update(
        self, state: Mapping[str, Tensor], version: int, *, recompute: bool = True, digest: str = ""
    ) -> None:
        """Replace the weights between two steps without dropping requests; see `Engine.load`.

        The fingerprint changes: by the `digest` of the new weights, or to a random one if it is not given.
        """
        loaded = await self._ready()
        await loaded.worker.load(state, version, recompute=recompute)
        self._shared.weights = digest or secrets.token_hex(16)

    def expect_adapter(self, name: str) -> Local:
        """Returns the model with an adapter that `update_adapter` will load before it is asked."""
        check_adapter_name(name)
        self._shared.adapters.setdefault(name, Path(name))
        return self.with_adapter(name)

    async def update_adapter(self, name: str, adapter: Adapter, version: int) -> None:
        """Load an adapter from memory under a name, in place of the one there, without dropping requests.

        As with `update`, the fingerprint of the model with it changes to a random one.
        """
        await self._shared.update_adapter(await self._ready(), name, adapter, version)

    def close(self) -> None:
        """Unload the model, for all that share it. Running requests get an error."""
        self._shared.close()

    async def _ready(self) -> Loaded:
        memory = self._shared
        if memory.loaded is not None and (self.chosen is None or self.chosen in memory.present):
            return memory.loaded
        return await asyncio.to_thread(self._load)

    def _load(self) -> Loaded:
        memory = self._shared
        with memory.lock:
            loaded = memory.loaded
            if loaded is None:
                loaded = load_model(self.path, self.config, self.adapter)
                try:
                    for name in memory.given:
                        memory.read(loaded, name)
                except BaseException:
                    loaded.worker.close()
                    raise
                weakref.finalize(
                    memory, loaded.worker.close
                )  # also at exit: no thread may be inside torch when Python ends
                memory.loaded = loaded
            if self.chosen is not None:
                memory.read(loaded, self.chosen)
            return loaded


def _client(run: str = "") -> str:
    """The owner of a request's turn in the preparation pool: a client, whatever users it names, or a run."""
    return (run or request_owner.current()).partition("/")[0]
