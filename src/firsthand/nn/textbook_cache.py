"""The KV cache in its textbook form: keys and values of one sequence, kept in one tensor a layer that grows as tokens come.

A decoder computes each new token's query against the keys of all earlier ones, and these never change: so they are kept, and
a step costs one token instead of all. Memory is 2 x layers x KV heads x head_dim values a token. The engine's cache
(`engine/memory/blocks.py`) keeps the same numbers in blocks of a shared pool, so that sequences of unknown lengths waste
none of it and share the blocks of equal beginnings.

    cache = TextbookCache()
    hidden = model(prompt_ids, torch.arange(len(prompt_ids)), cache)   # all of the prompt at once
    hidden = model(next_id, torch.tensor([cache.length(0)]), cache)    # then one token at a time
"""

# Q new tokens, T tokens so far, H query heads, G kv heads, K head_dim

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import ScoreTerms, attend_plainly, cross_attention


class TextbookCache:
    """An `Attend` that remembers one sequence: each call adds the new keys and values of a layer, and attends to all."""

    def __init__(self, *, max_length: int = 1 << 20):
        """ConfigError from a call that would keep more than `max_length` tokens."""
        self.max_length = max_length
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def length(self, layer: int) -> int:
        """Tokens that a layer has seen, which is the position of the next."""
        return len(self._keys[layer]) if layer in self._keys else 0

    def __call__(
        self,
        layer: int,
        q_QHK: Tensor,
        k_QGK: Tensor,
        v_QGK: Tensor,
        *,
        scale: float,
        window: int | None,
        terms: ScoreTerms | None = None,
    ) -> Tensor:
        """Returns the attention output of the new tokens: Q H K. Keys come rotated, so each is rotated once."""
        if terms is not None and terms.source_lengths is not None:  # another text's: they come whole, and are not kept
            return cross_attention(q_QHK, k_QGK, v_QGK, [len(q_QHK)], scale=scale, terms=terms)
        k_TGK, v_TGK = self._grown(self._keys, layer, k_QGK), self._grown(self._values, layer, v_QGK)
        length, first = len(k_TGK), len(k_TGK) - len(q_QHK)
        distance_QT = (
            torch.arange(length, device=q_QHK.device) - torch.arange(first, length, device=q_QHK.device)[:, None]
        )
        seen_QT = distance_QT <= 0
        if window is not None:
            seen_QT &= distance_QT > -window
        q_1HQK, k_1GTK, v_1GTK = (x.transpose(0, 1)[None] for x in (q_QHK, k_TGK, v_TGK))
        if terms is not None:
            mixed = attend_plainly(q_1HQK, k_1GTK, v_1GTK, seen_QT, distance_QT, scale=scale, terms=terms)
        else:
            mixed = functional.scaled_dot_product_attention(
                q_1HQK, k_1GTK, v_1GTK, seen_QT, scale=scale, enable_gqa=q_1HQK.shape[1] != k_1GTK.shape[1]
            )
        return mixed[0].transpose(0, 1)

    def _grown(self, kept: dict[int, Tensor], layer: int, new_QGK: Tensor) -> Tensor:
        """All of a layer's rows with the new ones, kept for the next call."""
        grown = torch.cat([kept[layer], new_QGK]) if layer in kept else new_QGK
        if len(grown) > self.max_length:
            raise ConfigError(
                f"the cache would hold {len(grown)} tokens: expected at most max_length ({self.max_length})"
            )
        kept[layer] = grown
        return grown
