"""MMLU: 57 subjects from school to profession, four choices (Hendrycks et al., 2021).

The letters protocol shows the subject's five development questions; the cloze protocols score the text of each choice, which
separates small models better. Averages are over items, as in lm-evaluation-harness. Subjects are strata.
"""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.multiple_choice import LETTERS, choices_of
from firsthand.benchmarks.protocols.protocol import Item, Protocol, choose, make_benchmark, make_task, others
from firsthand.benchmarks.sources.datasets import MAX_BYTES, Source, contents, load, load_beside, located, text_field
from firsthand.errors import DataError, reason_of
from firsthand.message import Json
from firsthand.scorers.choice import acc, acc_norm
from firsthand.system.first_rows import most_rows
from firsthand.system.zip_members import BoundedZipFile, read_member

PROTOCOLS = {
    "lm-eval-5shot": Protocol(
        "lm-evaluation-harness, group mmlu: the letters, after the first five development questions of the subject",
        query="{question}\n" + LETTERS,
        header="The following are multiple choice questions (with answers) about {subject}.\n\n",
        continuation=" {letter}",
        scorers=(acc,),
        shots=5,
        examples="dev",
    ),
    "lm-eval-0shot": Protocol(
        "lm-evaluation-harness, group mmlu, --num_fewshot 0",
        query="{question}\n" + LETTERS,
        header="The following are multiple choice questions (with answers) about {subject}.\n\n",
        continuation=" {letter}",
        scorers=(acc,),
    ),
    "cloze": Protocol(
        "SmolLM2's model card (lighteval, mmlu_cloze): the text of each choice, per character",
        header="The following are questions about {subject}.\n",
        scorers=(acc_norm, acc),
    ),
    "lm-eval-continuation": Protocol(
        "lm-evaluation-harness, group mmlu_continuation: the text of each choice",
        header="The following are questions (with answers) about {subject}.\n\n",
        scorers=(acc, acc_norm),
    ),
}
ZIP = "mcq/mmlu_csv.zip"
COUNTS = {"test": 14_042, "dev": 285}


@dataclass(frozen=True)
class Split:
    """The rows {subject, question, choices, gold} of a split, each with its file and line."""

    rows: Sequence[tuple[Json, str]]
    origin: str
    sha256: str


def mmlu(*, protocol: str = "", data: str = "", subject: str = "") -> Benchmark:
    """Return the test split, or one subject of it, such as `anatomy`. `data` is a folder with `mmlu_csv.zip`, or `hub`."""
    chosen = choose("mmlu", PROTOCOLS, protocol)[1]
    test = _split("test", data)
    by_subject: dict[str, list[Item]] = {}
    if chosen.shots:
        for index, (row, where) in enumerate(_split("dev", data).rows):
            item = read_item(row, f"dev-{index:03d}", where)
            by_subject.setdefault(item.fields["subject"], []).append(item)
    items = [  # a slice's rows keep their places in the whole, and so their ids
        read_item(row, f"test-{row.get('row', index):05d}", where) for index, (row, where) in enumerate(test.rows)
    ]
    wanted = subject.replace("_", " ")
    known = dict.fromkeys(item.fields["subject"] for item in items)
    if wanted and wanted not in known:
        raise DataError(f"subject is {subject!r}: give one of {', '.join(name.replace(' ', '_') for name in known)}")
    items = [item for item in items if wanted in ("", item.fields["subject"])]
    tasks = [make_task(item, chosen, others(by_subject.get(item.fields["subject"], ()), item)) for item in items]
    return make_benchmark(
        "mmlu",
        PROTOCOLS,
        protocol,
        tasks,
        description="57 subjects from school to profession, four choices (Hendrycks et al., 2021).",
        origin=test.origin + (f"; subject {wanted}" if wanted else ""),
        licence="MIT",
        sha256=test.sha256,
    )


def mmlu_rows(split: str, data: str) -> Sequence[tuple[Json, str]]:
    """Return the rows of a split, each with its place for errors."""
    return _split(split, data).rows


def read_item(row: Json, id: str, where: str) -> Item:
    """Return the Item of a row {subject, question, choices, gold}; the subject is its stratum."""
    choices, gold = choices_of(row, where)
    subject = text_field(row, "subject", where).replace("_", " ")
    fields = {"question": text_field(row, "question", where).strip(), "subject": subject}
    return Item(id, fields, choices, gold, metadata={"subject": subject, "stratum": subject})


def from_hub(row: Json) -> Json:
    """Convert a row of cais/mmlu to a row of our file."""
    return {
        "subject": row["subject"], "question": row["question"],
        "choices": list(row["choices"]), "gold": int(row["answer"]),
    }  # fmt: skip


def _split(split: str, data: str) -> Split:
    path = located(ZIP, data, f"mcq/mmlu_{split}.jsonl")
    if path is not None and path.suffix == ".zip":  # with a folder for each split
        raw = contents(path)
        rows = tuple(_zipped(raw, path, split))
        return Split(rows, f"{split} split, the authors' files, {len(rows):,} items", hashlib.sha256(raw).hexdigest())
    source = Source(f"mcq/mmlu_{split}.jsonl", COUNTS[split], "MIT", "cais/mmlu", "all", split, from_hub)
    rows_read = load(source, data) if split == "test" else load_beside(source, data)
    placed = tuple((row, rows_read.where(index)) for index, row in enumerate(rows_read.rows))
    return Split(placed, f"{split} split, {rows_read.origin}", rows_read.sha256)


def _zipped(raw: bytes, path: Path, split: str) -> Iterator[tuple[Json, str]]:
    """Yield the rows of the authors' CSV files, subject by subject; nothing is unpacked to disk."""
    try:
        with BoundedZipFile(io.BytesIO(raw)) as archive:
            infos = sorted(
                (i for i in archive.infolist() if f"/{split}/" in f"/{i.filename}"), key=lambda i: i.filename
            )
            if sum(info.file_size for info in infos) > MAX_BYTES:
                raise DataError(f"{path} unpacks to more than {MAX_BYTES >> 20} MiB: is it the right file?")
            files = [(i.filename, read_member(archive, i, i.file_size).decode("utf-8")) for i in infos if i.file_size]
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a complete zip file of CSV files: {reason_of(error)}") from None
    if not files:
        raise DataError(f"{path} holds no folder {split!r}: give the authors' data archive")
    for name, text in files:
        subject = Path(name).stem.removesuffix(f"_{split}")
        reader = csv.reader(io.StringIO(text, newline=""))
        for row in islice(reader, most_rows.get()):
            where = f"{path}, {name}, line {reader.line_num}"
            if len(row) != 6 or row[5] not in ("A", "B", "C", "D"):
                raise DataError(f"{where}: a question, four choices and a letter were expected, not {str(row)[:80]}")
            yield {"subject": subject, "question": row[0], "choices": row[1:5], "gold": "ABCD".index(row[5])}, where
