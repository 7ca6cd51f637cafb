"""Reads the definition of a board from TOML: its rule, its benchmarks with category and weight, and what may be compared.

The definitions that come with the package lie in `definitions/`; `firsthand board NAME` finds them by file name, and
`firsthand board FILE.toml` reads one's own.
"""

from __future__ import annotations

import fnmatch
import math
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from firsthand.errors import ConfigError, nearest, reason_of, unknown
from firsthand.system.bounded_toml import read_toml_file
from firsthand.system.given_folder import leads_out

Rule = Literal["each", "weighted", "win-rate", "borda"]
DEFINITIONS = Path(__file__).parent / "definitions"


@dataclass(frozen=True)
class BenchmarkEntry:
    """A board's rule for one benchmark."""

    category: str = ""
    """The category that it counts in; empty: its own."""
    weight: float = 1.0
    """Its weight within the category."""
    chance: float = 0.0
    """The score of guessing: it becomes 0, and a perfect one stays 1."""
    display_only: bool = False
    """Shown, and not a part of the overall score."""
    protocol: str = ""
    """The only protocol that counts, as a text with * for anything; empty: there must be only one."""
    metric: str = ""
    """The only metric that counts, in the same way."""
    scale: float = 1.0
    """The score of a perfect model in the files, such as 100 or 10."""
    lower_is_better: bool | None = None
    """None: as the results say."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"weight is {self.weight}: give 0 or more")
        if not 0 <= self.chance < 1:
            raise ConfigError(f"chance is {self.chance}: give the score of guessing, from 0 to below 1")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale is {self.scale}: give the score of a perfect model, such as 100")


@dataclass(frozen=True)
class BoardSpec:
    """The definition of a board."""

    name: str = "board"
    title: str = ""
    about: str = ""
    """The quantity that the board measures, and the source of its rule."""
    rule: Rule = "each"
    """each: a table for every benchmark; weighted: means of categories; win-rate: HELM's; borda: MTEB's."""
    benchmarks: Mapping[str, BenchmarkEntry] = field(default_factory=dict)
    """Benchmark -> entry; a name may have * in it, and a metric after a slash. Empty: all benchmarks of the results."""
    categories: Mapping[str, float] = field(default_factory=dict)
    """Category -> weight; empty: all count equally."""
    results: tuple[str, ...] = ()
    """Files, folders and runs to read, relative to the definition."""
    missing: Literal["unranked", "common"] = "unranked"
    """unranked: a model that lacks a counted benchmark has no rank; common: only benchmarks that all models have count."""
    reported: Literal["apart", "together"] = "apart"
    """apart: models with a number that was not computed here from items have a table of their own."""
    fresh_days: int = 0
    """Results older than this are called stale; 0: no limit."""

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ConfigError(f"rule is {self.rule!r:.60}: give {', '.join(get_args(Rule))}")
        if self.missing not in ("unranked", "common") or self.reported not in ("apart", "together"):
            raise ConfigError("missing is unranked or common, and reported is apart or together")
        if self.fresh_days < 0:
            raise ConfigError(f"fresh_days is {self.fresh_days}: give a number of days, or 0 for no limit")
        if bad := [name for name, weight in self.categories.items() if not 0 <= weight < math.inf]:
            raise ConfigError(f"the weight of category {bad[0]!r} is {self.categories[bad[0]]}: give 0 or more")
        named = {each.category for each in self.benchmarks.values() if each.category}
        if self.categories and (lost := sorted(named - set(self.categories))):
            raise ConfigError(f"the category {lost[0]!r} has no weight: add it to [categories]")

    def entry(self, benchmark: str, metric: str = "") -> tuple[str, BenchmarkEntry] | None:
        """The name and the entry that a column falls under; None if the board does not list it.

        A name is a benchmark, or a benchmark and a metric with a slash between, and may have * in it.
        """
        if not self.benchmarks:
            return benchmark, BenchmarkEntry()
        words = benchmark, f"{benchmark}/{metric}"
        for name, each in self.benchmarks.items():
            if name in words:
                return name, each
        for name, each in self.benchmarks.items():
            if any(fnmatch.fnmatchcase(word, name) for word in words):
                return name, each
        return None


def board_names() -> dict[str, str]:
    """Name -> what it measures, of the boards that come with the package."""
    found = {}
    for path in sorted(DEFINITIONS.glob("*.toml")):
        found[path.stem] = str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))
    return found


def is_board(word: str) -> bool:
    """True if a word names a board of the package or a definition of one's own."""
    return word.endswith(".toml") or ((DEFINITIONS / f"{word}.toml").is_file() and Path(word).name == word)


