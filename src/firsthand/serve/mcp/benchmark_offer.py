"""Benchmarks over MCP: each is a resource that describes it, and `run_benchmark` measures a served agent, with progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import mcp_types as types

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, made_tasks
from firsthand.errors import ToolError, nearest
from firsthand.experiment.experiment import Experiment
from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.runs import store as runs
from firsthand.runs.run_names import find_run
from firsthand.serve.mcp.exchange import Exchange, current_exchange, exchanging
from firsthand.serve.mcp.mcp_server import Contents, Offer, ServedResource
from firsthand.serve.mcp.served_tool import Outcome, ServedTool
from firsthand.stats.run_summary import summary
from firsthand.system.home import data_home
from firsthand.tool import tool_from_function
from firsthand.trace import Trace

MAX_ATTEMPTS = 100_000


def offer_benchmarks(offer: Offer, texts: Sequence[str], agents: Sequence[Agent]) -> None:
    """Adds benchmarks by name to an offer: a resource for each, and with agents the tool that runs them."""
    benchmarks = {text: catalog.benchmark(text) for text in texts}
    for text, benchmark in benchmarks.items():
        offer.resources.append(_resource(text, benchmark))
    if agents and benchmarks:
        offer.tools.append(_run_tool(benchmarks, {agent.name: agent for agent in agents}, offer))


def _resource(text: str, benchmark: Benchmark) -> ServedResource:
    async def read(uri: str, parts: dict[str, str]) -> Contents:
        body = await in_thread(lambda: described(text, benchmark))
        return [types.TextResourceContents(uri=uri, text=json.dumps(body, indent=1), mime_type="application/json")]

    line = benchmark.description.partition("\n")[0] or f"The benchmark {benchmark.name}."
    return ServedResource(f"firsthand://benchmark/{text}", benchmark.name, line, read, "application/json")


def described(text: str, benchmark: Benchmark) -> Json:
    """A benchmark as data: how it is prompted and scored, its licence, its size and three of its tasks, without answers."""
    tasks = made_tasks(benchmark, 0)
    return {
        "name": text,
        "description": benchmark.description,
        "protocol": benchmark.protocol,
        "licence": benchmark.licence,
        "scorers": [str(getattr(each, "name", getattr(each, "__name__", "score"))) for each in benchmark.scorers],
        "tasks": len(tasks),
        "examples": [{"id": task.id, "prompt": task.prompt, "choices": list(task.choices)} for task in tasks[:3]],
    }


def _run_tool(benchmarks: dict[str, Benchmark], agents: dict[str, Agent], offer: Offer) -> ServedTool:
    first = next(iter(agents))

    async def run_benchmark(
        benchmark: str, agent: str = first, limit: int = 10, epochs: int = 1, seed: int = 0
    ) -> types.CallToolResult:
        """Measures an agent of this server on a benchmark: the score with its interval, errors, tokens and seconds.

        Args:
            benchmark: One of the benchmarks that are listed as resources.
            agent: The agent to measure.
            limit: The first N tasks alone; 0 for all.
            epochs: Attempts at each task.
            seed: Equal seeds give equal attempts.
        """
        chosen, who = _known("benchmark", benchmark, benchmarks), _known("agent", agent, agents)
        for name, value, least in (("limit", limit, 0), ("epochs", epochs, 1)):
            if value < least:
                raise ToolError(f"{name} is {value}: give {least} or more")
        total = len((await in_thread(lambda: made_tasks(benchmarks[chosen], seed)))[: limit or None]) * epochs
        if total > MAX_ATTEMPTS:
            raise ToolError(f"these are {total:,} attempts, and one call makes at most {MAX_ATTEMPTS:,}: set a limit")
        experiment = Experiment([agents[who]], [chosen], epochs=epochs, seed=seed, limit=limit or None, name="mcp")
        return await _measured(experiment, total, current_exchange(), offer)

    shape = tool_from_function(run_benchmark, effect="external")

    async def run(arguments: Json, exchange: Exchange) -> Outcome:
        with exchanging(exchange):
            return await run_benchmark(**shape.validate(arguments))

    names = ", ".join(benchmarks)
    return ServedTool(
        "run_benchmark",
        f"{shape.spec.description} Benchmarks: {names}. Agents: {', '.join(agents)}.",
        shape.spec.parameters,
        run,
        as_task="may",
        resumes=True,
        annotations=types.ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False),
        check=shape.validate,
    )


async def _measured(experiment: Experiment, total: int, exchange: Exchange, offer: Offer) -> types.CallToolResult:
    """The summary of an experiment, its attempts reported as they are kept."""
    made = runs.open_run(find_run(exchange.note, data_home()), data_home()) if exchange.note else experiment.create()
    exchange.keep(made.id)
    finished: asyncio.Queue[Trace] = asyncio.Queue()

    def keep(trace: Trace) -> None:
        offer.charge(exchange.client or "", trace.usage.total_tokens)
        finished.put_nowait(trace)

    running = asyncio.ensure_future(experiment.attempt_async(made, on_trace=keep))
    done = len(made.done())
    try:
        await exchange.progress(0, total, f"run {made.id}")
        while not running.done() or not finished.empty():
            getting = asyncio.ensure_future(finished.get())
            await asyncio.wait({getting, running}, return_when="FIRST_COMPLETED")
            if getting.done():
                done += 1
                await exchange.progress(done, total, getting.result().task_id)
            getting.cancel()
        await running
        rows = summary(made)
    finally:
        running.cancel()
        await asyncio.wait({running}, timeout=10.0)
        made.close()
    lines = [
        f"{row.agent} on {row.benchmark}: {row.score.value:.3f} [{row.score.low:.3f}, {row.score.high:.3f}] at 95%, "
        f"{row.attempts} attempts, {row.errors} errors, {row.tokens:.0f} tokens each"
        for row in rows
    ]
    text = "\n".join([*lines, f"Kept as run {made.id}: `firsthand show {made.id}`"])
    body = {"run": made.id, "rows": [row.to_json() for row in rows]}
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=json.loads(json.dumps(body))
    )


def _known(kind: str, name: str, known: dict[str, object] | dict[str, Benchmark] | dict[str, Agent]) -> str:
    if name not in known:
        close = nearest(name, known)
        hint = f" did you mean {close!r}?" if close else ""
        raise ToolError(f"no {kind} {name[:100]!r} is served here;{hint} there are {', '.join(known)}")
    return name
