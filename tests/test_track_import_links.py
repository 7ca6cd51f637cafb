"""Links within a folder of another tracker."""

from pathlib import Path

from firsthand.runs.track_import import tracked_runs


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
