"""The server of grammars and the processes that it forks, spoken to message by message."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llguidance", reason="needs llguidance: pip install 'firsthand[grammar]'")

from llguidance import LLMatcher

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar
from firsthand.tokens.compile_slots import HeldSlot
from firsthand.tokens.grammar_process import STACK_BYTES, _vocabulary, memory_of, receive, send
from firsthand.tokens.isolated_grammar import (
    MAX_PROCESSES,
    GrammarLimits,
    GrammarProcess,
    GrammarProcesses,
    IsolatedMatcher,
    _Server,
)
from firsthand.tokens.llguidance_grammar import _translated, byte_vocabulary, matcher_of
from forked_process import forked

ON_LINUX = sys.platform == "linux"


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYON_NUM_THREADS", "3")
        made = _Server(None)
    yield made
    made._control.close()
    made._process.wait(10)


def body(kind: str, source: str, **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "source": source, "flexible": False, "forcing": True, **asdict(GrammarLimits()), **changes}


class Forked:
    """A process of one grammar, at its socket."""

    def __init__(self, server: _Server, asked: dict[str, Any]) -> None:
        self.pid, self.connection = server.fork(asked)
        self.connection.settimeout(20)
        self.first = receive(self.connection)[0]

    def __call__(self, method: str, argument: Any = None, *, handle: int = 0, drop: tuple[int, ...] = ()) -> Any:
        send(self.connection, {"handle": handle, "method": method, "argument": argument, "drop": drop})
        reply, payload = receive(self.connection)
        assert set(reply) == {"value", "state"}
        return reply["value"], reply["state"], payload


def line_of(pid: int, name: str) -> list[str]:
    """The soft and the hard limit of a process."""
    (line,) = [each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if each.startswith(name)]
    return line[len(name) :].split()[:2]


@pytest.mark.slow
def test_a_grammars_process_answers_for_each_of_its_matchers_and_forgets_the_dropped(server: _Server) -> None:
    made = Forked(server, body("choice", '["abc", "abd", "x"]', memory_bytes=200 << 20))
    assert made.pid > 0 and made.first["state"] == ["", False, False]
    assert set(made.first) == {"state", "resident_bytes"}
    if ON_LINUX:
        mapped = memory_of(made.pid)
        assert 0 < made.first["resident_bytes"] <= mapped.resident
        assert line_of(made.pid, "Max core file size") == ["0", "0"]
        beyond = int(line_of(made.pid, "Max address space")[0]) - STACK_BYTES - (200 << 20)
        assert made.first["resident_bytes"] < beyond < mapped.mapped, "what was mapped before the stack was"
    letter = {each: ord(each) for each in "abcdxy"}
    assert made("compute_ff_tokens")[0] == []
    value, state, mask = made("compute_bitmask")
    allowed = [at for at in range(8 * len(mask)) if mask[at // 8] >> at % 8 & 1]
    assert (value, state, allowed) == (None, ["", False, False], [letter["a"], letter["x"]])
    assert made("consume_token", letter["a"]) == ([True, [letter["b"]]], ["", False, False], b"")
    assert made("deep_copy", 7) == (None, ["", False, False], b"")
    assert made("consume_tokens", [letter["b"], letter["c"]], handle=7)[0] is True
    assert made("compute_ff_tokens", handle=0)[0] == [letter["b"]], "the copy went on by itself"
    assert made("try_consume_tokens", [letter["b"], letter["d"], letter["y"]])[0] == 2
    assert made("deep_copy", 8, handle=7, drop=(0,))[1][2] is True, "the copy's text is whole"
    assert made("compute_bitmask", handle=8, drop=(99, 7))[1][2] is True, "an unknown one is dropped too"
    with pytest.raises(EOFError):
        made("compute_bitmask", handle=7)
    assert server.reap(made.pid) == 1 and not server.is_gone


def test_a_call_that_is_refused_forces_nothing_and_tells_the_error_in_the_state(server: _Server) -> None:
    made = Forked(server, body("choice", '["ab"]', forcing=False))
    assert made("compute_ff_tokens")[0] == [], "nothing is forced without forcing"
    value, state, _ = made("consume_token", ord("z"))
    assert value == [False, []] and state[0] != "" and state[1:] == [True, False]
    made.connection.close()
    assert server.reap(made.pid) == 0, "it ends with its socket"
    forced = Forked(server, body("choice", '["ab"]'))
    assert forced("compute_ff_tokens")[0] == [ord("a"), ord("b")]
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    text = list(b'{ "a" :1 }')
    assert forced.pid != made.pid
    strict, loose = (Forked(server, body("json_schema", schema, flexible=each)) for each in (False, True))
    assert strict("try_consume_tokens", text)[0] == 1 and loose("try_consume_tokens", text)[0] == len(text)
    for each in (forced, strict, loose):
        each.connection.close()
        assert server.reap(each.pid) == 0


def test_an_invalid_grammar_is_told_once_and_its_process_ends(server: _Server) -> None:
    made = Forked(server, body("regex", "("))
    assert list(made.first) == ["invalid"] and made.first["invalid"].startswith("the regex grammar cannot be used: ")
    with pytest.raises(EOFError):
        receive(made.connection)
    assert server.reap(made.pid) == 0
    unknown = Forked(server, body("regex", "a", memory_bytes=300 << 20))
    os.kill(unknown.pid, signal.SIGTERM)
    assert server.reap(unknown.pid) == -signal.SIGTERM


@pytest.mark.skipif(not ON_LINUX, reason="reads /proc")
def test_a_server_has_a_session_of_its_own_reads_nothing_and_reaps_what_was_left(server: _Server) -> None:
    pid = server._process.pid
    assert os.getsid(pid) == pid != os.getsid(0), "a Ctrl-C at the terminal is not for it"
    names = dict(each.split("=", 1) for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if each)
    wanted = {"MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    assert {name: names[name] for name in wanted} == wanted and names["PATH"] == os.environ["PATH"]
    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)} == {"/dev/null"}
    left = [Forked(server, body("choice", f'["{word}"]')) for word in ("a", "b")]
    for each in left:
        each.connection.close()
        server.left.append(each.pid)
    last = Forked(server, body("choice", '["c"]'))
    assert not server.left and not any(Path(f"/proc/{each.pid}").exists() for each in left)
    last.connection.close()
    assert server.reap(last.pid) == 0


class Slots:
    """Slots that are always free, and keep who held them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.slot = HeldSlot("")

    @contextlib.contextmanager
    def taken(self, owner: str, what: str, most_s: float) -> Iterator[HeldSlot]:
        self.asked.append((owner, what, most_s))
        self.slot = HeldSlot(owner)
        yield self.slot


