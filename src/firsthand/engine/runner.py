"""Turns a plan into tensors: block copies, packed ids and positions, attention over paged memory, and logits where wanted.

Keys lie as [block, kv head, head_dim, slot] and values as [block, kv head, slot, head_dim], one pair of tensors a layer:
the layout that the CPU kernel reads as whole vectors (`nn/kernels/paged_attention.py`).
"""

# N packed tokens, M wanted rows, D hidden, H query heads, G kv heads, K head_dim, B blocks, S slots of a block, V vocabulary

from __future__ import annotations

from collections.abc import Sequence as Row

import torch
from torch import Tensor

from firsthand.engine.blocks import Copy
from firsthand.engine.sequence import Chunk
from firsthand.nn.decoder import Decoder
from firsthand.nn.kernels.paged_attention import Chunk as PageChunk
from firsthand.nn.kernels.paged_attention import Layout, Pages, attend_pages


class PagedAttend:
    """The `Attend` of one step: writes new keys and values into their blocks, then reads each sequence's own blocks."""

    def __init__(self, pages: Row[Pages], layout: Layout):
        self.pages = pages
        self.layout = layout

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """Attention of N packed tokens over the paged cache: N H K."""
        return attend_pages(q_NHK, k_NGK, v_NGK, self.pages[layer], self.layout, scale=scale, window=window)


class Runner:
    """A model and the memory for its keys and values."""

    def __init__(self, model: Decoder, *, num_blocks: int, block_size: int):
        architecture = model.architecture
        weight = model.embed.weight
        self.model = model
        self.device = weight.device
        self.block_size = block_size
        self.pages = [
            Pages.empty(
                num_blocks, architecture.num_kv_heads, block_size, architecture.head_dim, weight.dtype, weight.device
            )
            for _ in range(architecture.num_layers)
        ]

    @torch.inference_mode()
    def copy(self, copies: Row[Copy]) -> None:
        """Copy blocks, one after another: a block may be both a source and, later, a target."""
        for source, target in copies:
            for pages in self.pages:
                pages.keys[target] = pages.keys[source]
                pages.values[target] = pages.values[source]

    @torch.inference_mode()
    def hidden(self, chunks: Row[Chunk]) -> Tensor:
        """Compute the chunks together and return the hidden states of their wanted positions, in order: M D."""
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for chunk in chunks:
            offset = len(ids) - chunk.start
            wanted += [offset + position for position in chunk.wanted]
            ids += chunk.sequence.tokens[chunk.start : chunk.end]
            positions += range(chunk.start, chunk.end)
        layout = Layout(
            [PageChunk(chunk.start, chunk.end, chunk.sequence.table) for chunk in chunks],
            block_size=self.block_size,
            threads=torch.get_num_threads(),
        )
        hidden_ND: Tensor = self.model(
            torch.tensor(ids, device=self.device),
            torch.tensor(positions, device=self.device),
            PagedAttend(self.pages, layout),
        )
        return hidden_ND[torch.tensor(wanted, dtype=torch.long, device=self.device)]

    @torch.inference_mode()
    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores of every next token: M V, float32."""
        return self.model.logits(hidden_MD)
