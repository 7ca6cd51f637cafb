"""Computes a step plan: block copies, packed ids and positions, paged attention, and logits where they are needed.

On a CPU models run through the compiled step (`nn/compiled_decoder.py`) where it supports them; all others, and any on
a GPU, run through their modules (`module_runner.py`). Both index a layer's KV blocks alike
(`kernels/attention/kv_pages.py`).
"""

# M rows that need logits, D hidden

from __future__ import annotations

import logging
from collections import abc

import torch
from torch import Tensor

from firsthand.engine.compute.devices import explain_out_of_memory, on_device_of, torch_name
from firsthand.engine.compute.module_runner import ModuleRunner
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.compute.tapped_steps import taps_of_step
from firsthand.engine.core.sequence import SequenceChunk, Source
from firsthand.engine.decoding.batched_sampler import DrawSettings
from firsthand.engine.memory.blocks import BlockCopy
from firsthand.engine.memory.window_pool import window_blocks_of
from firsthand.errors import ConfigError
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk, Pages
from firsthand.nn.batched_lora import AdapterSpan, ModuleSpans, PackedAdapter, spans_of
from firsthand.nn.compiled_decoder import Cache, CompiledDecoder, Logits, why_not_compiled
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Tap, Taps
from firsthand.nn.sourced_decoder import SourcedDecoder

log = logging.getLogger(__name__)


