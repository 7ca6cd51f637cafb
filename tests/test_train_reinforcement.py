"""RL recipes from end to end: rollouts of our engine, streams of each algorithm, and a gradient step that helps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from firsthand.config import build
from firsthand.nn import weights
from firsthand.train.training_run import opened, read_metrics

torch.set_num_threads(1)
BENCHMARK = '''
import math
from firsthand import Benchmark
from firsthand.task import Task

def vowels(task, trace):
    """Share of vowels in the answer."""
    text = trace.answer or ""
    return sum(each in "aeiou" for each in text) / max(1, len(text))

def constant(task, trace):
    return 1.0

def broken(task, trace):
    return math.nan if task.id == "0" else 1 / 0

def own(*, reward: str = "vowels"):
    scorer = {"vowels": vowels, "constant": constant, "broken": broken}[reward]
    return Benchmark("own", lambda seed: [Task(str(i), f"say {i}") for i in range(6)], (scorer,))
'''
ALGORITHMS = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce", "ppo", "rejection"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "own.py").write_text(BENCHMARK)
    return tiny.write_model(place / "tiny", max_position=128)


def train(
    recipe: str, folder: Path, out: Path, *, reward: str = "vowels", resume: bool = False, **settings: Any
) -> list[dict]:
    """Run a recipe; returns its metrics."""
    module = __import__(f"firsthand.train.recipes.{recipe}", fromlist=["Config"])
    values = {
        "benchmark": f"{folder.parent / 'own.py'}:reward={reward}", "model": str(folder), "prompts": 2, "group_size": 4,
        "max_tokens": 5, "steps": 2, "lr": 1e-3, "checkpoint_every": 0, **settings,
    }  # fmt: skip
    config = build(module.Config, values)
    with opened(out, recipe, config, resume=resume) as run:
        getattr(module, recipe)(config, run)
    return read_metrics(out / "metrics.jsonl")


@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_every_algorithm_makes_steps_on_the_log_probs_that_were_sampled(
    recipe: str, folder: Path, tmp_path: Path
) -> None:
    rows = train(recipe, folder, tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    before, after = weights.load(folder), weights.load(tmp_path / "run" / "model")
    assert not torch.equal(before.embed.weight, after.embed.weight)
    for row in rows:
        assert math.isfinite(row["loss"]) and 0 <= row["reward"] <= 1 and row["answer_tokens"] <= 5
        assert recipe == "rejection" or row["sampler_gap"] < 1e-4
