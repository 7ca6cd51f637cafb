"""A recorded call that returns a stream: its items are its answer, and its span ends with it."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import io
import sqlite3
import types
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from firsthand.ingest import recording
from firsthand.ingest.incoming_span import CUT, IncomingSpan
from firsthand.ingest.recorded_streams import is_stream
from firsthand.ingest.recording import current_span, traced
from firsthand.system import trace_context
from test_ingest_recorded import Sink


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    made = Sink()
    monkeypatch.setattr(recording, "_destination", recording._Destination(made, True, 1.0))  # type: ignore[arg-type]
    trace_context.enter(None)
    yield made
    assert current_span() is None and trace_context.current() is None


class Words:
    """As a client's stream: an iterator that is a context manager too, with fields beside its items."""

    def __init__(self, *words: str, error: Exception | None = None):
        self.words, self.error, self.closed, self.label = iter(words), error, False, "w"

    def __iter__(self) -> Iterator[str]:
        yield from self.words
        if self.error is not None:
            raise self.error

    def __next__(self) -> str:
        return next(self.words)

    def __len__(self) -> int:
        return 7

    def __enter__(self) -> Words:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True


class Later:
    def __init__(self, *words: str):
        self.words, self.closed = iter(words), False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        for word in self.words:
            return word
        raise StopAsyncIteration

    async def __aenter__(self) -> Later:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.closed = True


def told(span: IncomingSpan) -> tuple[Any, Any, Any]:
    return span.attributes.get("output.value"), span.attributes.get("firsthand.items"), span.error


def test_the_items_of_a_returned_stream_are_the_answer(sink: Sink) -> None:
    @traced
    def ask(question: str) -> Any:
        return Words("It ", "is ", "Paris")

    stream = ask("?")
    assert sink.spans == [], "it has not ended"
    assert isinstance(stream, Words) and len(stream) == 7 and stream.label == "w"
    stream.label = "x"
    assert stream.label == "x" and repr(stream).startswith("<test_recorded_streams.Words")
    assert "".join(stream) == "It is Paris" and told(sink.take()) == ("It is Paris", 3, None)
    del stream
    gc.collect()
    assert sink.spans == [], "it ends once"
    with ask("?") as held:
        assert next(held) == "It " and sink.spans == []
    assert held.closed and told(span := sink.take()) == ("It ", 1, None)
    assert span.attributes[CUT] == "output.value", "it was left before its end"
    with ask("?") as held:
        assert len([*held]) == 3
    assert CUT not in sink.take().attributes
    stream = ask("?")
    stream.close()
    assert told(sink.take()) == (None, None, None)
    assert [*map(str.upper, ask("?"))] == ["IT ", "IS ", "PARIS"], "an iterator of what is not held otherwise"
    assert told(sink.take()) == ("It is Paris", 3, None)
    left = ask("?")
    first = next(iter(left))
    gc.collect()
    assert first == "It " and sink.spans == [], "an iterator of it is dropped, and the stream is held"
    assert next(left) == "is "
    del left
    gc.collect()
    assert told(span := sink.take()) == ("It is ", 2, None), "nothing holds it any more"
    assert span.attributes[CUT] == "output.value"


@pytest.mark.parametrize(("ended", "is_cut"), [("stop", False), (None, True)])
def test_an_answer_that_was_left_is_whole_if_its_pieces_say_that_it_ended(
    sink: Sink, ended: str | None, is_cut: bool
) -> None:
    chunk = {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "Paris"}, "finish_reason": ended}]}

    @traced
    def ask() -> Iterator[Any]:
        yield chunk
        yield chunk

    for call in (ask, traced(lambda: iter([chunk, chunk]))):
        stream = call()
        assert next(stream) == chunk
        del stream
        gc.collect()
        span = sink.take()
        assert told(span) == ("Paris", 1, None) and (CUT in span.attributes) is is_cut
        assert span.attributes.get("llm.finish_reason") == ended


def test_the_error_of_a_stream_is_the_error_of_its_call(sink: Sink) -> None:
    @traced
    def ask(question: str) -> Any:
        return Words("It ", error=OSError("cut"))

    with pytest.raises(OSError, match="cut"):
        list(ask("?"))
    assert told(sink.take()) == ("It ", 1, "OSError: cut")


def test_a_returned_generator_keeps_its_protocol_and_its_calls_lie_below(sink: Sink) -> None:
    @traced(name="below")
    def below(word: str) -> str:
        return word

    def items() -> Generator[str, str, str]:
        try:
            got = yield below("a")
        except KeyError:
            got = "caught"
        yield got
        return "end"

    @traced(name="ask")
    def ask() -> Generator[str, str, str]:
        return items()

    made = ask()
    assert inspect.isgenerator(made) and next(made) == "a" and made.send("b") == "b"
    with pytest.raises(StopIteration) as stop:
        next(made)
    assert stop.value.value == "end"
    (inner, _), (outer, is_root) = sink.spans
    assert inner.parent_id == outer.span_id and is_root and told(outer) == ("ab", 2, None)
    sink.spans.clear()

    def passed_on() -> Iterator[Any]:
        yield from ask()

    made = passed_on()  # type: ignore[assignment]
    assert next(made) == "a" and made.throw(KeyError()) == "caught"
    made.close()
    assert told(sink.spans[-1][0]) == ("acaught", 2, None)


