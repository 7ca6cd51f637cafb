"""Executing a run: what is done is skipped, what was interrupted is replayed, with the results of an unbroken run."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import LimitExceeded, ModelError, StoreError
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Budget, Limits
from firsthand.loop.concurrency import Retry
from firsthand.message import Json, Message, Sampled, Text, ToolCall, canonical
from firsthand.model import Completion, Delta, Likelihood, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.rollout import Place
from firsthand.runs.database import Database
from firsthand.runs.execute import execute
from firsthand.runs.run_names import DATABASE
from firsthand.runs.store import Run, create
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.trace import Score, Trace
from run_process import results
from thorough import repetitions


def prompt_to_json(prompt: Prompt) -> str | list[dict[str, Any]]:
    return prompt if isinstance(prompt, str) else [message.to_json() for message in prompt]


class Oracle:
    """A Model whose answers follow from the request alone. Each call leaves a line in a file; it can break its process."""

    name = "oracle"
    fingerprint = "oracle-1"

    def __init__(self, log: Path, *, dies_at: int | None = None, fails_on: str | None = None, wait_s: float = 0.0):
        self.log, self.dies_at, self.fails_on, self.wait_s = log, dies_at, fails_on, wait_s
        self.calls = 0

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        asked = canonical([prompt_to_json(prompt), sampling.to_json(), n])
        await self._leave_line(asked)
        if self.fails_on is not None and self.fails_on in asked:
            raise ModelError(f"it will not talk about {self.fails_on}")
        answers = [hashlib.sha256(f"{asked}{i}".encode()).hexdigest()[:12] for i in range(n)]
        return [
            Completion(
                Message("assistant", (Text(answer),), Sampled(tuple(answer.encode()), (-0.1,) * 12)),
                "stop",
                Usage(10 if i == 0 else 0, 0, 12),
            )
            for i, answer in enumerate(answers)
        ]

    def stream(self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()) -> AsyncIterator[Delta]:
        raise NotImplementedError

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        await self._leave_line(canonical([prompt_to_json(prompt), list(continuations)]))
        return Scored(tuple(Likelihood(text, -float(len(text)), 1, False) for text in continuations), Usage(5))

    async def _leave_line(self, asked: str) -> None:
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, hashlib.sha256(asked.encode()).hexdigest().encode() + b"\n")
        os.close(file)
        self.calls += 1
        number = self.calls
        await asyncio.sleep(self.wait_s)
        if number == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


async def deliberate(task: Task, ctx: Context) -> str:
    """Branches, several samples, a scoring and tools of two kinds: every effect there is."""
    start = ctx.say(task.prompt)

    async def branch(number: int) -> str:
        thought = await start.say(f"way {number}").generate(temperature=1.0)
        samples = await thought.say("again").sample(2, temperature=1.0)
        return "".join(sample.text for sample in samples)

    ways = await ctx.group(branch(number) for number in range(2))
    sent = await start.call(ToolCall("1", "send", {"text": ways[0]}))
    noted = await start.call(ToolCall("2", "note", {"text": ways[1]}))
    (likelihood,) = await start.say(sent).say(noted).score([ways[0]])
    last = await start.say(sent).say(f"{noted.content} {likelihood.logprob}").generate()
    return last.text


CALLS_PER_ATTEMPT = 6  # of the model: two in each of two branches, one scoring, one last answer
NUM_TASKS = 5
ALLOW = Approval({"irreversible": "allow"})


def make_places(log: Path, **oracle: Any) -> list[Place]:
    sent = log.with_name(log.name + "-sent")

    @tool(effect="irreversible")
    def send(text: str) -> str:
        """Send a text for good."""
        with sent.open("a") as file:
            file.write(f"{text}\n")
        return f"sent {len(text)} characters"

    @tool(effect="write")
    def note(text: str) -> str:
        """Note a text in the attempt's own world."""
        return f"noted {text}"

    def correct(task: Task, trace: Trace) -> Score:
        return Score("correct", float(int(trace.answer or "0", 16) % 2))

    tasks = [Task(str(number), f"question {number}", secret={"n": number}) for number in range(NUM_TASKS)]
    benchmark = Benchmark("riddles", lambda seed: tasks, (correct,))
    model = Oracle(log, **oracle)
    agent = Agent("ada", model, deliberate, tools=(send, note), system="Think.", retry=Retry(1), approval=ALLOW)
    return [Place(agent, benchmark, task) for task in tasks]


