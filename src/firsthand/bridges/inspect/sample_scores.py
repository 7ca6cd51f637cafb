"""Scores attempts with an Inspect task's own scorers, and computes its metrics.

A scorer gets a TaskState: the one the task's own solvers left if they ran, else one made from the trace, with its
conversation, its answer as the output and the chosen letter as the marked choice. Metrics and epoch reducers are Inspect's
own functions, applied to all attempts of an agent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from firsthand.benchmark import Figure
from firsthand.bridges.inspect.messages import message_to, model_of
from firsthand.bridges.inspect.sample_sandboxes import sandboxes_for_scoring
from firsthand.errors import ConfigError
from firsthand.message import Json, Message
from firsthand.scorers.choice import chosen_letter
from firsthand.scorers.inspect_values import direction_of
from firsthand.stats.figures import slow_figure
from firsthand.stats.metric_names import is_lower_better
from firsthand.task import Task
from firsthand.trace import Score, Trace, as_json

STATE = "inspect_state"
"""Kind of the event that records the solvers' final state."""
UNCERTAINTY_METRICS = frozenset({"stderr", "bootstrap_stderr", "std", "var"})
"""Inspect's metrics that are themselves measures of uncertainty or spread."""


def restored(theirs: Any, sample: Any, model: str, epoch: int = 1) -> Any:
    """Return the initial TaskState of a sample, as Inspect's solvers get it."""
    from inspect_ai.model import ChatMessageUser, ModelName
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    given = [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else list(sample.input)
    return TaskState(
        model=ModelName(f"firsthand/{model}"),
        sample_id=sample.id,
        epoch=epoch,
        input=sample.input,
        messages=given,
        target=Target(sample.target),
        choices=sample.choices,
        metadata=dict(sample.metadata or {}),
    )


def sample_id(task: Task) -> str:
    """Return the id of a task's sample; a perturbed copy is scored as its original."""
    return str(task.metadata.get("origin", task.id))


def saved(state: Any) -> Json:
    """Return the parts of a TaskState that scorers read, as JSON."""
    return {
        "messages": [message.model_dump(mode="json", exclude_none=True) for message in state.messages],
        "output": state.output.model_dump(mode="json", exclude_none=True),
        "choices": [[each.value, each.correct, each.original_position] for each in state.choices],
        "metadata": as_json(state.metadata),
        "store": as_json(dict(state.store.items())),
        "completed": bool(state.completed),
    }


class InspectScorers:
    """Scorers and metrics of one Inspect task."""

    def __init__(self, theirs: Any, samples: Mapping[str, Any], grader: str, places: Mapping[str, Any]):
        """`places` maps the ids of samples that need a sandbox to its specification."""
        self.theirs = theirs
        self.places = places
        self.samples = samples
        self.grader = grader
        self.scorers = list(theirs.scorer or ())
        self.names = _names(self.scorers)
        self.decided_by = [self.names, self.scorers, grader]  # see `system/described_code.py`

    async def score(self, task: Task, trace: Trace) -> tuple[Score, ...]:
        """Return a Score per scorer, or per key of a scorer with a dict value; Inspect's own Score is kept in the detail."""
        spec = self.places.get(sample_id(task))
        if spec is None:
            return await self._scored(task, trace)
        async with sandboxes_for_scoring(self.theirs, self.samples[sample_id(task)], spec, task, trace.final_state):
            return await self._scored(task, trace)

    async def _scored(self, task: Task, trace: Trace) -> tuple[Score, ...]:
        from inspect_ai.scorer import Target
        from inspect_ai.util._store import init_subtask_store

        sample = self.samples[sample_id(task)]
        state = self._state(task, sample, trace)
        enter_grader(self.grader)
        init_subtask_store(state.store)
        found: list[Score] = []
        for name, scorer in zip(self.names, self.scorers, strict=True):
            try:
                verdict = await scorer(state, Target(sample.target))
            except Exception as error:
                found.append(Score(name, 0.0, failure=f"{type(error).__name__}: {error}"))
                continue
            if verdict is not None:
                found += _scores(name, verdict)
        return tuple(found)

    def _state(self, task: Task, sample: Any, trace: Trace) -> Any:
        from inspect_ai.model import ModelOutput

        state = restored(self.theirs, sample, str(trace.agent["model"]), trace.epoch + 1)
        kept = next((event.data for event in reversed(trace.events) if event.kind == STATE), None)
        if kept is not None:
            return _with(state, kept)
        state.messages = [message_to(message) for message in _conversation(trace)] or state.messages
        state.output = ModelOutput.from_content(str(trace.agent["model"]), trace.answer or "")
        if task.choices:
            chosen = chosen_letter(trace.answer or "", task)
            for index in range(len(task.choices)):
                state.choices.mark_choice(index, index == chosen)
        return state

    def figures(self, traces: Sequence[Trace]) -> list[Figure]:
        """Return Inspect's metrics over all attempts, under its names: `match accuracy`, `match stderr`."""
        by_task: dict[str, list[Trace]] = {}
        for trace in traces:
            if trace.error is None and trace.task_id in self.samples:
                by_task.setdefault(trace.task_id, []).append(trace)
        ids = tuple(id for id in self.samples if id in by_task)
        scored = [[_sample_scores(trace, self.samples[id], self.names) for trace in by_task[id]] for id in ids]
        if not any(each for several in scored for each in several):
            return []
        results = lru_cache(maxsize=1024)(lambda chosen: self._results([scored[index] for index in chosen]))
        lower = {
            score.name for several in by_task.values() for trace in several for score in trace.scores if score.is_harm
        }
        lower |= {name.rpartition("/")[2] for name in lower}  # a part of a score has its own name in Inspect's results
        found = []
        for name in results(tuple(range(len(ids)))):
            scorer, _, metric = name.rpartition(" ")
            figure = slow_figure(name, ids, _ChosenMetric(results, name), uncertainty=metric in UNCERTAINTY_METRICS)
            is_lower = scorer.partition("[")[0] in lower or is_lower_better(metric)
            found.append(replace(figure, lower_is_better=is_lower))
        return found

    def _results(self, chosen: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
        """Return each metric over the chosen samples; a sample that was drawn twice counts as two."""
        from inspect_ai._eval.task.results import eval_results

        rows = [
            {name: score.model_copy(update={"sample_id": index}) for name, score in attempt.items()}
            for index, attempts in enumerate(chosen)
            for attempt in attempts
        ]
        found, _ = eval_results(
            len(chosen), rows, self.theirs.epochs_reducer, self.scorers, self.theirs.metrics, self.names
        )
        figures: dict[str, float] = {}
        for score in found.scores:
            label = f"{score.name}[{score.reducer}]" if _reducers(found) > 1 and score.reducer else score.name
            for metric in score.metrics.values():
                if isinstance(metric.value, int | float):
                    figures[f"{label} {metric.name}"] = float(metric.value)
        return figures


class _ChosenMetric:
    """One metric as a function of the chosen samples."""

    def __init__(self, results: Any, name: str):
        self.results = results
        self.name = name

    def __call__(self, chosen: Sequence[int]) -> float:
        return float(self.results(tuple(chosen)).get(self.name, math.nan))


def _names(scorers: Sequence[Any]) -> list[str]:
    """Return Inspect's names of the scorers, numbered where two are equal."""
    from inspect_ai._util.registry import registry_unqualified_name
    from inspect_ai.scorer._scorer import unique_scorer_name

    names: list[str] = []
    for scorer in scorers:
        names.append(unique_scorer_name(registry_unqualified_name(scorer), names))
    return names


def _scores(name: str, verdict: Any) -> list[Score]:
    """Convert Inspect's Score to ours; the value is the number that its metrics would use."""
    from inspect_ai.scorer import value_to_float

    detail = {"inspect": verdict.model_dump(mode="json", exclude_none=True), "scorer": name}
    if not isinstance(verdict.value, dict):
        value = verdict.value if not isinstance(verdict.value, list) else (verdict.value or [0])[0]
        return [Score(name, float(value_to_float()(value)), detail | direction_of(name, value))]
    parts = [(f"{name}/{key}", each) for key, each in verdict.value.items() if each is not None]
    return [
        Score(part, float(value_to_float()(each)), (detail if index == 0 else {}) | direction_of(part, each))
        for index, (part, each) in enumerate(parts)
    ]


def _sample_scores(trace: Trace, sample: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the attempt's stored scores as Inspect's SampleScores, by scorer."""
    from inspect_ai.scorer import SampleScore
    from inspect_ai.scorer import Score as InspectScore

    found: dict[str, Any] = {}
    for score in trace.scores:
        name, body = score.detail.get("scorer"), score.detail.get("inspect")
        if name in names and isinstance(body, dict):
            found[str(name)] = SampleScore(
                score=InspectScore.model_validate(body),
                sample_id=sample.id,
                sample_metadata=sample.metadata,
                scorer=name,
            )
    return found


def _reducers(results: Any) -> int:
    return len({score.reducer for score in results.scores})


def _conversation(trace: Trace) -> tuple[Message, ...]:
    """Return the conversation that ends at the newest node."""
    return trace.messages(len(trace.nodes) - 1) if trace.nodes else ()


def _with(state: Any, kept: Mapping[str, Any]) -> Any:
    """Return `state` with the parts that `saved` recorded."""
    from inspect_ai.model import ChatMessage, ModelOutput
    from inspect_ai.solver._task_state import Choice, Choices
    from pydantic import TypeAdapter

    one: TypeAdapter[Any] = TypeAdapter(ChatMessage)
    state.messages = [one.validate_python(each) for each in kept["messages"]]
    state.output = ModelOutput.model_validate(kept["output"])
    state.choices = Choices([Choice(value, correct, place) for value, correct, place in kept["choices"]])
    state.metadata = dict(kept["metadata"])
    for key, value in kept["store"].items():
        state.store.set(key, value)
    state.completed = bool(kept["completed"])
    return state


def enter_grader(grader: str) -> None:
    """Make the grader the default model of scorers; without one, a scorer that calls a model gets a ConfigError."""
    from inspect_ai.log._transcript import Transcript, init_transcript
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._model import init_active_model, init_model_roles, init_model_usage, init_role_usage

    model = _grader_model(grader)
    init_transcript(Transcript())
    init_active_model(model, GenerateConfig())
    init_model_roles({"grader": model})
    init_model_usage()
    init_role_usage()


@lru_cache(maxsize=8)
def _grader_model(grader: str) -> Any:
    """The grader as Inspect's Model, made once: each one looks for a notebook, which takes longer than most scores."""
    return model_of(_grader_api(grader))


def _grader_api(grader: str) -> Any:
    from inspect_ai.model import GenerateConfig, ModelAPI

    from firsthand.bridges.inspect.model_provider import model_api

    if grader:
        return model_api()(grader)

    class Missing(ModelAPI):  # type: ignore[misc]
        async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
            raise ConfigError("this scorer calls a judge model, and none was named: add :grader=MODEL to the benchmark")

    return Missing("none", None, None, [], GenerateConfig())
