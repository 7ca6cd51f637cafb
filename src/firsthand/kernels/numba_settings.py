"""Keeps numba from reading `.numba_config.yaml` of the current folder, which may be somebody else's.

The file can name a folder of compiled code, which is a pickle that runs. numba reads it when it is imported and at each
compilation. The variables NUMBA_* of the environment hold as ever. A program that has imported numba before us has
chosen its settings itself.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "numba.core.config"
FILE = ".numba_config.yaml"


class SettingsFinder:
    """Finds numba's module of settings, and has it loaded without the file."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as it is found elsewhere, with another way to load it; None for other modules."""
        spec = PathFinder.find_spec(name, path, target) if name == MODULE else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_without_file(module: ModuleType) -> None:
            vars(module)["open"] = _open  # a module's own name stands before the builtin one
            load(module)
            vars(module)["_config_fname"] = os.devnull  # no ordinary file, so nothing is opened from now on

        vars(spec.loader)["exec_module"] = load_without_file
        return spec


def _open(file: Any, *args: Any, **options: Any) -> Any:
    return io.StringIO() if file == FILE else builtins.open(file, *args, **options)  # noqa: PTH123


def ignore_settings_file() -> None:
    """From now on numba is imported without the file."""
    if MODULE not in sys.modules and not any(isinstance(each, SettingsFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, SettingsFinder())
