"""Compares the documents that a benchmark judges with those of an index that its agents search in place of its corpus.

Rankings are scored by the ids of documents, so that an index with other ids would score 0 however well it is searched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import option_values
from firsthand.retrieval.corpus import index_file
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.scorers import ranking
from firsthand.scorers.rankings.retrieved import record_id
from firsthand.system.address_secrets import without_secrets
from firsthand.task import Task


class JudgedIndex(NamedTuple):
    """The relevant documents of a benchmark's tasks beside those of an index."""

    path: str
    relevant: list[str]
    own: dict[str, list[str]]
    """The documents of the index by the ids that they count as: the own one, and that of a record in its file."""

    @property
    def held(self) -> list[str]:
        """The relevant documents that the index has."""
        return [id for id in self.relevant if id in self.own]


def check_judged_indexes(agents: Sequence[Agent], benchmark: Benchmark, tasks: Sequence[Task]) -> None:
    """ConfigError if an index that is searched has no relevant document, or two that may be the same one."""
    for index in _judged_indexes(agents, benchmark, tasks):
        several = next((index.own[id] for id in index.held if len(index.own[id]) > 1), None)
        if several is not None:
            raise ConfigError(
                f"the index {index.path} has {several[0]!r} and {several[1]!r}, and {benchmark.name} judges one of that "
                "name: make an index of the file with its documents alone"
            )
        if not index.held:
            own = next((f"its ids are like {each[0]!r}" for each in index.own.values()), "it is empty")
            raise ConfigError(
                f"the index {index.path} has no document that {benchmark.name} judges relevant, such as "
                f"{index.relevant[0]!r}; {own}: index the benchmark's own documents, or leave index= out"
            )


def protocol_of(agents: Sequence[Agent], benchmark: Benchmark, tasks: Sequence[Task]) -> str:
    """A benchmark's protocol, without the secrets of addresses, and how many of its relevant documents an index lacks."""
    missing = (
        f"; {len(index.relevant) - len(index.held):,} of {len(index.relevant):,} relevant documents are not in {index.path}"
        for index in _judged_indexes(agents, benchmark, tasks)
        if len(index.held) < len(index.relevant)
    )
    return without_secrets("".join([benchmark.protocol, *missing]))


def _judged_indexes(agents: Sequence[Agent], benchmark: Benchmark, tasks: Sequence[Task]) -> Iterator[JudgedIndex]:
    """The indexes that agents are given and that are there, in a benchmark whose main score is one of rankings."""
    if not benchmark.scorers or getattr(benchmark.scorers[0], "__module__", "") != ranking.__name__:
        return
    given = [path for each in agents for path in option_values(each.pattern, each.options, "index")]
    paths = dict.fromkeys(str(path) for path in given if isinstance(path, str | Path) and str(path))
    relevant = _relevant(tasks) if paths else []
    for path in paths:
        if relevant and index_file(path).is_file():
            yield JudgedIndex(path, relevant, _documents(path))


def _relevant(tasks: Sequence[Task]) -> list[str]:
    """The relevant documents of all tasks; none of a task whose judgements cannot be read, which its scores tell."""
    found: dict[str, None] = {}
    for task in tasks:
        try:
            found |= dict.fromkeys(id for id, mark in ranking.judgements(task).items() if mark > 0)
        except ValueError:
            continue
    return list(found)


def _documents(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    with closing(open_index(index_file(path), read_only=True)) as index:
        for id in index.hashes():
            for name in dict.fromkeys((id, record_id(id))):
                found[name].append(id)
    return dict(found)
