"""Renders a run as one self-contained HTML file: scores, costs, and a table of samples that opens their transcripts.

The file makes no network request and runs one script, our own, which sorts and filters the table; its content-security
policy forbids anything else. All text of models, tools and benchmarks is untrusted: it is escaped, control and direction
characters are made visible, and sizes are bounded. Traces in full are left to `firsthand show`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from firsthand.loop.protection import shareable
from firsthand.message import Reasoning, Text, ToolCall
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.show import board as board_module
from firsthand.show import board_words, heatmap
from firsthand.show.board import Board
from firsthand.show.expected import expected_answer
from firsthand.show.html_page import page_html
from firsthand.show.scatter import scatter
from firsthand.show.trace_shape import marks
from firsthand.stats.breakdown import Grid
from firsthand.task import Task
from firsthand.trace import Trace

MAX_ATTEMPTS = 600
"""Rows in the table of samples."""
MAX_FIRSTS = 30
"""Rows beyond those: of each agent the first right, the first wrong and the first failed sample."""
MAX_MESSAGES = 60
"""Messages shown of one transcript."""
MAX_GRIDS = 20
MAX_CELLS = 400
MAX_CELL_CHARS = 240
MAX_MESSAGE_CHARS = 3000
MAX_TRANSCRIPT_CHARS = 20_000
MAX_ALL_TRANSCRIPT_CHARS = 2_000_000
"""Characters of all transcripts; those of later rows are left out."""

Outcome = Literal["right", "wrong", "error"]


@dataclass(frozen=True)
class Turn:
    """A message of a conversation."""

    role: str
    text: str
    depth: int
    """The number of forks above it."""
    fork: str
    """`branch 2 of 3` where a branch begins, and what the pattern noted of it; else empty."""


@dataclass(frozen=True)
class AttemptRow:
    """A row of the table of samples."""

    trace_id: str
    benchmark: str
    task: str
    agent: str
    epoch: int
    score: str
    value: float
    """The score as a number, for sorting."""
    outcome: Outcome
    question: str
    expected: str
    answer: str
    tokens: int
    seconds: float
    trouble: str
    """The error, or the limit that ended it."""
    turns: tuple[Turn, ...] = ()
    """The transcript; empty where it is left out."""
    left_out: int = 0
    """The messages that the transcript leaves out."""


def report_html(
    boards: Sequence[Board],
    *,
    title: str,
    command: str,
    machine: Mapping[str, Any],
    run_path: str,
    traces: Iterable[Trace | AttemptSummary],
    grids: Sequence[Grid] = (),
    read: Callable[[str], Trace] | None = None,
    task: Callable[[str, str], Task | None] = lambda benchmark, task_id: None,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The report as HTML, a few MB at most; it says what it leaves out.

    Args:
        command: The command line that reproduces the run.
        traces: The attempts, as traces or as summaries.
        grids: Shown under the board of their benchmark: up to MAX_GRIDS, each with at most MAX_CELLS cells.
        read: Reads a trace by its id, `Run.trace`, where `traces` holds summaries: only those that are shown are read.
        task: Reads a task by benchmark and id, `Run.task`, for questions and expected answers.
        facts: Shown at the end: version, commit, seed, models and protocols, by name.
    """
    drawn = [grid for grid in grids if len(grid.rows) * len(grid.columns) <= MAX_CELLS][:MAX_GRIDS]
    attempts, total = _chosen(traces, {board.benchmark: board.metric for board in boards}, read, task)
    return page_html(
        "report",
        words=board_words,
        boards_module=board_module,
        sections=[
            (board, scatter(board), [grid for grid in drawn if grid.benchmark == board.benchmark]) for board in boards
        ],
        heat=heatmap,
        title=title,
        command=command,
        show=f"firsthand show {shell_word(run_path)} TRACE",
        facts={str(key): _machine_text(value) for key, value in {**facts, **machine}.items()},
        run_path=run_path,
        attempts=attempts,
        agents=list(dict.fromkeys(row.agent for row in attempts)),
        benchmarks=list(dict.fromkeys(row.benchmark for row in attempts)),
        total=total,
    )


def clipped(text: str, limit: int) -> str:
    """The first `limit` characters, and how many are left out."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def shell_word(text: str) -> str:
    """The text as one word of a shell's command line."""
    import shlex

    return shlex.quote(text)


