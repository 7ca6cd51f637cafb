"""Edges of what is printed of an attempt, under way and when it has ended: lines, outlines and totals."""

from __future__ import annotations

import io
import sys
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
from firsthand.show.feed_lines import FeedLines
from firsthand.show.live_totals import EVERY_S, LiveTotals
from firsthand.show.live_tree import Progress, Watch, _ended, _message, _noted, _request, watching, window
from firsthand.show.trace_shape import SHOWN_BRANCHES, SHOWN_CHAIN, Mark, Outline, marks
from firsthand.show.trace_tree import (
    StyledText,
    _print_rich,
    _score_line,
    _Writer,
    brief_lines,
    rich_text,
    show,
    trace_lines,
)
from firsthand.stats.intervals import mean_interval
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Origin, Score, Trace
from made_traces import trace


def attempt(*nodes: Node, **more: Any) -> Trace:
    return Trace("id", "b", "t", {"name": "a"}, 1, 0, "now", 2.5, **{"nodes": nodes, **more})


def written(made: Trace, full: bool = False, brief: bool = False) -> _Writer:
    return _Writer(made, full, brief)


def texts(writer: _Writer) -> list[tuple[int, str, str]]:
    return [(line.depth, line.style, line.text) for line in writer.lines]


# -- a trace --


def test_the_head_of_a_trace_with_and_without_a_parent_and_a_price() -> None:
    calls = (Call(":0", "generate", None, 0.0, 1.0, "", Usage(7, 2, 3, 0.00125)),)
    writer = written(attempt(calls=calls, origin=Origin("abc", 4)))
    writer.head()
    assert texts(writer) == [
        (0, "title", "b / t / a / epoch 1"), (0, "note", "forked from abc at step 4"),
        (0, "note", "id  now  2.50 s, 1 call, 7 tokens in (2 cached), 3 out, 0.0013 USD"),
    ]  # fmt: skip
    writer = written(attempt())
    writer.head()
    assert texts(writer)[1:] == [(0, "note", "id  now  2.50 s, 0 calls, 0 tokens in, 0 out")]


def test_the_end_of_a_trace_in_short_and_in_full() -> None:
    made = attempt(
        answer="", stop_reason="done", scores=(Score("s", 0.99999, {"why": 1}), Score("z", 2.0, node=3)),
        error=Failure("Gone", "x" * 1300, "begin" + "y" * 598 + "\n\n"), final_state={"k": "v"},
        events=(Event("branch", 1.0, {"name": "n"}), Event("branch", 1.5, {"name": "n", "status": "pruned"}),
                Event("note", 123.456, {"a": [1]})),
    )  # fmt: skip
    writer = written(made)
    writer.tail("")
    assert texts(writer) == [
        (0, "title", "outcome"), (1, "body", "answer: "), (1, "note", "stopped: done"), (1, "body", "score s: 1"),
        (1, "good", "score z at #3: 2"),
        (1, "error", f"Gone: {'x' * 1200} … (100 more characters; --full shows them)"),
        (2, "note", "in" + "y" * 598), (1, "note", "branch ✗ n pruned"), (1, "note", '  123.46 s  note  {"a": [1]}'),
    ]  # fmt: skip
    writer = written(made, full=True)
    writer.tail("e" * 1300)
    assert texts(writer) == [
        (0, "title", "outcome"), (1, "body", "answer: "), (1, "body", f"expected: {'e' * 1300}"),
        (1, "note", "stopped: done"), (1, "body", "score s: 1"), (2, "note", '{"why": 1}'),
        (1, "good", "score z at #3: 2"), (1, "error", f"Gone: {'x' * 1300}"),
        (2, "note", "begin" + "y" * 598 + "\n\n"), (1, "note", 'final state: {"k": "v"}'),
        (1, "note", "branch ✗ n pruned"), (1, "note", '    1.00 s  branch  {"name": "n"}'),
        (1, "note", '    1.50 s  branch  {"name": "n", "status": "pruned"}'),
        (1, "note", '  123.46 s  note  {"a": [1]}'),
    ]  # fmt: skip
    writer = written(attempt(answer=None, stop_reason="calls"))
    writer.tail("42")
    assert texts(writer)[1:] == [(1, "body", "expected: 42"), (1, "error", "stopped: calls")]
    assert _score_line(Score("s", 1.0, node=0)) == ("good", "score s at #0: 1")
    assert _score_line(Score("s", 1.0, failure="no")) == ("error", "score s: the scorer failed: no")


