"""Steps by the model's modules: on a GPU, and on a CPU wherever the compiled step does not run.

A step asks the device for its results once: the most probable token of each row, its score, the normaliser, and a token
where one was to be drawn come back together (`drawing.py`). Only rows that need the whole vocabulary on the host (penalties,
grammars, alternatives) are fetched, one by one. Weights, keys, values and logits stay on the device.
"""

# N packed tokens, M wanted rows, D hidden, V vocabulary, H query heads, G kv heads, K head_dim

from __future__ import annotations

import logging
from collections.abc import Sequence as Row
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.compute.static_step import Graphs, StaticStep, StaticSteps, called, is_static
from firsthand.engine.core.sequence import Chunk
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.kernels.attention import gather
from firsthand.kernels.attention.kv_pages import Layout, Pages
from firsthand.kernels.attention.paged_attention import attend_pages
from firsthand.nn.compiled_decoder import Cache, Logits
from firsthand.nn.decoder import Decoder

log = logging.getLogger(__name__)
SAME = 0.05
"""How far the kernel may be from plain attention in the check before its first use, in bfloat16 (values are about 1)."""


class PagedAttend:
    """The `Attend` of one step: writes new keys and values into their blocks, then reads each sequence's own blocks."""

    def __init__(self, pages: Row[Pages], layouts: Row[Layout], decode: gather.Decode):
        self.pages = pages
        self.layouts = layouts
        self.decode = decode

    def __call__(
        self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, *, scale: float, window: int | None
    ) -> Tensor:
        """Attention of N packed tokens over the paged cache: N H K."""
        return attend_pages(
            q_NHK, k_NGK, v_NGK, self.pages[layer], self.layouts[layer], scale=scale, window=window, decode=self.decode
        )


class Modules:
    """A model called module by module over a paged cache."""

    def __init__(self, model: Decoder, cache: Cache, *, block_size: int, spares: Row[int]):
        """`spares`: for each kind of layers a block for what padding writes; none where no step is to be static."""
        self.model, self.cache = model, cache
        self.device = model.embed.weight.device
        self.decode = decode_on(self.device)
        self.block_size = block_size
        self.steps: StaticSteps | None = None
        if spares:
            self.steps = StaticSteps(
                lambda rows, width: StaticStep(
                    model, cache, rows=rows, width=width, spares=spares, block_size=block_size, decode=self.decode
                ),
                Graphs() if self.device.type == "cuda" else called,
            )

    def hidden(self, chunks: Row[Chunk], layouts: Row[Layout], wanted: Row[int], *, is_adapted: bool = False) -> Tensor:
        """Compute the chunks together; the hidden states of their wanted packed rows: M D. `layouts` are the layers'.

        What adapters add depends on the step, so a step with any has no fixed shape.
        """
        if self.steps is not None and not is_adapted and is_static(chunks):
            static_ND = self._static(self.steps, chunks)
            if static_ND is not None and len(wanted) == len(chunks):
                return static_ND
            if static_ND is not None:
                return static_ND[gather.to_device([wanted], self.device)[0]]
        ids_N, positions_N, wanted_M = gather.to_device(
            [
                [token for chunk in chunks for token in chunk.tokens],
                [position for chunk in chunks for position in range(chunk.start, chunk.end)],
                wanted,
            ],
            self.device,
        )
        hidden_ND: Tensor = self.model(ids_N, positions_N, PagedAttend(self.cache.pages, layouts, self.decode))
        return hidden_ND[wanted_M]

    def _static(self, steps: StaticSteps, chunks: Row[Chunk]) -> Tensor | None:
        """The step with fixed shapes; None, and never again, if the GPU cannot capture it."""
        made = len(steps)
        try:
            return steps.hidden(chunks, self.block_size)
        except RuntimeError as error:
            if self.device.type != "cuda" or len(steps) != made:
                raise
            log.warning("no CUDA graph could be captured, so steps go on without: %s", error)
            self.steps = None
            return None

    def logits(self, hidden_MD: Tensor, draws: Row[DrawSettings | None] = ()) -> Logits:
        """Scores of every next token after some states, and a token of each row for which there is a draw."""
        scores_MV = self.model.logits(hidden_MD)
        best, drawn, best_scores, drawn_scores, normalisers, drawn_logprobs = summary(
            scores_MV, draws
        ).tolist()  # waits
        return Logits(
            scores_MV,
            [int(token) for token in best],
            np.array(normalisers, dtype=np.float32),
            drawn=[int(token) if draw else None for token, draw in zip(drawn, draws, strict=True)] if draws else None,
            drawn_logprobs=drawn_logprobs if draws else None,
            known=[
                {int(one): score, int(other): its}
                for one, score, other, its in zip(best, best_scores, drawn, drawn_scores, strict=True)
            ],
        )

    def refresh(self) -> None:
        """Take note that modules may have been replaced."""
        if self.steps is not None:
            self.steps.forget()


def summary(scores_MV: Tensor, draws: Row[DrawSettings | None]) -> Tensor:
    """6 M float64: each row's most probable token, the drawn one (else the same), their scores, the normaliser, and the
    log-prob of the draw."""
    best_M = scores_MV.argmax(-1)
    normaliser_M = scores_MV.logsumexp(-1).double()
    drawn_M, logprobs_M = best_M, torch.zeros_like(normaliser_M)
    if any(draws):
        drawn_M, logprobs_M = draw_rows(scores_MV, draws, otherwise=best_M)
    tokens_2M = torch.stack([best_M, drawn_M])
    found_2M = scores_MV.gather(1, tokens_2M.T).T
    return torch.cat([tokens_2M.double(), found_2M.double(), normaliser_M[None], logprobs_M[None]])


def decode_on(device: torch.device) -> gather.Decode:
    """How one token of each sequence attends: on a GPU by the Triton kernel, if it agrees there with the plain way."""
    if device.type != "cuda" or find_spec("triton") is None:
        return gather.decode
    return _checked(device)


@cache
def _checked(device: torch.device) -> gather.Decode:
    from firsthand.kernels.attention import paged_triton

    try:
        gap = disagreement(paged_triton.decode, device, torch.bfloat16)
    except Exception as error:  # a compiler's or a driver's own
        log.warning("the Triton kernel does not run here, so blocks are gathered: %s", error)
        return gather.decode
    if not gap < SAME:
        log.warning("the Triton kernel is off by %g here, so blocks are gathered", gap)
        return gather.decode
    return paged_triton.decode


def disagreement(decode: gather.Decode, device: torch.device, dtype: torch.dtype) -> float:
    """The largest gap between a way to attend and the plain one, on three sequences of other lengths."""
    made = torch.Generator().manual_seed(0)
    pages = Pages.empty(24, 2, 16, 64, dtype, device)
    for tensor in pages.tensors:
        tensor.copy_(torch.randn(tensor.shape, generator=made))
    tables_CB = torch.randperm(24, generator=made).view(3, 8).to(device)
    positions_C = torch.tensor([0, 37, 127], device=device)
    q_CHK = torch.randn(3, 6, 64, generator=made).to(device, dtype)
    ways = (decode, gather.decode)
    one, other = (way(q_CHK, pages, tables_CB, positions_C, scale=0.125, window=None) for way in ways)
    return float((one - other).abs().max())
