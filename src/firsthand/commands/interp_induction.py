"""Find induction heads in a two-layer attention-only model that is trained here, or in a model of your own.

Of the model trained here the circuit is also tested by causal scrubbing. Each score stands beside its null.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.stats.intervals import Interval
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand interp induction
firsthand interp induction smollm2 --texts 8
firsthand interp induction --steps 800 --seed 1 --json
"""


@dataclass(frozen=True)
class Config:
    """The model and the texts."""

    model: str = field(default="", metadata={"positional": True})
    """A model; without one, a small model is trained first."""
    steps: int = 600
    """Without a model: training steps."""
    texts: int = 16
    """Repeated texts of random tokens."""
    half: int = 20
    """Tokens that are repeated."""
    seed: int = 0
    """Seed of weights and texts."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name, at_least in {"texts": 2, "half": 4, "steps": 1}.items():
            if (value := getattr(self, name)) < at_least:
                raise ConfigError(f"{name} is {value}: give {at_least} or more")


def run(config: Config) -> int:
    """Train or load, score every head, scrub where the circuit is known, and print."""
    if config.model:
        refuse_given(config, {"steps"}, "they train a small model: leave them out where a model is named")
    from firsthand.interp.circuits.causal_scrubbing import scrub_induction
    from firsthand.interp.circuits.induction_heads import head_scores, repeated_texts, repetition_gain
    from firsthand.interp.circuits.induction_model import BEGIN, VOCABULARY, trained_induction_model

    begin: int | None = BEGIN
    if config.model:
        from firsthand.interp.opened_model import open_for_interp

        model, tokenizer, _ = open_for_interp(config.model, shown=not config.json)
        begin, size = tokenizer.bos_id, model.architecture.vocab_size
        vocabulary = range(size // 20, size // 2)  # special tokens and single bytes come first in most vocabularies
    else:
        model, vocabulary = trained_induction_model(steps=config.steps, seed=config.seed), range(VOCABULARY)
    settings = {"texts": config.texts, "half": config.half, "begin": begin, "seed": config.seed}
    scores = head_scores(model, vocabulary, **settings)  # type: ignore[arg-type]
    texts = repeated_texts(vocabulary, **settings)  # type: ignore[arg-type]
    gain = repetition_gain(model, texts, config.half)
    found = [each for each in scores if each.is_induction]
    second = [each.head for each in found if each.layer == 1]
    scrubbed = None
    if not config.model and second:
        scrubbed = scrub_induction(model, texts, second, half=config.half, vocabulary=VOCABULARY, seed=config.seed)
    if config.json:
        body: Json = {
            "loss": {"first": gain.first.to_json(), "second": gain.second.to_json()},
            "heads": [
                {"layer": each.layer, "head": each.head, "is_induction": each.is_induction,
                 "induction": each.induction.to_json(), "null": each.null.to_json(), "previous": each.previous.to_json()}
                for each in scores
            ],
        }  # fmt: skip
        if scrubbed is not None:
            names = ("model", "hypothesis", "wrong_key", "ablated")
            body["scrubbed"] = {name: getattr(scrubbed, name).to_json() for name in names}
            body["scrubbed"]["kept"] = scrubbed.kept(scrubbed.hypothesis)
            body["scrubbed"]["kept_wrong_key"] = scrubbed.kept(scrubbed.wrong_key)
        print_as_json(body)
        return 0
    shown = found or sorted(scores, key=lambda each: -each.induction.value)[:4]
    ahead = sorted(scores, key=lambda each: -each.previous.value)[:3]
    rows = [
        [f"{each.layer}.{each.head}", *map(_text, (each.induction, each.null, each.previous)),
         "yes" if each.is_induction else "no"]
        for each in dict.fromkeys([*shown, *ahead])
    ]  # fmt: skip
    header = ["head", "to the token after, 95% CI", "null", "to the token before", "induction"]
    print_table(f"{len(found)} induction heads of {len(scores)}", header, rows)
    lines = [f"Loss of the first half {_text(gain.first)} nats a token, of the second {_text(gain.second)}."]
    if scrubbed is not None:
        lines.append(
            f"Causal scrubbing: loss {_text(scrubbed.model)}; with all but the circuit resampled "
            f"{_text(scrubbed.hypothesis)}, {scrubbed.kept(scrubbed.hypothesis):.0%} of the gain kept; with the wrong "
            f"key {_text(scrubbed.wrong_key)}, {scrubbed.kept(scrubbed.wrong_key):.0%}; with all heads resampled "
            f"{_text(scrubbed.ablated)}."
        )
    console().print("\n".join(lines), markup=False, soft_wrap=True)
    return 0


def _text(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
