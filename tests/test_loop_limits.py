"""Budgets, branches, retries, threads, sources and journals of an attempt: sums, names and orders worked out by hand."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import inspect
import math
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from firsthand.errors import ConfigError, LimitExceeded, TransientError
from firsthand.loop import concurrency
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.calling import CallBranch, caller, calling
from firsthand.loop.concurrency import (
    Branch,
    Retry,
    current_branch,
    derive_seed,
    enter_branch,
    group,
    had_ended,
    in_thread,
    run_sync,
    with_retries,
)
from firsthand.loop.journal import JournalPart, MemoryJournal
from firsthand.loop.open_sources import SourceKeeper, opened
from firsthand.loop.prompt_size import estimated_size, prompt_size, size_key
from firsthand.loop.request_key import request_key
from firsthand.message import Message, Reasoning, Text, ToolCall, canonical, user
from firsthand.model import ToolSpec, Usage
from firsthand.providers.scripted import Scripted
from replica_scripted import Echo


@dataclass(frozen=True)
class _Context:
    node: int | None
    fitted: bool = True


def refusal(budget: Budget, *args: Any, **given: Any) -> tuple[str, str]:
    with pytest.raises(LimitExceeded) as refused:
        budget.reserve(*args, **given)
    return refused.value.limit, str(refused.value)


def test_a_refused_call_is_told_what_it_needs_what_is_left_and_what_is_held() -> None:
    budget = Budget(Limits(tokens=5000, calls=9))
    budget.charge(budget.reserve(1200), Usage(1000, 0, 200))
    assert budget.reserve(3750) == 3750 and budget.reserve(99, least=50) == 50
    said = "a call needs 1,050 tokens or more, prompt included, and 0 of 5,000 are left (1,200 used, 3,800 reserved)"
    assert refusal(budget, 2000, least=1050) == ("tokens", said)
    budget.charge(3750, Usage(4000))
    assert budget.overspent == "tokens" and refusal(budget, 1)[1].endswith(
        "0 of 5,000 are left (5,200 used, 50 reserved)"
    )
    assert refusal(Budget(Limits(depth=2)), 1, 3) == ("depth", "groups are nested 3 deep, and the limit is 2")
    assert Budget(Limits(depth=2)).reserve(1, 2) == 1 and Budget(Limits(depth=None)).reserve(1, 999) == 1
    two = Budget(Limits(calls=2))
    two.reserve(1), two.reserve(1)
    assert refusal(two, 1) == ("calls", "call budget exhausted: 2 calls made")
    paid = Budget(Limits(cost_usd=0.5, tokens=10))
    paid.charge(paid.reserve(1), Usage(10, 0, 0, 0.5))
    assert paid.overspent is None and refusal(paid, 1) == ("cost_usd", "0.5000 of 0.5000 USD are spent")
    paid.charge(0, Usage(0, 0, 0, 0.01))
    assert paid.overspent == "cost_usd"
    paid.charge(0, Usage(1))
    assert paid.overspent == "tokens" and not Budget(Limits(calls=1)).counts_tokens
    assert Budget(Limits(), Budget(Limits(tokens=1))).counts_tokens
    assert Limits(tokens=3, seconds=0.5).to_json() == {"tokens": 3, "seconds": 0.5, "depth": 64}
    for value in (0, -1, math.nan):
        with pytest.raises(ConfigError) as refused:
            Limits(seconds=value)
        assert (
            str(refused.value) == f"the limit seconds is {value!r}: give a number above 0, or leave it out for no limit"
        )


def test_a_tree_of_budgets_says_which_is_tightest_and_which_were_hit() -> None:
    root = Budget(Limits(tokens=100))
    middle = Budget(Limits(calls=5), root)
    leaf = Budget(Limits(tokens=120), middle)
    assert leaf.tightest() == 2 and middle.tightest() == 1 and Budget(Limits(tokens=100), root).tightest() == 0
    assert leaf.reserve(500) == 100 and (leaf.calls, middle.calls, root.calls) == (1, 1, 1)
    assert refusal(leaf, 1)[0] == "tokens" and [each.hit for each in (leaf, middle, root)] == ["tokens"] * 3
    leaf.mark("calls", 0)
    other = Budget(Limits(), middle)
    other.mark("seconds", 1)
    assert (other.hit, middle.hit, root.hit, leaf.hit) == ("seconds", "tokens", "tokens", "tokens")
    low = Budget(Limits(), Budget(Limits(), None))
    low.mark("calls", 0)
    assert low.hit == "calls" and low.parent is not None and low.parent.hit is None


def test_what_an_interrupted_try_spent_is_held_until_it_is_replayed() -> None:
    parent = Budget(Limits(tokens=1000))
    budget = Budget(Limits(calls=9), parent)
    budget.hold(100, 2)
    assert [(each.reserved_tokens, each.calls) for each in (budget, parent)] == [(100, 2)] * 2
    assert (parent.held_calls, budget.held_calls, budget.held_tokens) == (0, 2, 100)
    budget.pay(None, Usage(50, 0, 20))
    assert [(each.reserved_tokens, each.calls, each.spent.total_tokens) for each in (budget, parent)] == [
        (30, 2, 70)
    ] * 2
    budget.repay(Usage(90))
    assert [(each.reserved_tokens, each.calls, each.spent.total_tokens) for each in (budget, parent)] == [
        (0, 2, 160)
    ] * 2
    budget.repay(Usage(5))
    assert [(each.reserved_tokens, each.calls, each.spent.total_tokens) for each in (budget, parent)] == [
        (0, 3, 165)
    ] * 2
    child = Budget(Limits(), budget)
    budget.hold(10, 1)
    child.repay(Usage(4))
    assert [(each.reserved_tokens, each.calls) for each in (child, budget, parent)] == [(0, 1), (6, 4), (6, 4)]
    child.pay(7, Usage(1))
    assert (child.reserved_tokens, parent.reserved_tokens, parent.spent.total_tokens) == (-7, -1, 170)


def test_effects_are_named_and_ordered_by_their_place() -> None:
    async def inner(seen: list[Any]) -> None:
        here = current_branch()
        effect = here.next_effect()
        seen.append((effect, here.depth, here.place, here.order(effect), here.name))

    async def outer(seen: list[Any]) -> None:
        here = current_branch()
        here.next_effect()
        here.name = "worker"
        await group(inner(seen) for _ in range(2))
        seen.append((here.next_effect(), here.depth, here.place, here.order("0.1:1 guard 0"), here.name))

    async def main() -> list[Any]:
        seen: list[Any] = []
        root = Branch()
        enter_branch(root)
        root.next_effect()
        await group([asyncio.sleep(0)])
        root.next_effect()
        await group([outer(seen)])
        seen.append((root.next_effect(), root.order(":2"), root.groups))
        return seen

    assert asyncio.run(main()) == [
        ("1.0/0.0:0", 2, (2, 0, 1, 0, 1, 0, 0, 0), (2, 0, 1, 0, 1, 0, 0, 0, 0, 1), "worker"),
        ("1.0/0.1:0", 2, (2, 0, 1, 0, 1, 0, 0, 1), (2, 0, 1, 0, 1, 0, 0, 1, 0, 1), "worker"),
        ("1.0:1", 1, (2, 0, 1, 0), (2, 0, 1, 0, 1, 1), "worker"),
        (":2", (2, 1), 2),
    ]
    assert not current_branch().path and current_branch() is not current_branch()
    for effect, as_of, ended in (
        (":0", ":1", True),
        (":1", ":1", False),
        (":10", ":9", False),
        ("0.0:5", "0.1:6", False),
        ("0.1:0", "1.0:0", True),
        ("2.0:0", "10.0:0", True),
        ("1.0:0", "0.0/3.0:0", False),
        (":0", "0.0:0", True),
        ("0.0:9", "0.0/0.0:0", True),
        ("0.0/0.0:9", "0.0/1.0:0", True),
        ("0.0/1.0:9", "0.0/0.0:0", False),
        (":3 guard 0 call 1", ":4 approval", True),
    ):
        assert had_ended(effect, as_of) is ended, (effect, as_of)


def test_retries_wait_as_asked_or_twice_as_long_each_time() -> None:
    retry = Retry(4, 0.5, 3.0)
    draws = [random.Random(7).random() for _ in range(1)]
    for attempt, ceiling in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (60, 3.0)):
        assert retry.wait_s(attempt, None, random.Random(7)) == ceiling * (0.5 + 0.5 * draws[0])
    assert [retry.wait_s(1, asked, random.Random(0)) for asked in (-1, 0, 2, 99)] == [0, 0, 2, 3.0]
    told: list[Any] = []
    tries: list[int] = []

    async def busy() -> str:
        tries.append(1)
        raise TransientError(f"busy {len(tries)}", retry_after_s=0.001 * len(tries))

    def attempted(retry: Retry) -> str:
        told.clear(), tries.clear()
        with pytest.raises(TransientError) as last:
            asyncio.run(with_retries(busy, retry, on_retry=lambda *what: told.append(what)))
        return str(last.value)

    assert attempted(Retry(3)) == "busy 3" and len(tries) == 3
    waits = [(attempt, str(error), wait_s) for attempt, error, wait_s in told]
    assert waits == [(1, "busy 1", 0.001), (2, "busy 2", 0.002)]
    assert attempted(Retry(1)) == "busy 1" and (len(tries), told) == (1, [])


def test_work_in_a_thread_keeps_its_context_and_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="no")

    async def main() -> None:
        variable.set("yes")
        thread = await in_thread(lambda: (variable.get(), threading.current_thread()))
        assert thread[0] == "yes" and thread[1].name == "firsthand-work" and thread[1].daemon
        with pytest.raises(KeyError):
            await in_thread(partial(_raise, KeyError("k")))
        for error, said in (
            (StopIteration("x"), "StopIteration: x"),
            (SystemExit(3), "SystemExit: 3"),
            (KeyboardInterrupt("stop"), "KeyboardInterrupt: stop"),
        ):
            with pytest.raises(RuntimeError) as told:  # not a wait without end
                await asyncio.wait_for(in_thread(partial(_raise, error)), 5)
            assert str(told.value) == said
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told_wrong.append(context))
        for failure in (None, ValueError("nobody wants it")):
            slow, late = threading.Event(), list[threading.Thread]()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(in_thread(partial(_wait, slow, late, failure)), 0.01)
            slow.set()
            joined(late)
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(partial(_wait, closed, left, None)), 0.01)

    told_wrong, closed, left = list[Any](), threading.Event(), list[threading.Thread]()
    monkeypatch.setattr(threading, "excepthook", told_wrong.append)
    asyncio.run(main())
    closed.set()  # the loop is gone
    joined(left)
    assert told_wrong == [], "what comes too late is dropped without a word"


def joined(thread: list[threading.Thread]) -> None:
    """Wait until the thread has begun and ended."""
    while not thread:
        time.sleep(0.001)
    thread[0].join()


def _wait(go: threading.Event, thread: list[threading.Thread], failure: Exception | None) -> None:
    thread.append(threading.current_thread())
    go.wait(20)
    if failure is not None:
        raise failure


def _raise(error: BaseException) -> None:
    raise error


def test_a_pattern_that_exits_is_an_error_and_the_first_error_of_a_group_is_its_own() -> None:
    async def leave(code: Any) -> None:
        sys.exit(code)

    for code, shown in ((3, "3"), ("bad", "'bad'"), (None, ""), (0, "0"), ("", "''"), (False, "False")):
        with pytest.raises(RuntimeError) as told:
            asyncio.run(group([leave(code)]))  # type: ignore[arg-type]
        assert str(told.value) == f"the pattern called sys.exit({shown})"
        with pytest.raises(RuntimeError) as alone:
            asyncio.run(concurrency.without_exit(partial(leave, code)))
        assert str(alone.value) == str(told.value) and isinstance(alone.value.__cause__, SystemExit)
    nested = BaseExceptionGroup("", [BaseExceptionGroup("", [KeyError("first"), ValueError()]), OSError()])
    assert repr(concurrency.first_error(nested)) == "KeyError('first')"

    async def within() -> Any:
        async def fails() -> None:
            raise KeyError("inside")

        with pytest.raises(KeyError, match="inside"):
            run_sync(fails())
        with pytest.raises(_Stop, match="in a thread"):
            run_sync(_stop("in a thread"))

        async def name() -> str:
            return threading.current_thread().name

        return run_sync(name())

    assert asyncio.run(within()) == "firsthand-run"
    with pytest.raises(_Stop, match="in a branch"):
        asyncio.run(group([asyncio.sleep(0), group([_stop("in a branch")])]))  # type: ignore[list-item]


class _Stop(BaseException):
    """Not an Exception, like what a test runner stops with."""


async def _stop(where: str) -> None:
    raise _Stop(where)


def test_a_seed_is_63_bits_of_a_hash_of_all_its_parts() -> None:
    for parts, text in ((("a", 1), "a\x1f1"), (("a\x1f1",), "a\x1f1"), ((), ""), (("é\ud800",), "é\ud800")):
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        assert derive_seed(*parts) == int.from_bytes(digest, "big") // 2 < 1 << 63


class Known(Scripted):
    """A model that counts tokens itself."""

    async def count_tokens(self, prompt: Any, tools: Any = (), continuations: Any = ()) -> int:
        return 1000 * len(tools) + 10 * len(continuations) + len(prompt)


class Local(Echo):
    """A model that runs here: a token for each character, and a hundred for each tool."""

    async def tokenize(self, prompt: Any, tools: Any = (), *, template: Any = None) -> list[int]:
        text = prompt if isinstance(prompt, str) else "".join(each.text for each in prompt)
        return [0] * (len(text) + 100 * len(tools))


def test_a_prompt_is_counted_by_its_model_or_estimated_with_all_that_is_sent() -> None:
    spec = ToolSpec("t", "de", {"type": "object"})
    size = len(canonical(spec.to_json()))
    assert size % 4 and estimated_size("", [spec]) == size // 4 + 1
    assert (estimated_size("é" * 2), estimated_size("é" * 2 + "x"), estimated_size("")) == (1, 2, 0)
    call = Message("assistant", (Text("abc"), ToolCall("1", "name", {"k": 1})))
    assert estimated_size([user("12345"), call]) == 4 * 3 + -(-(5 + 3 + len('name{"k":1}')) // 4)
    lone = "\ud800"  # three bytes, as UTF-8 has for U+D7FF
    assert (estimated_size(lone), estimated_size(f"a{lone}"), estimated_size(f"ab{lone}")) == (1, 1, 2)
    spoken = Message(
        "assistant", (Text(f"x{lone}"), ToolCall("1", f"n{lone}", {"k": lone}), Reasoning("r" * 99, {"s": lone}))
    )
    read = [f"x{lone}", f"n{lone}", canonical({"k": lone}), canonical({"s": lone})]
    size = sum(len(each.encode("utf-8", "surrogatepass")) for each in read)
    assert estimated_size([spoken]) == 4 * 2 + -(-size // 4)
    local = Local()
    assert asyncio.run(prompt_size(local, [user("abcde")], [spec, spec], ["xy", "z"])) == (5 + 200) + (2 + 1)
    assert asyncio.run(prompt_size(local, "abc", (), ())) == 3 and asyncio.run(prompt_size(local, "", [spec])) == 100
    plain: Any = object()  # an endpoint that counts nothing
    known = Known(["x"])
    assert asyncio.run(prompt_size(known, "abc", [spec], ["x", "y"])) == 1023
    assert asyncio.run(prompt_size(plain, "a" * 9, [spec])) == estimated_size("a" * 9, [spec])
    assert asyncio.run(prompt_size(plain, "a" * 9, (), ["b" * 5, "c"])) == (3 + 2) + (3 + 1)
    assert size_key("f", "p", [spec], ["c"]) == "size:" + request_key("f", "p", None, [spec], 1, ["c"])


def test_a_journal_gives_the_replies_of_each_part_apart() -> None:
    journal = MemoryJournal()
    judge = JournalPart(journal, "0/judge")
    inner = JournalPart(judge, "x")
    for part, text in ((journal, "own"), (judge, "judged"), (inner, "inner")):
        part.record(":0", "key", {"is": text + "?"})
        part.record(":0", "key", {"is": text})
        assert part.find(":0", "key") == {"is": text} and part.find(":0", "other") is None is part.find(":1", "key")
    assert journal.replies() == [{"is": "own"}] and judge.replies() == [{"is": "judged"}]
    assert journal.replies("0/judge|x") == [{"is": "inner"}] and journal.replies("x") == []
    assert list(journal.entries) == [(":0", "key"), ("0/judge|:0", "key"), ("0/judge|x|:0", "key")]
    asyncio.run(judge.settled())


def test_the_effects_of_a_tool_call_are_named_after_it_and_its_groups_lie_far_away() -> None:
    context: Any = _Context(node=3)
    enter = Branch("0.1", 2, 5, 1, (4,), "worker")

    async def main() -> None:
        enter_branch(enter)
        assert caller() is None
        with calling(context, "0.1:7 x"):
            position = caller()
            assert position is not None and position.context == _Context(None) and position.conversation is context
            assert position.branch == CallBranch("0.1", 2, 0, 1_007_000, (4,), "worker", "0.1:7 x")
            assert [position.branch.next_effect() for _ in range(2)] == ["0.1:7 x request 0", "0.1:7 x request 1"]
            assert current_branch() is enter
            position.enter()
            assert current_branch() is position.branch
        assert caller() is None
        with position.active():
            assert caller() is position
        assert caller() is None

    asyncio.run(main())


class Source:
    """A source that writes down what is done to it, and fails where it should."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name, self.log, self.fails = name, log, fails

    async def open(self) -> None:
        await self._do("open")

    async def close(self) -> None:
        await self._do("close")

    async def _do(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        await asyncio.sleep(0)
        if what in self.fails.split():
            raise ValueError(f"{what} {self.name}")


def test_sources_are_opened_in_order_and_closed_in_reverse_whatever_fails() -> None:
    async def used(sources: list[Any], within: Callable[[], None]) -> None:
        async with opened(sources):
            within()

    async def kept(sources: list[Any], within: Callable[[], None]) -> None:
        keeper = SourceKeeper(sources)
        await keeper.close()
        try:
            await asyncio.gather(keeper.open(), keeper.open())
            within()
        finally:
            await keeper.close()

    def run(way: Callable[..., Awaitable[None]], fails: str, within: bool = False) -> tuple[str, list[str]]:
        log: list[str] = []
        marks = dict(each.split(":") for each in fails.split())
        sources = [Source(name, log, marks.get(name, "").replace("+", " ")) for name in "ab"]
        try:
            asyncio.run(way(sources, (lambda: _raise(ValueError("within"))) if within else lambda: log.append("use")))  # type: ignore[arg-type]
        except ValueError as error:
            return str(error), log
        return "", log

    for way in (used, kept):
        assert run(way, "") == ("", ["open a", "open b", "use", "close b", "close a"])
        assert run(way, "b:open") == ("open b", ["open a", "open b", "close b", "close a"])
        assert run(way, "a:open+close") == ("open a", ["open a", "close a"])
        assert run(way, "a:close b:close") == ("close b", ["open a", "open b", "use", "close b", "close a"])
        assert run(way, "a:close") == ("close a", ["open a", "open b", "use", "close b", "close a"])
    assert run(used, "a:close", within=True) == ("within", ["open a", "open b", "close b", "close a"])
    log: list[str] = []
    for stop in (asyncio.CancelledError, KeyboardInterrupt):
        with pytest.raises(stop):
            asyncio.run(used([Source(name, log, "") for name in "ab"], lambda stop=stop: _raise(stop())))  # type: ignore[misc]
    assert log == ["open a", "open b", "close b", "close a"] * 2, "cancelled, or interrupted by a person"
    assert asyncio.run(used([], lambda: None)) is None and asyncio.run(kept([], lambda: None)) is None


def test_a_task_that_is_cancelled_before_it_begins_leaves_no_coroutine_that_nobody_awaits() -> None:
    made: list[Any] = []

    async def work() -> None:
        raise AssertionError("it has not begun")

    def make() -> Any:
        made.append(work())
        return made[-1]

    async def main() -> None:
        early = asyncio.ensure_future(concurrency.without_exit(make))
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        held = [work(), work()]
        grouped = asyncio.ensure_future(concurrency.group(held))
        await asyncio.sleep(0)  # its tasks are made, and have not begun
        for each in asyncio.all_tasks() - {asyncio.current_task(), grouped}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await grouped
        assert [inspect.getcoroutinestate(each) for each in held] == [inspect.CORO_CLOSED] * 2

    asyncio.run(main())
    assert made == []
