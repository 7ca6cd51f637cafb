"""Computes figures: numbers about all of an agent's attempts together that are not a mean of their scores.

They come from what is stored with the attempts. A corpus-level scorer (BLEU, chrF, micro F1, calibration) puts its attempt's
share of the sums into `Score.detail` with `figure_detail`; its `value` is the score of that attempt alone. Scores that state
a confidence give a calibration error. A benchmark may have figures of its own. Tables show each with a bootstrap interval
(`figure_stats.py`). A failed attempt counts as an empty answer: to its own reference, if another attempt at its task shows
how large that is, and else to one of mean size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from firsthand.benchmark import Figure, Figures
from firsthand.errors import ConfigError, FirsthandError
from firsthand.message import Json
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.stats.bootstrap import of_chosen
from firsthand.stats.corpus_formulas import (
    BINS,
    FORMULAS,
    calibrated_bins,
    calibrated_rms,
    rms_calibration_errors,
)
from firsthand.trace import Score, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CALIBRATION = "rms_calibration_error"


def figure_detail(formula: str, sums: Sequence[float], **rest: Any) -> Json:
    """The detail of a Score that belongs to a figure: an attempt's share of the sums it is made of.

    ConfigError if there is no such formula, or it is made of another number of sums.
    """
    if formula not in FORMULAS or len(sums) != FORMULAS[formula].columns:
        known = ", ".join(f"{name} ({each.columns} sums)" for name, each in FORMULAS.items())
        raise ConfigError(f"{formula!r} with {len(sums)} sums is no figure of a corpus: there are {known}")
    return {"corpus": {"figure": formula, "sums": [float(each) for each in sums]}, **rest}


def micro_f1(name: str, found: Iterable[str], wanted: Iterable[str]) -> Score:
    """The Score of labels found where others were wanted: F1 of the attempt, and its share of the corpus's micro F1."""
    ours, theirs = set(found), set(wanted)
    both = len(ours & theirs)
    value = 2 * both / (len(ours) + len(theirs)) if ours or theirs else 1.0
    return Score(name, value, figure_detail("micro_f1", (both, len(ours) - both, len(theirs) - both)))


def calibration(name: str, confidence: float, right: bool) -> Score:
    """The Score of a stated confidence (0 to 1): its distance to the outcome, and its share of the calibration error."""
    if not 0 <= confidence <= 1:
        raise ConfigError(f"a confidence is {confidence}: 0 to 1 was expected")
    sums = [0.0] * (3 * BINS)
    place = 3 * min(int(confidence * BINS), BINS - 1)
    sums[place : place + 3] = [1.0, confidence, float(right)]
    return Score(name, abs(confidence - right), figure_detail("calibration_error", sums))


def figures(
    attempts: Mapping[str, Sequence[Trace | AttemptSummary]], own: Figures | None = None, *, errors: bool = True
) -> dict[str, dict[str, Figure]]:
    """Name -> agent -> Figure, of the attempts at one benchmark.

    `own` computes the benchmark's own figures, which need traces; for the others summaries do. A figure with the name of a
    score replaces its mean, and a first score's also that of an agent without a score; the others are shown as well. Failed
    attempts count as empty answers where the figure has such (`Formula.empty`), or with `errors=False` not at all.
    """
    agents = {agent: sorted(made, key=_rank) for agent, made in attempts.items()}  # draws follow the order of the tasks
    names = dict.fromkeys(score.name for made in agents.values() for each in made for score in each.attempt_scores)
    found = {name: each for name in names if (each := _of_shares(agents, name, errors))}
    sure = next(
        (name for name in names if any(_stated(trace, name) for each in agents.values() for trace in each)), None
    )
    if sure is not None:
        found[CALIBRATION] = {agent: _of_confidences(traces, sure) for agent, traces in agents.items()}
    for agent, traces in agents.items():
        kept = [each for each in traces if isinstance(each, Trace) and (errors or not _has_failed(each))]
        for figure in _sound(own, kept) if own is not None else ():
            found.setdefault(figure.name, {})[agent] = figure
    firsts = {each.attempt_scores[0].name for made in agents.values() for each in made if each.attempt_scores}
    for name, by_agent in [(name, each) for name, each in found.items() if name in names]:
        missing = {agent: made for agent, made in agents.items() if agent not in by_agent}
        if any(each.score(name) is not None for made in missing.values() for each in made):
            del found[name]  # a figure of some and a mean of others are not compared
        elif name in firsts:
            lower = any(each.lower_is_better for each in by_agent.values())
            by_agent.update({agent: _of_failures(name, made, lower, errors) for agent, made in missing.items()})
    return found


