"""Scores attempts with lm-evaluation-harness's own filters, `process_results` and aggregation.

The responses are read from the trace: log-probs from its score calls, text from its answer. Each metric of a document is a
Score under the harness's name for it, `acc`, or `exact_match,strict-match` where the filter has a name. Metrics that are not
means, and groups, are Figures, computed by the harness's own functions over all documents together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from firsthand.benchmark import Figure
from firsthand.errors import DataError
from firsthand.scorers.choice import chosen_letter
from firsthand.stats.figures import slow_figure
from firsthand.task import Task
from firsthand.trace import Score, Trace, as_json

Metric = tuple[str, str]
"""(name of the metric, name of the filter)."""
SHOWN_CHARS = 500


@dataclass(frozen=True)
class DocumentRequests:
    """A document of a harness task, with the requests that the harness built from it."""

    task_name: str
    task: Any
    doc: Any
    instances: tuple[Any, ...]
    ours: Task


def scores_of(entry: DocumentRequests, trace: Trace) -> tuple[Score, ...]:
    """Return a Score per metric and filter, those where higher is better first; the item to aggregate is in its detail.

    The value is the metric of this document alone. If lower is better for every metric, such as perplexity, a reciprocal
    comes first: agents are ranked by the first score, and a failed attempt scores 0.
    """
    found, filtered = measured(entry, [answers(entry.ours, trace)])
    up: list[Score] = []
    down: list[Score] = []
    for metric, item in sorted(found.items(), key=lambda pair: not _is_number(pair[1])):
        value = _alone(entry, metric, item)
        if math.isnan(value):  # such as F1, which needs both classes: it has a figure
            continue
        detail = {"filtered": as_json(filtered[metric[1]])} | ({} if _is_number(item) else {"item": as_json(item)})
        if _more_is_better(entry, metric):
            up.append(Score(shown(metric), value, detail))
        else:
            down.append(Score(shown(metric), value, {**detail, "is_harm": True}))
    if not up and not down:
        raise DataError(f"{', '.join(map(shown, found)) or 'no metric'}: not defined for one document, see the figures")
    if not up:
        chosen = next((score for score in down if score.name == "byte_perplexity"), down[0])
        up = [Score(_turned(chosen.name), 1 / (chosen.value + ("perplexity" not in chosen.name)))]
    return (*up, *down)


def failed(entry: DocumentRequests, error: Exception) -> tuple[Score, ...]:
    """Return the first score with the error, for an attempt that the harness or the task's own code could not score."""
    from lm_eval.api.metrics import mean

    kinds, filters = entry.task.aggregation(), [each.name for each in getattr(entry.task, "_filters", ())]
    up = sorted(
        (name for name in kinds if _more_is_better(entry, (name, ""))), key=lambda name: kinds[name] is not mean
    )
    down = "byte_perplexity" if "byte_perplexity" in kinds else next(iter(kinds), "score")
    name = shown((up[0], filters[0] if filters else "none")) if up else _turned(down)
    return (Score(name, 0.0, failure=f"{type(error).__name__}: {error}"),)


def _turned(name: str) -> str:
    return f"1/{name}" if "perplexity" in name else f"1/(1+{name})"


def figures_of(
    entries: Mapping[str, DocumentRequests], groups: Mapping[str, Any], traces: Iterable[Trace], *, every: bool = False
) -> list[Figure]:
    """Return the harness's figures over all answered documents: groups, their tasks, and metrics that are not means.

    With `every`, each metric, means included. If a task repeats its requests (`repeats`), its filters get the responses of
    all epochs at once, for a majority vote, say.
    """
    from lm_eval.api.metrics import mean

    by_task: dict[str, list[Trace]] = {}
    for trace in traces:
        if trace.error is None and trace.task_id in entries:
            by_task.setdefault(trace.task_id, []).append(trace)
    names = [id for id in entries if id in by_task]
    items: dict[str, list[dict[Metric, Any]]] = {}
    for id in names:
        items[id] = _items(entries[id], sorted(by_task[id], key=lambda trace: trace.epoch))
    found: list[Figure] = []
    tasks = list(dict.fromkeys(entry.task_name for entry in entries.values()))
    for name in tasks:
        ids = tuple(id for id in names if entries[id].task_name == name)
        metrics = dict.fromkeys(metric for id in ids for each in items[id] for metric in each)
        repeats = any(len(entries[id].instances) and (entries[id].instances[0].repeats or 1) > 1 for id in ids)
        for metric in metrics:
            task = entries[ids[0]].task
            aggregate = task.aggregation().get(metric[0], mean)
            if every or len(tasks) > 1 or repeats or aggregate is not mean:
                label = shown(metric) if len(tasks) == 1 else f"{name} {shown(metric)}"
                figure = slow_figure(label, ids, _Aggregate(aggregate, metric, [items[id] for id in ids]))
                found.append(replace(figure, lower_is_better=not _more_is_better(entries[ids[0]], metric)))
    for name, group in groups.items():
        if group.aggregate_metric_list:
            found += _group_figures(name, group, entries, names, items)
    return found


@dataclass(frozen=True)
class _Aggregate:
    """A metric over chosen documents, by the harness's aggregation."""

    aggregate: Any
    metric: Metric
    items: list[list[dict[Metric, Any]]]

    def __call__(self, chosen: Sequence[int]) -> float:
        return float(
            self.aggregate([each[self.metric] for i in chosen for each in self.items[i] if self.metric in each])
        )


