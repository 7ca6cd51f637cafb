"""The process of one grammar, step by step in this one: its limits and timers in order, each reply, and how it is forked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar
from firsthand.tokens import grammar_process, isolated_grammar, llguidance_grammar
from firsthand.tokens.grammar_process import STACK_BYTES, ProcessMemory, receive, send
from firsthand.tokens.isolated_grammar import GrammarLimits, GrammarProcesses

RESOURCE: Any = grammar_process.resource
LIMITS = {"compile_s": 7.5, "step_s": 0.25, "memory_bytes": 5000}
BODY = {"kind": "regex", "source": "ab+", "flexible": True, "forcing": False, **LIMITS}


class Exit(BaseException):
    """What `os._exit` would do."""


class Matcher:
    """A matcher that keeps what it is asked."""

    def __init__(self, name: str = "m", error: str = "") -> None:
        self.name, self.error, self.asked = name, error, list[Any]()

    def deep_copy(self) -> Matcher:
        return Matcher(self.name + "'")

    def compute_bitmask(self) -> bytearray:
        return bytearray(self.name.encode())

    def consume_token(self, token: int) -> bool:
        self.asked.append(token)
        return token > 0

    def consume_tokens(self, tokens: list[int]) -> bool:
        return len(tokens) == 2

    def try_consume_tokens(self, tokens: list[int]) -> int:
        return len(tokens) - 1

    def compute_ff_tokens(self) -> list[int]:
        self.asked.append("forced")
        return [4, 5]

    def is_error(self) -> bool:
        return bool(self.error)

    def get_error(self) -> str:
        return self.error or "no error to be read"

    def is_stopped(self) -> bool:
        return True

    def is_accepting(self) -> bool:
        return False


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the process would do to itself, in order; nothing of it is done."""
    done: list[Any] = []

    def kept(name: str, answer: Any = None) -> Any:
        def call(*given: Any) -> Any:
            done.append((name, *given))
            return answer

        return call

    def leave(code: int) -> None:
        done.append(("exit", code))
        raise Exit

    monkeypatch.setattr(RESOURCE, "setrlimit", kept("limit"))
    monkeypatch.setattr(RESOURCE, "getrlimit", lambda which: (1, RESOURCE.RLIM_INFINITY))
    monkeypatch.setattr(signal, "setitimer", kept("timer"))
    monkeypatch.setattr(signal, "signal", kept("signal"))
    monkeypatch.setattr(grammar_process, "memory_of", lambda which: ProcessMemory(1000, 300))
    monkeypatch.setattr(grammar_process.os, "_exit", leave)
    before = threading.stack_size()
    yield done
    threading.stack_size(before)


def served(monkeypatch: pytest.MonkeyPatch, made: Any, *calls: dict[str, Any]) -> list[Any]:
    """The replies of a grammar's process to these calls, whose matcher is made so; an error is raised."""
    ours, theirs = socket.socketpair()
    asked: list[Any] = []

    def build(grammar: Any, vocab: Any, **options: Any) -> Any:
        asked.append(
            (grammar.kind, grammar.source, vocab, options, threading.current_thread() is threading.main_thread())
        )
        if isinstance(made, BaseException):
            raise made
        return made

    monkeypatch.setattr(llguidance_grammar, "matcher_of", build)
    for call in calls:
        send(ours, call)
    ours.shutdown(socket.SHUT_WR)
    with ours, theirs:
        grammar_process._serve_matchers(theirs, "vocab", BODY)
        assert asked == [("regex", "ab+", "vocab", {"flexible": True, "forcing": False}, False)]
        theirs.shutdown(socket.SHUT_WR)
        replies = []
        while True:
            try:
                replies.append(receive(ours))
            except EOFError:
                return replies


def call(method: str, argument: Any = None, *, handle: int = 0, drop: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"handle": handle, "method": method, "argument": argument, "drop": list(drop)}


