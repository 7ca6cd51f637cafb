"""The one loop: an agent, a task -> a Trace. Evaluations, battles, attacks and training rollouts are all this.

A failed attempt is data: the error is classified here, once, and siblings go on. Only cancellation passes through, and what
an interrupted attempt had done stays in its journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from numbers import Real
from types import FunctionType, MappingProxyType
from typing import Any, TypeGuard

from firsthand.agent import Agent
from firsthand.benchmark import Environment, Judge, NamedSetting, Scorer, Setting
from firsthand.context import Context, open_context
from firsthand.errors import (
    BodyTooLarge,
    ConfigError,
    FirsthandError,
    GuardBlocked,
    LimitExceeded,
    SandboxError,
    StoreError,
)
from firsthand.loop.attempt import Attempt
from firsthand.loop.attempt_memory import AttemptMemory, commit, learn, snapshot_of
from firsthand.loop.borders import Borders
from firsthand.loop.budget import Budget
from firsthand.loop.concurrency import Branch, derive_seed, enter_branch, without_exit
from firsthand.loop.endpoint_pace import Paces, share_paces
from firsthand.loop.journal import Journal, JournalPart, MemoryJournal, skip_given
from firsthand.loop.listener import Listener
from firsthand.loop.max_wait import awaited, max_wait_s
from firsthand.loop.open_sources import SourceKeeper, opened, reopen
from firsthand.loop.warm_up import warm_up
from firsthand.memory import Memory, hook
from firsthand.message import Json, canonical
from firsthand.system import conversation_owner
from firsthand.system.request_owner import set_owner
from firsthand.task import Task
from firsthand.tool_source import ToolSource, is_shared, source_name
from firsthand.trace import MAX_NUMBER, Failure, Score, Trace, as_json, new_trace_id


@dataclass(frozen=True)
class Place:
    """An attempt to make: agent, benchmark, task and epoch. Its id is the same in every process."""

    agent: Agent
    benchmark: Setting
    task: Task
    epoch: int = 0

    @cached_property
    def id(self) -> str:
        """SHA-256 of the names and the epoch, 16 hex digits: `Trace.place`, and the key of the attempt's journal."""
        key = canonical([self.benchmark.name, self.task.id, self.agent.name, self.epoch])
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


async def rollout(
    agent: Agent,
    task: Task,
    *,
    benchmark: Setting | None = None,
    epoch: int = 0,
    seed: int = 0,
    journal: Journal | None = None,
    budget: Budget | None = None,
    listener: Listener | None = None,
    memory: Memory | None = None,
    opened_sources: Collection[ToolSource] = (),
) -> Trace:
    """Makes one attempt: opens the environment, runs the pattern, scores the result.

    The attempt draws all its randomness from `seed`, the task and the epoch, so equal arguments give equal tokens. `budget`
    is a parent for the attempt's own, shared with other attempts. `listener` is told of each step when it happens. `memory`
    is what the attempt begins with, and whoever gives it commits the attempt's writes. Without it that is the agent's, to
    which the writes are committed if its lifetime is `agent`. `opened_sources` are open already and stay so.
    """
    id = new_trace_id()
    benchmark = benchmark or NamedSetting("adhoc")
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    await warm_up([agent.model])
    own_seed = derive_seed(seed, benchmark.name, task.id, epoch)
    place = Place(agent, benchmark, task, epoch).id
    journal = journal or MemoryJournal(place)
    attempt = Attempt(agent, agent.own_tools, journal, own_seed, listener, task=task)
    if agent.memory is not None:
        origin = {"agent": agent.name, "benchmark": benchmark.name, "task": task.id, "epoch": epoch}
        attempt.memory = AttemptMemory(memory or agent.memory, origin)
    if task.protected is not None:
        attempt.note("protected", why=task.protected)
    answer: str | None = None
    failure: Failure | None = None
    stop_reason = "done"
    final_state: Json = {}
    own_budget = Budget(agent.limits, budget, shares_parent=True)
    if budget is not None:
        budget.begin_again()
        for usage in attempt.lost():
            budget.repay(usage)
    own_budget.hold(*attempt.paid())
    try:
        async with _opened(benchmark, task, attempt, opened_sources) as environment:
            try:
                answer = await _run_pattern(agent, task, attempt, own_budget)
                stop_reason = _limit_met(attempt, own_budget) or stop_reason
            except LimitExceeded as limit:
                stop_reason = limit.limit
                attempt.note("limit", limit=limit.limit, message=str(limit))
                if not attempt.has_begun:
                    failure = Failure(type(limit).__name__, f"the model was never asked: {limit}")
            except GuardBlocked:
                stop_reason = "guard"
            if environment is not None:
                bound_s = max_wait_s(environment)
                final_state = as_json(await awaited(bound_s, environment.final_state(), environment, "final_state"))
    except BodyTooLarge as error:  # what the model or a tool gave is at fault, and the file is sound
        stop_reason, failure = "error", Failure(type(error).__name__, str(error))
    except StoreError as error:  # a full disk is no failure of the attempt: what cannot be recorded must not go on
        attempt.note("stopped", message=str(error))
        raise
    except FirsthandError as error:
        stop_reason, failure = "error", Failure(type(error).__name__, str(error))
    except (Exception, SystemExit) as error:
        stop_reason = "error"
        failure = Failure(type(error).__name__, str(error), traceback.format_exc(limit=-8))
    if attempt.guard_passes:
        attempt.note("guard_passes", **dict(sorted(attempt.guard_passes.items())))
    trace = Trace(
        id=id,
        place=place,
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
        tools=tuple(attempt.tool_specs),
        answer=answer,
        stop_reason=stop_reason,
        final_state=final_state,
        error=failure,
    )
    own_memory = (
        agent.memory if memory is None and agent.memory is not None and agent.memory.lifetime == "agent" else None
    )
    if own_memory is not None:
        await commit(own_memory, trace)
    trace = trace if failure else await score_trace(benchmark, task, trace, journal, budget)
    if own_memory is not None:
        await learn(own_memory, trace, own_memory)
    return trace


