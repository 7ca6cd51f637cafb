"""Links within a folder of another tracker."""

from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.runs.track_import import tracked_runs
from firsthand.system.given_folder import leads_out


def test_a_file_with_many_names_is_imported_once(tmp_path: Path) -> None:
    run = tmp_path / "ml" / "run"
    (run / "metrics").mkdir(parents=True)
    (run / "meta.yaml").touch()
    (run / "metrics" / "a").write_text("1000 0.5 0\n2000 0.25 1\n")
    (run / "metrics" / "own").write_text("1000 0.5 0\n2000 0.25 1\n")
    for number in range(20):
        (run / "metrics" / f"b{number}").symlink_to("a")
    (found,) = tracked_runs(tmp_path / "ml")
    assert [(each.name, each.step) for each in found.values] == [("a", 0), ("a", 1), ("own", 0), ("own", 1)]
    (run / "meta2").mkdir()
    for number in range(3):
        other = tmp_path / "ml" / f"linked{number}"
        (other / "metrics").mkdir(parents=True)
        (other / "meta.yaml").symlink_to(run / "meta.yaml")
    assert len(list(tracked_runs(tmp_path / "ml"))) == 1


def test_files_of_a_hub_snapshot_are_links_and_are_imported(tmp_path: Path) -> None:
    blobs, run = tmp_path / "blobs", tmp_path / "snapshots" / "r1"
    (run / "metrics").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "x").write_text("")
    (run / "events.out.tfevents.1").symlink_to(blobs / "x")
    (run / "events.out.tfevents.2").symlink_to(blobs / "x")
    (found,) = tracked_runs(run)
    assert found.source == "tensorboard" and list(found.values) == []


def mlflow_run(folder: Path) -> Path:
    (folder / "metrics" / "val").mkdir(parents=True)
    (folder / "meta.yaml").touch()
    (folder / "metrics" / "loss").write_text("1000 0.5 0\n")
    (folder / "metrics" / "val" / "loss").write_text("1000 0.25 0\n")
    (folder / "params").mkdir()
    (folder / "params" / "lr").write_text("0.1")
    return folder


@pytest.mark.parametrize("name", ["metrics", "params", "tags"])
def test_a_folder_of_an_mlflow_run_that_leads_elsewhere_is_refused_before_anything_there_is_listed(
    tmp_path: Path, name: str
) -> None:
    run, elsewhere = mlflow_run(tmp_path / "ml" / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mlflow.runName").write_text("private")
    if (run / name).exists():
        (run / name).rename(tmp_path / "old")
    (run / name).symlink_to(elsewhere)
    with pytest.raises(DataError) as error:
        list(tracked_runs(tmp_path / "ml"))
    assert str(error.value) == (
        f"{run / name} is a link to {elsewhere}, outside of the run's folder, and is not followed: put a copy in its place"
    )


def test_a_link_within_the_folder_of_an_mlflow_run_is_followed(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "ml" / "run")
    (run / "metrics").rename(run / "kept")
    (run / "metrics").symlink_to("kept")
    (found,) = tracked_runs(tmp_path / "ml")
    assert sorted(each.name for each in found.values) == ["loss", "val/loss"] and found.config == {"lr": "0.1"}


def test_names_below_a_link_in_a_trackers_folder_are_not_listed(tmp_path: Path) -> None:
    run, elsewhere = mlflow_run(tmp_path / "ml" / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other").write_text("1000 9 0\n")
    (elsewhere / "x.db").write_text("no database")
    (run / "metrics" / "deep").symlink_to(elsewhere)
    (run / "metrics" / "round").symlink_to(run)
    (tmp_path / "ml" / "more").symlink_to(elsewhere)
    (found,) = tracked_runs(tmp_path / "ml")
    assert sorted(each.name for each in found.values) == ["loss", "val/loss"]


def test_links_that_cannot_be_looked_at_are_left_out_and_files_beside_them_are_imported(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "ml" / "run")
    for folder in ("metrics", "params", "."):
        (run / folder / "long").symlink_to("x" * 300)
        (run / folder / "itself").symlink_to("itself")
    (found,) = tracked_runs(tmp_path / "ml")
    assert sorted(each.name for each in found.values) == ["loss", "val/loss"] and found.config == {"lr": "0.1"}
    assert leads_out(run / "itself", run / "metrics") and not leads_out(run / "itself", run)


def test_a_log_of_a_tracker_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    with pytest.raises(
        DataError, match=r"x cannot be read as the log of a tracker \(File name too long\): give files that"
    ):
        list(tracked_runs(long))
    event = tmp_path / "events.out.tfevents.1"
    event.write_bytes(b"")
    (found,) = tracked_runs(tmp_path)
    event.unlink()
    event.mkdir()
    with pytest.raises(DataError, match=r"tfevents\.1 cannot be read as the log of a tracker \(Is a directory\)"):
        list(found.values)
