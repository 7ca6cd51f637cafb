"""Reduces the scores of several attempts at one task to one number, by the names Inspect has for it.

`mean` is the default. `pass_at_k` estimates the chance that one of k attempts is right (Chen et al., 2021), `pass_hat_k`
(pass^k) that all k are (Yao et al., 2024). `at_least_k` is 1 where k or more are right, `mode` (or `majority`) is the most
common score, the earliest of several. Right is a score of 1 or more.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from firsthand.errors import ConfigError, nearest

Reduce = Callable[[Sequence[float]], float]
"""The scores of the attempts at one task, in the order of their epochs -> its score."""
NAMES = ("mean", "median", "max", "mode", "majority", "pass_at_2", "pass_hat_2", "at_least_2")
"""Names that work, with 2 as the k of those that have one."""
_WITH_COUNT = re.compile(r"(pass_at|pass_hat|at_least)_([1-9][0-9]{0,5})")
_WITHOUT_COUNT = re.compile(r"(pass_at|pass_hat|at_least)(_.*)?", re.DOTALL)
T = TypeVar("T")


def epoch_reducer(name: str) -> Reduce | None:
    """The reducer of that name; None for `mean` and nothing, which leave several attempts as they are.

    ConfigError if there is none, or, when it is called, if a task has fewer attempts than k.
    """
    if name in ("", "mean"):
        return None
    simple: Mapping[str, Reduce] = {"median": median, "max": max, "mode": _mode, "majority": _mode}
    if name in simple:
        return simple[name]
    if found := _WITH_COUNT.fullmatch(name):
        formula, count = _FORMULAS[found[1]], int(found[2])

        def reduce(values: Sequence[float]) -> float:
            if len(values) < count:
                raise ConfigError(
                    f"reduce is {name}, and a task has {len(values)} scored attempts: give a k of at most that, "
                    "or more --epochs"
                )
            return formula(values, count)

        return reduce
    if found := _WITHOUT_COUNT.fullmatch(name):
        raise ConfigError(f"reduce is {name!r}: give a number for k from 1 to 999999, as in {found[1]}_2")
    close = nearest(name, NAMES)
    hint = f" did you mean {close!r}?" if close else ""
    raise ConfigError(f"reduce is {name!r};{hint} there are {', '.join(NAMES)}, these three with any number")


def attempts_needed(name: str) -> int:
    """The scored attempts without which a task has no score by that reducer: its k, or 1."""
    found = _WITH_COUNT.fullmatch(name)
    return int(found[2]) if found else 1


def grows_with_attempts(name: str) -> bool:
    """True if more attempts alone change the expected score, as they do for `max`; not for `mean`, pass@k and pass^k."""
    return epoch_reducer(name) is not None and not name.startswith("pass_")


def reduced_name(score: str, reducer: str, attempts: int) -> str:
    """The name of a score with its reducer, such as `exact (max of 8)`: scores of two such names are not compared.

    The number of attempts at a task is named where the score grows with it. The mean has the score's own name, and so has a
    single attempt of which a reducer makes nothing else.
    """
    if epoch_reducer(reducer) is None or (attempts <= 1 and not _WITH_COUNT.fullmatch(reducer)):
        return score
    return f"{score} ({reduction(reducer, attempts)})"


def reduction(reducer: str, attempts: int) -> str:
    """The reducer in words: `max of 8`, `pass_at_2`."""
    return f"{reducer} of {attempts}" if grows_with_attempts(reducer) else reducer


def check_epochs(name: str, epochs: int) -> None:
    """ConfigError if no reducer has that name, or it needs more attempts at a task than there will be."""
    epoch_reducer(name)
    if (needed := attempts_needed(name)) > max(1, epochs):
        raise ConfigError(f"reduce is {name}, and there are {epochs} epochs: give --epochs {needed} or more")


def reduced(values: Mapping[T, Sequence[float]], name: str) -> dict[T, Sequence[float]]:
    """Task -> the one score its attempts are reduced to; by the mean, the scores as they are. Tasks without one stay so.

    Where others have the attempts that the reducer needs, a task that has fewer is without a score.
    """
    reduce = epoch_reducer(name)
    if reduce is None:
        return dict(values)
    needed = needed_of(name, map(len, values.values()))
    return {task: [float(reduce(each))] if len(each) >= needed else [] for task, each in values.items()}


def needed_of(name: str, attempts: Iterable[int]) -> int:
    """The attempts that a task needs for a score, given their number at each task; 1 if no task has as many as it takes.

    Then the reducer itself refuses them.
    """
    needed = attempts_needed(name)
    return needed if max(attempts, default=0) >= needed else 1


def _mode(values: Sequence[float]) -> float:
    return Counter(values).most_common(1)[0][0]


def _pass_at(values: Sequence[float], count: int) -> float:
    right = sum(value >= 1 for value in values)
    return 1 - math.comb(len(values) - right, count) / math.comb(len(values), count)


def _pass_hat(values: Sequence[float], count: int) -> float:
    return math.comb(sum(value >= 1 for value in values), count) / math.comb(len(values), count)


def _at_least(values: Sequence[float], count: int) -> float:
    return float(sum(value >= 1 for value in values) >= count)


_FORMULAS: Mapping[str, Callable[[Sequence[float], int], float]] = {
    "pass_at": _pass_at,
    "pass_hat": _pass_hat,
    "at_least": _at_least,
}
