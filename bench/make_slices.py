"""Makes the slices that the package ships from whole data files: `python bench/make_slices.py $FIRSTHAND_DATA`.

Licences are beside the slices, in `src/firsthand/benchmarks/slices/LICENSES.md`.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from firsthand.benchmarks.arc_challenge import arc_challenge
from firsthand.benchmarks.mmlu import mmlu_rows
from firsthand.benchmarks.sources.datasets import packed

SLICES = Path(__file__).parent.parent / "src" / "firsthand" / "benchmarks" / "slices"
PER_SUBJECT = 4
ARC_ITEMS = 100
MBPP_LAST = 110


def main(data: str) -> None:
    """Write the files."""
    problems = gzip.decompress((Path(data) / "code" / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
    write("HumanEval.jsonl", [json.loads(line) for line in problems])
    write("mmlu_dev.jsonl", [row for row, _ in mmlu_rows("dev", data)])
    taken: dict[str, int] = {}
    kept = []
    for place, (row, _) in enumerate(mmlu_rows("test", data)):
        taken[row["subject"]] = taken.get(row["subject"], 0) + 1
        if taken[row["subject"]] <= PER_SUBJECT:
            kept.append({"row": place, **row})
    write("mmlu_test.jsonl", kept)
    tasks = arc_challenge(data=data).tasks(0)[:ARC_ITEMS]
    write("arc_challenge.jsonl", [
        {"query": f"Question: {task.prompt}", "choices": [each.strip() for each in task.choices],
         "gold": task.letters.index(task.secret["answer"])}
        for task in tasks
    ])  # fmt: skip
    lines = (Path(data) / "code" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()
    write("mbpp.jsonl", [row for row in map(json.loads, lines) if row["task_id"] <= MBPP_LAST])


def write(name: str, rows: list[Any]) -> None:
    """Write a slice, and print what it holds."""
    raw = packed([json.dumps(row, ensure_ascii=False) for row in rows])
    (SLICES / f"{name}.gz").write_bytes(raw)
    print(f"{name}: {len(rows)} rows, {len(raw):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
