"""Track: what is logged is there after kills and rewinds, and nothing that cannot be kept is lost silently."""

from __future__ import annotations

import csv
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.runs import store
from firsthand.runs import track as track_module
from firsthand.runs.system_metrics import watch_system
from firsthand.runs.track import Curve, Track, start
from firsthand.runs.track_export import export
from firsthand.runs.wandb_files import has_ended, read_wandb
from firsthand.show.curves import curve_picture, sparkline
from firsthand.show.curves_page import curves_html

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def track(home: Path) -> Track:
    made = start("trial", config={"lr": 0.1})
    yield made
    made.finish()


def test_values_come_back_by_step_and_the_later_of_two_counts(track: Track) -> None:
    track.log({"loss": 3.0}, step=2)
    track.log({"loss": 2.0, "reward": 1}, step=1)
    track.log({"loss": 2.5}, step=2)
    assert track.names() == ("loss", "reward")
    assert (track.curve("loss").steps, track.curve("loss").values) == ((1, 2), (2.0, 2.5))
    assert track.last_step() == 2
    assert track.curve("none").steps == ()


def test_a_rewind_leaves_later_steps_behind_and_keeps_the_step_itself(track: Track) -> None:
    for step in range(10):
        track.log({"loss": float(step)}, step=step)
    track.rewind(4)
    assert track.curve("loss").steps == (0, 1, 2, 3, 4)
    assert track.last_step() == track.step == 4
    for step in range(5, 7):
        track.log({"loss": 50.0 + step}, step=step)
    assert track.curve("loss").values[-3:] == (4.0, 55.0, 56.0)
    track.rewind(5)  # a second interruption
    assert track.curve("loss").values[-2:] == (4.0, 55.0)
    track.rewind(0)
    assert track.curve("loss").steps == (0,)


def test_a_metric_that_was_only_logged_after_the_rewind_point_is_gone(track: Track) -> None:
    track.log({"loss": 1.0}, step=1)
    track.log({"late": 1.0}, step=9)
    track.rewind(1)
    assert track.names() == ("loss",)


