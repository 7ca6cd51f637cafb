"""Carries out a run: makes every attempt that it does not hold yet, and keeps each as soon as it is finished.

Interrupting is safe at any instant. The effects of an unfinished attempt are in its journal and are replayed when the run
is executed again, so no model is called twice. The caller decides which places are attempted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from firsthand.errors import BodyTooLarge, LimitExceeded, StoreError, TooManyFailures, Unreachable
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.journal import Journal, where_in
from firsthand.loop.listener import Listener
from firsthand.message import Json
from firsthand.model import Usage
from firsthand.rollout import Place, go_on_in_order, rollouts
from firsthand.runs.feed import Both
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import Interrupted
from firsthand.system.plurals import count_of
from firsthand.system.request_owner import set_owner
from firsthand.trace import Failure, Trace

UNREACHABLE_IN_A_ROW = 5
"""Attempts in a row that could not reach their model's server, after which a run ends unless it is told otherwise."""


async def execute(
    run: Run,
    places: Sequence[Place],
    *,
    seed: int = 0,
    concurrency: int = 16,
    budget: Budget | None = None,
    on_trace: Callable[[Trace], None] = lambda trace: None,
    redo_errors: bool = False,
    listener: Callable[[Place], Listener | None] = lambda place: None,
    pieces: bool = False,
    fail_fast: int | None = None,
) -> None:
    """Attempt all places that the run has no trace of, and store each trace before `on_trace` receives it.

    With `redo_errors`, attempts that ended in an error are made again too. A store that cannot be written ends the run
    with its StoreError. `budget` is shared by all attempts: when it refuses a call, no attempt begins, and those that run
    end. Attempts that it refused or cut short are not kept, for they say nothing about their agents. Where open calls had
    reserved what was missing they are made again with fewer at a time; otherwise the run stops with LimitExceeded, and a
    later call finishes them.
    What the run has spent before, by attempts that were interrupted too, is taken from a budget that is still untouched.
    `listener` makes the listener of an attempt. Steps go to the run's live feed too, and with `pieces` the text that models
    stream. ConfigError if another process works on the run.

    `fail_fast` attempts that failed in a row end the run with TooManyFailures; 0 never ends it, and None lets
    UNREACHABLE_IN_A_ROW attempts that could not reach their model's server do so. What these were is not kept then, so that
    a later call makes them again.
    """

    def listeners(place: Place) -> Listener:
        own, other = run.feed.listener(place, pieces=pieces), listener(place)
        return own if other is None else Both(own, other)

    with run.claimed():  # before looking what is missing, which another process might be making
        missing = begin(run, places, redo_errors)
        shares = _Shares(budget)
        if budget is not None and budget.spent == Usage() and budget.calls == 0:
            budget.resume(*run.spent())
            shares.take_over({place: paid for place, paid in run.interrupted().items() if place in missing})
        needed, done = list(missing.values()), dict[str, Trace]()
        if _share_memory(places):
            needed, done = list(places), {trace.place: trace for trace in run.traces() if trace.place not in missing}
        go_on_in_order(places, lambda place: run.journal(place.id))
        with run.working(), set_owner(run.id):
            try:
                async with asyncio.timeout(budget.limits.seconds if budget else None) as timer:
                    await _attempt(
                        run, needed, done, missing, seed, concurrency, shares, on_trace, listeners, fail_fast
                    )
            except TimeoutError:
                if not timer.expired():
                    raise
                raise _stopped("seconds", run, missing) from None


def begin(run: Run, places: Sequence[Place], redo_errors: bool) -> dict[str, Place]:
    """The places that the run has no trace of, by id; stores their tasks and agents, and how many places there are.

    StoreError if the run's file was changed: what it does not show to have been done would be done again.
    """
    run.check()
    for benchmark in {place.benchmark.name for place in places}:
        run.add_tasks(benchmark, {id(p.task): p.task for p in places if p.benchmark.name == benchmark}.values())
    for agent in {id(place.agent): place.agent for place in places}.values():
        run.add_agent(agent.name, agent.to_json())
    finished = run.done(errors=not redo_errors)
    run.plan(len({place.id for place in places} | finished))
    return {place.id: place for place in places if place.id not in finished}


