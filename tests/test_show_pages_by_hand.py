"""Pages and reports of small cases, read whole: of runs, features, curves, gates, diffs and joint evaluations."""

from __future__ import annotations

import html
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import UndefinedError

from boards_by_hand import BASE, BETTER, board
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.runs.flaky import Flaky
from firsthand.runs.pairing import compare
from firsthand.runs.store import create
from firsthand.runs.track import Track
from firsthand.show.alignment_report import AgentAlignment, ScenarioRate, _verdicts, alignment_of
from firsthand.show.answer_diff import (
    DiffSide,
    PairBudget,
    Sample,
    _answer,
    _asked,
    _traces,
    page,
    samples,
    terminal_text,
)
from firsthand.show.curves_page import curves_html
from firsthand.show.feature_page import feature_page
from firsthand.show.gate_report import _kind, details, difference_text, junit, markdown, rate, sentence
from firsthand.show.html_page import _environment, visible
from firsthand.show.html_report import (
    AttemptRow,
    Turn,
    _branches,
    _chosen,
    _outcome,
    _row,
    report_html,
    shell_word,
    turns,
)
from firsthand.show.markdown_text import escaped
from firsthand.stats.breakdown import Cell, Grid
from firsthand.stats.figure_stats import FigureDifference
from firsthand.stats.intervals import Bounds, Interval, proportion_interval
from firsthand.stats.non_inferiority import Check, Gaps
from firsthand.stats.paired import Differences
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score
from made_traces import trace


