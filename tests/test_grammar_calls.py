"""Calls to a matcher in another process, with both ends of the socket in this one: values, states, drops and failures."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import regex
from firsthand.tokens.grammar_process import _call, _state, memory_of, receive, send
from firsthand.tokens.isolated_grammar import GrammarLimits, GrammarProcess, IsolatedMatcher
from firsthand.tokens.llguidance_grammar import byte_vocabulary, matcher_of


class Server:
    """Stands for the server of processes: `status` is what a process ended with."""

    status, is_gone = 0, False

    def __init__(self) -> None:
        self.reaped: list[int] = []
        self.left: list[int] = []

    def reap(self, pid: int) -> int:
        self.reaped.append(pid)
        return self.status


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def process_of(sleeper: subprocess.Popen[bytes], **limits: Any) -> tuple[GrammarProcess, socket.socket, Any]:
    here, there = socket.socketpair()
    server: Any = Server()
    return GrammarProcess(server, sleeper.pid, here, "the regex grammar", "me", GrammarLimits(**limits)), there, server


def test_messages_are_json_and_bytes_of_any_size():
    here, there = socket.socketpair()
    payload = bytes(range(256)) * 9000
    threading.Thread(target=send, args=(here, {"a": "é"}, payload)).start()
    assert receive(there) == ({"a": "é"}, payload)
    send(here, {})
    here.close()
    assert receive(there) == ({}, b"")
    with pytest.raises(EOFError):
        receive(there)
    there.close()


def test_a_matcher_s_calls_are_carried_out_with_its_state():
    first = matcher_of(regex("ab+"), byte_vocabulary())
    matchers: dict[int, Any] = {0: first}

    def call(method: str, argument: Any = None, handle: int = 0) -> Any:
        return _call(matchers, {"handle": handle, "method": method, "argument": argument})

    assert _state(first) == ["", False, False]
    assert call("deep_copy", 7) == ({"value": None, "state": ["", False, False]}, b"") and set(matchers) == {0, 7}
    reply, mask = call("compute_bitmask")
    allowed = [bit for bit in range(256) if mask[bit // 8] >> bit % 8 & 1]
    assert reply == {"value": None, "state": ["", False, False]} and allowed == [ord("a")]
    assert call("compute_ff_tokens")[0]["value"] == list(b"ab")
    assert call("consume_token", ord("a"))[0] == {"value": [True, list(b"b")], "state": ["", False, False]}
    assert call("try_consume_tokens", list(b"bbc"))[0] == {"value": 2, "state": ["", False, True]}
    assert (
        call("consume_tokens", list(b"b"))[0]["value"] is True
        and call("consume_tokens", list(b"ab"), 7)[0]["value"] is True
    )
    found, _ = call("consume_token", ord("x"))
    assert found["value"] == [False, []] and found["state"][0]
    with pytest.raises(AssertionError, match="nothing"):
        call("nothing")


@pytest.mark.slow
def test_a_matcher_elsewhere_keeps_its_state_and_what_is_forced(sleeper: subprocess.Popen[bytes]):
    process, there, server = process_of(sleeper)
    asked: list[Any] = []

    def answer() -> None:
        replies: list[Any] = [
            ({"value": [True, [5, 6]], "state": ["", False, False]}, b""), ({"value": [9], "state": ["", False, True]}, b""),
            ({"value": None, "state": ["", True, True]}, b"mask"), ({"value": None, "state": ["", False, False]}, b""),
            ({"value": True, "state": ["", False, False]}, b""), ({"value": 3, "state": ["bad", True, False]}, b""),
        ]  # fmt: skip
        send(there, {"resident_bytes": 1000, "state": ["", False, False]})
        for reply in replies:
            asked.append(receive(there)[0])
            send(there, *reply)

    thread = threading.Thread(target=answer)
    thread.start()
    matcher = IsolatedMatcher(process, 0, process.begin(5))
    assert matcher.consume_token(4) is True and matcher.compute_ff_tokens() == [5, 6] and len(asked) == 1
    assert matcher.compute_ff_tokens() == [9] and matcher.is_accepting() and not matcher.is_stopped()
    assert matcher.compute_bitmask() == b"mask" and matcher.is_stopped() and not matcher.is_error()
    copy = matcher.deep_copy()
    assert (matcher.num_copies, copy.is_accepting(), asked[-1]["argument"]) == (1, False, 1)
    assert matcher.consume_tokens([1, 2]) is True
    del copy
    gc.collect()
    assert matcher.try_consume_tokens([1]) == 3 and matcher.is_error() and matcher.get_error() == "bad"
    thread.join(10)
    assert [(call["handle"], call["method"], call["argument"]) for call in asked] == [
        (0, "consume_token", 4), (0, "compute_ff_tokens", None), (0, "compute_bitmask", None), (0, "deep_copy", 1),
        (0, "consume_tokens", [1, 2]), (0, "try_consume_tokens", [1]),
    ]  # fmt: skip
    assert [call["drop"] for call in asked] == [[]] * 5 + [[1]] and matcher.num_copies == 0
    assert process.num_bytes > 0 and matcher.failure == "" and not matcher.is_lost
    there.close()
    del matcher, process
    gc.collect()
    assert server.left == [sleeper.pid] and sleeper.wait(10) == -signal.SIGKILL, "it ends with what refers to it"


@pytest.mark.parametrize(
    ("status", "is_gone", "said"),
    [
        (-signal.SIGPROF, False, "the regex grammar takes more than 0.25 s for one token: make it simpler"),
        (-signal.SIGXCPU, False, "the regex grammar takes more than 0.25 s for one token: make it simpler"),
        (-signal.SIGSEGV, False, "the regex grammar is nested too deeply: make it simpler"),
        (-signal.SIGBUS, False, "the regex grammar is nested too deeply: make it simpler"),
        (1, False, "the regex grammar needs more than 3 MiB of memory: make it simpler"),
        (-signal.SIGSEGV, True, "the process of the regex grammar was ended from outside: try again"),
    ],
)
def test_how_a_process_ended_says_what_was_wrong(
    sleeper: subprocess.Popen[bytes], status: int, is_gone: bool, said: str
):
    process, there, server = process_of(sleeper, step_s=0.25, memory_bytes=3 << 20)
    server.status, server.is_gone = status, is_gone
    failed: list[int] = []
    process.on_failure = lambda: failed.append(1)
    there.close()
    for _ in range(2):
        with pytest.raises(TransientError if is_gone else ConfigError) as found:
            process.call(0, "compute_ff_tokens")
        assert str(found.value) == said == process.failure
    assert server.reaped == [sleeper.pid] and process.is_lost is is_gone and len(failed) == (0 if is_gone else 2)


def test_a_grammar_that_is_invalid_or_too_slow_is_told(sleeper: subprocess.Popen[bytes]):
    for reply, said in (
        ({"invalid": "it is wrong"}, "it is wrong"), ({"failed": "x" * 400},
        f"the regex grammar cannot be compiled: {'x' * 300}"),
    ):  # fmt: skip
        process, there, _ = process_of(sleeper)
        send(there, reply)
        with pytest.raises(ConfigError) as found:
            process.begin(5)
        assert str(found.value) == said
        process._end.detach()
        there.close()
    process, there, _ = process_of(sleeper, compile_s=2.5)
    with pytest.raises(ConfigError, match=r"^the regex grammar takes more than 2\.5 s to compile: make it simpler$"):
        process.begin(0.01)
    assert sleeper.wait(10) == -signal.SIGKILL
    process._end.detach()
    there.close()


def test_memory_of_a_process_is_mapped_and_resident():
    own = memory_of("self")
    assert own.mapped > own.resident > 1 << 20 and memory_of(2**22 + 1) == (0, 0)
    assert GrammarLimits() == GrammarLimits(10.0, 0.5, 256 << 20, 10.0)
