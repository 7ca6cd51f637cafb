"""What an import of another tracker's runs keeps, and what it says of the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.runs import store, track_import
from firsthand.runs.track import Track
from firsthand.runs.track_export import export
from firsthand.runs.track_import import import_runs
from tracker_bytes import history, wandb_log


def mlflow(folder: Path, meta: str = "lifecycle_stage: active\n", **metrics: str) -> Path:
    for name in ("metrics", "params/optim", "tags"):
        (folder / name).mkdir(parents=True)
    (folder / "meta.yaml").write_text(f"artifact_uri: file:///mlruns/0/{folder.name}\n{meta}run_id: {folder.name}\n")
    for name, lines in metrics.items():
        (folder / "metrics" / name).write_text(lines)
    return folder


def lines(*values: tuple[int, float, int]) -> str:
    return "".join(f"{at * 1000} {value} {step}\n" for at, value, step in values)


def test_values_that_mlflow_was_given_without_a_step_are_a_curve_by_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = mlflow(
        tmp_path / "0" / "abc",
        loss=lines((10, 3.0, 0), (30, 1.0, 0), (20, 2.0, 0)),
        one=lines((10, 9.0, 0)),
        stepped=lines((10, 1.0, 0), (20, 2.0, 1), (30, 3.0, 1)),
    )
    (folder / "params" / "optim" / "lr").write_text("0.1")
    (folder / "params" / "seed").write_text("3")
    [(id, count)] = import_runs(tmp_path, tmp_path / "home")
    with store.open_run(id, tmp_path / "home") as run:
        curve = Track(run).curve("loss")
        assert (curve.steps, curve.values, curve.at) == ((0, 1, 2), (3.0, 2.0, 1.0), (10.0, 20.0, 30.0))
        assert Track(run).curve("one").steps == (0,) and Track(run).curve("stepped").values == (1.0, 3.0)
        assert run.config["settings"] == {"optim/lr": "0.1", "seed": "3"} and count == 6
    assert caplog.messages == [
        "abc: 1 of 7 values are left out: 0 with a step below 0, and 1 that another of the same step follows"
    ]


def test_steps_below_0_are_told_and_only_what_is_kept_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow(tmp_path / "0" / "abc", loss=lines((10, 3.0, -2), (20, 2.0, -1), (30, 1.0, 0)))
    [(_, count)] = import_runs(tmp_path, tmp_path / "home")
    assert count == 1 and caplog.messages == [
        "abc: 2 of 3 values are left out: 2 with a step below 0, and 0 that another of the same step follows"
    ]
    mlflow(tmp_path / "1" / "def", loss=lines((10, 3.0, -1)))
    with pytest.raises(DataError, match="holds no runs with numbers"):
        import_runs(tmp_path / "1", tmp_path / "home")
    assert caplog.messages[1] == "def is left out: all of its 1 values have steps below 0"


@pytest.mark.parametrize(
    ("meta", "is_kept"),
    [
        ("lifecycle_stage: deleted\n", False),
        ("lifecycle_stage: 'deleted'\n", False),
        ("run_name: 'lifecycle_stage: deleted'\n", True),
        ("lifecycle_stage: active\n", True),
    ],
)
def test_a_run_that_is_deleted_in_mlflow_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, meta: str, is_kept: bool
) -> None:
    mlflow(tmp_path / "0" / "abc", meta, loss=lines((10, 1.0, 0)))
    mlflow(tmp_path / "0" / "other", loss=lines((10, 2.0, 0)))
    assert len(import_runs(tmp_path, tmp_path / "home")) == 1 + is_kept
    assert caplog.messages == ([] if is_kept else [f"{tmp_path / '0' / 'abc'} is left out: it is deleted in MLflow"])


def test_more_values_of_a_step_than_are_logged_at_once_are_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track_import, "MAX_PENDING", 2)
    mlflow(tmp_path / "0" / "abc", **{name: lines((10, 1.0, 1)) for name in "abcde"})
    [(_, count)] = import_runs(tmp_path, tmp_path / "home")
    assert count == 5


def test_rows_of_wandb_with_steps_below_0_are_told_and_names_that_begin_with_an_underscore_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = {"_step": 9, "_runtime": 1, "_timestamp": 1.7e9, "_wandb": {"runtime": 3}}
    (tmp_path / "run-1.wandb").write_bytes(
        wandb_log(
            history((1 << 64) - 1, loss=3.0), history(0, loss=2.0, _own=1.0, **own), history(None, loss=1.0, _step=-4)
        )
    )
    [(id, count)] = import_runs(tmp_path, tmp_path / "home")
    with store.open_run(id, tmp_path / "home") as run:
        assert [(each.name, each.steps, each.values) for each in Track(run).curves()] == [
            ("_own", (0,), (1.0,)),
            ("loss", (0,), (2.0,)),
        ]
    assert count == 2 and caplog.messages[0].endswith(
        ": 2 of 4 values are left out: 2 with a step below 0, and 0 that another of the same step follows"
    )


@pytest.mark.parametrize("name", ["_step", "_runtime", "_timestamp", "_wandb"])
def test_metrics_with_names_that_wandb_writes_itself_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with store.create(tmp_path, {"kind": "track"}, "a") as run, Track(run) as track:
        track.log({"loss": 1.0, name: 2.0}, step=1)
        with pytest.raises(ConfigError, match=f"W&B writes '{name}' itself: name the other metrics with --metric"):
            export(track, "wandb", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_runs_in_mlflows_trash_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = mlflow(tmp_path / ".trash" / "7" / "abc", loss=lines((10, 1.0, 0)))
    mlflow(tmp_path / "0" / "other", loss=lines((10, 2.0, 0)))
    assert len(import_runs(tmp_path, tmp_path / "home")) == 1
    assert caplog.messages == [f"{gone} is left out: it is deleted in MLflow"]
    assert len(import_runs(gone, tmp_path / "home")) == 1, "one that is named is read"
