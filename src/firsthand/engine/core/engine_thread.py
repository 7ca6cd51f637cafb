"""Runs an engine in its own thread, for callers in any number of event loops.

The thread runs commands between steps and delivers outputs to each caller's event loop. Commands get at most as much
time as the step before them, so that a flood of requests does not stop running answers. Arrival times and order do not
change a request's tokens. A failing request raises in its own caller; if the thread ends, every caller gets the error
and none waits forever.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from firsthand.engine.compute.adapter_slots import LoadedAdapter
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_stats import Stats
from firsthand.engine.core.output_delivery import OutputQueue, deliver
from firsthand.engine.core.outputs import Output, ScoreOutput, score_output
from firsthand.engine.core.sequence import Request
from firsthand.engine.memory.pinned_prefixes import PinnedPrefix
from firsthand.errors import ModelError
from firsthand.nn.batched_lora import PackedAdapter
from firsthand.nn.lora import Adapter
from firsthand.system import interruption

MIN_COMMANDS_S = 0.005
"""Least time for commands between two steps, in seconds."""
T = TypeVar("T")


class Lease:
    """Keeps a prefix pinned in the KV cache for as long as this object is referenced."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True)
class Command:
    """A function to run on the engine's thread between steps, and what to call instead if the thread has ended."""

    run: Callable[[], object]
    fail: Callable[[Exception], object]


