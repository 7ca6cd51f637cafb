"""A home of the Studio whose every number is known, and a client that is signed in to it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.studio_app import create_app
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

PORT = 8131
OWN = {"sec-fetch-site": "same-origin"}
SECOND, DAY = 10**9, 86400 * 10**9


def attempt(run: Any, at: int, agent: str, task: str, score: float | None, **more: Any) -> None:
    nodes = (Node(None, user(f"Q {task}")), Node(0, assistant("one")), Node(0, assistant(f"two of {agent}")))
    calls = (Call(":0", "generate", 0, 0.0, 0.5, "r", usage=Usage(1000, 200, 50, 0.25), nodes=(1, 2)),)
    scores = () if score is None else (Score("exact", score),)
    run.append(Trace(f"x{run.id}{at}", "quiz", task, {"name": agent, "model": agent}, 0, 0, "2026-01-01T00:00:00+00:00",
                     1.5, nodes=nodes, calls=calls, answer=f"A{at}", scores=scores, place=f"p{at}", **more))  # fmt: skip


def span(
    trace: int, number: int, parent: int, name: str, begun: int, took_s: float, error: str | None = None, **more: Any
) -> IncomingSpan:
    return IncomingSpan(
        f"{trace:032x}", f"{number:016x}", f"{parent:016x}" if parent else "", name, begun, begun + int(took_s * SECOND),
        {key.replace("__", "."): value for key, value in more.items()}, error=error,
        resource={"service.name": "shop"} if trace == 1 else {},
    )  # fmt: skip


def write_home(folder: Path) -> Path:
    """Write two runs of five attempts and four received traces into a folder; returns it."""
    for name, scores in (("older", (1.0, 0.5, 0.0)), ("newer", (0.0, 0.5, 1.0))):
        with store.create(folder, {"model": [name]}, name, command=["firsthand", "run", name]) as run:
            run.add_tasks(
                "quiz",
                [Task(f"t{n}", f"Q{n}?", secret={"answer": str(n)}, metadata={"level": f"l{n % 2}"}) for n in range(3)],
            )
            for agent in ("ann", "bob"):
                run.add_agent(agent, {"name": agent, "model": agent})
            for n, score in enumerate(scores):
                attempt(run, n, "ann", f"t{n}", score)
            attempt(run, 3, "bob", "t0", None, error=Failure("Broken", "The net"), stop_reason="error")
            attempt(run, 4, "bob", "t1", 1.0, events=(Event("note", 0.25, {"k": "Moonlight"}),))
    spans = [
        span(1, 1, 0, "chat", DAY, 1.0, session__id="s1", user__id="ann", gen_ai__request__model="m1",
        gen_ai__operation__name="chat"),
        span(2, 1, 0, "chat", DAY + 10 * SECOND, 3.0, session__id="s1", user__id="bob"),
        span(2, 2, 1, "look", DAY + 11 * SECOND, 1.0, error="No file"),
        span(3, 1, 0, "other", 2 * DAY, 2.0, user__id="ann"),
        span(4, 1, 0, "chat", DAY + 20 * SECOND, 2.0, session__id="s2"),
    ]  # fmt: skip
    taken = TraceStore(folder, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    taken.close()
    return folder


@contextmanager
def entered(home: Path) -> Iterator[TestClient]:
    """A client that is signed in to the Studio of a home with two agents."""
    access = Access()
    access.port = PORT
    agents = {
        name: Agent(name, Scripted(lambda *_: "It is 1", name=f"scripted:{name}"), reply) for name in ("m-one", "m-two")
    }
    with TestClient(create_app(home, access, agents), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.get("/enter", params={"code": access.new_code()})
        yield made


def ids(home: Path) -> tuple[str, str]:
    """The ids of the older and the newer run."""
    found = {name: info.id for info in store.list_runs(home) for name in ("older", "newer") if name in info.id}
    return found["older"], found["newer"]


def said(answer: Any) -> str:
    """The text of a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def problem(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text[:300]
    return said(answer)


def post(client: TestClient, path: str, **fields: Any) -> Any:
    return client.post(path, data=fields, headers=OWN, follow_redirects=False)
