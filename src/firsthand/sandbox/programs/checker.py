"""Runs tests against an answer inside the sandbox, in a process of their own. Standard library only; for `Sandbox.check`.

Two processes: the answer runs in one, the tests in the other, and only plain values go between them. So an answer cannot end
the tests early, change what they use, read what they expect, or return an object that claims to equal everything. The
tests' process imports from no folder that the answer can write to, has run the set-up before the answer's first statement,
and writes the caller's proof, a random text that no other process here has seen, after the last line of the tests. Only the
proof says that they passed; an exit status does not.

Under a name of the answer's the tests have what the answer has under it: a function that calls its function, an error class
for its own, a copy of its plain value, nothing if it defines none, and for anything else an object that raises TypeError
where it is used.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import json
import linecache
import operator
import os
import signal
import socket
import struct
import symtable
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from firsthand.sandbox.programs.passed_values import (
        SCALARS,
        Values,
        decode,
        no_iterator,
        parts_of,
        unusable,
        update,
    )
    from firsthand.sandbox.programs.told_errors import ErrorReader, ErrorTeller
else:  # in the sandbox
    from passed_values import SCALARS, Values, decode, no_iterator, parts_of, unusable, update
    from told_errors import ErrorReader, ErrorTeller

_LENGTH = struct.Struct("!I")
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_MOVE, _SCOPE_SIGNAL = 1 << 13, 1 << 1
_ABSENT = object()
_ERRORS = ErrorTeller()
_ONE_BY_ONE, _MOST_AT_ONCE, _BATCH_S = 100, 1 << 16, 0.001
"""So many items of an iterator that an answer returns are computed as they are read, later ones in batches that grow, and
that end after so many seconds of its work: it may have no end."""
_LOOKS, _LOOKS_AN_ITEM = 4_000_000, 32
"""What may be spent, by `Values.cost`, on looking after each item for what became of the arguments and earlier items; later
it is done after several items."""


def main() -> None:
    """Fork the answer's process before the tests are read, run the set-up, let the answer load, then run the tests."""
    with open("answer.py", encoding="utf-8") as file:
        answer = file.read()
    ours, theirs = socket.socketpair()
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # not dumpable: the answer, of the same user, must not look in here
    sys.set_int_max_str_digits(0)
    # A KeyboardInterrupt that the answer causes could be caught by what the tests call, which then would go on wrong.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        keep_signals_within()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):  # what an answer prints is no part of the verdict, and must not flood it
            os.dup2(null, fd)
        ours.close()
        sys.path.insert(0, os.getcwd())
        serve(theirs, answer)
    theirs.close()
    # Programs that the tests start import nothing from this folder either, nor from what an answer wrote below `~`.
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "HOME": "/nonexistent"}
    given = json.load(sys.stdin)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    hidden = set(given["names"]) & set(vars(builtins))
    if hidden:
        namespace["__builtins__"] = dict(vars(builtins))
    exec(compile(given["setup"], "<setup>", "exec"), namespace)
    for name in hidden:  # Python's `sum` is no answer, where the answer has none
        del namespace["__builtins__"][name]
    remote = AnswerProcess(ours)
    send(ours, {})  # the answer may load now
    with ends_within(given.get("load_s")):
        remote.expect("the answer did not load")
    names = free_names(given["tests"], namespace) | set(given["names"])
    with ends_within(given.get("load_s")):
        remote.fill(namespace, names)
    lines = given["tests"].splitlines(keepends=True)
    linecache.cache["<tests>"] = (len(given["tests"]), None, lines, "<tests>")
    try:
        exec(compile(given["tests"], "<tests>", "exec"), namespace)
    except SystemExit:
        raise RuntimeError("the tests ended the process before their last line") from None
    sys.stdout.flush()
    os.write(1, given["proof"].encode())


