"""LoCoMo: questions about very long conversations of two people, from the authors' file (Maharana et al., ACL 2024).

Put `locomo10.json` in a folder and name it: `locomo:data=FOLDER`. Scores are the authors': F1 of stemmed words, the mean
over the parts of an answer in category 1, and for adversarial questions (category 5) whether the model says that it is not
mentioned.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.sources.chat_histories import field_of, locomo_sessions, read_records
from firsthand.benchmarks.sources.datasets import in_folder
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.scorers.evidence_recall import evidence_recall
from firsthand.scorers.locomo_f1 import locomo_f1
from firsthand.task import Task

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open domain", 4: "single-hop", 5: "adversarial"}


def locomo(*, data: str = ".", categories: str = "12345") -> Benchmark:
    """Return the benchmark of the file in the folder `data`, with the questions of these `categories` (digits 1 to 5)."""
    if not categories or not set(categories) <= set("12345"):
        raise ConfigError(f"categories is {categories!r}: give digits from 1 to 5, such as 1234")
    path = in_folder(Path(data).expanduser(), "data", "locomo10.json", "data/locomo10.json")
    records = read_records(path)
    slots = []
    for index, record in enumerate(records):
        for number, asked in enumerate(field_of(record, "qa", list, f"{path}, sample {index + 1}")):
            if str(_category(asked, f"{path}, sample {index + 1}, question {number + 1}")) in categories:
                slots.append((index, number))
    return Benchmark(
        name="locomo",
        tasks=lambda seed: LazyTasks(slots, partial(_task, records, path)),
        scorers=(locomo_f1, evidence_recall),
        description="Questions about very long conversations of two people (Maharana et al., 2024).",
        protocol=f"{path.name}, {len(slots)} questions of categories {categories}; the pattern attend; the authors' F1",
        licence="CC BY-NC 4.0",
        options={"categories": categories},
    )


def _category(asked: Any, where: str) -> int:
    """The category of a question, which may be written as 4.0; DataError if it is none."""
    given = asked.get("category") if isinstance(asked, dict) else None
    if isinstance(given, bool) or not isinstance(given, int | float) or given not in CATEGORIES:
        raise DataError(f"{where}: a category from 1 to 5 was expected")
    return int(given)


def _evidence(asked: Json, where: str) -> list[str]:
    """The ids of messages that hold the answer; some texts of the authors' file name several, as in "D8:6; D9:17"."""
    given = [] if asked.get("evidence") is None else field_of(asked, "evidence", list, where)
    if not all(isinstance(each, str) for each in given):
        raise DataError(f"{where}: 'evidence' is {given!r:.60}, and a list of texts was expected")
    return [id for each in given for id in each.replace(";", " ").split()]


def _task(records: list[Json], path: Path, slot: tuple[int, int]) -> Task:
    index, number = slot
    record, where = records[index], f"{path}, sample {index + 1}"
    asked = record["qa"][number]
    category = _category(asked, where)
    sample = str(record.get("sample_id", index))
    answer = "" if category == 5 else str(field_of(asked, "answer", (str, int, float), where))
    return Task(
        f"{sample}-{number:03d}",
        field_of(asked, "question", str, where),
        metadata={
            "sessions": locomo_sessions(field_of(record, "conversation", dict, where), where),
            "type": CATEGORIES[category],
            "cluster": sample,
        },
        sampling={"max_tokens": 64, "temperature": 0.0},
        secret={"answer": answer, "category": category, "evidence": _evidence(asked, where)},
    )
