"""A lab that notes what it is asked to attempt, and gives attempts that were made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.claims.lab import Lab
from firsthand.message import assistant
from firsthand.model import Sampling, Usage
from firsthand.providers.scripted import Scripted
from firsthand.trace import Call, Failure, Node, Score, Trace


def attempt(
    value: float | None = None, prompt: int = 0, written: int = 0, *, answer: str = "", failed: bool = False,
    calls: Iterable[Call] = (), said: Sequence[str] = (),
) -> Trace:  # fmt: skip
    """An attempt with one score, its tokens in one generation, and then other calls."""
    first = Call(":0", "generate", None, 0.0, 0.0, "r", Usage(prompt, 3, written))
    return Trace(
        "1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, tuple(Node(None, assistant(each)) for each in said), (first, *calls),
        answer=answer, error=Failure("E", "it failed") if failed else None,
        scores=() if value is None else (Score("first", value), Score("second", 1.0 - value)),
    )  # fmt: skip


class AskedLab(Lab):
    """Gives the attempts of each agent by its name, or in turn where names are equal."""

    def __init__(self, given: Sequence[tuple[str, Sequence[Trace]]], seed: int, folder: Any) -> None:
        super().__init__(seed, folder)
        object.__setattr__(self, "given", list(given))
        object.__setattr__(self, "asked", [])

    def path(self, name: str) -> Any:
        return self.folder / name

    def model(self, name: str) -> Any:
        return Scripted([], name=f"scripted:{name}")

    def attempt(self, agent: Agent, benchmark: Benchmark, tasks: Any, *, concurrency: int = 4) -> list[Trace]:
        wanted, traces = self.given.pop(0)  # type: ignore[attr-defined]
        assert agent.name == wanted
        self.asked.append((agent, benchmark, tasks, concurrency))  # type: ignore[attr-defined]
        return list(traces)


def greedy(tokens: int) -> Sampling:
    """Sampling at temperature 0, of so many tokens at most."""
    return Sampling(temperature=0.0, max_tokens=tokens)


def agents(lab: AskedLab) -> list[tuple[Any, dict[str, Any], Sampling]]:
    """Pattern, options and sampling of each agent that was asked for."""
    asked = lab.asked  # type: ignore[attr-defined]
    return [(agent.pattern, dict(agent.options), agent.sampling) for agent, *_ in asked]
