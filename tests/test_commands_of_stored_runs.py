"""What `compare`, `gate`, `power`, `summary`, `runs`, `show` and `score` print of one small run and its successor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.task import Task
from firsthand.trace import Call, Failure, Node, Score, Trace
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Eight tasks; b has no score on t6, which failed, did not try t7, and is worse on t0 and t1 and better on t5."""
    widen(monkeypatch)
    home = tmp_path / "home"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    values = {"a": (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0), "b": (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, None)}
    ids = []
    for name, scores in values.items():
        with store.create(home, {"seed": 0}, name, command=["firsthand", "run", name]) as run:
            run.add_tasks(
                "sums",
                [
                    Task(f"t{n}", f"{n} + 1?", secret={"answer": str(n + 1)}, metadata={"level": n % 2})
                    for n in range(8)
                ],
            )
            run.add_agent("ada", {"name": "ada"})
            for n, value in enumerate(scores):
                usage = Usage(100 + n, 10, 20, 0.25)
                nodes = (Node(None, user(f"{n} + 1?")), Node(0, assistant("x")))
                calls = (Call("0", "generate", 0, 0.0, 1.0, "", usage, (1,)),)
                given = () if value is None else (Score("exact", value), Score("style", value / 2))
                error = Failure("ModelError", "gone") if value is None else None
                run.append(
                    Trace(
                        f"{name}{n}" + "0" * 14,
                        "sums",
                        f"t{n}",
                        {"name": "ada"},
                        0,
                        0,
                        "",
                        1.5,
                        nodes,
                        calls,
                        answer=str(n + 1),
                        scores=given,
                        error=error,
                        stop_reason="error" if error else "calls" if n == 2 else "done",
                    )
                )
            run.finish("done")
            ids.append(run.id)
    return ids[0], ids[1]


def test_two_runs_side_by_side(runs: tuple[str, str], cli: Cli) -> None:
    a, b = runs
    code, out, _ = cli("compare", a, b, "--confidence", "90%", "--limit", "2", "--flaky", "--errors", "drop")
    told = words(out)
    assert code == 0 and told[0] == f"{b}/ada vs. {a}/ada"
    assert told[2].startswith("sums exact 6 -0.167 [") and told[2].endswith("] 1.000 1 / 2 / 3 inconclusive")
    assert told[4:8] == [
        "changed tasks (3)",
        "task a b trace in a trace in b",
        "sums/t0 1 0 a0000000 b0000000",
        "sums/t1 1 0 a1000000 b1000000",
    ]
    assert told[8:11] == ["1 attempt of b without a score, left out", "2 tasks only in a: t6, t7", "flaky tasks (3)"]
    assert told[11:] == ["task in scores", "sums/t0 between 1 0", "sums/t1 between 1 0"]
    code, out, _ = cli("compare", a, b, "--json", "--errors", "zero", "--score", "style")
    [body] = json.loads(out)
    found = body["benchmarks"]["sums"]
    assert (found["score"], found["n"], found["better"], found["worse"]) == ("style", 7, 1, 3)
    assert found["difference"] == pytest.approx((-0.5 - 0.5 + 0.5 - 0.5) / 7) and body["only_a"] == [["sums", "t7"]]
    assert body["tasks"][0] == {"benchmark": "sums", "task": "t0", "a": 0.5, "b": 0.0, "change": "worse"}
    assert body["unscored"] == {"a": {"sums": 0}, "b": {"sums": 1}} and body["only_b"] == [] == body["changed"]
    assert {each["task"] for each in body["flaky"]} >= {"t0", "t1", "t5"}
    code, out, _ = cli("compare", b, a, "--errors", "zero")
    assert "1 attempt of a without a score, counted as 0" in out and "1 task only in b: t7" in out
    code, _, err = cli("compare", a, b, "--benchmark", "sum")
    assert code == 2 and "did you mean 'sums'?" in err


