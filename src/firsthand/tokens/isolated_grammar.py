"""Grammars compiled and followed in processes of their own, which are ended when they exceed a limit.

`GrammarProcesses` starts them for one vocabulary (`grammar_process.py` is what they run). An `IsolatedMatcher` has the
methods of llguidance's matcher that we use, and each call goes to the process. When the process is gone, a call raises
the reason as a ConfigError: the grammar, and only it, is at fault.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import Any

from firsthand.errors import ConfigError, FirsthandError, TransientError
from firsthand.grammar import Grammar
from firsthand.message import Json
from firsthand.tokens.compile_slots import QUICK_S, CompileSlots
from firsthand.tokens.grammar_process import memory_of, receive, send

WAIT_S = 20.0
"""Real time to compile, and to wait for others that are being compiled."""
MAX_PROCESSES = 16
_OVERHEAD_BYTES = 4 << 20
"""Pages that every process has for itself, as measured."""
_STEP_WAIT_S = 10.0
_START_S = 120.0
_COMPILING = 4
_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from firsthand.tokens.grammar_process import serve; "
_PROGRAM = _CODE + "serve(int(sys.argv[1]))"
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""One arena, so that address space is memory; no threads, as the process forks."""


@dataclass(frozen=True)
class GrammarLimits:
    """Limits of the process of one grammar."""

    compile_s: float = 10.0
    """Processor time to compile it."""
    step_s: float = 0.5
    """Processor time for one call, such as one token of one answer: the engine's step waits for it."""
    memory_bytes: int = 256 << 20
    """Memory, beyond that of llguidance and the vocabulary."""
    rest_s: float = 10.0
    """Whose grammar held up a step begins no other that needs a process for so long."""


DEFAULT_LIMITS = GrammarLimits()


class IsolatedMatcher:
    """A matcher in another process. Not thread-safe, like llguidance's."""

    def __init__(self, process: GrammarProcess, handle: int, state: list[Any]):
        self._process, self._handle, self._state = process, handle, state
        self._forced: list[int] | None = None
        process.matchers.add(self)
        weakref.finalize(self, process.dropped.append, handle).atexit = False

    @property
    def num_bytes(self) -> int:
        """Memory that the process holds for itself."""
        return self._process.num_bytes

    @property
    def num_copies(self) -> int:
        """The number of other matchers of the process."""
        return len(self._process.matchers) - 1

    @property
    def is_lost(self) -> bool:
        """True if the process has ended for no fault of the grammar."""
        return self._process.is_lost

    @property
    def failure(self) -> str:
        """Why the process has ended; empty while it runs."""
        return self._process.failure

    def deep_copy(self) -> IsolatedMatcher:
        """A matcher at the same place, in the same process."""
        handle = next(self._process.handles)
        _, state, _ = self._process.call(self._handle, "deep_copy", handle)
        return IsolatedMatcher(self._process, handle, state)

    def consume_token(self, token: int) -> bool:
        """Advance by a token; returns whether it is allowed."""
        is_taken, self._forced = self._call("consume_token", token)
        return bool(is_taken)

    def consume_tokens(self, tokens: list[int]) -> bool:
        """Advance by several tokens; returns whether all are allowed."""
        return bool(self._call("consume_tokens", tokens))

    def try_consume_tokens(self, tokens: list[int]) -> int:
        """Advance by as many tokens as are allowed; returns how many."""
        return int(self._call("try_consume_tokens", tokens))

    def try_consume_bytes(self, text: bytes) -> int:
        """Advance by as many bytes as are allowed, where tokens are bytes; returns how many."""
        return int(self._call("try_consume_bytes", payload=text))

    def plain_json(self, text: bytes) -> bytes:
        """JSON, or the beginning of some, with few escapes; nothing if a key comes twice in it."""
        return self._process.call(self._handle, "plain_json", payload=text)[2]

    def canonical_json(self, text: bytes) -> bytes:
        """JSON as the grammar's schema writes it, or nothing if the text is no JSON value."""
        return self._process.call(self._handle, "canonical_json", payload=text)[2]

    def compute_ff_tokens(self) -> list[int]:
        """The tokens that are forced next."""
        known, self._forced = self._forced, None
        return known if known is not None else list(self._call("compute_ff_tokens"))

    def compute_bitmask(self) -> bytes:
        """The tokens that may come next, one bit each."""
        _, self._state, mask = self._process.call(self._handle, "compute_bitmask")
        return mask

    def is_error(self) -> bool:
        """True if the matcher can go no further."""
        return bool(self._state[0])

    def get_error(self) -> str:
        """Why it can go no further."""
        return str(self._state[0])

    def is_stopped(self) -> bool:
        """True if nothing but an end can follow."""
        return bool(self._state[1])

    def is_accepting(self) -> bool:
        """True if the text so far is a whole one."""
        return bool(self._state[2])

    def _call(self, method: str, argument: Any = None, payload: bytes = b"") -> Any:
        self._forced = None
        value, self._state, _ = self._process.call(self._handle, method, argument, payload)
        return value


