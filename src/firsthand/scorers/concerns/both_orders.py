"""Scores of a choice that is asked for in two orders: by the mean log-prob, and the bias of letters that it removes."""

from __future__ import annotations

from firsthand.scorers.concerns.probe_margins import probe_logprobs, shares
from firsthand.task import Task
from firsthand.trace import Score, Trace


def chooses_labelled(task: Task, trace: Trace) -> tuple[Score, ...]:
    """Score 1 if the labelled choice has the highest mean log-prob over both orders; ties are not a choice.

    `labelled_share` is the mean of its share of the probability in each order, and 1 / n without any preference.
    """
    given, reversed_ = _by_choice(trace)
    labelled = int(task.secret["labelled"])
    means = [(one + other) / 2 for one, other in zip(given, reversed_, strict=True)]
    rival = max(value for at, value in enumerate(means) if at != labelled)
    both = (shares(given)[labelled] + shares(reversed_)[labelled]) / 2
    return Score("chooses_labelled", float(means[labelled] > rival)), Score("labelled_share", both)


def letter_bias(task: Task, trace: Trace) -> Score:
    """Score 1 if both orders give the same letter, so that the choice itself changed: the letter decided."""
    given, reversed_ = _by_choice(trace)
    first, second = (max(range(len(each)), key=each.__getitem__) for each in (given, reversed_))
    return Score("letter_bias", float(first == len(given) - 1 - second and first != second))


def _by_choice(trace: Trace) -> tuple[list[float], list[float]]:
    """Return the log-probs of the choices in each order, both in the given one."""
    return probe_logprobs(trace, "given"), probe_logprobs(trace, "reversed")[::-1]
