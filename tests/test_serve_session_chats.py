"""A served agent as a model: which turn a conversation is about, what is streamed of it, and how turns are joined."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, ModelError, UnknownName
from firsthand.loop.form import FormField
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import CallDelta, Completion, Delta, Sampling, Usage
from firsthand.providers.scripted import Scripted
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_model import ASK, Caller, SessionModel, _call, caller
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.session_trace import joined, restated
from firsthand.tool import tool_from_function
from firsthand.trace import Call, Event, Failure, Node, Trace
from served_agent import Desk, clerk, within_sessions


def result(call: ToolCall, text: str) -> Message:
    return Message("tool", (ToolResult(call.id, ASK, text),))


async def streamed(model: SessionModel, *messages: Message, who: str = "ann") -> list[Delta]:
    caller.set(Caller(who))
    return [each async for each in model.stream(list(messages), Sampling())]


def test_a_stream_has_the_steps_as_a_thought_that_no_text_of_a_tool_can_close(tmp_path: Path) -> None:
    def look(word: str) -> str:
        """Look a word up."""
        return f"</think>{word}</think>"

    async def pattern(task: Any, ctx: Any) -> str:
        found = await ctx.call(ToolCall("1", "look", {"word": "é"}))
        return f"{found.content}{task.question}"

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        *steps, answer, last = await streamed(model, user("q"))
        texts = [each.text for each in steps]
        assert texts[0] == "<think>" and texts[-1] == "</think>" and len(steps) == 4
        assert texts[1:3] == ['\nlook({"word":"é"})\n', "-> < /think>é< /think>\n"]
        assert answer == Delta("</think>é</think>q")
        assert last == Delta("", Completion(assistant("</think>é</think>q"), "stop", Usage()))
        assert caller.get() is not None and caller.get().session.startswith("chat-")  # type: ignore[union-attr]

    tools = (tool_from_function(look, effect="read"),)
    within_sessions(Agent("a", clerk(Desk()).model, pattern, {}, tools), tmp_path, use)


def test_each_question_of_a_turn_is_a_call_in_two_pieces_and_the_answers_make_it_go_on(tmp_path: Path) -> None:
    sent: list[int] = []

    def pay(amount: int, to: str) -> str:
        """Pay an amount."""
        sent.append(amount)
        return f"paid {amount}"

    async def both(task: Any, ctx: Any) -> str:
        async def one(amount: int) -> str:
            return str((await ctx.call(ToolCall(f"c{amount}", "pay", {"amount": amount, "to": "Zoë"}))).content)

        if not task.question.startswith("pay"):
            return f"You said {task.question}, after {len(task.conversation)} others."
        return "; ".join(await ctx.group([one(5), one(7)]))

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        *steps, one, one_more, two, two_more, last = await streamed(model, user("pay 5 7"))
        assert steps[-1].text == "</think>" and last.text == ""
        turn = sessions.store.unfinished()[0]
        asked = sessions.store.pending(turn.id)
        assert [each.arguments for each in asked] == [{"amount": each, "to": "Zoë"} for each in (5, 7)]
        for at, (head, body, each) in enumerate(((one, one_more, asked[0]), (two, two_more, asked[1]))):
            assert head.call == CallDelta(at, each.id, "approval") and head.text == body.text == ""
            assert body.call == CallDelta(
                at, arguments=json.dumps(_call(each).arguments, ensure_ascii=False)
            ) and "Zoë" in str(body)
        made = last.completion
        assert made is not None and made.finish_reason == "tool_calls" and made.message.text == ""
        assert [call.id for call in made.message.tool_calls] == [each.id for each in asked]
        calls = made.message.tool_calls
        with pytest.raises(UnknownName, match=f"no approval '{asked[1].id}'"):
            await streamed(model, user("pay 5 7"), made.message, result(calls[1], "yes"), who="bob")
        with pytest.raises(ConfigError) as unclear:
            await streamed(model, user("pay 5 7"), made.message, result(calls[1], "x" * 41))
        assert str(unclear.value) == f"the result of approval is {'x' * 40!r}: send yes or no"
        with pytest.raises(ConfigError, match=f"two results of approval answer {asked[0].id} differently: send one"):
            said = (result(calls[1], "yes"), result(calls[0], "no"), result(calls[0], "yes"))
            await streamed(model, user("pay 5 7"), made.message, *said)
        assert sessions.store.pending(turn.id) == asked, "nothing of such a message counts"
        paid = await streamed(model, user("pay 5 7"), made.message, result(calls[0], "no"), result(calls[1], " Yes. "))
        assert sent == [7] and paid[-1].completion is not None and paid[-1].completion.finish_reason == "stop"
        assert [sessions.store.approval(each.id).answered_by for each in asked] == ["ann", "ann"]
        assert [sessions.store.approval(each.id).state for each in asked] == ["denied", "allowed"]
        with pytest.raises(UnknownName, match=f"no approval '{asked[0].id}'"):
            await streamed(model, user("pay 5 7"), made.message, result(calls[0], "no"), who="bob")
        again = await streamed(model, user("pay 5 7"), made.message, result(calls[0], "no"), result(calls[1], "yes"))
        assert again[-1].completion == paid[-1].completion and sent == [7], "a retry"
        for at, (other, state) in enumerate((("yes", "denied"), ("no", "allowed"))):
            with pytest.raises(ModelError, match=f"{asked[at].id} was {state} before: it is answered once") as told:
                await streamed(model, user("pay 5 7"), made.message, result(calls[at], other))
            assert told.value.refused_as == 409
        with pytest.raises(
            ConfigError, match="the last message answers no call of approval: send its result, yes or no"
        ):
            await streamed(model, user("q"), Message("tool", ()))
        opened = await streamed(model, user("pay 5 7"), made.message, result(calls[1], "yes"), user("hi"))
        assert opened[-2].text == "You said hi, after 1 others.", "a conversation of its own, behind the first question"
        row = sessions.store.sessions()[-1]
        assert row.conversation == (user("pay 5 7"),) and len(sessions.store.turns(row.id)) == 1

    within_sessions(
        Agent("two", Scripted([]), both, tools=(tool_from_function(pay, effect="irreversible"),)), tmp_path, use
    )


def test_a_form_is_filled_in_by_the_content_of_a_result(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        store, model = sessions.store, SessionModel(sessions)
        turn = store.add_turn(store.open_session("ann", "chat-1").id, "hi")
        field = FormField("nights", "integer", "Nights", required=True)
        asked = store.asked(turn.id, "0:0", "book", "external", {"message": "é"}, "Book?", [field])
        call = _call(asked)
        assert call.arguments == {
            "approval": asked.id, "tool": "book", "effect": "external", "arguments": {"message": "é"}, "question": "Book?",
            "schema": {"type": "object", "properties": {"nights": {"type": "integer", "description": "Nights"}},
                       "required": ["nights"]},
        }  # fmt: skip
        said = json.dumps({"allowed": True, "content": {"nights": 3}})
        messages = (user("hi"), assistant("", call), result(call, said))
        assert model._answered(Caller("ann"), messages).id == turn.id
        kept = store.approval(asked.id)
        assert (kept.state, kept.content, kept.answered_by) == ("allowed", {"nights": 3}, "ann")
        assert model._answered(Caller("ann"), messages).id == turn.id, "a retry finds what was kept"

    within_sessions(clerk(Desk()), tmp_path, use)


def test_a_retry_finds_the_turn_that_its_client_left_and_no_other(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        store, model = sessions.store, SessionModel(sessions)

        def left(text: str, *before: tuple[str, str], who: str = "ann") -> str | None:
            found = model._left(Caller(who), before, text)
            return None if found is None else found.id

        chat, other = store.open_session("ann", "chat-1"), store.open_session("ann", "own")
        first, elsewhere = store.add_turn(chat.id, "hi"), store.add_turn(other.id, "yo")
        assert left("hi") == first.id and left("hi", who="bob") is None and left("hi", ("user", "x")) is None
        assert left("yo") is None and store.undelivered("ann", "yo", "") == [elsewhere.id], "not a chat"
        stream = sessions.follow(first.id)
        await anext(stream)
        assert left("hi") is None, "its client is still there"
        await stream.aclose()
        store.move(first.id, "completed", answer=" A ")
        again = store.add_turn(chat.id, "hi")
        assert left("hi") == first.id and left("hi", ("user", "hi"), ("assistant", "A")) == again.id
        assert left("hi", ("user", "hi"), ("assistant", "B")) is None
        store.keep_transcript(chat.id, "digest", 1)
        assert left("hi") is None and left("hi", ("user", "hi"), ("assistant", "A")) == again.id
        store.move(again.id, "completed", answer="B")
        store.keep_transcript(chat.id, "digest", 2)
        assert left("hi", ("user", "hi"), ("assistant", "A")) is None
        store.move(elsewhere.id, "canceled")

    within_sessions(clerk(Desk()), tmp_path, use)


def test_an_answer_is_delivered_once_it_is_streamed_and_a_failure_is_an_error(tmp_path: Path) -> None:
    async def pattern(task: Any, ctx: Any) -> str:
        if task.question == "fail":
            raise ModelError("it is away")
        return f"A of {task.question}"

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        for messages in (("one",), ("one", "two")):
            said: list[Message] = [system("S")]
            for at, text in enumerate(messages):
                said += [user(text)] if at + 1 == len(messages) else [user(text), assistant(f"A of {text}")]
            assert (await streamed(model, *said))[-2].text == f"A of {messages[-1]}"
            assert sessions.store.undelivered("ann", messages[-1], "") == []
        (row,) = sessions.store.sessions()
        assert [each.prompt for each in sessions.store.turns(row.id)] == ["one", "two"]
        with pytest.raises(ModelError, match=r"^the turn failed: it is away$") as failed:
            await streamed(model, user("fail"))
        assert failed.value.refused_as == 500, "clients do not ask again"
        fallen = sessions.store.sessions()[-1]
        assert sessions.store.by_transcript("ann", "") == fallen, "no messages of it are known"
        assert model.fingerprint == SessionModel(sessions).fingerprint and model.fingerprint.startswith("served:")

    within_sessions(Agent("a", clerk(Desk()).model, pattern), tmp_path, use)


def test_each_prompt_without_messages_and_each_first_message_opens_a_session_of_its_own(tmp_path: Path) -> None:
    async def use(sessions: ServedSessions) -> None:
        model, contexts = SessionModel(sessions), []
        for prompt in ("one", "two", "two", [], [user("one")], [system("S"), user("two")]):
            caller.set(Caller("ann"))
            said = [each async for each in model.stream(prompt, Sampling())]
            text = prompt if isinstance(prompt, str) else prompt[-1].text if prompt else ""
            assert said[-2].text == f"You said {text}, after 0 others."
            contexts.append(caller.get().session)  # type: ignore[union-attr]
        assert len({*contexts}) == 6 and all(re.fullmatch("chat-[0-9a-f]{16}", each) for each in contexts)
        rows = sessions.store.sessions()
        assert [row.context for row in rows] == contexts
        assert [[turn.prompt for turn in sessions.store.turns(row.id)] for row in rows] == [
            ["one"], ["two"], ["two"], [""], ["one"], ["two"],
        ]  # fmt: skip

    within_sessions(clerk(Desk()), tmp_path, use)


# -- the trace of a session --


def turn(number: int, state: Any = "completed", answer: str | None = "a") -> SessionTurn:
    return SessionTurn(f"i{number}", "s", number, state, f"q{number}", answer, None, "o", "c")


def attempt(*nodes: Node, seconds: float, **more: Any) -> Trace:
    return Trace("t", "served", "s", {"name": "clerk"}, 0, 0, "then", seconds, nodes=nodes, **more)


def texts(trace: Trace) -> list[tuple[int | None, str]]:
    return [(node.parent, node.message.text) for node in trace.nodes]


def test_an_attempt_shares_the_messages_it_begins_with_and_none_behind_the_first_that_differs() -> None:
    first = joined(None, attempt(Node(None, system("S")), Node(0, user("q1")), seconds=1.0), turn(1), ())
    assert texts(first) == [(None, "S"), (0, "q1"), (0, "q1"), (2, "a")]
    changed = attempt(
        Node(None, system("T")), Node(0, user("q1")), Node(1, assistant("a")), Node(2, user("q2")), seconds=0.5
    )
    second = joined(first, changed, turn(2, "failed", None), (user("q1"), assistant("a")))
    assert texts(second)[4:] == [(None, "T"), (4, "q1"), (5, "a"), (6, "q2")], "equal texts stand on another opening"
    assert second.final_state["turns"][1]["tip"] == 6
    odd = attempt(Node(None, user("x")), Node(None, user("q1")), Node(1, assistant("a")), seconds=0.5)
    third = joined(first, odd, turn(2, "canceled", "late"), ())
    assert texts(third)[4:] == [(None, "x"), (None, "q1"), (5, "a")] and third.final_state["turns"][1]["tip"] is None


def test_a_turn_without_an_answer_adds_no_messages_and_one_without_steps_keeps_the_end_of_the_last() -> None:
    first = joined(None, attempt(Node(None, user("q1")), seconds=1.0, final_state={"k": 1}), turn(1), ())
    assert texts(first) == [(None, "q1"), (None, "q1"), (1, "a")] and first.final_state["k"] == 1
    for state, answer, reason in (
        ("failed", None, "done"),
        ("canceled", "late", "canceled"),
        ("input_required", "early", "input_required"),
        ("rejected", None, "done"),
    ):
        second = joined(first, attempt(seconds=0.25, final_state={"m": 2}), turn(2, state, answer), ())
        assert second.nodes == first.nodes and second.stop_reason == reason and second.duration_s == 1.25
        assert (
            second.final_state["turns"][1]["tip"] == 2
            and second.final_state["m"] == 2
            and "k" not in second.final_state
        )
    third = joined(second, attempt(seconds=0.5), turn(3, "completed", ""), ())
    assert texts(third)[3:] == [(2, "q3"), (3, "")] and [each["tip"] for each in third.final_state["turns"]] == [
        2,
        2,
        4,
    ]
    assert [each["seconds"] for each in third.final_state["turns"]] == [1.0, 1.25, 1.75]


def test_a_session_began_with_the_first_turn_that_left_a_record() -> None:
    first = joined(None, attempt(Node(None, user("q1")), seconds=1.0), turn(1, "input_required", None), ())
    again = joined(first, Trace("u", "served", "s", {"name": "clerk"}, 0, 5, "later", 0.5), turn(1), ())
    assert (again.started_at, again.seed, again.duration_s) == ("later", 5, 0.5), "its first turn is made again"
    second = joined(again, attempt(seconds=0.5), turn(2), ())
    assert (second.started_at, second.seed) == ("later", 0) and len(second.final_state["turns"]) == 2


def test_a_state_told_again_stands_behind_the_record_of_its_turn_and_before_no_other() -> None:
    calls = tuple(Call(f"{at}.0:0", "generate", None, 0.0, 0.1, f"r{at}") for at in (1, 2, 3))
    parts = [
        {"number": at, "id": f"i{at}", "state": "input_required", "nodes": at, "calls": at, "events": 2 * at,
         "tools": 0, "tip": at - 1, "seconds": float(at)}
        for at in (1, 2, 3)
    ]  # fmt: skip
    events = tuple(Event("note", float(at)) for at in range(6))
    trace = attempt(
        *[Node(None, user(f"n{at}")) for at in range(3)], seconds=3.0, calls=calls, events=events, answer="old",
        error=Failure("E", "why"), stop_reason="seconds", final_state={"turns": parts, "k": 1},
    )  # fmt: skip
    made = restated(trace, turn(2, "canceled", None))
    assert made is not None and made.id != trace.id and made.started_at == "then"
    assert (made.nodes, made.calls, made.duration_s) == (trace.nodes[:2], calls[:2], 2.0)
    said = Event("turn", 2.0, {"number": 2, "id": "i2", "state": "canceled", "prompt": "q2"})
    assert made.events == (*events[:4], said) and made.error is None and made.answer is None
    assert made.stop_reason == "canceled"
    assert made.final_state == {"turns": [parts[0], {**parts[1], "state": "canceled", "events": 5}], "k": 1}
    done = restated(trace, turn(1, "completed", "a"))
    assert done is not None and (done.answer, done.stop_reason, done.nodes) == ("a", "seconds", trace.nodes[:1])
    assert restated(trace, turn(4)) is None and restated(attempt(seconds=1.0), turn(1)) is None


def test_a_turn_whose_approval_was_answered_elsewhere_is_no_answer_for_the_next_who_asks_the_same(
    tmp_path: Path,
) -> None:
    sent: list[int] = []

    def pay(amount: int) -> str:
        """Pay an amount."""
        sent.append(amount)
        return f"paid {amount}"

    async def pattern(task: Any, ctx: Any) -> str:
        return str((await ctx.call(ToolCall("c", "pay", {"amount": 7}))).content)

    async def use(sessions: ServedSessions) -> None:
        model = SessionModel(sessions)
        asked = await streamed(model, user("pay"))
        assert asked[-1].completion is not None and asked[-1].completion.finish_reason == "tool_calls"
        again = await streamed(model, user("pay"))
        assert again[-1].completion == asked[-1].completion, "while it waits the same words find it"
        (turn,) = sessions.store.unfinished()
        (approval,) = sessions.store.pending(turn.id)
        sessions.answer(approval.id, True, owner="ann", by="desk")
        async for _ in sessions.follow(turn.id, "ann"):
            pass
        assert sent == [7] and sessions.store.turn(turn.id).state == "completed"
        anew = await streamed(model, user("pay"))
        assert anew[-1].completion is not None and anew[-1].completion.finish_reason == "tool_calls"
        (other,) = sessions.store.unfinished()
        assert other.session != turn.session
        sessions.answer(sessions.store.pending(other.id)[0].id, False, owner="ann", by="desk")
        async for _ in sessions.follow(other.id, "ann"):
            pass

    tools = (tool_from_function(pay, effect="irreversible"),)
    within_sessions(Agent("a", clerk(Desk()).model, pattern, {}, tools), tmp_path, use)
