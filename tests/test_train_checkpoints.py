"""Checkpoints: a run that was cut short goes on as if it had not been, to the bit."""

from __future__ import annotations

import json
import logging
import math
import random
import re
import resource
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from firsthand.errors import ConfigError, StoreError, TrainingError
from firsthand.train.checkpoints import Checkpoints, _sha256, trained_weights
from firsthand.train.data_order import StreamBatches
from firsthand.train.fit import fit
from firsthand.train.objective import Objective
from firsthand.train.optimizers import optimizer_for
from firsthand.train.recipe_settings import OptimizerSettings
from firsthand.train.streams import Stream
from firsthand.train.training_run import _TrackedCheckpoints
from train_tiny import Kept, model


class Cut(Exception):
    pass


class NoisyBatches(StreamBatches):
    """Batches that draw from the process's random states, as a recipe with sampling does; cut short after some steps."""

    def __init__(self, *arguments, cut_after=None, **settings):
        super().__init__(*arguments, **settings)
        self.cut_after = cut_after

    def __iter__(self):
        for number, streams in enumerate(super().__iter__()):
            if number == self.cut_after:
                raise Cut
            noise = torch.rand(1).item() + random.random() + np.random.random()
            yield [Stream(stream.ids, ce=stream.ce * np.float32(noise)) for stream in streams]


def examples():
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 12, 10)
    return [[Stream(rng.integers(0, 96, length), ce=np.ones(length))] for length in lengths]