def reopen(path: Path) -> Run:
    return Run(path, Database(path / DATABASE))


def execute_in_child(path: Path, log: Path, concurrency: int, oracle: dict[str, Any]) -> None:
    asyncio.run(execute(reopen(path), make_places(log, **oracle), seed=9, concurrency=concurrency))


def start_child(path: Path, log: Path, concurrency: int, **oracle: Any) -> Any:
    arguments = (path, log, concurrency, oracle)
    child = multiprocessing.get_context("fork").Process(target=execute_in_child, args=arguments)
    child.start()
    return child


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Any]:
    """The results of a run that nothing happened to."""
    run = create(tmp_path / "undisturbed", {}, "riddles")
    log = tmp_path / "undisturbed-log"
    asyncio.run(execute(run, make_places(log), seed=9, concurrency=3))
    assert len(log.read_text().splitlines()) == NUM_TASKS * CALLS_PER_ATTEMPT
    return results(run)


def test_a_run_holds_tasks_agents_traces_and_is_done(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    seen: list[Trace] = []
    places = make_places(tmp_path / "log")
    asyncio.run(execute(run, places, seed=9, on_trace=lambda trace: seen.append(run.trace(trace.id))))
    assert {trace.place for trace in seen} == {place.id for place in places} == run.done()
    assert [task.secret["n"] for task in run.tasks().values()] == list(range(NUM_TASKS))
    assert run.agents()["ada"]["model"] == "oracle"
    assert run.status == "done"


def test_a_second_execution_asks_nothing(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    places = make_places(tmp_path / "log")
    asyncio.run(execute(run, places[:2], seed=9))
    asyncio.run(execute(run, places, seed=9))
    asyncio.run(execute(run, places, seed=9))
    assert len((tmp_path / "log").read_text().splitlines()) == NUM_TASKS * CALLS_PER_ATTEMPT
    assert len(list(run.traces())) == NUM_TASKS


@pytest.mark.slow
def test_a_killed_run_goes_on_and_asks_only_for_what_was_missing(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run = create(tmp_path, {}, "riddles")
    log = tmp_path / "log"
    num_kills = 0
    for calls in (1, 2, 3, 5, 6, 7, 4):  # the model kills its process before it answers this call
        child = start_child(run.path, log, 1, dies_at=calls)
        child.join(30)
        assert child.exitcode == -9
        assert run.status == "interrupted"
        num_kills += 1
    child = start_child(run.path, log, 1)
    child.join(30)
    assert child.exitcode == 0
    assert results(run) == undisturbed
    # Branches of a group run together, so up to two calls were in flight at a kill; those alone are made again.
    asked = Counter(log.read_text().splitlines())
    again = sum(asked.values()) - len(asked)
    assert len(asked) == NUM_TASKS * CALLS_PER_ATTEMPT
    assert num_kills <= again <= 2 * num_kills
    assert len((tmp_path / "log-sent").read_text().splitlines()) == NUM_TASKS
    assert any(call.replayed for trace in run.traces() for call in trace.calls)


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [8, pytest.param(repetitions(150, 20), marks=pytest.mark.slow)])
def test_a_run_killed_at_random_gives_the_results_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: dict[str, Any], num_kills: int
) -> None:
    rng = random.Random(num_kills)
    killed = 0
    while killed < num_kills:
        run = create(tmp_path, {}, "riddles")
        log = run.path / "log"
        while len(run.done()) < NUM_TASKS:
            before = recorded(run)
            child = start_child(run.path, log, 3, wait_s=0.01)
            while (
                recorded(run) == before and child.is_alive()
            ):  # however slow the machine is, each gets a little further
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.08))
            child.kill()
            child.join()
            killed += child.exitcode == -9
        check_after_kills(run, undisturbed, (run.path / "log-sent").read_text().splitlines())


