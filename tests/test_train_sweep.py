"""Sweeps: spaces, processes that share only files, halving, and trials that fail or are stopped."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.commands.train import _trial_folder
from firsthand.errors import ConfigError
from firsthand.runs.run_names import DATABASE
from firsthand.runs.track import FOLDER_VARIABLE
from firsthand.train.sweep import Sweep, best, load_spec, run_sweep, save_spec, trials_of
from firsthand.train.sweep_space import Drawn, combinations, parse_space, survivors

Cli = Callable[..., tuple[int, str, str]]
PROGRAM = """
import sys
from firsthand.runs.track import start
words = [part for word in sys.argv[1:] for part in word.split("=")]
settings = {name[2:]: value for name, value in zip(words[::2], words[1::2])}
lr, steps = float(settings["lr"]), int(settings.get("steps", 3))
with start("trial") as track:
    for step in range(1, steps + 1):
        track.log({"loss": (lr - 0.3) ** 2 + 1 / step}, step=step)
if lr > 5:
    print("it blew up")
    sys.exit(3)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def sweep_of(program: Path, *lrs: str, **more: object) -> Sweep:
    return replace(Sweep((sys.executable, str(program)), tuple({"lr": lr} for lr in lrs), "loss"), **more)


def test_listed_values_are_combined_in_order() -> None:
    space = parse_space(["a=1,2", "b=x,y"])
    assert combinations(space) == [{"a": a, "b": b} for a in "12" for b in "xy"]


def test_draws_depend_on_the_seed_alone_and_are_all_different() -> None:
    space = parse_space(["lr=log:1e-5:1e-2", "n=int:2:4", "d=uniform:0:0.5", "k=x,y"])
    found = combinations(space, trials=50, seed=3)
    assert found == combinations(space, trials=50, seed=3) != combinations(space, trials=50, seed=4)
    assert len({tuple(each.values()) for each in found}) == 50
    assert all(1e-5 <= float(each["lr"]) <= 1e-2 and 0 <= float(each["d"]) <= 0.5 for each in found)
    assert {each["n"] for each in found} == {"2", "3", "4"} and {each["k"] for each in found} == {"x", "y"}
    below = sum(float(each["lr"]) < math.sqrt(1e-7) for each in found)
    assert 15 <= below <= 35  # half of the draws lie below the middle of the logarithms