class EngineWorker:
    """Runs an engine in a thread. Close it, or use it as a context manager, to end the thread."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self._commands: deque[Command] = deque()
        self._wake = threading.Condition()
        self._queues: dict[int, OutputQueue] = {}
        self._stop_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="firsthand-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> AsyncGenerator[Output, None]:
        """Yields the outputs of a request as they come. Closing the iterator, or cancelling its task, aborts the
        request.

        An answer that fails ends with an Output whose `error` is set. Raises what `Engine.add` raises.
        """
        return self._outputs(lambda: self.engine.add(request), request.n)

    async def score(
        self,
        prefix: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        top: int = 0,
        priority: int = 0,
        owner: str = "",
        adapter: str | None = None,
        salt: str = "",
        distribution: bool = False,
        source: Sequence[int] = (),
        taps: RequestTaps | None = None,
    ) -> list[ScoreOutput]:
        """Returns the log-probs of each continuation's tokens after the prefix; see `Engine.score`."""
        outputs: dict[int, Output] = {}
        add = partial(
            self.engine.add_score,
            prefix,
            continuations,
            top=top,
            priority=priority,
            owner=owner,
            adapter=adapter,
            salt=salt,
            distribution=distribution,
            source=source,
            taps=taps,
        )
        async for output in self._outputs(add, len(continuations)):
            outputs[output.index] = output
        return [score_output(outputs[index]) for index in range(len(continuations))]

    async def pin_prefix(self, tokens: Sequence[int], *, adapter: str | None = None, salt: str = "") -> PinnedPrefix:
        """Pin a prefix in the KV cache; see `Engine.pin_prefix`. If the caller is cancelled, nothing stays pinned."""
        future = self._start(lambda: self.engine.pin_prefix(tokens, adapter=adapter, salt=salt))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._unpin_when_done)
            raise

    async def unpin_prefix(self, prefix: PinnedPrefix) -> None:
        """Unpin a prefix, even if the caller is cancelled while it waits."""
        await self._call(lambda: self.engine.unpin_prefix(prefix))

    def lease(self, tokens: Sequence[int], *, adapter: str | None = None, salt: str = "") -> Lease:
        """Pin a prefix until the returned lease is garbage-collected.

        Does not wait. A closed engine pins nothing, and one short of blocks may pin less.
        """
        lease = Lease()
        future = self._start(lambda: self.engine.pin_prefix(tokens, adapter=adapter, salt=salt))
        weakref.finalize(lease, future.add_done_callback, self._unpin_when_done).atexit = False
        return lease

    async def load(self, state: Mapping[str, Tensor], version: int, *, recompute: bool = True) -> None:
        """Replace the engine's weights between two steps; see `Engine.load`."""
        await self._call(lambda: self.engine.load(state, version, recompute=recompute))

    async def load_adapter(
        self, name: str, source: Path | str | Adapter, *, version: int = 0, replace: bool = False
    ) -> None:
        """Load an adapter, reading it while the engine continues; see `Engine.load_adapter`."""
        packed = await asyncio.to_thread(self.engine.adapters.read, source)
        await asyncio.wrap_future(self.add_adapter(name, packed, version=version, replace=replace))

    def add_adapter(self, name: str, packed: PackedAdapter, *, version: int = 0, replace: bool = False) -> Future[None]:
        """Load an adapter that is already packed; the future is done when the engine has it."""
        return self._start(lambda: self.engine.load_adapter(name, packed, version=version, replace=replace))

    async def unload_adapter(self, name: str) -> None:
        """Refuse an adapter to new requests; see `Engine.unload_adapter`."""
        await self._call(lambda: self.engine.unload_adapter(name))

    async def find_adapter(self, name: str) -> LoadedAdapter:
        """Returns the adapter that new requests of that name get; ConfigError if there is none."""
        return await self._call(lambda: self.engine.adapters.get(name))

    async def stats(self) -> Stats:
        """Returns the engine's counters."""
        return await self._call(self.engine.stats)

    @property
    def is_alive(self) -> bool:
        """True if requests are accepted: the thread has not ended and was not told to."""
        return self._stop_error is None

    def close(self) -> None:
        """End the thread after its current step, and wait for that. Running requests get an error. Safe to call twice.

        Does not wait while an interrupted command ends: a step may be compiling kernels.
        """
        self._end(ModelError("the engine was closed"))
        if threading.current_thread() is not self._thread and not interruption.leaving():
            self._thread.join()

    def __enter__(self) -> EngineWorker:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    async def _outputs(self, add: Callable[[], int], num_answers: int) -> AsyncGenerator[Output, None]:
        queue, is_over = OutputQueue(), False
        try:
            await self._call(lambda: self._add(add, queue))
            left = num_answers  # `add` has validated it
            while left:
                for output in await queue.get():
                    left -= output.is_last
                    is_over = not left
                    yield output
        finally:
            if not is_over:
                self._post(Command(lambda: self._drop(queue), lambda error: None))

    async def _call(self, function: Callable[[], T]) -> T:
        """Returns the result of a function run on the engine's thread."""
        return await asyncio.wrap_future(self._start(function))

    def _start(self, function: Callable[[], T]) -> Future[T]:
        """Returns a future for a function that the engine's thread will run."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        def fail(error: Exception) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

        self._post(Command(run, fail))
        return future

    def _unpin_when_done(self, future: Future[PinnedPrefix]) -> None:
        if not future.cancelled() and future.exception() is None:
            prefix = future.result()
            self._post(Command(lambda: self.engine.unpin_prefix(prefix), lambda error: None))

    def _post(self, command: Command) -> None:
        with self._wake:
            if self._stop_error is None:
                self._commands.append(command)
                self._wake.notify()
                return
        command.fail(self._stop_error)

    def _add(self, add: Callable[[], int], queue: OutputQueue) -> None:
        queue.request_id = add()
        self._queues[queue.request_id] = queue

    def _drop(self, queue: OutputQueue) -> None:
        if queue.request_id is not None:
            self.engine.abort(queue.request_id)
            self._queues.pop(queue.request_id, None)

    def _run(self) -> None:
        try:
            commands_s = MIN_COMMANDS_S
            while self._run_commands(commands_s):
                start = time.monotonic()
                outputs = self.engine.step()
                self._deliver(outputs)
                for output in outputs:
                    if not self.engine.is_live(output.request_id):
                        self._queues.pop(output.request_id, None)
                commands_s = max(time.monotonic() - start, MIN_COMMANDS_S)
        except BaseException as error:
            self._end(ModelError(f"the engine stopped: {type(error).__name__}: {error}"))
            raise
        finally:
            self._fail_waiting_callers()

    def _run_commands(self, commands_s: float) -> bool:
        """Wait for work, then run commands for at most `commands_s` seconds; False if the worker was closed."""
        with self._wake:
            while not self._commands and self._stop_error is None and not self.engine.has_work:
                self._wake.wait()
        deadline = time.monotonic() + commands_s
        while self._stop_error is None and self._commands:
            self._commands.popleft().run()
            if time.monotonic() > deadline:
                break
        return self._stop_error is None

    def _deliver(self, outputs: Sequence[Output]) -> None:
        queues = self._queues
        for queue in deliver([(queues[each.request_id], each) for each in outputs if each.request_id in queues]):
            self._drop(queue)

    def _end(self, reason: Exception) -> None:
        with self._wake:
            self._stop_error = self._stop_error or reason
            self._wake.notify_all()

    def _fail_waiting_callers(self) -> None:
        """Give each waiting caller the error that ended the thread."""
        assert self._stop_error is not None
        with self._wake:
            commands = list(self._commands)
            self._commands.clear()
        for command in commands:
            command.fail(self._stop_error)
        deliver([(queue, self._stop_error) for queue in self._queues.values()])
        self._queues.clear()