def test_numbers_that_are_not_finite_survive(track: Track) -> None:
    track.log({"a": math.nan}, step=0)
    track.log({"a": math.inf}, step=1)
    track.log({"a": -math.inf}, step=2)
    values = track.curve("a").values
    assert math.isnan(values[0]) and values[1:] == (math.inf, -math.inf)
    track.run.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "step", "says"),
    [
        ({"loss": "0.3"}, 0, "give a number"),
        ({"loss": None}, 0, "give one number"),
        ({"loss": [1.0, 2.0]}, 0, "give one number"),
        ({"": 1.0}, 0, "is no name"),
        ({"a\nb": 1.0}, 0, "is no name"),
        ({"\ud800": 1.0}, 0, "half a character"),
        ({"n" * 201: 1.0}, 0, "is no name"),
        ({"loss": 1.0}, -1, "step is -1"),
        ({"loss": 1.0}, 1.5, "step is 1.5"),
        ({"loss": 1.0}, True, "step is True"),
        ({"loss": 1.0}, 2**63, "step is"),
        ({"loss": 10**400}, 0, "give one number"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_of_the_call_is_kept(
    track: Track, values: dict, step: int, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        track.log({"fine": 1.0, **values}, step=step)
    assert track.names() == ()


def test_tensors_and_numpy_numbers_are_numbers(track: Track) -> None:
    import numpy as np
    import torch

    track.log({"a": np.float32(0.5), "b": torch.tensor(2.0, requires_grad=True), "c": True}, step=0)
    assert [track.curve(name).values for name in "abc"] == [(0.5,), (2.0,), (1.0,)]
    with pytest.raises(ConfigError, match="give one number"):
        track.log({"a": torch.zeros(3)}, step=1)


def test_what_is_pending_is_written_without_another_call(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_module, "FLUSH_S", 0.05)
    written = threading.Event()
    flush_late = track._flush_late
    monkeypatch.setattr(track, "_flush_late", lambda: (flush_late(), written.set()))
    track.log({"a": 1.0}, step=0)
    track.log({"a": 2.0}, step=1)
    assert written.wait(10)
    assert track.run.database.read("SELECT count(*) FROM metrics") == [(2,)]


@pytest.mark.slow
def test_another_process_reads_while_it_is_written_and_cannot_take_it_over(track: Track, home: Path) -> None:
    track.log({"a": 1.0}, step=0)
    track.flush()
    with closing(store.open_run("last", home)) as run:
        assert Track(run).curve("a").values == (1.0,)
        assert run.status == "running"
    with pytest.raises(ConfigError, match="is being run by"):
        start("trial", resume=track.run.path)


KILLED = """
import os, signal, sys
from pathlib import Path
from firsthand.runs.track import start

track = start("trial", home=Path(sys.argv[1]))
for step in range(100):
    track.log({"loss": step}, step=step)
    if step == 60:
        track.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_flushed_and_the_run_goes_on(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(home)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    with closing(store.open_run("last", home)) as run:
        assert run.status == "interrupted"
        assert len(Track(run).curve("loss").steps) >= 61
    track = start("trial", resume="last", home=home)
    track.rewind(60)
    track.log({"loss": -1.0}, step=61)
    assert track.curve("loss").values == (*map(float, range(61)), -1.0)
    track.finish()


@pytest.mark.slow
@pytest.mark.parametrize(("last_line", "status"), [("", "done"), ("raise ValueError('no')", "interrupted")])
def test_a_program_that_never_finishes_its_track_has_lost_nothing(home: Path, last_line: str, status: str) -> None:
    program = f"""
from firsthand.runs.track import start
track = start("two lines")
for step in range(5):
    track.log({{"loss": step}}, step=step)
{last_line}
"""
    subprocess.run(
        [sys.executable, "-c", program],
        timeout=120,
        env={**os.environ, "FIRSTHAND_HOME": str(home)},
        stderr=subprocess.DEVNULL,
    )
    with closing(store.open_run("last", home)) as run:
        assert run.status == status
        assert Track(run).curve("loss").steps == (0, 1, 2, 3, 4)


def test_an_error_inside_the_block_leaves_the_run_interrupted(home: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"), start("trial") as track:
        track.log({"a": 1.0}, step=0)
        raise RuntimeError("boom")
    with closing(store.open_run("last", home)) as run:
        assert run.status == "interrupted"
        assert Track(run).names() == ("a",)


def test_a_changed_byte_of_a_value_is_noticed(track: Track) -> None:
    track.log({"loss": 1.0}, step=3)
    track.flush()
    with closing(sqlite3.connect(track.run.path / "run.sqlite")) as connection, connection:
        connection.execute("UPDATE metrics SET value = 0.5")
    with pytest.raises(StoreError, match="rows in its metrics have been changed"):
        track.run.check()


def test_artifacts_have_their_hash_and_texts_their_step(track: Track, tmp_path: Path) -> None:
    inside = track.run.path / "weights.bin"
    inside.write_bytes(b"abc")
    kept = track.artifact(inside, step=4)
    assert str(kept.path) == "weights.bin" and kept.bytes == 3
    assert kept.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "other").write_bytes(b"")
    assert track.artifact(tmp_path / "other", name="empty").path == tmp_path / "other"
    assert [each.name for each in track.artifacts()] == ["weights.bin", "empty"]
    with pytest.raises(StoreError, match="cannot be read"):
        track.artifact(tmp_path / "missing")
    track.text("answer", "x \ud800", step=1)
    track.text("other", "y", step=2)
    assert [(each.step, each.text) for each in track.texts("answer")] == [(1, "x \ud800")]
    assert len(track.texts()) == 2


def test_threads_may_log_together(track: Track) -> None:
    def log(name: str) -> None:
        for step in range(50):
            track.log({name: step}, step=step)

    threads = [threading.Thread(target=log, args=(f"m{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(track.curve(name).steps) for name in track.names()] == [50] * 6


def test_system_metrics_begin_and_end_with_the_block(track: Track) -> None:
    track.log({"loss": 1.0}, step=7)
    with watch_system(track, every_s=600):
        track.log({"loss": 1.0}, step=9)
    assert track.curve("system/memory_gib").steps == (7, 9)
    assert 0.001 < track.curve("system/memory_gib").values[0] < 100
    assert track.curve("system/disk_free_gib").values[0] > 0


def test_thinning_keeps_the_mean_and_the_last_step() -> None:
    curve = Curve("a", tuple(range(10)), tuple(map(float, range(10))), (0.0,) * 10)
    assert curve.thinned(10) is curve
    thin = curve.thinned(4)
    assert (thin.steps, thin.values) == ((2, 5, 8, 9), (1.0, 4.0, 7.0, 9.0))
    with_gap = Curve("a", (0, 1, 2, 3), (1.0, math.nan, 3.0, 5.0), (0.0,) * 4).thinned(2)
    assert math.isnan(with_gap.values[0]) and with_gap.values[1] == 4.0


def test_a_sparkline_goes_from_lowest_to_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, math.nan, 2.0]) == "▁·█"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([]) == "" and sparkline([math.inf]) == "·"
    assert len(sparkline(list(range(1000)), width=24)) <= 24


def test_a_picture_has_a_line_for_each_stretch_of_finite_values() -> None:
    picture = curve_picture(Curve("a", (0, 5, 10, 15, 20), (0.0, 1.0, math.nan, 0.5, 0.5), (0.0,) * 5))
    assert len(picture.lines) == 2 and picture.num_gaps == 1
    assert picture.lines[0] == "M52.0 128.0L122.0 8.0"
    assert (picture.low, picture.high, picture.first, picture.last) == ("0", "1", "0", "20")


def test_the_page_shows_hostile_names_and_texts_as_text(track: Track) -> None:
    track.log({"<img src=x onerror=alert(1)>": 1.0}, step=0)
    track.text("answer", "<script>alert(2)</script> \u202e", step=0)
    page = curves_html(track)
    assert "<script" not in page and "<img" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_the_command_shows_exports_and_compares(track: Track, cli: Cli, tmp_path: Path) -> None:
    for step in range(30):
        track.log({"loss": 3 - step / 10, "=1+1": step}, step=step)
    track.flush()
    code, out, _ = cli("track", "last")
    assert code == 0 and "█" in out and "loss" in out
    code, out, _ = cli("track", "last", "--export", "csv", "--to", str(tmp_path / "c.csv"))
    assert code == 0 and "60 values of 2 metrics" in out
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["metric", "step", "value", "time"] and rows[1][0] == "'=1+1"
    assert [row[1:3] for row in rows if row[0] == "loss"][29] == ["29", repr(3 - 29 / 10)]
    code, _, err = cli("track", "last", "--export", "csv", "--to", str(tmp_path / "c.csv"))
    assert code == 2 and "is there already" in err
    assert cli("track", "last", "--export", "csv")[0] == 2
    code, _, err = cli("track", "last", "--metric", "nope")
    assert code == 2 and "has no metric 'nope'" in err
    code, out, _ = cli("track", "last", track.run.id, "--metric", "loss")
    assert code == 0 and out.count("0.1") >= 1
    code, _, err = cli("track", "last", "--html", str(tmp_path / "no" / "x.html"))
    assert code == 1 and "x.html cannot be written" in err
    code, out, _ = cli("track", "last", "--json", "--metric", "loss")
    assert '"steps"' in out


def test_a_run_may_lie_in_a_folder_with_other_files(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    with closing(store.create(home, {"kind": "track"}, "x", at=folder)) as run:
        track = Track(run)
        track.log({"a": 1.0}, step=1)
        track.flush()
    with closing(store.open_run(folder, home)) as run:
        assert Track(run).names() == ("a",)
    with pytest.raises(StoreError, match="holds a run already"):
        store.create(home, {}, "x", at=folder)
    assert (folder / "notes.txt").read_text() == "keep me"
    assert store.list_runs(home) == []


def test_pruning_keeps_runs_that_have_steps(home: Path, cli: Cli) -> None:
    with start("kept") as track:
        track.log({"a": 1.0}, step=0)
    with start("empty"):
        pass
    code, out, _ = cli("runs", "--prune", "--yes")
    assert code == 0 and "empty" in out and "kept" not in out
    assert [info.num_steps for info in store.list_runs(home)] == [1]


@pytest.mark.slow
def test_tensorboard_reads_the_same_values(track: Track, tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step in range(5):
        track.log({"train/loss": step / 8}, step=step, at=1e9 + step / 4)
    track.log({"=acc": 0.5}, step=9, at=2e9)
    assert export(track, "tensorboard", tmp_path / "deep" / "events") == 6
    events = loader.EventAccumulator(str(tmp_path / "deep" / "events"))
    events.Reload()
    read = [(each.step, each.value, each.wall_time) for each in events.Scalars("train/loss")]
    assert read == [(s, s / 8, 1e9 + s / 4) for s in range(5)]
    (other,) = events.Scalars("=acc")
    assert (other.wall_time, other.step, other.value) == (2e9, 9, 0.5)


@pytest.mark.slow
def test_the_trainer_of_transformers_logs_to_a_track(track: Track, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from firsthand.bridges.huggingface.trainer_callback import track_callback

    def train(steps: int, resume: bool) -> None:
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1, n_positions=8))
        ids = torch.arange(8)
        arguments = TrainingArguments(
            str(tmp_path / "out"),
            max_steps=steps,
            logging_steps=1,
            save_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        data = [{"input_ids": ids, "labels": ids}] * 64
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=[track_callback(track)])
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2") if resume else None)

    train(3, resume=False)
    assert track.curve("loss").steps == (1, 2, 3)
    assert track.curve("grad_norm").values[0] > 0
    assert [each.name for each in track.artifacts()][:1] == ["checkpoint-2/model.safetensors"]
    first = track.curve("loss").values
    train(4, resume=True)
    assert track.curve("loss").steps == (1, 2, 3, 4)
    assert track.curve("loss").values[:2] == first[:2]


@pytest.mark.slow
def test_wandb_gets_an_offline_folder(track: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    track.log({"loss": 0.25}, step=3)
    assert export(track, "wandb", tmp_path / "offline") == 1
    (kept,) = (tmp_path / "offline" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"loss" in kept.read_bytes()
    assert has_ended(kept)
    data = kept.read_bytes()
    while has_ended(kept):
        data = data[:-1]
        kept.write_bytes(data)
    assert [each.name for each in read_wandb(kept).values] == ["loss"], "the curve stands before the end"


def test_secrets_of_a_config_are_in_no_file_of_the_run(tmp_path: Path) -> None:
    secrets = {
        "api_key": "sk-proj-abc",
        "deep": ({"HF_TOKEN": "hf_abc", "lr": 3},),
        "password": 1234,
        "access_token": {"x": "abc"},
    }
    plain = {
        "max_tokens": 5,
        "tokenizer": "abc",
        "api_keys": 2,
        "id_token": 0.5,
        "secret": False,
        "user_password": True,
        "client_secret": "",
        "auth_token": None,
    }
    with start("x", config=secrets | plain | {"db": "redis://u:hunter2@h/0"}, home=tmp_path) as track:
        config = track.run.config
    assert {name: config[name] for name in plain} == plain
    hidden = "[redacted]"
    assert {name: config[name] for name in secrets} == {
        "api_key": hidden, "deep": [{"HF_TOKEN": hidden, "lr": 3}], "password": hidden, "access_token": hidden,
    }  # fmt: skip
    assert "hunter2" not in str(config)
