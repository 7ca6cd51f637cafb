"""The record of an attempt: its critical path, and what of it is shared when its task is protected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from firsthand.loop.critical_path import critical_calls, critical_seconds
from firsthand.loop.protection import shareable
from firsthand.message import Message, Text
from firsthand.model import ToolSpec
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def trace(*calls: tuple[str, float], **more: Any) -> Trace:
    made = tuple(Call(id, "generate", None, 0.0, seconds, "") for id, seconds in calls)
    return Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, calls=made, **more)


def test_the_critical_path_is_the_longest_child_of_each_group() -> None:
    tree = trace(
        (":0", 1.0), ("0.0:0", 2.0), ("0.0:1", 3.0), ("0.1:0", 4.0), (":1", 5.0), ("1.0:0", 6.0), ("0.0/0.0:0", 7.0),
        ("0.0/0.1:0", 1.0), ("0.0/0.1:1", 1.5), ("0.0/1.0:0", 0.25),
    )  # fmt: skip
    assert critical_seconds(tree) == (1 + 5) + (2 + 3 + 7 + 0.25) + 6 and critical_calls(tree) == 2 + (2 + 2 + 1) + 1
    assert critical_seconds(trace((":0", 1.0), (":1", 2.5))) == 3.5 and critical_calls(trace()) == 0
    assert critical_seconds(trace(("0.1/0.0/0.2:0", 4.0), ("0.0:0", 3.0))) == 4.0


def test_a_protected_attempt_is_shared_without_its_texts_and_token_ids() -> None:
    long, short = "x" * 25, "y" * 24
    event = Event("protected", 0.0, {"why": long})
    plain = trace(
        nodes=(Node(None, Message("user", (Text("question " + long),))), Node(0, Message("assistant", (Text(short),)))),
        events=(event, Event("note", 1.0, {"text": long, "n": 3, "list": [short, (long,)], "trace": 1})),
        scores=(Score("s", 0.5, {"why": long, "ok": True}, failure=long), Score("t", 1.0, failure=short)),
        answer="12345678",
        final_state={"a": {"b": long}},
        error=Failure("E", f"it said {long}!", "traceback"),
        tools=(ToolSpec("t", long, {"p": long}),),
    )
    plain = replace(plain, calls=(Call(":0", "tool", 0, 0.0, 1.0, "key", detail={"result": long}, error=long),))
    gone = "[withheld: 25 characters]"
    shared = shareable(plain)
    assert shared == replace(
        plain,
        nodes=(
            Node(None, Message("user", (Text("[withheld: 34 characters]"),))),
            Node(0, Message("assistant", (Text("[withheld: 24 characters]"),))),
        ),
        events=(event, Event("note", 1.0, {"text": gone, "n": 3, "list": [gone.replace("25", "24"), [gone]]})),
        scores=(Score("s", 0.5, {"why": gone, "ok": True}, failure=gone), Score("t", 1.0, failure=short)),
        final_state={"a": {"b": gone}},
        error=Failure("E", "[withheld: 34 characters]", None),
        tools=(ToolSpec("t", gone, {"p": gone}),),
        calls=(Call(":0", "tool", 0, 0.0, 1.0, "key", detail={"result": gone}, error=gone),),
    )
    assert shareable(replace(plain, answer="123456789")).answer == "[withheld: 9 characters]"
    assert shareable(replace(plain, answer=None)).answer is None
    told = replace(plain, error=Failure("E", "something else entirely, and long", "traceback"))
    assert shareable(told).error == told.error and shareable(replace(plain, events=())) == replace(plain, events=())
