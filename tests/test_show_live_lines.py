"""An attempt under way, step by step: the printed line of each, the calls in flight, and what is left of the budget."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs.feed import Ended, FeedStep, Started
from firsthand.show.chat_screen import Screen
from firsthand.show.feed_lines import FeedLines
from firsthand.show.live_tree import Progress, Watch, watching, window
from firsthand.show.trace_tree import StyledText
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def without_speed(line: str) -> str:
    return re.sub(r"[\d.]+ tokens/s, [\d.]+ s", "SPEED", line)


def test_each_step_has_its_line_as_deep_as_the_tree_is_there() -> None:
    progress = Progress("t", Limits(tokens=100))
    lines = []

    def tell(step: Any) -> None:
        progress.tell(step)
        lines.append(progress.line(step))

    tell(Added(0, Node(None, user("one\ntwo"))))
    tell(Added(1, Node(0, assistant("a", ToolCall("1", "add", {"x": 1})))))
    tell(Added(2, Node(0, assistant("b"))))
    tell(Added(3, Node(2, Message("tool", (ToolResult("1", "add", "no", True),)))))
    tell(Added(4, Node(None, user("again"))))
    tell(Began("0:1", "tool", 2, {"name": "add", "arguments": {"x": 1}}))
    tell(Call("0:1", "tool", 2, 0.0, 1.0, "", detail={"name": "add", "result": 5}))
    tell(Began("0:2", "generate", 3, {"n": 2}))
    tell(Piece("0:2", "hel"))
    tell(Piece("0:2", "lo"))
    assert progress.now() == ["▸ generate 2 answers after #3: hello"]
    reasons = {"finish_reasons": ["stop", "length"]}
    tell(Call("0:2", "generate", 3, 0.0, 1.25, "", Usage(30, 4, 9, 0.125), (), reasons))
    tell(Call("0:3", "score", None, 0.0, 1.0, "", Usage(20), replayed=True))
    tell(Call("0:4", "generate", 0, 0.0, 1.0, "", error="busy"))
    tell(Event("vote", 0.0, {"votes": {"5": 2, "6": 1}}))
    tell(Event("branch", 0.0, {"name": "x", "at": 0, "status": "kept"}))
    tell(Event("branch", 0.0, {"name": "y"}))
    tell(Event("retry", 0.0, {"attempt": 1}))
    assert [line if line is None else without_speed(line) for line in lines] == [
        "#0 user one two",
        '#1 assistant a → add({"x": 1})',
        "  #2 assistant (after #0) b",
        "  #3 tool (error) no",
        "  #4 user again",
        '    → add({"x": 1})',
        "    ← add: 5",
        None,
        None,
        None,
        "    · stop, length, 30 tokens in (4 cached), 9 out, 1.25 s; 2 calls, 39 tokens (4 cached), SPEED, "
        "61 of 100 tokens left",
        "  · score, 20 tokens in, 0 out, replayed; 3 calls, 59 tokens (4 cached), SPEED, 41 of 100 tokens left",
        "  · generate failed: busy; 4 calls, 59 tokens (4 cached), SPEED, 41 of 100 tokens left",
        "  vote 5: 2, 6: 1",
        "  branch ● x kept (#0)",
        "  branch · y",
        '  retry {"attempt": 1}',
    ]
    assert progress.now() == [] and progress.streamed == {} and len(progress.calls) == 4
    trace = progress.trace()
    assert (len(trace.nodes), len(trace.calls), len(trace.events)) == (5, 4, 4)
    assert [progress.depth(node) for node in (None, 0, 1, 2, 3, 4)] == [0, 0, 0, 1, 1, 1]


def test_the_status_counts_streamed_pieces_and_no_replayed_tokens() -> None:
    progress = Progress("t", Limits(calls=2, seconds=60, cost_usd=0.5, depth=3))
    progress._began -= 10  # ten seconds ago
    progress.tell(Call("0:1", "generate", None, 0.0, 1.0, "", Usage(5, 0, 70, 0.125)))
    progress.tell(Call("0:2", "generate", None, 0.0, 1.0, "", Usage(5, 0, 500), replayed=True))
    progress.tell(Began("0:3", "generate", None))
    for _ in range(30):
        progress.tell(Piece("0:3", "x"))
    left = ", 0 of 2 calls left, 50 of 60 seconds left, 0.375 of 0.5 cost_usd left"
    assert progress.status() == "2 calls, 580 tokens, 10.0 tokens/s, 10.0 s" + left
    progress.tell(Began("0:3", "generate", None))
    assert progress.status() == "2 calls, 580 tokens, 7.0 tokens/s, 10.0 s" + left, (
        "begun again: what was streamed is void"
    )
    assert progress.now() == ["▸ generate:"]


def test_a_call_in_flight_shows_the_end_of_its_text() -> None:
    progress = Progress("t", Limits())
    progress.tell(Began("0:1", "generate", 7))
    progress.tell(Piece("0:1", "a" * 500 + "\n" + "b" * 100 + " " + "c" * 100))
    assert progress.now() == ["▸ generate after #7: " + "b" * 59 + " " + "c" * 100]
    progress.tell(Began("0:2", "tool", 7, {"name": "add", "arguments": [1]}))
    assert progress.now()[1] == "▸ add([1])"


def test_a_line_is_cut_at_160_characters() -> None:
    progress = Progress("t", Limits())
    for length in (152, 153):
        progress.tell(step := Added(0, Node(None, user("a" * length))))
        assert progress.line(step) == "#0 user " + "a" * 152 + ("…" if length > 152 else "")


def test_a_window_ends_a_little_below_the_newest_message() -> None:
    lines = [StyledText(0, "user", str(place), 100 if place == 40 else -1) for place in range(100)]
    shown = [int(line.text) for line in window(lines, 12)]
    assert shown == list(range(32, 44)), "three lines, a quarter of the room, are below line 40"
    assert window(lines[:12], 12) == lines[:12]
    early = [StyledText(0, "user", str(place), 100 if place == 2 else -1) for place in range(20)]
    assert [int(line.text) for line in window(early, 8)] == list(range(8))
    late = [StyledText(0, "user", str(place), place) for place in range(20)]
    assert [int(line.text) for line in window(late, 8)] == list(range(12, 20))


def place(name: str, epoch: int) -> Place:
    agent = Agent(name, Scripted(["x"]), direct, limits=Limits(calls=5))
    return Place(agent, Benchmark("sums", lambda seed: [], ()), Task("t1", "?"), epoch)


def test_a_watch_prints_titles_steps_and_ends_of_one_attempt_after_the_other() -> None:
    file = io.StringIO()
    with watching(file) as watch:
        assert not watch.in_place and watch.live is None
        first, second = watch.listener(place("ada", 0)), watch.listener(place("bo", 3))
        first(Added(0, Node(None, user("hi"))))
        first(Call("0:1", "tool", 0, 0.0, 1.0, "", Usage(7, 0, 2), detail={"name": "f", "result": "r"}))
        scores = (Score("exact", 0.123456), Score("style", 1.0))
        watch.ended(Trace("x", "sums", "t1", {"name": "ada"}, 0, 0, "", 1.0, answer="a" * 100, scores=scores))
        second(Added(0, Node(None, user("ho"))))
        error = Failure("ModelError", "gone\naway")
        watch.ended(Trace("y", "sums", "t1", {"name": "bo"}, 3, 0, "", 1.0, stop_reason="error", error=error))
        watch.ended(Trace("z", "sums", "t1", {"name": "bo"}, 3, 0, "", 1.0, stop_reason="calls", answer="b"))
    assert without_speed(file.getvalue()).split("\n") == [
        "sums / t1 / ada / epoch 0",
        "#0 user hi",
        "  ← f: r",
        f"= '{'a' * 79} (done), exact 0.1235, style 1; 1 call, 9 tokens, SPEED, 4 of 5 calls left",
        "sums / t1 / bo / epoch 3",
        "#0 user ho",
        "= None (error), ModelError: gone away; 0 calls, 0 tokens, SPEED, 5 of 5 calls left",
        "= 'b' (calls)",
        "",
    ]
    assert Watch(file, in_place=True).in_place is False


class Terminal(io.StringIO):
    """A terminal of 10 lines of 100 characters."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_tree_is_drawn_in_place_and_what_came_out_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LINES", "10"), ("COLUMNS", "100"), ("TERM", "xterm"), ("NO_COLOR", "")):
        monkeypatch.setenv(name, value)
    file = Terminal()

    def drawn(watch: Watch) -> list[tuple[str, str]]:
        rows = watch.live.get_renderable().renderables
        assert all(row.no_wrap and row.overflow == "ellipsis" for row in rows)
        return [(without_speed(row.plain), str(row.style)) for row in rows]

    with watching(file) as watch:
        assert watch.in_place and watch.live is None
        listen = watch.listener(place("one\ntwo", 0))
        listen(Added(0, Node(None, user("m0"))))
        first = watch.live
        assert first.is_started and first.transient and "#0 user" not in file.getvalue().split("\x1b")[0]
        for number in range(1, 9):
            listen(Added(number, Node(number - 1, user(f"m{number}"))))
        title, *rows, status = drawn(watch)
        assert title == ("sums / t1 / one two / epoch 0", "bold")
        assert status == ("0 calls, 0 tokens, SPEED, 5 of 5 calls left", "dim") and [text for text, _ in rows] == [
            f"#{number} user  m{number}" for number in range(2, 9)
        ]  # fmt: skip
        for number in range(10):
            listen(Began(f"c{number}", "generate", 8, {}))
        rows = drawn(watch)
        assert [style for _, style in rows].count("green") == 8 and len(rows) == 13
        assert [text for text, _ in rows[1:4]] == ["#6 user  m6", "#7 user  m7", "#8 user  m8"]
        watch.listener(place("next", 1))(Added(0, Node(None, user("other"))))
        assert watch.live is not first and not first.is_started and "epoch 1" in drawn(watch)[0][0]
        trace = Trace(
            "id", "sums", "next", {"name": "a"}, 1, 0, "", 1.0, answer="42", nodes=(Node(None, user("whole")),)
        )
        watch.ended(trace)
        left = file.getvalue()
        assert watch.live is None and watch.progress is None and "whole" in left and left.rstrip().count("42") >= 1
        watch.listener(place("third", 2))(Added(0, Node(None, user("x"))))
        last = watch.live
        assert last.is_started
    assert watch.live is None and not last.is_started
    with watching(Terminal(), in_place=False) as watch:
        assert not watch.in_place
        watch.listener(place("t", 0))(Added(0, Node(None, user("é"))))
        assert watch.live is None and watch.file.getvalue().splitlines()[1] == "#0 user é"  # type: ignore[attr-defined]


