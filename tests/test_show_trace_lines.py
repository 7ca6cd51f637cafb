"""One attempt with everything in it, line by line: the whole tree, the brief one, and what `full` adds."""

from __future__ import annotations

import io
from typing import Any

from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.show.trace_shape import Mark, marks, outline, tally
from firsthand.show.trace_tree import StyledText, brief_lines, plain_lines, rich_text, show, trace_lines
from firsthand.trace import Call, Event, Failure, Node, Origin, Score, Trace


def tree(**changes: Any) -> Trace:
    """A call of a tool, two branches of which one goes on, and every kind of call, part, score and event."""
    nodes = (
        Node(None, system("Think.")),
        Node(0, user("What is 2 + 3?")),
        Node(1, assistant("Let me see.", ToolCall("1", "add", {"a": 2, "b": 3}))),
        Node(2, Message("tool", (ToolResult("1", "add", "5"), ToolResult("2", "send", "refused", True)))),
        Node(3, Message("assistant", (Reasoning("as before", {}), Text("It is 5.")))),
        Node(3, Message("assistant", (Reasoning("", {"sealed": 1}), Text("")))),
        Node(5, user("Are you sure?")),
        Node(6, Message("assistant", (ToolCall("3", "add", {}, "{a:"),))),
    )
    calls = (
        Call(":0", "generate", 1, 0.0, 0.5, "r0", Usage(20, 5, 7, 0.0125), (2,), {"finish_reasons": ["tool_calls"]}),
        Call(":1", "tool", 2, 0.5, 0.25, "r1", detail={"name": "add", "arguments": {"a": 2}, "result": "5"}),
        Call(
            ":2", "generate", 3, 0.75, 1.5, "r2", Usage(30, 0, 8), (4, 5), {"finish_reasons": ["stop", "length"]}, True
        ),
        Call(
            ":3",
            "score",
            4,
            2.25,
            0.125,
            "r3",
            Usage(9),
            detail={"likelihoods": [{"text": " yes", "logprob": -0.25}, {"text": " no", "logprob": -12.5}]},
        ),
        Call(
            ":4",
            "tool",
            4,
            2.4,
            0.1,
            "r4",
            detail={"name": "send", "arguments": {"to": "bo"}, "result": "Error: no"},
            error="no",
            replayed=True,
        ),
        Call(":5", "generate", 6, 2.5, 0.5, "r5", Usage(40, 0, 3), (7,), {"prompt": "Q: sure?\nA:"}),
        Call(":6", "generate", None, 0.1, 0.25, "r6", error="ModelError: busy", detail={"prompt": "once more"}),
        Call(
            ":7", "memory", 7, 3.0, 0.5, "r7", detail={"operation": "store", "key": "k", "reply": {"id": 3}, "order": 1}
        ),
        Call(":8", "guard", 7, 3.5, 0.75, "r8", detail={"model": "judge", "answer": "unsafe"}),
        Call(":9", "score", 7, 4.5, 0.5, "r9", error="no log-probs"),
    )
    events = (
        Event("retry", 0.3, {"attempt": 1}),
        Event("branch", 1.0, {"name": "way 1", "at": 4, "status": "kept", "score": 0.5}),
        Event("branch", 1.1, {"name": "way 2", "at": 6, "status": "open", "text": "not yet"}),
        Event("branch", 1.2, {"name": "way 2", "status": "failed", "score": None}),
        Event("branch", 1.3, {"name": "nowhere", "status": "done", "at": 8}),
        Event("vote", 12.25, {"votes": {"5": 3, "6": 1, "seven": 0}}),
    )
    made: dict[str, Any] = dict(
        id="00ff00ff00ff00ff",
        benchmark="sums",
        task_id="t1",
        agent={"name": "ada"},
        epoch=2,
        seed=0,
        started_at="2026-11-25T00:00:00",
        duration_s=5.25,
        nodes=nodes,
        calls=calls,
        events=events,
        answer="5",
        stop_reason="tokens",
        final_state={"sent": 1},
        scores=(
            Score("correct", 1.0, {"why": "equal"}),
            Score("step", 0.25, node=4),
            Score("style", 0.0, failure="KeyError: 'x'"),
        ),
        error=Failure("ToolError", "it broke", "Traceback\n  line"),
        origin=Origin("abcd", 3, "run-1"),
    )
    return Trace(**{**made, **changes})


