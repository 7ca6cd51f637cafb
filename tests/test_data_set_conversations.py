"""A data set keeps each task whole: its run, its files and forks send what stood before the question."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.chat_messages import messages_of, written
from firsthand.errors import ConfigError, DataError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.task_rows import task_row, write_tasks
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import Message, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.patterns.direct import direct
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.runs.forking import Fork, fork
from firsthand.studio.access import Access
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import COLLECTION, CollectedTask, TaskCollection, TaskCollections, as_lines
from firsthand.task import Task
from firsthand.trace import Trace

PORT = 8131
OWN = {"sec-fetch-site": "same-origin"}
SAID = (system("Be a tutor."), user("What is 84?"), assistant("84"))
WHOLE = Task(
    "c", "And halved?", ("42", "43"), context="Q: And halved?\nA:", requests=((None, " A"), ("x", " B")), conversation=SAID,
    baseline="A:", sampling={"stop": ("\n",), "max_tokens": 5}, verbatim=True, last_line=True, calls=True, hint="a letter",
    thoughts="game24", metadata={"level": 1}, secret={"answer": "A"},
)  # fmt: skip
CALL = ToolCall("k1", "look", {"at": [1]})
TURNS = (
    system("Be brief."), user("My order is 4711."), assistant("", CALL), Message("tool", (ToolResult("k1", "look", "ok"),)),
    assistant("Noted."),
)  # fmt: skip


def trace(task: Task, **more: Any) -> Trace:
    return Trace("t", "b", task.id, {"name": "a"}, 0, 0, "", 1.0, place="p", **more)


def collected(home: Path, *tasks: Task) -> TaskCollection:
    sets = TaskCollections(SqliteStore(home))
    with store.create(home, {}, "r") as run:
        run.add_tasks("b", tasks)
        sets.add("d", run, [trace(each) for each in tasks])
    return sets.get("d")


def told(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(each.role, each.text) for each in messages]


class Heard:
    """A model that answers 42 and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, ...]] = []
        self.sampling: list[Any] = []
        self.model = Scripted(self._answer)

    def _answer(self, messages: Any, sampling: Any, index: int) -> str:
        self.sent.append(tuple(messages))
        self.sampling.append(sampling)
        return "42"


def test_a_task_is_collected_whole(tmp_path: Path) -> None:
    (kept,) = collected(tmp_path, WHOLE).tasks
    assert kept.task == WHOLE and (kept.benchmark, kept.place, kept.score) == ("b", "p", None)
    plain = Task("p", "2 + 2?")
    (_, other) = TaskCollections(SqliteStore(tmp_path)).get("d").tasks + collected(tmp_path / "o", plain).tasks
    assert other.task == plain


def test_tasks_that_differ_in_their_conversation_alone_are_two(tmp_path: Path) -> None:
    task = Task("c", "And halved?", conversation=SAID, secret={"answer": "42"})
    sets = TaskCollections(SqliteStore(tmp_path))
    for each in (task, replace(task, conversation=(user("What is 86?"), assistant("86"))), task):
        with store.create(tmp_path, {}, "r") as run:
            run.add_tasks("b", [each])
            sets.add("d", run, [trace(each)])
    keys = [each.key for each in sets.get("d").tasks]
    assert len(keys) == 2 and len(set(keys)) == 2
    sets.remove("d", "b", "c", keys[0])
    assert told(sets.get("d").tasks[0].task.conversation)[0] == ("user", "What is 86?")


def test_a_task_that_an_older_version_collected_is_read_and_replaced_by_the_whole_one(tmp_path: Path) -> None:
    task = Task("c", "And halved?", conversation=SAID, hint="a number", secret={"answer": "42"})
    old = {"benchmark": "b", "id": "c", "prompt": "And halved?", "choices": [], "hint": "a number", "secret":
           {"answer": "42"}, "metadata": {}, "run": "r0", "place": "p0", "answer": "", "score": 0.5}  # fmt: skip
    kept = SqliteStore(tmp_path)
    kept.put(COLLECTION, "d", {"tasks": [old, {**old, "id": "other"}]})
    sets = TaskCollections(kept)
    assert sets.get("d").tasks[0].task == replace(task, conversation=())
    with store.create(tmp_path, {}, "r") as run:
        run.add_tasks("b", [task])
        assert [sets.add("d", run, [trace(task)]) for _ in range(2)] == [0, 0]
    assert [(each.task.id, len(each.task.conversation)) for each in sets.get("d").tasks] == [("c", 3), ("other", 0)]


