"""The engine: requests of token ids in, tokens with log-probs out, one `step` at a time. `worker` runs it in a thread.

Determinism. In the compiled step a row has the same bits whatever else is in the step, whatever the weights are kept as and
on any number of threads. So the tokens of a request, greedy or seeded, and their log-probs do not depend on other requests,
on chunking, on what the prefix tree already held, on preemption, on guesses (`speculative`), or on `n`. A model that the
compiled step cannot run (`nn/fused.py`) and a GPU go through torch's modules, whose kernels change with the batch: a near
tie may flip there.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from firsthand.engine.checks import check_ids, check_request, check_room, check_score
from firsthand.engine.drafts import speculator
from firsthand.engine.drawing import draw_after
from firsthand.engine.grammar import Guide, Masks
from firsthand.engine.holds import Hold
from firsthand.engine.mixed import MixedPool, open_pool
from firsthand.engine.outputs import Output, Scored, joined, scored
from firsthand.engine.packing import block_bytes, kv_dtype, pack_model
from firsthand.engine.runner import Runner
from firsthand.engine.sampler import choose, is_plain, is_usable, most_probable, uniform
from firsthand.engine.scheduler import Scheduler
from firsthand.engine.sequence import Chunk, Request, State
from firsthand.engine.sequence import Sequence as Line
from firsthand.engine.settings import EngineConfig, default_kv_bytes
from firsthand.engine.speculative import Drafter
from firsthand.engine.stats import Stats
from firsthand.errors import ConfigError, FirsthandError, ModelError, QueueFull
from firsthand.model import Sampling
from firsthand.nn.decoder import Decoder
from firsthand.nn.fused import LogitRow, Logits

LOGIT_ROWS = 64


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread calls it (see `EngineWorker`).

    The engine owns the model it is given: packing changes it in place, so train another copy and `load` from it.
    `draft` speculates (see `speculative`): a smaller model with the same tokens, which the engine then owns too, or
    anything else that guesses. It changes no answer.
    """

    def __init__(
        self,
        model: Decoder,
        config: EngineConfig | None = None,
        *,
        draft: Decoder | Drafter | None = None,
        version: int = 0,
    ):
        config = config or EngineConfig()
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.config = config
        self.architecture = model.architecture
        self.version = version
        with torch.device("meta"):
            self._shapes = {name: tensor.shape for name, tensor in Decoder(model.architecture).state_dict().items()}
        model.eval().requires_grad_(False)
        self.weights = pack_model(model, config)
        dtype = kv_dtype(config, self.weights, model.embed.weight)
        draft_bytes, draft_dtype = 0, dtype
        if isinstance(draft, Decoder):  # it keeps as many positions as the model
            mode = pack_model(draft.eval().requires_grad_(False), config)
            draft_dtype = kv_dtype(config, mode, draft.embed.weight)
            draft_bytes = block_bytes(draft.architecture, config, draft_dtype)
        self.pool = open_pool(
            self.architecture.windows,
            config,
            memory_bytes=config.kv_memory_bytes or default_kv_bytes(),
            layer_bytes=block_bytes(self.architecture, config, dtype) // self.architecture.num_layers,
            more_bytes=draft_bytes,
            longest=self.architecture.max_position,
        )
        self.runner = Runner(
            model,
            num_blocks=self.pool.num_blocks,
            block_size=config.block_size,
            kv_dtype=dtype,
            num_near=self.pool.near.num_blocks if isinstance(self.pool, MixedPool) else None,
            graphs={"auto": None, "on": True, "off": False}[config.graphs],
        )
        self._zero_holes()
        self.scheduler = Scheduler(
            self.pool, max_batch_tokens=config.max_batch_tokens, max_sequences=config.max_sequences
        )
        self.speculator = speculator(
            draft, config, self.architecture, num_blocks=self.pool.num_blocks, kv_dtype=draft_dtype
        )
        self._masks = Masks()
        self._live: dict[int, dict[int, Line]] = {}
        self._held: list[Output] = []
        self._next_id = 0
        self._live_tokens = self._refused = 0
        self._steps = self._prefill_tokens = self._decode_tokens = self._forced_tokens = 0

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
        or if prompt and answer could never fit the memory for keys and values; ModelError on ids that are not tokens;
        ConfigError on other values that cannot be meant; QueueFull if too much waits already.
        """
        sampling, num_prompt = request.sampling, len(request.prompt)
        check_request(request, self.architecture)
        max_tokens = min(sampling.max_tokens, self.architecture.max_position - num_prompt)
        check_room(num_prompt, max_tokens, self.pool, self.config.max_batch_tokens)
        self._check_queue(request.n * num_prompt)
        seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        lines = [
            Line(
                request_id=self._next_id,
                index=index,
                tokens=list(request.prompt),
                num_prompt=num_prompt,
                sampling=sampling,
                seed=seed,
                max_tokens=max_tokens,
                stop_ids=request.stop_ids,
                stopper=request.stopper() if request.stopper else None,
                guide=request.grammar.guide() if request.grammar else None,
                priority=request.priority,
                run=request.run,
            )
            for index in range(request.n)
        ]
        lines[0].followers = lines[1:]
        return self._enter(lines[0], lines)

    def add_score(
        self,
        prefix: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        top: int = 0,
        priority: int = 0,
        run: str = "",
    ) -> int:
        """Queue continuations to be scored after a prefix that is computed once, and return the request's id.

        Each continuation brings one Output with its tokens, their log-probs and the `top` most probable tokens in their
        places, and the finish reason `stop`. Raises what `add` raises.
        """
        asked = Sampling(top_logprobs=top)
        check_score(prefix, continuations, priority, run, self.architecture)
        longest = max(map(len, continuations), default=0)
        check_room(len(prefix), longest, self.pool, self.config.max_batch_tokens)
        self._check_queue(len(prefix) * (1 + len(continuations)) + sum(map(len, continuations)))
        request_id = self._next_id
        lead = Line(request_id, -1, list(prefix), len(prefix), goal="prefix", priority=priority, run=run)
        lead.followers = [
            Line(
                request_id,
                index,
                [*prefix, *continuation],
                len(prefix),
                goal="score",
                sampling=asked,
                priority=priority,
                run=run,
            )
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
        for line in [line for i, line in lines.items() if index is None or i == index >= 0]:
            if index is not None:
                self.scheduler.succeed(line)
            self._end(line)
        self._held = [o for o in self._held if o.request_id != request_id or (index is not None and o.index != index)]

    def step(self) -> list[Output]:
        """Compute once and return what it brought: for each answer under way at most a token and the guesses before it.

        A request that fails (its logits are not numbers, its stopper raises) ends with an Output that has an `error`.
        """
        outputs, self._held = self._held, []
        if self.speculator is not None:
            self.speculator.draft(self.scheduler.running)
        self._jump_ahead()
        plan = self.scheduler.plan()
        self.runner.copy(plan.copies)  # even if whoever needed them was dropped: what they hold stays known
        if plan.chunks:
            self._steps += 1
            self._masks.start(_guides(plan.chunks))
            try:
                outputs += self._compute(plan.chunks)
            finally:
                self._masks.finish()
        return outputs

    def hold(self, tokens: Sequence[int]) -> Hold:
        """Keep what is known of a text in memory until `release`, so that a prompt which goes on from it finds it.

        Nothing is computed: hold a text when its answer has come. At most half of the memory can be held; the oldest holds
        are dropped for the newest, and all of them if a request needs the memory to run at all (see `Hold.is_kept`).
        """
        check_ids(tokens, "the text to hold", self.architecture)
        return self.scheduler.holds.add(tokens)

    def release(self, hold: Hold) -> None:
        """Let go of what is held; a second time does nothing."""
        self.scheduler.holds.release(hold)

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
        self.runner.refresh()
        self.version = version
        self.scheduler.restart()

    def stats(self) -> Stats:
        """Counters since the start and the present load."""
        scheduler, pool = self.scheduler, self.pool
        return Stats(
            requests=self._next_id,
            refused=self._refused,
            steps=self._steps,
            prompt_tokens=scheduler.num_prompt_tokens,
            cached_tokens=scheduler.num_cached_tokens,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            drafted_tokens=self.speculator.num_drafted if self.speculator else 0,
            accepted_tokens=self.speculator.num_accepted if self.speculator else 0,
            forced_tokens=self._forced_tokens,
            preemptions=scheduler.num_preemptions,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            waiting_by_priority=Counter(line.priority for line in scheduler.waiting),
            oldest_wait_s=scheduler.oldest_wait_s,
            num_blocks=pool.num_usable,
            used_blocks=pool.num_used,
            held_blocks=scheduler.holds.num_blocks,
            cached_blocks=pool.num_cached,
            holds=len(scheduler.holds),
        )

    def _zero_holes(self) -> None:
        """Zero the block that stands for what lies before a window: it is read, with no weight."""
        for kind, pages in zip(self.runner.cache.spans[:, 0], self.runner.pages, strict=True):
            if self.pool.parts[kind].window is not None:
                for tensor in pages.tensors:
                    tensor[0].zero_()

    def _enter(self, lead: Line, lines: list[Line]) -> int:
        self._live[lead.request_id] = {line.index: line for line in lines}
        self._live_tokens += sum(map(_kept_tokens, lines))
        self._next_id += 1
        self.scheduler.add(lead)
        return lead.request_id

    def _check_queue(self, num_tokens: int) -> None:
        """Refuse what would make the queue too long."""
        most_tokens, most = self.config.max_live_tokens, self.config.max_waiting
        if num_tokens > most_tokens:
            raise ConfigError(
                f"the request's answers have {num_tokens} prompt tokens together and the engine takes {most_tokens}: "
                "ask for fewer answers or continuations at a time, or raise max_live_tokens"
            )
        waiting = len(self.scheduler.waiting)
        if waiting >= most or self._live_tokens + num_tokens > most_tokens:
            self._refused += 1
            raise QueueFull(
                f"{waiting} requests wait (at most {most} may) and {self._live_tokens} prompt tokens are live (at most "
                f"{most_tokens} may be): try again later, or raise max_waiting and max_live_tokens"
            )

    def _jump_ahead(self) -> None:
        """Draft what grammars force, in equal shares of half a step, so that prompts and other answers get on."""
        forced = [line for line in self.scheduler.running if line.is_forced and line.is_ready]
        share = self.config.max_batch_tokens // 2 // max(len(forced), 1)
        for line in forced:
            assert line.guide is not None
            line.draft = tuple(islice(line.guide.forced, min(share, line.max_tokens - line.num_answer - 1)))

    def _compute(self, chunks: list[Chunk]) -> list[Output]:
        """Run chunks together; if that raises, each alone and without guesses, so that only the guilty one fails."""
        rows = [(chunk, position) for chunk in chunks for position in chunk.wanted]
        try:
            hidden_MD = self.runner.hidden(chunks)
        except Exception as error:
            if len(chunks) == 1 and not chunks[0].draft:
                return self._fail(chunks[0].sequence, error)
            return [output for chunk in chunks for output in self._compute([chunk.without_draft()])]
        for chunk in chunks:
            self._count(chunk)
            self.scheduler.advance(chunk)
        self._masks.finish()
        outputs: list[Output] = []
        for start in range(0, len(rows), LOGIT_ROWS):
            part = rows[start : start + LOGIT_ROWS]
            try:
                draws = [draw_after(*row) for row in part] if self.runner.fused is None else []
                logits = self.runner.logits(hidden_MD[start : start + LOGIT_ROWS], draws)
            except Exception as error:
                lines = dict.fromkeys(chunk.sequence for chunk, _ in part)
                outputs += [output for line in lines for output in self._fail(line, error)]
                continue
            outputs += self._read(part, logits)
        drafted = [chunk for chunk in chunks if chunk.draft]
        for chunk in drafted:
            self._learn(chunk)
        return joined(outputs) if drafted else outputs

    def _count(self, chunk: Chunk) -> None:
        known = chunk.end_known - chunk.start
        if chunk.sequence.num_answer and known == 1 and chunk.sequence.goal == "generate":
            self._decode_tokens += 1
        else:
            self._prefill_tokens += known

    def _learn(self, chunk: Chunk) -> None:
        """Tell the speculator how a verified draft fared, if its sequence goes on or ended well."""
        accepted = max(len(chunk.sequence.tokens) - chunk.end_known - 1, 0)
        self._decode_tokens += accepted
        if chunk.is_forced:
            self._forced_tokens += accepted
            return
        assert self.speculator is not None
        self.speculator.learn(chunk.sequence, len(chunk.draft), accepted)

    def _read(self, rows: list[tuple[Chunk, int]], logits: Logits) -> list[Output]:
        """What the logits after some positions mean for their sequences."""
        outputs: list[Output] = []
        for (chunk, position), row in zip(rows, logits.rows(), strict=True):
            line = chunk.sequence
            if line.state is State.FINISHED or not chunk.is_guessed_right(position):
                continue
            if position >= chunk.end_known:
                self.scheduler.accept(line)
            members = [line, *(follower for follower in line.followers if follower.state is not State.FINISHED)]
            self.scheduler.fork(line)
            for member in members:
                try:
                    if line.goal == "generate":
                        outputs.append(self._sample(member, row))
                    elif member.goal == "score":
                        outputs += self._rate(member, position, row)
                except Exception as error:
                    outputs += self._fail(member, error)
            if line.goal == "prefix":
                self._end(line)
        return outputs

    def _sample(self, line: Line, row: LogitRow) -> Output:
        sampling = line.sampling
        token = self._choose(line, row)
        logprob = row.logprob(token)
        self._check_usable(logprob)
        line.append(token)
        if line.guide is not None:
            line.guide.advance(token)
        reason: Literal["stop", "length"] | None = None
        if (
            token in line.stop_ids
            or (line.stopper is not None and line.stopper.feed(token))
            or (line.guide is not None and line.guide.is_done)
        ):
            reason = "stop"
        elif line.num_answer >= line.max_tokens:
            reason = "length"
        if reason:
            self._end(line)
        top = (most_probable(row, sampling.top_logprobs),) if sampling.top_logprobs else ()
        return self._output(line, (token,), (logprob,), token == row.best, top, reason)

    def _choose(self, line: Line, row: LogitRow) -> int:
        """The next token of an answer."""
        guide, sampling = line.guide, line.sampling
        if guide is not None and guide.forced:
            return guide.forced[0]
        if row.drawn is not None:
            return row.drawn
        if _is_plain_greedy(sampling) and (guide is None or guide.allows(row.best)):
            return row.best
        allowed = None if guide is None else guide.allowed
        number = uniform(line.seed, line.index, len(line.tokens))
        prompt = line.tokens[: line.num_prompt]
        return choose(row.values, sampling, number=number, prompt=prompt, counts=line.counts, allowed=allowed)

    def _rate(self, line: Line, position: int, row: LogitRow) -> list[Output]:
        """Score the token after a position; brings an output when it was the last one."""
        answer = line.tokens[line.num_prompt :]
        if answer:
            target = line.tokens[position + 1]
            logprob = row.logprob(target)
            self._check_usable(logprob)
            line.logprobs.append(logprob)
            line.is_greedy &= target == row.best
            if line.sampling.top_logprobs:
                line.top_logprobs.append(most_probable(row, line.sampling.top_logprobs))
        if len(line.logprobs) < len(answer):
            return []
        self._end(line)
        top = tuple(line.top_logprobs)
        return [self._output(line, tuple(answer), tuple(line.logprobs), line.is_greedy, top, "stop")]

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
        if self.speculator is not None:
            self.speculator.forget(line)
        lines = self._live.get(line.request_id, {})
        if lines.pop(line.index, None) is not None:
            self._live_tokens -= _kept_tokens(line)
        if not lines:
            self._live.pop(line.request_id, None)


def _guides(chunks: list[Chunk]) -> Iterator[Guide]:
    """The guides of the answers that a step brings tokens for."""
    for chunk in chunks:
        for line in (chunk.sequence, *chunk.sequence.followers) if chunk.wanted else ():
            if line.guide is not None and line.state is not State.FINISHED:
                yield line.guide


def _kept_tokens(line: Line) -> int:
    """How many tokens of its request a sequence keeps."""
    return len(line.tokens) if line.goal == "score" else line.num_prompt


def _is_plain_greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 and is_plain(sampling)