def test_a_gate_on_two_runs(runs: tuple[str, str], tmp_path: Path, cli: Cli) -> None:
    a, b = runs
    code, out, _ = cli("gate", a, b, "--errors", "drop", "--max-drop", "5%,sums/style=50%", "--score", "exact,style")
    told = words(out)
    assert code == 4 and told[-1] == "gate: inconclusive" and told[0] == f"{b} vs. {a}"
    assert told[2].startswith("sums exact ada 6 0.8333 0.6667 -16.67% [") and told[3].startswith(
        "sums style ada 6 0.4167 0.3333 -8.33% ["
    )
    code, out, _ = cli("gate", a, b, "--json", "--junit", str(tmp_path / "g.xml"), "--markdown", str(tmp_path / "g.md"))
    body = json.loads(out)
    [check] = body["checks"]
    assert (
        code == 1
        and body["ruling"] == "fail"
        and check["errors"] == {"baseline": 0, "candidate": 1}
        and check["missing"] == 1
    )
    assert (
        check["max_drop"] == 0.01
        and check["confidence"] == 0.95
        and check["worse_tasks"] == ["t0: 1 -> 0", "t1: 1 -> 0"]
    )
    assert (tmp_path / "g.md").read_text().startswith("## Gate: fail") and 'errors="1"' in (
        tmp_path / "g.xml"
    ).read_text()
    assert (
        cli("gate", a, a)[0] == 4
        and cli("gate", a, a, "--inconclusive", "pass")[0] == 0
        and cli("gate", a, a, "--inconclusive", "fail")[0] == 1
    )
    assert cli("gate", a, b, "--errors", "zero", "--json")[1].count('"tasks": 7') == 1
    for line, said in (
        ("--benchmark sum", "did you mean 'sums'?"),
        ("--max-drop none=1%", "none"),
        ("--confidence 101%", "confidence"),
    ):
        code, _, err = cli("gate", a, b, *line.split())
        assert code == 2 and said in err


def test_plans_from_a_run_and_from_stated_variances(runs: tuple[str, str], cli: Cli) -> None:
    code, out, _ = cli(
        "power",
        runs[0],
        "--effect",
        "10%",
        "--epochs",
        "1,2",
        "--confidence",
        "90%",
        "--power",
        "70%",
        "--correlation",
        "0.25",
    )
    told = words(out)
    assert code == 0 and told[:2] == [
        "sums: another agent vs. ada",
        "attempts per task tasks for 10.00% min. detectable effect, 8 tasks",
    ]
    assert (
        len(told) == 5
        and told[2].startswith("1 ")
        and told[3]
        == (
            "from one agent on 8 tasks, and a correlation of 0.25 assumed for single attempts; 90% confidence, 70% power"
        )
    )
    assert told[4].startswith("With one attempt per task the variance within tasks is unknown")
    [body] = json.loads(cli("power", runs[0], "--effect", "10%", "--epochs", "1,2", "--tasks", "50", "--json")[1])
    # seven of eight are right: variance 7/64 * 8/7 = 1/8, so 2 (1 - .5) / 8
    assert (body["title"], body["effect"], body["between"], body["tasks"]) == (
        "sums: another agent vs. ada",
        0.1,
        pytest.approx(0.125),
        50,
    )
    assert [(each["epochs"], each["tasks_needed"] is None) for each in body["plans"]] == [(1, False), (2, True)]
    assert body["within"] is None and body["disagreement"] == pytest.approx(0.125) and body["design_effect"] == 1.0
    code, out, _ = cli(
        "power", "--between-sd", "0.3", "--within-sd", "0.4", "--effect", "5%", "--tasks", "500", "--epochs", "1,4"
    )
    told = words(out)
    assert told[0] == "two agents" and [line.split()[0] for line in told[2:4]] == ["1", "4"]
    assert told[4] == "from sd 0.3 between tasks, 0.4 within; 95% confidence, 80% power"
    assert told[5] == "On 500 tasks 5 attempts per task detect 5.00%."
    code, out, _ = cli("power", "--disagreement", "15%", "--effect", "2%")
    assert words(out)[0] == "two 0/1 scores" and "from disagreeing on 15.0%; 95% confidence, 80% power" in out
    for line, said in (
        ("", "give a run to plan from"),
        ("last --disagreement 1%", "give a run to plan from"),
        ("--between-sd=-1", "give 0 or more"),
        ("--disagreement 1% --between-sd 1", "do not go together"),
        ("last --against x", "name with --agent"),
        ("last --tasks 0", "tasks is 0"),
        ("last --effect 0", "give a difference above 0"),
        ("last --power 50%", "above 50% and below 100%"),
        ("last --power 100%", "below 100%"),
        ("last --epochs 0", "whole numbers from 1"),
        ("--disagreement 1% --effect 2%", "give a smaller effect or a larger disagreement"),
        ("--disagreement 101% --effect 2%", "disagreement"),
        ("last --agent x", "x"),
        ("last --benchmark x", "x"),
        ("last --agent ada --against x", "x"),
    ):
        code, _, err = cli("power", *line.split())
        assert code == 2 and said in err, (line, err)


