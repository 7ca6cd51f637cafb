"""A dead endpoint ends a run after a few failures in a row, with what is done kept, and resuming finishes the rest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Benchmark, Task
from firsthand.cli import main
from firsthand.errors import ConfigError, ModelError, TooManyFailures, Unreachable
from firsthand.loop.concurrency import Retry
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.openai import open_model
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.execute import UNREACHABLE_IN_A_ROW, execute
from firsthand.runs.store import Run, create
from firsthand.scorers.match import exact


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with create(tmp_path, {}, "b") as made:
        yield made


def script(fails: Callable[[int], bool], error: type[ModelError]) -> Scripted:
    """A model that fails at the tasks of some numbers."""

    def reply(messages: Any, sampling: Sampling, index: int) -> str:
        if fails(int(messages[-1].text.split()[0])):
            raise error("gone")
        return "x"

    return Scripted(reply)


def places(model: Any, tasks: int = 12) -> list[Place]:
    agent = Agent("a", model, direct, retry=Retry(1))
    benchmark = Benchmark("b", lambda seed: [], (exact,))
    return [
        Place(agent, benchmark, Task(str(number), f"{number} ?", secret={"answer": "x"})) for number in range(tasks)
    ]


def carry_out(run: Run, model: Any, **options: Any) -> None:
    asyncio.run(execute(run, places(model), concurrency=1, **options))


@pytest.mark.slow
def test_a_server_that_goes_away_ends_the_run_and_resuming_finishes_it(run: Run) -> None:
    gone = script(lambda number: number >= 4, Unreachable)
    with pytest.raises(TooManyFailures, match=r"5 attempts in a row failed, the last with: gone; .* 8 attempts to go"):
        carry_out(run, gone)
    assert len(gone.asked) == 4 + UNREACHABLE_IN_A_ROW
    assert [trace.error for trace in run.traces()] == [None] * 4
    carry_out(run, again := script(lambda number: False, Unreachable))
    assert len(again.asked) == 8 and [trace.error for trace in run.traces()] == [None] * 12


def test_failures_with_answers_between_them_are_kept_and_end_nothing(run: Run) -> None:
    carry_out(run, script(lambda number: number % 3 > 0, Unreachable))
    assert [trace.error is not None for trace in run.traces()].count(True) == 8 and len(run.done()) == 12


def test_failures_at_the_end_that_are_too_few_are_kept(run: Run) -> None:
    carry_out(run, script(lambda number: number >= 9, Unreachable))
    assert len(run.done()) == 12 and sum(trace.error is not None for trace in run.traces()) == 3


@pytest.mark.slow
def test_other_errors_end_a_run_only_if_asked_and_are_kept(run: Run, tmp_path: Path) -> None:
    carry_out(run, script(lambda number: True, ModelError))
    assert len(run.done()) == 12
    with create(tmp_path, {}, "c") as other:
        with pytest.raises(TooManyFailures, match="3 attempts in a row failed"):
            carry_out(other, script(lambda number: number >= 2, ModelError), fail_fast=3)
        assert [trace.error is not None for trace in other.traces()] == [False, False, True, True, True]


@pytest.mark.slow
def test_failures_that_end_with_the_last_place_end_the_run_as_others_do(run: Run, tmp_path: Path) -> None:
    for number, (fails, error, options, left, kept) in enumerate((
        (9, ModelError, {"fail_fast": 3}, 0, 12), (9, ModelError, {"fail_fast": 4}, None, 12),
        (9, Unreachable, {"fail_fast": 3}, 3, 9), (7, Unreachable, {}, 5, 7), (8, Unreachable, {}, None, 12),
        (11, ModelError, {"fail_fast": 1}, 0, 12), (0, ModelError, {"fail_fast": 12}, 0, 12), (7, ModelError, {}, None, 12),
    )):  # fmt: skip
        with create(tmp_path, {}, f"of-{number}") as made:
            model = script(lambda at, fails=fails: at >= fails, error)  # type: ignore[misc]
            if left is None:
                carry_out(made, model, **options)
            else:
                with pytest.raises(TooManyFailures) as told:
                    carry_out(made, model, **options)
                assert str(told.value) == (
                    f"{12 - fails} attempts in a row failed, the last with: gone; what is done is kept, and {left} "
                    f"attempts to go: mend it, then `firsthand run --resume {made.id}` finishes them "
                    "(--fail-fast 0 never stops)"
                )
            assert (len(made.done()), len(model.asked)) == (kept, 12), number


def test_zero_never_ends_a_run(run: Run) -> None:
    carry_out(run, script(lambda number: True, Unreachable), fail_fast=0)
    assert len(run.done()) == 12


@pytest.mark.slow
def test_an_endpoint_that_refuses_is_unreachable_and_the_command_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Retry, "wait_s", lambda *args: 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        name = f"m@http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(Unreachable):
            asyncio.run(open_model(name).complete("x", Sampling()))
        assert main(["run", "arithmetic", "--limit", "8", "--model", f"openai:{name}", "--fail-fast", "2"]) == 3
    err = capsys.readouterr().err
    assert "2 attempts in a row failed" in err and "8 attempts to go" in err and "firsthand run --resume" in err


def test_a_negative_number_of_failures_is_refused() -> None:
    from firsthand.commands.run import Config

    with pytest.raises(ConfigError, match="fail_fast is -1"):
        Config(benchmarks=("arithmetic",), fail_fast=-1)
    assert Config(benchmarks=("arithmetic",), fail_fast=0).fail_fast == 0
