"""Records one's own functions as spans: the decorator `traced`, nested, for functions, generators and coroutines.

    from firsthand import trace_to, traced

    trace_to("http://127.0.0.1:4318")      # any OTLP address, or the folder of a run
    @traced
    def answer(question): ...

A call inside a call is a span below it; an error is recorded and raised on; a sampled-out root records nothing below
it. Spans of OpenTelemetry that begin inside become children, and the span that is open around a root becomes its
parent. What cannot be sent is dropped and counted: a program never waits for its traces.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import random
import secrets
import sys
import time
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import CUT, IncomingSpan
from firsthand.ingest.otlp_environment import resource_attributes, traces_address
from firsthand.ingest.recorded_streams import is_stream, recorded_stream
from firsthand.ingest.recorded_values import MAX_VALUE_CHARS, GivenItems, shown_arguments, shown_value
from firsthand.ingest.span_sender import OtlpSender, RunRecorder, SpanSink
from firsthand.message import Json
from firsthand.system import trace_context
from firsthand.system.trace_context import TraceParent

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["chain", "agent", "tool", "llm", "retriever", "embedding", "guardrail", "evaluator"]


@dataclass
class ActiveSpan:
    """A span that is being recorded."""

    span: IncomingSpan
    is_sampled: bool
    sink: SpanSink | None
    attributes: Json = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = self.span.attributes

    def set(self, **attributes: Any) -> None:
        """Add attributes, with `__` for a dot: `session__id="42"` is `session.id`."""
        for name, value in attributes.items():
            name = name.replace("__", ".")
            if isinstance(value, str | int | float | bool):
                self.attributes[name] = value
            else:
                self.keep(name, shown_value(value).text)

    def keep(self, name: str, text: str, *, is_told: bool = True) -> None:
        """Add a text, cut to MAX_VALUE_CHARS; CUT names those that were, and those that do not tell what was given."""
        cut = [each for each in str(self.attributes.pop(CUT, "")).split() if each != name]
        cut += [name] if len(text) > MAX_VALUE_CHARS or not is_told else []
        self.attributes[name] = text[:MAX_VALUE_CHARS]
        if cut:
            self.attributes[CUT] = " ".join(cut)


@dataclass
class _Destination:
    sink: SpanSink | None = None
    is_set: bool = False
    share: float = 1.0


_current: ContextVar[ActiveSpan | None] = ContextVar("firsthand_span", default=None)
_destination = _Destination()


def trace_to(
    target: str | Path | None, *, share: float = 1.0, service: str = "", headers: dict[str, str] | None = None
) -> None:
    """Send the spans of `traced` functions to an OTLP address or the folder of a run; None sends none.

    Args:
        target: `http://host:port`, to which `/v1/traces` is added where it has no path, or a folder. Without a call of this
            function, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names the address, or `OTEL_EXPORTER_OTLP_ENDPOINT` the one to
            which `/v1/traces` is added.
        share: The share of root calls that are recorded, 0 to 1; calls below a root go with it.
        service: The name of the program; `OTEL_SERVICE_NAME`, `service.name` of `OTEL_RESOURCE_ATTRIBUTES`, or the script's.
        headers: Headers of each request, such as a key.

    Raises:
        ConfigError: The address is none, or the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}: give a share of the calls from 0 to 1")
    flush_traces()
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-", "-c") else "python"
    name = service or resource_attributes(os.environ).get("service.name") or script
    _destination.share, _destination.is_set = share, True
    if target is None:
        _destination.sink = None
    elif isinstance(target, str) and target.startswith(("http://", "https://")):
        _destination.sink = OtlpSender(target, name, headers or {})
    elif isinstance(target, str) and "://" in target:
        raise ConfigError(f"trace_to was given {target!r}: give an address http(s)://..., or a folder")
    else:
        _destination.sink = RunRecorder(Path(target), name)


def flush_traces(within_s: float = 5.0) -> bool:
    """Send what waits; True if all of it was sent in time."""
    return _destination.sink is None or _destination.sink.flush(within_s)


def current_span() -> ActiveSpan | None:
    """The span of the innermost `traced` function that is running; None outside of one."""
    return _current.get()


