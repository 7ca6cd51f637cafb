"""The game of 24: its truth, its checker, its puzzles, and the simulated model that plays it."""

import asyncio
import math
import os
from collections import Counter
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sims import majority

from cpu_time import at_most_cpu_s
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.game24 import _span, game24, generate, is_solution, thoughts
from firsthand.benchmarks.sources.tot_data import prompts
from firsthand.errors import ConfigError, DataError
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.self_consistency import self_consistency
from firsthand.patterns.tot import tot
from firsthand.providers.game24_solver import makes_24, moves, position, reachable, solution
from firsthand.providers.sim import Errors, Sim, open_model, uniform
from firsthand.rollout import rollout

PLACES = [Path(os.environ.get("FIRSTHAND_DATA", "/nowhere")), *(p / "shared" / "data" for p in Path(__file__).parents)]
DATA = next((place for place in PLACES if (place / "reasoning" / "game24.csv").is_file()), None)
needs_data = pytest.mark.skipif(DATA is None, reason="the puzzles are not on this machine")
BENCHMARK = game24(data="generated")


@pytest.mark.parametrize(
    ("answer", "holds"),
    [
        ("(10 - 4) * (9 - 5)", True),
        ("Answer: (10 - 4) * (9 - 5) = 24", True),
        ("let me see\nanswer: (10−4)×(9−5) = 24\n", True),
        ("(10 - 4) * (9 - 5) = 25", True),  # the expression counts, not what is said of it
        ("10 + 9 + 5", False),
        ("(10 - 4) * (9 - 5) * 1", False),
        ("4 * 5 + 9 - 10", False),
        ("24", False),
        ("", False),
        ("4 ** 9 ** 10 ** 5", False),
        ("4 // 0 + 9 + 5 + 10", False),
        ("4 / (5 - 5) + 9 + 10", False),
        ("__import__('os')", False),
        ("(" * 150 + "4" + ")" * 150, False),
        ("9" * 199, False),
        ("24 = (10 - 4) * (9 - 5)", True),
        ("Answer: 24 = (10 - 4) * (9 - 5) = 24", True),
        ("25 = (10 - 4) * (9 - 5)", False),  # only the goal may stand before the expression
        ("10 + 9 + 5 = (10 - 4) * (9 - 5)", False),  # the second of two expressions does not count
        ("24 = 10 + 9 + 5 = (10 - 4) * (9 - 5)", False),
        ("24 =", False),
        ("(10 - 4)(9 - 5)", True),
        ("(10 - 4) (9 - 5).", True),
        (r"$(10 - 4) \times (9 - 5) = 24$", True),
        (r"\(\left(10 - 4\right) \cdot (9 - 5) = 24\).", True),
        (r"\[24 = \boxed{(10 - 4) \cdot (9 - 5)}\]", True),
        (r"$24 = (10 - 4) \times (9 - 5)$", True),
        ("**Answer:** (10 - 4) * (9 - 5)", True),
        ("**(10 - 4) * (9 - 5) = 24**", True),
        ("`(10 - 4) * (9 - 5)`\t", True),
        ("__(10 - 4) * (9 - 5)__", True),
        (r"(10 - 4) \frac (9 - 5)", False),
    ],
)
def test_an_answer_is_checked_exactly(answer, holds):
    assert is_solution(answer, "4 5 9 10") is holds


@pytest.mark.parametrize(
    ("expression", "numbers", "holds"),
    [
        ("8 * 3", "3 3 8 8", False), ("8 * 3 * 8 / 8", "3 3 8 8", False), ("8 * 3 + 8 - 8", "3 3 8 8", False),
        ("8 / (3 - 8 / 3)", "3 3 8 8", True), ("8 * 3", "3 8", True), ("3 * 8 * 8 / 8", "3 8 8 8", True),
        ("24", "24", True), ("24", "24 24", False), ("12 + 12", "12 12", True), ("12 + 12", "12", False),
        ("-(1 - 25)", "1 25", True), ("25 - 1 + 0 * 7", "1 25", False), ("2 ** 3 * 3", "2 3 3", False),
        ("4(1 + 2 + 3)", "1 2 3 4", True), ("4(5 + 1)(1)", "1 1 4 5", True), ("4(5)", "4 5", False),
        ("-4(1 - 7)", "1 4 7", True), ("96/2(1 + 1)", "1 1 2 96", False), ("96 / (2(1 + 1))", "1 1 2 96", True),
        ("(96 / 2)(1) / (1 + 1)", "1 1 1 2 96", True), ("48/2 * (1)", "1 2 48", True), ("48 / 2(1)", "1 2 48", True),
        ("16/4(6)", "4 6 16", False),
        ("24()", "24", False), ("4(*6)", "4 6", False), ("4(**6)", "4 6", False), (r"48 \div 2", "2 48", False),
    ],
)  # fmt: skip
def test_each_number_is_used_exactly_as_often_as_it_is_given(expression, numbers, holds):
    assert makes_24(expression, position(numbers)) == holds