def test_a_small_space_gives_all_of_it() -> None:
    assert len(combinations(parse_space(["n=int:2:4"]), trials=50)) == 3
    assert Drawn("int", 2, 4).draw(random.Random(0)) in ("2", "3", "4")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("lr", "is no setting"), ("=3", "is no setting"), ("a b=1", "is no setting"), ("lr=", "the values of lr"),
        ("lr=1,,2", "the values of lr"), ("lr=1,1", "the values of lr"), ("lr=log:1", "give a range"),
        ("lr=log:0:1", "above 0"), ("lr=log:2:1", "the lower first"), ("lr=log:1:1", "the lower first"),
        ("n=int:1.5:3", "whole"), ("x=uniform:nan:1", "two numbers"), ("x=uniform:a:b", "give a range"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_read_is_refused(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_space([spec])


def test_spaces_that_have_no_end_are_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        parse_space(["a=1", "a=2"])
    with pytest.raises(ConfigError, match="--trials"):
        combinations(parse_space(["lr=log:1:2"]))
    with pytest.raises(ConfigError, match="combinations"):
        combinations(parse_space([f"{name}={','.join(map(str, range(30)))}" for name in "abc"]))


def test_survivors_are_the_best_and_nan_is_the_worst() -> None:
    values = [3.0, math.nan, 1.0, 2.0, 1.0]
    assert survivors(values, 3, minimise=True) == [2, 4, 3]
    assert survivors(values, 2, minimise=False) == [0, 3]
    assert survivors(values, 5, minimise=False)[-1] == 1


@pytest.mark.slow
def test_a_grid_runs_and_the_best_is_named(program: Path, tmp_path: Path, cli: Cli) -> None:
    command = f"{sys.executable} {program}"
    out = str(tmp_path / "sweep")
    code, shown, err = cli("sweep", command, "--set", "lr=0.1,0.3,9", "--metric", "loss", "--jobs", "2", "--out", out)
    assert code == 0, err
    assert f"best      {command} --lr 0.3" in " ".join(shown.split()).replace("best ", "best      ")
    assert "exit status 3: it blew up" in shown and "optimistic" in shown
    code, again, _ = cli("sweep", "--show", out, "--json")
    body = json.loads(again)
    assert body["best"] == 1
    assert [trial["state"] for trial in body["trials"]] == ["done", "done", "failed"]
    assert body["trials"][1]["value"] == pytest.approx(1 / 3)
    code, _, err = cli("sweep", command, "--set", "lr=1", "--out", out)
    assert code == 2 and "holds a sweep already" in err


@pytest.mark.slow
def test_halving_gives_more_steps_to_the_best_third(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    sweep = sweep_of(program, "0.1", "0.9", "0.3", "0.5", "0.35", "0.7", budget="steps", rungs=("1", "4", "8"))
    save_spec(sweep, folder)
    trials = run_sweep(folder, jobs=2)
    assert [(each.rung, each.number) for each in trials] == [
        *(("1", number) for number in range(6)), ("4", 2), ("4", 4), ("8", 2),
    ]  # fmt: skip
    assert best(sweep, trials).rung == "8" and best(sweep, trials).value == pytest.approx(1 / 8)
    assert [each.state for each in trials_of(folder)] == ["done"] * 9


@pytest.mark.slow
def test_the_value_is_the_last_of_the_curve_or_its_best(program: Path, tmp_path: Path) -> None:
    program.write_text(
        "from firsthand.runs.track import start\nwith start('t') as track:\n"
        "    for step, value in enumerate((3.0, 1.0, 2.0)):\n        track.log({'loss': value}, step=step)\n"
    )
    for best_of_curve, value in ((False, 2.0), (True, 1.0)):
        folder = tmp_path / f"sweep-{best_of_curve}"
        save_spec(sweep_of(program, "1", best_of_curve=best_of_curve), folder)
        assert run_sweep(folder)[0].value == value
    save_spec(sweep_of(program, "1", metric="acc"), tmp_path / "other")
    (trial,) = run_sweep(tmp_path / "other")
    assert trial.state == "failed" and "logged no 'acc'" in trial.why and "loss" in trial.why


@pytest.mark.slow
def test_settings_have_their_place_in_the_command(program: Path, tmp_path: Path) -> None:
    words = (sys.executable, str(program), "--lr={lr}")
    save_spec(sweep_of(program, "0.3", command=words), tmp_path / "sweep")
    (trial,) = run_sweep(tmp_path / "sweep")
    assert trial.command[2:] == ("--lr=0.3",) and trial.state == "done"
    training = Sweep(("firsthand", "train", "sft", "x.jsonl"), ({"weight_decay": "0"},), "loss")
    save_spec(training, tmp_path / "training")
    (looked,) = trials_of(tmp_path / "training")
    assert looked.command[4:] == ("--weight-decay", "0", "--out", str(looked.folder)) and looked.state == "waiting"


STOPPED = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1], f"begun-{sys.argv[3]}").touch()
if sys.argv[3] == "2" and not Path(sys.argv[1], "go").exists():
    time.sleep(600)
from firsthand.runs.track import start
with start("t") as track:
    track.log({"loss": float(sys.argv[3])}, step=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_was_killed_goes_on_and_runs_nothing_twice(
    tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))  # the home whose seal the sweep has
    script, marks, folder = tmp_path / "stopped.py", tmp_path / "marks", tmp_path / "sweep"
    script.write_text(STOPPED)
    marks.mkdir()
    save_spec(Sweep((sys.executable, str(script), str(marks)), ({"lr": "1"}, {"lr": "2"}, {"lr": "3"}), "loss"), folder)
    words = [sys.executable, "-m", "firsthand", "sweep", "--resume", str(folder)]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (marks / "begun-2").exists():
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.05)
    with pytest.raises(ConfigError, match="is being run by process"):
        run_sweep(folder)
    child.send_signal(number)
    _, told = child.communicate(timeout=60)
    assert child.returncode == code
    assert told.strip() == f"firsthand: interrupted: `firsthand sweep --resume {folder}` runs what is left"
    assert not _alive(str(marks))  # the trial's process went with it
    (marks / "begun-1").unlink()
    (marks / "go").touch()
    trials = run_sweep(folder)
    assert [trial.value for trial in trials] == [1.0, 2.0, 3.0]
    assert not (marks / "begun-1").exists()