def keep(run: Run, trace: Trace) -> Trace:
    """Stores a finished attempt; returns it as it is kept.

    One that is larger than the file may hold is kept as an error that says so, with what its calls cost and without its
    messages, events and scores.
    """
    try:
        run.append(trace)
    except BodyTooLarge as error:
        trace = _without_content(trace, error)
        run.append(trace)
    return trace


def _without_content(trace: Trace, error: BodyTooLarge) -> Trace:
    paid = [call for call in trace.calls if call.usage != Usage()]
    bare: dict[str, Any] = {"at": None, "nodes": (), "detail": {}, "prompt": None, "tools": (), "error": "not kept"}
    return replace(
        trace,
        nodes=(),
        calls=tuple(replace(call, **bare) for call in paid),
        events=(),
        tools=(),
        answer=None,
        final_state={},
        scores=(),
        stop_reason="error",
        error=Failure(type(error).__name__, f"the attempt is too large to be kept whole: {error}"),
    )


class _Watched:
    """A Journal that collects its failures: a pattern may catch them, and the attempt is void all the same."""

    def __init__(self, journal: Journal, failures: list[StoreError]):
        self.journal = journal
        self.failures = failures

    def where(self, effect: str) -> tuple[str, str]:
        return where_in(self.journal, effect)

    def find(self, effect: str, request: str) -> Json | None:
        with self._remembering():
            return self.journal.find(effect, request)

    def record(self, effect: str, request: str, reply: Json) -> None:
        with self._remembering():
            self.journal.record(effect, request, reply)

    async def settled(self) -> None:
        with self._remembering():
            await self.journal.settled()

    def replies(self, part: str = "") -> list[Json]:
        with self._remembering():
            return self.journal.replies(part)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except BodyTooLarge:  # a fault of this attempt alone
            raise
        except StoreError as error:
            self.failures.append(error)
            raise


async def _attempt(
    run: Run,
    places: Sequence[Place],
    done: Mapping[str, Trace],
    missing: dict[str, Place],
    seed: int,
    concurrency: int,
    shares: _Shares,
    on_trace: Callable[[Trace], None],
    listener: Callable[[Place], Listener | None],
    fail_fast: int | None,
) -> None:
    """Attempt the places; each that is finished leaves `missing`."""
    failures: list[StoreError] = []
    row = _FailuresInARow(fail_fast)

    def store(traces: Sequence[Trace]) -> None:
        for each in traces:
            kept = keep(run, each)
            del missing[each.place]
            on_trace(kept)

    while True:
        attempts = rollouts(
            places,
            done=done,
            seed=seed,
            concurrency=concurrency,
            journal=lambda place: _Watched(run.journal(place.id), failures),
            budget=shares.of,
            listener=listener,
            is_ending=lambda: shares.is_short,
        )
        async with aclosing(attempts):
            async for trace in attempts:
                if failures:
                    raise failures[0]
                if shares.has_cut(trace):
                    continue
                store(row.to_keep(trace))
                if row.is_full:
                    raise row.ends(run, missing)
        if not shares.refused:
            break
        if concurrency <= 1 or _share_memory(places) or not shares.may_fit:  # such memories go on in a later call
            refused = min(shares.refused, key=lambda share: not share.is_hit_for_good)
            raise _stopped(refused.hit or "tokens", run, missing, is_reserved=shares.may_fit)
        concurrency = shares.again(concurrency)
        held = {each.place for each in row.held}
        places = [place for place in missing.values() if place.id not in held]
    store(row.held)


def _share_memory(places: Sequence[Place]) -> bool:
    """True if an agent carries its memory from attempt to attempt."""
    return any(place.agent.memory is not None and place.agent.memory.lifetime != "attempt" for place in places)


