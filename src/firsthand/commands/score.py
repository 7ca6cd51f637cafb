"""Score a stored run again with another scorer or judge; new scores are stored beside the old under a name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, one_line, print_as_json, progress
from firsthand.trace import Score, Trace

if TYPE_CHECKING:
    from firsthand.experiment.rescore import Rescored
    from firsthand.runs.run_folder import Run
    from firsthand.show.board import Board

EXAMPLES = """
firsthand score last --with exact,token_f1
firsthand score last --with rubric:judge=smollm2:low=1:high=5 --as helpful
firsthand score last --with reference:judge=openai:llama3.2@http://localhost:11434/v1
firsthand score last --with pairwise:judge=smollm2:against=direct
firsthand score last --with rubric:judge=smollm2:protocol=mt-bench-single-v1 --as mt-bench --retry-errors
firsthand list scorers
"""


@dataclass(frozen=True)
class Config:
    """The run to score, and the scorers."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    with_: tuple[str, ...] = ()
    """Scorers with their options, or FILE.py:function; `firsthand list scorers` shows the names."""
    as_: str | None = None
    """Name of the new scores; by default the scorer's own."""
    agent: str | None = None
    """Only the attempts of this agent."""
    benchmark: str | None = None
    """Only the attempts at this benchmark."""
    concurrency: int = 8
    """Max concurrent scorings."""
    retry_errors: bool = False
    """Score again what could not be scored before."""
    json: bool = False
    """Print the leaderboard as JSON for programs."""

    def __post_init__(self) -> None:
        if not self.with_:
            raise ConfigError("no scorer was named: give --with SCORER; `firsthand list scorers` shows all")
        if self.as_ is not None and (len(self.with_) > 1 or not self.as_.strip()):
            raise ConfigError(f"as is {self.as_!r}: it names the scores of one scorer, so give one --with and one name")
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}: give 1 or more")


def main(config: Config) -> int:
    """Score, and print the leaderboard of the new scores."""
    from firsthand.experiment.own_files import version_of
    from firsthand.experiment.rescore import rescore
    from firsthand.runs import store
    from firsthand.runs.later_scores import VERSION

    versions = {text: version_of(text) for text in config.with_}
    scorers = [(text, catalog.scorer(text)) for text in config.with_]
    code, bodies = 0, list[Json]()
    with store.open_run(config.run, data_home()) as run:
        for text, scorer in scorers:
            version = versions[text]
            with progress(text, run.info.num_traces, shown=not config.json) as update:
                done = 0

                def on_score(trace: Trace, score: Score, update: Any = update) -> None:
                    nonlocal done
                    done += 1
                    update(done, note=f"{trace.agent_name} {trace.task_id}")

                scoring = rescore(
                    run,
                    scorer,
                    name=config.as_ or "",
                    described="" if hasattr(scorer, "described") else text + (version and VERSION + version),
                    agent=config.agent,
                    benchmark=config.benchmark,
                    concurrency=config.concurrency,
                    redo_errors=config.retry_errors,
                    on_score=on_score,
                )
                try:
                    found = interruption.run(scoring)
                except KeyboardInterrupt:
                    console(stderr=True).print(
                        "firsthand: interrupted; new scores are kept: the same command continues"
                    )
                    return 130
            body, failed = reported(run, found, config)
            bodies.append(body)
            code = max(code, 3 if failed else 0)
    if config.json:
        print_as_json(bodies[0] if len(bodies) == 1 else bodies)
    return code


def reported(run: Run, found: Rescored, config: Config) -> tuple[Json, int]:
    """The leaderboard of the new scores, printed unless JSON is asked for, and how many attempts could not be scored."""
    from firsthand.scorers.model_judge import about_judge
    from firsthand.show.board import leaderboard, reducers_of
    from firsthand.show.board_table import render
    from firsthand.stats.task_scores import scored_attempts

    boards: list[Board] = []
    for name in (*found.further, found.name):  # the attempts of the first are looked at below
        attempts = scored_attempts(run, name, benchmark=config.benchmark, agent=config.agent)
        made = leaderboard(
            attempts,
            clusters=run.clusters(),
            order=run.agents(),
            protocols=run.protocols,
            reducers=reducers_of(run),
            retried=run.retried(),
        )
        boards = made + boards if name == found.name else boards + made
    scores = [score for each in attempts for score in each.scores]
    failed = [score for score in scores if score.failed]
    told = about_judge(scores)
    body: Json = {"run": run.id, **asdict(found), "judge": told, "boards": [board.to_json() for board in boards]}
    if config.json:
        return body, len(failed)
    out = console()
    out.print(render(boards) if boards else "No attempt has such a score.")
    also = f"; further scores of the scorer: {', '.join(found.further)}" if found.further else ""
    for key, value in told.items():
        out.print(f"{key:<10}{value}", markup=False, soft_wrap=True)
    out.print(
        f"scores    {found.name!r} of {run.id}: {found.scored} new, {found.kept} kept, {found.failed} failed, "
        f"{count_of(found.skipped, 'attempt')} had ended in an error{also}",
        markup=False,
        soft_wrap=True,
    )
    if failed:
        out.print(f"first error: {one_line(str(failed[0].failure))}", markup=False, soft_wrap=True)
        out.print("retry     the same command with --retry-errors", markup=False, soft_wrap=True)
    return body, len(failed)