@pytest.mark.parametrize(
    ("ranks", "span"),
    [("1", (1, 1)), ("901-1000", (901, 1000)), ("7-7", (7, 7)), ("0", None), ("0-5", None), ("5-4", None), ("-5", None),
     ("1-", None), ("", None), ("100000", None)],
)  # fmt: skip
def test_ranks_are_counted_from_one(ranks, span):
    if span is not None:
        assert _span(ranks) == span
        return
    with pytest.raises(ConfigError, match="ranks is"):
        _span(ranks)


def test_as_many_numbers_as_may_be_are_solved_and_no_more():
    assert reachable(position("1 1 1 1 1 24")) and not reachable(position("1 1 1 1 1 1 24"))
    assert solution(position("1 1 1 1 1 1 24")) is None and not reachable(()) and reachable(position("24"))


def test_fractions_on_the_way_are_exact():
    assert is_solution("8 / (3 - 8 / 3)", "3 3 8 8") and solution(position("3 3 8 8"))
    assert not is_solution("8 / (3 - 8 / 3)", "3 3 8 9")
    assert is_solution(r"8 \div (3 - 8 \div 3)", "3 3 8 8")


def test_hostile_answers_are_checked_in_no_time():
    with at_most_cpu_s(10):
        for piece in ("(", "-", "1+", "answer:", "\n", "1 "):
            assert not is_solution(piece * 200_000, "4 5 9 10")


@pytest.mark.slow
@given(st.lists(st.integers(1, 13), min_size=4, max_size=4))
def test_what_can_be_reached_has_a_solution_and_the_reverse(numbers):
    given_numbers = tuple(sorted(map(Fraction, numbers)))
    found = solution(given_numbers)
    assert (found is not None) == reachable(given_numbers)
    assert found is None or is_solution(found, " ".join(map(str, numbers)))
    assert reachable(given_numbers) == any(reachable(move.left) for move in moves(given_numbers))


@pytest.mark.slow
def test_generated_puzzles_are_solvable_different_and_the_same_everywhere():
    tasks = BENCHMARK.tasks(0)
    assert tasks == game24(data="generated").tasks(0) != BENCHMARK.tasks(1)
    assert len({task.metadata["numbers"] for task in tasks}) == len(tasks) == 100
    assert all(reachable(position(task.metadata["numbers"])) for task in tasks)
    assert generate(0, 10) == tasks[:10]
    assert len(tasks[0].metadata["examples"]) == 5


@pytest.mark.slow
@needs_data
def test_the_papers_puzzles_are_ranks_901_to_1000():
    benchmark = game24(data=str(DATA))
    tasks = benchmark.tasks(0)
    assert (tasks[0].id, tasks[0].metadata["numbers"], tasks[-1].id) == ("rank-0901", "4 5 6 10", "rank-1000")
    assert all(reachable(position(task.metadata["numbers"])) for task in tasks)
    assert len(game24(data=str(DATA), ranks="1-1362").tasks(0)) == 1362


def test_what_is_wrong_with_the_data_is_said(tmp_path):
    (tmp_path / "24.csv").write_text("Rank,Puzzles\n1,1 1 4 6\n2,one two\n")
    assert game24(data=str(tmp_path), ranks="1").tasks(0)[0].metadata["numbers"] == "1 1 4 6"
    for ranks, error, message in (
        ("2", DataError, "four numbers"),
        ("1-3", DataError, "at least 3 rows"),
        ("9-1", ConfigError, "range"),
    ):
        with pytest.raises(error, match=message):
            game24(data=str(tmp_path), ranks=ranks)
    with pytest.raises(DataError, match="has none of"):
        game24(data=str(tmp_path / "empty"))