def test_what_is_said_of_a_call_and_of_the_birth_of_a_message() -> None:
    made = attempt(
        Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b")),
        Node(1, Message("tool", (ToolResult("1", "add", "5"),))),
        calls=(Call(":0", "generate", 0, 0.0, 0.256, "", Usage(9, 0, 4), (1, 2), {"finish_reasons": ["stop"]}),),
    )  # fmt: skip
    writer = written(made)
    assert writer.birth(0) == "" and writer.birth(1) == "  [stop, 9 tokens in, 4 out, 0.26 s, for 2 samples]"
    assert writer.birth(2) == "  []"

    def text(kind: Any, error: str | None = None, **detail: Any) -> tuple[str, str]:
        return writer.call_text(Call(":1", kind, 1, 0.0, 1.0, "", detail=detail, error=error))

    assert text("tool", name="add", arguments={"a": 2}, result="5") == ('tool add({"a": 2})', "")
    assert text("tool", name="add", arguments={"a": 2}, result="6") == ('tool add({"a": 2})', "6")
    assert text("tool", "no", name="sub", arguments=[], result="5") == ("tool sub([])", "5")
    assert text("generate", "gone", name="x") == ("generate failed", "gone")
    memory = {"operation": "recall", "query": "q", "k": 2, "order": [1], "reply": ["x"]}
    assert text("memory", **memory) == ('recall {"query": "q", "k": 2}', '["x"]')
    assert text("guard", model="judge", answer="yes") == ("guard asked judge", "yes")
    assert text("guard", model="judge") == ("guard asked judge", "")
    one = [{"text": "é", "logprob": -1.5}]
    assert text("score", likelihoods=one) == ("score 1 continuations (log-prob, text)", '   -1.500  "é"')
    assert text("score") == ("score 0 continuations (log-prob, text)", "")

    writer.done_at[7] = [
        Call(":2", "tool", 7, 0.0, 0.125, "", detail={"name": "f", "result": "r" * 150, "prompt": "p"}, replayed=True),
        Call(":3", "score", 7, 0.0, 1.0, "", error="bad"),
    ]
    writer.calls(2, 7)
    assert texts(writer) == [
        (3, "note", "· tool f(null)  [0.12 s, replayed]"), (4, "body", "prompt: p"), (4, "body", "r" * 150),
        (3, "error", "· score failed  [1.00 s]"), (4, "error", "bad"),
    ]  # fmt: skip
    short = written(made, brief=True)
    short.done_at[7] = writer.done_at[7]
    short.calls(0, 7)
    assert texts(short) == [(1, "tool", f"· tool f(null) {'r' * 100}"), (1, "error", "· score failed bad")]


