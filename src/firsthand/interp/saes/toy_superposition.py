"""Activations with known features, more of them than dimensions, and measures of a dictionary against that ground truth.

Toy superposition (Elhage et al., 2022): x = sum_i z_i f_i of sparse z and unit vectors f_i. A method that does not find
these features shows nothing on a real model, where nobody knows them.
"""

# N samples, D dimensions, F true features, M latents

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]
from torch import Tensor
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder


class Superposition:
    """Unit features with Zipf frequencies (the sum is the mean number of active ones), strengths uniform from 0.5 to 1.5."""

    def __init__(self, num_features: int = 128, dimensions: int = 64, *, l0: float = 4.0, seed: int = 0):
        if num_features < 2 or dimensions < 2 or not 0 < l0 < num_features / 4:
            raise ConfigError(
                f"{num_features} features, {dimensions} dimensions and {l0} active came: expected 2 or more of both, and "
                "fewer than a quarter of the features active"
            )
        self.generator = torch.Generator().manual_seed(seed)
        rows_FD = torch.randn(num_features, dimensions, generator=self.generator)
        self.features = spread_out(functional.normalize(rows_FD, dim=1))
        weights_F = 1 / torch.arange(1, num_features + 1)
        self.frequencies = (weights_F * (l0 / weights_F.sum())).clamp_max(0.9)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Activations N D and the strengths of their features N F, new ones at each call."""
        shape = (count, len(self.frequencies))
        is_on_NF = torch.rand(shape, generator=self.generator) < self.frequencies
        strengths_NF = is_on_NF * (0.5 + torch.rand(shape, generator=self.generator))
        return strengths_NF @ self.features, strengths_NF

    def batches(self, count: int) -> Iterator[Tensor]:
        """Fresh activations without end."""
        while True:
            yield self.sample(count)[0]


def spread_out(rows_FD: Tensor, steps: int = 200) -> Tensor:
    """Moves unit vectors apart by descent on the fourth powers of their cosines; a set of them interferes little."""
    rows_FD = rows_FD.clone()
    eye_FF = torch.eye(len(rows_FD))
    for _ in range(steps):
        cosines_FF = rows_FD @ rows_FD.T - eye_FF
        rows_FD = functional.normalize(rows_FD - 0.5 * cosines_FF.pow(3) @ rows_FD, dim=1)
    return rows_FD


@dataclass(frozen=True)
class Recovery:
    """A dictionary against true features."""

    mmcs: float
    """Mean over true features of the largest cosine with any latent (mean max cosine similarity)."""
    above: float
    """Share of true features with a latent at a cosine above 0.9."""
    uniqueness: float
    """Share of true features that have a best latent to themselves."""
    f1: float
    """Mean F1 of matched latents' firing against their features', one latent each; nan for a dictionary alone."""
    l0: float
    """Active latents of a sample, mean; nan for a dictionary alone."""
    fvu: float
    """Fraction of variance unexplained; nan for a dictionary alone."""
    dead: float
    """Share of latents that never fired on the samples; nan for a dictionary alone."""


def dictionary_recovery(dictionary_MD: Tensor, features_FD: Tensor) -> Recovery:
    """The measures that need no samples. MMCS alone misleads: a dense, wrong code can have a high one."""
    cosines_FM = features_FD @ functional.normalize(dictionary_MD, dim=1, eps=1e-12).T
    best = cosines_FM.max(dim=1)
    unique = len(set(best.indices.tolist())) / len(features_FD)
    nan = float("nan")
    return Recovery(float(best.values.mean()), float((best.values > 0.9).float().mean()), unique, nan, nan, nan, nan)


@torch.no_grad()
def recovery(sae: SparseAutoencoder, truth: Superposition, *, samples: int = 16_384) -> Recovery:
    """All measures, on fresh samples; latents are matched to features one to one (Hungarian method on cosines)."""
    x_ND, strengths_NF = truth.sample(samples)
    z_NM = sae.encode(x_ND)
    base = dictionary_recovery(sae.decoder, truth.features)
    cosines_FM = truth.features @ functional.normalize(sae.decoder, dim=1, eps=1e-12).T
    rows, columns = linear_sum_assignment(-cosines_FM.numpy())
    fires_NF, is_on_NF = z_NM[:, columns] > 0, strengths_NF[:, rows] > 0
    hits_F = (fires_NF & is_on_NF).sum(0).double()
    f1_F = 2 * hits_F / (fires_NF.sum(0) + is_on_NF.sum(0)).clamp_min(1)
    variance = (x_ND - x_ND.mean(0)).square().sum()
    fires_NM = z_NM > 0
    return Recovery(
        base.mmcs, base.above, base.uniqueness, float(f1_F.mean()), float(fires_NM.sum(1).float().mean()),
        float((x_ND - sae.decode(z_NM)).square().sum() / variance), float((~fires_NM.any(0)).float().mean()),
    )  # fmt: skip


@dataclass(frozen=True)
class ToyStudy:
    """One trained dictionary and a random one of its size, against the same truth."""

    kind: str
    seed: int
    found: Recovery
    null: Recovery
    """Random unit vectors: what cosines are worth in so few dimensions."""
    trainer: SaeTrainer

    @property
    def passes(self) -> bool:
        """The acceptance of the method: MMCS above .95, 95% of features above .9, uniqueness above .95, F1 above .85."""
        f = self.found
        return f.mmcs > 0.95 and f.above >= 0.95 and f.uniqueness > 0.95 and f.f1 > 0.85


def toy_study(
    kind: str = "batch_topk", *, seed: int = 0, steps: int = 3000, batch: int = 512, num_features: int = 128,
    dimensions: int = 64, width: int = 256, l0: float = 4.0, lr: float = 3e-3, **settings: float,
) -> ToyStudy:  # fmt: skip
    """Trains an autoencoder on toy superposition and measures it against the truth and a random dictionary."""
    truth = Superposition(num_features, dimensions, l0=l0, seed=seed)
    sae = sae_of(kind, dimensions, width, seed=seed + 1, **settings)
    trainer = SaeTrainer(sae, SaeSettings(steps=steps, lr=lr, dead_tokens=50 * batch))
    trainer.train(truth.batches(batch))
    trainer.finished()
    random_MD = torch.randn(width, dimensions, generator=torch.Generator().manual_seed(seed + 2))
    null = dictionary_recovery(random_MD, truth.features)
    return ToyStudy(kind, seed, recovery(sae, truth), null, trainer)
