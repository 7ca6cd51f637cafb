"""A conversation with a customer as a World: tools of the domain, and `respond`, which speaks to the customer.

A text action is a JSON object, {"name": ..., "arguments": {...}}; any other text is said to the customer, as in tau-
bench. The conversation ends when the customer stops, or is transferred to a human agent. It is over, too, where agent and
customer say the same again and again, or after many messages.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from random import Random
from typing import Any

from firsthand.message import Json
from firsthand.worlds.json_calls import EXAMPLE, read_call, unfenced
from firsthand.worlds.tau.customers import GREETING, MAX_TURNS, STOP, Customer
from firsthand.worlds.tau.service_desk import ServiceDesk, ToolFunction
from firsthand.worlds.world import InvalidAction, WorldCall

RESPOND = "respond"
MAX_SAID = 4_000
"""Characters of a message to the customer."""


class ServiceWorld:
    """One customer at a service desk. `World` describes the interface."""

    def __init__(
        self,
        desk: ServiceDesk,
        customer: Customer,
        *,
        greeted: bool,
        actions: Sequence[tuple[str, Json]] = (),
        outputs: Sequence[str] = (),
        profile: Mapping[str, str] | None = None,
    ) -> None:
        """A desk with a fresh ledger. `greeted`: the customer's first message is in the prompt already.

        `actions` and `outputs` are for the optimal player, `profile` for the random one.
        """
        self.desk, self.customer, self._greeted = desk, customer, greeted
        self._actions, self._outputs, self._profile = actions, outputs, profile or {}

    async def open(self) -> None:
        """Begin the conversation."""
        self.said: list[str] = []
        self.heard: list[str] = []
        self.stopped = False
        self._played = self._repeats = 0
        self._last: tuple[str, str] | None = None
        if self._greeted:
            self.heard.append(await self.customer.first(GREETING))

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def ending(self) -> str | None:
        """`transferred`, `customer stopped`, `turns` (a limit), or `looped` (nothing new is said)."""
        if self.desk.transferred or self.stopped:
            return "transferred" if self.desk.transferred else "customer stopped"
        if len(self.said) >= MAX_TURNS:
            return "turns"
        return "looped" if self._repeats >= self.customer.patience else None

    @property
    def form(self) -> str | None:
        """None: an action is a tool call as JSON, or any text."""
        return None

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The domain's tools, and `respond`."""
        return (*(self._noted(each) for each in self.desk.functions), self.respond)

    def read(self, action: str) -> WorldCall:
        """The tool call that a JSON object means, or what is said to the customer."""
        text = unfenced(action)
        if text.startswith("{"):
            return read_call(text, self.moves)
        if not text:
            raise InvalidAction(f"nothing was said: write {EXAMPLE} or a message to the customer")
        return WorldCall(RESPOND, {"content": text})

    def admissible(self) -> Sequence[str] | None:
        """None: what is said is free."""
        return None

    def render(self) -> str:
        """The conversation so far, and what has changed in the database."""
        lines = []
        for number in range(max(len(self.heard), len(self.said))):
            lines += [f"customer: {self.heard[number]}"] if self._greeted and number < len(self.heard) else []
            lines += [f"agent: {self.said[number]}"] if number < len(self.said) else []
            lines += [f"customer: {self.heard[number]}"] if not self._greeted and number < len(self.heard) else []
        changed = [f"{table} {key}" for table, records in self.desk.ledger.changes().items() for key in records]
        return "\n".join([*lines, f"changed: {', '.join(changed) or 'nothing'}"])

    async def result(self) -> Json:
        """The changes of the database, and all that was said."""
        return {
            "changes": self.desk.ledger.changes(),
            "said": self.said,
            "heard": self.heard,
            "customer_tokens": self.customer.tokens,
        }

    def optimal(self) -> str:
        """The next of the task's own calls; then all that must be said."""
        self._played += 1
        if self._played <= len(self._actions):
            name, arguments = self._actions[self._played - 1]
            return json.dumps({"name": name, "arguments": arguments})
        said = f"It is done. {'; '.join(self._outputs)}"
        return json.dumps({"name": RESPOND, "arguments": {"content": said}})

    def random(self, rng: Random) -> str:
        """A tool with arguments drawn from the customer's own data, or a sentence."""
        move = rng.choice(self.moves)
        if move.__name__ == RESPOND:
            return rng.choice(("How can I help you?", "Do you confirm?", "It is done."))
        pool = list(self._profile.values()) or ["x"]
        given: dict[str, Any] = {}
        for name, parameter in inspect.signature(move).parameters.items():
            is_list = str(parameter.annotation).startswith("list")
            given[name] = self._profile.get(name) or ([rng.choice(pool)] if is_list else rng.choice(pool))
        return json.dumps({"name": move.__name__, "arguments": given})

    async def respond(self, content: str) -> str:
        """Say something to the customer; returns the customer's answer.

        Args:
            content: The message.
        """
        if len(content) > MAX_SAID:
            raise InvalidAction(f"the message has {len(content)} characters: at most {MAX_SAID} are said")
        self.said.append(content)
        answer = await (self.customer.reply(content) if self.heard else self.customer.first(content))
        self.heard.append(answer)
        self.stopped = STOP in answer
        self._repeats = self._repeats + 1 if self._last == (content, answer) else 1
        self._last = content, answer
        return answer

    def _noted(self, function: ToolFunction) -> ToolFunction:
        """The tool, after which an equal exchange is no repetition."""

        @wraps(function)
        async def used(*args: object, **arguments: object) -> str:
            self._repeats, self._last = 0, None
            return await function(*args, **arguments)

        return used
