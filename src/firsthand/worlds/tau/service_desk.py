"""The parts that the airline's and the shop's tools share: the ledger, answers as JSON, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps

from firsthand.errors import ToolError
from firsthand.message import Json
from firsthand.tools.calculator import evaluate
from firsthand.worlds.tau.ledger import RecordLedger, Tables
from firsthand.worlds.world import RefusedAction

ToolFunction = Callable[..., Awaitable[str]]


class Refused(Exception):
    """A tool's refusal; the message is what the agent reads after `Error: `."""


class ServiceDesk:
    """The tools of a domain over a ledger. Each returns JSON or a sentence, and begins with `Error: ` if it refuses."""

    def __init__(self, tables: Tables) -> None:
        """A fresh ledger over the tables, which are shared and not changed."""
        self.ledger = RecordLedger(tables)
        self.transferred = False

    @property
    def functions(self) -> Sequence[ToolFunction]:
        """The domain's tools, the shared ones last."""
        return (self.calculate, self.think, self.transfer_to_human_agents)

    async def call(self, name: str, arguments: Json) -> str:
        """The result of a tool by name; a wrong name is refused in words."""
        function = next((each for each in self.functions if each.__name__ == name), None)
        return RefusedAction(f"Error: unknown action {name[:60]}") if function is None else await function(**arguments)

    async def calculate(self, expression: str) -> str:
        """Calculate the result of an expression.

        Args:
            expression: Numbers with + - * / and parentheses, such as 2 + 2.
        """
        try:
            return f"{round(float(evaluate(expression)), 2)}"
        except (ToolError, OverflowError) as error:
            return RefusedAction(f"Error: {error}")

    async def think(self, thought: str) -> str:
        """Think, which changes nothing.

        Args:
            thought: Any text.
        """
        return ""

    async def transfer_to_human_agents(self, summary: str) -> str:
        """Transfer the customer to a human agent, which ends the conversation; only if the request is beyond your tools.

        Args:
            summary: The customer's issue in short.
        """
        self.transferred = True
        return "Transfer successful"

    def _need(self, table: str, key: str, what: str) -> Json:
        """A record to read; refused if there is none."""
        found = self.ledger.find(table, key)
        if found is None:
            raise Refused(f"{what} not found")
        return found

    def _payment(self, user_id: str, payment_id: str) -> Json:
        """A customer's way to pay, to read; refused if it is not in the profile."""
        found = self._need("users", user_id, "user")["payment_methods"].get(payment_id)
        if found is None:
            raise Refused("payment method not found")
        return dict(found)


def refusing(tool: ToolFunction) -> ToolFunction:
    """Decorator of a tool: what it refuses becomes the text `Error: ...`, which counts as an invalid action."""

    @wraps(tool)
    async def told(*args: object, **arguments: object) -> str:
        try:
            return await tool(*args, **arguments)
        except Refused as error:
            return RefusedAction(f"Error: {error}")
        except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
            return RefusedAction(
                f"Error: the arguments do not fit {tool.__name__}: {type(error).__name__} {str(error)[:120]}"
            )

    return told


def as_json(record: object) -> str:
    """A record as the agent reads it."""
    return json.dumps(record, ensure_ascii=False)