def test_a_pruned_branch_is_a_line_in_short_and_a_prompt_of_two_samples_is_shown_once() -> None:
    nodes = (
        Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b")), Node(1, user("more")),
        Node(3, Message("tool", (ToolResult("1", "add", "Error: no", True),))),
    )  # fmt: skip
    made = attempt(
        *nodes, events=(Event("branch", 0.0, {"name": "n", "at": 1, "status": "pruned"}),),
        calls=(
            Call(":0", "generate", 0, 0.0, 1.0, "", Usage(5, 0, 2), (1, 2), {"prompt": "raw"}),
            Call(":1", "tool", 3, 0.0, 0.5, "", detail={"name": "add", "arguments": {}, "result": "Error: no"}, error="no"),
        ),
    )  # fmt: skip
    fold = "#1 assistant  a  (2 more messages below)"
    short = [(line.depth, line.style, line.text) for line in trace_lines(made)]
    assert short[2:8] == [
        (0, "user", "#0 user"), (1, "body", "q"), (0, "note", "├ branch 1 of 2  ✗ n pruned"), (1, "note", fold),
        (0, "title", "├ branch 2 of 2"), (1, "assistant", "#2 assistant  []"),
    ]  # fmt: skip
    assert [line.text for line in brief_lines(made)] == [
        "#0 user  q", "├ branch 1 of 2  ✗ n pruned", fold, "├ branch 2 of 2", "#2 assistant  b",
    ]  # fmt: skip
    noted = [Event("branch", 0.0, {"name": name, "at": at, "status": status, "score": 0.5})
             for name, at, status in (("n", 1, "kept"), ("m", 1, "open"), ("l", 0, "failed"))]  # fmt: skip
    only = trace_lines(attempt(Node(None, user("q")), Node(0, assistant("a")), events=tuple(noted)))
    assert [(line.depth, line.style, line.text) for line in only[2:8]] == [
        (0, "user", "#0 user"), (1, "error", "! l failed 0.5"), (1, "body", "q"), (0, "assistant", "#1 assistant"),
        (1, "good", "● n kept 0.5"), (1, "note", "○ m open 0.5"),
    ]  # fmt: skip
    whole = [line.text for line in trace_lines(made, full=True)]
    assert whole[4:13] == [
        "├ branch 1 of 2  ✗ n pruned", "prompt: raw", "#1 assistant  [5 tokens in, 2 out, 1.00 s, for 2 samples]", "a",
        "#3 user", "more", "· tool add({})  [0.50 s]", "#4 tool", "← add: Error: no",
    ] and whole.count("prompt: raw") == 1  # fmt: skip


def test_texts_are_cut_by_characters_and_lines_and_messages_to_one_line() -> None:
    writer = written(attempt(Node(None, assistant("w " * 60, ToolCall("1", "f", {"x": 1})))))
    assert writer.short("a" * 1200) == "a" * 1200
    assert writer.short("a" * 1203) == "a" * 1200 + " … (3 more characters; --full shows them)"
    assert writer.short("\n".join("x" * 16)) == "\n".join("x" * 16)
    assert writer.short("\n".join("x" * 17)) == "\n".join("x" * 16) + " … (2 more characters; --full shows them)"
    assert writer.gist(0) == "assistant  " + ("w " * 60)[:100] + "…"
    short = written(attempt(Node(None, assistant("hi\nyou", ToolCall("1", "f", {"x": 1})))))
    assert short.gist(0) == 'assistant  hi you → f({"x": 1})'
    full = written(attempt(), full=True)
    assert full.short("a" * 1203) == "a" * 1203


def test_votes_are_drawn_to_scale_and_branches_only_where_no_tree_shows_them() -> None:
    writer = written(attempt())
    writer.event(Event("votes", 2.0, {"counts": {"a\nb": 0.25, "c": 0.5, "d": 0.01, "e": 0.0}}))
    writer.event(Event("branch", 3.0, {"name": "x"}))
    assert texts(writer) == [
        (1, "note", "    2.00 s  votes"), (2, "body", "   0.5  ████████████  c"), (2, "body", "  0.25  ██████  a b"),
        (2, "body", "  0.01  █  d"), (2, "body", "     0    e"),
    ]  # fmt: skip
    many = Event("vote", 0.0, {"votes": {f"a{n}": n for n in range(1, 19)}})
    writer.lines.clear()
    writer.event(many)
    assert len(writer.lines) == 17 and writer.lines[1].text.endswith("█" * 24 + "  a18")
    whole = written(attempt(), full=True)
    whole.event(many)
    assert len(whole.lines) == 19


