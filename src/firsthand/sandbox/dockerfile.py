"""Reads a Dockerfile for a sandbox that is not a container: working directory, copied files, commands, missing packages.

Installing is not done but looked up: a Debian package counts if this machine has it, since the sandbox shows its programs,
and a Python package if the sandbox's own packages hold it (`FIRSTHAND_SANDBOX_PACKAGES`). Other commands are run in it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, reason_of
from firsthand.sandbox.sandbox import shared_packages
from firsthand.system.ordinary_file import open_ordinary, read_ordinary

MAX_BYTES = 64 * 2**20
"""The most bytes of all copied files."""
MAX_FILES = 100_000
"""The most files of one COPY."""
MAX_TEXT_BYTES = 2**20
MAX_STEPS = 1_000
"""Instructions and commands of a Dockerfile."""
MAX_PATH_CHARS = 4_096
"""The most characters of a working directory, which every relative WORKDIR lengthens."""
_JOINS = re.compile(r"&&|;|\|\|\s*true")
_IGNORED = {"CMD", "ENTRYPOINT", "EXPOSE", "LABEL", "MAINTAINER", "ARG", "HEALTHCHECK", "STOPSIGNAL", "VOLUME"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_WITH_VALUE = {"--timeout", "--retries", "-i", "--index-url", "--extra-index-url", "--trusted-host", "-t", "--target"}
_FILES = {"-r", "--requirement", "-c", "--constraint"}
_INSTALLS = re.compile(
    r"(?:apt-get|apt)\s+(?:-\S+\s+)*(?P<apt>update|upgrade|clean|autoremove|install|autoclean)\b(?P<packages>.*)"
    r"|(?:python3?\s+-m\s+)?pip3?\s+(?:-\S+\s+)*install\b(?P<pip>.*)"
    r"|rm\s+-rf\s+/var/lib/apt\S*(?:\s+/var/\S+|\s+/tmp/\S+)*"
    r"|apk\s.*|yum\s.*|dnf\s.*|npm\s.*|cargo\s.*|conda\s.*|curl\s.*|wget\s.*|git\s+clone.*|useradd\s.*|adduser\s.*",
    re.DOTALL,
)


@dataclass(frozen=True)
class BuildStep:
    """Files to put in place, or a command to run."""

    files: tuple[tuple[str, bytes, bool], ...] = ()
    """A file: path, content, and whether it is executable."""
    command: str = ""
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Built:
    """The result of reading a Dockerfile."""

    folder: str = ""
    folders: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    steps: tuple[BuildStep, ...] = ()
    lacks: list[str] = field(default_factory=list)


def read_dockerfile(file: Path, context: Path, plain: re.Pattern[str]) -> Built:
    """The file as steps; `plain` are the images that this machine stands in for. ConfigError if it cannot be read."""
    try:
        with open_ordinary(file) as opened:
            raw = opened.read(MAX_TEXT_BYTES + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the Dockerfile {str(file)!r} cannot be read: {reason_of(error)}") from None
    if len(raw) > MAX_TEXT_BYTES:
        raise ConfigError(f"the Dockerfile {str(file)!r} has more than {MAX_TEXT_BYTES:,} bytes: is it the right file?")
    if sum(map(len, map(_parts, lines := list(_lines(text))))) > MAX_STEPS:
        raise ConfigError(
            f"the Dockerfile {str(file)!r} has more than {MAX_STEPS:,} instructions and commands: shorten it"
        )
    built, left = Built(), MAX_BYTES
    folders: list[str] = []
    for line in lines:
        name, _, rest = line.partition(" ")
        name, rest = name.upper(), rest.strip()
        if name == "FROM":
            image = next((word for word in rest.split() if not word.startswith("--")), "")
            if any(step for step in built.steps) or " as " in f" {rest.lower()} ":
                built.lacks.append("builds in several stages")
            elif not plain.fullmatch(image):
                built.lacks.append(f"is built from the image {image.partition('@')[0]!r}")
        elif name == "WORKDIR":
            built.folder = _joined(built.folder, rest.strip("\"'"))
            if len(built.folder) > MAX_PATH_CHARS:
                raise ConfigError(
                    f"the Dockerfile {str(file)!r} sets a WORKDIR of more than {MAX_PATH_CHARS:,} characters: shorten it"
                )
            folders.append(built.folder)
        elif name == "ENV":
            built.environment |= _pairs(rest)
        elif name in ("COPY", "ADD"):
            try:
                step, why = _copied(name, rest, context, built.folder or "/", left)
            except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a zero byte, a file that went away
                step, why = BuildStep(), f"its files cannot be read: {reason_of(error)}"
            left -= sum(len(content) for _, content, _ in step.files)
            folders += [str(Path(path).parent) for path, _, _ in step.files]
            built.steps += (step,)
            built.lacks += [f"{name} {rest[:60]}: {why}"] if why else []
        elif name == "RUN":
            for command in _commands(rest):
                if (lack := _lacking(command, built.steps)) is None:
                    built.steps += (
                        BuildStep(command=command, folder=built.folder or "/", environment=dict(built.environment)),
                    )
                elif lack:
                    built.lacks.append(lack)
        elif name == "USER" and rest.split(":")[0] in ("root", "0"):
            pass
        elif name not in _IGNORED:
            built.lacks.append(f"says {line[:60]!r}")
    built.folders = tuple(dict.fromkeys(each for each in folders if each != "/"))
    return built


def _lines(text: str) -> Iterator[str]:
    """Instructions, each on one line."""
    whole = ""
    for line in text.splitlines():
        if line.strip().startswith("#") or not line.strip():  # within an instruction too
            continue
        whole += line.rstrip().removesuffix("\\") + " "
        if not line.rstrip().endswith("\\"):
            yield whole.strip()
            whole = ""
    if whole.strip():
        yield whole.strip()


def _joined(folder: str, place: str) -> str:
    return str(Path(folder or "/", place))


def _pairs(rest: str) -> dict[str, str]:
    """`A=1 B=2`, or the old `A 1`."""
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def _copied(name: str, rest: str, context: Path, folder: str, left: int) -> tuple[BuildStep, str]:
    """The files that a COPY puts in place, and why it cannot be followed."""
    flags, rest = re.fullmatch(r"((?:--\S+\s+)*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    words = _words(rest)
    if "--from" in flags or len(words) < 2 or not all(isinstance(each, str) for each in words):
        return BuildStep(), "only files beside the Dockerfile are copied"
    *sources, place = words
    whole = _joined(folder, place)
    found: list[tuple[str, bytes, bool]] = []
    root = context.resolve()
    for source in sources:
        if ".." in Path(source).parts or "**" in source:  # a search of what lies outside, or of every folder
            return BuildStep(), f"{source} leads out of the folder, or everywhere in it"
        if (matches := _matches(root, source)) is None:
            return BuildStep(), f"{source} leads out of the folder"
        for match in matches:
            if name == "ADD" and re.search(r"\.(tar|tgz|tar\.\w+)$", match.name):
                return BuildStep(), "archives are not unpacked"
            inside = place.endswith("/") or len(sources) > 1 or len(matches) > 1 or place in (".", "./")
            if not match.is_file() and not match.is_dir():  # a link to nothing, or to itself
                return BuildStep(), f"{source} is not there"
            for file in [match] if match.is_file() else sorted(each for each in match.rglob("*") if each.is_file()):
                if not file.resolve().is_relative_to(root):
                    return BuildStep(), f"{file.name} leads out of the folder"
                left -= file.stat().st_size
                if len(found) == MAX_FILES:
                    return BuildStep(), f"more than {MAX_FILES:,} files"
                if left < 0:
                    return BuildStep(), f"more than {MAX_BYTES} bytes"
                target = file.relative_to(match) if match.is_dir() else Path(file.name if inside else "")
                found.append(
                    (str(Path(whole, target)), read_ordinary(file, MAX_BYTES), bool(file.stat().st_mode & 0o100))
                )
        if not matches:
            return BuildStep(), f"{source} is not there"
    return BuildStep(files=tuple(found)), ""


def _matches(root: Path, source: str) -> list[Path] | None:
    """The files and folders that a source means; None if one, or a folder on the way, leads out of `root`.

    One part of the pattern is searched after the other, each folder once, so that nothing outside is looked at.
    """
    found = [root]
    for part in Path(source.lstrip("/")).parts:
        folders = dict.fromkeys(each.resolve() for each in found if each.is_dir())
        if not all(each.is_relative_to(root) for each in folders):
            return None
        found = sorted(each for folder in folders for each in folder.glob(part))
    return found if all(each.resolve().is_relative_to(root) for each in found) else None


def _words(rest: str) -> list[Any]:
    """A list as JSON, or else words as a shell splits them; none where both fail."""
    try:
        return list(json.loads(rest)) if rest.startswith("[") else shlex.split(rest)
    except RecursionError:
        return []
    except ValueError:
        pass
    try:
        return shlex.split(rest)
    except ValueError:
        return []


def _parts(line: str) -> list[str]:
    """The parts of an instruction that may each be a command."""
    return _JOINS.split(line)


def _commands(rest: str) -> list[str]:
    """The commands that `&&` and `;` join, where installing is among them; else all of it as it stands."""
    rest = re.sub(r"^(--\w+(=\S+)?\s+)+", "", rest)
    if rest.startswith("["):
        try:
            return [shlex.join(map(str, json.loads(rest)))]
        except (ValueError, RecursionError):
            return [rest]
    parts = [part.strip() for part in _JOINS.split(rest)]
    return [part for part in parts if part] if any(_INSTALLS.match(_bare(part)) for part in parts) else [rest]


def _bare(command: str) -> str:
    """A command without the variables and `sudo` before it."""
    return re.sub(r"^(?:sudo\s+|export\s+\S+$|[A-Z_]+=\S*\s+)+", "", command.strip())


def _lacking(command: str, steps: Sequence[BuildStep]) -> str | None:
    """A sentence on what a command needs that is not here; "" if it has nothing left to do; None if it must be run.

    `steps` are those before it, which may have copied the list of what it installs.
    """
    found = _INSTALLS.match(_bare(command))
    if found is None:
        return None
    if found["pip"] is not None:
        here = _python_packages(shared_packages())
        missing = [each for each in _names(found["pip"], steps) if _plain(each) not in here]
        return f"needs the Python packages {', '.join(missing)}" if missing else ""
    if found["apt"] == "install":
        missing = [each for each in _names(found["packages"], steps) if not _installed(each)]
        return f"needs the Debian packages {', '.join(missing)}" if missing else ""
    if found["apt"] or _bare(command).startswith("rm "):
        return ""
    return f"runs `{' '.join(command.split())[:60]}`"


def _names(line: str, steps: Sequence[BuildStep]) -> list[str]:
    """The packages that an install command names, those in a list of requirements too."""
    try:
        words = iter(shlex.split(line))
    except ValueError:
        words = iter(line.split())
    found: list[str] = []
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif word in _FILES:
            found += _required(next(words, ""), steps)
        elif not word.startswith("-") and word not in ("pip", "setuptools", "wheel"):
            found.append(word)
    return found


def _required(file: str, steps: Sequence[BuildStep]) -> list[str]:
    """The lines of a list of requirements that was copied before, or its name if it was not."""
    copied = [content for step in steps for path, content, _ in step.files if Path(path).name == Path(file).name]
    if not copied:
        return [file or "-r"]
    lines = (
        line.partition("#")[0].split(";")[0].strip() for line in copied[-1].decode("utf-8", "replace").splitlines()
    )
    return [line for line in lines if line and not line.startswith("-")]


def _plain(requirement: str) -> str:
    name = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else requirement


@lru_cache(maxsize=8)
def _python_packages(folders: Sequence[Path]) -> frozenset[str]:
    found = distributions(path=[str(folder) for folder in folders])
    return frozenset(_plain(each.metadata["Name"] or "") for each in found)


@lru_cache(maxsize=1024)
def _installed(package: str) -> bool:
    """True if this machine has the Debian package, or a program of its name."""
    name = package.partition("=")[0]
    if not _NAME.fullmatch(name):
        return False
    if shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"):
        return True
    try:
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.stdout.endswith(b"ok installed")
