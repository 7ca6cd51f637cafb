"""Filters, sorts and counts the runs of a data home for the Studio's first page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from firsthand.errors import ConfigError
from firsthand.runs.index import RunInfo
from firsthand.studio.typed_filter import Kind, Term, holds, parse_filter

PAGE = 100
FIELDS: dict[str, Kind] = {
    "id": "text",
    "status": "text",
    "benchmark": "text",
    "model": "text",
    "pattern": "text",
    "command": "text",
    "note": "text",
    "score": "number",
    "tokens": "number",
    "errors": "number",
    "attempts": "number",
    "steps": "number",
}
FLAGS = {"has": ("error", "score", "curves", "problem", "note"), "is": ("running", "done", "interrupted")}
_VALUES: dict[str, Callable[[RunInfo], Any]] = {
    "id": lambda info: info.id,
    "status": lambda info: info.status,
    "benchmark": lambda info: info.benchmarks,
    "model": lambda info: info.models,
    "pattern": lambda info: info.patterns,
    "command": lambda info: " ".join(info.command),
    "score": lambda info: max((each.mean for each in info.scores if each.mean is not None), default=None),
    "tokens": lambda info: info.tokens,
    "errors": lambda info: info.num_errors,
    "attempts": lambda info: info.num_traces,
    "steps": lambda info: info.num_steps,
    "created": lambda info: info.created_at,
}
_FLAGS: dict[str, Callable[[RunInfo], bool]] = {
    "has:error": lambda info: info.num_errors > 0,
    "has:score": lambda info: any(each.mean is not None for each in info.scores),
    "has:curves": lambda info: info.num_steps > 0,
    "has:problem": lambda info: info.problem is not None,
    "is:running": lambda info: info.status == "running",
    "is:done": lambda info: info.status == "done",
    "is:interrupted": lambda info: info.status == "interrupted",
}
SORTABLE = tuple(name for name in _VALUES if name not in ("benchmark", "model", "pattern", "command"))


@dataclass(frozen=True)
class RunPage:
    """A part of the runs that a filter finds."""

    rows: tuple[RunInfo, ...]
    total: int
    start: int
    facets: dict[str, list[tuple[str, int]]]
    """Field -> its values with the number of runs of each, the most frequent first."""

    @property
    def next_start(self) -> int | None:
        """The start of the next page; None after the last."""
        after = self.start + len(self.rows)
        return after if self.rows and after < self.total else None


def run_page(
    infos: Sequence[RunInfo],
    text: str = "",
    sort: str = "",
    start: int = 0,
    limit: int = PAGE,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> RunPage:
    """The runs that a filter finds, the newest first unless `sort` names a column, with a minus for the highest first.

    `notes` are people's words on runs, by id, which the filter finds too.
    ConfigError if filter or column is not understood.
    """
    name = sort.removeprefix("-")
    if name and name not in SORTABLE:
        raise ConfigError(f"runs cannot be sorted by {sort[:40]!r}: they can by {', '.join(SORTABLE)}")
    terms = parse_filter(text, FIELDS, FLAGS)
    found = [info for info in infos if all(_fulfils(info, term, notes.get(info.id, "")) for term in terms)]
    found.sort(key=lambda info: (info.created_at, info.id), reverse=True)
    if name:
        known = [info for info in found if _VALUES[name](info) is not None]
        known.sort(key=_VALUES[name], reverse=sort.startswith("-"))
        found = known + [info for info in found if _VALUES[name](info) is None]
    start = max(0, start)
    return RunPage(tuple(found[start : start + limit]), len(found), start, _facets(found))


def _fulfils(info: RunInfo, term: Term, note: str) -> bool:
    if not term.field:
        words = (info.id, *info.benchmarks, *info.models, *info.patterns, info.status, note)
        return holds(term, words)
    if term.field == "note":
        return holds(term, note)
    if (term.field, term.value) == ("has", "note"):
        return bool(note) != term.is_negated
    if term.field in FLAGS:
        return _FLAGS[f"{term.field}:{term.value}"](info) != term.is_negated
    return holds(term, _VALUES[term.field](info))


def _facets(infos: Sequence[RunInfo]) -> dict[str, list[tuple[str, int]]]:
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("status", "benchmark", "model", "pattern")}
    for info in infos:
        for name, counter in counted.items():
            value = _VALUES[name](info)
            counter.update({value} if isinstance(value, str) else set(value))
    return {
        name: sorted(counter.items(), key=lambda each: (-each[1], each[0]))[:30] for name, counter in counted.items()
    }


def earlier_run(info: RunInfo, infos: Iterable[RunInfo]) -> RunInfo | None:
    """The last run before this one in which an agent of the same name attempted the same benchmark; None without one."""
    own = {(each.benchmark, each.agent) for each in info.scores}
    before = [
        each
        for each in infos
        if each.created_at < info.created_at and own & {(score.benchmark, score.agent) for score in each.scores}
    ]
    return max(before, key=lambda each: each.created_at, default=None)
