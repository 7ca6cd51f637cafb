"""Write a sparse autoencoder's features as one HTML page, and as features.json beside it, which the Studio shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.new_file import write_new
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
    trust: bool = False
    """Read the texts that a run from elsewhere names: they are shown on the page."""
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
    from firsthand.interp.feature_files import write_features
    from firsthand.interp.opened_sae import OpenedSae
    from firsthand.show.feature_page import feature_page, measure_rows

    opened = OpenedSae(
        config.folder, config.model, texts=config.texts, pieces=config.pieces, shown=not config.json, trust=config.trust
    )
    saved = opened.saved
    found = opened.dashboard(count=config.features, ablate=config.ablate, steer=config.steer, prompt=config.prompt)
    title = f"{Path(saved.model or config.model).stem}: {saved.site}, {saved.sae.kind} of {saved.sae.d_sae:,} latents"
    page = feature_page(
        title, found.reports, latents=found.latents, tokens=found.tokens, measures=measure_rows(saved.facts),
        prompt=found.prompt, steered=found.steered,
    )  # fmt: skip
    out = config.out or config.folder / "features.html"
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(out)!r} does not exist: make it, or name another file")
    write_new(out, page)
    write_features(found, out.parent)
    if config.json:
        print_as_json(
            {"path": str(out), "features": [each.index for each in found.reports], "bytes": out.stat().st_size}
        )
    else:
        console().print(f"{len(found.reports)} features in {out}", markup=False, soft_wrap=True)
    return 0
