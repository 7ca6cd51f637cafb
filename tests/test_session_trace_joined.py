"""The trace of a session joined turn by turn where attempts differ from what was there, branch, or hold nothing."""

from __future__ import annotations

from typing import Any

from firsthand.message import assistant, system, user
from firsthand.model import ToolSpec
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.session_trace import _effect, _moved, _moved_event, _parts, _tip, _with_places, joined
from firsthand.trace import Call, Event, Node, PromptIds, Trace

H1, H2 = user("h1"), assistant("h2")


def turn(number: int, state: Any = "completed", answer: str | None = "a") -> SessionTurn:
    return SessionTurn(f"i{number}", "s", number, state, f"q{number}", answer, None, "o", "c")


def attempt(*nodes: Node, seconds: float = 1.0, started: str = "then", **more: Any) -> Trace:
    return Trace("t", "served", "s", {"name": "clerk"}, 0, 0, started, seconds, nodes=nodes, **more)


def shape(trace: Trace) -> list[tuple[int | None, str]]:
    return [(node.parent, node.message.text) for node in trace.nodes]


def call(id: str, at: int | None = 0, **more: Any) -> Call:
    return Call(id, "generate", at, 0.25, 0.5, "r", **more)


def test_a_turn_begins_at_the_history_that_it_shares_and_branches_where_its_attempt_did() -> None:
    first = joined(
        None,
        attempt(
            Node(None, H1),
            Node(0, H2),
            Node(1, user("q1")),
            Node(2, assistant("x")),
            started="first",
            calls=(call(":0", 2, nodes=(3,)),),
            tools=(ToolSpec("one", "", {}),),
        ),
        turn(1, "failed", None),
        [H1, H2],
    )
    assert shape(first) == [(None, "h1"), (0, "h2"), (1, "q1"), (2, "x")], "a turn that failed adds no answer"
    (part,) = first.final_state["turns"]
    assert (part["tip"], part["nodes"], part["calls"], part["events"], part["tools"]) == (1, 4, 1, 1, 1)
    second = joined(
        first,
        attempt(
            Node(None, H1),
            Node(0, H2),
            Node(1, user("q2")),
            Node(2, assistant("y")),
            Node(1, user("b")),
            seconds=2.0,
            started="second",
            calls=(call(":0", 4, nodes=(3,), tools=(0,)), call("1.1:0", 1)),
            tools=(ToolSpec("two", "", {}),),
        ),
        turn(2),
        [H1, H2],
    )
    assert shape(second) == [*shape(first), (1, "q2"), (4, "y"), (1, "b"), (1, "q2"), (7, "a")]
    moved = [(each.id, each.at, each.nodes, each.started_s, each.tools) for each in second.calls]
    assert moved == [("1.0:0", 2, (3,), 0.25, ()), ("2.0:0", 6, (5,), 1.25, (1,)), ("2.0/1.1:0", 1, (), 1.25, ())]
    assert (second.started_at, second.duration_s) == ("first", 3.0)
    assert second.final_state["turns"][1] == {"number": 2, "id": "i2", "state": "completed", "nodes": 9, "calls": 3,
                                              "events": 2, "tools": 2, "tip": 8, "seconds": 3.0}  # fmt: skip
    again = joined(second, attempt(seconds=0.5, started="third"), turn(1, "canceled", None), [])
    assert shape(again) == [] and again.calls == () and again.tools == () and again.started_at == "third"
    assert [each["number"] for each in again.final_state["turns"]] == [1], "a turn takes the place of later ones too"


def test_an_attempt_that_begins_with_other_messages_shares_none_of_them() -> None:
    first = joined(None, attempt(Node(None, system("S")), Node(0, H1)), turn(1), [H1])
    assert shape(first) == [(None, "S"), (0, "h1"), (1, "q1"), (2, "a")]
    other = joined(first, attempt(Node(None, system("T")), Node(0, H1), Node(1, user("q2"))), turn(2, answer="b"), [H1])
    assert shape(other)[4:] == [(None, "T"), (4, "h1"), (5, "q2"), (5, "q2"), (7, "b")]
    part = joined(first, attempt(Node(None, system("S")), Node(0, H1), Node(1, user("edited"))), turn(2, "failed", None),
                  [H1, H2])  # fmt: skip
    assert shape(part)[4:] == [(1, "edited")] and part.final_state["turns"][1]["tip"] == 4
    short = joined(first, attempt(Node(None, system("S"))), turn(2, "failed", None), [H1])
    assert len(short.nodes) == 4 and short.final_state["turns"][1]["tip"] is None, "it holds less than its history"
    empty = joined(short, attempt(Node(None, H1)), turn(3, "failed", None), [])
    assert shape(empty)[4:] == [(None, "h1")] and empty.final_state["turns"][2]["tip"] is None
    done = joined(None, attempt(), turn(1, "completed", None), [])
    assert done.nodes == () and joined(None, attempt(), turn(1, "completed", ""), []).nodes[1].message.text == ""


