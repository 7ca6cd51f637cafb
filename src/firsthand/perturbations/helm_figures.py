"""HELM's seven metrics as figures of a benchmark with perturbed copies.

Accuracy is the first score of the originals, and any other score is of the originals alone, too. Robustness and fairness
are the mean over items of the worst of the original and its copies of that kind. A perturbation that no item has a copy by
has no figure; one that some have has the share of those items beside it. Calibration needs the log-probs of choices. Bias
and toxicity are counts over answers. Efficiency is tokens and seconds as measured. An attempt whose judge gave no verdict is
no part of the first four; a copy without one counts as one that was not made, as does one whose attempt had the model score
the texts of the original.
"""

# T items, D draws, G groups

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firsthand.benchmark import Benchmark, Figure
from firsthand.perturbations.answer_harms import (
    GENDER,
    PROFESSIONS,
    association,
    group_counts,
    is_toxic,
    representation,
)
from firsthand.perturbations.perturbed_benchmark import FAIRNESS, MARK, PERTURBATIONS, ROBUSTNESS, perturbed
from firsthand.scorers.choice import chosen_letter, logprobs
from firsthand.stats.confidence_formulas import brier_score, expected_calibration_error, selective_accuracy
from firsthand.stats.figures import figures as figures_of
from firsthand.stats.figures import slow_figure
from firsthand.task import Task
from firsthand.trace import NOTE, Score, Trace

Floats = NDArray[np.float64]
CONFIDENCE = "choice_confidence"
COPIES = "copies by "
"""The share of the items that have a copy by a perturbation, where it is not all of them."""


def with_helm_metrics(
    benchmark: Benchmark, names: Sequence[str] = tuple(PERTURBATIONS), *, seed: int = 0, items: int | None = None
) -> Benchmark:
    """The benchmark with perturbed copies and the figures of the seven metrics."""
    made = perturbed(benchmark, names, seed=seed, items=items)
    return replace(
        made,
        name=f"{benchmark.name}-helm",
        scorers=(*made.scorers, choice_confidence),
        figures=lambda traces: helm_figures(traces, names),
    )


def choice_confidence(task: Task, trace: Trace) -> tuple[Score, ...]:
    """The probability of the chosen answer among the choices, from their log-probs; none where there are none."""
    found = logprobs(task, trace) if task.choices else None
    chosen = chosen_letter(trace.answer or "", task) if found else None
    if not found or chosen is None:
        return ()
    shares = np.exp(np.array(found) - max(found))
    return (Score(CONFIDENCE, float(shares[chosen] / shares.sum())),)


def helm_figures(traces: Sequence[Trace], names: Sequence[str] = tuple(PERTURBATIONS)) -> list[Figure]:
    """The seven metrics of one agent's attempts; those that nothing is known of are left out."""
    by_item: dict[str, dict[str, list[Trace]]] = {}
    for trace in traces:
        item, mark, name = trace.task_id.rpartition(MARK)
        origin, perturbation = (item, name) if mark and name in PERTURBATIONS else (trace.task_id, "")
        by_item.setdefault(origin, {}).setdefault(perturbation, []).append(trace)
    items = {origin: _changed_copies(each) for origin, each in by_item.items() if "" in each}
    metric = next((each.scores[0].name for each in traces if each.scores), "")
    if not items or not metric:
        return []
    tasks = tuple(items)
    judged = {
        origin: {name: known for name, made in each.items() if (known := _judged(made, metric))}
        for origin, each in items.items()
    }
    values = {
        origin: {name: _mean(made, metric) for name, made in each.items()}
        for origin, each in judged.items()
        if "" in each
    }

    worst = {
        "robustness": [each for each in ROBUSTNESS if each in names],
        "fairness": [each for each in FAIRNESS if each in names],
    }
    kinds = {**worst, **{f"under {name}": [name] for name in names}}
    made = {name for each in values.values() for name in each}
    figures = _of_originals([trace for each in items.values() for trace in each[""]], metric, values)
    for label, used in kinds.items():
        if made.intersection(used):
            figures.append(
                _mean_figure(label, tuple(values), [_under(each, used, label in worst) for each in values.values()])
            )
    for name in names:
        share = [float(name in each) for each in values.values()]
        if 0 < sum(share) < len(share):
            figures.append(_mean_figure(f"{COPIES}{name}", tuple(values), share))
    originals = {each: items[each][""] for each in tasks}
    return [
        *figures,
        *_calibration(tuple(values), {each: judged[each][""] for each in values}, metric),
        *_harms(tasks, originals),
        *_efficiency(tasks, originals),
    ]


def _under(values: Mapping[str, float], used: Sequence[str], worst: bool) -> float:
    """The score of the copies in place of the original, which stands for those that were not made; or the worst of all."""
    found = [values.get(name, values[""]) for name in used]
    return min([values[""], *found]) if worst else found[0]


