"""Lists folders of sparse autoencoders, and opens one with its model when it is first asked for; imports without torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError, FirsthandError, ModelFileError, UnknownName, unknown
from firsthand.formats.model_files import read_json
from firsthand.hub import model_lookup
from firsthand.interp.feature_files import (
    FEATURES,
    FeatureDashboard,
    FeatureReport,
    read_features,
    write_features,
)
from firsthand.message import Json
from firsthand.system.option_spec import parse_spec

if TYPE_CHECKING:
    from firsthand.interp.opened_sae import OpenedSae, TextReading

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


@dataclass(frozen=True)
class ShelvedSae:
    """An autoencoder's folder, as far as it is known without its weights."""

    name: str
    folder: Path
    model: str = ""
    site: str = ""
    kind: str = ""
    latents: int = 0
    width: int = 0
    facts: Json = field(default_factory=dict)
    problem: str = ""
    """The reason it cannot be opened; empty if none is seen."""
    is_gathered: bool = False
    is_outdated: bool = False
    """The weights are newer than the features."""


class SaeShelf:
    """The autoencoders in `folders`, each `FOLDER` with options, and in the folders right below them.

    Options are `model=MODEL`, `texts=TEXTS` (shown with the features), and `trust=true` (the texts that a run from elsewhere
    names are).

    A model that the folder names is opened if it is on disk; nothing is downloaded. One is open at a time.
    """

    def __init__(self, folders: Sequence[str]):
        self._places: list[tuple[Path, str]] = []
        self._texts: dict[Path, tuple[tuple[str, ...], bool]] = {}
        """Place -> texts that were given for it, and whether it is trusted."""
        for text in folders:
            spec = parse_spec(text)
            if wrong := set(spec.options) - {"model", "texts", "trust"}:
                raise ConfigError(
                    f"{text!r} has the option {min(wrong)!r}: write FOLDER, FOLDER:model=MODEL, FOLDER:texts=TEXTS or "
                    "FOLDER:trust=true"
                )
            if (trust := spec.options.get("trust", "false")) not in ("true", "false"):
                raise ConfigError(f"{text!r} has the trust {trust!r}: write true or false")
            place = _expanded(spec.name)
            self._places.append((place, spec.options.get("model", "")))
            texts = spec.options.get("texts", "")
            self._texts.setdefault(place.resolve(), ((texts,) if texts else (), trust == "true"))
        self._opened: tuple[str, OpenedSae] | None = None
        self._extra: dict[tuple[str, int], FeatureReport] = {}
        self._working: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}
        """Autoencoder -> the reason for which its features could not be gathered."""

    def all(self) -> list[ShelvedSae]:
        """The autoencoders that are there now, by name."""
        found: dict[Path, str] = {}
        for place, model in self._places:
            inner = sorted(each for each in place.iterdir() if _is_sae(each)) if place.is_dir() else []
            for folder in [place] if _is_sae(place) or not inner else inner:
                found.setdefault(folder.resolve(), model)
        names: dict[str, tuple[Path, str]] = {}
        for folder, model in found.items():
            twice = sum(other.name == folder.name for other in found) > 1
            name = wanted = f"{folder.parent.name}-{folder.name}" if twice else folder.name
            number = 2
            while name in names:
                name, number = f"{wanted}-{number}", number + 1
            names[name] = folder, model
        return [_shelved(name, *names[name]) for name in sorted(names)]

    def get(self, name: str) -> ShelvedSae:
        """The autoencoder of this name; UnknownName if there is none."""
        known = {each.name: each for each in self.all()}
        if name not in known:
            raise unknown("autoencoder", name[:200], known, see="the list of autoencoders")
        return known[name]

    def dashboard(self, name: str) -> FeatureDashboard | None:
        """The features that were gathered; None if none were."""
        return read_features(self.get(name).folder)

    def is_gathering(self, name: str) -> bool:
        """True while features are being gathered."""
        return name in self._working and self._working[name].is_alive()

    def gather(self, name: str) -> None:
        """Start gathering features in a thread; `problems` says if it failed. ConfigError if it is under way."""
        self._ready(name)
        if self.is_gathering(name):
            raise ConfigError(f"the features of {name} are being gathered: wait until they are there")
        self.problems.pop(name, None)
        self._working[name] = threading.Thread(target=self._gather, args=(name,), daemon=True)
        self._working[name].start()

    def report(self, name: str, index: int) -> FeatureReport:
        """One feature, gathered before or now."""
        dashboard = self.dashboard(name)
        kept = next((each for each in dashboard.reports if each.index == index), None) if dashboard else None
        if kept is not None:
            return kept
        with self._lock:
            if (name, index) not in self._extra:
                self._extra[name, index] = self._open(name).report(index)
            return self._extra[name, index]

    def read_text(self, name: str, text: str, at: int | None = None) -> TextReading:
        """The features that fire on a text, or on one token of it."""
        with self._lock:
            return self._open(name).read_text(text, at)

    def _gather(self, name: str) -> None:
        try:
            with self._lock:
                opened = self._open(name)
                write_features(opened.dashboard(), opened.folder)
        except FirsthandError as error:
            self.problems[name] = str(error)
        except Exception as error:  # shown on the page; the thread has nobody else to tell
            self.problems[name] = f"the features could not be gathered: {type(error).__name__}: {error}"

    def _ready(self, name: str) -> ShelvedSae:
        """The autoencoder if it can be opened; ConfigError or ModelFileError with the reason if not."""
        each = self.get(name)
        if each.problem:
            raise ModelFileError(each.problem)
        return each

    def _open(self, name: str) -> OpenedSae:
        each = self._ready(name)
        if self._opened is None or self._opened[0] != name:
            from firsthand.interp.opened_sae import OpenedSae

            self._opened = None
            self._extra.clear()
            own, above = self._texts.get(each.folder), self._texts.get(each.folder.parent)
            texts, trust = own or above or ((), False)
            self._opened = name, OpenedSae(each.folder, each.model, texts=texts, shown=False, trust=trust)
        return self._opened[1]