def keep_signals_within() -> None:
    """From here on this process and its children signal each other alone, so that none stops or ends the tests' process.

    By Landlock's scopes. Before Linux 6.12, or where Landlock is off, nothing is done.
    """
    libc = ctypes.CDLL(None)

    def call(name: int, *values: int | bytes) -> int:
        words = [ctypes.c_long(each) if isinstance(each, int) else each for each in values]
        return int(libc.syscall(ctypes.c_long(name), *words))

    ruleset = call(_CREATE_RULESET, struct.pack("=QQQ", _MOVE, 0, _SCOPE_SIGNAL), 24, 0)
    if ruleset < 0:
        return
    root = os.open("/", os.O_PATH)  # any rule set forbids to move files between folders, unless it allows it
    call(_ADD_RULE, ruleset, 1, struct.pack("=Qi", _MOVE, root), 0)
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges, without which Landlock refuses
    call(_RESTRICT_SELF, ruleset, 0)
    os.close(root)
    os.close(ruleset)


@contextmanager
def ends_within(load_s: float | None) -> Iterator[None]:
    """Raise TimeoutError if the answer takes longer to load; the signal has a handler for this time alone."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the answer did not load within {load_s:g} s")

    if load_s is None:
        yield
        return
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, load_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def free_names(tests: str, namespace: dict[str, Any]) -> set[str]:
    """The names that the tests use and neither they, nor the setup, nor Python define: those of the answer.

    A local variable, argument or attribute of a class in the tests defines nothing outside of where it stands.
    """
    used, defined = set(), walrus_names(ast.parse(tests))
    scopes = [symtable.symtable(tests, "<tests>", "exec")]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        kind = scope.get_type()
        for symbol in scope.get_symbols():
            name, binds = symbol.get_name(), symbol.is_assigned() or symbol.is_imported()
            if symbol.is_referenced() and (symbol.is_global() or kind in ("module", "class")):
                used.add(name)
            if binds and (kind == "module" or symbol.is_declared_global()):
                defined.add(name)
    return used - defined - set(vars(builtins)) - set(namespace)


def walrus_names(module: ast.Module) -> set[str]:
    """The names that `:=` binds outside of functions and classes: since Python 3.13 a symbol table does not say so of those
    in a comprehension."""
    found, waiting = set(), list[ast.AST]([module])
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.NamedExpr):
            found.add(node.target.id)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


class AnswerProcess:
    """The answer's process, seen from the tests."""

    def __init__(self, link: socket.socket):
        self.link = link
        self.names: list[str] = []
        self.namespace: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.errors = ErrorReader()

    def fill(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        """Put what the answer has under these names into the tests' namespace, now and after each call of a function."""
        self.names, self.namespace, self.found = sorted(names), namespace, {}
        for name in self.names:
            namespace.pop(name, None)
        if self.names:
            send(self.link, {"names": self.names})
            self.expect("the answer's names")

    def take(self, states: dict[str, Any]) -> None:
        """Bring the names up to date, but for those that the tests have given another value."""
        for name in self.names:
            if name not in states:
                continue
            before = self.found.get(name, _ABSENT)
            after = self.found[name] = self.value(name, states[name], before)
            if self.namespace.get(name, _ABSENT) is not before:
                continue
            if after is _ABSENT:
                self.namespace.pop(name, None)
            else:
                self.namespace[name] = after

    def value(self, name: str, state: Any, before: Any) -> Any:
        """What the tests have for a state that `Names.changed` gave; `before` is what they had."""
        kind, body = state
        if kind == "missing":
            return _ABSENT
        if kind == "function":
            return self.function(name)
        if kind == "error":
            return self.errors.kind(body)
        if kind == "same":
            return self.found[body]
        if kind == "other":
            return unusable(f"the answer's {name!r}: {body}")
        value = decode(body)
        if kind == "content" and type(value) is type(before) and isinstance(value, list | dict | set):
            update(before, value)
            return before
        return value

    def function(self, name: str) -> Callable[..., Any]:
        """A function that calls the answer's of that name, and does to its arguments what that one does to its copies."""

        def call(*args: Any, **kwargs: Any) -> Any:
            values = Values(reader=self.stream)
            send(self.link, {"name": name, "args": values.encode(args), "kwargs": values.encode(kwargs)})
            body = self.message(name)
            values.apply(body)
            self.raise_error(body)
            return values.decode(body["value"])

        return call

    def stream(self, number: int, forked: Callable[[], Values]) -> Iterator[Any]:
        """The items of an iterator that the answer returned, which it computes as they are read."""
        values = forked()
        while True:
            send(self.link, {"next": number})
            body = self.message("the answer's iterator")
            waiting = body.get("items", [])  # none if it ended its process
            for place, each in enumerate(waiting, start=1):
                item = values.decode(each)
                if place == len(waiting):
                    values.apply(body)
                if (yield item) is not None:
                    raise TypeError("send: nothing is passed to an iterator of the answer's")
            if not waiting:
                values.apply(body)
            self.raise_error(body)
            if body["done"]:
                return

    def expect(self, what: str) -> dict[str, Any]:
        """The answer's next message; its error is raised here."""
        body = self.message(what)
        self.raise_error(body)
        return body

    def raise_error(self, body: dict[str, Any]) -> None:
        """Raise the error that a message of the answer's tells of."""
        if "error" in body:
            raise self.errors.error(body["error"])

    def message(self, what: str) -> dict[str, Any]:
        """The answer's next message, which may tell of an error; the names are brought up to date."""
        body = receive(self.link)
        if body is None:
            raise RuntimeError(f"{what}: the answer's process ended")
        self.take(body.get("names", {}))
        return body


def serve(link: socket.socket, answer: str) -> NoReturn:
    """Load the answer when told to and call its functions as asked. Nothing here is trusted."""
    receive(link)
    module = types.ModuleType("answer")  # a block `if __name__ == "__main__"` is not for the tests to run
    sys.modules["__main__"] = sys.modules["answer"] = module
    try:
        exec(compile(answer, "answer.py", "exec", dont_inherit=True), module.__dict__)
        send(link, {})
        names, streams = Names(module), Streams()
        while (asked := receive(link)) is not None:
            if "names" in asked:
                names.asked = asked["names"]
                send(link, names.changed())
                continue
            if "next" in asked:
                send(link, streams.read(asked["next"], names))
            else:
                send(link, answered(module, asked, streams) | names.changed())
    except BaseException as error:
        send(link, {"error": _ERRORS.told(error)})
    os._exit(0)


def answered(module: types.ModuleType, asked: dict[str, Any], streams: Streams) -> dict[str, Any]:
    """Call the answer's function; what it gave or raised, with what its arguments hold now, as a message."""
    values = Values(iterator=streams.add)
    body: dict[str, Any] = {}
    try:
        args, kwargs = values.decode(asked["args"]), values.decode(asked["kwargs"])
        values.mark()
        try:
            given = getattr(module, asked["name"])(*args, **kwargs)
        except Exception as error:
            body["error"] = _ERRORS.told(error)
        body |= values.changes()
        if "error" not in body:
            body["value"] = values.encode(given)
    except Exception as error:
        body["error"] = _ERRORS.told(error)
    return body


class Stream:
    """An iterator that one of the answer's functions returned."""

    def __init__(self, iterator: Iterator[Any], forked: Callable[[], Values]):
        self.iterator, self.forked = iterator, forked
        self.values: Values | None = None
        self.num_read = 0
        self.may_spend = _LOOKS
        self.is_done = False

    def read(self) -> dict[str, Any]:
        """The next items, and what the arguments of its call and earlier items hold now, as a message."""
        is_first = self.values is None
        values = self.values = self.values or self.forked()  # only now: a list may hold thousands of iterators
        body: dict[str, Any] = {"items": []}
        try:
            self.next_items(values, body["items"])
        except Exception as error:
            self.is_done = True
            body["error"] = _ERRORS.told(error)
        self.num_read += len(body["items"])
        self.may_spend += _LOOKS_AN_ITEM * len(body["items"])
        try:
            if is_first or self.is_done or values.cost() <= self.may_spend:
                self.may_spend -= values.cost()
                body |= values.changes()
        except Exception as error:
            self.is_done = True
            body["error"] = _ERRORS.told(error)
        return body | {"done": self.is_done}

    def next_items(self, values: Values, items: list[Any]) -> None:
        """Add the next items, one or a batch, as JSON."""
        end_s = time.process_time() + _BATCH_S
        for _ in range(1 if self.num_read < _ONE_BY_ONE else min(self.num_read, _MOST_AT_ONCE)):
            try:
                item = next(self.iterator)
            except StopIteration:
                self.is_done = True
                break
            items.append(values.encode_anew(item))
            if time.process_time() > end_s:
                break

    def slow_down(self) -> None:
        """Compute the next items one by one: the tests may look, between two of them, at what they change."""
        self.num_read = 0


class Streams:
    """The iterators that the answer's functions returned and that are not at their end, by number."""

    def __init__(self) -> None:
        self.open: dict[int, Stream] = {}
        self.num_added = 0

    def add(self, iterator: Iterator[Any], values: Values) -> Any:
        """Keep an iterator; what stands for it in a message."""
        self.num_added += 1
        self.open[self.num_added] = Stream(iterator, partial(values.fork, len(values.objects)))
        return {"stream": self.num_added}

    def read(self, number: int, names: Names) -> dict[str, Any]:
        """The next items of an iterator and the names that they changed, as a message."""
        stream = self.open[number]
        body = stream.read()
        body |= names.changed()
        if "changes" in body or "names" in body:
            stream.slow_down()
        if stream.is_done:
            del self.open[number]
        return body


class Names:
    """What the answer's module has under the names that the tests use."""

    def __init__(self, module: types.ModuleType):
        self.module = module
        self.asked: list[str] = []
        self.told: dict[str, tuple[Any, str, list[Any] | None]] = {}
        """Each name's value when the tests were told of it, its state as JSON, and what it held then if that is flat."""

    def changed(self) -> dict[str, Any]:
        """The states of the names that are new or hold something else than last time, as a part of a message."""
        states: dict[str, Any] = {}
        seen: list[tuple[str, Any]] = []
        for name in self.asked:
            value = vars(self.module).get(name, _ABSENT)
            before, told, parts = self.told.get(name, (None, "", None))
            aliased = any(other is value for _, other in seen)
            if before is value and parts is not None and not aliased and told.startswith('["value"'):
                held = parts_of(value)
                if len(held) == len(parts) and all(map(operator.is_, held, parts)):
                    seen.append((name, value))
                    continue  # told already: a large table is not written again for each call
            kind, body = described(value, seen)
            seen.append((name, value))
            text = json.dumps([kind, body])
            if told != text or before is not value:
                states[name] = ["content" if kind == "value" and before is value else kind, body]
            self.told[name] = value, text, flat_parts(value)
        return {"names": states} if states else {}


def flat_parts(value: Any) -> list[Any] | None:
    """What a list, set or dict holds now, or nothing for a scalar; None for others, and if a part could change."""
    if type(value) not in SCALARS and type(value) not in (list, set, dict):
        return None
    parts = parts_of(value)
    return parts if SCALARS.issuperset(map(type, parts)) else None


def described(value: Any, seen: list[tuple[str, Any]]) -> tuple[str, Any]:
    """Tell what a name holds: nothing, an error class, a function, the object of a name seen before it, a value, or another.

    An iterator is another: to read it here would take from the answer's functions what they have not read, without end if
    it has none.
    """
    if value is _ABSENT:
        return "missing", None
    if isinstance(value, type) and issubclass(value, Exception):
        return "error", _ERRORS.described(value)
    if callable(value):
        return "function", None
    for name, other in seen:
        if other is value:
            return "same", name
    try:
        return "value", Values(iterator=no_iterator).encode(value)
    except Exception as error:
        return "other", str(error)[:500]


def send(link: socket.socket, body: dict[str, Any]) -> None:
    """Write one message."""
    raw = json.dumps(body).encode()
    link.sendall(_LENGTH.pack(len(raw)) + raw)


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The next message, or None if the other side has gone."""
    header = exactly(link, _LENGTH.size)
    body = None if header is None else exactly(link, _LENGTH.unpack(header)[0])
    return None if body is None else json.loads(body)


def exactly(link: socket.socket, count: int) -> bytes | None:
    """Reads `count` bytes, or None if the other side is gone."""
    received = bytearray()
    while len(received) < count:
        try:
            chunk = link.recv(count - len(received))
        except ConnectionError:
            return None
        if not chunk:
            return None
        received += chunk
    return bytes(received)


if __name__ == "__main__":
    main()
