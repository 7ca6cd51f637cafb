"""Reads a user's own benchmark: a few lines of TOML next to a table of rows.

    data = "capitals.csv"
    prompt = "What is the capital of {country}?"
    target = "{capital}"
    scorer = ["normalised"]

Templates name columns in braces, whatever their heading; other braces are doubled. With `choices` it is multiple choice:
scored by log-prob after the prompt, or answered with a letter under other patterns; without, the answer is generated.
`firsthand run ./capitals.toml` runs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import getsizeof
from typing import Literal, TypeVar

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item, Protocol, answered, check_template, fill, make_task
from firsthand.benchmarks.sources.choice_targets import Target, golds
from firsthand.benchmarks.sources.datasets import MAX_BYTES
from firsthand.benchmarks.sources.own_columns import check_columns, columns_of, is_missing, read_tests
from firsthand.benchmarks.sources.own_examples import ExampleChoice, example_pool
from firsthand.benchmarks.sources.repeated_rows import group_repeats
from firsthand.benchmarks.sources.tables import TableRow, read_table
from firsthand.chat_messages import messages_of
from firsthand.config import build, read_toml
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json, Message
from firsthand.scorers.match import is_comparable, no_number, normalise
from firsthand.system.given_data import named_data
from firsthand.system.option_spec import parse_spec
from firsthand.system.plurals import count_of
from firsthand.task import Task

T = TypeVar("T")
NEED_CHOICES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "mc1", "mc2", "choice"})
GAIN = "acc_mutual_info"
NEED_NUMBERS = frozenset({"numeric", "flexible", "strict"})
NEED_JUDGES = frozenset({"human_agreement", "majority_agreement", "order_consistency"})
"""Scorers of a judge's verdicts: benchmarks with votes, such as judge_mtbench, have them."""
MAX_KEPT_CHARS = 200
"""A longer cell is not kept for `firsthand summary --by`."""
MAX_KEY_CHARS = 20_000
"""Longest id, cluster and stratum: a passage may be the key of its questions."""
LEAK_CHARS = 4
"""Shortest target that is checked for leaks: a shorter one occurs in prompts by chance."""
_EMPTY_BYTES = getsizeof("")


