"""The kinds of sparse autoencoders by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firsthand.errors import unknown
from firsthand.interp.saes.batch_topk_sae import BatchTopKSae
from firsthand.interp.saes.jumprelu_sae import JumpReluSae
from firsthand.interp.saes.matryoshka_sae import MatryoshkaSae
from firsthand.interp.saes.relu_sae import ReluSae
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.interp.saes.topk_sae import TopKSae

KINDS: Mapping[str, type[SparseAutoencoder]] = {
    each.kind: each for each in (ReluSae, TopKSae, BatchTopKSae, JumpReluSae, MatryoshkaSae)
}


def sae_of(kind: str, d_in: int, d_sae: int, *, seed: int = 0, **settings: Any) -> SparseAutoencoder:
    """A new autoencoder; UnknownName for a kind that is not there."""
    if kind not in KINDS:
        raise unknown("kind of sparse autoencoder", kind, KINDS, see="firsthand interp toy --help")
    return KINDS[kind](d_in, d_sae, seed=seed, **settings)
