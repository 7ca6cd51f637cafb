"""Lists the code that an lm-evaluation-harness task file would run, by reading it before the harness loads it.

`!function` names Python that the harness imports, `class` a Python task; both are code of the file's author, and so is a
metric that the harness does not know. Nothing is imported here. Templates are safe once they are rendered in jinja2's
sandbox, which `sandbox_templates` installs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from firsthand.bridges.lm_eval.task_yaml import CODE_KEYS, Tagged, leaves, read_yaml
from firsthand.errors import DataError

MAX_FILES = 2_000
CODE_DATASETS = ("pandas", "pickle", "eval", "webdataset")
"""Dataset readers that unpickle or execute a file's content."""


def code_in(path: Path, metrics: Collection[str]) -> list[str]:
    """Return a phrase for each piece of code that the file and its includes would run, in reading order.

    `metrics` are the names that the harness knows. Any other is a script to it: of the current folder, or the hub.
    """
    found: list[str] = []
    for file in with_includes(path):
        for key, value, _ in leaves(file):
            if isinstance(value, Tagged):
                found.append(f"!function {value} ({file.name})")
            elif key in CODE_KEYS and value:
                found.append(f"{key}: {CODE_KEYS[key]} ({file.name})")
            elif key == "metric" and value is not None and str(value) not in metrics:
                found.append(f"metric: {str(value)[:60]}, which is none of lm-eval's own ({file.name})")
            elif key == "dataset_path" and _runs(str(value)):
                found.append(f"dataset_path: {str(value)[:60]} ({file.name})")
    return found


def names_in(path: Path) -> list[str]:
    """Return the names of tasks and groups that a file and its includes list, subgroups included; a task's own name too."""
    names: list[str] = []
    pending: deque[Any] = deque(read_yaml(file).get("task") for file in with_includes(path))
    while pending:
        item = pending.popleft()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            pending += [item.get("task"), item.get("group")]
        elif isinstance(item, str):
            names.append(item)
    return names


def with_includes(path: Path) -> Iterator[Path]:
    """Yield the file and each file it includes, directly or not."""
    pending, seen = [path], set[Path]()
    while pending:
        file = pending.pop().expanduser().resolve()
        if file in seen:
            continue
        if len(seen) >= MAX_FILES:
            raise DataError(f"{path} includes more than {MAX_FILES} files: include fewer")
        seen.add(file)
        yield file
        includes = [each.value for each in leaves(file) if each.key == "include"]
        pending += [file.parent / str(each) for each in includes]


def sandbox_templates() -> None:
    """Make the harness render its templates in jinja2's sandbox, so that a template in a task file reaches no Python."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    plain = utils.env
    if isinstance(plain, SandboxedEnvironment):
        return
    sandboxed = SandboxedEnvironment(undefined=plain.undefined, keep_trailing_newline=plain.keep_trailing_newline)
    sandboxed.filters.update(plain.filters)
    utils.env = sandboxed


def _runs(dataset: str) -> bool:
    """True if loading the dataset may run or unpickle something: a script, or a reader that does."""
    return dataset in CODE_DATASETS or dataset.endswith((".py", ".pkl", ".pickle"))
