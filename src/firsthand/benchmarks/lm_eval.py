"""Any lm-evaluation-harness task: its prompts, few-shot examples, filters and metrics on our engine and patterns.

    firsthand run lm_eval:task=arc_easy:num_fewshot=5 --limit 100
    firsthand run lm_eval:task=tasks/capitals.yaml

The harness (extra `lm-eval`) loads the task and renders its requests; each document becomes a Task that fixes its own
request, and the harness's own functions score the answer. Names are the harness's. The work is done in `bridges/lm_eval/`.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark, Figure
from firsthand.bridges.lm_eval.document_scores import DocumentRequests, failed, figures_of, scores_of
from firsthand.bridges.lm_eval.document_tasks import as_marker, entries_of, protocol_text
from firsthand.bridges.lm_eval.task_loading import is_task_file, load_tasks, prepare, quiet, task_errors
from firsthand.errors import ConfigError, DataError
from firsthand.hub.offline import is_offline, libraries_offline, reaches_hub
from firsthand.task import Task
from firsthand.trace import Score, Trace

SEED = 1234
"""The harness's own default seed for drawing few-shot examples."""


def lm_eval(
    *,
    task: str = "",
    num_fewshot: int | None = None,
    limit: int | None = None,
    seed: int = SEED,
    apply_chat_template: bool = False,
    fewshot_as_multiturn: bool = False,
    system_instruction: str = "",
    include: str = "",
    trust: bool = False,
    data: str = "",
) -> Benchmark:
    """Return a task or group of the harness as a Benchmark.

    Args:
        task: A name that the harness knows, or a YAML file.
        num_fewshot: Few-shot examples per prompt, in place of the task's own number.
        limit: Documents per task, as the harness counts them.
        seed: Seed for drawing few-shot examples.
        apply_chat_template: Send messages, which the model's own template renders, in place of text.
        fewshot_as_multiturn: Make each few-shot example a turn of the conversation.
        system_instruction: System message.
        include: Folder with more task files.
        trust: Load files that name Python (`!function`, `class`), which runs with your rights.
        data: Folder that the data of task files may lie in besides their own; nothing else of this machine is read.
    """
    if not task:
        raise ConfigError("lm_eval was given no task: write lm_eval:task=arc_easy, or lm_eval:task=FILE.yaml")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}: give 1 or more")
    if fewshot_as_multiturn and not apply_chat_template:
        raise ConfigError("fewshot_as_multiturn needs apply_chat_template: there are no turns without a template")
    tasks, groups = _loaded(task, include, trust, data)
    entries: dict[str, DocumentRequests] = {}
    for name, each in tasks.items():
        prepare(name, each, num_fewshot, seed)
        with task_errors(name), quiet():
            each.build_all_requests(
                limit=limit,
                system_instruction=system_instruction or None,
                apply_chat_template=apply_chat_template,
                fewshot_as_multiturn=fewshot_as_multiturn,
                chat_template=as_marker if apply_chat_template else None,
            )
            entries |= {entry.ours.id: entry for entry in entries_of(name, each, of_several=len(tasks) > 1)}
    ours = [entry.ours for entry in entries.values()]
    changed = [  # options that change the requests are part of the name, so that one run can hold both
        *([f"num_fewshot={num_fewshot}"] if num_fewshot is not None else []),
        *([f"seed={seed}"] if seed != SEED else []),
        *(["chat"] if apply_chat_template else []),
        *(["multiturn"] if fewshot_as_multiturn else []),
        *([f"system={hashlib.sha256(system_instruction.encode()).hexdigest()[:6]}"] if system_instruction else []),
    ]

    def lm_eval_metrics(task: Task, trace: Trace) -> tuple[Score, ...]:
        entry = entries.get(task.id)
        if entry is None and (first := entries.get(str(task.metadata.get("origin")))) is not None:
            entry = replace(first, ours=task)  # a perturbed copy, scored as its document
        if entry is None:
            raise DataError(f"{task.id} is not a document of this task: give the limit that the run was made with")
        try:
            return scores_of(entry, trace)
        except Exception as error:  # a task's own code may raise anything, and the table counts it as an error
            return failed(entry, error)

    setattr(lm_eval_metrics, "decided_by", [metrics_of(name, each) for name, each in tasks.items()])  # noqa: B010

    def figures(traces: Any) -> list[Figure]:
        return figures_of(entries, groups, traces)

    return Benchmark(
        name=":".join(["lm_eval", Path(task).stem if is_task_file(task) else task, *changed]),
        tasks=lambda seed: ours,
        scorers=(lm_eval_metrics,),
        description=f"{task}, as lm-evaluation-harness has it.",
        protocol=protocol_text(tasks, seed, apply_chat_template, fewshot_as_multiturn, system_instruction),
        figures=figures,
        options={"task": task, "limit": limit, "seed": seed},
    )


def metrics_of(name: str, task: Any) -> list[object]:
    """Return the parts that decide the scores of one of its tasks; see `system/described_code.py`."""
    config = getattr(task, "config", None)
    parts = ("output_type", "metric_list", "filter_list", "process_results")
    return [name, getattr(task, "VERSION", None), *(getattr(config, part, None) for part in parts)]


def _loaded(task: str, include: str, trust: bool, data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tasks and groups behind a name or file, with data from the cache alone where the hub cannot be reached."""
    is_away = is_offline() or not reaches_hub()
    try:
        with libraries_offline() if is_away else nullcontext():
            return load_tasks(task, include, trust, data)
    except DataError as error:
        if is_away and isinstance(error.__cause__, ConnectionError):
            raise DataError(
                f"the data of {task!r} is not in the cache of `datasets`, and the Hugging Face hub cannot be reached from "
                f"here: load it once where it can be reached ({error.__cause__!s:.200})"
            ) from error
        raise
