"""Agents over MCP: a tool that answers a question, with its steps as progress and approvals asked of the client's user.

Each call is one attempt with one Trace, kept in a run that `firsthand show` opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import mcp_types as types
from mcp import MCPError

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.loop.approval import Decision, form_question, question
from firsthand.loop.form import FormField, checked_answers, form_schema
from firsthand.loop.journal import Journal
from firsthand.loop.listener import Began, Step
from firsthand.loop.opened_page import opened_page
from firsthand.message import Json
from firsthand.rollout import Place, rollout
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.serve.admission.charged_steps import Charge, ChargedSteps, charge_nobody
from firsthand.serve.agents.asked_approval import question_digest
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.serve.mcp.exchange import Exchange, current_exchange, exchanging
from firsthand.serve.mcp.mcp_server import Offer
from firsthand.serve.mcp.served_tool import ServedTool, failed, text_result
from firsthand.serve.mcp.task_file import TaskFile
from firsthand.system.home import data_home
from firsthand.task import Task
from firsthand.tool import Tool, tool_from_function
from firsthand.trace import Trace

SETTING = NamedSetting("mcp")
"""The benchmark name in the traces of calls."""
_ABOUT: Json = {"mcp": {}}
_COMMAND = ("firsthand", "mcp")


class CallRecord:
    """The run that keeps the traces of a server's calls: in `folder`, or a new one, made when the first call is over.

    In a folder it keeps the journals of tasks too, so that a server on the same folder goes on with them.
    """

    def __init__(self, name: str = "mcp", folder: Path | None = None):
        self._name, self._folder = name, folder
        self._run: Run | None = None
        self._claim = ExitStack()
        if folder is not None:
            self._run = store.open_or_create(data_home(), _ABOUT, name, command=_COMMAND, at=folder)
            self._run.expect_idle()
            self._claim.enter_context(self._run.working())

    def _opened(self) -> Run:
        if self._run is None:
            self._run = store.create(data_home(), _ABOUT, self._name, command=_COMMAND)
        return self._run

    @property
    def tasks(self) -> TaskFile | None:
        """The file of the tasks; None without a folder, where they end with the process."""
        return None if self._folder is None else TaskFile(self._folder)

    def journal(self, place: str) -> Journal | None:
        """The journal of a task's attempt; None without a folder."""
        return None if self._folder is None else self._opened().journal(place)

    def keep(self, task: Task, trace: Trace) -> str:
        """Keep a trace; returns the id of the run."""
        run = self._opened()
        run.add_tasks(SETTING.name, [task])
        run.add_agent(trace.agent_name, trace.agent)
        with nullcontext() if self._folder is not None else run.working():
            run.append(trace)
        return run.id

    def close(self) -> None:
        """Close the run."""
        self._claim.close()
        if self._run is not None:
            self._run.close()


def offer_agents(offer: Offer, agents: Sequence[Agent], record: CallRecord) -> None:
    """Adds a tool for each agent to an offer: `ask`, or `ask_NAME` where there are several."""

    def charge(client: str, num_tokens: int) -> None:
        offer.charge(client, num_tokens)

    for agent in agents:
        plain = "".join(char if char.isalnum() else "_" for char in agent.name).strip("_")
        offer.tools.append(agent_tool(agent, "ask" if len(agents) == 1 else f"ask_{plain}"[:64], record, charge))


def agent_tool(agent: Agent, name: str, record: CallRecord, charge: Charge = charge_nobody) -> ServedTool:
    """The tool that lets an agent attempt a question."""

    async def ask(question: str) -> types.CallToolResult:
        """Answers a question.

        Args:
            question: The question or task, in full: earlier calls are not remembered.
        """
        exchange = current_exchange()
        unlike = exchange.task or time.time_ns()
        key = hashlib.sha256(f"{question}\n{unlike}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return await _attempt(agent, Task(key, question), exchange, record, charge)

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
        resumes=True,
        annotations=types.ToolAnnotations(read_only_hint=False, open_world_hint=True),
        check=shape.validate,
    )


