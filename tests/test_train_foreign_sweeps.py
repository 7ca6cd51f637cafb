"""Sweeps of strangers: what the question for trust shows, names that become folders, files without end, other types."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.system.whole_question import MOST_SHOWN
from firsthand.train.sweep import MAX_RUNGS, MAX_WORD, Sweep, load_spec, run_sweep, save_spec, trials_of
from firsthand.train.sweep_space import MAX_TRIALS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def made(folder: Path, **changed: Any) -> Path:
    """The folder of a sweep of somebody else."""
    body = {"command": ["true"], "trials": [{"lr": "1"}], "metric": "loss", "minimise": True, "budget": "", "rungs": [""],
            "eta": 3, "best_of_curve": False, **changed}  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(body))
    return folder


def said(folder: Path, kind: type[Exception] = ConfigError, **given: Any) -> str:
    with pytest.raises(kind) as raised:
        run_sweep(folder, **given)
    return str(raised.value)


def test_a_rung_is_no_path(home: Path) -> None:
    (home / "victim").mkdir()
    (home / "s" / "trials" / "0000-").mkdir(parents=True)
    for rung in ("/../../../victim", "a/b", "a\nb", "é", "x" * 101):
        told = said(made(home / "s", command=["echo", "hello"], rungs=[rung]), trust=True)
        assert told == f"the budget {rung!r:.60} cannot be a folder's name: give a number, such as 300"
    assert (home / "victim").is_dir()
    for rung in ("1e-3", "+3.5_x"):
        assert run_sweep(made(home / "s", rungs=[rung]), trust=True)[0].folder.name == f"0000-{rung}"


def test_the_question_for_trust_shows_all_that_runs(home: Path) -> None:
    long = "a" * 300
    trials = [{"lr": str(n / 8), "prog": prog} for n, prog in enumerate(["echo", "sh", "/bin/evil"] * 10)]
    folder = made(home / "s", command=["{prog}", long, "rm -rf x"], trials=trials, budget="steps", rungs=["1", "2"])
    assert said(folder) == (
        f"{folder} was made elsewhere, and its trials run \"'{{prog}}' {long} 'rm -rf x'\" with 'lr=30 numbers', "
        "'prog=echo,sh,/bin/evil', 'steps=1,2': look at it, then add --trust"
    )
    for count, shown in ((20, "'n=" + ",".join(map(str, range(20))) + "'"), (21, "'n=21 numbers'")):
        assert f"with {shown}: look" in said(made(home / "s", trials=[{"n": str(n)} for n in range(count)]))
    assert ",evil'" in said(made(home / "s", trials=[{"n": str(n)} for n in range(30)] + [{"n": "evil"}]))
    assert "characters more: read them in the folder's file): look" in said(
        made(home / "s", command=["x" * MOST_SHOWN])
    )


def test_what_has_no_end_or_another_type_is_one_sentence(home: Path) -> None:
    folder = home / "s"
    for changed in (
        {"trials": [{"lr": 5}]}, {"trials": [{"lr": [1]}]}, {"rungs": [3]}, {"metric": 4}, {"command": [1]}, {"eta": "3"},
        {"eta": 0}, {"command": []}, {"trials": []}, {"minimise": "no"}, {"budget": None}, {"trials": {"a": 1}},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="holds no sweep"):
            trials_of(made(folder, **changed))
    for changed in ({"trials": [{}] * (MAX_TRIALS + 1)}, {"rungs": ["1"] * (MAX_RUNGS + 1)}, {"rungs": []}):
        with pytest.raises(ConfigError, match="give at most 10,000 trials, and 1 to 100 budgets"):
            trials_of(made(folder, **changed))
    (folder / "sweep.json").write_text("[" * 200_000)
    with pytest.raises(ConfigError, match="holds no sweep"):
        load_spec(folder)
    (folder / "sweep.json").unlink()
    (folder / "sweep.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="holds no sweep"):
        load_spec(folder)


def test_settings_that_name_settings_are_not_filled_in_again(home: Path) -> None:
    settings = {f"s{n}": f"{{s{n + 1}}}" * 10 for n in range(20)}
    (trial,) = trials_of(made(home / "s", command=["{s0}"], trials=[settings]))
    assert trial.command[0] == "{s1}" * 10


def test_a_word_of_a_command_has_a_largest_length_with_all_its_settings(home: Path) -> None:
    half = MAX_WORD // 2
    for command, settings in (
        (["{a}-{a}"], {"a": "x" * (half - 3)}),
        (["{a}-{b}"], {"a": "x" * half, "b": "y" * (half - 6)}),
    ):
        with pytest.raises(ConfigError) as refused:
            trials_of(made(home / "s", command=command, trials=[settings]))
        assert str(refused.value) == (
            f"the setting 'a' makes a word of the command longer than {MAX_WORD:,} characters: shorten it"
        )
        shorter = settings | {"a": settings["a"][1:]}
        (trial,) = trials_of(made(home / "s", command=command, trials=[shorter]))
        assert MAX_WORD - 8 <= len(trial.command[0]) <= MAX_WORD


def test_the_files_of_a_trial_are_ordinary_ones(home: Path) -> None:
    trial = home / "s" / "trials" / "0000"
    trial.mkdir(parents=True)
    made(home / "s")
    (trial / "exit").symlink_to("/dev/zero")
    assert trials_of(home / "s")[0].state == "waiting"
    (trial / "exit").unlink()
    os.mkfifo(trial / "exit")
    assert trials_of(home / "s")[0].state == "waiting"
    (trial / "exit").unlink()
    (trial / "exit").write_text("3\n")
    for make in (lambda log: log.symlink_to("/dev/zero"), os.mkfifo):
        make(trial / "log.txt")
        assert trials_of(home / "s")[0].why == "exit status 3: it printed nothing"
        (trial / "log.txt").unlink()
    (trial / "log.txt").write_text("it blew up\n")
    assert trials_of(home / "s")[0].why == "exit status 3: it blew up"


def test_trials_behind_links_are_neither_removed_nor_read(home: Path) -> None:
    (home / "mine" / "0000").mkdir(parents=True)
    made(home / "s")
    (home / "s" / "trials").symlink_to(home / "mine")
    assert "trials is a link" in said(home / "s", StoreError, trust=True)
    (home / "s" / "trials").unlink()
    (home / "s" / "trials").mkdir()
    (home / "s" / "trials" / "0000").symlink_to(home / "mine" / "0000")
    assert "0000 is a link" in said(home / "s", StoreError, trust=True)
    with pytest.raises(StoreError, match="0000 is a link"):
        trials_of(home / "s")
    assert (home / "mine" / "0000").is_dir()


def test_values_of_ones_own_sweep_may_be_paths_and_need_no_trust(home: Path) -> None:
    command = ("/bin/sh", "-c", "ln -s x $FIRSTHAND_TRACK_AT/latest; echo $0", "{data}")
    save_spec(Sweep(command, ({"data": "a/b.txt"}, {"data": "../c"}), "loss"), home / "s")
    assert [(each.folder / "log.txt").read_text() for each in run_sweep(home / "s")] == ["a/b.txt\n", "../c\n"]
    assert [each.state for each in trials_of(home / "s")] == ["failed", "failed"], (
        "links that a trial makes are no matter"
    )