LINES = [
    (0, "title", "sums / t1 / ada / epoch 2"),
    (0, "note", "forked from run-1 abcd at step 3"),
    (0, "note", "00ff00ff00ff00ff  2026-11-25T00:00:00  5.25 s, 10 calls, 99 tokens in (5 cached), 18 out, 0.0125 USD"),
    (1, "error", "· generate failed  [0.25 s]"),
    (2, "body", "prompt: once more"),
    (2, "error", "ModelError: busy"),
    (0, "system", "#0 system"),
    (1, "body", "Think."),
    (0, "user", "#1 user"),
    (1, "body", "What is 2 + 3?"),
    (0, "assistant", "#2 assistant  [tool_calls, 20 tokens in (5 cached), 7 out, 0.50 s]"),
    (1, "body", "Let me see."),
    (1, "tool", '→ add({"a": 2, "b": 3})'),
    (1, "note", '· tool add({"a": 2})  [0.25 s]'),
    (0, "tool", "#3 tool"),
    (1, "body", "← add: 5"),
    (1, "error", "← send: refused"),
    (0, "good", "├ branch 1 of 2  ● way 1 kept 0.5"),
    (1, "assistant", "#4 assistant  [stop, 30 tokens in, 8 out, 1.50 s, for 2 samples, replayed]"),
    (2, "note", "reasoning: as before"),
    (2, "body", "It is 5."),
    (2, "note", "· score 2 continuations (log-prob, text)  [0.12 s]"),
    (3, "body", '   -0.250  " yes"\n  -12.500  " no"'),
    (2, "error", '· tool send({"to": "bo"})  [0.10 s, replayed]'),
    (3, "error", "Error: no"),
    (0, "error", "├ branch 2 of 2  ! way 2 failed: not yet"),
    (1, "assistant", "#5 assistant  [length, replayed]"),
    (2, "note", "reasoning (hidden)"),
    (2, "body", "(no text)"),
    (1, "user", "#6 user"),
    (2, "body", "Are you sure?"),
    (1, "body", "prompt: Q: sure?\nA:"),
    (1, "assistant", "#7 assistant  [40 tokens in, 3 out, 0.50 s]"),
    (2, "error", "→ add(invalid JSON: {a:)"),
    (2, "note", '· store {"key": "k"}  [0.50 s]'),
    (3, "body", '{"id": 3}'),
    (2, "note", "· guard asked judge  [0.75 s]"),
    (3, "body", "unsafe"),
    (2, "error", "· score failed  [0.50 s]"),
    (3, "error", "no log-probs"),
    (0, "title", "outcome"),
    (1, "body", "answer: 5"),
    (1, "error", "stopped: tokens"),
    (1, "good", "score correct: 1"),
    (1, "body", "score step at #4: 0.25"),
    (1, "error", "score style: the scorer failed: KeyError: 'x'"),
    (1, "error", "ToolError: it broke"),
    (2, "note", "Traceback\n  line"),
    (1, "note", "branch ✓ nowhere done"),
    (1, "note", '    0.30 s  retry  {"attempt": 1}'),
    (1, "note", "   12.25 s  vote"),
    (2, "body", "     3  ████████████████████████  5"),
    (2, "body", "     1  ████████  6"),
    (2, "body", "     0    seven"),
]
BRIEF = [
    (1, "error", -1, "· generate failed ModelError: busy"),
    (0, "system", 0, "#0 system  Think."),
    (0, "user", 1, "#1 user  What is 2 + 3?"),
    (0, "assistant", 2, '#2 assistant  Let me see. → add({"a": 2, "b": 3})'),
    (1, "tool", -1, '· tool add({"a": 2})'),
    (0, "tool", 3, "#3 tool  5refused"),
    (0, "good", -1, "├ branch 1 of 2  ● way 1 kept 0.5"),
    (1, "assistant", 4, "#4 assistant  It is 5."),
    (2, "tool", -1, '· score 2 continuations (log-prob, text) -0.250 " yes" -12.500 " no"'),
    (2, "error", -1, '· tool send({"to": "bo"}) Error: no'),
    (0, "error", -1, "├ branch 2 of 2  ! way 2 failed: not yet"),
    (1, "assistant", 5, "#5 assistant  "),
    (1, "user", 6, "#6 user  Are you sure?"),
    (1, "assistant", 7, "#7 assistant  → add({})"),
    (2, "tool", -1, '· store {"key": "k"} {"id": 3}'),
    (2, "tool", -1, "· guard asked judge unsafe"),
    (2, "error", -1, "· score failed no log-probs"),
]


