"""Fit a linear probe to two sets of texts, with its controls, and write it as a monitor for `MODEL+monitor:FILE`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand interp probe smollm2 --positive angry.txt --negative calm.txt --layer 8
firsthand interp probe smollm2 --positive angry.txt --negative calm.txt --out angry.safetensors --false-alarms 0.02
firsthand run office --model smollm2+monitor:angry.safetensors --guard monitor
"""


@dataclass(frozen=True)
class Config:
    """The model, the texts and the site."""

    model: str = field(metadata={"positional": True})
    """The model: a known name, a .gguf file, or a Hugging Face folder."""
    positive: Path
    """A file with a text on each line that the probe shall find; equal lines are used once."""
    negative: Path
    """A file with a text on each line that it shall pass; equal lines are used once."""
    layer: int = 8
    """The residual stream after this layer, counted from 0."""
    site: str = ""
    """Another site in place of the layer's, such as blocks.8.mlp.out or blocks.8.hook_mlp_out."""
    false_alarms: float = 0.05
    """The share of held-out negative texts that may be alarms: it sets the threshold."""
    out: Path | None = None
    """The monitor's file to write; none writes nothing."""
    held_out: float = 0.3
    """Share of the texts that the probe is measured on and not trained with."""
    seed: int = 0
    """Decides the split and the controls."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name in ("held_out", "false_alarms"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} is {value}: give a share between 0 and 1")
        if self.layer < 0:
            raise ConfigError(f"layer is {self.layer}: give 0 or more")
        for file in (self.positive, self.negative):
            if not file.is_file():
                raise ConfigError(f"no file {str(file)!r}: give one with a text on each line")
        if self.out is not None and not self.out.absolute().parent.is_dir():
            raise ConfigError(f"the folder of {str(self.out)!r} does not exist: make it, or name another file")


def run(config: Config) -> int:
    """Fit, measure, write and print."""
    if config.site:
        refuse_given(config, {"layer"}, "--site stands in its place: leave out one of the two")
    from firsthand.interp.activations import site_of
    from firsthand.interp.monitor_fitting import expect_texts, fit_monitor
    from firsthand.interp.opened_model import open_for_interp

    lines = {
        name: [line for line in read_bounded_text(file).splitlines() if line.strip()]
        for name, file in (("positive", config.positive), ("negative", config.negative))
    }
    texts = {name: list(dict.fromkeys(found)) for name, found in lines.items()}
    repeated = sum(map(len, lines.values())) - sum(map(len, texts.values()))
    expect_texts(texts["positive"], texts["negative"])
    named = config.site or f"blocks.{config.layer}.resid.post"
    site = site_of(named)
    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, sites=(named,))
    ids = {name: [tokenizer.encode_prompt(text) for text in found] for name, found in texts.items()}
    fitted = fit_monitor(
        model, ids["positive"], ids["negative"], site, name=config.positive.stem, false_alarms=config.false_alarms,
        held_out=config.held_out, seed=config.seed,
    )  # fmt: skip
    if config.out is not None:
        fitted.write(config.out)
    study = fitted.study
    if config.json:
        print_as_json({
            "site": site, "accuracy": study.accuracy.to_json(), "control": study.control.to_json(),
            "shuffled": study.shuffled.to_json(), "majority": study.majority, "selectivity": study.selectivity,
            "auroc": vars(fitted.separation), "threshold": fitted.monitor.threshold, "caught": fitted.caught.to_json(),
            "false_alarms": fitted.false_alarms.to_json(), "equal_lines_left_out": repeated,
            "file": None if config.out is None else str(config.out),
        })  # fmt: skip
        return 0
    rows = [
        ["accuracy", f"{study.accuracy.value:.3f} [{study.accuracy.low:.3f}, {study.accuracy.high:.3f}]"],
        ["control: a random label for each token before the last",
         f"{study.control.value:.3f}" if study.control.n else "none: all texts end alike"],
        ["control: labels in random order", f"{study.shuffled.value:.3f}"],
        ["the more frequent class", f"{study.majority:.3f}"],
        ["AUROC of each text's mean score", str(fitted.separation)],
        ["threshold", f"{fitted.monitor.threshold:.2f}"],
        ["caught, held-out texts", f"{fitted.caught.value:.3f} [{fitted.caught.low:.3f}, {fitted.caught.high:.3f}]"],
        ["false alarms, held-out texts", 
         f"{fitted.false_alarms.value:.3f} [{fitted.false_alarms.low:.3f}, {fitted.false_alarms.high:.3f}]"],
    ]  # fmt: skip
    if repeated:
        rows.append(["lines left out, equal to an earlier one", f"{repeated:,}"])
    print_table(f"probe of {site}, 95% CI", ["measure", "value"], rows)
    if config.out is not None:
        console().print(
            f"Written to {config.out}: {config.model}+monitor:{config.out} scores each answer's tokens with it.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return 0
