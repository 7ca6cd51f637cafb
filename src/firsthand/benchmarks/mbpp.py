"""MBPP: basic Python problems with three tests each (Austin et al., 2021)."""

from __future__ import annotations

import ast

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import HARNESS_TOKENS, Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Source, load, text_field
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.scorers.code import parsed, passes_tests

PROTOCOLS = {
    "lm-eval-3shot": Protocol(
        "lm-evaluation-harness, mbpp: the paper's prompt with problems 2 to 4 as examples, greedy",
        query="You are an expert Python programmer, and here is your task: {question} Your code should pass these tests:\n\n"
        "{tests}\n[BEGIN]\n",
        answer="{code}\n[DONE]",
        scorers=(passes_tests,),
        shots=3,
        examples="problems 2 to 4",
        continuation=None,
        stop=("[DONE]",),
        max_tokens=HARNESS_TOKENS,
    ),
    "chat-0shot": Protocol(
        "no published number: the same prompt without examples, in the chat template",
        query="You are an expert Python programmer, and here is your task: {question} Your code should pass these tests:\n\n"
        "{tests}",
        scorers=(passes_tests,),
        continuation=None,
        chat=True,
        max_tokens=768,
    ),
}
SOURCE = Source(
    path="code/mbpp.jsonl",
    rows=974,
    licence="CC BY 4.0",
    dataset="google-research-datasets/mbpp",
    config="full",
    split="test",
    from_hub=lambda row: row,
)
EXAMPLES = (2, 3, 4)
TEST = range(11, 511)
WITH_OBJECTS = frozenset({367})
"""Left out: its tests pass objects of the answer's own class, and only plain values cross the sandbox's boundary."""


def mbpp(*, protocol: str = "", data: str = "") -> Benchmark:
    """Return the test split, problems 11 to 510 without 367. `data` is a folder, a file, or `hub`."""
    chosen = choose("mbpp", PROTOCOLS, protocol)[1]
    rows = load(SOURCE, data)
    items = {}
    for index, row in enumerate(rows.rows):
        number, where = row.get("task_id"), rows.where(index)
        if not isinstance(number, int) or number in items:
            raise DataError(
                f"{where}: the field 'task_id' holds {str(number)[:60]!r}, and a number of its own was expected"
            )
        items[number] = _item(number, row, where)
    lacking = [number for number in EXAMPLES if number not in items]
    if chosen.shots and lacking:
        raise DataError(
            f"{rows.path} lacks problems {lacking}, the few-shot examples: give the file with all 974 problems"
        )
    kept = [item for number, item in items.items() if number in TEST and number not in WITH_OBJECTS]
    shown = [items[number] for number in EXAMPLES] if chosen.shots else []
    return make_benchmark(
        "mbpp",
        PROTOCOLS,
        protocol,
        [make_task(item, chosen, shown, hint="a Python function in a ```python block") for item in kept],
        description="Basic Python problems with three tests each (Austin et al., 2021).",
        origin=f"{rows.origin}, of which the test split's {len(kept)} with plain values",
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )


def _item(number: int, row: Json, where: str) -> Item:
    tests, code = row.get("test_list"), text_field(row, "code", where)
    if not isinstance(tests, list) or not tests or not all(isinstance(each, str) for each in tests):
        raise DataError(f"{where}: the field 'test_list' is not a list of assertions")
    setup = row.get("test_setup_code") or ""
    if not isinstance(setup, str):
        raise DataError(f"{where}: the field 'test_setup_code' holds {str(setup)[:60]!r}, and code was expected")
    return Item(
        f"mbpp-{number}",
        {"question": text_field(row, "text", where), "tests": "\n".join(tests), "code": code},
        secret={
            "tests": "\n".join(tests),
            "setup": setup.replace("\r\n", "\n"),
            "cpu_s": 30.0,  # the reference of problem 123 needs about 5
            "entry_point": _tested(code, tests, where),
            "solution": code,
        },
    )


def _tested(code: str, tests: list[str], where: str) -> str:
    """Return the name of the reference solution's function that the tests call."""
    try:
        defined = {node.name for node in parsed(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        used = [node.id for node in ast.walk(parsed("\n".join(tests))) if isinstance(node, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: code or tests are not Python ({error})") from None
    return next((name for name in used if name in defined), "")
