"""BigCodeBench, hard subset: functions that use many libraries, checked by unittest cases (Zhuo et al., 2024)."""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Rows, Source, contents, load, located, text_field
from firsthand.benchmarks.sources.evalplus import ASKED
from firsthand.errors import DataError
from firsthand.message import Json
from firsthand.sandbox.sandbox import PACKAGES, offers, shared_packages
from firsthand.scorers.code import parsed
from firsthand.scorers.unit_tests import passes_unit_tests
from firsthand.task import Task

PROTOCOLS = {
    "instruct": Protocol(
        "BigCodeBench-Hard's leaderboard, Instruct, calibrated pass@1, prompted as by its openai backend",
        query=f"{ASKED}\n{{instruct}}\n",
        scorers=(passes_unit_tests,),
        continuation=None,
        chat=True,
        max_tokens=1280,
    ),
    "complete": Protocol(
        "BigCodeBench-Hard's leaderboard, Complete, calibrated pass@1, chat models, prompted as by its openai backend",
        query=f"{ASKED}\n```\n{{question}}\n```\n",
        scorers=(passes_unit_tests,),
        continuation=None,
        chat=True,
        max_tokens=1280,
    ),
    "complete-base": Protocol(
        "BigCodeBench-Hard's leaderboard, Complete, base models: the prompt, completed",
        query="{question}\n",
        scorers=(passes_unit_tests,),
        continuation=None,
        stop=(
            *("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint("),
            *("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
        ),
        max_tokens=1280,
    ),
}
_COLUMNS = ("task_id", "complete_prompt", "instruct_prompt", "canonical_solution", "code_prompt", "test", "entry_point")
SOURCE = Source(
    path="code/bigcodebench_hard.jsonl",
    rows=148,
    licence="Apache-2.0",
    dataset="bigcode/bigcodebench-hard",
    config="default",
    split="v0.1.4",
    from_hub=lambda row: {key: row[key] for key in _COLUMNS},
)
_JSON = "code/bigcodebench_hard.json"


def bigcodebench(*, protocol: str = "", data: str = "", runnable: bool = False) -> Benchmark:
    """Return the benchmark over the 148 hard tasks. `data` is a file (JSONL, or one object of tasks), a folder, or `hub`.

    The tasks' imports must be in the sandbox: `FIRSTHAND_SANDBOX_PACKAGES` names a virtual environment that has them. A task
    with other imports is an error, or is left out with `runnable`; the protocol line says how many there are.
    """
    chosen = choose("bigcodebench", PROTOCOLS, protocol)[1]
    rows = read_rows(data)
    every = [_task(row, rows.where(index), chosen) for index, row in enumerate(rows.rows)]
    lacking = _lacking(every)
    tasks = [task for task in every if not (runnable and lacking[task.id])]
    if not tasks:
        raise DataError(
            f"none of the {len(every)} tasks can be run: set {PACKAGES} to an environment with their libraries"
        )
    return make_benchmark(
        "bigcodebench",
        PROTOCOLS,
        protocol,
        tasks,
        description="Functions that use many libraries, the 148 hard tasks (Zhuo et al., 2024).",
        origin=rows.origin + _lacking_text(lacking, runnable),
        licence=SOURCE.licence,
        sha256=rows.sha256,
    )


def _lacking(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return, by task id, the modules that a task needs and the sandbox lacks."""
    folders = shared_packages()
    offered = {name: offers(name, folders) for task in tasks for name in task.secret["needs"]}
    return {task.id: [name for name in task.secret["needs"] if not offered[name]] for task in tasks}


def _lacking_text(lacking: dict[str, list[str]], runnable: bool) -> str:
    """Return the protocol line's part on tasks that cannot run, and on the modules they lack."""
    counts = Counter(name for names in lacking.values() for name in names)
    without = sum(bool(names) for names in lacking.values())
    if not without:
        return ""
    names = ", ".join(f"{name} {count}" for name, count in counts.most_common(5))
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    label = "LEFT OUT" if runnable else "ERRORS"
    return f"; {label}: {without} tasks need modules that the sandbox lacks ({names}{more}), see {PACKAGES}"


def read_rows(data: str) -> Rows:
    """Return the tasks of the hard set, from the authors' JSON or our file."""
    path = located(_JSON, data, SOURCE.path) if data != "hub" else None
    if path is None or path.suffix != ".json":
        return load(SOURCE, data)
    raw = contents(path)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON: is it truncated?") from None
    rows = list(body.values()) if isinstance(body, dict) else body
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: an object or list of tasks was expected")
    partial = f"{len(rows)} of {SOURCE.rows} items" if len(rows) < SOURCE.rows else f"{len(rows)} items"
    return Rows(tuple(rows), f"{path.name}, {partial}", path, hashlib.sha256(raw).hexdigest())


def _task(row: Json, where: str, protocol: Protocol) -> Task:
    fields = {key: text_field(row, key, where) for key in _COLUMNS}
    needs = set()
    for key in ("code_prompt", "test"):
        code = fields[key] + ("\n    pass\n" if key == "code_prompt" else "")
        needs |= _imports(code, where, key)
    completed = {} if protocol.chat else {"prompt": fields["complete_prompt"].strip() + "\n"}
    item = Item(
        fields["task_id"],
        {"question": fields["complete_prompt"].strip(), "instruct": fields["instruct_prompt"].strip()},
        secret={
            "tests": fields["test"],
            "before": fields["code_prompt"] + "\n    pass\n",
            "solution": fields["code_prompt"] + fields["canonical_solution"],
            "entry_point": fields["entry_point"],
            "needs": sorted(needs),
            **completed,
        },
        metadata={"entry_point": fields["entry_point"], "libraries": sorted(needs)},
    )
    return make_task(item, protocol, hint="a Python function in a ```python block")


def _imports(code: str, where: str, key: str) -> set[str]:
    """Return the top-level modules that the code imports."""
    try:
        nodes = list(ast.walk(parsed(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: the field {key!r} is not Python code ({error})") from None
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in named}
