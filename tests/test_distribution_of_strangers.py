"""Workers that break the protocol of a distributed run: they are lost, and the run ends as it would without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.spread.distribute import distribute
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
