"""Best size and tokens for a compute, by Kaplan's law and by a fit to Chinchilla's runs."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="The Chinchilla paper corrects original Kaplan scaling laws.",
    source="Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022, arXiv:2203.15556",
    kind="arithmetic",
    cost_s=1,
)
PF_DAY = 8.64e19
"""FLOPs of a petaflop/s-day; Kaplan's best size is 1.3e9 parameters times these to the power 0.73 (table 6)."""
REFITTED = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)
"""E, A, B, alpha, beta: Chinchilla's runs fitted again by Besiroglu et al. 2024, arXiv:2404.10102."""


def measure(lab: Lab) -> Measurement:
    """The two laws' optima in closed form."""
    from firsthand.train.scaling.laws import Chinchilla

    law = Chinchilla(*REFITTED)
    rows: list[tuple[str, float, float]] = []
    for flops in (1e18, 1e20, 1e22, 5.8e23):
        parameters = 1.3e9 * (flops / PF_DAY) ** 0.73
        best = law.optimum(flops)
        rows.append((f"{flops:.1e}", flops / (6 * parameters**2), best.tokens / best.parameters))
    return Measurement(
        rows[-1][2] / rows[-1][1],
        "tokens per parameter at the compute of Gopher (5.8e23 FLOPs), Chinchilla's over Kaplan's",
        columns=("FLOPs", "Kaplan: tokens per parameter", "Chinchilla: tokens per parameter"),
        rows=tuple(rows),
        curves={
            "Kaplan": [(float(row[0]), row[1]) for row in rows],
            "Chinchilla": [(float(row[0]), row[2]) for row in rows],
        },
        axes=("training FLOPs", "tokens per parameter"),
    )


def judge(m: Measurement) -> Verdict:
    """A correction means another advice: several times the tokens per parameter."""
    if m.value >= 3:
        return ruling(
            "holds here",
            f"by the figures of Kaplan et al. (table 6) and Besiroglu et al. 2024, Chinchilla's law asks for "
            f"{m.value:.0f} times as many tokens per parameter as Kaplan's",
        )
    if m.value > 1.5:
        return ruling(
            "holds in part", f"by the figures of both papers, {m.value:.1f} times as many tokens per parameter"
        )
    return ruling("does not hold here", f"by the figures of both papers, the laws differ by a factor of {m.value:.1f}")
