"""Turns a plan into numbers: block copies, packed ids and positions, attention over paged memory, logits where wanted.

On a CPU models go through the compiled step (`nn/compiled_decoder.py`) where it can run them; all others, and any on a GPU,
through their modules (`module_runner.py`). Either way a layer's memory is indexed alike (`kernels/attention/kv_pages.py`).
"""

# M wanted rows, D hidden

from __future__ import annotations

from collections.abc import Sequence as Row

import torch
from torch import Tensor

from firsthand.engine.compute.devices import allocating, on_device_of, torch_on
from firsthand.engine.compute.module_runner import Modules
from firsthand.engine.core.sequence import Chunk
from firsthand.engine.decoding.batched_sampler import DrawSettings
from firsthand.engine.memory.blocks import Copy
from firsthand.engine.memory.window_pool import near_table
from firsthand.kernels.attention.kv_pages import Chunk as PageChunk
from firsthand.kernels.attention.kv_pages import Layout, Pages
from firsthand.nn.batched_lora import ModuleSpans, PackedAdapter, spans_of
from firsthand.nn.compiled_decoder import Cache, Fused, Logits, can_fuse
from firsthand.nn.decoder import Decoder


class Runner:
    """A model and the memory for its keys and values."""

    def __init__(
        self,
        model: Decoder,
        *,
        num_blocks: int,
        block_size: int,
        kv_dtype: torch.dtype | None = None,
        num_near: int | None = None,
        graphs: bool | None = None,
    ):
        """`num_near`: how many blocks windowed layers have, if they have tables of their own (`Table.near`).

        `graphs`: whether decode steps have fixed shapes (`static_step.py`); None is on CUDA alone.
        """
        weight = model.embed.weight
        self.model = model
        self.device = weight.device
        self.block_size = block_size
        self.threads = torch.get_num_threads()
        fits = self.device.type == "cpu" and block_size % 16 == 0 and can_fuse(model) is None
        has_spares = not fits and (self.device.type == "cuda" if graphs is None else graphs)
        spares = [num_blocks, *([] if num_near is None else [num_near])] if has_spares else []
        with allocating(f"the keys and values of {num_blocks} blocks"):
            self.cache = Cache.empty(
                model.architecture,
                num_blocks + has_spares,
                block_size,
                kv_dtype or weight.dtype,
                weight.device,
                num_near=None if num_near is None else num_near + has_spares,
            )
        self._is_near = [bool(kind) for kind in self.cache.spans[:, 0]]
        self.fused = Fused(model, threads=self.threads) if fits else None
        self.adapted = ModuleSpans(model) if self.fused is None else None
        with on_device_of(weight):
            self.modules = None if fits else Modules(model, self.cache, block_size=block_size, spares=spares)

    @property
    def computed_by(self) -> str:
        """What computes: the compiled step with this processor's instructions, or torch on its device."""
        if self.fused is None:
            return torch_on(self.device)
        from firsthand.kernels.products.dot_instructions import instructions  # needs numba, as the compiled step does

        return f"compiled for {instructions()}"

    @property
    def pages(self) -> tuple[Pages, ...]:
        """The memory of each layer."""
        return self.cache.pages

    @torch.inference_mode()
    def copy(self, copies: Row[Copy]) -> None:
        """Copy blocks, one after another: a block may be both a source and, later, a target."""
        for source, target, is_near in copies:
            for pages, near in zip(self.pages, self._is_near, strict=True):
                if near == is_near:
                    pages.copy(source, target)

    @torch.inference_mode()
    def hidden(self, chunks: Row[Chunk]) -> Tensor:
        """Compute the chunks together and return the hidden states of their wanted positions, in order: M D."""
        ids: list[int] = []
        wanted: list[int] = []
        asked, chunks = chunks, by_adapter(chunks)
        first_rows: dict[Chunk, int] = {}
        for chunk in chunks:
            first_rows[chunk] = len(ids)
            ids += chunk.tokens
        for chunk in asked:
            wanted += [first_rows[chunk] - chunk.start + position for position in chunk.wanted]
        spans = spans_of([packed_adapter(chunk) for chunk in chunks], [chunk.end - chunk.start for chunk in chunks])
        layout = self._layout(chunks, [chunk.sequence.table for chunk in chunks])
        near = None
        if any(self._is_near):
            near = self._layout(chunks, [near_table(chunk.sequence.table) for chunk in chunks])
        if self.fused is not None:
            return torch.from_numpy(self.fused.hidden(ids, layout, self.cache, wanted, near=near, spans=spans))
        assert self.modules is not None and self.adapted is not None
        layouts = [near if near and is_near else layout for is_near in self._is_near]
        with on_device_of(self.model.embed.weight), self.adapted.over(spans):
            return self.modules.hidden(chunks, layouts, wanted, is_adapted=bool(spans))

    @torch.inference_mode()
    def logits(
        self, hidden_MD: Tensor, adapters: Row[PackedAdapter | None] = (), draws: Row[DrawSettings | None] = ()
    ) -> Logits:
        """Scores of every next token after some states, each with its adapter if there are any, until the next call.

        `draws` says for which rows a token may be drawn where the scores are; the compiled step leaves that to `sampler`.
        """
        spans = spans_of(adapters, [1] * len(adapters))
        if self.fused is not None:
            return self.fused.logits(hidden_MD.numpy(), spans)
        assert self.modules is not None and self.adapted is not None
        with on_device_of(self.model.embed.weight), self.adapted.over(spans):
            return self.modules.logits(hidden_MD, draws)

    def _layout(self, chunks: Row[Chunk], tables: Row[list[int]]) -> Layout:
        spans = [PageChunk(chunk.start, chunk.end, table) for chunk, table in zip(chunks, tables, strict=True)]
        return Layout(spans, block_size=self.block_size, threads=self.threads)

    def forget_adapters(self) -> None:
        """Let go of adapters that were computed with, since one is gone."""
        if self.fused is not None:
            self.fused.spans.forget()

    def refresh(self) -> None:
        """Take note that the model's weights were replaced."""
        if self.fused is not None:
            self.fused.refresh()
        if self.modules is not None:
            self.modules.refresh()


def packed_adapter(chunk: Chunk) -> PackedAdapter | None:
    """What a chunk is computed with beside the weights."""
    adapter = chunk.sequence.adapter
    return None if adapter is None else adapter.packed


def by_adapter(chunks: Row[Chunk]) -> Row[Chunk]:
    """The chunks with those of one adapter side by side, and those of the model as it is first."""
    if all(chunk.sequence.adapter is None for chunk in chunks):
        return chunks
    return sorted(chunks, key=lambda chunk: 0 if chunk.sequence.adapter is None else chunk.sequence.adapter.id)
