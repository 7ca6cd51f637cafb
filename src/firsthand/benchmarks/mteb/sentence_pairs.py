"""Sentence pairs with a similarity of 0 to 5: STS Benchmark and the SemEval tasks of 2012 to 2016."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from firsthand.benchmark import Benchmark, Figures, Scorer
from firsthand.benchmarks.sources.datasets import Source, contents, load, located
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.system.given_data import held
from firsthand.system.packed_text import lines_of
from firsthand.task import Task

STSB = Source(
    path="embed/stsb/sts-test.jsonl",
    rows=1379,
    licence="CC-BY-SA-4.0",
    dataset="mteb/stsbenchmark-sts",
    config="default",
    split="test",
    from_hub=lambda row: {"first": row["sentence1"], "second": row["sentence2"], "similarity": row["score"]},
)
SEMEVAL: dict[int, tuple[str, ...]] = {
    2012: ("MSRpar", "MSRvid", "SMTeuroparl", "OnWN", "SMTnews"),
    2013: ("FNWN", "headlines", "OnWN"),
    2014: ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    2015: ("answers-forums", "answers-students", "belief", "headlines", "images"),
    2016: ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
"""Year -> the sets of its English test."""


@dataclass(frozen=True)
class SentencePair:
    """Two sentences, and how alike people judged them to be, 0 to 5."""

    id: str
    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class PairFile:
    """Pairs that were read, with where they come from."""

    pairs: tuple[SentencePair, ...]
    origin: str
    sha256: str


def stsb_pairs(data: str = "") -> PairFile:
    """Returns the 1,379 test pairs of STS Benchmark (Cer et al., 2017), from sts-test.csv or the hub."""
    path = located("embed/stsb/sts-test.csv", data, STSB.path)
    if path is not None and path.suffix == ".csv":
        raw = contents(path)
        rows = _columns(raw, path, (4, 5, 6))
        return PairFile(tuple(rows), f"the authors' file, {len(rows):,} of {STSB.rows:,} pairs", _sha256(raw))
    read = load(STSB, data)
    pairs = tuple(_from_row(row, f"pair-{at:04d}", read.where(at)) for at, row in enumerate(read.rows))
    return PairFile(pairs, read.origin, read.sha256)


def semeval_pairs(year: int, data: str = "") -> PairFile:
    """Returns the pairs of a year whose similarity was published, of all sets that are there.

    Files are YEAR.SET.test.tsv with similarity and two sentences. MSRvid of 2012 may be missing: its text is Microsoft's.
    """
    if year not in SEMEVAL:
        raise ConfigError(
            f"year is {year}: SemEval's English similarity tasks are those of {min(SEMEVAL)} to {max(SEMEVAL)}"
        )
    pairs: list[SentencePair] = []
    missing, digest = [], hashlib.sha256()
    for name in SEMEVAL[year]:
        path = located(f"embed/sts/{year}.{name}.test.tsv", data) if not data else _beside(data, year, name)
        if path is None:
            missing.append(name)
            continue
        raw = contents(path)
        digest.update(raw)
        pairs += [
            SentencePair(f"{name}-{pair.id}", pair.first, pair.second, pair.similarity)
            for pair in _columns(raw, path, (0, 1, 2))
        ]
    if not pairs:
        raise DataError(
            f"no file {year}.NAME.test.tsv of SemEval's similarity tasks is here: give their folder, as in data=FOLDER"
        )
    left_out = f", without {', '.join(missing)}" if missing else ""
    return PairFile(tuple(pairs), f"SemEval {year}, {len(pairs):,} pairs{left_out}", digest.hexdigest())


def pair_benchmark(
    name: str,
    found: PairFile,
    secrets: dict[str, Json],
    scorers: tuple[Scorer, ...],
    figures: Figures,
    *,
    description: str,
    protocol: str,
) -> Benchmark:
    """Returns the benchmark over those pairs that have a secret, which says what the scorers compare with."""
    tasks = [
        Task(
            id=pair.id,
            prompt=f"How similar are these two sentences?\n{pair.first}\n{pair.second}",
            metadata={"embedding": {"type": "pair", "texts": [pair.first, pair.second]}},
            secret=secrets[pair.id],
        )
        for pair in found.pairs
        if pair.id in secrets
    ]
    return Benchmark(
        name=name,
        tasks=lambda seed: tasks,
        scorers=scorers,
        description=description,
        protocol=f"{found.origin}; {protocol}",
        licence="scores CC BY-SA 4.0, each text its source's",
        figures=figures,
        options={"data": found.origin, "sha256": found.sha256},
    )


def _beside(data: str, year: int, name: str) -> Path | None:
    folder = Path(data).expanduser()
    file = f"{year}.{name}.test.tsv"
    return next(
        (held(each, folder) for each in (folder / file, folder / "embed" / "sts" / file) if each.is_file()), None
    )


def _columns(raw: bytes, path: Path, places: tuple[int, int, int]) -> list[SentencePair]:
    """The pairs of a file of tabs; rows without a similarity are left out, for nobody judged them."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from None
    found = []
    for number, line in enumerate(lines_of(text), 1):
        columns = line.split("\t")
        if not line.strip():
            continue
        if len(columns) <= max(places):
            said = line.rstrip("\r\n")[:60]
            raise DataError(f"{path}, line {number}: a similarity and two sentences were expected, not {said!r}")
        value, first, second = (columns[place].strip() for place in places)
        if value:
            found.append(SentencePair(f"{number:04d}", first, second, _similarity(value, f"{path}, line {number}")))
    return found


def _from_row(row: Json, id: str, where: str) -> SentencePair:
    first, second = row.get("first"), row.get("second")
    if not isinstance(first, str) or not isinstance(second, str):
        raise DataError(f"{where}: texts 'first' and 'second' were expected, not {str(row)[:60]!r}")
    return SentencePair(id, first, second, _similarity(row.get("similarity"), where))


def _similarity(value: object, where: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 5:
        raise DataError(f"{where}: the similarity is {str(value)[:40]!r}, and 0 to 5 was expected")
    return number


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
