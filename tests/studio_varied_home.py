"""A home of the Studio with two runs whose attempts all differ in tokens, cost, time and score, and six received traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace
from studio_small_home import DAY, SECOND

RUNS = {
    # agent, task, epoch, score, prompt, cached, completion, USD, seconds
    "first": (
        ("ann", "t0", 0, 1.0, 100, 10, 20, 0.5, 1.5),
        ("ann", "t0", 1, 0.5, 110, 11, 21, 0.25, 2.5),
        ("ann", "t1", 0, 0.25, 130, 0, 40, 0.125, 0.5),
        ("bob", "t0", 0, None, 150, 15, 0, 0.0, 4.0),
        ("bob", "t2", 0, 0.0, 170, 17, 30, 1.0, 8.0),
    ),
    "second": (
        ("ann", "t0", 0, 0.25, 200, 20, 25, 2.0, 3.0),
        ("ann", "t1", 0, 0.75, 210, 0, 26, 4.0, 5.0),
        ("ann", "t2", 0, 1.0, 230, 23, 27, 0.5, 7.0),
        ("cat", "t2", 0, 0.5, 250, 25, 28, 0.75, 9.0),
    ),
}


def attempt(run: Any, number: int, row: tuple[Any, ...]) -> Trace:
    """An attempt of a question, of two answers that the model gave to it, and of one call."""
    agent, task, epoch, score, prompt, cached, completion, usd, seconds = row
    nodes = (
        Node(None, user(f"Ask {task}")),
        Node(0, assistant("a draft")),
        Node(0, assistant(f"{agent} says {number}")),
    )
    calls = (
        Call(":0", "generate", 0, 0.25, seconds / 2, "r", usage=Usage(prompt, cached, completion, usd), nodes=(1, 2)),
    )
    more: dict[str, Any] = {"scores": () if score is None else (Score("exact", score),)}
    if score is None:
        more = {
            "error": Failure("NetError", "The net broke"),
            "stop_reason": "error",
            "events": (Event("failed", 1.0, {"k": "moon"}),),
        }
    return Trace(f"{run.id}-{number}", "quiz", task, {"name": agent, "model": f"m-{agent}"}, epoch, 0,
                 "2026-01-02T03:04:05+00:00", seconds, nodes=nodes, calls=calls, answer=f"the answer {number}",
                 place=f"p{number}", **more)  # fmt: skip


def write_runs(folder: Path) -> tuple[str, str]:
    """Write the two runs; returns their ids."""
    made = []
    for name, rows in RUNS.items():
        with store.create(folder, {"lr": len(rows)}, name, command=["firsthand", "run", name]) as run:
            run.add_tasks(
                "quiz",
                [
                    Task(f"t{n}", f"Q{n}?", secret={"answer": str(n)}, metadata={"level": "hard" if n else "easy"})
                    for n in range(3)
                ],
            )
            for agent in dict.fromkeys(row[0] for row in rows):
                run.add_agent(agent, {"name": agent, "model": f"m-{agent}"})
            for number, row in enumerate(rows):
                run.append(attempt(run, number, row))
            made.append(run.id)
    return made[0], made[1]


def span(
    trace: int, number: int, parent: int, name: str, begun_s: float, took_s: float, error: str | None = None,
    asked: str = "", said: str = "", service: str = "", **attributes: Any,
) -> IncomingSpan:  # fmt: skip
    """A span; with a question it is a generation of GenAI's conventions."""
    values = {key.replace("__", "."): value for key, value in attributes.items()}
    if asked:
        values |= {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": asked}]}]),
            "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": said}]}]),
        }
    begun = DAY + int(begun_s * SECOND)
    return IncomingSpan(
        f"{trace:032x}", f"{number:016x}", f"{parent:016x}" if parent else "", name, begun, begun + int(took_s * SECOND),
        values, error=error, resource={"service.name": service} if service else {}, scope="maker",
    )  # fmt: skip


def usage(model: str, prompt: int, completion: int, usd: float) -> dict[str, Any]:
    """Attributes of a generation."""
    return {
        "gen_ai__request__model": model, "gen_ai__usage__input_tokens": prompt, "gen_ai__usage__output_tokens": completion,
        "gen_ai__usage__cost": usd,
    }  # fmt: skip


DAY_S = 86_400
SPANS = [
    span(1, 1, 0, "ask", 0, 4, asked="Where is it?", said="Here", service="shop", session__id="s1", user__id="ann",
         **usage("big", 100, 7, 0.5)),
    span(2, 1, 0, "ask", 10, 3, session__id="s1", user__id="bob"),
    span(2, 2, 1, "look", 11, 1.5, error="No file"),
    span(2, 3, 2, "look", 11.25, 0.5, error="Deep fault"),
    span(3, 1, 0, "plan", DAY_S, 2, user__id="ann", session__id="s2", asked="What now?", said="Wait",
         **usage("small", 30, 5, 0.0)),
    span(4, 1, 0, "ask", 30, 6, session__id="s1", error="Too late", user__id="ann"),
    span(5, 1, 0, "ask_it", DAY_S + 5, 1, user__id="cat", tag__tags=["red"], service="bank",
         openinference__span__kind="CHAIN"),
    span(6, 2, 1, "orphan", 2 * DAY_S, 5),
]  # fmt: skip
T = {number: f"{number:032x}" for number in range(1, 7)}


def write_traces(folder: Path) -> None:
    """Write the received traces, and three scores of them."""
    taken = TraceStore(folder, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(SPANS))
    for trace, name, value in ((1, "exact", 0.25), (1, "exact", 0.5), (1, "kind", 1.0), (3, "exact", 0.75)):
        taken.add_score(T[trace], name, "judge", value)
    taken.close()