def words(page: str) -> list[str]:
    """What a page says: the lines of its body without their markup."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", "|", body[body.index("<main>") :]))
    return [line for line in (re.sub(r"[|\s]*\|[|\s]*", "|", each).strip("| ") for each in text.split("\n")) if line]


# -- the report of a run --


def test_the_report_names_its_samples_their_choices_and_how_to_make_it_again() -> None:
    made = [
        trace("x1", "t1", 0.25, agent="base", benchmark="sums", epoch=1, answer="41", scores=(Score("exact", 0.25),),
              nodes=(Node(None, user("how?")), Node(0, assistant("so"))),
              calls=(Call(":0", "generate", 0, 0.0, 1.0, "", Usage(30, 0, 12)),)),
        trace("x2", "t2", None, agent="b&c", benchmark="other"),
    ]  # fmt: skip
    cell = Cell("sums", "base", (1,), Interval(0.25, 0.0, 0.5, 3), 3, 0)
    grid = Grid("sums", "base", ("level",), (1,), ("",), {(1, ""): cell})
    tasks = {("sums", "t1"): Task("t1", "1 + 1?", secret={"answer": "2"})}
    text = report_html(
        [board(BASE, BETTER)], title="A <run>", command="firsthand run x", machine={"cores": 2, "cpu": "c"},
        run_path="my runs/r", traces=map(AttemptSummary.of, made), grids=[grid, replace(grid, benchmark="else")],
        read={each.id: each for each in made}.__getitem__, task=lambda benchmark, id: tasks.get((benchmark, id)),
        facts={"version": "1", "cores": "many"},
    )  # fmt: skip
    said = words(text)
    assert said[:2] == [
        "A <run>",
        "2 attempts, measured by firsthand: scores with 95% CIs, differences from the baseline, and costs.",
    ]
    assert said[2:6] == [
        "sums|exact, 6 tasks, 2 epochs",
        "better:a,b(c)-of-a-long-name: better than base by 0.50 (0.75 vs. 0.25, p=0.004), for 28.3x its tokens.",
        "sums: exact against tokens per task",
        "base: 0.25 (0.12 to 0.50), 120 tokens per task. better:a,b(c)-of-a-long-name: 0.75 (0.62 to 1.00), 3.4k tokens "
        "per task.",
    ]
    at = said.index("Averages per task and attempt; brackets are 95% CIs.")
    assert said[at + 1 : said.index("Samples")] == [
        "agent|score|vs. base|verdict|tokens|seconds|calls|cost|errors", "base|◆ on the Pareto frontier",
        "0.25|[0.12, 0.50]", "◇ baseline", "120|100 in, 20 out", "2.0 s|mean 3.0 s|path 1.5 s", "1", "-|0",
        "better:a,b(c)-of-a-long-name|◆ on the Pareto frontier|length 2.50 [2.00, 3.00]|spread\\u001b 0.50",
        "0.75|[0.62, 1.00]", "+0.50|[+0.20, +0.80]", "▲ better|p=0.004|4 won, 1 lost, 1 same",
        "3.4k|2.0k in, 1.4k out|340 cached", "62.0 s|mean 75.0 s|path 40.0 s", "7.5", "$0.034|2|3 by limit",
        "base by level: mean score, 95% CI, and number of tasks.", "level|score", "1|0.25|0-.50 (3)",
        "Errors: 2 attempts failed or could not be scored. Each counts as 0; one without a verdict of its judge is left "
        "out.",
        "Minimum detectable effect with 6 tasks: 0.31 (80% power).",
        "Each agent is compared to the baseline base on the tasks both attempted, with 95% CIs.",
    ]  # fmt: skip
    samples_ = said[said.index("Samples") :]
    assert samples_[1:6] == [
        "Search", "Agent|all|base|b&c", "Benchmark|all|sums|other", "Outcome|all|right|wrong|error",
        "task|agent|score|answer|expected|tokens|seconds",
    ]  # fmt: skip
    assert samples_[6:12] == [
        "sums / t1|epoch 1|base|0.25|41|2|42|1.0 s", "question|1 + 1?|expected|2|answer|41|attempt|x1", "user|how?",
        "assistant|so", "other / t2|b&c|0.00|Gone: no answer|0|1.0 s", "answer|none|trouble|Gone: no answer|attempt|x2",
    ]  # fmt: skip
    assert samples_[13:] == [
        "Reproduce", "The whole run", "firsthand run x", "One attempt in full", "firsthand show 'my runs/r' TRACE",
        "version|1|cores|2|cpu|c|run|my runs/r",
    ]  # fmt: skip
    assert 'data-outcome="wrong" data-score="0.25"' in text and 'class="row error"' in text
    assert shell_word("a b'c") == "'a b'\"'\"'c'" and shell_word("plain/x-1") == "plain/x-1"
    odd = {"$HOME": "'$HOME'", "a;b": "'a;b'", "": "''", "*.txt": "'*.txt'", "it's": "'it'\"'\"'s'", "a\\b": "'a\\b'",
           "`x`": "'`x`'", "a\nb": "'a\nb'", "~": "'~'", "a=b,c:d@e%f+g_h.i": "a=b,c:d@e%f+g_h.i", " ": "' '"}  # fmt: skip
    assert {text: shell_word(text) for text in odd} == odd
    scored = trace("x3", benchmark="b", scores=(Score("exact", 0.0), Score("z", 1.0)))
    two = [board(BASE), board(BASE, benchmark="b", metric="z")]
    assert 'data-outcome="right"' in report_html(two, title="t", command="c", machine={}, run_path="r", traces=[scored])
    mixed = [trace(f"m{at}", "t1", agent=who, benchmark=on) for at, (who, on) in enumerate(("zb", "aa", "zb", "ac"))]
    several = words(report_html([], title="t", command="c", machine={}, run_path="r", traces=mixed))
    assert several[several.index("Search") + 1 :][:2] == ["Agent|all|z|a", "Benchmark|all|b|a|c"], "each once, as met"
    bare = report_html([], title="t", command="c", machine={}, run_path="r", traces=made[:1])
    assert words(bare)[-1] == "run|r" and words(bare)[1].startswith("1 attempt, measured")


def test_a_row_of_samples_says_what_went_wrong_first_by_error_then_scorer_then_limit() -> None:
    failed = (Score("exact", 1.0), Score("style", 0.0, failure="KeyError"))
    made = trace("i", "t", 1.0, scores=failed, stop_reason="tokens", answer="a")
    task = Task("t", "Q?", secret={"answer": "42"})
    expected = AttemptRow(
        "i", "b", "t", "a", 0, "1.00", 1.0, "right", "Q?", "42", "a", 0, 2.5, "scorer style: KeyError"
    )
    row = _row(replace(made, duration_s=2.5), "exact", task)
    assert row == expected
    secret = _row(replace(made, duration_s=2.5), "exact", replace(task, metadata={"protected": "why"}))
    assert secret == replace(row, question="", expected="")
    broken = replace(made, error=Failure("Gone", "away"))
    assert (_row(broken, "exact", task).trouble, _row(broken, "exact", task).score) == ("Gone: away", "0.00")
    assert _row(broken, "exact", task).value == 0.0 and _row(broken, "exact", None).question == ""
    limited = replace(made, scores=failed[:1])
    assert _row(limited, "exact", task).trouble == "stopped by its limit of tokens"
    assert [_row(replace(limited, stop_reason=each), "exact", task).trouble for each in ("done", "error")] == ["", ""]
    assert (_row(limited, "none", task).score, _row(limited, "none", task).outcome) == ("-", "error")
    infinite = _row(replace(made, scores=(Score("exact", math.inf),)), "exact", task)
    assert (infinite.score, infinite.value, infinite.outcome) == ("-", 0.0, "right")
    summary = AttemptSummary.of(limited)
    assert _outcome(summary, "exact") == "right" and _outcome(AttemptSummary.of(broken), "exact") == "error"
    assert _outcome(replace(limited, scores=(Score("exact", 0.999),)), "exact") == "wrong"
    rows, total = _chosen([made, broken], {"b": "style"}, None, lambda benchmark, id: task if id == "t" else None)
    assert total == 2 and [each.expected for each in rows] == ["42", "42"] and rows[0].score == "0.00"


def test_a_transcript_walks_branches_one_after_another() -> None:
    nodes = (Node(None, user("a")), Node(0, user("b")), Node(0, user("")), Node(1, user("c")), Node(3, user("d")))
    shown, left = turns(trace("i", nodes=nodes, events=(Event("branch", 0.0, {"name": "n", "at": 3}),)))
    assert shown == (
        Turn("user", "a", 0, ""), Turn("user", "b", 1, "branch 1 of 2"), Turn("user", "c", 1, "· n"),
        Turn("user", "d", 1, ""), Turn("user", "", 1, "branch 2 of 2"),
    ) and left == 0  # fmt: skip
    assert _branches([7], 3) == [(7, 3, "")] and _branches([], 3) == []
    assert _branches([4, 5, 8], 0) == [(8, 1, "branch 3 of 3"), (5, 1, "branch 2 of 3"), (4, 1, "branch 1 of 3")]


# -- other pages --


def test_a_page_escapes_and_shows_what_steers_and_knows_no_missing_value() -> None:
    environment = _environment()
    assert environment is _environment()
    made = environment.from_string("{% if yes %}\n  {{ text }}\n{% endif %}\n{{ number }}")
    assert made.render(yes=True, text="<b>\u202e", number=3) == "  &lt;b&gt;\\u202e\n3"
    with pytest.raises(UndefinedError):
        made.render(yes=False)
    assert visible("a\x00\n\tb\u200d\ufdd0\U0001ffff") == "a\\u0000\n\tb\u200d\\ufdd0\\U0001ffff"


def test_the_page_of_features_has_their_numbers_bands_and_steered_texts() -> None:
    def token(text: str, shade: int, is_peak: bool = False) -> Any:
        return SimpleNamespace(text=text, shade=shade, is_peak=is_peak)

    def report(index: int, **more: Any) -> Any:
        made: dict[str, Any] = {
            "index": index, "density": 0.0125, "rule": None, "ablation": None, "ablation_null": None, "maximum": 3.5,
            "histogram": (7, 0, 3), "promoted": (), "suppressed": (), "neighbours": ((9, 0.25), (4, -0.5)),
            "bands": {"top": [[token("a\n", 1), token("", 9, True)]], "weak": []},
        }  # fmt: skip
        return SimpleNamespace(**made | more)

    rule = SimpleNamespace(rule="ends in s", balanced_accuracy=0.875, null=0.5)
    effect, null = SimpleNamespace(value=0.0625, n=12), SimpleNamespace(value=-0.001)
    steered = {3: [SimpleNamespace(strength=-2.0, text="no"), SimpleNamespace(strength=4.0, text="yes")]}
    full = report(3, rule=rule, ablation=effect, ablation_null=null, promoted=("up",), suppressed=("down",))
    text = feature_page("<sae>", (full, report(5)), latents=4096, tokens=12345, measures=(("fvu", "0.250"),),
                        prompt="I say", steered=steered)  # fmt: skip
    assert words(text) == [
        "<sae>", "2 of 4,096 features, evenly spaced by density, on 12,345 held-out tokens, measured by firsthand.",
        "fvu|0.250", "Search", "Order|density|ablation effect|rule accuracy", "3|1.250%|∅|ends in s",
        "Rule on held-out text: balanced accuracy 0.88, null 0.50. Ablated, the next tokens' loss changes by +0.062 nats "
        "(a random direction: -0.001), mean of 12 contexts. Maximum 3.50.",
        "Raises|up|Lowers|down|Nearest features:|9|(0.25),|4|(-0.50)",
        "steered, in multiples of the maximum", "-2|I say|no", "+4|I say|yes", "top", "a↵|∅", "weak", "5|1.250%|∅",
        "Fires too seldom for a rule. Maximum 3.50.", "Nearest features:|9|(0.25),|4|(-0.50)", "top", "a↵|∅", "weak",
        "Bands show weak activations too: a feature that is clear at the top alone is not that clear. A rule is no more "
        "than its held-out accuracy above its null.",
    ]  # fmt: skip
    height = 24 * math.log1p(3) / math.log1p(7)
    assert f'<rect x="20" y="{24 - height:.1f}" width="9" height="{height:.1f}"/>' in text
    plain = words(feature_page("t", [], latents=1, tokens=1))
    assert plain[0] == "t" and "fvu|0.250" not in plain and len(plain) == 5


def test_the_page_of_curves_has_where_they_came_from(tmp_path: Path) -> None:
    run = create(tmp_path, {"lr": 0.5, "seed": None}, "curves", command=["firsthand", "train", "3"])
    track = Track(run)
    track.log({"b/x": 1.0, "a/y": 2.0, "b/w": math.nan, "z": 0.5}, step=4)
    track.log({"b/x": 3.0}, step=8)
    track.text("said", "hello", step=2)
    track.flush()
    said = words(curves_html(track))
    about = run.about
    facts = said[said.index(run.id) + 1]
    made = f"made|{run.created_at} by firsthand {about['firsthand']}"
    commit = f"|commit|{about['commit']}" if about.get("commit") else ""
    assert facts == f"state|{run.status}|{made}{commit}|command|firsthand train 3"
    names = [line for line in said if line in ("a", "b", "a/y", "b/x", "b/w", "z")]
    assert names[0] == "z" and names[1:3] == ["a", "a/y"] and names[3] == "b" and sorted(names[4:]) == ["b/w", "b/x"]
    at = said.index("b/x")
    assert said[at + 1 : at + 5] == ["3", "1", "4", "8"] and "1 value not finite" in said
    assert said[-5:] == ["Samples", "said, step 2|hello", "Config", "lr|0.5|seed|None"][-5:] or said[-2:] == [
        "Config", "lr|0.5|seed|None",
    ]  # fmt: skip
    assert "said, step 2|hello" in said and not any("The latest" in line for line in said)
    empty = Track(create(tmp_path, {}, "none"))
    assert "No metrics were logged." in words(curves_html(empty))


# -- two answers --


def test_two_runs_stand_beside_each_other_task_by_task(tmp_path: Path) -> None:
    runs = [create(tmp_path, {}, name) for name in "ab"]
    for run, values in zip(runs, ((1.0, 0.0, 0.5), (0.25, 1.0, 0.5)), strict=True):
        run.add_agent("a", {"name": "a"})
        run.add_tasks("b", [Task(f"t{n}", f"{n}?", secret={"answer": str(n)}) for n in range(3)])
        for number, value in enumerate(values):
            run.append(trace(f"{run.id[-1]}{number}{run.id}", f"t{number}", value, answer=f"{run.id[-1]}{value}"))
            second = (Score("s", value), Score("other", 1 - value))
            run.append(trace(f"{number}{run.id}", f"t{number}", value, epoch=1, scores=second, answer="x"))
    found = list(samples(compare(*runs, error_value=0.0), *runs))
    assert [(each.task_id, each.change, each.epoch) for each in found] == [("t0", "worse", 0), ("t1", "better", 0)]
    first = found[0]
    assert (first.prompt, first.expected, first.a.score, first.b.score) == ("0?", "0", "1", "0.25")
    assert first.a.text.endswith("1.0") and first.b.text.endswith("0.25") and first.a.place == "bt0a0"
    assert [each.task_id for each in samples(compare(*runs, error_value=0.0), *runs, "better")] == ["t1"]
    every = [(each.task_id, each.change) for each in samples(compare(*runs, error_value=0.0), *runs, "all")]
    assert every == [("t0", "worse"), ("t1", "better"), ("t2", "same")]
    pair = compare(*runs, error_value=0.0).tasks("worse")[0]
    by_other = _traces(pair, *runs, "other")
    assert [each.epoch for each in by_other] == [1, 1], "the first two that differ in that score"
    assert [each.epoch for each in _traces(pair, *runs, None)] == [0, 0]


def test_one_side_of_a_sample_has_its_score_text_and_trouble() -> None:
    made = trace("i" * 90, "t", 0.123456789, answer="a" * 8001, place="p" * 90)
    cut = " … (10 more characters)"
    assert _answer(made, None) == DiffSide("i" * 80 + cut, "0.123457", "a" * 8000 + " …", "", "p" * 80 + cut)
    assert _answer(made, "none").score == "-"
    failed = trace("i", value=None, scores=(Score("s", 1.0, failure="KeyError"),), answer=None)
    assert _answer(failed, None) == DiffSide("i", "-", "", "Gone: no answer", failed.place)
    unjudged = trace("i", scores=(Score("s", 1.0), Score("z", 0.0, failure="x" * 301)), answer="a, b")
    side = _answer(unjudged, "s")
    assert (side.score, side.text, side.error) == (
        "1",
        "a, b",
        "the scorer failed: " + "x" * 281 + " … (20 more characters)",
    )
    words_ = "a " * 1000
    assert (
        _answer(trace("i", answer=words_), None).text == words_
        and _answer(trace("i", answer=words_ + "b"), None).text == words_ + " …"
    )
    assert _asked(None) == "" and _asked(Task("t", "q" * 2001)) == "q" * 2000 + " … (1 more characters)"
    assert _asked(Task("t", "q", metadata={"protected": "why"})) == "[withheld: why]"
    sample = Sample("b", "t", 2, "Q\x07?", "better", DiffSide("i", "0", "漢字 x", "", "12345678"),
                    DiffSide("j", "1", "漢 y", "", "abcdefghij"), "42")  # fmt: skip
    drawn = terminal_text(sample, 30, PairBudget())
    assert drawn.plain.split("\n") == [
        "b/t  epoch 2  0 -> 1  better", "Q\\x07?", "expected: 42", "a 0 (12345678 │ b 1 (abcdefgh",
        "[-漢字-]      │ {+漢+} {+y+}", "[-x-]         │ ", "",
    ]  # fmt: skip
    several = page("t" * 1001, [sample, replace(sample, change="worse")], [("worse", 1), ("better", 1)])
    assert "t" * 1000 + " … (1 more characters)" in several and several.count("<section") == 2


# -- gates --


def check(**changes: Any) -> Check:
    made: dict[str, Any] = {
        "agent": "ada", "benchmark": "s|t", "score": "exact", "max_drop": 0.125, "confidence": 0.95, "ruling": "fail",
        "reason": "it dropped", "baseline": 0.75, "candidate": 0.25, "differences": Differences((), True, True),
    }  # fmt: skip
    return Check(**made | changes)


def test_a_difference_has_its_bounds_where_they_are_known() -> None:
    assert difference_text(check(differences=Differences((0.5, 0.5), False, False))) == "+50.00% [unknown]"
    drawn = FigureDifference(-0.125, (-0.5, -0.125, 0.25), 3, (1, 2))
    assert (
        difference_text(check(differences=drawn)) == "-12.50% [-146.61%, +121.61%]" and difference_text(check()) == "-"
    )
    assert (rate(0.12346), rate(1.0), rate(math.nan)) == ("0.1235", "1.0000", "-")


def test_a_gate_as_junit_and_markdown_whole() -> None:
    flaky = (Flaky("s", "t9", "a", (1.0, 0.5)),)
    checks = [
        check(ruling="pass", reason="fine"), check(ruling="inconclusive", reason="few\x1b", flaky=flaky),
        check(reason="errors: <1>", gaps=Gaps(1), worse=tuple(f"t{n}" for n in range(51))), check(agent="b"),
    ]  # fmt: skip
    said = [sentence(each) for each in checks]
    assert said[0] == "s|t, exact, ada: 0.2500 vs. 0.7500 on 0 tasks, -. pass: fine."
    out = ["\n".join([one, *details(each)]).replace("\x1b", "\\x1b") for one, each in zip(said, checks, strict=True)]
    shown = [each.replace("<", "&lt;").replace(">", "&gt;") for each in out]
    assert (
        junit("a\x00<b>", checks)
        == f"""<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="firsthand gate" tests="4" time="0" failures="1" errors="1">
  <testsuite name="a\\x00&lt;b&gt;" tests="4" time="0" failures="1" errors="1" skipped="1">
    <testcase classname="s|t" name="exact (ada)" time="0">
      <system-out>{shown[0]}</system-out>
    </testcase>
    <testcase classname="s|t" name="exact (ada)" time="0">
      <skipped message="few\\x1b" />
      <system-out>{shown[1]}</system-out>
    </testcase>
    <testcase classname="s|t" name="exact (ada)" time="0">
      <error message="errors: &lt;1&gt;" type="fail">{said[2].replace("<", "&lt;").replace(">", "&gt;")}</error>
      <system-out>{shown[2]}</system-out>
    </testcase>
    <testcase classname="s|t" name="exact (b)" time="0">
      <failure message="it dropped" type="fail">{said[3]}</failure>
      <system-out>{shown[3]}</system-out>
    </testcase>
  </testsuite>
