"""Formulas of corpus-level figures: BLEU, chrF, micro F1, shares and calibration errors.

They take sums or pairs of numbers; `figures.py` collects those from the scores of attempts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firsthand.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BINS = 10
"""Of the expected calibration error, of equal width (Guo et al., 2017)."""
CHANCE_DRAWS = 400
"""Draws of what a calibrated agent scores by chance."""
BIN_SIZE = 100
"""Attempts in a bin of the RMS calibration error (Hendrycks et al., 2019)."""


@dataclass(frozen=True)
class Formula:
    """A figure that is made of sums over attempts."""

    of: Callable[[Array], Array]
    """Rows of sums -> the figure of each row."""
    columns: int
    """The number of sums."""
    empty: Callable[[Sequence[float]], list[float]] | None = None
    """The sums of an empty answer, from those of another answer to the same task; None if such an attempt is left out."""
    lower_is_better: bool = False


def rms_calibration_error(
    confidences: Sequence[float], correct: Sequence[float], *, bin_size: int = BIN_SIZE, published: bool = False
) -> float:
    """The root of the mean squared difference of confidence and accuracy over bins of `bin_size`, 0 to 1.

    Attempts are sorted by confidence and cut into bins (Hendrycks et al., 2019; Humanity's Last Exam uses it). What does not
    fill a bin belongs to the last one; fewer than `bin_size` attempts are one bin. The published script leaves the last bin
    out of the sum (though not out of the count) by a slip in its loop: `published` does the same, for the sake of comparing
    with numbers made by it. NaN for no attempts. It is biased upwards in small samples: bins of few differ by chance.
    """
    import numpy as np

    if len(confidences) != len(correct) or bin_size < 1:
        raise ConfigError(
            f"there are {len(confidences)} confidences and {len(correct)} verdicts: give one for each attempt"
        )
    once = np.ones((1, len(confidences)))
    return float(rms_calibration_errors(confidences, correct, once, bin_size=bin_size, published=published)[0])


def rms_calibration_errors(
    confidences: Sequence[float],
    correct: Sequence[float],
    counts: Array,
    *,
    bin_size: int = BIN_SIZE,
    published: bool = False,
) -> Array:
    """The same for draws of the attempts: `counts` says how often each is in a draw, a row for each."""
    import numpy as np

    stated, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    order = np.argsort(stated, kind="stable")
    gaps, found = (stated - right)[order], []
    # an edge may fall among equal confidences, whose order means nothing: each then adds the mean gap of its equals
    ends = np.flatnonzero(np.append(np.diff(stated[order]) != 0, True)) if len(order) else order
    for each in counts[:, order]:
        n = int(each.sum())
        edges = [*(index * bin_size for index in range(max(1, n // bin_size))), n]
        # an edge may fall among the copies of one attempt, each of which adds the same gap: hence linear between attempts
        below = np.interp(edges, [0.0, *np.cumsum(each)[ends]], [0.0, *np.cumsum(each * gaps)[ends]])
        parts = np.diff(below) ** 2 / np.maximum(np.diff(edges), 1) / max(n, 1)
        found.append(math.sqrt(float((parts[:-1] if published else parts).sum())) if n else math.nan)
    return np.array(found)


def calibrated_rms(confidences: Sequence[float]) -> Array:
    """The RMS calibration error, in CHANCE_DRAWS draws, of one that is right as often as these confidences say.

    Consistency resampling (Bröcker and Smith, 2007, doi:10.1175/WAF993.1). The draws are the same each time.
    """
    import numpy as np

    rng, stated = np.random.default_rng(0), np.asarray(confidences, dtype=np.float64)
    once = np.ones((1, len(stated)))
    outcomes = (rng.random((CHANCE_DRAWS, len(stated))) < stated).astype(np.float64)
    return np.array([rms_calibration_errors(confidences, each.tolist(), once)[0] for each in outcomes])


def calibrated_bins(parts_TS: Array) -> Array:
    """The expected calibration error, in CHANCE_DRAWS draws, of one that is right as often as it says in each part of it.

    `parts_TS` are tasks and their sums: count, confidence and right answers of each bin.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    counts, confidences = parts_TS[:, 0::3], parts_TS[:, 1::3]
    chance = np.clip(confidences / np.maximum(counts, 1), 0, 1)
    found = []
    for _ in range(CHANCE_DRAWS):
        right = rng.binomial(counts.astype(np.int64), chance)
        gaps = np.abs((confidences - right).sum(axis=0))
        found.append(gaps.sum() / max(float(counts.sum()), 1.0))
    return np.array(found)


def _bleu(sums: Array) -> Array:
    """Corpus BLEU, 0 to 1, of matches and totals of four orders and the lengths of answers and references.

    With exponential smoothing, as sacrebleu has it by default (Post, 2018).
    """
    import numpy as np

    matches, totals, ours, theirs = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
    smoothing = 2.0 ** -np.cumsum((matches == 0) & (totals > 0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches > 0, matches, smoothing) / totals
        score = np.exp(np.log(precisions).mean(axis=1)) * np.exp(np.minimum(0.0, 1 - theirs / ours))
    return np.where((matches.any(axis=1)) & (totals > 0).all(axis=1) & (ours > 0), score, 0.0)


def _chrf(sums: Array) -> Array:
    """Corpus chrF, 0 to 1, of the n-grams of answers, of references, and in both, for orders 1 to 6 (Popović, 2015)."""
    import numpy as np

    ours, theirs, both = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    seen = (ours > 0) & (theirs > 0)
    orders = np.maximum(seen.sum(axis=1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(seen, both / ours, 0.0).sum(axis=1) / orders
        recall = np.where(seen, both / theirs, 0.0).sum(axis=1) / orders
        score = 5 * precision * recall / (4 * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)


def _micro_f1(sums: Array) -> Array:
    """Micro-averaged F1 of what was found rightly, found wrongly, and missed; 1 where nothing was wanted or found."""
    import numpy as np

    right, wrong, missed = sums[:, 0], sums[:, 1], sums[:, 2]
    whole = 2 * right + wrong + missed
    return np.where(whole > 0, 2 * right / np.maximum(whole, 1), 1.0)


def _share(sums: Array) -> Array:
    """The share of parts that are right, of parts that are right and all parts: a mean over instructions, not prompts."""
    import numpy as np

    return np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), 0.0)


def _calibration_error(sums: Array) -> Array:
    """The expected calibration error, 0 to 1: how far confidence is from accuracy, bin by bin (Guo et al., 2017)."""
    import numpy as np

    counts, confidences, right = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    error: Array = np.abs(confidences - right).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    return error


FORMULAS: Mapping[str, Formula] = {
    "bleu": Formula(_bleu, 10, lambda sums: [*[0.0] * 9, sums[9]]),
    "chrf": Formula(_chrf, 18, lambda sums: [each if at % 3 == 1 else 0.0 for at, each in enumerate(sums)]),
    "micro_f1": Formula(_micro_f1, 3, lambda sums: [0.0, 0.0, sums[0] + sums[2]]),
    "share": Formula(_share, 2, lambda sums: [0.0, sums[1]]),
    "calibration_error": Formula(_calibration_error, 3 * BINS, lower_is_better=True),
}
"""By the name that a score is stored with."""