def _group_figures(
    name: str,
    group: Any,
    entries: Mapping[str, DocumentRequests],
    ids: Sequence[str],
    items: Mapping[str, list[dict[Metric, Any]]],
) -> list[Figure]:
    members = {task.task_name for task in group.get_all_tasks()}
    own = tuple(id for id in ids if entries[id].task_name in members)
    if not own:
        return []
    tasks = {entries[id].task_name: entries[id].task for id in own}

    def aggregated(chosen: Sequence[int]) -> dict[str, Any]:
        raw: dict[str, dict[Metric, list[Any]]] = {}
        for index in chosen:
            for each in items[own[index]]:
                for metric, item in each.items():
                    raw.setdefault(entries[own[index]].task_name, {}).setdefault(metric, []).append(item)
        results = {task: _task_metrics(tasks[task], found) for task, found in raw.items()}
        return dict(group.aggregate(results))

    def figure(key: str) -> Figure:
        metric, _, filter = key.partition(",")
        lower = any(not _more_is_better(entries[id], (metric, filter)) for id in own)
        made = slow_figure(f"{name} {shown((metric, filter))}", own, lambda chosen: float(aggregated(chosen)[key]))
        return replace(made, lower_is_better=lower)

    whole = aggregated(range(len(own)))
    return [figure(key) for key, value in whole.items() if "," in key and "_stderr" not in key and _is_number(value)]


def _task_metrics(task: Any, raw: Mapping[Metric, list[Any]]) -> dict[str, Any]:
    """Return a task's results in the shape that the harness's groups read."""
    from lm_eval.api.metrics import mean

    found = {f"{name},{filter}": task.aggregation().get(name, mean)(items) for (name, filter), items in raw.items()}
    return {**found, "sample_len": max(map(len, raw.values()))}


def shown(metric: Metric) -> str:
    """Return the harness's name of a metric, without the filter `none`."""
    return metric[0] if metric[1] == "none" else f"{metric[0]},{metric[1]}"


def measured(entry: DocumentRequests, answered: Sequence[Sequence[Any]]) -> tuple[dict[Metric, Any], dict[str, Any]]:
    """Return `process_results` of the responses, by metric, and each filter's output, cut to `SHOWN_CHARS`.

    `answered` holds the responses to all requests of the document, one list per repeat.
    """
    instances = [
        replace(instance, resps=[each[index] for each in answered], filtered_resps={})
        for index, instance in enumerate(entry.instances)
    ]
    entry.task._instances = instances
    entry.task.apply_filters()
    found: dict[Metric, Any] = {}
    filtered: dict[str, Any] = {}
    for filter in instances[0].filtered_resps:
        responses = [instance.filtered_resps[filter] for instance in instances]
        filtered[filter] = str(responses[0])[:SHOWN_CHARS] if len(responses) == 1 else len(responses)
        for metric, item in entry.task.process_results(entry.doc, responses).items():
            found[metric, filter] = item
    return found, filtered


def answers(task: Task, trace: Trace) -> list[Any]:
    """Return the response to each request: (log-prob, is greedy), a log-prob alone for a whole text, or generated text."""
    kind = task.metadata["request"]
    if kind == "generate_until":
        return [trace.answer or ""]
    asked = [*task.scored, *((task.baseline, text) for _, text in task.scored if task.baseline is not None)]
    known = _likelihoods(trace)
    found = [known.get(pair) for pair in asked]
    if None not in found:
        return [each[0] for each in found if each] if kind == "loglikelihood_rolling" else found
    chosen = chosen_letter(trace.answer or "", task) if task.choices and task.baseline is None else None
    if chosen is None and not (task.choices and task.baseline is None):
        raise DataError("the attempt lacks the log-probs that this task needs: run it with the pattern direct")
    return [(0.0, True) if index == chosen else (-math.inf, False) for index in range(len(task.scored))]


def _likelihoods(trace: Trace) -> dict[tuple[str | None, str], tuple[float, bool]]:
    found = {}
    for call in trace.calls:
        for each in call.detail.get("likelihoods", []) if call.kind == "score" else []:
            pair = (call.detail.get("prompt"), each["text"])
            found[pair] = (each["logprob"], each["is_greedy"])
    return found


def _items(entry: DocumentRequests, traces: Sequence[Trace]) -> list[dict[Metric, Any]]:
    """Return the items of a document: one per epoch, or one for all epochs where the task repeats its requests."""
    answered = []
    for trace in traces:
        try:
            answered.append(answers(entry.ours, trace))
        except DataError:
            continue
    if not answered:
        return []
    if (entry.instances[0].repeats or 1) > 1:
        return [measured(entry, answered)[0]]
    return [measured(entry, [each])[0] for each in answered]


def _alone(entry: DocumentRequests, metric: Metric, item: Any) -> float:
    if _is_number(item):
        return float(item)
    try:
        return _finite(entry.task.aggregation()[metric[0]], [item])
    except (ValueError, KeyError):
        return math.nan


def _finite(aggregate: Any, items: list[Any]) -> float:
    """Return the aggregate of the items: infinity on overflow, as a perplexity may, and NaN for no items."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns if all documents are of one class
        try:
            return float(aggregate(items)) if items else math.nan
        except OverflowError:
            return math.inf


def _more_is_better(entry: DocumentRequests, metric: Metric) -> bool:
    return bool(entry.task.higher_is_better().get(metric[0], True))


def _is_number(item: Any) -> bool:
    return not isinstance(item, str) and (isinstance(item, int | float) or getattr(item, "ndim", None) == 0)
