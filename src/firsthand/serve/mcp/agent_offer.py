"""Agents over MCP: a tool that answers a question, with its steps as progress and approvals asked of the client's user.

Each call is one attempt with one Trace, kept in a run that `firsthand show` opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import mcp_types as types
from mcp import MCPError

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.loop.approval import Ask, Decision, question
from firsthand.loop.listener import Began, Step
from firsthand.message import Json
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.serve.mcp.exchange import Exchange, current_exchange, exchanging
from firsthand.serve.mcp.mcp_server import Offer
from firsthand.serve.mcp.served_tool import ServedTool, failed, text_result
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.tool import Tool, tool_from_function
from firsthand.trace import Trace

SETTING = NamedSetting("mcp")
"""The benchmark name in the traces of calls."""


class CallRecord:
    """The run that keeps the traces of a server's calls; made when the first one is over."""

    def __init__(self, name: str = "mcp"):
        self._name = name
        self._run: Run | None = None

    def keep(self, task: Task, trace: Trace) -> str:
        """Keep a trace; returns the id of the run."""
        if self._run is None:
            self._run = store.create(data_home(), {"mcp": {}}, self._name, command=["firsthand", "mcp"])
        self._run.add_tasks(SETTING.name, [task])
        self._run.add_agent(trace.agent_name, trace.agent)
        with self._run.working():
            self._run.append(trace)
        return self._run.id

    def close(self) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.close()


def offer_agents(offer: Offer, agents: Sequence[Agent], record: CallRecord) -> None:
    """Adds a tool for each agent to an offer: `ask`, or `ask_NAME` where there are several."""
    for agent in agents:
        plain = "".join(char if char.isalnum() else "_" for char in agent.name).strip("_")
        offer.tools.append(agent_tool(agent, "ask" if len(agents) == 1 else f"ask_{plain}"[:64], record.keep))


def agent_tool(agent: Agent, name: str, keep: Callable[[Task, Trace], str]) -> ServedTool:
    """The tool that lets an agent attempt a question."""

    async def ask(question: str) -> types.CallToolResult:
        """Answers a question.

        Args:
            question: The question or task, in full: earlier calls are not remembered.
        """
        key = hashlib.sha256(f"{question}\n{time.time_ns()}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return await _attempt(agent, Task(key, question), current_exchange(), keep)

    shape = tool_from_function(ask, effect="external", name=name)

    async def run(arguments: Json, exchange: Exchange) -> types.CallToolResult:
        with exchanging(exchange):
            return await ask(**shape.validate(arguments))

    description = f"Asks the agent {agent.name} ({agent.model.name}) a question, and returns its answer."
    return ServedTool(
        name,
        description,
        shape.spec.parameters,
        run,
        as_task="may",
        annotations=types.ToolAnnotations(read_only_hint=False, open_world_hint=True),
        check=shape.validate,
    )


async def _attempt(
    agent: Agent, task: Task, exchange: Exchange, keep: Callable[[Task, Trace], str]
) -> types.CallToolResult:
    """The answer of one attempt, whose Trace is kept."""
    steps = ProgressOfSteps(exchange)
    asking = replace(agent, approval=replace(agent.approval, ask=ask_client(exchange)))
    telling = asyncio.create_task(steps.tell())
    try:
        trace = await rollout(asking, task, benchmark=SETTING, listener=steps)
    finally:
        telling.cancel()
        await asyncio.wait({telling})
    kept = keep(task, trace)
    if trace.error is not None or trace.answer is None:
        why = trace.error.message if trace.error is not None else f"it stopped: {trace.stop_reason}"
        result = failed(f"{agent.name} gave no answer: {why}")
    else:
        result = text_result(trace.answer)
    result.meta = {"org.firsthand/trace": {"run": kept, "trace": trace.id, "stop_reason": trace.stop_reason}}
    return result


class ProgressOfSteps:
    """A listener that reports each step of an attempt as progress."""

    streams = False

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._count = 0

    def __call__(self, step: Step) -> None:
        """Note a step that begins."""
        if isinstance(step, Began):
            self._said.put_nowait(f"calls {step.detail.get('name', '')}" if step.kind == "tool" else "asks the model")

    async def tell(self) -> None:
        """Report what was noted, until cancelled."""
        while True:
            said = await self._said.get()
            self._count += 1
            with suppress(Exception):  # a client that hears nothing more gets its result all the same
                await self._exchange.progress(self._count, None, said)


def approval_request(tool: str, text: str) -> types.ElicitRequest:
    """The request to the client's user to approve a call of a tool."""
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(
            message=text,
            requested_schema={
                "type": "object",
                "properties": {"approve": {"type": "boolean", "title": f"Run {tool}?", "default": False}},
                "required": ["approve"],
            },
        )
    )


def is_approved(answer: types.ElicitResult) -> bool:
    """True if the user approved; anything but an explicit yes is a no."""
    return answer.action == "accept" and (answer.content or {}).get("approve") is True


def ask_client(exchange: Exchange) -> Ask:
    """Asks the client's user to approve a call; a client without elicitation leaves it denied."""
    count = 0

    async def ask(tool: Tool, arguments: Json) -> Decision:
        nonlocal count
        if not exchange.can("elicitation"):
            return Decision(False, "nobody", f"{tool.name} needs approval, and the client cannot ask its user")
        count += 1
        request = approval_request(tool.name, question(tool, arguments))
        try:
            answer = await exchange.ask(f"approval-{count}", request)
        except MCPError as error:
            return Decision(False, "client", f"the client did not answer: {error.message}")
        allowed = is_approved(answer)
        return Decision(allowed, "client", "" if allowed else f"the user did not approve this call of {tool.name}")

    return ask
