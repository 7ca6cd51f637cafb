"""A constitution: principles with ids, from one file, for critiques, revisions, prompts and reports."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firsthand.errors import ConfigError, DataError, nearest
from firsthand.system.bounded_toml import read_toml_file

_ID = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")


@dataclass(frozen=True)
class Principle:
    """One principle of a constitution."""

    id: str
    """Stable, in lower case with dots, such as `harm.people`: reports name principles by it."""
    rule: str
    """One sentence."""
    critique: str
    """The question that a critique of an answer asks."""


def load_constitution(file: str = "") -> tuple[Principle, ...]:
    """Return the principles of a TOML file, or of the package's own `principles.toml`.

    DataError if the file is not a list of `[[principle]]`, each with an id of its own, a rule and a critique.
    """
    return _read(Path(file).expanduser() if file else Path(__file__).parent / "principles.toml")


def select_principles(principles: Sequence[Principle], wanted: str = "") -> tuple[Principle, ...]:
    """Return the principles whose ids or beginnings of ids `wanted` names, joined by `+`; all of them if it is empty.

    `harm+honest.facts` selects `harm.people`, the others that begin with `harm.`, and `honest.facts`. ConfigError for a name
    that fits none.
    """
    if not wanted:
        return tuple(principles)
    chosen: dict[str, Principle] = {}
    for name in wanted.split("+"):
        fitting = [each for each in principles if each.id == name or each.id.startswith(f"{name}.")]
        if not fitting:
            close = nearest(name, [each.id for each in principles])
            hint = f"did you mean {close!r}? " if close else ""
            raise ConfigError(
                f"no principle has the id {name!r}; {hint}there are {', '.join(p.id for p in principles)}"
            )
        chosen |= {each.id: each for each in fitting}
    return tuple(chosen.values())


def policy_text(principles: Sequence[Principle]) -> str:
    """Return the principles as lines of a prompt, `[id] rule`."""
    return "\n".join(f"[{each.id}] {each.rule}" for each in principles)


def cited_principles(text: str, principles: Sequence[Principle]) -> list[str]:
    """Return the ids that occur in a text, in the order of the constitution. An id inside a longer one does not count."""
    return [each.id for each in principles if re.search(rf"(?<![\w.-]){re.escape(each.id)}(?![\w-]|\.\w)", text)]


@cache
def _read(path: Path) -> tuple[Principle, ...]:
    try:
        body = read_toml_file(path)
    except OSError as error:
        raise DataError(f"the constitution {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the constitution {path} is no TOML: {error}") from None
    found: dict[str, Principle] = {}
    rows = body.get("principle")
    for row in rows if isinstance(rows, list) else ():
        fields = [row.get(name) if isinstance(row, dict) else None for name in ("id", "rule", "critique")]
        id, rule, critique = fields
        if not (isinstance(id, str) and isinstance(rule, str) and isinstance(critique, str) and rule and critique):
            raise DataError(f"{path}: a principle with id, rule and critique was expected, not {str(row)[:80]!r}")
        if not _ID.fullmatch(id) or id in found:
            why = "occurs twice" if id in found else "is not of the form harm.people"
            raise DataError(f"{path}: the id {id!r} {why}: give each principle an id of its own")
        found[id] = Principle(id, rule, critique)
    if not found:
        raise DataError(f"{path} holds no [[principle]]: give each an id, a rule and a critique")
    return tuple(found.values())
