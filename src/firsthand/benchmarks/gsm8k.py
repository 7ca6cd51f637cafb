"""GSM8K: grade-school maths word problems with a numeric answer (Cobbe et al., 2021)."""

from __future__ import annotations

import re
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import (
    HARNESS_TOKENS,
    Item,
    Protocol,
    choose,
    make_benchmark,
    make_task,
    packaged_examples,
)
from firsthand.benchmarks.sources.datasets import Rows, Source, load, load_beside, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.match import flexible, strict
from firsthand.scorers.written import gsm8k_cot_strict, gsm8k_flexible, gsm8k_strict
from firsthand.task import Task

_FINAL = re.compile(r"#### *(-?[\d.,]+)\s*$")
EXAMPLES = 8
HARNESS_SEED = 1234
PROTOCOLS = {
    "open": Protocol(
        "no published number: the question as it is, for any pattern; flexible and strict as in lm-evaluation-harness",
        query="{question}",
        scorers=(flexible, strict),
        continuation=None,
        chat=True,
    ),
    "lm-eval-5shot-strict": Protocol(
        "lm-evaluation-harness, task gsm8k, strict-match: five train examples, drawn anew for each question (seed 1234)",
        scorers=(gsm8k_strict, gsm8k_flexible),
        shots=5,
        examples="train",
        continuation=None,
        stop=("Question:", "</s>", "<|im_end|>"),
        max_tokens=HARNESS_TOKENS,
    ),
    "lm-eval-5shot-flexible": Protocol(
        "lm-evaluation-harness, task gsm8k, flexible-extract: five train examples, drawn anew for each question",
        scorers=(gsm8k_flexible, gsm8k_strict),
        shots=5,
        examples="train",
        continuation=None,
        stop=("Question:", "</s>", "<|im_end|>"),
        max_tokens=HARNESS_TOKENS,
    ),
    "cot-8shot": Protocol(
        "Wei et al. (2022), eight worked examples, as lm-evaluation-harness's task gsm8k_cot has them, flexible-extract",
        query="Q: {question}\nA:",
        scorers=(gsm8k_flexible, gsm8k_cot_strict),
        shots=8,
        examples="gsm8k_cot",
        continuation=None,
        stop=("Q:", "</s>", "<|im_end|>"),
        max_tokens=HARNESS_TOKENS,
    ),
    "olmes-8shot": Protocol(
        "OLMES gsm8k: eight worked examples whose answers end in 'So the answer is N.'",
        scorers=(gsm8k_flexible,),
        shots=8,
        examples="gsm8k_olmes",
        continuation=None,
        stop=("Question:", "</s>", "<|im_end|>", "\n\n"),
    ),
}


def gsm8k(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with the files, `packaged` or `hub`; see `sources/datasets.py`."""
    name, chosen = choose("gsm8k", PROTOCOLS, protocol)
    test = load(_source("test", 1319), data)
    is_open = name == "gsm8k"
    train = load_beside(_source("train", 7473), data) if is_open or chosen.examples == "train" else None
    if train is None or not is_open:
        return make_benchmark(
            "gsm8k",
            PROTOCOLS,
            protocol,
            _prompted(test, train, chosen),
            description="Grade-school maths word problems (Cobbe et al., 2021).",
            origin=f"test split, {test.origin}" + ("" if train is None else f"; train split, {train.origin}"),
            licence="MIT",
            sha256=test.sha256,
        )
    examples = [_example(row, train.where(i)) for i, row in enumerate(train.rows[: 2 * EXAMPLES])]
    tasks = [_task(i, row, test, examples) for i, row in enumerate(test.rows)]
    return Benchmark(
        name="gsm8k",
        tasks=lambda seed: tasks,
        scorers=chosen.scorers,
        description="Grade-school maths word problems (Cobbe et al., 2021).",
        protocol=(
            f"test split, {test.origin}; "
            f"worked examples: the first {min(len(examples), EXAMPLES)} of train ({train.origin}); "
            "flexible: the last number of the answer; strict: stated as '#### number', as in lm-evaluation-harness"
        ),
        licence="MIT",
        options={"data": test.origin, "sha256": test.sha256},
    )


def _prompted(test: Rows, train: Rows | None, chosen: Protocol) -> list[Task]:
    """Return the tasks with their examples; train examples are drawn per question as lm-evaluation-harness draws them."""
    draw = Random(HARNESS_SEED)
    tasks = []
    for index, row in enumerate(test.rows):
        where = test.where(index)
        if train is not None:
            examples = tuple(
                Item("example", _example(train.rows[place], train.where(place)))
                for place in _drawn(draw, train, row, chosen.shots)
            )
        else:
            examples = packaged_examples(chosen.examples)
        secret = {"answer": _gold(row, where), "solution": row["answer"]}
        item = Item(f"test-{index:04d}", {"question": text_field(row, "question", where)}, secret=secret)
        tasks.append(make_task(item, chosen, examples, hint="a number"))
    return tasks


def _drawn(draw: Random, train: Rows, row: Json, shots: int) -> list[int]:
    """Return the places of a question's train examples: drawn of all, or of all others where that drew the question."""
    found = draw.sample(range(len(train.rows)), min(shots, len(train.rows)))
    if all(train.rows[place].get("question") != row.get("question") for place in found):
        return found
    others = [place for place, each in enumerate(train.rows) if each.get("question") != row.get("question")]
    return draw.sample(others, min(shots, len(others)))


def _source(split: str, rows: int) -> Source:
    return Source(
        path=f"math/gsm8k_{split}.jsonl",
        rows=rows,
        licence="MIT",
        dataset="openai/gsm8k",
        config="main",
        split=split,
        from_hub=_from_hub,
    )


def _from_hub(row: Json) -> Json:
    return {"question": row["question"], "answer": row["answer"]}


def _example(row: Json, where: str) -> Json:
    _gold(row, where)
    return {"question": text_field(row, "question", where), "answer": row["answer"]}


def _gold(row: Json, where: str) -> str:
    """Return the number after `####`."""
    found = _FINAL.search(text_field(row, "answer", where)[-400:])
    if found is None:
        raise DataError(f"{where}: the answer does not end with '#### number'")
    return found.group(1).replace(",", "").rstrip(".")


def _task(index: int, row: Json, test: Rows, examples: list[Json]) -> Task:
    where = test.where(index)
    question = text_field(row, "question", where)
    return Task(
        id=f"test-{index:04d}",
        prompt=question,
        hint="a number",
        metadata={"examples": [each for each in examples if each["question"] != question][:EXAMPLES]},
        secret={"answer": _gold(row, where), "solution": row["answer"]},
    )
