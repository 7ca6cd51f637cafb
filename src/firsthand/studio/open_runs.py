"""Keeps the runs that are looked at open, so that a page does not check a whole file anew."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from firsthand.errors import FirsthandError, UnknownName
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.run_folder import Run
from firsthand.runs.run_names import DATABASE, find_run
from firsthand.stats.agent_scores import agent_scores
from firsthand.studio.kept_traces import KeptTraces

MOST_OPEN = 24


class OpenRuns:
    """The runs of a data home: a list, and those that were opened last."""

    def __init__(self, home: Path):
        self.home = home
        self._open: OrderedDict[str, tuple[tuple[int, int], Run]] = OrderedDict()
        self._lock = threading.Lock()
        self.traces = KeptTraces()
        """The attempts that were looked at."""

    def infos(self, on_problem: Callable[[str], None] = lambda text: None) -> list[RunInfo]:
        """All runs of the data home. `on_problem` is told what `store.list_runs` tells."""
        return store.list_runs(self.home, on_problem, scored=agent_scores)

    def get(self, id: str) -> Run:
        """The run of that id, `last`, or what else names one; UnknownName or StoreError if none can be read.

        Only runs of the data home are opened: an id is no path.
        """
        if "/" in id or "\\" in id or id.startswith(".") or "\0" in id:
            raise UnknownName(f"no run {id[:80]!r}")
        with self._lock:
            id = id if id in self._open else self._whole_id(id)
            known = self._open.get(id)
            if known is not None:
                if known[0] == _identity(known[1].path):
                    self._open.move_to_end(id)
                    return known[1]
                del self._open[id]
                self._retire(known[1])
            run = store.open_run(id, self.home)
            self._open[id] = (_identity(run.path), run)
            while len(self._open) > MOST_OPEN:
                self._retire(self._open.popitem(last=False)[1][1])
            return run

    def several(self, ids: Sequence[str]) -> list[Run]:
        """The runs of those ids, in their order."""
        return [self.get(id) for id in ids]

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for _, run in self._open.values():
                self._retire(run)
            self._open.clear()

    def _whole_id(self, ref: str) -> str:
        """The id of the run that `ref` names."""
        path = find_run(ref, self.home)
        if path.parent != self.home / "runs":  # a folder where the command was started
            raise UnknownName(f"no run {ref[:80]!r}")
        return path.name

    def _retire(self, run: Run) -> None:
        with suppress(FirsthandError, OSError):
            run.close()


def _identity(path: Path) -> tuple[int, int]:
    """Tells the file from one that took its place."""
    try:
        stat = (path / DATABASE).stat()
    except OSError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)
