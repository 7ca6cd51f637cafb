"""The engine: requests of token ids in, tokens with log-probs out, one `step` at a time.

`engine_thread.py` runs it in a thread. On the compiled step results are batch-invariant: a row has the same bits
whatever else is in the batch, in any weight format and on any number of threads. So a request's tokens and log-probs,
greedy or seeded, do not depend on other requests, chunked prefill, prefix caching, preemption, speculative decoding, or
`n`. Models that the compiled step cannot run (`nn/compiled_decoder.py`), and GPUs, go through torch, whose kernels
change with the batch size: a near tie may flip there.
"""

from __future__ import annotations

from collections import Counter, abc
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from firsthand.engine.compute.adapter_slots import LoadedAdapter
from firsthand.engine.compute.packing import fitting_state
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.compute.source_cache import check_replaceable, check_source
from firsthand.engine.core.admission import answer_sequences, score_sequences
from firsthand.engine.core.assembly import assemble
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_stats import Stats, StepCounts
from firsthand.engine.core.live_requests import LiveRequests
from firsthand.engine.core.outputs import Output, ScoreOutput, score_output
from firsthand.engine.core.request_checks import check_prefix, check_request, check_room, check_score
from firsthand.engine.core.sequence import Request, Sequence
from firsthand.engine.core.step import take_step
from firsthand.engine.decoding.constraint import Masks
from firsthand.engine.decoding.speculative import Drafter
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix
from firsthand.engine.memory.prefix_cache import space_of
from firsthand.nn.batched_lora import PackedAdapter
from firsthand.nn.decoder import Decoder
from firsthand.nn.lora import Adapter
from firsthand.nn.sites import Tap