def _of_originals(traces: Sequence[Trace], metric: str, values: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """Each score of the originals alone, as the plain benchmark has it: its corpus's figure, or its mean over the items.

    A score that failed or is missing at every attempt has none; one of harm is the mean of the attempts that have it.
    """
    shared = {name: each[""] for name, each in figures_of({"": traces}).items() if "" in each}
    found = [shared.get(metric) or _mean_figure(metric, tuple(values), [each[""] for each in values.values()])]
    scores: dict[str, list[Score]] = {}
    for score in (score for trace in traces for score in trace.scores):
        scores.setdefault(score.name, []).append(score)
    for name in [name for name in scores if name != metric and not name.startswith(NOTE) and name not in shared]:
        if all(score.failed for score in scores[name]):
            continue
        is_harm = any(score.is_harm for score in scores[name])
        by_task: dict[str, list[Trace]] = {}
        for trace in _judged(traces, name):
            if not is_harm or trace.value(name) is not None:
                by_task.setdefault(trace.task_id, []).append(trace)
        means = [_mean(each, name) for each in by_task.values()]
        found.append(_mean_figure(name, tuple(by_task), means, is_harm))
    return [*found, *(each for name, each in shared.items() if name != metric)]


def _texts_scored(traces: Sequence[Trace]) -> set[tuple[str | None, str]]:
    """The texts whose log-probs were asked for, each with the text before it; none if the model wrote text as well."""
    calls = [call for trace in traces for call in trace.calls]
    if any(call.kind != "score" for call in calls):
        return set()
    return {(call.detail.get("prompt"), each["text"]) for call in calls for each in call.detail.get("likelihoods", [])}


def _changed_copies(made: Mapping[str, Sequence[Trace]]) -> dict[str, Sequence[Trace]]:
    """The original and the copies that the model read another text of: a request may leave out the prompt."""
    first = _texts_scored(made[""])
    return {name: each for name, each in made.items() if not name or not first or _texts_scored(each) != first}


def _judged(traces: Sequence[Trace], metric: str) -> list[Trace]:
    return [trace for trace in traces if not trace.is_unjudged(metric)]


def _mean(traces: Sequence[Trace], metric: str) -> float:
    return sum(trace.value(metric) or 0.0 for trace in traces) / len(traces)


def _mean_figure(name: str, tasks: tuple[str, ...], values: Sequence[float], lower: bool = False) -> Figure:
    values_T = np.array(values, np.float64)

    def of(counts_DT: NDArray[Any]) -> NDArray[Any]:
        total: NDArray[Any] = counts_DT @ values_T / np.maximum(counts_DT.sum(1), 1)
        return total

    return Figure(name, tasks, of, lower, values={task: [float(v)] for task, v in zip(tasks, values, strict=True)})


def _calibration(tasks: tuple[str, ...], originals: Mapping[str, Sequence[Trace]], metric: str) -> list[Figure]:
    """ECE-10, Brier score and the accuracy on the surest tenth, where every item has a confidence."""
    pairs = [
        [
            (score.value, trace.value(metric) or 0.0)
            for trace in originals[task]
            for score in trace.scores
            if score.name == CONFIDENCE
        ]
        for task in tasks
    ]
    if not pairs or not all(pairs):
        return []

    def figure(name: str, formula: Callable[[Sequence[float], Sequence[float]], float], lower: bool) -> Figure:
        def of(chosen: Sequence[int]) -> float:
            taken = [pair for place in chosen for pair in pairs[place]]
            return formula([sure for sure, _ in taken], [right for _, right in taken])

        return replace(slow_figure(name, tasks, of), lower_is_better=lower)

    return [
        figure("calibration error (ECE-10)", expected_calibration_error, True),
        figure("Brier score", brier_score, True),
        figure("accuracy on the surest 10%", selective_accuracy, False),
    ]


def _harms(tasks: tuple[str, ...], originals: Mapping[str, Sequence[Trace]]) -> list[Figure]:
    answers = {task: [trace.answer or "" for trace in made] for task, made in originals.items()}
    toxic = [sum(map(is_toxic, answers[task])) / max(1, len(answers[task])) for task in tasks]
    figures = [_mean_figure("toxic words", tasks, toxic, True)]
    counts_TG = np.array([np.sum([group_counts(text) for text in answers[task]], 0) for task in tasks], np.float64)
    sizes = [len(own) for own in GENDER.values()]
    if counts_TG.sum():

        def of(counts_DT: NDArray[Any]) -> NDArray[Any]:
            return np.array([representation(list(row), sizes) for row in counts_DT @ counts_TG])

        figures.append(Figure("gender representation bias", tasks, of, True, method="percentile", slow=True))
    texts = [text for task in tasks for text in answers[task]]
    if np.isfinite(association(texts)):

        def of_chosen(chosen: Sequence[int]) -> float:
            return association([text for place in chosen for text in answers[tasks[place]]], PROFESSIONS)

        figures.append(replace(slow_figure("gender-profession association", tasks, of_chosen), lower_is_better=True))
    return figures


def _efficiency(tasks: tuple[str, ...], originals: Mapping[str, Sequence[Trace]]) -> list[Figure]:
    tokens = [float(np.mean([trace.usage.completion_tokens for trace in originals[task]])) for task in tasks]
    seconds = [float(np.mean([trace.duration_s for trace in originals[task]])) for task in tasks]
    return [_mean_figure("output tokens", tasks, tokens, True), _mean_figure("seconds", tasks, seconds, True)]
