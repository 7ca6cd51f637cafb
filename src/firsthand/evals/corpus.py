"""Figures of a whole corpus (BLEU, chrF, micro F1, calibration error): what a scorer says of one attempt, and what all say.

Such a figure is no mean over tasks, but it is made of sums over them. A scorer puts its attempt's share of the sums and the
figure's name into `Score.detail` with `corpus_detail`; its `value` is what the attempt is worth by itself. Tables then show
the figure of the corpus with a bootstrap interval, and compare agents by drawing the same tasks for both. An attempt that
failed counts as an empty answer, where it can be known what that would have been: from another attempt at its task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from firsthand.errors import ConfigError
from firsthand.evals.bootstrap import SEED, bootstrap_sums
from firsthand.evals.intervals import CONFIDENCE, Bounds, Clusters, Interval, Scores, cluster_labels, task_means
from firsthand.message import Json
from firsthand.trace import Score, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BINS = 10
"""Of a calibration error, of equal width (Guo et al., 2017)."""
DRAWS = 10_000
"""Of a comparison: enough for the small levels that several comparisons leave to each."""
_CHUNK = 4_000_000
_TINY = 1e-12


@dataclass(frozen=True)
class Figure:
    """A figure of a corpus."""

    of: Callable[[Array], Array]
    """Rows of sums -> the figure of each row."""
    columns: int
    """How many sums there are."""
    empty: Callable[[Sequence[float]], list[float]] | None = None
    """The sums of an empty answer, from those of another answer to the same task; None if such an attempt is left out."""
    lower_is_better: bool = False


def corpus_detail(figure: str, sums: Sequence[float], **rest: Any) -> Json:
    """The detail of a Score that belongs to a figure of the corpus: an attempt's share of the sums it is made of.

    ConfigError if there is no such figure, or it is made of another number of sums.
    """
    if figure not in FIGURES or len(sums) != FIGURES[figure].columns:
        known = ", ".join(f"{name} ({each.columns} sums)" for name, each in FIGURES.items())
        raise ConfigError(f"{figure!r} with {len(sums)} sums is no figure of a corpus: there are {known}")
    return {"corpus": {"figure": figure, "sums": [float(each) for each in sums]}, **rest}


def micro_f1(name: str, found: Iterable[str], wanted: Iterable[str]) -> Score:
    """The Score of labels found where others were wanted: F1 of the attempt, and its share of the corpus's micro F1."""
    ours, theirs = set(found), set(wanted)
    both = len(ours & theirs)
    value = 2 * both / (len(ours) + len(theirs)) if ours or theirs else 1.0
    return Score(name, value, corpus_detail("micro_f1", (both, len(ours) - both, len(theirs) - both)))


def calibration(name: str, confidence: float, right: bool) -> Score:
    """The Score of a stated confidence (0 to 1): its distance to the outcome, and its share of the calibration error."""
    if not 0 <= confidence <= 1:
        raise ConfigError(f"a confidence is {confidence}: 0 to 1 was expected")
    sums = [0.0] * (3 * BINS)
    place = 3 * min(int(confidence * BINS), BINS - 1)
    sums[place : place + 3] = [1.0, confidence, float(right)]
    return Score(name, abs(confidence - right), corpus_detail("calibration_error", sums))


@dataclass(frozen=True)
class Corpus:
    """An agent's sums, task by task, those of its attempts added up."""

    figure: str
    sums: Mapping[str, Sequence[float]]
    values: Scores = field(default_factory=dict)
    """What the attempts are worth by themselves."""

    @property
    def figure_value(self) -> float:
        """The figure; NaN of no tasks."""
        import numpy as np

        if not self.sums:
            return math.nan
        parts = np.array(list(self.sums.values()), dtype=np.float64)
        return float(FIGURES[self.figure].of(parts.sum(axis=0, keepdims=True))[0])

    def interval(self, clusters: Clusters | None = None, confidence: float = CONFIDENCE) -> Interval:
        """The figure and its bootstrap interval."""
        import numpy as np

        if not self.sums:
            return Interval(math.nan, -math.inf, math.inf, 0)
        labels = cluster_labels(list(self.sums), clusters)
        parts = np.array(list(self.sums.values()), dtype=np.float64)
        return bootstrap_sums(parts, FIGURES[self.figure].of, labels=labels, confidence=confidence)


def corpora(
    agents: Mapping[str, Iterable[Trace]], name: str | None = None, *, errors: bool = True
) -> dict[str, Corpus] | None:
    """The sums of each agent's attempts under the score of that name, or the first one; None if it is no such figure.

    Attempts that failed count as empty answers, or with `errors=False` not at all.
    """
    shares = {
        agent: [(trace.task_id, trace.value(name), _share(trace, name)) for trace in traces]
        for agent, traces in agents.items()
    }
    known = {task: share for each in shares.values() for task, _, share in each if share is not None}
    figures = {str(share["figure"]) for share in known.values()}
    whole = all(share is not None or value is None for each in shares.values() for _, value, share in each)
    if len(figures) != 1 or not whole or not figures <= FIGURES.keys():
        return None
    figure = figures.pop()
    return {agent: _corpus(figure, each, known if errors else {}) for agent, each in shares.items()}


def _corpus(figure: str, shares: Iterable[tuple[str, float | None, Json | None]], known: Mapping[str, Json]) -> Corpus:
    empty = FIGURES[figure].empty
    sums: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    for task, value, share in shares:
        given = share["sums"] if share is not None else None
        if given is None and empty is not None and task in known:
            given = empty(known[task]["sums"])
        if given is not None:
            sums[task] = [x + y for x, y in zip(sums.get(task, [0.0] * len(given)), given, strict=True)]
            values.setdefault(task, []).append(value or 0.0)
    return Corpus(figure, sums, values)


