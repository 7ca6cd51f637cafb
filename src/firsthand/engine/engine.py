"""The engine: requests of token ids in, tokens with log-probs out, one `step` at a time. `worker` runs it in a thread.

Determinism. With packed float16 weights and the compiled attention kernel (both are the default on an x86 CPU), a row
of a step has the same bits whatever else is in the step. So the tokens of a request, greedy or seeded, and their
log-probs do not depend on other requests, on chunking, on what the prefix tree already held, on preemption, or on `n`.
With float32 weights MKL picks its kernels by batch size and log-probs differ by about 5e-7, which may flip a near tie.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from firsthand.engine.blocks import BlockPool
from firsthand.engine.runner import Runner
from firsthand.engine.sampler import choose, is_usable, most_probable, uniform
from firsthand.engine.scheduler import Scheduler
from firsthand.engine.sequence import Chunk, Output, Request, State
from firsthand.engine.sequence import Sequence as Line
from firsthand.errors import ConfigError, FirsthandError, ModelError, PromptTooLong
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder
from firsthand.nn.quant import best_mode, pack

LOGIT_ROWS = 64
MAX_ANSWERS = 1024


@dataclass(frozen=True)
class EngineConfig:
    """How an engine uses the machine; none of it changes an answer but `weights`."""

    block_size: int = 16
    """Positions of a block. The compiled kernel takes multiples of 16."""
    max_batch_tokens: int = 512
    """Tokens of one step: all answers under way, then pieces of prompts."""
    max_sequences: int = 64
    """Answers computed at the same time."""
    kv_memory_bytes: int | None = None
    """Memory for keys and values; None is the smaller of 2 GiB and a quarter of what is free."""
    threads: int | None = None
    """Threads of torch, for the whole process; None leaves them as they are. More than there are idle cores is far slower
    than fewer, since torch's threads wait for each other by spinning."""
    weights: Literal["auto", "float16", "float32"] = "auto"
    """`float16` packs the linear layers for the CPU, `float32` leaves the model as it is, `auto` packs where that works."""

    def __post_init__(self) -> None:
        checks = [
            ("block_size", 1 <= self.block_size <= 1024, "from 1 to 1024"),
            ("max_sequences", self.max_sequences >= 1, "1 or more"),
            (
                "max_batch_tokens",
                self.max_batch_tokens > self.max_sequences,
                f"above max_sequences ({self.max_sequences})",
            ),
            ("kv_memory_bytes", self.kv_memory_bytes is None or self.kv_memory_bytes > 0, "None or above 0"),
            ("threads", self.threads is None or self.threads >= 1, "None or 1 and more"),
            ("weights", self.weights in ("auto", "float16", "float32"), "auto, float16 or float32"),
        ]
        for field, good, expected in checks:
            if not good:
                raise ConfigError(f"{field} is {getattr(self, field)!r}: give {expected}")


class Scored(NamedTuple):
    """The log-prob of each token of a continuation, and whether each was the most probable one."""

    logprobs: tuple[float, ...]
    is_greedy: bool


