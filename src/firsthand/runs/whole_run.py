"""A run that is made in one go, as an import is: it is there whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from firsthand.errors import StoreError
from firsthand.message import Json
from firsthand.runs import store
from firsthand.runs.removal import remove_run
from firsthand.runs.run_folder import Run


@contextmanager
def whole_run(home: Path, config: Json, name_hint: str) -> Iterator[Run]:
    """A new run that is finished at the end of the block, and removed if the block fails."""
    run = store.create(home, config, name_hint, command=())
    try:
        with run:
            yield run
            run.finish("done")
    except BaseException:
        with suppress(StoreError):
            remove_run(run.path)
        raise