def run(folder, *, steps=9, cut_after=None, optimizer="adamw", every=2, seed=0):
    """The final weights and metrics of a run in a folder; seeds as in a new process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    decoder, kept = model(), Kept()
    batches = NoisyBatches(examples(), 3, seed=1, cut_after=cut_after)
    fit(
        decoder, batches, objective=Objective(ce=1.0), steps=steps, track=kept, schedule=lambda step: 1 / step,
        optimizer=optimizer_for(decoder, OptimizerSettings(optimizer=optimizer, lr=0.01)),
        checkpoint=Checkpoints(folder, every=every, last_step=steps),
    )  # fmt: skip
    return {name: weight.detach().clone() for name, weight in decoder.named_parameters()}, kept.rows


def losses(rows):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_cut_short_at_any_step_ends_with_the_weights_of_the_undisturbed_one(tmp_path, optimizer):
    weights, rows = run(tmp_path / "whole", optimizer=optimizer)
    for cut_after in (1, 2, 5):
        folder = tmp_path / f"cut{cut_after}"
        with pytest.raises(Cut):
            run(folder, cut_after=cut_after, optimizer=optimizer)
        resumed, told = run(folder, optimizer=optimizer, seed=99)  # all that is drawn goes on where it stood
        if cut_after < 2:  # no checkpoint yet: the run begins anew, with its seeds
            shutil.rmtree(folder)
            resumed, told = run(folder, optimizer=optimizer)
        assert all(torch.equal(resumed[name], weight) for name, weight in weights.items())
        assert losses(told) == losses(rows)[cut_after // 2 * 2 :]


@pytest.mark.slow
def test_equal_seeds_give_equal_curves(tmp_path):
    assert losses(run(tmp_path / "a")[1]) == losses(run(tmp_path / "b")[1])
    assert losses(run(tmp_path / "a2", seed=5)[1]) != losses(run(tmp_path / "b2")[1])


@pytest.mark.slow
def test_the_last_checkpoints_are_kept_and_one_is_made_at_the_end(tmp_path):
    run(tmp_path, steps=7, every=3)
    assert Checkpoints(tmp_path, every=3).steps() == [6, 7]
    run(tmp_path / "none", steps=3, every=0)
    assert Checkpoints(tmp_path / "none", every=0).steps() == []


@pytest.mark.slow
@pytest.mark.parametrize(("every", "every_s", "kept"), [(4, 0.0, [1, 2, 3, 4, 5]), (4, 3600.0, [4]), (0, 0.0, [])])
def test_slow_steps_are_saved_by_the_clock_too(tmp_path, every, every_s, kept):
    saver = Checkpoints(tmp_path, every=every, keep=9, every_s=every_s)
    decoder = model()
    batches = NoisyBatches(examples(), 3, seed=1)
    optimizer = optimizer_for(decoder, OptimizerSettings())
    for step in range(1, 6):
        saver.after(step, decoder, optimizer, batches)
    assert saver.steps() == kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_cut_short_is_refused_in_a_sentence_and_the_one_before_is_used(tmp_path, name, caplog):
    weights, _ = run(tmp_path / "whole", steps=9)
    run(tmp_path / "cut", steps=6)
    file = tmp_path / "cut" / "step-000006" / name
    file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING, logger="firsthand.train.checkpoints"):
        resumed, told = run(tmp_path / "cut", steps=9, seed=7)
    assert "step-000006 is not whole" in caplog.text and "the checkpoint before it is used" in caplog.text
    assert told[0]["step"] == 5
    assert all(torch.equal(resumed[name], weight) for name, weight in weights.items())


@pytest.mark.slow
def test_a_changed_byte_is_found(tmp_path):
    run(tmp_path, steps=2)
    file = tmp_path / "step-000002" / "weights.safetensors"
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.write_bytes(bytes(body))
    with pytest.raises(TrainingError, match=r"no checkpoint in .* is whole: begin the run anew"):
        run(tmp_path, steps=4)


@pytest.mark.slow
def test_a_folder_that_a_killed_process_left_unfinished_is_passed_over_and_removed(tmp_path):
    weights, _ = run(tmp_path / "whole", steps=6)
    run(tmp_path / "cut", steps=4)
    shutil.copytree(tmp_path / "cut" / "step-000004", tmp_path / "cut" / ".part-6")
    (tmp_path / "cut" / ".part-6" / "state.json").unlink()
    resumed, told = run(tmp_path / "cut", steps=6)
    assert told[0]["step"] == 5 and all(torch.equal(resumed[name], weight) for name, weight in weights.items())
    assert not (tmp_path / "cut" / ".part-6").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_model_or_optimizer_is_refused(tmp_path):
    run(tmp_path, steps=2)
    saver = Checkpoints(tmp_path, every=2)
    batches = StreamBatches(examples(), 3, seed=1)
    other = nn.ModuleDict({"model": model(), "value_head": nn.Linear(32, 1)})
    with pytest.raises(ConfigError, match="is of another model or optimizer"):
        saver.restore(other, optimizer_for(other, OptimizerSettings()), batches)
    decoder = model()
    with pytest.raises(ConfigError, match="other groups"):
        saver.restore(decoder, optimizer_for(decoder, OptimizerSettings(optimizer="muon")), batches)
    decoder.norm.weight = nn.Parameter(torch.ones(33))
    with pytest.raises(ConfigError, match=r"norm\.weight"):
        saver.restore(decoder, optimizer_for(decoder, OptimizerSettings()), batches)


def test_a_checkpoint_of_a_later_or_an_earlier_format_is_refused(tmp_path, caplog):
    run(tmp_path, steps=2)
    path = tmp_path / "step-000002" / "state.json"
    for format in (0, 2):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": format}))
        with pytest.raises(TrainingError, match="is whole"):
            run(tmp_path, steps=4)
        said = f"(ValueError: its format is {format}, and this version reads 1): the checkpoint before it is used"
        assert caplog.messages[-1] == f"{path.parent} is not whole {said}"


def test_frozen_weights_are_not_saved_and_a_tied_head_once(tmp_path):
    decoder = model()
    decoder.layers[0].requires_grad_(False)
    decoder.register_buffer("seen", torch.zeros(3))
    names = trained_weights(decoder)
    assert "layers.1.mlp.up_proj.weight" in names and "seen" in names
    assert not any(name.startswith("layers.0.") for name in names) and "lm_head.weight" not in names


@contextmanager
def files_no_longer_than(size_bytes):
    """Writing beyond fails as on a full disk, with an OSError in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
def test_a_disk_that_fills_leaves_the_older_checkpoints_and_the_run_can_be_resumed(tmp_path, share):
    weights, _ = run(tmp_path / "whole", steps=8)
    folder = tmp_path / "full"
    run(folder, steps=4)
    size = (folder / "step-000004" / "weights.safetensors").stat().st_size  # the optimizer's file is larger
    message = (
        r"the checkpoint of step 6 could not be written .* the newest whole one is of step 4; make room and resume"
    )
    with files_no_longer_than(int(size * share)), pytest.raises(StoreError, match=message):
        run(folder, steps=8)
    assert sorted(path.name for path in folder.iterdir()) == ["step-000002", "step-000004"]
    resumed, told = run(folder, steps=8, seed=5)
    assert told[0]["step"] == 5 and all(torch.equal(resumed[name], weight) for name, weight in weights.items())


