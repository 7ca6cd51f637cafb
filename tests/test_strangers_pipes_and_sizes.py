"""Files beside a model and in a run's folder are ordinary ones, of the sizes that their run has, before they are read."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

import firsthand
from firsthand.errors import ConfigError, ModelFileError, StoreError, TrainingError
from firsthand.hub.content_hash import content_hash
from firsthand.hub.inspection import inspect
from firsthand.hub.model_lookup import _expect_readable
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import stored_run
from firsthand.interp.saes.sae_training import SaeSettings, SaeTrainer
from firsthand.nn.tensor_file import read_tensors
from firsthand.tokens.pretrained import load
from firsthand.train.checkpoints import Checkpoints
from firsthand.train.kept_rollouts import KeptRollouts
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from train_tiny import Lists

SETTINGS = OptimizerSettings(lr=0.01)


def test_a_licence_is_the_first_line_of_an_ordinary_file_within_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    sizes = {"model_type": "x", "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(sizes))
    save_file({"a": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    os.mkfifo(folder / "LICENSE")
    (tmp_path / "private").write_text("a secret")
    (folder / "LICENSE.a").symlink_to(tmp_path / "private")
    assert inspect(folder).licence is None
    (folder / "LICENSE.md").write_text("\n  Apache License\nVersion 2.0")
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to("LICENSE.md")
    assert inspect(folder).licence == "Apache License"


def test_pipes_of_a_model_folder_are_refused(tmp_path: Path) -> None:
    for name in ("tokenizer.model", "weights.safetensors", "run.json"):
        os.mkfifo(tmp_path / name)
    for read, error in (
        (lambda: content_hash(tmp_path / "weights.safetensors"), ModelFileError),
        (lambda: _expect_readable(tmp_path / "run.json"), ModelFileError),
        (lambda: read_tensors(tmp_path / "weights.safetensors"), ModelFileError),
        (lambda: stored_run(tmp_path), ConfigError),
        (lambda: load(tmp_path), ModelFileError),
    ):
        with pytest.raises(error):
            read()


def checkpoint(folder: Path, width: int = 3) -> tuple[Checkpoints, nn.Linear, torch.optim.Optimizer, Path]:
    layer = nn.Linear(width, 2)
    optimizer = optimizer_for(layer, SETTINGS)
    layer(torch.ones(1, width)).sum().backward()
    optimizer.step()
    saver = Checkpoints(folder, every=1)
    return saver, layer, optimizer, saver.save(1, layer, optimizer, Lists([]))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "optimizer.safetensors"])
def test_a_pipe_in_a_checkpoint_is_refused_before_any_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, layer, optimizer, path = checkpoint(tmp_path)
    newer = tmp_path / "step-000002"
    shutil.copytree(path, newer)
    (newer / name).unlink()
    os.mkfifo(newer / name)
    monkeypatch.setattr(saver, "_read", lambda step, model: pytest.fail(f"step {step} was read"))
    with pytest.raises(StoreError) as error:
        saver.restore(layer, optimizer, Lists([]))  # type: ignore[arg-type]
    assert str(error.value) == f"{newer / name} is no ordinary file: give another path"
    shutil.rmtree(newer)
    monkeypatch.undo()
    assert saver.restore(layer, optimizer, Lists([])) == 1  # type: ignore[arg-type]


def test_sizes_of_a_checkpoint_are_compared_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver, layer, optimizer, path = checkpoint(tmp_path)
    monkeypatch.setattr("firsthand.train.checkpoints._RANDOM_BYTES", 1 << 14)
    assert saver.restore(layer, optimizer, Lists([])) == 1  # type: ignore[arg-type]
    monkeypatch.setattr("firsthand.train.checkpoints._sha256", lambda path: pytest.fail(f"{path} was read"))
    save_file({"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(9, np.float32)}, path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"is of another model or optimizer \(bias\): resume with the settings"):
        saver.restore(layer, optimizer, Lists([]))  # type: ignore[arg-type]
    save_file({"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)}, path / "weights.safetensors")
    most = 16 * 8 * 4 + (1 << 14)
    save_file({"0.x": np.zeros(most + 1, np.uint8)}, path / "optimizer.safetensors")
    with pytest.raises(TrainingError, match="no checkpoint in"):
        saver.restore(layer, optimizer, Lists([]))  # type: ignore[arg-type]


def test_a_training_state_of_other_sizes_than_its_tensors_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SaeTrainer(sae_of("topk", 4, 6, k=2), SaeSettings(steps=2)).save(tmp_path)
    assert SaeTrainer.load(tmp_path).sae.d_sae == 6
    monkeypatch.setattr(torch, "randn", lambda *sizes, **_: pytest.fail(f"{sizes} was made"))
    for changed in ({"d_sae": 7}, {"d_in": 5}, {"d_in": 6, "d_sae": 4}):
        facts = {"kind": "topk", "d_in": 4, "d_sae": 6, "sae": {"k": 2}, "settings": {"steps": 2}, "step": 0}
        state = {"state": json.dumps({**facts, "tokens": 0, "scale": 1.0, **changed})}
        save_file({"sae.decoder": np.zeros((6, 4), np.float32)}, tmp_path / "training.safetensors", state)
        with pytest.raises(ModelFileError, match=r"its decoder is \(6, 4\), and d_sae and d_in are"):
            SaeTrainer.load(tmp_path)


def test_rollouts_are_kept_in_ordinary_files(tmp_path: Path) -> None:
    pipe = tmp_path / "train-000001-1.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(StoreError) as error:
        KeptRollouts(tmp_path).begin("train", 1, "weights")
    assert str(error.value) == f"{pipe} is no ordinary file: give another path"
    assert list(tmp_path.iterdir()) == [pipe], "nothing was written"
    pipe.unlink()
    assert KeptRollouts(tmp_path).begin("train", 1, "weights") == {}


PLAIN = re.compile(r"\.read_text\(|\.read_bytes\(|\.open\(\"rb\"\)|\bload_file\(|(?<![\w.])open\(")
OWN = {
    "hub/download.py", "hub/wheel.py", "train/token_file.py", "train/training_run.py", "train/sweep.py",
    "train/documents.py", "train/kept_rollouts.py", "nn/tensor_file.py", "nn/direction_file.py", "train/model_folder.py",
    "hub/content_hash.py", "tokens/grammar_process.py", "interp/opened_sae.py", "interp/sae_shelf.py",
    "train/checkpoints.py",
}  # fmt: skip
"""Files whose plain reads are of what this program wrote, checked by other means, or named by the user."""


def test_no_other_file_of_the_rooms_that_read_models_opens_one_plainly() -> None:
    root = Path(firsthand.__file__).parent
    found = set()
    for room in ("formats", "hub", "nn", "tokens", "train", "interp"):
        for file in (root / room).rglob("*.py"):
            if PLAIN.search(file.read_text()):
                found.add(file.relative_to(root).as_posix())
    assert found <= OWN
