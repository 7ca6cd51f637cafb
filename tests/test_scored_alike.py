"""Scores of different scorers in two runs: told by every comparison, and no gate passes on them without being asked to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.boards.read_results import read_results
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.settings import RunSettings
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.runs.flaky import flaky
from firsthand.runs.pairing import compare
from firsthand.runs.run_folder import Run
from firsthand.runs.scored_alike import OtherScorers, other_scorers, other_scorers_among, same_code
from firsthand.task import Task
from firsthand.trace import Score, Trace

Cli = Callable[..., tuple[int, str, str]]
LOOSE, TIGHT = "regex:pattern=([0-9]+)", "regex:pattern=^([0-9]+)$"
SCORER = "def good(task, trace):\n    return trace.answer == task.secret['answer']\n"
PATTERN = "async def prompt(task, ctx):\n    return '7'\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("q,a\n" + "".join(f"What is {number}?,7\n" for number in range(80)))
    Path("m.json").write_text(json.dumps({"": "I guess 7"}))
    Path("sc.py").write_text(SCORER)
    Path("prompt.py").write_text(PATTERN)
    return tmp_path / "home"


def described(*scorers: str, file: str = "e.toml", name: str = "re") -> None:
    text = f'data="t.csv"\nname="{name}"\nprompt="{{q}}"\ntarget="{{a}}"\nscorer={json.dumps(list(scorers))}\n'
    Path(file).write_text(text)


def ran(file: str = "./e.toml", **more: Any) -> str:
    settings = RunSettings(**{"benchmarks": (file,), "model": ("scripted:m.json",), **more})
    with Experiment.from_settings(settings).run() as run:
        return run.id


def opened(home: Path, *ids: str) -> list[Run]:
    return [store.open_run(each, home) for each in ids]


def forget(home: Path, id: str, *parts: str) -> str:
    """The run as an older version would have made it: without what it did not keep."""
    with store.open_run(id, home) as run:
        about = {key: value for key, value in run.about.items() if key not in parts}
        made = store.create(home, about["config"], "old", protocols=about["protocols"], files=about["files"])
        for (benchmark, _), task in run.tasks().items():
            made.add_tasks(benchmark, [task])
        for name, agent in run.agents().items():
            made.add_agent(name, agent)
        for trace in run.traces():
            made.append(trace)
        made.finish("done")
        made.close()
        return made.id


def test_another_option_of_a_scorer_fails_a_gate_and_is_told_by_a_comparison(cli: Cli, home: Path) -> None:
    described(TIGHT)
    a = ran()
    described(LOOSE)
    b = ran()
    code, out, _ = cli("gate", a, b, "--max-drop", "5%", "--json")
    check = json.loads(out)["checks"][0]
    why = f"{TIGHT} and {LOOSE}"
    assert (code, check["ruling"]) == (1, "fail")
    assert check["other_scorers"] == [{"benchmark": "re", "score": "regex", "why": why, "sure": True}]
    assert check["reason"].startswith(f"errors: scores of a different scorer in each run ({why})")
    assert cli("gate", a, b, "--max-drop", "5%", "--errors", "drop")[0] == 1
    code, out, _ = cli("gate", a, b, "--max-drop", "5%", "--scorers", "any")
    told = f"re, regex: the scores are of a different scorer in each run ({why})"
    assert code == 0 and told in out
    assert told in cli("compare", a, b)[1] and told not in cli("gate", a, b, "--max-drop", "5%")[1]
    assert json.loads(cli("compare", a, b, "--json")[1])[0]["other_scorers"] == check["other_scorers"]
    assert told in cli("compare", a, b, a)[2]
    c = ran()
    for more in ((), ("--json",)):
        out = cli("compare", b, c, *more)[1] + cli("gate", b, c, "--max-drop", "5%", *more)[1]
        assert "scorer" not in out and "differs" not in out and "settings" not in out


def test_an_edit_of_a_scorers_file_is_another_scorer_and_not_a_flaky_task(cli: Cli, home: Path) -> None:
    described("sc.py:good")
    a = ran()
    Path("sc.py").write_text("# as before\n" + SCORER + "\n\ndef other(task, trace):\n    return 1\n")
    same = ran()
    Path("sc.py").write_text(SCORER.replace("trace.answer ==", "7 >").replace("task.secret['answer']", "0"))
    b = ran()
    one, two, three = opened(home, a, same, b)
    assert compare(one, two).other_scorers == () and compare(one, two).repeated
    found = compare(one, three)
    why = "good, whose code or options have changed"
    assert found.other_scorers == (OtherScorers("re", "good", why),)
    assert not found.repeated and not flaky(found) and len(found.tasks("better")) == 80
    assert cli("gate", a, same)[0] != 1 and cli("gate", a, b)[0] == 1
    assert (
        other_scorers_among([one, two, three], [("re", "good"), ("re", "none"), ("no", "good")]) == found.other_scorers
    )


def test_only_the_scorer_of_the_score_that_is_read_counts(home: Path) -> None:
    described("exact", TIGHT)
    a = ran()
    described("exact", LOOSE)
    b = ran()
    one, two = opened(home, a, b)
    assert compare(one, two).other_scorers == ()
    assert [each.score for each in compare(one, two, score="regex").other_scorers] == ["regex"]
    assert compare(one, one, score="regex").other_scorers == ()


def test_an_edited_pattern_is_another_agent_and_not_a_flaky_task(cli: Cli, home: Path) -> None:
    described("exact")
    both = ("prompt.py", "direct")
    a = ran(pattern=both)
    same = ran(pattern=both)
    Path("prompt.py").write_text(PATTERN.replace("'7'", "'8'"))
    b = ran(pattern=both)
    one, two, three = opened(home, a, same, b)
    assert compare(one, two, agent_a="prompt.py").repeated
    found = compare(one, three, agent_a="prompt.py")
    assert not found.repeated and not flaky(found) and len(found.tasks("worse")) == 80 and not found.other_scorers
    assert compare(one, three, agent_a="direct").repeated
    for first, second in (("prompt.py", "more(prompt.py)"), ("more(prompt.py)", "prompt.py")):
        sides = [store.create(home, {}, "r", files={"pattern": {"prompt.py": digest}}) for digest in "ab"]
        for side in sides:
            side.add_agent(first, {})
            side.add_agent(second, {})
        assert not same_code(*sides, first, first)
    assert "flaky" not in cli("gate", a, b, "--agent-a", "prompt.py")[1]
    old = [forget(home, each, "scorers", "code") for each in (a, same, b)]
    one, two, three = opened(home, *old)
    assert compare(one, two, agent_a="prompt.py").repeated and compare(one, three, agent_a="direct").repeated
    assert not compare(one, three, agent_a="prompt.py").repeated


def test_runs_of_before_tell_a_doubt_where_there_is_one_alone(cli: Cli, home: Path) -> None:
    described(TIGHT)
    a = forget(home, ran(), "scorers")
    again = ran()
    described(LOOSE)
    b = ran()
    one, same, two = opened(home, a, again, b)
    assert compare(one, same).other_scorers == () and compare(same, one).other_scorers == ()
    (found,) = compare(one, two).other_scorers
    assert not found.is_sure and found.why == "a run of before 0.30.0 does not tell its scorers, and e.toml has changed"
    code, out, _ = cli("gate", a, b, "--max-drop", "5%")
    assert code == 0 and "scorers: re, regex: the scores may be of a different scorer in each run" in out
    described(TIGHT, file="f.toml")
    (other,) = opened(home, ran("f.toml"))
    (found,) = compare(one, other).other_scorers
    assert not found.is_sure and found.why.endswith("./e.toml and f.toml may name different ones")
    listed = [
        store.create(home, {"benchmarks": ["zeta.toml", "arithmetic"]}, "r", protocols={"own": "", "arithmetic": ""},
                     files={"benchmark": {"zeta.toml": digest}})
        for digest in "ab"
    ]  # fmt: skip
    assert [each.benchmark for each in other_scorers(*listed, [("own", "s"), ("arithmetic", "s")])] == ["own"]
    ours = [ran("arithmetic:tasks=3:levels=1"), ran("arithmetic:tasks=5:levels=1")]
    one, two = opened(home, forget(home, ours[0], "scorers"), ours[1])
    assert compare(one, two).other_scorers == ()


def test_runs_of_before_whose_benchmarks_name_different_judges_tell_a_doubt(home: Path) -> None:
    names = ["hle:judge=openai:a@http://x:1/v1", "hle:judge=openai:a@http://x:2/v1"]
    runs = [store.create(home, {"benchmarks": [each]}, "r", protocols={"hle": ""}) for each in (*names, names[0])]
    (found,) = other_scorers(runs[0], runs[1], [("hle", "s")])
    assert not found.is_sure and found.why == "judge openai:a@http://x:1/v1 and openai:a@http://x:2/v1"
    assert other_scorers(runs[0], runs[2], [("hle", "s")]) == ()


@pytest.mark.parametrize(
    ("a", "b", "sure"),
    [
        ("rubric, judge A", "rubric, judge A", None),
        ("rubric, judge A", "rubric, judge B", True),
        ("sc.py:good, file aa", "sc.py:good, file bb", True),
        ("sc.py:good, file aa", "sc.py:good", False),
    ],
)
def test_scores_given_later_are_of_one_scorer_if_their_words_are(home: Path, a: str, b: str, sure: bool | None) -> None:
    runs = [store.create(home, {}, "r") for _ in "ab"]
    for run, words in zip(runs, (a, b), strict=True):
        run.append(trace := Trace("i", "sums", "t", {"name": "ada"}, 0, 0, "", 1.0))
        run.add_score(trace, 1, "good", words, Score("good", 1.0))
    found = compare(*runs, score="good").other_scorers
    assert [each.is_sure for each in found] == ([] if sure is None else [sure])


def test_a_score_given_later_by_the_benchmarks_own_scorer_is_the_same(home: Path) -> None:
    described("exact")
    (one,) = opened(home, ran())
    two = store.create(home, {}, "r")
    for benchmark, _ in one.tasks():
        two.add_tasks(benchmark, [one.tasks()[benchmark, "row-00000"]])
    for words, sure in (("exact", None), ("sc.py:exact, file aa", False)):
        name = "exact"
        run = store.create(home, {}, "r")
        run.append(trace := Trace("i", "re", "row-00000", {"name": "direct"}, 0, 0, "", 1.0))
        run.add_score(trace, 1, name, words, Score(name, 1.0))
        found = other_scorers(one, run, [("re", name)])
        assert [each.is_sure for each in found] == ([] if sure is None else [sure])


def test_agents_and_scorers_made_in_python_are_told_apart_too(home: Path) -> None:
    async def one(task: Task, ctx: Any) -> str:
        return "7"

    async def other(task: Task, ctx: Any) -> str:
        return "8"

    def right(task: Task, trace: Trace) -> float:
        return float(trace.answer == "7")

    def wrong(task: Task, trace: Trace) -> float:
        return float(trace.answer != "7")

    other.__name__, wrong.__name__ = one.__name__, right.__name__
    made = Benchmark("sums", lambda seed: [Task("t", "q")], (right,))
    agent = Agent("ada", Scripted(["x"] * 9), one)
    runs = [
        Experiment([each], [benchmark]).run()
        for each, benchmark in ((agent, made), (agent, made), (replace(agent, pattern=other), made),
                                (agent, replace(made, scorers=(wrong,))))
    ]  # fmt: skip
    found = [compare(runs[0], each) for each in runs[1:]]
    assert [each.repeated for each in found] == [True, False, False]
    assert [len(each.other_scorers) for each in found] == [0, 0, 1]


def test_settings_that_differ_under_one_name_are_told(cli: Cli, home: Path) -> None:
    tasks = Benchmark("sums", lambda seed: [Task("t", "q")], (lambda task, trace: 1.0,))
    first = Agent("direct", Scripted({"": "x"}, name="scripted:m"), direct)
    second = replace(
        first, model=Scripted({"": "y"}, name="scripted:other"), system="Be brief", sampling=Sampling(max_tokens=9)
    )
    third = replace(first, model=Scripted({"": "y"}, name="scripted:m"))
    runs = [Experiment([each], [tasks]).run() for each in (first, second, third)]
    lines = compare(runs[0], runs[1]).settings
    assert lines[:1] == ("direct differs: model: scripted:m and scripted:other",) and len(lines) == 3
    assert "direct differs: system: none and Be brief" in lines
    assert any(line.startswith("direct differs: max_tokens: ") and line.endswith(" and 9") for line in lines)
    assert compare(runs[0], runs[2]).settings == (
        "direct differs: model scripted:m of other content, device or version of firsthand",
    )
    assert compare(runs[0], runs[0]).settings == ()
    assert lines[0] in cli("compare", runs[0].id, runs[1].id)[1]
    assert json.loads(cli("compare", runs[0].id, runs[1].id, "--json")[1])[0]["settings"] == list(lines)


def test_a_board_of_runs_tells_of_different_scorers(home: Path) -> None:
    described(TIGHT)
    a = ran()
    described(LOOSE)
    b, c = ran(), ran()
    told = f"re, regex: the scores are of a different scorer in each run ({TIGHT} and {LOOSE}): {a} and "
    assert [each for each in read_results([a, b, c], home).remarks if "scorer" in each] == [
        f"{told}{b}.",
        f"{told}{c}.",
    ]
    assert not [each for each in read_results([b, c, b], home).remarks if "scorer" in each]


@pytest.mark.parametrize(
    ("a", "b", "version", "sure"),
    [
        ("judge m (openai:m@http://x:1/v1), rubric", "judge m (openai:m@http://y:2/v1), rubric", "1", False),
        ("judge m (openai:m@http://x:1/v1), rubric", "judge n (openai:n@http://x:1/v1), rubric", "1", True),
        ("judge m (openai:m@http://x:1/v1), rubric", "judge m (openai:m@http://x:1/v2), rubric", "1", True),
        (f"judge m (local:{'a' * 16}), rubric", f"judge m (local:{'b' * 16}), rubric", "1", True),
        (f"judge m (local:{'a' * 16}), rubric", f"judge m (local:{'b' * 16}), rubric", "2", False),
        (f"judge m (local:{'a' * 16}), rubric", f"judge m (local:{'b' * 16}), helpful", "2", True),
        ("good:url=http://x:1/v1", "good:url=http://x:2/v1", "1", True),
    ],
)  # fmt: skip
def test_a_judge_that_may_be_the_same_elsewhere_is_a_doubt(
    home: Path, a: str, b: str, version: str, sure: bool
) -> None:
    runs = [
        store.create(home, {}, "r", scorers={"sums": [{"names": ["s"], "words": words, "digest": words}]})
        for words in (a, b)
    ]
    runs[0].about["firsthand"], runs[1].about["firsthand"] = "1", version
    (found,) = other_scorers(*runs, [("sums", "s")])
    assert found.is_sure is sure
    assert other_scorers(runs[0], store.create(home, {}, "r", scorers=runs[0].about["scorers"]), [("sums", "s")]) == ()


def test_the_studios_comparison_tells_of_different_scorers(home: Path) -> None:
    from starlette.testclient import TestClient

    from studio_small_home import entered

    described(TIGHT)
    a = ran()
    described("regex:pattern=(<b>[0-9]+)")
    b = ran()
    with entered(home) as client:
        assert isinstance(client, TestClient)
        page = client.get(f"/compare?run={a}&run={b}").text
        told = "the scores are of a different scorer in each run"
        assert page.count(told) == 1 and "(&lt;b&gt;[0-9]+)" in page
        assert told not in client.get(f"/compare?run={a}&run={a}").text
