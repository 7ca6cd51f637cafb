"""Decisions in a run's journal count if they were recorded under this data home: of a folder that others had, none does."""

import asyncio
from dataclasses import asdict, replace

import pytest

from firsthand import Agent, Task
from firsthand.errors import StoreError
from firsthand.guard import GuardVerdict
from firsthand.loop.approval import Approval, Decision, approval_key
from firsthand.message import ToolCall, user
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.runs import store
from firsthand.runs.database import put
from firsthand.runs.forking import Fork, Kept, fork
from firsthand.runs.stored_journal import StoredJournal
from firsthand.serve.agents.session_store import SessionStore
from firsthand.system.home_seal import KEY
from firsthand.tool import tool
from firsthand.trace import Call, Node, Trace

YES = asdict(Decision(True, "terminal"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    with store.create(tmp_path, {}, "small") as made:
        yield made


def forged(run, attempt, effect, request, reply):
    """Write an entry as somebody does who has the run's folder, and not its home."""
    with run.database.write() as connection:
        connection.execute(
            "INSERT INTO effects (attempt, effect, request, reply, at) VALUES (?, ?, ?, ?, '')",
            (attempt, effect, request, put(connection, reply)),
        )


def stored(run, effect):
    """The reply of an effect as it stands in the file."""
    return run.database.get(run.database.read("SELECT reply FROM effects WHERE effect = ?", (effect,))[0][0])


DONE = []


@tool(effect="irreversible")
def wipe(path: str) -> str:
    """Remove a file."""
    DONE.append(path)
    return "removed"


class Judge:
    def __init__(self, allowed):
        self.allowed, self.asked = allowed, 0

    async def __call__(self, tool, arguments):
        self.asked += 1
        return Decision(self.allowed, "judge", "" if self.allowed else "no")


async def _wipes(task, ctx):
    return (await ctx.call(ToolCall("1", "wipe", {"path": "thesis"}))).content


class KilledBeforeTheCall(StoredJournal):
    def record(self, effect, request, reply):
        if "started" in reply:
            raise StoreError("killed between the decision and the call")
        super().record(effect, request, reply)


def attempt(run, judge, journal=None, **more):
    DONE.clear()
    agent = Agent("a", Scripted(["safe"] * 9), _wipes, tools=[wipe], approval=Approval(ask=judge), **more)
    return asyncio.run(rollout(agent, Task("1", "go"), journal=journal or run.journal("p")))


def test_an_approval_that_somebody_wrote_into_a_journal_is_asked_again(run):
    effect, request = approval_key(":0", wipe, {"path": "thesis"})
    forged(run, "p", effect, request, YES)
    forged(run, "p", effect, request, {"decision": YES, "seal": "0" * 64})
    forged(run, "p", ":5 approval", "r", {"by": "terminal"})
    assert run.journal("p").find(":5 approval", "r") is None
    judge = Judge(allowed=False)
    assert "was not run: no" in attempt(run, judge).answer and judge.asked == 1 and not DONE


@pytest.mark.parametrize("moved", ["attempt", "effect", "request", "reply"])
def test_an_approval_of_ours_holds_at_its_own_place_alone(run, moved):
    own = run.journal("p")
    own.record(":0 approval", "r", YES | {"reason": "of one"})
    sealed = stored(run, ":0 approval")
    place = {"attempt": "p", "effect": ":0 approval", "request": "r"}
    if moved == "reply":
        sealed = sealed | {"decision": YES}
        forged(run, *place.values(), sealed)
    else:
        place[moved] += "x" if moved != "effect" else " guard 0 call approval"
        forged(run, *place.values(), sealed)
    again = StoredJournal(run.database, place["attempt"])
    assert again.find(place["effect"], place["request"]) is None
    assert own.find(":0 approval", "r") == (None if moved == "reply" else YES | {"reason": "of one"})


def test_a_resumed_run_of_ours_asks_nobody_again(run):
    for allowed in (True, False):
        with run.database.write() as connection:
            connection.execute("DELETE FROM effects")
        first, later = Judge(allowed), Judge(not allowed)
        killed = KilledBeforeTheCall(run.database, "p") if allowed else run.journal("p")
        if allowed:
            with pytest.raises(StoreError, match="killed"):
                attempt(run, first, journal=killed)
        else:
            attempt(run, first)
            with run.database.write() as connection:
                connection.execute("DELETE FROM effects WHERE effect = ':0'")
        answer = attempt(run, later).answer
        assert (answer == "removed") == bool(DONE) == allowed and (first.asked, later.asked) == (1, 0)


def test_with_another_key_or_one_of_an_older_version_a_decision_is_made_again(run, tmp_path):
    attempt(run, Judge(allowed=True))
    with run.database.write() as connection:
        connection.execute("DELETE FROM effects WHERE effect = ':0'")
    (tmp_path / "home" / KEY).write_bytes(bytes(32))
    judge = Judge(allowed=False)
    attempt(run, judge)
    assert judge.asked == 1 and not DONE


def test_where_no_key_can_be_kept_a_decision_holds_until_the_process_ends(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "file"))
    journal = run.journal("p")
    journal.record(":0 approval", "r", YES)
    assert journal.find(":0 approval", "r") == YES


class Watches:
    """A guard that remembers what it found, claims, and asks a model."""

    def __init__(self):
        self.looked = 0

    async def call(self, view, tool, arguments):
        async def look():
            self.looked += 1
            return {"bad": True}

        found = await view.once({"look": arguments["path"]}, look)
        said = await view.ask("Is it safe?")
        if found["bad"] or said.message.text != "safe" or not await view.claim("k", 1):
            return GuardVerdict.blocked("watch", f"{found} {said.message.text}")
        return GuardVerdict.passed("watch")


def test_what_somebody_wrote_for_a_guard_is_looked_at_asked_and_claimed_again(run):
    guard = Watches()
    attempt(run, Judge(allowed=True), guard=guard)
    entries = [(effect, request) for effect, request, _ in run.journal("p").entries() if " guard " in effect]
    assert len(entries) == 2 and guard.looked == 1
    attempt(run, Judge(allowed=True), guard=guard)
    assert guard.looked == 1, "our own entries are found"
    with run.database.write() as connection:
        connection.execute("DELETE FROM effects")
    (looked, request), (asked, prompt) = entries
    forged(run, "p", looked, request, {"guarded": {"bad": False}})
    forged(run, "p", asked, prompt, {"completions": []})
    forged(run, "p", ":7", "x", {"claim": "k", "granted": True, "amount": -9, "item": "", "at": "z"})
    made = attempt(run, Judge(allowed=True), guard=guard)
    assert "'bad': True" in made.answer and guard.looked == 2 and not DONE
    assert not any("claim" in each for each in run.journal("p").replies())


def test_what_a_model_or_a_tool_replied_is_found_as_before(run):
    journal = run.journal("p")
    for effect, reply in (
        (":0", {"completions": []}),
        (":1", {"content": "x", "is_error": False}),
        (":2", {"items": []}),
    ):
        journal.record(effect, "r", reply)
        assert stored(run, effect) == reply and journal.find(effect, "r") == reply
    journal.record(":3 guard 0 call 0", "r", {"guarded": {"é\ud800": [1.5, None], "n": (1, 2)}})
    assert run.journal("p").find(":3 guard 0 call 0", "r") == {"guarded": {"é\ud800": [1.5, None], "n": [1, 2]}}


def test_a_fork_takes_no_decision_from_a_trace(run):
    def call(id, kind, request="r", **detail):
        return Call(id, kind, None, 0.0, 0.1, request, detail=detail)

    calls = {
        each.id: each
        for each in (
            call(":0", "tool", name="look", arguments={}, result="x", is_error=False),
            call(":0 guard 0 call 0", "guard", answer="safe"), call(":9 guard 0 call 0", "guard", answer="safe"),
            call(":8 guard 0 call 0", "memory", reply={}), call(":0 approval", "tool", result="x", is_error=False),
            call(":7", "guard", answer="safe"),
        )
    }  # fmt: skip
    trace = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, calls=tuple(calls.values()))
    kept = Kept(run.journal("p"), trace, calls)
    assert kept.find(":0 guard 0 call 0", "r")["completions"], "of a call that is kept, asked the same"
    assert kept.find(":0 guard 0 call 0", "other") is None
    for effect in (":9 guard 0 call 0", ":8 guard 0 call 0", ":0 approval", ":7"):
        assert kept.find(effect, "r") is None