def load_board(word: str) -> BoardSpec:
    """The board of that name, or of a TOML file; UnknownName or ConfigError."""
    path = Path(word) if word.endswith(".toml") else DEFINITIONS / f"{word}.toml"
    if not word.endswith(".toml") and not is_board(word):
        raise unknown("board", word, board_names(), see="firsthand list boards")
    try:
        body = read_toml_file(path)
    except FileNotFoundError:
        raise ConfigError(f"no file {str(path)!r}: give the TOML file that defines the board") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {reason_of(error)}") from None
    return board_from(body, path)


def board_from(body: Mapping[str, Any], path: Path) -> BoardSpec:
    """The board that a TOML document defines; ConfigError names the key that is wrong."""
    known = {each.name for each in fields(BoardSpec)}
    for key in body:
        if key not in known:
            close = nearest(key, known)
            hint = f"; did you mean {close!r}?" if close else f": it knows {', '.join(sorted(known))}"
            raise ConfigError(f"{path} has the key {key!r}, which no board has{hint}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
    tables: dict[str, Any] = {key: given.get(key, {}) for key in ("benchmarks", "categories")}
    if bad := [key for key, value in tables.items() if not isinstance(value, dict)]:
        raise ConfigError(f"{path}: {bad[0]} is {tables[bad[0]]!r:.60}: write a table, [{bad[0]}]")
    if not isinstance(given.get("results", ()), tuple):
        raise ConfigError(f'{path}: results is {given["results"]!r:.60}: write a list, such as ["results/"]')
    entries = {name: _entry(name, value, path) for name, value in tables["benchmarks"].items()}
    try:
        results = tuple(_beside(path, str(each)) for each in given.get("results", ()))
        settings: dict[str, Any] = {"name": path.stem, **given, "benchmarks": entries, "results": results}
        return BoardSpec(**settings)
    except TypeError as error:
        raise ConfigError(f"{path} does not define a board: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _beside(path: Path, result: str) -> str:
    """A file or folder beside the definition, or else the name of a run; ConfigError for what lies elsewhere."""
    there = path.parent / result
    try:
        if there.exists() and not leads_out(there, path.parent):
            return str(there)
        elsewhere = there.exists() or Path(result).exists() or Path(result).name != result
    except OSError:  # longer than a name of a file can be
        return result
    if elsewhere:
        raise ConfigError(
            f"results names {result!r:.200}, which is no file beside the definition and no run: put it there, or name it "
            f"yourself, as in `firsthand board {shlex.quote(str(path))} RESULTS`"
        )
    return result


def _entry(name: str, value: Any, path: Path) -> BenchmarkEntry:
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: benchmark {name!r} is {value!r:.60}: write a table such as {{ category = 'coding' }}"
        )
    known = {each.name for each in fields(BenchmarkEntry)}
    if lost := [key for key in value if key not in known]:
        close = nearest(lost[0], known)
        hint = f"; did you mean {close!r}?" if close else f": give {', '.join(sorted(known))}"
        raise ConfigError(f"{path}: benchmark {name!r} has the key {lost[0]!r}{hint}")
    try:
        return BenchmarkEntry(**value)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{path}: benchmark {name!r}: {error}") from None