@dataclass(frozen=True)
class BenchmarkDescription:
    """Fields of the TOML file. Paths are relative to it, and lie beside or below it."""

    data: str = ""
    """Table of rows: .csv, .tsv, .jsonl or .json."""
    prompt: str = ""
    """Template of the question. With log-probs it is the exact text that a choice continues."""
    target: str = ""
    """Template of the right answer; with choices a letter, an index from 0, or the text of one of them."""
    target_is: Literal["", "text", "letter", "index"] = ""
    """The kind of the targets of a table with choices (`text`, `letter` or `index`), where it can be read in two ways."""
    choices: tuple[str, ...] = ()
    """One template per choice, or the name of one column that holds a list (JSON)."""
    continuation: str = " {choice}"
    """Template of the scored text of a choice: ` {letter}` if the prompt lists the choices under {options}."""
    baseline: str = ""
    """Text before a choice that is scored without its question, for acc_mutual_info; the default is the prompt's last line
    if that names no column, else `Answer:`."""
    conversation: str = ""
    """Name of the column that holds the messages before the question: a list of objects with `role` and `content` (JSON)."""
    scorer: tuple[str, ...] = ()
    """Scorers by name, with options, or FILE.py:function; agents are ranked by the first. See `firsthand list scorers`."""
    shots: int = 0
    """Number of few-shot examples before each question."""
    examples: str = ""
    """Table whose first rows are the few-shot examples; a row that asks the same is passed over."""
    id: str = ""
    """Template of a row's id; the default is the row number."""
    cluster: str = ""
    """Template of the key of dependent rows, such as {passage_id}: standard errors are clustered by it."""
    stratum: str = ""
    """Template of the key of fixed groups, such as {subject}: errors are those within them."""
    reduce: str = ""
    """Reducer of several attempts at a task: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2."""
    hint: str = ""
    """Expected form of an answer, such as `a number`."""
    encoding: str = ""
    """Encoding of the tables; UTF-8, and UTF-16 with a byte-order mark, are detected."""
    name: str = ""
    """Name of the benchmark; the default is the file's."""
    description: str = ""
    """One line for listings."""
    licence: str = ""
    """Licence of the data."""

    def __post_init__(self) -> None:
        for field in ("data", "prompt", "target"):
            if not getattr(self, field):
                raise ConfigError(f'{field} is empty: a benchmark needs data, prompt and target, as in {field} = "..."')
        if not 0 <= self.shots <= 100 or (self.shots > 0) != bool(self.examples):
            raise ConfigError(f"shots is {self.shots} and examples {self.examples!r}: give both, or neither")
        if self.target_is and not self.choices:
            raise ConfigError(
                f"target_is is {self.target_is!r} and there are no choices: leave it out, or give the choices"
            )
        if self.conversation and self.choices:
            raise ConfigError(
                f"conversation is {self.conversation!r} and there are choices, which are scored after the prompt "
                "alone: list them in the prompt, and leave `choices` out"
            )
        if self.baseline and (not self.choices or GAIN not in map(_name_of, self.scorer)):
            raise ConfigError(
                f"baseline is {self.baseline!r}, which {GAIN} alone reads: add it to `scorer`, with choices"
            )
        if self.baseline and (not self.baseline.strip() or any(brace in self.baseline for brace in "{}")):
            raise ConfigError(f"baseline is {self.baseline!r}: give the same text for every row, such as 'Answer:'")
        if self.target.strip() and self.target in self.prompt:
            raise ConfigError(
                f"the prompt contains the target {self.target!r}: every question would give its answer away"
            )


def read_benchmark(path: Path, *, data: str = "") -> Benchmark:
    """Return the benchmark that a TOML file describes.

    Args:
        data: Folder that the tables may lie in besides the TOML file's own; nothing else outside of it is read.
    """
    about = build(BenchmarkDescription, read_toml(BenchmarkDescription, path), source=str(path))
    rows = read_table(named_data(path, about.data, data), about.encoding)
    _check_braces(about, rows)
    _check_scorers(about, rows)
    shown = read_table(named_data(path, about.examples, data), about.encoding) if about.shots else []
    if len(shown) < about.shots:
        raise ConfigError(
            f"{path}: shots is {about.shots}, and {about.examples} has {count_of(len(shown), 'row')}: give as many rows as "
            "shots, or fewer shots"
        )
    protocol = _protocol(about, path.parent)
    items = _bounded((_item(row, about, f"row-{index:05d}") for index, row in enumerate(rows)), _item_bytes, path)
    made = (_item(row, about, f"example-{index}") for index, row in enumerate(shown))
    pool = _bounded(example_pool(made, items, about.shots), _item_bytes, path)
    if about.choices:
        pool, items = _with_gold(pool, shown, items, rows, about)
    _check_ids(items, rows)
    examples = ExampleChoice(pool, about.shots, about.examples)
    tasks = _bounded((_task(item, about, protocol, examples.of(item)) for item in items), _task_bytes, path)
    if about.conversation:
        tasks = [replace(task, conversation=said) for task, said in zip(tasks, _said(rows, about), strict=True)]
    tasks, counted, warnings = group_repeats(tasks, items, rows)
    source = f"{about.data}, {count_of(len(rows), 'row', ',')}{counted}; {about.shots}-shot{examples.told()}; "
    source += f"{about.prompt!r}"
    if protocol.baseline is not None:
        source += f"; {GAIN} after {protocol.baseline!r}"
    if about.conversation:
        source += f" after the messages of {about.conversation!r}"
    return Benchmark(
        name=about.name or path.stem,
        tasks=lambda seed: tasks,
        scorers=protocol.scorers,
        description=about.description,
        protocol="; ".join([source, *leaks(tasks, rows), *warnings]),
        licence=about.licence,
        reduce=about.reduce,
        options={"data": about.data},
        files=tuple(named_data(path, each, data) for each in dict.fromkeys((about.data, about.examples)) if each),
    )


