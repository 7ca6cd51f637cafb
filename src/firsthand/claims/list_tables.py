"""The list's tables of patterns and of RAG and fine-tuning, and the patterns' rows measured for a model on a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from firsthand.claims.lab import paired
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.settings import RunSettings
from firsthand.message import Json
from firsthand.stats.intervals import Interval, mean_interval
from firsthand.stats.paired import PairedDifference
from firsthand.system.plurals import count_of


@dataclass(frozen=True)
class PatternRow:
    """A row of the list's table, and the pattern that stands for it here."""

    name: str
    smallest: str
    cost: str
    pattern: str


PATTERN_ROWS = (
    PatternRow("Prompt Chaining", "Any", "Low", "chain"),
    PatternRow("ReAct", "4B+", "Medium", "react"),
    PatternRow("Chain of Thought", "7B+", "Medium", "cot"),
    PatternRow("Tree of Thoughts", "14B+", "High", "tot:breadth=2:samples=2:judgements=1"),
    PatternRow("Reflexion", "7B+", "Medium", "reflexion:trials=2"),
    PatternRow("Parallelization", "Any", "High (parallel)", "parallel:n=4"),
    PatternRow("Orchestrator + Sub-agents", "13B+ orchestrator", "High", "orchestrate"),
)
RAG_ROWS = (
    ("Knowledge freshness", "Real-time, always current", "Baked in at training time", "fresh, stale"),
    ("Knowledge size", "Unlimited (external DB)", "Limited by context/capacity", "right, by arm"),
    ("Response style / tone", "Harder to control", "Strong style consistency", "style"),
    ("Task specialization", "General behavior", "Deep task expertise", "right, by arm"),
    ("Citability / traceability", "Source attribution built-in", "Hard to attribute", "cited"),
    ("Cost to update", "Update index only", "Retrain or re-fine-tune", "update, in seconds"),
    ("Recommended when", "Docs change, citations, broad", "Format, domain, style", "all columns together"),
)
"""Dimension, the list's words on RAG and on fine-tuning, and the column of `firsthand rag decide` that measures it."""


@dataclass(frozen=True)
class MeasuredRow:
    """A row with its measurements."""

    row: PatternRow
    accuracy: Interval
    versus: PairedDifference
    tokens: float
    """Times the tokens of a plain answer."""
    calls: float
    errors: int


@dataclass(frozen=True)
class PatternTable:
    """The measured rows, and the run that they are of."""

    run: str
    direct: Interval
    rows: tuple[MeasuredRow, ...]

    def cells(self) -> list[tuple[str, ...]]:
        """The table as text, plain answers first."""
        first = ("(direct)", "-", "-", _interval(self.direct), "-", "1.0", "1.0")
        return [first, *(self._cells(each) for each in self.rows)]

    @staticmethod
    def _cells(each: MeasuredRow) -> tuple[str, ...]:
        gain = f"{each.versus.difference:+.2f} [{each.versus.low:+.2f}, {each.versus.high:+.2f}]"
        failed = f", {count_of(each.errors, 'error')}" if each.errors else ""
        row = each.row
        return (
            row.name,
            row.smallest,
            row.cost,
            _interval(each.accuracy) + failed,
            gain,
            f"{each.tokens:.1f}",
            f"{each.calls:.1f}",
        )

    def to_json(self) -> Json:
        """The table as a JSON object."""
        rows = [
            {
                "row": each.row.name,
                "pattern": each.row.pattern,
                "smallest_by_list": each.row.smallest,
                "cost_by_list": each.row.cost,
                "accuracy": each.accuracy.value,
                "accuracy_low": each.accuracy.low,
                "accuracy_high": each.accuracy.high,
                "gain": each.versus.difference,
                "gain_low": each.versus.low,
                "gain_high": each.versus.high,
                "times_tokens": each.tokens,
                "calls": each.calls,
                "errors": each.errors,
            }
            for each in self.rows
        ]
        return {"run": self.run, "direct": self.direct.value, "rows": rows}


def measured_patterns(
    rows: Sequence[PatternRow], model: str, benchmark: str, *, limit: int, max_tokens: int, seed: int
) -> PatternTable:
    """Every pattern and a plain answer on the same tasks, in one Run, which is kept. Errors count as wrong answers."""
    settings = RunSettings(
        benchmarks=(benchmark,), model=(model,), pattern=("direct", *(row.pattern for row in rows)), limit=limit,
        max_tokens=max_tokens, seed=seed, tools=("calculator",), name="patterns-table",
    )  # fmt: skip
    experiment = Experiment.from_settings(settings)
    names = [agent.name for agent in experiment.agents]
    with experiment.run() as run:
        made = {name: {trace.task_id: trace for trace in run.traces(agent=name)} for name in names}
        tasks = list(made[names[0]])
        values = {name: [traces[task].value() or 0.0 for task in tasks] for name, traces in made.items()}
        tokens = {name: fmean(traces[task].usage.total_tokens for task in tasks) for name, traces in made.items()}
        found = []
        for row, name in zip(rows, names[1:], strict=True):
            calls = fmean(sum(call.kind == "generate" for call in made[name][task].calls) for task in tasks)
            versus = paired(values[name], values[names[0]])
            errors = sum(made[name][task].error is not None for task in tasks)
            found.append(
                MeasuredRow(
                    row, mean_interval(values[name]), versus, tokens[name] / max(1.0, tokens[names[0]]), calls, errors
                )
            )
        return PatternTable(run.id, mean_interval(values[names[0]]), tuple(found))


def _interval(of: Interval) -> str:
    return f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]"
