"""MMLU-Pro: 14 categories, up to ten options, answered with a chain of thought (Wang et al., 2024).

The examples are the category's validation questions, whose `cot_content` is a worked answer. Categories are strata.
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, letter, make_benchmark, make_task, others
from firsthand.benchmarks.sources.datasets import Rows, Source, load, load_beside, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.written import mmlu_pro_letter, mmlu_pro_tiger

QUERY = "Question:\n{question}\nOptions:\n{options}Answer: Let's think step by step."
INTRODUCTION = (
    "The following are multiple choice questions (with answers) about {category}. Think step by step and then finish your "
    'answer with "the answer is (X)" where X is the correct letter choice.\n'
)
PROTOCOLS = {
    "tiger": Protocol(
        "TIGER-Lab's leaderboard (evaluate_from_local.py): three extraction rules, and a seeded guess if all fail",
        query=QUERY,
        header=INTRODUCTION + "\n\n",
        scorers=(mmlu_pro_tiger, mmlu_pro_letter),
        shots=5,
        examples="validation",
        continuation=None,
        answer=" {worked}",
        stop=("Question:",),
        max_tokens=2048,
    ),
    "lm-eval": Protocol(
        "lm-evaluation-harness, group mmlu_pro: the first 'answer is (X)', and 0 if there is none",
        query=QUERY,
        header=INTRODUCTION,
        scorers=(mmlu_pro_letter, mmlu_pro_tiger),
        shots=5,
        examples="validation",
        continuation=None,
        answer=" {worked}",
        option="{letter}. {stripped}\n",
        stop=("Question:",),
        max_tokens=2048,
    ),
}
STEPS = "A: Let's think step by step. "
OPTIONS = 10


def mmlu_pro(*, protocol: str = "", data: str = "", examples: str = "") -> Benchmark:
    """Return the test split. `data` is a folder with `mmlu_pro_test.jsonl`, or `hub`.

    `examples` is the folder with `mmlu_pro_validation.jsonl`, if it is another.
    """
    chosen = choose("mmlu_pro", PROTOCOLS, protocol)[1]
    test, validation = load(_source("test", 12_032), data), _validation(data, examples)
    shown: dict[str, list[Item]] = {}
    for item in _items(validation, "validation"):
        shown.setdefault(item.fields["category"], []).append(item)
    tasks = [
        make_task(item, chosen, others(shown.get(item.fields["category"], ()), item)) for item in _items(test, "test")
    ]
    return make_benchmark(
        "mmlu_pro",
        PROTOCOLS,
        protocol,
        tasks,
        description="14 categories, up to ten options, with a chain of thought (Wang et al., 2024).",
        origin=f"test split, {test.origin}; examples: validation split, {validation.origin}",
        licence="MIT",
        sha256=test.sha256,
    )


def _validation(data: str, examples: str) -> Rows:
    source = _source("validation", 70)
    return load(source, examples) if examples else load_beside(source, data)


def _source(split: str, rows: int) -> Source:
    return Source(f"mcq/mmlu_pro_{split}.jsonl", rows, "MIT", "TIGER-Lab/MMLU-Pro", "default", split, lambda row: row)


def _items(rows: Rows, split: str) -> list[Item]:
    return [
        _item(row, f"{split}-{row.get('question_id', index)}", rows.where(index)) for index, row in enumerate(rows.rows)
    ]


def _item(row: Json, id: str, where: str) -> Item:
    options, gold = row.get("options"), row.get("answer_index")
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise DataError(f"{where}: the field 'options' is {str(options)[:60]!r}, and a list of texts was expected")
    options = [each for each in options if each != "N/A"]
    if type(gold) is not int or not 0 <= gold < len(options) <= OPTIONS or row.get("answer") != letter(gold):
        raise DataError(
            f"{where}: 'answer_index' is {gold!r} and 'answer' {row.get('answer')!r}: those of one option were expected"
        )
    category = text_field(row, "category", where)
    worked = str(row.get("cot_content", "")).removeprefix(STEPS)
    fields = {"question": text_field(row, "question", where), "category": category, "worked": worked}
    secret = {"options": len(options)}
    return Item(id, fields, tuple(options), gold, secret, {"category": category, "stratum": category})
