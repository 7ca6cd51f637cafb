"""reasoning-gym's generators: the scores of its own package, and no answer that runs as code outside the sandbox."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, UnknownName
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from namespaces import WHY_NOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("reasoning_gym"), reason="needs pip install 'firsthand[gym]'"),
]


def scored(benchmark: Benchmark, index: int, answer: str) -> float | None:
    agent = Agent("a", Scripted([answer]), direct)
    return asyncio.run(rollout(agent, benchmark.tasks(3)[index], benchmark=benchmark, seed=3)).value()


@pytest.mark.parametrize("name", ["leg_counting", "spell_backward"])
def test_scores_are_those_of_the_package(name: str):
    import reasoning_gym

    benchmark = catalog.benchmark(f"reasoning_gym:task={name}:tasks=4")
    theirs = reasoning_gym.create_dataset(name, size=4, seed=3)
    for index, entry in enumerate(theirs):
        task = benchmark.tasks(3)[index]
        assert task.prompt == entry["question"] and task.secret["answer"] == entry["answer"]
        for answer in (entry["answer"], "7", f"{entry['answer']}x"):
            assert scored(benchmark, index, answer) == pytest.approx(theirs.score_answer(answer=answer, entry=entry))


def test_wrong_names_are_told_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'leg_counting'"):
        catalog.benchmark("reasoning_gym:task=leg_count")
    with pytest.raises(ConfigError, match="tasks is 0"):
        catalog.benchmark("reasoning_gym:tasks=0")


def test_generators_whose_scorer_evaluates_the_answer_are_known():
    from firsthand.benchmarks.reasoning_gym import runs_code

    assert all(map(runs_code, ("countdown", "puzzle24", "n_queens", "string_insertion", "simple_integration")))
    assert not runs_code("leg_counting") and not runs_code("spell_backward")


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
def test_an_answer_that_is_code_runs_in_the_sandbox_and_earns_nothing(tmp_path: Path):
    import reasoning_gym

    trap = tmp_path / "ran"
    benchmark = catalog.benchmark("reasoning_gym:task=countdown:tasks=2")
    hostile = scored(benchmark, 0, f"__import__('pathlib').Path({str(trap)!r}).touch() or 1")
    theirs = reasoning_gym.create_dataset("countdown", size=2, seed=3)
    wrong = "1 + 1"
    assert not trap.exists() and hostile is not None and hostile < 1
    assert scored(benchmark, 1, wrong) == pytest.approx(theirs.score_answer(answer=wrong, entry=theirs[1]))
