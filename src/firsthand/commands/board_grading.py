"""Writes the sheets of a blind double grading, and the adjudicator's."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console


def write_grading(
    sources: Sequence[str], grade: str, graders: Sequence[str], criteria: Sequence[str], adjudicator: str
) -> int:
    """Write sheets for a run's answers, or for the answers that graders disagree on, and say what to do with them."""
    from firsthand.arena.self_naming import told_name
    from firsthand.boards.grading_sheets import is_grading, write_adjudication, write_sheets
    from firsthand.runs import store

    if len(sources) != 1:
        raise ConfigError(f"{len(sources)} sources are given: name one run or one folder of grading sheets")
    source, out = sources[0], console()
    if adjudicator:
        if not is_grading(Path(source)):
            raise ConfigError(f"{source} is no folder of grading sheets: `--grade FOLDER` makes one")
        count = write_adjudication(Path(source), adjudicator)
        path = Path(source) / f"{adjudicator}.csv"
        out.print(f"{path}: {count_of(count, 'answer')} to adjudicate.", markup=False, soft_wrap=True)
        return 0
    folder = Path(grade)
    with store.open_run(source, data_home()) as run:
        written = write_sheets(run, folder, graders, criteria)
        told = [trace.agent_name for trace in run.traces() if told_name(trace.agent_name, trace.answer or "")]
    for name, count in written.items():
        out.print(f"{folder / f'{name}.csv'}: {count_of(count, 'answer')}", markup=False, soft_wrap=True)
    if told:
        named = f"{count_of(len(told), 'answer')} may tell the grader which model wrote it, by its name or its maker's."
        out.print(named, markup=False, soft_wrap=True)
    out.print(
        f"Give each grader their file: the column grade takes 0 to 1. Then: firsthand board seal {shlex.quote(str(folder))}",
        markup=False,
        soft_wrap=True,
    )
    return 0
