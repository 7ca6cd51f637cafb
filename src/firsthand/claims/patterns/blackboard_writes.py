"""Writes to a shared state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

if TYPE_CHECKING:
    from firsthand.messaging.blackboard import Blackboard

CLAIM = Claim(
    quote="Shared state (blackboard): Agents read/write to shared memory object",
    source="the list's communication kinds",
    kind="ours",
    cost_s=1,
)
AGENTS, WRITES = 4, 20


def measure(lab: Lab) -> Measurement:
    """Four agents add to one number, with and without naming the version that they read."""
    import tempfile
    import threading
    from pathlib import Path

    from firsthand.messaging.sqlite_messaging import SqliteMessaging

    kept = {}
    for careful in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "team.db"
            with SqliteMessaging(path) as board:
                board.write("count", "0", writer="start")

            def add(number: int, careful: bool = careful, path: Path = path) -> None:
                with SqliteMessaging(path) as board:
                    _add(board, f"{number}", careful)

            team = [threading.Thread(target=add, args=(number,)) for number in range(AGENTS)]
            for each in team:
                each.start()
            for each in team:
                each.join()
            with SqliteMessaging(path) as board:
                last = board.read("count")
                kept[careful] = int(last.value) if last else 0
    return _measured(kept[False], kept[True])


def _add(board: Blackboard, writer: str, careful: bool) -> None:
    """Adds 1 to the number, WRITES times; a careful writer reads again when another one was faster."""
    from firsthand.messaging.blackboard import BoardConflict

    for _ in range(WRITES):
        while True:
            entry = board.read("count")
            assert entry is not None
            new = str(int(entry.value) + 1)
            try:
                board.write("count", new, writer=writer, expected=entry.version if careful else None)
                break
            except BoardConflict:
                continue


def _measured(careless: int, careful: int) -> Measurement:
    total = AGENTS * WRITES
    rows = (
        ("last write wins", float(careless), float(total)),
        ("expected version", float(careful), float(total)),
    )
    return Measurement(
        careful / total,
        "increments kept where a write names the version it saw",
        n=total,
        columns=("writes", "kept", "made"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Shared state is of use if no write is lost."""
    if m.value == 1:
        return ruling(
            "holds here",
            "nothing is lost if a write names the version that it saw; without that, agents overwrite each other",
        )
    return ruling("does not hold here", f"{1 - m.value:.0%} of the writes are lost")
