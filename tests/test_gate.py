"""A gate lets through what is shown to be no worse, stops what is shown to be, and says so where the data show neither."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from firsthand.cli import main
from firsthand.runs.flaky import flaky
from firsthand.runs.pairing import compare
from firsthand.runs.store import Run, create
from firsthand.show.gate_report import junit, markdown
from firsthand.stats.figures import micro_f1
from firsthand.stats.non_inferiority import Check, Gaps, rule, verdict
from firsthand.stats.paired import Differences
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace

HOSTILE = "t\x1b[31m|`<script>&\x00\ud800"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def attempt(
    run: Run,
    task: str,
    value: float | None,
    *,
    benchmark: str = "sums",
    agent: str = "ada",
    epoch: int = 0,
    **more: Any,
) -> None:
    scores = () if value is None else (Score("exact", value), *more.pop("extra", ()))
    error = Failure("ModelError", "no answer") if value is None else None
    key = f"{benchmark}-{agent}-{task}-{epoch}"
    run.append(Trace(key, benchmark, task, {"name": agent}, epoch, 0, "", 1.0, scores=scores, error=error, **more))


def made(home: Path, values: list[float | None], *, name: str = "sums", agents: tuple[str, ...] = ("ada",)) -> Run:
    """A run in which each agent scored these values."""
    run = create(home, {"seed": 0}, name)
    for agent in agents:
        run.add_agent(agent, {"name": agent})
        for number, value in enumerate(values):
            attempt(run, f"t{number}", value, agent=agent)
    return run


def gate(*words: str) -> int:
    return main(["gate", *words])


def rights(n: int, wrong: int = 0) -> list[float | None]:
    return [0.0] * wrong + [1.0] * (n - wrong)


def check(better: int, lost: int, same: int, max_drop: float = 0.01, confidence: float = 0.95, **more: Any) -> Check:
    values = (1.0,) * better + (-1.0,) * lost + (0.0,) * same
    return Check(
        "ada", "sums", "exact", max_drop, Differences(values, True, True), confidence, "inconclusive", "", **more
    )


@pytest.mark.slow
def test_the_three_rulings_have_their_exit_codes(home: Path, capsys: Any) -> None:
    base, same = made(home, rights(200, 20)), made(home, rights(200, 20))
    worse, few = made(home, rights(200, 40)), made(home, rights(30, 3))
    few_base = made(home, rights(30, 3))
    assert gate(base.id, same.id, "--max-drop", "2%", "--confidence", "95%") == 0
    assert gate(base.id, worse.id, "--max-drop", "1%") == 1
    assert gate(few_base.id, few.id, "--max-drop", "1%") == 4
    out = capsys.readouterr().out
    assert "gate: pass" in out and "gate: fail" in out and "gate: inconclusive" in out
    assert "a drop of more than 2.00% is excluded" in out and "the score dropped by more than 1.00%" in out
    assert "tasks decide with 80% power" in out
    assert gate(few_base.id, few.id, "--inconclusive", "pass") == 0
    assert gate(few_base.id, few.id, "--inconclusive", "fail") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--max-drop much", "max_drop is 'much': a fraction was expected"),
        ("--max-drop -1%", "a drop is 0 or more"),
        ("--max-drop 1%,2%", "gives two drops"),
        ("--max-drop sum=1%", "did you mean 'sums'"),
        ("--max-drop sums/exakt=1% --score exact", "did you mean 'sums/exact'"),
        ("--confidence 30%", "from 50% to below 100%"),
        ("--benchmark summs", "no benchmark 'summs'; did you mean 'sums'"),
        ("--score exakt", "no score 'exakt'; did you mean 'exact'"),
        ("--errors ignore", "one of fail, drop, zero"),
        ("--agent-a bob", "no agent 'bob'"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(home: Path, capsys: Any, words: str, said: str) -> None:
    base = made(home, rights(4))
    options = [f"{word}" for word in words.replace("--max-drop -1%", "--max-drop=-1%").split()]
    assert gate(base.id, base.id, *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_errors_fail_the_gate_unless_it_is_told_otherwise(home: Path, capsys: Any) -> None:
    base, broken = made(home, rights(150)), made(home, [None, None, *rights(148)])
    assert gate(base.id, broken.id) == 1
    assert "errors: 2 attempts of the candidate without a score" in capsys.readouterr().out
    assert gate(base.id, broken.id, "--errors", "drop", "--max-drop", "3%", "--json") == 0
    [dropped] = json.loads(capsys.readouterr().out)["checks"]
    assert dropped["tasks"] == 148 and dropped["errors"] == {"baseline": 0, "candidate": 2}
    assert gate(base.id, broken.id, "--errors", "zero", "--max-drop", "3%", "--json") == 4
    [zero] = json.loads(capsys.readouterr().out)["checks"]
    assert (zero["tasks"], zero["worse"], zero["errors"]["candidate"]) == (150, 2, 2)


def test_a_scorer_that_raised_is_an_error_and_no_zero(home: Path, capsys: Any) -> None:
    base, candidate = made(home, rights(50)), made(home, rights(49))
    candidate.append(
        Trace("x", "sums", "t49", {"name": "ada"}, 0, 0, "", 1.0, scores=(Score("exact", 0.0, failure="Bug"),))
    )
    assert gate(base.id, candidate.id) == 1
    assert "1 attempt of the candidate without a score" in capsys.readouterr().out
    assert gate(base.id, candidate.id, "--score", "exact") == 1


@pytest.mark.slow
def test_missing_and_changed_tasks_are_not_passed_over(home: Path, capsys: Any) -> None:
    base, shorter = made(home, rights(200)), made(home, rights(150))
    assert gate(base.id, shorter.id) == 1
    assert "50 tasks that the candidate did not attempt" in capsys.readouterr().out
    assert gate(base.id, shorter.id, "--errors", "drop", "--max-drop", "3%") == 0
    base.add_tasks("sums", [Task("t0", "2 + 2")])
    shorter.add_tasks("sums", [Task("t0", "2 + 3")])
    assert gate(base.id, shorter.id) == 1
    assert "1 task not the same in both runs" in capsys.readouterr().out


@pytest.mark.slow
def test_each_benchmark_and_score_has_its_own_bar(home: Path, capsys: Any) -> None:
    base, candidate = create(home, {}, "two"), create(home, {}, "two")
    for run, wrong in ((base, 0), (candidate, 12)):
        run.add_agent("ada", {"name": "ada"})
        for number in range(200):
            attempt(run, f"t{number}", float(number >= wrong), extra=(Score("strict", 1.0),))
            attempt(run, f"w{number}", 1.0, benchmark="words")
    assert gate(base.id, candidate.id, "--max-drop", "2%") == 1
    assert gate(base.id, candidate.id, "--max-drop", "2%,sums=12%") == 0
    assert gate(base.id, candidate.id, "--max-drop", "2%", "--benchmark", "words") == 0
    assert (
        gate(base.id, candidate.id, "--max-drop", "0%,sums=2%,sums/exact=12%,words=2%") == 0
    )  # the closest name counts
    assert gate(base.id, candidate.id, "--max-drop", "12%,sums=12%,sums/exact=2%") == 1
    capsys.readouterr()
    assert gate(base.id, candidate.id, "--max-drop", "2%,sums/exact=12%", "--score", "exact,strict", "--json") == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [(each["benchmark"], each["score"], each["max_drop"]) for each in checks] == [
        ("sums", "exact", 0.12), ("words", "exact", 0.02), ("sums", "strict", 0.02),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("truth", [-0.05, -0.02])
def test_a_candidate_that_is_too_bad_passes_at_most_one_time_in_twenty(truth: float) -> None:
    draws = np.random.default_rng(1).multinomial(300, [0.1, 0.1 - truth, 0.8 + truth], 1500)
    rulings = [rule([check(int(b), int(c), int(s), max_drop=-truth)])[0].ruling for b, c, s in draws]
    error = 3.5 * math.sqrt(0.05 * 0.95 / len(draws))
    for wrong in ("pass", "fail"):  # the truth is the bar itself, where both are hardest to avoid
        assert rulings.count(wrong) / len(draws) <= 0.05 + error + 0.005
        assert rulings.count(wrong) / len(draws) >= 0.03


@pytest.mark.slow
def test_an_equally_good_candidate_passes_four_times_in_five_with_the_tasks_it_was_told() -> None:
    from firsthand.stats.power_analysis import margin_tasks_needed

    n = margin_tasks_needed(0.02, 0.1)
    draws = np.random.default_rng(2).multinomial(n, [0.05, 0.05, 0.9], 1500)
    passed = [rule([check(int(b), int(c), int(s), max_drop=0.02)])[0].ruling == "pass" for b, c, s in draws]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.045)


def test_failing_is_corrected_for_the_number_of_checks_and_passing_is_not() -> None:
    alone, good = check(3, 14, 83), check(5, 5, 990, max_drop=0.02)
    assert rule([alone])[0].ruling == "fail"
    many = rule([alone, *[check(5, 5, 90)] * 30])
    assert many[0].ruling == "inconclusive" and verdict(many) == "inconclusive"
    assert [each.ruling for each in rule([good] * 30)] == ["pass"] * 30


def test_the_worst_check_decides() -> None:
    good, bad, unsure = check(5, 5, 990), check(0, 60, 940), check(1, 1, 20)
    assert [each.ruling for each in rule([good, bad, unsure])] == ["pass", "fail", "inconclusive"]
    assert verdict(rule([good, unsure])) == "inconclusive" and verdict(rule([good, unsure]), "pass") == "pass"
    assert verdict(rule([good, unsure]), "fail") == "fail" and verdict(rule([good, unsure, bad]), "pass") == "fail"
    assert verdict(rule([good])) == "pass"


def test_junit_is_read_as_it_is_meant_and_holds_hostile_names() -> None:
    checks = rule(
        [
            check(5, 5, 990, worse=(HOSTILE,)),
            check(0, 60, 940),
            check(1, 1, 20),
            check(0, 0, 9, gaps=Gaps(candidate_errors=2)),
        ]
    )
    text = junit(HOSTILE, checks)
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites" and [child.tag for child in root] == ["testsuite"]
    suite = root[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [["system-out"], ["failure", "system-out"], ["skipped", "system-out"], ["error", "system-out"]]
    assert all(case.get("classname") and case.get("name") and float(case.get("time", "x")) == 0 for case in suite)
    assert "<script>" in (suite[0].findtext("system-out") or "") and "<script>" not in text
    assert ElementTree.fromstring(junit("x", checks, "fail"))[0].get("failures") == "2"


def test_markdown_cannot_be_broken_out_of(home: Path) -> None:
    text = markdown(HOSTILE, rule([check(0, 60, 940, worse=(HOSTILE + ": 1 -> 0",))]), "fail")
    assert "<script>" not in text and "\x1b" not in text and "\\|" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    text.encode()


@pytest.mark.slow
def test_files_are_written_for_ci(home: Path, tmp_path: Path, capsys: Any) -> None:
    base, worse = made(home, rights(100)), made(home, rights(100, 10))
    code = gate(base.id, worse.id, "--junit", str(tmp_path / "gate.xml"), "--markdown", str(tmp_path / "gate.md"))
    assert code == 1
    case = ElementTree.parse(tmp_path / "gate.xml").getroot()[0][0]
    failure = case.find("failure")
    assert failure is not None and "dropped by more than 1.00%" in failure.get("message", "")
    assert "worse: t0: 1 -> 0" in (case.findtext("system-out") or "")
    assert "| **fail**" in (tmp_path / "gate.md").read_text()
    assert gate(base.id, worse.id, "--junit", str(tmp_path / "no" / "gate.xml")) == 2
    assert "No such file" in capsys.readouterr().err


def test_flaky_tasks_are_found_within_a_run_and_between_two_of_one_seed(home: Path, capsys: Any) -> None:
    first, second = made(home, [1.0, 1.0, 0.0]), made(home, [1.0, 0.0, 0.0])
    attempt(first, "t2", 1.0, epoch=1)
    attempt(second, "t2", 1.0, epoch=1)
    found = flaky(compare(first, second))
    assert {(each.task_id, each.where, each.values) for each in found} == {
        ("t1", "between", (1.0, 0.0)), ("t2", "a", (0.0, 1.0)), ("t2", "b", (0.0, 1.0)),
    }  # fmt: skip
    assert found[0].disagreement == 1
    other = create(home, {"seed": 1}, "sums")
    other.add_agent("ada", {"name": "ada"})
    for number in range(3):
        attempt(other, f"t{number}", 0.0)
    assert [each.where for each in flaky(compare(first, other))] == ["a"]  # another seed may score otherwise
    assert main(["compare", first.id, second.id, "--flaky"]) == 0
    assert "flaky tasks (3)" in capsys.readouterr().out
    gate(first.id, second.id, "--json")
    assert len(json.loads(capsys.readouterr().out)["checks"][0]["flaky"]) == 3


@pytest.mark.slow
def test_clustered_tasks_make_the_gate_more_careful(home: Path, capsys: Any) -> None:
    base, candidate = made(home, rights(300)), made(home, rights(300, 24))
    assert gate(base.id, candidate.id, "--max-drop", "4%") == 1
    tasks = [Task(f"t{n}", "?", metadata={"cluster": f"passage {n // 30}"}) for n in range(300)]
    clustered_base, clustered = made(home, rights(300)), made(home, rights(300, 24))
    for run in (clustered_base, clustered):
        run.add_tasks("sums", tasks)
    assert gate(clustered_base.id, clustered.id, "--max-drop", "4%") == 4  # all losses are in one passage of ten
    assert clustered.clusters()["sums"]["t31"] == "passage 1"


@pytest.mark.slow
def test_prompts_are_compared_two_by_two(home: Path, capsys: Any) -> None:
    run = create(home, {}, "prompts")
    for agent, right in {"short": 20, "long": 60, "poem": 22}.items():
        run.add_agent(agent, {"name": agent})
        for number in range(80):
            attempt(run, f"t{number}", float(number < right), agent=agent)
    assert main(["compare", run.id, "--json"]) == 0
    found = {(each["a"], each["b"]): each for each in json.loads(capsys.readouterr().out)}
    assert {pair: each["verdict"] for pair, each in found.items()} == {
        ("short", "long"): "better", ("short", "poem"): "inconclusive", ("long", "poem"): "worse",
    }  # fmt: skip
    assert main(["compare", run.id]) == 0
    assert "corrected for 3 comparisons (Holm)" in capsys.readouterr().out
    assert main(["compare", run.id, run.id, run.id, "--correct", "none", "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert all(each["p_value"] <= found[each["a"], each["b"]]["p_value"] for each in raw)
    lone = made(home, rights(3))
    assert main(["compare", lone.id]) == 2 and "one agent only" in capsys.readouterr().err
    assert main(["compare", lone.id, run.id, lone.id, "--correct", "bh", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6
    assert main(["compare", run.id, "--diff"]) == 2


def test_prompts_are_compared_by_the_benchmarks_figures_too_unless_a_score_is_named(home: Path, capsys: Any) -> None:
    run = create(home, {}, "figures")
    for agent, right in {"short": 2, "long": 6, "poem": 4}.items():
        run.add_agent(agent, {"name": agent})
        for number in range(8):
            labels = micro_f1("labels", {"x"} if number < right else {"y"}, {"x"})
            attempt(run, f"t{number}", float(number < right), agent=agent, extra=(labels,))
    for words, scores in (((), ["exact"] * 3 + ["labels"] * 3), (("--score", "exact"), ["exact"] * 3)):
        assert main(["compare", run.id, *words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [each["score"] for each in found] == scores
        assert [each["difference"] for each in found] == pytest.approx([0.5, 0.25, -0.25] * (len(scores) // 3))


def test_clusters_that_only_a_later_run_knows_are_allowed_for_in_pairs(home: Path, capsys: Any) -> None:
    plain, other = made(home, rights(20), name="other"), made(home, rights(20, 4), agents=("ada", "bob"))
    other.add_tasks("sums", [Task(f"t{n}", "?", metadata={"cluster": f"passage {n // 5}"}) for n in range(20)])
    words = ["compare", plain.id, other.id, plain.id, "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 3 and {each["clusters"] for each in found} == {4}


def test_an_agent_of_the_baseline_that_the_candidate_lacks_fails_as_missing_tasks_do(home: Path, capsys: Any) -> None:
    base, other = made(home, rights(100), agents=("ada", "bob")), made(home, rights(100), agents=("ada", "new"))
    first, second = base.id, other.id
    told = "the candidate has no agent of this name"
    assert gate(first, second, "--max-drop", "10%") == 1
    said = capsys.readouterr().out
    assert f"sums, exact, bob: errors: {told}: name the two to compare with --agent-a and --agent-b" in said
    for errors in ("drop", "zero"):
        assert gate(first, second, "--max-drop", "10%,sums/exact=20%", "--errors", errors, "--json") == 0
        checks = json.loads(capsys.readouterr().out)["checks"]
        assert [(each["agent"], each["ruling"], each["max_drop"]) for each in checks] == [
            ("ada", "pass", 0.2),
            ("bob", "pass", 0.2),
        ]
        assert checks[1]["reason"] == f"left out: {told}"
        assert [each["no_agent"] for each in checks] == [False, True]
    for named in (("--agent-a", "ada"), ("--agent-b", "ada", "--agent-a", "bob")):
        assert gate(first, second, "--max-drop", "10%", *named) == 0, "the agents to check are named"
        assert told not in capsys.readouterr().out
    base.append(Trace("x", "more", "t0", {"name": "bob"}, 0, 0, "", 1.0, scores=(Score("exact", 1.0),)))
    assert gate(first, second, "--max-drop", "10%", "--benchmark", "more") == 1
    assert gate(first, second, "--max-drop", "10%", "--errors", "drop", "--benchmark", "sums", "--json") == 0
    checks = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["checks"]
    assert [(each["benchmark"], each["agent"]) for each in checks] == [("sums", "ada"), ("sums", "bob")]
