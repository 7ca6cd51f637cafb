"""Make a steering vector from pairs of answers, and print its effect on held-out pairs and its cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from firsthand.commands.interp_steer import check_out, multiples, print_study
from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system.ordinary_file import read_bounded_text

EXAMPLES = """
firsthand data RUN --as pairs --out pairs.jsonl
firsthand interp contrast smollm2 pairs.jsonl --unrelated notes.txt --out honest.safetensors
firsthand run sycophancy --model smollm2,smollm2+steer:honest.safetensors@0.5
"""


@dataclass(frozen=True)
class Config:
    """The model, the pairs, and where the vector is added."""

    model: str = field(metadata={"positional": True})
    """The model: a known name, a .gguf file, or a Hugging Face folder."""
    pairs: Path = field(metadata={"positional": True})
    """JSONL with `prompt`, `chosen` and `rejected`, as `firsthand data --as pairs` writes it; equal pairs are used once."""
    unrelated: Path
    """A file with a text on each line whose cross-entropy says what the vector costs."""
    layer: int = 8
    """The residual stream after this layer, counted from 0."""
    site: str = ""
    """Another site in place of the layer's."""
    holdout: float = 0.3
    """The share of pairs that the vector is not made from, on which its effect is measured."""
    strengths: tuple[str, ...] = ("0.5", "1", "2")
    """Multiples of the vector."""
    seed: int = 0
    """Seed of the held-out pairs and of the random vector."""
    out: Path | None = None
    """The file to write the vector to; `MODEL+steer:FILE@STRENGTH` adds it wherever a model is named."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for file in (self.pairs, self.unrelated):
            if not file.is_file():
                raise ConfigError(f"no file {str(file)!r}: give one that can be read")
        check_out(self.out)
        if self.layer < 0 or not self.strengths or not 0 < self.holdout < 1:
            raise ConfigError(
                f"layer is {self.layer}, strengths are {','.join(self.strengths)} and holdout is {self.holdout}: give a "
                "layer from 0, one strength or more, and a holdout between 0 and 1"
            )


def run(config: Config) -> int:
    """Make the vector, measure, and print."""
    if config.site:
        refuse_given(config, {"layer"}, "--site stands in its place: leave out one of the two")
    from firsthand.interp.activations import expect_vectors, site_of
    from firsthand.interp.answer_pairs import distinct, read_pairs
    from firsthand.interp.opened_model import open_for_interp
    from firsthand.interp.steering import contrast_vector, margin_effect, save_vector, steering_study

    strengths = multiples(config.strengths)
    named = config.site or f"blocks.{config.layer}.resid.post"
    site = site_of(named)
    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, sites=(named,))
    expect_vectors(model, site)
    pairs = distinct(read_pairs(config.pairs, tokenizer, model.architecture.max_position))
    lines = [tokenizer.encode_prompt(line) for line in read_bounded_text(config.unrelated).splitlines() if line.strip()]
    unrelated = [text for text in lines if len(text) > 1]
    if not unrelated or len(pairs) < 4:
        raise ConfigError(
            f"{config.pairs} has {len(pairs)} pairs and {config.unrelated} {len(unrelated)} texts of two tokens or more: "
            "give four pairs and one text or more"
        )
    Random(config.seed).shuffle(pairs)
    held = min(max(2, round(config.holdout * len(pairs))), len(pairs) - 2)
    vector_D = contrast_vector(model, site, pairs[held:])
    if config.out is not None:
        save_vector(vector_D, site, config.out)
    effects = [margin_effect(model, pair) for pair in pairs[:held]]
    found = steering_study(model, site, vector_D, effects, unrelated, strengths=strengths, seed=config.seed)
    title = f"steering at {site}: log p(chosen) - log p(rejected) of {held} held-out pairs, 95% CI"
    print_study(found, title, config.model, config.out, as_json=config.json)
    return 0
