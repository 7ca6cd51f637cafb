"""A resumable run: text -> activations of a model -> a trained autoencoder with its measures, in one folder."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from firsthand.errors import ConfigError, DataError, ModelFileError, reason_of
from firsthand.formats.model_files import read_json
from firsthand.interp.activations import hook_of, sites_matching
from firsthand.interp.saes.activation_stream import ActivationStream, expect_one, pieces_of
from firsthand.interp.saes.sae_evaluation import SaeMeasures, measure_sae
from firsthand.interp.saes.sae_files import CONFIG, SavedSae, save_sae, width_of
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.message import Json, canonical
from firsthand.nn.decoder import Decoder
from firsthand.system.home_seal import is_ours, seal_of
from firsthand.system.new_file import write_new
from firsthand.system.whole_question import shown_whole
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.train.data_order import digest
from firsthand.train.documents import (
    Corpus,
    SourceText,
    encode_documents,
    read_documents,
    split_documents,
    stream_documents,
)

SETTINGS = "run.json"
_SEAL = "seal"
EXCLUDED = ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__")
"""Folders whose texts are left out."""

_TYPES: dict[str, Any] = {
    **dict.fromkeys(("model", "site", "kind"), str), "lr": int | float, "settings": dict,
    **dict.fromkeys(("width", "k", "tokens", "batch", "context", "seed", "held_out_texts"), int),
    **dict.fromkeys(("texts", "suffixes"), tuple),
}  # fmt: skip


@dataclass(frozen=True)
class SaeRun:
    """The settings that decide a run; a folder holds one, and goes on only with equal settings."""

    model: str
    site: str
    kind: str = "batch_topk"
    width: int = 2304
    k: int = 32
    tokens: int = 1_000_000
    batch: int = 2048
    context: int = 128
    lr: float = 1e-3
    seed: int = 0
    texts: tuple[str, ...] = ()
    """Files and folders of text; none are the sources of this Python's standard library, without its tests."""
    suffixes: tuple[str, ...] = (".py", ".rst", ".txt", ".md")
    held_out_texts: int = 32
    """Held-out pieces that the measures are taken on."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further settings of the kind."""

    def __post_init__(self) -> None:
        if self.tokens < self.batch or self.batch < 1 or self.held_out_texts < 2:
            raise ConfigError(
                f"tokens are {self.tokens}, batch {self.batch} and held-out texts {self.held_out_texts}: expected one "
                "batch or more, 1 or more, and 2 or more"
            )

    @property
    def steps(self) -> int:
        """Batches."""
        return self.tokens // self.batch


def expect_possible(run: SaeRun, model: Decoder, folder: Path) -> None:
    """ConfigError, before any work, for what cannot be trained on a model, or for a folder of other settings.

    The model may lack values (`nn.weights.skeleton`). DataError for texts that are not there. Nothing is written.
    """
    expect_one(sites_matching(model, run.site), run.site)
    longest = model.architecture.max_position
    if not 2 <= run.context <= longest:
        raise ConfigError(f"context is {run.context}: the model takes 2 to {longest} tokens")
    if run.kind != "relu" and run.k > run.width:
        raise ConfigError(f"k is {run.k}: of {run.width} latents at most {run.width} can be active, so give fewer")
    SaeSettings(steps=run.steps, lr=run.lr)
    if run.texts:
        paths = [Path(each) for each in run.texts]
        if next(stream_documents(paths, suffixes=run.suffixes, exclude=EXCLUDED), None) is None:
            known = ", ".join(run.suffixes)
            raise DataError(f"there is no text in {', '.join(run.texts)}: give files, or a folder of files in {known}")
    _expect_own(run, folder)


def corpora(run: SaeRun, tokenizer: Tokenizer) -> tuple[Corpus, Corpus]:
    """Encoded texts to train on, as many as the run takes, and held-out ones: whole documents, split by the seed."""
    paths = [Path(each) for each in run.texts] or [Path(sysconfig.get_paths()["stdlib"])]
    documents = read_documents(paths, suffixes=run.suffixes, exclude=EXCLUDED)
    training, held_out = split_documents(documents, 0.1, seed=run.seed)
    return _encoded(training, tokenizer, run, run.tokens * 5 // 4), _encoded(
        held_out, tokenizer, run, 4 * run.held_out_texts * run.context
    )


def held_out_pieces(run: SaeRun, corpus: Corpus) -> list[list[int]]:
    """Pieces of the held-out texts, drawn by the seed; DataError if there are not two."""
    starts = pieces_of(corpus, run.context)
    Random(run.seed).shuffle(starts)
    if len(starts) < 2:
        raise DataError(f"the held-out texts have {len(starts)} pieces of {run.context} tokens: give more text")
    return [corpus.ids[at : at + run.context].tolist() for at in starts[: run.held_out_texts]]


