"""How many of the harness's own tasks the adapter can run: each is made here on invented documents, without a network.

    python bench/lm_eval_tasks.py --to lm_eval_tasks.md

A task's data is on the hub, so its documents are invented: the columns that its templates and functions name, with values
of the kinds that columns have, tried in turn until the task's own code renders a prompt. Of the tasks of a folder whose
files have the same keys and kind of output one is made, and stands for all. What is then refused is refused by the adapter;
what no invented document suits says nothing of it, and is counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import logging
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, ClassVar

import datasets
import jinja2
import jinja2.meta
from lm_eval import tasks

from firsthand import catalog
from firsthand.bridges.lm_eval.task_loading import installed_tasks
from firsthand.errors import ConfigError, DataError, FirsthandError

APART = {
    "task",
    "dataset_name",
    "dataset_path",
    "description",
    "tag",
    "task_alias",
    "group",
    "metadata",
    "dataset_kwargs",
}
POOL: tuple[Any, ...] = (
    "A man walks his dog.", 0, ["one", "two", "three", "four"], "A",
    {"text": ["one", "two", "three", "four"], "label": list("ABCD")}, ["A man walks.", "A dog barks."],
    {"text": ["one"], "answer_start": [0]}, True, "1", [0, 1, 0, 0], 1.5, "one", [["one", "two"], ["one"]],
    [{"text": "one", "question": "one?", "answer": "A"}], "The answer is #### 4", '["one", "two"]',
)  # fmt: skip
KNOWN: dict[str, Any] = {  # columns of data sets that many tasks are made from
    "label": "0", "endings": POOL[2], "ctx_a": POOL[0], "ctx_b": POOL[0], "activity_label": "Walking", "answer": "1",
    "sentence": "A dog chased a cat since _ was fast.", "option1": "the dog", "option2": "the cat", "goal": POOL[0],
    "mc1_targets": {"choices": POOL[2], "labels": [1, 0, 0, 0]}, "question": "Who walks?",
    "mc2_targets": {"choices": POOL[2], "labels": [1, 0, 1, 0]},
    "answers": {"text": ["one"], "answer_start": [0]}, "title": "A walk", "context": POOL[0], "passage": POOL[0],
    "answerKey": "A", "article": POOL[0], "premise": POOL[0], "hypothesis": POOL[0], "text": POOL[0],
}  # fmt: skip
LISTS = re.compile(r"choice|option|ending|candidate|answers|distractor|sol", re.IGNORECASE)
INDICES = re.compile(r"label|gold|index|idx|answer|target|correct|ind$", re.IGNORECASE)
PACKAGE = re.compile(
    r"No module named '([^']+)'|pip install ([\w\[\]-]+)|(?:ModuleNotFound|Import)Error: (.{,60})|\((swipl)\)"
)


class Invented(dict):  # type: ignore[type-arg]
    """A data set with every split."""

    document: ClassVar[dict[str, Any]] = {}

    def __missing__(self, split: str) -> datasets.Dataset:
        rows = [dict(self.document) for _ in range(12)]
        self[split] = datasets.Dataset.from_list(rows)
        return self[split]

    def __contains__(self, split: object) -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a regular expression that a task's name must match")
    parser.add_argument("--tries", type=int, default=16, help="documents that are invented for a task")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long, and say how much was seen")
    parser.add_argument("--to", default="", help="a Markdown file to write")
    config = parser.parse_args()
    datasets.load_dataset = lambda *args, **more: Invented()  # the hub is not to be asked
    datasets.disable_progress_bars()
    logging.disable(logging.CRITICAL)
    kinds = alike(config.only)
    began, found = time.monotonic(), []
    for names in sorted(kinds, key=len, reverse=True):
        if time.monotonic() - began > config.seconds:
            break
        found.append((names, *tried(names[0], config.tries)))
        print(len(found), len(kinds), names[0], *found[-1][1:], sep=" | ", file=sys.stderr, flush=True)
    told = table(found, sum(map(len, kinds)), len(kinds))
    print(told)
    if config.to:
        Path(config.to).write_text(told, encoding="utf-8")


def alike(only: str) -> list[list[str]]:
    """The names of the harness's tasks, those together that differ in nothing that concerns us."""
    together: dict[str, list[str]] = defaultdict(list)
    root = Path(tasks.__file__).parent
    for name, entry in installed_tasks("").task_index.items():
        if "TASK" not in str(entry.kind) or not re.search(only, name):
            continue
        cfg = {key: value for key, value in (entry.cfg or {}).items() if key not in APART}
        folder = entry.yaml_path.relative_to(root).parts[0] if entry.yaml_path else name
        key = json.dumps(
            [folder, sorted(cfg), *(str(cfg.get(each)) for each in ("output_type", "class", "unsafe_code"))]
        )
        together[key].append(name)
    return list(together.values())


