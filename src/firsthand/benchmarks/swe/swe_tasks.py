"""Reads records in SWE-bench's format from Parquet, JSONL or the hub, and makes Tasks and a Benchmark of them.

A record is a row with `repo`, `instance_id`, `base_commit`, `problem_statement`, `patch`, `test_patch`, `FAIL_TO_PASS`,
`PASS_TO_PASS` (lists, or JSON in a string), `eval_script` and `log_parser`; `image` names a container image, and without one
`repo` is a local repository. An agent sees the statement and the repository; the rest is in `Task.secret`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.datasets import Source, contents, fetch, located, text_field
from firsthand.benchmarks.sources.tables import TableRow, read_table
from firsthand.benchmarks.swe.parquet_rows import parquet_rows
from firsthand.benchmarks.swe.swe_environment import Checkout
from firsthand.errors import DataError, unknown
from firsthand.message import Json
from firsthand.sandbox.git_repository import blob, commit_alone
from firsthand.sandbox.repository_workspace import expect_image_name
from firsthand.scorers.patches.patch import read_patch, touched
from firsthand.scorers.patches.test_logs import PARSERS
from firsthand.scorers.resolved import END, START, TaskWorkplaces, resolved, script_parts
from firsthand.task import Task

AGENT, ORACLE = "agent", "oracle"
_ID = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}", re.ASCII)
_ASKED = (
    "The repository {repo} is checked out in /testbed. Resolve the issue below by changing its files; do not change its "
    "tests, hidden ones will be run. There is no network. When you are done, call submit.\n\n<issue>\n{issue}\n</issue>"
)
_ORACLE = """You will be provided with a partial code base and an issue statement explaining a problem to resolve.
<issue>
{issue}
</issue>

<code>
{code}
</code>

Answer with a single patch that resolves the issue, as `git diff` writes it and `git apply` takes it, between <patch> and \
</patch>:
<patch>
--- a/file.py
+++ b/file.py
@@ -1,3 +1,3 @@
 def half(x):
-    return x // 2
+    return x / 2
 
</patch>

Respond below:
"""


@dataclass(frozen=True)
class SweProtocol:
    """A protocol of the software benchmarks: the published number it reproduces."""

    reproduces: str


@dataclass(frozen=True)
class Records:
    """Checked records, with their origin."""

    rows: tuple[Json, ...]
    origin: str
    folder: Path
    """Folder that a local `repo` is relative to: the file's own."""
    sha256: str


def read_records(path: Path, origin: str) -> Records:
    """Read a .parquet, .jsonl, .jsonl.gz or .json file; DataError with the file, and the row that is wrong."""
    raw = contents(path)
    rows = parquet_rows(raw, path) if path.suffix == ".parquet" else _lines(path)
    if not rows:
        raise DataError(f"{path} holds no rows: is it truncated?")
    checked = tuple(check(row.columns, row.where) for row in rows)
    seen: dict[str, str] = {}
    for row, record in zip(rows, checked, strict=True):
        name = record["instance_id"]
        if name in seen:
            raise DataError(f"{row.where}: the instance_id {name!r} came before, at {seen[name]}")
        seen[name] = row.where
    return Records(checked, f"{origin}, {len(rows):,} items", path.parent, hashlib.sha256(raw).hexdigest())


def find_records(source: Source, data: str, *names: str) -> Records:
    """Read the records from `data` (a file or folder), `$FIRSTHAND_DATA`, or the hub."""
    path = located(source.path, data, *source.also, *names)
    if path is not None:
        return read_records(path, "data folder" if data else "$FIRSTHAND_DATA")
    return read_records(fetch(source), f"Hugging Face hub, {source.dataset}")


