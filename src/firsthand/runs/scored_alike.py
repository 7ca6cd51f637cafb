"""Tells if scores of one name in two runs were given by the same scorers, and attempts made by the same agents' code.

A run keeps a digest of each scorer of its benchmarks and of each agent's pattern, tools and guards (`about["scorers"]` and
`about["code"]`), and the scorer of later scores in words. Runs of before 0.30.0 keep neither digest: of them the SHA-256 of
the user's own files and the judges in the benchmarks' names are compared, and a difference there is no more than a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from firsthand.errors import ConfigError
from firsthand.message import Json, canonical
from firsthand.runs.later_scores import VERSION, unversioned
from firsthand.runs.run_folder import Run
from firsthand.system.option_spec import Spec, parse_spec

_ADDRESS = re.compile(r"://[^/\s)]+")
_LOCAL = re.compile(r"local:[0-9a-f]{16}")
_INNER = ("sampling", "fingerprint")
MAX_WORDS = 160
"""Characters of a scorer's words that are shown."""


@dataclass(frozen=True)
class OtherScorers:
    """Scores of one name that two runs do not have from the same scorer, or perhaps not."""

    benchmark: str
    score: str
    why: str
    """In words: the two scorers, or why it is not known that they are one."""
    is_sure: bool = True
    """False if one of the runs does not tell, and there is reason for doubt."""

    def __str__(self) -> str:
        told = "are" if self.is_sure else "may be"
        return f"{self.benchmark}, {self.score}: the scores {told} of a different scorer in each run ({self.why})"

    def to_json(self) -> Json:
        """Return a JSON object."""
        return {"benchmark": self.benchmark, "score": self.score, "why": self.why, "sure": self.is_sure}


class _Given(NamedTuple):
    """A scorer: its digest, empty for one that is known by its words alone, and its words."""

    digest: str
    words: str


def other_scorers(run_a: Run, run_b: Run, scores: Iterable[tuple[str, str]]) -> tuple[OtherScorers, ...]:
    """Those of the scores, each a benchmark and a name, that the two runs do not have from the same scorer."""
    if run_a.path == run_b.path:
        return ()
    named = [(benchmark, score, _difference(run_a, run_b, benchmark, score)) for benchmark, score in scores]
    return tuple(OtherScorers(benchmark, score, *found) for benchmark, score, found in named if found is not None)


def other_scorers_among(runs: Sequence[Run], scores: Iterable[tuple[str, str]]) -> tuple[OtherScorers, ...]:
    """The same for several runs that have the score: the others are compared with the first that tells its scorers."""
    found: dict[tuple[str, str], OtherScorers] = {}
    for benchmark, score in scores:
        having = [
            run for run in runs if any(each.name == score for trace in run.samples(benchmark) for each in trace.scores)
        ]
        first = next((run for run in having if _givers(run, benchmark, score) is not None), next(iter(having), None))
        for run in having:
            for each in () if first is None else other_scorers(first, run, [(benchmark, score)]):
                known = found.setdefault((benchmark, score), each)
                if each.is_sure and not known.is_sure:
                    found[benchmark, score] = each
    return tuple(found.values())


def same_code(run_a: Run, run_b: Run, agent_a: str, agent_b: str) -> bool:
    """True if nothing tells that the code of the agents, or a file of the user's that they name, differs in the runs."""
    digests = _part(run_a, "code").get(agent_a), _part(run_b, "code").get(agent_b)
    if None not in digests and digests[0] != digests[1]:
        return False
    others = [*(set(run_a.agents()) - {agent_a}), *(set(run_b.agents()) - {agent_b})]
    files_a, files_b = _part(run_a, "files"), _part(run_b, "files")
    for kind in (files_a.keys() & files_b.keys()) - {"benchmark"}:
        for path in _unlike(files_a[kind], files_b[kind]):
            if path in agent_a or path in agent_b or not any(path in name for name in others):
                return False
    return True


def other_settings(run_a: Run, run_b: Run, agent: str) -> tuple[str, ...]:
    """Return a line for each setting by which the agent of that name differs in the two runs; none in one run."""
    a, b = run_a.agents().get(agent), run_b.agents().get(agent)
    if run_a.path == run_b.path or a is None or b is None:
        return ()
    a, b = ({**each, **(each.get("sampling") or {})} for each in (a, b))
    names = [name for name in dict.fromkeys([*a, *b]) if name not in _INNER and a.get(name) != b.get(name)]
    found = [f"{agent} differs: {name}: {_value(a.get(name))} and {_value(b.get(name))}" for name in names]
    if "model" not in names and a.get("fingerprint") != b.get("fingerprint"):
        found.append(
            f"{agent} differs: model {_value(a.get('model'))} of other content, device or version of firsthand"
        )
    return tuple(found)


