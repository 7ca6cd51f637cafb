"""BFCL: function calls compared with accepted ones (Berkeley Function-Calling Leaderboard, Patil et al., 2025).

Covers the single-turn Python categories, whose calls are compared and never run; the multi-turn ones are `bfcl_multi_turn`.
Left out: Java and JavaScript, memory, web search, and the few dialogues of `live_irrelevance`.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task
from firsthand.benchmarks.sources.datasets import Rows, Source, read
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json, system
from firsthand.model import ToolSpec
from firsthand.scorers.expected_calls import check_accepted, check_function
from firsthand.scorers.function_calls import function_calls, leaderboard_calls
from firsthand.system.given_data import held
from firsthand.task import Task
from firsthand.tool import Tool

PROTOCOLS = {
    "native": Protocol(
        "the leaderboard's rows marked FC: functions given as tools; its answers may be longer",
        query="{question}",
        scorers=(function_calls,),
        continuation=None,
        chat=True,
        max_tokens=1024,
    ),
    "prompt": Protocol(
        "the leaderboard's rows marked Prompt: functions in the system message, calls written as Python; its answers may be "
        "longer",
        query="{question}",
        scorers=(leaderboard_calls,),
        continuation=None,
        chat=True,
        max_tokens=1024,
    ),
}
CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
    "live_relevance",
)
LICENCE = "Apache-2.0"
SYSTEM = (
    "You are an expert in composing functions.You are given a question and a set of possible functions. Based "
    "on the question, you will need to make one or more function/tool calls to achieve the purpose. If none "
    "of the functions can be used, point it out. If the given question lacks the parameters required by the "
    "function, also point it out.\n\n"
    "You should only return the function calls in your response.\n\n"
    "If you decide to invoke any of the function(s), you MUST put it in the format of "
    "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)].  You SHOULD "
    "NOT include any other text in the response.\n\n"
    "At each turn, you should try your best to complete the tasks requested by the user within the current "
    "turn. Continue to output functions to call until you have fulfilled the user's request to the best of "
    "your ability. Once you have no more functions to call, the system will consider the current turn "
    "complete and proceed to the next turn or task.\n\n"
    "Here is a list of functions in json format that you can invoke.\n"
)
"""The leaderboard's system message verbatim, missing and doubled spaces included; the functions and a newline follow."""
_HINT = " Note that the provided function is in Python 3 syntax."
_JSON_TYPES = {"float": "number", "dict": "object", "tuple": "array", "any": "string"}


def bfcl(*, protocol: str = "", data: str = "", category: str = "") -> Benchmark:
    """Return the benchmark over one category, or all whose files are found. `data` is a folder with the leaderboard's files.

    Without `data`, `$FIRSTHAND_DATA` and the installed package `bfcl-eval` are searched.
    """
    chosen = choose("bfcl", PROTOCOLS, protocol)[1]
    if category and category not in CATEGORIES:
        raise ConfigError(f"category is {category!r}: give one of {', '.join(CATEGORIES)}, or none for all")
    folder = _folder(data)
    tasks: list[Task] = []
    digest, counts = hashlib.sha256(), []
    for name in [category] if category else CATEGORIES:
        path = _file(folder, name)
        if path is None and not category:
            continue
        made, hashed = _tasks(path, name, folder, chosen, native=PROTOCOLS["native"] is chosen)
        digest.update(hashed.encode())
        tasks += made
        counts.append(f"{name} {len(made)}")
    if not tasks:
        raise DataError(
            f"{str(folder)!r} holds no BFCL_v4_*.json of {', '.join(CATEGORIES)}: see bfcl-eval's folder data"
        )
    made_benchmark = make_benchmark(
        "bfcl",
        PROTOCOLS,
        protocol,
        tasks,
        description="Function calls compared with accepted ones (Patil et al., 2025).",
        origin=f"the leaderboard's files, {len(tasks):,} items ({', '.join(counts)}), each counted once",
        licence=LICENCE,
        sha256=digest.hexdigest(),
    )
    offered = replace(made_benchmark, environment=lambda task: OfferedFunctions(tuple(task.metadata["functions"])))
    return offered if chosen is PROTOCOLS["native"] else made_benchmark


@dataclass(frozen=True)
class OfferedFunctions:
    """Environment of a task: its functions as tools, which do nothing when called."""

    functions: Sequence[Json]

    @property
    def tools(self) -> Sequence[Tool]:
        """One tool per function."""
        return tuple(_tool(function) for function in self.functions)

    async def open(self) -> None:
        """Do nothing: there is no state."""

    async def final_state(self) -> Json:
        """Return no state."""
        return {}

    async def close(self) -> None:
        """Do nothing: there is no state."""


def _tool(function: Json) -> Tool:
    spec = ToolSpec(function["name"], function["description"], function["parameters"])
    return Tool(spec, "read", lambda **arguments: "The call was noted.", lambda arguments: arguments)


def _folder(data: str) -> Path:
    """Return the folder with the files; DataError if there is none."""
    roots = [Path(each).expanduser() for each in ([data] if data else [os.environ.get("FIRSTHAND_DATA", "")]) if each]
    if not data and (found := importlib.util.find_spec("bfcl_eval")):
        roots += [Path(each, "data") for each in found.submodule_search_locations or ()]
    for root in roots:
        for name in (".", "agents/bfcl", "bfcl"):
            if any((root / name).glob("BFCL_v4_*.json")):
                return root / name
    raise DataError("no BFCL_v4_*.json was found: pip install --no-deps bfcl-eval, or give data=FOLDER that holds them")