def test_each_line_of_a_trace_has_its_depth_its_style_and_its_text() -> None:
    lines = trace_lines(tree())
    assert [(line.depth, line.style, line.text) for line in lines] == LINES
    assert {line.node for line in lines} == {-1}
    assert [(line.depth, line.style, line.node, line.text) for line in brief_lines(tree())] == BRIEF


def test_full_adds_the_expected_answer_details_the_state_and_notes_of_branches() -> None:
    short, full = trace_lines(tree()), trace_lines(tree(), full=True, expected="six")
    added = [line.text for line in full if line not in short]
    assert added == [
        "expected: six",
        '{"why": "equal"}',
        'final state: {"sent": 1}',
        '    1.00 s  branch  {"name": "way 1", "at": 4, "status": "kept", "score": 0.5}',
        '    1.10 s  branch  {"name": "way 2", "at": 6, "status": "open", "text": "not yet"}',
        '    1.20 s  branch  {"name": "way 2", "status": "failed", "score": null}',
        '    1.30 s  branch  {"name": "nowhere", "status": "done", "at": 8}',
    ]
    assert [line for line in short if line not in full] == []


def test_a_trace_without_parent_cost_error_or_answer_has_no_lines_of_them() -> None:
    bare = tree(origin=None, calls=(), events=(), error=None, answer=None, stop_reason="done", scores=(), nodes=())
    assert [(line.style, line.text) for line in trace_lines(bare)] == [
        ("title", "sums / t1 / ada / epoch 2"),
        ("note", "00ff00ff00ff00ff  2026-11-25T00:00:00  5.25 s, 0 calls, 0 tokens in, 0 out"),
        ("title", "outcome"),
        ("note", "stopped: done"),
    ]
    one = tree(origin=Origin("abcd", 0), calls=tree().calls[:1])
    assert (
        trace_lines(one)[1].text == "forked from abcd at step 0" and ", 1 call, 20 tokens" in trace_lines(one)[2].text
    )


def test_a_result_that_a_message_holds_is_not_told_again_at_its_call() -> None:
    nodes = (
        Node(None, user("Go.")),
        Node(0, assistant("", ToolCall("1", "send", {}), ToolCall("2", "send", {}))),
        Node(1, Message("tool", (ToolResult("1", "send", "Error: no", True), ToolResult("2", "send", "sent")))),
    )

    def sent(id: str, name: str, result: str, error: str | None = None) -> Call:
        return Call(id, "tool", 1, 0.0, 0.5, id, detail={"name": name, "arguments": {}, "result": result}, error=error)

    calls = (sent(":0", "send", "Error: no", "no"), sent(":1", "send", "sent"), sent(":2", "post", "sent"))
    lines = [line.text for line in trace_lines(tree(nodes=nodes, calls=calls, events=(), scores=()))]
    assert lines[lines.index("→ send({})") : lines.index("outcome")] == [
        "→ send({})", "→ send({})", "· tool send({})  [0.50 s]", "· tool send({})  [0.50 s]",
        "· tool post({})  [0.50 s]", "sent", "#2 tool", "← send: Error: no", "← send: sent",
    ]  # fmt: skip


