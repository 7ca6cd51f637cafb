"""Accuracy and tokens of each kind of memory on the benchmark `sessions`, beside a plain window and the full context.

python bench/memory_kinds.py --models sim:sessions --sessions 20 --questions 40
python bench/memory_kinds.py --models smollm2,qwen2.5-coder-0.5b --sessions 8 --questions 8

All questions are about the same sessions, so most requests come once for each question. A greedy request that was made
before is answered from the first reply, with its usage; the engine would give the same tokens (`--again` asks it).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.sessions import sessions
from firsthand.message import Message
from firsthand.model import Completion, Model
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.tool import ToolSpec


def rows(window: int) -> list[tuple[str, str, str | None]]:
    """Name, options of `attend`, memory."""
    small = max(8, window // 10)
    return [
        ("nothing", "how=none", None),
        ("full context", "how=say", None),
        ("plain window", f"how=say:window={window}", None),
        ("working", "how=say", f"working:window={window}:summary={small}"),
        ("hierarchical", "how=say", f"hierarchical:window={window}:summary={small // 2}:fanout=4"),
        ("memgpt", "how=turns", f"memgpt:window={window}:summary={small}:block_chars={min(300, window)}"),
        ("semantic, as said", "how=hear", "semantic"),
        ("semantic, extracted", "how=hear", "semantic:extract=true"),
    ]


class OnceAsked:
    """A model whose greedy replies are kept by what reaches it: the prompt's token ids, and the settings but the seed."""

    def __init__(self, model: Model):
        self._model = model
        self._replies: dict[object, list[Completion]] = {}
        self.asked = self.kept = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    async def complete(
        self, prompt: str | Sequence[Message], sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """The model's replies, or those it gave to the same request."""
        self.asked += 1
        if sampling.temperature > 0:
            return await self._model.complete(prompt, sampling, tools=tools, n=n)
        key = (tuple(await self._model.tokenize(prompt, tools)), repr(replace(sampling, seed=None)), n)
        if key in self._replies:
            self.kept += 1
        else:
            self._replies[key] = await self._model.complete(prompt, sampling, tools=tools, n=n)
        return self._replies[key]


async def measured(model: object, options: str, memory: str | None, benchmark: object, tasks: list) -> dict:
    """The figures of one row."""
    pattern, given = catalog.pattern(f"attend:{options}")
    right = prompt = written = errors = most = 0
    began = time.time()
    for task in tasks:
        made = catalog.memory(memory) if memory else None
        trace = await rollout(Agent("a", model, pattern, given, memory=made), task, benchmark=benchmark)
        errors += trace.error is not None
        if trace.error is not None:
            print("   ", trace.error.message[:200], flush=True)
        right += bool(trace.scores) and trace.scores[0].value
        prompt += trace.usage.prompt_tokens
        written += trace.usage.completion_tokens
        most = max([most, *(c.usage.prompt_tokens for c in trace.calls if c.kind == "generate")])
    turns = len(tasks) * len(tasks[0].metadata["sessions"])
    return {
        "accuracy": right / len(tasks), "prompt tokens/session": prompt / turns, "written/session": written / turns,
        "largest prompt": most, "errors": errors, "s": round(time.time() - began, 1),
    }  # fmt: skip


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="sim:sessions")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--window", type=int, default=600)
    parser.add_argument("--rows", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="compute a request again that was made before")
    given = parser.parse_args()
    benchmark = sessions(sessions=given.sessions, questions=given.questions)
    tasks = list(benchmark.tasks(given.seed))
    for name in given.models.split(","):
        model = catalog.model(name)
        if hasattr(model, "tokenize") and not given.again:
            model = OnceAsked(model)
        print(f"\n{name}: {given.sessions} sessions, {given.questions} questions, window {given.window}", flush=True)
        for label, options, memory in rows(given.window):
            if given.rows and not any(each in label for each in given.rows.split(",")):
                continue
            found = asyncio.run(measured(model, options, memory, benchmark, tasks))
            cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in found.values()]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)
        if isinstance(model, OnceAsked):
            print(f"{model.kept:,} of {model.asked:,} requests had been made before")


if __name__ == "__main__":
    main()
