"""The record of an attempt while it runs: its messages as a tree, its calls and events, the listener and the journal.

A Context writes to it, and `rollout` makes a Trace of it. Left out: limits and costs, which the Context checks.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from firsthand.agent import Agent
from firsthand.errors import ConfigError, ModelError, TransientError
from firsthand.loop import concurrency
from firsthand.loop.asked_at import asking
from firsthand.loop.attempt_memory import AttemptMemory
from firsthand.loop.call_cost import CallCost
from firsthand.loop.endpoint_pace import pace_of
from firsthand.loop.journal import Journal
from firsthand.loop.kept_replies import kept_replies
from firsthand.loop.listener import Added, Listener, Piece, Step
from firsthand.loop.reply_body import Continued, from_body, shared, to_body
from firsthand.message import Json, Message
from firsthand.model import Completion, Model, Prompt, Sampling, ToolSpec, Usage
from firsthand.task import Task
from firsthand.tool import Tool
from firsthand.tool_source import ToolSource, is_self_contained, tools_at_hand, version_of
from firsthand.trace import Call, CallKind, Event, Node, PromptIds, as_json, prompt_ids


class Attempt:
    """The record of an attempt while it runs. Patterns do not see it: they see Contexts, which write to it."""

    def __init__(
        self,
        agent: Agent,
        tools: Iterable[Tool],
        journal: Journal,
        seed: int,
        listener: Listener | None = None,
        *,
        task: Task | None = None,
    ):
        self.agent = agent
        self.own_tools = {tool.name: tool for tool in tools}
        self.tools = dict(self.own_tools)
        self._environment: ToolSource | None = None
        self._sources: tuple[ToolSource, ...] = ()
        self._of_environment: frozenset[str] = frozenset()
        """The names of the environment's tools."""
        self.redone: Json | None = None
        """The record of the parent's call that a fork does again now, to rebuild the world."""
        self._versions: list[object] = []
        self._stand_ins: dict[str, Tool] = {}
        self.journal = journal
        self.seed = seed
        self.listener = listener
        self.task = task
        self.memory: AttemptMemory | None = None
        self.guard_passes: Counter[str] = Counter()
        """Verdicts of guards that let a value pass without a reason, by rule and border."""
        self.claims: dict[str, dict[str, float]] | None = None
        """Amounts that guards have granted of each key, by item, an interrupted try's included; None before the first."""
        self.last_of_root: int | None = None
        """The node that was added last outside of any group: the one an answer is given at."""
        self.order: dict[str, tuple[int, ...]] = {}
        """For each recorded call a sort key that does not depend on how fast branches ran; see `Branch.order`."""
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.tool_specs: list[ToolSpec] = []
        """Every tool that the model was offered, each once."""
        self._made_by: dict[int, tuple[int, int]] = {}
        """The call that generated a node, and which of its answers the node is."""
        self._asked_from: dict[int | None, int] = {}
        """The last call that generated from a node."""
        self.has_begun = False
        """True once a call of the model or of a tool began, or its recorded reply was found."""
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._began = time.perf_counter()

    def turn(self) -> asyncio.Lock:
        """The lock under which branches reserve tokens, in the order in which they came."""
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def elapsed_s(self) -> float:
        """Seconds since the attempt began."""
        return round(time.perf_counter() - self._began, 6)

    def use(self, sources: Sequence[ToolSource], environment: ToolSource | None = None) -> None:
        """Offer the tools of open sources from now on. ConfigError if two have one name."""
        self._sources, self._environment = tuple(sources), environment
        self._versions = self._seen_versions()
        self.tools = self._at_hand()

    def offer(self, tools: Iterable[Tool]) -> None:
        """Offer further tools of the agent's own. ConfigError if a name is taken."""
        for tool in tools:
            if tool.name in self.tools or tool.name in self.own_tools:
                raise ConfigError(
                    f"the memory of {self.agent.name} has a tool {tool.name!r}, and there is one: leave one out"
                )
            self.own_tools[tool.name] = tool
        self.tools = self._at_hand()

    @contextmanager
    def stand_ins(self, tools: Iterable[Tool]) -> Iterator[None]:
        """Offers these tools in place of those of their names within the block."""
        before, self._stand_ins = self._stand_ins, {tool.name: tool for tool in tools}
        self.tools = self._at_hand()
        try:
            yield
        finally:
            self._stand_ins = before
            self.tools = self._at_hand()

    def _at_hand(self) -> dict[str, Tool]:
        environment = self._environment
        self._of_environment = frozenset(() if environment is None else (tool.name for tool in environment.tools))
        return tools_at_hand(self.own_tools, self._environment, self._sources) | self._stand_ins

    def refresh_tools(self) -> None:
        """Take in what sources changed since the last look, and record it as an event `tools_changed`."""
        if (versions := self._seen_versions()) == self._versions:
            return
        before = set(self.tools)
        self._versions = versions
        self.tools = self._at_hand()
        self.note("tools_changed", added=sorted(set(self.tools) - before), removed=sorted(before - set(self.tools)))

    def is_contained(self, tool: Tool) -> bool:
        """True for a tool of an environment that is self-contained: a new try runs its recorded calls again."""
        return self.is_of_environment(tool) and self._environment is not None and is_self_contained(self._environment)

    def is_of_environment(self, tool: Tool) -> bool:
        """True for a tool of the task's environment."""
        return tool.name in self._of_environment

    def is_private(self, name: str) -> bool:
        """True if only the user may read what a tool gives, by its declaration; a memory marks each item that it shows."""
        tool = self.tools.get(name)
        declares = None if tool is None or tool.origin == "memory" else tool.declares
        return declares is not None and declares.readers == "user"

    def _seen_versions(self) -> list[object]:
        sources = self._sources if self._environment is None else (*self._sources, self._environment)
        return [version_of(source) for source in sources]

    def add_node(self, parent: int | None, message: Message) -> int:
        """The index of a new node that holds `message` under `parent`."""
        self.nodes.append(Node(parent, message))
        if not concurrency.current_branch().path:
            self.last_of_root = len(self.nodes) - 1
        self.tell(Added(len(self.nodes) - 1, self.nodes[-1]))
        return len(self.nodes) - 1

    def conversation(self, node: int | None) -> tuple[Message, ...]:
        """The messages from the first one to `node`."""
        return tuple(self.nodes[index].message for index in self.path(node))

    def path(self, node: int | None) -> tuple[int, ...]:
        """The indices of the nodes from the first message to `node`."""
        indices: list[int] = []
        while node is not None:
            indices.append(node)
            node = self.nodes[node].parent
        return tuple(reversed(indices))

    def generated(self, node: int | None) -> tuple[bool, ...]:
        """For each message up to `node`, True if a model generated it in this attempt."""
        return tuple(index in self._made_by for index in self.path(node))

    def note(self, kind: str, /, **data: Any) -> None:
        """Record an event with a copy of its data."""
        self.events.append(Event(kind, self.elapsed_s(), as_json(data)))
        self.tell(self.events[-1])

    def record(self, kind: CallKind, effect: str, at: int | None, started_s: float, request: str, **rest: Any) -> None:
        """Record a call that has just ended."""
        duration_s = round(self.elapsed_s() - started_s, 6)
        self.order[effect] = concurrency.current_branch().order(effect)
        self.calls.append(Call(effect, kind, at, started_s, duration_s, request, **rest))
        self.tell(self.calls[-1])

    def record_generation(
        self,
        effect: str,
        at: int | None,
        started_s: float,
        request: str,
        *,
        nodes: tuple[int, ...],
        ids: tuple[int, ...] | None,
        specs: Sequence[ToolSpec],
        **rest: Any,
    ) -> None:
        """Record a generation that has just ended, with the ids of its prompt as what they add to an earlier call."""
        self.tool_specs += [spec for spec in specs if spec not in self.tool_specs]
        tools = tuple(self.tool_specs.index(spec) for spec in specs)
        prompt = None if ids is None else self._prompt(at, ids)
        index = len(self.calls)
        self.record("generate", effect, at, started_s, request, nodes=nodes, prompt=prompt, tools=tools, **rest)
        self._made_by.update({node: (index, sample) for sample, node in enumerate(nodes)})
        if nodes and ids is not None:
            self._asked_from[at] = index

    def _prompt(self, at: int | None, ids: tuple[int, ...]) -> PromptIds:
        """The ids of a prompt after those that the nearest call above has, or an earlier call from the same node."""
        node = at
        while True:
            after, sample = self._asked_from.get(node), 0
            if after is None and node in self._made_by:
                after, sample = self._made_by[node]
            if after is not None and (earlier := self._ids_of(after, sample)) is not None:
                kept = shared(ids, earlier)
                return PromptIds(ids[kept:], after, sample, kept) if kept else PromptIds(ids)
            if node is None:
                return PromptIds(ids)
            node = self.nodes[node].parent

    def _ids_of(self, call: int, sample: int) -> tuple[int, ...] | None:
        """The ids of a call's prompt and one of its answers."""
        ids = prompt_ids(self.calls, self.nodes, call)
        sampled = self.nodes[self.calls[call].nodes[sample]].message.sampled
        return ids if ids is None or sampled is None else ids + sampled.token_ids

    def _continued(self, node: int | None) -> Continued | None:
        """The nearest generation above a node. Unlike a sibling's, its reply is recorded first in every try."""
        while node is not None:
            if node in self._made_by:
                call, sample = self._made_by[node]
                ids = self._ids_of(call, sample)
                return None if ids is None else Continued(self.calls[call].request, sample, ids)
            node = self.nodes[node].parent
        return None

    def to_reply(self, completions: Sequence[Completion], at: int | None) -> Json:
        """The answers to a prompt that was made from a node, as the journal keeps them."""
        return to_body(completions, self._continued(at))

    def from_reply(self, reply: Json, at: int | None) -> list[Completion]:
        """The answers of a reply to a prompt that was made from a node."""

        def earlier(request: str, sample: int) -> Sequence[int] | None:
            known = self._continued(at)
            return known.ids if known is not None and (known.request, known.sample) == (request, sample) else None

        return from_body(reply, earlier)

    def tell(self, step: Step) -> None:
        """Call the listener, if there is one. One that fails is reported to the event loop and not called again."""
        if self.listener is None:
            return
        try:
            self.listener(step)
        except Exception as error:
            self.listener = None
            what = {"message": "the listener of an attempt failed and is not called again", "exception": error}
            asyncio.get_running_loop().call_exception_handler(what)

    def paid(self) -> tuple[int, int]:
        """The tokens and calls that an interrupted try of this attempt has paid for, from its journal.

        What came after an answer that the run's budget cut short is left out: see `lost`.
        """
        kept = list(itertools.takewhile(_is_whole, self._paid_replies()))
        return sum(cost_of(reply).total_tokens for reply in kept), len(kept)

    def lost(self) -> list[Usage]:
        """The usage of each call of an interrupted try, from the first answer that the run's budget truncated.

        That answer is asked for anew, so none of it counts against the agent's own limits; against the run's all of it does.
        A call of another branch that is found again there counts twice, for it cannot be told before.
        """
        return [cost_of(reply) for reply in itertools.dropwhile(_is_whole, self._paid_replies())]

    def _paid_replies(self) -> list[Json]:
        return [reply for reply in self.journal.replies() if is_call(reply)]

    async def complete(
        self, effect: str, prompt: Prompt, sampling: Sampling, specs: Sequence[ToolSpec], n: int
    ) -> list[Completion]:
        """The model's answers. A single one is streamed if there is a listener."""
        model = self.agent.model
        if n > 1 or not getattr(self.listener, "streams", self.listener is not None):
            return await model.complete(prompt, sampling, tools=specs, n=n)
        completion: Completion | None = None
        deltas = model.stream(prompt, sampling, tools=specs)
        try:
            async for delta in deltas:
                completion = delta.completion or completion
                if delta.text:
                    self.tell(Piece(effect, delta.text))
        finally:
            if isinstance(deltas, AsyncGenerator):
                await deltas.aclose()
        if completion is None:
            raise ModelError(f"{model.name} ended its stream without a Completion: the last Delta must carry it")
        return [completion]

    async def reply(
        self,
        effect: str,
        request: str,
        ask: Callable[[], Awaitable[Json]],
        recorded: Json | None,
        cost: CallCost,
        model: Model | None = None,
    ) -> Json:
        """The reply to a request to the agent's model, or to another one: the `recorded` one, or a new one.

        A new reply is recorded before it is acknowledged. Transient faults are retried and noted. A try that failed and was
        paid for is charged to `cost`, and LimitExceeded ends the call if too little is left for another one.
        """
        if recorded is not None:
            self.has_begun = True
            cost.answer = cost_of(recorded)
            return recorded

        async def ask_once() -> Json:
            cost.check_another_try()
            try:
                with asking(self.journal, effect, self.note):
                    return await ask()
            except ModelError as error:
                cost.lose(error)
                raise

        def on_retry(attempt: int, error: TransientError, wait_s: float) -> None:
            self.note("retry", attempt=attempt, error=str(error), wait_s=round(wait_s, 3))

        pace = pace_of(model or self.agent.model)
        with kept_replies() as kept:
            try:
                reply = await concurrency.with_retries(ask_once, self.agent.retry, on_retry=on_retry, pace=pace)
            finally:
                cost.waste(kept.usage)
        if cost.lost != Usage():
            reply[_LOST] = cost.lost.to_json()
        await self.keep(effect, request, reply)
        return reply

    async def keep(self, effect: str, request: str, reply: Json) -> None:
        """Record a reply, which survives `kill -9` once this returns."""
        self.journal.record(effect, request, reply)
        await self.journal.settled()


_CALLS = frozenset({"completions", "likelihoods", "started", "content", "memory", "items"})
"""The keys of a call's records in the journal, which holds other records too."""
CUT_BY_RUN = "cut_by_run"
"""The mark of a recorded answer that was cut short because the budget of the whole run had no more left."""


def _is_whole(reply: Json) -> bool:
    return CUT_BY_RUN not in reply


_LOST = "lost"
"""Key of a recorded reply for the cost of the tries before it."""


def is_call(reply: Json) -> bool:
    """True for the recorded reply of a call; a journal holds other records too."""
    return not _CALLS.isdisjoint(reply)


def cost_of(reply: Json) -> Usage:
    """The cost of a recorded reply: of a generation, of a scoring, or nothing; with that of tries before it."""
    lost = Usage(**reply.get(_LOST, {}))
    if "completions" in reply:
        return sum((Usage(**each["usage"]) for each in reply["completions"]), lost)
    return lost + Usage(**reply.get("usage", {}))
