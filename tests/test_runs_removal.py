"""`firsthand runs --prune` removes what it says, asks first, and never a run that is being worked on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firsthand.errors import FirsthandError, StoreError
from firsthand.runs import removal, store
from firsthand.runs.removal import remove_run
from firsthand.runs.run_names import LOCK, run_ids
from firsthand.runs.store import open_run
from firsthand.system import lock
from firsthand.trace import Score, Trace

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def make(home: Path, name: str, *, attempts: int = 0, days_ago: float = 0) -> str:
    made = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat(timespec="milliseconds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "now", lambda: made)
        run = store.create(home, {}, name)
    with run:
        for index in range(attempts):
            run.append(Trace(f"id{index}", "sums", f"{index}", {"name": "a"}, 0, 0, "2026-11-25T00:00:00", 1.0))
        run.finish("done")
        return run.id


@pytest.mark.slow
def test_without_a_name_the_runs_without_attempts_go(home: Path, cli: Cli) -> None:
    kept, empty, other = make(home, "kept", attempts=1), make(home, "empty"), make(home, "other")
    code, out, _ = cli("runs", "--prune", "--yes")
    assert code == 0 and set(run_ids(home)) == {kept}
    assert sorted(out.splitlines()) == sorted([f"removed {empty}", f"removed {other}"])
    assert cli("runs", "--prune", "--yes")[1] == "no run to remove\n"


@pytest.mark.slow
def test_runs_older_than_some_days_go(home: Path, cli: Cli) -> None:
    make(home, "old", attempts=2, days_ago=31)
    young = make(home, "young", attempts=2, days_ago=29)
    empty = make(home, "empty")
    assert cli("runs", "--prune", "--older-than", "30", "--yes")[0] == 0
    assert set(run_ids(home)) == {young, empty}


@pytest.mark.slow
def test_a_named_run_goes_with_its_attempts_and_from_the_list(home: Path, cli: Cli) -> None:
    run, other = make(home, "named", attempts=3), make(home, "other", attempts=1)
    assert run in cli("runs")[1]
    assert cli("runs", run, "--prune", "--yes")[0] == 0
    assert not (home / "runs" / run).exists() and other in cli("runs")[1] and run not in cli("runs")[1]


def test_nothing_is_removed_unasked(home: Path, cli: Cli) -> None:
    run = make(home, "named", attempts=3)
    code, _, err = cli("runs", run, "--prune")
    assert code == 2 and "would remove 1 run with 3 attempts: add --yes" in err
    assert run_ids(home) == [run]


@pytest.mark.slow
def test_a_run_under_way_is_kept(home: Path, cli: Cli) -> None:
    run_id = make(home, "busy")
    with open_run(run_id, home) as run, run.working():
        assert cli("runs", "--prune", "--yes")[1] == "no run to remove\n"
        code, _, err = cli("runs", run_id, "--prune", "--yes")
        assert code == 1 and "is being worked on" in err
    assert run_ids(home) == [run_id]


def test_only_the_folder_of_a_run_is_removed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    with pytest.raises(StoreError, match="is not the folder of a run"):
        remove_run(tmp_path / "photos")
    run = make(tmp_path, "real")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "runs" / run)
    with pytest.raises(StoreError, match="is not the folder of a run"):
        remove_run(link)
    assert (tmp_path / "photos" / "a.jpg").exists() and run_ids(tmp_path) == [run]


def test_an_interrupted_removal_is_finished_by_the_next_and_lists_no_half_run(tmp_path: Path) -> None:
    first, second = make(tmp_path, "first"), make(tmp_path, "second")
    (tmp_path / "runs" / first).rename(tmp_path / "runs" / f".removed-{first}")
    assert run_ids(tmp_path) == [second]
    remove_run(tmp_path / "runs" / second)
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "runs").iterdir() if path.is_dir())


def test_a_run_that_is_given_scores_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    run_id = make(tmp_path, "judged", attempts=1)
    with open_run(run_id, tmp_path) as run:
        with run.scoring("judge"):
            with pytest.raises(
                StoreError, match=f"{run_id} is being worked on by process {os.getpid()} on .*end it first"
            ):
                remove_run(run.path)
            assert folders(tmp_path) == [run_id]
        remove_run(run.path)
    assert folders(tmp_path) == []


def test_a_scoring_that_begins_as_its_run_is_renamed_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    run_id = make(tmp_path, "judged", attempts=1)
    with open_run(run_id, tmp_path) as run, ExitStack() as scorings:

        def begin(size: int) -> str:
            scorings.enter_context(run.scoring("judge"))
            return "x" * size

        monkeypatch.setattr(removal.secrets, "token_hex", begin)
        with pytest.raises(StoreError, match=f"^{run_id} is being worked on by "):
            remove_run(run.path)
        assert folders(tmp_path) == [run_id]
        (trace, number) = next(iter(run.tried()))
        run.add_score(trace, number, "judge", "a judge", Score("judge", 1.0))
    with open_run(run_id, tmp_path) as run:
        assert run.score_names() == {"judge": "a judge"}


def test_none_can_begin_to_work_on_a_run_that_is_being_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    run_id = make(tmp_path, "gone", attempts=1)
    refused: list[str] = []
    with open_run(run_id, tmp_path) as run:
        with run.scoring("judge"):
            pass  # an earlier one, whose lock lies there

        def attempt(size: int = 8) -> str:
            for claim in (run.claimed, lambda: run.scoring("judge"), lambda: run.scoring("other")):
                try:
                    with claim():
                        refused.append("")
                except FirsthandError as error:
                    refused.append(str(error))
            return "x" * size

        def delete(folder: Path) -> None:
            attempt()
            delete_now(folder)

        delete_now = shutil.rmtree
        monkeypatch.setattr(removal.secrets, "token_hex", attempt)
        monkeypatch.setattr(removal.shutil, "rmtree", delete)
        remove_run(run.path)
    assert "is being run by process" in refused[0] and "is being given scores named 'judge' by process" in refused[1]
    assert refused[2] == "", "a new one that has ended before the folder is renamed is no hindrance"
    assert len(refused) == 6 and all("cannot be written (No such file" in each for each in refused[3:])
    assert folders(tmp_path) == []


def test_a_removal_under_way_is_left_to_its_process(tmp_path: Path) -> None:
    first, second, third = (make(tmp_path, name) for name in ("first", "second", "third"))
    under_way = (tmp_path / "runs" / first).rename(tmp_path / "runs" / f".removed-{first}")
    with lock.held(under_way / LOCK):
        remove_run(tmp_path / "runs" / second)
        assert folders(tmp_path) == sorted([third, under_way.name])
    remove_run(tmp_path / "runs" / third)
    assert folders(tmp_path) == []


def test_what_an_interrupted_removal_left_of_the_same_run_is_no_hindrance(tmp_path: Path) -> None:
    run = make(tmp_path, "again")
    shutil.copytree(tmp_path / "runs" / run, tmp_path / "runs" / f".removed-{run}")
    remove_run(tmp_path / "runs" / run)
    assert folders(tmp_path) == []


def test_what_cannot_be_swept_fails_no_removal(tmp_path: Path) -> None:
    run = make(tmp_path, "swept")
    (tmp_path / "runs" / ".removed-file").write_text("no folder")
    remove_run(tmp_path / "runs" / run)
    assert folders(tmp_path) == [] and (tmp_path / "runs" / ".removed-file").exists()


def test_a_file_that_another_removal_deleted_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, delete_now = make(tmp_path, "at-once"), shutil.rmtree

    def delete(folder: Path) -> None:
        monkeypatch.setattr(removal.shutil, "rmtree", delete_now)
        (folder / "run.sqlite").unlink()
        raise FileNotFoundError

    monkeypatch.setattr(removal.shutil, "rmtree", delete)
    remove_run(tmp_path / "runs" / run)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("name", [LOCK, "scoring-0.lock"])
@pytest.mark.parametrize("is_link", [True, False])
def test_a_run_from_elsewhere_whose_lock_is_no_file_is_removed(tmp_path: Path, name: str, is_link: bool) -> None:
    run = make(tmp_path, "odd")
    odd, other = tmp_path / "runs" / run / name, tmp_path / "other"
    other.write_text("kept")
    odd.unlink(missing_ok=True)
    odd.symlink_to(other) if is_link else odd.mkdir()
    remove_run(tmp_path / "runs" / run)
    assert folders(tmp_path) == [] and other.read_text() == "kept"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--yes"], "add --prune"),
        (["--prune", "--older-than", "-1"], "0 or more"),
        (["--prune", "--older-than", "nan"], "0 or more"),
        (["last", "--prune", "--older-than", "3"], "leave it out"),
    ],
)
def test_what_makes_no_sense_is_refused(home: Path, cli: Cli, words: list[str], message: str) -> None:
    code, _, err = cli("runs", *words)
    assert code == 2 and message in err


@pytest.mark.slow
def test_the_list_says_how_many_more_there_are(home: Path, cli: Cli) -> None:
    for name in ("a", "b", "c"):
        make(home, name, attempts=1)
    assert "2 of 3 runs: --limit 3 shows all" in cli("runs", "--limit", "2")[1]
    assert "shows all" not in cli("runs", "--limit", "3")[1]