def _sound(own: Figures, kept: Sequence[Trace]) -> list[Figure]:
    """A benchmark's own figures of an agent's attempts; those that cannot be computed are left out and told of once."""
    import numpy as np

    try:
        made = list(own(kept))
    except FirsthandError:
        raise
    except Exception as error:  # whatever a function of the user's raises: the scores are there all the same
        _tell_once(f"figures of its own are left out: {type(error).__name__}: {error!s:.300}")
        return []
    found = []
    for each in made:
        try:
            if each.tasks and not each.slow:  # `slow_figure` tells of its own failures
                float(each.of(np.ones((1, len(each.tasks))))[0])
            found.append(each)
        except FirsthandError:
            raise
        except Exception as error:
            name = str(getattr(each, "name", each))
            _tell_once(f"the figure {name:.100} is left out: {type(error).__name__}: {error!s:.300}")
    return found


def slow_figure(
    name: str, tasks: tuple[str, ...], statistic: Callable[[Sequence[int]], float], *, uncertainty: bool = False
) -> Figure:
    """A Figure from a function of task indices, such as another library's; its interval takes few bootstrap draws.

    Where that function fails, as scikit-learn's binary F1 of four classes, the figure is NaN; of all tasks, this is logged.
    """

    def value(chosen: Array) -> float:
        try:
            return statistic(chosen.tolist())
        except FirsthandError:
            raise
        except Exception as error:  # whatever another library's function raises of these scores
            if len({*chosen.tolist()}) == len(tasks):
                _tell_once(f"{name:.100} is unknown: {type(error).__name__}: {error!s:.300}")
            return math.nan

    return Figure(name, tasks, of_chosen(value), method="percentile", slow=True, uncertainty=uncertainty)


@lru_cache(maxsize=256)
def _tell_once(text: str) -> None:
    """Log a sentence once, however often the figure is computed: by itself, for its interval and for comparisons."""
    logging.getLogger(__name__).warning("%s", text)


def has_figures(attempts: Iterable[Trace | AttemptSummary]) -> bool:
    """True if any of these attempts has a share of a figure, or states a confidence."""
    return any(score.corpus or "confidence" in score.detail for each in attempts for score in each.attempt_scores)


def _rank(trace: Trace | AttemptSummary) -> tuple[str, int]:
    return trace.task_id, trace.epoch


def _of_failures(name: str, made: Iterable[Trace | AttemptSummary], lower: bool, errors: bool) -> Figure:
    """The figure of an agent without a score: 0 of the attempts that failed, or unknown where lower is better."""
    import numpy as np

    failed = (
        tuple(dict.fromkeys(each.task_id for each in made if each.error is not None)) if errors and not lower else ()
    )
    value = 0.0 if failed else math.nan
    return Figure(
        name, failed, lambda counts_DT: np.full(len(counts_DT), value), lower, values={task: [0.0] for task in failed}
    )