def _alive(mark: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if mark in words and "sweep" not in words:
            return True
    return False


@pytest.mark.parametrize(
    "body", ["", "[]", '{"command": 3}', '{"command": ["a"], "trials": [], "rungs": [""], "x": 1}']
)
def test_a_damaged_spec_is_one_sentence(tmp_path: Path, body: str) -> None:
    (tmp_path / "sweep.json").write_text(body)
    with pytest.raises(ConfigError, match="holds no sweep"):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        (), ("x",), ("x", "--set", "a=1", "--resume", "y"), ("x 'y", "--set", "a=1"), (" ", "--set", "a=1"),
        ("x", "--set", "a=1", "--halving", "steps"), ("x", "--set", "a=1", "--halving", "a=1,2"),
        ("x", "--set", "a=1", "--jobs", "0"), ("--show", "/nowhere"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_before_anything_runs(cli: Cli, words: tuple[str, ...]) -> None:
    code, _, err = cli("sweep", *words)
    assert code == 2 and "Traceback" not in err


def test_a_trial_that_keeps_no_metrics_fails_and_the_others_go_on(tmp_path: Path) -> None:
    script, folder = tmp_path / "silent.py", tmp_path / "sweep"
    script.write_text("import sys\nif sys.argv[2] == '2':\n    from firsthand.runs.track import start\n"
                      "    with start('t') as track:\n        track.log({'loss': 2.0}, step=1)\n")  # fmt: skip
    save_spec(Sweep((sys.executable, str(script)), ({"lr": "1"}, {"lr": "2"}), "loss"), folder)
    silent, kept = run_sweep(folder)
    assert (silent.state, kept.state, kept.value) == ("failed", "done", 2.0)
    assert silent.why.startswith("it kept no metrics in its folder: let it log with `firsthand.runs.track`")


def test_a_folder_without_a_sweep_is_named_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no sweep \(\S+: No such file or directory\): give the folder of one$"
    ):
        load_spec(tmp_path / "nowhere")


def test_the_command_of_a_sweep_from_another_home_is_not_run(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ran = tmp_path / "sweep", tmp_path / "ran"
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "theirs"))
    save_spec(Sweep(("/bin/sh", "-c", f"touch {ran}"), ({"lr": "1"},), "loss"), folder)
    spec = (folder / "sweep.json").read_text()
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "mine"))
    for text in (spec, spec.replace('"seal"', '"other"')):
        (folder / "sweep.json").write_text(text)
        code, _, err = cli("sweep", "--resume", str(folder))
        assert code == 2 and not ran.exists() and (("touch" in err and "--trust" in err) or text != spec)
    (folder / "sweep.json").write_text(spec)
    cli("sweep", "--resume", str(folder), "--trust")
    assert ran.exists()


@pytest.mark.parametrize(
    ("spec", "longest"),
    [
        ("uniform:0.12341:0.12344", 9), ("log:1e-5:1.00004e-5", 13), ("uniform:1000.4:1000.49", 9), ("uniform:0:0.3", 9),
        ("log:1e-5:1e-2", 9), ("uniform:-12345.6:-12345.5", 10), ("uniform:0.12345:0.9", 7), ("uniform:0.1:1.2344", 7),
    ],
)  # fmt: skip
def test_draws_lie_within_their_range_and_are_as_many_as_are_asked_for(spec: str, longest: int) -> None:
    low, high = map(float, spec.split(":")[1:])
    drawn = [each["x"] for each in combinations(parse_space([f"x={spec}"]), trials=30)]
    assert len(set(drawn)) == 30 and all(low <= float(each) <= high and len(each) <= longest for each in drawn)


def test_a_draw_that_rounds_out_of_its_range_is_the_end_of_it() -> None:
    class Ends(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return a if self.low else b

    source = Ends()
    for source.low, text in ((True, "0.12344"), (False, "0.98766")):  # type: ignore[attr-defined]
        assert Drawn("uniform", 0.12344, 0.98766).draw(source) == text
    source.low = True
    assert Drawn("uniform", 12344, 98766).draw(source) == "12344" and Drawn("uniform", 0.1, 0.3).draw(source) == "0.1"


@pytest.mark.slow
def test_trials_of_a_training_that_another_program_starts_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "text.txt").write_text("one two three four five six\n" * 60)
    size = "--hidden-size 32 --layers 1 --heads 1 --vocab-size 260 --context 16 --batch-tokens 64 --steps 2 --seed 1"
    command = (sys.executable, "-P", "-m", "firsthand", "train", "pretrain", str(tmp_path / "text.txt"), *size.split())
    save_spec(sweep_of(tmp_path / "none", "0.1", command=command, metric="loss"), tmp_path / "sweep")
    (trial,) = run_sweep(tmp_path / "sweep")
    assert trial.state == "done" and trial.value is not None and trial.value > 1, trial.why
    assert not (tmp_path / "home" / "runs").exists()


def test_a_training_is_kept_in_its_trials_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert _trial_folder() is None
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "log.txt").touch()
    assert _trial_folder() == tmp_path
    (tmp_path / DATABASE).touch()
    assert _trial_folder() is None
