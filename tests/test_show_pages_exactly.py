"""What pages, reports and diffs hold of small runs, value by value, and where they cut."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.flaky import Flaky
from firsthand.runs.track import start
from firsthand.show import html_report
from firsthand.show.board import leaderboard
from firsthand.show.curves_page import curves_html
from firsthand.show.gate_report import _kind, _listed, details, difference_text, junit, markdown, sentence
from firsthand.show.html_page import visible
from firsthand.show.html_report import MAX_ATTEMPTS, MAX_MESSAGES, AttemptRow, Turn, _chosen, clipped, turns
from firsthand.stats.breakdown import Grid
from firsthand.stats.non_inferiority import Check, Gaps
from firsthand.stats.paired import Differences
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def attempt(number: int = 0, value: float | None = 1.0, agent: str = "ada", **changes: Any) -> Trace:
    made: dict[str, Any] = {
        "id": f"id-{agent}-{number}", "benchmark": "sums", "task_id": f"t{number}", "agent": {"name": agent}, "epoch": 2,
        "seed": 0, "started_at": "", "duration_s": 1.5, "scores": () if value is None else (Score("exact", value),),
    }  # fmt: skip
    return Trace(**{**made, **changes})


def rows(traces: list[Any], task: Task | None = None, **options: Any) -> list[AttemptRow]:
    return _chosen(traces, {"sums": "exact"}, options.get("read"), lambda benchmark, task_id: task)[0]


# -- the report's table of samples --


def test_a_row_of_the_report_holds_the_attempt() -> None:
    task = Task("t0", "Which?", choices=("one", "two"), secret={"gold": 1, "answer": "B"})
    trace = attempt(
        0, 0.5, answer="a" * 241, nodes=(Node(None, user("hi")),), stop_reason="tokens",
        calls=(Call("0", "generate", None, 0.0, 1.0, "", Usage(30, 5, 7)),),
    )  # fmt: skip
    [row] = rows([trace], task)
    assert row == AttemptRow(
        "id-ada-0", "sums", "t0", "ada", 2, "0.50", 0.5, "wrong", "Which?\nA. one\nB. two", "B: two",
        "a" * 240 + " … (1 more characters)", 37, 1.5, "stopped by its limit of tokens", (Turn("user", "hi", 0, ""),), 0,
    )  # fmt: skip
    assert rows([AttemptSummary.of(trace)], task, read={trace.id: trace}.__getitem__) == [row]
    [failed] = rows([attempt(0, 1.0, error=Failure("ModelError", "gone"), stop_reason="error")])
    assert (failed.score, failed.value, failed.outcome, failed.trouble) == ("0.00", 0.0, "error", "ModelError: gone")
    [bare] = rows([attempt(0, None)])
    assert (bare.score, bare.value, bare.outcome, bare.trouble, bare.answer) == ("-", 0.0, "error", "", "")
    assert (bare.question, bare.expected) == ("", "")
    scorer = (Score("exact", 0.75), Score("style", 0.0, failure="KeyError"))
    assert rows([attempt(0, scores=scorer)])[0].trouble == "scorer style: KeyError"
    [unscored] = rows([attempt(0, scores=(Score("exact", 1.0, failure="KeyError"),))])
    assert (unscored.outcome, unscored.value) == ("error", 1.0)
    outcomes = [rows([attempt(0, value)])[0].outcome for value in (0.999, 1.0, 1.5, 0.0, math.nan)]
    assert outcomes == ["wrong", "right", "right", "wrong", "wrong"]
    assert rows([attempt(0, math.nan)])[0].value == 0.0
    secret = replace(task, metadata={"protected": "asked"})
    assert (rows([trace], secret)[0].question, rows([trace], secret)[0].expected) == ("", "")


def test_beyond_600_rows_only_the_first_of_each_kind_is_shown() -> None:
    made = [attempt(n, 1.0) for n in range(MAX_ATTEMPTS)]
    late = [attempt(900, 0.0), attempt(901, 0.0), attempt(902, 1.0), attempt(903, 1.0, "bo"), attempt(904, None)]
    found, total = _chosen([*made, *late], {"sums": "exact"}, None, lambda benchmark, task_id: None)
    assert [row.task for row in found[MAX_ATTEMPTS:]] == ["t900", "t903", "t904"] and total == MAX_ATTEMPTS + 5
    many = [attempt(n, 1.0, f"agent {n}") for n in range(MAX_ATTEMPTS + 40)]
    found, total = _chosen(many, {}, None, lambda benchmark, task_id: None)
    assert (len(found), total) == (630, 640)


def test_a_transcript_has_each_message_once_with_its_branch_and_depth() -> None:
    parts = (Text("see"), ToolCall("1", "add", {"é": 1}), ToolCall("2", "add", {}, "{bad"), Reasoning("hm", {}),
             Reasoning("", {}))  # fmt: skip
    nodes = (
        Node(None, user("ask")),
        Node(0, Message("assistant", parts)),
        Node(0, assistant("left")),
        Node(2, Message("tool", (ToolResult("1", "add", "five"),))),
        Node(9, user("from nowhere")),
        Node(3, assistant("x")),
        Node(3, assistant("y")),
    )
    events = (Event("branch", 0.0, {"name": "b", "at": 2, "status": "kept"}),)
    shown, left = turns(attempt(nodes=nodes, events=events))
    assert shown == (
        Turn("user", "ask", 1, "branch 1 of 2"),
        Turn("assistant", 'see\n→ add({"é": 1})\n→ add({bad)\n(reasoning) hm', 2, "branch 1 of 2"),
        Turn("assistant", "left", 2, "branch 2 of 2, ● b kept"),
        Turn("tool", "five", 2, ""),
        Turn("assistant", "x", 3, "branch 1 of 2"),
        Turn("assistant", "y", 3, "branch 2 of 2"),
        Turn("user", "from nowhere", 1, "branch 2 of 2"),
    )
    assert left == 0


def test_a_transcript_is_cut_at_its_messages_and_characters() -> None:
    long = tuple(Node(None if n == 0 else n - 1, user(f"m{n}")) for n in range(MAX_MESSAGES + 3))
    shown, left = turns(attempt(nodes=long))
    assert (len(shown), left, shown[-1].text) == (60, 3, "m59")
    shown, left = turns(attempt(nodes=long), 5)
    assert [turn.text for turn in shown] == ["m0", "m1", "m … (1 more characters)"] and left == 60
    assert turns(attempt(nodes=long[:2]), 0) == ((), 2) and turns(attempt(nodes=long[:2]), 2)[1] == 1
    [turn], _ = turns(attempt(nodes=(Node(None, user("c" * 3001)),)))
    assert turn.text == "c" * 3000 + " … (1 more characters)"
    deep = tuple(Node(None if n == 0 else (n - 1) // 2 * 2, user("d")) for n in range(19))
    assert max(turn.depth for turn in turns(attempt(nodes=deep))[0]) == 6
    assert clipped("abc", 3) == "abc" and clipped("a" * 5003, 3) == "aaa … (5,000 more characters)"


def test_transcripts_end_where_the_room_of_all_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_report, "MAX_ALL_TRANSCRIPT_CHARS", 5)
    asked: list[tuple[str, str]] = []
    traces = [attempt(n, nodes=(Node(None, user("abc")), Node(0, user("d" * n)))) for n in range(4)]
    found, _ = _chosen(traces, {}, None, lambda benchmark, task_id: asked.append((benchmark, task_id)))
    assert [[turn.text for turn in row.turns] for row in found] == [["abc", ""], ["ab … (1 more characters)"], [], []]
    assert [row.left_out for row in found] == [0, 1, 0, 0] and asked == [("sums", f"t{n}") for n in range(4)]
    monkeypatch.undo()
    seven = attempt(nodes=tuple(Node(None if n == 0 else n - 1, user("c" * 3000)) for n in range(8)))
    shown, left = turns(seven)
    assert left == 1 and [turn.text for turn in shown[5:]] == ["c" * 3000, "c" * 2000 + " … (1,000 more characters)"]
    [row] = rows([attempt(id="i" * 81, benchmark="b" * 81, task_id="t" * 81, agent="a" * 81)])
    names = (row.trace_id, row.benchmark, row.task, row.agent)
    assert names == tuple(letter * 80 + " … (1 more characters)" for letter in "ibta")


def test_a_board_of_the_page_has_the_grids_of_its_benchmark_that_fit() -> None:
    def grid(agent: str, benchmark: str = "sums", count: int = 1) -> Grid:
        values = tuple(str(n) for n in range(count))
        return Grid(benchmark, agent, ("level",), values, ("all",), {})

    def shown(*grids: Grid) -> list[str]:
        traces = [attempt(0), attempt(1, 0.0)]
        text = html_report.report_html(
            leaderboard(traces), title="t", command="c", machine={}, run_path="r", traces=traces, grids=grids
        )
        return [
            name for name in ("one", "two", "big", "other", *(f"g{n:02}" for n in range(22))) if f"{name}-grid" in text
        ]

    found = [grid("one-grid"), grid("big-grid", count=401), grid("two-grid", count=400), grid("other-grid", "else")]
    assert shown(*found) == ["one", "two"]
    assert shown(*(grid(f"g{n:02}-grid") for n in range(22))) == [f"g{n:02}" for n in range(20)]


def test_the_page_names_the_run_its_machine_and_only_grids_that_fit() -> None:
    text = html_report.report_html(
        [], title="a title", command="firsthand run sums", machine={"cpu": "x" * 301, "cores": 2, "os": {"é": 1}},
        run_path="runs/a b", traces=[attempt(0), attempt(1, 0.0, "bo")], facts={"commit": "abc", "cores": "overridden"},
    )  # fmt: skip
    for told in (
        "a title", "firsthand run sums", "firsthand show &#39;runs/a b&#39; TRACE", "x" * 300 + " … (1 more characters)",
        "<dt>cores</dt><dd>2</dd>", "{&#34;é&#34;: 1}", "<dd>abc</dd>", "t0", "t1",
    ):  # fmt: skip
        assert told in text, told
    assert "overridden" not in text and "x" * 301 not in text


def test_what_steers_is_written_out_and_what_scripts_need_is_kept() -> None:
    assert visible("a\u200db\u200c\n\t") == "a\u200db\u200c\n\t" and visible("\x00\u202e\u2028\ufdd0\ufffe") == (
        "\\u0000\\u202e\\u2028\\ufdd0\\ufffe"
    )
    assert visible("\U000e0001 \u00a0\u3000\r") == "\\U000e0001 \u00a0\u3000\\u000d"
    assert visible("\ufdf0 \ufdef") == "\ufdf0 \\ufdef" and visible("\ud800\ue000") == "\\ud800\ue000"


def test_rows_and_turns_are_bounded_and_without_words_of_protected_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(text: str) -> str:
        return f"{text[:240]} … ({len(text) - 240} more characters)"

    secret = attempt(0, answer="the secret words", events=(Event("protected", 0.0, {"why": "x"}),))
    [row] = rows([secret])
    assert (row.answer, row.trace_id) == ("[withheld: 16 characters]", "id-ada-0")
    [long] = rows([attempt(error=Failure("E", "m" * 300))], Task("t0", "?", secret={"answer": "e" * 241}))
    assert (long.expected, long.trouble) == (cut("e" * 241), cut("E: " + "m" * 300))
    call = ToolCall("1", "f", {"a": 1})
    nodes = (Node(None, user("a")), Node(-1, assistant("b", call, replace(call, invalid=""))))
    noted = (Event("branch", 0.0, {"name": "x", "at": 1, "status": "kept", "text": "t" * 300}),)
    assert turns(attempt(nodes=nodes, events=noted)) == ((
        Turn("user", "a", 1, "branch 1 of 2"),
        Turn("assistant", 'b\n→ f({"a": 1})\n→ f()', 1, "branch 2 of 2, " + cut("● x kept: " + "t" * 300)),
    ), 0)  # fmt: skip
    monkeypatch.setattr(html_report, "MAX_ATTEMPTS", 1)
    several = [attempt(0), attempt(1), attempt(2, benchmark="other"), attempt(3, 0.0), attempt(4, benchmark="other")]
    found, total = _chosen(several, {"sums": "exact", "other": "exact"}, None, lambda benchmark, task_id: None)
    assert ([each.task for each in found], total) == (["t0", "t2", "t3"], 5), (
        "the first right and wrong of each benchmark"
    )


# -- the page of a tracked run --


def test_the_page_of_a_tracked_run_has_its_groups_texts_files_and_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with start("model", config={"lr": 0.25}) as track:
        for step in (0, 1500):
            track.log({"train/loss": 2.0 - step / 1500, "alone": 7.0, "train/a/deep": 1.0}, step=step)
        for step in range(42):
            track.text("sample", f"text {step} " + "z" * (4000 if step == 41 else 3992 if step == 40 else 1), step=step)
        (tmp_path / "w.bin").write_bytes(b"x" * 1234)
        track.artifact(tmp_path / "w.bin", name="weights", step=1500)
        text = curves_html(track)
    flat = " ".join(text.split())
    assert f"<title>{track.run.id} - firsthand</title>" in text and "<dt>state</dt><dd>running</dd>" in text
    assert text.count("<figure>") == 3 and text.index("alone") < text.index("<h2>train</h2>") < text.index(
        "<h2>train/a</h2>"
    )
    assert "train/loss from step 0 to 1,500, between 1 and 2" in text
    assert "The latest 40 of 42." in text and "text 1 z" not in text and "text 2 z" in text
    assert "…</pre>" in text and text.count("…</pre>") == 1 and "z" * 3992 in text and "z" * 3993 not in text
    assert "text 40 " + "z" * 3992 + "</pre>" in text, "4,000 characters are shown whole"
    assert "<td>weights</td><td>1,500</td>" in flat and "<td>1,234</td>" in flat
    assert "<dt>lr</dt><dd>0.25</dd>" in text


# -- the gate's report --


def check(**changes: Any) -> Check:
    pairs = {f"t{n}": [float(n < 3)] for n in range(4)}, {f"t{n}": [float(n < 1)] for n in range(4)}
    found = Differences.between(pairs[1], pairs[0])
    made: dict[str, Any] = {
        "agent": "ada", "benchmark": "su|ms", "score": "exact", "max_drop": 0.125, "differences": found, "confidence": 0.95,
        "ruling": "fail", "reason": "the score dropped by more than 12.50%", "baseline": 0.75, "candidate": 0.25,
    }  # fmt: skip
    return Check(**{**made, **changes})


FLAKY = (
    Flaky("sums", "t9", "a", (1.0, 0.5)),
    Flaky("sums", "t8", "b", (0.0, 1.0, 0.25, 0.123456789, 1.0)),
    Flaky("sums", "t7", "between", (1.0,)),
)
MORE = {"gaps": Gaps(1, 2, 3, 0), "worse": ("t1", "t2"), "flaky": FLAKY}


def test_at_most_fifty_tasks_are_listed_and_only_errors_are_errors() -> None:
    names = [f"t{n}" for n in range(51)]
    assert _listed("worse", names[:50]) == [f"worse: {name}" for name in names[:50]]
    assert _listed("worse", names)[49:] == ["worse: t49", "worse: 1 more"] and _listed("worse", []) == []
    reasons = ("errors: 3 attempts", "error rates rose", "the score dropped")
    assert [_kind(check(reason=reason), "report") for reason in reasons] == ["error", "failure", "failure"]
    unsure = check(ruling="inconclusive", reason="errors: 3")
    assert [_kind(unsure, choice) for choice in ("report", "pass", "fail")] == ["skipped", None, "failure"]
    assert _kind(check(ruling="pass", reason="errors: 3"), "report") is None


def test_a_check_in_words_and_what_is_listed_under_it() -> None:
    low, high = check().bounds
    told = f"-50.00% [{low:+.2%}, {high:+.2%}]"
    assert difference_text(check()) == told and math.isfinite(low) and low < -0.5 < high
    assert sentence(check()) == (
        f"su|ms, exact, ada: 0.2500 vs. 0.7500 on 4 tasks, {told}. fail: the score dropped by more than 12.50%."
    )
    none = check(differences=Differences((), True, True), baseline=math.nan, ruling="inconclusive", reason="none")
    assert sentence(none) == "su|ms, exact, ada: 0.2500 vs. - on 0 tasks, -. inconclusive: none."
    assert details(check()) == []
    assert details(check(**MORE)) == [
        "missing: 1 attempt of the baseline without a score, 2 attempts of the candidate without a score, 3 tasks that the "
        "candidate did not attempt",
        "worse: t1",
        "worse: t2",
        "flaky: t9: 1 0.5 in the baseline's attempts",
        "flaky: t8: 0 1 0.25 0.123457 1 in the candidate's attempts",
        "flaky: t7: 1 in two runs of the same agent and seed",
    ]


def test_a_gate_in_markdown_has_a_row_for_each_check_and_its_lists() -> None:
    low, high = check().bounds
    second = check(benchmark="a<b", **MORE)
    assert markdown("the *gate*", [check(ruling="pass", reason="fine"), second], "fail").split("\n") == [
        "## Gate: fail", "", "the \\*gate\\*", "",
        "| benchmark | score | agent | tasks | baseline | candidate | difference | allowed | ruling |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
        f"| su\\|ms | exact | ada | 4 | 0.7500 | 0.2500 | -50.00% [{low:+.2%}, {high:+.2%}] | -12.50% | **pass**: fine |",
        f"| a&lt;b | exact | ada | 4 | 0.7500 | 0.2500 | -50.00% [{low:+.2%}, {high:+.2%}] | -12.50% | "
        "**fail**: the score dropped by more than 12.50% |",
        "", "<details><summary>a&lt;b, exact, ada</summary>", "",
        *[f"- {line}" for line in details(second)], "", "</details>", "",
    ]  # fmt: skip


def test_a_gate_for_ci_counts_failures_errors_and_skipped_checks() -> None:
    from xml.etree import ElementTree

    checks = [
        check(ruling="pass"), check(), check(reason="errors: 1 attempt"), check(reason="the errors: many"),
        check(ruling="inconclusive", reason="too few\x1b"), check(**MORE),
    ]  # fmt: skip

    def parsed(inconclusive: str) -> tuple[dict[str, str], list[list[tuple[str, dict[str, str]]]]]:
        root = ElementTree.fromstring(junit("g\x00", checks, inconclusive))
        [suite] = root
        assert {key: root.attrib[key] for key in ("tests", "failures", "errors")} == {
            key: suite.attrib[key] for key in ("tests", "failures", "errors")
        }
        cases = [[(kind.tag, kind.attrib) for kind in case if kind.tag != "system-out"] for case in suite]
        return suite.attrib, cases

    attributes, cases = parsed("report")
    assert attributes == {
        "name": "g\\x00", "tests": "6", "time": "0", "failures": "3", "errors": "1", "skipped": "1",
    }  # fmt: skip
    assert cases[:2] == [
        [],
        [("failure", {"message": "the score dropped by more than 12.50%", "type": "fail"})],
    ]
    assert cases[2] == [("error", {"message": "errors: 1 attempt", "type": "fail"})]
    assert [each[0][0] for each in cases[3:]] == ["failure", "skipped", "failure"]
    assert cases[4] == [("skipped", {"message": "too few\\x1b"})]
    assert parsed("pass")[0]["skipped"] == "0" and parsed("pass")[1][4] == []
    assert parsed("fail")[0]["failures"] == "4" and parsed("fail")[1][4][0][1]["type"] == "inconclusive"
    text = junit("g", checks)
    assert 'classname="su|ms" name="exact (ada)"' in text and text.count(sentence(check())) == 4
    assert "\n".join([sentence(check(**MORE)), *details(check(**MORE))]) in text
