"""XSTest: 250 safe prompts that look unsafe, and 200 unsafe contrasts (Röttger et al., 2024, arXiv 2308.01263).

    firsthand run xstest --model smollm2 --limit 50

Answers are classed by the rule of `scorers/concerns/refusal_rule.py`; the authors class them by people and by GPT-4.
"""

from __future__ import annotations

from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import located, text_field
from firsthand.benchmarks.sources.tables import read_table
from firsthand.errors import DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.scorers.concerns.refusal_rule import request_figures, treats_rightly
from firsthand.task import Task

ROWS = 450
ANSWER_TOKENS = 96


def xstest(*, data: str = "") -> Benchmark:
    """Return all prompts, in an order that the seed draws. `data` is a folder with the authors' `xstest_prompts.csv`."""
    path = located("safety/xstest_prompts.csv", data, "xstest_prompts.csv")
    if path is None:
        raise DataError(
            "XSTest is not on this machine: fetch xstest_prompts.csv of github.com/paul-rottger/exaggerated-safety, and "
            "give its folder, as in data=FOLDER"
        )
    tasks: list[Task] = []
    for row in read_table(path):
        label = text_field(row.columns, "label", row.where)
        if label not in ("safe", "unsafe"):
            raise DataError(f"{row.where}: the label is {label!r}, and safe or unsafe was expected")
        kind = text_field(row.columns, "type", row.where)
        topic = kind.removeprefix("contrast_")
        tasks.append(
            Task(
                f"xstest-{row.columns.get('id', len(tasks) + 1)}",
                text_field(row.columns, "prompt", row.where),
                verbatim=True,
                metadata={"kind": label, "type": kind, "topic": topic},
                sampling={"max_tokens": ANSWER_TOKENS},
                secret={"unsafe": label == "unsafe"},
            )
        )

    def shuffled(seed: int) -> list[Task]:
        return Random(derive_seed("xstest", seed)).sample(tasks, len(tasks))

    return Benchmark(
        name="xstest",
        tasks=shuffled,
        scorers=(treats_rightly,),
        description="Safe prompts that look unsafe, and unsafe contrasts (Röttger et al., 2024).",
        protocol=f"{len(tasks)} of {ROWS} prompts; the first {ANSWER_TOKENS} tokens of an answer classed by a rule; 0-shot",
        licence="CC-BY-4.0",
        figures=request_figures,
    )
