"""Scores a stored run again with another scorer or judge; new scores are stored beside the old under a name.

Nothing is overwritten. Attempts that have a score of that name are skipped, so an interrupted scoring continues where it
stopped. A judge's calls are journalled as an agent's are: a killed judgement repeats none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from firsthand.benchmark import Scorer
from firsthand.errors import ConfigError, StoreError
from firsthand.loop.endpoint_pace import Paces, share_paces
from firsthand.loop.journal import Journal, skip_given
from firsthand.rollout import judge_model, named_apart, verdict
from firsthand.runs.later_scores import unversioned
from firsthand.runs.run_folder import Run
from firsthand.scorers.model_judge import JudgeScorer
from firsthand.trace import Score, Trace

_Scored = tuple[Trace, int, tuple[Score, ...]]
"""A try of an attempt, by its number, and the scores that it was given."""


@dataclass(frozen=True)
class Rescored:
    """Counts of one scoring."""

    name: str
    scored: int
    """Attempts with a new score."""
    kept: int
    """Attempts that had a score of that name already."""
    failed: int
    """Attempts whose scorer failed: errors, not zeros."""
    skipped: int
    """Attempts that ended in an error, so there is nothing to score."""
    further: tuple[str, ...] = ()
    """Names of the scores after the first, of a scorer that gives several: `NAME.recall`."""


async def rescore(
    run: Run,
    scorer: Scorer,
    *,
    name: str = "",
    described: str = "",
    agent: str | None = None,
    benchmark: str | None = None,
    concurrency: int = 8,
    redo_errors: bool = False,
    on_score: Callable[[Trace, Score], None] = lambda trace, score: None,
) -> Rescored:
    """Score the attempts of a run, at most `concurrency` at a time; each score is stored before `on_score` gets it.

    `name` names the scores; by default the scorer's own. `described` describes the scorer: one name is for one scorer, and
    another one under it is a StoreError. Words that end with another version of its file (`later_scores.VERSION`) score
    anew. Of several scores that it gives an attempt, `name` is the first's and `name.recall` that of the one that it calls
    `recall`; where it fails, those that it did not give have failed. `redo_errors` repeats failed scorings.
    A pair judge gets its rivals here.
    ConfigError if another process gives scores of this name.
    """
    name = name or str(getattr(scorer, "name", getattr(scorer, "__name__", "score")))
    if isinstance(scorer, JudgeScorer):
        scorer = bound(scorer, run)
    described = described or str(getattr(scorer, "described", name))
    if unversioned(other := run.score_names().get(name, described)) != unversioned(described):
        raise StoreError(
            f"run {run.id} has scores named {name!r} already, given by {other}: give the new ones another name, --as NAME"
        )
    with run.scoring(name):  # before looking what has a score, which another process might be giving
        tasks, ever, known = run.tasks(), run.scored(name), run.scored(name, described)
        if (agent or benchmark) and len(known) < len(ever):
            raise StoreError(
                f"the file of {unversioned(described)} has changed since it scored {run.id}: score all attempts anew, "
                "without --agent and --benchmark, or give the new scores another name, --as NAME"
            )

        def journal_of(trace: Trace, number: int) -> Journal:
            return run.journal(f"{trace.place}/{number}/{name}")

        skip_given(judge_model(scorer), (journal_of(*each) for each in run.tried(benchmark=benchmark, agent=agent)))
        paces, kept, skipped, results = Paces(), 0, 0, [0, 0]
        running: set[asyncio.Task[_Scored]] = set()
        failed: list[tuple[Trace, int, Score]] = []

        async def one(trace: Trace, number: int) -> _Scored:
            share_paces(paces)
            task = tasks[trace.benchmark, trace.task_id]
            given = named_apart(await verdict(scorer, task, trace, journal_of(trace, number)))
            rest = (replace(each, name=f"{name}.{each.name}{_at(each)}") for each in given[1:])
            return trace, number, (replace(given[0], name=name), *rest)

        def keep(done: set[asyncio.Task[_Scored]]) -> None:
            for trace, number, (score, *rest) in (each.result() for each in done):
                for each in rest:  # before the first, which says that this attempt is done
                    run.add_score(trace, number, each.name, described, each)
                if score.failed:
                    failed.append((trace, number, score))
                preference = scorer.preference(trace, score) if isinstance(scorer, JudgeScorer) else None
                run.add_score(trace, number, name, described, score, preference)
                results[score.failed] += 1
                on_score(trace, score)

        try:
            for trace, number in run.tried(benchmark=benchmark, agent=agent):
                if trace.error is not None or (isinstance(scorer, JudgeScorer) and trace.agent_name == scorer.against):
                    skipped += trace.error is not None
                    continue
                before = known.get((trace.place, number))
                if before or (before is False and not redo_errors):
                    kept += 1
                    if (
                        before is False and (score := trace.score(name)) is not None
                    ):  # an interrupted scoring told no more
                        failed.append((trace, number, score))
                    continue
                if (trace.place, number) not in ever and trace.score(name) is not None:
                    raise ConfigError(
                        f"the attempts of {run.id} have a score {name!r} of their own: give another name, --as NAME"
                    )
                if (trace.benchmark, trace.task_id) not in tasks:
                    raise StoreError(
                        f"run {run.id} has an attempt at {trace.task_id} and not the task: it cannot be scored"
                    )
                running.add(asyncio.create_task(one(trace, number)))
                if len(running) >= max(1, concurrency):
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    keep(done)
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                keep(done)
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        further = further_names(run, name, described)
        for part in further if failed else ():
            given = run.scored(part, described)
            for trace, number, score in failed:
                if (trace.place, number) not in given:
                    run.add_score(trace, number, part, described, replace(score, name=part))
    return Rescored(name, results[False], kept, results[True], skipped, further)


def further_names(run: Run, name: str, described: str) -> tuple[str, ...]:
    """Names of the scores after the first, of whole attempts, that this scorer gave under a name."""
    given = {each for each, by in run.score_names().items() if unversioned(by) == unversioned(described)}
    return tuple(
        each for each in run.score_names() if each in given and each.startswith(f"{name}.") and _AT not in each
    )


_AT = "[message "


def _at(score: Score) -> str:
    """The end of the name of a message's score: several messages of an attempt have one each."""
    return "" if score.node is None else f"{_AT}{score.node}]"


def bound(scorer: JudgeScorer, run: Run) -> JudgeScorer:
    """A pair judge with the attempts of the agent it compares with; ConfigError if the run has no such agent."""
    if not scorer.against or scorer.rivals is not None:
        return scorer
    if scorer.against not in run.agents():
        raise ConfigError(f"run {run.id} has no agent {scorer.against!r}: it has {', '.join(run.agents())[:200]}")
    rivals = {(each.benchmark, each.task_id, each.epoch): each for each in run.traces(agent=scorer.against)}
    return replace(scorer, rivals=rivals)