def recorded(run: Run) -> int:
    """How many effects and attempts the run holds."""
    return len(run.database.read("SELECT 1 FROM effects UNION ALL SELECT 1 FROM traces"))


def check_after_kills(run: Run, undisturbed: dict[str, Any], sent: list[str]) -> None:
    """What cannot be undone was never done twice, and where no kill came in the middle of it, all is as undisturbed."""
    assert len(sent) == len(set(sent))
    calls = ((trace.place, call) for trace in run.traces() for call in trace.calls)
    in_doubt = {id for id, call in calls if "interrupted while it ran" in str(call.detail.get("result"))}
    found = results(run)
    assert found.keys() == undisturbed.keys()
    assert [key for key in found if key not in in_doubt and found[key] != undisturbed[key]] == []


@pytest.mark.slow
def test_cancelling_keeps_what_is_done(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run = create(tmp_path, {}, "riddles")
    log = tmp_path / "log"

    async def broken_off() -> None:
        running = asyncio.create_task(execute(run, make_places(log, wait_s=0.01), seed=9, concurrency=2))
        while not run.done():
            await asyncio.sleep(0.001)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(broken_off())
    assert 1 <= len(run.done()) < NUM_TASKS
    assert run.status == "interrupted"
    asyncio.run(execute(run, make_places(log), seed=9))
    assert results(run) == undisturbed
    assert len(set(log.read_text().splitlines())) == NUM_TASKS * CALLS_PER_ATTEMPT


def test_an_exception_of_the_caller_keeps_what_is_done(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")

    def interrupt(trace: Trace) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(execute(run, make_places(tmp_path / "log"), seed=9, concurrency=1, on_trace=interrupt))
    assert len(run.done()) == 1
    assert run.status == "interrupted"


@pytest.mark.slow
def test_errors_are_kept_and_made_again_only_if_asked(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    run = create(tmp_path, {}, "riddles")
    log = tmp_path / "log"
    asyncio.run(execute(run, make_places(log, fails_on="question 3"), seed=9))
    failed = [trace for trace in run.traces() if trace.error]
    assert [trace.task_id for trace in failed] == ["3"]
    asyncio.run(execute(run, make_places(log), seed=9))
    assert run.done(errors=False) == run.done() - {failed[0].place}
    asyncio.run(execute(run, make_places(log), seed=9, redo_errors=True))
    assert results(run) == undisturbed
    assert [trace.error is None for trace in run.tries(failed[0].place)] == [False, True]


def test_an_agent_that_changed_under_its_name_is_refused(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    places = make_places(tmp_path / "log")
    asyncio.run(execute(run, places[:1], seed=9))
    changed = Agent("ada", places[0].agent.model, deliberate, system="Do not think.")
    with pytest.raises(StoreError, match="agent 'ada' is not the one"):
        asyncio.run(execute(run, [Place(changed, each.benchmark, each.task) for each in places], seed=9))


def limit_pages(run: Run, extra: int) -> None:
    (pages,) = run.database.read("PRAGMA page_count")[0]
    run.database.read(f"PRAGMA max_page_count = {pages + extra}")


async def forgiving(task: Task, ctx: Context) -> str:
    """A pattern that carries on whatever happens."""
    for number in range(40):
        try:
            noise = "".join(hashlib.sha256(f"{number} {part}".encode()).hexdigest() for part in range(40))
            ctx = await ctx.say(f"{task.prompt} {noise}").generate()
        except Exception:
            return "gave up"
    return ctx.text


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [deliberate, forgiving])
def test_a_full_disk_stops_the_run_with_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pattern: Any
) -> None:
    run = create(tmp_path, {}, "riddles")
    places = [
        Place(
            Agent("ada", each.agent.model, pattern, tools=each.agent.tools, retry=Retry(1)), each.benchmark, each.task
        )
        for each in make_places(tmp_path / "log")
    ]
    asyncio.run(execute(run, places[:1], seed=9))
    before = results(run)
    limit_pages(run, 3)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreError, match=r"is full .* make room, then resume"):
        asyncio.run(execute(run, places, seed=9, concurrency=4))
    assert caplog.records == []  # asyncio has nothing to say of the attempts beside it
    assert results(run) == before
    run.database.read("PRAGMA max_page_count = 1000000")
    asyncio.run(execute(run, places, seed=9))
    assert len(run.done()) == NUM_TASKS
    assert not any(trace.error or trace.answer == "gave up" for trace in run.traces())
    assert run.status == "done"


@pytest.mark.slow
@pytest.mark.parametrize("limits", [Limits(tokens=300), Limits(calls=20)])
def test_a_budget_of_the_whole_run_stops_it_and_more_finishes_it(
    tmp_path: Path, undisturbed: dict[str, Any], limits: Limits
) -> None:
    run = create(tmp_path, {}, "riddles")
    places = make_places(tmp_path / "log")
    with pytest.raises(LimitExceeded, match=r"of the whole run .*with [1-9] attempts to go"):
        asyncio.run(execute(run, places, seed=9, concurrency=1, budget=Budget(limits)))
    assert run.status == "interrupted"
    assert all(trace.stop_reason == "done" for trace in run.traces())
    assert len(run.done()) < NUM_TASKS
    asyncio.run(execute(run, places, seed=9, budget=Budget(Limits())))
    assert len(run.done()) == NUM_TASKS


def test_what_was_spent_before_counts_when_a_run_goes_on(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    places = make_places(tmp_path / "log")
    asyncio.run(execute(run, places[:2], seed=9))
    usage, num_calls = run.spent()
    traces = list(run.traces())
    assert usage.total_tokens == sum(trace.usage.total_tokens for trace in traces)
    assert num_calls == sum(len(trace.calls) for trace in traces) == 2 * (CALLS_PER_ATTEMPT + 2)
    with pytest.raises(LimitExceeded, match="3 attempts to go"):
        asyncio.run(execute(run, places, seed=9, budget=Budget(Limits(tokens=usage.total_tokens))))
    asyncio.run(execute(run, places, seed=9, budget=Budget(Limits(calls=5 * (CALLS_PER_ATTEMPT + 2)))))
    assert len(run.done()) == NUM_TASKS


def test_two_tasks_or_agents_of_one_name_are_refused(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    first, second, *_ = make_places(tmp_path / "log")
    twin = Place(first.agent, first.benchmark, Task(first.task.id, "another question"))
    with pytest.raises(StoreError, match="task '0' of riddles is not the one"):
        asyncio.run(execute(run, [first, twin], seed=9))
    other = Agent("ada", first.agent.model, forgiving)
    with pytest.raises(StoreError, match="agent 'ada' is not the one"):
        asyncio.run(execute(run, [first, Place(other, second.benchmark, second.task)], seed=9))


def test_a_time_limit_of_the_whole_run_stops_it(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    with pytest.raises(LimitExceeded, match="time budget of the whole run"):
        asyncio.run(
            execute(run, make_places(tmp_path / "log", wait_s=30.0), seed=9, budget=Budget(Limits(seconds=0.1)))
        )
    assert run.status == "interrupted"


def test_an_attempt_stopped_by_its_own_limit_is_kept(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    places = [
        Place(Agent("ada", each.agent.model, deliberate, limits=Limits(calls=2)), each.benchmark, each.task)
        for each in make_places(tmp_path / "log")
    ]
    asyncio.run(execute(run, places, seed=9, budget=Budget(Limits(calls=1000))))
    assert [trace.stop_reason for trace in run.traces()] == ["calls"] * NUM_TASKS


def test_replies_are_found_by_their_request(tmp_path: Path) -> None:
    run = create(tmp_path, {}, "riddles")
    asyncio.run(execute(run, make_places(tmp_path / "log"), seed=9))
    for trace in run.traces():
        for call in trace.calls:
            reply: Json | None = run.reply(call.request)
            assert reply is not None
            if call.kind == "generate":
                texts = [Completion.from_json(each).message.text for each in reply["completions"]]
                assert texts == [trace.nodes[node].message.text for node in call.nodes]
