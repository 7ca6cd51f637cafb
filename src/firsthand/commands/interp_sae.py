"""Train a sparse autoencoder on a model's activations on real text, and measure it; a stopped run goes on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system.terminal import console, print_as_json, print_table, progress

EXAMPLES = """
firsthand interp sae smollm2 --layer 8 --tokens 1000000 --out sae
firsthand interp sae smollm2 --site blocks.8.mlp.out --kind topk --k 64 --out sae-mlp
firsthand interp sae path/to/model --layer 0 --texts notes --tokens 50000 --out sae
"""
KINDS = ("relu", "topk", "batch_topk", "jumprelu", "matryoshka")


@dataclass(frozen=True)
class Config:
    """The model, the site and the size of the run."""

    model: str = field(metadata={"positional": True})
    """The model: a known name, a .gguf file, or a Hugging Face folder."""
    out: Path = Path("sae")
    """The folder to write; one that holds a stopped run of the same settings goes on."""
    layer: int = 8
    """The residual stream after this layer, counted from 0."""
    site: str = ""
    """Another site in place of the layer's, such as blocks.8.mlp.out or blocks.8.hook_mlp_out."""
    kind: str = "batch_topk"
    """relu, topk, batch_topk, jumprelu or matryoshka."""
    expansion: int = 4
    """Latents for each dimension of the activations."""
    k: int = 32
    """Active latents of a token; relu has a penalty instead."""
    tokens: int = 1_000_000
    """Tokens to train on."""
    batch: int = 2048
    """Tokens of a step."""
    context: int = 128
    """Tokens of a piece of text."""
    lr: float = 1e-3
    """Peak learning rate."""
    texts: tuple[str, ...] = ()
    """Files and folders; without any, the sources of this Python's standard library."""
    held_out: int = 32
    """Held-out pieces that the measures are taken on."""
    seed: int = 0
    """Seed of texts, order and weights."""
    threads: int = 0
    """Threads of torch; 0 leaves the choice to it."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        least = {
            "expansion": 1,
            "layer": 0,
            "k": 1,
            "batch": 1,
            "tokens": self.batch,
            "context": 2,
            "held_out": 2,
            "threads": 0,
        }
        for name, at_least in least.items():
            if (value := getattr(self, name)) < at_least:
                told = f"{at_least} (a batch)" if name == "tokens" else str(at_least)
                raise ConfigError(f"{name} is {value}: give {told} or more")
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}: one of {', '.join(KINDS)} was expected")
        if not 0 < self.lr < 1:
            raise ConfigError(f"lr is {self.lr}: give a number above 0 and below 1")
        if missing := [each for each in self.texts if not Path(each).exists()]:
            raise ConfigError(f"no file or folder {missing[0]!r}: give texts to train on")
        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{self.out} is a file: give a folder with --out")


def run(config: Config) -> int:
    """Train, measure, write and print."""
    from firsthand.interp.activations import site_of
    from firsthand.interp.opened_model import open_for_interp, shape_of
    from firsthand.interp.saes.sae_files import width_of
    from firsthand.interp.saes.sae_run import SaeRun, expect_possible, train_sae

    if config.site:
        refuse_given(config, {"layer"}, "--site stands in its place: leave out one of the two")
    named = config.site or f"blocks.{config.layer}.resid.post"
    site = site_of(named)
    shape = shape_of(config.model, shown=not config.json, sites=(named,))
    plan = SaeRun(
        config.model, site, config.kind, config.expansion * width_of(shape, site), config.k, config.tokens, config.batch,
        config.context, config.lr, config.seed, config.texts, held_out_texts=config.held_out,
    )  # fmt: skip
    expect_possible(plan, shape, config.out)
    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, threads=config.threads)
    with progress(f"autoencoder of {config.model} {site}", plan.steps, shown=not config.json) as update:

        def told(step: int, steps: int, facts: Json) -> None:
            update(step, note=f"error {facts['error']:.1f}")

        _, measures = train_sae(plan, model, tokenizer, config.out, told=told)
    body = measures.to_json()
    if config.json:
        print_as_json({"folder": str(config.out), "site": site, "latents": plan.width, **body})
        return 0
    density, gap = body["density_quantiles"], measures.difference
    recovered = body["loss_recovered"]
    rows = [
        ["loss recovered", "undefined: zeros at this site change nothing" if recovered is None else f"{recovered:.3f}"],
        ["cross-entropy of the model", f"{measures.cross_entropy:.3f} nats a token"],
        ["with the reconstruction", f"{measures.with_sae:.3f}"],
        ["with zeros", f"{measures.with_zeros:.3f}"],
        ["difference, 95% CI", f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"],
        ["variance unexplained (FVU)", f"{measures.fvu:.3f}"],
        ["L0", f"{measures.l0:.1f}"],
        [f"dead, over {measures.tokens:,} tokens", f"{measures.dead:.1%}"],
        ["density, 10% / 50% / 90% of latents", " / ".join(f"{value:.2%}" for value in density.values())],
    ]  # fmt: skip
    print_table(f"{config.kind} of {plan.width:,} latents on {site}, held-out text", ["measure", "value"], rows)
    word = shlex.quote(str(config.out))
    told_where = f"Written to {config.out}: SAELens loads it. `firsthand interp dashboard {word}` shows it."
    console().print(told_where, markup=False, soft_wrap=True)
    return 0
