"""Concepts of single neurons and of a sparse autoencoder's features."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote=(
        "Identifies individual neurons in a transformer that activate for specific, interpretable concepts. Sparse "
        "autoencoders used to decompose superposition."
    ),
    source="Bricken et al. 2023, Towards Monosemanticity",
    kind="ours",
    cost_s=3,
)
STEPS = 300


def measure(lab: Lab) -> Measurement:
    """Forty-eight concepts in twenty-four dimensions, whose truth is known."""
    import torch

    from firsthand.interp.saes.toy_superposition import Superposition, dictionary_recovery, toy_study

    study = toy_study(
        "batch_topk", seed=lab.seed, num_features=48, dimensions=24, width=96, l0=2.0, steps=STEPS, batch=256, k=2
    )
    truth = Superposition(48, 24, l0=2.0, seed=lab.seed)
    return _measured(dictionary_recovery(torch.eye(24), truth.features).mmcs, study.null.mmcs, study.found.mmcs)


def _measured(neurons: float, directions: float, features: float) -> Measurement:
    """The mean largest cosine with the true concepts of each dictionary."""
    rows = (
        ("single neurons", neurons),
        ("random directions", directions),
        ("autoencoder's features", features),
    )
    return Measurement(
        features - neurons,
        "mean largest cosine with the true concepts, features less neurons",
        columns=("dictionary", "mean largest cosine"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Neurons that match as well as features would bear the sentence out."""
    if m.value > 0.15:
        return ruling(
            "holds in part",
            f"the autoencoder finds the concepts and single neurons do not ({m.value:+.2f}): the paper identifies "
            "features, not neurons",
        )
    if m.value > -0.05:
        return ruling("does not hold here", f"the features are no closer to the concepts than neurons ({m.value:+.2f})")
    return ruling("holds here", "single neurons stand for concepts")
