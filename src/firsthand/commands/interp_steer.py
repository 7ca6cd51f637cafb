"""Make a steering vector from two sets of texts; print its effect and its cost beside those of a random vector as long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.interp.steering import SteeringRow

EXAMPLES = """
firsthand interp steer smollm2 --towards calm.txt --away angry.txt --prompts prompts.txt --answer " good" --other " bad" --unrelated notes.txt --out calm.safetensors
firsthand chat smollm2+steer:calm.safetensors@0.5 "How was the meeting?"
"""  # noqa: E501


@dataclass(frozen=True)
class Config:
    """The model, the texts, and the choice that is measured."""

    model: str = field(metadata={"positional": True})
    """The model: a known name, a .gguf file, or a Hugging Face folder."""
    towards: Path
    """A file with a text on each line to steer towards."""
    away: Path
    """A file with a text on each line to steer away from."""
    prompts: Path
    """A file with a prompt on each line, after which the choice is measured."""
    answer: str
    """The word that the vector should raise, with its space; its first token counts."""
    other: str
    """The word that it is compared with."""
    unrelated: Path
    """A file with a text on each line whose cross-entropy says what the vector costs."""
    layer: int = 8
    """The residual stream after this layer, counted from 0."""
    site: str = ""
    """Another site in place of the layer's."""
    strengths: tuple[str, ...] = ("0.5", "1", "2")
    """Multiples of the vector."""
    seed: int = 0
    """Seed of the random vector."""
    out: Path | None = None
    """The file to write the vector to; `MODEL+steer:FILE@STRENGTH` adds it wherever a model is named."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for file in (self.towards, self.away, self.prompts, self.unrelated):
            if not file.is_file():
                raise ConfigError(f"no file {str(file)!r}: give one with a text on each line")
        check_out(self.out)
        if self.layer < 0 or not self.strengths:
            raise ConfigError(
                f"layer is {self.layer} and strengths are {self.strengths}: give 0 or more, and one or more"
            )


def run(config: Config) -> int:
    """Make the vector, measure, and print."""
    if config.site:
        refuse_given(config, {"layer"}, "--site stands in its place: leave out one of the two")
    from firsthand.interp.activations import expect_vectors, site_of
    from firsthand.interp.circuits.patching import logit_difference
    from firsthand.interp.opened_model import choice_of, open_for_interp
    from firsthand.interp.steering import choice_effect, save_vector, steering_study, steering_vector

    for file in (config.towards, config.away, config.prompts, config.unrelated):
        if not read_bounded_text(file).strip():
            raise ConfigError(f"{file} holds no texts: give one or more lines")
    named = config.site or f"blocks.{config.layer}.resid.post"
    site = site_of(named)
    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, sites=(named,))
    expect_vectors(model, site)

    def read(file: Path) -> list[list[int]]:
        return [tokenizer.encode_prompt(line) for line in read_bounded_text(file).splitlines() if line.strip()]

    answer, other = choice_of(tokenizer, config.answer, config.other)
    vector_D = steering_vector(model, site, read(config.towards), read(config.away))
    if config.out is not None:
        save_vector(vector_D, site, config.out)
    prompts, unrelated = read(config.prompts), [text for text in read(config.unrelated) if len(text) > 1]
    if not prompts or not unrelated:
        raise ConfigError(f"{config.prompts} and {config.unrelated} hold no texts: give one or more lines in each")
    metric = logit_difference(answer, other)
    found = steering_study(
        model, site, vector_D, [choice_effect(model, prompt, metric) for prompt in prompts], unrelated,
        strengths=multiples(config.strengths), seed=config.seed,
    )  # fmt: skip
    title = f"steering at {site}: logit({config.answer!r}) - logit({config.other!r}), 95% CI"
    print_study(found, title, config.model, config.out, as_json=config.json)
    return 0


def multiples(strengths: Sequence[str]) -> list[float]:
    """The strengths as numbers. ConfigError for one that is none."""
    try:
        return [float(each) for each in strengths]
    except ValueError:
        raise ConfigError(f"strengths are {','.join(strengths)}: give numbers, as in 0.5,1,2") from None


def check_out(out: Path | None) -> None:
    """ConfigError if a vector's file cannot be there."""
    if out is not None and not out.resolve().parent.is_dir():
        raise ConfigError(f"no folder {str(out.parent)!r} for the vector's file: make it first")


def print_study(found: Sequence[SteeringRow], title: str, model: str, out: Path | None, *, as_json: bool) -> None:
    """Print effect and cost at each strength beside a random vector's, and the use of the file."""
    names = ("effect", "random_effect", "cost", "random_cost")
    if as_json:
        print_as_json([
            {"strength": each.strength, **{name: getattr(each, name).to_json() for name in names}} for each in found
        ])  # fmt: skip
        return
    rows = []
    for each in found:
        cells = [getattr(each, name) for name in names]
        rows.append([f"{each.strength:g}", *(f"{c.value:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in cells)])
    print_table(
        title, ["strength", "effect", "a random vector's", "cost, nats a token", "a random vector's cost"], rows
    )
    told = "An effect counts where it is outside of the random vector's; the cost is that on unrelated texts."
    if out is not None:
        told += f"\nWritten to {out}: {model}+steer:{out}@0.5 adds half of it at every token."
    console().print(told, markup=False, soft_wrap=True)