@dataclass(frozen=True)
class Stats:
    """What an engine has done since it was made, and what it is doing."""

    steps: int
    prefill_tokens: int
    """Computed tokens of prompts and scored continuations, and answers computed again after preemption."""
    cached_tokens: int
    """Tokens that did not have to be computed, because the prefix tree held them."""
    decode_tokens: int
    """Computed tokens of answers."""
    preemptions: int
    running: int
    waiting: int
    free_blocks: int
    """Blocks that can be had, those with cached text included."""
    cached_blocks: int


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread calls it (see `EngineWorker`).

    The engine owns the model it is given: packing changes it in place, so train another copy and `load` from it.
    """

    def __init__(self, model: Decoder, config: EngineConfig = EngineConfig(), *, version: int = 0):
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.config = config
        self.architecture = model.architecture
        self.version = version
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.eval().requires_grad_(False)
        weight = model.embed.weight
        self.weights = _pack(model, config)
        token_bytes = self.architecture.kv_bytes_per_token(weight.element_size())
        num_blocks = (config.kv_memory_bytes or default_kv_bytes()) // (token_bytes * config.block_size)
        if num_blocks < 2:
            raise ConfigError(
                f"kv_memory_bytes is {config.kv_memory_bytes}: a block of {config.block_size} tokens takes "
                f"{token_bytes * config.block_size} bytes, and the engine needs two or more"
            )
        self.runner = Runner(model, num_blocks=num_blocks, block_size=config.block_size)
        self.pool = BlockPool(num_blocks, config.block_size)
        self.scheduler = Scheduler(
            self.pool, max_batch_tokens=config.max_batch_tokens, max_sequences=config.max_sequences
        )
        self._live: dict[int, dict[int, Line]] = {}
        self._held: list[Output] = []
        self._next_id = 0
        self._steps = self._prefill_tokens = self._decode_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do or to tell."""
        return self.scheduler.has_work or bool(self._held)

    def is_live(self, request_id: int) -> bool:
        """Whether more outputs of a request are to come."""
        return request_id in self._live

    def add(self, request: Request) -> int:
        """Queue a request and return its id; outputs carry it with the index of the answer.

        max_tokens is clipped to the model's context. Raises PromptTooLong if the prompt leaves no room for a token,
        or if prompt and answer could never fit the memory for keys and values; ModelError on ids that are not tokens.
        """
        sampling, prompt = request.sampling, list(request.prompt)
        if not 1 <= request.n <= MAX_ANSWERS:
            raise ConfigError(f"n is {request.n}: give 1 to {MAX_ANSWERS}")
        self._check_ids(prompt, "the prompt")
        max_tokens = min(sampling.max_tokens, self.architecture.max_position - len(prompt))
        self._check_room(len(prompt), max(max_tokens, 1))
        seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        lines = [
            Line(
                request_id=self._next_id,
                index=index,
                tokens=list(prompt),
                num_prompt=len(prompt),
                sampling=sampling,
                seed=seed,
                max_tokens=max_tokens,
                stop_ids=request.stop_ids,
                stopper=request.stopper() if request.stopper else None,
            )
            for index in range(request.n)
        ]
        lines[0].followers = lines[1:]
        return self._enter(lines[0], lines)

    def add_score(self, prefix: Sequence[int], continuations: Sequence[Sequence[int]]) -> int:
        """Queue continuations to be scored after a prefix that is computed once, and return the request's id.

        Each continuation brings one Output with its tokens and log-probs, and the finish reason `stop`.
        """
        self._check_ids(prefix, "the prefix")
        for place, continuation in enumerate(continuations):
            if continuation:
                self._check_ids(continuation, f"continuation {place}")
        self._check_room(len(prefix), max(map(len, continuations), default=0))
        request_id = self._next_id
        lead = Line(request_id, -1, list(prefix), len(prefix), goal="prefix")
        lead.followers = [
            Line(request_id, index, [*prefix, *continuation], len(prefix), goal="score")
            for index, continuation in enumerate(continuations)
        ]
        return self._enter(lead, [lead, *lead.followers])

    def score(self, prefix: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Scored]:
        """The log-probs of each continuation's tokens after the prefix. Steps until they are known.

        Outputs of other requests that fall due meanwhile come from the next `step`.
        """
        request_id = self.add_score(prefix, continuations)
        mine: dict[int, Output] = {}
        others: list[Output] = []
        while request_id in self._live:
            for output in self.step():
                if output.request_id == request_id:
                    mine[output.index] = output
                else:
                    others.append(output)
        self._held = others
        return [scored(mine[index]) for index in range(len(continuations))]

    def abort(self, request_id: int, index: int | None = None) -> None:
        """Drop a request, or one of its answers, and free its memory. It sends nothing more. Unknown ids are ignored."""
        lines = self._live.get(request_id, {})
        for line in [line for i, line in lines.items() if index is None or i == index]:
            if index is not None:
                self.scheduler.succeed(line)
            self._end(line)
        self._held = [o for o in self._held if o.request_id != request_id or (index is not None and o.index != index)]

    def step(self) -> list[Output]:
        """Compute once and return what it brought: at most a token for each answer under way.

        A request that fails (its logits are not numbers, its stopper raises) ends with an Output that has an `error`.
        """
        outputs, self._held = self._held, []
        plan = self.scheduler.plan()
        if plan.chunks:
            self._steps += 1
            self.runner.copy(plan.copies)
            outputs += self._compute(plan.chunks)
        return outputs

    def load(self, state: Mapping[str, Tensor], version: int) -> None:
        """Replace the weights. Answers under way go on with the new ones; nothing cached under the old ones is used.

        Raises ConfigError, and changes nothing, if names or shapes differ from the model's.
        """
        state = dict(state)
        if self.architecture.tie_embeddings and "embed.weight" in state:
            state.setdefault("lm_head.weight", state["embed.weight"])
        wrong = sorted(
            name for name in {*state, *self._shapes} if name not in state or self._shapes.get(name) != state[name].shape
        )
        if wrong:
            raise ConfigError(
                f"{len(wrong)} tensors are missing, unknown or of another shape, the first is {wrong[0]!r}"
            )
        self.runner.model.load_state_dict(state)
        self.version = version
        self.scheduler.restart()

    def stats(self) -> Stats:
        """Counters since the start and the present load."""
        return Stats(
            steps=self._steps,
            prefill_tokens=self._prefill_tokens,
            cached_tokens=self.scheduler.num_cached_tokens,
            decode_tokens=self._decode_tokens,
            preemptions=self.scheduler.num_preemptions,
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            free_blocks=self.pool.num_available,
            cached_blocks=self.pool.num_cached,
        )

    def _enter(self, lead: Line, lines: list[Line]) -> int:
        self._live[lead.request_id] = {line.index: line for line in lines}
        self._next_id += 1
        self.scheduler.add(lead)
        return lead.request_id

    def _check_ids(self, ids: Sequence[int], what: str) -> None:
        if not ids:
            raise ModelError(f"{what} is empty: give one token or more, such as the model's start token")
        vocab = self.architecture.vocab_size
        for place, token in enumerate(ids):
            if not isinstance(token, int) or not 0 <= token < vocab:
                raise ModelError(f"token {place} of {what} is {token!r}: expected a whole number from 0 to {vocab - 1}")

    def _check_room(self, num_prompt: int, num_more: int) -> None:
        context = self.architecture.max_position
        if num_prompt + num_more > context:
            raise PromptTooLong(
                f"the prompt has {num_prompt} tokens and at least {num_more} must follow: the model's context is {context}"
            )
        room = self.pool.num_blocks * self.pool.block_size
        if num_prompt + num_more > room:
            raise PromptTooLong(
                f"prompt and answer may need {num_prompt + num_more} tokens of memory and there is room for {room}: "
                "lower max_tokens or raise kv_memory_bytes"
            )

    def _compute(self, chunks: list[Chunk]) -> list[Output]:
        """Run chunks together; if that raises, each alone, so that only the guilty one fails."""
        rows = [(chunk.sequence, position) for chunk in chunks for position in chunk.wanted]
        try:
            hidden_MD = self.runner.hidden(chunks)
        except Exception as error:
            if len(chunks) == 1:
                return self._fail(chunks[0].sequence, error)
            return [output for chunk in chunks for output in self._compute([chunk])]
        for chunk in chunks:
            self._count(chunk)
            self.scheduler.advance(chunk)
        outputs: list[Output] = []
        for start in range(0, len(rows), LOGIT_ROWS):
            part = rows[start : start + LOGIT_ROWS]
            try:
                logits_MV = self.runner.logits(hidden_MD[start : start + LOGIT_ROWS])
            except Exception as error:
                outputs += [
                    output for line in dict.fromkeys(line for line, _ in part) for output in self._fail(line, error)
                ]
                continue
            outputs += self._read(part, logits_MV)
        return outputs

    def _count(self, chunk: Chunk) -> None:
        if chunk.sequence.num_answer and chunk.end - chunk.start == 1 and chunk.sequence.goal == "generate":
            self._decode_tokens += 1
        else:
            self._prefill_tokens += chunk.end - chunk.start

    def _read(self, rows: list[tuple[Line, int]], logits_MV: Tensor) -> list[Output]:
        """What the logits after some positions mean for their sequences."""
        logprobs_MV = logits_MV.log_softmax(-1)
        best_M = logits_MV.argmax(-1).tolist()
        outputs: list[Output] = []
        for (line, position), logits_V, logprobs_V, best in zip(rows, logits_MV, logprobs_MV, best_M, strict=True):
            if line.state is State.FINISHED:
                continue
            members = [line, *(follower for follower in line.followers if follower.state is not State.FINISHED)]
            self.scheduler.fork(line)
            for member in members:
                try:
                    if line.goal == "generate":
                        outputs.append(self._sample(member, logits_V, logprobs_V, best))
                    elif member.goal == "score":
                        outputs += self._rate(member, position, logprobs_V, best)
                except Exception as error:
                    outputs += self._fail(member, error)
            if line.goal == "prefix":
                self._end(line)
        return outputs

    def _sample(self, line: Line, logits_V: Tensor, logprobs_V: Tensor, best: int) -> Output:
        sampling = line.sampling
        token = best
        if not _is_plain_greedy(sampling):
            number = uniform(line.seed, line.index, len(line.tokens))
            prompt = line.tokens[: line.num_prompt]
            token = choose(logits_V, sampling, number=number, prompt=prompt, counts=line.counts)
        logprob = float(logprobs_V[token])
        self._check_usable(logprob)
        line.append(token)
        reason: Literal["stop", "length"] | None = None
        if token in line.stop_ids or (line.stopper is not None and line.stopper.feed(token)):
            reason = "stop"
        elif line.num_answer >= line.max_tokens:
            reason = "length"
        if reason:
            self._end(line)
        top = (most_probable(logprobs_V, sampling.top_logprobs),) if sampling.top_logprobs else ()
        return self._output(line, (token,), (logprob,), token == best, top, reason)

    def _rate(self, line: Line, position: int, logprobs_V: Tensor, best: int) -> list[Output]:
        """Score the token after a position; brings an output when it was the last one."""
        answer = line.tokens[line.num_prompt :]
        if answer:
            target = line.tokens[position + 1]
            logprob = float(logprobs_V[target])
            self._check_usable(logprob)
            line.logprobs.append(logprob)
            line.is_greedy &= target == best
        if len(line.logprobs) < len(answer):
            return []
        self._end(line)
        return [self._output(line, tuple(answer), tuple(line.logprobs), line.is_greedy, (), "stop")]

    def _output(
        self,
        line: Line,
        token_ids: tuple[int, ...],
        logprobs: tuple[float, ...],
        is_greedy: bool,
        top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = (),
        reason: Literal["stop", "length"] | None = None,
        error: FirsthandError | None = None,
    ) -> Output:
        return Output(
            request_id=line.request_id,
            index=line.index,
            token_ids=token_ids,
            logprobs=logprobs,
            is_greedy=is_greedy,
            top_logprobs=top_logprobs,
            finish_reason=reason,
            error=error,
            prompt_tokens=line.num_prompt,
            cached_tokens=min(line.num_cached or 0, line.num_prompt),
            version=self.version,
        )

    def _check_usable(self, logprob: float) -> None:
        if not is_usable(logprob):
            raise ModelError(
                "the model's logits are not numbers (NaN or infinite): its weights are damaged or diverged"
            )

    def _fail(self, line: Line, error: Exception) -> list[Output]:
        """End a sequence, and those that wait for its prompt, with an error."""
        if not isinstance(error, FirsthandError):
            error = ModelError(f"the request failed: {type(error).__name__}: {error}")
        lines = [member for member in (line, *line.followers) if member.goal != "prefix"]
        for member in (line, *line.followers):
            self._end(member)
        return [self._output(member, (), (), False, error=error) for member in lines]

    def _end(self, line: Line) -> None:
        self.scheduler.finish(line)
        lines = self._live.get(line.request_id, {})
        lines.pop(line.index, None)
        if not lines:
            self._live.pop(line.request_id, None)


def scored(output: Output) -> Scored:
    """The score that an output carries; raises its error if it has one."""
    if output.error is not None:
        raise output.error
    return Scored(output.logprobs, output.is_greedy)


def default_kv_bytes() -> int:
    """The smaller of 2 GiB and a quarter of the memory that is free."""
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in names else "SC_PHYS_PAGES"
    if pages not in names:
        return 1 << 30
    return min(2 << 30, os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") // 4)


def _is_plain_greedy(sampling: Sampling) -> bool:
    penalties = (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty)
    return sampling.temperature == 0 and penalties == (1, 0, 0)


def _pack(model: Decoder, config: EngineConfig) -> Literal["float16", "float32"]:
    """Pack as the config says; `auto` leaves a model alone whose weights float16 cannot hold."""
    if config.weights != "auto":
        pack(model, config.weights)
        return config.weights
    mode = best_mode(model.embed.weight.device)
    try:
        pack(model, mode)
    except ConfigError:
        return "float32"
    return mode