def test_a_summary_and_its_cells(runs: tuple[str, str], cli: Cli) -> None:
    told = words(cli("summary", runs[1], "--confidence", "90%")[1])
    assert told[:2] == ["sums", "agent score (90% CI) interval tasks attempts errors sd MDE tokens time"]
    assert (
        told[2].startswith("ada 0.571 Wilson 7 7 1 ? ") and told[2].endswith(" 123 1.5 s") and told[3].startswith("[0.")
    )
    body = json.loads(cli("summary", runs[1], "--json")[1])
    assert (body[0]["errors"], body[0]["tokens"], body[0]["cost_usd"], body[0]["protocol"]) == (1, 123.0, 1.75, "")
    told = words(cli("summary", runs[0], "--by", "level", "--threshold", "90%")[1])
    assert told[0] == "ada on sums: level" and told[1] == "level score" and told[2:6:2] == ["0 1.00", "1 0.75"]
    assert told[-1] == (
        "ada on sums: the last level that reaches 0.9 is 0; surely reached at none, surely missed at none."
    )
    told = words(cli("summary", runs[0], "--by", "level", "--threshold", "0%")[1])
    assert told[-1].startswith("ada on sums: the last level that reaches 0 is 1, "), "0 is a threshold"
    assert " reaches " not in cli("summary", runs[0], "--by", "level")[1]
    for line, said in (
        ("--threshold 1%", "exactly one key"),
        ("--by level --score x", "score and by do not go together"),
        ("--by level --reduce max", "reduce and by"),
        ("--score none", "none"),
    ):
        code, _, err = cli("summary", runs[0], *line.split())
        assert code == 2 and said in err