async def _attempt(
    agent: Agent, task: Task, exchange: Exchange, record: CallRecord, charge: Charge
) -> types.CallToolResult:
    """The answer of one attempt, whose Trace is kept."""
    subjects = QuestionSubjects()
    charged = ChargedSteps(charge, exchange.client or "")
    steps = ProgressOfSteps(exchange, subjects, charged)
    asking = replace(agent, approval=replace(agent.approval, ask=AskClient(exchange, subjects)))
    journal = record.journal(Place(agent, SETTING, task).id) if exchange.task else None
    telling = asyncio.create_task(steps.tell())
    try:
        trace = await rollout(asking, task, benchmark=SETTING, journal=journal, listener=steps)
    except asyncio.CancelledError:
        charged.cut()
        raise
    finally:
        telling.cancel()
        await asyncio.wait({telling})
    kept = record.keep(task, trace)
    if trace.error is not None or trace.answer is None:
        shown = ShownSteps(agent.guards)
        said = trace.error and (trace.error.message if shown.drafts else shown.error(trace.error))
        why = said or f"it stopped: {trace.stop_reason}"
        result = failed(f"{agent.name} gave no answer: {why}")
    else:
        result = text_result(trace.answer)
    result.meta = {"org.firsthand/trace": {"run": kept, "trace": trace.id, "stop_reason": trace.stop_reason}}
    return result


class ProgressOfSteps:
    """A listener that reports each step of an attempt as progress, and charges it."""

    streams = False

    def __init__(self, exchange: Exchange, subjects: QuestionSubjects, charged: ChargedSteps | None = None):
        self._exchange, self._subjects, self._charged = exchange, subjects, charged
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._count = 0

    def __call__(self, step: Step) -> None:
        """Note a step that begins."""
        self._subjects.hear(step)
        if self._charged is not None:
            self._charged(step)
        if isinstance(step, Began) and (step.kind != "tool" or "arguments" in step.detail):
            self._said.put_nowait(f"calls {step.detail.get('name', '')}" if step.kind == "tool" else "asks the model")

    async def tell(self) -> None:
        """Report what was noted, until cancelled."""
        while True:
            said = await self._said.get()
            self._count += 1
            with suppress(Exception):  # a client that hears nothing more gets its result all the same
                await self._exchange.progress(self._count, None, said)


def approval_request(
    tool: str, text: str, form: Sequence[FormField] | None = None, opens: str | None = None
) -> types.ElicitRequest:
    """The request to the client's user to approve a call of a tool, to open a web page, or to fill in a form."""
    title = f"Run {tool}?" if opens is None else "Did you open the page?"
    leave: Json = {
        "type": "object",
        "properties": {"approve": {"type": "boolean", "title": title, "default": False}},
        "required": ["approve"],
    }
    schema = leave if form is None else form_schema(form)
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=text, requested_schema=schema))


def is_approved(answer: types.ElicitResult) -> bool:
    """True if the user approved; anything but an explicit yes is a no."""
    return answer.action == "accept" and (answer.content or {}).get("approve") is True


class AskClient:
    """Asks the client's user to approve a call or to fill in a form; a client without elicitation leaves both undone."""

    def __init__(self, exchange: Exchange, subjects: QuestionSubjects):
        self._exchange, self._subjects = exchange, subjects

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        """The user's decision."""
        if not self._exchange.can("elicitation"):
            return Decision(False, "nobody", f"{tool.name} needs approval, and the client cannot ask its user")
        try:
            asking, page = question(tool, arguments), opened_page(tool, arguments)
            digest = question_digest(tool.name, tool.effect, arguments, asking, opens=page)
            answer = await self._asked(tool, digest, approval_request(tool.name, asking, opens=page))
        except MCPError as error:
            return Decision(False, "client", f"the client did not answer: {error.message}")
        allowed = is_approved(answer)
        return Decision(allowed, "client", "" if allowed else f"the user did not approve this call of {tool.name}")

    async def fill(self, tool: Tool, message: str, fields: Sequence[FormField]) -> Json | None:
        """The user's answers to the fields of a form; None if they are not given. ConfigError if they do not fit."""
        if not self._exchange.can("elicitation"):
            return None
        try:
            asking = form_question(tool, message, fields)
            digest = question_digest(tool.name, tool.effect, {"message": message}, asking, fields)
            answer = await self._asked(tool, digest, approval_request(tool.name, asking, fields))
        except MCPError:
            return None
        return checked_answers(fields, answer.content or {}) if answer.action == "accept" else None

    async def _asked(self, tool: Tool, digest: str, request: types.ElicitRequest) -> types.ElicitResult:
        """The answer under a key that names the call and what is asked, so that a resumed task takes it for no other."""
        key = f"approval {self._subjects.of(tool)} {digest}"
        answer: types.ElicitResult = await self._exchange.ask(key, request)
        return answer
