"""Subcommands of a command: the files `PREFIX_NAME.py` beside it, found by their names."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

from firsthand.errors import unknown


def subcommands_of(prefix: str) -> dict[str, str]:
    """Subcommand -> its one-line description, read without importing."""
    found = {}
    for path in sorted(Path(__file__).parent.glob(f"{prefix}_[a-z]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.removeprefix(f"{prefix}_").replace("_", "-")] = about.split("\n")[0]
    return found


def subcommand_of(prefix: str, name: str) -> ModuleType:
    """The module of a subcommand. UnknownName if there is none."""
    known = subcommands_of(prefix)
    if name not in known:
        raise unknown("subcommand", name, known, see=f"firsthand {prefix} --help")
    return importlib.import_module(f"{__package__}.{prefix}_{name.replace('-', '_')}")


def listed_subcommands(prefix: str, about: str) -> str:
    """The command's first words and its subcommands, a line each."""
    known = subcommands_of(prefix)
    width = max(map(len, known), default=0)
    lines = "\n".join(f"  {name:<{width}}  {line}" for name, line in known.items())
    return f"{about.split(';')[0]}.\n\nsubcommands:\n{lines}"
