"""The one loop: an agent, a task -> a Trace. Evaluations, battles, attacks and training rollouts are all this.

A failed attempt is data: the error is classified here, once, and siblings go on. Only cancellation passes through, and what
an interrupted attempt had done stays in its journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, Environment, Judge, Scorer
from firsthand.context import open_context
from firsthand.errors import ConfigError, FirsthandError, LimitExceeded, SandboxError, StoreError
from firsthand.loop.attempt import Attempt
from firsthand.loop.budget import Budget
from firsthand.loop.concurrency import Branch, derive_seed, enter_branch
from firsthand.loop.journal import Journal, JournalPart, MemoryJournal
from firsthand.loop.listener import Listener
from firsthand.message import Json, canonical
from firsthand.system.request_owner import set_owner
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace, as_json


@dataclass(frozen=True)
class Place:
    """Which attempt this is: agent, benchmark, task and epoch. Its id is the same in every process."""

    agent: Agent
    benchmark: Benchmark
    task: Task
    epoch: int = 0

    @property
    def id(self) -> str:
        """The id of the attempt and of its Trace: 16 hex digits."""
        key = canonical([self.benchmark.name, self.task.id, self.agent.name, self.epoch])
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


async def rollout(
    agent: Agent,
    task: Task,
    *,
    benchmark: Benchmark | None = None,
    epoch: int = 0,
    seed: int = 0,
    journal: Journal | None = None,
    budget: Budget | None = None,
    listener: Listener | None = None,
) -> Trace:
    """One attempt: open the environment, let the pattern run, score what came out.

    The attempt draws all its randomness from `seed`, the task and the epoch, so equal arguments give equal tokens. `budget`
    is a parent for the attempt's own, shared with other attempts. `listener` is told of each step when it happens.
    """
    benchmark = benchmark or Benchmark("adhoc", lambda seed: [task], scorers=())
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    own_seed = derive_seed(seed, benchmark.name, task.id, epoch)
    attempt = Attempt(agent, agent.tools, journal or MemoryJournal(), own_seed, listener)
    if task.protected is not None:
        attempt.note("protected", why=task.protected)
    answer: str | None = None
    failure: Failure | None = None
    stop_reason = "done"
    final_state: Json = {}
    try:
        async with _opened(benchmark, task, attempt) as environment:
            try:
                answer = await _run_pattern(agent, task, attempt, Budget(agent.limits, budget))
            except LimitExceeded as limit:
                stop_reason = limit.limit
                attempt.note("limit", limit=limit.limit, message=str(limit))
            if environment is not None:
                final_state = as_json(await environment.final_state())
    except StoreError:  # a full disk is no failure of the attempt: what cannot be recorded must not go on
        raise
    except FirsthandError as error:
        stop_reason, failure = "error", Failure(type(error).__name__, str(error))
    except Exception as error:
        stop_reason = "error"
        failure = Failure(type(error).__name__, str(error), traceback.format_exc(limit=-8))
    trace = Trace(
        id=Place(agent, benchmark, task, epoch).id,
        benchmark=benchmark.name,
        task_id=task.id,
        agent=agent.to_json(),
        epoch=epoch,
        seed=seed,
        started_at=started_at,
        duration_s=attempt.elapsed_s(),
        nodes=tuple(attempt.nodes),
        calls=tuple(attempt.calls),
        events=tuple(attempt.events),
        answer=answer,
        stop_reason=stop_reason,
        final_state=final_state,
        error=failure,
    )
    return trace if failure else await score_trace(benchmark, task, trace, attempt.journal, budget)


@asynccontextmanager
async def _opened(benchmark: Benchmark, task: Task, attempt: Attempt) -> AsyncIterator[Environment | None]:
    """The task's environment, if it has one, open and with its tools at hand; it is closed whatever happens."""
    if benchmark.environment is None:
        yield None
        return
    environment = benchmark.environment(task)
    try:
        await environment.open()
        attempt.tools |= {tool.name: tool for tool in environment.tools}
        yield environment
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            await environment.close()
        raise
    await environment.close()


