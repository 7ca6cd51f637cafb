"""Wraps a benchmark so that each task comes with perturbed copies: the same scorers, answers and choices, another prompt.

A copy is made where the prompt stands in the text that the model reads; its id is the task's, `~` and the perturbation, its
metadata name both. A copy that a perturbation would leave unchanged is not made: the original stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, unknown
from firsthand.loop.concurrency import derive_seed
from firsthand.perturbations import surface_noise, word_swaps
from firsthand.task import Task

Perturbation = Callable[[str, Random], str]
ROBUSTNESS: dict[str, Perturbation] = {
    "typos": surface_noise.typos,
    "lowercase": surface_noise.lowercase,
    "spacing": surface_noise.spacing,
    "contractions": surface_noise.contractions,
    "synonyms": word_swaps.synonyms,
}
FAIRNESS: dict[str, Perturbation] = {
    "dialect": word_swaps.dialect,
    "names": word_swaps.person_names,
    "gender": word_swaps.gender_terms,
}
PERTURBATIONS: Mapping[str, Perturbation] = {**ROBUSTNESS, **FAIRNESS}
MARK = "~"


def perturbed(
    benchmark: Benchmark, names: Sequence[str] = tuple(PERTURBATIONS), *, seed: int = 0, items: int | None = None
) -> Benchmark:
    """The benchmark with a copy of each task for each perturbation, after its task.

    Args:
        benchmark: The benchmark to wrap; its own figures are left out, because they would count copies too.
        names: Perturbations, of `PERTURBATIONS`.
        seed: Of the perturbations; a task's copies depend on it, the task's id and the perturbation alone.
        items: Only the first of the tasks, with all their copies.
    """
    for name in names:
        if name not in PERTURBATIONS:
            raise unknown("perturbation", name, PERTURBATIONS, see="firsthand list benchmarks")
    if items is not None and items < 1:
        raise ConfigError(f"items is {items}: give 1 or more")

    def tasks(task_seed: int) -> list[Task]:
        return [each for task in benchmark.tasks(task_seed)[:items] for each in with_copies(task, names, seed)]

    listed = ", ".join(names)
    return replace(
        benchmark,
        name=f"{benchmark.name}-perturbed",
        tasks=tasks,
        figures=None,
        protocol=f"{benchmark.protocol}; each task also with its prompt perturbed (seed {seed}): {listed}",
        options={**benchmark.options, "perturbations": listed, "seed": seed},
    )


def with_copies(task: Task, names: Sequence[str], seed: int) -> list[Task]:
    """The task and those of its copies that differ from it."""
    cluster = task.cluster or task.id
    found = [replace(task, metadata={**task.metadata, "cluster": cluster, "origin": task.id, "perturbation": ""})]
    for name in names:
        rng = Random(derive_seed("perturbation", seed, name, task.id))
        prompt = PERTURBATIONS[name](task.prompt, rng)
        if prompt != task.prompt:
            about = {**task.metadata, "cluster": cluster, "origin": task.id, "perturbation": name}
            found.append(replace(_with_prompt(task, prompt), id=f"{task.id}{MARK}{name}", metadata=about))
    return found


def _with_prompt(task: Task, prompt: str) -> Task:
    """The task with another prompt wherever the old one stands: alone, in the text before choices, and in requests."""

    def within(text: str | None) -> str | None:
        if text is None or task.prompt not in text:
            return text
        head, _, tail = text.rpartition(task.prompt)  # after the worked examples
        return head + prompt + tail

    requests = tuple((within(before), text) for before, text in task.requests)
    return replace(task, prompt=prompt, context=within(task.context), requests=requests)