def test_colours_are_those_of_the_styles_and_indents_end_at_24(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [StyledText(1, "good", "[bold]x"), StyledText(30, "body", "deep"), StyledText(0, "error", "a\nb")]
    out = io.StringIO()
    monkeypatch.setenv("COLUMNS", "80")
    _print_rich(lines, out)
    assert [line.rstrip() for line in out.getvalue().split("\n")] == ["  [bold]x", " " * 48 + "deep", "a", "b", ""]
    assert [(rich_text(line).plain, str(rich_text(line).style)) for line in lines] == [
        ("  [bold]x", "bold green"), (" " * 48 + "deep", ""), ("a\nb", "bold red"),
    ]  # fmt: skip
    secret = attempt(
        Node(None, user("the secret words are here")),
        answer="the secret words",
        events=(Event("protected", 0.0, {"why": "w"}),),
    )
    for reveal, words in ((False, 0), (True, 2)):
        out = io.StringIO()
        show(secret, file=out, reveal=reveal, expected="42")
        assert out.getvalue().count("secret words") == words and "expected: 42" in out.getvalue()


# -- the outline of a tree --


def chain(parent: int | None, start: int, count: int) -> list[Node]:
    """A node under `parent`, and the others each under the one before; the first has the index `start`."""
    return [Node(parent if n == 0 else start + n - 1, user(str(start + n))) for n in range(count)]


def test_an_outline_folds_pruned_branches_and_marks_the_way_to_them() -> None:
    nodes = [Node(None, user("0")), *chain(0, 1, 3), *chain(0, 4, 1), Node(9, user("5")), Node(-1, user("6"))]
    marked = {3: [Mark("a", "pruned")], 4: [Mark("b", "pruned")], 0: [Mark("r", "kept")], 1: [Mark("c", "pruned")]}
    found = Outline(attempt(*nodes), marked, full=False)
    assert [found.num_children(at) for at in (None, 0, 1, 3, 4)] == [3, 2, 1, 0, 0], "no parent comes later"
    assert found._size == [5, 3, 2, 1, 1, 1, 1]
    assert found.along == {3: marked[3], 2: marked[3], 4: marked[4], 0: marked[0], 1: marked[1]}
    assert found.folded == {1: "  (2 more messages below)"} and found.skips == {}
    assert found.children(0) == ({1: 1, 2: 4}, "") and found.children(1) == ({0: 2}, "")
    one = Outline(attempt(*nodes), {2: [Mark("a", "pruned")]}, full=False)
    assert one.folded == {2: "  (1 more message below)"} and one.along == {2: one._marked[2], 1: one._marked[2]}
    whole = Outline(attempt(*nodes), marked, full=True)
    assert (whole.folded, whole.room, found.room) == ({}, 7, 400)


def test_an_outline_leaves_out_middles_and_the_least_of_many_branches() -> None:
    for length, left in ((SHOWN_CHAIN, 0), (SHOWN_CHAIN + 1, 1), (SHOWN_CHAIN + 7, 7)):
        nodes = [Node(None, user("0")), Node(0, user("1")), *chain(0, 2, length)]
        skips = Outline(attempt(*nodes), {}, full=False).skips
        last, half = len(nodes) - 1, SHOWN_CHAIN // 2
        said = f"… {left} more messages; --full shows them"
        assert skips == ({} if not left else {2 + half - 1: (last - half + 1, said)})
    count = SHOWN_BRANCHES + 2
    nodes = [Node(None, user("0")), *(Node(0, user("x")) for _ in range(count)), Node(2, user("y")), Node(3, user("z"))]
    marked = {2: [Mark("a", "failed")], 5: [Mark("b", "pruned")], 7: [Mark("c", "open")]}
    found = Outline(attempt(*nodes), marked, full=False)
    shown, note = found.children(0)
    assert list(shown) == [1, 3, 4, *range(6, 15)] and shown[14] == 14, "the dead ones are left out, however large"
    assert note == "… 2 more branches (1 failed, 1 pruned) of 3 messages; --full shows them"
    assert Outline(attempt(*nodes), {}, full=False).children(0)[1] == (
        "… 2 more branches of 2 messages; --full shows them"
    )
    assert len(Outline(attempt(*nodes), marked, full=True).children(0)[0]) == count
    assert found._interest(3) == 2 and found._interest(2) == 2 - 1e12 and found._fate(1) == ""
    lines = [line.text for line in trace_lines(attempt(*nodes))]
    assert "… 2 more branches of 2 messages; --full shows them" in lines and "├ branch 14 of 14" not in lines


def test_marks_take_the_last_word_of_each_field_by_name_and_path() -> None:
    def noted(**data: Any) -> Event:
        return Event("branch", 0.0, data)

    made = attempt(Node(None, user("0")), Node(0, user("1")), events=(
        noted(name="a", at=0, status="open", score=1), noted(name="a", at=1, status=None, text="w"), noted(at=True),
        noted(name="a", path="p", at=2), noted(at=0, score="high"), noted(at=0, score=1e300), Event("vote", 0.0, {"at": 0}),
    ))  # fmt: skip
    assert marks(made) == (
        {1: [Mark("a", "open", 1.0, "w")], 0: [Mark(), Mark()]}, [Mark(), Mark("a")],
    )  # fmt: skip
    assert str(Mark("n", "kept", 0.12345, " two\n words ")) == "● n kept 0.1235: two words"
    assert str(Mark("", "", 0.0)) == "· 0" and str(Mark(text="x" * 401)) == "·: " + "x" * 400


# -- an attempt under way --


def test_steps_in_a_line_with_their_errors_and_places() -> None:
    failed = Message("tool", (ToolResult("1", "f", "no", True),))
    assert _message(3, Node(2, user("x"))) == "#3 user  x" == _message(3, Node(None, user("x")))
    assert _message(3, Node(0, failed)) == "#3 tool (after #0) (error)  no"
    assert _message(3, Node(1, assistant("", ToolCall("1", "f", {"é": 1})))) == (
        '#3 assistant (after #1)   → f({"é": 1})'
    )
    assert _request(Began("x", "tool", 4, {"name": "f", "arguments": {"a": 1}})) == 'f({"a": 1})'
    assert _request(Began("x", "generate", 4, {"n": 1})) == "generate after #4:"
    assert _request(Began("x", "generate", 0, {"n": 2})) == "generate 2 answers after #0:"
    assert _request(Began("x", "score", None)) == "score:"
    call = Call("x", "generate", 0, 0.0, 1.256, "", Usage(5, 2, 3), detail={"finish_reasons": ["stop"] * 9})
    assert _ended(call) == ", ".join(["stop"] * 8) + ", 5 tokens in (2 cached), 3 out, 1.26 s"
    assert _ended(Call("x", "score", 0, 0.0, 1.0, "", Usage(5), replayed=True)) == "score, 5 tokens in, 0 out, replayed"
    assert _ended(Call("x", "memory", 0, 0.0, 1.0, "", error="gone")) == "memory failed: gone"
    assert _noted(Event("branch", 0.0, {"name": "n", "at": 0, "status": "done"})) == "branch  ✓ n done (#0)"
    assert _noted(Event("vote", 0.0, {"votes": {"a": 0.5, "b": 3}})) == "vote  a: 0.5, b: 3"
    assert _noted(Event("limit", 0.0, {"limit": "calls"})) == 'limit  {"limit": "calls"}'


def test_progress_counts_calls_that_begin_again_and_forks_of_forks() -> None:
    progress = Progress("t", Limits())
    for number, parent in enumerate((None, 0, 0, 2, 2, 4, None)):
        progress.tell(Added(number, Node(parent, user(str(number)))))
    assert [progress.depth(n) for n in range(7)] == [0, 0, 1, 1, 2, 2, 1] and progress.depth(None) == 0
    assert progress.line(Began("x", "tool", 4, {"name": "f", "arguments": 1})) == "      → f(1)"
    assert progress.line(Call("x", "tool", 4, 0.0, 0.0, "", detail={"name": "f", "result": "r"})) == "      ← f: r"
    assert progress.line(Event("retry", 0.0, {})) == "  retry {}" and progress.line(Piece("x", "y")) is None
    assert progress.line(Began("x", "generate", 4)) is None
    progress._depths[5] = 20
    assert progress.line(Added(5, Node(4, user("5")))) == "  " * 12 + "#5 user 5"
    progress.tell(Began("g", "generate", 4))
    progress.tell(Piece("g", "lost"))
    progress.tell(Began("g", "generate", 4))
    progress.tell(Piece("g", "a\n"))
    progress.tell(Piece("g", "b"))
    assert progress.streamed == {"g": ["a\n", "b"]} and progress.now() == ["▸ generate after #4: a b"]
    progress.tell(Call("g", "generate", 4, 0.0, 0.0, ""))
    assert (progress.under_way, progress.streamed, len(progress.calls)) == ({}, {}, 1)
    made = progress.trace()
    assert (made.nodes, made.calls, made.events) == (tuple(progress.nodes), tuple(progress.calls), ())
    lines = [StyledText(0, "user", str(n), n if n in (3, 5) else -1) for n in range(12)]
    assert [line.text for line in window(lines, 4)] == ["3", "4", "5", "6"] and window(lines, 12) is lines


def test_a_watch_says_how_an_attempt_ended_and_escapes_what_its_file_cannot_hold() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"  # type: ignore[assignment]

    def place(task: str) -> Place:
        return Place(Agent("a", Scripted([]), direct), Benchmark("b", lambda seed: [], ()), Task(task, "?"), 3)

    file = Ascii()
    with watching(file, in_place=False) as watch:
        one, two = watch.listener(place("one")), watch.listener(place("two"))
        one(Added(0, Node(None, user("é"))))
        two(Added(0, Node(None, user("x"))))
        one(Added(1, Node(0, user("y"))))
        made = trace("i", value=0.00012345, answer="é" * 100, stop_reason="tokens", error=Failure("Gone", "a\nb"))
        watch.progress = None
        watch.ended(made)
        watch.ended(trace("i", answer=None, scores=()))
    assert file.getvalue().split("\n") == [
        "b / one / a / epoch 3", "#0 user \\xe9", "b / two / a / epoch 3", "#0 user x", "b / one / a / epoch 3",
        "#1 user y", "= '" + "\\xe9" * 79 + " (tokens), s 0.0001234, Gone: a b".replace("0.0001234", f"{0.00012345:.4g}"),
        "= None (done)", "",
    ]  # fmt: skip
    assert Watch(file).file is file and Watch().file is sys.stdout and watch.live is None


def test_totals_are_of_the_agent_whose_attempt_ended_and_made_anew_now_and_then() -> None:
    now = [0.0]
    totals = LiveTotals(lambda: now[0])

    def ended(value: float | None, **more: Any) -> str:
        calls = (Call(":0", "generate", None, 0.0, 1.0, "", Usage(9, 0, more.pop("tokens", 30), 0.25)),)
        return totals.add(trace("i", value=value, calls=calls, **more))

    assert ended(1.0) == "a 1.00 [0.03, 1.00], $0.25".replace("[0.03, 1.00]", _span({"t": [1.0]})), "no time has passed"
    now[0] += EVERY_S / 2
    assert ended(0.0, epoch=1) == "a 1.00 " + _span({"t": [1.0]}) + ", $0.25", "the line is not made anew yet"
    now[0] = EVERY_S
    line = ended(None, task="u", tokens=40)
    assert line == f"a 0.25 {_span({'t': [1.0, 0.0], 'u': [0.0]})}, 500 tokens/s, 1 error, $0.75"
    now[0] = 10.0
    assert ended(None, agent="b", tokens=0) == f"b 0.00 {_span({'t': [0.0]})}, 10 tokens/s, 2 errors, $1.00"
    now[0] = 20.0
    assert totals.add(trace("i", agent="c", scores=())) == "c, 5 tokens/s, 2 errors, $1.00"


def _span(scores: Any) -> str:
    found = mean_interval(scores)
    return f"[{found.low:.2f}, {found.high:.2f}]"


def test_a_feed_forgets_an_attempt_that_ended_and_keeps_a_protected_one_silent() -> None:
    lines = FeedLines()

    def of(step: Any, where: str = "abcdefghij") -> list[str]:
        return list(lines.of(FeedStep(1, where, 0.0, step)))

    assert of(Started("b", "t", "a", 1)) == ["abcdefgh  b / t / a / epoch 1"]
    assert of(Event("protected", 0.0)) == ["abcdefgh  protected: its steps are not shown"]
    assert of(Added(0, Node(None, user("x")))) == []
    assert of(Ended("id", "b", "t", "a", 1, 1.0, "done", None)) == ["abcdefgh  = 1 (done) b / t / a / epoch 1"]
    assert of(Added(0, Node(None, user("x")))) == [] and lines._attempts == {}
