"""Train sparse autoencoders on activations whose features are known, and count which are found.

Toy superposition: 128 features in 64 dimensions, 4 active at a time; a random dictionary of the same size beside each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand interp toy
firsthand interp toy --kinds relu,topk,batch_topk,jumprelu,matryoshka --seeds 1
firsthand interp toy --features 32 --dimensions 20 --l0 2 --width 64 --steps 600 --seeds 1
"""


@dataclass(frozen=True)
class Config:
    """Sizes, kinds and seeds."""

    kinds: tuple[str, ...] = ("batch_topk",)
    """Kinds: relu, topk, batch_topk, jumprelu, matryoshka."""
    seeds: int = 3
    """Seeds from 0; each has features, weights and samples of its own."""
    steps: int = 3000
    """Batches of 512 samples."""
    features: int = 128
    """True features."""
    dimensions: int = 64
    """Dimensions they lie in."""
    width: int = 256
    """Latents."""
    l0: float = 4.0
    """Features active at a time, mean; the kinds that fix L0 are given it, rounded."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name in ("seeds", "steps"):
            if (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} is {value}: give 1 or more")
        if not self.kinds:
            raise ConfigError("kinds is empty: name one or more, such as batch_topk")


def run(config: Config) -> int:
    """Train and print a row for each kind and seed; the exit code is 1 if a BatchTopK or Matryoshka one misses its goals."""
    from firsthand.interp.saes.toy_superposition import toy_study

    rows, body, missed = [], [], False
    for kind in config.kinds:
        settings: dict[str, Any] = {"l1": 0.3} if kind == "relu" else {"k": max(1, round(config.l0))}
        for seed in range(config.seeds):
            study = toy_study(
                kind, seed=seed, steps=config.steps, num_features=config.features, dimensions=config.dimensions,
                width=config.width, l0=config.l0, **settings,
            )  # fmt: skip
            found, null = study.found, study.null
            missed |= kind in ("batch_topk", "matryoshka") and not study.passes
            body.append({"kind": kind, "seed": seed, "passes": study.passes, **asdict(found), "null": asdict(null)})
            rows.append([
                kind, str(seed), f"{found.mmcs:.3f}", f"{null.mmcs:.3f}", f"{found.above:.3f}", f"{null.above:.3f}",
                f"{found.uniqueness:.3f}", f"{found.f1:.3f}", f"{found.l0:.2f}", f"{found.fvu:.3f}", f"{found.dead:.2f}",
                "yes" if study.passes else "no",
            ])  # fmt: skip
    if config.json:
        print_as_json(body)
        return int(missed)
    header = ["kind", "seed", "MMCS", "null", "above .9", "null", "unique", "F1", "L0", "FVU", "dead", "passes"]
    print_table(f"{config.features} features in {config.dimensions} dimensions, {config.width} latents", header, rows)
    console().print(
        "A dictionary passes with MMCS above .95, 95% of features above .9, uniqueness above .95 and F1 above .85; null is "
        "a random dictionary. Dead latents are expected where there are more latents than features.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return int(missed)
