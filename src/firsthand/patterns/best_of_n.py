"""Best of n by a proxy: sample n answers and return the one that the benchmark's proxy likes best (Stiennon et al., 2020).

    firsthand run goal_misspecification --pattern direct,best_of_n:n=4,best_of_n:n=16,best_of_n:n=4:rounds=4

A benchmark offers a proxy by a function `proxy(task, answer) -> float` beside itself and its name in the task's
`metadata["proxy"]`. All candidates are recorded, so that a scorer can compare the proxy with the true reward at every
smaller n, too. With `rounds` above 1 it is a search: each round begins from the best answer so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from firsthand import catalog
from firsthand.context import Context
from firsthand.errors import ConfigError, DataError
from firsthand.loop.pattern_options import at_least, check_temperature, checked
from firsthand.patterns.direct import question
from firsthand.patterns.parts.answers import answer_or_text
from firsthand.task import Task

Proxy = Callable[[Task, str], float]


def _check(*, n: int, rounds: int, temperature: float, **_: Any) -> None:
    at_least(1, n=n, rounds=rounds)
    check_temperature(temperature)
    if n * rounds > 1 and temperature == 0:
        raise ConfigError(f"temperature is 0 and n {n}: all answers would be the same, so give a temperature above 0")


def _check_task(task: Task, **_: Any) -> None:
    proxy_of(task)


@checked(_check, task=_check_task)
async def best_of_n(task: Task, ctx: Context, *, n: int = 16, rounds: int = 1, temperature: float = 1.0) -> str:
    """The answer with the highest proxy of `n` samples in each of `rounds`; the earliest of equal ones.

    An answer whose proxy is NaN is not chosen; DataError if there is no other.

    Each round is recorded as an event `candidates` with all answers and their proxies. From the second round on the model is
    shown the best answer and its proxy, and asked for a better one.
    """
    proxy = proxy_of(task)
    best, highest = None, float("-inf")
    asked = ctx.say(question(task))
    for number in range(1, rounds + 1):
        samples = await asked.sample(n, temperature=temperature, **task.sampling)
        answers = [answer_or_text(sample.text, task) for sample in samples]
        proxies = [proxy(task, answer) for answer in answers]
        ctx.note("candidates", round=number, answers=answers, proxies=proxies)
        for answer, value in zip(answers, proxies, strict=True):
            if value > highest or (best is None and not math.isnan(value)):
                best, highest = answer, value
        if best is None:
            raise DataError(
                f"the proxy is NaN for all {n} answers to task {task.id}: there is nothing to "
                "choose by, so let the benchmark's function `proxy` give a number"
            )
        asked = ctx.say(
            f"{question(task)}\n\nThe best answer so far has {highest:g} points: {best}\nGive a better one."
        )
    assert best is not None
    return best


def proxy_of(task: Task) -> Proxy:
    """Return the proxy of the task's benchmark; ConfigError if it has none."""
    name = task.metadata.get("proxy")
    if not isinstance(name, str):
        raise ConfigError(
            f"task {task.id} has no proxy to choose by: best_of_n needs a benchmark with a function proxy(task, answer), "
            "such as goal_misspecification"
        )
    found: Proxy = catalog.module_attribute("benchmark", name, "proxy")
    return found
