"""Take back what the tools of a stored attempt did, last call first, to the state at one of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firsthand.errors import ConfigError
from firsthand.message import canonical
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firsthand.runs.run_folder import Run
    from firsthand.safety.undo.undo_point import UndoPoint
    from firsthand.tool import Tool
    from firsthand.trace import Call, Trace

EXAMPLES = """
firsthand run my_tasks.toml --pattern react --tools files:notes:write=true --guard policy,undoable
firsthand show last 3fa9                    # numbers the steps of an attempt
firsthand rollback last 3fa9 --dry-run      # what would be taken back
firsthand rollback last 3fa9 --to 4
"""


@dataclass(frozen=True)
class Config:
    """The attempt, and the step to go back to."""

    trace: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """An attempt as `firsthand show` takes it: RUN TRACE, or TRACE alone for one of the last run."""
    to: int | None = None
    """The number of a message, as `firsthand show` prints it: calls made from it and later are taken back; none: all."""
    tools: tuple[str, ...] | None = None
    """The tools, where the run's own settings do not name them: files:notes:write=true."""
    trust: bool = False
    """Load what the settings of a run from elsewhere name, and put back states that were not recorded here; look first."""
    dry_run: bool = False
    """Print what would be taken back, and change nothing."""
    json: bool = False
    """Print the outcome of each call as JSON for programs."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.trace) <= 2:
            raise ConfigError(
                "name an attempt: firsthand rollback RUN TRACE --to STEP; `firsthand runs last` lists them"
            )


def main(config: Config) -> int:
    """Take the calls back and print what became of each, and which others cannot be; 3 if an undo failed or was not made."""
    from firsthand.experiment.foreign_settings import is_own
    from firsthand.runs import store
    from firsthand.safety.undo.roll_back import calls_without_undo, points_of, roll_back
    from firsthand.safety.undo.rollback_log import RollbackLog
    from firsthand.system.home import data_home

    where, which = config.trace if len(config.trace) == 2 else ("last", config.trace[0])
    with store.open_run(where, data_home()) as run:
        trace = run.trace(which)
        points = [each for each in points_of(trace) if config.to is None or each.step >= config.to]
        if not points:
            raise ConfigError(
                f"no call of {trace.id} can be taken back from there: it needs --guard undoable and tools that can undo"
            )
        log = RollbackLog(run.path / f"rollback-{trace.id.replace('/', '-')}.jsonl")
        rehearses_foreign = config.dry_run and config.tools is None and not (config.trust or is_own(run))
        tools = {} if rehearses_foreign else _tools(run, config)
        beyond = [] if rehearses_foreign else calls_without_undo(trace, tools, config.to)
        if config.dry_run:
            shown = [[p.step, p.tool, p.arguments.get("path", ""), log.states.get(p.effect, "")] for p in points]
            shown += [[_step(c), c.detail["name"], c.detail["arguments"].get("path", ""), "no undo"] for c in beyond]
            print_as_json(shown) if config.json else _print([f"step {s}: {t} {a} {d}".rstrip() for s, t, a, d in shown])
            return 0
        if not config.trust:
            _expect_sealed(trace, points, tools)
        steps = roll_back(points, tools, log)
    if config.json:
        rows = [{"call": s.point.effect, "tool": s.point.tool, "outcome": s.outcome, "reason": s.reason} for s in steps]
        rows += [{"call": c.id, "tool": c.detail["name"], "outcome": "no undo", "reason": ""} for c in beyond]
        print_as_json(rows)
    else:
        _print([f"{s.outcome:<10}step {s.point.step}: {s.point.tool} {s.reason}".rstrip() for s in steps])
        left = len(points) - len(steps)
        _print([f"{count_of(left, 'earlier call')} left as {'it is' if left == 1 else 'they are'}"] if left else [])
        _print(
            [f"no undo   step {_step(c)}: {c.detail['name']} {canonical(c.detail['arguments'])[:80]}" for c in beyond]
        )
    return 3 if any(step.outcome == "kept" for step in steps) else 0


def _expect_sealed(trace: Trace, points: Sequence[UndoPoint], tools: dict[str, Tool]) -> None:
    """ConfigError if a state to be put back was not recorded under this data home, over what the tools act on."""
    from firsthand.safety.undo.roll_back import unsealed

    there = [each for each in points if each.tool in tools]  # one that is not there is an error of its own
    if others := unsealed(trace, there, tools):
        last = others[-1]
        why = (
            "the state after it is not known, so others may have changed it since"
            if last.after_hash is None
            else "the state before it was not recorded by this version under this data home for these tools"
        )
        raise ConfigError(
            f"step {last.step}, {last.tool} {str(last.arguments.get('path', ''))[:80]!r}, is not taken back: {why}. Look at "
            f"`firsthand show {trace.id}`, then add --trust"
        )


def _step(call: Call) -> int:
    return -1 if call.at is None else call.at


def _print(lines: list[str]) -> None:
    for line in lines:
        console().print(line, soft_wrap=True, markup=False)


def _tools(run: Run, config: Config) -> dict[str, Tool]:
    """The tools by name, those of the run unless others are given."""
    from firsthand.experiment.foreign_settings import expect_own
    from firsthand.experiment.named_agents import open_tools
    from firsthand.experiment.settings import stored_settings
    from firsthand.tool import Tool

    texts = config.tools
    if texts is None:
        texts = stored_settings(run).tools
        expect_own(run, {"tool": texts}, trust=config.trust)
    return {tool.name: tool for tool in open_tools(texts) if isinstance(tool, Tool)}
