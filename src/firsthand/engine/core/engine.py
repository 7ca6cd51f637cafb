"""The engine: requests of token ids in, tokens with log-probs out, one `step` at a time. `worker` runs it in a thread.

Determinism. In the compiled step a row has the same bits whatever else is in the step, whatever the weights are kept as and
on any number of threads. So the tokens of a request, greedy or seeded, and their log-probs do not depend on other requests,
on chunking, on what the prefix tree already held, on preemption, on guesses (`speculative`), or on `n`. A model that the
compiled step cannot run (`nn/compiled_decoder.py`) and a GPU go through torch's modules, whose kernels change with the
batch: a near tie may flip there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from firsthand.engine.compute.adapter_slots import LoadedAdapter
from firsthand.engine.compute.packing import fitting_state
from firsthand.engine.core.admission import answers, scores
from firsthand.engine.core.assembly import assemble
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_stats import Counts, Stats
from firsthand.engine.core.live_requests import Live
from firsthand.engine.core.outputs import Output, Scored, scored
from firsthand.engine.core.request_checks import check_hold, check_request, check_room, check_score
from firsthand.engine.core.sequence import Request
from firsthand.engine.core.sequence import Sequence as Line
from firsthand.engine.core.step import take_step
from firsthand.engine.decoding.constraint import Masks
from firsthand.engine.decoding.speculative import Drafter
from firsthand.engine.memory.pinned_prefixes import Hold
from firsthand.engine.memory.prefix_cache import space_of
from firsthand.nn.batched_lora import PackedAdapter
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter
from firsthand.nn.sites import Tap


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
        parts = assemble(model, config, draft)
        self.weights = parts.weights
        self.pool = parts.pool
        self.runner = parts.runner
        self.adapters = parts.adapters
        self.scheduler = parts.scheduler
        self.speculator = parts.speculator
        self.live = Live(max_tokens=config.max_live_tokens, max_waiting=config.max_waiting)
        self.masks = Masks()
        self.counts = Counts()
        self._held: list[Output] = []

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do or to tell."""
        return self.scheduler.has_work or bool(self._held)

    def is_live(self, request_id: int) -> bool:
        """Whether more outputs of a request are to come."""
        return request_id in self.live

    def add(self, request: Request) -> int:
        """Queue a request and return its id; outputs carry it with the index of the answer.

        max_tokens is clipped to the model's context. Raises PromptTooLong if the prompt leaves no room for a token,
        or if prompt and answer could never fit the memory for keys and values; ModelError on ids that are not tokens;
        ConfigError on other values that cannot be meant; QueueFull if too much waits already.
        """
        check_request(request, self.architecture)
        adapter = self._adapter(request.adapter)
        num_prompt, vocab_size = len(request.prompt), self.architecture.vocab_size
        max_tokens = min(request.sampling.max_tokens, self.architecture.max_position - num_prompt)
        check_room(num_prompt, max_tokens, self.pool, self.config.max_batch_tokens)
        self.live.check_room(request.n * num_prompt, num_waiting=len(self.scheduler.waiting))
        return self._enter(answers(request, self.live.next_id, vocab_size, max_tokens=max_tokens, adapter=adapter))

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
        num_tokens = len(prefix) * (1 + len(continuations)) + sum(map(len, continuations))
        self.live.check_room(num_tokens, num_waiting=len(self.scheduler.waiting))
        return self._enter(
            scores(
                prefix, continuations, self.live.next_id, top=top, priority=priority, run=run, adapter=beside, salt=salt
            )
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
        while request_id in self.live:
            for output in self.step():
                if output.request_id == request_id:
                    mine[output.index] = output
                else:
                    others.append(output)
        self._held = others
        return [scored(mine[index]) for index in range(len(continuations))]

    def abort(self, request_id: int, index: int | None = None) -> None:
        """Drop a request, or one of its answers, and free its memory. It sends nothing more. Unknown ids are ignored."""
        for line in self.live.lines(request_id):
            if index is None or line.index == index >= 0:
                if index is not None:
                    self.scheduler.succeed(line)
                self.end(line)
        self._held = [o for o in self._held if o.request_id != request_id or (index is not None and o.index != index)]

    def step(self) -> list[Output]:
        """Compute once and return what it brought: for each answer under way at most a token and the guesses before it.

        A request that fails (its logits are not numbers, its stopper raises) ends with an Output that has an `error`.
        """
        held, self._held = self._held, []
        return held + take_step(self)

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
        self.runner.model.load_state_dict(fitting_state(state, self.runner.model))
        self.runner.refresh()
        self.version = version
        self.scheduler.restart(recompute=recompute)

    def tap(self, taps: Mapping[str, Tap] | None) -> None:
        """Look at or replace activations by site (`nn/sites.py`) in all steps from now on, until None is given.

        Steps run module by module meanwhile, so log-probs differ from the compiled step's by rounding. Texts are computed
        again, since what taps replaced is in their keys and values. Raises ConfigError for a site that is not in the model.
        """
        self.runner.tap(taps)
        self.scheduler.restart(recompute=True)

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

    def end(self, line: Line) -> None:
        """Take a sequence out of everything, as its last step or an abort does; its request ends with the last of them."""
        self.scheduler.finish(line)
        if self.speculator is not None:
            self.speculator.forget(line)
        if self.live.leave(line) and line.adapter is not None:
            self._forget(self.adapters.leave(line.adapter))

    def stats(self) -> Stats:
        """Counters since the start and the present load."""
        scheduler, pool, live, counts = self.scheduler, self.pool, self.live, self.counts
        return Stats(
            requests=live.next_id,
            refused=live.num_refused,
            steps=counts.steps,
            prompt_tokens=scheduler.num_prompt_tokens,
            cached_tokens=scheduler.num_cached_tokens,
            prefill_tokens=counts.prefill_tokens,
            decode_tokens=counts.decode_tokens,
            drafted_tokens=self.speculator.num_drafted if self.speculator else 0,
            accepted_tokens=self.speculator.num_accepted if self.speculator else 0,
            forced_tokens=counts.forced_tokens,
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
            not_compiled="taps are set" if self.runner.taps is not None else self.runner.not_compiled,
        )

    def _adapter(self, name: str | None) -> LoadedAdapter | None:
        return None if name is None else self.adapters.get(name)

    def _forget(self, adapter: LoadedAdapter | None) -> None:
        """Let go of the texts that were computed with an adapter that is gone."""
        if adapter is not None:
            self.scheduler.forget_adapter(adapter.id)
            self.runner.forget_adapters()

    def _enter(self, lines: list[Line]) -> int:
        lead = lines[0]
        self.live.enter(lines)
        if lead.adapter is not None:
            self.adapters.enter(lead.adapter, len(lines))
        self.scheduler.add(lead)
        return lead.request_id