def _limit_met(attempt: Attempt, budget: Budget) -> str | None:
    """The limit that an attempt met although its pattern gave an answer: a call was refused, cut short or cost too much."""
    if budget.hit is not None:
        attempt.note("limit", limit=budget.hit, message="a call was refused or its answer cut short")
        return budget.hit
    if (limit := budget.overspent) is not None:
        spent = budget.spent.total_tokens if limit == "tokens" else budget.spent.cost_usd
        allowed = getattr(budget.limits, limit)
        attempt.note("limit", limit=limit, message=f"{spent:g} were used, and {allowed:g} are allowed")
    return limit


@asynccontextmanager
async def _opened(
    benchmark: Setting, task: Task, attempt: Attempt, already: Collection[ToolSource]
) -> AsyncIterator[Environment | None]:
    """The task's environment, if it has one; it and the agent's sources are open, and closed whatever happens."""
    sources = attempt.agent.make_sources()
    environment = None if benchmark.environment is None else benchmark.environment(task)
    closed: list[ToolSource] = [source for source in sources if not any(source is each for each in already)]
    await reopen(source for source in sources if any(source is each for each in already))
    async with opened(closed if environment is None else [*closed, environment]):
        attempt.use(sources, environment)
        yield environment


async def _run_pattern(agent: Agent, task: Task, attempt: Attempt, budget: Budget) -> str:
    """The pattern's answer, in a branch tree of its own and under the attempt's time limit."""

    async def in_own_branch() -> str:
        enter_branch(own := Branch())
        ctx = open_context(attempt, budget, task.conversation)
        with set_owner(agent.name):
            ctx = await _briefed(ctx, task)
            attempting = agent.pattern(task.public(), ctx, **agent.options)
            if not inspect.isawaitable(attempting):
                raise ConfigError(
                    f"the pattern {agent.to_json()['pattern']} is no async function: write it as async def name(task, ctx)"
                )
            answer = await attempting
            if not (agent.guards and isinstance(answer, str)):
                return answer
            return await Borders(attempt, own.next_effect(), attempt.last_of_root, budget).answer(answer)

    seconds = agent.limits.seconds
    running = asyncio.create_task(without_exit(in_own_branch))
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
            f"the pattern {name} returned {answer!r:.80} ({type(answer).__name__}): its answer must be a str"
        )
    return answer


async def _briefed(ctx: Context, task: Task) -> Context:
    """The Context after what the agent's memory says about the task, with the memory's tools at hand."""
    memory = ctx.attempt.agent.memory
    if (tools := hook(memory, "tools")) is not None:
        ctx.attempt.offer(tools(ctx))
    return await ctx.briefed(task.public())


