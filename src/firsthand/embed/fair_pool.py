"""Threads that are shared fairly: owners take turns, and so do the calls of one owner, one piece of work each time.

The owner that was served least recently is next, so that one who comes waits only for what is under way. A
first-in-first-out pool would keep a short call waiting until all pieces of a long one before it are done.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

MAX_SERVED = 1024
"""Owners whose last turn is remembered; beyond it, those without work are forgotten."""
T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


class FairPool:
    """Runs pieces of work in threads. Thread-safe."""

    def __init__(self, workers: int, *, name: str):
        """`workers` is the number of threads; their names begin with `name`."""
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: dict[str, OrderedDict[object, deque[_Work]]] = {}
        """Waiting work by owner and call, in the order of turns."""
        self._served: dict[str, int] = {}
        """The number of each owner's last turn."""
        self._turns = 0

    def submit(self, work: Callable[[], T], *, owner: str = "", call: object = None) -> Future[T]:
        """Returns the future of some work, which waits for the turn of its owner's call. RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            self._pool.submit(self._work_once)  # one for each piece of work: it may come to do another one
            self._waiting.setdefault(owner, OrderedDict()).setdefault(call, deque()).append((future, work))
        return future

    def shutdown(self) -> None:
        """Wait for the work under way, cancel the rest, and end the threads."""
        with self._lock:
            while self._waiting:
                self._next()[0].cancel()
        self._pool.shutdown(wait=True)

    def _work_once(self) -> None:
        with self._lock:
            if not self._waiting:  # shut down meanwhile
                return
            future, work = self._next()
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
            del future  # the error's traceback holds this frame
        else:
            future.set_result(result)

    def _next(self) -> _Work:
        """Removes and returns the next piece of work, and moves its call to the end of its owner's queue."""
        owner = min(self._waiting, key=lambda each: self._served.get(each, 0))
        calls = self._waiting[owner]
        call, pieces = calls.popitem(last=False)
        work = pieces.popleft()
        if pieces:
            calls[call] = pieces
        if not calls:
            del self._waiting[owner]
        if not work[0].cancelled():  # which costs no turn
            self._turns += 1
            self._served[owner] = self._turns
        if len(self._served) > MAX_SERVED:
            self._served = {each: turn for each, turn in self._served.items() if each in self._waiting}
        return work