def test_a_forked_process_that_exits_leaves_the_matchers_of_its_parent_alive(server: _Server) -> None:
    processes = GrammarProcesses(None, GrammarLimits())
    processes._server = server
    matcher = processes.compile(Grammar("choice", '["ab", "cd"]'), owner="me")
    end = matcher._process._end
    assert forked(lambda: end() if end.atexit else None) == (0, "", ""), "as an interpreter does when it exits"
    assert matcher.consume_token(ord("a")) and not matcher.is_lost and matcher.failure == ""


def test_grammars_are_compiled_by_a_new_server_where_theirs_is_gone(server: _Server) -> None:
    processes = GrammarProcesses(None, GrammarLimits(rest_s=50.0))
    processes._server = server
    slots = Slots()
    processes._slots = slots  # type: ignore[assignment]
    matcher = processes.compile(Grammar("choice", '["ab", "cd"]'), owner="me")
    assert (matcher._process.what, matcher._process.owner, matcher.num_copies) == ("the choice grammar", "me", 0)
    assert slots.asked == [("me", "the choice grammar", 20.0)] and slots.slot.end == matcher._process.kill
    assert matcher._process in processes._running and matcher._process._connection.gettimeout() == 20.0
    assert matcher.consume_token(ord("a")) and matcher._forced == [ord("b")]
    copy = matcher.deep_copy()
    assert (matcher.num_copies, copy._handle, copy._forced) == (1, 1, None) and copy._process is matcher._process
    assert matcher.compute_ff_tokens() == [ord("b")] and matcher._forced is None
    assert matcher.compute_ff_tokens() == [ord("b")], "asked of the process now"
    assert copy.consume_tokens([ord("b")]) and (copy.is_accepting(), matcher.is_accepting()) == (True, False)
    assert matcher.try_consume_tokens([ord("b"), ord("b")]) == 1 and matcher.is_accepting()
    assert (copy.is_error(), copy.get_error(), copy.failure, copy.is_lost) == (False, "", "", False)
    with pytest.raises(ConfigError, match="the regex grammar cannot be used"):
        processes.compile(Grammar("regex", "a(?=b)"), owner="me")
    before = time.monotonic()
    matcher._process.on_failure()
    assert before + 50 <= processes._resting["me"] <= time.monotonic() + 50
    with pytest.raises(TransientError) as told:
        processes.compile(Grammar("choice", '["ab"]'), owner="me")
    assert str(told.value) == (
        "the choice grammar was not compiled, because another one of yours held up everyone's answers: try again later"
    )
    assert told.value.retry_after_s is not None and 40 < told.value.retry_after_s <= 50
    assert processes._server is server
    slots.slot.is_ended = True
    processes._resting["me"] = time.monotonic() - 0.001
    assert processes.compile(Grammar("lark", 'start: "q"'), owner="me", forcing=False).compute_ff_tokens() == []
    assert processes._resting == {}, "a rest that is over is forgotten"


