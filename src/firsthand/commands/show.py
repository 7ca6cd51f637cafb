"""Print one attempt as a readable tree: messages, tool calls, tokens, time, score; or a run's leaderboard or live steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from firsthand.commands.print_run import print_protocols
from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.loop.protection import shareable
from firsthand.runs import store
from firsthand.runs.epoch_reducer import epoch_reducer
from firsthand.runs.feed import Ended, follow
from firsthand.show.board import attempts_of, leaderboard, reducers_of
from firsthand.show.board_table import render
from firsthand.show.expected import expected_answer
from firsthand.show.feed_lines import FeedLines
from firsthand.show.trace_tree import show
from firsthand.stats.stored_figures import own_figures
from firsthand.system import interruption
from firsthand.system.home import data_home
from firsthand.system.plurals import count_of
from firsthand.system.terminal import complain, console, print_as_json
from firsthand.trace import Trace

EXAMPLES = """
firsthand show last                        # the leaderboard of the last run
firsthand show last --follow               # the steps of a run while another process carries it out
firsthand show last 3fa9                   # an attempt, by the beginning of its id
firsthand show last arithmetic/L1-0/react  # or by its place: benchmark/task/agent
firsthand show last 3fa9 --full --json
firsthand show last 3fa9 --judge rubric    # the judge's attempt behind a score
"""


@dataclass(frozen=True)
class Config:
    """The run or attempt to show."""

    run: str = field(default="last", metadata={"positional": True})
    """A run: its id, the beginning of it, its folder, or last."""
    trace: str | None = field(default=None, metadata={"positional": True})
    """An attempt: the beginning of its id or place, or benchmark/task/agent/epoch; `firsthand runs RUN` lists them."""
    follow: bool = False
    """Print the run's steps as they happen in another process, until it ends."""
    full: bool = False
    """Show everything, unshortened."""
    judge: str | None = None
    """Show the judge's own attempt behind the score of this name, instead of the attempt."""
    reveal: bool = False
    """Print the text of a protected benchmark too, such as GPQA: not to be published."""
    strata: str | None = None
    """Of a leaderboard: key of the tasks' metadata, or column of own data, whose groups are fixed, such as subject."""
    reduce: str | None = None
    """Of a leaderboard: reducer of the epochs of a task: mean, median, max, mode, pass_at_2, pass_hat_2, at_least_2."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        epoch_reducer(self.reduce or "")
        if self.follow and (self.trace is not None or self.json):
            raise ConfigError("follow prints the steps of a whole run as lines: leave out the attempt and json")
        of_attempts = {"judge": self.judge is not None, "full": self.full, "reveal": self.reveal}
        of_boards = {"strata": self.strata is not None, "reduce": self.reduce is not None}
        for name in (name for name, given in of_attempts.items() if given and self.trace is None):
            raise ConfigError(f"{name} is for an attempt: name one, as in firsthand show {self.run} ID --{name}")
        for name in (name for name, given in of_boards.items() if given and self.trace is not None):
            raise ConfigError(f"{name} is for the leaderboard: leave out {name} or the attempt")


def judgement(trace: Trace, name: str) -> Trace:
    """The judge's own attempt behind a score of the trace."""
    score = trace.score(name)
    body = score.detail.get("trace") if score is not None else None
    if not isinstance(body, dict):
        names = [each.name for each in trace.scores if "trace" in each.detail]
        raise ConfigError(
            f"the attempt has no judged score {name!r}: it has {', '.join(names) or 'none'}; `firsthand score` makes them"
        )
    return Trace.from_json(body)


async def follow_run(run: store.Run) -> int:
    """Print the steps of a run until no process works on it; those of attempts that have ended are counted only."""
    out, lines, ended = console(), FeedLines(), len(run.done())
    out.print(
        f"{run.id} is {run.status}, {count_of(ended, 'attempt')} done; Ctrl-C stops watching, not the run", markup=False
    )
    last = run.feed.last()
    with suppress(BrokenPipeError):
        async for told in follow(run.path):
            if isinstance(told.step, Ended) and told.sequence <= last:
                continue
            for line in lines.of(told):
                out.print(line, soft_wrap=True, markup=False, highlight=False)
    out.print(
        f"{run.id} is {run.status}; `firsthand show {run.id}` prints its leaderboard", markup=False, soft_wrap=True
    )
    return 0


def main(config: Config) -> int:
    """Print the attempt or the leaderboard."""
    if config.follow:
        refuse_given(config, {"strata", "reduce"}, "it is for the leaderboard, and --follow prints none")
    with store.open_run(config.run, data_home()) as run:
        if config.follow:
            return interruption.run(follow_run(run))
        if config.trace is not None:
            trace = run.trace(config.trace)
            if config.judge is not None:
                trace = judgement(trace, config.judge)
            if config.json:
                shown = trace if config.reveal else shareable(trace)
                print_as_json(shown.to_json())
            else:
                task = None if config.judge else run.task(trace.benchmark, trace.task_id)
                show(
                    trace, full=config.full, reveal=config.reveal, expected=expected_answer(task, reveal=config.reveal)
                )
            return 0
        order = {name: index for index, name in enumerate(run.agents())}  # as it was asked: the first is the baseline
        budget = str(run.config.get("equal_budget"))
        figures = own_figures(complain, run)
        attempts = sorted(attempts_of(run, figures), key=lambda each: order.get(each.agent_name, len(order)))
        boards = leaderboard(
            attempts,
            budget=float(budget) if budget.isdecimal() else None,
            clusters=run.clusters(config.strata),
            figures=figures,
            protocols=run.protocols,
            reducers=reducers_of(run, config.reduce),
            retried=run.retried(),
        )
        if config.json:
            print_as_json([board.to_json() for board in boards])
            return 0
        out = console()
        out.print(render(boards) if boards else "No attempt has finished.")
        print_protocols(run.protocols)
        out.print(
            f"{run.id} is {run.status}; `firsthand runs {run.id}` lists its attempts", markup=False, soft_wrap=True
        )
    return 0