@overload
def traced(function: F) -> F: ...
@overload
def traced(
    *, name: str = "", kind: Kind = "chain", share: float | None = None, content: bool = True
) -> Callable[[F], F]: ...
def traced(
    function: F | None = None, *, name: str = "", kind: Kind = "chain", share: float | None = None, content: bool = True
) -> F | Callable[[F], F]:
    """Record each call of a function as a span, with its arguments, what it gave, how long it took, and its error.

    Args:
        name: The span's name; by default the function's.
        kind: What the function is: chain, agent, tool, llm, retriever, embedding, guardrail, evaluator.
        share: Of a root, the share of calls that are recorded instead of the one of `trace_to`.
        content: False leaves out arguments, results and the words of an error, which may quote them.

    Raises:
        ConfigError: What is decorated cannot be called, as a property.
    """
    if function is None:
        return lambda given: cast(F, _decorated(given, name, kind, share, content))
    return cast(F, _decorated(function, name, kind, share, content))


def _decorated(function: Any, name: str, kind: str, share: float | None, content: bool) -> Any:
    """The function as it records its calls; a class method or a static method stays one."""
    if isinstance(function, classmethod | staticmethod):
        inner: Callable[..., Any] = function.__func__
        return type(function)(_wrapped(inner, name, kind, share, content))
    if not callable(function):
        raise ConfigError(f"traced was given a {type(function).__name__}: put it below that, on the function itself")
    return _wrapped(function, name, kind, share, content)