def test_streams_within_streams_are_spans_below_them(sink: Sink) -> None:
    @traced(name="inner")
    def inner() -> Any:
        return Words("a", "b")

    @traced(name="outer")
    def outer() -> Any:
        return map(str.upper, inner())

    assert list(outer()) == ["A", "B"]
    (one, _), (two, _) = sink.spans
    assert (one.name, told(one), two.name, told(two)) == ("inner", ("ab", 2, None), "outer", ("AB", 2, None))
    assert one.parent_id == two.span_id


def test_streams_that_come_later_are_recorded(sink: Sink) -> None:
    @traced
    async def ask() -> Any:
        return Later("It ", "is ", "Rome")

    async def text() -> str:
        return "Rome"

    @traced
    def passed_on() -> Any:
        return text()

    @traced
    def streamed() -> Any:
        return ask_plainly()

    async def ask_plainly() -> Any:
        return Later("a")

    async def main() -> None:
        assert "".join([word async for word in await ask()]) == "It is Rome"
        assert told(sink.take()) == ("It is Rome", 3, None)
        async with await ask() as held:
            assert isinstance(held, Later) and await anext(held) == "It "
        assert held.closed and told(sink.take()) == ("It ", 1, None)
        held = await ask()
        await held.close()
        assert held.closed and told(sink.take()) == (None, None, None)
        coroutine = passed_on()
        assert inspect.iscoroutine(coroutine) and sink.spans == []
        assert await coroutine == "Rome" and told(sink.take()) == ("Rome", None, None)
        assert [word async for word in await streamed()] == ["a"] and told(sink.take()) == ("a", 1, None)

    asyncio.run(main())


def test_files_cursors_and_lists_are_given_as_they_are(sink: Sink) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for value in (io.StringIO("a"), connection.cursor(), [1], {"a": 1}, "text", range(3), {1: 2}.keys(), Words):
            assert not is_stream(value) and traced(lambda value=value: value)() is value
    assert all(span.end_ns for span, _ in sink.spans) and len(sink.spans) == 8
    assert sink.spans[0][0].attributes[CUT] == "output.value", "a file is told by its address"
    assert list(copy.copy(traced(lambda: iter([1, 2]))())) == [1, 2]


def test_without_an_address_a_stream_is_given_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_destination", recording._Destination(None, True, 1.0))
    stream = Words("a")
    assert traced(lambda: stream)() is stream


def test_of_a_call_that_is_left_out_nothing_below_its_stream_is_recorded(sink: Sink) -> None:
    below = traced(lambda word: word)
    never = traced(share=0.0)(lambda: (below(word) for word in "ab"))
    assert list(never()) == ["a", "b"] and sink.spans == []


def test_mocks_and_generators_to_be_awaited_are_given_as_they_are(sink: Sink) -> None:
    for mock in (MagicMock(), AsyncMock()):
        assert traced(lambda mock=mock: mock)() is mock and sink.take().end_ns

    @types.coroutine
    def paused() -> Generator[None, None, str]:
        yield
        return "Paris"

    async def main() -> str:
        return await traced(lambda: paused())()

    assert asyncio.run(main()) == "Paris" and sink.take().end_ns


def test_an_error_after_the_end_of_a_stream_is_none_of_its_call(sink: Sink) -> None:
    class Closed:
        words = iter(["a"])

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> str:
            return next(self.words)

        def close(self) -> None:
            raise RuntimeError("closed before")

    stream = traced(lambda: Closed())()
    assert list(stream) == ["a"]
    with pytest.raises(RuntimeError):
        stream.close()
    assert told(span := sink.take()) == ("a", 1, None) and span.events == []


def test_a_coroutine_that_nobody_awaits_ends_its_call_and_warns_once(sink: Sink) -> None:
    async def answer() -> str:
        return "a"

    coroutine = traced(lambda: answer())()
    assert (coroutine.__name__, coroutine.__qualname__) == (answer.__name__, answer.__qualname__)
    assert sink.spans == []
    coroutine.close()
    del coroutine
    gc.collect()
    assert told(sink.take()) == (None, None, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del (dropped := [traced(lambda: answer())()])[0]
        gc.collect()
        (words,) = [str(each.message) for each in caught]
        assert not dropped and words == f"coroutine '{answer.__qualname__}' was never awaited"
        caught.clear()  # a warning holds its coroutine
        gc.collect()
        assert not caught, "it warns once"
    assert told(sink.take()) == (None, None, None)
    assert asyncio.run(traced(lambda: answer())()) == "a" and told(sink.take()) == ("a", None, None)
