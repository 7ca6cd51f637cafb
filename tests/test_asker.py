"""Who asks a model: attempts say it, a model that runs here reads it and shares its steps fairly."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.message import Message
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout, rollouts
from firsthand.runs.dialogue import Dialogue
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.system.request_owner import MAX_CHARS, current, set_owner
from firsthand.task import Task
from firsthand.trace import Score, Trace
from tiny import write_model


def test_a_name_is_part_of_whoever_asks_outside_and_ends_with_its_block() -> None:
    async def inner(name: str) -> str:
        with set_owner(name):
            await asyncio.sleep(0)
            return current()

    async def outer() -> tuple[str, ...]:
        with set_owner("run"):
            return (*await asyncio.gather(inner("a"), inner("b")), current())

    assert asyncio.run(outer()) == ("run/a", "run/b", "run")
    with pytest.raises(ZeroDivisionError), set_owner("lost"):
        raise ZeroDivisionError
    assert current() == ""


def test_names_of_any_length_are_told_apart_in_the_length_that_an_engine_takes() -> None:
    found = set()
    for name in ("x" * 10**5 + "a", "x" * 10**5 + "b", "\ud800" * 300, "x" * MAX_CHARS, "x" * (MAX_CHARS - 1)):
        with set_owner(name):
            found.add(current())
            assert len(current()) <= MAX_CHARS
            with set_owner("agent"):
                found.add(current())
                assert len(current()) <= MAX_CHARS
    assert len(found) == 10


def test_attempts_ask_for_their_run_and_agent_judges_and_conversations_for_themselves(tmp_path: Path) -> None:
    heard: list[str] = []

    def reply(messages: Sequence[Message], sampling: Sampling, index: int) -> str:
        heard.append(current())
        return "4"

    async def thinking(task: Task, ctx: Context) -> str:
        return (await ctx.say(task.question).generate()).text

    model = Scripted(reply)
    agents = [Agent(name, model, thinking) for name in ("one", "two")]

    async def judged(task: Task, trace: Trace) -> Score:
        verdict = await rollout(Agent("the judge", model, thinking), task)
        return Score("judged", float(verdict.answer == "4"))

    benchmark = Benchmark("b", lambda seed: [Task("t", "1 + 1?")], scorers=(judged,))
    run = create(tmp_path, {}, "asked")
    places = [Place(agent, benchmark, Task("t", "1 + 1?")) for agent in agents]

    async def everything() -> None:
        await execute(run, places, concurrency=1)
        await rollout(agents[0], Task("t", "1 + 1?"))
        await Dialogue(agents[1]).ask("Hello?")
        heard.append(current())

    asyncio.run(everything())
    assert [score.value for trace in run.traces() for score in trace.scores] == [1.0, 1.0]
    conversation = heard[-2]
    assert conversation.startswith("conversation ")
    assert heard == [
        f"{run.id}/one", f"{run.id}/the judge", f"{run.id}/two", f"{run.id}/the judge", "one", conversation, ""
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["complete", "stream", "score"])
def test_two_agents_on_one_local_model_share_its_steps_fairly(tmp_path: Path, way: str) -> None:
    config = EngineConfig(kv_memory_bytes=8 << 20, threads=1, max_sequences=2, max_batch_tokens=32)
    model = Local(write_model(tmp_path / "m"), name="tiny", config=config)
    sampling = Sampling(max_tokens=12, ignore_eos=True)

    async def scoring(task: Task, ctx: Context) -> str:
        return str((await ctx.score([f" {task.question} {word}" for word in ("one", "two")]))[0])

    pattern = scoring if way == "score" else direct
    agents = {name: Agent(name, model, pattern, sampling=sampling) for name in ("many", "few")}
    benchmark = Benchmark("b", lambda seed: [], scorers=())
    counts = {"many": 60, "few": 4}
    places = [
        Place(agents[name], benchmark, Task(f"{name} {number}", f"What is {name} {number}?"))
        for name in counts
        for number in range(counts[name])
    ]

    async def finished() -> list[str]:
        await model.load()
        listener = (lambda step: None) if way == "stream" else None
        traces = rollouts(places, concurrency=len(places), listener=lambda place: listener)
        found = [trace async for trace in traces]
        assert all(trace.error is None for trace in found)
        return [trace.agent_name for trace in found]

    order = asyncio.run(finished())
    model.close()
    ahead = order[: len(order) - order[::-1].index("few")].count("many")
    assert ahead < 30, f"{ahead} of the many were done before the last of the few, who came after them all"