class Running:
    """A process, as far as the room for others is counted by it."""

    def __init__(self, owner: str) -> None:
        self.owner, self.failure = owner, ""


@pytest.mark.slow
def test_one_owner_leaves_a_quarter_of_the_processes_to_others() -> None:
    processes = GrammarProcesses()
    held = [Running("me") for _ in range(11)]
    for each in held:
        processes._running.add(each)  # type: ignore[arg-type]
    assert processes._has_room("me") and processes._has_room("you")
    held.append(Running("me"))
    processes._running.add(held[-1])  # type: ignore[arg-type]
    assert (processes._has_room("me"), processes._has_room("you")) == (False, True)
    more = [Running(f"{number}") for number in range(4)]
    for each in more:
        processes._running.add(each)  # type: ignore[arg-type]
    assert MAX_PROCESSES == 16 and not processes._has_room("you")
    asked: list[int] = []

    def free() -> bool:
        asked.append(1)
        return len(asked) < 3

    with pytest.raises(TransientError) as told:
        processes._start({}, "the lark grammar", "you", free)
    assert str(told.value) == "the lark grammar waits for others that are in use, 16 at most: try again"
    assert len(asked) == 3
    more[2].failure = "ended"
    assert (processes._has_room("you"), processes._has_room("me")) == (True, False)
    held[5].failure = "ended"
    assert processes._has_room("me")


class Ended:
    """A server that tells how a process ended."""

    def __init__(self, status: int, is_gone: bool = False) -> None:
        self.status, self.is_gone, self.left, self.reaped = status, is_gone, list[int](), list[int]()

    def reap(self, pid: int) -> int:
        self.reaped.append(pid)
        return self.status


NOBODY = 99_999_999
"""No process has this id."""