def _is_sae(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file()


def _shelved(name: str, folder: Path, model: str) -> ShelvedSae:
    """The facts of a folder, read from its `cfg.json`."""
    if not folder.is_dir():
        return ShelvedSae(name, folder, problem=f"there is no folder {str(folder)!r}")
    try:
        config = read_json(folder / CONFIG)
    except ModelFileError as error:
        return ShelvedSae(name, folder, problem=str(error))
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    own = metadata.get("firsthand")
    own = own if isinstance(own, dict) else {}
    model = model or str(metadata.get("model_name") or config.get("model_name") or "")[:300]
    site = str(own.get("site") or metadata.get("hook_name") or config.get("hook_name") or "")[:300]
    kind = str(own.get("kind") or config.get("architecture") or "")[:100]
    latents, width = (value if isinstance(value, int) else 0 for value in (config.get("d_sae"), config.get("d_in")))
    features, weights = folder / FEATURES, folder / WEIGHTS
    problem = ""
    if not weights.is_file():
        problem = f"{weights} is missing: copy it there, or train the autoencoder again"
    else:
        model, problem = _model_here(model, folder)
    is_gathered = features.is_file()
    is_outdated = is_gathered and weights.is_file() and weights.stat().st_mtime > features.stat().st_mtime
    return ShelvedSae(name, folder, model, site, kind, latents, width, own, problem, is_gathered, is_outdated)


def _model_here(model: str, folder: Path) -> tuple[str, str]:
    """The model's name or path, relative ones also beside the folder, and a problem if it is not on disk."""
    if not model:
        return "", f"{folder} does not say which model it is for: give --sae {folder}:model=MODEL"
    told = f"the model {model!r} of {folder} is not here: pull it, or give --sae {folder}:model=MODEL"
    try:
        if model in model_lookup.KNOWN or model.startswith("hf:"):
            return model, "" if model_lookup.is_here(model) else told
        for path in (_expanded(model), folder.parent / model):
            if path.exists():
                return str(path), ""
    except (OSError, ValueError, UnknownName, ConfigError):
        pass
    return model, told


def _expanded(text: str) -> Path:
    """The path with `~` as a home; as it is where nobody has the name after the `~`."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
