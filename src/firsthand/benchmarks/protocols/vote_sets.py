"""Benchmarks of human votes: pairs of answers to judge under a judge protocol, each with people's votes.

`firsthand run judge_pandalm --pattern judge` evaluates a model as a judge; `firsthand agreement RUN` prints its agreement
with people. Pairs of one question are a cluster. The pattern `direct` sees each pair in one order, as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source, contents, fetch, located
from firsthand.errors import ConfigError, DataError, unknown
from firsthand.message import Json
from firsthand.patterns.parts.judge_protocols import judge_protocol, show
from firsthand.scorers.human_votes import human_agreement, majority_agreement, order_consistency
from firsthand.task import Task

MAX_CHARS = 24_000
SAMPLE_SEED = 0


@dataclass(frozen=True)
class AnswerPair:
    """A question, two answers, and people's votes: `A`, `B` or `tie`."""

    id: str
    question: str
    answer_a: str
    answer_b: str
    votes: tuple[str, ...]
    about: Mapping[str, str]
    """Further metadata, such as the source."""


@dataclass(frozen=True)
class VoteProtocol:
    """A judge protocol, and the published one it reproduces."""

    reproduces: str
    judge: str


def vote_benchmark(
    name: str,
    protocols: Mapping[str, VoteProtocol],
    protocol: str,
    pairs: Sequence[AnswerPair],
    *,
    description: str,
    origin: str,
    licence: str,
    sha256: str,
    sample: int = 0,
) -> Benchmark:
    """Return the benchmark over these pairs, or a seeded sample of them, under the named protocol."""
    if not 0 <= sample <= len(pairs):
        raise ConfigError(
            f"sample is {sample}: {name} has {len(pairs)} pairs, so give a number up to that, or 0 for all"
        )
    if sample:
        drawn = sorted(Random(SAMPLE_SEED).sample(range(len(pairs)), sample))
        pairs, origin = [pairs[index] for index in drawn], f"{origin}, a seeded sample of {sample}"
    default = next(iter(protocols))
    if (protocol or default) not in protocols:
        raise unknown(f"protocol of {name}", protocol, protocols, see="firsthand list benchmarks")
    chosen = protocols[protocol or default]
    tasks = [_task(pair, chosen) for pair in pairs]
    return Benchmark(
        name=name if protocol in ("", default) else f"{name}@{protocol}",
        tasks=lambda seed: tasks,
        scorers=(human_agreement, majority_agreement, order_consistency),
        description=description,
        protocol=f"{origin}; judge protocol {chosen.judge}: {chosen.reproduces}; run it with --pattern judge",
        licence=licence,
        options={"data": origin, "sha256": sha256, "protocol": protocol or default},
    )


def read_rows(source: Source, data: str) -> tuple[list[Json], Path, str]:
    """Return the objects in the source's JSON list or JSONL file, the file, and its SHA-256.

    The file is in the folder `data`, in `$FIRSTHAND_DATA`, or on the hub, from where it is fetched on first use.
    """
    file = located(source.path, data, *source.also)
    if file is None and data == "packaged":
        raise DataError(f"{source.path} is not packaged: give data=FOLDER, or data=hub to fetch {source.dataset}")
    return read_list(file or fetch(source))


def read_list(file: Path) -> tuple[list[Json], Path, str]:
    """Return the objects in a JSON list or JSONL file, the file, and its SHA-256."""
    raw = contents(file)
    try:
        text = raw.decode("utf-8-sig")
        rows = (
            json.loads(text)
            if text.lstrip()[:1] == "["
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is neither a JSON list nor JSONL: {str(error)[:120]}") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} is not a list of objects, one per pair: is it the right file?")
    return rows, file, hashlib.sha256(raw).hexdigest()


def pairs_of(rows: Sequence[Json], file: Path, read: Callable[[Json, int], AnswerPair]) -> list[AnswerPair]:
    """Convert rows to pairs; DataError with file and row if one is malformed."""
    pairs = []
    for index, row in enumerate(rows):
        try:
            pairs.append(read(row, index))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{file}, row {index + 1}: not a pair with votes ({type(error).__name__}: {error})"
            ) from None
    return pairs


def answer_text(value: object) -> str:
    """Return an answer as text: PandaLM's file stores the answer `True` as a boolean."""
    if not isinstance(value, str | bool | int | float):
        raise ValueError(f"{str(value)[:40]!r} is not text")
    return str(value)


def _task(pair: AnswerPair, chosen: VoteProtocol) -> Task:
    fields = {"question": pair.question, "answer_a": pair.answer_a, "answer_b": pair.answer_b}
    protocol = judge_protocol(chosen.judge)
    shown = show(protocol, fields, max_chars=MAX_CHARS)
    text = "\n\n".join(filter(None, [shown.system, shown.text, "" if protocol.reasoning else protocol.ask]))
    question = hashlib.sha256(pair.question.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Task(
        id=pair.id,
        prompt=text,
        verbatim=True,
        metadata={**pair.about, "cluster": question, "judge": {"protocol": chosen.judge, "fields": fields}},
        secret={"votes": list(pair.votes)},
    )
