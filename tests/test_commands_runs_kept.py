"""All pairs of agents, `summary --by`, `runs --prune`, `power`, `track` and `sweep` on small stored runs."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import pairwise, power, runs, sides, summary, sweep, track
from firsthand.commands.compare_config import Config as CompareConfig
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.preference import Preference
from firsthand.runs import store
from firsthand.runs.track import start
from firsthand.stats.figures import micro_f1
from firsthand.task import Task
from firsthand.trace import Score, Trace
from firsthand.train.sweep import Trial, load_spec
from printed_tables import widen, words
from scored_runs import scored_run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch, pairwise, power, runs, summary, sweep, track)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


# -- pairs of agents --


def test_all_pairs_of_the_agents_of_runs_are_compared_by_every_figure(home: Path, cli: Cli) -> None:
    def tries(*values: float | None) -> Any:
        labels = [micro_f1("labels", {"x" if value else "y"}, {"x"}) for value in values]
        return {f"{'ab'[n % 2]}{n}": [None if value is None else {"exact": value, "labels": label}]
                for n, (value, label) in enumerate(zip(values, labels, strict=True))}  # fmt: skip

    ada = {"sums": tries(1, 1, 0, 1), "more": tries(1, 0)}
    one = scored_run(home, "one", {"ada": ada, "bob": {"sums": tries(0, 0, 0, 1)}})
    two = scored_run(home, "two", {"cy": {"sums": tries(1, None, 0, 1)}})
    one.close()
    two.close()
    code, out, _ = cli("compare", one.id, "--benchmark", "sums", "--confidence", "90%", "--errors", "zero")
    told = words(out)
    assert code == 0 and told[0] == "sums, exact: all pairs"
    assert told[1] == "agent vs. tasks difference (90% CI) p better / worse / same verdict"
    assert told[2].startswith("bob ada 4 -0.500 [") and told[2].endswith(" 0 / 2 / 2 inconclusive")
    assert told[3] == "sums, labels: all pairs" and told[5].startswith("bob ada 4 -0.500 [") and len(told) == 6
    code, out, _ = cli("compare", one.id, one.id, two.id, "--errors", "zero", "--score", "exact", "--json")
    body = json.loads(out)
    names = [f"{one.id}/ada", f"{one.id}/bob", f"{two.id}/cy"]
    pairs = [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    assert [(each["benchmark"], each["score"], each["a"], each["b"]) for each in body] == [
        ("sums", "exact", a, b) for a, b in pairs
    ], body
    assert [each["difference"] for each in body] == [-0.5, -0.25, 0.25] and {each["n"] for each in body} == {4}
    body = json.loads(cli("compare", one.id, one.id, two.id, "--errors", "drop", "--score", "exact", "--json")[1])
    assert [each["n"] for each in body] == [4, 3, 3]
    code, _, err = cli("compare", two.id)
    assert code == 2 and "the runs have one agent only: name runs with several, whose pairs are compared" in err
    code, _, err = cli("compare", one.id, "--benchmark", "sum")
    assert code == 2 and "did you mean 'sums'?" in err and one.id in err


def test_strata_of_the_first_run_part_the_pairs(home: Path) -> None:
    tries = {name: [{"exact": float(n % 3 == 0)}] for n, name in enumerate(("a1", "b1", "a2", "b2", "a3"))}
    other = {name: [{"exact": float(n % 2)}] for n, name in enumerate(tries)}
    with scored_run(home, "one", {"ada": {"sums": tries}, "bob": {"sums": other}}) as run:
        agents = {"ada": {key: [1.0 * (n % 3 == 0)] for n, key in enumerate(tries)},
                  "bob": {key: [1.0 * (n % 2)] for n, key in enumerate(tries)}}  # fmt: skip

        def found(**more: Any) -> list[Any]:
            return list(pairwise.on_benchmark(CompareConfig((run.id,), **more), [run], "sums", agents, {}))

        [(place, pairs)] = found()
        [(_, parted)] = found(strata="letter")
    assert place == ("sums", "exact") and list(pairs) == [("ada", "bob")]
    assert pairs["ada", "bob"].difference == pytest.approx(0.0) == parted["ada", "bob"].difference
    assert "strat" in parted["ada", "bob"].method and "strat" not in pairs["ada", "bob"].method


def test_benchmarks_are_those_with_the_score_or_else_the_figure(home: Path) -> None:
    labels = micro_f1("labels", {"x"}, {"x"})
    tries = {"tags": {"t": [{"exact": 1.0, "labels": labels}]}, "sums": {"t": [{"exact": 0.0, "style": 1.0}]}}
    with scored_run(home, "one", {"ada": tries}) as run:
        assert list(sides.benchmarks_with(None, run, own={}).items()) == [("sums", None), ("tags", None)]
        assert list(sides.benchmarks_with("exact", run, own={}).items()) == [("sums", "exact"), ("tags", "exact")]
        assert sides.benchmarks_with("style", run, own={}) == {"sums": "style"}
        assert sides.benchmarks_with("labels", run, own={}) == {"tags": "labels"}
        with pytest.raises(UnknownName, match=rf"did you mean 'style'\?.*firsthand show {run.id}"):
            sides.benchmarks_with("stile", run, own={})


# -- summary --


def test_cells_of_three_keys_are_a_table_and_of_two_a_grid(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    values = {"a1": (1.0, 8, "x"), "a2": (0.0, 8, "x"), "b1": (1.0, 16, None)}
    with store.create(home, {}, "one") as run:
        keys = {name: {"letter": name[0], "size": size, "more": more} for name, (_, size, more) in values.items()}
        run.add_tasks("sums", [Task(name, f"{name}?", metadata=found) for name, found in keys.items()])
        run.add_agent("ada", {"name": "ada"})
        for name, (value, *_) in values.items():
            run.append(Trace(name, "sums", name, {"name": "ada"}, 0, 0, "", 1.0, (), scores=(Score("exact", value),)))
    told = words(cli("summary", run.id, "--by", "letter,size,more", "--confidence", "90%")[1])
    assert told[0] == "benchmark agent letter size more score 90% (tasks)"
    assert told[1].startswith("sums ada a 8 x 0.50 ") and told[1].endswith(" (2)")
    assert told[2].startswith("sums ada b 16 - 1.00 ") and told[2].endswith(" (1)") and len(told) == 3
    told = words(cli("summary", run.id, "--by", "letter,size", "--confidence", "90%")[1])
    assert told[0] == "ada on sums: letter x size" and told[-1] == (
        "Each cell: mean score, its 90% CI, number of tasks. An attempt without a score counts as 0."
    )
    body = json.loads(cli("summary", run.id, "--by", "letter", "--threshold", "60%", "--json")[1])
    told = [(each["benchmark"], each["agent"], each["by"], each["score"]["value"]) for each in body["cells"]]
    assert told == [("sums", "ada", {"letter": letter}, value) for letter, value in (("a", 0.5), ("b", 1.0))], body[
        "cells"
    ]
    assert len(body["cells"]) == 2 and len(body["effective"]) == 1 and body["protocols"] == {}
    assert json.loads(cli("summary", run.id, "--by", "letter", "--json")[1])["effective"] == []
    with store.create(home, {}, "empty") as none:
        name = none.id
    assert words(cli("summary", name)[1]) == ["No attempt has finished."]


# -- runs --


def info(name: str, **more: Any) -> Any:
    given = {"id": name, "num_traces": 1, "num_planned": 1, "num_steps": 0, "status": "done", "problem": None}
    return SimpleNamespace(**{**given, "path": Path(name), "scores": (), **more})


def test_a_person_is_shown_what_would_be_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    answers = ["yes", "no", None]

    class Person:
        def is_there(self) -> bool:
            return bool(answers)

        async def choose(self, question: str, choices: Any) -> str | None:
            asked.append((question, choices))
            return answers.pop(0)

    monkeypatch.setattr(runs, "Terminal", Person)
    monkeypatch.setattr(runs.interruption, "run", asyncio.run)
    many = [info("r0"), info("r1", num_traces=2, num_planned=5)]
    many += [info(f"r{n}", num_traces=0, num_planned=None) for n in range(2, 12)]
    assert runs._agreed(many) is True
    assert capsys.readouterr().out.splitlines() == [
        "r0  1 attempt", "r1  2/5 attempts", *(f"r{n}  0 attempts" for n in range(2, 10)), "and 2 more",
    ]  # fmt: skip
    assert runs._agreed(many[:1]) is False and runs._agreed(many[:10]) is False
    assert "more" not in capsys.readouterr().out
    questions = ["Remove these 12 runs?", "Remove this run?", "Remove these 10 runs?"]
    assert asked == [(question, ["yes", "no"]) for question in questions]
    with pytest.raises(ConfigError, match=r"^this would remove 12 runs with 3 attempts: add --yes$"):
        runs._agreed(many)


def test_runs_are_removed_where_nothing_was_kept_or_they_are_old(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    old = info("old", created_at=(now - timedelta(days=2, minutes=1)).isoformat())
    assert [runs._is_old(old, days) for days in (1, 2, 2.1, 3, None)] == [True, True, False, False, False]
    cases = [({"problem": "bad"}, False, False), ({"status": "running"}, False, False), ({"num_traces": 0}, True, True)]
    for more, empty, aged in [*cases, ({"num_steps": 1}, False, True)]:
        found = info("r", created_at=old.created_at, **{"num_traces": 0, **more})
        assert (runs._is_old(found, None), runs._is_old(found, 1)) == (empty, aged), more
    kept = [info("a", num_traces=0), info("b", num_traces=0), info("c"), info("d", num_traces=0)]
    monkeypatch.setattr(runs.store, "list_runs", lambda home, told: list(kept))
    monkeypatch.setattr(runs, "_is_empty", lambda found: True)
    agreed = [False, False, True]
    monkeypatch.setattr(runs, "_agreed", lambda chosen: agreed.pop(0))
    removed: list[Path] = []

    def remove(path: Path) -> None:
        if path == Path("b"):
            raise StoreError("b is held")
        removed.append(path)

    monkeypatch.setattr(runs, "remove_run", remove)
    assert runs.main(runs.Config(prune=True)) == 0 and capsys.readouterr() == ("nothing removed: 3 runs\n", "")
    kept[:] = kept[:1]
    assert runs.main(runs.Config(prune=True)) == 0 and capsys.readouterr() == ("nothing removed: a\n", "")
    kept[:] = [info(name, num_traces=0) for name in "abd"]
    assert runs.main(runs.Config(prune=True)) == 1 and removed == [Path("a"), Path("d")]
    assert capsys.readouterr() == ("removed a\nremoved d\n", "firsthand: b is held\n")
    agreed.append(False)
    assert runs.main(runs.Config(prune=True, yes=True)) == 1 and agreed == [False]
    monkeypatch.setattr(runs, "remove_run", removed.append)
    capsys.readouterr()
    assert runs.main(runs.Config(prune=True, yes=True)) == 0 and removed[-3:] == [Path("a"), Path("b"), Path("d")]


def test_scores_attempts_and_times_of_runs_are_short() -> None:
    scores = [SimpleNamespace(mean=mean) for mean in (0.5, 0.254, 0.746)]
    assert [runs._score(info("r", scores=scores[:n])) for n in (0, 1, 3)] == ["", "0.50", "0.25 to 0.75"]
    assert runs._score(info("r", scores=[SimpleNamespace(mean=0.501), SimpleNamespace(mean=0.499)])) == "0.50"
    counts = [(3, None), (3, 3), (3, 4), (3, 2), (0, 1)]
    assert [runs._attempts(info("r", num_traces=n, num_planned=of)) for n, of in counts] == [
        "3",
        "3",
        "3/4",
        "3",
        "0/1",
    ]
    assert runs._local_time("") == "" and len(runs._local_time("2026-01-31T10:05:59+00:00")) == 16
    assert runs._local_time("2026-01-31T10:05:59+00:00").endswith(":05")


def test_a_damaged_run_is_named_and_the_others_are_checked(home: Path, cli: Cli) -> None:
    made = [scored_run(home, name, {"ada": {"sums": {"t1": [{"exact": 1.0}]}}}) for name in ("one", "two")]
    for run in made:
        run.close()
    assert cli("runs", made[0].id, "--check") == (0, f"{made[0].id} is sound\n", "")
    for at in (made[0].path).glob("*.sqlite*"):
        body = at.read_bytes()
        at.write_bytes(body[:100] + bytes(255 - byte for byte in body[100:]))
    code, out, err = cli("runs", "--check")
    assert (code, out) == (2, f"{made[1].id} is sound\n") and err.startswith("firsthand: ") and made[0].id in err


# -- power --


def test_plans_from_two_agents_name_both_and_those_without_scores_are_refused(home: Path, cli: Cli) -> None:
    ada = {f"t{n}": [{"exact": float(n % 2)}] for n in range(8)}
    bob = {f"t{n}": [{"exact": float(n % 4 == 1)}] for n in range(7)}
    run = scored_run(home, "one", {"ada": {"sums": ada}, "bob": {"sums": bob}})
    run.close()
    [body] = json.loads(cli("power", run.id, "--agent", "bob", "--against", "ada", "--json", "--epochs", "1")[1])
    assert (body["title"], body["tasks"]) == ("sums: bob vs. ada", 7)
    found = json.loads(cli("power", run.id, "--json")[1])
    assert [each["title"] for each in found] == ["sums: another agent vs. ada", "sums: another agent vs. bob"]
    assert [each["tasks"] for each in found] == [8, 7]
    [body] = json.loads(cli("power", run.id, "--agent", "bob", "--json", "--tasks", "99")[1])
    assert (body["title"], body["tasks"]) == ("sums: another agent vs. bob", 99)
    code, _, err = cli("power", run.id, "--benchmark", "sum")
    assert code == 2 and "did you mean 'sums'?" in err
    code, _, err = cli("power", run.id, "--agent", "bbb")
    assert code == 2 and "no agent 'bbb'" in err and run.id in err
    with store.create(home, {}, "empty") as none:
        name = none.id
    code, _, err = cli("power", name)
    assert code == 2 and f"{name} has no scores to plan from: name a run of `firsthand run`" in err


def test_attempts_that_are_needed_are_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    needed: dict[str, Any] = {"epochs": None}

    def epochs(effect: float, tasks: int) -> Any:
        assert (effect, tasks) == (0.025, 1200)
        return needed["epochs"]

    plan: Any = SimpleNamespace(tasks=1200, design=SimpleNamespace(epochs=epochs))
    told = []
    for count in (None, 1, 3):
        needed["epochs"] = count
        told.append(power._attempts_in_words(plan, 0.025))
    assert told == [
        "On 1,200 tasks no number of attempts detects 2.50%: the tasks themselves vary too much.",
        "On 1,200 tasks 1 attempt per task detects 2.50%.", "On 1,200 tasks 3 attempts per task detect 2.50%.",
    ]  # fmt: skip


def test_a_disagreement_below_the_effect_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    design: Any = SimpleNamespace(
        basis="B", disagreement=0.02, within=None, tasks=lambda effect, epochs: 1234 * epochs if epochs < 4 else None,
        effect=lambda tasks, epochs: None if epochs == 2 else 0.1 / epochs,
    )  # fmt: skip
    config = power.Config("r", effect="5%", confidence="90%", power="70%", epochs=("1", "2", "4"))
    power.print_plan(power.PowerPlan("T", design, 10), config)
    assert words(capsys.readouterr().out) == [
        "T", "attempts per task tasks for 5.00% min. detectable effect, 10 tasks", "1 1,234 10.00%", "2 2,468 -",
        "from B; 90% confidence, 70% power",
        "An effect of 5.00% needs disagreement on 5.00% of the tasks or more: it is planned with that.",
        *power.ONE_ATTEMPT.splitlines(),
    ]  # fmt: skip
    design.disagreement, design.within = 0.05, 1.0
    power.print_plan(power.PowerPlan("T", design, None), config)
    told = words(capsys.readouterr().out)
    assert told[1].endswith("min. detectable effect") and told[-1].startswith("from B") and "2 2,468 -" in told
    assert "1 1,234 -" in told, "without a number of tasks there is none to detect with"


# -- track, sweep --


def test_tracks_are_written_followed_and_imported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start("m", config={}) as made:
        made.log({"loss": 0.5, "acc": 0.25}, step=3)
        name = made.run.id
        made.flush()
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 2:
                made.log({"loss": 0.25}, step=4)
                made.flush()
            if len(slept) == 3:
                made.run.finish("done")

        monkeypatch.setattr(track.time, "sleep", sleep)
        track.follow(made, ())
    assert words(capsys.readouterr().out) == ["step 3 acc 0.25 ▄ loss 0.5 ▄", "step 4 acc 0.25 ▄ loss 0.25 █▁"]
    assert slept == [track.POLL_S] * 3
    assert track.main(track.Config((name,), html=tmp_path / "c.html")) == 0
    assert capsys.readouterr().out == f"curves    {tmp_path}/c.html\n" and "loss" in (tmp_path / "c.html").read_text()
    with pytest.raises(StoreError, match=f"^{tmp_path} cannot be written: Is a directory$"):
        track.main(track.Config((name,), html=tmp_path))
    asked: list[Any] = []
    monkeypatch.setattr(track, "import_runs", lambda path, home: asked.append((path, home)) or [("a", 3), ("b", 1)])
    assert track.main(track.Config(import_=tmp_path)) == 0 and asked == [(tmp_path, home)]
    assert capsys.readouterr().out == "3 values in run a\n1 values in run b\n"
    assert [track._json(value) for value in (0.5, float("inf"), float("-inf"), float("nan"))] == [
        0.5,
        "inf",
        "-inf",
        "nan",
    ]
    with start("none", config={}) as empty:
        track.print_curves(empty, ())
        with pytest.raises(ConfigError, match=f"{empty.run.id} has no metric 'x': it has none"):
            track.chosen(empty, ("x",))
        other = empty.run.id
    capsys.readouterr()
    assert track.main(track.Config((other, other))) == 0
    assert capsys.readouterr().out == f"{other} have no metrics.\n"


def test_a_sweep_is_made_run_resumed_and_shown(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    done = Trial(1, "", {"lr": "2"}, tmp_path / "t1", 0.25, "done", "", ("python", "x"))
    failed = Trial(2, "", {"lr": "3"}, tmp_path / "t2", math.nan, "failed", "exit 1", ("python", "y"))
    running = Trial(12, "", {"lr": "1", "k": "z"}, tmp_path / "t0", state="running")
    found = [done]

    def run_sweep(folder: Path, *, jobs: int, on_change: Any, trust: bool) -> list[Trial]:
        asked.append((folder, jobs, trust))
        for each in (running, done, failed):
            on_change(each)
        if not found:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    folder = tmp_path / "my sweep"
    config = sweep.Config("python train.py", set=("lr=1,2",), metric="loss", out=folder, jobs=3)
    assert sweep.main(config) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == [
        f"sweep     {folder}", "running     12  lr=1 k=z", "done         1  lr=2  0.25", "failed       2  lr=3  exit 1",
    ]  # fmt: skip
    assert out[-1] == "best      python x" and asked == [(folder, 3, False)]
    assert load_spec(folder).trials == ({"lr": "1"}, {"lr": "2"})
    assert sweep.main(sweep.Config(resume=folder, trust=True, json=True)) == 0 and asked[1] == (
        folder,
        1,
        True,
    )
    body = json.loads(capsys.readouterr().out)
    assert body["best"] == 1 and body["trials"][0]["folder"] == str(tmp_path / "t1")
    found.clear()
    assert sweep.main(sweep.Config(resume=folder)) == 130
    told = f"\nfirsthand: interrupted: `firsthand sweep --resume '{folder}'` runs what is left\n"
    assert capsys.readouterr().err == told
    with pytest.raises(ConfigError) as refused:
        sweep.main(sweep.Config("no-such-program x", set=("lr=1",)))
    said = "there is no program 'no-such-program': give a command, as in firsthand sweep 'firsthand train ...'"
    assert str(refused.value) == said and not (home / "sweeps").exists()
    found.append(done)
    assert sweep.main(sweep.Config("{lr} x", set=("lr=1",), metric="loss")) == 0
    assert asked[-1][0].parent == home / "sweeps" and "-sweep-" in asked[-1][0].name
    capsys.readouterr()
    monkeypatch.setattr(sweep, "trials_of", lambda at: [Trial(0, "", {}, at)] if at == folder else [])
    assert sweep.main(sweep.Config(show=folder)) == 1 and words(capsys.readouterr().out)[-1] == "No trial has a value."
    assert sweep.main(sweep.Config(show=folder, json=True)) == 1
    assert json.loads(capsys.readouterr().out)["best"] is None


def test_pruning_keeps_a_run_that_holds_texts_files_or_preferences_alone(home: Path, cli: Cli) -> None:
    ids = {}
    for name in ("text", "file", "number", "pair", "bare", "named"):
        track = start(name, home=home)
        ids[name] = track.run.id
        if name == "text":
            track.text("answer", "of the model", step=1)
        elif name == "file":
            track.artifact(Path(__file__))
        elif name == "number":
            track.log({"loss": 1.0}, step=0)
        elif name == "pair":
            track.run.add_preference(Preference("t0", "a", "b", "a", "judge:x"))
        track.finish()
    scored_run(home, "scored", {"ada": {"sums": {"t0": [{"exact": 1.0}]}}}).close()
    code, out, err = cli("runs", "--prune", "--yes")
    assert (code, err, sorted(out.split())) == (0, "", sorted(["removed", ids["named"], "removed", ids["bare"]]))
    left = {info.id for info in store.list_runs(home)}
    assert left >= {ids[name] for name in ("text", "file", "number", "pair")} and len(left) == 5