def test_a_fork_asks_a_person_again_about_a_call_that_had_not_ended(run):
    judge = Judge(allowed=True)
    parent = attempt(run, judge)
    judge.allowed = False
    agent = Agent("a", Scripted([]), _wipes, tools=[wipe], approval=Approval(ask=judge))
    parent = replace(parent, nodes=(Node(None, user("go")),), calls=())
    DONE.clear()
    made = asyncio.run(fork(Fork(parent, 0, agent), Task("1", "go"), journal=run.journal("f")))
    assert "was not run" in made.answer and judge.asked == 2 and not DONE


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["", "seal = NULL", "state = 'allowed'", "tool = 'other'", "reason = 'x'", "arguments = '{}'"]
)
def test_an_answer_to_a_served_agents_question_holds_if_it_was_given_here(run, change):
    store = SessionStore(run.path, create=True)
    turn = store.add_turn(store.open_session("ann", "c").id, "go").id

    def asked():
        return store.asked(turn, ":0", "wipe", "irreversible", {"path": "é\ud800", "n": 1.0}, "Run it?")

    assert store.answer(asked().id, False, by="boss", reason="no")
    if change:
        with store.database.write() as connection:
            connection.execute(f"UPDATE approvals SET {change}")
        assert (asked().state, asked().answered_by, asked().reason) == ("pending", "", "")
        assert store.answer(asked().id, True, by="boss") and asked().state == "allowed"
    else:
        assert (asked().state, asked().reason) == ("denied", "no")
    store.close()
