"""Sessions, turns, approvals and their one Trace as they are kept: whole records, in a store without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.form import FormField
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import assistant, system, user
from firsthand.model import ToolSpec, Usage
from firsthand.runs.stored_journal import now
from firsthand.serve.agents import session_store
from firsthand.serve.agents.parked_approval import read_decision
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.agents.session_store import SessionStore, SessionTurn
from firsthand.serve.agents.session_trace import HeardSteps, joined
from firsthand.serve.agents.sessions_app import approval_json, turn_json
from firsthand.serve.agents.shown_steps import ShownSteps
from firsthand.trace import Call, Event, Node, PromptIds, Trace


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = SessionStore(tmp_path, create=True)
    yield opened
    opened.close()


# -- the store --


def test_a_session_belongs_to_one_client_under_its_own_name(store: SessionStore) -> None:
    opening = (system("s"), user("q"))
    first = store.open_session("ann", "c", opening)
    other = store.open_session("bob", "c")
    assert (first.owner, first.context, first.conversation) == ("ann", "c", opening)
    assert other.id != first.id and other.conversation == ()
    assert store.open_session("ann", "c", (user("another"),)) == first, "what was there stays"
    assert store.session(first.id) == first and store.find_session("ann", "c") == first
    assert store.find_session("ann", "d") is None and store.find_session("eve", "c") is None
    third = store.open_session("ann", "b")
    assert store.sessions() == [first, other, third]
    with pytest.raises(UnknownName, match="no session 'nobody'"):
        store.session("nobody")


def test_turns_are_numbered_in_their_session_and_leave_no_final_state(store: SessionStore) -> None:
    mine, theirs = store.open_session("ann", "c"), store.open_session("bob", "c")
    one = store.add_turn(mine.id, "q1", id="t1")
    assert one == SessionTurn("t1", mine.id, 1, "submitted", "q1", None, None, "ann", "c")
    other, two = store.add_turn(theirs.id, "p"), store.add_turn(mine.id, "q2", id="t2")
    assert (other.number, two.number, len(other.id)) == (1, 2, 24)
    with pytest.raises(ConfigError, match="there is a turn 't1' already"):
        store.add_turn(theirs.id, "p", id="t1")
    assert store.turns(mine.id) == [one, two] and store.unfinished() == [one, other, two]
    assert store.turn("t1", "ann") == one and store.turn("t1") == one
    for id, owner in (("t1", "bob"), ("t9", None)):
        with pytest.raises(UnknownName, match=f"no turn '{id}'"):
            store.turn(id, owner)
    assert store.next_turn(mine.id) == one
    for state in ("working", "input_required", "submitted", "completed"):
        assert store.move("t1", state, answer="a", error="e")
    done = store.turn("t1")
    assert (done.state, done.answer, done.error, done.is_over, done.is_settled) == ("completed", "a", "e", True, True)
    assert not store.move("t1", "working") and not store.move("t9", "working")
    assert store.turn("t1") == done and store.next_turn(mine.id) == two and store.unfinished() == [other, two]
    for state in ("failed", "rejected", "canceled"):
        turn = store.add_turn(mine.id, "q")
        assert store.move(turn.id, state) and not store.move(turn.id, "completed"), state
    assert store.move("t2", "input_required") and store.turn("t2").is_settled and not store.turn("t2").is_over
    assert store.move("t2", "completed") and store.next_turn(mine.id) is None


def test_the_newest_idle_session_with_the_same_messages_goes_on(store: SessionStore) -> None:
    sessions = [store.open_session(owner, context) for owner, context in (("ann", "a"), ("ann", "b"), ("bob", "c"))]
    for each in sessions:
        store.keep_transcript(each.id, "d", 0)
    assert store.by_transcript("ann", "d") == sessions[1] and store.by_transcript("ann", "e") is None
    busy = store.add_turn(sessions[1].id, "q")
    for state in ("submitted", "working", "input_required"):
        store.move(busy.id, state)
        assert store.by_transcript("ann", "d") == sessions[0], state
    store.move(busy.id, "failed")
    assert store.by_transcript("ann", "d") == sessions[1]


def test_answers_that_were_not_given_are_found_by_their_question(store: SessionStore) -> None:
    session, other = store.open_session("ann", "a"), store.open_session("bob", "a")
    turns = [store.add_turn(session.id, prompt) for prompt in ("q", "q", "r", "q", "q")]
    store.add_turn(other.id, "q")
    for turn, state in zip(turns, ("completed", "completed", "completed", "failed", "rejected"), strict=True):
        store.move(turn.id, state)
    assert store.undelivered("ann", "q", "") == [turns[4].id, turns[1].id, turns[0].id]
    store.keep_transcript(session.id, "d", 1)
    assert store.undelivered("ann", "q", "") == [turns[4].id, turns[1].id]
    assert len(store.undelivered("bob", "q", "")) == 1, "another's session is as it was"
    store.keep_transcript(session.id, "e", 4)
    assert store.undelivered("ann", "q", "") == [turns[4].id], "of five turns four were delivered"
    assert store.by_transcript("ann", "e") == session and store.by_transcript("ann", "d") is None
    late = store.add_turn(session.id, "q")
    store.move(late.id, "canceled")
    assert late.id not in store.undelivered("ann", "q", "")


def test_an_answer_that_nobody_came_for_is_a_retrys_for_ten_minutes(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = store.open_session("ann", "a")
    waiting, done, seen = (store.add_turn(session.id, prompt) for prompt in ("w", "d", "s"))
    store.move(waiting.id, "input_required")
    for turn in (done, seen):
        store.move(turn.id, "completed", answer="A")
    for later_s, found in ((599, [done.id]), (601, [])):
        monkeypatch.setattr(session_store, "now", lambda by_s=0.0, later_s=later_s: now(by_s + later_s))
        assert store.undelivered("ann", "d", "") == found
        assert store.undelivered("ann", "w", "") == [waiting.id], "it is under way, however long"
    monkeypatch.setattr(session_store, "now", now)
    store.deliver(seen)
    assert store.undelivered("ann", "s", "") == store.undelivered("ann", "d", "") == []
    store.deliver(waiting)
    assert store.undelivered("ann", "w", "") == [waiting.id] and store.undelivered("ann", "d", "") == []


FORM = (FormField("n", "integer", required=True), FormField("w", "string", default="x"))


def test_a_question_is_asked_once_and_answered_once(store: SessionStore) -> None:
    session = store.open_session("ann", "a")
    turn, later = store.add_turn(session.id, "q", id="t"), store.add_turn(session.id, "r", id="u")
    asked = store.asked("t", "0:1", "pay", "irreversible", {"amount": 5}, "Pay 5?")
    assert asked.id.startswith("apr_") and (asked.turn, asked.call, asked.tool, asked.effect) == (
        "t",
        "0:1",
        "pay",
        "irreversible",
    )
    assert (asked.arguments, asked.question, asked.state, asked.owner) == ({"amount": 5}, "Pay 5?", "pending", "ann")
    assert (asked.answered_by, asked.reason, asked.form, asked.content) == ("", "", None, None)
    assert store.asked("t", "0:1", "pay", "irreversible", {"amount": 5}, "Pay 5?") == asked
    form = store.asked("t", "0:2", "fill", "external", {}, "Fill?", FORM)
    other = store.asked("u", "0:1", "pay", "external", {}, "?")
    assert form.form == FORM and store.pending("t") == [asked, form] and store.pending() == [asked, form, other]
    assert store.next_turn(session.id) is None, "somebody has to answer first"
    with pytest.raises(ConfigError, match="has no form: answer it without content"):
        store.answer(asked.id, True, by="bob", content={"n": 1})
    for content in ({}, {"n": "three"}, {"n": 1, "z": 2}):
        with pytest.raises(ConfigError):
            store.answer(form.id, True, by="bob", content=content)
    assert store.pending("t") == [asked, form]
    assert store.answer(asked.id, False, by="bob", reason="no money") and not store.answer(asked.id, True, by="eve")
    assert store.answer(form.id, True, by="bob", content={"n": 3})
    found = store.approval(asked.id, "ann")
    assert (found.state, found.answered_by, found.reason) == ("denied", "bob", "no money")
    filled = store.approval(form.id)
    assert (filled.state, filled.content, filled.reason) == ("allowed", {"n": 3, "w": "x"}, "")
    for id, owner in ((asked.id, "bob"), ("apr_0", None)):
        with pytest.raises(UnknownName, match="no approval"):
            store.approval(id, owner)
    assert store.next_turn(session.id) == store.turn("t")
    refused = store.asked("u", "0:2", "fill", "external", {}, "Fill?", FORM)
    assert store.answer(refused.id, False, by="bob", content={"z": 1}), "a no needs no fields that fit"
    assert store.approval(refused.id).content is None
    store.move("u", "canceled")
    assert store.pending() == [] and not store.answer(other.id, True, by="bob")
    assert turn.number == 1 and later.number == 2


def test_a_session_whose_questions_all_have_answers_is_told(store: SessionStore) -> None:
    session, idle = store.open_session("ann", "a"), store.open_session("ann", "b")
    store.add_turn(session.id, "q", id="t")
    store.add_turn(idle.id, "q", id="u")
    one, two = (store.asked("t", call, "pay", "read", {}, "?") for call in ("1", "2"))
    store.asked("u", "1", "pay", "read", {}, "?")
    for turn in ("t", "u"):
        store.move(turn, "input_required")
    assert store.answered_elsewhere() == []
    store.answer(one.id, True, by="x")
    assert store.answered_elsewhere() == []
    store.answer(two.id, False, by="x")
    assert store.answered_elsewhere() == [session.id]
    store.move("t", "working")
    assert store.answered_elsewhere() == []


def test_a_page_to_open_is_what_was_asked_as_one_and_its_answer_counts_for_no_call(store: SessionStore) -> None:
    store.add_turn(store.open_session("ann", "a").id, "q", id="t")
    same = ("t", "1", "mail__elicitation", "read", {"open": "https://x"}, "?")
    call = store.asked(*same)
    page = store.asked(*same, opens="https://x")
    assert (call.opens, page.opens) == (None, "https://x") and call.id != page.id and call.digest != page.digest
    assert store.answer(page.id, True, by="ann")
    assert store.asked(*same, opens="https://x").state == "allowed" and store.asked(*same).state == "pending"
    assert store.asked(*same, opens="https://y").state == "pending", "another page"


def test_a_folder_without_sessions_and_limits_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no sessions"):
        SessionStore(tmp_path)
    assert SessionSettings(max_turns=1, open_turns=1, poll_s=3599).poll_s == 3599
    for fields, said in (
        ({"max_turns": 0}, "max_turns is 0: give 1 or more"),
        ({"open_turns": 0}, "open_turns is 0: give 1 or more"),
        ({"poll_s": 0}, "poll_s is 0: give a number of seconds above 0"),
        ({"poll_s": 3600}, "poll_s is 3600"),
    ):
        with pytest.raises(ConfigError, match=said):
            SessionSettings(**fields)


@pytest.mark.parametrize(
    "text, expected",
    [(" Yes. ", True), ("OK!", True), ("allow", True), ("Deny!.", False), ("n", False), ("maybe", None), ("", None)],
)
def test_a_yes_or_no_is_read_with_its_point_and_in_either_case(text: str, expected: bool | None) -> None:
    assert read_decision(text) is expected


# -- the trace of a session --


def turn(number: int, state: Any = "completed", answer: str | None = "a", error: str | None = None) -> SessionTurn:
    return SessionTurn(f"i{number}", "s", number, state, f"q{number}", answer, error, "o", "c")


def attempt(*nodes: Node, seconds: float, **more: Any) -> Trace:
    return Trace("t", "served", "s", {"name": "clerk"}, 0, 0, "then", seconds, nodes=nodes, **more)


def test_the_trace_of_a_session_joins_its_turns_under_one_conversation() -> None:
    spec, other = ToolSpec("pay", "Pays.", {}), ToolSpec("look", "Looks.", {})
    first = joined(
        None,
        attempt(
            Node(None, system("S")),
            Node(0, user("q1")),
            Node(1, assistant("draft")),
            seconds=2.0,
            calls=(Call(":0", "generate", 1, 0.5, 0.25, "r0", nodes=(2,), tools=(0,), prompt=PromptIds((1, 2))),),
            events=(Event("note", 0.5, {"at": 2, "x": "y"}),),
            tools=(spec,),
            final_state={"k": "v"},
        ),
        turn(1),
        [],
    )
    texts = [(node.parent, node.message.role, node.message.text) for node in first.nodes]
    assert texts == [
        (None, "system", "S"),
        (0, "user", "q1"),
        (1, "assistant", "draft"),
        (0, "user", "q1"),
        (3, "assistant", "a"),
    ]
    (call,) = first.calls
    assert (call.id, call.at, call.started_s, call.nodes, call.tools) == ("1.0:0", 1, 0.5, (2,), (0,))
    said = {"number": 1, "id": "i1", "state": "completed", "prompt": "q1"}
    assert first.events == (Event("note", 0.5, {"at": 2, "x": "y"}), Event("turn", 2.0, said))
    part = {
        "number": 1,
        "id": "i1",
        "state": "completed",
        "nodes": 5,
        "calls": 1,
        "events": 2,
        "tools": 1,
        "tip": 4,
        "seconds": 2.0,
    }
    assert first.final_state == {"k": "v", "turns": [part]} and first.duration_s == 2.0
    second_attempt = attempt(
        Node(None, system("S")),
        Node(0, user("q1")),
        Node(1, assistant("a")),
        Node(2, user("q2")),
        Node(3, assistant("b")),
        seconds=1.5,
        calls=(
            Call("", "tool", None, 0.0, 0.1, "r1"),
            Call("0.1:0", "generate", 3, 0.25, 0.5, "r2", nodes=(4,), tools=(0,), prompt=PromptIds((9,), 0, 1, 2),
                 detail={"messages": [0, 3, "raw"], "positions": [4], "n": 1}),
        ),
        events=(
            Event("branch", 0.5, {"path": "0.1", "at": 3}),
            Event("branch", 0.6, {"path": "", "at": 5}),
            Event("other", 0.7, {"path": "0.1", "at": -1}),
        ),
        tools=(other,),
        stop_reason="tokens",
    )  # fmt: skip
    history = [user("q1"), assistant("a")]
    second = joined(first, second_attempt, turn(2, "failed", None, "why"), history)
    assert second.nodes[:5] == first.nodes
    assert [(node.parent, node.message.text) for node in second.nodes[5:]] == [(4, "q2"), (5, "b")]
    assert [each.id for each in second.calls] == ["1.0:0", "2.0", "2.0/0.1:0"]
    tool, made = second.calls[1:]
    assert (tool.at, tool.started_s) == (None, 2.0)
    assert (made.at, made.nodes, made.started_s, made.duration_s, made.tools) == (5, (6,), 2.25, 0.5, (1,))
    assert made.prompt == PromptIds((9,), 1, 1, 2), "calls of the turn before stand before it"
    assert made.detail == {"messages": [0, 5, "raw"], "positions": [6], "n": 1}
    note = {"number": 2, "id": "i2", "state": "failed", "prompt": "q2", "error": "why"}
    assert second.events[2:] == (
        Event("branch", 2.5, {"path": "2.0/0.1", "at": 5}),
        Event("branch", 2.6, {"path": "2.0", "at": 5}),
        Event("other", 2.7, {"path": "0.1", "at": -1}),
        Event("turn", 3.5, note),
    )
    assert second.tools == (spec, other) and (second.stop_reason, second.duration_s) == ("tokens", 3.5)
    assert second.final_state["turns"][0] == part
    assert second.final_state["turns"][1] == {
        **part, "number": 2, "id": "i2", "state": "failed", "nodes": 7, "calls": 3, "events": 6, "tools": 2, "seconds": 3.5,
    }  # fmt: skip
    assert second.id != first.id and second.started_at == "then"
    again = joined(second, attempt(seconds=0.5, stop_reason="done"), turn(2, "canceled", None), history)
    assert again.nodes == first.nodes and again.calls == first.calls and again.duration_s == 2.5
    assert again.stop_reason == "canceled" and again.tools == (spec,)
    waiting = joined(first, attempt(seconds=0.5), turn(2, "input_required", None), history)
    assert waiting.stop_reason == "input_required" and waiting.started_at == "then"


def test_a_turn_that_goes_on_takes_its_own_place_where_an_earlier_one_left_no_record() -> None:
    first = joined(None, attempt(Node(None, user("q1")), seconds=1.0), turn(1), [])
    third = joined(first, attempt(seconds=1.0), turn(3, "input_required", None), [user("q1"), assistant("a")])
    again = joined(third, attempt(seconds=1.0), turn(3), [user("q1"), assistant("a")])
    assert [part["number"] for part in again.final_state["turns"]] == [1, 3] and again.duration_s == 2.0
    assert [event.data["number"] for event in again.events] == [1, 3]


def test_steps_that_were_heard_make_a_trace_of_what_was_cut_off() -> None:
    heard = HeardSteps()
    call, event = Call("b", "tool", 0, 0.0, 0.1, "r"), Event("note", 0.1)
    for step in (
        Added(0, Node(None, user("q"))),
        Began("a", "tool", 0),
        Began("b", "tool", 0),
        Piece("a", "x"),
        call,
        event,
    ):
        heard.hear(step)
    assert heard.open == {"a"}
    trace = heard.trace(attempt(seconds=3.0))
    assert (trace.nodes, trace.calls, trace.events) == ((Node(None, user("q")),), (call,), (event,))
    assert trace.duration_s == 3.0


# -- what a client is shown --


def test_a_turn_an_approval_and_a_trace_are_shown_without_what_is_not_the_clients(store: SessionStore) -> None:
    assert turn_json(turn(2, "failed", None, "why")) == {
        "id": "i2", "number": 2, "state": "failed", "prompt": "q2", "answer": None, "error": "why",
    }  # fmt: skip
    store.add_turn(store.open_session("ann", "a").id, "q", id="t")
    asked = store.asked("t", "0:1", "pay", "read", {"a": 1}, "Pay?")
    shown = {
        "id": asked.id, "turn": "t", "tool": "pay", "effect": "read", "arguments": {"a": 1}, "question": "Pay?",
        "state": "pending",
    }  # fmt: skip
    assert approval_json(asked) == shown
    form = store.asked("t", "0:2", "fill", "read", {}, "Fill?", FORM)
    assert approval_json(form)["schema"]["required"] == ["n"]
    assert list(approval_json(form)["schema"]["properties"]) == ["n", "w"]
    made = attempt(
        seconds=1.0,
        calls=(
            Call("1.0:0", "generate", 0, 0.0, 0.5, "r", usage=Usage(3, 1, 4)),
            Call("1.0:1", "tool", 0, 0.5, 0.25, "r", detail={"name": "pay", "result": "ok"}, error="bad"),
        ),
        events=(Event("note", 0.5, {"x": 1}),),
        answer="a",
    )
    assert ShownSteps(()).trace(made) == {
        "id": "t",
        "stop_reason": "done",
        "answer": "a",
        "calls": [
            {
                "id": "1.0:0",
                "kind": "generate",
                "name": None,
                "result": None,
                "error": None,
                "tokens": 7,
                "seconds": 0.5,
            },
            {
                "id": "1.0:1",
                "kind": "tool",
                "name": "pay",
                "result": "ok",
                "error": "bad",
                "tokens": 0,
                "seconds": 0.25,
            },
        ],
        "events": [{"kind": "note", "data": {"x": 1}}],
    }
    assert ShownSteps(()).trace(None) is None
    assert ShownSteps(()).trace(attempt(seconds=1.0, events=(Event("protected", 0.0, {"why": "licence"}),))) is None