def leaks(tasks: Sequence[Task], rows: Sequence[TableRow]) -> list[str]:
    """Return a warning that names the rows whose prompt contains the answer; empty if there are none.

    Targets that are short, or are choices listed in the prompt, are not checked.
    """
    found = []
    for task, row in zip(tasks, rows, strict=True):
        answer = normalise(str(task.secret["answer"]))
        if not task.choices and len(answer) >= LEAK_CHARS and f" {answer} " in f" {normalise(task.prompt)} ":
            found.append(row.where.rpartition(", ")[2])
    if not found:
        return []
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return [
        f"LEAK: the prompt contains the target in {len(found)} of {count_of(len(rows), 'row')} "
        f"({', '.join(found[:5])}{more})"
    ]


def _protocol(about: BenchmarkDescription, folder: Path = Path()) -> Protocol:
    names = about.scorer or (("acc", "acc_norm") if about.choices else ("normalised",))
    return Protocol(
        "your own",
        query=about.prompt,
        scorers=tuple(catalog.scorer(name, folder) for name in names),
        shots=about.shots,
        examples=about.examples,
        continuation=about.continuation if about.choices else None,
        baseline=_baseline(about) if GAIN in map(_name_of, about.scorer) else None,
    )


def _baseline(about: BenchmarkDescription) -> str:
    """Return the text before a choice without its question."""
    last = about.prompt.rstrip().rpartition("\n")[2].strip()
    return about.baseline or ("Answer:" if not last or "{" in last else last)


def _check_braces(about: BenchmarkDescription, rows: Sequence[TableRow]) -> None:
    """Refuse a column's name without braces, and a prompt without columns: both are the same text for every row."""
    for field in ("prompt", "target", "id", "cluster", "stratum"):
        text = getattr(about, field).strip()
        if any(text in row.columns for row in rows[:1]):
            raise ConfigError(
                f'{field} = "{text}" is the same text for every row: write "{{{text}}}" for the column {text}'
            )
    if "{" not in about.prompt:
        raise ConfigError(
            f"the prompt {about.prompt!r:.60} names no column and asks the same of every row: write one in braces, as in "
            'prompt = "{question}"'
        )


def _check_scorers(about: BenchmarkDescription, rows: Sequence[TableRow]) -> None:
    """Refuse a scorer that needs choices that there are not, or columns that the data lacks or that hold something else."""
    for text in about.scorer:
        name = _name_of(text)
        if name in NEED_CHOICES and not about.choices:
            raise ConfigError(f"the scorer {name} needs choices: give choices, or a scorer of texts such as normalised")
        if name in NEED_NUMBERS and about.choices:
            raise ConfigError(
                f"the scorer {name} compares numbers, and a right choice is a letter: give choice, or acc"
            )
        if name in NEED_JUDGES:
            raise ConfigError(
                f"the scorer {name} compares judges with votes: it needs a benchmark such as judge_mtbench"
            )
        for row in rows:
            check_columns(name, row, len(_choices(row, about)) if name == "mc2" else 0)


_READ_CODE = {"passes_tests", "passes_unit_tests"}
"""Scorers that find the code in a whole reply."""


def _name_of(scorer: str) -> str:
    return parse_spec(scorer).name


def _is_plain(value: object) -> bool:
    """True for a text, a number or a boolean."""
    return isinstance(value, str | int) or (isinstance(value, float) and not is_missing(value))


def _is_short(value: object) -> bool:
    """True for what `firsthand summary --by` may group by, NaN too: a task without it is another one than in older runs."""
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= MAX_KEPT_CHARS)


