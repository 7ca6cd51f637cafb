"""Models that give each of their replies once go on where an interrupted run stopped: its agents', and its judges'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.experiment.rescore import rescore
from firsthand.loop.journal import MemoryJournal, skip_given
from firsthand.model import Completion, Model, Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.cassette import Cassette
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.execute import execute
from firsthand.runs.store import create
from firsthand.scorers.model_judge import judged_by, reference
from firsthand.task import Task
from firsthand.trace import Score, Trace

TASKS = [Task(str(number), "the one question", secret={"answer": "4"}) for number in range(4)]


class Stopped(BaseException):
    """A process that ends."""


def stop(*_: object) -> None:
    raise Stopped


async def thinks_twice(task: Any, ctx: Any) -> str:
    """Two calls an attempt; the process ends between those of the second one while `stops` is not empty."""
    first = (await ctx.say(task.prompt).generate()).text
    if stops and first == "3":
        stops.clear()
        raise Stopped
    return f"{first} {(await ctx.say(task.prompt).generate()).text}"


stops: list[int] = []


def cassette() -> Cassette:
    return Cassette({"the one question": ["1", "2", "3", "4", "5", "6", "7", "8"]})


def script() -> Scripted:
    return Scripted(["1", "2", "3", "4", "5", "6", "7", "8"])


def places(model: Model, pattern: Any = direct, scorers: Any = ()) -> list[Place]:
    agent, benchmark = Agent("a", model, pattern), Benchmark("same", lambda seed: TASKS, scorers)
    return [Place(agent, benchmark, task) for task in TASKS]


@pytest.mark.parametrize("model", [cassette, script])
def test_a_resumed_run_has_the_replies_of_an_undisturbed_one(tmp_path: Path, model: Callable[[], Model]) -> None:
    with create(tmp_path, {}, "order") as run:
        with pytest.raises(Stopped):
            asyncio.run(execute(run, places(model()), concurrency=1, on_trace=stop))
        asyncio.run(execute(run, places(model()), concurrency=1))
        assert [trace.answer for trace in run.traces()] == ["1", "2", "3", "4"]


def test_two_agents_with_a_cassette_each_go_on_in_their_own(tmp_path: Path) -> None:
    def both() -> list[Place]:
        benchmark = Benchmark("same", lambda seed: TASKS, scorers=())
        agents = Agent("a", Cassette({"the one question": list("1234")}), direct), Agent("b", cassette(), direct)
        return [Place(agent, benchmark, task) for task in TASKS for agent in agents]

    with create(tmp_path, {}, "both") as run:
        with pytest.raises(Stopped):
            asyncio.run(execute(run, both(), concurrency=1, on_trace=stop))
        asyncio.run(execute(run, both(), concurrency=1))
        for agent in "ab":
            assert [trace.answer for trace in run.traces(agent=agent)] == ["1", "2", "3", "4"]


def test_two_agents_with_one_cassette_go_on_in_it_together(tmp_path: Path) -> None:
    def both() -> list[Place]:
        benchmark, tape = Benchmark("same", lambda seed: TASKS, scorers=()), cassette()
        agents = Agent("a", tape, direct), Agent("b", tape, direct)
        return [Place(agent, benchmark, task) for task in TASKS for agent in agents]

    with create(tmp_path, {}, "shared") as run:
        with pytest.raises(Stopped):
            asyncio.run(execute(run, both(), concurrency=1, on_trace=stop))
        asyncio.run(execute(run, both(), concurrency=1))
        assert [trace.answer for trace in run.traces()] == list("12345678")


@pytest.mark.parametrize("model", [cassette, script])
def test_the_replies_of_an_attempt_that_was_cut_off_count_too(tmp_path: Path, model: Callable[[], Model]) -> None:
    stops.append(1)
    with create(tmp_path, {}, "order") as run:
        with pytest.raises(Stopped):
            asyncio.run(execute(run, places(model(), thinks_twice), concurrency=1))
        asyncio.run(execute(run, places(model(), thinks_twice), concurrency=1))
        assert [trace.answer for trace in run.traces()] == ["1 2", "3 4", "5 6", "7 8"]


def judge() -> Any:
    """A judge whose verdicts are told apart by their confidence."""
    said = [
        json.dumps({"extracted_final_answer": "4", "reasoning": "same", "correct": "yes", "confidence": confidence})
        for confidence in (11, 22, 33, 44, 55, 66, 77, 88)
    ]
    return judged_by(reference(judge="scripted:echo", protocol="hle"), Scripted(said))


def confidence(score: Any) -> int:
    said = score.detail["trace"]["nodes"][-1]["message"]["parts"][0]["text"]
    return int(json.loads(said)["confidence"])


def test_judges_of_a_resumed_run_go_on_too(tmp_path: Path) -> None:
    def verdicts(run: Any) -> list[Any]:
        return [confidence(trace.scores[0]) for trace in run.traces()]

    with create(tmp_path, {}, "undisturbed") as run:
        asyncio.run(execute(run, places(Scripted({"": "x"}), scorers=(judge(),)), concurrency=1))
        expected = verdicts(run)
    assert expected == [11, 22, 33, 44]
    with create(tmp_path, {}, "judged") as run:
        with pytest.raises(Stopped):
            asyncio.run(execute(run, places(Scripted({"": "x"}), scorers=(judge(),)), concurrency=1, on_trace=stop))
        asyncio.run(execute(run, places(Scripted({"": "x"}), scorers=(judge(),)), concurrency=1))
        assert verdicts(run) == expected


def test_a_scoring_that_was_interrupted_goes_on_in_order(tmp_path: Path) -> None:
    def verdicts(run: Any, name: str) -> list[Any]:
        return [confidence(trace.score(name)) for trace in run.traces()]

    def stop_at(trace: Trace, score: Score) -> None:
        raise Stopped

    with create(tmp_path, {}, "scored") as run:
        asyncio.run(execute(run, places(Scripted({"": "x"})), concurrency=1))
        asyncio.run(rescore(run, judge(), name="whole", concurrency=1))
        with pytest.raises(Stopped):
            asyncio.run(rescore(run, judge(), name="again", concurrency=1, on_score=stop_at))
        asyncio.run(rescore(run, judge(), name="again", concurrency=1))
        assert verdicts(run, "again") == verdicts(run, "whole") and len(set(verdicts(run, "again"))) == 4


def test_a_script_goes_on_after_the_last_reply_and_never_back() -> None:
    model = script()
    model.skip_replies({0, 2})
    assert [each.message.text for each in asyncio.run(model.complete("q", Sampling(), n=2))] == ["4", "5"]
    model.skip_replies({1})
    model.skip_replies(())
    (made,) = asyncio.run(model.complete("q", Sampling()))
    assert (made.message.text, made.reply_index) == ("6", 5)
    assert Completion.from_json(made.to_json()).reply_index == 5


def test_a_script_of_patterns_has_no_order() -> None:
    for model in (Scripted({"": "x"}), Scripted(lambda messages, sampling, index: "x")):
        (made,) = asyncio.run(model.complete("q", Sampling()))
        assert made.reply_index is None and "reply_index" not in made.to_json() and not model.is_ordered


def test_what_a_journal_holds_beside_indices_skips_nothing() -> None:
    journal, model = MemoryJournal(), cassette()
    for place, index in enumerate((None, "0", 0.0, [0], True, -1, 8)):
        journal.record(str(place), "r", {"completions": [{"reply_index": index}, {}, 0, "reply_index"]})
    for place, odd in enumerate((None, 5, "reply_index", {"reply_index": 0})):
        journal.record(f"odd {place}", "r", {"completions": odd})
    journal.record("tool", "r", {"content": "x"})
    skip_given(model, [journal])
    assert model.unplayed == 8
    skip_given(None, [journal])
