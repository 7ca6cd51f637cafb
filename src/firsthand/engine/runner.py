"""Turns a plan into numbers: block copies, packed ids and positions, attention over paged memory, and logits where wanted.

Models with blockwise weights go through the compiled step (`nn/fused.py`), all others through their modules. Keys lie
as [block, kv head, head_dim, slot] and values as [block, kv head, slot, head_dim], for each layer: the layout that the
CPU kernel reads as whole vectors (`nn/kernels/pages.py`).
"""

# N packed tokens, M wanted rows, D hidden, H query heads, G kv heads, K head_dim, V vocabulary

from __future__ import annotations

from collections.abc import Sequence as Row

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.blocks import Copy
from firsthand.engine.mixed import near_table
from firsthand.engine.sequence import Chunk
from firsthand.nn.adapters import ModuleSpans, PackedAdapter, spans_of
from firsthand.nn.decoder import Decoder
from firsthand.nn.fused import Cache, Fused, Logits, can_fuse
from firsthand.nn.kernels.paged_attention import Chunk as PageChunk
from firsthand.nn.kernels.paged_attention import Layout, Pages, attend_pages


class PagedAttend:
    """The `Attend` of one step: writes new keys and values into their blocks, then reads each sequence's own blocks."""

    def __init__(self, pages: Row[Pages], layouts: Row[Layout]):
        self.pages = pages
        self.layouts = layouts

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """Attention of N packed tokens over the paged cache: N H K."""
        return attend_pages(q_NHK, k_NGK, v_NGK, self.pages[layer], self.layouts[layer], scale=scale, window=window)


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
    ):
        """`num_near`: how many blocks windowed layers have, if they have tables of their own (`Table.near`)."""
        weight = model.embed.weight
        self.model = model
        self.device = weight.device
        self.block_size = block_size
        self.threads = torch.get_num_threads()
        self.cache = Cache.empty(
            model.architecture, num_blocks, block_size, kv_dtype or weight.dtype, weight.device, num_near=num_near
        )
        self._is_near = [bool(kind) for kind in self.cache.spans[:, 0]]
        fits = self.device.type == "cpu" and block_size % 16 == 0 and can_fuse(model) is None
        self.fused = Fused(model, threads=self.threads) if fits else None
        self.adapted = ModuleSpans(model) if self.fused is None else None

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
        positions = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
        assert self.adapted is not None
        with self.adapted.over(spans):
            hidden_ND: Tensor = self.model(
                torch.tensor(ids, device=self.device),
                torch.tensor(positions, device=self.device),
                PagedAttend(self.pages, [near if near and is_near else layout for is_near in self._is_near]),
            )
        return hidden_ND[torch.tensor(wanted, dtype=torch.long, device=self.device)]

    @torch.inference_mode()
    def logits(self, hidden_MD: Tensor, adapters: Row[PackedAdapter | None] = ()) -> Logits:
        """Scores of every next token after some states, each with its adapter if there are any, until the next call."""
        spans = spans_of(adapters, [1] * len(adapters))
        if self.fused is not None:
            return self.fused.logits(hidden_MD.numpy(), spans)
        assert self.adapted is not None
        with self.adapted.over(spans):
            logits_MV = self.model.logits(hidden_MD)
        normaliser_M = np.asarray(logits_MV.logsumexp(-1).cpu(), dtype=np.float32)
        return Logits(logits_MV, logits_MV.argmax(-1).tolist(), normaliser_M)

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


def packed_adapter(chunk: Chunk) -> PackedAdapter | None:
    """What a chunk is computed with beside the weights."""
    adapter = chunk.sequence.adapter
    return None if adapter is None else adapter.packed


def by_adapter(chunks: Row[Chunk]) -> Row[Chunk]:
    """The chunks with those of one adapter side by side, and those of the model as it is first."""
    if all(chunk.sequence.adapter is None for chunk in chunks):
        return chunks
    return sorted(chunks, key=lambda chunk: 0 if chunk.sequence.adapter is None else chunk.sequence.adapter.id)
