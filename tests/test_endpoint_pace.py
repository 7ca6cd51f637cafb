"""Attempts that ask one endpoint keep its rate limit together, and none is lost to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Experiment, Task
from firsthand.arena.judge_votes import _verdict
from firsthand.context import Context
from firsthand.errors import TransientError
from firsthand.experiment.rescore import rescore
from firsthand.loop import endpoint_pace
from firsthand.loop.concurrency import Retry, with_retries
from firsthand.loop.endpoint_pace import JITTER, MIN_WAIT_S, Pace, Paces, pace_of, share_paces
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.providers.openai_errors import Endpoint
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.graph.graph_model import GraphModel
from firsthand.scorers.match import exact
from firsthand.scorers.model_judge import judged_by, reference

QUICK = Retry(attempts=3, first_wait_s=0.001, max_wait_s=0.5)


def busy(asked_s: float | None, *, is_for_all: bool = True) -> TransientError:
    return TransientError("429", asked_s, is_for_all=is_for_all)


class Limited(Scripted):
    """A model that takes 4 requests within a twentieth of a second."""

    def __init__(self) -> None:
        super().__init__({"": "x"}, name="scripted:limited")
        self.taken: list[float] = []
        self.refusals = 0

    async def complete(self, *args: Any, **named: Any) -> Any:
        now = asyncio.get_running_loop().time()
        self.taken = [at for at in self.taken if now - at < 0.05]
        if len(self.taken) == 4:
            self.refusals += 1
            raise busy(0.05)
        self.taken.append(now)
        await asyncio.sleep(0.001)
        return await super().complete(*args, **named)


async def once(task: Task, ctx: Context) -> str:
    return (await ctx.say("What?").generate()).text


def test_a_rate_limit_below_the_concurrency_loses_no_attempt(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    model = Limited()
    benchmark = Benchmark("own", lambda seed: [Task(f"t{n}", "What?") for n in range(60)], (exact,))
    with Experiment([Agent("a", model, once, retry=Retry(attempts=3))], benchmark).run() as run:
        traces = list(run.traces())
        assert len(traces) == 60 and all(trace.answer == "x" and trace.error is None for trace in traces)
        notes = [event.data for trace in traces for event in trace.events if event.kind == "retry"]
        assert len(notes) == model.refusals < 60, "fewer ask at a time once it has refused"
        assert all(0.05 <= note["wait_s"] <= 0.05 * (1 + JITTER) + 0.001 for note in notes)


def tries(outcomes: list[TransientError | str], retry: Retry, pace: Pace | None) -> Callable[[], Awaitable[Any]]:
    async def all() -> Any:
        left = iter(outcomes)

        async def action() -> str:
            outcome = next(left)
            if isinstance(outcome, TransientError):
                raise outcome
            return outcome

        told: list[int] = []
        try:
            said = await with_retries(action, retry, on_retry=lambda made, *rest: told.append(made), pace=pace)
        except TransientError as error:
            said = str(error)
        return said, told

    return all


@pytest.mark.parametrize(
    ("error", "is_counted"),
    [
        (busy(0.001), False),
        (busy(0.0), False),
        (busy(0.001, is_for_all=False), True),
        (busy(None), True),
        (busy(0.6), True),
    ],
)
def test_refusals_with_a_time_to_come_back_use_up_no_tries(error: TransientError, is_counted: bool) -> None:
    retry = Retry(attempts=2, first_wait_s=0.001, max_wait_s=0.5)

    async def main() -> Any:
        return await tries([error, error, "done"], retry, Pace())()

    assert asyncio.run(main()) == (("429", [1]) if is_counted else ("done", [1, 2]))


def test_statuses_that_say_too_much_is_asked_hold_for_all_who_ask() -> None:
    endpoint = Endpoint("openai:m", "m", (), 1.0)
    for status, holds in ((429, True), (503, True), (529, True), (500, False), (408, False)):
        error = endpoint.status(status, {}, {"retry-after": "2"})
        assert isinstance(error, TransientError) and (error.is_for_all, error.retry_after_s) == (holds, 2), status


def test_one_try_is_one_try_and_the_time_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(retry: Retry) -> Any:
        return await tries([busy(0.001)] * 5, retry, Pace())()

    assert asyncio.run(main(Retry(attempts=1))) == ("429", [])
    assert asyncio.run(main(Retry(attempts=2, asked_s=0.03))) == ("429", [1, 2]), "the first is the beginning"
    monkeypatch.setattr(endpoint_pace, "SILENT_S", 0.0)
    assert asyncio.run(main(Retry(attempts=2))) == ("429", [1, 2]), "it answers nobody"


def test_refusals_halve_how_many_ask_once_a_pause_and_answers_let_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        pace = Pace()
        turns = [pace.turn() for _ in range(8)]
        for turn in turns:
            await turn.__aenter__()
        wait_s = pace.refused(0.08)
        assert wait_s is not None and 0.08 <= wait_s <= 0.08 * (1 + JITTER) and pace._most == 4
        await turns.pop().__aexit__(None, None, None)
        assert pace.refused(0.01) and pace._most == 4, "sent with the one that was refused"
        for turn in turns:
            await turn.__aexit__(None, None, None)
        began, under_way, most = asyncio.get_running_loop().time(), 0, 0

        async def ask() -> float:
            nonlocal under_way, most
            async with pace.turn():
                at = asyncio.get_running_loop().time()
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.002)
                under_way -= 1
                return at

        asked = [asyncio.create_task(ask()) for _ in range(12)]
        asked[5].cancel()
        asked[9].cancel()
        times = [each for each in await asyncio.gather(*asked, return_exceptions=True) if isinstance(each, float)]
        assert len(times) == 10 and most == 4 and min(times) >= began + 0.07
        pace.answered()
        assert pace._most == 4.25
        assert (pace.refused(0.0) or 0) >= MIN_WAIT_S and pace._most == 1, "one asks at least"
        monkeypatch.setattr(endpoint_pace, "SILENT_S", -1.0)
        assert pace.refused(0.01) is None
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask() for _ in range(5)))
        assert most == 5 and asyncio.get_running_loop().time() - began < 0.04, "no pause, and all at once"

    asyncio.run(main())


def test_a_turn_passes_to_the_next_who_waits_and_wakes_no_more_than_may_ask() -> None:
    async def main() -> None:
        pace = Pace()
        pace._most = 1

        async def ask() -> None:
            async with pace.turn():
                await asyncio.sleep(0)

        first = pace.turn()
        await first.__aenter__()
        asked = [asyncio.create_task(ask()) for _ in range(200)]
        await asyncio.sleep(0)
        pace._until_s = asyncio.get_running_loop().time() + 0.05
        await first.__aexit__(None, None, None)
        assert len(pace._waiting) == 199, "one may ask"
        await asyncio.sleep(0.001)
        asked[0].cancel()  # it was told, and waits for the end of the pause
        async with asyncio.timeout(5):
            done = await asyncio.gather(*asked, return_exceptions=True)
        assert [each for each in done if each is not None] == [done[0]]

    asyncio.run(main())


def test_a_model_has_one_pace_in_a_run_and_none_elsewhere() -> None:
    async def main() -> None:
        assert pace_of("m") is None
        paces = Paces()
        share_paces(paces)
        one, other = object(), object()
        assert pace_of(one) is pace_of(one) is not None and pace_of(one) is not pace_of(other)
        assert await asyncio.to_thread(lambda: asyncio.run(_pace(one))) is None, "another event loop"

    asyncio.run(main())


async def _pace(model: object) -> Pace | None:
    return pace_of(model)


class Refusing(Scripted):
    """A model that refuses each question more often than a call is tried, and answers then."""

    def __init__(self, answer: str) -> None:
        super().__init__(lambda *_: answer, name="scripted:refusing")
        self.refusals = 0

    async def complete(self, *args: Any, **named: Any) -> Any:
        self.refusals += 1
        if self.refusals % 7:
            raise busy(0.001)
        return await super().complete(*args, **named)


def test_votes_graphs_and_later_scores_lose_nothing_to_a_rate_limit(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert Retry().attempts < 7
    assert asyncio.run(_verdict(model := Refusing("[[A]]"), "?", Sampling())) == "a" and model.refusals == 7
    graph = GraphModel(model := Refusing("yes"))
    assert [asyncio.run(graph.ask_choice([user("?")], ["yes"])) for _ in range(2)] == ["yes"] * 2
    assert model.refusals == 14 and graph.calls == 2
    judge = Refusing(
        json.dumps({"extracted_final_answer": "4", "reasoning": "same", "correct": "yes", "confidence": 80})
    )
    scorer = judged_by(reference(judge="scripted:echo", protocol="hle"), judge)
    benchmark = Benchmark(
        "own", lambda seed: [Task(f"t{n}", "What?", secret={"answer": "x"}) for n in range(3)], (exact,)
    )
    with Experiment([Agent("a", Scripted({"": "x"}), once)], benchmark).run() as run:
        found = asyncio.run(rescore(run, scorer))
    assert (found.scored, found.failed, judge.refusals) == (3, 0, 21)
