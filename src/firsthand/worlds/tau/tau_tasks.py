"""Reads tau-bench's files: the tables and the policy of a domain, and its tasks, whose Python is parsed and never run."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.system.given_data import held
from firsthand.system.ordinary_file import read_ordinary_text
from firsthand.worlds.tau.ledger import Tables

TABLES = {"retail": ("users", "orders", "products"), "airline": ("users", "flights", "reservations")}
MAX_FILE_BYTES = 64 << 20
SOURCE = "github.com/sierra-research/tau-bench (tau_bench/envs)"


class TauTask(NamedTuple):
    """A customer's wish, the tool calls that do it, and texts that the agent must say."""

    user_id: str
    instruction: str
    actions: tuple[tuple[str, Json], ...]
    outputs: tuple[str, ...]


def domain_folder(root: Path, domain: str) -> Path:
    """The folder of a domain below `root`; DataError that says where to get it."""
    for folder in (root / domain, root / "agents" / "tau_bench" / domain, root / "tau_bench" / "envs" / domain, root):
        if (folder / "wiki.md").is_file() and (folder / "data" / "users.json").is_file():
            return folder
    raise DataError(
        f"there is no {domain}/wiki.md and {domain}/data/users.json in {root}: get tau-bench's data from {SOURCE}, and give "
        "data=FOLDER or FIRSTHAND_DATA"
    )


@lru_cache(maxsize=4)
def read_tables(folder: Path, domain: str) -> Tables:
    """The tables of a domain, which must not be changed."""
    return {name: _table(held(folder / "data" / f"{name}.json", folder)) for name in TABLES[domain]}


def read_policy(folder: Path) -> str:
    """The policy of a domain: its `wiki.md`."""
    return _contents(held(folder / "wiki.md", folder))


def read_tasks(path: Path) -> list[TauTask]:
    """The tasks of a file such as `tasks_test.py`: calls `Task(...)` whose arguments are literals and `Action(...)`."""
    try:
        tree = ast.parse(_contents(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path} is no Python file of tau-bench's tasks: {str(error)[:200]}") from None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node) == "Task"]
    calls.sort(key=lambda node: node.lineno)
    if not calls:
        raise DataError(f"{path} holds no Task(...): a file such as tau-bench's tasks_test.py was expected")
    return [_task(call, path) for call in calls]


def _task(call: ast.Call, path: Path) -> TauTask:
    where = f"{path}, line {call.lineno}"
    fields = {keyword.arg: keyword.value for keyword in call.keywords}
    actions = fields.get("actions")
    if not isinstance(actions, ast.List):
        raise DataError(f"{where}: the task has no list of actions")
    found = []
    for node in actions.elts:
        if not isinstance(node, ast.Call) or _name(node) != "Action":
            raise DataError(f"{where}: an action is no Action(name=..., kwargs=...)")
        given = {keyword.arg: _literal(keyword.value, where) for keyword in node.keywords}
        if not isinstance(given.get("name"), str) or not isinstance(given.get("kwargs"), dict):
            raise DataError(f"{where}: an action is no Action(name=..., kwargs=...)")
        found.append((given["name"], given["kwargs"]))
    user_id, instruction = (_literal(fields.get(key), where) for key in ("user_id", "instruction"))
    outputs: Sequence[Any] = _literal(fields["outputs"], where) if "outputs" in fields else ()
    if not isinstance(user_id, str) or not isinstance(instruction, str):
        raise DataError(f"{where}: the task has no text user_id and instruction")
    return TauTask(user_id, instruction, tuple(found), tuple(str(each) for each in outputs))


def _literal(node: ast.expr | None, where: str) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: a value is no literal: it would have to be run, and is not") from None


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _table(path: Path) -> dict[str, Json]:
    try:
        body = json.loads(_contents(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict) or not all(isinstance(each, dict) for each in body.values()):
        raise DataError(f"{path}: an object of records was expected")
    return body


def _contents(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: it is no file of tau-bench")
        return read_ordinary_text(path, MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)[:200]}") from None