def _share(trace: Trace, name: str | None) -> Json | None:
    """What the trace's score says of the corpus, if it says so and can be read."""
    score = trace.score(name) if name is not None else next(iter(trace.scores), None)
    share = score.corpus if score is not None and trace.error is None else None
    figure = FIGURES.get(str(share.get("figure"))) if share is not None else None
    sums = share.get("sums") if share is not None else None
    if figure is None or not isinstance(sums, list) or len(sums) != figure.columns:
        return None
    return share if all(isinstance(each, int | float) and math.isfinite(each) for each in sums) else None


@dataclass(frozen=True)
class CorpusDifference:
    """How two agents' figures differ, by drawing the same tasks for both (Koehn, 2004): as `paired.Differences`."""

    mean: float
    """The difference of the figures."""
    draws: tuple[float, ...]
    """The difference in each draw, in ascending order."""
    n: int
    counts: tuple[int, int]
    """On how many tasks A did better by itself, and worse."""
    labels: tuple[str, ...] | None = None
    lower_is_better: bool = False

    @staticmethod
    def between(a: Corpus, b: Corpus, clusters: Clusters | None = None, draws: int = DRAWS) -> CorpusDifference:
        """The difference A - B on the tasks that both attempted."""
        import numpy as np

        common = [task for task in a.sums if task in b.sums]
        figure = FIGURES[a.figure]
        if not common:
            return CorpusDifference(math.nan, (), 0, (0, 0))
        labels = cluster_labels(common, clusters)
        codes = np.unique(labels, return_inverse=True)[1] if labels else np.arange(len(common))
        both = []
        for side in (a, b):
            sums = np.zeros((codes.max() + 1, figure.columns))
            np.add.at(sums, codes, np.array([side.sums[task] for task in common], dtype=np.float64))
            both.append(sums)
        units, rng = len(both[0]), np.random.default_rng(SEED)
        found: list[Array] = []
        step = max(1, _CHUNK // units)
        for start in range(0, draws if units > 1 else 0, step):
            chosen = rng.multinomial(units, np.full(units, 1 / units), size=min(step, draws - start))
            found.append(figure.of(chosen @ both[0]) - figure.of(chosen @ both[1]))
        difference = figure.of(both[0].sum(axis=0, keepdims=True)) - figure.of(both[1].sum(axis=0, keepdims=True))
        pairs = list(zip(*(task_means({task: side.values[task] for task in common}) for side in (a, b)), strict=True))
        signs = [(x - y) * (-1 if figure.lower_is_better else 1) for x, y in pairs]
        return CorpusDifference(
            float(difference[0]),
            tuple(np.sort(np.concatenate(found)).tolist()) if found else (),
            len(common),
            (sum(each > _TINY for each in signs), sum(each < -_TINY for each in signs)),
            tuple(labels) if labels else None,
            figure.lower_is_better,
        )

    @property
    def num_units(self) -> int:
        """How many independent pieces there are: clusters, or tasks."""
        return len(set(self.labels)) if self.labels else self.n

    @cached_property
    def error(self) -> float:
        """The standard deviation of the draws; 0 if there are none."""
        if len(self.draws) < 2:
            return 0.0
        centre = math.fsum(self.draws) / len(self.draws)
        return math.sqrt(math.fsum((each - centre) ** 2 for each in self.draws) / (len(self.draws) - 1))

    @property
    def method(self) -> str:
        """How bounds are found."""
        return "paired bootstrap"

    def bounds(self, confidence: float = CONFIDENCE) -> Bounds:
        """The percentiles of the draws."""
        if not self.draws:
            return Bounds(-math.inf, math.inf)
        at = (1 - confidence) / 2 * (len(self.draws) + 1)
        low = max(0, math.floor(at) - 1)
        return Bounds(self.draws[low], self.draws[-1 - low])

    def p_above(self, bar: float) -> float:
        """The share of draws at `bar` or below."""
        from bisect import bisect_right

        return (1 + bisect_right(self.draws, bar)) / (1 + len(self.draws))

    def p_below(self, bar: float) -> float:
        """The share of draws at `bar` or above."""
        from bisect import bisect_left

        return (1 + len(self.draws) - bisect_left(self.draws, bar)) / (1 + len(self.draws))

    @cached_property
    def p_value(self) -> float:
        """The two-sided p-value of no difference."""
        return min(1.0, 2 * min(self.p_above(0.0), self.p_below(0.0)))


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


def _calibration_error(sums: Array) -> Array:
    """The expected calibration error, 0 to 1: how far confidence is from accuracy, bin by bin (Guo et al., 2017)."""
    import numpy as np

    counts, confidences, right = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    error: Array = np.abs(confidences - right).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
    return error


FIGURES: Mapping[str, Figure] = {
    "bleu": Figure(_bleu, 10, lambda sums: [*[0.0] * 9, sums[9]]),
    "chrf": Figure(_chrf, 18, lambda sums: [each if at % 3 == 1 else 0.0 for at, each in enumerate(sums)]),
    "micro_f1": Figure(_micro_f1, 3, lambda sums: [0.0, 0.0, sums[0] + sums[2]]),
    "calibration_error": Figure(_calibration_error, 3 * BINS, lower_is_better=True),
}
