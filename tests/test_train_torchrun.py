"""Recipes under torchrun: two gloo processes with sharded weights compute what one process does, and one of them writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from firsthand.cli import main
from firsthand.nn import weights
from firsthand.train.processes import from_all, from_first, is_first, joined, rank, ranks
from firsthand.train.sharding import is_sharded, passes_of_rank, sharded
from firsthand.train.training_run import read_metrics
from test_train_policy_adapters import OWN
from thorough import part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(OWN)
    rows = [{"prompt": f"say {n}", "completion": " a b c" * (1 + n % 3)} for n in range(24)]
    (place / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": f"say {n}", "chosen": " a a a", "rejected": " b b"} for n in range(9)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tiny.write_model(place / "tiny", max_position=1024)


def train(words: str, folder: Path, out: Path, *, processes: int = 2, resume: bool = False) -> list[dict[str, float]]:
    """Run `firsthand train` in one or several processes; returns the metrics."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*command, "-m", "firsthand"]
    where = ["--resume", str(out)] if resume else []
    ending = [] if resume else ["--model", str(folder), "--out", str(out)]
    if processes == 1:  # in this process, which has imported all that it needs
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.parent)
            patch.setenv("FIRSTHAND_HOME", str(out.parent / "home"))
            assert main(["train", *where, *words.split(), *ending]) == 0
        return read_metrics(out)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FIRSTHAND_HOME": str(out.parent / "home")}
    done = subprocess.run(
        [*command, "train", *where, *words.split(), *ending], cwd=folder.parent, env=environment, text=True,
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert resume or done.stdout.count("in ") >= 1
    return read_metrics(out)


def difference(a: Path, b: Path) -> float:
    one, other = (weights.load(each / "model").state_dict() for each in (a, b))
    return max(float((one[name] - other[name]).abs().max()) for name in one)


RECIPES = {
    "sft": "sft chats.jsonl --steps 5 --batch-size 5 --lr 1e-3 --micro-tokens 40 --holdout 0.2 --eval-every 2",
    "copies": "sft chats.jsonl --steps 5 --batch-size 5 --lr 1e-3 --micro-tokens 40 --no-shard --holdout 0.2",
    "muon": "sft chats.jsonl --steps 2 --batch-size 5 --lr 1e-3 --micro-tokens 40 --optimizer muon --holdout 0.2",
    "dpo": "dpo pairs.jsonl --steps 4 --batch-size 3 --lr 1e-3 --micro-tokens 60 --adapter lora --rank 4",
    "grpo": "grpo own.py --steps 3 --prompts 2 --group-size 3 --max-tokens 5 --lr 1e-3 --micro-tokens 60 --kl 0.1",
    "ppo": "ppo own.py --steps 2 --prompts 2 --group-size 3 --max-tokens 5 --lr 1e-3 --micro-tokens 60 --adapter lora",
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", part(["muon", "sft", "copies", "grpo", "dpo", "ppo"], 3))  # sft is resumed below
def test_two_processes_compute_what_one_does(recipe: str, folder: Path, tmp_path: Path) -> None:
    one = train(RECIPES[recipe], folder, tmp_path / "one", processes=1)
    two = train(RECIPES[recipe], folder, tmp_path / "two")
    assert len(one) == len(two) and [row["step"] for row in two] == [row["step"] for row in one]
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "held_out_loss", "reward", "answer_tokens", "pair_accuracy", "rollouts"):
            most = {"abs": 1e-6, "rel": 1e-5 if name == "grad_norm" else 1e-6}
            assert (name in a) == (name in b) and (name not in a or b[name] == pytest.approx(a[name], **most)), name
        assert b.get("sampler_gap", 0) < 1e-4
    # a last bit of a gradient near 0 may turn Adam's first step; five steps of 1e-3 bound what that does
    assert difference(tmp_path / "one", tmp_path / "two") < 2e-3
    assert len(list((tmp_path / "two" / "checkpoints").glob("step-*"))) >= 1


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_by_one_and_the_other_way_round(folder: Path, tmp_path: Path) -> None:
    words = RECIPES["sft"] + " --checkpoint-every 2"
    whole = train(words, folder, tmp_path / "whole", processes=1)
    for name, first, then in (("a", 2, 1), ("b", 1, 2)):
        part = words.replace("--steps 5", "--steps 5 --schedule constant --warmup-steps 0")
        train(part.replace("--steps 5", "--steps 2"), folder, tmp_path / name, processes=first)
        rows = train("--steps 5", folder, tmp_path / name, processes=then, resume=True)
        assert [row["step"] for row in rows] == [row["step"] for row in whole]
    assert difference(tmp_path / "a", tmp_path / "b") < 1e-4


@pytest.mark.slow
def test_two_processes_that_drop_at_random_go_on_as_if_never_stopped(folder: Path, tmp_path: Path) -> None:
    words = RECIPES["dpo"].replace("--steps 4", "--steps 4 --dropout 0.4 --checkpoint-every 2 --keep 9")
    train(words, folder, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-000004")
    train("", folder, tmp_path / "again", resume=True)
    one, two = (
        load_file(tmp_path / name / "checkpoints/step-000004/weights.safetensors") for name in ("whole", "again")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_one_process_alone_joins_nothing_and_shards_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined():
        assert (rank(), ranks(), is_first()) == (0, 1, True)
        assert from_all([1, 2]) == [1, 2] and from_first("a") == "a"
        model = weights.load(folder)
        assert sharded(model) is model and not is_sharded(model)
    assert passes_of_rank([1, 2, 3], in_parts=False) == [(1, "whole"), (2, "whole"), (3, "whole")]
    from firsthand.errors import ConfigError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2 and MASTER_ADDR is not set: start the processes"), joined():
        pass


def test_every_process_makes_as_many_passes_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.train import sharding

    found: list[Any] = []
    for number in range(3):
        monkeypatch.setattr(sharding, "ranks", lambda: 3)
        monkeypatch.setattr(sharding, "rank", lambda number=number: number)
        found.append(sharding.passes_of_rank(list("abcd"), in_parts=True))
    assert found[0] == [("a", "anchored"), ("d", "anchored")]
    assert found[1:] == [[("b", "anchored"), ("a", "idle")], [("c", "anchored"), ("a", "idle")]]


def test_bfloat16_autocast_and_the_fused_optimizer_are_chosen_by_device(folder: Path) -> None:
    from firsthand.train.optimizers import optimizer_for
    from firsthand.train.recipe_settings import OptimizerSettings

    model = weights.load(folder)
    optimizer = optimizer_for(model, OptimizerSettings())
    assert optimizer.defaults["fused"]
    with torch.autocast("cpu", torch.bfloat16):
        assert model.lm_head(torch.zeros(1, model.architecture.hidden_size)).dtype == torch.bfloat16