class Engine:
    """Continuous batching over one model. Not thread-safe: call it from one thread (see `EngineWorker`).

    The engine owns the model and packs it in place: to train, keep another copy and `load` from it. `draft` turns on
    speculative decoding (see `speculative.py`): a smaller model with the same vocabulary, which the engine then owns
    too, or any Drafter. It changes no answer.
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
        self.live = LiveRequests(max_tokens=config.max_live_tokens, max_waiting=config.max_waiting)
        self.masks = Masks()
        self.counts = StepCounts()
        self._pending: list[Output] = []

    @property
    def has_work(self) -> bool:
        """True if `step` has something to compute or to return."""
        return self.scheduler.has_work or bool(self._pending)

    def is_live(self, request_id: int) -> bool:
        """True if more outputs of a request will come."""
        return request_id in self.live

    def add(self, request: Request) -> int:
        """Queue a request and return its id. Outputs carry the id and the index of the answer.

        max_tokens is clipped to the model's context. Raises PromptTooLong if the prompt leaves no room for a token, or
        if prompt and answer could never fit the KV cache; ModelError for ids outside the vocabulary; ConfigError for
        other invalid values; QueueFull if too many requests wait.
        """
        check_request(request, self.architecture)
        check_source(request.source, self.runner.model)
        if request.taps is not None:
            self.runner.check_request_taps(request.taps)
        adapter = self._adapter(request.adapter)
        num_prompt, vocab_size = len(request.prompt), self.architecture.vocab_size
        max_tokens = min(request.sampling.max_tokens, self.architecture.max_position - num_prompt)
        check_room(num_prompt, max_tokens, self.pool, self.config.max_batch_tokens)
        self.live.check_room(request.n * num_prompt, num_waiting=len(self.scheduler.waiting))
        return self._enter(
            answer_sequences(request, self.live.next_id, vocab_size, max_tokens=max_tokens, adapter=adapter)
        )

    def add_score(
        self,
        prefix: abc.Sequence[int],
        continuations: abc.Sequence[abc.Sequence[int]],
        *,
        top: int = 0,
        priority: int = 0,
        owner: str = "",
        adapter: str | None = None,
        salt: str = "",
        distribution: bool = False,
        source: abc.Sequence[int] = (),
        taps: RequestTaps | None = None,
    ) -> int:
        """Queue continuations to score after a prefix, which is computed once, and return the request's id.

        Each continuation gives one Output with its tokens, their log-probs, the `top` most probable tokens at each
        position, and finish reason `stop`; with `distribution` also the log-prob of every token in place of the first.
        `source` is the text that an encoder-decoder reads, and `taps` read or edit the activations of all its tokens.
        Raises what `add` raises.
        """
        check_score(prefix, continuations, priority, owner, self.architecture, top=top, salt=salt)
        check_source(source, self.runner.model)
        if taps is not None:
            self.runner.check_request_taps(taps)
        loaded_adapter = self._adapter(adapter)
        longest = max(map(len, continuations), default=0)
        check_room(len(prefix), longest, self.pool, self.config.max_batch_tokens)
        num_tokens = len(prefix) * (1 + len(continuations)) + sum(map(len, continuations))
        self.live.check_room(num_tokens, num_waiting=len(self.scheduler.waiting))
        return self._enter(
            score_sequences(
                prefix,
                continuations,
                self.live.next_id,
                top=top,
                priority=priority,
                owner=owner,
                adapter=loaded_adapter,
                salt=salt,
                distribution=distribution,
                source=tuple(source),
                taps=taps,
            )
        )

    def score(
        self, prefix: abc.Sequence[int], continuations: abc.Sequence[abc.Sequence[int]], *, adapter: str | None = None
    ) -> list[ScoreOutput]:
        """Returns the log-probs of each continuation's tokens after the prefix. Steps until they are computed.

        Outputs of other requests that arrive meanwhile are returned by the next `step`.
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
        self._pending = others
        return [score_output(mine[index]) for index in range(len(continuations))]

    def abort(self, request_id: int, index: int | None = None) -> None:
        """Drop a request, or one of its answers, and free its blocks; it gives no more output. Unknown ids are ignored."""
        for sequence in self.live.sequences(request_id):
            if index is None or sequence.index == index >= 0:
                if index is not None:
                    self.scheduler.promote_follower(sequence)
                self.end(sequence)
        self._pending = [
            o for o in self._pending if o.request_id != request_id or (index is not None and o.index != index)
        ]

    def step(self) -> list[Output]:
        """Compute one batch and return its outputs: for each running answer at most one token plus its accepted draft
        tokens.

        A request that fails (its logits are not finite, its stopper raises) ends with an Output that has an `error`.
        """
        pending, self._pending = self._pending, []
        return pending + take_step(self)

    def pin_prefix(self, tokens: abc.Sequence[int], *, adapter: str | None = None, salt: str = "") -> PinnedPrefix:
        """Keep the cached prefix of these tokens in the KV cache until `unpin_prefix`, for prompts that continue it.

        Nothing is computed: pin a text after its answer has come. At most half of the blocks can be pinned: the oldest
        pins are dropped for newer ones, and all of them if a request cannot run otherwise (see
        `PinnedPrefix.is_pinned`).
        """
        check_prefix(tokens, salt, self.architecture)
        loaded_adapter = self._adapter(adapter)
        return self.scheduler.pinned_prefixes.add(
            tokens, space_of(None if loaded_adapter is None else loaded_adapter.id, salt)
        )

    def unpin_prefix(self, prefix: PinnedPrefix) -> None:
        """Unpin a prefix; a second call does nothing."""
        self.scheduler.pinned_prefixes.release(prefix)

    def load(self, state: Mapping[str, Tensor], version: int, *, recompute: bool = True) -> None:
        """Replace the weights between two steps. No request is dropped, and none reuses KV blocks of the old weights.

        Running answers continue with the new weights. With `recompute` their texts are computed again, so that each
        token's log-prob is the new model's own. Without it they continue from KV blocks of the old weights: this costs
        nothing, but no single model would compute it (Piché et al., 2025); a preempted sequence is recomputed. Adapters
        stay loaded. Raises ConfigError, and changes nothing, if names or shapes differ from the model's.
        """
        check_replaceable(self.runner.model)
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
        """Load an adapter from a folder, from memory, or already packed by `adapters.read` in another thread.

        With `replace` it takes over the name of a loaded adapter, which running requests keep to their end. Raises
        ModelFileError or ConfigError, and changes nothing, if the adapter is invalid, does not fit the model, or
        exceeds a limit.
        """
        packed = source if isinstance(source, PackedAdapter) else self.adapters.read(source)
        self._forget(self.adapters.add(name, packed, version, replace=replace))

    def unload_adapter(self, name: str) -> None:
        """Refuse an adapter to new requests. Running ones keep it; its memory is freed with the last of them."""
        self._forget(self.adapters.remove(name))

    def end(self, sequence: Sequence) -> None:
        """Remove a sequence from every queue after its last step or an abort. The request ends with its last sequence."""
        self.scheduler.finish(sequence)
        if self.speculator is not None:
            self.speculator.forget(sequence)
        was_live = self.live.leave(sequence)
        if sequence.source is not None and sequence.request_id not in self.live:
            self.runner.forget_source(sequence.source)
        if was_live and sequence.adapter is not None:
            self._forget(self.adapters.leave(sequence.adapter))

    def stats(self) -> Stats:
        """Returns the counters since the start, and the current load."""
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
            waiting_by_priority=Counter(sequence.priority for sequence in scheduler.waiting),
            oldest_wait_s=scheduler.oldest_wait_s,
            num_blocks=pool.num_usable,
            used_blocks=pool.num_used,
            pinned_blocks=scheduler.pinned_prefixes.num_blocks,
            cached_blocks=pool.num_cached,
            pinned_prefixes=len(scheduler.pinned_prefixes),
            adapters=len(self.adapters),
            adapter_bytes=self.adapters.size_bytes,
            not_compiled="taps are set" if self.runner.taps is not None else self.runner.not_compiled,
        )

    def _adapter(self, name: str | None) -> LoadedAdapter | None:
        return None if name is None else self.adapters.get(name)

    def _forget(self, adapter: LoadedAdapter | None) -> None:
        """Drop the cached prefixes of an adapter that is no longer loaded."""
        if adapter is not None:
            self.scheduler.forget_adapter(adapter.id)
            self.runner.forget_adapters()

    def _enter(self, sequences: list[Sequence]) -> int:
        lead = sequences[0]
        self.live.enter(sequences)
        if lead.adapter is not None:
            self.adapters.enter(lead.adapter, len(sequences))
        self.scheduler.add(lead)
        return lead.request_id
