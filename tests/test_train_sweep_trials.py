"""A sweep's trials without their processes: words of commands, states on disk, values, rungs, and spaces at their limits."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.runs.track import FOLDER_VARIABLE, start
from firsthand.system.lock import is_held
from firsthand.train import data_order
from firsthand.train.data_order import StreamBatches, digest, order, split
from firsthand.train.streams import Stream
from firsthand.train.sweep import (
    Sweep,
    Trial,
    _last_line,
    _looked_at,
    _start,
    _stop,
    _trial,
    _words,
    best,
    load_spec,
    run_sweep,
    save_spec,
    trials_of,
)
from firsthand.train.sweep_space import MAX_TRIALS, Drawn, combinations, parse_space, survivors


def test_the_words_of_a_command_have_settings_at_their_places_or_as_flags_at_the_end() -> None:
    folder = Path("/t/0001")
    settings = {"lr": "1", "weight_decay": "0.5"}
    assert _words(("run", "--rate={lr}/{lr}", "{out}"), settings, folder) == (
        "run", "--rate=1/1", "/t/0001", "--weight-decay", "0.5"
    )  # fmt: skip
    plain, placed = ("/bin/firsthand", "train", "sft"), ("firsthand", "train", "sft", "--out", "{out}/x")
    assert _words(plain, {"lr": "1"}, folder) == (*plain, "--lr", "1", "--out", "/t/0001")
    assert _words(placed, {"lr": "1"}, folder) == ("firsthand", "train", "sft", "--out", "/t/0001/x", "--lr", "1")
    assert _words(("firsthand", "eval"), {}, folder) == ("firsthand", "eval")
    said = {"text": "use {n} of {text} in {out}", "n": "3", "{x": "4"}
    assert _words(("say", "{text} {{n}} {m} {}"), said, folder) == (
        "say", "use {n} of {text} in {out} {3} {m} {}", "--{x", "4"
    )  # fmt: skip
    assert _words(("python", "firsthand", "train"), {}, folder) == ("python", "firsthand", "train")


def test_a_trial_is_named_by_number_and_rung_and_has_the_rungs_budget() -> None:
    sweep = Sweep(("x",), ({"lr": "1"}, {"lr": "2", "steps": "7"}), "loss", budget="steps", rungs=("10", "90"))
    trial = _trial(sweep, Path("/s"), 1, "90")
    assert vars(replace(trial, value=0.0)) == {
        "number": 1, "rung": "90", "settings": {"lr": "2", "steps": "90"}, "folder": Path("/s/trials/0001-90"), "value": 0.0,
        "state": "waiting", "why": "", "command": ("x", "--lr", "2", "--steps", "90"),
    }  # fmt: skip
    assert _trial(Sweep(("x",), ({"a": "b"},), "loss"), Path("/s"), 0, "").folder == Path("/s/trials/0000")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def ended(
    folder: Path, values: list[float], code: int = 0, log: str = "", monkeypatch: pytest.MonkeyPatch | None = None
) -> None:
    """The folder of a trial whose process has ended."""
    assert monkeypatch is not None
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(log)
    if values:
        monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
        with start("trial") as track:
            for step, value in enumerate(values, 1):
                track.log({"loss": value}, step=step)
        monkeypatch.delenv(FOLDER_VARIABLE)
    (folder / "exit").write_text(f"{code}\n")


def test_a_trial_is_what_its_files_show(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(("x",), ({"lr": "1"},), "loss")
    trial = _trial(sweep, home, 0, "")
    assert _looked_at(sweep, trial).state == "waiting"
    ended(trial.folder, [3.0, math.nan, 1.0, 2.0], monkeypatch=monkeypatch)
    looked = _looked_at(sweep, trial)
    assert (looked.state, looked.value, looked.why) == ("done", 2.0, "")
    assert _looked_at(replace(sweep, best_of_curve=True), trial).value == 1.0
    assert _looked_at(replace(sweep, best_of_curve=True, minimise=False), trial).value == 3.0
    assert _looked_at(replace(sweep, metric="acc"), trial).why == "it logged no 'acc'; its metrics are loss"
    (trial.folder / "exit").write_text("-9\n")
    (trial.folder / "log.txt").write_text("one\n  the last \n\n")
    looked = _looked_at(sweep, trial)
    assert (looked.state, looked.why, math.isnan(looked.value)) == ("failed", "exit status -9: the last", True)
    (trial.folder / "exit").write_text("x")
    assert _looked_at(sweep, trial).state == "waiting"
    for text, line in (
        ("", "it printed nothing"),
        ("a" * 400, "a" * 300),
        ("\udcff\nb", "b"),
        ("first\n" + " " * 5000, "it printed nothing"),
    ):
        (home / "log").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert _last_line(home / "log") == line
    assert _last_line(home / "none") == "it printed nothing"


@pytest.mark.parametrize("last", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("minimise", [True, False])
def test_a_trial_whose_metric_ends_in_no_finite_number_has_diverged(
    home: Path, monkeypatch: pytest.MonkeyPatch, last: float, minimise: bool
) -> None:
    sweep = Sweep(("x",), ({"lr": "1"}, {"lr": "2"}), "loss", minimise)
    curve_of = replace(sweep, best_of_curve=True)
    trial, endless = (_trial(sweep, home, number, "") for number in range(2))
    ended(trial.folder, [1.0, last, 3.0, 2.0, last], monkeypatch=monkeypatch)
    looked = _looked_at(sweep, trial)
    assert (looked.state, looked.why) == ("diverged", f"loss is {last} at its last step, 5") and math.isnan(
        looked.value
    )
    assert best(sweep, [looked]) is None
    looked = _looked_at(curve_of, trial)
    assert (looked.state, looked.value, looked.why) == (
        "done", 1.0 if minimise else 3.0, f"loss is {last} at its last step, 5"
    )  # fmt: skip
    ended(endless.folder, [last], monkeypatch=monkeypatch)
    for judged in (sweep, curve_of):
        looked = _looked_at(judged, endless)
        assert looked.state == "diverged" and math.isnan(looked.value) and looked.why.endswith("step, 1")


def test_trials_that_diverged_or_failed_take_no_place_on_the_next_rung_and_are_not_tried_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process would not start: there is no such program."""
    sweep = Sweep(("/none",), tuple({"lr": str(n)} for n in range(4)), "loss", budget="steps", rungs=("1", "2"), eta=2)
    save_spec(sweep, home / "s")
    for number, value in enumerate((math.nan, 3.0, math.inf, math.nan)):
        ended(home / "s" / "trials" / f"{number:04d}-1", [0.0, value], monkeypatch=monkeypatch)
    ended(home / "s" / "trials" / "0001-2", [7.0], monkeypatch=monkeypatch)
    trials = run_sweep(home / "s")
    assert [(each.number, each.rung, each.state) for each in trials] == [
        (0, "1", "diverged"), (1, "1", "done"), (2, "1", "diverged"), (3, "1", "diverged"), (1, "2", "done")
    ]  # fmt: skip
    chosen = best(sweep, trials)
    assert chosen is not None and chosen.number == 1
    save_spec(replace(sweep, trials=({"lr": "1"},)), home / "none")
    ended(home / "none" / "trials" / "0000-1", [math.nan], monkeypatch=monkeypatch)
    assert [each.state for each in run_sweep(home / "none")] == ["diverged"]