def test_a_system_message_of_the_history_stands_once_whether_the_agent_has_its_own_or_not() -> None:
    for opens in ("S", "own"):
        told = [Node(None, system(opens)), Node(0, H1), Node(1, user("q1")), Node(2, assistant("a"))]
        first = joined(None, attempt(*told), turn(1), [system("S"), H1])
        assert shape(first) == [(None, opens), (0, "h1"), (1, "q1"), (2, "a"), (1, "q1"), (4, "a")]
        history = [system("S"), H1, user("q1"), assistant("a")]
        again = [*told[:2], Node(1, user("q1")), Node(2, assistant("a")), Node(3, user("q2"))]
        second = joined(first, attempt(*again), turn(2, "failed", None), history)
        assert shape(second) == [*shape(first), (5, "q2")] and second.final_state["turns"][1]["tip"] == 5
    alone = joined(None, attempt(Node(None, system("S")), Node(0, user("q1"))), turn(1), [system("S")])
    assert shape(alone) == [(None, "S"), (0, "q1"), (0, "q1"), (2, "a")]
    late = joined(None, attempt(Node(None, H1), Node(0, system("S")), Node(1, H2)), turn(1), [H1, system("S")])
    assert shape(late)[3:] == [(1, "q1"), (3, "a")], "one that does not open it is a message as others are"


def test_a_turn_in_which_nothing_was_asked_leaves_the_conversation_where_it_was() -> None:
    first = joined(None, attempt(Node(None, system("S")), Node(0, H1)), turn(1), [H1])
    history = [H1, user("q1"), assistant("a")]
    canceled = joined(first, attempt(), turn(2, "canceled", None), history)
    assert canceled.nodes == first.nodes and canceled.final_state["turns"][1]["tip"] == 3
    told = [Node(None, system("S")), *(Node(at, message) for at, message in enumerate([*history, user("q3")]))]
    third = joined(canceled, attempt(*told), turn(3, answer="c"), history)
    assert shape(third) == [*shape(first), (3, "q3"), (3, "q3"), (5, "c")], "no message of it comes twice"
    quiet = joined(first, attempt(), turn(2, answer="b"), history)
    assert shape(quiet) == [*shape(first), (3, "q2"), (4, "b")] and quiet.final_state["turns"][1]["tip"] == 5


def test_ids_places_and_times_of_what_an_attempt_did_are_those_of_the_session() -> None:
    assert [_effect(id, 3) for id in (":0", "0.1:2", "", "0.1", "0.1/2.0:1")] == [
        "3.0:0", "3.0/0.1:2", "3.0", "3.0/0.1", "3.0/0.1/2.0:1",
    ]  # fmt: skip
    places: list[int | None] = [5, None, 7]
    made = _moved(call("0.1:0", 2, nodes=(0, 1, 2), tools=(0, 2), prompt=PromptIds((9,), 4, 1, 2), error="e",
                       detail={"messages": [2, "raw", 0], "positions": "none"}), places, 4, 10.0, 3, 6)  # fmt: skip
    assert made == Call(
        "4.0/0.1:0", "generate", 7, 10.25, 0.5, "r", nodes=(5, 7), tools=(6, 8), prompt=PromptIds((9,), 7, 1, 2), error="e",
        detail={"messages": [7, "raw", 5], "positions": "none"},
    )  # fmt: skip
    bare = _moved(call(":1", None, prompt=PromptIds((1, 2))), places, 2, 0.5, 3, 0)
    assert (bare.at, bare.prompt, bare.started_s, bare.duration_s) == (None, PromptIds((1, 2)), 0.75, 0.5)
    for at, moved in ((0, 5), (1, None), (2, 7), (3, 3), (-1, -1), ("x", "x")):
        assert _moved_event(Event("k", 1.0, {"at": at, "b": 1}), places, 2, 0.5) == Event(
            "k", 1.5, {"at": moved, "b": 1}
        )
    assert _moved_event(Event("branch", 0.0, {"path": "1.0"}), places, 2, 0.0).data == {"path": "2.0/1.0"}
    for kept in (Event("other", 0.0, {"path": "1.0"}), Event("branch", 0.0, {"path": 1})):
        assert _moved_event(kept, places, 2, 0.0) == kept
    detail = {"messages": [0, 2], "positions": [2, None, 0], "n": 1}
    assert _with_places(detail, places) == {"messages": [5, 7], "positions": [7, None, 5], "n": 1}
    assert detail == {"messages": [0, 2], "positions": [2, None, 0], "n": 1}, "the attempt's own record stays"
    two = attempt(Node(None, system("S")), Node(0, H1))
    assert [_tip(two, places, length) for length in (0, 1, 2, 3)] == [5, None, 7, None]
    assert [_tip(attempt(Node(None, H1)), places, length) for length in (0, 1, 3, 4)] == [None, 5, 7, None]
    before = attempt(final_state={"turns": [{"number": 1}, {"id": "old"}, {"number": 4}]})
    assert _parts(before, 4) == [{"number": 1}, {"id": "old"}] and _parts(before, 2) == [{"number": 1}]
    assert _parts(before, 5) == before.final_state["turns"] and _parts(None, 9) == [] == _parts(attempt(), 9)
