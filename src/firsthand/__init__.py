"""Run any model with any reasoning pattern on any task, and see with error bars what each idea buys and costs.

    from firsthand import Agent, Experiment, Sampling, Task, catalog, run_sync
    from firsthand.rollout import rollout

The names below are found when they are first asked for, so that `import firsthand` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.30.0"

if TYPE_CHECKING:
    from firsthand.agent import Agent as Agent
    from firsthand.benchmark import Benchmark as Benchmark
    from firsthand.context import Context as Context
    from firsthand.errors import FirsthandError as FirsthandError
    from firsthand.experiment.experiment import Experiment as Experiment
    from firsthand.ingest.recording import trace_to as trace_to
    from firsthand.ingest.recording import traced as traced
    from firsthand.loop.budget import Limits as Limits
    from firsthand.loop.concurrency import run_sync as run_sync
    from firsthand.message import Message as Message
    from firsthand.model import Sampling as Sampling
    from firsthand.task import Task as Task
    from firsthand.tool import Tool as Tool
    from firsthand.trace import Score as Score
    from firsthand.trace import Trace as Trace

_HOMES = {
    "Agent": "agent",
    "Benchmark": "benchmark",
    "Context": "context",
    "Experiment": "experiment.experiment",
    "FirsthandError": "errors",
    "Limits": "loop.budget",
    "Message": "message",
    "Sampling": "model",
    "Score": "trace",
    "Task": "task",
    "Tool": "tool",
    "Trace": "trace",
    "run_sync": "loop.concurrency",
    "trace_to": "ingest.recording",
    "traced": "ingest.recording",
}
__all__ = [
    "Agent",
    "Benchmark",
    "Context",
    "Experiment",
    "FirsthandError",
    "Limits",
    "Message",
    "Sampling",
    "Score",
    "Task",
    "Tool",
    "Trace",
    "run_sync",
    "trace_to",
    "traced",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"firsthand.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'firsthand' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
