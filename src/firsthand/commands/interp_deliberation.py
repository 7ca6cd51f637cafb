"""Train deliberative alignment into a small model, against SFT on answers alone: jailbreaks and over-refusal together."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp deliberation
firsthand interp deliberation --seeds 1 --quick
firsthand interp deliberation --json
"""


@dataclass(frozen=True)
class Config:
    """Size of the study."""

    seeds: int = 3
    """Seeds from 0; each trains a base model of its own."""
    quick: bool = False
    """Fewer steps and requests: half a minute for a seed, and worse models."""
    prompts: int = 300
    """Fresh requests of each kind that rates are measured on."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name, least in {"seeds": 1, "prompts": 20}.items():
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {value}: give {least} or more")


def run(config: Config) -> int:
    """Train every seed's arms, measure them on held-out and paraphrased requests, and print."""
    from firsthand.commands.alignment_tables import rates_as_json, rates_table
    from firsthand.interp.alignment.deliberative_training import DeliberativeSettings, deliberative_arms
    from firsthand.interp.alignment.request_language import Split
    from firsthand.interp.alignment.request_rates import RequestRates, request_base, request_rates

    size = {"requests": 250, "sft_steps": 60, "rl_steps": 5} if config.quick else {}
    found: dict[Split, dict[str, list[RequestRates]]] = {"held out": {}, "paraphrased": {}}
    facts = []
    with progress("arms", 7 * config.seeds, shown=not config.json) as update:
        told: list[str] = []

        def tell(name: str) -> None:
            update(len(told), note=name)
            told.append(name)

        for seed in range(config.seeds):
            tell(f"base of seed {seed}")
            base = request_base(seed, steps=250 if config.quick else 700)
            arms = deliberative_arms(base, seed, DeliberativeSettings(**size), told=tell)
            facts.append({
                "seed": seed, "kept": arms.kept, "right_before": arms.right_before, "right_kept": arms.right_kept
            })  # fmt: skip
            for split, rows in found.items():
                for name, model in arms.models().items():
                    rows.setdefault(name, []).append(request_rates(model, seed, split=split, count=config.prompts))
    first = "answers alone, SFT"
    if config.json:
        print_as_json({"arms": rates_as_json(found, first), "judge": facts})
        return 0
    for split, rows in found.items():
        title = f"{split} requests, {config.seeds} seeds of {config.prompts} each; changes from SFT on answers alone"
        print_table(title, *rates_table(rows, first))
    table = [
        [str(each["seed"]), *(f"{each[name]:.3f}" for name in ("kept", "right_before", "right_kept"))] for each in facts
    ]
    print_table("judge", ["seed", "kept", "answers right before", "right among kept"], table)
    console().print(
        "Paraphrases are verbs that only plain requests ever showed to the base model, none of the steps. A test of the "
        "mechanism: reasoning under the policy was taught by examples, a third of them wrong. Intervals are over requests; "
        "the range is that of the seeds.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
