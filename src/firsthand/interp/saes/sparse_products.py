"""Products with few nonzeros, with gradients: encoders and decoders of which a token uses k of M latents.

A dense decoder computes M/k times too much in training. Here a pick is one active latent of one token; forward and backward
passes are sums of weighted rows (`embedding_bag`), so their cost grows with the picks alone.
"""

# N tokens, D inputs, M latents, P picks sorted by token

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 512


class Picks(NamedTuple):
    """Places of the active latents, sorted by token."""

    token: Tensor
    """P"""
    latent: Tensor
    """P"""
    num_tokens: int
    num_latents: int


def picks_at(flat_P: Tensor, num_tokens: int, num_latents: int) -> Picks:
    """Picks from places in a flattened N x M matrix, in any order."""
    flat_P = flat_P.sort().values
    token_P = torch.div(flat_P, num_latents, rounding_mode="floor")
    return Picks(token_P, flat_P - token_P * num_latents, num_tokens, num_latents)


def encoded(x_ND: Tensor, encoder_MD: Tensor, bias_M: Tensor, picks: Picks, values_P: Tensor) -> Tensor:
    """The pre-activations at the picks, P, which were computed as `values_P`; gradients reach the picks' rows alone."""
    return _Encoded.apply(x_ND, encoder_MD, bias_M, picks, values_P)  # type: ignore[no-any-return, no-untyped-call]


def decoded(values_P: Tensor, decoder_MD: Tensor, picks: Picks) -> Tensor:
    """The sum of each token's decoder rows times their values: N D."""
    return _Decoded.apply(values_P, decoder_MD, picks)  # type: ignore[no-any-return, no-untyped-call]


class _Encoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, encoder_MD: Tensor, bias_M: Tensor, picks: Picks, values_P: Tensor) -> Tensor:
        ctx.save_for_backward(x_ND, encoder_MD)
        ctx.picks = picks
        return values_P.clone()

    @staticmethod
    def backward(ctx: Any, grad_P: Tensor) -> Any:
        x_ND, encoder_MD = ctx.saved_tensors
        picks: Picks = ctx.picks
        to_x = _rows_by_token(grad_P, encoder_MD, picks) if ctx.needs_input_grad[0] else None
        bias_M = grad_P.new_zeros(picks.num_latents).index_add_(0, picks.latent, grad_P)
        return to_x, _rows_by_latent(grad_P, x_ND, picks), bias_M, None, None


class _Decoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_P: Tensor, decoder_MD: Tensor, picks: Picks) -> Tensor:
        ctx.save_for_backward(values_P, decoder_MD)
        ctx.picks = picks
        return _rows_by_token(values_P, decoder_MD, picks)

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> Any:
        values_P, decoder_MD = ctx.saved_tensors
        picks: Picks = ctx.picks
        return _products(grad_ND, decoder_MD, picks), _rows_by_latent(values_P, grad_ND, picks), None


def _products(rows_ND: Tensor, columns_MD: Tensor, picks: Picks) -> Tensor:
    """The product of each pick's token row and latent row: P."""
    has_mkl = rows_ND.device.type == "cpu" and torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return (products_by_mkl if has_mkl else products_by_parts)(rows_ND, columns_MD, picks)


def products_by_mkl(rows_ND: Tensor, columns_MD: Tensor, picks: Picks) -> Tensor:
    """The products at the picks by MKL's sampled product, which gathers nothing: P."""
    starts = torch.searchsorted(picks.token, torch.arange(picks.num_tokens + 1))
    ones = torch.ones(len(picks.latent), dtype=rows_ND.dtype)
    size = (picks.num_tokens, picks.num_latents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its CSR layout beta, once
        places = torch.sparse_csr_tensor(starts, picks.latent, ones, size, check_invariants=False)
        found: Tensor = torch.sparse.sampled_addmm(places, rows_ND.contiguous(), columns_MD.T, beta=0.0).values()
    return found


def products_by_parts(rows_ND: Tensor, columns_MD: Tensor, picks: Picks) -> Tensor:
    """The same in plain torch, in parts that fit the cache of a core: P."""
    parts = [
        (rows_ND[token_P] * columns_MD[latent_P]).sum(-1)
        for token_P, latent_P in zip(torch.split(picks.token, _CHUNK), torch.split(picks.latent, _CHUNK), strict=True)
    ]
    return torch.cat(parts)


def _rows_by_token(weights_P: Tensor, rows_MD: Tensor, picks: Picks) -> Tensor:
    """The weighted sum of latents' rows for each token: N D."""
    return _sums(picks.latent, rows_MD, picks.token, picks.num_tokens, weights_P)


def _rows_by_latent(weights_P: Tensor, rows_ND: Tensor, picks: Picks) -> Tensor:
    """The weighted sum of tokens' rows for each latent: M D."""
    order_P = picks.latent.argsort()
    return _sums(picks.token[order_P], rows_ND, picks.latent[order_P], picks.num_latents, weights_P[order_P])


def _sums(index_P: Tensor, rows: Tensor, group_P: Tensor, groups: int, weights_P: Tensor) -> Tensor:
    starts = torch.searchsorted(group_P, torch.arange(groups))
    return functional.embedding_bag(index_P, rows, starts, mode="sum", per_sample_weights=weights_P)
