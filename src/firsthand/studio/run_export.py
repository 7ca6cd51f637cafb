"""A run as one HTML file that opens from a disk: boards, attempts with their conversations, curves; without any script.

The file carries a content-security policy of its own, which allows its one style sheet by hash and nothing else, so text of
a model cannot become code where it is opened. Protected tasks and attempts come without their text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from firsthand.loop.protection import shareable
from firsthand.runs.curve_envelope import envelope
from firsthand.runs.run_folder import Run
from firsthand.runs.track import Track
from firsthand.show import board as board_module
from firsthand.show import heatmap
from firsthand.show.expected import expected_answer
from firsthand.show.scatter import scatter
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.branch_conversation import Conversation, conversation
from firsthand.studio.rendering import STATIC, render
from firsthand.studio.views.run_views import boards_of
from firsthand.trace import Trace

MAX_ATTEMPTS = 5000
COLUMNS = 300
"""Columns of a curve's picture."""


@dataclass(frozen=True)
class ExportedAttempt:
    """An attempt as the file shows it."""

    trace: Trace
    question: str
    expected: str
    said: Conversation


@dataclass(frozen=True)
class ExportedCurve:
    """A curve as points of an SVG of 600 by 160."""

    name: str
    pieces: tuple[str, ...]
    """Points of each part without gaps."""
    low: float
    high: float
    """Of its finite values; NaN if there is none."""
    last_step: int
    last: float
    """NaN or infinite where the run ended so."""


def exported(run: Run, filter_text: str = "") -> tuple[str, int, int]:
    """The HTML of a run, the number of attempts in it, and of those left out.

    Args:
        run: The run.
        filter_text: A filter of attempts, as the Studio takes it.
    """
    page = AttemptQuery.parse(filter_text, "task").page(run.database, limit=MAX_ATTEMPTS)
    attempts = [_attempt(run, run.trace(row.place)) for row in page.rows]
    boards, problems = boards_of(run)
    style = (STATIC / "studio.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values: dict[str, Any] = {
        "run": run,
        "info": run.info,
        "style": style,
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "sections": [(each, scatter(each), ()) for each in boards],
        "problems": problems,
        "boards_module": board_module,
        "heat": heatmap,
        "attempts": attempts,
        "filter": filter_text,
        "left_out": page.total - len(attempts),
        "curves": list(_curves(run)),
    }
    return render("export", **values), len(attempts), page.total - len(attempts)


def _attempt(run: Run, trace: Trace) -> ExportedAttempt:
    trace = shareable(trace)
    task = run.task(trace.benchmark, trace.task_id)
    question = "" if task is None or task.protected is not None else task.question
    return ExportedAttempt(trace, question, expected_answer(task) or "", conversation(trace))


def _curves(run: Run) -> Iterator[ExportedCurve]:
    track = Track(run)
    for name in track.names():
        found = envelope(track, name, COLUMNS)
        finite = [value for value in found.values if abs(value) != float("inf") and value == value]
        low, high = min(finite, default=float("nan")), max(finite, default=float("nan"))
        first, reach = found.steps[0], max(1, found.steps[-1] - found.steps[0])
        pieces: list[list[str]] = [[]]
        for step, value in zip(found.steps, found.values, strict=True):
            if value != value or abs(value) == float("inf"):
                pieces.append([])
                continue
            up = (value - low) / (high - low) if high > low else 0.5
            pieces[-1].append(f"{600 * (step - first) / reach:.1f},{155 - 150 * up:.1f}")
        yield ExportedCurve(
            name, tuple(" ".join(piece) for piece in pieces if piece), low, high, found.steps[-1], found.values[-1]
        )
