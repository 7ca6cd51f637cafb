"""Measures of a sparse autoencoder on a model and text it was not trained on.

Loss recovered is printed beside the raw difference in cross-entropy, since 0.99 recovered can hide much of the variance.
SAEBench's TPP and SCR are left out: an audit of 2026 (arXiv:2605.18229) found them unreliable. So is a score of
"interpretability" by a judge model.
"""

# N tokens, D hidden, M latents

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from firsthand.errors import DataError
from firsthand.interp.activations import run_with_cache
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.message import Json
from firsthand.nn.decoder import Decoder
from firsthand.stats.intervals import Interval, finite, unbounded_mean_interval

MIN_TEXTS = 2


@dataclass(frozen=True)
class SaeMeasures:
    """One autoencoder on held-out texts."""

    tokens: int
    """Tokens it was measured on."""
    cross_entropy: float
    """Of the model, nats a token."""
    with_sae: float
    """With the site replaced by its reconstruction."""
    with_zeros: float
    """With the site replaced by zeros."""
    difference: Interval
    """with_sae - cross_entropy, one value for each text."""
    fvu: float
    """Fraction of variance unexplained."""
    l0: float
    """Active latents of a token, mean."""
    dead: float
    """Share of latents that never fired on these tokens; state the tokens with it."""
    shrinkage: float
    """Mean norm of reconstructions over mean norm of activations."""
    density: Tensor
    """M: share of tokens on which each latent fires."""

    @property
    def loss_recovered(self) -> float:
        """(CE_zeros - CE_sae) / (CE_zeros - CE); 1 changes nothing, 0 is no better than zeros. NaN if zeros are too."""
        lost = self.with_zeros - self.cross_entropy
        return (self.with_zeros - self.with_sae) / lost if lost else math.nan

    def to_json(self) -> Json:
        """All but the densities, of which three quantiles. `loss_recovered` is None where it is NaN, which JSON lacks."""
        names = ("tokens", "cross_entropy", "with_sae", "with_zeros", "fvu", "l0", "dead", "shrinkage")
        body = {name: getattr(self, name) for name in names}
        quantiles = self.density.float().quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        return {
            **body, "loss_recovered": None if math.isnan(self.loss_recovered) else self.loss_recovered,
            "ce_difference": self.difference.value,
            "ce_difference_interval": [finite(self.difference.low), finite(self.difference.high)],
            "density_quantiles": dict(zip(("10%", "50%", "90%"), quantiles, strict=True)),
        }  # fmt: skip


@torch.no_grad()
def measure_sae(saved: SavedSae, model: Decoder, texts: Sequence[Sequence[int]]) -> SaeMeasures:
    """Runs each text three times: as it is, with the reconstruction, with zeros. First tokens keep their activation.

    ConfigError for another model's autoencoder; DataError for fewer than two texts, or texts of one token.
    """
    saved.expect_fits(model)
    if len(texts) < MIN_TEXTS or min(map(len, texts), default=0) < 2:
        raise DataError(
            f"{len(texts)} texts, the shortest of {min(map(len, texts), default=0)} tokens, came: expected {MIN_TEXTS} "
            "or more of 2 tokens or more"
        )
    sae, site = saved.sae, saved.site
    fired_M = torch.zeros(sae.d_sae, dtype=torch.long)
    plain, replaced, zeroed = [], [], []
    squares = norms = rebuilt = power = 0.0
    total_D = torch.zeros(sae.d_in, dtype=torch.double)
    count = 0
    for text in texts:

        def reconstruct(values: Tensor) -> Tensor:
            rows_ND = sae(values.flatten(1)).to(values.dtype)
            return torch.cat([values[:1], rows_ND[1:].reshape(values[1:].shape)])

        logits_NV, cache = run_with_cache(model, text, site)
        x_ND = cache[site].flatten(1)[1:].float()
        z_NM = sae.encode(x_ND)
        out_ND = sae.decode(z_NM)
        fired_M += (z_NM > 0).sum(0)
        squares += float((x_ND - out_ND).square().sum())
        power, total_D = power + float(x_ND.double().square().sum()), total_D + x_ND.double().sum(0)
        norms, rebuilt = norms + float(x_ND.norm(dim=1).sum()), rebuilt + float(out_ND.norm(dim=1).sum())
        count += len(x_ND)
        plain.append(cross_entropy(logits_NV, text))
        replaced.append(cross_entropy(run_with_cache(model, text, (), edits={site: reconstruct}).logits, text))
        zeroed.append(cross_entropy(run_with_cache(model, text, (), edits={site: _zeros}).logits, text))
    variance = power - float(total_D.square().sum()) / count
    gaps = [one - other for one, other in zip(replaced, plain, strict=True)]
    return SaeMeasures(
        tokens=count, cross_entropy=_mean(plain), with_sae=_mean(replaced), with_zeros=_mean(zeroed),
        difference=unbounded_mean_interval(gaps), fvu=squares / max(variance, 1e-30), l0=float(fired_M.sum()) / count,
        dead=float((fired_M == 0).float().mean()), shrinkage=rebuilt / max(norms, 1e-30), density=fired_M / count,
    )  # fmt: skip


def cross_entropy(logits_NV: Tensor, text: Sequence[int]) -> float:
    """Nats a token, over all tokens but the first."""
    return float(functional.cross_entropy(logits_NV[:-1], torch.tensor(list(text)[1:])))


def _zeros(values: Tensor) -> Tensor:
    return torch.cat([values[:1], torch.zeros_like(values[1:])])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