def test_a_run_of_a_data_set_sends_what_stood_before_the_question_and_its_sampling(tmp_path: Path) -> None:
    task = Task("c", "And halved?", conversation=SAID, sampling={"max_tokens": 5}, secret={"answer": "42"})
    collected(tmp_path, task)
    heard, access = Heard(), Access()
    access.port = PORT
    app = create_app(tmp_path, access, {"m": Agent("m", heard.model, reply)})
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert "after 3 messages" in client.get("/data-sets/d").text
        client.post("/data-sets/d/run", data={"model": "m", "check": "numeric"}, headers=OWN)
        assert client.portal is not None
        client.portal.call(app.state.playground.settled)
    assert [told(each) for each in heard.sent] == [[*told(SAID), ("user", "And halved?")]]
    assert heard.sampling[0].max_tokens == 5


def test_reply_asks_the_question_once_and_only_where_nothing_else_was_said() -> None:
    task = Task("c", "And halved?", conversation=SAID, sampling={"max_tokens": 5})
    for own in (None, "Mine."):
        heard = Heard()
        made = asyncio.run(rollout(Agent("a", heard.model, reply, system=own), task))
        lead = SAID if own is None else (system(own), *SAID[1:])
        assert told(heard.sent[0]) == [*told(lead), ("user", "And halved?")] and made.answer == "42"
    heard = Heard()
    asyncio.run(rollout(Agent("a", heard.model, reply), replace(task, conversation=())))
    assert told(heard.sent[0]) == [("user", "And halved?")]


@pytest.mark.parametrize("own", [None, "Mine."])
def test_a_fork_of_a_task_with_a_conversation_says_it_once(own: str | None) -> None:
    task = Task("c", "And halved?", conversation=SAID, sampling={"max_tokens": 5})
    parent = asyncio.run(rollout(Agent("a", Heard().model, direct, system=own), task))
    whole = told(parent.messages(len(parent.nodes) - 1))
    for at, say in ((len(whole) - 1, "Sure?"), (3, None), (1, "And 86?")):
        heard = Heard()
        asyncio.run(fork(Fork(parent, at, Agent("b", heard.model, reply, system=own), say=say), task))
        assert told(heard.sent[0]) == [*whole[: at + 1], *([("user", say)] if say else [])]
        assert heard.sampling[0].max_tokens != 5