def turns(trace: Trace, most_chars: int = MAX_TRANSCRIPT_CHARS) -> tuple[tuple[Turn, ...], int]:
    """The messages of an attempt, each once, a fork's branches one after another; and how many were left out."""
    children: dict[int | None, list[int]] = {}
    for index, node in enumerate(trace.nodes):
        parent = node.parent if node.parent is not None and 0 <= node.parent < index else None
        children.setdefault(parent, []).append(index)
    marked, _ = marks(trace)
    shown: list[Turn] = []
    room = most_chars
    waiting = _branches(children.get(None, []), 0)
    while waiting and len(shown) < MAX_MESSAGES and room > 0:
        index, depth, fork = waiting.pop()
        message = trace.nodes[index].message
        text = clipped("\n".join(filter(None, map(_part_text, message.parts))), min(MAX_MESSAGE_CHARS, room))
        room -= len(text)
        told = [clipped(str(mark), MAX_CELL_CHARS) for mark in marked.get(index, ())]
        shown.append(Turn(message.role, text, min(depth, 6), ", ".join([*([fork] if fork else []), *told])))
        waiting += _branches(children.get(index, []), depth)
    return tuple(shown), len(trace.nodes) - len(shown)


def _branches(indices: Sequence[int], depth: int) -> list[tuple[int, int, str]]:
    """The children of a message, last first: an only child stays at its depth, several fork one deeper."""
    if len(indices) < 2:
        return [(index, depth, "") for index in indices]
    count = len(indices)
    return [(index, depth + 1, f"branch {place} of {count}") for place, index in enumerate(indices, 1)][::-1]


def _chosen(
    traces: Iterable[Trace | AttemptSummary],
    metrics: Mapping[str, str],
    read: Callable[[str], Trace] | None,
    task: Callable[[str, str], Task | None],
) -> tuple[list[AttemptRow], int]:
    """The rows of the table, with transcripts as far as there is room for them, and the number of attempts."""
    rows: list[AttemptRow] = []
    seen: Counter[tuple[str, str, Outcome]] = Counter()
    total, room = 0, MAX_ALL_TRANSCRIPT_CHARS
    for each in traces:
        total += 1
        metric = metrics.get(each.benchmark, "")
        key = (each.benchmark, each.agent_name, _outcome(each, metric))
        seen[key] += 1
        if total > MAX_ATTEMPTS and (seen[key] > 1 or len(rows) >= MAX_ATTEMPTS + MAX_FIRSTS):
            continue
        trace = shareable(each if isinstance(each, Trace) else _read(each, read))
        row = _row(trace, metric, task(trace.benchmark, trace.task_id))
        if room > 0:
            shown, left_out = turns(trace, min(room, MAX_TRANSCRIPT_CHARS))
            room -= sum(len(turn.text) for turn in shown)
            row = replace(row, turns=shown, left_out=left_out)
        rows.append(row)
    return rows, total


def _read(summary: AttemptSummary, read: Callable[[str], Trace] | None) -> Trace:
    assert read is not None, "summaries come with a way to read their traces"
    return read(summary.id)


def _outcome(attempt: Trace | AttemptSummary, metric: str) -> Outcome:
    score = attempt.score(metric)
    if attempt.error or score is None or score.failed:
        return "error"
    return "right" if score.is_right else "wrong"


def _row(trace: Trace, metric: str, task: Task | None) -> AttemptRow:
    score = trace.score(metric)
    trouble = f"{trace.error.kind}: {trace.error.message}" if trace.error else ""
    trouble = trouble or next((f"scorer {s.name}: {s.failure}" for s in trace.scores if s.failed), "")
    if not trouble and trace.stop_reason not in ("done", "error"):
        trouble = f"stopped by its limit of {trace.stop_reason}"
    question = "" if task is None or task.protected is not None else task.question
    return AttemptRow(
        trace_id=clipped(trace.id, 80),
        benchmark=clipped(trace.benchmark, 80),
        task=clipped(trace.task_id, 80),
        agent=clipped(trace.agent_name, 80),
        epoch=trace.epoch,
        score="0.00" if trace.error else board_words.value_text(score.value) if score else "-",
        value=0.0 if trace.error or score is None or not math.isfinite(score.value) else score.value,
        outcome=_outcome(trace, metric),
        question=clipped(question, MAX_MESSAGE_CHARS),
        expected=clipped(expected_answer(task), MAX_CELL_CHARS),
        answer=clipped(trace.answer or "", MAX_CELL_CHARS),
        tokens=trace.usage.total_tokens,
        seconds=trace.duration_s,
        trouble=clipped(trouble, MAX_CELL_CHARS),
    )


def _part_text(part: object) -> str:
    if isinstance(part, Text):
        return part.text
    if isinstance(part, ToolCall):
        arguments = json.dumps(part.arguments, ensure_ascii=False, default=str)
        return f"→ {part.name}({part.invalid if part.invalid is not None else arguments})"
    if isinstance(part, Reasoning):
        return f"(reasoning) {part.text}" if part.text else ""
    return str(getattr(part, "content", part))


def _machine_text(value: object) -> str:
    return clipped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str), 300)
