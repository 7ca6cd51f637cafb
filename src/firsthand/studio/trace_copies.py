"""Copies of an attempt for other uses: a pytest file that asks the same again, and a line of training data."""

from __future__ import annotations

import json

from firsthand.errors import ConfigError
from firsthand.runs.training_data import attempt_rows
from firsthand.trace import Trace


def as_test(run_id: str, trace: Trace) -> str:
    """A pytest file: the agent of the attempt, asked the same task again, must do as well as it did here.

    The run stays where the task, the agent and the scorers come from; a test that has lost its run says so.
    """
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in trace.task_id)[:60].strip("_") or "task"
    place = f"{trace.benchmark}/{trace.task_id}/{trace.agent_name}/{trace.epoch}"
    bar = trace.value()
    good = "<=" if any(score.is_harm for score in trace.attempt_scores[:1]) else ">="
    lines = [
        f'"""Made from attempt {_plain(trace.id)} of run {_plain(run_id)}: the same task must be solved as well again."""',
        "",
        "import json",
        "import subprocess",
        "import sys",
        "",
        f"RUN, ATTEMPT = {run_id!a}, {place!a}",
        f"BAR = {0.0 if bar is None else bar!r}",
        "",
        "",
        f"def test_{name}_is_solved_as_well_as_before():",
        '    command = [sys.executable, "-m", "firsthand", "fork", RUN, ATTEMPT, "--at", "0", "--json"]',
        "    made = subprocess.run(command, capture_output=True, text=True)",
        "    assert made.returncode == 0, made.stderr",
        '    scores = json.loads(made.stdout)["scores"]',
        f'    assert scores and scores[0]["value"] {good} BAR, scores',
        "",
    ]
    return "\n".join(lines)


def as_examples(run_id: str, trace: Trace) -> str:
    """Lines of JSON for `firsthand train sft`, one for each branch; ConfigError for an attempt that has none to give."""
    rows = attempt_rows(run_id, trace)
    if not rows:
        raise ConfigError(
            "the attempt gives no training example: it failed, is protected, its answer was cut, or no model answered in it"
        )
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isascii() and (c.isalnum() or c in "-_.:/"))[:120]
