"""Runs steps through the model's torch modules: on a GPU, and on a CPU where the compiled step cannot run.

A step waits for the device once: for each row the most probable token, its logit, the normaliser and a sampled token
come back together (`batched_sampler.py`). Rows that need the whole vocabulary on the host (penalties, grammars,
alternatives) are fetched one by one. Weights, KV cache and logits stay on the device.
"""

# N packed tokens, M rows that need logits, D hidden, V vocabulary, H query heads, G kv heads, K head_dim

from __future__ import annotations

import logging
from collections import abc
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from firsthand.engine.compute.source_cache import SourceCache
from firsthand.engine.compute.static_step import GraphCapture, StaticStep, StaticSteps, is_static, without_capture
from firsthand.engine.core.sequence import SequenceChunk
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.kernels.attention import gather
from firsthand.kernels.attention.kv_pages import Layout, Pages
from firsthand.kernels.attention.paged_attention import attend_pages
from firsthand.kernels.attention.score_terms import ScoreTerms
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.compiled_decoder import Cache, Logits
from firsthand.nn.decoder import Decoder
from firsthand.nn.sites import Taps
from firsthand.nn.sourced_decoder import SourcedDecoder

log = logging.getLogger(__name__)
MAX_KERNEL_ERROR = 0.05
"""Largest difference from plain attention allowed in the check before a kernel's first use, in bfloat16 (values are
about 1)."""


class PagedAttend:
    """The `Attend` of one step: writes new keys and values into their blocks, then attends to each sequence's blocks."""

    def __init__(self, pages: abc.Sequence[Pages], layouts: abc.Sequence[Layout], decode: gather.Decode):
        self.pages = pages
        self.layouts = layouts
        self.decode = decode

    def __call__(
        self,
        layer: int,
        q_NHK: Tensor,
        k_NGK: Tensor,
        v_NGK: Tensor,
        *,
        scale: float,
        window: int | None,
        terms: ScoreTerms | None = None,
    ) -> Tensor:
        """Returns attention of N packed tokens over the paged KV cache, shape (N, H, K)."""
        pages, layout = self.pages[layer], self.layouts[layer]
        return attend_pages(
            q_NHK, k_NGK, v_NGK, pages, layout, scale=scale, window=window, terms=terms, decode=self.decode
        )


class ModuleRunner:
    """Calls a model module by module over a paged KV cache."""

    def __init__(self, model: Decoder, cache: Cache, *, block_size: int, padding_blocks: abc.Sequence[int]):
        """`padding_blocks`: for each kind of layers the block that padding writes to; empty if no step has fixed
        shapes."""
        self.model, self.cache = model, cache
        self.device = model.embed.weight.device
        self.decode = decode_on(self.device)
        self.block_size = block_size
        self.sources = SourceCache(model) if isinstance(model, SourcedDecoder) else None
        self.taps: Taps | None = None
        """Called on activations while they are set; steps then have no fixed shape."""
        self.steps: StaticSteps | None = None
        if padding_blocks:
            self.steps = StaticSteps(
                lambda rows, width: StaticStep(
                    model,
                    cache,
                    rows=rows,
                    width=width,
                    padding_blocks=padding_blocks,
                    block_size=block_size,
                    decode=self.decode,
                ),
                GraphCapture() if self.device.type == "cuda" else without_capture,
            )

    def hidden(
        self,
        chunks: abc.Sequence[SequenceChunk],
        layouts: abc.Sequence[Layout],
        rows: abc.Sequence[int],
        *,
        is_adapted: bool = False,
        taps: Taps | None = None,
    ) -> Tensor:
        """Compute the chunks together; returns the hidden states of the given packed rows, shape (M, D).

        `taps` stand in place of its own.

        `layouts` has one entry per layer. A step with adapters never has fixed shapes, since what they add depends on
        the step.
        """
        taps = taps or self.taps
        if self.steps is not None and not is_adapted and taps is None and is_static(chunks):
            static_ND = self._static(self.steps, chunks)
            if static_ND is not None and len(rows) == len(chunks):
                return static_ND
            if static_ND is not None:
                return static_ND[gather.to_device([rows], self.device)[0]]
        ids_N, positions_N, rows_M = gather.to_device(
            [
                [token for chunk in chunks for token in chunk.tokens],
                [position for chunk in chunks for position in range(chunk.start, chunk.end)],
                rows,
            ],
            self.device,
        )
        attend: Attend = PagedAttend(self.cache.pages, layouts, self.decode)
        if self.sources is not None:
            attend = self.sources.over(chunks, attend)
        more = {} if taps is None else {"taps": taps}
        hidden_ND: Tensor = self.model(ids_N, positions_N, attend, **more)
        return hidden_ND[rows_M]

    def _static(self, steps: StaticSteps, chunks: abc.Sequence[SequenceChunk]) -> Tensor | None:
        """Run the step with fixed shapes. If the GPU cannot capture it, returns None, and never tries again."""
        made = len(steps)
        try:
            return steps.hidden(chunks, self.block_size)
        except RuntimeError as error:
            if self.device.type != "cuda" or len(steps) != made:
                raise
            log.warning("no CUDA graph could be captured, so steps go on without: %s", error)
            self.steps = None
            return None

    def logits(self, hidden_MD: Tensor, draws: abc.Sequence[DrawSettings | None] = ()) -> Logits:
        """Returns the logits after some hidden states, and a sampled token for each row that has a draw."""
        scores_MV = self.model.logits(hidden_MD) if self.taps is None else self.model.logits(hidden_MD, taps=self.taps)
        best, drawn, best_scores, drawn_scores, normalisers, drawn_logprobs = summary(
            scores_MV, draws
        ).tolist()  # waits once
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
        """Drop captured steps, since modules may have been replaced."""
        if self.steps is not None:
            self.steps.forget()


