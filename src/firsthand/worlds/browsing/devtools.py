"""Starts Chromium and speaks its DevTools protocol over a pipe.

A pipe opens no port, so nothing else on the machine can drive the browser, and Chromium ends when this process does. Calls
block, and may come from several threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError
from firsthand.message import Json

START_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 5.0
END_TIMEOUT_S = 5.0
PROFILE = "firsthand-chromium-"
ABANDONED_S = 60.0
_FIRST_FREE = 20
"""The pipe's ends are numbered from here before the child gets them as 3 and 4, so that neither overwrites the other."""
Listener = Callable[[str, Json], None]
"""Called with method and parameters of each event of a session."""


class DevToolsError(Exception):
    """The browser refused a call; the text is its own."""


class DevTools:
    """A running browser. ConnectionError once it has ended, TimeoutError for a call without an answer."""

    def __init__(self, browser: str, flags: Sequence[str], preferences: Json) -> None:
        """Start the browser with a new profile; ConfigError if it does not answer."""
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.profile = Path(tempfile.mkdtemp(prefix=PROFILE))
        self._held: int | None = os.open(self.profile, os.O_RDONLY)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        defaults = self.profile / "Default"
        defaults.mkdir()
        (defaults / "Preferences").write_text(json.dumps(preferences), encoding="utf-8")
        self._changed = threading.Condition()
        self._asked: set[int] = set()
        self._answers: dict[int, Json] = {}
        self._listeners: dict[str, Listener] = {}
        self._last, self._gone = 0, False
        given, heard = os.pipe(), os.pipe()
        self.pid = _spawned(
            [browser, *flags, "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"],
            given[0],
            heard[1],
        )
        self._to, self._from = os.fdopen(given[1], "wb"), heard[0]
        threading.Thread(target=self._read, name="chromium", daemon=True).start()
        try:
            self.call("Browser.getVersion", timeout_s=START_TIMEOUT_S)
        except (ConnectionError, TimeoutError) as error:
            self.close()
            raise ConfigError(f"{browser} does not start: {error}; run it by hand to see why") from None

    def listen(self, session: str, listener: Listener) -> None:
        """Tell a listener the events of a session, from another thread."""
        self._listeners[session] = listener

    def forget(self, session: str) -> None:
        """Tell no more events of a session."""
        self._listeners.pop(session, None)

    def send(self, method: str, session: str = "", **parameters: Any) -> int:
        """Ask for something; returns the number to `wait` for."""
        with self._changed:
            self._last += 1
            number = self._last
            self._asked.add(number)
            body = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
            try:
                self._to.write(json.dumps(body).encode() + b"\0")
                self._to.flush()
            except (OSError, ValueError):
                raise ConnectionError("the browser has ended") from None
        return number

    def wait(
        self, number: int, timeout_s: float = CALL_TIMEOUT_S, unless: Callable[[], object] = lambda: False
    ) -> Json | None:
        """The answer to what was sent, or None as soon as `unless` holds; DevToolsError if the browser refused."""
        try:
            self.until(lambda: number in self._answers or unless(), timeout_s)
            answer = self._answers.pop(number, None)
        finally:
            with self._changed:
                self._asked.discard(number)
                self._answers.pop(number, None)
        if answer is None:
            return None
        if (error := answer.get("error")) is not None:
            raise DevToolsError(str(error.get("message", error))[:300])
        return dict(answer.get("result", {}))

    def call(
        self,
        method: str,
        session: str = "",
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        **parameters: Any,
    ) -> Json:
        """The answer to a call."""
        return self.wait(self.send(method, session, **parameters), timeout_s) or {}

    def until(self, holds: Callable[[], object], timeout_s: float) -> None:
        """Wait until something that events change holds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._gone or holds(), timeout_s):
                raise TimeoutError(f"the browser did not answer within {timeout_s:g} s")
            if self._gone and not holds():
                raise ConnectionError("the browser has ended")

    def close(self) -> None:
        """End the browser and all its processes, and remove its profile."""
        with contextlib.suppress(ConnectionError):
            self.send("Browser.close")
        end = time.monotonic() + END_TIMEOUT_S
        while not _reaped(self.pid) and time.monotonic() < end:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            self._to.close()
        shutil.rmtree(self.profile, ignore_errors=True)
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _read(self) -> None:
        """Take in answers and events until the browser ends."""
        held = b""
        with contextlib.suppress(OSError):
            while read := os.read(self._from, 1 << 16):
                *whole, held = (held + read).split(b"\0")
                with self._changed:
                    for each in whole:
                        self._take(json.loads(each))
                    self._changed.notify_all()
        with self._changed:
            self._gone = True
            self._changed.notify_all()
        os.close(self._from)

    def _take(self, message: Mapping[str, Any]) -> None:
        if (number := message.get("id")) is not None:
            if number in self._asked:
                self._answers[number] = dict(message)
        elif (listener := self._listeners.get(message.get("sessionId", ""))) is not None:
            listener(message["method"], message.get("params", {}))


def _remove_abandoned(folder: Path) -> None:
    """Remove the profiles of processes that were killed: older than a minute, and locked by nobody."""
    for profile in folder.glob(f"{PROFILE}*"):
        with contextlib.suppress(OSError):
            found = profile.lstat()
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < ABANDONED_S:
                continue
            held = os.open(profile, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(profile, ignore_errors=True)
            finally:
                os.close(held)


def _spawned(command: list[str], given: int, heard: int) -> int:
    """The id of a process, leader of its own group, that reads calls from descriptor 3 and writes answers to 4."""
    ends = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for each in (given, heard)]
    os.close(given)
    os.close(heard)
    try:
        return os.posix_spawn(
            command[0],
            command,
            os.environ,
            setpgroup=0,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
            ],
        )
    finally:
        for each in ends:
            os.close(each)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