def check(row: Json, where: str) -> Json:
    """Return the record with lists decoded and its script built; DataError with `where` if a field is wrong."""
    record: Json = {
        key: text_field(row, key, where) for key in ("instance_id", "repo", "base_commit", "problem_statement")
    }
    if not _ID.fullmatch(record["instance_id"]):
        raise DataError(
            f"{where}: the instance_id {record['instance_id'][:60]!r} has characters besides letters, digits and _.+-"
        )
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", record["base_commit"]):
        raise DataError(
            f"{where}: base_commit is {record['base_commit'][:70]!r}: all 40 digits of a hash were expected"
        )
    for key in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        record[key] = _names(row.get(key), key, where)
    if row.get("XFAIL") is not None:
        record["XFAIL"] = _names(row["XFAIL"], "XFAIL", where)
    if (skips := row.get("SKIPS")) is not None:
        if type(skips) is not int or skips < 0:
            raise DataError(f"{where}: SKIPS is {str(skips)[:60]!r}: a number of tests, 0 or more, was expected")
        record["SKIPS"] = skips
    if not record["FAIL_TO_PASS"]:
        raise DataError(f"{where}: FAIL_TO_PASS is empty, so there is nothing to resolve")
    for key in ("patch", "test_patch"):
        record[key] = text_field(row, key, where) if key == "test_patch" or row.get(key) else ""
        try:
            _ = record[key] and read_patch(record[key])
        except DataError as error:
            raise DataError(f"{where}: {key}: {error}") from None
    for key, default in (("log_parser", "pytest"), ("eval_type", "pass_and_fail"), ("image", ""), ("text", "")):
        value = row.get(key) or default
        if not isinstance(value, str):
            raise DataError(f"{where}: the field {key!r} holds {str(value)[:60]!r}, and text was expected")
        record[key] = value
    try:
        if record["image"]:
            expect_image_name(record["image"])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if record["log_parser"].removeprefix("parse_log_") not in PARSERS:
        raise DataError(f"{where}: log_parser is {record['log_parser']!r}: there are {', '.join(sorted(PARSERS))}")
    if record["eval_type"] not in ("pass_and_fail", "fail_only"):
        raise DataError(f"{where}: eval_type is {record['eval_type']!r}: pass_and_fail or fail_only was expected")
    record["eval_script"] = _script(row, record, where)
    return record


def make_script(test_cmd: str, base_commit: str, test_patch: str) -> str:
    """Return a record's script in SWE-bench's form: apply the test patch, run the command between two markers."""
    changes = read_patch(test_patch)
    old = " ".join(shlex.quote(change.before) for change in changes if change.before)
    mark = f"EOF_{hashlib.sha256(test_patch.encode()).hexdigest()[:12]}"
    lines = ["#!/bin/bash", "set -uxo pipefail", "cd /testbed"]
    lines += [f"git checkout {base_commit} {old}"] if old else []
    lines += [f"git apply -v - <<'{mark}'", test_patch.rstrip("\n"), mark, START, test_cmd, END]
    return "\n".join(lines) + "\n"


def default_command(test_patch: str) -> str:
    """Return the command that runs a test patch's Python files with pytest, so that its log names skipped tests too."""
    files = [
        c.after for c in read_patch(test_patch) if c.after and c.after.endswith(".py") and c.after != "conftest.py"
    ]
    names = [file for file in files if not file.endswith("/conftest.py")]
    return " ".join(["python -m pytest -rA -v", *map(shlex.quote, names)])


def swe_benchmark(
    name: str,
    records: Records,
    *,
    protocol: str,
    description: str,
    places: TaskWorkplaces,
    licence: str = "MIT (the records); the repositories have their own",
) -> Benchmark:
    """Return the benchmark under the protocol `agent` (works in the repository) or `oracle` (writes a patch)."""
    chosen = protocol or AGENT
    if chosen not in (AGENT, ORACLE):
        raise unknown(f"protocol of {name}", protocol, (AGENT, ORACLE), see="firsthand list benchmarks")
    make = agent_task if chosen == AGENT else oracle_task
    tasks = [make(record, places) for record in records.rows]
    how = {
        AGENT: "the agent works in the repository with shell, view, edit, create and submit",
        ORACLE: "one answer with a patch, given the files that the reference patch changes",
    }[chosen]
    network = "with a network" if places.network else "without a network"
    return Benchmark(
        name=name if chosen == AGENT else f"{name}@{chosen}",
        tasks=lambda seed: tasks,
        scorers=(resolved(places),),
        description=description,
        protocol=(
            f"{records.origin}; {how}; resolved: all fail-to-pass tests pass and all pass-to-pass tests still do, by the "
            f"record's script, {network}, {places.test_s:g} s; the worse result of a test counts, and a canary must fail"
        ),
        licence=licence,
        environment=(lambda task: Checkout(task, places)) if chosen == AGENT else None,
        options={"data": records.origin, "sha256": records.sha256, "protocol": chosen, "network": places.network},
    )


