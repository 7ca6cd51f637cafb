"""Sweeps whose trials copy runs that were made before: rungs, survivors, failures, what is told, and going on."""

from __future__ import annotations

import json
import math
import subprocess
import time
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.runs.track import FOLDER_VARIABLE, start
from firsthand.train.sweep import (
    Sweep,
    Trial,
    _is_own,
    _start,
    _stop,
    best,
    load_spec,
    run_sweep,
    save_spec,
    trials_of,
)

Values = dict[str, list[float]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def made(home: Path, runs: Values, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The command of a trial that gets one of these runs, by `lr` and `steps`."""
    for name, values in runs.items():
        monkeypatch.setenv(FOLDER_VARIABLE, str(home / "runs made" / name))
        with start("trial") as track:
            for step, value in enumerate(values, 1):
                track.log({"loss": value}, step=step)
    monkeypatch.delenv(FOLDER_VARIABLE)
    return ("cp", "-r", f"{home / 'runs made'}/{{lr}}-{{steps}}/.", "{out}")


def told(trials: list[Trial]) -> list[tuple[int, str, str, float | None]]:
    return [(each.number, each.rung, each.state, None if math.isnan(each.value) else each.value) for each in trials]


@pytest.mark.slow
def test_the_best_of_a_rung_go_on_and_a_sweep_that_ended_is_not_run_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"a-1": [9.0, 3.0], "b-1": [0.5, 1.0], "c-1": [2.0], "e-1": [0.875], "b-4": [4.0, 0.25], "e-4": [0.75]}
    command = made(home, runs, monkeypatch)
    trials = tuple({"lr": name, "steps": "0"} for name in ("a", "b", "c", "d", "e"))
    sweep = Sweep(command, trials, "loss", budget="steps", rungs=("1", "4"), eta=2)
    save_spec(sweep, home / "s")
    assert load_spec(home / "s") == sweep and _is_own(home / "s")
    assert told(trials_of(home / "s")) == [(number, "1", "waiting", None) for number in range(5)]
    changed: list[Trial] = []
    found = run_sweep(home / "s", jobs=2, on_change=changed.append)
    first = [
        (0, "1", "done", 3.0),
        (1, "1", "done", 1.0),
        (2, "1", "done", 2.0),
        (3, "1", "failed", None),
        (4, "1", "done", 0.875),
    ]
    second = [(1, "4", "done", 0.25), (4, "4", "done", 0.75)]
    assert told(found) == first + second
    place = home / "s" / "trials" / "0003-1"
    assert found[3].why == f"exit status 1: cp: cannot stat '{home / 'runs made'}/d-1/.': No such file or directory"
    assert (place / "exit").read_text() == "1\n" and found[3].settings == {"lr": "d", "steps": "1"}
    assert found[3].folder == place and found[6].settings == {"lr": "e", "steps": "4"}
    running = [(each.number, each.rung) for each in changed if each.state == "running"]
    ended = [(each.number, each.rung) for each in changed if each.state != "running"]
    assert running == [(0, "1"), (1, "1"), (2, "1"), (3, "1"), (4, "1"), (1, "4"), (4, "4")]
    assert sorted(ended) == sorted(running) and len(changed) == 14
    for at in range(14):  # never more than two at a time
        assert sum(1 if each.state == "running" else -1 for each in changed[: at + 1]) <= 2
    chosen = best(sweep, found)
    assert chosen is not None and (chosen.number, chosen.value) == (1, 0.25)
    changed.clear()
    again = run_sweep(home / "s", on_change=changed.append)
    assert told(again) == first + second and [each.number for each in changed] == [3, 3], "only what failed"
    assert told(trials_of(home / "s")) == first + second
    (home / "s" / "trials" / "0000-1" / "exit").write_text("0\n")
    (home / "s" / "trials" / "0004-4" / "exit").unlink()
    assert told(trials_of(home / "s"))[5:] == second[:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trials", "eta", "left"), [(5, 3, 1), (6, 3, 2), (2, 3, 1), (3, 2, 1), (4, 2, 2), (5, 2, 2), (1, 4, 1)]
)
def test_of_a_rung_one_in_eta_goes_on_rounded_down_and_one_at_least(
    trials: int, eta: int, left: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "abcdef"[:trials]
    runs = {f"{name}-{rung}": [float(at)] for at, name in enumerate(names) for rung in (1, 2)}
    settings = tuple({"lr": name, "steps": "0"} for name in names)
    command = made(home, runs, monkeypatch)
    save_spec(Sweep(command, settings, "loss", budget="steps", rungs=("1", "2"), eta=eta), home / "s")
    found = told(run_sweep(home / "s", jobs=2))
    assert found == [
        *((at, "1", "done", float(at)) for at in range(trials)), *((at, "2", "done", float(at)) for at in range(left)),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_highest_may_be_the_best_and_of_a_curve_its_best_value(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = made(home, {"a-1": [9.0, 3.0], "b-1": [0.5, 4.0], "b-2": [1.0], "a-2": [7.0, 2.0]}, monkeypatch)
    trials = tuple({"lr": name, "steps": "0"} for name in ("a", "b"))
    sweep = Sweep(command, trials, "loss", minimise=False, budget="steps", rungs=("1", "2"), eta=3)
    save_spec(Sweep(**{**vars(sweep), "best_of_curve": True}), home / "best")
    assert told(run_sweep(home / "best", jobs=9)) == [
        (0, "1", "done", 9.0),
        (1, "1", "done", 4.0),
        (0, "2", "done", 7.0),
    ]


@pytest.mark.slow
def test_trials_that_kept_no_metrics_are_told_apart(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(home, {"a": [1.0]}, monkeypatch)
    command = (
        "sh",
        "-c",
        f"case {{lr}} in a) cp -r '{home / 'runs made'}/a/.' {{out}};; b) echo hi;; *) echo ' no \n'; exit 3;; esac",
    )
    save_spec(Sweep(command, ({"lr": "a"}, {"lr": "b"}, {"lr": "c"}), "acc"), home / "s")
    found = run_sweep(home / "s")
    assert [each.state for each in found] == ["failed"] * 3
    assert found[0].why == "it logged no 'acc'; its metrics are loss"
    assert found[1].why == (
        f"it kept no metrics in its folder: let it log with `firsthand.runs.track`, which reads ${FOLDER_VARIABLE}"
    )
    assert found[2].why == "exit status 3: no" and found[2].command[-1].startswith("case c in a)")
    assert (home / "s" / "trials" / "0001" / "log.txt").read_text() == "hi\n"


def test_a_sweep_from_elsewhere_runs_only_if_it_is_trusted(home: Path) -> None:
    save_spec(Sweep(("true",), ({"lr": "1"},), "loss"), home / "s")
    with pytest.raises(ConfigError) as again:
        save_spec(Sweep(("true",), ({},), "loss"), home / "s")
    assert (
        str(again.value)
        == f"{home / 's'} holds a sweep already: go on with --resume {home / 's'}, or give another --out"
    )
    text = (home / "s" / "sweep.json").read_text()
    (home / "s" / "sweep.json").write_text(text.replace('"true"', '"echo", "a b"'))
    assert not _is_own(home / "s")
    with pytest.raises(ConfigError) as refused:
        run_sweep(home / "s")
    assert str(refused.value) == (
        f"{home / 's'} was made elsewhere, and its trials run \"echo 'a b'\" with 'lr=1': look at it, then add --trust"
    )
    (found,) = run_sweep(home / "s", trust=True)
    assert found.state == "failed" and (found.folder / "log.txt").read_text() == "a b --lr 1\n"
    body = json.loads(text)
    body.pop("seal")
    (home / "s" / "sweep.json").write_text(json.dumps(body))
    assert not _is_own(home / "s")
    for content, reason in (
        ("{", "JSONDecodeError"), ("{}", "KeyError"), (json.dumps({**body, "x": 1}), "TypeError"),
        ("3", "AttributeError"), ('"x"', "AttributeError"), ("null", "AttributeError"), ("[]", "TypeError"),
        (json.dumps({**body, "trials": [3]}), "TypeError"), (json.dumps({**body, "trials": ["lr"]}), "ValueError"),
        (json.dumps({**body, "command": 3}), "TypeError"), (json.dumps({**body, "rungs": None}), "TypeError"),
    ):  # fmt: skip
        (home / "s" / "sweep.json").write_text(content)
        with pytest.raises(ConfigError) as none:
            load_spec(home / "s")
        assert str(none.value) == f"{home / 's'} holds no sweep ({reason}): give the folder of one"
    with pytest.raises(ConfigError) as missing:
        load_spec(home / "none")
    assert str(missing.value) == (
        f"{home / 'none'} holds no sweep (sweep.json: No such file or directory): give the folder of one"
    )
    (home / "file").write_text("")
    with pytest.raises(StoreError) as full:
        save_spec(Sweep(("true",), ({},), "loss"), home / "file")
    assert str(full.value) == f"{home / 'file'} cannot be written (File exists): give another --out"


def is_running(number: str) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_trial_begins_in_an_empty_folder_of_its_own_and_is_ended_with_its_children(home: Path) -> None:
    folder = home / "trial"
    folder.mkdir()
    (folder / "left").write_text("of a try before")
    script = f'printf %s "${FOLDER_VARIABLE}"; cat; echo no >&2; sleep 60 & echo $! > pid; wait'
    process = _start(Trial(0, "", {}, folder, command=("sh", "-c", f"cd '{folder}'; {script}")))
    until = time.monotonic() + 20
    while not (folder / "pid").exists() or not (folder / "pid").read_text().strip():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    ended = subprocess.Popen(("true",))
    ended.wait()
    _stop([ended, process])
    assert time.monotonic() - began < 7 and process.returncode not in (None, 0)
    assert (folder / "log.txt").read_text() == f"{folder}no\n" and not (folder / "left").exists()
    while is_running((folder / "pid").read_text().strip()):
        assert time.monotonic() < began + 20, "the child outlived it"
        time.sleep(0.01)
    with pytest.raises(ConfigError) as refused:
        _start(Trial(0, "", {}, folder, command=("no-such-program", "a b")))
    assert str(refused.value) == "the trial `no-such-program 'a b'` cannot be started: No such file or directory"