def _file(folder: Path, category: str) -> Path | None:
    path = folder / f"BFCL_v4_{category}.json"
    return held(path, folder) if path.is_file() else None


def _tasks(
    path: Path | None, category: str, folder: Path, protocol: Protocol, *, native: bool
) -> tuple[list[Task], str]:
    if path is None:
        raise DataError(f"{str(folder)!r} has no BFCL_v4_{category}.json: put the file there")
    rows = _read(path)
    kind = {"irrelevance": "none", "relevance": "some"}.get(category.rpartition("_")[2], "calls")
    place = folder / "possible_answer" / path.name
    answers = _answers(held(place, folder), rows) if kind == "calls" else [[]] * len(rows.rows)
    tasks = []
    for index, (row, accepted) in enumerate(zip(rows.rows, answers, strict=True)):
        where = rows.where(index)
        messages = _messages(row, where)
        if messages is None:
            continue
        functions = _functions(row, where)
        try:
            check_accepted(accepted, functions)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        tasks.append(_task(row, messages, functions, {"kind": kind, "accepted": accepted}, category, protocol, native))
    return tasks, rows.sha256


def _read(path: Path) -> Rows:
    return read(path, Source(path.name, 0, LICENCE, "", "", "", from_hub=lambda row: row), path.name)


def _answers(path: Path, rows: Rows) -> list[list[Json]]:
    """Return the accepted calls of each row: the leaderboard pairs its two files by order."""
    if not path.is_file():
        raise DataError(f"{path} is missing: put the accepted answers next to the questions")
    given = _read(path)
    if len(given.rows) != len(rows.rows):
        raise DataError(f"{path} has {len(given.rows)} rows, and {rows.path.name} {len(rows.rows)}: fetch both again")
    found = []
    for index, row in enumerate(given.rows):
        truth = row.get("ground_truth")
        if not isinstance(truth, list) or not truth:
            raise DataError(f"{given.where(index)}: 'ground_truth' is not a list of calls")
        found.append(truth)
    return found


def _messages(row: Json, where: str) -> tuple[str, str] | None:
    """Return the system message and the user message; None for a dialogue."""
    turns = row.get("question")
    messages = turns[0] if isinstance(turns, list) and len(turns) == 1 else None
    if not isinstance(messages, list) or not all(
        isinstance(each, dict) and isinstance(each.get("content"), str) for each in messages
    ):
        raise DataError(f"{where}: 'question' is not a list of one list of messages")
    match [each.get("role") for each in messages]:
        case ["user"]:
            return "", messages[0]["content"]
        case ["system", "user"]:
            return messages[0]["content"], messages[1]["content"]
    return None


def _functions(row: Json, where: str) -> list[Json]:
    """Return the functions, with the sentence that the leaderboard adds to their descriptions."""
    given = row.get("function")
    if not isinstance(given, list):
        raise DataError(f"{where}: 'function' is not a list of functions")
    functions = []
    for each in given:
        try:
            check_function(each)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", each["name"]):
            raise DataError(f"{where}: a function is named {each['name'][:80]!r}: letters, digits, _ . - were expected")
        functions.append({**each, "description": f"{each.get('description', '')}{_HINT}"})
    if len({_plain_name(function["name"]) for function in functions}) != len(functions):
        raise DataError(f"{where}: two functions have the same name after dots become underscores")
    return functions


def _task(
    row: Json,
    messages: tuple[str, str],
    functions: list[Json],
    expected: Json,
    category: str,
    protocol: Protocol,
    native: bool,
) -> Task:
    instruction, question = messages
    shown: Mapping[str, Any] = {"functions": [_as_tool(function) for function in functions]} if native else {}
    if not native:
        listed = f"{SYSTEM}{json.dumps(functions, indent=4)}\n"
        instruction = f"{listed}\n\n{instruction}" if instruction else listed
    if native:
        functions = [{**each, "name": _plain_name(each["name"])} for each in functions]
        accepted = [{_plain_name(name): values for name, values in each.items()} for each in expected["accepted"]]
        expected = {**expected, "accepted": accepted}
    item = Item(
        str(row.get("id")),
        {"question": question},
        secret={"calls": {**expected, "functions": functions}},
        metadata={"category": category, "stratum": category, **shown},
    )
    opening = (system(instruction),) if instruction else ()
    return make_task(item, protocol, conversation=opening, calls=native)


def _as_tool(function: Json) -> Json:
    """Return the function as a tool spec, with a name that every endpoint accepts and a JSON schema."""
    function = copy.deepcopy(function)
    parameters = {**function["parameters"], "type": "object"}
    parameters["properties"] = {name: _schema(each) for name, each in parameters["properties"].items()}
    return {
        "name": _plain_name(function["name"]),
        "description": function["description"],
        "parameters": parameters,
    }


def _plain_name(name: str) -> str:
    """Return the name with underscores for dots, which endpoints do not accept."""
    return name.replace(".", "_")


def _schema(schema: Json) -> Json:
    """Convert a value's schema in the leaderboard's files to a JSON schema; a float is described in words too, as there."""
    kind = schema.get("type", "string")
    made = {**schema, "type": _JSON_TYPES.get(kind, kind)}
    if kind == "float":
        made |= {"format": "float", "description": f"{schema.get('description', '')} This is a float type value."}
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {name: _schema(each) for name, each in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        made["items"] = _schema(schema["items"])
        if schema["items"].get("type") == "float":  # described in words for arguments and entries only
            made["items"] = {**schema["items"], "type": "number"}
    return made
