"""Tokens that each kind of memory adds to a turn of a conversation, by a real model's own count.

    python bench/memory_added.py --model smollm2 --turns 12

The same conversation is held without a memory and with each kind: 12 turns whose words are fixed. The model's own chat
template and tokenizer count each prompt, tools and all; its answers are not computed but "Noted.", and its summaries as
long as they may be, so that what differs is the memory: what it shows at the start, the tools that it offers, what it cuts
from the conversation, and its own model calls. `semantic` holds 100 facts, `episodic` and `procedural` 20 attempts.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.memory import Memory, MemoryItem
from firsthand.message import Message, assistant
from firsthand.model import Completion, Model, Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sampling import Sampling
from firsthand.task import Task
from firsthand.tool import ToolSpec
from firsthand.trace import Trace

KINDS = (
    "notes",
    "semantic",
    "semantic:tools=true",
    "semantic:extract=true",
    "episodic",
    "procedural",
    "working",
    "working:window=400:summary=60",
    "hierarchical",
    "hierarchical:window=400:summary=30:fanout=4",
    "memgpt",
)
ANSWER = 8
"""Tokens of an answer in the conversation."""
QUESTION = "What is 12 + 30, and where does Person7 live?"
TURN = (
    "Turn {}: it rained in the hills again, so we stayed at the inn, and Ann told us of the harbour and of her sister."
)


class CountsOnly:
    """A model that counts its prompts and computes nothing."""

    def __init__(self, model: Model):
        self._model = model

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    async def complete(
        self, prompt: str | Sequence[Message], sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """The fixed answer; one to a longer limit than the conversation's takes all of it."""
        ids = await self._model.tokenize(prompt, tools)
        long = sampling.max_tokens > ANSWER and sampling.grammar is None
        said = " rain" * sampling.max_tokens if long else "Noted."
        usage = Usage(len(ids), completion_tokens=sampling.max_tokens if long else 3)
        return [Completion(assistant(said), "stop", usage)] * n


async def filled(kind: str) -> Memory:
    """A memory of this kind with something in it."""
    memory = catalog.memory(kind)
    if kind.startswith("semantic"):
        for number in range(100):
            given = {"subject": f"Person{number}", "attribute": "home town", "value": f"Town{number}", "time": number}
            await memory.write(
                MemoryItem.of(f"Person{number} lives in Town{number}, as they said on the phone.", given)
            )
    if kind in ("episodic", "procedural"):
        benchmark = catalog.benchmark("arithmetic:levels=1-2")
        for task in list(benchmark.tasks(0))[:20]:
            right = Scripted([f"The answer is {task.secret['answer']}"])
            trace = await rollout(Agent("past", right, direct), task, benchmark=benchmark)
            for item in memory.learn(trace):
                await memory.write(item)
    return memory


async def held(model: Model, memory: Memory | None, turns: int) -> Trace:
    """The trace of the conversation."""

    async def talk(task: Task, ctx: Context) -> str:
        for number in range(turns):
            said = TURN.format(number) if number else task.question
            if memory is not None:
                await ctx.hear(said, role="user", time="2026-01-01")
            ctx = await ctx.say(said).generate(tools=ctx.tools, max_tokens=ANSWER)
        return ctx.text

    agent = Agent("talk", model, talk, memory=memory, sampling=Sampling(temperature=0.0, max_tokens=64))
    trace = await rollout(agent, Task("1", QUESTION))
    if trace.error is not None:
        raise SystemExit(f"the attempt ended with {trace.error.kind}: {trace.error.message}")
    return trace


async def main() -> None:
    """Print a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--kinds", default="", help="those whose name has one of these words, as in `working,memgpt`")
    given = parser.parse_args()
    model = CountsOnly(catalog.model(given.model))
    plain = await held(model, None, given.turns)
    print(
        f"{given.model}, {given.turns} turns, {plain.usage.prompt_tokens / given.turns:.0f} prompt tokens each without"
    )
    print("| memory | prompt tokens added | written added | model calls | largest prompt |\n|---|---|---|---|---|")
    for kind in KINDS:
        if given.kinds and not any(each in kind for each in given.kinds.split(",")):
            continue
        trace = await held(model, await filled(kind), given.turns)
        prompt = (trace.usage.prompt_tokens - plain.usage.prompt_tokens) / given.turns
        written = (trace.usage.completion_tokens - plain.usage.completion_tokens) / given.turns
        asked = [call for call in trace.calls if call.kind == "generate"]
        largest = max(call.usage.prompt_tokens for call in asked)
        print(
            f"| `{kind}` | {prompt:+.0f} | {written:+.0f} | {len(asked) / given.turns:.1f} | {largest:,} |", flush=True
        )


if __name__ == "__main__":
    asyncio.run(main())
