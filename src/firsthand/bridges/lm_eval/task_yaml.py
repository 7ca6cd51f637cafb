"""Reads a YAML file of lm-evaluation-harness node by node, as the harness's own parser does, and imports nothing.

A mapping keeps one of two equal keys, and sets, pairs and keys are no values of it: what is listed here is every node
that the file has, whether or not anything of it is left in the mapping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from firsthand.errors import DataError
from firsthand.system.ordinary_file import read_ordinary

MAX_FILE_BYTES = 1 << 20
MAX_DIGITS = 1_000
"""In base 60, 1 MiB of digits takes hours."""
MAX_MERGED = 200_000
FUNCTION = "!function"
CODE_KEYS = {
    "class": "a Python class",
    "hf_evaluate": "a metric fetched from the hub",
    "use_prompt": "a prompt library",
}
DATA_KEYS = ("dataset_path", "data_files", "data_dir", "dataset_kwargs")
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
"""Types of YAML that are read; what a set, pairs or bytes hold would be seen by `datasets` alone."""
_KEYS = frozenset({*CODE_KEYS, *DATA_KEYS, "include", "metric"})
_MERGE = "tag:yaml.org,2002:merge"
_VALUE = "tag:yaml.org,2002:value"


class Tagged(str):
    """The text after a `!function` tag."""


class Leaf(NamedTuple):
    """A scalar, or anything with a `!function` tag."""

    key: str
    """Nearest key above it, if it is one that this file knows; else nothing."""
    value: Any
    is_data: bool
    """True below a key that names data."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the file's mapping of plain values, with `!function` values as Tagged text and dates as text.

    DataError if it is not a mapping, or holds a value of another type.
    """
    return _read(path)[0]


def leaves(path: Path) -> list[Leaf]:
    """Return each function of the file, and each value that is data or has a key of `_KEYS`; DataError as `read_yaml`."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, Any], list[Leaf]]:
    import yaml

    # two parsers may see two files in one text: this is the harness's
    base = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

    class Loader(base):  # type: ignore[misc,valid-type]
        """Refuses numbers that take the square of their length to be read, and merges that copy one mapping often."""

        merged = 0

        def construct_yaml_int(self, node: Any) -> Any:
            if len(self.construct_scalar(node)) > MAX_DIGITS:
                raise ValueError(f"a number has more than {MAX_DIGITS} digits")
            return super().construct_yaml_int(node)

        def construct_yaml_float(self, node: Any) -> Any:
            if len(self.construct_scalar(node)) > MAX_DIGITS:
                raise ValueError(f"a number has more than {MAX_DIGITS} digits")
            return super().construct_yaml_float(node)

        def flatten_mapping(self, node: Any) -> None:
            for name, value in node.value:
                if name.tag == _MERGE:
                    parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    for part in parts:
                        self.merged += 1
                        if isinstance(part, yaml.MappingNode):
                            self.flatten_mapping(part)
                            self.merged += len(part.value)
                        if self.merged > MAX_MERGED:
                            raise ValueError(f"merges (<<) copy more than {MAX_MERGED:,} keys")
            super().flatten_mapping(node)

    def tagged(loader: Any, node: Any) -> Tagged:
        return Tagged(node.value if isinstance(node.value, str) else "?")

    def refused(loader: Any, node: Any) -> Any:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")[:60]
        raise DataError(
            f"{path} has a value of the type {tag} in line {node.start_mark.line + 1}: text, numbers, lists and mappings "
            "are read; write it as one of these"
        )

    Loader.yaml_constructors = {
        FUNCTION: tagged,
        "tag:yaml.org,2002:timestamp": Loader.construct_yaml_str,
        None: refused,
        **{f"tag:yaml.org,2002:{kind}": getattr(Loader, f"construct_yaml_{kind}") for kind in PLAIN},
    }
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: is it the task's YAML file?")
        loader = Loader(read_ordinary(path, MAX_FILE_BYTES))
        root = loader.get_single_node()
        found = [] if root is None else list(_leaves(root, loader))  # before merges change the nodes
        body = None if root is None else loader.construct_document(root)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(body, dict):
        raise DataError(f"{path} holds a {type(body).__name__}: a mapping with `task` or `group` was expected")
    return body, found


def _leaves(root: Any, loader: Any) -> Iterator[Leaf]:
    """Yield what `leaves` returns, in reading order from the outside in; ValueError for a key that is no scalar."""
    pending: deque[tuple[str, bool, Any]] = deque([("", False, root)])
    seen: set[tuple[str, bool, int]] = set()
    while pending:
        key, is_data, node = pending.popleft()
        if (key, is_data, id(node)) in seen:  # an alias may name one list many times, or itself
            continue
        seen.add((key, is_data, id(node)))
        if node.tag == FUNCTION or (isinstance(node.value, str) and (key or is_data)):
            yield Leaf(key, loader.construct_object(node), is_data)
        for each in node.value if isinstance(node.value, list) else ():
            if not isinstance(each, tuple):
                pending.append((key, is_data, each))
                continue
            name, value = each
            if not isinstance(name.value, str):
                raise ValueError(f"a key is a list or a mapping, where text was expected{name.start_mark}")
            if name.tag != _VALUE:
                pending.append(("", False, name))
            inner = key if name.tag == _VALUE else name.value  # `{=: x}` may stand for x itself
            pending.append((inner if inner in _KEYS else "", is_data or inner in DATA_KEYS, value))
