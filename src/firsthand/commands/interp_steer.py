"""Make a steering vector from two sets of texts; print its effect and its cost beside those of a random vector as long."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand interp steer smollm2 --towards calm.txt --away angry.txt --prompts prompts.txt --answer " good" --other " bad" --unrelated notes.txt
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
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for file in (self.towards, self.away, self.prompts, self.unrelated):
            if not file.is_file():
                raise ConfigError(f"no file {str(file)!r}: give one with a text on each line")
        if self.layer < 0 or not self.strengths:
            raise ConfigError(
                f"layer is {self.layer} and strengths are {self.strengths}: give 0 or more, and one or more"
            )

    def multiples(self) -> list[float]:
        """The strengths as numbers. ConfigError for one that is none."""
        try:
            return [float(each) for each in self.strengths]
        except ValueError:
            raise ConfigError(f"strengths are {','.join(self.strengths)}: give numbers, as in 0.5,1,2") from None


def run(config: Config) -> int:
    """Make the vector, measure, and print."""
    from firsthand.interp.activations import site_of
    from firsthand.interp.circuits.patching import logit_difference
    from firsthand.interp.opened_model import open_for_interp
    from firsthand.interp.steering import steering_study, steering_vector

    for file in (config.towards, config.away, config.prompts, config.unrelated):
        if not file.read_text(encoding="utf-8").strip():
            raise ConfigError(f"{file} holds no texts: give one or more lines")
    site = site_of(config.site or f"blocks.{config.layer}.resid.post")
    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, sites=(site,))

    def read(file: Path) -> list[list[int]]:
        return [tokenizer.encode(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]

    vector_D = steering_vector(model, site, read(config.towards), read(config.away))
    prompts, unrelated = read(config.prompts), [text for text in read(config.unrelated) if len(text) > 1]
    if not prompts or not unrelated:
        raise ConfigError(f"{config.prompts} and {config.unrelated} hold no texts: give one or more lines in each")
    metric = logit_difference(tokenizer.encode(config.answer)[0], tokenizer.encode(config.other)[0])
    found = steering_study(
        model, site, vector_D, prompts, metric, unrelated, strengths=config.multiples(), seed=config.seed
    )
    names = ("effect", "random_effect", "cost", "random_cost")
    if config.json:
        print_as_json([
            {"strength": each.strength, **{name: getattr(each, name).to_json() for name in names}} for each in found
        ])  # fmt: skip
        return 0
    rows = []
    for each in found:
        cells = [getattr(each, name) for name in names]
        rows.append([f"{each.strength:g}", *(f"{c.value:+.3f} [{c.low:+.3f}, {c.high:+.3f}]" for c in cells)])
    header = ["strength", "effect", "random vector", "cost, nats a token", "random vector"]
    print_table(f"steering at {site}: logit({config.answer!r}) - logit({config.other!r}), 95% CI", header, rows)
    console().print(
        "An effect counts where it is outside of the random vector's; the cost is that on unrelated texts.",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