class GrammarProcess:
    """One grammar's process, for all of its matchers. Thread-safe; it ends when nothing refers to it any more."""

    def __init__(
        self, server: _Server, pid: int, connection: socket.socket, what: str, owner: str, limits: GrammarLimits
    ):
        self.pid, self.what, self.owner = pid, what, owner
        self._limits, self._shared_bytes = limits, 0
        self.failure = ""
        self.is_lost = False
        """True if the process ended with the server, which says nothing of the grammar."""
        self.on_failure: Callable[[], object] = lambda: None
        """Called when a call of an answer fails."""
        self.handles = count(1)
        self.dropped: deque[int] = deque()
        """Matchers that nothing refers to any more, to be forgotten with the next call."""
        self.matchers: weakref.WeakSet[IsolatedMatcher] = weakref.WeakSet()
        self._server, self._connection = server, connection
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _leave, server, pid, connection)
        self._end.atexit = False

    def begin(self, most_s: float) -> list[Any]:
        """Wait until the grammar is compiled; returns the matcher's state. ConfigError if it cannot be."""
        reply, _ = self._exchange(None, most_s, f"takes more than {self._limits.compile_s:g} s to compile")
        if "invalid" in reply:
            raise ConfigError(reply["invalid"])
        if "failed" in reply:
            raise ConfigError(f"{self.what} cannot be compiled: {reply['failed'][:300]}")
        self._shared_bytes = int(reply["resident_bytes"])
        return list(reply["state"])

    def call(
        self, handle: int, method: str, argument: Any = None, payload: bytes = b""
    ) -> tuple[Any, list[Any], bytes]:
        """Returns a call's value, the matcher's state after it, and its bytes. ConfigError if the process has ended."""
        dropped = []
        with contextlib.suppress(IndexError):
            while True:
                dropped.append(self.dropped.popleft())
        call = {"handle": handle, "method": method, "argument": argument, "drop": dropped}
        too_slow = f"takes more than {self._limits.step_s:g} s for one {'text' if payload else 'token'}"
        try:
            reply, found = self._exchange(call, _STEP_WAIT_S, too_slow, payload)
        except ConfigError:
            self.on_failure()
            raise
        return reply["value"], reply["state"], found

    def kill(self) -> None:
        """End the process; a call that waits for it fails."""
        if self._end.alive:  # not reaped yet, so it is still this process
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    @property
    def num_bytes(self) -> int:
        """Memory of the process beyond what it shares with others, from above."""
        return _OVERHEAD_BYTES + max(memory_of(self.pid).resident - self._shared_bytes, 0)

    def _exchange(self, message: Json | None, most_s: float, too_slow: str, payload: bytes = b"") -> tuple[Json, bytes]:
        with self._lock:
            if self.failure:
                raise self._error()
            try:
                self._connection.settimeout(most_s)
                if message is not None:
                    send(self._connection, message, payload)
                return receive(self._connection)
            except TimeoutError:
                self.failure = f"{self.what} {too_slow}: make it simpler"
                self.kill()
            except (EOFError, OSError, ValueError):
                self.failure = self._reason(too_slow)
        raise self._error()

    def _error(self) -> FirsthandError:
        return TransientError(self.failure) if self.is_lost else ConfigError(self.failure)

    def _reason(self, too_slow: str) -> str:
        self._end.detach()
        self._connection.close()
        status = self._server.reap(self.pid)
        self.is_lost = self._server.is_gone
        if self.is_lost:
            return f"the process of {self.what} was ended from outside: try again"
        if status in (-signal.SIGPROF, -signal.SIGXCPU):
            return f"{self.what} {too_slow}: make it simpler"
        if status in (-signal.SIGSEGV, -signal.SIGBUS):
            return f"{self.what} is nested too deeply: make it simpler"
        return f"{self.what} needs more than {self._limits.memory_bytes >> 20} MiB of memory: make it simpler"


