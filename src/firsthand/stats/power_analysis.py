"""Power analysis: tasks and attempts that a planned comparison needs, and the minimum detectable effect of one that was run.

The variance of a score has two parts (Miller, 2024, "Adding Error Bars to Evals", arXiv 2411.00640, sections 3 and 5): tasks
differ from one another, and attempts at one task differ too. More attempts per task reduce the second part alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.stats.intervals import CONFIDENCE, Scores, bisect, finite, standard_deviation, task_means, z_value

POWER = 0.8
SMALLEST_EFFECT = 1e-9
"""A smaller effect needs more tasks than there will ever be, and its square is rounded to 0 in the end."""
LARGEST_EFFECT = 1e150
"""Beyond it, as for a standard deviation, the square is no number."""
MAX_TASKS = 1e300


@dataclass(frozen=True)
class Spread:
    """The variance of scores, split; a part is NaN where it cannot be told, for there was one attempt per task."""

    between: float
    """The variance of the tasks' own means, if each were attempted forever."""
    within: float
    """The variance of the attempts at one task, averaged over tasks."""
    tasks: int
    attempts: int

    @property
    def total(self) -> float:
        """The variance of a single attempt at a random task."""
        return self.between + self.within

    def to_json(self) -> Json:
        """The parts as a JSON object; what is unknown becomes null."""
        parts: Json = {"between": finite(self.between), "within": finite(self.within)}
        return parts | {"tasks": self.tasks, "attempts": self.attempts}


def spread(values: Scores) -> Spread:
    """The variance between tasks and within them, without bias (one-way analysis of variance; Miller, 2024, section 3).

    The variance of the task means holds 1/K of the variance within, for K attempts each, which is taken off; what is left
    is never below 0.
    """
    attempted = [each for each in values.values() if each]
    attempts = sum(map(len, attempted))
    freedom = attempts - len(attempted)
    if len(attempted) < 2 or freedom == 0:
        return Spread(math.nan, math.nan, len(attempted), attempts)
    means = task_means(values)
    squares = (math.fsum((x - mean) ** 2 for x in each) for each, mean in zip(attempted, means, strict=True))
    within = math.fsum(squares) / freedom
    shared = math.fsum(1 / len(each) for each in attempted) / len(attempted)
    return Spread(max(0.0, standard_deviation(means) ** 2 - within * shared), within, len(attempted), attempts)


def paired_spread(a: Scores, b: Scores) -> Spread:
    """The same for the difference of two agents on common tasks; `within` is the sum of the two agents' own."""
    common = [task for task in a if a[task] and b.get(task)]
    first, second = spread({t: a[t] for t in common}), spread({t: b[t] for t in common})
    means = zip(task_means({t: a[t] for t in common}), task_means({t: b[t] for t in common}), strict=True)
    noise = sum(
        own.within * math.fsum(1 / len(side[t]) for t in common) / max(len(common), 1)
        for own, side in ((first, a), (second, b))
    )
    if not math.isfinite(noise):
        return Spread(math.nan, math.nan, len(common), first.attempts + second.attempts)
    between = max(0.0, standard_deviation([x - y for x, y in means]) ** 2 - noise)
    return Spread(between, first.within + second.within, len(common), first.attempts + second.attempts)


