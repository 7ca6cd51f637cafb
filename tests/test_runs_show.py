"""A trace on the terminal: all of it is there, each message once, and nothing a model wrote can drive the terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.message import Message, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.show.trace_tree import plain_lines, show, trace_lines
from firsthand.trace import Call, Event, Failure, Node, Score, Trace

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\r\x08\x9b31m\u202eevil\u202c\U000e0041\x00 [red]not[/red] [link=http://x]y[/link] :smile:"
)


def make_trace(**changes: Any) -> Trace:
    """A question, a tool call and its result, then two branches."""
    nodes = (
        Node(None, system("Think.")),
        Node(0, user("What is 2 + 2?")),
        Node(1, assistant("Let me see.", ToolCall("1", "add", {"a": 2, "b": 2}))),
        Node(2, Message("tool", (ToolResult("1", "add", "4"),))),
        Node(3, assistant("It is 4.")),
        Node(3, assistant("It is five.")),
    )
    calls = (
        Call(":0", "generate", 1, 0.0, 0.5, "r0", Usage(20, 5, 7), (2,), {"finish_reasons": ["tool_calls"]}),
        Call(
            ":1",
            "tool",
            2,
            0.5,
            0.25,
            "r1",
            detail={"name": "add", "arguments": {"a": 2}, "result": "4", "is_error": False},
        ),
        Call(
            ":2", "generate", 3, 0.75, 0.5, "r2", Usage(30, 20, 8), (4, 5), {"finish_reasons": ["stop", "length"]}, True
        ),
        Call(":3", "score", 4, 1.3, 0.1, "r3", Usage(9), detail={"likelihoods": [{"text": " yes", "logprob": -0.25}]}),
        Call(
            ":4", "tool", 4, 1.4, 0.1, "r4", detail={"name": "send", "arguments": {}, "result": "Error: no"}, error="no"
        ),
    )
    trace: dict[str, Any] = {
        "id": "00ff00ff00ff00ff",
        "benchmark": "sums",
        "task_id": "t1",
        "agent": {"name": "ada"},
        "epoch": 2,
        "seed": 0,
        "started_at": "2026-11-25T00:00:00",
        "duration_s": 1.5,
        "nodes": nodes,
        "calls": calls,
        "events": (Event("retry", 0.3, {"attempt": 1}),),
        "answer": "4",
        "scores": (Score("correct", 1.0),),
    }
    return Trace(**{**trace, **changes})


def shown(trace: Trace, *, full: bool = False) -> str:
    file = io.StringIO()
    show(trace, full=full, file=file)
    return file.getvalue()


def shown_on_a_terminal(trace: Trace) -> str:
    """What reaches a real terminal."""
    parent, child = pty.openpty()
    received: list[bytes] = []

    def receive() -> None:
        try:
            while piece := os.read(parent, 1 << 16):
                received.append(piece)
        except OSError:  # how Linux says that the terminal was closed
            pass

    reader = threading.Thread(target=receive)
    reader.start()
    with os.fdopen(child, "w", encoding="utf-8") as terminal:
        show(trace, file=terminal)
    reader.join(10)
    os.close(parent)
    return b"".join(received).decode()


def test_everything_that_happened_is_in_the_tree() -> None:
    text = shown(make_trace())
    for expected in (
        "sums / t1 / ada / epoch 2",
        "59 tokens in (25 cached), 15 out",
        "assistant  [tool_calls, 20 tokens in (5 cached), 7 out, 0.50 s]",
        '→ add({"a": 2, "b": 2})',
        "← add: 4",
        "branch 1 of 2",
        "[stop, 30 tokens in (20 cached), 8 out, 0.50 s, for 2 samples, replayed]",
        "[length, replayed]",
        '-0.250  " yes"',
        "· tool send({})",
        "Error: no",
        "answer: 4",
        "stopped: done",
        "score correct: 1",
        "retry",
    ):
        assert expected in text, expected


def test_a_shared_prefix_is_printed_once_and_branches_are_deeper() -> None:
    lines = shown(make_trace()).splitlines()
    assert sum("What is 2 + 2?" in line for line in lines) == 1
    question = next(line for line in lines if "What is 2 + 2?" in line)
    for branch in ("It is 4.", "It is five."):
        (line,) = [line for line in lines if branch in line]
        assert len(line) - len(line.lstrip()) > len(question) - len(question.lstrip())


def test_errors_and_limits_are_shown() -> None:
    failure = Failure("ModelError", "no answer", "Traceback ...")
    text = shown(make_trace(answer=None, stop_reason="error", error=failure, scores=()))
    assert "stopped: error" in text and "ModelError: no answer" in text and "Traceback ..." in text
    failed = make_trace(scores=(Score("correct", 0.0, failure="KeyError: 'x'"),))
    assert "the scorer failed: KeyError" in shown(failed)


def test_long_texts_are_cut_unless_full() -> None:
    long = make_trace(
        nodes=(Node(None, user("word " * 5000 + "end")), Node(0, assistant("\n".join(map(str, range(999))))))
    )
    assert len(shown(long)) < 6000 and "more characters; --full shows them" in shown(long)
    lines = [line.strip() for line in shown(long, full=True).splitlines()]
    assert "998" in lines and any(line.endswith("word end") for line in lines)


def hostile_trace() -> Trace:
    return make_trace(
        benchmark=HOSTILE,
        agent={"name": HOSTILE},
        answer=HOSTILE,
        nodes=(
            Node(None, Message("assistant", (Text(HOSTILE), ToolCall("1", HOSTILE, {HOSTILE: HOSTILE}, HOSTILE)))),
            Node(0, Message("tool", (ToolResult("1", HOSTILE, HOSTILE, True),))),
        ),
        events=(Event(HOSTILE, 0.0, {HOSTILE: HOSTILE}),),
        scores=(Score(HOSTILE, 0.5, failure=HOSTILE),),
        error=Failure(HOSTILE, HOSTILE, HOSTILE),
        stop_reason=HOSTILE,
        final_state={HOSTILE: HOSTILE},
    )


@pytest.mark.parametrize("full", [False, True])
def test_no_control_character_of_a_model_reaches_the_output(full: bool) -> None:
    text = shown(hostile_trace(), full=full)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[2J" in text and "\\u202e" in text


def test_a_terminal_gets_colours_of_ours_alone_and_no_markup_is_read() -> None:
    output = shown_on_a_terminal(hostile_trace())
    escapes = re.findall(r"\x1b[^m]{0,12}.", output)
    assert escapes and all(re.fullmatch(r"\x1b\[[0-9;]*m", escape) for escape in escapes)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202e]", output)
    flat = re.sub(r"\x1b\[[0-9;]*m|\s+", "", output)
    assert "[red]not[/red]" in flat and "[link=http://x]y[/link]" in flat and ":smile:" in flat


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=()), max_size=200), full=st.booleans())
def test_any_text_is_shown_safely(text: str, full: bool) -> None:
    trace = make_trace(nodes=(Node(None, user(text)),), calls=(), answer=text)
    output = "\n".join(plain_lines(trace_lines(trace, full=full)))
    assert all(char.isprintable() or char in "\n\t" for char in output)


def test_an_output_without_unicode_gets_escapes(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        show(make_trace(answer="é ✓"), file=file)
    assert "answer: \\xe9 \\u2713" in (tmp_path / "out").read_text()


@pytest.mark.slow
def test_a_long_conversation_and_a_circle_end_in_good_time() -> None:
    nodes = tuple(Node(i - 1 if i else None, user(str(i))) for i in range(20_000))
    circle = (Node(1, user("a")), Node(0, user("b")), Node(2, user("c")), Node(-5, user("d")))
    with at_most_cpu_s(5):
        assert "19999" in shown(make_trace(nodes=nodes, calls=()))
        assert all(f"\n{'  ' * 2}{each}" in shown(make_trace(nodes=circle, calls=())) for each in "acd")
