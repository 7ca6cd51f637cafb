"""List all runs, newest first, or the attempts of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.system.home import data_home
from firsthand.system.terminal import complain, print_as_json, print_table

EXAMPLES = """
firsthand runs
firsthand runs last --limit 50
firsthand runs --json
"""


@dataclass(frozen=True)
class Config:
    """Runs or attempts to list."""

    run: str | None = field(default=None, metadata={"positional": True})
    """List the attempts of this run; without it, all runs."""
    limit: int = 20
    """At most this many lines."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")


def main(config: Config) -> int:
    """Print the list."""
    return list_attempts(config.run, config) if config.run else list_all(config)


def list_all(config: Config) -> int:
    """Print the runs, newest first."""
    infos = store.list_runs(data_home(), complain)[: config.limit]
    if config.json:
        print_as_json([{**asdict(info), "path": str(info.path)} for info in infos])
        return 0
    rows = [
        [info.id, info.status, _attempts(info), str(info.num_errors), info.problem or " ".join(info.command)]
        for info in infos
    ]
    print_table(f"runs in {data_home() / 'runs'}", ["run", "status", "attempts", "errors", "command"], rows)
    return 0


def _attempts(info: RunInfo) -> str:
    """Number of attempts done, and of the total if some are left."""
    planned = info.num_planned
    return str(info.num_traces) if planned is None or planned <= info.num_traces else f"{info.num_traces}/{planned}"


def list_attempts(ref: str, config: Config) -> int:
    """Print the attempts of one run, in the order they were finished."""
    with store.open_run(ref, data_home()) as run:
        rows = [row for row, _ in zip(run.rows(), range(config.limit), strict=False)]
        if config.json:
            print_as_json([vars(row) for row in rows])
            return 0
        cells = [
            [
                row.place[:8],
                row.name,
                "" if row.score is None else f"{row.score:g}",
                str(row.tokens),
                f"{row.duration_s:.1f}",
                row.error or ("" if row.stop_reason == "done" else row.stop_reason),
            ]
            for row in rows
        ]
        title = f"{run.id} ({run.status}); `firsthand show {run.id} ID` prints one"
        print_table(title, ["id", "benchmark/task/agent/epoch", "score", "tokens", "seconds", "ended by"], cells)
    return 0
