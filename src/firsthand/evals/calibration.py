"""Whether stated confidence is worth its number: the RMS calibration error, a metric of a whole run.

Attempts are sorted by confidence and cut into bins of 100; in each, the mean confidence is held against the share that is
right (Hendrycks et al., 2019; Humanity's Last Exam uses it). A scorer states a confidence by `detail["confidence"]`, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from firsthand.errors import ConfigError
from firsthand.evals.bootstrap import bootstrap_interval
from firsthand.evals.intervals import CONFIDENCE, Interval
from firsthand.trace import Trace

BIN_SIZE = 100
RESAMPLES = 400


def rms_calibration_error(
    confidences: Sequence[float], correct: Sequence[float], *, bin_size: int = BIN_SIZE, published: bool = False
) -> float:
    """The root of the mean squared difference of confidence and accuracy over bins of `bin_size`, 0 to 1.

    What does not fill a bin belongs to the last one; fewer than `bin_size` attempts are one bin. The published script leaves
    the last bin out of the sum (though not out of the count) by a slip in its loop: `published` does the same, for the sake
    of comparing with numbers made by it. NaN for no attempts.
    """
    if len(confidences) != len(correct) or bin_size < 1:
        raise ConfigError(
            f"there are {len(confidences)} confidences and {len(correct)} verdicts: give one for each attempt"
        )
    n = len(confidences)
    if n == 0:
        return math.nan
    order = sorted(range(n), key=confidences.__getitem__)  # equal confidences stay in order
    starts = [index * bin_size for index in range(max(1, n // bin_size))]
    bins = [order[start:end] for start, end in zip(starts, [*starts[1:], n], strict=True)]
    total = 0.0
    for members in bins[:-1] if published else bins:
        gap = sum(confidences[i] for i in members) - sum(correct[i] for i in members)
        total += len(members) / n * (gap / len(members)) ** 2
    return math.sqrt(total)


def calibration(traces: Iterable[Trace], metric: str, confidence: float = CONFIDENCE) -> Interval | None:
    """The RMS calibration error of attempts whose score of that name states a confidence, with a percentile bootstrap.

    None where no score states one. The error is biased upwards in small samples: bins of few attempts differ by chance.
    """
    pairs, tasks = [], []
    for trace in traces:
        score = trace.score(metric)
        stated = None if score is None or score.failed or trace.error else score.detail.get("confidence")
        if isinstance(stated, int | float) and score is not None and 0 <= stated <= 1:
            pairs.append((float(stated), score.value))
            tasks.append(trace.task_id)
    if not pairs:
        return None

    def figure(chosen: Sequence[int]) -> float:
        return rms_calibration_error([pairs[i][0] for i in chosen], [pairs[i][1] for i in chosen])

    labels = tasks if len(set(tasks)) < len(tasks) else None
    return bootstrap_interval(
        lambda chosen: figure([int(i) for i in chosen]),
        len(pairs),
        labels=labels,
        method="percentile",
        confidence=confidence,
        resamples=RESAMPLES,
    )
