"""Turn stored attempts, votes and judgements into training data with their lineage."""

from __future__ import annotations

import json
import math
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firsthand.errors import ConfigError, StoreError
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.training_data import DataFilter, training_rows
from firsthand.system.home import data_home
from firsthand.system.new_file import write_new
from firsthand.system.plurals import count_of
from firsthand.trace import Trace

EXAMPLES = """
firsthand data last --as sft --min-score 1 --out good.jsonl       # rejection sampling: then `firsthand train sft good.jsonl`
firsthand data run-a run-b --as pairs --out pairs.jsonl           # best against worst of each task, and stored votes
firsthand data last --as kto
firsthand data last --answers --out answers.jsonl                 # teach a model to answer as a pattern does
firsthand data traces --as tasks --filter 'has:error service:shop' --out set.toml    # then `firsthand run ./set.toml`
"""

MOST_TRACES = 1000
"""Traces to take where no limit is given."""


@dataclass(frozen=True)
class Config:
    """Runs, the kind of data, and filters."""

    runs: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Runs: an id, the beginning of it, a folder, or last; or the word `traces` for those that the Studio received."""
    as_: Literal["sft", "pairs", "kto", "reward", "tasks"] = "sft"
    """sft, pairs, kto or reward; of traces sft, or tasks: a benchmark of their questions and answers."""
    out: str | None = None
    """The JSONL file to write; without it, lines are printed."""
    score: str | None = None
    """A score by name; the benchmark's first one by default."""
    min_score: float | None = None
    """Minimum score of an attempt (sft), of the better answer (pairs, reward), or of a desirable one (kto: 0.5)."""
    max_score: float | None = None
    """The same for scores of harm, such as attack_success, where lower is better: maximum score (kto: below 0.5)."""
    best_of: int = 0
    """With sft and kto: keep this many of the best attempts at each task, whatever their agents; 0 keeps all."""
    benchmark: str | None = None
    """Only this benchmark."""
    agent: str | None = None
    """Only this agent."""
    all_branches: bool = False
    """Take every branch of attempts with several, such as votes and trees."""
    answers: bool = False
    """Take each task's question and the attempt's answer alone: what a pattern did between is left out."""
    filter: str = ""
    """With traces: the filter of the Studio's list, such as has:error or score.helpful<0.5."""
    limit: int | None = None
    """With traces: at most this many, the newest first; 1,000 by default."""
    scorer: str = "normalised"
    """With tasks: the scorer that compares a new answer with the recorded one."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("data needs a run, as in: firsthand data last --as sft")
        if self.as_ == "tasks" and (self.runs != ("traces",) or self.out is None):
            raise ConfigError(
                "tasks are made of traces into a file, as in: firsthand data traces --as tasks --out set.toml"
            )
        if "traces" in self.runs and (len(self.runs) > 1 or self.as_ not in ("tasks", "sft")):
            raise ConfigError(
                "traces stand alone, and give tasks or sft: firsthand data traces --as tasks --out set.toml"
            )
        if self.answers and self.runs == ("traces",):
            raise ConfigError("answers is for runs: traces of the Studio are taken whole")
        if self.filter and self.runs != ("traces",):
            raise ConfigError("filter is for traces: firsthand data traces --filter has:error")
        if self.scorer != Config.scorer and self.as_ != "tasks":
            raise ConfigError(
                "scorer is for tasks of traces: firsthand data traces --as tasks --scorer exact --out set.toml"
            )
        if self.best_of and self.as_ not in ("sft", "kto"):
            raise ConfigError(f"best_of is for sft and kto: leave it out with {self.as_}")
        for name in ("min_score", "max_score"):
            if (bound := getattr(self, name)) is not None and not math.isfinite(bound):
                raise ConfigError(f"{name} is {bound}: give a number")
        for name in ("score", "min_score", "max_score", "best_of", "benchmark", "agent"):
            if self.runs == ("traces",) and getattr(self, name) != getattr(Config, name):
                raise ConfigError(f"{name} is for runs: choose traces with filter, as in --filter 'score.helpful>0.5'")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if self.limit is not None and self.runs != ("traces",):
            raise ConfigError("limit is for traces: firsthand data traces --limit 100; best_of takes some of a run")
        if self.out is not None and Path(self.out).exists():
            raise ConfigError(f"{self.out} is there already: give another file, or remove it")


def main(config: Config) -> int:
    """Write the lines, and print what was left out and why."""
    if config.runs == ("traces",):
        return _of_traces(config)
    chosen = DataFilter(
        score=config.score, min_score=config.min_score, max_score=config.max_score, best_of=config.best_of,
        benchmark=config.benchmark, agent=config.agent, all_branches=config.all_branches, answers=config.answers,
    )  # fmt: skip
    with ExitStack() as opened:
        named = [opened.enter_context(store.open_run(each, data_home())) for each in config.runs]
        runs = [*{run.path.resolve(): run for run in named}.values()]
        assert config.as_ != "tasks"
        found = training_rows(runs, config.as_, chosen)
    lines = "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in found.rows)
    if config.out is None:
        sys.stdout.write(lines)
    elif found.rows:
        try:
            write_new(Path(config.out), lines)
        except OSError as error:
            raise StoreError(f"{config.out} cannot be written: {error.strerror or error}") from None
    reasons = ", ".join(f"{count} {why}" for why, count in found.left_out.most_common() if count)
    told = f"{len(found.rows)} line{'s' * (len(found.rows) != 1)} of {config.as_} data"
    print(f"{told}{f'; left out: {reasons}' if reasons else ''}", file=sys.stderr)
    if not found.rows:
        raise ConfigError("nothing is left to train on: loosen the filters, or name other runs")
    return 0


def _of_traces(config: Config) -> int:
    """Make tasks or training data of received traces."""
    from firsthand import catalog
    from firsthand.ingest.as_trace import trace_of
    from firsthand.ingest.cold_segments import read_sealed
    from firsthand.ingest.task_rows import task_row, write_tasks
    from firsthand.ingest.trace_store import TraceStore
    from firsthand.runs.training_data import attempt_rows
    from firsthand.studio.incoming_query import IncomingQuery

    catalog.scorer(config.scorer)
    query = IncomingQuery.parse(config.filter)
    if not TraceStore.exists(data_home()):
        raise ConfigError("no traces have been received: `firsthand studio` receives them, see docs/traces.md")
    store_ = TraceStore(data_home())
    store_.read_sealed = read_sealed
    rows: list[Json] = []
    left_out = cut = unasked = 0
    try:
        for summary in query.page(store_, limit=config.limit or MOST_TRACES).rows:
            spans = store_.spans(summary.trace)
            if config.as_ == "sft":
                trace = trace_of(summary.trace, spans)
                found = attempt_rows("traces", trace)
                if not found and _is_without_model(trace):
                    unasked += 1
                    continue
            else:
                row = task_row(summary.trace, spans)
                found = [row] if row["question"].strip() and row["answer"].strip() else []
                if found and "is_cut" in row:
                    cut += 1
                    continue
            rows += found
            left_out += not found
    finally:
        store_.close()
    answer = "a whole answer" if config.as_ == "sft" else "an answer"
    if not rows and unasked:
        raise ConfigError(
            f"none of {count_of(left_out + unasked, 'trace')} has {answer} of a model, and sft data are what a model said:"
            ' give another --filter, or record the function that asks the model with @traced(kind="llm")'
        )
    if not rows:
        raise ConfigError(
            f"none of {count_of(left_out + cut, 'trace')} has a question and {answer}: give another --filter"
        )
    if config.as_ == "tasks":
        assert config.out is not None
        write_tasks(Path(config.out), rows, config.scorer)
    elif config.out is None:
        sys.stdout.write("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    else:
        write_new(Path(config.out), "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    reasons = [f"{count_of(left_out, 'trace')} without a question or {answer}"] if left_out else []
    reasons += [f"{count_of(cut, 'trace')} whose question or answer was cut when it was recorded"] if cut else []
    reasons += [f"{count_of(unasked, 'trace')} without an answer of a model"] if unasked else []
    without = f"; left out: {', '.join(reasons)}" if reasons else ""
    print(f"{count_of(len(rows), 'line')} of {config.as_} data{without}", file=sys.stderr)
    return 0


def _is_without_model(trace: Trace) -> bool:
    """True for a trace with an answer, in which no model was recorded."""
    return bool(trace.answer) and trace.error is None and not any(call.kind == "generate" for call in trace.calls)