def _columns(row: TableRow) -> dict[str, str]:
    """Return the columns that templates may name: text, finite numbers and booleans."""
    return {name: str(value) for name, value in row.columns.items() if _is_plain(value)}


def _filled(template: str, row: TableRow, what: str, extra: Mapping[str, str] | None = None) -> str:
    fields = {**_columns(row), **(extra or {})}
    try:
        check_template(template, fields)
        return fill(template, fields)
    except ConfigError as error:
        others = {name: value for name, value in row.columns.items() if not _is_plain(value)}
        odd = [f"{name} = {value}" if isinstance(value, float) else name for name, value in others.items()]
        hint = f" ({', '.join(odd)}: not text or a number here)" if odd else ""
        raise DataError(f"{row.where}: {what}: {error}{hint}") from None


def _key(template: str, row: TableRow, what: str) -> str:
    """The filled template of an id or a group; DataError if it is too long for one."""
    key = _filled(template, row, what)
    if len(key) > MAX_KEY_CHARS:
        raise DataError(
            f"{row.where}: the {what} has {len(key):,} characters, and at most {MAX_KEY_CHARS:,} are expected: name a short "
            "column that tells the rows apart"
        )
    return key


def _item(row: TableRow, about: BenchmarkDescription, id: str) -> Item:
    choices = _choices(row, about)
    answer = _filled(about.target, row, "target").strip()
    if not answer:
        raise DataError(f"{row.where}: the target {about.target!r} is empty here")
    for name in () if about.choices else NEED_NUMBERS.intersection(map(_name_of, about.scorer)):
        if not is_comparable(answer, name):
            raise DataError(f"{row.where}: {no_number(answer, name)}")
    question = _filled(about.prompt, row, "prompt", _placeholders(about, row)).strip()
    if not question:
        raise DataError(f"{row.where}: the prompt is empty here")
    groups = {"cluster": about.cluster, "stratum": about.stratum}
    grouped = {name: _key(template, row, name) for name, template in groups.items() if template}
    id = _key(about.id, row, "id") if about.id else id
    secret: Json = {} if about.choices else {"answer": answer}
    secret |= {name: row.columns[name] for scorer in about.scorer for name in columns_of(_name_of(scorer), row)}
    for name in {"passes_tests"}.intersection(map(_name_of, about.scorer)):
        secret["tests"] = read_tests(name, row)
    # all columns are secret, as any may hold the answer: `summary --by` reads them there
    kept = {name: value for name, value in row.columns.items() if _is_short(value)}
    secret |= {"columns": kept} if kept else {}
    return Item(id, _columns(row), choices, 0, secret, grouped, question, answer)


def _placeholders(about: BenchmarkDescription, row: TableRow) -> dict[str, str]:
    """Placeholders of choices that a prompt may name besides columns, still empty; DataError if a column has such a name."""
    if not about.choices:
        return {}
    for name in ("options", "letter", "choice"):
        if name in _columns(row) and f"{{{name}}}" in about.prompt + about.continuation:
            raise DataError(f"{row.where}: the column {name!r} is named like a part of each choice: rename the column")
    return {"options": "", "letter": "", "choice": ""}


def _choices(row: TableRow, about: BenchmarkDescription) -> tuple[str, ...]:
    if len(about.choices) == 1 and "{" not in about.choices[0]:
        found = row.columns.get(about.choices[0])
        if not isinstance(found, list) or not 2 <= len(found) <= 26 or not all(isinstance(each, str) for each in found):
            raise DataError(f"{row.where}: the column {about.choices[0]!r} holds {str(found)[:60]}, not 2 to 26 texts")
        _check_blank(found, row)
        return tuple(found)
    made = _bounded((_filled(template, row, "choices") for template in about.choices), _text_bytes, Path(row.where))
    while len(made) > 2 and not made[-1].strip():  # a question with fewer choices than others has empty last columns
        made.pop()
    _check_blank(made, row)
    return tuple(made)