async def score_trace(
    benchmark: Setting, task: Task, trace: Trace, journal: Journal | None = None, budget: Budget | None = None
) -> Trace:
    """The trace with the scores of each of the benchmark's scorers; a scorer that fails gives one with `failure`.

    Of scores of one name, the second is named `NAME#2`, as those of two scorers `exact`, or of a rubric by two judges.
    Calls of judges are recorded in a part of the attempt's `journal`, and charged to the run's `budget`.
    """
    journal = journal or MemoryJournal()
    scores: list[Score] = []
    for index, scorer in enumerate(benchmark.scorers):
        scores += await verdict(scorer, task, trace, _of_scorer(journal, index), budget)
    return trace.scored(named_apart(scores))


def named_apart(scores: Sequence[Score]) -> tuple[Score, ...]:
    """The scores, each by a name of its own: of those of one name and message the second is `NAME#2`, and so on."""
    found: dict[tuple[str, int | None], Score] = {}
    last: dict[tuple[str, int | None], int] = {}
    for each in scores:
        name, number = each.name, 1
        while (name, each.node) in found:
            number = last[each.name, each.node] = last.get((each.name, each.node), 1) + 1
            name = f"{each.name}#{number}"
        found[name, each.node] = each if number == 1 else replace(each, name=name)
    return tuple(found.values())


def _of_scorer(journal: Journal, index: int) -> JournalPart:
    return JournalPart(journal, f"scorer {index}")


def go_on_in_order(places: Sequence[Place], journal: Callable[[Place], Journal]) -> None:
    """Let models that give each of their replies once go on after those in the places' journals, their judges' too."""
    for agent in {id(place.agent): place.agent for place in places}.values():
        skip_given(agent.model, (journal(place) for place in places if place.agent is agent))
    for benchmark in {id(place.benchmark): place.benchmark for place in places}.values():
        at = [place for place in places if place.benchmark is benchmark]
        for index, scorer in enumerate(benchmark.scorers):
            skip_given(judge_model(scorer), (_of_scorer(journal(place), index) for place in at))


def judge_model(scorer: Scorer) -> object:
    """The model that a scorer asks; None for one that asks none, or does not say by which `agent` it judges."""
    return getattr(getattr(scorer, "agent", None), "model", None)


async def verdict(
    scorer: Scorer, task: Task, trace: Trace, journal: Journal, budget: Budget | None = None
) -> tuple[Score, ...]:
    """The scores that one scorer gives an attempt; if it fails, one score with `failure`."""
    try:
        bound_s = max_wait_s(scorer)
        given = scorer.judged(task, trace, journal, budget) if _is_judge(scorer) else scorer(task, trace)
        found = await awaited(bound_s, given, scorer, "the score") if inspect.isawaitable(given) else given
        several: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
        if not several:
            raise ValueError("the scorer returned an empty tuple: give a Score or a number for each attempt")
        if not all(isinstance(each, Score) for each in several):
            several = (
                Score(_scorer_name(scorer), _as_number(found, "a Score, a tuple of Scores, a number or a bool")),
            )
        return tuple(
            Score(
                each.name,
                float(each.value) if each.failed else _value_of(each),
                as_json(each.detail),
                each.node,
                failure=each.failure,
                unjudged=each.unjudged,
            )
            for each in several
        )
    except BodyTooLarge as error:
        return (Score(_scorer_name(scorer), 0.0, failure=f"{type(error).__name__}: {error}"),)
    except (SandboxError, StoreError):  # they say nothing about the answer: a zero would be a lie
        raise
    except (Exception, SystemExit) as error:
        return (Score(_scorer_name(scorer), 0.0, failure=f"{type(error).__name__}: {error}"),)


def _value_of(score: Score) -> float:
    value = _as_number(score.value, f"a number as the score {score.name}")
    if not abs(value) <= MAX_NUMBER:  # a NaN too
        raise ValueError(f"the score {score.name} is {value:g}: give -{MAX_NUMBER:g} to {MAX_NUMBER:g}")
    return value


def _as_number(found: object, wanted: str) -> float:
    """The number, or that of a scalar of NumPy or torch; TypeError for anything else."""
    scalar = found.item() if getattr(found, "ndim", None) == 0 and hasattr(found, "item") else found
    if not isinstance(scalar, Real | Decimal):
        raise TypeError(f"the scorer returned {found!r:.80} ({type(found).__name__}): {wanted} was expected")
    return float(scalar)