def _difference(run_a: Run, run_b: Run, benchmark: str, score: str) -> tuple[str, bool] | None:
    """Why a score is not of the same scorer in both runs, and if that is sure; None if it is."""
    a, b = _givers(run_a, benchmark, score), _givers(run_b, benchmark, score)
    if a is None or b is None:
        doubt = _doubt(run_a, run_b, benchmark)
        return None if doubt is None else (doubt, False)
    digests = {each.digest for each in (*a, *b)}
    if "" not in digests:
        is_same = {each.digest for each in a} == {each.digest for each in b}
        is_sure = not _is_one_judge(a, b, run_a.about.get("firsthand") == run_b.about.get("firsthand"))
    else:
        words = {each.words for each in a}, {each.words for each in b}
        plain = [{unversioned(each) for each in side} for side in words]
        is_same = words[0] == words[1] or (digests != {""} and plain[0] == plain[1])
        is_sure = digests == {""} and (plain[0] != plain[1] or all(VERSION in each for side in words for each in side))
    return None if is_same else (_why(a, b), is_sure)


def _is_one_judge(a: Sequence[_Given], b: Sequence[_Given], one_version: bool) -> bool:
    """True for judges of one name and rubric at different addresses, or, locally, under different versions of firsthand."""

    def loose(given: _Given) -> str:
        words = _ADDRESS.sub("://", given.words)
        return words if one_version else _LOCAL.sub("local:", words)

    are_judges = all(each.words.startswith("judge ") for each in (*a, *b))
    return are_judges and set(map(loose, a)) == set(map(loose, b))


def _givers(run: Run, benchmark: str, score: str) -> list[_Given] | None:
    """The scorers of a run that may have given the score; None if the run does not tell."""
    kept = _part(run, "scorers").get(benchmark)
    entries = [each for each in kept if isinstance(each, dict)] if isinstance(kept, list) else []
    own = [(each.get("names") or (), _Given(str(each.get("digest")), str(each.get("words")))) for each in entries]
    if named := [given for names, given in own if score in names]:
        return named
    if (words := run.score_names().get(score)) is not None:
        return [_Given("", words)]
    return None if kept is None else [given for _, given in own]


def _why(a: Sequence[_Given], b: Sequence[_Given]) -> str:
    """The scorers of two sides, or only those that are not on both."""
    only_a, only_b = [each for each in a if each not in b], [each for each in b if each not in a]
    told_a, told_b = (", ".join(unversioned(each.words) for each in side) or "none" for side in (only_a, only_b))
    if told_a == told_b:
        return f"{_cut(told_a)}, whose code or options have changed"
    return f"{_cut(told_a)} and {_cut(told_b)}"


def _value(value: object) -> str:
    return _cut(value if isinstance(value, str) else "none" if value is None else canonical(value))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"


def _doubt(run_a: Run, run_b: Run, benchmark: str) -> str | None:
    """Why runs that do not tell their scorers may have other ones; None without a reason."""
    named = [_named(run, benchmark) for run in (run_a, run_b)]
    judges = [_judge(text) for text in named]
    if judges[0] != judges[1]:
        return f"judge {judges[0] or 'not named'} and {judges[1] or 'not named'}"
    if not any(mark in text for text in named for mark in (".py", ".toml")):
        return None
    files_a, files_b = (_dict(_part(run, "files").get("benchmark")) for run in (run_a, run_b))
    why = "a run of before 0.30.0 does not tell its scorers, and"
    if changed := _unlike(files_a, files_b):
        return f"{why} {_cut(', '.join(changed))} has changed"
    if not files_a.keys() & files_b.keys():
        return f"{why} {_cut(named[0] or benchmark)} and {_cut(named[1] or benchmark)} may name different ones"
    return None


def _named(run: Run, benchmark: str) -> str:
    """The text that named the benchmark when the run was made, or those of all own files, one of which may have."""
    texts = run.config.get("benchmarks")
    listed = [str(each) for each in texts] if isinstance(texts, list | tuple) else []
    of_ours = [each for each in listed if benchmark.startswith(_parsed(each).name.partition("@")[0])]
    return of_ours[0] if of_ours else " ".join(each for each in listed if ".py" in each or ".toml" in each)


def _judge(text: str) -> str:
    return _parsed(text).options.get("judge", "")


def _parsed(text: str) -> Spec:
    try:
        return parse_spec(text)
    except ConfigError:
        return Spec(text)


def _unlike(a: object, b: object) -> list[str]:
    """The keys of two mappings that are in both with different values."""
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return []
    return [key for key, value in a.items() if key in b and b[key] != value]


def _part(run: Run, name: str) -> Json:
    """A part of what the run says of its making; empty in runs that were made without it."""
    return _dict(run.about.get(name))


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}
