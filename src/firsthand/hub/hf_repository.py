"""Downloads a repository of the Hugging Face hub as a folder: all files of one commit, or no folder at all.

Downloaded are safetensors, JSON, tokenizer.model, templates, licences, and a GGUF file if requested (or if there are no
other weights), from the repository's top folder. Never a pickle, never code. Only https is used.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from firsthand.errors import ConfigError, DownloadError, ModelFileError
from firsthand.formats.embedder_modules import MODULES, read_modules
from firsthand.formats.model_files import PICKLES, read_json
from firsthand.hub.download import OnProgress, delete, disk_errors, download, get_json_bytes, move_into_place
from firsthand.message import Json
from firsthand.system.terminal import printable

logger = logging.getLogger("firsthand")
MARKER = "firsthand.json"
"""Written last into a complete folder: its name, its commit, the size of each file, which ones no hash vouches for, and
settings of its pooling that the hub does not have."""
MAX_FILES = 2000
"""Most files of a repository; the largest models have some 200."""
_GIT_DIGITS = (40, 64)
"""Digits of git's hashes: SHA-1, or SHA-256 in repositories of that format."""
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"hf:({_WORD}/{_WORD})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,63}}))?(?::({_WORD}\.gguf))?")
_MODULE_CONFIG = re.compile(r"[0-9]{1,2}_[A-Za-z]{1,40}/config\.json")
"""The settings of an embedder's module, such as `1_Pooling/config.json`; modules.json names its folder."""
_LICENCE = re.compile(r"LICENSE[A-Za-z0-9_-]*(?:\.[0-9]+)*(?i:\.txt|\.md|\.rst)?")
"""Texts alone, such as `LICENSE-APACHE-2.0` or `LICENSE.txt`: a licence is downloaded beside any model."""


@dataclass(frozen=True)
class Repo:
    """`hf:org/name[@revision][:file.gguf]`."""

    id: str
    revision: str = "main"
    file: str | None = None

    @property
    def name(self) -> str:
        """The name as text."""
        revision = f"@{self.revision}" if self.revision != "main" else ""
        return f"hf:{self.id}{revision}" + (f":{self.file}" if self.file else "")

    def folder(self, models: Path) -> Path:
        """Returns the repository's folder below the folder of all models."""
        return models / "hf" / (f"{self.id}@{quote(self.revision, safe='')}" + (f"+{self.file}" if self.file else ""))


@dataclass(frozen=True)
class HubFile:
    """A file that the hub lists; None is what it does not state."""

    name: str
    size_bytes: int | None
    sha256: str | None
    git_hash: str | None
    odd_hash: str | None = None
    """The stated hash, on one line, if it is no hash that can be read."""


def parse_repo(name: str) -> Repo:
    """Returns the parts of `hf:org/name[@revision][:file.gguf]`; ConfigError if it is invalid."""
    match = _NAME.fullmatch(name)
    if not match or ".." in name or len(name) > 200:
        raise ConfigError(
            f"{name[:200]!r} is not a repository: expected hf:ORG/NAME, optionally with @REVISION and :FILE.gguf"
        )
    return Repo(match[1], match[2] or "main", match[3])


def read_marker(folder: Path) -> Json | None:
    """Returns the folder's marker if all files are complete; else None."""
    try:
        marker = read_json(folder / MARKER)
        whole = all((folder / name).stat().st_size == size for name, size in marker["files"].items())
    except (ModelFileError, OSError, KeyError, AttributeError, TypeError, ValueError):
        return None
    if not whole or not isinstance(marker.get("name"), str):
        return None
    absent = marker.get("absent")
    known = absent if isinstance(absent, list) else []
    return marker if all(each in known for each in _missing_pooling(folder)) else None


def _missing_pooling(folder: Path) -> list[str]:
    """Return the settings of an embedder's pooling that its folder lacks: they were not downloaded before 0.30.0."""
    try:
        paths = [path for kind, path in read_modules(folder) if kind == "Pooling"]
    except ModelFileError:  # the embedder says so
        return []
    wanted = [f"{path}/config.json" for path in paths]
    return [each for each in wanted if _MODULE_CONFIG.fullmatch(each) and not (folder / each).is_file()]


