"""Prints a run: the leaderboard for people or programs, how it was measured, and where the report and the traces are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from firsthand.benchmark import Figures
from firsthand.errors import StoreError
from firsthand.experiment.settings import RunSettings
from firsthand.message import Json
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.run_folder import Run
from firsthand.system.address_secrets import without_secrets
from firsthand.system.new_file import write_new
from firsthand.system.terminal import console, print_as_json, print_prose
from firsthand.trace import Trace

if TYPE_CHECKING:
    from firsthand.show.board import Board


class Results(NamedTuple):
    """A run and what its leaderboard is made of."""

    run: Run
    settings: RunSettings
    attempts: Sequence[Trace | AttemptSummary]
    """Summaries, but for benchmarks whose figures read traces."""
    protocols: Mapping[str, str]
    """Benchmark -> its protocol."""
    figures: Mapping[str, Figures] | None = None

    def boards(self) -> list[Board]:
        """A leaderboard for each benchmark; none without a finished attempt."""
        from firsthand.show.board import leaderboard, reducers_of

        if not self.attempts:
            return []
        budget, clusters = self.settings.token_budget, self.run.clusters()
        return leaderboard(
            self.attempts,
            budget=budget,
            clusters=clusters,
            figures=self.figures,
            order=self.run.agents(),
            protocols=self.protocols,
            reducers=reducers_of(self.run),
            retried=self.run.retried(),
        )


def print_results(results: Results) -> None:
    """Print the leaderboard, how it was measured, the report, and the commands that show more."""
    from firsthand.show.board_table import render

    run, settings, attempts, protocols, _ = results
    out = console()
    if not attempts:
        out.print("No attempt has finished.")
    else:
        boards = results.boards()
        out.print(render(boards))
        for heading, line in judge_facts(attempts).items():
            out.print(f"{heading:<10}{line}", soft_wrap=True, markup=False)
        print_protocols(protocols)
        report = write_report(run, settings, attempts, boards, protocols)
        out.print(f"report    {report}", soft_wrap=True, markup=False)
        worst = next((each for each in attempts if each.error), attempts[-1])
        out.print(f"traces    {run.path}", soft_wrap=True, markup=False)
        out.print(f"show      firsthand show {run.id} {worst.place[:8]}", soft_wrap=True, markup=False)
    out.print(f"reproduce {settings.command()}", soft_wrap=True, markup=False)


def print_protocols(protocols: Mapping[str, str]) -> None:
    """Print how each benchmark was prompted and scored: folded at words on a terminal, a line each in a pipe."""
    for line in protocol_lines(protocols):
        print_prose(line)


def protocol_lines(protocols: Mapping[str, str]) -> list[str]:
    """A line for each benchmark: how it was prompted and scored, and what is wrong with its data; for a slice, one more."""
    lines = []
    for name, protocol in protocols.items():
        if not protocol:
            continue
        lines.append(f"protocol  {name}: {protocol}".replace("\n", "\\n"))
        if found := re.search(r"packaged slice, ([\d,]+) of ([\d,]+) items", protocol):
            here, whole = found.groups()
            lines.append(
                f"slice     {name}: {here} of {whole} items ship with the package; for all of them run {name}:data=hub, or "
                f"{name}:data=FOLDER with your copy"
            )
    return lines


def judge_facts(attempts: Sequence[Trace | AttemptSummary]) -> dict[str, str]:
    """Heading -> line about the judge model: its cost, and how verdicts were reached. Empty if no model judged."""
    scores = [score for each in attempts for score in each.scores if "judge" in score.detail]
    if not scores:
        return {}
    from firsthand.scorers.model_judge import about_judge

    return about_judge(scores)


def print_json(results: Results) -> None:
    """Print the leaderboard as one JSON object."""
    run = results.run
    body: Json = {"run": run.id, "path": str(run.path), "status": run.status, "protocols": dict(results.protocols)}
    body["boards"] = [board.to_json() for board in results.boards()]
    print_as_json(body)


def report_facts(run: Run, settings: RunSettings, protocols: Mapping[str, str]) -> dict[str, str]:
    """The facts that reproduce the numbers: version, commit, seed, models and protocols."""
    facts = {"firsthand": str(run.about.get("firsthand", "")), "commit": str(run.about.get("commit") or "")}
    facts["seed"] = str(settings.seed)
    for agent in run.agents().values():
        facts[f"model {agent.get('model', '')}"] = str(agent.get("fingerprint", ""))
    facts |= {f"protocol of {name}": protocol for name, protocol in protocols.items()}
    return {name: value for name, value in facts.items() if value}


def write_report(
    run: Run,
    settings: RunSettings,
    attempts: Sequence[Trace | AttemptSummary],
    boards: Sequence[Board],
    protocols: Mapping[str, str],
) -> str:
    """Write the HTML report into the run's folder; returns its path. StoreError if it cannot be written."""
    from firsthand.show.html_report import report_html
    from firsthand.stats.breakdown import own_grids

    html = report_html(
        boards,
        title=without_secrets(f"{', '.join(settings.benchmarks)} with {', '.join(settings.model)}"),
        command=settings.command(),
        machine=run.about["machine"],
        run_path=str(run.path),
        traces=attempts,
        read=run.trace,
        task=run.task,
        facts=report_facts(run, settings, protocols),
        grids=own_grids(run),
    )
    path = run.path / "report.html"
    try:
        write_new(path, html)
    except OSError as error:
        raise StoreError(f"the report {path} cannot be written: {error.strerror}; the run is kept") from None
    return str(path)
