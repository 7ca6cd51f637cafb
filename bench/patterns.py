"""Measure each pattern: accuracy, calls, tokens and seconds with a real model, each paired with `direct`.

    python bench/patterns.py MODEL.gguf --benchmark arithmetic:levels=1-3 --limit 60 --out patterns.md --json patterns.json

The attempts are those of an Experiment and kept as an ordinary run, so `firsthand show`, `compare` and `run --resume` work
on it; the command that reproduces it without this script is printed. One attempt at a time unless
`--concurrency` says otherwise, for then the seconds are those of an attempt that has the machine to itself. Columns:
- accuracy: the benchmark's first score with its 95 % interval, and the paired difference to `direct`, corrected for the
  number of patterns (Holm)
- calls: generations, scorings and tool calls of an attempt, and how many of them are on its critical path
- prompt, cached, completion: tokens of an attempt; `cached` are those of the prompt that were not computed again
- critical path: seconds of the longest chain of calls that wait for one another, mean over attempts
- failures: attempts that an error or a limit ended
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from firsthand import catalog
from firsthand.config import build
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.settings import RunSettings, stored_settings
from firsthand.measure.measurements import markdown_table
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.show.board import Board, Row, leaderboard
from firsthand.stats.critical_path import critical_calls, critical_seconds
from firsthand.system.home import data_home
from firsthand.system.terminal import progress
from firsthand.trace import Trace

PATTERNS = (
    "direct",
    "chain",
    "cot",
    "cot:extract=true",
    "self_consistency:samples=5",
    "react",
    "react:constrained=true",
    "self_consistency(react):samples=5",
    "react_cot:samples=5",
    "parallel:n=5",
    "evaluator_optimizer",
    "route(direct,cot,react)",
    "plan_execute(react):max_steps=3",
    "orchestrate(react):workers=3",
    "code_act",
)
HEADER = (
    *("pattern", "accuracy", "vs. direct", "verdict", "calls (on the critical path)", "prompt", "cached", "completion"),
    *("tokens", "critical path, s", "failures"),
)


def measure(settings: RunSettings) -> tuple[Run, list[Trace]]:
    """The run of all patterns, and its traces."""
    experiment = Experiment.from_settings(settings, show_progress=True)
    with progress(", ".join(settings.benchmarks), len(experiment.places())) as update:
        done = itertools.count(1)
        run = experiment.run(on_trace=lambda trace: update(next(done), note=f"{trace.agent_name} {trace.task_id}"))
    return run, list(run.traces())


def record(board: Board, row: Row, traces: Sequence[Trace]) -> Json:
    """The figures of one pattern as a JSON object."""
    seconds = [critical_seconds(trace) for trace in traces]
    return {
        **row.to_json(),
        "benchmark": board.benchmark,
        "metric": board.metric,
        "calls_in_a_row": statistics.fmean(critical_calls(trace) for trace in traces),
        "critical_seconds_mean": statistics.fmean(seconds),
        "critical_seconds_median": statistics.median(seconds),
    }


def cells(body: Json, baseline: Json) -> list[str]:
    """The record as a line of the table."""
    score, versus, cost = body["score"], body["versus"], body["cost"]
    tokens = cost["prompt_tokens"] + cost["completion_tokens"]
    times = tokens / (baseline["cost"]["prompt_tokens"] + baseline["cost"]["completion_tokens"])
    slower = body["critical_seconds_mean"] / max(baseline["critical_seconds_mean"], 1e-9)
    return [
        f"`{body['agent']}`",
        f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]",
        f"{versus['difference']:+.2f} [{versus['low']:+.2f}, {versus['high']:+.2f}]" if versus else "",
        f"{versus['verdict']} (p={versus['p_value']:.2g})" if versus else "",
        f"{cost['calls']:.1f} ({body['calls_in_a_row']:.1f})",
        f"{cost['prompt_tokens']:.0f}",
        f"{cost['cached_tokens']:.0f}",
        f"{cost['completion_tokens']:.0f}",
        f"{tokens:.0f} ({times:.1f}x)",
        f"{body['critical_seconds_mean']:.2f} ({slower:.1f}x)",
        f"{body['errors']} errors, {body['stopped']} limits" if body["errors"] or body["stopped"] else "",
    ]


def report(run: Run, settings: RunSettings, traces: Sequence[Trace]) -> tuple[str, Json]:
    """The tables as Markdown, and all of it as JSON."""
    machine = run.about["machine"]
    body: Json = {
        "date": datetime.date.today().isoformat(),
        "run": run.id,
        "machine": machine,
        "command": settings.command(),
        "concurrency": settings.concurrency,
        "boards": [],
    }
    parts = []
    for board in leaderboard(traces, baseline=settings.pattern[0]):
        mine = [trace for trace in traces if trace.benchmark == board.benchmark]
        rows = {
            row.agent: record(board, row, [each for each in mine if each.agent_name == row.agent]) for row in board.rows
        }
        ordered = [rows[name] for name in dict.fromkeys((board.baseline, *settings.pattern, *rows)) if name in rows]
        body["boards"].append({"benchmark": board.benchmark, "tasks": board.tasks, "rows": ordered})
        table = markdown_table(HEADER, [cells(each, rows[board.baseline]) for each in ordered])
        parts.append(
            f"{', '.join(settings.model)} on {board.benchmark}, {board.tasks} tasks ({board.metric})\n\n{table}"
        )
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts.append(f"{where}; {settings.concurrency} attempt(s) at a time; {body['date']}; `{settings.command()}`")
    return "\n\n".join(parts), body


def main() -> None:
    """Measure one model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2", help="as for `firsthand run --model` [smollm2]")
    parser.add_argument("--benchmark", action="append", help="may be given several times [arithmetic]")
    parser.add_argument("--pattern", help=f"in place of {','.join(PATTERNS)}")
    parser.add_argument(
        "--tools", default=",".join(name for name in ("calculator", "python") if name in catalog.names("tool"))
    )
    parser.add_argument("--limit", type=int, default=60, help="tasks of each benchmark")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget-tokens", type=int, help="of one attempt, the same for every pattern")
    parser.add_argument("--run", help="print the tables of this finished run, and make none")
    parser.add_argument("--out", type=Path, help="write the Markdown there too")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    words = {
        "benchmarks": args.benchmark or ["arithmetic"],
        "model": [args.model],
        "pattern": args.pattern
        or [name for name in PATTERNS if name != "code_act" or "python" in args.tools.split(",")],
        "name": "patterns",
        **{key: getattr(args, key) for key in ("tools", "limit", "epochs", "max_tokens", "concurrency", "seed")},
        "budget_tokens": args.budget_tokens,
    }
    settings = build(RunSettings, words)
    if settings.pattern[0] != "direct":
        settings = replace(settings, pattern=("direct", *(each for each in settings.pattern if each != "direct")))
    if args.run:
        run = store.open_run(args.run, data_home())
        settings, traces = stored_settings(run), list(run.traces())
    else:
        run, traces = measure(settings)
    text, body = report(run, settings, traces)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
