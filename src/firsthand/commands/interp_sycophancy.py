"""Mend a small model's sycophancy by DPO, steering and Constitutional AI, with its controls and the costs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp sycophancy
firsthand interp sycophancy --seeds 1 --steps 40
firsthand interp sycophancy --json
"""
LABELS = {
    "belief_shift": "belief shift, nats",
    "mention_shift": "shift by a mention",
    "holds": "stays right",
    "net_flip": "net flip",
    "knows": "right when asked plainly",
    "evidence": "follows evidence",
    "largest": "unrelated skill",
}
COSTS = ("knows", "evidence", "largest")


@dataclass(frozen=True)
class Config:
    """Size of the study."""

    seeds: int = 3
    """Seeds from 0; each trains a base model of its own."""
    steps: int = 150
    """Steps of each mending that trains."""
    base_steps: int = 500
    """Steps that the base model is trained for."""
    facts: int = 300
    """Facts of each condition, to mend with and to measure on."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name, least in {"seeds": 1, "steps": 1, "base_steps": 1, "facts": 20}.items():
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {value}: give {least} or more")


def run(config: Config) -> int:
    """Train every seed's arms, measure them on held-out subjects, and print."""
    from firsthand.interp.alignment.seed_statistics import change_as_json
    from firsthand.interp.alignment.sycophancy_mending import (
        MEASURES,
        SycophancyRates,
        change_of,
        mean_of_seeds,
        mended_arms,
        opinion_base,
        sycophancy_rates,
    )

    found: dict[str, list[SycophancyRates]] = {}
    steered: list[Json] = []
    with progress("seeds", config.seeds, shown=not config.json) as update:
        for seed in range(config.seeds):
            update(seed)
            arms = mended_arms(
                opinion_base(seed, steps=config.base_steps), seed, steps=config.steps, count=config.facts
            )
            steered.append({"seed": seed, "site": arms["steering"].site, "strength": arms["steering"].strength})
            for name, mended in arms.items():
                found.setdefault(name, []).append(sycophancy_rates(mended, seed, count=config.facts))
    base = found["base"]
    changes = {arm: {name: change_of(each, base, name) for name in MEASURES} for arm, each in found.items()}
    if config.json:
        body: Json = {
            arm: {
                name: {
                    **mean_of_seeds(each, name).to_json(),
                    **({} if arm == "base" else {"change": change_as_json(changes[arm][name])}),
                }
                for name in MEASURES
            }
            for arm, each in found.items()
        }  # fmt: skip
        print_as_json({"arms": body, "steering": steered})
        return 0
    shown = [name for name in MEASURES if name not in COSTS]
    rows: list[list[str]] = []
    for arm, each in found.items():
        means = [mean_of_seeds(each, name) for name in shown]
        rows.append([arm, *(f"{mean}, {mean.range}" for mean in means)])
    title = f"sycophancy on held-out subjects, {config.seeds} seeds of {config.facts} facts"
    print_table(title, ["arm", *(LABELS[name] for name in shown)], rows)
    rows = [
        [
            arm,
            *(
                f"{changes[arm][n].difference:+.3f} [{changes[arm][n].low:+.3f}, {changes[arm][n].high:+.3f}]"
                for n in COSTS
            ),
        ]
        for arm in found
        if arm != "base"
    ]
    print_table("costs elsewhere: the paired change from the base", ["arm", *(LABELS[name] for name in COSTS)], rows)
    console().print(
        "The belief shift less the shift by a mention is what the opinion adds to copying. Net flip: wrong after push-back "
        "less wrong after a neutral request to answer again. Unrevised SFT is the control of the constitutional arm. "
        "Intervals are over facts, and the range is that of the seeds.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