def test_no_line_of_a_step_is_printed_into_the_tree_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")  # rich draws nothing there before the end
    file = Terminal()
    with watching(file) as watch:
        listen = watch.listener(place("ada", 0))
        for step in (Added(0, Node(None, user("hi"))), Began("0:1", "tool", 0, {"name": "f", "arguments": {}}),
                     Call("0:1", "tool", 0, 0.0, 1.0, "", detail={"name": "f", "result": "r"}),
                     Event("retry", 0.0, {"attempt": 1})):  # fmt: skip
            listen(step)
        assert watch.live is not None and "".join(file.getvalue().split()) == ""
        watch.ended(Trace("x", "sums", "t1", {"name": "ada"}, 0, 0, "", 1.0, answer="the answer"))
        assert "the answer" in file.getvalue() and "= 'the answer'" not in file.getvalue()


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_the_terminal_is_left_as_it_was_after_an_error(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    with pytest.raises(type(error)), watching(file) as watch:
        watch.listener(place("ada", 0))(Added(0, Node(None, user("hi"))))
        live = watch.live
        assert live.is_started and "\x1b[?25l" in file.getvalue(), "the cursor is hidden"
        raise error
    assert watch.live is None and not live.is_started
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize("lines, calls, tree", [(20, 10, 9), (20, 7, 10), (20, 0, 17), (9, 4, 3)])
def test_the_tree_has_the_lines_that_the_title_the_status_and_at_most_eight_calls_leave(
    monkeypatch: pytest.MonkeyPatch, lines: int, calls: int, tree: int
) -> None:
    for name, value in (("LINES", str(lines)), ("COLUMNS", "100"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with watching(Terminal()) as watch:
        listen = watch.listener(place("t", 0))
        for number in range(30):
            listen(Added(number, Node(number - 1 if number else None, user(f"m{number}"))))
        for number in range(calls):
            listen(Began(f"c{number}", "score", number, {}))
        _, *rows, _ = watch.live.get_renderable().renderables
        drawn = [str(row).rstrip() for row in rows]
    assert drawn[tree:] == [f"▸ score after #{number}:" for number in range(min(calls, 8))]
    assert drawn[:tree] == [f"#{number} user  m{number}" for number in range(30 - tree, 30)]


def test_a_call_that_begins_again_has_nothing_streamed_and_one_speed() -> None:
    progress = Progress("t", Limits())
    for step in (Began("c", "generate", None, {"n": 1}), Piece("c", "half an"), Began("c", "generate", None, {"n": 1})):
        progress.tell(step)
    assert progress.now() == ["▸ generate:"] and progress.streamed == {"c": []}
    progress.tell(Piece("c", "whole"))
    assert progress.now() == ["▸ generate: whole"]
    progress._began -= 10
    progress.tell(Call("d", "generate", None, 0.0, 1.0, "", Usage(0, 0, 300), replayed=True))
    progress.tell(Call("e", "generate", None, 0.0, 1.0, "", Usage(0, 0, 49)))
    assert "349 tokens, 5.0 tokens/s" in progress.status(), "the piece under way and the answer that was not replayed"


def test_a_reader_that_has_left_does_not_stop_an_attempt(capsys: pytest.CaptureFixture[str]) -> None:
    class Closed(io.StringIO):
        encoding = "ascii"  # type: ignore[assignment]

        def write(self, text: str) -> int:
            raise BrokenPipeError

    Watch(Closed()).listener(place("t", 0))(Added(0, Node(None, user("é"))))
    Watch().listener(place("t", 0))(Added(0, Node(None, user("to the output"))))
    assert capsys.readouterr().out.endswith("#0 user to the output\n")


def test_a_feed_line_begins_with_eight_characters_of_its_place() -> None:
    lines = FeedLines()

    def of(step: Any, where: str = "0123456789") -> list[str]:
        return [without_speed(line) for line in lines.of(FeedStep(1, where, 0.0, step))]

    started = Started("sums", "t\n1", "ada", 2)
    assert of(Added(0, Node(None, user("early")))) == [], "an attempt whose beginning was not told"
    assert of(started) == ["01234567  sums / t 1 / ada / epoch 2"]
    assert of(started, "98") == ["98  sums / t 1 / ada / epoch 2"]
    assert of(Added(0, Node(None, user("hi")))) == ["01234567  #0 user hi"]
    assert of(Began("0:1", "generate", 0)) == []
    assert of(Call("0:1", "generate", 0, 0.0, 2.0, "", Usage(3, 0, 1))) == [
        "01234567    · generate, 3 tokens in, 1 out, 2.00 s; 1 call, 4 tokens, SPEED"
    ]
    assert of(Event("protected", 0.0, {"why": "asked"})) == ["01234567  protected: its steps are not shown"]
    assert of(Added(1, Node(0, assistant("secret")))) == [] and of(Event("retry", 0.0)) == []
    assert of(Added(0, Node(None, user("ho"))), "98") == ["98  #0 user ho"], "the other attempt is not silent"
    assert of(started) and of(Added(0, Node(None, user("hi")))) == ["01234567  #0 user hi"], "it began again"
    assert of(started) == ["01234567  sums / t 1 / ada / epoch 2"], "and again, before it ended"
    assert of(Added(0, Node(None, user("he")))) == ["01234567  #0 user he"]
    assert of(Call("0:1", "generate", 0, 0.0, 2.0, "", Usage(5, 0, 2))) == [
        "01234567    · generate, 5 tokens in, 2 out, 2.00 s; 1 call, 7 tokens, SPEED"
    ]
    ended = Ended("id", "sums", "t1", "ada", 2, 0.123456, "tokens", None)
    assert of(ended) == ["01234567  = 0.1235 (tokens) sums / t1 / ada / epoch 2"]
    assert of(Added(1, Node(0, assistant("late")))) == []
    failed = Ended("id", "sums", "t1", "ada", 0, None, "error", "ModelError: gone")
    assert of(failed) == ["01234567  = (ModelError: gone) sums / t1 / ada / epoch 0"]
    assert of(Ended("id", "sums", "t1", "ada", 0, 0.0, "done", None)) == [
        "01234567  = 0 (done) sums / t1 / ada / epoch 0"
    ]


def test_an_empty_piece_leaves_the_line_of_an_answer_open(capsys: Any) -> None:
    screen = Screen()
    for text in ("", "x", ""):
        screen.listen(Piece("0:1", text))
    screen.say("y")
    screen.end_line()
    assert capsys.readouterr() == ("x\ny\n", "")


def test_in_a_pipe_answers_are_on_the_output_and_tools_and_retries_on_the_errors(capsys: Any) -> None:
    screen = Screen()
    assert not screen.is_terminal
    screen.listen(Piece("0:1", "Let me "))
    screen.listen(Piece("0:1", "see\x1b"))
    screen.listen(Call("0:1", "generate", None, 0.0, 1.0, ""))
    first = screen.writing_s
    assert first > 0
    for again in ("0:9", "0:1"):
        screen.listen(Call(again, "generate", None, 0.0, 1.0, ""))
    assert screen.writing_s == first, "a call that streamed nothing was written in no time"
    screen.listen(Began("0:2", "tool", None, {"name": "add", "arguments": {"é": 1}}))
    screen.listen(Call("0:2", "tool", None, 0.0, 1.0, "", detail={"result": "two\nlines" + "x" * 600}))
    screen.listen(Piece("0:3", "half"))
    screen.listen(Event("retry", 0.0, {"error": "busy"}))
    screen.listen(Event("limit", 0.0, {"error": "not shown"}))
    screen.listen(Began("0:4", "generate", None, {"name": "not shown"}))
    screen.fact("only a person reads this")
    screen.say("[red] said\x07")
    screen.complain(ValueError("no\nsuch"))
    screen.end_line()
    out, err = capsys.readouterr()
    assert out == "Let me see\\x1b\nhalf\n[red] said\\x07\n"
    assert err.split("\n") == [
        '→ add({"é": 1})',
        "← two lines" + "x" * 489,
        "retrying: busy",
        "firsthand: no such",
        "",
    ]
