"""Workers that break the protocol of a distributed run: they are lost, and the run ends as it would without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.spread.distribute import _Distribution, distribute
from firsthand.cluster.spread.run_worker import Lost
from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.rollout import Place
from firsthand.runs.store import create
from firsthand.trace import Trace
from test_distribution_parts import ADA, Crew, Told, ends, places, record, trace_of


class Then(Crew):
    """Gives the second worker when the first is closed."""

    async def workers(self) -> AsyncGenerator[Any, None]:
        first, second = self.remotes
        yield first
        while not first.closed:
            await asyncio.sleep(0)
        yield second
        await asyncio.Event().wait()


def nested(levels: int) -> Json:
    """Objects within each other, as many as levels."""
    body: Json = {}
    for _ in range(levels - 1):
        body = {"a": body}
    return body


def kept_after(said: list[Any], good: list[Any], every: list[Place], home: Path) -> tuple[list[Trace], list[str], Any]:
    """The traces of all tries, the sentences of losses, and the journal of the first place."""
    lost: list[str] = []
    with create(home, {}, "r") as run:
        crew = Then(Told(*said, name="bad"), Told(*good, name="good"))
        asyncio.run(asyncio.wait_for(distribute(run, every, crew, seed=7, concurrency=1, on_lost=lost.append), 10))
        assert run.status == "done" and run.done() == {place.id for place in every}
        return (
            [each for place in every for each in run.tries(place.id)],
            lost,
            list(run.journal(every[0].id).entries()),
        )


def test_a_trace_that_is_sent_twice_is_kept_once_and_its_worker_is_lost(tmp_path: Path) -> None:
    one, two = every = places(2)
    traces, lost, _ = kept_after([[ends(one, "t1"), ends(one, "t2")]], [[ends(two, "t3")]], every, tmp_path)
    assert [trace.id for trace in traces] == ["t1", "t3"]
    assert lost == ["bad ended an attempt that it does not have"]


@pytest.mark.parametrize("field", ["benchmark", "task", "agent", "epoch", "place"])
def test_a_trace_counts_only_for_the_place_that_it_was_asked_for(field: str, tmp_path: Path) -> None:
    one, two = every = places(2)
    forged = ends(one, "forged")
    changed = {
        "benchmark": "c",
        "task_id": "1",
        "agent": {**ADA.to_json(), "name": "bo"},
        "epoch": 1,
        "place": two.id,
    }
    name = {"task": "task_id"}.get(field, field)
    forged["trace"] |= {name: changed[name]}
    traces, lost, _ = kept_after([[forged]], [[ends(one, "t1")], [ends(two, "t2")]], every, tmp_path)
    assert [trace.id for trace in traces] == ["t1", "t2"]
    assert lost == ["bad sent the trace of another attempt than the one that it ended: its 1 attempt goes to others"]


def test_a_worker_cannot_end_an_attempt_of_another(tmp_path: Path) -> None:
    one, two = every = places(2)
    failed = {"kind": "failed", "id": two.id, "error": "SandboxError", "message": "no"}
    for said in (ends(two, "forged"), failed):
        traces, lost, _ = kept_after([[said]], [[ends(one, "t1")], [ends(two, "t2")]], every, tmp_path)
        assert [trace.id for trace in traces] == ["t1", "t2"]
        assert lost == ["bad ended an attempt that it does not have: its 1 attempt goes to others"]


def test_effects_and_steps_of_an_attempt_that_has_ended_are_passed_over(tmp_path: Path) -> None:
    one, two = every = places(2)
    late = {"kind": "step", "id": one.id, "step": ["event", {"kind": "x", "node": None, "detail": {}, "at_s": 0.0}]}
    said = [[record(one, 1), ends(one, "t1"), record(one, 2), late], [ends(two, "t2")]]
    traces, lost, entries = kept_after(said, [], every, tmp_path)
    assert ([trace.id for trace in traces], lost) == (["t1", "t2"], []), "its pattern left something running"
    assert [effect for effect, _, _ in entries] in ([], ["e1"])


def test_what_is_no_message_makes_a_worker_lost_and_not_the_run(tmp_path: Path) -> None:
    (one,) = every = places(1)
    whole = trace_of(one, "t").to_json()
    lame: Json = {name: value for name, value in whole.items() if name != "nodes"}
    cases: list[tuple[Any, str]] = [
        ("trace", "what is no message of a worker"),
        ({"id": one.id}, "what is no message of a worker"),
        ({"kind": ["trace"], "id": one.id}, "what is no message of a worker"),
        ({"kind": "ended", "id": one.id, "error": "", "message": ""}, "what is no message of a worker"),
        ({"kind": "trace", "trace": whole}, "what is no message of a worker"),
        ({"kind": "trace", "id": [one.id], "trace": whole}, "what is no message of a worker"),
        ({"kind": "trace", "id": one.id, "trace": []}, "what is no message of a worker"),
        ({name: value for name, value in record(one, 1).items() if name != "reply"}, "what is no message of a worker"),
        ({**record(one, 1), "effect": None}, "what is no message of a worker"),
        *(({**record(one, 1), "reply": reply}, "what is no message of a worker") for reply in (1, None, [], "started")),
        ({**record(one, 1), "reply": nested(500)}, "a message that is nested deeper than 500"),
        ({"kind": "step", "id": one.id, "step": ["event", nested(30_000)]}, "a message that is nested deeper than 500"),
        (
            {"kind": "trace", "id": one.id, "trace": {**whole, "scores": nested(30_000)}},
            "a message that is nested deeper than 500",
        ),
        ({"kind": "odd", "id": one.id}, "what is no message of a worker"),
        ({"kind": "failed", "id": one.id, "error": "X"}, "what is no message of a worker"),
        ({"kind": "step", "id": one.id, "step": ["odd", {}]}, "a step that cannot be read (StoreError)"),
        ({"kind": "step", "id": one.id, "step": ["began"]}, "a step that cannot be read (TypeError)"),
        ({"kind": "trace", "id": one.id, "trace": lame}, "a trace that cannot be read (KeyError)"),
        ({"kind": "trace", "id": one.id, "trace": {**whole, "agent": 1}}, "a trace that cannot be read (TypeError)"),
    ]
    for said, told in cases:
        traces, lost, _ = kept_after([[said]], [[ends(one, "t1")]], every, tmp_path)
        assert ([trace.id for trace in traces], lost) == (["t1"], [f"bad sent {told}: its 1 attempt goes to others"])


def test_a_record_may_be_as_deep_as_a_store_can_hold(tmp_path: Path) -> None:
    (one,) = every = places(1)
    deep = {**record(one, 1), "reply": nested(499)}
    traces, lost, entries = kept_after([[deep], [ends(one, "t1")]], [], every, tmp_path)
    assert ([trace.id for trace in traces], lost, [reply for _, _, reply in entries]) == (["t1"], [], [nested(499)])


@pytest.mark.parametrize("said", [{"kind": "x"}, 5, None, "text"])
def test_what_is_no_list_of_messages_makes_a_worker_lost(said: Any, tmp_path: Path) -> None:
    class Odd(Told):
        async def exchange(self, messages: Any) -> Any:
            return said

    (one,) = every = places(1)
    lost: list[str] = []
    with create(tmp_path, {}, "r") as run:
        crew = Then(Odd(name="bad"), Told([ends(one, "t1")], name="good"))
        asyncio.run(asyncio.wait_for(distribute(run, every, crew, on_lost=lost.append), 10))
        assert [trace.id for trace in run.traces()] == ["t1"]
    assert lost == ["bad sent what is no list of messages: its 1 attempt goes to others"]


def failed(place: Place, message: str = "I am a stranger and end your run") -> Json:
    return {"kind": "failed", "id": place.id, "error": "ConfigError", "message": message}


class Slow(Told):
    """Lets the other workers begin before it says anything."""

    async def exchange(self, messages: Any) -> list[Json]:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().exchange(messages)


def crew_of(home: Path, every: list[Place], *remotes: Told) -> list[str]:
    """The sentences that a run with these workers says."""
    lost: list[str] = []
    with create(home, {}, "r") as run:
        crew = Crew(*remotes)
        asyncio.run(asyncio.wait_for(distribute(run, every, crew, concurrency=1, on_lost=lost.append), 10))
        assert run.done() == {place.id for place in every}
    return lost


AGAIN = "bad could not go on with an attempt, which is tried once more (ConfigError: I am a stranger and end your run)"


def test_one_machine_cannot_end_a_run_that_another_can_go_on_with(tmp_path: Path) -> None:
    one, two = every = places(2)
    bad, good = Slow([failed(one)], name="bad"), Slow([ends(two, "t2")], [ends(one, "t1")], name="good")
    assert crew_of(tmp_path, every, bad, good) == [AGAIN]
    assert [[message["id"] for message in heard] for heard in bad.heard] == [[one.id]], "it is not asked again"
    assert [[message["id"] for message in heard] for heard in good.heard] == [[two.id], [one.id]]
    assert (bad.closed, good.closed) == (1, 1)


def test_an_attempt_that_a_machine_failed_goes_first_and_to_one_that_is_idle(tmp_path: Path) -> None:
    one, two = places(2)
    with create(tmp_path / "a", {}, "r") as run:
        work = _Distribution(run, {each.id: each for each in (one, two)}, 7, 1, print, print)
        held: dict[str, Place] = {}
        work._deal(held, "bad")
        assert work._take("bad", failed(one), held) is None and held == {} and list(work.waiting) == [one, two]
    (only,) = places(1)
    bad, idle = Slow([failed(only)], name="bad"), Slow([ends(only, "t1")], name="idle")
    assert crew_of(tmp_path / "b", [only], bad, idle) == [AGAIN]


def test_an_error_that_a_second_machine_reports_ends_the_run(tmp_path: Path) -> None:
    one, two = every = places(2)
    bad = Slow([failed(one)], name="bad")
    good = Slow([ends(two, "t2")], [failed(one, "the key is missing")], name="good")
    with pytest.raises(ConfigError, match=r"^the key is missing$"):
        crew_of(tmp_path, every, bad, good)


def test_an_attempt_goes_back_to_a_machine_that_failed_it_once_no_other_is_left(tmp_path: Path) -> None:
    one, two = every = places(2)
    bad = Slow([failed(one)], [ends(two, "t2")], [ends(one, "t1")], name="bad")
    other = Slow([], Lost("other is gone"), name="other")
    assert crew_of(tmp_path, every, bad, other)[0] == AGAIN
    assert sorted(message["id"] for heard in bad.heard[1:] for message in heard) == sorted([one.id, two.id])
    spare, twin = Slow([failed(one)], [ends(one, "t1")], name="bad"), Slow([ends(two, "t2")], name="bad")
    assert crew_of(tmp_path, every, spare, twin) == [AGAIN], "workers of one machine have one name"
