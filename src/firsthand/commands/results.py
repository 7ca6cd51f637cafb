"""What `firsthand run` tells of a run: the leaderboard for people or programs, how it was measured, and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from firsthand.benchmark import Figures
from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.system.terminal import console
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.commands.run import Config
    from firsthand.runs.store import Run
    from firsthand.show.board import Board


def budget_of(config: Config) -> float | None:
    """The tokens that an attempt of each pattern is to cost, where that is known."""
    return None if config.equal_budget in (None, "auto") else float(config.equal_budget or 0)


def print_results(
    run: Run,
    config: Config,
    traces: Sequence[Trace],
    protocols: Mapping[str, str],
    figures: Mapping[str, Figures] | None = None,
) -> None:
    """The leaderboard, how it was measured, the report, and the commands that show more."""
    from firsthand.show.board import leaderboard
    from firsthand.show.board_table import render

    out = console()
    if not traces:
        out.print("No attempt has finished.")
    else:
        boards = leaderboard(traces, budget=budget_of(config), clusters=run.clusters(), figures=figures)
        out.print(render(boards))
        for heading, line in told_of_judges(traces).items():
            out.print(f"{heading:<9}{line}", soft_wrap=True, markup=False)
        for name, protocol in protocols.items():
            out.print(f"protocol {name}: {protocol}".replace("\n", "\\n"), soft_wrap=True, markup=False)
        report = write_report(run, config, traces, boards)
        out.print(f"report   {report}", soft_wrap=True, markup=False)
        worst = next((trace for trace in traces if trace.error), traces[-1])
        out.print(f"traces   {run.path}", soft_wrap=True, markup=False)
        out.print(f"show     firsthand show {run.id} {worst.place[:8]}", soft_wrap=True, markup=False)
    out.print(f"again    {config.command()}", soft_wrap=True, markup=False)


def told_of_judges(traces: Sequence[Trace]) -> dict[str, str]:
    """What there is to say of the judge, where attempts were judged by a model: its cost and how verdicts were had."""
    scores = [score for trace in traces for score in trace.scores if "judge" in score.detail]
    if not scores:
        return {}
    from firsthand.scorers.model_judge import about_judge

    return about_judge(scores)


def print_json(
    run: Run,
    config: Config,
    traces: Sequence[Trace],
    protocols: Mapping[str, str],
    figures: Mapping[str, Figures] | None = None,
) -> None:
    """The leaderboard as one JSON object."""
    from firsthand.show.board import leaderboard

    body: Json = {"run": run.id, "path": str(run.path), "status": run.status, "protocols": dict(protocols)}
    budget, clusters = budget_of(config), run.clusters()
    boards = leaderboard(traces, budget=budget, clusters=clusters, figures=figures) if traces else []
    body["boards"] = [board.to_json() for board in boards]
    print(json.dumps(body, indent=2, ensure_ascii=False))


def write_report(run: Run, config: Config, traces: Sequence[Trace], boards: Sequence[Board]) -> str:
    """The path of the HTML report, written into the run's folder."""
    from firsthand.show.html_report import report_html
    from firsthand.stats.breakdown import own_grids

    html = report_html(
        boards,
        title=f"{', '.join(config.benchmarks)} with {', '.join(config.model)}",
        command=config.command(),
        machine=run.about["machine"],
        run_path=str(run.path),
        traces=traces,
        grids=own_grids(run),
    )
    path = run.path / "report.html"
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the report {path} cannot be written: {error.strerror}; the run is kept") from None
    return str(path)
