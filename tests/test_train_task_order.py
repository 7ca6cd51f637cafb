"""The order of tasks in reinforcement: every pass a permutation of its own, whoever asks in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterable

from firsthand.loop.concurrency import derive_seed
from firsthand.task import Task
from firsthand.train.rollout_batches import RolloutBatches


def batches(tasks: int, seed: int) -> RolloutBatches:
    made = object.__new__(RolloutBatches)
    made.tasks, made.seed, made._order = tuple(Task(str(place), "") for place in range(tasks)), seed, None
    return made


def drawn(made: RolloutBatches, places: Iterable[int]) -> list[int]:
    return [int(made._task(place).id) for place in places]


def test_each_pass_is_a_permutation_of_its_own() -> None:
    made = batches(5, seed=3)
    orders = [drawn(made, range(5 * number, 5 * number + 5)) for number in range(3)]
    for number, order in enumerate(orders):
        expected = list(range(5))
        random.Random(derive_seed("order of tasks", 3, number)).shuffle(expected)
        assert order == expected
    assert len({tuple(order) for order in orders}) > 1


def test_a_run_that_goes_back_to_an_earlier_pass_finds_its_tasks_again() -> None:
    made = batches(5, seed=3)
    before = drawn(made, range(3, 12))
    assert drawn(made, range(3, 12)) == before
    assert drawn(batches(5, seed=3), range(11, 2, -1)) == before[::-1]
