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

    benchmark = catalog.benchmark(f"reasoning_gym:task={name}:tasks=2")
    theirs = reasoning_gym.create_dataset(name, size=2, seed=3)
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


@pytest.mark.parametrize("answer", [
    "9 - 1*(2 + .5)/3", "x**2/3 + C", "5*sin(2*x)*exp(-x) + Abs(y)", "0x5b993", "1.5e3", "3!", "_ Q _\n_ _ Q", "EACADDDDB",
    "7", "exit", "",
])  # fmt: skip
def test_formulas_rows_and_single_words_run_nothing(answer: str):
    from firsthand.benchmarks.reasoning_gym import is_plain

    assert is_plain(answer, lists=False) and is_plain(answer, lists=True)


@pytest.mark.parametrize("answer", [
    "exit()", "print(1)", "(exit)()", "x.real()", "'1'", "[x for x in y]", "sin('exit()')", "x + '1'",
    chr(0x1D41E) + chr(0x1D431) + "()",
    "The answer is 24", "1 if x else 2", "f'{1}'", "x[0]", "(x := 3)", "1.real", "{1: 2}", "a\n;exit", "e\\\nxit()",
])  # fmt: skip
def test_an_answer_that_could_run_something_is_not_handed_to_eval(answer: str):
    from firsthand.benchmarks.reasoning_gym import is_plain

    assert not is_plain(answer, lists=False) and (answer == "'1'" or not is_plain(answer, lists=True))


def test_lists_of_texts_are_for_scorers_that_evaluate_them_once():
    from firsthand.benchmarks.reasoning_gym import is_plain

    for answer in ("['a', 'b']", "[[1, 0], [0, 1]]", "('x',)"):
        assert is_plain(answer, lists=True) and not is_plain(answer, lists=False)
    assert not is_plain("[exit()]", lists=True)


FORGED = "__import__('os').write(1, b'1.0\\n') and __import__('os')._exit(0)"


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
@pytest.mark.parametrize("name", ["puzzle24", "string_insertion"])
def test_an_answer_that_prints_its_own_score_is_one_that_cannot_be_read(name: str):
    benchmark = catalog.benchmark(f"reasoning_gym:task={name}:tasks=2")
    for answer in (FORGED, f"[{FORGED}]"):
        assert scored(benchmark, 0, answer) == pytest.approx(0.01 if name == "puzzle24" else 0.0)


@pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
def test_a_scorer_that_an_answer_could_hold_up_runs_in_the_sandbox():
    from firsthand.benchmarks import reasoning_gym as module

    assert module.compares_texts("leg_counting") and not module.compares_texts("coin_flip")
    assert not module.compares_texts("rubiks_cube")
    benchmark = catalog.benchmark("reasoning_gym:task=coin_flip:tasks=2")
    assert "gives 1 to a 0" in benchmark.protocol
    assert scored(benchmark, 0, "1e999999") == 0.0  # an OverflowError of the scorer's own, and not the run's
    assert scored(benchmark, 0, "1/0") == 0.0
