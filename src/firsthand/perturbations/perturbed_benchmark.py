"""Wraps a benchmark so that each task comes with perturbed copies: the same scorers, another prompt.

A copy is made where the prompt stands in the text that the model reads; its id is the task's, `~` and the perturbation, its
metadata name both. Answers and choices stay, but for `names` and `gender`, which tell of other persons: their words change
in choices and reference answers too. Code, identifiers, formulas, what tests or other secrets hold, and the words of an
answer that stands in the prompt are left as they are (`kept_text.py`). A copy that a perturbation would leave unchanged, or
whose right answer it would not keep, is not made: the original stands for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Any

from firsthand.benchmark import Benchmark, made_tasks
from firsthand.errors import ConfigError, unknown
from firsthand.loop.concurrency import derive_seed
from firsthand.perturbations import surface_noise, word_swaps
from firsthand.perturbations.formula_places import paired_letters, symbol_places
from firsthand.perturbations.kept_text import (
    REFERENCES,
    answer_words,
    changed_between,
    check_values,
    checked_places,
    lost_words,
    texts_of,
    word_places,
)
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
RENAMINGS: Mapping[str, Callable[..., Callable[[str], str]]] = {
    "names": word_swaps.persons_renamed,
    "gender": word_swaps.genders_exchanged,
}
"""Perturbations that change who is spoken of: each gives the change of a prompt, to be made in the whole task."""
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
        found = [each for task in made_tasks(benchmark, task_seed)[:items] for each in with_copies(task, names, seed)]
        if names and found and not any(task.metadata["perturbation"] for task in found):
            _tell_once(
                f"no task of {benchmark.name:.100} has a perturbed copy: it has no robustness, fairness or the like"
            )
        return found

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
    checked, answers = checked_places(task), answer_words(task)
    found = [replace(task, metadata={**task.metadata, "cluster": cluster, "origin": task.id, "perturbation": ""})]
    for name in names:
        rng = Random(derive_seed("perturbation", seed, name, task.id))
        if name in RENAMINGS:
            rename = RENAMINGS[name](task.prompt, rng, beside=_beside(task))
            prompt = rename(task.prompt)
        else:
            # A word that alone keeps its capitals would tell the answer: such a copy is lost, not made with it.
            if name == "lowercase":
                kept = [*checked, *paired_letters(task.prompt)]
            else:
                kept = [*checked, *symbol_places(task.prompt), *word_places(task.prompt, answers)]
            change = PERTURBATIONS[name]
            prompt = changed_between(task.prompt, kept, lambda part, change=change, rng=rng: change(part, rng))  # type: ignore[misc]
            rename = _same
            if lost_words(task.prompt, prompt, answers):
                continue
        if prompt != task.prompt and (copy := _with_prompt(task, prompt, rename)) is not None:
            about = {**task.metadata, "cluster": cluster, "origin": task.id, "perturbation": name}
            found.append(replace(copy, id=f"{task.id}{MARK}{name}", metadata=about))
    return found


def _with_prompt(task: Task, prompt: str, rename: Callable[[str], str]) -> Task | None:
    """The task with another prompt wherever the old one stands: alone, in the text before choices, and in requests.

    Everything else but worked examples is renamed. None if two choices would become one, or if a secret that is no text of
    an answer, such as tests or a path, would have to be renamed too.
    """

    def within(text: str | None) -> str | None:
        if text is None:
            return None
        if task.prompt not in text:
            return rename(text)
        head, _, tail = text.rpartition(task.prompt)  # after the worked examples
        return head + prompt + rename(tail)

    choices = tuple(rename(each) for each in task.choices)
    others = check_values(task, answers=set(texts_of([task.secret.get(key) for key in REFERENCES])))
    if len(set(choices)) < len(set(task.choices)) or _changed(others, rename) != others:
        return None
    return replace(
        task,
        prompt=prompt,
        choices=choices,
        context=within(task.context),
        requests=tuple((within(before), rename(text)) for before, text in task.requests),
        baseline=within(task.baseline),
        secret={key: _changed(value, rename) for key, value in task.secret.items()},
    )


@lru_cache(maxsize=256)
def _tell_once(text: str) -> None:
    """Log a sentence once, however often the tasks are made."""
    logging.getLogger(__name__).warning("%s", text)


def _same(text: str) -> str:
    return text


def _beside(task: Task) -> str:
    """The choices and right answers: a new name might stand there already, or a word that decides the answer."""
    return "\n".join(texts_of([task.choices, *(task.secret.get(key) for key in REFERENCES)]))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """JSON data with its texts changed."""
    match value:
        case str():
            return change(value)
        case list():
            return [_changed(each, change) for each in value]
        case tuple():
            return tuple(_changed(each, change) for each in value)
        case dict():
            return {key: _changed(each, change) for key, each in value.items()}
    return value
