"""A tool call's own mark and how it is taken off, how long calls took, and the order in which texts are admitted."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop import attempt as attempt_module
from firsthand.loop.attempt_memory import AttemptMemory, MemoryChange
from firsthand.loop.calling import CallBranch, CallPosition, caller, calling
from firsthand.loop.concurrency import Branch, current_branch, enter_branch
from firsthand.loop.memory_calls import remember_text, remember_texts
from firsthand.memory import MemoryItem
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.trace import Call, Event
from open_calls import attempt_of, open_call, within


@dataclass(frozen=True)
class Place:
    """A Context's node, and something else in it."""

    node: int | None
    name: str = "c"
    fitted: bool = False


def position_of(context: Any, effect: str, first_group: int) -> CallPosition:
    return CallPosition(
        Place(None, context.name, True), effect, CallBranch("", 0, 0, first_group, (), "", effect), context
    )


@pytest.mark.parametrize("error", [None, ValueError("broken"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_call_that_ends_in_any_way_leaves_the_caller_that_was_before_it(error: BaseException | None) -> None:
    def ended(context: Any) -> None:
        try:
            with context:
                if error is not None:
                    raise error
        except BaseException as found:
            assert found is error
        else:
            assert error is None

    def main() -> None:
        outer = Place(3)
        ended(calling(outer, ":0"))
        assert caller() is None
        with calling(outer, ":12 x"):
            mark = caller()
            assert mark == position_of(outer, ":12 x", 1_012_000)
            ended(calling(Place(4, "d"), "0.3/1.2:5 y"))
            assert caller() is mark
            other = position_of(Place(9, "e"), ":1", 0)
            ended(other.active())
            assert caller() is mark
            with other.active():
                assert caller() is other
                ended(calling(outer, ":2"))
                assert caller() is other
        assert caller() is None

    copy_context().run(main)


def test_a_call_has_the_place_of_its_branch_and_groups_of_its_own() -> None:
    def main() -> None:
        enter_branch(Branch("0.3", 2, 5, 1, (4, 1), "worker"))
        for effect, first_group in (("0.3:0", 1_000_000), ("0.3:7 retry 2", 1_007_000), ("0.3:10 a:9", 1_010_000)):
            with calling(Place(1), effect):
                found = caller()
                assert found is not None
                assert found.branch == CallBranch("0.3", 2, 0, first_group, (4, 1), "worker", effect)
                assert (found.context, found.effect, found.conversation) == (Place(None, fitted=True), effect, Place(1))
                assert [found.branch.next_effect() for _ in range(2)] == [f"{effect} request {n}" for n in range(2)]
                assert current_branch().effects == 5, "the pattern's own effects do not shift"

    copy_context().run(main)


def test_a_call_took_the_time_since_it_began_to_the_microsecond(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(attempt_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    attempt = attempt_of(Scripted())
    told: list[Any] = []
    attempt.tell = told.append  # type: ignore[method-assign]
    assert attempt.elapsed_s() == 0.0
    now[0] = 102.34567891
    assert attempt.elapsed_s() == 2.345679

    def record() -> None:
        enter_branch(Branch("0.1", 1, place=(2, 0)))
        attempt.record("tool", "0.1:3", 2, 2.0, "k", detail={"a": 1})
        attempt.record("generate", "0.1:4", None, 2.345679, "l", replayed=True)
        attempt.note("seen", n=(1, 2))

    copy_context().run(record)
    calls = [
        Call("0.1:3", "tool", 2, 2.0, 0.345679, "k", detail={"a": 1}),
        Call("0.1:4", "generate", None, 2.345679, 0.0, "l", replayed=True),
    ]
    event = Event("seen", 2.345679, {"n": [1, 2]})
    assert attempt.calls == calls and attempt.events == [event] and told == [*calls, event]
    assert attempt.order == {"0.1:3": (2, 0, 3, 1), "0.1:4": (2, 0, 4, 1)}


class Admitting:
    """A memory that keeps what it is asked to take, and takes no text that begins with `no`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def snapshot(self) -> Admitting:
        return self

    def admit(self, item: MemoryItem) -> None:
        self.asked.append(item.text)
        if item.text.startswith("no"):
            raise ConfigError(f"not {item.text}")


def test_texts_are_admitted_one_after_another_in_their_order_up_to_the_first_that_is_refused() -> None:
    base, attempt = Admitting(), attempt_of(Scripted())
    memory = attempt.memory = AttemptMemory(base, {"task": "t"})  # type: ignore[arg-type]
    entries: list[tuple[str, Json]] = [("b", {"n": 1}), ("a", {}), ("b", {"n": 2})]
    items = [MemoryItem.of(text, {**given, "task": "t", "effect": ":4"}) for text, given in entries]
    assert within(lambda: remember_texts(open_call(attempt), entries)) == [each.id for each in items]
    assert base.asked == ["b", "a", "b"]
    changes = [MemoryChange(":4", (4, 1, place), item) for place, item in enumerate(items)]
    assert memory.changes == changes
    for texts in (["ok", "no 1", "no 2"], ["no 1", "ok"]):
        base.asked.clear()
        with pytest.raises(ConfigError, match=r"^not no 1$"):
            within(lambda texts=texts: remember_texts(open_call(attempt, ":5"), [(text, {}) for text in texts]))
        assert base.asked == texts[: texts.index("no 1") + 1] and memory.changes == changes, "none of them is kept"
    base.asked.clear()
    with pytest.raises(ConfigError, match=r"^not nothing$"):
        within(lambda: remember_text(open_call(attempt, ":6"), "nothing", {}))
    assert base.asked == ["nothing"] and memory.changes == changes
