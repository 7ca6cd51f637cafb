"""A run's folder in this process: settings that are written and read, and steps that are evaluated."""

from __future__ import annotations

import importlib
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from firsthand.config import build
from firsthand.errors import ConfigError, StoreError
from firsthand.runs.run_names import MAKING
from firsthand.system.lock import held
from firsthand.train.objective import Objective
from firsthand.train.recipe_settings import LoopSettings, OptimizerSettings
from firsthand.train.schedules import ScheduleSettings
from firsthand.train.streams import Stream
from firsthand.train.training_run import TrainingRun, _begun, is_made_here, opened, read_metrics, stored_settings
from tiny import write_model
from train_tiny import Lists, model


@dataclass(frozen=True)
class Config:
    """A recipe's settings."""

    rate: float = 0.5
    place: Path = Path("/x")
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=3, seed=11, checkpoint_every=2, keep=1))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def refused(act: Callable[[], Any], kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as raised:
        act()
    return str(raised.value)


def fitted(run: TrainingRun, **more: Any) -> int:
    streams = [Stream([1, 2, 3], ce=[0, 1, 1])]
    decoder = more.pop("model", None) or model()
    return run.fit(decoder, Lists(*[streams] * 9), objective=Objective(ce=1.0), optimizer=OptimizerSettings(lr=0.01),
                   schedule=ScheduleSettings(schedule="constant"), **more)  # fmt: skip


# -- the folder --


def test_who_begins_while_another_process_makes_the_run_waits_and_is_told_of_it(home: Path) -> None:
    out, told = home / "run", []
    out.mkdir()

    def second() -> None:
        with pytest.raises(ConfigError) as raised, opened(out, "sft", Config(rate=9.0)):
            pass
        told.append(str(raised.value))

    thread = threading.Thread(target=second)
    with held(out / MAKING):
        thread.start()
        thread.join(0.2)
        assert [each.name for each in out.iterdir()] == [MAKING], "it waits"
        track = _begun(out, "sft", Config(), is_resumed=False)
    with track:
        thread.join(30)
    assert len(told) == 1 and told[0].startswith("run is being run by process")
    assert stored_settings(out)[1]["rate"] == 0.5


@pytest.mark.slow
def test_a_runs_settings_are_written_read_back_and_written_anew_when_it_is_resumed(home: Path) -> None:
    out = home / "my" / "run"
    with opened(out, "sft", Config()) as run:
        first = torch.rand(1)
        assert (run.folder, run.is_resumed, run.loop.seed) == (out, False, 11)
        told: list[str] = []
        run.on_fit = lambda: told.append("near")
        assert fitted(run, evaluate=lambda step: {"more": float(step)}) == 3 and told == ["near"] and run.on_fit is None
        assert sorted(each.name for each in (out / "checkpoints").iterdir()) == ["step-000003"], "the last one is kept"
    assert torch.equal(first, torch.rand(1, generator=torch.Generator().manual_seed(11)))
    body = json.loads((out / "recipe.json").read_text())
    assert (body["recipe"], body["settings"]["rate"], body["settings"]["place"]) == ("sft", 0.5, "/x") and is_made_here(
        out
    )
    assert stored_settings(out) == ("sft", body["settings"])
    rows = read_metrics(out)
    assert [row["step"] for row in rows] == [1, 2, 3] and [row["more"] for row in rows] == [1, 2, 3]
    assert all({"loss", "grad_norm", "lr", "tokens"} <= row.keys() for row in rows) and not any(
        "system" in name for name in rows[0]
    )
    assert refused(lambda: opened(out, "sft", Config()).__enter__()) == (
        f"{out} holds a run already: go on with `firsthand train --resume {out}`, or give another `--out`"
    )
    changed = Config(rate=0.25, loop=LoopSettings(steps=5, checkpoint_every=2, seed=11))
    with opened(out, "sft", changed, resume=True) as run:
        assert run.is_resumed and json.loads((out / "recipe.json").read_text())["settings"]["rate"] == 0.25
        assert fitted(run) == 5
    assert [row["step"] for row in read_metrics(out)] == [1, 2, 3, 4, 5] and is_made_here(out)
    assert sorted(each.name for each in (out / "checkpoints").iterdir()) == ["step-000004", "step-000005"]


def test_a_run_is_resumed_with_its_own_seed_alone(home: Path) -> None:
    with opened(home / "run", "sft", Config()):
        pass
    before = (home / "run" / "recipe.json").read_bytes()
    other = Config(loop=LoopSettings(steps=9, seed=12))
    assert refused(lambda: opened(home / "run", "sft", other, resume=True).__enter__()) == (
        f"seed is 12, and {home / 'run'} was begun with 11, which tells the order of its data: leave --seed out, or begin a "
        "run in another folder"
    )
    assert (home / "run" / "recipe.json").read_bytes() == before, "a refusal leaves the run's settings as they are"
    with opened(home / "run", "sft", Config(loop=LoopSettings(steps=9, seed=11)), resume=True) as run:
        assert run.loop.steps == 9
    with opened(home / "none", "sft", other, resume=True) as run:
        assert run.loop.seed == 12, "a run whose settings were never written has no seed yet"
    with opened(home / "none", "sft", Config()) as run:
        assert run.loop.seed == 11, "a run without a step is begun anew, with any seed"


def test_what_is_no_run_of_this_home_says_so(home: Path) -> None:
    assert read_metrics(home) == [] and not is_made_here(home)
    assert refused(lambda: stored_settings(home)) == (
        f"{home} holds no training run (recipe.json: No such file or directory): give the folder of one"
    )
    (home / "recipe.json").write_text('{"recipe": "x"}')
    assert "(recipe.json: KeyError)" in refused(lambda: stored_settings(home)) and not is_made_here(home)
    (home / "recipe.json").write_text("[]")
    assert "(recipe.json: TypeError)" in refused(lambda: stored_settings(home)) and not is_made_here(home)
    (home / "file").touch()
    assert refused(lambda: opened(home / "file" / "x", "sft", Config()).__enter__(), StoreError) == (
        f"{home / 'file' / 'x'} cannot be made (Not a directory): give another folder with `--out`"
    )
    with pytest.raises(RuntimeError), opened(home / "early", "sft", Config()):
        raise RuntimeError("before the first step")
    with opened(home / "early", "grpo", Config(), resume=False) as run:
        assert not run.is_resumed
    assert stored_settings(home / "early")[0] == "grpo" and read_metrics(home / "early") == []


def test_a_runs_device_and_arithmetic_are_its_settings(home: Path) -> None:
    def run(**loop: Any) -> TrainingRun:
        return TrainingRun(home, LoopSettings(**loop), None)

    assert (
        run().dtype == torch.float32
        and run(dtype="bfloat16").dtype == torch.bfloat16
        and run().device == torch.device("cpu")
    )
    assert run(device="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert refused(lambda: run(device="gpu").device) == (
        "device is 'gpu': give auto, cpu, cuda, or one of several, such as cuda:1"
    )
    if not torch.cuda.is_available():
        assert refused(lambda: run(device="cuda:3").device).startswith("device is 'cuda:3', which is not there (")
    kept = TrainingRun(home / "none", LoopSettings(steps=2, checkpoint_every=0), None)
    assert fitted(kept, steps=1) == 1 and fitted(kept) == 2 and not (home / "none" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pretrain", "sft"])
def test_the_held_out_part_is_evaluated_every_so_many_steps_and_at_the_last(recipe: str, home: Path) -> None:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    out = home / "run"
    if recipe == "pretrain":
        (home / "a.txt").write_text("def f(x):\n    return x\n" * 30)
        values = {"data": (str(home / "a.txt"),), "vocab_size": 270, "batch_tokens": 40, "steps": 5, "holdout": 0.2,
                  "layers": 1, "hidden_size": 16, "heads": 2, "context": 16}  # fmt: skip
    else:
        base = write_model(home / "tiny", max_position=96)
        (home / "c.jsonl").write_text(
            "".join(json.dumps({"prompt": f"say {n}", "completion": "x" * (n % 4 + 1)}) + "\n" for n in range(10))
        )
        values = {"data": str(home / "c.jsonl"), "model": str(base), "batch_size": 4, "epochs": 2.1, "holdout": 0.1}
    config = build(module.Config, {"eval_every": 2, "checkpoint_every": 0, **values})
    with opened(out, recipe, config) as run:
        folder = getattr(module, recipe)(config, run)
    rows = read_metrics(out)
    assert [row["step"] for row in rows if "held_out_loss" in row] == [2, 4, 5] and folder == out / "model"
    assert len(rows) == 5, "2.1 passes over 9 conversations, 4 a step" if recipe == "sft" else "as was set"
    if recipe == "pretrain":
        assert all(
            0 < row["bits_per_byte"] < row["held_out_loss"] / math.log(2) * 2 for row in rows if "bits_per_byte" in row
        )
    assert (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()
