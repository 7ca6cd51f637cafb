"""Sandboxes that are started ahead, while an agent thinks; each is used for one attempt alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

from firsthand.errors import SandboxError
from firsthand.sandbox.box import Box
from firsthand.sandbox.sandbox_limits import RunLimits

MAX_SPARE = 3
IDLE_S = 20.0
"""Spare sandboxes that nobody has asked for in this time are closed."""
PATH = "/opt/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


class SpareBoxes:
    """Hands out sandboxes with the folder /opt/bin, and starts others ahead once attempts follow each other."""

    def __init__(self, folder: str, limits: RunLimits, most: int = MAX_SPARE) -> None:
        """Start nothing yet; `folder` is where commands begin, and `most` the number of spare ones."""
        self.folder, self.limits, self.most = folder, limits, most
        self._lock = threading.Lock()
        self._spare: list[Box] = []
        self._taken, self._filling, self._pid = 0, False, os.getpid()

    async def take(self) -> Box:
        """A started sandbox that nobody has used; SandboxError if none can be started."""
        with self._lock:
            if self._pid != os.getpid():  # a fork: the spare ones are the parent's
                self._spare, self._filling, self._pid = [], False, os.getpid()
            self._taken += 1
            if self._spare:
                return self._spare.pop(0)
        box = self._made()
        try:
            await _start(box)
        except BaseException:
            await box.close()
            raise
        return box

    def refill(self) -> None:
        """Start spare ones in a thread: as many as attempts came before the last, at most `most`."""
        with self._lock:
            if self._filling or self._taken < 2:
                return
            self._filling = True
        threading.Thread(target=self._fill, name="spare sandboxes").start()

    def _fill(self) -> None:
        try:
            while True:
                with self._lock:
                    if len(self._spare) >= min(self._taken - 1, self.most):
                        return
                box = self._made()
                asyncio.run(_start(box))
                with self._lock:
                    self._spare.append(box)
        except (SandboxError, RuntimeError):  # the second: the interpreter ends
            return  # who needs one is told when it is taken
        finally:
            with self._lock:
                self._filling = False
                waiting = threading.Timer(IDLE_S, self._drop, (self._taken,))
            waiting.daemon = True
            with contextlib.suppress(RuntimeError):  # the interpreter ends, and its sandboxes with it
                waiting.start()

    def _drop(self, taken: int) -> None:
        """Close the spare ones, unless one was taken since so many were."""
        with self._lock:
            if self._taken != taken or self._pid != os.getpid():
                return
            spare, self._spare = self._spare, []
        for box in spare:
            asyncio.run(box.close())

    def _made(self) -> Box:
        environment = {"PATH": PATH, "USER": "root"}
        return Box(folder=self.folder, environment=environment, limits=self.limits, size_bytes=2**28)


async def _start(box: Box) -> None:
    await box.exec(["mkdir", "-p", "/opt/bin"], folder="/")
