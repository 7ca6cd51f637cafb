"""`firsthand run` as a process of its own, for tests that end it in the middle; what its run holds, and its steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from firsthand.message import canonical
from firsthand.runs.feed import FeedStep, follow
from firsthand.runs.store import Run, open_run


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`firsthand run WORDS --json`, begun in `folder` with a home in there."""
    environment = {**os.environ, "FIRSTHAND_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "firsthand", "run", *words, "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def held(folder: Path, *tables: str) -> int:
    """How many rows these tables of the folder's last run hold; none while it is just being made."""
    try:
        with open_run("last", folder / "home") as run:
            return sum(int(run.database.read(f"SELECT count(*) FROM {table}")[0][0]) for table in tables)
    except Exception:
        return 0


def results(run: Run) -> dict[str, Any]:
    """All that the traces say, but for times, tokens that lay in a cache, and the order of branches that ran together."""
    return {
        trace.place: (
            trace.answer,
            trace.scores,
            trace.stop_reason,
            trace.error,
            (trace.usage.prompt_tokens, trace.usage.completion_tokens),
            sorted(canonical([message.to_json() for message in branch]) for branch in trace.branches()),
            sorted((call.id, call.kind, call.request, canonical(call.detail), call.error) for call in trace.calls),
        )
        for trace in run.traces()
    }


async def followed(path: Path, after: int = 0, **more: Any) -> AsyncIterator[FeedStep]:
    """The steps of a run as they come. One that came before ends the test: it would come again and again."""
    async for step in follow(path, after, **more):
        assert step.sequence > after, f"step {step.sequence} comes after step {after}"
        after = step.sequence
        yield step