def forged(folder, change):
    """The newest checkpoint with another state; its hashes are those of its files."""
    newest = sorted(folder.glob("step-*"))[-1]
    state = json.loads((newest / "state.json").read_text())
    told = change(state)
    (newest / "state.json").write_text(told if isinstance(told, str) else json.dumps(state))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda state: "[" * 100_000,
        lambda state: state.update(batches=None),
        lambda state: state["batches"].update(drawn=-1),
        lambda state: state.update(optimizer={}),
        lambda state: state["optimizer"]["state"].update({"x": {"a": 1}}),
        lambda state: state.update(random={}),
        lambda state: state["random"].update(python=[3, [1], None]),
        lambda state: state["random"].update(numpy=["MT19937", [1], 0, 0, 0.0]),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_passed_over(tmp_path, change):
    whole, _ = run(tmp_path, steps=4)
    assert len(list(tmp_path.glob("step-*"))) == 2
    forged(tmp_path, change)
    again, rows = run(tmp_path, steps=4, seed=99)
    assert [row["step"] for row in rows] == [3, 4]  # from the one before
    assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer, change, said",
    [
        ("adamw", lambda state: state["param_groups"][0].update(lr="1e-3"), "lr is '1e-3'"),
        ("adamw", lambda state: state["param_groups"][0].update(weight_decay=True), "weight_decay is 'True'"),
        ("adamw", lambda state: state["param_groups"][1].update(eps=math.nan), "eps is 'nan'"),
        ("adamw", lambda state: state["param_groups"][0].update(betas=[0.9]), r"betas is '\(0.9,\)'"),
        ("adamw", lambda state: state["param_groups"][0].update(betas=[0.9, "x"]), "betas is"),
        ("adamw", lambda state: state["param_groups"][0].update(maximize="yes"), "maximize is 'yes'"),
        ("adamw", lambda state: state["param_groups"][0]["params"].reverse(), "do not list each weight once, in order"),
        ("adamw", lambda state: state["state"].update({"0": {"extra": 1}}), "weight 0 has exp_avg, exp_avg_sq, extra"),
        ("adamw", lambda state: state["state"].update({"900": {"step": 1}}), "weight 900 has step"),
        ("adamw", lambda state: state["state"].update({"-1": {"step": 1}}), "weight -1 has step"),
        ("muon", lambda state: state["param_groups"][0].update(orthogonal=1), "orthogonal is '1'"),
        ("muon", lambda state: next(iter(state["state"].values())).update(step="x"), "step of weight .* is 'x'"),
        ("adamw", "0.exp_avg", r"exp_avg of weight 0 is torch.float32 \(3,\), not floats \("),
        ("adamw", "0.step", r"step of weight 0 is torch.float32 \(3,\), not floats \(\)"),
    ],
)
def test_an_optimizer_state_of_other_kinds_or_shapes_is_refused_in_our_words(tmp_path, caplog, optimizer, change, said):
    whole, _ = run(tmp_path, steps=4, optimizer=optimizer)
    if isinstance(change, str):
        path = sorted(tmp_path.glob("step-*"))[-1] / "optimizer.safetensors"
        save_file(load_file(path) | {change: torch.zeros(3)}, path)
        forged(tmp_path, lambda state: state["sha256"].update({path.name: _sha256(path)}))
    else:
        forged(tmp_path, lambda state: change(state["optimizer"]))
    again, rows = run(tmp_path, steps=4, optimizer=optimizer, seed=99)
    assert [row["step"] for row in rows] == [3, 4]  # from the one before
    assert re.search(rf"step-000004 is not whole \(ValueError: .*{said}", caplog.text)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_metrics_are_written_before_the_checkpoint_that_counts_on_them(tmp_path):
    saver = _TrackedCheckpoints(tmp_path, every=1)
    decoder, written = model(), []
    saver.track = SimpleNamespace(flush=lambda: written.append(saver.steps()))
    saver.after(1, decoder, optimizer_for(decoder, OptimizerSettings()), NoisyBatches(examples(), 3, seed=1))
    assert written == [[]] and saver.steps() == [1]
