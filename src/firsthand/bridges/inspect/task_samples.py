"""Loads an Inspect task and turns its samples into Tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from firsthand.bridges.inspect.messages import message_from
from firsthand.bridges.inspect.sample_scores import enter_grader
from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra
from firsthand.task import Task
from firsthand.trace import as_json


@lru_cache(maxsize=8)
def load(task: str, args: str, grader: str) -> tuple[Any, list[Any]]:
    """Return Inspect's Task and its samples, each with an id. A task that calls a model while loading gets the grader."""
    try:
        from inspect_ai._eval.loader import load_tasks
    except ImportError:
        raise MissingExtra("inspect-ai", "inspect", f"the benchmark inspect:task={task}") from None
    path, at, name = task.partition("@")
    file = Path(path)
    if file.suffix == ".py" and not file.is_file():
        raise ConfigError(f"no file {str(file)!r}: give the path of the Python file that defines the Inspect task")
    try:
        enter_grader(grader)
        # Inspect finds a file by a glob pattern, which must be relative.
        found = load_tasks([os.path.relpath(file) + at + name if file.suffix == ".py" else task], _arguments(args))
    except FirsthandError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"Inspect could not load the task {task!r} ({type(error).__name__}: {reason})") from error
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ConfigError(f"{task!r} gives {len(found)} tasks ({names}): name one, as in inspect:task=FILE.py@NAME")
    samples = list(found[0].dataset)
    if not samples:
        raise DataError(f"{task!r} has no samples: check its dataset")
    for index, sample in enumerate(samples, 1):
        sample.id = index if sample.id is None else sample.id
    ids = [str(sample.id) for sample in samples]
    twice = next((id for id in ids if ids.count(id) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        raise DataError(f"{task!r} has two samples with the id {twice!r}: ids must differ")
    return found[0], samples


def _arguments(args: str) -> dict[str, Any]:
    """Parse `shots=5,subject=maths` into keyword arguments: values are JSON where they parse as JSON, else text."""
    found: dict[str, Any] = {}
    for part in filter(None, args.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ConfigError(f"args has {part!r}: NAME=VALUE was expected, as in args=shots=5,subject=maths")
        try:
            found[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            found[key.strip()] = value
    return found


def fixed_sampling(theirs: Any) -> dict[str, Any]:
    """Return the sampling settings that the Inspect task fixes in its `config`, under our names."""
    names = ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty")
    found = {name: value for name in names if (value := getattr(theirs.config, name, None)) is not None}
    return found | ({"stop": tuple(theirs.config.stop_seqs)} if theirs.config.stop_seqs else {})


def cluster_key(theirs: Any) -> str | None:
    """Return the metadata key by which the task clusters its standard errors, as in `stderr(cluster="passage")`, or None."""
    from inspect_ai._util.registry import registry_info, registry_params

    metrics = list(_flat(theirs.metrics))
    for scorer in theirs.scorer or ():
        metrics += _flat(registry_info(scorer).metadata.get("metrics"))
    keys = {registry_params(metric).get("cluster") for metric in metrics} - {None}
    return str(keys.pop()) if len(keys) == 1 else None


def _flat(metrics: Any) -> list[Any]:
    """Return the metrics of a list, or of a dictionary of lists."""
    if isinstance(metrics, dict):
        return [each for several in metrics.values() for each in _flat(several)]
    if isinstance(metrics, list | tuple):
        return [each for several in metrics for each in _flat(several)]
    return [] if metrics is None else [metrics]


def task_of(
    sample: Any, task: str, args: str, grader: str, sampling: Mapping[str, Any] | None = None, key: str | None = None
) -> Task:
    """Return the sample as a Task: its last message is the prompt; its cluster is the value of `key`."""
    from inspect_ai.model import ChatMessageUser

    messages = [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else list(sample.input)
    messages_read = tuple(map(message_from, messages))
    if not messages_read or messages_read[-1].role != "user":
        raise DataError(f"the sample {sample.id!r} does not end with a user message: there is nothing to answer")
    group = (sample.metadata or {}).get(key) if key is not None else None
    cluster = {} if group is None else {"cluster": str(group)}
    return Task(
        id=str(sample.id),
        prompt=messages_read[-1].text,
        choices=tuple(sample.choices or ()),
        conversation=messages_read[:-1],
        hint="a letter" if sample.choices else None,
        verbatim=not sample.choices,
        sampling=dict(sampling or {}),
        metadata=cluster | {"inspect": {"task": task, "args": args, "grader": grader}},
        secret={"target": as_json(sample.target), "metadata": as_json(sample.metadata or {})},
    )


def protocol_text(theirs: Any, task: str, args: str, grader: str, sandboxes: list[str]) -> str:
    from importlib.metadata import version

    epochs = theirs.epochs or 1
    reducers = [getattr(each, "__name__", "reducer") for each in (theirs.epochs_reducer or ())]
    parts = [
        f"Inspect {version('inspect-ai')}, {task}",
        *([f"with {args}"] if args else []),
        *([f"graded by {grader}"] if grader else []),
        *([f"in the sandbox {' and '.join(sandboxes)}"] if sandboxes else []),
        *([f"it asks for --epochs {epochs}" + (f", reduced by {', '.join(reducers)}" if reducers else "")]
          if epochs > 1 else []),
    ]  # fmt: skip
    return "; ".join(parts)
