"""AgentBench's operating-system items: description, scripts that prepare and check, and a solution where one is published.

Items that need what the sandbox does not have are told by `why_not_here`: other users, packages from the network, processes
that go on in the background, files in system folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.system.given_data import held
from firsthand.system.ordinary_file import read_ordinary_text

MAX_FILE_BYTES = 2**22
MOVED = {"/usr/stock.log": "/data/stock.log", "/working": "/data/working", "/usr/local/bin/": "/opt/bin/"}
"""Paths in system folders, which are read-only here, and where they lie instead. `/opt/bin` is on the PATH."""
_REASONS = {
    "users": r"\b(?:useradd|adduser|usermod|groupadd|runuser|sudo|su -)",
    "packages": r"\bapt(?:-get)?\s",
    "background processes": r"&\s*$",
    "system folders": r"(?:>|\b(?:touch|mkdir(?: -p)?|chmod \S+))\s*\"?/"
    r"(?!root|tmp|home|data|opt|work|srv|mnt|dev/null|var/tmp/)[\w.$]",
}
_FAILS_HERE = (
    "How much disk space is being used by /home and all of its contents?",
    "Find out how many groups with an index not greater than 70.",
    'I would like to implement the following function: entering the "count" command',
    "As a Linux (Ubuntu) user, your task is to create a script that counts the total storage used by all regular files "
    'within the "/var/log" directory',
)
"""Beginnings of descriptions whose published solution does not pass its own check in an empty sandbox, or not in time."""


class Script(NamedTuple):
    """A script in bash or python."""

    language: str
    code: str


@dataclass(frozen=True)
class OsItem:
    """One item."""

    id: str
    description: str
    init: tuple[Script, ...] = ()
    start: str = ""
    """Run in the agent's own shell before it begins."""
    match: str | None = None
    """The expected answer, without white space around it."""
    regex: str | None = None
    """A regular expression that the answer contains."""
    check: tuple[Script | None, ...] = ()
    """Each is run with the answer and the outputs so far, and must end with status 0. None is the example."""
    example: Script | None = None
    """The published solution."""

    def to_json(self) -> Json:
        """The item as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(body: Json) -> OsItem:
        """The item that `to_json` wrote."""
        return OsItem(
            **{
                **body,
                "init": tuple(Script(*_values(each)) for each in body["init"]),
                "check": tuple(None if each is None else Script(*_values(each)) for each in body["check"]),
                "example": None if body["example"] is None else Script(*_values(body["example"])),
            }
        )

    def why_not_here(self) -> str | None:
        """The kind of thing that the sandbox lacks for it; None if it runs."""
        if self.description.strip("'\" ").startswith(_FAILS_HERE):
            return "its own solution fails here"
        needed = [*self.init, Script("bash", self.start), *(each for each in self.check if each), self.example]
        scripts = "\n".join(each.code for each in needed if each is not None)
        for reason in ("users", "packages"):
            if re.search(_REASONS[reason], scripts):
                return reason
        if re.search(_REASONS["background processes"], self.start):
            return "background processes"
        made = "\n".join(each.code for each in self.init if each.language == "bash")
        return "system folders" if re.search(_REASONS["system folders"], made) else None


def read_items(folder: Path, split: str) -> Iterator[OsItem]:
    """The items of a split in the folder `os_interaction`, in the paper's order; DataError that names file and item."""
    files = (
        [folder / "data" / "dev.json"]
        if split == "dev"
        else sorted(path for path in (folder / "data").glob("[1-7]/*.json") if path.is_file())
    )
    if not files or not files[0].is_file():
        raise DataError(
            f"{folder} holds no data/{'dev.json' if split == 'dev' else '1 to data/7'}: give AgentBench's os_interaction"
        )
    for file in files:
        group = "dev" if split == "dev" else file.parent.name
        body = _loaded(held(file, folder))
        for index, row in enumerate(body if isinstance(body, list) else [body]):
            id = f"{'dev-001' if split == 'dev' else f'std-{int(group):03d}'}-{file.stem}-{index:05d}"
            yield _item(row, id, folder / "scripts" / group, f"{file}, item {index + 1}")


def _item(row: Any, id: str, scripts: Path, where: str) -> OsItem:
    if not isinstance(row, dict) or not isinstance(row.get("description"), str):
        raise DataError(f"{where}: an object with a description was expected, not {str(row)[:60]!r}")
    evaluation = row.get("evaluation")
    if not isinstance(evaluation, dict) or not ("match" in evaluation or "check" in evaluation):
        raise DataError(f"{where}: the evaluation holds neither match nor check: {str(evaluation)[:60]!r}")
    create: Json = row["create"] if isinstance(row.get("create"), dict) else {}
    init = tuple(_script(each, scripts, where) for each in _as_list(create.get("init")))
    match: Any = evaluation.get("match")
    regex = None
    if isinstance(match, dict):
        match, regex = match.get("answer"), match.get("regex")
    if regex is not None:
        _compiled(str(regex), where)
    check = tuple(
        None if each is None else _script(each, scripts, where) for each in _as_list(evaluation.get("check"), True)
    )
    example = evaluation.get("example") or row.get("example")
    start = row.get("start") or ""
    item = OsItem(
        id,
        _moved(row["description"]),
        init,
        _moved(start if isinstance(start, str) else _script(start, scripts, where).code),
        None if match is None else str(match),
        None if regex is None else str(regex),
        check,
        None if example is None else _script(example, scripts, where),
    )
    if item.match is None and item.regex is None and not item.check:
        raise DataError(f"{where}: there is nothing to compare an answer with")
    if None in item.check and item.example is None:
        raise DataError(f"{where}: the check uses an example, and there is none")
    return item


def _script(body: Any, folder: Path, where: str) -> Script:
    """The script of a string, or of an object with `code` or `file`."""
    if isinstance(body, str):
        return Script("bash", _moved(body))
    if not isinstance(body, dict) or not isinstance(body.get("code", body.get("file")), str):
        raise DataError(f"{where}: a script is {str(body)[:60]!r}: text, or an object with code or file, was expected")
    language = str(body.get("language", "bash"))
    if language not in ("bash", "python"):
        raise DataError(f"{where}: a script is in {language!r}: bash or python was expected")
    if "file" not in body:
        return Script(language, _moved(body["code"]))
    if not isinstance(body["file"], str) or "\0" in body["file"]:
        raise DataError(f"{where}: the file of a script is {str(body['file'])[:60]!r}: the name of a file was expected")
    path = (folder / body["file"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"{where}: the script {body['file']!r} lies outside {folder}")
    return Script(language, _moved(_text(path, where)))


def _compiled(regex: str, where: str) -> None:
    try:
        re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: {regex[:60]!r} is no regular expression of Python ({error!s:.80}): correct the item's match"
        ) from None


def _text(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{where}: {path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return read_ordinary_text(path, MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: {path} cannot be read: {reason_of(error)}") from None


def _loaded(path: Path) -> Any:
    try:
        return json.loads(_text(path, str(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {str(error)[:100]}") from None


def _moved(text: str) -> str:
    for system, here in MOVED.items():
        text = text.replace(system, here)
    return text


def _as_list(value: Any, keep_none: bool = False) -> list[Any]:
    if value is None:
        return []
    return [each for each in (value if isinstance(value, list) else [value]) if keep_none or each is not None]


def _values(body: Any) -> list[str]:
    return list(body.values()) if isinstance(body, dict) else list(body)
