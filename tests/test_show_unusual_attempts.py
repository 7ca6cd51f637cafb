"""Attempts as lines: long prompts, a score of 0, empty texts, places that begin again, exact limits."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

from firsthand.loop.budget import Limits
from firsthand.loop.listener import Added, Began, Piece
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.runs.feed import Ended, FeedStep, Started
from firsthand.show.feed_lines import FeedLines
from firsthand.show.live_totals import EVERY_S, LiveTotals
from firsthand.show.live_tree import Progress, Watch, window
from firsthand.show.trace_shape import Mark, marks, tally
from firsthand.show.trace_tree import StyledText, _Writer, brief_lines, plain_lines, show, trace_lines
from firsthand.stats.intervals import proportion_interval
from firsthand.trace import Call, Event, Failure, Node, Score, Trace
from made_traces import trace


def attempt(*nodes: Node, **more: Any) -> Trace:
    return Trace("id", "b", "t", {"name": "a"}, 1, 0, "now", 2.5, **{"nodes": nodes, **more})


def lines(writer: _Writer) -> list[tuple[int, str, str]]:
    return [(line.depth, line.style, line.text) for line in writer.lines]


LONG, LEFT = "y" * 1207, " … (7 more characters; --full shows them)"


def call(kind: Any, at: int | None = None, **detail: Any) -> Call:
    return Call(":9", kind, at, 0.0, 0.25, "", detail=detail)


def test_prompts_arguments_results_and_errors_are_short_unless_they_are_shown_in_full() -> None:
    made = Call(":1", "generate", 0, 0.0, 0.5, "", Usage(5, 0, 3), nodes=(1, 2), detail={
        "prompt": LONG, "finish_reasons": ["stop"]}, replayed=True)  # fmt: skip
    nodes = (
        Node(None, user(LONG)),
        Node(0, assistant("", ToolCall("c", "f", {"k": LONG[:1192]}), ToolCall("d", "g", {}, LONG))),
        Node(0, Message("assistant", (Reasoning(LONG, None), Text(LONG), ToolResult("c", "f", LONG, True)))),
    )
    asked = (
        made, replace(call("tool", 2, name="h", arguments=LONG[2:], result=LONG), replayed=True),
        replace(call("score", None, prompt=LONG), error=LONG),
        call("memory", 0, operation="put", key=LONG[:1200], reply=LONG, order=3),
        call("guard", 1, model=None, answer=LONG), call("score", 1, likelihoods=({"logprob": -1.5, "text": "é"}, {})),
    )  # fmt: skip
    votes = Event("votes", 1.5, {"at": 3, "counts": {LONG: 2, "b": 2.0, "c": 0, "d": -1}})
    got = attempt(*nodes, calls=asked, events=(votes, Event("note", 2.0, {"x": LONG[:1200]})))
    for full, cut, rest in ((False, LONG[:1200], LEFT), (True, LONG, "")):
        writer = _Writer(got, full)
        writer.tree()
        wrong = "invalid JSON: " + (LONG if full else LONG[:1186] + " … (21 more characters; --full shows them)")
        key = '{"k": "' + LONG[:1192] + '"}'
        key_cut = key if full else key[:1200] + " … (1 more characters; --full shows them)"
        asked_text = '{"key": "' + LONG[:1200] + '"}'
        asked_cut = asked_text if full else asked_text[:1200] + " … (11 more characters; --full shows them)"
        reply = f'"{LONG}"' if full else f'"{LONG[:1199]} … (9 more characters; --full shows them)'
        given = f'"{LONG[2:]}"' if full else f'"{LONG[2:1201]} … (7 more characters; --full shows them)'
        assert lines(writer) == [
            (1, "error", "· score failed  [0.25 s]"), (2, "body", f"prompt: {cut}{rest}"), (2, "error", cut + rest),
            (0, "user", "#0 user"), (1, "body", cut + rest),
            (1, "note", f"· put {asked_cut}  [0.25 s]"), (2, "body", reply),
            (0, "title", "├ branch 1 of 2"), (1, "body", f"prompt: {cut}{rest}"),
            (1, "assistant", "#1 assistant  [stop, 5 tokens in, 3 out, 0.50 s, for 2 samples, replayed]"),
            (2, "tool", f"→ f({key_cut})"), (2, "error",
            f"→ g({wrong})"),
            (2, "note", "· guard asked None  [0.25 s]"), (3, "body", cut + rest),
            (2, "note", "· score 2 continuations (log-prob, text)  [0.25 s]"), (3, "body",
            '   -1.500  "é"\n    0.000  null'),
            (0, "title", "├ branch 2 of 2"), (1, "assistant", "#2 assistant  [replayed]"),
            (2, "note", f"reasoning: {cut}{rest}"), (2, "body", cut + rest), (2, "error", f"← f: {cut}{rest}"),
            (2, "note", f"· tool h({given})  [0.25 s, replayed]"), (3, "body", cut + rest),
        ]  # fmt: skip
        writer = _Writer(got, full)
        writer.tail("")
        data = json.dumps({"x": LONG[:1200]})
        assert lines(writer)[2:] == [
            (1, "note", "    1.50 s  votes"), (2, "body", f"     3  {'█' * 24}  at"), (2, "body",
            f"     2  {'█' * 16}  {cut}{rest}"),
            (2, "body", f"     2  {'█' * 16}  b"), (2, "body", "     0    c"), (2, "body", "    -1    d"),
            (1, "note",
            "    2.00 s  note  " + (data if full else data[:1200] + " … (9 more characters; --full shows them)")),
        ]  # fmt: skip
    brief = [(line.depth, line.style, line.node, line.text) for line in brief_lines(got)]
    assert brief[0] == (1, "error", -1, "· score failed " + LONG[:100]) and brief[1] == (
        0,
        "user",
        0,
        "#0 user  " + "y" * 100 + "…",
    )
    assert brief[2] == (1, "tool", -1, ('· put {"key": "' + LONG)[: 2 + 200]) and len(brief) == 10
    empty = _Writer(
        attempt(Node(None, Message("user", (Text(""), Reasoning("", None), ToolCall("1", "f", {}, ""))))), False
    )
    empty.tree()
    assert lines(empty) == [
        (0, "user", "#0 user"), (1, "body", "(no text)"), (1, "note", "reasoning (hidden)"), (1, "error",
        "→ f(invalid JSON: )"),
    ]  # fmt: skip
    text = "\n".join(map(str, range(17)))
    assert empty.short(text) == "\n".join(map(str, range(16))) + " … (3 more characters; --full shows them)"
    assert empty.short(text[:-3]) == text[:-3] and empty.short(LONG[:1200]) == LONG[:1200]


def test_a_protected_trace_is_revealed_only_where_it_is_asked_for() -> None:
    out, secret = (
        io.StringIO(),
        attempt(Node(None, user("word")), answer="word " * 20, events=(Event("protected", 0.0, {"why": "x"}),)),
    )
    show(secret, file=out, expected="six")
    show(secret, file=(bare := io.StringIO()), reveal=True, full=True, expected="s" * 1300)
    assert "word" not in out.getvalue() and "  expected: six\n" in out.getvalue()
    assert bare.getvalue().count("word") == 21 and f"  expected: {'s' * 1300}\n" in bare.getvalue()
    show(attempt(Node(None, user("q")), answer="a" * 1201), file=(cut := io.StringIO()), expected="e" * 1203)
    assert f"  answer: {'a' * 1200} … (1 more characters; --full shows them)\n" in cut.getvalue()
    assert f"  expected: {'e' * 1200} … (3 more characters; --full shows them)\n" in cut.getvalue()
    assert plain_lines([StyledText(24, "body", "a \n b"), StyledText(25, "body", "")]) == [
        "  " * 24 + "a",
        "  " * 24 + " b",
        "",
    ]
    assert trace_lines(secret, full=True)[-1].text == '    0.00 s  protected  {"why": "x"}'


def test_marks_and_votes_of_odd_values() -> None:
    def note(**data: Any) -> Event:
        return Event("branch", 0.0, data)

    got = attempt(Node(None, user("x")), Node(0, user("y")), events=(
        note(name="a", at=True, score=0), note(name="b", at=2, score="0.5"), note(name="c", at=1, score=1e300, text=7),
        note(at=1, status="kept"), note(at=1, score=-0.0), note(name="a", path="p", at=-1), note(name="b", at=0, score=None),
        note(name=0, at=1), note(name=0, at=1, status="open"),
    ))  # fmt: skip
    at_node, elsewhere = marks(got)
    assert at_node == {
        0: [Mark("b")], 1: [Mark("c", text="7"), Mark("", "kept"), Mark("", "", -0.0), Mark("0"), Mark("0", "open")],
    }  # fmt: skip
    assert elsewhere == [Mark("a", "", 0.0), Mark("a")], "True is no place, and so is -1"
    assert str(Mark("n", "lost", 0.0, "a\n b" + "c" * 400)) == "· n lost 0: a b" + "c" * 396 and str(Mark()) == "·"
    assert tally(Event("vote", 0.0, {})) == {} == tally(Event("voted", 0.0, {"a": 1}))
    assert tally(Event("vote", 0.0, {"a": {}, "b": {"x": 0, 3: True}, "n": 4, "z": 0})) == {
        "n": 4.0,
        "x": 0.0,
        "3": 1.0,
    }
    assert tally(Event("vote", 0.0, {"a": {"x": "no"}, "b": 1})) == {} and tally(Event("vote", 0.0, {"b": 1})) == {
        "b": 1.0
    }
    assert tally(Event("vote", 0.0, {"n": 1, "c": {"n": 2}})) == {"n": 2.0}


def test_a_score_of_0_is_told_in_the_feed_and_a_place_begins_again() -> None:
    feed = FeedLines()

    def of(step: Any, where: str = "p\n234567890") -> list[str]:
        return list(feed.of(FeedStep(1, where, 0.0, step)))

    assert of(Ended("id", "b", "t\n", "a", 0, 0.0, "calls", "")) == ["p 234567  = 0 (calls) b / t / a / epoch 0"]
    assert of(Ended("id", "b", "t", "a", 2, None, "error", "Gone: x")) == ["p 234567  = (Gone: x) b / t / a / epoch 2"]
    assert of(Event("protected", 0.0)) == ["p 234567  protected: its steps are not shown"]
    assert of(Added(0, Node(None, user("x")))) == [] and of(Started("b", "t", "a", 0)) == [
        "p 234567  b / t / a / epoch 0"
    ]
    assert of(Added(0, Node(None, user("x")))) == ["p 234567  #0 user x"], "it begins again, and is not silent any more"
    assert of(Added(0, Node(None, user("x"))), "other") == [] == of(Began("g", "generate", 0))
    assert of(Added(1, Node(0, user("y")))) == ["p 234567  #1 user y"], "a step without a line is no end"


def test_progress_sums_calls_and_what_is_left_never_falls_below_0() -> None:
    progress = Progress("t", Limits(tokens=40, calls=1, cost_usd=0.5))
    progress.tell(Added(0, Node(None, user("x"))))
    for number, (replayed, cost) in enumerate(((False, 0.25), (True, 0.0), (False, 0.125))):
        progress.tell(Began(f"g{number}", "generate", 0))
        progress.tell(Call(f"g{number}", "generate", 0, 0.0, 0.5, "", Usage(9, 2, 5 + number, cost), replayed=replayed))
    progress.tell(Began("z", "generate", 0, {"n": 3}))
    progress.tell(Piece("z", "a" * 2100 + "b\n" * 70))
    status = progress.status().split(", ")
    assert status[:2] == ["3 calls", "45 tokens (6 cached)"] and status[3].endswith(" s")
    assert status[4:] == ["0 of 40 tokens left", "0 of 1 calls left", "0.125 of 0.5 cost_usd left"]
    seconds, speed = float(status[3][:-2]), float(status[2].split()[0])
    assert speed > 100 and progress._generated == 12 and seconds < 5
    (now,) = progress.now()
    assert (
        now.startswith("▸ generate 3 answers after #0: ")
        and now.endswith(" b")
        and now.count("b") == 70
        and now.count("a") <= 24
    )
    assert progress.line(Call("x", "tool", None, 0.0, 0.0, "", detail={"name": "f"})) == "  ← f: None"
    progress.tell(Added(1, Node(0, user("x"))))
    assert progress.line(Added(1, Node(0, user("é" * 160)))) == "#1 user " + "é" * 152 + "…"
    rows = [StyledText(0, "user", str(n), n) for n in range(8)]
    assert [each.text for each in window(rows, 4)] == ["4", "5", "6", "7"] and window(rows[:4], 4) == rows[:4]
    first = [replace(each, node=9 if place == 0 else -1) for place, each in enumerate(rows)]
    assert [each.text for each in window(first, 5)] == ["0", "1", "2", "3", "4"]
    middle = [replace(each, node=9 if place == 4 else -1) for place, each in enumerate(rows)]
    assert [each.text for each in window(middle, 4)] == ["2", "3", "4", "5"]


def test_totals_are_made_anew_exactly_when_their_time_has_come() -> None:
    now = [5.0]
    totals = LiveTotals(lambda: now[0])
    used = (Call(":0", "generate", None, 0.0, 1.0, "", Usage(9, 0, 40, 0.0)),)
    assert totals.add(trace("i", scores=(), agent="n")) == "n"
    now[0] += EVERY_S / 2
    assert totals.add(trace("i", value=0.0, calls=used)) == "n", "a score of 0 is one"
    now[0] = 5.0 + EVERY_S
    low, high = proportion_interval(0, 1)
    assert totals.add(trace("i", scores=(), calls=used)) == f"a 0.00 [{low:.2f}, {high:.2f}], 400 tokens/s"
    now[0] = 10.0
    late = trace("i", scores=(Score("s", 1.0),), error=Failure("Gone", "x"), task="u")
    with_error = totals.add(late)
    assert with_error.startswith("a 0.00 [") and with_error.endswith(", 16 tokens/s, 1 error"), (
        "a failed attempt counts as 0"
    )


def test_a_watch_names_each_score_and_shows_an_empty_answer() -> None:
    file = io.StringIO()
    watch = Watch(file)
    watch.ended(trace("i", answer="", scores=(Score("a", 0.0), Score("b", 1.23456)), stop_reason="calls"))
    watch.ended(trace("i", answer=None, scores=(), error=Failure("Gone", "x")))
    assert file.getvalue() == "= '' (calls), a 0, b 1.235\n= None (done), Gone: x\n" and not watch.in_place


def test_a_message_in_a_line_has_all_of_its_calls_in_their_order() -> None:
    def gist(*calls: ToolCall, said: str = "I look.") -> str:
        return _Writer(attempt(Node(None, assistant(said, *calls))), False, True).gist(0)

    one, two, three = ToolCall("1", "f", {"x": 1}), ToolCall("2", "g", {}), ToolCall("3", "f", {"x": 2})
    assert gist() == "assistant  I look."
    assert gist(one) == 'assistant  I look. → f({"x": 1})'
    assert gist(one, two, three) == 'assistant  I look. → f({"x": 1}) → g({}) → f({"x": 2})'
    assert gist(two, one, said="") == 'assistant  → g({}) → f({"x": 1})'
    long = 'assistant  I look. → f({"x": 1}) → f({"x": "' + "y" * 200
    assert gist(one, ToolCall("4", "f", {"x": "y" * 200})) == long[: len("assistant  ") + 100] + "…"