def test_a_grammar_is_compiled_and_followed_within_limits_of_its_own(
    monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    matcher = Matcher()
    replies = served(
        monkeypatch, matcher, call("consume_token", 3), call("consume_token", 0), call("deep_copy", 8),
        call("compute_bitmask", handle=8), call("compute_bitmask"), call("consume_tokens", [1, 2]),
        call("try_consume_tokens", [1, 2, 3], drop=(99, 8)), call("compute_ff_tokens"),
    )  # fmt: skip
    state = ["", True, False]
    assert replies == [
        ({"state": state, "resident_bytes": 300}, b""), ({"value": [True, [4, 5]], "state": state}, b""),
        ({"value": [False, []], "state": state}, b""), ({"value": None, "state": state}, b""),
        ({"value": None, "state": state}, b"m'"), ({"value": None, "state": state}, b"m"),
        ({"value": True, "state": state}, b""), ({"value": 2, "state": state}, b""),
        ({"value": [4, 5], "state": state}, b""),
    ]  # fmt: skip
    assert matcher.asked == [3, "forced", 0, "forced"], "nothing is forced after a token that is not allowed"
    infinity = RESOURCE.RLIM_INFINITY
    assert events == [
        ("limit", RESOURCE.RLIMIT_CORE, (0, 0)),
        ("limit", RESOURCE.RLIMIT_AS, (1000 + STACK_BYTES + 5000, infinity)),
        ("timer", signal.ITIMER_PROF, 7.5), ("timer", signal.ITIMER_PROF, 0),
        *[("timer", signal.ITIMER_PROF, 0.25), ("timer", signal.ITIMER_PROF, 0)] * 8,
    ]  # fmt: skip
    with pytest.raises(KeyError):
        served(monkeypatch, Matcher(), call("deep_copy", 8), call("compute_bitmask", handle=8, drop=(8,)))
    assert grammar_process._state(Matcher(error="e" * 2001)) == ["e" * 2000, True, False]
    assert grammar_process._state(Matcher()) == ["", True, False], "the error is read only where there is one"
    with pytest.raises(AssertionError, match=r"^jump$"):
        grammar_process._call({0: Matcher()}, call("jump"))


def test_a_grammar_that_cannot_be_compiled_is_told_once_and_memory_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    for error, told in (
        (ConfigError("no such rule"), {"invalid": "no such rule"}), (ValueError("x" * 1001), {"failed": "x" * 1000}),
        (ConfigError("y" * 1001), {"invalid": "y" * 1000}), (ValueError(), {"failed": "ValueError"}),
        (KeyboardInterrupt("stop"), {"failed": "stop"}),
    ):  # fmt: skip
        events.clear()
        assert served(monkeypatch, error, call("compute_ff_tokens")) == [(told, b"")]
        assert [event[1:] for event in events[2:]] == [(signal.ITIMER_PROF, 7.5), (signal.ITIMER_PROF, 0)]
    with pytest.raises(MemoryError, match=r"^no room$"):
        served(monkeypatch, MemoryError("no room"))
    for hard, size in ((400, 400), (600, 500), (RESOURCE.RLIM_INFINITY, 500)):
        events.clear()
        monkeypatch.setattr(RESOURCE, "getrlimit", lambda which, hard=hard: (9, hard))
        grammar_process._limit_memory(500)
        assert events == [("limit", RESOURCE.RLIMIT_AS, (size, hard))]


def test_a_forked_process_ends_with_one_where_anything_fails_and_with_nothing_else(
    monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    for error, code in ((None, 0), (MemoryError(), 1), (SystemExit(3), 1), (KeyError("x"), 1)):
        events.clear()
        ours, theirs = socket.socketpair()

        def matchers(connection: socket.socket, vocab: Any, body: Any, error: Any = error) -> None:
            events.append(("serves", connection.fileno(), vocab, body))
            connection.detach()
            if error is not None:
                raise error

        monkeypatch.setattr(grammar_process, "_serve_matchers", matchers)
        monkeypatch.setattr(grammar_process, "_die_with_parent", lambda parent: events.append(("with", parent)))
        with ours, theirs, pytest.raises(Exit):
            grammar_process._run(theirs.fileno(), "vocab", BODY, 41)
        assert events == [
            ("signal", signal.SIGPROF, signal.SIG_DFL), ("with", 41), ("serves", events[2][1], "vocab", BODY),
            ("exit", code),
        ]  # fmt: skip


def test_a_process_ends_at_once_where_its_parent_has_gone(monkeypatch: pytest.MonkeyPatch, events: list[Any]) -> None:
    import ctypes

    library = SimpleNamespace(prctl=lambda *given: events.append(("prctl", *given)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(grammar_process.os, "getppid", lambda: 41)
    monkeypatch.setattr(sys, "platform", "linux")
    grammar_process._die_with_parent(41)
    assert events == [("prctl", 1, signal.SIGKILL, 0, 0, 0)]
    with pytest.raises(Exit):
        grammar_process._die_with_parent(40)
    assert events[1:] == [("prctl", 1, signal.SIGKILL, 0, 0, 0), ("exit", 0)]
    monkeypatch.setattr(sys, "platform", "darwin")
    events.clear()
    grammar_process._die_with_parent(41)
    assert events == []


def test_a_server_forks_for_each_grammar_and_reaps_the_process_it_is_told(
    monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    ours, theirs = socket.socketpair()
    forks: list[Any] = [77, OSError("no more"), 0]

    def fork() -> int:
        pid = forks.pop(0)
        if isinstance(pid, OSError):
            raise pid
        return int(pid)

    def waited(pid: int, options: int) -> tuple[int, int]:
        events.append(("wait", pid, options))
        return pid, 9

    def run(descriptor: int, vocab: Any, body: Any, server: int) -> None:
        events.append(("run", os.fstat(descriptor).st_ino == os.fstat(mine.fileno()).st_ino, vocab, body, server))
        raise Exit

    monkeypatch.setattr(grammar_process.os, "fork", fork)
    monkeypatch.setattr(grammar_process.os, "waitpid", waited)
    monkeypatch.setattr(grammar_process, "_run", run)
    mine, other = socket.socketpair()
    with ours, theirs, mine, other:
        for pid in (77, -1):
            send(ours, BODY)
            socket.send_fds(ours, [b"\0"], [other.fileno()])
            grammar_process._serve_one(theirs, "vocab")
            assert receive(ours)[0] == {"pid": pid}
        other.close()
        mine.settimeout(5)
        assert mine.recv(1) == b"", "the server keeps no end of its own"
        for reply in (True, False):
            send(ours, {"reap": 55, "reply": reply})
            grammar_process._serve_one(theirs, "vocab")
        assert receive(ours)[0] == {"status": -9} and events == [("wait", 55, 0)] * 2
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        ours.setblocking(True)
        send(ours, BODY)
        socket.send_fds(ours, [b"\0"], [mine.fileno()])
        with pytest.raises(Exit):
            grammar_process._serve_one(theirs, "vocab")
        assert events[2:] == [("run", True, "vocab", BODY, os.getpid())] and theirs.fileno() == -1


@pytest.mark.parametrize("problem", ["", "no end"])
def test_a_server_loads_its_vocabulary_first_and_ends_with_its_socket(
    problem: str, monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    ours, theirs = socket.socketpair()

    def one(control: socket.socket, vocab: Any) -> None:
        events.append(("one", vocab))
        if len(events) > 5:
            raise EOFError

    monkeypatch.setattr(
        grammar_process, "_vocabulary", lambda asked: (events.append(("vocabulary", asked)), ("vocab", problem))[1]
    )
    monkeypatch.setattr(grammar_process.gc, "collect", lambda: events.append("collect"))
    monkeypatch.setattr(grammar_process.gc, "freeze", lambda: events.append("freeze"))
    monkeypatch.setattr(grammar_process, "_serve_one", one)
    with ours:
        send(ours, {"tokenizer": {"a": 1}})
        with pytest.raises(Exit):
            grammar_process.serve(theirs.detach())
        assert receive(ours)[0] == {"problem": problem}
    begun = [("signal", signal.SIGINT, signal.SIG_IGN), ("vocabulary", {"a": 1}), "collect", "freeze"]
    assert events == [*begun, *([] if problem else [("one", "vocab")] * 2), ("exit", 0)]


class Servers:
    """Servers in order, each with what its forks give: a reply to the first message, or an error."""

    def __init__(self, *forks: list[Any]) -> None:
        self.forks, self.made, self.bodies = list(forks), list[Any](), list[Any]()

    def __call__(self, tokenizer: Any) -> Any:
        forks = self.forks.pop(0)
        if isinstance(forks, Exception):
            raise forks
        server = SimpleNamespace(tokenizer=tokenizer, is_gone=False, left=[], reap=lambda pid: 1)
        self.made.append(server)

        def fork(body: Any) -> Any:
            self.bodies.append(body)
            reply = forks.pop(0)
            if isinstance(reply, Exception):
                server.is_gone = isinstance(reply, EOFError)
                raise reply
            ours, theirs = socket.socketpair()
            send(theirs, reply)
            server.theirs = theirs
            return 99_999_990 + len(self.bodies), ours

        server.fork = fork
        return server


COMPILED = {"state": ["", False, True], "resident_bytes": 5}


def test_a_grammar_is_compiled_by_a_server_that_is_started_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers([COMPILED, OSError("full"), COMPILED, EOFError()], [COMPILED], [])
    monkeypatch.setattr(isolated_grammar, "_Server", servers)
    limits = GrammarLimits(1.5, 0.5, 70, 9.0)
    processes = GrammarProcesses({"a": 1}, limits)
    found = processes.compile(Grammar("regex", "a+"), flexible=True, forcing=False, owner="me")
    body = {"kind": "regex", "source": "a+", "flexible": True, "forcing": False, "compile_s": 1.5, "step_s": 0.5,
            "memory_bytes": 70, "rest_s": 9.0}  # fmt: skip
    assert servers.bodies == [body] and servers.made[0].tokenizer == {"a": 1}
    process = found._process
    assert (process.pid, process.what, process.owner, process._limits) == (
        99_999_991,
        "the regex grammar",
        "me",
        limits,
    )
    assert (found._handle, found.is_accepting(), process._shared_bytes, processes._slots._running) == (0, True, 5, [])
    assert list(processes._running) == [process]
    again = processes.compile(Grammar("lark", 'start: "a"'))
    assert (
        servers.bodies[1:] == [{**body, "kind": "lark", "source": 'start: "a"', "flexible": False, "forcing": True}] * 2
    )
    assert again._process.owner == "" and len(servers.made) == 1, "one that could not fork now is asked again"
    third = processes.compile(Grammar("regex", "b"))
    assert (
        len(servers.made) == 2 and third._process._server is servers.made[1] and servers.bodies[3] == servers.bodies[4]
    )
    servers.made[1].is_gone = True
    servers.forks[:] = [[EOFError()], [OSError()]]
    with pytest.raises(TransientError) as error:
        processes.compile(Grammar("regex", "c"))
    assert str(error.value) == "the regex grammar cannot be compiled now: no process can be started; try again"
    assert len(servers.made) == 4 and processes._slots._running == [] == processes._slots._waiting
    servers.made[3].is_gone = True
    servers.forks[:] = [ConfigError("no end")]
    with pytest.raises(ConfigError, match=r"^no end$"):
        processes.compile(Grammar("regex", "c"))


def test_a_grammar_that_is_ended_for_others_may_be_tried_again_and_an_invalid_one_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = Servers([{"invalid": "bad"}, {"failed": "worse"}, {"invalid": "bad"}, COMPILED])
    monkeypatch.setattr(isolated_grammar, "_Server", servers)
    processes = GrammarProcesses(None, GrammarLimits(rest_s=30.0))
    for told in ("bad", "the regex grammar cannot be compiled: worse"):
        with pytest.raises(ConfigError) as error:
            processes.compile(Grammar("regex", "a"), owner="me")
        assert str(error.value) == told and processes._resting == {}
    taken = processes._slots.taken

    @contextlib.contextmanager
    def ended(owner: str, what: str, most_s: float) -> Iterator[Any]:
        with taken(owner, what, most_s) as slot:
            slot.is_ended = True
            yield slot

    processes._slots.taken = ended  # type: ignore[method-assign]
    with pytest.raises(TransientError) as other:
        processes.compile(Grammar("regex", "a"), owner="me")
    assert str(other.value) == (
        "the regex grammar was ended after 3 s of compiling, because others wait: try again later, or make it simpler"
    )
    matcher = processes.compile(Grammar("regex", "a"), owner="me")
    servers.made[0].theirs.close()
    with pytest.raises(ConfigError, match=r"^the regex grammar needs more than 256 MiB of memory: make it simpler$"):
        matcher.consume_token(3)
    assert list(processes._resting) == ["me"] and processes._running and matcher.failure
    with pytest.raises(
        TransientError, match=r"^the lark grammar was not compiled, because another one of yours held up"
    ):
        processes.compile(Grammar("lark", "x"), owner="me")