def _scorer_name(scorer: Scorer) -> str:
    return str(getattr(scorer, "name", getattr(scorer, "__name__", "score")))


def _is_judge(scorer: object) -> TypeGuard[Judge]:
    """True if the scorer is a Judge. A plain function is none, and an isinstance check of a protocol costs more than most
    scorers do."""
    return not isinstance(scorer, FunctionType) and isinstance(scorer, Judge)


async def rollouts(
    places: Sequence[Place],
    *,
    seed: int = 0,
    concurrency: int = 16,
    journal: Callable[[Place], Journal] = lambda place: MemoryJournal(place.id),
    budget: Budget | Callable[[Place], Budget | None] | None = None,
    listener: Callable[[Place], Listener | None] = lambda place: None,
    done: Mapping[str, Trace] = MappingProxyType({}),
    is_ending: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Trace, None]:
    """The traces of many attempts, as they finish, at most `concurrency` of them at a time.

    Where an agent shares its memory between attempts, those of one benchmark and epoch are a round: the next one begins when
    it is over and its writes are committed. `done` holds traces that are made already, by the ids of their places.
    `budget` is shared by all attempts, or gives each attempt the parent of its own.
    Once `is_ending` no attempt begins, and those that run end.
    Closing the iterator, or cancelling it, cancels what runs.
    """
    memories = {
        place.agent.name: memory if memory.lifetime == "agent" else snapshot_of(memory)
        for place in {id(place.agent): place for place in places}.values()
        if (memory := place.agent.memory) is not None and memory.lifetime != "attempt"
    }

    paces = Paces()

    async def start(place: Place) -> Trace:
        share_paces(paces)
        conversation_owner.enter(f"{conversation_owner.current()}/place/{place.id}")  # each place is a task of its own
        return await rollout(
            place.agent,
            place.task,
            benchmark=place.benchmark,
            epoch=place.epoch,
            seed=seed,
            journal=journal(place),
            budget=budget(place) if callable(budget) else budget,
            listener=listener(place),
            memory=memories.get(place.agent.name),
            opened_sources=keeper.sources,
        )

    held = {id(source): source for place in places for source in place.agent.sources}
    for source in held.values() if concurrency > 1 else ():
        if not is_shared(source) and sum(source in place.agent.sources for place in places) > 1:
            raise ConfigError(
                f"several attempts would have {source_name(source)} open at a time: give the agent a class or function that "
                "makes one for each, declare it shared, or run with concurrency 1"
            )
    keeper = SourceKeeper([source for source in held.values() if is_shared(source)])
    try:
        await keeper.open()
        await warm_up({id(place.agent.model): place.agent.model for place in places if place.id not in done}.values())
        for together in _rounds(places) if memories else [list(places)]:
            finished = dict(done)
            async with aclosing(
                _attempted([p for p in together if p.id not in done], start, concurrency, is_ending)
            ) as attempts:
                async for place, trace in attempts:
                    if place.agent.name in memories:
                        finished[place.id] = trace
                    yield trace
            if is_ending():
                return
            for place in together:
                if place.agent.name in memories and place.id in finished:
                    memory, trace = memories[place.agent.name], finished[place.id]
                    await commit(memory, trace)
                    await learn(memory, trace, place.agent.memory)
    finally:
        await keeper.close()


def _rounds(places: Sequence[Place]) -> list[list[Place]]:
    """The places by benchmark and epoch, in order."""
    rounds: dict[tuple[str, int], list[Place]] = {}
    for place in places:
        rounds.setdefault((place.benchmark.name, place.epoch), []).append(place)
    return list(rounds.values())


async def _attempted(
    places: Sequence[Place],
    start: Callable[[Place], Coroutine[Any, Any, Trace]],
    concurrency: int,
    is_ending: Callable[[], bool],
) -> AsyncGenerator[tuple[Place, Trace], None]:
    """Each place with its trace, as attempts finish."""
    waiting = iter(places)
    running: dict[asyncio.Task[Trace], Place] = {}
    finished: set[asyncio.Task[Trace]] = set()

    def start_next() -> None:
        for place in waiting:
            running[asyncio.create_task(start(place))] = place
            return

    try:
        for _ in range(min(max(1, concurrency), len(places))):
            start_next()
        while running:
            finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            ended = [(running.pop(task), task) for task in finished]
            for place, task in ended:
                if not is_ending():
                    start_next()
                yield place, task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *finished, return_exceptions=True)
