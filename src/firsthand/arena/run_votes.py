"""Votes of several runs as one table of battles, with the style of the answers as covariates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firsthand.arena.battle_table import BattleTable, question_name
from firsthand.arena.blind_reasks import is_reask
from firsthand.arena.vote_files import STYLES, VoteFile, scaled_differences, style_count
from firsthand.errors import ConfigError
from firsthand.preference import Preference
from firsthand.runs.attempts import TraceRow
from firsthand.runs.run_folder import Run


def votes_of_runs(runs: Sequence[Run], style: Sequence[str] = ()) -> VoteFile:
    """The votes of runs that count, and how many are void.

    Args:
        runs: Runs with preferences. Agents of one name are one model.
        style: Covariates, of `STYLES`, as `read_votes` computes them: (a - b) / (a + b) over its standard deviation.

    Raises:
        ConfigError: A vote names an attempt that its run does not hold, or a style is unknown or never differs.
    """
    if unknown := [name for name in style if name not in STYLES]:
        raise ConfigError(f"style is {unknown[0]!r:.60}: give {', '.join(STYLES)}")
    kept: list[tuple[Preference, TraceRow, TraceRow]] = []
    void, counts = 0, dict[str, tuple[int, ...]]()
    for run in runs:
        rows = {row.id: row for row in run.rows()}
        if style:
            counts |= {t.id: tuple(style_count(t.answer or "", name) for name in style) for t in run.traces()}
        for vote in run.preferences():
            if is_reask(vote):
                continue
            if (vote.detail or {}).get("void"):
                void += 1
            elif vote.a not in rows or vote.b not in rows:
                raise ConfigError(
                    f"a vote of run {run.id} names an attempt that it does not hold: is the run a part of another?"
                )
            elif rows[vote.a].agent != rows[vote.b].agent:
                kept.append((vote, rows[vote.a], rows[vote.b]))
    covariates = {}
    for place, name in enumerate(style):
        pairs = np.array([[counts[vote.a][place], counts[vote.b][place]] for vote, _, _ in kept], np.float64)
        covariates[name] = scaled_differences(pairs.reshape(-1, 2), "the answers", name).tolist()
    table = BattleTable.from_columns(
        [a.agent for _, a, _ in kept],
        [b.agent for _, _, b in kept],
        [vote.winner for vote, _, _ in kept],
        voters=[vote.by for vote, _, _ in kept],
        questions=[question_name(a.benchmark, vote.task_id) for vote, a, _ in kept],
        covariates=covariates,
    )
    return VoteFile(table, 0, 0, void)
