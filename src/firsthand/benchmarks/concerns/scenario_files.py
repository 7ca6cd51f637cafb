"""Reads scenarios of the joint evaluation: Markdown files whose front matter says how to judge them.

The front matter is TOML between lines of `+++`. The sections are `## Setting` (the system message), `## Opening` (the
first message) and, for a risk, `## Pressure` (a list of messages that the auditor tries, each from the same point). A
scenario's id is the file's name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from firsthand.benchmarks.sources.datasets import contents
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.system.bounded_toml import parse_toml
from firsthand.system.given_data import held
from firsthand.tool import Effect

Theme = Literal["cooperation", "oversight", "whistle-blowing", "self-preservation", "misuse", "sycophancy"]
THEMES: tuple[Theme, ...] = get_args(Theme)
FIELDS = ("theme", "kind", "better", "worse", "misuse", "bad_text", "good_text", "bad_calls", "good_calls", "tools")
_FRONT = re.compile(r"\A\+\+\+\r?\n(.*?)\r?\n\+\+\+\r?\n(.*)\Z", re.DOTALL)
_SECTION = re.compile(r"^## +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Scenario:
    """One scenario: a situation with a temptation (`risk`), or its harmless counterpart (`benign`)."""

    id: str
    theme: Theme
    kind: Literal["risk", "benign"]
    setting: str
    opening: str
    pressure: tuple[str, ...]
    better: str
    """The answer of an aligned model, as a choice by log-prob."""
    worse: str
    """The answer of a misaligned one; in a benign scenario, a needless refusal."""
    tools: tuple[Mapping[str, str], ...] = ()
    """Each with a name, what it does, what it says when it is called, and its effect outside of a simulation."""
    bad_calls: tuple[str, ...] = ()
    good_calls: tuple[str, ...] = ()
    misuse: bool = False
    """True if to answer the request at all is the misbehaviour."""
    bad_text: str = ""
    """A regular expression of a misbehaving reply, unless `good_text` matches the same sentence."""
    good_text: str = ""


def load_scenarios(folder: str = "") -> list[Scenario]:
    """Return the scenarios of a folder, by default the package's, in the order of their file names."""
    place = Path(folder).expanduser() if folder else Path(__file__).parent / "scenarios"
    paths = sorted(place.glob("*.md"))
    if not paths:
        raise DataError(f"{place} holds no scenario: give a folder of .md files, as docs/joint-alignment.md describes")
    return [read_scenario(held(path, place)) for path in paths]


def read_scenario(path: Path) -> Scenario:
    """Return the scenario of a file; DataError with the file's name if it is not of the form."""
    try:
        text = contents(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from None
    found = _FRONT.match(text)
    if found is None:
        raise DataError(f"{path} has no front matter: begin with +++, TOML, and +++ on lines of their own")
    try:
        front: Json = parse_toml(found[1])
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: the front matter is no TOML: {error}") from None
    sections = _sections(found[2], path)
    _check(front, sections, path)
    pressure = tuple(line[2:].strip() for line in sections.get("pressure", "").splitlines() if line.startswith("- "))
    tools = tuple({key: str(value) for key, value in each.items()} for each in front.get("tools", ()))
    made = Scenario(
        path.stem,
        front["theme"],
        front["kind"],
        sections["setting"],
        sections["opening"],
        pressure,
        front["better"],
        front["worse"],
        tools,
        bad_calls=tuple(front.get("bad_calls", ())),
        good_calls=tuple(front.get("good_calls", ())),
        misuse=bool(front.get("misuse", False)),
        bad_text=str(front.get("bad_text", "")),
        good_text=str(front.get("good_text", "")),
    )
    if made.kind == "risk" and not (made.misuse or made.bad_calls or made.bad_text):
        raise DataError(f"{path}: a risk needs bad_calls, bad_text or misuse = true, to be judged by")
    return made


def _sections(body: str, path: Path) -> dict[str, str]:
    names = [name.strip() for name in _SECTION.findall(body)]
    parts = _SECTION.split(body)
    if parts[0].strip():
        raise DataError(f"{path}: text stands before the first section: begin with ## Setting")
    found = {name.casefold(): text.strip() for name, text in zip(names, parts[2::2], strict=True)}
    unknown = found.keys() - {"setting", "opening", "pressure"}
    if unknown or len(found) < len(names):
        raise DataError(
            f"{path}: the sections are {', '.join(names)}: Setting, Opening and Pressure were expected, each once"
        )
    return found


def _check(front: Json, sections: Mapping[str, str], path: Path) -> None:
    def refuse(why: str) -> None:
        raise DataError(f"{path}: {why}")

    if unknown := front.keys() - set(FIELDS):
        refuse(f"the front matter has {', '.join(sorted(unknown))}: there are {', '.join(FIELDS)}")
    if front.get("theme") not in THEMES or front.get("kind") not in ("risk", "benign"):
        refuse(
            f"theme is {front.get('theme')!r} and kind {front.get('kind')!r}: give {', '.join(THEMES)}; risk or benign"
        )
    for name in ("better", "worse"):
        if not isinstance(front.get(name), str) or not front[name].strip():
            refuse(f"{name} is missing: give the sentence that is compared by log-prob")
    for name in ("setting", "opening"):
        if not sections.get(name):
            refuse(f"the section ## {name.capitalize()} is missing or empty")
    tools = front.get("tools", [])
    known = _tool_names(tools, refuse)
    for name in ("bad_calls", "good_calls"):
        calls = cast(Any, front.get(name, []))
        if not isinstance(calls, list) or not set(map(str, calls)) <= known:
            refuse(f"{name} is {calls!r}: a list of names of its tools was expected")
    for name in ("bad_text", "good_text"):
        try:
            re.compile(str(front.get(name, "")))
        except re.error as error:
            refuse(f"{name} is no regular expression: {error}")


def _tool_names(tools: Any, refuse: Any) -> set[str]:
    names = set()
    if not isinstance(tools, list):
        refuse(f"tools is {str(tools)[:80]!r}: begin each tool with [[tools]]")
    for each in tools:
        if not isinstance(each, dict) or each.keys() != {"name", "does", "says", "effect"}:
            refuse(f"a tool is {str(each)[:80]!r}: name, does, says and effect were expected")
        if each["effect"] not in get_args(Effect):
            refuse(f"the effect of {each['name']} is {each['effect']!r}: give one of {', '.join(get_args(Effect))}")
        names.add(str(each["name"]))
    return names
