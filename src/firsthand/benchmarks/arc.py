"""What ARC-Easy and ARC-Challenge share: the files, the layout of a question, the hub's columns (Clark et al., 2018).

The files of the same names in mosaicml/llm-foundry differ from the golden requests of OLMES in 82 and 26 rows: 71 and 19
have another answer index alone, all in NYSEDREGENTS questions, and the rest have altered choices. These files are known
by their SHA-256, such rows are replaced by those of OLMES, and the protocol says so.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.data import Rows, Source, load, read, text_field
from firsthand.errors import DataError
from firsthand.evals.choice import acc, acc_norm
from firsthand.message import Json
from firsthand.task import Task

PREFIX = "Question: "
FOUNDRY_SHA256 = {
    "arc_easy": "d2d12e59543acf9a5ef6079634a72b30215e36c2fd4236fff3bc855d287b87f5",
    "arc_challenge": "1ae3aeedf1951d881cbd5c2e3a31e78a1993d251479afbe4cb413b6707244636",
}
"""Of the files in mosaicml/llm-foundry, scripts/eval/local_data."""


def make_benchmark(name: str, config: str, rows: int, data: str) -> Benchmark:
    """The benchmark over the test split of one of ARC's two sets."""
    source = Source(
        path=f"mcq/{name}.jsonl",
        rows=rows,
        licence="CC-BY-SA-4.0",
        dataset="allenai/ai2_arc",
        config=config,
        split="test",
        from_hub=from_hub,
    )
    test = corrected(name, load(source, data), source)
    tasks = [make_task(index, row, test) for index, row in enumerate(test.rows)]
    return Benchmark(
        name=name,
        tasks=lambda seed: tasks,
        scorers=(acc, acc_norm),
        description=f"{config}: grade-school science questions, multiple choice (Clark et al., 2018).",
        protocol=(
            f"test split, {test.origin}; 0-shot; 'Question: ...\\nAnswer:' continued by ' choice'; acc: highest log-prob; "
            "acc_norm: highest log-prob per character of the choice, as in lm-evaluation-harness"
        ),
        licence=source.licence,
        options={"data": test.origin, "sha256": test.sha256},
    )


def corrected(name: str, test: Rows, source: Source) -> Rows:
    """The rows, put right if the file is llm-foundry's."""
    if test.sha256 != FOUNDRY_SHA256[name]:
        return test
    path = Path(__file__).parent / "slices" / f"{name}_corrections.jsonl.gz"
    right = {each["row"]: each for each in read(path, source, "packaged").rows}
    rows = tuple(right.get(index, row) for index, row in enumerate(test.rows))
    return replace(test, rows=rows, origin=f"{test.origin}, {len(right)} of them corrected")


def make_task(index: int, row: Json, test: Rows) -> Task:
    """The task of a row {query, choices, gold}."""
    where = test.where(index)
    query, choices, gold = text_field(row, "query", where), row.get("choices"), row.get("gold")
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= 26
        or not all(isinstance(c, str) and c for c in choices)
    ):
        raise DataError(f"{where}: the field 'choices' is {str(choices)[:60]!r}, and 2 to 26 texts were expected")
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise DataError(
            f"{where}: the field 'gold' is {gold!r}, and an index from 0 to {len(choices) - 1} was expected"
        )
    question = query.removesuffix("\nAnswer:").removeprefix(PREFIX)
    return Task(
        id=f"test-{index:04d}",
        prompt=question,
        choices=tuple(f" {choice}" for choice in choices),
        context=f"{PREFIX}{question}\nAnswer:",
        hint="a letter",
        secret={"gold": gold, "answer": chr(ord("A") + gold)},
    )


def from_hub(row: Json) -> Json:
    """A row of allenai/ai2_arc as a row of our file."""
    choices = list(row["choices"]["text"])
    gold = list(row["choices"]["label"]).index(row["answerKey"])
    return {"query": PREFIX + row["question"], "choices": choices, "gold": gold}