def _of_shares(
    agents: Mapping[str, Iterable[Trace | AttemptSummary]], name: str, errors: bool
) -> dict[str, Figure] | None:
    """The figure that the scores of that name are shares of, for each agent; None if any score is not a share."""
    judged = {agent: [each for each in traces if not each.is_unjudged(name)] for agent, traces in agents.items()}
    shares = {
        agent: [(trace.task_id, trace.value(name), _share(trace, name)) for trace in traces]
        for agent, traces in judged.items()
    }
    known = {task: share for each in shares.values() for task, _, share in each if share is not None}
    formulas = {str(share["figure"]) for share in known.values()}
    whole = all(share is not None or value is None for each in shares.values() for _, value, share in each)
    if len(formulas) != 1 or not whole:
        return None
    formula = formulas.pop()
    empty = FORMULAS[formula].empty if errors else None
    empties = {task: empty(share["sums"]) for task, share in known.items()} if empty is not None else {}
    # a score that some tasks do not have, as of one kind of entity, does not tell which tasks of failed attempts have it
    of_all = all(each.score(name) for traces in judged.values() for each in traces if each.error is None)
    mean = [math.fsum(column) / len(empties) for column in zip(*empties.values(), strict=True)] if of_all else []
    return {agent: _summed(name, formula, each, empties, mean) for agent, each in shares.items()}


def _has_failed(trace: Trace) -> bool:
    """True for an attempt that ended with an error, or all of whose scores failed."""
    return trace.error is not None or bool(trace.scores and all(score.failed for score in trace.scores))


def _summed(
    name: str,
    formula: str,
    shares: Iterable[tuple[str, float | None, Json | None]],
    empties: Mapping[str, Sequence[float]],
    mean: Sequence[float],
) -> Figure:
    """The figure of an agent's shares, those of its attempts at a task added up.

    An attempt without a share has that of an empty answer: `empties` by task, or else their `mean`; without it is left out.
    """
    import numpy as np

    chosen = FORMULAS[formula]
    sums: dict[str, Array] = {}
    values: dict[str, list[float]] = {}
    for task, value, share in shares:
        given = share["sums"] if share is not None else empties.get(task, mean)
        if len(given):
            sums[task] = sums.get(task, 0.0) + np.array(given, dtype=np.float64)
            values.setdefault(task, []).append(value or 0.0)
    parts_TS = np.array(list(sums.values())).reshape(len(sums), chosen.columns)
    return Figure(
        name,
        tuple(sums),
        lambda counts_DT: chosen.of(counts_DT @ parts_TS),
        chosen.lower_is_better,
        values=values,
        by_chance=(lambda: calibrated_bins(parts_TS)) if formula == "calibration_error" else None,
    )


def _share(trace: Trace | AttemptSummary, name: str) -> Json | None:
    """The share that a score has of a figure; None if it has none, or one that is damaged."""
    score = trace.score(name)
    share = score.corpus if score is not None and trace.error is None else None
    formula = FORMULAS.get(str(share.get("figure"))) if share is not None else None
    sums = share.get("sums") if share is not None else None
    if formula is None or not isinstance(sums, list) or len(sums) != formula.columns:
        return None
    return share if all(map(_is_finite, sums)) else None


def _is_finite(value: object) -> bool:
    """True for a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _of_confidences(traces: Iterable[Trace | AttemptSummary], name: str) -> Figure:
    """The RMS calibration error of the attempts whose score of that name states a confidence."""
    found: dict[str, list[tuple[float, float]]] = {}
    for trace in traces:
        if pair := _stated(trace, name):
            found.setdefault(trace.task_id, []).append(pair)
    values = {task: [abs(sure - right) for sure, right in each] for task, each in found.items()}
    task_A = [index for index, each in enumerate(found.values()) for _ in each]  # of each attempt
    confidences, correct = zip(*(pair for each in found.values() for pair in each), strict=True) if found else ((), ())
    return Figure(
        CALIBRATION,
        tuple(found),
        lambda counts_DT: rms_calibration_errors(confidences, correct, counts_DT[:, task_A]),
        lower_is_better=True,
        method="percentile",
        values=values,
        by_chance=lambda: calibrated_rms(confidences),
    )


def _stated(trace: Trace | AttemptSummary, name: str) -> tuple[float, float] | None:
    """Confidence and verdict, 0 to 1."""
    score = trace.score(name)
    if score is None or score.failed or trace.error is not None or score.corpus:
        return None
    sure = score.detail.get("confidence")
    return (float(sure), score.value) if isinstance(sure, int | float) and 0 <= sure <= 1 else None