def process_of(status: int = 0, is_gone: bool = False) -> tuple[GrammarProcess, socket.socket, Ended]:
    ours, theirs = socket.socketpair()
    server = Ended(status, is_gone)
    limits = GrammarLimits(compile_s=2.5, step_s=0.25, memory_bytes=300 << 20)
    return GrammarProcess(server, NOBODY, ours, "the x grammar", "me", limits), theirs, server  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "gone", "error", "told"),
    [
        (-signal.SIGPROF, False, ConfigError, "the x grammar takes more than 0.25 s for one token: make it simpler"),
        (-signal.SIGXCPU, False, ConfigError, "the x grammar takes more than 0.25 s for one token: make it simpler"),
        (-signal.SIGSEGV, False, ConfigError, "the x grammar is nested too deeply: make it simpler"),
        (-signal.SIGBUS, False, ConfigError, "the x grammar is nested too deeply: make it simpler"),
        (1, False, ConfigError, "the x grammar needs more than 300 MiB of memory: make it simpler"),
        (-9, True, TransientError, "the process of the x grammar was ended from outside: try again"),
    ],
)
def test_a_process_that_ended_tells_why_by_its_status(status: int, gone: bool, error: type, told: str) -> None:
    process, theirs, server = process_of(status, gone)
    failed: list[int] = []
    process.on_failure = lambda: failed.append(1)
    theirs.close()
    for _ in range(2):
        with pytest.raises(error) as raised:
            process.call(0, "compute_bitmask")
        assert str(raised.value) == told == process.failure and process.is_lost is gone
    assert server.reaped == [NOBODY] and process._connection.fileno() == -1, "reaped once, and its socket closed"
    assert len(failed) == (0 if gone else 2), "a process that was lost says nothing of the grammar"


def test_the_beginning_of_a_process_gives_its_state_or_why_it_cannot_be_compiled() -> None:
    for reply, told in (
        ({"invalid": "no such rule"}, "no such rule"),
        ({"failed": "f" * 301}, f"the x grammar cannot be compiled: {'f' * 300}"),
    ):
        process, theirs, _ = process_of()
        send(theirs, reply)
        with pytest.raises(ConfigError) as raised:
            process.begin(5)
        assert str(raised.value) == told and process.failure == ""
    process, theirs, _ = process_of()
    send(theirs, {"state": ["", True, False], "resident_bytes": 12})
    assert process.begin(5) == ["", True, False] and process._shared_bytes == 12
    assert process.num_bytes == 4 << 20, "of a process that is gone only what each has for itself is counted"
    with pytest.raises(ConfigError, match=r"^the x grammar takes more than 2\.5 s to compile: make it simpler$"):
        process.begin(0.01)
    with pytest.raises(ConfigError, match=r"takes more than 2\.5 s to compile"):
        process.call(0, "compute_bitmask")


def test_a_call_carries_the_dropped_matchers_in_order_and_keeps_the_state_of_its_reply() -> None:
    process, theirs, server = process_of()
    process.dropped.extend([4, 2, 9])
    matcher = IsolatedMatcher(process, 6, ["bad", False, True])
    assert (matcher.is_error(), matcher.get_error(), matcher.is_stopped(), matcher.is_accepting()) == (
        True, "bad", False, True,
    )  # fmt: skip
    send(theirs, {"value": None, "state": ["", True, False]}, b"\x01\x80")
    assert matcher.compute_bitmask() == b"\x01\x80"
    assert receive(theirs)[0] == {"handle": 6, "method": "compute_bitmask", "argument": None, "drop": [4, 2, 9]}
    assert (matcher.is_error(), matcher.is_stopped(), matcher.is_accepting()) == (False, True, False)
    send(theirs, {"value": [True, [5]], "state": ["", False, False]})
    assert matcher.consume_token(3) is True and matcher._forced == [5]
    assert receive(theirs)[0] == {"handle": 6, "method": "consume_token", "argument": 3, "drop": []}
    send(theirs, {"value": [False, []], "state": ["no", True, False]})
    assert matcher.consume_token(4) is False and matcher._forced == [] and matcher.get_error() == "no"
    assert receive(theirs)[0]["argument"] == 4
    send(theirs, {"value": 1, "state": ["", False, True]})
    assert matcher.try_consume_tokens([1, 2]) == 1 and matcher._forced is None, "known of another place"
    assert receive(theirs)[0]["argument"] == [1, 2] and matcher.is_accepting()
    del matcher
    assert list(process.dropped) == [6]
    ours = process._connection
    del process
    assert server.left == [NOBODY] and ours.fileno() == -1


