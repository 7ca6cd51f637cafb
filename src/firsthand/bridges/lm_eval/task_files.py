"""Lists the code that an lm-evaluation-harness task file would run, by reading it before the harness loads it.

`!function` names Python that the harness imports, `class` a Python task; both are code of the file's author, and so is a
metric that the harness does not know. Nothing is imported here. Templates are safe once they are rendered in jinja2's
sandbox, which `sandbox_templates` installs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from firsthand.errors import DataError
from firsthand.system.ordinary_file import read_ordinary

MAX_FILE_BYTES = 1 << 20
MAX_FILES = 2_000
MAX_DIGITS = 1_000
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
"""Types of YAML that are read; what a set, pairs or bytes hold would be seen by `datasets` alone."""
CODE_KEYS = {
    "class": "a Python class",
    "hf_evaluate": "a metric fetched from the hub",
    "use_prompt": "a prompt library",
}
CODE_DATASETS = ("pandas", "pickle", "eval", "webdataset")
"""Dataset readers that unpickle or execute a file's content."""


class Tagged(str):
    """The text after a `!function` tag."""


def code_in(path: Path, metrics: Collection[str]) -> list[str]:
    """Return a phrase for each piece of code that the file and its includes would run, in reading order.

    `metrics` are the names that the harness knows. Any other is a script to it: of the current folder, or the hub.
    """
    found: list[str] = []
    for file in with_includes(path):
        for key, value in _leaves(read_yaml(file)):
            if isinstance(value, Tagged):
                found.append(f"!function {value} ({file.name})")
            elif key in CODE_KEYS and value:
                found.append(f"{key}: {CODE_KEYS[key]} ({file.name})")
            elif key == "metric" and value is not None and str(value) not in metrics:
                found.append(f"metric: {str(value)[:60]}, which is none of lm-eval's own ({file.name})")
            elif key == "dataset_path" and _runs(str(value)):
                found.append(f"dataset_path: {str(value)[:60]} ({file.name})")
    return found


def names_in(path: Path) -> list[str]:
    """Return the names of tasks and groups that a group file lists, subgroups included."""
    body = read_yaml(path)
    names: list[str] = []
    pending: deque[Any] = deque([body.get("task")])
    while pending:
        item = pending.popleft()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            pending += [item.get("task"), item.get("group")]
        elif isinstance(item, str):
            names.append(item)
    return names


def with_includes(path: Path) -> Iterator[Path]:
    """Yield the file and each file it includes, directly or not."""
    pending, seen = [path], set[Path]()
    while pending:
        file = pending.pop().expanduser().resolve()
        if file in seen:
            continue
        if len(seen) >= MAX_FILES:
            raise DataError(f"{path} includes more than {MAX_FILES} files: include fewer")
        seen.add(file)
        yield file
        includes = [value for key, value in _leaves(read_yaml(file)) if key == "include"]
        pending += [file.parent / str(each) for each in includes]


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the file's mapping of plain values, with `!function` values as Tagged text and dates as text.

    DataError if it is not a mapping, or holds a value of another type.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses numbers that take the square of their length to be read: in base 60, 1 MiB of them takes hours."""

        def construct_yaml_int(self, node: Any) -> Any:
            if len(self.construct_scalar(node)) > MAX_DIGITS:
                raise ValueError(f"a number has more than {MAX_DIGITS} digits")
            return super().construct_yaml_int(node)

        def construct_yaml_float(self, node: Any) -> Any:
            if len(self.construct_scalar(node)) > MAX_DIGITS:
                raise ValueError(f"a number has more than {MAX_DIGITS} digits")
            return super().construct_yaml_float(node)

    def tagged(loader: Any, node: Any) -> Tagged:
        return Tagged(node.value if isinstance(node.value, str) else "?")

    def refused(loader: Any, node: Any) -> Any:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")[:60]
        raise DataError(
            f"{path} has a value of the type {tag} in line {node.start_mark.line + 1}: text, numbers, lists and mappings "
            "are read; write it as one of these"
        )

    Loader.yaml_constructors = {
        "!function": tagged,
        "tag:yaml.org,2002:timestamp": Loader.construct_yaml_str,
        None: refused,
        **{f"tag:yaml.org,2002:{kind}": getattr(Loader, f"construct_yaml_{kind}") for kind in PLAIN},
    }
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: is it the task's YAML file?")
        body = yaml.load(read_ordinary(path, MAX_FILE_BYTES), Loader=Loader)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(body, dict):
        raise DataError(f"{path} holds a {type(body).__name__}: a mapping with `task` or `group` was expected")
    return body


def sandbox_templates() -> None:
    """Make the harness render its templates in jinja2's sandbox, so that a template in a task file reaches no Python."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    plain = utils.env
    if isinstance(plain, SandboxedEnvironment):
        return
    sandboxed = SandboxedEnvironment(undefined=plain.undefined, keep_trailing_newline=plain.keep_trailing_newline)
    sandboxed.filters.update(plain.filters)
    utils.env = sandboxed


def _runs(dataset: str) -> bool:
    """True if loading the dataset may run or unpickle something: a script, or a reader that does."""
    return dataset in CODE_DATASETS or dataset.endswith((".py", ".pkl", ".pickle"))


def _leaves(body: Any) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for each value that is neither a mapping nor a list."""
    pending: deque[tuple[str, Any]] = deque([("", body)])
    seen: set[int] = set()
    while pending:
        key, value = pending.popleft()
        if isinstance(value, dict | list):
            if id(value) not in seen:  # an alias may name one list many times, or itself
                seen.add(id(value))
                pairs = value.items() if isinstance(value, dict) else ((key, each) for each in value)
                pending += [(str(name), each) for name, each in pairs]
        else:
            yield key, value