def model_in(folder: Path) -> Path:
    """Returns the folder, or the GGUF file that its name asks for (`Repo.folder`), or that holds the only weights."""
    asked = folder.name.partition("+")[2]  # a revision's own plus is quoted
    if asked:
        return folder / asked
    ggufs = sorted(folder.glob("*.gguf"))
    return ggufs[0] if ggufs and not any(folder.glob("*.safetensors")) else folder


def fetch_repo(repo: Repo, folder: Path, *, on_progress: OnProgress = lambda done, total: None) -> Path:
    """Download the repository's files of one commit into `folder` and return it. The caller holds a lock on it.

    The log names those that no hash vouches for.
    """
    commit, listed = listing(repo)
    chosen = choose_files(repo, listed)
    if len(chosen) > MAX_FILES:
        raise DownloadError(f"hf:{repo.id} lists {len(chosen)} files to download: at most {MAX_FILES} are taken")
    for each in chosen:
        if each.odd_hash is not None:
            raise DownloadError(
                f"{endpoint()} states {each.odd_hash} as the hash of {each.name}, which is no SHA-256 or git hash, so the "
                "file could not be checked: set HF_ENDPOINT to another mirror"
            )
    staging = folder.with_name(f".{folder.name}.{commit[:12]}.part")  # a killed pull resumes there
    with disk_errors(folder):
        if staging.is_symlink() or staging.is_file():
            staging.unlink()
    total = sum(each.size_bytes or 0 for each in chosen) or None
    done = 0
    for each in chosen:
        file = download(
            file_url(repo.id, commit, each.name),
            staging / each.name,
            sha256=each.sha256,
            git_hash=each.git_hash,
            size_bytes=each.size_bytes,
            headers=headers(),
            on_progress=_after(done, total, on_progress),
        )
        done += file.stat().st_size
    sizes = {each.name: (staging / each.name).stat().st_size for each in chosen}
    with disk_errors(folder):
        marker = staging / (MARKER + ".part")
        stated: Json = {"name": repo.name, "commit": commit, "files": sizes}
        if unverified := [each.name for each in chosen if each.sha256 is None and each.git_hash is None]:
            stated["unverified"] = unverified
        if absent := _missing_pooling(staging):  # else the folder would be pulled again at each opening
            stated["absent"] = absent
        marker.write_text(json.dumps(stated, indent=2))
        move_into_place(marker, staging / MARKER)
        if folder.exists() or folder.is_symlink():  # incomplete, or we would not be here
            delete(folder)
        move_into_place(staging, folder)
        discard_partial(folder)
    if absent:
        logger.warning(
            "%s names %s in its %s, and the hub has no such file: it cannot be opened as an embedder",
            repo.name, ", ".join(absent[:5]), MODULES,
        )  # fmt: skip
    if unverified:
        few = ", ".join(unverified[:5]) + (f" and {len(unverified) - 5} more" if len(unverified) > 5 else "")
        logger.warning(
            "the hub states no hash of %s, so damage would go unseen: pull from another mirror if you can", few
        )
    return folder


def discard_partial(folder: Path) -> bool:
    """Delete partial downloads of the folder; returns whether there were any."""
    left = partial_folders(folder)
    for each in left:
        delete(each)
    return bool(left)


def partial_folders(folder: Path) -> list[Path]:
    """The parts that unfinished downloads of the folder left, each of its commit."""
    mine = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{12}}\.part")
    return [each for each in folder.parent.glob(".*.part") if mine.fullmatch(each.name)]


