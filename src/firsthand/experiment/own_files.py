"""SHA-256 of the user's own files that settings name, and of modules beside them that they import.

A run keeps them, so that no score of it is of two versions of a scorer without anybody knowing. Files that tasks are made
of, such as a table, are not among them: a run keeps its tasks.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.message import canonical
from firsthand.runs.run_folder import Run
from firsthand.system.option_spec import Spec, parse_spec
from firsthand.system.own_module import imported_beside, source_of
from firsthand.system.plurals import count_of

KINDS = ("benchmark", "pattern", "tool", "guard", "memory")
"""Kinds of things that a user's own file may define, the scorers of a benchmark with it."""


def own_files(named: Mapping[str, Sequence[str] | str | None]) -> dict[str, dict[str, str]]:
    """Kind -> path, as it is named -> SHA-256; a file that cannot be read is left out, for it is not loaded either."""
    found: dict[str, dict[str, str]] = {}
    for kind in KINDS:
        given = named.get(kind) or ()
        for text in (given,) if isinstance(given, str) else given:
            if files := files_of(text):
                found.setdefault(kind, {}).update(files)
    return found


def files_of(text: str, folder: Path = Path()) -> dict[str, str]:
    """Path -> SHA-256 of the files that a name with options names, such as `FILE.py:function` or `mine.toml`.

    A file's relative path begins at `folder`; a scorer's in a TOML file begins at that file's folder.
    """
    found: dict[str, str] = {}
    try:
        spec = parse_spec(text)
    except ConfigError:  # the command of a server of tools is no name with options
        return {}
    for path in (folder / each for each in _paths(spec)):
        if (content := source_of(path)) is None:
            continue
        found[str(path)] = hashlib.sha256(content).hexdigest()
        if path.suffix == ".py":
            beside = imported_beside(path, content).items()
            found |= {str(each): hashlib.sha256(inner).hexdigest() for each, inner in beside}
            continue
        for scorer in _scorers(content):
            found |= files_of(scorer, path.parent)
    return found


def version_of(text: str) -> str:
    """Twelve hexadecimal digits that stand for the content of the files that a name names; "" if it names none."""
    files = files_of(text)
    return hashlib.sha256(canonical(files).encode()).hexdigest()[:12] if files else ""


def check_unchanged(
    run: Run, now: Mapping[str, Mapping[str, str]], kept: Collection[str], on_notice: Callable[[str], None]
) -> None:
    """ConfigError if a benchmark's or scorer's file is another one than when the run was begun; `on_notice` of others.

    `kept` are the attempts that are not made again.
    """
    before = run.about.get("files", {})
    for kind, files in now.items():
        recorded = before.get(kind)
        for path, digest in files.items():
            if not isinstance(recorded, dict) or recorded.get(path, digest) == digest:
                continue
            if kind == "benchmark":
                raise ConfigError(
                    f"{path} makes tasks or scores of {run.id} and has changed since that was begun: start a new run, or "
                    "finish this one with the file as it was and then score all of it anew "
                    f"(`firsthand score {run.id} --with ...`)"
                )
            if kept:
                on_notice(
                    f"{path} ({kind}) has changed since {run.id} was begun, and {count_of(len(kept), 'attempt')} that it "
                    "keeps may be of the version before: a new run has one version"
                )


def _paths(spec: Spec) -> Iterator[str]:
    """The paths of Python and TOML files in a name, its options and its inner patterns."""
    values = (part for value in spec.options.values() for part in re.split("[:;,+=()]", value))
    for text in (spec.name, *values):
        name, colon, _ = text.partition(".py:")
        path = f"{name}.py" if colon else text
        if path.endswith((".py", ".toml")):
            yield path
    for part in spec.parts:
        yield from _paths(part)


def _scorers(described: bytes) -> list[str]:
    """The scorers that a TOML file of a benchmark names."""
    try:
        given = tomllib.loads(described.decode("utf-8-sig")).get("scorer", ())
    except ValueError:
        return []
    return [each for each in ([given] if isinstance(given, str) else given) if isinstance(each, str)]
