"""Loads tasks and groups of lm-evaluation-harness by name or from YAML files, and configures them as its evaluator does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from firsthand.bridges.lm_eval.data_guard import data_below
from firsthand.bridges.lm_eval.function_guard import functions_of_the_harness_alone, is_of_the_harness
from firsthand.bridges.lm_eval.task_data import expect_own_data
from firsthand.bridges.lm_eval.task_files import code_in, names_in, sandbox_templates, with_includes
from firsthand.bridges.lm_eval.task_yaml import read_yaml
from firsthand.errors import ConfigError, DataError, FirsthandError, MissingExtra, unknown


def load_tasks(task: str, include: str, trust: bool, data: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tasks and groups behind a name or file."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingExtra("lm-eval", "lm-eval", f"the benchmark lm_eval:task={task}") from None
    sandbox_templates()
    with (
        task_errors(task),
        quiet(),
        data_below(_folders(task, include, data)),
        functions_of_the_harness_alone(trust),
    ):
        if is_task_file(task):
            manager, name = _file_manager(Path(task).expanduser().resolve(), include, trust, TaskManager, data)
        else:
            manager, name = installed_tasks(include), task
            if task not in manager.task_index:
                raise unknown("task of lm-evaluation-harness", task, manager.all_tasks, see="lm_eval ls tasks")
            _check(task, manager, trust, data)
        loaded = manager.load(name)
    return dict(loaded["tasks"]), dict(loaded.get("groups", {}))


def _folders(task: str, include: str, data: str) -> list[Path] | None:
    """The folders of a user's tasks and of the data that the user allows; None for a task of the installed harness."""
    beside = [Path(task).expanduser().resolve().parent] if is_task_file(task) else []
    given = [Path(each).expanduser() for each in (include, data) if each]
    return [*beside, *given] if beside or include else None


@lru_cache(maxsize=4)
def installed_tasks(include: str) -> Any:
    """Index the harness's own tasks, thousands of files that take many seconds to list, and those of a folder."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include or None)


def _file_manager(path: Path, include: str, trust: bool, manager: Any, data: str = "") -> tuple[Any, str]:
    """Return a TaskManager that loads the file, and the name to load: a task by its path, a group by its name.

    The harness's own tasks, thousands of files, are indexed only if a group names one of them.
    """
    _refuse(path.name, code_in(path, known_metrics()), trust)
    expect_own_data(path, data)
    group = _group_in(path)
    if group is None:
        return manager(include_defaults=False, include_path=include or None), str(path)
    folders = [str(path.parent), *([include] if include else [])]
    made = manager(include_defaults=False, include_path=folders)
    if any(name not in made.task_index for name in names_in(path)):
        made = manager(include_path=folders)
    name = group
    if name not in made.task_index or Path(made.task_index[name].yaml_path).resolve() != path:
        raise DataError(f"another file in its folder has a group or task named {name!r}: rename one")
    _check(name, made, trust, data)
    return made, name


def _check(name: str, manager: Any, trust: bool, data: str = "") -> None:
    """Raise an error if a user's file, not one of the installed harness, would run code untrusted, or has data elsewhere."""
    pending, seen = [name], set[str]()
    while pending:
        entry = manager.task_index.get(each := pending.pop())
        if entry is None or each in seen:
            continue
        seen.add(each)
        pending += sorted(entry.tags) if entry.yaml_path is None else []
        if entry.yaml_path is not None and not is_of_the_harness(Path(entry.yaml_path)):
            _refuse(entry.yaml_path.name, code_in(Path(entry.yaml_path), known_metrics()), trust)
            expect_own_data(Path(entry.yaml_path), data)
        if entry.yaml_path is not None and _group_in(Path(entry.yaml_path)) is not None:
            pending += names_in(Path(entry.yaml_path))


def _group_in(path: Path) -> str | None:
    """Name of the group that the file makes, itself or by what it includes; None for a task."""
    names = [str(body["group"]) for body in map(read_yaml, with_includes(path)) if "group" in body]
    return names[0] if names else None


def known_metrics() -> frozenset[str]:
    """Return the names of the metrics that come with the harness."""
    import lm_eval.api.metrics  # noqa: F401
    from lm_eval.api.registry import metric_registry

    return frozenset(metric_registry.keys())


def _refuse(name: str, code: list[str], trust: bool) -> None:
    if code and not trust:
        raise ConfigError(
            f"{name} runs code of its author with your rights: {', '.join(code[:3])}. "
            "Read it, then add :trust=true to run it"
        )


def prepare(name: str, task: Any, num_fewshot: int | None, seed: int) -> None:
    """Configure a task as the harness's evaluator does before it builds requests."""
    if getattr(task, "UNSAFE_CODE", False):
        raise ConfigError(
            f"{name} runs model-written code in this process, which is refused with or without trust. "
            "Use a benchmark that runs it in the sandbox, such as humaneval"
        )
    if getattr(task, "MULTIMODAL", False):
        raise ConfigError(f"{name} has images or audio, and models here take text only: use another task")
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)


def is_task_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness's progress bars and notices; its errors come as exceptions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def task_errors(name: str) -> Iterator[None]:
    """Turn any error of the harness, or of a task's own code, into a DataError that names the task."""
    try:
        yield
    except FirsthandError as error:
        if isinstance(error, DataError):
            raise DataError(f"the task {name!r} cannot be run here: {error}") from None
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise DataError(
            f"lm-evaluation-harness could not load the task {name!r} ({type(error).__name__}: {said}): "
            "check the file, its columns and whether its data is on this machine"
        ) from error
