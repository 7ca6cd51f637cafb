"""IFEval: prompts with instructions that a program can verify (Zhou et al., 2023)."""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Source, load, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.instructions import check, instruction_loose, instruction_strict, prompt_loose, prompt_strict

PROTOCOLS = {
    "0shot": Protocol(
        "the paper's and lm-evaluation-harness's ifeval with the chat template: strict and loose, by prompt and instruction",
        query="{question}",
        scorers=(prompt_strict, instruction_strict, prompt_loose, instruction_loose),
        continuation=None,
        chat=True,
        max_tokens=1280,
    ),
    "lm-eval-raw": Protocol(
        "lm-evaluation-harness's ifeval without a chat template",
        query="{question}",
        scorers=(prompt_strict, instruction_strict, prompt_loose, instruction_loose),
        continuation=None,
        max_tokens=1280,
    ),
}
SOURCE = Source(
    path="ifeval/input_data.jsonl",
    rows=541,
    licence="Apache-2.0",
    dataset="google/IFEval",
    config="default",
    split="train",
    from_hub=lambda row: row,
)


def ifeval(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the benchmark over all prompts. `data` is a folder with the file, or `hub`; see `sources/datasets.py`."""
    chosen = choose("ifeval", PROTOCOLS, protocol)[1]
    rows = load(SOURCE, data)
    tasks = [make_task(_item(row, rows.where(index)), chosen) for index, row in enumerate(rows.rows)]
    return make_benchmark(
        "ifeval",
        PROTOCOLS,
        protocol,
        tasks,
        description="Prompts with instructions that a program can verify (Zhou et al., 2023).",
        origin=rows.origin,
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )


def _item(row: Json, where: str) -> Item:
    names, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list) or not 1 <= len(names) == len(arguments):
        raise DataError(f"{where}: 'instruction_id_list' and 'kwargs' are not lists of equal length")
    instructions = []
    for name, given in zip(names, arguments, strict=True):
        if not isinstance(given, dict):
            raise DataError(f"{where}: the arguments of {name!r} are {given!r}, and an object was expected")
        given = {key: value for key, value in given.items() if value is not None}  # the hub's rows list every argument
        check(str(name), given, where)
        instructions.append([name, given])
    return Item(
        f"key-{row.get('key')}",
        {"question": text_field(row, "prompt", where)},
        secret={"instructions": instructions},
        metadata={"instructions": names},
    )