def test_the_prompt_of_a_call_is_shown_with_a_result_and_without_one() -> None:
    nodes = (Node(None, user("Go.")), Node(0, Message("tool", (ToolResult("1", "send", "sent"),))))
    calls = (
        Call(":0", "guard", 0, 0.0, 0.5, "a", detail={"model": "judge", "answer": "", "prompt": "Safe?"}),
        Call(":1", "tool", 0, 0.5, 0.25, "b", detail={"name": "send", "result": "sent", "prompt": "P" * 1201}),
        Call(":2", "guard", 0, 1.0, 0.75, "c", detail={"model": "judge", "answer": "safe", "prompt": ""}),
        Call(":3", "guard", 0, 1.0, 0.75, "d", detail={"model": None, "answer": None, "prompt": ["a", "b"]}),
        Call(":4", "score", 0, 2.0, 1.0, "e", detail={"prompt": "Q"}, replayed=True),
    )
    made = tree(nodes=nodes, calls=calls, events=(), scores=())
    lines = [(line.depth, line.style, line.text) for line in trace_lines(made)]
    first, last = lines.index((0, "user", "#0 user")), lines.index((0, "tool", "#1 tool"))
    assert lines[first + 2 : last] == [
        (1, "note", "· guard asked judge  [0.50 s]"), (2, "body", "prompt: Safe?"),
        (1, "note", "· tool send(null)  [0.25 s]"),
        (2, "body", "prompt: " + "P" * 1200 + " … (1 more characters; --full shows them)"),
        (1, "note", "· guard asked judge  [0.75 s]"), (2, "body", "prompt: "), (2, "body", "safe"),
        (1, "note", "· guard asked None  [0.75 s]"), (2, "body", "None"),
        (1, "note", "· score 0 continuations (log-prob, text)  [1.00 s, replayed]"), (2, "body", "prompt: Q"),
    ]  # fmt: skip
    assert [line.text for line in brief_lines(made)] == [
        "#0 user  Go.", "· guard asked judge", "· tool send(null)", "· guard asked judge safe", "· guard asked None None",
        "· score 0 continuations (log-prob, text)", "#1 tool  sent",
    ]  # fmt: skip


def test_lines_are_indented_by_two_spaces_up_to_a_depth_of_24() -> None:
    lines = [StyledText(1, "body", "a  \n b"), StyledText(24, "body", "c"), StyledText(25, "body", "d")]
    assert plain_lines(lines) == ["  a", "   b", f"{'  ' * 24}c", f"{'  ' * 24}d"]
    assert rich_text(lines[2]).plain == f"{'  ' * 24}d" and str(rich_text(lines[0]).style) == ""
    assert str(rich_text(StyledText(0, "error", "x")).style) == "bold red"


def test_long_texts_lose_what_is_beyond_1200_characters_or_16_lines() -> None:
    def answer(text: str, full: bool = False) -> str:
        return next(line.text for line in trace_lines(tree(answer=text), full=full) if line.text.startswith("answer: "))

    assert answer("a" * 1200) == "answer: " + "a" * 1200
    assert answer("a" * 1201) == "answer: " + "a" * 1200 + " … (1 more characters; --full shows them)"
    assert answer("b\n" * 15 + "b") == "answer: " + "b\n" * 15 + "b"
    assert answer("b\n" * 17) == "answer: " + "b\n" * 15 + "b … (3 more characters; --full shows them)"
    assert answer("a" * 1201, full=True) == "answer: " + "a" * 1201
    traced = tree(error=Failure("Bug", "x", "T" * 500 + "U" * 200 + "\n"), events=())
    assert trace_lines(traced)[-1].text == "T" * 400 + "U" * 200
    assert "T" * 500 + "U" * 200 + "\n" in [line.text for line in trace_lines(traced, full=True)]


