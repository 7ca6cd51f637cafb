"""Turn stored attempts, votes and judgements into training data with their lineage."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store
from firsthand.runs.training_data import DataFilter, training_rows
from firsthand.system.home import data_home

EXAMPLES = """
firsthand data last --as sft --min-score 1 --out good.jsonl       # rejection sampling: then `firsthand train sft good.jsonl`
firsthand data run-a run-b --as pairs --out pairs.jsonl           # best against worst of each task, and stored votes
firsthand data last --as kto
"""


@dataclass(frozen=True)
class Config:
    """Runs, the kind of data, and filters."""

    runs: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Runs: an id, the beginning of it, a folder, or last."""
    as_: Literal["sft", "pairs", "kto", "reward"] = "sft"
    """sft, pairs, kto or reward"""
    out: str | None = None
    """The JSONL file to write; without it, lines are printed."""
    score: str | None = None
    """A score by name; the benchmark's first one by default."""
    min_score: float | None = None
    """Least score of an attempt (sft), of the better answer (pairs, reward), or of a desirable one (kto: 0.5)."""
    best_of: int = 0
    """With sft and kto: take so many of the best attempts at each task."""
    benchmark: str | None = None
    """Only this benchmark."""
    agent: str | None = None
    """Only this agent."""
    all_branches: bool = False
    """Take every branch of attempts with several, such as votes and trees."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("data needs a run, as in: firsthand data last --as sft")
        if self.out is not None and Path(self.out).exists():
            raise ConfigError(f"{self.out} is there already: give another file, or remove it")


def main(config: Config) -> int:
    """Write the lines, and print what was left out and why."""
    chosen = DataFilter(
        score=config.score, min_score=config.min_score, best_of=config.best_of, benchmark=config.benchmark,
        agent=config.agent, all_branches=config.all_branches,
    )  # fmt: skip
    with ExitStack() as opened:
        runs = [opened.enter_context(store.open_run(each, data_home())) for each in config.runs]
        found = training_rows(runs, config.as_, chosen)
    lines = "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in found.rows)
    if config.out is None:
        sys.stdout.write(lines)
    elif found.rows:
        part = Path(f"{config.out}.part")
        try:
            part.write_text(lines, encoding="utf-8")
            part.replace(config.out)
        except OSError as error:
            raise StoreError(f"{config.out} cannot be written: {error.strerror or error}") from None
    reasons = ", ".join(f"{count} {why}" for why, count in found.left_out.most_common() if count)
    told = f"{len(found.rows)} line{'s' * (len(found.rows) != 1)} of {config.as_} data"
    print(f"{told}{f'; left out: {reasons}' if reasons else ''}", file=sys.stderr)
    if not found.rows:
        raise ConfigError("nothing is left to train on: loosen the filters, or name other runs")
    return 0
