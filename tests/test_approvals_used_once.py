"""A yes to a call that is not repeated is used up by the call: no entry that is removed or put back makes it count again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.errors import AnswerPending, StoreError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision, approval_key
from firsthand.message import Json, ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.runs.database import put
from firsthand.runs.run_folder import Run
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_store import SessionStore
from firsthand.system.open_approvals import FOLDER, close_approval, is_open, open_approval
from firsthand.tool import Tool, tool
from served_agent import Desk, clerk, within_sessions

PAID: list[int] = []


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay an amount."""
    PAID.append(amount)
    return "paid"


@tool(effect="write")
def keep(amount: int) -> str:
    """Keep an amount."""
    PAID.append(amount)
    return "kept"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    PAID.clear()
    with store.create(tmp_path, {}, "small") as made:
        yield made


class Person:
    """Says yes so many times, and then no."""

    def __init__(self, yes: int = 1):
        self.yes, self.asked = yes, 0

    async def __call__(self, tool: Tool, arguments: Json) -> Decision:
        self.asked += 1
        return Decision(self.asked <= self.yes, "terminal")


class Asks:
    """A guard that asks the person about each call, in one of two ways."""

    def __init__(self, recorded: bool):
        self.recorded = recorded

    async def call(self, view: Any, tool: Tool, arguments: Json) -> GuardVerdict:
        async def ask() -> Json:
            decision: Decision = await view.approve(tool, arguments, "why")
            return decision.kept(tool)

        said = await view.once({"ask": 1}, ask) if self.recorded else await ask()
        return GuardVerdict.passed("asks") if said["allowed"] else GuardVerdict.blocked("asks", "no")


def attempt(run: Run, person: Person, made: Tool = pay, guard: Any = None) -> str | None:
    async def pattern(task: Any, ctx: Any) -> str:
        return str((await ctx.call(ToolCall("1", made.name, {"amount": 5}))).content)

    rules: Any = {"write": "ask"} if guard is None else {"irreversible": "allow"}
    agent = Agent("a", Scripted([]), pattern, tools=(made,), approval=Approval(rules, ask=person), guard=guard)
    return asyncio.run(rollout(agent, Task("1", "go"), journal=run.journal("p"))).answer


def removed(run: Run, effect: str = ":0") -> None:
    with run.database.write() as connection:
        connection.execute("DELETE FROM effects WHERE effect = ?", (effect,))


def forged(run: Run, request: str, reply: Json) -> None:
    with run.database.write() as connection:
        connection.execute(
            "INSERT INTO effects (attempt, effect, request, reply, at) VALUES ('p', ':0', ?, ?, '')",
            (request, put(connection, reply)),
        )


@pytest.mark.parametrize("guard", [None, Asks(recorded=False), Asks(recorded=True)])
def test_a_yes_counts_once_although_the_entries_of_its_call_are_gone(run: Run, guard: Any) -> None:
    person = Person()
    assert attempt(run, person, guard=guard) == "paid" and PAID == [5]
    assert attempt(run, person, guard=guard) == "paid" and (PAID, person.asked) == ([5], 1), "replayed, nobody is asked"
    removed(run)
    assert attempt(run, person, guard=guard) != "paid" and (PAID, person.asked) == ([5], 2)