def test_messages_are_written_and_read_in_the_format_of_openai() -> None:
    rows = [body for each in TURNS for body in written(each)]
    assert rows[0] == {"role": "system", "content": "Be brief."} and messages_of(rows, "x") == TURNS
    nameless = [row for row in rows if row.pop("name", "") != "none"]
    assert messages_of(nameless, "x") == TURNS, "the name of a result's tool is that of its call"
    for entries, says in (
        ("hi", "x holds 'hi': expected a list"),
        ([{"content": "a"}], "x, message 1 has no role"),
        ([{"role": "user", "content": "a"}, {"role": "bot", "content": "a"}], "x, message 2 has the role 'bot'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "has a content of type list: expected a text"),
        ([{"role": "user"}], "has no content"),
        (
            [{"role": "assistant", "content": "a", "reasoning_content": "b"}],
            "has `reasoning_content`, which is not read",
        ),
    ):
        with pytest.raises(DataError, match=says):
            messages_of(entries, "x")


def test_the_lines_of_a_data_set_are_a_benchmark_with_its_conversations(tmp_path: Path) -> None:
    found = collected(tmp_path, Task("c", "Which?", conversation=TURNS, secret={"answer": "4711"}),
                      Task("p", "2 + 2?", secret={"answer": "4"}))  # fmt: skip
    (tmp_path / "tasks.jsonl").write_text(as_lines(found))
    assert "conversation" not in json.loads(as_lines(found).splitlines()[1])
    about = 'data = "tasks.jsonl"\nprompt = "{prompt}"\ntarget = "{target}"\nid = "{id}"\n'
    (tmp_path / "tasks.toml").write_text(about + 'conversation = "conversation"\n')
    made = catalog.benchmark(str(tmp_path / "tasks.toml"))
    assert [each.conversation for each in made.tasks(0)] == [TURNS, ()]
    assert made.protocol.endswith("'{prompt}' after the messages of 'conversation'")
    for said, says in (("null", None), ("[]", None), ('""', "line 2: the column 'said' holds '': expected a list")):
        first = '{"q": "a", "a": "b", "said": [{"role": "user", "content": "c"}]}\n'
        (tmp_path / "rows.jsonl").write_text(f'{first}{{"q": "d", "a": "e", "said": {said}}}\n')
        (tmp_path / "rows.toml").write_text(
            'data = "rows.jsonl"\nprompt = "{q}"\ntarget = "{a}"\nconversation = "said"\n'
        )
        if says is None:
            rows = read_benchmark(tmp_path / "rows.toml").tasks(0)
            assert [each.conversation for each in rows] == [(user("c"),), ()]
        else:
            with pytest.raises(DataError, match=says):
                read_benchmark(tmp_path / "rows.toml")
    for more, error, says in (
        ('conversation = "said"', DataError, "there is no column 'said'; there are id, conversation"),
        ('conversation = "prompt"', DataError, "line 1: the column 'prompt' holds 'Which[?]': expected a list"),
        (
            'conversation = "conversation"\nchoices = ["a", "b"]',
            ConfigError,
            "there are choices, which are scored after",
        ),
    ):
        (tmp_path / "tasks.toml").write_text(about + more)
        with pytest.raises(error, match=says):
            read_benchmark(tmp_path / "tasks.toml")


def test_the_pytest_file_holds_what_its_tasks_fix(tmp_path: Path) -> None:
    plain, fixed = Task("p", "2 + 2?", secret={"answer": "4"}), replace(WHOLE, choices=(), secret={"answer": "42"})
    held: dict[str, Any] = {}
    tasks = [CollectedTask(each, "b", "r", "p", "", 1.0) for each in (plain, fixed)]
    exec(as_regression_test(TaskCollection("d", tuple(tasks), 1)).partition("@pytest")[0], held)
    assert list(held["PROTOCOLS"]) == ["2 c"]
    body = {"id": "2 c", "prompt": "And halved?", "choices": [], **held["PROTOCOLS"]["2 c"]}
    assert Task.from_json(body) == Task(
        "2 c", "And halved?", conversation=SAID, sampling=fixed.sampling, verbatim=True, last_line=True
    )


@pytest.mark.slow
def test_a_model_that_needs_the_conversation_passes_the_pytest_file(tmp_path: Path) -> None:
    task = Task("c", "And halved?", conversation=SAID, secret={"answer": "42"})
    (tmp_path / "test_data_set.py").write_text(as_regression_test(collected(tmp_path, task)))
    (tmp_path / "own.py").write_text(
        "async def own(task, ctx):\n    return '42' if len(ctx.messages) == 3 else 'Half of what?'\n"
    )
    given = {"FIRSTHAND_TEST_MODEL": "scripted:echo", "FIRSTHAND_TEST_PATTERN": f"{tmp_path}/own.py"}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(tmp_path / "test_data_set.py")],
        cwd=tmp_path, env={**os.environ, **given}, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def generation(asked: Sequence[Message], **more: str) -> IncomingSpan:
    said = [body for each in asked for body in written(each)]
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(said),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "4711"}]),
    }  # fmt: skip
    return IncomingSpan(f"{1:032x}", f"{1:016x}", "", "chat", 1, 9, attributes | more)


def row_of(home: Path, *spans: IncomingSpan) -> dict[str, Any]:
    taken = TraceStore(home, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(list(spans)))
    row = task_row(f"{1:032x}", taken.spans(f"{1:032x}"))
    taken.close()
    return row


def test_a_received_trace_becomes_a_task_with_the_messages_before_its_question(tmp_path: Path) -> None:
    row = row_of(tmp_path, generation([*TURNS, user("Which?")]))
    sets = TaskCollections(SqliteStore(tmp_path))
    sets.add_received("d", [row])
    (one,) = sets.get("d").tasks
    assert told(one.task.conversation) == told(TURNS) and one.task.conversation[2].tool_calls == (CALL,)
    assert (one.task.prompt, one.task.metadata["system"]) == ("Which?", "Be brief.")
    write_tasks(tmp_path / "shop.toml", [row], "exact")
    (task,) = catalog.benchmark(str(tmp_path / "shop.toml")).tasks(0)
    assert task.conversation == one.task.conversation and task.prompt == "Which?"
    write_tasks(tmp_path / "alone.toml", [{**row_of(tmp_path / "o", generation([user("Which?")]))}], "exact")
    assert "conversation" not in (tmp_path / "alone.toml").read_text()


@pytest.mark.parametrize(
    ("asked", "before"),
    [
        ([system("s"), user("Which?"), assistant("", CALL), Message("tool", (ToolResult("k1", "look", "ok"),))], 1),
        ([user("Which?"), assistant("This?"), user("Which?")], 2),
        ([system("s"), assistant("Hello")], 1),
    ],
)
def test_the_messages_end_before_the_question(tmp_path: Path, asked: list[Message], before: int) -> None:
    row = row_of(tmp_path, generation(asked))
    assert [each["content"] for each in row.get("conversation", [])] == [each.text for each in asked[:before]]
    assert all(isinstance(part, Text) for each in messages_of(row.get("conversation", []), "x") for part in each.parts)
