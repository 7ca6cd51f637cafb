"""Reads an untrusted git repository: one commit of it, as a bare repository of our own.

git runs what a repository's configuration tells it to: hooks, filters, monitors. So here it sees no configuration but ours,
speaks no protocol but `file`, asks nobody, and fetches no submodules. Only objects are copied, and only those of the one
commit: what came after it, such as the fix that a task asks for, is not there to be found.

What is kept is bounded: past `FIRSTHAND_REPOSITORIES_GB` (20), those that were not used for longest are removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

from firsthand.errors import ConfigError, DataError
from firsthand.sandbox.bounded_process import Unfinished, run_bounded
from firsthand.system.home import data_home

FETCH_S = 600.0
MAX_BLOB_BYTES = 4 * 2**20
"""The most bytes of a file that is shown or edited."""
MAX_OUTPUT_BYTES = 64 * 2**20
"""The most bytes that git may print."""
LIMIT = "FIRSTHAND_REPOSITORIES_GB"
LIMIT_GB = 20.0
IN_USE_S = 24 * 3600.0
"""A repository requested this recently may be in use by a sandbox, and is not removed."""
CONFIG = """[safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	attributesFile = /dev/null
	excludesFile = /dev/null
	symlinks = true
	autocrlf = false
	protectHFS = true
	protectNTFS = true
	bigFileThreshold = 64m
[protocol]
	allow = never
[protocol "file"]
	allow = always
[submodule]
	recurse = false
[fetch]
	recurseSubmodules = false
[gc]
	auto = 0
[maintenance]
	auto = false
[advice]
	detachedHead = false
[init]
	defaultBranch = main
"""
"""All of git's configuration, here and inside the sandbox. Without one, a filter that .gitattributes names is none."""


def commit_alone(repo: Path, commit: str) -> Path:
    """A bare repository that holds this commit without its history, made on first use and kept under our home folder.

    `repo` is a working copy, a bare repository or a bundle. DataError if it lacks the commit, or is no repository.
    """
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise DataError(f"the commit is {commit[:70]!r}: give all 40 digits of its hash")
    if not repo.exists():
        raise DataError(f"{str(repo)!r} is not there: the folder of a git repository, or a bundle, was expected")
    expect_ordinary_files(repo)
    key = hashlib.sha256(f"{repo.resolve()}\0{commit}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    kept = data_home() / "repositories" / key
    if kept.is_dir():
        with suppress(OSError):
            os.utime(kept)  # when it was last used
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".making-") as folder:
        made = Path(folder, "base")
        source = repo.resolve()
        if source.is_file():
            source = _unbundled(source, Path(folder, "whole"))
        git("init", "--quiet", "--bare", "--template=", str(made))
        git("fetch", "--quiet", "--depth=1", "--no-tags", source.as_uri(), commit, folder=made, watched=made)
        git("update-ref", "--no-deref", "HEAD", commit, folder=made)
        git("pack-refs", "--all", folder=made)
        for path in [made, *made.rglob("*")]:  # a sandbox of root's reads it as nobody
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        try:
            made.rename(kept)
        except OSError:  # another process was faster
            if not kept.is_dir():
                raise
    prune(kept.parent)
    return kept


def prune(folder: Path, limit_bytes: float | None = None, *, spare_s: float = IN_USE_S) -> int:
    """Removes the least recently used repositories until the rest fits the limit; returns the bytes freed.

    Those used in the last `spare_s` seconds stay whatever they take. What was left half made is removed as well.
    """
    limit = _limit_bytes() if limit_bytes is None else limit_bytes
    sizes = {path: _size_bytes(path) for path in folder.iterdir() if path.is_dir()}
    left, freed, now = sum(sizes.values()), 0, time.time()
    for path in sorted(sizes, key=_used_at):
        if now - _used_at(path) < spare_s or (left <= limit and not path.name.startswith(".")):
            continue
        aside = path if path.name.startswith(".") else path.with_name(f".gone-{uuid.uuid4().hex[:12]}")
        with suppress(OSError):  # another process was faster
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            left, freed = left - sizes[path], freed + sizes[path]
    return freed


def _limit_bytes() -> float:
    given = os.environ.get(LIMIT, "")
    try:
        size = float(given) if given else LIMIT_GB
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise ConfigError(f"{LIMIT} is {given!r}: give a number of gigabytes, such as 20")
    return size * 1e9


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return float("inf")


def _size_bytes(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.lstat().st_size
    return found


def blob(base: Path, commit: str, path: str) -> str | None:
    """The text of a file at a commit; None if there is none, or it is no text, or absurdly long."""
    try:
        if int(git("cat-file", "-s", f"{commit}:{path}", folder=base)) > MAX_BLOB_BYTES:
            return None
        raw = git("cat-file", "blob", f"{commit}:{path}", folder=base)
        return raw.decode("utf-8") if b"\0" not in raw else None
    except (DataError, ValueError):  # no such file, or no UTF-8
        return None


def expect_ordinary_files(repo: Path) -> None:
    """DataError if the git folder of a working copy, or a bare repository, holds a pipe, a socket or a device."""
    folder = repo / ".git"
    if not folder.is_dir():
        if not os.path.lexists(repo / "HEAD"):
            return  # a bundle, or no repository
        folder = repo
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(OSError):  # a link that leads nowhere
                if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
                    raise DataError(
                        f"{str(path)!r} is a pipe, a socket or a device: a repository of ordinary files and folders was "
                        "expected, so clone it again"
                    )


def git(*words: str, folder: Path | None = None, stdin: bytes = b"", watched: Path | None = None) -> bytes:
    """The output of git, run with our configuration and none of the user's; DataError with its last line if it fails.

    `watched` is the folder that it writes to, whose growth shows that it is at work.
    """
    found = shutil.which("git")
    if found is None:
        raise ConfigError("git was not found: install it (Debian, Ubuntu: apt install git)")
    command = [found, *([f"--git-dir={folder}"] if folder else []), *words]
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as config:
        config.write(CONFIG)
        config.flush()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.devnull,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": config.name,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "file",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
        }
        try:
            done = run_bounded(
                command,
                stdin=stdin,
                environment=environment,
                limit_s=FETCH_S,
                max_bytes=MAX_OUTPUT_BYTES,
                watched=watched,
            )
        except Unfinished as bound:
            raise DataError(f"git {words[0]} {bound}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
        raise DataError(f"git {words[0]} failed: {said or f'exit status {done.returncode}'}")
    return done.stdout


def _unbundled(bundle: Path, into: Path) -> Path:
    """The repository in a bundle."""
    git("init", "--quiet", "--bare", "--template=", str(into))
    git("fetch", "--quiet", "--no-tags", str(bundle), "+refs/*:refs/bundled/*", folder=into, watched=into)
    return into