def test_of_two_copies_of_a_run_that_go_on_together_one_makes_the_call(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def is_open_and_then_used(id: str) -> bool:
        seen.append(id)
        found = is_open(id)
        if len(seen) > 1:  # after the answer was kept, the other copy is as far, and quicker
            assert close_approval(id) and not close_approval(id)
        return found

    monkeypatch.setattr("firsthand.runs.stored_journal.is_open", is_open_and_then_used)
    with pytest.raises(StoreError, match="was used by a call before"):
        attempt(run, Person())
    assert PAID == [] and len(set(seen)) == 1


def test_a_person_who_is_asked_anew_may_say_yes_again(run: Run) -> None:
    person = Person(yes=2)
    attempt(run, person)
    removed(run)
    assert attempt(run, person) == "paid" and (PAID, person.asked) == ([5, 5], 2)


def test_no_entry_that_somebody_puts_in_the_place_of_the_call_makes_its_yes_count(run: Run) -> None:
    person = Person()
    attempt(run, person)
    ((request,),) = run.database.read("SELECT DISTINCT request FROM effects WHERE effect = ':0'")
    for other, reply in ((str(request), {"waiting": True}), ("other", {})):
        removed(run)
        forged(run, other, reply)
        with pytest.raises(StoreError, match="was used by a call before: entries were put back or changed"):
            attempt(run, person)
    assert PAID == [5]


def test_a_yes_of_another_run_and_of_a_tool_over_something_else_is_none(run: Run, tmp_path: Path) -> None:
    person = Person()
    attempt(run, person)
    sealed = run.database.get(run.database.read("SELECT reply FROM effects WHERE effect = ':0 approval'")[0][0])
    with store.create(tmp_path, {}, "other") as other:
        effect, request = approval_key(":0", pay, {"amount": 5})
        with other.database.write() as connection:
            connection.execute(
                "INSERT INTO effects (attempt, effect, request, reply, at) VALUES ('p', ?, ?, ?, '')",
                (effect, request, put(connection, sealed)),
            )
        assert attempt(other, person) != "paid" and PAID == [5]
    for changed in (replace(pay, over="the account of Ann"), replace(pay, effect="external"), replace(pay, origin="x")):
        assert approval_key(":0", changed, {"amount": 5}) != approval_key(":0", pay, {"amount": 5})


def test_a_yes_to_a_write_counts_whenever_its_world_is_rebuilt(run: Run) -> None:
    person = Person()
    for _ in range(3):
        assert attempt(run, person, keep) == "kept"
    removed(run)
    assert attempt(run, person, keep) == "kept" and (len(PAID), person.asked) == (4, 1)


def test_a_tool_that_waits_for_an_answer_is_called_again_with_the_same_yes(run: Run) -> None:
    called = []

    async def slow(amount: int) -> str:
        called.append(amount)
        if len(called) < 3:
            raise AnswerPending("approval", "it waits")
        return "paid"

    person, waits = Person(), replace(pay, function=slow)
    for _ in range(3):
        last = attempt(run, person, waits)
    assert last == "paid" and len(called) == 3 and person.asked == 1
    removed(run)
    assert attempt(run, person, waits) != "paid" and len(called) == 3


def test_an_answer_to_a_served_agents_question_is_used_up_too(run: Run) -> None:
    sessions = SessionStore(run.path, create=True)
    turn = sessions.add_turn(sessions.open_session("ann", "c").id, "go").id

    def asked() -> Any:
        return sessions.asked(turn, ":0", "pay", "irreversible", {"amount": 5}, "Run it?")

    assert sessions.answer(asked().id, True, by="boss") and asked().state == "allowed" and is_open(asked().id)
    close_approval(asked().id)
    ((id,),) = sessions.database.read("SELECT id FROM approvals")
    assert not sessions.answer(id, True, by="boss") and not is_open(id), "an answer that is kept is not given again"
    assert asked().state == "pending"
    assert sessions.answer(asked().id, False, by="boss") and asked().state == "denied"
    sessions.close()


def test_a_turn_that_is_put_back_asks_its_client_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    desk = Desk()

    async def use(sessions: ServedSessions) -> None:
        turn = sessions.submit("ann", "pay 5", context="one")
        await sessions.settled(turn.id)
        (asked,) = sessions.store.pending(turn.id)
        sessions.answer(asked.id, True, by="ann")
        assert (await sessions.settled(turn.id)).answer == "Done: paid 5" and not is_open(asked.id)
        with sessions.run.database.write() as connection:
            connection.execute("DELETE FROM effects")
        with sessions.store.database.write() as connection:
            connection.execute("UPDATE turns SET state = 'submitted'")
        sessions._wake(turn.session)
        assert (await sessions.settled(turn.id)).state == "input_required" and desk.paid == [5]
        assert [each.id for each in sessions.store.pending(turn.id)] == [asked.id]

    within_sessions(clerk(desk), tmp_path, use)


def test_where_nothing_can_be_kept_or_removed_no_yes_counts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_approval("é")
    assert is_open("é") and not is_open("e") and len(list((tmp_path / "home" / FOLDER).iterdir())) == 1
    close_approval("é")
    close_approval("é")
    assert not is_open("é")
    open_approval("x")
    (path,) = (tmp_path / "home" / FOLDER).iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be removed"):
        close_approval("x")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "file"))
    open_approval("y")
    assert not is_open("y") and attempt(run, Person()) == "paid", "a call that is approved now is made"


def test_no_yes_is_open_in_a_home_that_is_a_file_or_by_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    open_approval("x")
    (path,) = (tmp_path / "home" / FOLDER).iterdir()
    path.unlink()
    path.mkdir()
    assert not is_open("x")
    (tmp_path / "file").write_text("no home")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "file"))
    open_approval("x")
    assert not is_open("x") and not close_approval("x")
