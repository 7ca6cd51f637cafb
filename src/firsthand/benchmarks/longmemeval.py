"""LongMemEval: questions about long chat histories, from the authors' files (Wu et al., ICLR 2025).

Put `longmemeval_oracle.json`, `longmemeval_s.json` or `longmemeval_m.json` in a folder and name it:
`longmemeval:data=FOLDER`. The paper's accuracy is a judgement by GPT-4o; `contains_words` is a lower bound that needs no
judge, and does not compare with it. `evidence_recall` is the paper's recall of evidence sessions, of what the memory found
for the question.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.benchmarks.sources.chat_histories import field_of, iso_time, longmemeval_sessions, read_records
from firsthand.benchmarks.sources.datasets import in_folder
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.scorers.contained import contains_words
from firsthand.scorers.evidence_recall import evidence_all, evidence_recall
from firsthand.task import Task

SPLITS = ("oracle", "s", "m")


def longmemeval(*, data: str = ".", split: str = "s") -> Benchmark:
    """Return the benchmark of a `split` (oracle, s or m) in the folder `data`, or of a file."""
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}: give one of {', '.join(SPLITS)}")
    path = in_folder(Path(data).expanduser(), "data", f"longmemeval_{split}.json", f"data/longmemeval_{split}.json")
    records = read_records(path)
    return Benchmark(
        name="longmemeval",
        tasks=lambda seed: LazyTasks(range(len(records)), partial(_task, records, path)),
        scorers=(contains_words, evidence_recall, evidence_all),
        description="Questions about long chat histories: extraction, updates, time, several sessions, abstention.",
        protocol=f"{path.name}, {len(records)} questions; the pattern attend; contains_words is a lower bound of "
        f"the paper's "
        "judged accuracy, and abstention questions need a judge",
        licence="MIT",
        options={"split": split},
    )


def _task(records: list[Json], path: Path, index: int) -> Task:
    record, where = records[index], f"{path}, question {index + 1}"
    id = field_of(record, "question_id", str, where)
    day = iso_time(field_of(record, "question_date", str, where), where)
    return Task(
        id,
        f"(Asked on {day.partition('T')[0]}.) {field_of(record, 'question', str, where)}",
        metadata={
            "sessions": longmemeval_sessions(record, where),
            "type": field_of(record, "question_type", str, where),
            "abstention": id.endswith("_abs"),
        },
        sampling={"max_tokens": 128, "temperature": 0.0},
        secret={
            "answer": str(field_of(record, "answer", (str, int, float), where)),
            "evidence": [] if id.endswith("_abs") else field_of(record, "answer_session_ids", list, where),
        },
    )
