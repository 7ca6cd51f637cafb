"""Threads that are shared fairly: owners take turns, and so do the calls of one owner, one piece of work each time.

A first-in-first-out pool would keep a short call waiting until all pieces of a long one before it are done.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Future[Any], Callable[[], Any]]


class FairPool:
    """Runs pieces of work in threads. Thread-safe."""

    def __init__(self, workers: int, *, name: str):
        """`workers` is the number of threads; their names begin with `name`."""
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, OrderedDict[object, deque[_Work]]] = OrderedDict()
        """Work by owner and call; the owner whose turn it is stands first, and so does its call."""

    def submit(self, work: Callable[[], T], *, owner: str = "", call: object = None) -> Future[T]:
        """Returns the future of some work, which waits for the turn of its owner's call. RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            self._pool.submit(self._work_once)  # one for each piece of work: it may come to do another one
            self._waiting.setdefault(owner, OrderedDict()).setdefault(call, deque()).append((future, work))
        return future

    def shutdown(self) -> None:
        """Wait for the work under way, cancel the rest, and end the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
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
        """Takes the work whose turn it is, and puts its owner and its call behind the others."""
        owner, calls = self._waiting.popitem(last=False)
        call, pieces = calls.popitem(last=False)
        work = pieces.popleft()
        if pieces:
            calls[call] = pieces
        if calls:
            self._waiting[owner] = calls
        return work