def tasks_needed(
    effect: float,
    between: float,
    within: tuple[float, float] = (0.0, 0.0),
    epochs: tuple[int, int] = (1, 1),
    *,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> int:
    """The number of tasks that detects a difference of `effect` with this power (Miller, 2024, section 5).

        n = (z_alpha/2 + z_power)^2 (omega^2 + sigma_A^2 / K_A + sigma_B^2 / K_B) / effect^2

    `between` is omega^2, the variance over tasks of the difference of the two agents' task means; `within` are the variances
    sigma^2 of single attempts, and `epochs` the K attempts per task, of each agent.
    """
    check_effect(effect)
    variance = between + within[0] / epochs[0] + within[1] / epochs[1]
    return max(1, _whole(_standard_errors(confidence, power) ** 2 * variance / effect**2))


def epochs_needed(
    effect: float,
    tasks: int,
    between: float,
    within: tuple[float, float],
    *,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> int | None:
    """The attempts per task (of both agents) that detect `effect` on that many tasks; None if no number does."""
    check_effect(effect)
    allowed = tasks * effect**2 / _standard_errors(confidence, power) ** 2 - between
    return None if allowed <= 0 else max(1, _whole(sum(within) / allowed))


def paired_tasks_needed(
    effect: float, disagreement: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> int:
    """The number of tasks that detects a difference of `effect` between two 0/1 scores that disagree on that share of tasks.

    Connor (1987, Biometrics 43:207), and 1/effect tasks more because McNemar's test is exact. The inverse of
    `smallest_detectable(n, disagreement=...)`.
    """
    check_effect(effect)
    if not effect <= disagreement <= 1:
        raise ConfigError(
            f"disagreement is {disagreement:g} and effect {effect:g}: scores that differ by that much in the mean disagree "
            "on at least that share of tasks, so give a disagreement from the effect to 1"
        )
    z_alpha, z_power = z_value(confidence), z_value(2 * power - 1)
    root = z_alpha * math.sqrt(disagreement) + z_power * math.sqrt(disagreement - effect**2)
    return _whole((root / effect) ** 2 + 1 / effect)


def smallest_detectable(
    n: int,
    *,
    disagreement: float | None = None,
    sd: float | None = None,
    confidence: float = CONFIDENCE,
    power: float = POWER,
) -> float:
    """The smallest true difference that a paired comparison over n tasks finds with this power.

    Give `disagreement`, the share of tasks on which one of two 0/1 scores is right and the other wrong (Connor, 1987,
    Biometrics 43:207, less 1/d tasks because the test is exact; a difference d needs a share of at least d), or `sd`,
    the standard deviation of the differences (Miller, 2024, section 5). At most 1 for 0/1 scores, which means: nothing
    could have been seen.
    """
    if n < 1 or (disagreement is None) == (sd is None):
        raise ConfigError(f"n is {n}, disagreement {disagreement}, sd {sd}: give n of 1 or more and one of the two")
    z_alpha, z_power = z_value(confidence), z_value(2 * power - 1)
    if sd is not None:
        return (z_alpha + z_power) * sd / math.sqrt(n)

    def surplus(d: float) -> float:
        share = max(disagreement or 0.0, d)
        return (
            d * math.sqrt(max(0.0, n - 1 / d))
            - z_alpha * math.sqrt(share)
            - z_power * math.sqrt(max(0.0, share - d * d))
        )

    return 1.0 if surplus(1.0) <= 0 else bisect(surplus, 0.0, 1.0)


def margin_tasks_needed(margin: float, variance: float, *, confidence: float = CONFIDENCE, power: float = POWER) -> int:
    """The number of tasks with which a gate passes an equally good agent, for an allowed drop of `margin`.

    `variance` is that of the differences task by task; the confidence is one-sided, as a gate's is.
    """
    check_effect(margin)
    return _whole(_standard_errors(2 * confidence - 1, power) ** 2 * variance / margin**2)


def check_effect(effect: float) -> None:
    """Refuse an effect that no number of tasks could show, and one beyond any scale of scores."""
    if not SMALLEST_EFFECT <= effect <= LARGEST_EFFECT:
        bounds = f"from {SMALLEST_EFFECT:g} to {LARGEST_EFFECT:g}" if 0 < effect < math.inf else "above 0"
        raise ConfigError(f"effect is {effect}: give a difference {bounds}, such as 0.02")


def _whole(number: float) -> int:
    """The number of tasks or attempts, rounded up; ConfigError if it is beyond MAX_TASKS."""
    if not number <= MAX_TASKS:
        raise ConfigError(
            f"more than {MAX_TASKS:g} would be needed, tasks or attempts: the scores vary too much for so small an effect"
        )
    return math.ceil(number - 1e-9)


def _standard_errors(confidence: float, power: float) -> float:
    """The effect in standard errors that is detected with this power."""
    if not 0.5 < power < 1:
        raise ConfigError(f"power is {power}: give a number between 0.5 and 1, such as 0.8")
    return z_value(confidence) + z_value(2 * power - 1)