def test_json_lists_every_attempt_and_run_unless_a_limit_is_given(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    widen(monkeypatch)
    with store.create(home, {"seed": 0}, "long", command=["firsthand"]) as run:
        run.add_tasks("sums", [Task(f"t{n}", "?") for n in range(23)])
        run.add_agent("ada", {"name": "ada"})
        for n in range(23):
            run.append(
                Trace(f"{n:016}", "sums", f"t{n}", {"name": "ada"}, 0, 0, "", 1.5, scores=(Score("exact", 1.0),))
            )
    assert len(json.loads(cli("runs", run.id, "--json")[1])) == 23
    assert len(json.loads(cli("runs", run.id, "--json", "--limit", "2")[1])) == 2
    assert words(cli("runs", run.id)[1])[-1] == "20 of 23 attempts: --limit 23 shows all"
    for n in range(22):
        store.create(home, {"seed": n}, f"r{n}", command=["firsthand"]).close()
    assert len(json.loads(cli("runs", "--json")[1])) == 23
    assert len(json.loads(cli("runs", "--json", "--limit", "21")[1])) == 21
    assert words(cli("runs")[1])[-1] == "20 of 23 runs: --limit 23 shows all"


def test_runs_and_their_attempts_are_listed(runs: tuple[str, str], cli: Cli, tmp_path: Path) -> None:
    told = words(cli("runs", "--limit", "1")[1])
    assert told[0] == f"runs in {tmp_path}/home/runs" and told[1] == "run made state score attempts errors command"
    assert told[2].startswith(f"{runs[1]} ") and told[2].endswith("done 0.57 7 1 firsthand run b"), told[2]
    assert told[3] == "1 of 2 runs: --limit 2 shows all"
    assert words(cli("runs", "--limit", "2")[1])[-1].startswith(f"{runs[0]} "), "all are shown"
    body = json.loads(cli("runs", "--json")[1])
    assert [each["id"] for each in body] == [runs[1], runs[0]] and body[0]["num_errors"] == 1
    told = words(cli("runs", runs[1], "--limit", "3")[1])
    assert told[0] == f"{runs[1]} (done); `firsthand show {runs[1]} ID` prints one"
    assert told[2:] == [
        "b0000000 sums/t0/ada/0 0 120 1.5", "b1000000 sums/t1/ada/0 0 121 1.5", "b2000000 sums/t2/ada/0 1 122 1.5 calls",
        "3 of 7 attempts: --limit 7 shows all",
    ]  # fmt: skip
    assert words(cli("runs", runs[1])[1])[-1] == "b6000000 sums/t6/ada/0 126 1.5 ModelError: gone"
    assert sorted(words(cli("runs", "--check")[1])) == [f"{runs[0]} is sound", f"{runs[1]} is sound"]
    code, _, err = cli("runs", runs[0], "--prune")
    assert code == 2 and "this would remove 1 run with 8 attempts: add --yes" in err
    assert words(cli("runs", "--prune", "--yes")[1]) == ["no run to remove"]
    assert (
        words(cli("runs", runs[0], "--prune", "--yes")[1]) == [f"removed {runs[0]}"]
        and len(json.loads(cli("runs", "--json")[1])) == 1
    )
    for line, said in (
        ("--limit 0", "limit is 0"),
        ("--yes", "add --prune"),
        ("--prune --older-than=-1", "older_than is -1"),
        ("x --prune --older-than 1", "chooses among all runs"),
        ("--check --json", "check prints sentences"),
    ):
        code, _, err = cli("runs", *line.split())
        assert code == 2 and said in err
    cli("runs", "--prune", "--older-than", "0", "--yes")
    told = f"no runs in {tmp_path}/home/runs yet: `firsthand run arithmetic` makes one\n"
    assert cli("runs") == (0, told, "") and cli("runs", "--json") == (0, "[]\n", "")


@pytest.mark.slow
def test_a_run_and_an_attempt_are_shown(runs: tuple[str, str], cli: Cli) -> None:
    a, b = runs
    told = words(cli("show", b)[1])
    assert told[0] == "sums: exact, 7 tasks" and told[-1] == f"{b} is done; `firsthand runs {b}` lists its attempts"
    [board] = json.loads(cli("show", b, "--json")[1])
    assert (board["rows"][0]["errors"], board["rows"][0]["stopped"], board["baseline"]) == (1, 1, "ada")
    told = words(cli("show", a, "a3")[1])
    assert (
        told[0] == "sums / t3 / ada / epoch 0"
        and "expected: 4" in told
        and "answer: 4" in told
        and "score style: 0.5" in told
    )
    assert json.loads(cli("show", a, "sums/t3/ada", "--json")[1])["id"] == "a3" + "0" * 14
    for line, said in (
        ("--judge x", "judge is for an attempt"),
        ("--full", "full is for an attempt"),
        ("--reveal", "reveal is for an attempt"),
        ("a3 --strata x", "strata is for the leaderboard"),
        ("a3 --reduce max", "reduce is for the leaderboard"),
        ("a3 --follow", "leave out the attempt and json"),
        ("--follow --json", "leave out the attempt and json"),
        ("a3 --judge=", "the attempt has no judged score '': it has none"),
        ("a3 --judge x", "the attempt has no judged score 'x': it has none"),
    ):
        code, _, err = cli("show", a, *line.split())
        assert code == 2 and said in err
    told = words(cli("show", a, "--follow")[1])
    assert told == [
        f"{a} is done, 8 attempts done; Ctrl-C stops watching, not the run",
        f"{a} is done; `firsthand show {a}` prints its leaderboard",
    ]


def test_a_run_is_scored_again(runs: tuple[str, str], cli: Cli) -> None:
    code, out, _ = cli("score", runs[1], "--with", "normalised", "--as", "again")
    told = words(out)
    assert code == 0 and told[0] == "sums: again, 7 tasks"
    assert told[-1] == f"scores 'again' of {runs[1]}: 6 new, 0 kept, 0 failed, 1 attempt had ended in an error"
    code, out, _ = cli("score", runs[1], "--with", "normalised", "--as", "again", "--json")
    body = json.loads(out)
    assert (body["run"], body["scored"], body["kept"], body["boards"][0]["rows"][0]["score"]["value"]) == (
        runs[1],
        0,
        6,
        6 / 7,
    )
    for line, said in (
        ("--as x", "no scorer was named"),
        ("--with exact,normalised --as x", "names the scores of one scorer"),
        ("--with exact --concurrency 0", "concurrency is 0"),
        ("--with nope", "nope"),
    ):
        code, _, err = cli("score", runs[1], *line.split())
        assert code == 2 and said in err
