"""Train Constitutional AI into a small model: critiques, revisions, AI preferences; misuse and over-refusal."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.stats.intervals import finite
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp constitution
firsthand interp constitution --seeds 1 --quick
firsthand interp constitution --principles scope+oversight     # the null: principles that do not apply
"""


@dataclass(frozen=True)
class Config:
    """Principles and size of the study."""

    principles: str = "harm+privacy+help"
    """Ids of principles of the constitution, or beginnings of ids, joined by +."""
    null: str = "scope+oversight"
    """Principles that do not apply to any request, for a second run beside it; none leaves it out."""
    rounds: int = 4
    """Critiques of an answer, each by a principle of its own."""
    seeds: int = 3
    """Seeds from 0; each trains a base model of its own."""
    quick: bool = False
    """Fewer steps and requests: half a minute for a seed, and worse models."""
    prompts: int = 300
    """Fresh requests of each kind that rates are measured on."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name, least in {"seeds": 1, "rounds": 1, "prompts": 20}.items():
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {value}: give {least} or more")


def run(config: Config) -> int:
    """Train every seed's arms, measure them on held-out requests, and print."""
    from firsthand.commands.alignment_tables import rates_as_json, rates_table, shown_rates
    from firsthand.interp.alignment.constitutional_training import ConstitutionalSettings, constitutional_arms
    from firsthand.interp.alignment.request_rates import RequestRates, request_base, request_rates
    from firsthand.patterns.parts.constitution import load_constitution, select_principles

    constitution = load_constitution()
    sets = {
        name: tuple(each.id for each in select_principles(constitution, chosen))
        for name, chosen in (("principles", config.principles), ("null", config.null))
        if chosen != "none"
    }
    size = {"requests": 200, "sft_steps": 60, "reward_steps": 40, "dpo_steps": 40} if config.quick else {}
    found: dict[str, dict[str, list[RequestRates]]] = {"held out": {}, "paraphrased": {}}
    facts: list[Json] = []
    with progress("arms", 4 * config.seeds * len(sets), shown=not config.json) as update:
        told: list[str] = []

        def tell(name: str) -> None:
            update(len(told), note=name)
            told.append(name)

        for seed in range(config.seeds):
            tell(f"base of seed {seed}")
            base = request_base(seed, steps=250 if config.quick else 700)
            models = {"base": base}
            for name, chosen in sets.items():
                settings = ConstitutionalSettings(principles=chosen, rounds=config.rounds, **size)
                arms = constitutional_arms(base, seed, settings, told=tell)
                mark = "" if name == "principles" else ", null principles"
                models |= {f"revisions, SFT{mark}": arms.revised, f"AI preferences, DPO{mark}": arms.preferred}
                facts.append({
                    "seed": seed, "principles": list(chosen), "changed": dict(arms.changed), "pairs": arms.pairs,
                    "label_accuracy": arms.label_accuracy, "reward_accuracy": arms.reward_accuracy,
                })  # fmt: skip
            for split, rows in found.items():
                for name, model in models.items():
                    rows.setdefault(name, []).append(
                        request_rates(model, seed, split=split, count=config.prompts)  # type: ignore[arg-type]
                    )
    if config.json:
        shares = ("label_accuracy", "reward_accuracy")
        body = [{**each, **{name: finite(each[name]) for name in shares}} for each in facts]
        print_as_json({"arms": rates_as_json(found, "base"), "training": body})
        return 0
    for split, rows in found.items():
        title = f"{split} requests, {config.seeds} seeds of {config.prompts} each"
        print_table(title, *rates_table(rows, "base"))
    table = [
        [str(each["seed"]), "+".join(dict.fromkeys(p.split(".")[0] for p in each["principles"])),
         ", ".join(f"{p} {n}" for p, n in each["changed"].items()) or "nothing", str(each["pairs"]),
         shown_rates(each["label_accuracy"]), shown_rates(each["reward_accuracy"])]
        for each in facts
    ]  # fmt: skip
    header = ["seed", "principles", "answers changed by each", "pairs", "labels right", "preference model right"]
    print_table("critiques and preferences", header, table)
    console().print(
        "A test of the mechanism: the base model was taught to criticise by examples, and helps with everything otherwise. "
        "Intervals are over requests, and the range is that of the seeds; the last number is the change from the base.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