def test_a_message_in_a_line_has_a_hundred_characters() -> None:
    def gist(text: str) -> str:
        return brief_lines(tree(nodes=(Node(None, user(text)),), calls=(), events=()))[0].text

    assert gist("a" * 100) == "#0 user  " + "a" * 100
    assert gist("a" * 101) == "#0 user  " + "a" * 100 + "…"
    assert gist(" a \n b\t") == "#0 user  a b"
    called = Message("assistant", (Text("a" * 90), ToolCall("1", "send", {"to": "bo"})))
    [line] = brief_lines(tree(nodes=(Node(None, called),), calls=(), events=()))
    assert line.text == "#0 assistant  " + "a" * 90 + ' → send({"…', "its calls are cut with it"


def test_votes_are_bars_of_the_most_and_sixteen_answers_are_shown() -> None:
    counts = {f"answer {n}": n for n in range(18)} | {"minus": -1.0}
    bars = trace_lines(tree(events=(Event("votes", 1.0, counts),)))[-16:]
    assert bars[0].text == f"    17  {'█' * 24}  answer 17"
    assert bars[1].text == f"    16  {'█' * 23}  answer 16"  # 24 * 16 / 17 = 22.6
    assert bars[-1].text == f"     2  {'█' * 3}  answer 2" and bars[0].depth == 2
    everything = trace_lines(tree(events=(Event("votes", 1.0, counts),)), full=True)
    assert [line.text for line in everything][-3:] == [
        f"     1  {'█'}  answer 1",
        "     0    answer 0",
        "    -1    minus",
    ]


def test_a_vote_is_wherever_its_counts_are() -> None:
    assert tally(Event("vote", 0.0, {"a": 2, "b": 1.5})) == {"a": 2.0, "b": 1.5}
    assert tally(Event("vote", 0.0, {"why": "most", "counts": {"a": 2, "b": 0}, "abstained": 1, "late": 0})) == {
        "abstained": 1.0, "a": 2.0, "b": 0.0,
    }  # fmt: skip
    assert tally(Event("vote", 0.0, {"counts": {"a": "x"}, "other": {"b": 3}})) == {"b": 3.0}
    assert tally(Event("vote", 0.0, {"counts": {}, "why": "x"})) == {} == tally(Event("vote", 0.0, {}))
    assert tally(Event("ballot", 0.0, {"a": 2})) == {} and tally(Event("vote", 0.0, {"a": 1e300})) == {}


def test_the_last_word_of_each_field_counts_and_paths_tell_branches_of_one_name_apart() -> None:
    def noted(**data: Any) -> Event:
        return Event("branch", 0.0, data)

    nodes = (Node(None, user("a")), Node(0, assistant("b")))
    events = (
        noted(name="x", path="1", at=0, status="open", score=1),
        noted(name="x", path="2", at=1, status="kept", score=True),
        noted(name="x", path="1", status="done", score=None, text="fine"),
        noted(at=1, status="pruned"),
        noted(at=-1),
        noted(name="y", at=2, score="high"),
        Event("other", 0.0, {"at": 0}),
    )
    at_node, elsewhere = marks(tree(nodes=nodes, events=events))
    assert at_node == {
        0: [Mark("x", "done", 1.0, "fine")],
        1: [Mark("x", "kept", 1.0), Mark("", "pruned")],
    }
    assert elsewhere == [Mark(), Mark("y")]
    assert str(Mark("x", "done", 0.12345, " a \n b ")) == "✓ x done 0.1235: a b" and str(Mark("y")) == "· y"
    assert str(Mark("", "failed", 0.0, "t" * 401)) == "! failed 0: " + "t" * 400


def wide(count: int, *, dead: int = 0, tail: int = 0) -> Trace:
    """A root with branches, the first `dead` pruned; branch k goes on for k messages, and the last for more."""
    nodes, events = [Node(None, user("root"))], []
    for branch in range(count):
        nodes.append(Node(0, user(f"branch {branch}")))
        if branch < dead:
            events.append(Event("branch", 0.0, {"name": f"b{branch}", "at": len(nodes) - 1, "status": "pruned"}))
        for _ in range(branch + (tail if branch == count - 1 else 0)):
            nodes.append(Node(len(nodes) - 1, user("on")))
    return tree(nodes=tuple(nodes), calls=(), events=tuple(events))


