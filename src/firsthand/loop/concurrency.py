"""Concurrent branches with stable names, retries with backoff, and the sync entry point.

Every effect of an attempt (a generation, a tool call, a score) is named by its place: the path of the branch it happens in,
and its index there. Inside one branch code runs in order, and `group` numbers its children, so the names do not depend on
which branch was faster. Seeds, resume and replay rest on that.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import math
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from firsthand.errors import TransientError
from firsthand.loop.endpoint_pace import Pace
from firsthand.system import interruption

T = TypeVar("T")


@dataclass
class Branch:
    """Code that runs in order: its path in the tree of branches, and its counts of effects and groups."""

    path: str = ""
    depth: int = 0
    effects: int = 0
    groups: int = 0
    place: tuple[int, ...] = ()
    """Its start among the effects of the branches above it, as a sort key; see `order`."""
    name: str = ""
    """The name of the sub-agent that runs here, such as `worker 2`; empty outside of any."""

    def next_effect(self) -> str:
        """The name of the next effect here, such as `0.3:1`: second effect of child 3 of the first group."""
        name = f"{self.path}:{self.effects}"
        self.effects += 1
        return name

    def order(self, effect: str) -> tuple[int, ...]:
        """A sort key of an effect of this branch: causes sort before their consequences, whatever the timing."""
        return (*self.place, int(effect.partition(" ")[0].rpartition(":")[2]), 1)


def had_ended(effect: str, as_of: str) -> bool:
    """True if a recorded effect had ended before the effect `as_of` began, however fast branches beside it run.

    So it is for earlier effects of the same branch, for those of the branches above it, and for those of groups that these
    branches awaited before.
    """
    path, _, index = effect.partition(" ")[0].rpartition(":")
    own_path, _, own_index = as_of.partition(" ")[0].rpartition(":")
    if path == own_path:
        return int(index) < int(own_index)
    steps, own_steps = path.split("/") if path else [], own_path.split("/") if own_path else []
    for step, own_step in zip(steps, own_steps, strict=False):
        if step != own_step:
            return int(step.partition(".")[0]) < int(own_step.partition(".")[0])
    return True


_branch: ContextVar[Branch | None] = ContextVar("firsthand_branch", default=None)


def current_branch() -> Branch:
    """The branch that the running code belongs to. Outside an attempt, each call gives a new root."""
    return _branch.get() or Branch()


def entered_branch() -> Branch | None:
    """The branch that the running code belongs to; None outside an attempt."""
    return _branch.get()


def enter_branch(branch: Branch) -> None:
    """Make `branch` the current one for the running task and the tasks it starts."""
    _branch.set(branch)


async def group(coroutines: Iterable[Awaitable[T]]) -> list[T]:
    """Runs all coroutines concurrently; their results in the order of the coroutines.

    Each runs in a branch of its own. If one fails its siblings are cancelled, and that first error is raised as it is.
    """
    parent = current_branch()
    place = f"{parent.path}/{parent.groups}" if parent.path else str(parent.groups)
    group, effects = parent.groups, parent.effects
    parent.groups += 1

    async def run_in_branch(index: int, coroutine: Awaitable[T]) -> T:
        began = (*parent.place, effects, 0, group, index)
        enter_branch(Branch(f"{place}.{index}", parent.depth + 1, place=began, name=parent.name))
        return await without_exit(lambda: coroutine)

    coroutines = list(coroutines)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(run_in_branch(i, coroutine)) for i, coroutine in enumerate(coroutines)]
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    finally:
        for each in coroutines:  # cancelled before it began
            if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
                each.close()
    return [task.result() for task in running]


async def without_exit(make: Callable[[], Awaitable[T]]) -> T:
    """The result of the coroutine that `make` gives; a `sys.exit` in it, which would end the event loop, is a RuntimeError.

    A task that is cancelled before it begins makes none, so that none is left that nobody awaits.
    """
    try:
        return await make()
    except SystemExit as leaving:
        code = "" if leaving.code is None else repr(leaving.code)
        raise RuntimeError(f"the pattern called sys.exit({code})") from leaving


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside nested error groups."""
    first = errors.exceptions[0]
    return first_error(first) if isinstance(first, BaseExceptionGroup) else first