def train_sae(
    run: SaeRun, model: Decoder, tokenizer: Tokenizer, folder: Path, *, save_every: int = 25,
    told: Callable[[int, int, Json], None] = lambda step, steps, facts: None,
) -> tuple[SavedSae, SaeMeasures]:  # fmt: skip
    """Trains, or goes on where the folder's last save was, measures on held-out text, and writes SAELens's two files.

    A run that was stopped gives the same weights as one that was not. ConfigError for a folder of other settings, or whose
    model or texts have changed since.
    """
    expect_possible(run, model, folder)
    (site,) = sites_matching(model, run.site)
    folder.mkdir(parents=True, exist_ok=True)
    write_run(run, folder)
    training, held_out = corpora(run, tokenizer)
    texts = held_out_pieces(run, held_out)
    made_from = {"model": _digest_of(model), "texts": digest([training.ids, held_out.ids])}
    chunk = max(64, -(-run.batch // (run.context - 1)))
    stream = ActivationStream(model, training, site, batch=run.batch, context=run.context, chunk=chunk, seed=run.seed)
    if (folder / "training.safetensors").is_file():
        trainer = SaeTrainer.load(folder)
        there = (trainer.sae.kind, trainer.sae.d_in, trainer.sae.d_sae, trainer.settings.steps)
        if there != (wanted := (run.kind, width_of(model, site), run.width, run.steps)):
            raise ConfigError(
                f"the training state in {folder} has kind, inputs, latents and steps {there}, and those of the run are "
                f"{wanted}: remove training.safetensors to begin again"
            )
        _expect_same_source(trainer.made_from, made_from, folder)
    else:
        more = dict(run.settings) if run.kind == "relu" else {"k": run.k, **run.settings}
        sae = sae_of(run.kind, width_of(model, site), run.width, seed=run.seed, **more)
        trainer = SaeTrainer(sae, SaeSettings(steps=run.steps, lr=run.lr))
        trainer.made_from = made_from
    stream.position = trainer.step_number
    batches = iter(stream)
    while trainer.step_number < run.steps:
        found = trainer.step(next(batches))
        facts: Json = {"error": float(found.error), "l0": found.l0, "tokens": trainer.tokens}
        told(trainer.step_number, run.steps, facts)
        if trainer.step_number % save_every == 0 or trainer.step_number == run.steps:
            trainer.save(folder)
    sae = trainer.finished()
    saved = SavedSae(
        sae, run.model, site, {"training_tokens": trainer.tokens, "context": run.context, "seed": run.seed}
    )
    hook = hook_of(site, model.architecture)
    measures = measure_sae(saved, model, texts)
    saved = SavedSae(sae, run.model, site, {**saved.facts, "measures": measures.to_json()}, hook)
    save_sae(saved, folder)
    return saved, measures


def _expect_same_source(stored: Mapping[str, str], given: Mapping[str, str], folder: Path) -> None:
    """ConfigError if a training state was made from another model or other texts of the same names, or does not say."""
    told = "give another folder, or remove its training.safetensors to begin again"
    if not stored:
        raise ConfigError(f"{folder} was begun by a version that did not record its model and texts: {told}")
    changed = [name for name in given if stored.get(name) != given[name]]
    if changed:
        raise ConfigError(f"the {' and the '.join(changed)} of {folder} changed since its run began: {told}")


def write_run(run: SaeRun, folder: Path) -> None:
    """Writes the settings of a folder's run, with the seal of this data home."""
    body = asdict(run)
    write_new(folder / SETTINGS, json.dumps({**body, _SEAL: seal_of(canonical(body), "autoencoder")}, indent=1))


def run_to_show(folder: Path) -> SaeRun:
    """The settings of a folder's run; ConfigError if it is from elsewhere and names texts, which would be shown."""
    run, is_own = _stored(folder)
    if run.texts and not is_own:
        raise ConfigError(
            f"{folder} was made elsewhere and names the texts {shown_whole(', '.join(map(repr, run.texts)))}, which may be "
            "private and would be shown with its features: give --texts, or look at them and add --trust (for the Studio "
            "--sae FOLDER:texts=TEXTS or FOLDER:trust=true)"
        )
    return run


def stored_run(folder: Path) -> SaeRun:
    """The settings of a folder's run; ConfigError if it holds none."""
    return _stored(folder)[0]


def _stored(folder: Path) -> tuple[SaeRun, bool]:
    """The settings of a folder's run, and whether they carry the seal of this data home."""
    try:
        body: dict[str, Any] = read_json(folder / SETTINGS)
        seal = body.pop(_SEAL, None)
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in body.items()}
        for name, kind in _TYPES.items():
            if name in given and (not isinstance(given[name], kind) or isinstance(given[name], bool)):
                raise TypeError(f"its {name} is {str(given[name])[:40]!r}")
        if strange := [
            each for name in ("texts", "suffixes") for each in given.get(name, ()) if not isinstance(each, str)
        ]:
            raise TypeError(f"its texts or suffixes hold {str(strange[0])[:40]!r}")
        return SaeRun(**given), is_ours(canonical(body), seal, "autoencoder")
    except (ModelFileError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{folder} holds no run of `firsthand interp sae` ({reason_of(error)}): name its folder"
        ) from error


def _expect_own(run: SaeRun, folder: Path) -> None:
    """ConfigError if a folder holds a run of other settings, or an autoencoder from elsewhere."""
    if (folder / SETTINGS).is_file():
        there, wanted = asdict(stored_run(folder)), asdict(run)
        changed = next((name for name in wanted if there[name] != wanted[name]), None)
        if changed:
            raise ConfigError(
                f"{folder} holds a run with {changed} {there[changed]!r}, and {wanted[changed]!r} came: give another "
                "folder, or the same settings"
            )
    elif (folder / CONFIG).exists():
        raise ConfigError(f"{folder} holds an autoencoder already: give another folder")


def _digest_of(model: Decoder) -> str:
    """A hash of a model's architecture and weights."""
    found = hashlib.sha256(repr(model.architecture).encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _encoded(documents: Sequence[SourceText], tokenizer: Tokenizer, run: SaeRun, at_least: int) -> Corpus:
    """Documents in the seed's order, encoded until there are enough tokens."""
    order = list(documents)
    Random(run.seed).shuffle(order)
    chosen, size = [], 0
    for document in order:
        if size >= at_least:
            break
        chosen.append(document)
        size += len(document.text) // 4
    return encode_documents(chosen, tokenizer)