def listing(repo: Repo) -> tuple[str, list[HubFile]]:
    """Returns the revision's commit, the files of its top folder, and the settings of an embedder's modules."""
    url = f"{endpoint()}/api/models/{repo.id}/revision/{quote(repo.revision, safe='')}?blobs=true"
    try:
        body = json.loads(get_json_bytes(url, headers=headers()))
        commit = _hex(body["sha"], *_GIT_DIGITS)
        files = [_listed(each) for each in body["siblings"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DownloadError(f"{url} gave no list of files: the hub's JSON was expected; check HF_ENDPOINT") from None
    if commit is None:
        raise DownloadError(f"{url} does not say which commit it lists: the hub's JSON was expected; check HF_ENDPOINT")
    plain = [each for each in files if re.fullmatch(_WORD, each.name) and each.name != MARKER]
    plain += [each for each in files if _MODULE_CONFIG.fullmatch(each.name)]
    return commit, [each for each in plain if not each.name.endswith(".part")]  # so are partial downloads named


def choose_files(repo: Repo, listed: Sequence[HubFile]) -> list[HubFile]:
    """Returns the files to download: the requested file, or safetensors with their companions, or the only GGUF file."""
    ggufs = [each.name for each in listed if each.name.endswith(".gguf")]
    licences = [each for each in listed if _LICENCE.fullmatch(each.name)]
    if repo.file or (len(ggufs) == 1 and not _has(listed, ".safetensors")):
        found = [each for each in listed if each.name == (repo.file or ggufs[0])]
        if not found:
            raise DownloadError(f"hf:{repo.id} has no file {repo.file!r}; its GGUF files: {_few(ggufs) or 'none'}")
        return found + licences
    if _has(listed, ".safetensors"):
        if not any(each.name == "config.json" for each in listed):
            raise DownloadError(f"hf:{repo.id} has no config.json: only models in transformers' layout are supported")
        # Meta's and Mistral's repositories hold the same weights twice
        twice = any(each.name.startswith("model") and each.name.endswith(".safetensors") for each in listed)
        weights = [each for each in listed if each.name.endswith(".safetensors")]
        weights = [each for each in weights if not (twice and each.name.startswith("consolidated"))]
        texts = [each for each in listed if each.name.endswith((".json", ".jinja")) or each.name == "tokenizer.model"]
        if not any(each.name == MODULES for each in listed):
            texts = [each for each in texts if not _MODULE_CONFIG.fullmatch(each.name)]
        return texts + licences + weights
    if ggufs:
        raise DownloadError(f"hf:{repo.id} holds {len(ggufs)} GGUF files: choose one, such as hf:{repo.id}:{ggufs[0]}")
    if _has(listed, *PICKLES):
        raise DownloadError(f"hf:{repo.id} has only pickles, which are never read: look for a safetensors revision")
    raise DownloadError(f"hf:{repo.id} holds no safetensors and no GGUF file in its top folder")


def file_url(repo_id: str, revision: str, file: str) -> str:
    """Returns the URL of a file on the hub."""
    return f"{endpoint()}/{repo_id}/resolve/{quote(revision, safe='')}/{quote(file)}"


def endpoint() -> str:
    """Returns the hub's URL: `$HF_ENDPOINT`, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def headers() -> dict[str, str]:
    """Returns the authorization header for `$HF_TOKEN`, if set."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError("HF_TOKEN has blanks or invalid characters: copy it again")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _after(done: int, total: int | None, on_progress: OnProgress) -> OnProgress:
    """Returns a progress function for one file, after `done` bytes of earlier files."""
    return lambda got, size: on_progress(done + got, total)


def _listed(sibling: dict[str, Any]) -> HubFile:
    lfs = sibling.get("lfs") or {}  # of a file in LFS, the git hash is that of its pointer
    stated = (lfs.get("sha256") or lfs.get("oid") or None) if lfs else (sibling.get("blobId") or None)
    size = sibling.get("size")
    known = size if type(size) is int and 0 <= size < 1 << 50 else None
    lengths = (64,) if lfs else _GIT_DIGITS
    digest = _hex(stated.lower().removeprefix("sha256:"), *lengths) if isinstance(stated, str) else None
    odd = printable(repr(stated)[:100]) if stated is not None and digest is None else None
    return HubFile(str(sibling["rfilename"]), known, digest if lfs else None, None if lfs else digest, odd)


def _has(listed: Sequence[HubFile], *endings: str) -> bool:
    return any(each.name.endswith(endings) for each in listed)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _hex(value: Any, *lengths: int) -> str | None:
    return value if isinstance(value, str) and len(value) in lengths and re.fullmatch(r"[0-9a-f]+", value) else None
