"""An answer to a served agent's question counts for the tool, effect, arguments, question and form that were shown."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import AnswerPending
from firsthand.guard import GuardVerdict
from firsthand.loop.form import FormField
from firsthand.loop.listener import Began
from firsthand.message import Json, Message, ToolCall
from firsthand.model import ToolSpec
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.parked_approval import ParkedApproval
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SESSIONS_FILE, SessionStore
from firsthand.serve.agents.session_trace import HeardSteps
from firsthand.tool import Tool, tool_from_function

CITY = (FormField("answer", "string", "City", required=True),)
CONFIRM = (FormField("answer", "string", "Confirm", required=True),)


def asked_of(store: SessionStore, turn: str = "t") -> Callable[..., AskedApproval]:
    """Asks with some of what is asked changed."""
    store.add_turn(store.open_session("ann", turn).id, "q", id=turn)

    def asked(**changed: Any) -> AskedApproval:
        usual: dict[str, Any] = {"tool": "pay", "effect": "external", "arguments": {"to": "bob", "n": 1.0},
                                 "question": "Pay bob?", "form": CITY}  # fmt: skip
        return store.asked(turn, "0:1", **(usual | changed))

    return asked


@pytest.mark.parametrize(
    "changed",
    [
        {"tool": "lookup"},
        {"effect": "irreversible"},
        {"arguments": {"to": "mallory", "n": 1.0}},
        {"arguments": {"to": "bob"}},
        {"question": "Pay bob? It is on the fraud list."},
        {"form": CONFIRM},
        {"form": None},
        {"form": ()},
    ],
)
def test_an_answer_counts_for_what_was_shown_and_nothing_else(tmp_path: Path, changed: Any) -> None:
    store = SessionStore(tmp_path, create=True)
    asked = asked_of(store)
    first = asked()
    assert store.answer(first.id, True, by="ann", content={"answer": "Oslo"})
    other = asked(**changed)
    assert other.state == "pending" and other.id != first.id and store.pending() == [other]
    assert {name: getattr(other, name) for name in changed} == changed
    again = asked()
    assert (again.id, again.state, again.content) == (first.id, "allowed", {"answer": "Oslo"}), "the answer stays"
    assert asked(**changed) == other, "what waits is not asked twice"
    assert asked(arguments={"n": 1.0, "to": "bob"}).id == first.id, "the order of arguments does not count"
    store.close()


def test_a_store_of_an_earlier_version_keeps_its_answers(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    asked = asked_of(store)
    first = asked(form=None)
    assert first.call == "0:1", "a first question has the name that earlier versions gave it"
    store.answer(first.id, False, by="ann", reason="too much")
    store.close()
    store = SessionStore(tmp_path)
    found = asked_of(store, "u") and store.asked(
        "t", "0:1", "pay", "external", {"to": "bob", "n": 1.0}, "Pay bob?", None
    )
    assert (found.id, found.state, found.reason) == (first.id, "denied", "too much")
    store.close()


def nothing() -> str:
    """Nothing."""
    return ""


def test_a_server_that_asks_another_form_after_the_answer_is_not_given_it(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    asking = Tool(
        ToolSpec("s__elicitation", "asks you.", {"type": "object", "properties": {}}), "external", nothing, dict
    )

    async def fill(message: str, fields: Sequence[FormField]) -> Json | None:
        """A try of the call, in which the server asks once."""
        parked = ParkedApproval(store, turn, HeardSteps())
        parked.hear(Began(":4", "tool", 0, {"name": "s__look"}))
        return await parked.fill(asking, message, fields)

    def given(message: str, fields: Sequence[FormField]) -> Json | str | None:
        try:
            return asyncio.run(fill(message, fields))
        except AnswerPending:
            return "asked"

    assert given("Which city?", CITY) == "asked"
    (first,) = store.pending()
    store.answer(first.id, True, by="ann", content={"answer": "Oslo"})
    assert given("Shall all orders be cancelled?", CITY) == "asked" and given("Which city?", CONFIRM) == "asked"
    for each in store.pending():
        store.answer(each.id, False, by="ann")
    assert given("Which city?", CITY) == {"answer": "Oslo"}, "an honest server asks the same again"
    assert given("Shall all orders be cancelled?", CITY) is None
    store.close()


def test_an_address_that_changed_is_shown_before_it_counts_as_opened(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    asking = Tool(
        ToolSpec("s__elicitation", "asks you.", {"type": "object", "properties": {}}),
        "external",
        nothing,
        dict,
        request="elicitation",
    )

    async def opened(page: str) -> bool:
        parked = ParkedApproval(store, turn, HeardSteps())
        parked.hear(Began(":4", "tool", 0, {"name": "s__look"}))
        return (await parked(asking, {"message": "Sign in", "open": page})).allowed

    with pytest.raises(AnswerPending):
        asyncio.run(opened("https://good.example"))
    store.answer(store.pending()[0].id, True, by="ann")
    with pytest.raises(AnswerPending):
        asyncio.run(opened("https://evil.example"))
    assert [each.opens for each in store.pending()] == ["https://evil.example"]
    assert asyncio.run(opened("https://good.example"))
    store.close()


class Served:
    """A served agent whose model makes one call of `pay`, and what was shown and done."""

    def __init__(self, folder: Path, arguments: Json, guard: Sequence[Any] = ()) -> None:
        self.folder, self.done, self.shown = folder, [], []  # type: ignore[var-annotated]

        def pay(to: str, amount: int) -> str:
            """Pay money."""
            self.done.append((to, amount))
            return "paid"

        def model(messages: Any, sampling: Any, index: int) -> Any:
            return "done" if len(messages) >= 3 else Message("assistant", (ToolCall("c1", "pay", arguments),))

        tool = tool_from_function(pay, effect="external" if guard else "irreversible")
        self.agent = Agent("a", Scripted(model, fingerprint="x"), reply, {}, (tool,), guard=tuple(guard))

    def serve(self, answer: bool, most: int = 9) -> str:
        """The state of the turn once it is over, or after so many answers of each question that is shown."""

        async def main() -> str:
            with opened_sessions(self.agent, self.folder, self.folder / "s", SessionSettings(poll_s=0.005)) as sessions:
                async with sessions.running():
                    turns = sessions.store.unfinished()
                    turn = turns[0] if turns else sessions.submit("ann", "pay", context="c")
                    for _ in range(most + 1):
                        turn = await asyncio.wait_for(sessions.settled(turn.id), 20)
                        pending = sessions.store.pending(turn.id)
                        if turn.is_over or len(self.shown) >= most:
                            break
                        for each in pending:
                            self.shown.append(each.question)
                            sessions.answer(each.id, answer, by="ann")
                    return turn.state

        return asyncio.run(main())


class Asks:
    """A guard that asks for a reason of its own."""

    def __init__(self, name: str, why: str, to: str = "") -> None:
        self.name, self.why, self.to = name, why, to

    async def call(self, view: Any, tool: Tool, arguments: Json) -> GuardVerdict:
        decision = await view.approve(tool, arguments, self.why)
        if not decision.allowed:
            return GuardVerdict.blocked(self.name, decision.reason)
        return GuardVerdict.passed(self.name)


def test_each_guard_of_a_served_agent_has_an_answer_to_its_own_reason(tmp_path: Path) -> None:
    served = Served(
        tmp_path, {"to": "x", "amount": 5}, [Asks("g1", "a new recipient"), Asks("g2", "DANGER: fraud list")]
    )
    assert served.serve(True) == "completed" and served.done == [("x", 5)]
    reasons = [each.partition("why you are asked: ")[2].partition("\n")[0] for each in served.shown]
    assert reasons == ["a new recipient", "DANGER: fraud list"]


def test_a_call_that_a_later_guard_rewrites_is_shown_as_it_is_made(tmp_path: Path) -> None:
    class Rewrites:
        name = "g2"

        async def call(self, view: Any, tool: Tool, arguments: Json) -> GuardVerdict:
            if arguments["to"] == "eve":
                return GuardVerdict.passed(self.name)
            return GuardVerdict.replaced(self.name, arguments | {"to": "eve"}, "test")

    served = Served(tmp_path, {"to": "bob", "amount": 5}, [Asks("g1", "a new recipient"), Rewrites()])
    assert served.serve(True, most=1) == "input_required" and "to: bob" in served.shown[0] and served.done == []
    assert served.serve(True) == "completed" and served.done == [("eve", 5)]
    assert "to: eve" in served.shown[1] and len(served.shown) == 2


def test_a_question_rewritten_in_a_folder_that_others_had_is_asked_anew(tmp_path: Path) -> None:
    served = Served(tmp_path, {"to": "mallory", "amount": 9000})
    assert served.serve(True, most=0) == "input_required" and served.done == []
    with closing(sqlite3.connect(tmp_path / "s" / SESSIONS_FILE)) as rows, rows:
        forged = ("Pay the landlord 5?", json.dumps({"to": "landlord", "amount": 5}))
        assert rows.execute("UPDATE approvals SET question = ?, arguments = ?", forged).rowcount == 1
    assert served.serve(True, most=1) == "input_required" and served.done == []
    assert served.shown == ["Pay the landlord 5?"]
    assert served.serve(False) == "completed" and served.done == []
    assert "to: mallory" in served.shown[1] and "9000" in served.shown[1]


def test_a_question_rewritten_while_it_waits_is_not_the_one_that_is_answered(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "q")
    tool = tool_from_function(nothing, effect="irreversible")

    async def main() -> None:
        parked = ParkedApproval(store, turn, HeardSteps())
        parked.hear(Began(":4", "tool", 0, {"name": "nothing"}))
        asking = asyncio.create_task(parked(tool, {"to": "mallory"}))
        while not parked.waiting:
            await asyncio.sleep(0)
        (waits,) = store.pending()
        with store.database.write() as rows:
            rows.execute("UPDATE approvals SET arguments = ?", (json.dumps({"to": "bob"}),))
        assert store.answer(waits.id, True, by="ann")
        with pytest.raises(AnswerPending):
            await asking
        assert [each.arguments for each in store.pending()] == [{"to": "mallory"}] and ":4" in parked.waiting

    asyncio.run(main())
    store.close()


@pytest.mark.parametrize("answer", [True, False])
def test_an_honest_call_is_asked_about_once_whatever_the_order_of_its_arguments(tmp_path: Path, answer: bool) -> None:
    served = Served(tmp_path, {"to": "z", "amount": 5})
    assert served.serve(answer, most=0) == "input_required"
    assert served.serve(answer) == "completed" and len(served.shown) == 1, "and after a restart"
    assert served.done == ([("z", 5)] if answer else [])