@dataclass(frozen=True)
class Retry:
    """Retries of transient faults: how many, and how long apart."""

    attempts: int = 5
    """Try at most this many times."""
    first_wait_s: float = 0.5
    """Wait about this long before the second try; each later wait is twice the one before."""
    max_wait_s: float = 30.0
    """Never wait longer than this, whatever the server asks for."""
    asked_s: float = 600.0
    """Tries that an endpoint refuses as it is asked too often do not count for this long, if it names a time to come back
    within `max_wait_s` and answers others meanwhile; see `endpoint_pace`."""

    def wait_s(self, attempt: int, asked_s: float | None, rng: random.Random) -> float:
        """Seconds to wait after try number `attempt` (from 1) failed: exponential with full jitter, or as asked."""
        if asked_s is not None:
            return min(max(asked_s, 0.0), self.max_wait_s)
        ceiling = min(self.first_wait_s * 2.0 ** (attempt - 1), self.max_wait_s)
        return ceiling * (0.5 + 0.5 * rng.random())


async def with_retries(
    action: Callable[[], Awaitable[T]],
    retry: Retry,
    *,
    on_retry: Callable[[int, TransientError, float], None] = lambda attempt, error, wait_s: None,
    pace: Pace | None = None,
) -> T:
    """The result of `action`, retried while it raises TransientError; the last such error is raised.

    `pace` is shared by all who ask the same endpoint: each keeps the pause that it asked any of them for.
    """
    if pace is not None and retry.attempts > 1:
        return await _at_pace(action, retry, on_retry, pace)
    rng = random.Random(0)
    for attempt in range(1, retry.attempts):
        try:
            return await action()
        except TransientError as error:
            wait_s = retry.wait_s(attempt, error.retry_after_s, rng)
            on_retry(attempt, error, wait_s)
            await asyncio.sleep(wait_s)
    return await action()


async def _at_pace(
    action: Callable[[], Awaitable[T]],
    retry: Retry,
    on_retry: Callable[[int, TransientError, float], None],
    pace: Pace,
) -> T:
    """The result of `action`, retried as `with_retries` says, in its turn among all who ask the endpoint."""
    rng, clock = random.Random(0), asyncio.get_running_loop().time
    counted, first_s = 0, math.inf
    """The tries that count, and the time of the first one that failed."""
    for made in itertools.count(1):
        held_s: float | None = None
        try:
            async with pace.turn():
                try:
                    result = await action()
                except TransientError as error:
                    first_s = min(first_s, clock())
                    asked_s = error.retry_after_s if error.is_for_all else None
                    if asked_s is not None and asked_s <= retry.max_wait_s and clock() - first_s <= retry.asked_s:
                        held_s = pace.refused(asked_s)
                    raise
                pace.answered()
                return result
        except TransientError as error:
            if held_s is not None:
                on_retry(made, error, held_s)
                continue
            counted += 1
            if counted == retry.attempts:
                raise
            wait_s = retry.wait_s(counted, error.retry_after_s, rng)
            on_retry(made, error, wait_s)
            await asyncio.sleep(wait_s)
    raise AssertionError("a count ends by an answer or an error")


async def in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own that delays neither a timeout nor the exit of the process.

    (`asyncio.to_thread` does both: its threads are joined at the end, however long that takes.)
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def settle(result: T | None, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(cast(T, result))

    def body() -> None:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = context.run(work)
        except BaseException as error:  # a thread has nobody else to tell
            fine = isinstance(error, Exception) and not isinstance(error, StopIteration)
            failure = error if fine else RuntimeError(f"{type(error).__name__}: {error}")  # type: ignore[assignment]
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=body, name="firsthand-work", daemon=True).start()
    return await outcome


def derive_seed(*parts: object) -> int:
    """A seed below 2**63 that depends on every part: equal parts give equal seeds on any machine."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, from code that is not async. Works inside a notebook's running loop too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return interruption.run(coroutine)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(interruption.run(coroutine))
        except BaseException as error:  # carried over to the calling thread
            failure.append(error)

    thread = threading.Thread(target=work, name="firsthand-run")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