class _Shares:
    """Unlimited budgets between the shared one and each attempt; `hit` is set where the shared one refused a call."""

    def __init__(self, budget: Budget | None):
        self.budget = budget
        self.open: dict[str, Budget] = {}
        self.refused: list[Budget] = []
        """Those of attempts that have ended and are not kept."""
        self.num_late = 0
        """Attempts that ended as they should after one was refused: so many at a time fit."""

    def of(self, place: Place) -> Budget | None:
        """The budget of an attempt at this place; again the same one where it is made again."""
        if self.budget is None:
            return None
        return self.open.setdefault(place.id, Budget(Limits(depth=None), self.budget))

    def take_over(self, paid: Mapping[str, Interrupted]) -> None:
        """Charge what interrupted attempts have paid before, by the ids of their places."""
        for place, each in paid.items():
            if self.budget is not None:
                self.open[place] = Budget(Limits(depth=None), self.budget)
                self.open[place].take_over(each.usage, each.calls, each.highest_usd)

    @property
    def is_short(self) -> bool:
        """True if a call was refused, or an answer cut, in this round."""
        return bool(self.refused) or any(each.hit and not each.begins_again for each in self.open.values())

    @property
    def may_fit(self) -> bool:
        """True if all that were refused were so only for what other calls had reserved."""
        return not any(each.is_hit_for_good for each in self.refused)

    def has_cut(self, trace: Trace) -> bool:
        """True if an attempt that has ended was refused a call, or an answer was cut short."""
        share = self.open.get(trace.place)
        if share is not None and share.hit is not None:
            self.refused.append(share)
            return True
        self.num_late += self.is_short
        self.open.pop(trace.place, None)
        return False

    def again(self, concurrency: int) -> int:
        """Begin another round, of fewer attempts at a time; returns how many."""
        fewer = max(1, min(self.num_late, concurrency - 1))
        for share in self.refused:
            share.begins_again = True
        self.refused, self.num_late = [], 0
        return fewer


class _FailuresInARow:
    """Counts attempts that failed one after the other. Those that reached no server are held until one ends otherwise."""

    def __init__(self, most: int | None):
        self.most = most
        self.count = 0
        self.held: list[Trace] = []
        self.last = ""

    def to_keep(self, trace: Trace) -> list[Trace]:
        """The traces that may be kept once this attempt has ended."""
        unreached = trace.error is not None and trace.error.kind == Unreachable.__name__
        counts = trace.error is not None if self.most else unreached and self.most is None
        self.count = self.count + 1 if counts else 0
        if trace.error is not None:
            self.last = trace.error.message
        if unreached:
            self.held.append(trace)
            return []
        kept, self.held = [*self.held, trace], []
        return kept

    @property
    def is_full(self) -> bool:
        """True if the run is to end."""
        return self.most != 0 and self.count >= (self.most or UNREACHABLE_IN_A_ROW)

    def ends(self, run: Run, missing: Mapping[str, Place]) -> TooManyFailures:
        """The error that says why, and how to go on."""
        return TooManyFailures(
            f"{self.count} attempts in a row failed, the last with: {self.last}; what is done is kept, and "
            f"{count_of(len(missing), 'attempt')} to go: mend it, then `firsthand run --resume {run.id}` finishes them "
            "(--fail-fast 0 never stops)"
        )


_BUDGETS = {"tokens": "token", "calls": "call", "cost_usd": "cost", "seconds": "time"}


def _stopped(limit: str, run: Run, missing: dict[str, Place], *, is_reserved: bool = False) -> LimitExceeded:
    how = "reserved by calls that may use less," if is_reserved else "exhausted"
    return LimitExceeded(
        limit,
        f"{_BUDGETS[limit]} budget of the whole run {how} with {count_of(len(missing), 'attempt')} to go; "
        "what is done is kept: "
        f"resume run {run.id} with a larger limit to finish them",
    )
