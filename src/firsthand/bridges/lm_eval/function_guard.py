"""Refuses the functions of a user's task file where the harness imports them, whatever was read in the file before.

`task_files` lists code so that a person is asked before anything is loaded; here is the place that no spelling passes by.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError

_refuses: ContextVar[bool] = ContextVar("refuses", default=False)


@contextlib.contextmanager
def functions_of_the_harness_alone(trust: bool) -> Iterator[None]:
    """Let `!function` import for files of the installed harness alone, or for all if they are trusted."""
    _guard()
    token = _refuses.set(not trust)
    try:
        yield
    finally:
        _refuses.reset(token)


def is_of_the_harness(path: Path) -> bool:
    """True for a file or folder of the installed harness, links followed."""
    import lm_eval

    return path.resolve().is_relative_to(Path(lm_eval.__file__).resolve().parent)


def _guard() -> None:
    """Put the question before the harness's own import, once; an AttributeError if the harness has it no more."""
    from lm_eval.tasks import _yaml_loader

    plain = _yaml_loader._import_func_in_yml
    if getattr(plain, "is_guarded", False):
        return

    def guarded(qual: str, base_dir: Path) -> Any:
        if _refuses.get() and not is_of_the_harness(base_dir):
            raise ConfigError(
                f"a task file in {base_dir} runs code of its author with your rights: !function {qual[:60]}. "
                "Read it, then add :trust=true to run it"
            )
        return plain(qual, base_dir)

    guarded.is_guarded = True  # type: ignore[attr-defined]
    _yaml_loader._import_func_in_yml = guarded