@pytest.mark.slow
def test_prompts_are_the_papers_and_begin_with_what_is_shared():
    space = thoughts(BENCHMARK.tasks(0)[0])
    one, other = space.propose("").prompt, space.propose("4 + 5 = 9 (left: 6 9 10)\n").prompt
    assert other.endswith("Input: 6 9 10\nPossible next steps:\n")
    shared = other.removesuffix("6 9 10\nPossible next steps:\n")
    assert one.startswith(shared) and shared.endswith("Input: ") and len(shared) > 200
    assert space.value("4 + 5 = 9 (left: 6 9 10)\n")[0].prompt == prompts("game24")["value"].replace(
        "{input}", "6 9 10"
    )
    assert space.value("a\nb\nc\nd (left: 5)\n") == ()  # four steps and no answer: worth nothing, and nobody is asked
    assert space.valued("", [["so: sure", "likely", "Impossible"]]) == pytest.approx(21.001)


# -- the simulated model --


def rate(pattern, model, tasks, scorer="solved", seeds=1, **options):
    """The share of attempts that succeed."""

    async def all_of_them():
        return [
            await rollout(Agent("a", model, pattern, options), task, benchmark=BENCHMARK, seed=seed)
            for seed in range(seeds)
            for task in tasks
        ]

    traces = asyncio.run(all_of_them())
    assert not [trace.error for trace in traces if trace.error]
    return sum(trace.score(scorer).value for trace in traces) / len(traces)


def near(measured: float, theory: float, runs: int) -> bool:
    return abs(measured - theory) <= 3 * math.sqrt(max(theory * (1 - theory), 0.25 / runs) / runs)


@pytest.mark.slow
def test_the_simulated_model_is_found_by_name_and_repeats_itself():
    model = catalog.model("sim:game24:error=0.2:seed=3")
    assert (model.seed, model.errors) == (3, uniform(0.2)) and model.name.startswith("sim:")
    assert open_model("game24").errors == Errors() and open_model("game24").fingerprint != model.fingerprint
    for wrong in ("chess", "game24:eror=1", "game24:error=2", "game24:seed=x"):
        with pytest.raises(ConfigError):
            open_model(wrong)
    prompt = [user(thoughts(BENCHMARK.tasks(0)[0]).propose("").prompt)]
    say = lambda seed: asyncio.run(model.complete(prompt, Sampling(seed=seed)))[0].message.text  # noqa: E731
    assert say(1) == say(1) != say(2)
    refused = asyncio.run(rollout(Agent("a", model, direct), BENCHMARK.tasks(0)[0].__class__("1", "Who wrote Faust?")))
    assert "plays the game of 24 only" in refused.error.message


def test_one_rate_stands_for_every_step_and_a_chain_needs_all_four():
    found = asdict(uniform(0.2))
    rights = {"propose_winning", "sure_if_winnable", "impossible_if_lost"}
    assert {name: found.pop(name) for name in rights} == dict.fromkeys(rights, (0.8, 0.8, 0.8))
    assert found.pop("sure_if_lost") == (0.2, 0.2, 0.2) and found.pop("legal") == (1.0, 1.0, 1.0)
    assert found.pop("answer") == 0.8
    assert found.pop("direct") == found.pop("cot") == pytest.approx(0.8 * 0.8 * 0.8 * 0.8)
    assert found == {"propose_losing": (0.3, 0.3, 0.3), "distractors": 5}


def test_a_verdict_goes_by_the_rates_of_the_operation_that_led_to_the_numbers():
    def verdicts(numbers, **rates):
        model = Sim(replace(uniform(0.0), **rates))
        return {model._verdict(position(numbers), Random(seed)) for seed in range(40)}

    half, never, always = (0.5,) * 3, (0.0,) * 3, (1.0,) * 3
    lost, won = ("1 1 1", "1 1", "5"), ("8 3 1", "8 3", "24")
    for step, numbers in enumerate(lost):
        only = tuple(float(at == step) for at in range(3))
        assert verdicts(numbers, sure_if_lost=only, impossible_if_lost=never) == {"sure"}
        assert verdicts(numbers, sure_if_lost=never, impossible_if_lost=only) == {"impossible"}
        assert verdicts(numbers, sure_if_lost=half, impossible_if_lost=half) == {"sure", "impossible"}
        assert verdicts(numbers, sure_if_lost=never, impossible_if_lost=never) == {"likely"}
    for step, numbers in enumerate(won):
        only = tuple(float(at == step) for at in range(3))
        assert verdicts(numbers, sure_if_winnable=only) == {"sure"} and verdicts(numbers, sure_if_winnable=never) == {
            "likely"
        }
        assert verdicts(numbers, impossible_if_lost=always) == {"sure"}