def agent_task(record: Json, places: TaskWorkplaces) -> Task:
    """Return the record as a Task for an agent."""
    prompt = _ASKED.format(repo=Path(record["repo"]).name, issue=record["problem_statement"].strip())
    return _task(record, prompt, hint="a sentence on what was changed")


def oracle_task(record: Json, places: TaskWorkplaces) -> Task:
    """Return the record as a Task for one patch: the record's `text`, or the statement and the files `patch` changes."""
    prompt = record["text"]
    if not prompt:
        code = _oracle_files(record, places)
        prompt = _ORACLE.replace("{code}", code).replace("{issue}", record["problem_statement"].strip())
    return _task(record, prompt, verbatim=True, sampling={"max_tokens": 4096})


def _task(record: Json, prompt: str, **more: Any) -> Task:
    hidden = ("patch", "test_patch", "FAIL_TO_PASS", "PASS_TO_PASS", "eval_script", "log_parser", "eval_type")
    return Task(
        id=record["instance_id"],
        prompt=prompt,
        metadata={key: record[key] for key in ("repo", "base_commit", "image")} | {"cluster": record["repo"]},
        secret={key: record[key] for key in hidden} | {key: record[key] for key in ("XFAIL", "SKIPS") if key in record},
        **more,
    )


def _oracle_files(record: Json, places: TaskWorkplaces) -> str:
    """Return the files that the reference patch changes, with line numbers, each between lines that name it."""
    name, commit = record["instance_id"], record["base_commit"]
    if not record["patch"]:
        raise DataError(
            f"{name}: the protocol oracle shows the files that `patch` changes, and the record has no patch"
        )
    repository = next((each for each in _clones(record["repo"], places.folder) if each.exists()), None)
    if repository is None:
        raise DataError(
            f"{name}: the protocol oracle needs the files of {record['repo']}: give repos=FOLDER with a clone of it, or "
            "records with their prompt in the column text, such as princeton-nlp/SWE-bench_oracle"
        )
    base, shown = commit_alone(repository, commit), []
    for path in sorted(touched(record["patch"])):
        text = blob(base, commit, path)
        if text is not None:
            numbered = "\n".join(f"{number} {line}" for number, line in enumerate(text.split("\n"), 1))
            shown.append(f"[start of {path}]\n{numbered}\n[end of {path}]")
    return "\n".join(shown)


def _clones(repo: str, folder: Path) -> Sequence[Path]:
    """Return the possible folders of a repository's clone: its path, OWNER__NAME, or NAME."""
    owner, _, name = repo.rpartition("/")
    return [folder / Path(repo).expanduser(), folder / f"{owner}__{name}", folder / name, folder / f"{name}.git"]


def _script(row: Json, record: Json, where: str) -> str:
    script = row.get("eval_script")
    if script:
        if not isinstance(script, str):
            raise DataError(f"{where}: the field 'eval_script' holds {str(script)[:60]!r}, and text was expected")
        try:
            script_parts(script)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return script
    if "environment_setup_commit" in row and not row.get("test_cmd"):
        raise DataError(f"{where}: there is no eval_script: use the records of SWE-bench 5, which have that column")
    command = row.get("test_cmd") or default_command(record["test_patch"])
    if not isinstance(command, str) or "\n" in command:
        raise DataError(f"{where}: test_cmd holds {str(command)[:60]!r}, and one line was expected")
    return make_script(command, record["base_commit"], record["test_patch"])


def _names(value: Any, key: str, where: str) -> list[str]:
    """Return test names from a list, or from JSON in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise DataError(f"{where}: {key} must be a list of names of tests, or such a list as JSON in a string")
    return value


def _lines(path: Path) -> list[TableRow]:
    if path.name.endswith(".gz"):
        from firsthand.benchmarks.sources.datasets import Source, read

        found = read(path, Source("", 0, "", "", "", "", dict), "")
        return [TableRow(row, found.where(index)) for index, row in enumerate(found.rows)]
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{path}: a .parquet, .jsonl, .jsonl.gz or .json file was expected")
    return read_table(path)
