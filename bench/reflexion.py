"""Compare Reflexion on code, trial by trial, with plain resampling that may spend as many tokens.

    python bench/reflexion.py MODEL.gguf --limit 164 --trials 3 --resamples 6 --out reflexion.md

Two agents attempt every task: `reflexion(direct)`, and the same loop with `strategy=none`, whose next trial sees the task
alone. Both judge a trial by tests that the model wrote itself, and both draw from the same temperature; their first trials
are the same to the token. What an agent would have answered had it been allowed k trials is the answer of its first trial
that passed its own tests, or of trial k, and is checked against the benchmark's tests here. Resampling is compared at the
largest k whose mean tokens do not exceed Reflexion's, and, since that leaves it a little behind, at the next one too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patterns import measure

from firsthand import catalog
from firsthand.config import build
from firsthand.experiment.settings import RunSettings, stored_settings
from firsthand.measure.measurements import markdown_table
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.runs import store
from firsthand.stats.intervals import proportion_interval
from firsthand.stats.paired import PairedDifference, paired_difference
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.trace import Trace

HEADER = ("trials allowed", "agent", "right", "accuracy", "tokens", "of it cached", "calls", "passed its own tests")


@dataclass(frozen=True)
class Prefix:
    """An attempt as it would have ended had it been allowed so many trials."""

    answer: str
    tokens: int
    cached: int
    calls: int
    accepted: bool
    """True if a trial passed the model's own tests."""


def prefixes(trace: Trace, task: Task, trials: int) -> list[Prefix]:
    """The attempt as it would have ended with 1, 2, ... `trials` trials, which one attempt makes in sequence."""
    ends = [event for event in trace.events if event.kind == "branch" and event.data["name"].startswith("trial.")]
    found: list[Prefix] = []
    for event in ends[:trials]:
        made = [call for call in trace.calls if call.started_s + call.duration_s <= event.at_s]
        node = trace.nodes[event.data["at"]]
        found.append(
            Prefix(
                answer_or_text(node.message.text, task),
                sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in made),
                sum(call.usage.cached_tokens for call in made),
                len(made),
                event.data["status"] == "done",
            )
        )
    if not found:  # ended by an error or a limit before a trial was judged
        used = trace.usage
        tokens = used.prompt_tokens + used.completion_tokens
        found = [Prefix(trace.answer or "", tokens, used.cached_tokens, len(trace.calls), False)]
    return found + [found[-1]] * (trials - len(found))


async def scored(traces: Sequence[Trace], tasks: dict[str, Task], score: object, trials: int) -> list[dict]:
    """For each number of trials: task id -> right or not, and the costs."""
    rows: list[dict] = [{"right": {}, "prefix": {}} for _ in range(trials)]
    for trace in traces:
        known: dict[str, float] = {}
        for row, prefix in zip(rows, prefixes(trace, tasks[trace.task_id], trials), strict=True):
            if prefix.answer not in known:
                verdict = await score(tasks[trace.task_id], replace(trace, answer=prefix.answer))
                known[prefix.answer] = verdict.value
            row["right"][trace.task_id] = known[prefix.answer]
            row["prefix"][trace.task_id] = prefix
    return rows


def mean(row: dict, name: str) -> float:
    """The mean of a cost over tasks."""
    return statistics.fmean(getattr(prefix, name) for prefix in row["prefix"].values())


def cells(number: int, agent: str, row: dict) -> list[str]:
    """A line of the table."""
    right, n = sum(row["right"].values()), len(row["right"])
    low, high = proportion_interval(right, n)
    return [
        str(number),
        agent,
        f"{right:.0f} of {n}",
        f"{right / n:.3f} [{low:.3f}, {high:.3f}]",
        f"{mean(row, 'tokens'):.0f}",
        f"{mean(row, 'cached'):.0f}",
        f"{mean(row, 'calls'):.1f}",
        f"{sum(prefix.accepted for prefix in row['prefix'].values())}",
    ]


def compared(a: dict, b: dict) -> PairedDifference:
    """A against B, task by task."""
    return paired_difference(
        {task: [value] for task, value in a["right"].items()}, {task: [value] for task, value in b["right"].items()}
    )


def sentence(name: str, found: PairedDifference) -> str:
    """A comparison in words."""
    return (
        f"{name}: {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p={found.p_value:.2g}: {found.verdict} "
        f"(+{found.better} -{found.worse}; a difference of {found.detectable:.3f} would have been seen 4 times in 5)"
    )


def main() -> None:
    """Measure one model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2", help="as for `firsthand run --model` [smollm2]")
    parser.add_argument("--benchmark", default="humaneval", help="one whose tasks have tests [humaneval]")
    parser.add_argument("--pattern", default="direct", help="who acts [direct]")
    parser.add_argument("--trials", type=int, default=3, help="of Reflexion")
    parser.add_argument("--resamples", type=int, default=6, help="trials of plain resampling")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--max-tokens", type=int, default=320)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="print the tables of this finished run, and make none")
    parser.add_argument("--out", type=Path, help="write the Markdown there too")
    args = parser.parse_args()
    names = (
        f"reflexion({args.pattern}):trials={args.trials}",
        f"reflexion({args.pattern}):trials={args.resamples}:strategy=none",
    )
    words = {key: getattr(args, key) for key in ("limit", "temperature", "max_tokens", "concurrency", "seed")}
    words |= {"benchmarks": [args.benchmark], "model": [args.model], "pattern": list(names), "tools": "python"}
    settings = build(RunSettings, words | {"name": "reflexion"})
    if args.run:
        run = store.open_run(args.run, data_home())
        settings, traces = stored_settings(run), list(run.traces())
    else:
        run, traces = measure(settings)
    benchmark = catalog.benchmark(settings.benchmarks[0])
    tasks = {task.id: task for task in benchmark.tasks(settings.seed)}
    tables = []
    for name, trials in zip(settings.pattern, (args.trials, args.resamples), strict=True):
        mine = [trace for trace in traces if trace.agent_name == name]
        tables.append(asyncio.run(scored(mine, tasks, benchmark.scorers[0], trials)))
    reflexion, resampling = tables
    lines = [cells(k, "reflexion", row) for k, row in enumerate(reflexion, 1)]
    lines += [cells(k, "resampling", row) for k, row in enumerate(resampling, 1)]
    spent = mean(reflexion[-1], "tokens")
    within = max((k for k, row in enumerate(resampling) if mean(row, "tokens") <= spent), default=0)
    parts = [
        f"{settings.model[0]} on {benchmark.name}, {len(reflexion[0]['right'])} tasks, temperature {settings.temperature}",
        markdown_table(HEADER, lines),
        sentence(f"reflexion, {args.trials} trials against its first", compared(reflexion[-1], reflexion[0])),
        *(
            sentence(
                f"reflexion, {args.trials} trials against resampling, {k + 1} trials "
                f"({spent:.0f} against {mean(resampling[k], 'tokens'):.0f} tokens)",
                compared(reflexion[-1], resampling[k]),
            )
            for k in sorted({within, min(within + 1, args.resamples - 1)})
        ),
        f"{json.dumps(run.about['machine'])}; run {run.id}; `{settings.command()}`",
    ]
    text = "\n\n".join(parts)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