@pytest.mark.slow
def test_stated_rates_are_the_measured_rates():
    model, tasks = Sim(replace(Errors(), direct=0.3, cot=0.6)), BENCHMARK.tasks(0)
    assert near(rate(direct, model, tasks), 0.3, 100)
    assert near(rate(cot, model, tasks), 0.6, 100)
    assert near(rate(cot, model, tasks, shots=5), 0.6, 100)
    judged = asyncio.run(rollout(Agent("a", model, reflexion), tasks[0]))
    assert "plays the game of 24 only" in judged.error.message  # it does not judge answers in words of others


def test_the_closed_form_of_voting_counts_every_ballot():
    """It helps above 1 / (distractors + 1), hurts below, and does nothing there."""
    for right, distractors in ((0.4, 5), (0.3, 3), (0.2, 3)):
        chances = [right, *[(1 - right) / distractors] * distractors]
        total = 0.0
        for ballot in product(range(distractors + 1), repeat=5):
            counts = Counter(ballot)
            winners = [choice for choice, count in counts.items() if count == max(counts.values())]
            total += math.prod(chances[choice] for choice in ballot) * (0 in winners) / len(winners)
        assert majority(right, distractors, 5) == pytest.approx(total)
    helps, hurts, same = ([majority(p, 3, k) for k in (1, 5, 11, 21)] for p in (0.3, 0.2, 0.25))
    assert helps == sorted(helps) and hurts == sorted(hurts, reverse=True) and same == pytest.approx([0.25] * 4)


@pytest.mark.slow
@pytest.mark.parametrize(("right", "distractors", "samples"), [(0.4, 5, 7), (0.2, 3, 11)])
def test_self_consistency_is_its_closed_form(right, distractors, samples):
    model, tasks = Sim(replace(Errors(), cot=right, distractors=distractors)), BENCHMARK.tasks(0)
    # Ties go to the answer that was seen first, which is even among equals, for samples come in no order.
    assert near(
        rate(self_consistency, model, tasks, seeds=2, samples=samples), majority(right, distractors, samples), 200
    )


@pytest.mark.slow
def test_without_errors_search_finds_everything_and_answers_only_with_what_is_right():
    assert rate(tot, Sim(uniform(0.0)), BENCHMARK.tasks(0)[:10], breadth=1) == 1.0


@pytest.mark.slow
def test_more_breadth_and_a_better_evaluator_help():
    tasks = BENCHMARK.tasks(0)[:14]
    by_breadth = [rate(tot, Sim(uniform(0.2)), tasks, breadth=breadth) for breadth in (1, 2, 4)]
    assert by_breadth[0] + 0.1 < by_breadth[1] < by_breadth[2]
    blind = replace(uniform(0.2), sure_if_winnable=(0.5,) * 3, sure_if_lost=(0.5,) * 3, impossible_if_lost=(0.0,) * 3)
    better = replace(blind, sure_if_winnable=(0.8,) * 3)
    best = replace(better, sure_if_lost=(0.05,) * 3)
    by_quality = [rate(tot, Sim(errors), tasks, breadth=2) for errors in (blind, better, best)]
    assert by_quality[0] < by_quality[1] < by_quality[2]


@pytest.mark.slow
def test_a_blind_evaluator_is_no_better_than_sampling():
    half = (0.5,) * 3
    errors = replace(
        uniform(0.1),
        sure_if_winnable=half,
        sure_if_lost=half,
        impossible_if_lost=(0.0,) * 3,
        propose_losing=(0.05,) * 3,
    )
    tasks = BENCHMARK.tasks(0)[:50]
    searched = rate(tot, Sim(errors), tasks, breadth=1)
    sampled = rate(tot, Sim(errors), tasks, breadth=1, generate="sample", samples=1)
    assert 0.05 < sampled < 0.95
    assert abs(searched - sampled) < 3 * math.sqrt(2 * sampled * (1 - sampled) / len(tasks))