async def _run_pattern(agent: Agent, task: Task, attempt: Attempt, budget: Budget) -> str:
    """The pattern's answer, in a branch tree of its own and under the attempt's time limit."""
    budget.hold(*attempt.paid())

    async def in_own_branch() -> str:
        enter_branch(Branch())
        ctx = open_context(attempt, budget, task.conversation)
        with set_owner(agent.name):
            return await agent.pattern(task.public(), ctx, **agent.options)

    seconds = agent.limits.seconds
    running = asyncio.create_task(in_own_branch())
    try:
        async with asyncio.timeout(seconds) as timer:
            answer: object = await running
    except TimeoutError:
        if timer.expired():
            raise LimitExceeded("seconds", f"the attempt did not finish within {seconds:g} s") from None
        raise
    except asyncio.CancelledError as error:
        here = asyncio.current_task()
        if here is not None and not here.cancelling():  # it came from inside, and must not end the attempts beside it
            raise RuntimeError("the pattern was cancelled by something it awaited") from error
        raise
    finally:
        running.cancel()
    if not isinstance(answer, str):
        name = agent.to_json()["pattern"]
        raise ConfigError(
            f"the pattern {name} returned {answer!r:.80}, a {type(answer).__name__}: its answer must be a str"
        )
    return answer


async def score_trace(
    benchmark: Benchmark, task: Task, trace: Trace, journal: Journal | None = None, budget: Budget | None = None
) -> Trace:
    """The trace with the verdict of each of the benchmark's scorers; a scorer that fails says so in its score.

    What judges ask is recorded in the attempt's `journal`, apart from what the agent did, and charged to the run's `budget`.
    """
    journal = journal or MemoryJournal()
    scores: list[Score] = []
    for index, scorer in enumerate(benchmark.scorers):
        scores += await verdict(scorer, task, trace, JournalPart(journal, f"scorer {index}"), budget)
    return trace.scored(tuple(scores))


async def verdict(
    scorer: Scorer, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None
) -> tuple[Score, ...]:
    """What one scorer says of an attempt; if it fails, a score that says so."""
    try:
        given = scorer.judged(task, trace, journal, budget) if isinstance(scorer, Judge) else scorer(task, trace)
        found = await given if inspect.isawaitable(given) else given
        several = found if isinstance(found, tuple) else (found,)
        return tuple(Score(each.name, float(each.value), as_json(each.detail)) for each in several)
    except (SandboxError, StoreError):  # they say nothing about the answer: a zero would be a lie
        raise
    except Exception as error:
        name = getattr(scorer, "name", getattr(scorer, "__name__", "score"))
        return (Score(str(name), 0.0, {"scorer_failed": f"{type(error).__name__}: {error}"}),)


async def rollouts(
    places: Sequence[Place],
    *,
    seed: int = 0,
    concurrency: int = 16,
    journal: Callable[[Place], Journal] = lambda place: MemoryJournal(),
    budget: Budget | None = None,
    listener: Callable[[Place], Listener | None] = lambda place: None,
) -> AsyncGenerator[Trace, None]:
    """The traces of many attempts, as they finish, at most `concurrency` of them at a time.

    Closing the iterator, or cancelling it, cancels what runs.
    """
    waiting = iter(places)
    running: set[asyncio.Task[Trace]] = set()
    finished: set[asyncio.Task[Trace]] = set()

    def start_next() -> None:
        for place in waiting:
            attempt = rollout(
                place.agent,
                place.task,
                benchmark=place.benchmark,
                epoch=place.epoch,
                seed=seed,
                journal=journal(place),
                budget=budget,
                listener=listener(place),
            )
            running.add(asyncio.create_task(attempt))
            return

    try:
        for _ in range(min(max(1, concurrency), len(places))):
            start_next()
        while running:
            finished, running_still = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            running.clear()
            running.update(running_still)
            for task in finished:
                start_next()
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *finished, return_exceptions=True)