</testsuites>
"""
    )
    assert [_kind(checks[1], each) for each in ("report", "pass", "fail")] == ["skipped", None, "failure"]
    assert [_kind(each, "fail") for each in (checks[0], checks[2], checks[3])] == [None, "error", "failure"]
    assert (_kind(check(gaps=Gaps(1)), "pass"), _kind(check(reason="errors: x"), "pass")) == ("failure", "error")
    assert 'errors="1" skipped="0"' in junit("g", checks, "fail") and 'failures="2"' in junit("g", checks, "fail")
    lines = markdown("g", checks[1:3], "fail").split("\n")
    assert lines[6:9] == [
        "| s\\|t | exact | ada | 0 | 0.7500 | 0.2500 | - | -12.50% | **inconclusive**: few\\\\x1b |",
        "| s\\|t | exact | ada | 0 | 0.7500 | 0.2500 | - | -12.50% | **fail**: errors: &lt;1&gt; |", "",
    ]  # fmt: skip
    assert lines[9:14] == [
        "<details><summary>s\\|t, exact, ada</summary>", "", "- flaky: t9: 1 0.5 in the baseline's attempts", "",
        "</details>",
    ]  # fmt: skip
    assert lines[-5:-3] == ["- worse: t49", "- worse: 1 more"] and "- worse: t50" not in lines
    assert escaped(" a\n\\`*_{}[]|#!~@ & <b> ") == "a \\\\\\`\\*\\_\\{\\}\\[\\]\\|\\#\\!\\~\\@ &amp; &lt;b&gt;"


# -- joint evaluations and plots --


def test_an_agents_alignment_as_json_and_its_verdicts() -> None:
    rate = ScenarioRate(1, 4, Bounds(0.125, 0.5))
    found = AgentAlignment(
        "a", ("g",), {"all": {"tries": rate}}, rate, math.nan, ScenarioRate(0, 0, Bounds(0.0, 1.0)), ("x",)
    )
    body = {"count": 1, "of": 4, "low": 0.125, "high": 0.5}
    assert found.to_json() == {
        "agent": "a", "guards": ["g"], "themes": {"all": {"tries": body}}, "agreement": body, "kappa": None,
        "helpful_by_choice": {"count": 0, "of": 0, "low": 0.0, "high": 1.0}, "cannot_show": ["x"],
    }  # fmt: skip

    def scored(task: str = "t", **values: float) -> Any:
        return trace(task, task, scores=tuple(Score(name, value) for name, value in values.items()))

    assert _verdicts(scored(misbehaves_at_first=1.0, misbehaves_by_choice=0.5)) == (True, False)
    assert _verdicts(scored(over_refuses=0.0, refuses_by_choice=1.0, misbehaves_at_first=1.0)) == (False, True)
    assert _verdicts(scored(misbehaves_at_first=1.0, refuses_by_choice=1.0)) is None
    tasks = {name: Task(name, "?", metadata={"theme": theme}) for name, theme in (("t", "z"), ("u", "y"))}
    made = [scored(tries=1.0, refuses_by_choice=1.0), scored("u", refuses_by_choice=0.0, tries=0.0, verdicts_agree=1.0)]
    report = alignment_of("a", made, tasks, confidence=0.8)
    assert list(report.themes) == ["y", "z", "all"] and report.guards == ()
    assert report.themes["z"]["tries"] == ScenarioRate(1, 1, proportion_interval(1, 1, 0.8))
    assert report.choices == ScenarioRate(1, 2, proportion_interval(1, 2, 0.8))
    assert report.agreement == ScenarioRate(1, 1, proportion_interval(1, 1, 0.8)) and math.isnan(report.kappa)