def tried(name: str, tries: int) -> tuple[str, str, str]:
    """`runs`, `refused`, `package`, `unsuited` or `slow`; the kind of request or the words; the kind again."""
    random_ = random.Random(name)
    columns, said = columns_of(name), ""
    likely: dict[str, Any] = {}
    for attempt in range(tries):
        likely = {each: _value(each, attempt, parts) for each, parts in columns.items()} if attempt < 4 else likely
        changed = random_.sample(sorted(columns), min(len(columns), 1 + attempt % 2)) if attempt >= 4 else []
        Invented.document = likely | {each: random_.choice(POOL) for each in changed} or {"text": POOL[0]}
        try:
            with _at_most(20):
                benchmark = catalog.benchmark(f"lm_eval:task={name}:limit=2")
                task = benchmark.tasks(0)[0]
            return "runs", str(task.metadata["request"]), ""
        except TimeoutError:
            return "slow", "", ""
        except ConfigError as error:
            return "refused", _short(error, name), ""
        except FirsthandError as error:
            said = str(error)
            if isinstance(error, DataError) and "cannot be run here" in said and attempt > tries // 2:
                return "refused", _short(error, name), ""
            if package := PACKAGE.search(said):
                return "package", next(filter(None, package.groups())), ""
            missing = re.search(r"KeyError: [\"']+([^\"']+)|'(\w+)' is undefined|has no attribute '(\w+)'", said)
            if missing:
                columns.setdefault(next(filter(None, missing.groups())), set())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
    kind = re.search(r"\((\w+): ?([^)]*)", said)
    return "unsuited", f"{kind[1]}: {kind[2][:80]}" if kind else said[:120], ""


def columns_of(name: str) -> dict[str, set[str]]:
    """The columns that a task's templates and functions name, and of each the parts that they name."""
    from lm_eval.tasks._yaml_loader import load_yaml

    entry = installed_tasks("").task_index[name]
    found: dict[str, set[str]] = {}
    try:
        body = load_yaml(entry.yaml_path, resolve_func=True)
    except (Exception, SystemExit):  # a task's module may end the process for a program that it misses
        return found
    pending: list[Any] = [body]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += [each for key, each in value.items() if key not in ("metric_list", "metadata", "dataset_kwargs")]
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            template = value if "{{" in value or "{%" in value else ""
            with contextlib.suppress(jinja2.TemplateError):
                for each in jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template)):
                    found.setdefault(each, set())
            for each, part in re.findall(r"\b([A-Za-z_]\w*)(?:\.|\[['\"])([A-Za-z_]\w*)\b(?!\()", template):
                found.setdefault(each, set()).add(part)
            if re.fullmatch(r"[A-Za-z_]\w*", value) and "split" not in value:
                found.setdefault(value, set())
        elif callable(value):
            with contextlib.suppress(OSError, TypeError):
                source = inspect.getsource(inspect.getmodule(value) or value)
                for each, part in re.findall(
                    r"""(?:\[|get\()["'](\w+)["'](?:[^)\]]*)[\])](?:\[["'](\w+)["']\])?""", source
                ):
                    found.setdefault(each, set()).update({part} - {""})
    return found


def _value(column: str, attempt: int, parts: set[str]) -> Any:
    """A likely value, one of four."""
    if parts - {"index", "strip", "lower", "split", "format", "replace"} and attempt < 3:
        return {part: list("ABCD") if part == "label" else _value(part, attempt, set()) for part in parts}
    if attempt == 0 and column in KNOWN:
        return KNOWN[column]
    if attempt == 0:
        return POOL[2] if LISTS.search(column) else POOL[1] if INDICES.search(column) else POOL[0]
    if attempt == 1:
        return POOL[2] if LISTS.search(column) else POOL[3] if INDICES.search(column) else POOL[0]
    if attempt == 2:
        return POOL[4] if LISTS.search(column) else POOL[3] if INDICES.search(column) else POOL[0]
    return "1" if INDICES.search(column) else POOL[2] if LISTS.search(column) else POOL[0]


@contextlib.contextmanager
def _at_most(seconds: int) -> Any:
    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _short(error: Exception, name: str) -> str:
    return str(error).replace(name, "it").partition("cannot be run here: ")[2] or str(error).replace(name, "it")[:110]


def table(found: list[tuple[list[str], str, str, str]], tasks: int, kinds: int) -> str:
    """What became of the tasks, counted."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for names, outcome, words, _ in found:
        counts[outcome, words] += len(names)
        examples.setdefault((outcome, words), names[0])
    seen = sum(len(names) for names, *_ in found)
    lines = [
        f"{seen} of {tasks} tasks seen, in {len(found)} of {kinds} kinds.",
        "",
        "| | | tasks | such as |",
        "|---|---|---|---|",
    ]
    order = {"runs": 0, "refused": 1, "package": 2, "unsuited": 3, "slow": 4}
    for (outcome, words), count in sorted(counts.items(), key=lambda each: (order[each[0][0]], -each[1])):
        lines.append(f"| {outcome} | {words.replace('|', '/')} | {count} | `{examples[outcome, words]}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