class GrammarProcesses:
    """Starts a process for each grammar that is not known to be cheap, at most `MAX_PROCESSES` together."""

    def __init__(self, tokenizer: Json | None = None, limits: GrammarLimits = DEFAULT_LIMITS):
        """`tokenizer` is `Tokenizer.settings()`; without one, tokens are bytes."""
        self._tokenizer, self._limits = tokenizer, limits
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self._slots = CompileSlots(_COMPILING)
        self._resting: dict[str, float] = {}
        """When owners whose grammars held up a step may compile again."""
        self._running: weakref.WeakSet[GrammarProcess] = weakref.WeakSet()

    def compile(
        self,
        grammar: Grammar,
        *,
        flexible: bool = False,
        forcing: bool = True,
        owner: str = "",
        free: Callable[[], bool] = lambda: False,
    ) -> IsolatedMatcher:
        """The matcher of a grammar. ConfigError if it is invalid or exceeds a limit, TransientError if too many others
        are being compiled or used; `free` gives up one that is not in use, and returns whether there was one."""
        what = f"the {grammar.kind} grammar"
        body = {
            **grammar.to_json(),
            **{"flexible": flexible, "forcing": forcing},
            **asdict(self._limits),
        }
        rest_s = self._resting.get(owner, 0.0) - time.monotonic()
        if rest_s > 0:
            raise TransientError(
                f"{what} was not compiled, because another one of yours held up everyone's answers: try again later",
                retry_after_s=rest_s,
            )
        self._resting.pop(owner, None)
        with self._slots.taken(owner, what, WAIT_S) as slot:
            process = self._start(body, what, owner, free)
            slot.end = process.kill
            process.on_failure = partial(self._rest, owner)
            try:
                return IsolatedMatcher(process, 0, process.begin(WAIT_S))
            except ConfigError:
                if slot.is_ended:
                    raise TransientError(
                        f"{what} was ended after {QUICK_S:g} s of compiling, because others wait: try again later, "
                        "or make it simpler"
                    ) from None
                raise

    def _rest(self, owner: str) -> None:
        self._resting[owner] = time.monotonic() + self._limits.rest_s

    def _start(self, body: Json, what: str, owner: str, free: Callable[[], bool]) -> GrammarProcess:
        with self._lock:
            while not self._has_room(owner):
                if not free() and not (gc.collect() and self._has_room(owner)):
                    raise TransientError(f"{what} waits for others that are in use, {MAX_PROCESSES} at most: try again")
            for _ in range(2):  # a server that was killed is started again
                if self._server is None or self._server.is_gone:
                    self._server = _Server(self._tokenizer)
                with contextlib.suppress(OSError, EOFError):
                    pid, connection = self._server.fork(body)
                    process = GrammarProcess(self._server, pid, connection, what, owner, self._limits)
                    self._running.add(process)
                    return process
        raise TransientError(f"{what} cannot be compiled now: no process can be started; try again")

    def _has_room(self, owner: str) -> bool:
        """True if one more process may start; one owner leaves a quarter of them to others."""
        running = [each.owner for each in self._running if not each.failure]
        return len(running) < MAX_PROCESSES and running.count(owner) < MAX_PROCESSES * 3 // 4


class _Server:
    """The process that forks those of grammars."""

    def __init__(self, tokenizer: Json | None):
        self.is_gone = False
        self.left: deque[int] = deque()
        """Processes that nothing refers to any more, to be reaped."""
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-X", "utf8", "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,
            )
        weakref.finalize(self, _close, self._control, self._process)
        self._control.settimeout(_START_S)
        try:
            send(self._control, {"tokenizer": tokenizer})
            problem = receive(self._control)[0]["problem"]
        except (EOFError, OSError) as error:
            raise TransientError(f"the process that compiles grammars did not start ({error}): try again") from None
        if problem:
            raise ConfigError(problem)

    def fork(self, body: Json) -> tuple[int, socket.socket]:
        """Returns the id of a new process and our end of its socket."""
        ours, theirs = socket.socketpair()
        try:
            with self._lock, theirs:
                self._reap_left()
                send(self._control, body)
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
                pid = int(receive(self._control)[0]["pid"])
        except (OSError, EOFError):
            self.is_gone = True
            ours.close()
            raise
        if pid < 0:
            ours.close()
            raise OSError("no process could be forked")
        return pid, ours

    def reap(self, pid: int) -> int:
        """Returns the exit status of a process that has ended; that of SIGKILL if the server is gone too."""
        try:
            with self._lock:
                send(self._control, {"reap": pid, "reply": True})
                return int(receive(self._control)[0]["status"])
        except (OSError, EOFError):
            self.is_gone = True
            return -signal.SIGKILL

    def _reap_left(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                send(self._control, {"reap": self.left.popleft(), "reply": False})


def _leave(server: _Server, pid: int, connection: socket.socket) -> None:
    """End a process that nothing refers to: called by the garbage collector, so it takes no lock."""
    connection.close()
    if not server.is_gone:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)  # the server has not reaped it, so it is still this process
        server.left.append(pid)


def _close(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.kill()
    process.wait()