def test_a_trial_that_outlived_its_sweep_is_not_run_beside_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / "s"
    sweep = Sweep(("sh", "-c", "touch ran"), ({"lr": "1"}, {"lr": "2"}), "loss")
    save_spec(sweep, folder)
    monkeypatch.chdir(home)
    trial = replace(_trial(sweep, folder, 1, ""), command=("sh", "-c", "sleep 60 & touch {out}/begun; wait"))
    trial = replace(trial, command=_words(trial.command, {}, trial.folder))
    trial.folder.parent.mkdir()
    (folder / "trials" / "0001.lock").write_text("a longer text than a number")  # of a try before
    process = _start(trial)
    until = time.monotonic() + 20
    while not (trial.folder / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        process.kill()
        process.wait()  # its child, which nothing else knows of, runs on
        with pytest.raises(ConfigError) as refused:
            run_sweep(folder)
        assert str(refused.value) == (
            f"process {process.pid} of trial 0001, or a child of it, has outlived its sweep: end it, or wait until it has "
            "ended, and resume"
        )
        assert not (home / "ran").exists(), "no other trial is run either"
        (folder / "trials" / "0001.lock").write_text("x")
        with pytest.raises(ConfigError, match=r"^a process of trial 0001, or a child"):
            _start(trial)
        assert (trial.folder / "begun").exists()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    while is_held(folder / "trials" / "0001.lock"):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert [each.state for each in run_sweep(folder)] == ["failed"] * 2 and (home / "ran").exists()
    assert [each.number for each in trials_of(folder)] == [0, 1]


def test_the_best_trial_is_of_the_last_rung_that_has_a_value() -> None:
    def trial(number: int, rung: str, value: float) -> Trial:
        return Trial(number, rung, {}, Path("/x"), value)

    sweep = Sweep(("x",), ({},), "loss", rungs=("1", "2", "3"))
    trials = [trial(0, "1", 0.1), trial(1, "1", 0.5), trial(0, "2", 0.4), trial(1, "2", 0.3), trial(1, "3", math.nan)]
    assert best(sweep, trials) is trials[3] and best(replace(sweep, minimise=False), trials) is trials[2]
    assert best(sweep, trials[:2]) is trials[0] and best(sweep, trials[4:]) is None and best(sweep, []) is None
    assert survivors([2.0, 1.0, 1.0, math.nan], 9, minimise=True) == [1, 2, 0, 3]
    assert (
        survivors([2.0, 1.0, 2.0, math.nan], 9, minimise=False) == [0, 2, 1, 3]
        and survivors([], 2, minimise=True) == []
    )


@pytest.mark.slow
def test_rungs_take_the_best_of_each_and_what_is_done_is_not_run_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is started: every trial that comes up has ended before."""
    folder = home / "my" / "sweep"
    sweep = Sweep(("/none",), tuple({"lr": str(n)} for n in range(7)), "loss", budget="steps", rungs=("1", "2", "3"))
    save_spec(sweep, folder)
    for number, value in enumerate((5, 1, 4, 0, 9, 9, 9)):
        ended(folder / "trials" / f"{number:04d}-1", [float(value)], monkeypatch=monkeypatch)
    assert {each.rung for each in trials_of(folder)} == {"1"}, "trials of a later rung show when they have begun"
    for number in (1, 3):
        ended(folder / "trials" / f"{number:04d}-2", [13.0 - number], monkeypatch=monkeypatch)
    ended(folder / "trials" / "0003-3", [7.0], monkeypatch=monkeypatch)
    trials = run_sweep(folder)
    assert [(each.number, each.rung, each.value) for each in trials[7:]] == [
        (1, "2", 12.0), (3, "2", 10.0), (3, "3", 7.0)
    ]  # fmt: skip
    assert len(trials_of(folder)) == 10 and load_spec(folder) == sweep
    one = home / "one"
    save_spec(replace(sweep, trials=({"lr": "1"}, {"lr": "2"}), rungs=("1", "2")), one)
    for number in range(2):
        ended(one / "trials" / f"{number:04d}-1", [1.0], monkeypatch=monkeypatch)
    ended(one / "trials" / "0000-2", [1.0], monkeypatch=monkeypatch)
    assert [(each.number, each.rung) for each in run_sweep(one)] == [(0, "1"), (1, "1"), (0, "2")], (
        "one at least goes on"
    )
    with pytest.raises(ConfigError, match=r"holds a sweep already: go on with --resume"):
        save_spec(sweep, one)
    body = json.loads((one / "sweep.json").read_text())
    (one / "sweep.json").write_text(json.dumps(body | {"metric": "other"}))
    with pytest.raises(
        ConfigError,
        match="was made elsewhere, and its trials run '/none' with 'lr=1,2', 'steps=1,2': look at it, then add --trust",
    ):
        run_sweep(one)


def test_a_trials_process_has_the_environment_and_its_own_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "/of/another/run")
    monkeypatch.setenv("FIRSTHAND_OTHER", "é 1")
    folder = home / "s" / "trials" / "0003"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    process = _start(Trial(3, "", {}, folder, command=("printenv", FOLDER_VARIABLE, "FIRSTHAND_OTHER", "NOT_THERE")))
    assert process.wait(20) == 1, "the last is not there"
    assert (folder / "log.txt").read_text() == f"{folder}\né 1\n" and [*folder.iterdir()] == [folder / "log.txt"]


def test_a_trial_that_cannot_be_started_is_told_and_processes_are_ended(home: Path) -> None:
    save_spec(Sweep(("/no/such/program",), ({"lr": "1"},), "loss"), home / "s")
    with pytest.raises(
        ConfigError, match="the trial `/no/such/program --lr 1` cannot be started: No such file or directory"
    ):
        run_sweep(home / "s")
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    began = time.monotonic()
    _stop([process])
    assert process.returncode is not None and time.monotonic() - began < 4


def child(handler: str) -> subprocess.Popen[bytes]:
    """A process in a session of its own that sleeps, and treats SIGINT so; it is ready when this returns."""
    script = f"trap '{handler}' INT; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


@pytest.mark.slow
def test_each_process_may_end_itself_and_what_does_not_is_killed_and_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = child("exit 3"), child("sleep 0.4; exit 4")
    gone = subprocess.Popen(("sh", "-c", "exit 5"))
    gone.wait()
    for processes in ([gone], []):
        _stop(processes)
    _stop([gone, quick, slow])
    assert [each.returncode for each in (gone, quick, slow)] == [5, 3, 4], "all are waited for, not the first alone"
    monkeypatch.setattr("firsthand.train.sweep._STOP_S", 0.2)
    deaf, quick = child(""), child("exit 6")
    _stop([deaf, quick])
    assert (deaf.returncode, quick.returncode) == (-signal.SIGKILL, 6)


# -- spaces --


def test_draws_have_few_digits_and_stay_in_their_range() -> None:
    source = random.Random(1)
    assert all(1 <= float(Drawn("log", 1, 100).draw(source)) <= 100 for _ in range(50))
    logs = [math.log10(float(Drawn("log", 0.01, 100).draw(source))) for _ in range(400)]
    assert abs(sum(logs) / 400) < 0.2 and {Drawn("int", -1, 1).draw(source) for _ in range(60)} == {"-1", "0", "1"}
    assert all(len(Drawn("uniform", 0, 1).draw(source).lstrip("0.").replace("e-05", "")) <= 4 for _ in range(50))
    for wrong, said in (("x=int:2:2", "give whole numbers, the lower first"),
                        ("x=log:0:1", "give two numbers above 0, the lower first"),
                        ("x=uniform:2:1", "give two numbers, the lower first"),
                        ("x=uniform:1", "give a range as uniform:LOW:HIGH")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            parse_space([wrong])
    assert parse_space(["x=uniform:-1:0", "y=int:-2:3", "z.a-b=logs"]) == {
        "x": Drawn("uniform", -1, 0), "y": Drawn("int", -2, 3), "z.a-b": ["logs"]
    }  # fmt: skip


def test_combinations_are_bounded_and_draws_are_as_many_as_asked_for() -> None:
    hundred = ",".join(map(str, range(100)))
    assert len(combinations(parse_space([f"a={hundred}", f"b={hundred}"]))) == MAX_TRIALS
    with pytest.raises(
        ConfigError, match="these settings have 10,100 combinations: give --trials to draw some of them"
    ):
        combinations(parse_space([f"a={hundred}", f"b={hundred},x"]))
    for trials in (0, MAX_TRIALS + 1):
        with pytest.raises(ConfigError, match=f"trials is {trials}: give 1 to 10000"):
            combinations(parse_space(["a=1"]), trials=trials)
    assert combinations(parse_space(["a=1"]), trials=1) == [{"a": "1"}] and combinations({}) == [{}]
    assert len(combinations(parse_space(["a=1,2,3"]), trials=2)) == 2
    for seed in range(10):
        small = combinations(parse_space(["a=1,2", "b=x,y"]), trials=4, seed=seed)
        assert sorted("".join(each.values()) for each in small) == ["1x", "1y", "2x", "2y"], "all that there are"
        assert combinations(parse_space(["a=1,2", "b=x,y"]), trials=9, seed=seed) == small, "none twice"
        assert combinations(parse_space(["a=1,2", "b=x,y"]), trials=3, seed=seed) == small[:3]
    assert len({str(combinations(parse_space(["a=1,2", "b=x,y"]), trials=4, seed=seed)) for seed in range(10)}) > 5
    ranges = parse_space(["n=int:1:3", "b=x,y"])
    assert {each["n"] for each in combinations(ranges, trials=6)} == {"1", "2", "3"}
    assert len(combinations(ranges, trials=6)) == 6 == len(combinations(ranges, trials=7))
    with pytest.raises(ConfigError, match="n is a range: say with --trials how many settings are drawn"):
        combinations(ranges)
    assert combinations(parse_space(["a=1,2", "b=x,y"])) == [
        {"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"}
    ]  # fmt: skip


# -- the order of data --


def test_an_order_is_a_permutation_of_its_arguments_alone() -> None:
    found = order(1, 2, 50)
    assert sorted(found.tolist()) == [*range(50)]
    others = [order(*each) for each in ((2, 2, 50), (1, 3, 50))] + [order(1, 2, 50, block=0), order(1, 2, 50, block=1)]
    assert len({tuple(each.tolist()) for each in [found, *others]}) == 5 and order(1, 2, 50).tolist() == found.tolist()


def test_a_split_holds_out_one_at_least_and_leaves_one_at_least() -> None:
    items = [*"abcdefghij"]
    kept, held = split(items, 0.25, seed=3)
    assert len(held) == 2 and sorted(kept + held) == items and kept == sorted(kept) and held == sorted(held)
    first = order(3, data_order._HELD_OUT, 10)[:2].tolist()
    assert held == [items[at] for at in sorted(first)] and split(items, 0) == (items, [])
    assert len(split(items, 0.01)[1]) == 1 and len(split(items, 0.9)[0]) == 1
    with pytest.raises(
        ConfigError, match="the data has 10 items, and 10 would be held out: give more data, or holdout 0"
    ):
        split(items, 0.96)


def test_batches_of_examples_run_over_epochs_and_go_on_from_their_state() -> None:
    def example(number: int, pair: int | None = None) -> list[Stream]:
        label = None if pair is None else 1.0
        return [Stream([number, k], ce=[0, 1], pair=pair, label=label) for k in range(1 if pair is None else 2)]

    examples = [example(0), example(1, 7), example(2)]
    batches = StreamBatches(examples, 2, seed=4)
    source = iter(batches)
    found = [next(source) for _ in range(3)]
    expected = [*order(4, 0, 3).tolist(), *order(4, 1, 3).tolist()]
    drawn = [[int(stream.ids[0]) for stream in batch if stream.ids[1] == 0] for batch in found]
    assert [number for batch in drawn for number in batch] == expected and batches.drawn == 6
    for batch in found:
        pairs = [stream.pair for stream in batch if stream.pair is not None]
        assert (
            len(pairs) in (0, 2, 4) and all(pair < len(batch) for pair in pairs) and len(set(pairs)) == len(pairs) // 2
        )
    again = StreamBatches(examples, 2, seed=4)
    again.load({**batches.state(), "drawn": 2})
    assert [int(stream.ids[0]) for stream in next(iter(again))] == [int(stream.ids[0]) for stream in found[1]]
    state = batches.state()
    assert state == {"drawn": 6, "data": digest(s.ids for e in examples for s in e), "targets": batches._targets}
    with pytest.raises(DataError, match="the data is not what the run began with"):
        StreamBatches(examples[:2], 2).load(batches.state())
    with pytest.raises(ValueError, match="its position in the data is"):
        again.load({**batches.state(), "drawn": -1})
    assert digest([np.array([1, 2], np.int32)]) != digest([np.array([1], np.int32), np.array([2], np.int32)])
    for wrong, size, said in (
        ([], 1, "there is no example to train on"),
        (examples, 0, "batch_size is 0: expected 1 or more"),
    ):
        with pytest.raises(ConfigError, match=said):
            StreamBatches(wrong, size)
