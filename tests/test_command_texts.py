"""The whole text that commands print for small cases: every figure, column and sentence."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firsthand.runs import store
from firsthand.runs.track import start
from firsthand.trace import Call, Failure, Score, Trace
from firsthand.train.vocabulary import train_vocabulary
from printed_tables import words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "home"


def stored(home: Path, name: str, traces: list[Trace], *, days_ago: float = 0) -> str:
    """A stored run of these attempts."""
    made = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat(timespec="milliseconds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "now", lambda: made)
        patch.setattr(sys, "argv", ["firsthand", "trial"])
        run = store.create(home, {}, name)
    with run:
        for trace in traces:
            run.append(trace)
        run.finish("done")
        return run.id


def attempt(number: int, score: float | None = None, **more: object) -> Trace:
    """An attempt at a task of `sums`."""
    scores = () if score is None else (Score("exact", score),)
    return Trace(
        f"id{number}abcdefgh", "sums", f"{number}", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.25, scores=scores, **more
    )  # fmt: skip


def test_power_from_a_disagreement_is_told_by_tasks_and_effect(cli: Cli) -> None:
    code, out, _ = cli("power", "--disagreement", "15%", "--effect", "5%", "--tasks", "300")
    # Connor (1987): (1.96 sqrt(.15) + .8416 sqrt(.15 - .05^2))^2 / .05^2 = 468.5, and 1 / .05 for continuity
    assert code == 0 and words(out) == [
        "two 0/1 scores",
        "attempts per task tasks for 5.00% min. detectable effect, 300 tasks",
        "1 489 6.41%",
        "from disagreeing on 15.0%; 95% confidence, 80% power",
        "With one attempt per task the variance within tasks is unknown: run with `--epochs 4` to estimate it.",
    ]
    _, out, _ = cli("power", "--disagreement", "5%", "--effect", "5%")
    assert words(out)[1:3] == ["attempts per task tasks for 5.00% min. detectable effect", "1 175 -"]
    assert "An effect of" not in out
    for flag, value in (("--epochs", "1"), ("--within-sd", "0.3")):
        assert cli("power", "--disagreement", "5%", "--effect", "5%", flag, value) == (
            2, "",
            f"firsthand: {flag}: two 0/1 scores that disagree are of one attempt per task: use --between-sd for several\n",
        )  # fmt: skip
    code, _, err = cli("power", "--disagreement", "4.9%", "--effect", "5%")
    assert code == 2 and "disagreement is 4.9% and effect 5%: two 0/1 scores differ by no more than" in err
    assert cli("power", "--disagreement", "100%", "--effect", "5%")[0] == 0
    assert "give a share above 0, such as 15%" in cli("power", "--disagreement", "0%", "--effect", "5%")[2]


def test_power_from_deviations_says_what_more_attempts_buy(cli: Cli) -> None:
    given = ("power", "--between-sd", "0.3", "--within-sd", "0.4", "--effect", "4%")
    code, out, _ = cli(*given, "--tasks", "700", "--epochs", "1,3")
    # (1.95996 + .84162)^2 = 7.8489 times .09 + 2 * .16 / epochs, over .04^2
    assert code == 0 and words(out) == [
        "two agents",
        "attempts per task tasks for 4.00% min. detectable effect, 700 tasks",
        "1 2,012 6.78%",
        "3 965 4.70%",
        "from sd 0.3 between tasks, 0.4 within; 95% confidence, 80% power",
        "On 700 tasks 7 attempts per task detect 4.00%.",
    ]
    assert "On 2,012 tasks 1 attempt per task detects 4.00%." in cli(*given, "--tasks", "2012")[1]
    assert "On 1 task no number of attempts detects 4.00%: the tasks" in cli(*given, "--tasks", "1")[1]
    [plan] = json.loads(cli(*given, "--tasks", "700", "--epochs", "3", "--json")[1])
    assert (plan["title"], plan["basis"], plan["tasks"]) == ("two agents", "sd 0.3 between tasks, 0.4 within", 700)
    assert plan["between"] == pytest.approx(0.09) and plan["within"] == pytest.approx([0.16, 0.16])
    assert plan["plans"] == [{"epochs": 3, "tasks_needed": 965, "smallest_effect": pytest.approx(0.0469591)}]
    assert (plan["epochs_needed"], plan["disagreement"], plan["design_effect"], plan["effect"]) == (7, None, 1.0, 0.04)
    for wrong, said in (
        (("--tasks", "0"), "tasks is 0: give 1 or more"),
        (("--power", "50%"), "give a share above 50% and below 100%"),
        (("--epochs", "1,0"), "epochs is 1,0: give whole numbers from 1 on"),
        (("--confidence", "120%"), "confidence"),
    ):
        code, _, err = cli(*given, *wrong)
        assert code == 2 and said in err
    assert "effect is '0%': give a difference above 0" in cli("power", "--disagreement", "9%", "--effect", "0%")[2]


def test_runs_are_listed_newest_first_with_scores_attempts_and_errors(home: Path, cli: Cli) -> None:
    one = stored(home, "one", [attempt(0, 0.25), attempt(1, 0.5)], days_ago=3)
    failed = attempt(7, error=Failure("ModelError", "it broke"))
    two = stored(home, "two", [attempt(5, 1.0), failed], days_ago=2)
    three = stored(home, "three", [], days_ago=1)
    code, out, _ = cli("runs")
    days = [f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}" for ago in (1, 2, 3)]
    found = words(out)
    assert code == 0 and found[:2] == [f"runs in {home / 'runs'}", "run made state score attempts errors command"]
    told = [row.split() for row in found[2:]]
    assert [row[:2] for row in told] == [[name, day] for name, day in zip((three, two, one), days, strict=True)]
    assert [row[3:-2] for row in told] == [["done", "0", "0"], ["done", "0.50", "2", "1"], ["done", "0.38", "2", "0"]]
    assert cli("runs", "--limit", "2")[1].splitlines()[-1] == "2 of 3 runs: --limit 3 shows all"
    assert "shows all" not in cli("runs", "--limit", "3")[1]
    assert [each["id"] for each in json.loads(cli("runs", "--json", "--limit", "2")[1])] == [three, two]
    assert cli("runs", "--limit", "0")[0] == 2


def test_attempts_of_a_run_are_listed_with_what_ended_them(home: Path, cli: Cli) -> None:
    used = Call(":0", "generate", 0, 0.0, 0.5, "r0")
    run = stored(
        home,
        "named",
        [
            attempt(0, 0.125, calls=(used,)),
            attempt(1, stop_reason="budget"),
            attempt(2, error=Failure("ModelError", "it broke")),
        ],
    )
    code, out, _ = cli("runs", run)
    found = words(out)
    assert code == 0 and found[0] == f"{run} (done); `firsthand show {run} ID` prints one"
    assert found[1] == "id benchmark/task/agent/epoch score tokens seconds ended by"
    rows = {row.split()[1]: row.split()[2:] for row in found[2:]}
    assert rows == {
        "sums/0/a/0": ["0.125", "0", "1.2"],
        "sums/1/a/0": ["0", "1.2", "budget"],
        "sums/2/a/0": ["0", "1.2", "ModelError:", "it", "broke"],
    }
    assert all(len(row.split()[0]) == 8 for row in found[2:])
    assert cli("runs", run, "--limit", "2")[1].splitlines()[-1] == "2 of 3 attempts: --limit 3 shows all"
    assert "shows all" not in cli("runs", run, "--limit", "3")[1]
    assert len(json.loads(cli("runs", run, "--limit", "2", "--json")[1])) == 2


def test_every_run_is_checked_or_the_named_one(home: Path, cli: Cli) -> None:
    one, two = stored(home, "one", [attempt(0, 1.0)]), stored(home, "two", [attempt(1, 1.0)])
    code, out, _ = cli("runs", "--check")
    assert code == 0 and sorted(out.splitlines()) == sorted([f"{one} is sound", f"{two} is sound"])
    assert cli("runs", one, "--check")[:2] == (0, f"{one} is sound\n")
    for path in (home / "runs" / one).glob("*.sqlite"):
        path.write_bytes(bytes(4096) + path.read_bytes()[4096:])
    code, out, err = cli("runs", "--check")
    assert (code, out) == (2, f"{two} is sound\n") and one in err


def test_a_run_that_is_not_removed_is_named(home: Path, cli: Cli) -> None:
    run = stored(home, "one", [attempt(0), attempt(1)])
    code, _, err = cli("runs", run, "--prune")
    assert code == 2 and "this would remove 1 run with 2 attempts: add --yes" in err
    for asked, said in (
        (("--yes",), "add --prune"),
        (("--older-than", "3"), "add --prune"),
        ((run, "--prune", "--older-than", "3"), "leave it out, or the name of the run"),
        (("--check", "--json"), "leave out --json and --prune"),
        (("--prune", "--older-than", "-1"), "give a number of days, 0 or more"),
    ):
        code, _, err = cli("runs", *asked)
        assert code == 2 and said in err, asked


def tracked() -> tuple[str, str, str]:
    """Three tracks: two with metrics, one without; their ids."""
    with start("one") as first:
        for step, loss in ((10, 1.0), (20, 8.0), (1000, math.inf), (2000, 4.25)):
            first.log({"loss": loss}, step=step)
        first.log({"accuracy": 0.25}, step=1500)
    with start("two") as second:
        second.log({"loss": 2.0, "extra": 7}, step=3)
    with start("none") as third:
        pass
    return first.run.id, second.run.id, third.run.id


@pytest.mark.slow
def test_a_track_is_a_table_of_curves(home: Path, cli: Cli) -> None:
    one, _, none = tracked()
    code, out, _ = cli("track", one)
    assert code == 0 and words(out) == [
        f"{one} (done)",
        "metric curve last lowest highest at step",
        "accuracy ▄ 0.25 0.25 0.25 1,500",
        "loss ▁█·▄ 4.25 1 8 2,000",
    ]
    assert [row.split()[0] for row in words(cli("track", one, "--metric", "loss")[1])[2:]] == ["loss"]
    assert cli("track", none)[1] == f"{none} has no metrics.\n"
    assert json.loads(cli("track", one, "--json")[1]) == {
        "run": one,
        "status": "done",
        "metrics": {
            "accuracy": {"steps": [1500], "values": [0.25]},
            "loss": {"steps": [10, 20, 1000, 2000], "values": [1.0, 8.0, "inf", 4.25]},
        },
    }
    code, _, err = cli("track", one, "--metric", "los")
    assert code == 2 and f"{one} has no metric 'los': it has accuracy, loss" in err
    assert "it has none" in cli("track", none, "--metric", "loss")[2]


def test_tracks_stand_beside_each_other_with_their_last_values(home: Path, cli: Cli) -> None:
    one, two, none = tracked()
    code, out, _ = cli("track", two, one)
    assert code == 0 and words(out) == [
        "last values",
        f"metric {two} {one}",
        "accuracy 0.25",
        "extra 7",
        "loss 2 4.25",
    ]
    table = next(line for line in out.splitlines() if line.startswith("accuracy"))
    assert table.rstrip().endswith("0.25") and table.index("0.25") > len("accuracy") + len(two)
    assert json.loads(cli("track", two, one, "--json")[1]) == {
        "loss": {two: "2", one: "4.25"},
        "extra": {two: "7"},
        "accuracy": {one: "0.25"},
    }
    assert cli("track", none, none)[1] == f"{none} have no metrics.\n"
    for asked in (("--follow",), ("--html", "x.html"), ("--export", "csv", "--to", "x.csv")):
        assert "take one run" in cli("track", one, two, *asked)[2]


def test_following_a_run_that_has_ended_prints_its_last_step(home: Path, cli: Cli) -> None:
    one, _, none = tracked()
    assert words(cli("track", one, "--follow")[1]) == ["step 2,000 accuracy 0.25 ▄ loss 4.25 ▁█·▄"]
    assert words(cli("track", one, "--follow", "--metric", "accuracy")[1]) == ["step 2,000 accuracy 0.25 ▄"]
    assert cli("track", none, "--follow")[:2] == (0, "")


def test_pieces_of_a_text_are_shown_with_counts_and_cost(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("letters")
    train_vocabulary(["abab " * 30], folder, vocab_size=258, cut="gpt-2")  # the bytes, the end, and one pair
    code, out, _ = cli("tokens", "abab\tx", "--model", str(folder), "--price", f"{folder}=2000")
    assert code == 0 and words(out) == [
        f"{folder}: ab|ab|\\t|x",
        "6 characters",
        "model tokens per word characters per token cost, USD",
        f"{folder} 4 2.00 1.50 0.008000",
    ]
    file = tmp_path / "long.txt"
    file.write_text("ab" * 203)
    out = cli("tokens", str(file), "--model", str(folder))[1]
    assert out.splitlines()[0] == f"{folder}: {'|'.join(['ab'] * 200)} ... 3 more"
    assert words(out)[1:] == [
        "406 characters", "model tokens per word characters per token", f"{folder} 203 203.00 2.00",
    ]  # fmt: skip
    file.write_text("ab" * 200)
    assert " more" not in cli("tokens", str(file), "--model", str(folder))[1]
    found = json.loads(cli("tokens", "ab x", "--model", str(folder), "--price", f"{folder}=0", "--json")[1])
    [model] = found["models"]
    assert (found["characters"], found["words"], model["tokens"], model["cost_usd"]) == (4, 2, 3, 0.0)
    assert model["pieces"] == ["ab", " ", "x"] and len(model["ids"]) == 3
    for asked, said in (
        (("x", "--price", f"{folder}=-1"), "write MODEL=DOLLARS"),
        (("x", "--price", f"{folder}=1e9"), "write MODEL=DOLLARS"),
        (("x", "--vocab-size", "300"), "--vocab-size goes with --train"),
        (("x", "--languages"), "--languages counts a text of its own"),
        (("x", "--train", str(file), "--out", "o"), "--train takes no text to show"),
        (("--languages", "--train", str(file), "--out", "o"), "--train takes no text to show"),
    ):
        code, _, err = cli("tokens", *asked, "--model", str(folder))
        assert code == 2 and said in err, asked
