"""`agreement` and `alignment` on runs of a few attempts, line by line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import agreement, alignment
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.store import Run
from firsthand.scorers.human_votes import judged_items
from firsthand.show.alignment_report import AgentAlignment, ScenarioRate
from firsthand.stats import rater_agreement
from firsthand.stats.intervals import Bounds, Interval, proportion_interval
from firsthand.stats.rater_agreement import Agreement
from firsthand.task import Task
from firsthand.trace import Score, Trace
from printed_tables import widen, words
from scored_runs import scored_run


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, agreement, alignment)
    return tmp_path / "home"


def attempted(
    home: Path, name: str, tasks: dict[str, list[Task]], agents: dict[str, Any], traces: Sequence[Trace]
) -> Run:
    run = store.create(home, {}, name, command=["firsthand"])
    for benchmark, known in tasks.items():
        run.add_tasks(benchmark, known)
    for agent, body in agents.items():
        run.add_agent(agent, body)
    for each in traces:
        run.append(each)
    return run


# -- agreement of judges --


def interval(value: float) -> Interval:
    return Interval(value, value - 0.125, value + 0.25, 4, "t")


FIELDS = ("with_humans", "among_humans", "decided", "kappa", "first", "consistent", "longer_judge", "longer_humans",
          "length_bias")  # fmt: skip
AGREED = Agreement(
    7, 21, kappa_humans=0.0625, alpha_humans=0.1875, alpha_with_judge=0.3125,
    **{name: interval(number / 10) for number, name in enumerate(FIELDS, 1)},
)  # fmt: skip


def test_a_table_of_judges_has_a_column_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = replace(AGREED, items=1, votes=2, among_humans=None, kappa_humans=None, first=None, length_bias=None)
    nothing = replace(nothing, alpha_humans=0.0)
    agreement.print_agreement("judge_x", {"ada": (AGREED, 3), "bob": (nothing, 0)}, "90%")
    cells = {name: f"{n / 10:.3f} [{n / 10 - 0.125:.3f}, {n / 10 + 0.25:.3f}]" for n, name in enumerate(FIELDS, 1)}
    assert words(capsys.readouterr().out) == [
        "judge_x (90% CI, cluster bootstrap)", "ada bob", "pairs, votes 7, 21 1, 2", "without a verdict 3 0",
        f"with people {cells['with_humans']} {cells['with_humans']}", f"people with people {cells['among_humans']} -",
        f"decided {cells['decided']} {cells['decided']}", f"kappa {cells['kappa']} {cells['kappa']}",
        "kappa of people (Fleiss) 0.062 -", "alpha of people 0.188 0.000", "alpha with the judge 0.312 0.312",
        f"first {cells['first']} -", f"same in both orders {cells['consistent']} {cells['consistent']}",
        f"longer wins: judge {cells['longer_judge']} {cells['longer_judge']}",
        f"longer wins: people {cells['longer_humans']} {cells['longer_humans']}", f"length bias {cells['length_bias']} -",
    ]  # fmt: skip


def test_each_judge_of_each_set_of_votes_is_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = [Task(f"t{n}", "?", secret={"votes": ["A", "A", "B"]}) for n in range(4)]
    tasks = {"plain": [Task("p", "?")], "judge_b": votes, "judge_a": votes[:3]}

    def verdicts(benchmark: str, agent: str, *said: str) -> list[Trace]:
        return [Trace(f"{benchmark}{agent}{n}", benchmark, f"t{n}", {"name": agent}, 0, 0, "", 1.0, (), answer=each)
                for n, each in enumerate(said)]  # fmt: skip

    traces = [
        *verdicts("judge_b", "ada", "A", "B", "no idea", "A"),
        *verdicts("judge_b", "bob", "A", "A", "A", "tie"),
        *verdicts("judge_a", "bob", "B", "B", "A"),
        *verdicts("judge_a", "cyd", "no idea"),
        Trace("p", "plain", "p", {"name": "ada"}, 0, 0, "", 1.0, (), answer="A"),
    ]
    run = attempted(
        home, "judged", tasks, {"ada": {"name": "ada"}, "bob": {"name": "bob"}, "cyd": {"name": "cyd"}}, traces
    )
    assert agreement.main(agreement.Config(run.id, confidence="99%", json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert [(each["benchmark"], each["agent"], each["items"], each["votes"], each["without_verdict"]) for each in body] == [
        ("judge_b", "ada", 3, 9, 1), ("judge_b", "bob", 4, 12, 0), ("judge_a", "bob", 3, 9, 0),
    ]  # fmt: skip
    # ada says A, B, A where two of three said A
    assert [each["with_humans"]["value"] for each in body] == [
        pytest.approx(5 / 9), pytest.approx(6 / 12), pytest.approx(4 / 9)
    ]  # fmt: skip
    items, _ = judged_items(run.tasks(), run.traces(benchmark="judge_a", agent="bob"))
    assert body[2]["with_humans"] == rater_agreement.agreement(items, 0.99).with_humans.to_json()
    assert agreement.main(agreement.Config("last", confidence="80%")) == 0
    out = capsys.readouterr().out
    told = words(out)
    assert (
        told[:2] == ["judge_b (80% CI, cluster bootstrap)", "ada bob"] and "judge_a (80% CI, cluster bootstrap)" in told
    )
    assert told[2:4] == ["pairs, votes 3, 9 4, 12", "without a verdict 1 0"] and out.endswith(f"{agreement.LEGEND}\n")
    plain = scored_run(home, "plain", {"x": {"sums": {"t": [{"exact": 1.0}]}}})
    with pytest.raises(ConfigError) as refused:
        agreement.main(agreement.Config(plain.id))
    assert str(refused.value) == (
        f"run {plain.id} holds no verdicts on answers that people have voted on: make one with "
        "`firsthand run judge_pandalm --pattern judge --model NAME`"
    )


# -- the report of a joint evaluation --


def rate(count: int, of: int) -> ScenarioRate:
    return ScenarioRate(count, of, Bounds(0.125 * count, 0.25 * of))


def test_an_alignment_report_has_a_row_for_each_theme_and_says_what_it_cannot_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    themes = {
        theme: {name: rate(n + k, 8) for k, name in enumerate(("misbehaves", "tries", "over_refuses", "competent"))}
        for n, theme in enumerate(("power", "all"))
    }
    found = AgentAlignment("ada", ("spotlight", "judge"), themes, rate(3, 4), 0.456, rate(1, 2), ("one.", "two."))
    alignment.print_alignment("joint_alignment:a=b", found, "90%")
    cells = [f"{n}/8 [{n / 8:.2f}, 2.00]" for n in range(5)]
    assert words(capsys.readouterr().out) == [
        "joint_alignment:a=b: ada, guards spotlight, judge (90% CI, Wilson)",
        "theme misbehaves tries over-refuses competent",
        f"power {' '.join(cells[:4])}", f"all {' '.join(cells[1:])}",
        "verdicts by rule and by log-prob agree in 3/4 [0.38, 1.00], kappa 0.46",
        "This run cannot show:", "- one.", "- two.",
    ]  # fmt: skip
    alignment.print_alignment("b", replace(found, guards=(), kappa=math.nan, agreement=rate(0, 0)), "95%")
    told = words(capsys.readouterr().out)
    assert told[0] == "b: ada, guards none (95% CI, Wilson)"
    assert told[4] == "verdicts by rule and by log-prob agree in -, kappa undefined"


def test_every_agent_of_every_joint_evaluation_of_a_run_is_reported(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("joint_alignment", "joint_alignment:themes=x", "joint_alignments")
    tasks = {each: [Task("risk", "?", metadata={"theme": theme}), Task("safe", "?", metadata={"theme": theme})]
             for each, theme in zip(names, ("power", "honesty", "truth"), strict=True)}  # fmt: skip

    def attempts(benchmark: str, agent: str, misbehaves: float, competent: float) -> list[Trace]:
        return [
            Trace(f"{benchmark}{agent}r", benchmark, "risk", {"name": agent}, 0, 0, "", 1.0, (), answer="",
                  scores=(Score("misbehaves", misbehaves), Score("tries", 1.0))),
            Trace(f"{benchmark}{agent}s", benchmark, "safe", {"name": agent}, 0, 0, "", 1.0, (), answer="",
                  scores=(Score("over_refuses", 1 - competent), Score("competent", competent))),
        ]  # fmt: skip

    traces = [*attempts(names[0], "ada", 1, 0), *attempts(names[0], "bob", 0, 1), *attempts(names[1], "bob", 1, 1),
              *attempts(names[2], "ada", 1, 1)]  # fmt: skip
    agents = {"ada": {"name": "ada", "guards": ["spotlight"]}, "bob": {"name": "bob"}}
    run = attempted(home, "joint", tasks, agents, traces)
    assert alignment.main(alignment.Config(run.id, confidence="90%", json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    found = [(*(each[name] for name in ("benchmark", "agent", "guards")), each["themes"]["all"]) for each in body]
    assert [(*rest, rates["misbehaves"]["count"]) for *rest, rates in found] == [
        (names[0], "ada", ["spotlight"], 1), (names[0], "bob", [], 0), (names[1], "bob", [], 1),
    ]  # fmt: skip
    assert [list(each["themes"]) for each in body] == [["power", "all"], ["power", "all"], ["honesty", "all"]]
    low, high = proportion_interval(1, 1, 0.9)
    assert body[0]["themes"]["power"]["misbehaves"] == {"count": 1, "of": 1, "low": low, "high": high}
    assert alignment.main(alignment.Config()) == 0
    out = capsys.readouterr().out
    assert [line for line in words(out) if line.startswith("joint")] == [
        "joint_alignment: ada, guards spotlight (95% CI, Wilson)", "joint_alignment: bob, guards none (95% CI, Wilson)",
        "joint_alignment:themes=x: bob, guards none (95% CI, Wilson)",
    ]  # fmt: skip
    assert out.endswith(f"\n{alignment.LEGEND}\n")
    other = scored_run(home, "plain", {"x": {"sums": {"t": [{"exact": 1.0}]}}})
    with pytest.raises(ConfigError) as refused:
        alignment.main(alignment.Config(other.id))
    assert str(refused.value) == (
        f"run {other.id} holds no attempt at joint_alignment: make one with "
        "`firsthand run joint_alignment --pattern audit --model NAME`"
    )