def _wrapped(
    function: Callable[..., Any], name: str, kind: str, share: float | None, content: bool
) -> Callable[..., Any]:
    name = name or getattr(function, "__qualname__", "call").replace("<locals>.", "")
    try:
        signature: inspect.Signature | None = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None

    def begun(args: tuple[Any, ...], kwargs: Json) -> _Recorded:
        return _Recorded(name, kind, share, content, lambda: shown_arguments(signature, args, kwargs))

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def items(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            recorded = begun(args, kwargs)
            inner = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(anext, inner)
            thrown: BaseException | None = None
            try:
                while True:
                    with recorded.running():
                        try:
                            item = await step()
                        except StopAsyncIteration:
                            break
                    recorded.gave(item)
                    thrown = None
                    try:
                        step = functools.partial(inner.asend, (yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        thrown = error
                        step = functools.partial(inner.athrow, error)
            except BaseException as error:
                # Nobody asked for more, and the event loop ended before it had closed the generator.
                if not (error is thrown and isinstance(error, CancelledError)):
                    recorded.failed(error)
                raise
            finally:
                await inner.aclose()
                recorded.ended()

        return items
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            recorded = begun(args, kwargs)
            try:
                with recorded.running():
                    result = await function(*args, **kwargs)
            except BaseException as error:
                recorded.failed(error)
                recorded.ended()
                raise
            return recorded.answer(result)

        return awaited
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def yielded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            recorded = begun(args, kwargs)
            inner = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, inner)
            try:
                while True:
                    with recorded.running():
                        try:
                            item = step()
                        except StopIteration as stop:
                            return stop.value
                    recorded.gave(item)
                    try:
                        step = functools.partial(inner.send, (yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(inner.throw, error)
            except BaseException as error:
                recorded.failed(error)
                raise
            finally:
                inner.close()
                recorded.ended()

        return yielded

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        recorded = begun(args, kwargs)
        try:
            with recorded.running():
                result = function(*args, **kwargs)
        except BaseException as error:
            recorded.failed(error)
            recorded.ended()
            raise
        if not (recorded.is_taken and inspect.iscoroutine(result)):
            return recorded.answer(result)
        later: Any = _later(recorded, result, _Unawaited(recorded, result))
        given: Any = result
        later.__name__, later.__qualname__ = given.__name__, given.__qualname__
        return later

    return called


class _Unawaited:
    """Ends the span of a call whose coroutine is dropped before it began."""

    def __init__(self, recorded: _Recorded, coroutine: Coroutine[Any, Any, Any]):
        self._recorded, self._coroutine = recorded, coroutine
        self.has_begun = False

    def __del__(self) -> None:
        if not self.has_begun:
            with suppress(Exception):  # the interpreter may be ending
                self._coroutine.close()  # or else it warns as well as the one that stands for it
                self._recorded.ended()


async def _later(recorded: _Recorded, coroutine: Coroutine[Any, Any, Any], unawaited: _Unawaited) -> Any:
    """Await the coroutine that a plain function returned, and record its result as the answer."""
    unawaited.has_begun = True
    try:
        with recorded.running():
            result = await coroutine
    except BaseException as error:
        recorded.failed(error)
        recorded.ended()
        raise
    return recorded.answer(result)


class _Recorded:
    """One call while it goes on."""

    def __init__(self, name: str, kind: str, share: float | None, content: bool, arguments: Callable[[], str]):
        above = _current.get()
        sink = above.sink if above is not None else _sink()
        if above is not None:
            sampled = above.is_sampled
        else:
            wanted = _destination.share if share is None else share
            sampled = sink is not None and (wanted >= 1 or random.random() < wanted)
        self._content, self._is_root = content, above is None
        self._given = GivenItems()
        self._num_items = 0
        self._has_ended = self._is_left = False
        trace_id, parent_id = _place(above)
        span = IncomingSpan(trace_id, secrets.token_hex(8), parent_id, name, time.time_ns(), 0, kind=1)
        self._began = time.perf_counter_ns()
        self.active = ActiveSpan(span, sampled, sink)
        if sampled:
            span.attributes["openinference.span.kind"] = kind.upper()
            if kind == "tool":
                span.attributes["tool.name"] = name
            if content:
                self.active.keep("input.value", arguments())

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time in which code of the function runs: what is called then lies below its span."""
        token = _current.set(self.active)
        before = trace_context.current()
        span = self.active.span
        parent = TraceParent(int(span.trace_id, 16), int(span.span_id, 16), self.active.is_sampled)
        trace_context.enter(parent)
        leave = _enter_opentelemetry(parent)
        try:
            yield
        finally:
            leave()
            trace_context.enter(before)
            _current.reset(token)

    def gave(self, item: Any) -> None:
        self._num_items += 1
        if self.active.is_sampled and self._content:
            self._given.add(item)

    @property
    def is_taken(self) -> bool:
        """True if spans go anywhere, this one or those below it."""
        return self.active.sink is not None

    def answer(self, result: Any) -> Any:
        """The result for the caller; the call has ended unless it is a stream, which then ends it."""
        if self.is_taken and is_stream(result):
            return recorded_stream(result, self)
        try:
            self.returned(result)
        finally:
            self.ended()
        return result

    def returned(self, result: Any) -> None:
        if self.active.is_sampled and self._content and result is not None:
            shown = shown_value(result)
            self.active.keep("output.value", shown.text, is_told=shown.is_told)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            self._is_left = True
            return
        if self._has_ended:  # a stream that is asked again after its end
            return
        span = self.active.span
        kind = type(error).__name__
        span.error, told = kind, {"exception.type": kind}
        if self._content:
            words = str(error)[:MAX_VALUE_CHARS]
            span.error = f"{kind}: {words}"[:MAX_VALUE_CHARS]
            told["exception.message"] = words
        span.events.append({"name": "exception", "at_ns": time.time_ns(), "attributes": told})

    def ended(self) -> None:
        """Send the span on, once; not before the stream that the call returned has ended."""
        active = self.active
        if self._has_ended or not active.is_sampled or active.sink is None:
            return
        self._has_ended = True
        active.span.end_ns = active.span.start_ns + time.perf_counter_ns() - self._began
        if self._num_items:
            if "output.value" not in active.attributes:  # the function may have set its own
                shown = self._given.shown()
                is_part = self._is_left and not self._given.ended  # the items that were not asked for are missing
                active.keep("output.value", shown.text, is_told=shown.is_told and not is_part)
                if self._given.ended:
                    active.attributes.setdefault("llm.finish_reason", self._given.ended)
            active.attributes["firsthand.items"] = self._num_items
        active.sink.put(active.span, self._is_root)


def _sink() -> SpanSink | None:
    if not _destination.is_set:
        try:
            if (address := traces_address(os.environ)) is not None:
                trace_to(address)
        except ConfigError as error:  # of the environment, for which no call of the program fails
            logging.getLogger("firsthand").warning("no spans are sent: %s", error)
        _destination.is_set = True
    return _destination.sink


def _place(above: ActiveSpan | None) -> tuple[str, str]:
    """The ids of trace and parent of a new span: below what is recorded here, or below what is open around it."""
    if above is not None:
        return above.span.trace_id, above.span.span_id
    outer = trace_context.current()
    if outer is not None:
        return f"{outer.trace_id:032x}", f"{outer.span_id:016x}"
    if (api := sys.modules.get("opentelemetry.trace")) is not None:
        context = api.get_current_span().get_span_context()
        if context.is_valid:
            return f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return secrets.token_hex(16), ""


def _enter_opentelemetry(parent: TraceParent) -> Callable[[], None]:
    """Make the span OpenTelemetry's current one, if the program has loaded it; returns what leaves it."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return lambda: None
    from opentelemetry import context

    flags = api.TraceFlags(int(parent.sampled))
    span = api.NonRecordingSpan(api.SpanContext(parent.trace_id, parent.span_id, is_remote=False, trace_flags=flags))
    token = context.attach(api.set_span_in_context(span))
    return lambda: context.detach(token)
