"""Protocols and benchmark factory for competition mathematics, whose answers are expressions or numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task, packaged_examples
from firsthand.benchmarks.sources.datasets import Source, load, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.patterns.parts.boxes import last_boxed
from firsthand.scorers.symbolic import boxed, minerva

STEP_BY_STEP = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


def in_a_box(reproduces: str, max_tokens: int, temperature: float | None = 0.0) -> Protocol:
    """Return a zero-shot protocol in the chat template: reasoning, then the answer in a box."""
    return Protocol(
        reproduces,
        query=STEP_BY_STEP,
        scorers=(boxed,),
        continuation=None,
        chat=True,
        max_tokens=max_tokens,
        temperature=temperature,
    )


def as_minerva(reproduces: str) -> Protocol:
    """Return the protocol that continues Minerva's four worked examples of MATH."""
    return Protocol(
        reproduces,
        query="Problem:\n{question}\n\nSolution:",
        scorers=(minerva, boxed),
        shots=4,
        examples="math_minerva",
        continuation=None,
        stop=("Problem:",),
        max_tokens=1024,
    )


def mathematics(
    name: str,
    protocols: Mapping[str, Protocol],
    protocol: str,
    source: Source,
    data: str,
    description: str,
    answer: Callable[[Json, str], str] | None = None,
) -> Benchmark:
    """Return the benchmark over rows {problem, answer, ...}; `answer` reads the reference if it is not in that column."""
    chosen = choose(name, protocols, protocol)[1]
    rows = load(source, data)
    examples = packaged_examples(chosen.examples) if chosen.shots else ()
    tasks = []
    for index, row in enumerate(rows.rows):
        where = rows.where(index)
        reference = (answer or stated)(row, where)
        about: Json = {key: row[key] for key in ("level", "subject", "type") if key in row}
        if subject := row.get(
            "subject", row.get("type")
        ):  # seven fixed subjects; the level is a covariate, see --by level
            about["stratum"] = str(subject)
        item = Item(
            f"{source.split}-{index:04d}",
            {"question": text_field(row, "problem", where)},
            secret={"answer": reference},
            metadata=about,
        )
        tasks.append(make_task(item, chosen, examples))
    return make_benchmark(
        name,
        protocols,
        protocol,
        tasks,
        description=description,
        origin=f"{source.split} split, {rows.origin}",
        licence=source.licence,
        sha256=rows.sha256,
    )


def stated(row: Json, where: str) -> str:
    """Return the reference in the column `answer`, a text or a number."""
    value = row.get("answer")
    return str(value) if type(value) is int else text_field(row, "answer", where)


def solved(row: Json, where: str) -> str:
    """Return the reference in the last box of the column `solution`."""
    found = last_boxed(text_field(row, "solution", where))
    if found is None:
        raise DataError(f"{where}: the solution has no \\boxed{{}}")
    return found