class Runner:
    """A model with its KV cache."""

    def __init__(
        self,
        model: Decoder,
        *,
        num_blocks: int,
        block_size: int,
        kv_dtype: torch.dtype | None = None,
        num_window_blocks: int | None = None,
        graphs: bool | None = None,
    ):
        """`num_window_blocks`: blocks of the windowed layers, if they have a pool of their own
        (`BlockTable.window_blocks`).

        `graphs`: pads decode steps to fixed shapes (`static_step.py`); None does so on CUDA alone.
        """
        weight = model.embed.weight
        self.model = model
        self.device = weight.device
        self.block_size = block_size
        self.threads = torch.get_num_threads()
        self.not_compiled = self._not_compiled()
        fits = self.not_compiled is None
        may_pad = not fits and not isinstance(model, SourcedDecoder)  # a step with sources has no fixed shape
        pads_steps = may_pad and (self.device.type == "cuda" if graphs is None else graphs)
        padding_blocks = [num_blocks, *([] if num_window_blocks is None else [num_window_blocks])] if pads_steps else []
        with explain_out_of_memory(f"a KV cache of {num_blocks} blocks"):
            self.cache = Cache.empty(
                model.architecture,
                num_blocks + pads_steps,
                block_size,
                kv_dtype or weight.dtype,
                weight.device,
                num_near=None if num_window_blocks is None else num_window_blocks + pads_steps,
            )
        self._is_windowed = [bool(kind) for kind in self.cache.spans[:, 0]]
        self.fused = CompiledDecoder(model, threads=self.threads) if fits else None
        self.adapted: ModuleSpans | None = None
        self.modules: ModuleRunner | None = None
        self.taps: Taps | None = None
        self._engine_taps: dict[str, Tap] | None = None
        if not fits:
            self._open_modules(padding_blocks)
            log.info("steps run module by module: %s", self.not_compiled)

    def _not_compiled(self) -> str | None:
        """Why the compiled step cannot run the model, in a few words; None if it can."""
        if self.device.type != "cpu":
            return f"the model is on {self.device}"
        if self.block_size % 16:
            return f"blocks have {self.block_size} slots, which is not a multiple of 16"
        if isinstance(self.model, SourcedDecoder):
            return "it is an encoder-decoder"
        return why_not_compiled(self.model)

    def _open_modules(self, padding_blocks: abc.Sequence[int]) -> None:
        self.adapted = ModuleSpans(self.model)
        with on_device_of(self.model.embed.weight):
            self.modules = ModuleRunner(
                self.model, self.cache, block_size=self.block_size, padding_blocks=padding_blocks
            )

    @property
    def is_compiled(self) -> bool:
        """True if the next step goes through the compiled step; with taps it goes through the modules."""
        return self.fused is not None and self.taps is None

    def _is_compiled_for(self, spans: abc.Sequence[AdapterSpan]) -> bool:
        """True if a step goes through the compiled step; one with adapters does not if the model has experts."""
        if not self.is_compiled:
            return False
        if spans and self.fused is not None and self.fused.experts is not None:
            if self.modules is None:
                self._open_modules(())
            return False
        return True

    def tap(self, taps: abc.Mapping[str, Tap] | None) -> None:
        """Run steps module by module with taps on activations (`nn/sites.py`), until None is given.

        A tap sees the packed tokens of a step in the order of its chunks, those of one adapter side by side. Raises
        ConfigError for a site that the model does not have.
        """
        self.taps = self.model.checked(taps) if taps else None
        self._engine_taps = dict(taps) if taps else None
        if self.taps is not None and self.modules is None:
            self._open_modules(())
        if self.modules is not None:
            self.modules.taps = self.taps

    @property
    def computed_by(self) -> str:
        """The compiled step with this processor's instructions, or torch with its device."""
        if self.fused is None:
            return torch_name(self.device)
        from firsthand.kernels.products.dot_instructions import instructions  # needs numba, as the compiled step does

        return f"compiled for {instructions()}"

    @property
    def pages(self) -> tuple[Pages, ...]:
        """The KV blocks of each layer."""
        return self.cache.pages

    @torch.inference_mode()
    def copy(self, copies: abc.Sequence[BlockCopy]) -> None:
        """Copy blocks, in order: a block may be a source and later a target."""
        for source, target, is_window in copies:
            for pages, is_windowed in zip(self.pages, self._is_windowed, strict=True):
                if is_windowed == is_window:
                    pages.copy(source, target)

    def check_request_taps(self, found: RequestTaps) -> None:
        """ConfigError for a site that is not in the model, or for `logits`, which a request's taps do not reach."""
        if "logits" in found.taps:
            raise ConfigError("a request's taps do not reach logits: change them by logit_bias, or tap norm")
        self.model.checked(dict.fromkeys(found.taps, lambda values: None))

    @torch.inference_mode()
    def hidden(self, chunks: abc.Sequence[SequenceChunk]) -> Tensor:
        """Compute the chunks together; returns the hidden states of their `logit_positions`, in order, shape (M, D).

        Chunks of requests with taps are computed module by module, apart from the others.
        """
        tapped = [chunk for chunk in chunks if chunk.sequence.taps is not None]
        if not tapped:
            return self._hidden(chunks)
        found: dict[SequenceChunk, Tensor] = {}
        for group in ([chunk for chunk in chunks if chunk.sequence.taps is None], tapped):
            if group:
                parts = torch.split(self._hidden(group), [len(chunk.logit_positions) for chunk in group])
                found |= dict(zip(group, parts, strict=True))
        dtype = torch.float32 if self.fused is not None else found[chunks[0]].dtype
        return torch.cat([found[chunk].to(dtype) for chunk in chunks])

    def _hidden(self, chunks: abc.Sequence[SequenceChunk]) -> Tensor:
        """The hidden states of chunks of which all or none have taps."""
        ids: list[int] = []
        rows: list[int] = []
        requested, chunks = chunks, by_adapter(chunks)
        first_rows: dict[SequenceChunk, int] = {}
        for chunk in chunks:
            first_rows[chunk] = len(ids)
            ids += chunk.tokens
        for chunk in requested:
            rows += [first_rows[chunk] - chunk.start + position for position in chunk.logit_positions]
        spans = spans_of([packed_adapter(chunk) for chunk in chunks], [chunk.end - chunk.start for chunk in chunks])
        layout = self._layout(chunks, [chunk.sequence.table for chunk in chunks])
        window_layout = None
        if any(self._is_windowed):
            window_layout = self._layout(chunks, [window_blocks_of(chunk.sequence.table) for chunk in chunks])
        is_tapped = chunks[0].sequence.taps is not None
        if self.fused is not None and not is_tapped and self._is_compiled_for(spans):
            return torch.from_numpy(self.fused.hidden(ids, layout, self.cache, rows, near=window_layout, spans=spans))
        if self.modules is None:
            self._open_modules(())
        assert self.modules is not None and self.adapted is not None
        taps = self.model.checked(taps_of_step(chunks, self._engine_taps)) if is_tapped else None
        layouts = [window_layout if window_layout and is_windowed else layout for is_windowed in self._is_windowed]
        with on_device_of(self.model.embed.weight), self.adapted.over(spans):
            return self.modules.hidden(chunks, layouts, rows, is_adapted=bool(spans), taps=taps)

    @torch.inference_mode()
    def logits(
        self,
        hidden_MD: Tensor,
        adapters: abc.Sequence[PackedAdapter | None] = (),
        draws: abc.Sequence[DrawSettings | None] = (),
    ) -> Logits:
        """Returns the logits after some hidden states, valid until the next call; each row may have an adapter.

        `draws` gives the rows whose token may be sampled on the device; the compiled step leaves that to `sampler.py`.
        """
        spans = spans_of(adapters, [1] * len(adapters))
        if self.fused is not None and self._is_compiled_for(spans):
            return self.fused.logits(hidden_MD.numpy(), spans)
        assert self.modules is not None and self.adapted is not None
        with on_device_of(self.model.embed.weight), self.adapted.over(spans):
            return self.modules.logits(hidden_MD, draws)

    def _layout(self, chunks: abc.Sequence[SequenceChunk], tables: abc.Sequence[list[int]]) -> Layout:
        spans = [PackedChunk(chunk.start, chunk.end, table) for chunk, table in zip(chunks, tables, strict=True)]
        return Layout(spans, block_size=self.block_size, threads=self.threads)

    def forget_adapters(self) -> None:
        """Drop cached adapter state, since an adapter was unloaded."""
        if self.fused is not None:
            self.fused.spans.forget()

    def forget_source(self, source: Source) -> None:
        """Free what was computed of a source text, since its request has ended."""
        if self.modules is not None and self.modules.sources is not None:
            self.modules.sources.forget(source)

    def refresh(self) -> None:
        """Rebuild what depends on the model's weights, since they were replaced."""
        if self.fused is not None:
            self.fused.refresh()
        if self.modules is not None:
            self.modules.refresh()


def packed_adapter(chunk: SequenceChunk) -> PackedAdapter | None:
    """Returns the packed adapter of a chunk's sequence, or None."""
    adapter = chunk.sequence.adapter
    return None if adapter is None else adapter.packed


def by_adapter(chunks: abc.Sequence[SequenceChunk]) -> abc.Sequence[SequenceChunk]:
    """Returns the chunks grouped by adapter, those of the base model first."""
    if all(chunk.sequence.adapter is None for chunk in chunks):
        return chunks
    return sorted(chunks, key=lambda chunk: 0 if chunk.sequence.adapter is None else chunk.sequence.adapter.id)
