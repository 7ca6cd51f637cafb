"""Write a sparse autoencoder's features as one HTML page: contexts, logits, rules, ablation, steering, and a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json

EXAMPLES = """
firsthand interp dashboard sae
firsthand interp dashboard sae --features 200 --pieces 128 --out features.html
firsthand interp dashboard downloaded-sae --model path/to/model --texts notes
"""


@dataclass(frozen=True)
class Config:
    """The autoencoder and the size of the page."""

    folder: Path = field(metadata={"positional": True})
    """The folder of `firsthand interp sae`, or one that SAELens wrote."""
    out: Path | None = None
    """The HTML file; by default features.html in the folder."""
    model: str = ""
    """The model, if the folder names none that is here."""
    texts: tuple[str, ...] = ()
    """Files and folders of text; by default those of the run, or this Python's standard library."""
    features: int = 60
    """Features on the page, evenly spaced by density."""
    pieces: int = 64
    """Held-out pieces of text they are shown on."""
    ablate: int = 4
    """Contexts of each feature that it is ablated on; 0 leaves the effect out."""
    steer: int = 6
    """Features that a slider steers by, evenly spaced among those on the page; 0 leaves it out."""
    prompt: str = "I went to the"
    """The text that is continued while a feature is added."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name, at_least in {"features": 1, "pieces": 2, "ablate": 0, "steer": 0}.items():
            if (value := getattr(self, name)) < at_least:
                raise ConfigError(f"{name} is {value}: give {at_least} or more")
        if self.steer and not self.prompt.strip():
            raise ConfigError("the prompt to steer is empty: give a few words, or --steer 0")


def run(config: Config) -> int:
    """Read, gather and write."""
    from dataclasses import replace

    from firsthand.interp.feature_reports import feature_reports
    from firsthand.interp.opened_model import open_for_interp
    from firsthand.interp.saes.sae_files import read_sae
    from firsthand.interp.saes.sae_run import SETTINGS, SaeRun, corpora, held_out_pieces, stored_run
    from firsthand.interp.steered_texts import steered_texts
    from firsthand.show.feature_page import feature_page

    saved = read_sae(config.folder)
    if not (config.model or saved.model):
        raise ConfigError(f"{config.folder} does not say which model it is for: name it with --model")
    model, tokenizer, path = open_for_interp(config.model or saved.model, shown=not config.json)
    saved.expect_fits(model)
    has_run = (config.folder / SETTINGS).is_file()
    plan = stored_run(config.folder) if has_run else SaeRun(str(path), saved.site)
    plan = replace(plan, texts=config.texts or plan.texts, held_out_texts=config.pieces, tokens=plan.batch)
    texts = held_out_pieces(plan, corpora(plan, tokenizer)[1])
    reports = feature_reports(saved, model, tokenizer, texts, count=config.features, ablate=config.ablate)
    chosen = reports[:: max(1, len(reports) // config.steer)][: config.steer] if config.steer else []
    maxima = [(each.index, each.maximum) for each in chosen]
    steered = steered_texts(saved, model, tokenizer, maxima, config.prompt) if maxima else []
    measures = saved.facts.get("measures")
    rows = [
        (name.replace("_", " "), f"{value:.3f}")
        for name, value in (measures.items() if isinstance(measures, dict) else ())
        if isinstance(value, float)
    ]
    title = f"{Path(saved.model or config.model).stem}: {saved.site}, {saved.sae.kind} of {saved.sae.d_sae:,} latents"
    page = feature_page(
        title, reports, latents=saved.sae.d_sae, tokens=sum(map(len, texts)), measures=rows, prompt=config.prompt,
        steered={each.index: written for each, written in zip(chosen, steered, strict=True)},
    )  # fmt: skip
    out = config.out or config.folder / "features.html"
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(out)!r} does not exist: make it, or name another file")
    out.write_text(page, encoding="utf-8")
    if config.json:
        print_as_json({"path": str(out), "features": [each.index for each in reports], "bytes": out.stat().st_size})
    else:
        console().print(f"{len(reports)} features in {out}", markup=False, soft_wrap=True)
    return 0