def test_of_a_wide_fork_twelve_branches_are_shown_the_living_and_long_ones() -> None:
    trace = wide(14, dead=4)
    shape = outline(trace, marks(trace)[0], full=False)
    shown, note = shape.children(0)
    # branches 1-4 of 14 are dead; the two smallest of them are left out: 1 and 2 messages
    assert list(shown) == list(range(3, 15)) and note == "… 2 more branches (2 pruned) of 3 messages; --full shows them"
    assert [trace.nodes[node].message.text for node in shown.values()] == [f"branch {n}" for n in range(2, 14)]
    twelve = wide(12)
    assert outline(twelve, {}, full=False).children(0)[1] == ""
    assert list(outline(twelve, {}, full=False).children(0)[0]) == list(range(1, 13))
    thirteen = wide(13)
    assert outline(thirteen, {}, full=False).children(0)[1] == "… 1 more branches of 1 messages; --full shows them"
    assert outline(trace, marks(trace)[0], full=True).children(0)[1] == ""
    assert outline(trace, marks(trace)[0], full=True).folded == {}
    texts = [line.text for line in trace_lines(trace)]
    assert "├ branch 3 of 14  ✗ b2 pruned" in texts and "├ branch 2 of 14  ✗ b1 pruned" not in texts
    assert texts.count("… 2 more branches (2 pruned) of 3 messages; --full shows them") == 1
    # node 0 is the root, 1 is branch 0 alone, 2 and 3 are branch 1, 4 begins branch 2 with two more below
    assert shape.folded == {
        2: "  (1 more message below)", 4: "  (2 more messages below)", 7: "  (3 more messages below)",
    }  # fmt: skip
    assert "#4 user  branch 2  (2 more messages below)" in texts


def chain(length: int) -> Trace:
    nodes = tuple(Node(None if n == 0 else n - 1, user(f"m{n}")) for n in range(length))
    return tree(nodes=nodes, calls=(), events=())


def test_of_a_conversation_of_more_than_sixty_messages_the_middle_is_left_out() -> None:
    assert outline(chain(60), {}, full=False).skips == {}
    assert outline(chain(61), {}, full=False).skips == {29: (31, "… 1 more messages; --full shows them")}
    assert outline(chain(500), {}, full=True).room == 500 and outline(chain(500), {}, full=False).room == 400
    loose = tree(nodes=(Node(None, user("a")), Node(2, user("b")), Node(1, user("c")), Node(-1, user("d"))), events=())
    assert outline(loose, {}, full=False).children(None) == ({1: 0, 2: 1, 3: 3}, "")
    shape = outline(chain(63), {}, full=False)
    assert shape.skips == {29: (33, "… 3 more messages; --full shows them")}
    texts = [line.text for line in brief_lines(chain(63))]
    assert (
        texts[29:32] == ["#29 user  m29", "… 3 more messages; --full shows them", "#33 user  m33"] and len(texts) == 61
    )
    assert len([line for line in trace_lines(chain(63), full=True) if line.style == "user"]) == 63


def test_at_most_400_messages_are_shown_and_the_rest_is_counted() -> None:
    def bushy(branches: int) -> Trace:
        """A root whose twelve branches have 40 messages each, and others of their own."""
        nodes = [Node(None, user("root"))]
        for _ in range(branches):
            nodes.append(Node(0, user("b")))
            for _ in range(39):
                nodes.append(Node(len(nodes) - 1, user("on")))
        return tree(nodes=tuple(nodes), calls=(), events=())

    lines = brief_lines(bushy(11))
    assert sum(line.node >= 0 for line in lines) == 400
    assert lines[-1].text == "… 41 messages are left out; --full shows them"
    assert sum(line.node >= 0 for line in brief_lines(bushy(9))) == 361


def test_a_terminal_that_knows_no_unicode_gets_escapes_and_plain_files_no_styles() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", write_through=True) as file:
        show(chain(1), file=file)
        text = raw.getvalue().decode()
    assert text.startswith("sums / t1 / ada / epoch 2\nforked from run-1 abcd at step 3\n") and text.count("m0") == 1
