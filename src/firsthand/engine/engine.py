"""The engine: requests of token ids in, tokens with log-probs out, one `step` at a time. `worker` runs it in a thread.

Determinism. In the compiled step a row has the same bits whatever else is in the step, whatever the weights are kept as and
on any number of threads. So the tokens of a request, greedy or seeded, and their log-probs do not depend on other requests,
on chunking, on what the prefix tree already held, on preemption, on guesses (`speculative`), or on `n`. A model that the
compiled step cannot run (`nn/fused.py`) and a GPU go through torch's modules, whose kernels change with the batch: a near
tie may flip there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from firsthand.engine.adapters import Adapters, LoadedAdapter
from firsthand.engine.arrivals import answers, scores
from firsthand.engine.checks import check_hold, check_request, check_room, check_score
from firsthand.engine.devices import free_bytes_on
from firsthand.engine.drafts import speculator
from firsthand.engine.drawing import draw_after
from firsthand.engine.grammar import Guide, Masks
from firsthand.engine.holds import Hold
from firsthand.engine.mixed import MixedPool, open_pool
from firsthand.engine.outputs import Output, Scored, joined, scored
from firsthand.engine.packing import block_bytes, fitting_state, kv_dtype, pack_model
from firsthand.engine.prefix import space_of
from firsthand.engine.reading import failed, rate, sample
from firsthand.engine.runner import Runner, packed_adapter
from firsthand.engine.scheduler import Scheduler
from firsthand.engine.sequence import Chunk, Request, State
from firsthand.engine.sequence import Sequence as Line
from firsthand.engine.settings import EngineConfig, default_kv_bytes
from firsthand.engine.speculative import Drafter
from firsthand.engine.stats import Stats
from firsthand.errors import ConfigError, FirsthandError, ModelError, QueueFull
from firsthand.nn.adapters import PackedAdapter
from firsthand.nn.decoder import Decoder
from firsthand.nn.fused import Logits
from firsthand.nn.lora import Adapter

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
            free_bytes=free_bytes_on(model.embed.weight.device),
        )
        self.runner = Runner(
            model,
            num_blocks=self.pool.num_blocks,
            block_size=config.block_size,
            kv_dtype=dtype,
            num_near=self.pool.near.num_blocks if isinstance(self.pool, MixedPool) else None,
            graphs={"auto": None, "on": True, "off": False}[config.graphs],
        )
        self.adapters = Adapters(model, config, tiles_of=self.weights if self.runner.fused else None)
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
        check_request(request, self.architecture)
        adapter = self._adapter(request.adapter)
        num_prompt = len(request.prompt)
        max_tokens = min(request.sampling.max_tokens, self.architecture.max_position - num_prompt)
        check_room(num_prompt, max_tokens, self.pool, self.config.max_batch_tokens)
        self._check_queue(request.n * num_prompt)
        return self._enter(answers(request, self._next_id, max_tokens=max_tokens, adapter=adapter))

    def add_score(
        self,
        prefix: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        top: int = 0,
        priority: int = 0,
        run: str = "",
        adapter: str | None = None,
        salt: str = "",
    ) -> int:
        """Queue continuations to be scored after a prefix that is computed once, and return the request's id.

        Each continuation brings one Output with its tokens, their log-probs and the `top` most probable tokens in their
        places, and the finish reason `stop`. Raises what `add` raises.
        """
        check_score(prefix, continuations, priority, run, self.architecture, top=top, salt=salt)
        beside = self._adapter(adapter)
        longest = max(map(len, continuations), default=0)
        check_room(len(prefix), longest, self.pool, self.config.max_batch_tokens)
        self._check_queue(len(prefix) * (1 + len(continuations)) + sum(map(len, continuations)))
        return self._enter(
            scores(prefix, continuations, self._next_id, top=top, priority=priority, run=run, adapter=beside, salt=salt)
        )

    def score(
        self, prefix: Sequence[int], continuations: Sequence[Sequence[int]], *, adapter: str | None = None
    ) -> list[Scored]:
        """The log-probs of each continuation's tokens after the prefix. Steps until they are known.

        Outputs of other requests that fall due meanwhile come from the next `step`.
        """
        request_id = self.add_score(prefix, continuations, adapter=adapter)
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

    def hold(self, tokens: Sequence[int], *, adapter: str | None = None, salt: str = "") -> Hold:
        """Keep what is known of a text in memory until `release`, so that a prompt which goes on from it finds it.

        Nothing is computed: hold a text when its answer has come. At most half of the memory can be held; the oldest holds
        are dropped for the newest, and all of them if a request needs the memory to run at all (see `Hold.is_kept`).
        """
        check_hold(tokens, salt, self.architecture)
        beside = self._adapter(adapter)
        return self.scheduler.holds.add(tokens, space_of(None if beside is None else beside.id, salt))

    def release(self, hold: Hold) -> None:
        """Let go of what is held; a second time does nothing."""
        self.scheduler.holds.release(hold)

    def load(self, state: Mapping[str, Tensor], version: int, *, recompute: bool = True) -> None:
        """Replace the weights between two steps. No request is dropped, and no new one finds anything of the old weights.

        Answers under way go on with the new weights. With `recompute` their texts are computed again, so that each token's
        log-prob is the new model's own. Without it they go on from the keys and values of the old weights, which costs
        nothing and is what no single model would compute (Piché et al., 2025); one that is preempted is computed again.
        Adapters stay, beside the new weights. Raises ConfigError, and changes nothing, if names or shapes differ from the
        model's.
        """
        self.runner.model.load_state_dict(fitting_state(state, self.architecture))
        self.runner.refresh()
        self.version = version
        self.scheduler.restart(recompute=recompute)

    def load_adapter(
        self,
        name: str,
        source: Path | str | Adapter | PackedAdapter,
        *,
        version: int = 0,
        replace: bool = False,
    ) -> None:
        """Let requests ask for an adapter: one in a folder, one in memory, or what `adapters.read` made in another thread.

        With `replace` it may take the name of another, which requests under way keep to their end. Raises ModelFileError or
        ConfigError, and changes nothing, if it is not sound, does not fit, or there is no room.
        """
        packed = source if isinstance(source, PackedAdapter) else self.adapters.read(source)
        self._forget(self.adapters.add(name, packed, version, replace=replace))

    def unload_adapter(self, name: str) -> None:
        """Let no new request have an adapter. Those under way end with it, and its memory goes with the last of them."""
        self._forget(self.adapters.remove(name))

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
            adapters=len(self.adapters),
            adapter_bytes=self.adapters.size_bytes,
        )

    def _zero_holes(self) -> None:
        """Zero the block that stands for what lies before a window: it is read, with no weight."""
        for kind, pages in zip(self.runner.cache.spans[:, 0], self.runner.pages, strict=True):
            if self.pool.parts[kind].window is not None:
                for tensor in pages.tensors:
                    tensor[0].zero_()

    def _adapter(self, name: str | None) -> LoadedAdapter | None:
        return None if name is None else self.adapters.get(name)

    def _forget(self, adapter: LoadedAdapter | None) -> None:
        """Let go of the texts that were computed with an adapter that is gone."""
        if adapter is not None:
            self.scheduler.forget_adapter(adapter.id)
            self.runner.forget_adapters()

    def _enter(self, lines: list[Line]) -> int:
        lead = lines[0]
        self._live[lead.request_id] = {line.index: line for line in lines}
        self._live_tokens += sum(map(_kept_tokens, lines))
        if lead.adapter is not None:
            self.adapters.enter(lead.adapter, len(lines))
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
                adapters = [packed_adapter(chunk) for chunk, _ in part]
                draws = [draw_after(*row) for row in part] if self.runner.fused is None else []
                logits = self.runner.logits(hidden_MD[start : start + LOGIT_ROWS], adapters, draws)
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
                        brought = [sample(member, row, self.version)]
                    else:
                        brought = rate(member, position, row, self.version) if member.goal == "score" else []
                except Exception as error:
                    outputs += self._fail(member, error)
                    continue
                outputs += brought
                if brought and brought[-1].is_last:
                    self._end(member)
            if line.goal == "prefix":
                self._end(line)
        return outputs

    def _fail(self, line: Line, error: Exception) -> list[Output]:
        """End a sequence, and those that wait for its prompt, with an error."""
        if not isinstance(error, FirsthandError):
            error = ModelError(f"the request failed: {type(error).__name__}: {error}")
        lines = [member for member in (line, *line.followers) if member.goal != "prefix"]
        for member in (line, *line.followers):
            self._end(member)
        return [failed(member, self.version, error) for member in lines]

    def _end(self, line: Line) -> None:
        self.scheduler.finish(line)
        if self.speculator is not None:
            self.speculator.forget(line)
        lines = self._live.get(line.request_id, {})
        if lines.pop(line.index, None) is not None:
            self._live_tokens -= _kept_tokens(line)
            if line.adapter is not None:
                self._forget(self.adapters.leave(line.adapter))
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