def test_messages_are_whole_whatever_pieces_they_come_in_and_a_closed_socket_ends_them() -> None:
    ours, theirs = socket.socketpair()
    send(ours, {"a": "é"}, b"xyz")
    raw = theirs.recv(1000)
    assert raw == b"\x0f\0\0\0\x03\0\0\0" + b'{"a": "\\u00e9"}' + b"xyz"
    for each in (raw[:5], raw[5:20], raw[20:], raw):
        ours.sendall(each)
    assert receive(theirs) == ({"a": "é"}, b"xyz") and receive(theirs) == ({"a": "é"}, b"xyz")
    ours.sendall(raw[:-1])
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    theirs.close()


def test_a_server_whose_control_is_gone_says_so_and_a_tokenizer_without_an_end_is_refused() -> None:
    server = _Server.__new__(_Server)
    ours, theirs = socket.socketpair()
    server._control, server._lock, server.left, server.is_gone = ours, threading.Lock(), deque([5]), False
    send(theirs, {"pid": -1})
    with pytest.raises(OSError, match=r"^no process could be forked$"):
        server.fork({"kind": "regex"})
    assert not server.is_gone and not server.left
    assert receive(theirs)[0] == {"reap": 5, "reply": False} and receive(theirs)[0] == {"kind": "regex"}
    _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
    for each in descriptors:
        os.close(each)
    send(theirs, {"status": 3})
    assert server.reap(8) == 3 and receive(theirs)[0] == {"reap": 8, "reply": True}
    theirs.close()
    with pytest.raises((OSError, EOFError)):
        server.fork({})
    assert server.is_gone
    server.is_gone = False
    assert server.reap(8) == -9 and server.is_gone
    with contextlib.suppress(OSError):
        ours.close()
    vocab = {chr(each): each - 97 for each in range(97, 100)}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    description = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "decoder": decoder}
    problem = "the model has no end-of-sequence token, so a grammar cannot end an answer"
    assert _vocabulary({"description": description}) == (None, problem)
    found, why = _vocabulary({"description": description, "eos_ids": [2]})
    assert (found.vocab_size, found.eos_token, why) == (3, 2, "")
    assert _vocabulary(None)[0].vocab_size >= 256 and _vocabulary(None)[1] == ""


def test_each_kind_of_grammar_is_translated_for_llguidance() -> None:
    def same(kind: Any, source: str, regex: str) -> bool:
        return json.loads(_translated(Grammar(kind, source), False)) == json.loads(LLMatcher.grammar_from_regex(regex))

    assert same("choice", '["a.b", "c|d"]', r"a\.b|c\|d") and same("regex", "a+", "a+")
    rule = 'start: "x"'
    assert _translated(Grammar("lark", rule), False) == LLMatcher.grammar_from_lark(rule)
    assert r"start: /\x{78}/" in _translated(Grammar("gbnf", 'root ::= "x"'), False)
    strict, loose = (_translated(Grammar("json_schema", '{"type": "null"}'), each) for each in (False, True))
    assert (
        '"lenient":false' in strict.replace(" ", "") and '"lenient":true' in loose.replace(" ", "") and strict != loose
    )
    for grammar, told in (
        (Grammar("choice", '["ab"]'), ""), (Grammar("regex", "("), "the regex grammar cannot be used: "),
        (Grammar("gbnf", "root ::= (("), "the gbnf grammar cannot be used: "),
    ):  # fmt: skip
        if told:
            with pytest.raises(ConfigError, match=f"^{told}"):
                matcher_of(grammar, byte_vocabulary())
        else:
            assert matcher_of(grammar, byte_vocabulary()).compute_ff_tokens() == [97, 98]
            assert matcher_of(grammar, byte_vocabulary(), forcing=False).compute_ff_tokens() == []
