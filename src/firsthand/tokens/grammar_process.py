"""The processes in which grammars that are not known to be cheap are compiled and followed.

One server process loads llguidance and the vocabulary, and forks a process for each grammar, so that starting one takes
milliseconds. That process answers calls to its matchers over its own socket. The kernel ends it when it exceeds its
memory, or when one call exceeds its processor time: nothing else can stop llguidance. It ends by itself when its socket
is closed, and the server when its own is. Nothing here runs in the process that asked (`isolated_grammar.py`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_HEAD = struct.Struct("<II")
STACK_BYTES = 1 << 28
"""A deeper recursion ends the process."""
_FORKED_FDS = 1


def send(connection: socket.socket, body: dict[str, Any], payload: bytes = b"") -> None:
    """Send a message: JSON, and bytes."""
    text = json.dumps(body).encode()
    connection.sendall(_HEAD.pack(len(text), len(payload)) + text + payload)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Returns the next message. Raises EOFError if the other side is gone."""
    size, extra = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return json.loads(_exactly(connection, size)), _exactly(connection, extra)


def _exactly(connection: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        piece = connection.recv(min(size, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def serve(descriptor: int) -> None:
    """Load a vocabulary, then fork a process for each grammar that is asked for, until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    with contextlib.suppress(EOFError, OSError):
        body, _ = receive(control)
        vocab, problem = _vocabulary(body["tokenizer"])
        gc.collect()
        gc.freeze()  # a collection would write to every page, and so copy it, in each forked process
        send(control, {"problem": problem})
        while not problem:
            _serve_one(control, vocab)
    os._exit(0)


def _serve_one(control: socket.socket, vocab: Any) -> None:
    body, _ = receive(control)
    if "reap" in body:
        _, status = os.waitpid(body["reap"], 0)
        if body["reply"]:
            send(control, {"status": os.waitstatus_to_exitcode(status)})
        return
    _, descriptors, _, _ = socket.recv_fds(control, 1, _FORKED_FDS)
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid == 0:
        control.close()
        _run(descriptors[0], vocab, body, server)
    for each in descriptors:
        os.close(each)
    send(control, {"pid": pid})


def _vocabulary(tokenizer: dict[str, Any] | None) -> tuple[Any, str]:
    """Returns llguidance's view of a tokenizer, or why there is none."""
    from firsthand.errors import FirsthandError
    from firsthand.tokens import llguidance_grammar
    from firsthand.tokens.tokenizer import Tokenizer

    try:
        if tokenizer is None:
            return llguidance_grammar.byte_vocabulary(), ""
        return llguidance_grammar.vocabulary(Tokenizer(**tokenizer)), ""
    except (FirsthandError, ImportError) as error:
        return None, str(error)


def _run(descriptor: int, vocab: Any, body: dict[str, Any], server: int) -> NoReturn:
    """Compile one grammar, and answer calls to its matchers until the socket closes."""
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _die_with_parent(server)
        connection = socket.socket(fileno=descriptor)
        _serve_matchers(connection, vocab, body)
    except BaseException:  # the asking process sees that this one is gone
        os._exit(1)
    os._exit(0)


def _serve_matchers(connection: socket.socket, vocab: Any, body: dict[str, Any]) -> None:
    from firsthand.errors import ConfigError
    from firsthand.grammar import Grammar
    from firsthand.tokens import llguidance_grammar

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resident_bytes = memory_of("self").resident
    _limit_memory(
        memory_of("self").mapped + STACK_BYTES + body["memory_bytes"]
    )  # the stack stays mapped after its thread
    signal.setitimer(signal.ITIMER_PROF, body["compile_s"])
    made: list[Any] = []

    def build() -> None:
        grammar = Grammar.from_json(body)
        try:
            made.append(
                llguidance_grammar.matcher_of(grammar, vocab, flexible=body["flexible"], forcing=body["forcing"])
            )
        except BaseException as error:
            made.append(error)

    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    signal.setitimer(signal.ITIMER_PROF, 0)
    if isinstance(made[0], MemoryError):
        raise made[0]
    if isinstance(made[0], BaseException):
        is_ours = isinstance(made[0], ConfigError)
        send(connection, {"invalid" if is_ours else "failed": str(made[0])[:1000] or type(made[0]).__name__})
        return
    send(connection, {"state": _state(made[0]), "resident_bytes": resident_bytes})
    matchers = {0: made[0]}
    while True:
        try:
            call, text = receive(connection)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, body["step_s"])
        for handle in call["drop"]:
            matchers.pop(handle, None)
        if call["method"] in ("plain_json", "canonical_json"):
            schema = body["source"] if call["method"] == "canonical_json" else None
            reply, payload = {"value": None, "state": _state(made[0])}, _written(text, schema)
        else:
            reply, payload = _call(matchers, call, text)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(connection, reply, payload)


def _call(matchers: dict[int, Any], call: dict[str, Any], text: bytes = b"") -> tuple[dict[str, Any], bytes]:
    """Returns the reply to one call: its value, the matcher's state after it, and a mask as bytes."""
    matcher = matchers[call["handle"]]
    match call["method"]:
        case "deep_copy":
            matchers[call["argument"]] = matcher.deep_copy()
            return {"value": None, "state": _state(matcher)}, b""
        case "compute_bitmask":
            mask = bytes(matcher.compute_bitmask())
            return {"value": None, "state": _state(matcher)}, mask
        case "consume_token":  # what is forced after it is asked next, always
            is_taken = matcher.consume_token(call["argument"])
            forced = matcher.compute_ff_tokens() if is_taken else []
            return {"value": [is_taken, forced], "state": _state(matcher)}, b""
        case "consume_tokens" | "try_consume_tokens":
            return {"value": getattr(matcher, call["method"])(call["argument"]), "state": _state(matcher)}, b""
        case "try_consume_bytes":
            return {"value": matcher.try_consume_tokens(list(text)), "state": _state(matcher)}, b""
        case "compute_ff_tokens":
            return {"value": matcher.compute_ff_tokens(), "state": _state(matcher)}, b""
    raise AssertionError(call["method"])


def _written(text: bytes, schema: str | None) -> bytes:
    """Returns JSON with few escapes, or as a schema's grammar writes it; nothing if the text is no such value."""
    from firsthand.tokens.canonical_json import canonical_json, plain_json

    try:
        decoded = text.decode()
        return (plain_json(decoded) if schema is None else canonical_json(decoded, schema)).encode()
    except (ValueError, RecursionError):
        return b""


def _state(matcher: Any) -> list[Any]:
    """A matcher's error, and whether it is stopped and accepting."""
    is_error = matcher.is_error()
    return [matcher.get_error()[:2000] if is_error else "", matcher.is_stopped(), matcher.is_accepting()]


def _limit_memory(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS does not limit address space
        resource.setrlimit(resource.RLIMIT_AS, (size, hard))


class ProcessMemory(NamedTuple):
    """Bytes of a process."""

    mapped: int
    resident: int


def memory_of(process: int | str) -> ProcessMemory:
    """Returns the memory of a process; 0 where the kernel does not say."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()
        return ProcessMemory(*(int(each) * resource.getpagesize() for each in pages[:2]))
    except (OSError, ValueError, TypeError):
        return ProcessMemory(0, 0)


def _die_with_parent(parent: int) -> None:
    """Let the kernel end this process with its parent, on Linux; elsewhere it ends when its socket closes."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