def _check_blank(choices: Sequence[str], row: TableRow) -> None:
    for number, each in enumerate(choices, 1):
        if not each.strip():
            raise DataError(
                f"{row.where}: choice {number} is empty here: a question may have fewer choices, the last empty"
            )


def _said(rows: Sequence[TableRow], about: BenchmarkDescription) -> list[tuple[Message, ...]]:
    """The messages before each row's question; a row without the column, or with null there, has none."""
    name = about.conversation
    if not any(name in row.columns for row in rows):
        raise DataError(
            f"{rows[0].where}: conversation: there is no column {name!r}; there are {', '.join(rows[0].columns)}"
        )
    found = ((row, row.columns.get(name)) for row in rows)
    return [() if value is None else messages_of(value, f"{row.where}: the column {name!r}") for row, value in found]


def _with_gold(
    examples: Sequence[Item], shown: Sequence[TableRow], items: Sequence[Item], rows: Sequence[TableRow],
    about: BenchmarkDescription,
) -> tuple[list[Item], list[Item]]:  # fmt: skip
    """The examples and the items with the indices of their right choices, read as one column."""
    kind = about.target_is or ("text" if about.target in about.choices else "")
    every = [*items, *examples]
    places = [*rows, *shown[: len(examples)]]
    targets = [Target(item.target, item.choices, row.where) for item, row in zip(every, places, strict=True)]
    found = [replace(item, gold=gold) for item, gold in zip(every, golds(targets, kind), strict=True)]
    return found[len(items) :], found[: len(items)]


def _bounded(made: Iterable[T], size: Callable[[T], int], path: Path) -> list[T]:
    """Return what is made; DataError as soon as its texts are larger than a data file may be."""
    found: list[T] = []
    left = MAX_BYTES
    for each in made:
        found.append(each)
        left -= size(each)
        if left < 0:
            raise DataError(
                f"{path}: the filled templates are larger than {MAX_BYTES >> 20} MiB: name fewer or shorter columns"
            )
    return found


def _item_bytes(item: Item) -> int:
    """Memory of all that templates made of a row; its columns are the table's own."""
    return _text_bytes((item.id, item.question, item.target, item.choices, item.metadata))


def _task_bytes(task: Task) -> int:
    return _text_bytes((task.prompt, task.choices, task.context, task.requests))


def _text_bytes(value: object) -> int:
    """Memory of the texts in a value, of each text that it has twice once: a character takes up to four bytes."""
    texts: dict[int, str] = {}
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            texts[id(each)] = each
        elif isinstance(each, Mapping):
            pending += each.values()
        elif isinstance(each, tuple):
            pending += each
    return sum(getsizeof(text) - _EMPTY_BYTES for text in texts.values())


def _check_ids(items: Sequence[Item], rows: Sequence[TableRow]) -> None:
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        places = [row.where for item, row in zip(items, rows, strict=True) if item.id == twice[0]]
        raise DataError(f"{places[1]}: the id {twice[0]!r:.100} is also that of {places[0]}: ids must differ")


def _task(item: Item, about: BenchmarkDescription, protocol: Protocol, examples: Sequence[Item]) -> Task:
    if about.choices:
        mentions = 1 + (about.prompt + about.continuation).count("{options}")
        before = sum(map(_item_bytes, examples)) + mentions * _item_bytes(item)
        if before * len(item.choices) > MAX_BYTES:  # each choice has a text before it
            raise DataError(
                f"the row {item.id!r:.100}: the texts before its {len(item.choices)} choices are larger than "
                f"{MAX_BYTES >> 20} MiB: give fewer or shorter choices or examples"
            )
        return make_task(item, protocol, examples)
    shown = "".join(f"{answered(each, protocol)}\n\n" for each in examples)
    return Task(
        id=item.id,
        prompt=shown + item.question,
        hint=about.hint or None,
        verbatim=bool(about.scorer) and {*map(_name_of, about.scorer)} <= _READ_CODE,
        metadata=dict(item.metadata),
        secret=dict(item.secret),
    )
