"""Answers that a task of `firsthand mcp` keeps over a restart count for what its client's user was shown."""

from __future__ import annotations

import asyncio
from typing import Any

import mcp_types as types
import pytest

from firsthand.loop.approval import explained
from firsthand.loop.form import FormField
from firsthand.serve.agents.question_subjects import QuestionSubjects
from firsthand.serve.mcp.agent_offer import AskClient
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.tool import tool_from_function

CITY, CONFIRM = ((FormField("answer", "string", title),) for title in ("City", "Confirm"))


def pay(to: str) -> str:
    """Pays."""
    return ""


PAY = tool_from_function(pay, effect="irreversible")


def asked(seeds: dict[str, Any], ask: Any, answer: types.ElicitResult | None = None) -> tuple[Any, dict[str, Any]]:
    """The result and the answers that are kept; "asked" where the user is asked and no answer is given."""

    async def main() -> tuple[Any, dict[str, Any]]:
        exchange = ParkedExchange(None, {"elicitation": {}}, seeds)
        asking = asyncio.ensure_future(ask(AskClient(exchange, QuestionSubjects())))
        for _ in range(5):
            await asyncio.sleep(0)
        waits = list(exchange.pending)
        if waits and answer is None:
            asking.cancel()
            return "asked", seeds
        kept = {key: answer for key in waits}
        exchange.bring(kept)
        return await asking, seeds | kept

    return asyncio.run(main())


def call(to: str, about: str = "") -> Any:
    async def ask(client: AskClient) -> Any:
        with explained(about):
            return (await client(PAY, {"to": to})).allowed

    return ask


def test_a_kept_yes_is_taken_for_the_call_and_the_reason_that_were_shown() -> None:
    yes = types.ElicitResult(action="accept", content={"approve": True})
    done, kept = asked({}, call("bob", "new recipient"), yes)
    assert done is True and len(kept) == 1
    assert asked(kept, call("bob", "new recipient"))[0] is True, "the task goes on, and nobody is asked again"
    assert asked(kept, call("eve", "new recipient"))[0] == "asked"
    assert asked(kept, call("bob", "DANGER: fraud list"))[0] == "asked"


@pytest.mark.parametrize("other", [("Which city?", CONFIRM), ("Shall all orders be cancelled?", CITY)])
def test_kept_fields_go_to_the_form_that_was_shown(other: Any) -> None:
    def fill(message: str, fields: Any) -> Any:
        return lambda client: client.fill(PAY, message, fields)

    filled = types.ElicitResult(action="accept", content={"answer": "Oslo"})
    done, kept = asked({}, fill("Which city?", CITY), filled)
    assert done == {"answer": "Oslo"} == asked(kept, fill("Which city?", CITY))[0]
    assert asked(kept, fill(*other))[0] == "asked"