def summary(scores_MV: Tensor, draws: abc.Sequence[DrawSettings | None]) -> Tensor:
    """Returns for each row its most probable token, the sampled one (else the same), their logits, the normaliser, and the
    log-prob of the draw.

    The result is (6, M) float64.
    """
    best_M = scores_MV.argmax(-1)
    normaliser_M = scores_MV.logsumexp(-1).double()
    drawn_M, logprobs_M = best_M, torch.zeros_like(normaliser_M)
    if any(draws):
        drawn_M, logprobs_M = draw_rows(scores_MV, draws, otherwise=best_M)
    tokens_2M = torch.stack([best_M, drawn_M])
    found_2M = scores_MV.gather(1, tokens_2M.T).T
    return torch.cat([tokens_2M.double(), found_2M.double(), normaliser_M[None], logprobs_M[None]])


def decode_on(device: torch.device) -> gather.Decode:
    """Returns the attention of decode steps: on a GPU the Triton kernel, if it agrees with plain attention."""
    if device.type != "cuda" or find_spec("triton") is None:
        return gather.decode
    return _checked(device)


@cache
def _checked(device: torch.device) -> gather.Decode:
    from firsthand.kernels.attention import paged_triton

    try:
        gap = kernel_error(paged_triton.decode, device, torch.bfloat16)
    except Exception as error:  # any error of a compiler or driver
        log.warning("the Triton kernel does not run here, so blocks are gathered: %s", error)
        return gather.decode
    if not gap < MAX_KERNEL_ERROR:
        log.warning("the Triton kernel is off by %g here, so blocks are gathered", gap)
        return gather.decode
    return paged_triton.decode


def kernel_error(decode: gather.Decode, device: torch.device, dtype: torch.dtype) -> float:
    """Returns the largest difference between two ways to attend, over three sequences of different lengths."""
    generator = torch.Generator().manual_seed(0)
    pages = Pages.empty(24, 2, 16, 64, dtype, device)
    for tensor in pages.tensors:
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    tables_CB = torch.randperm(24, generator=generator).view(3, 8).to(device)
    positions_C = torch.tensor([0, 37, 127], device=device)
    q_CHK = torch.randn(3, 6, 64, generator=generator).to(device, dtype)
    ways = (decode, gather.decode)
    ours, reference = (way(q_CHK, pages, tables_CB, positions_C, scale=0.125, window=None) for way in ways)
    return float((ours - reference).abs().max())
