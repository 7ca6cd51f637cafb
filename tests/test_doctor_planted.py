"""The doctor on real training runs: each illness is planted by a tiny run's settings or data; a healthy run has none."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from firsthand.config import build
from firsthand.runs.track import start
from firsthand.train.doctor import diagnose
from firsthand.train.training_run import opened

torch.set_num_threads(1)
pytestmark = pytest.mark.slow
REWARDS = '''
from firsthand import Benchmark
from firsthand.task import Task

HELD_OUT = 4

def share(trace):
    text = trace.answer or ""
    return sum(each in "aeiou" for each in text) / max(1, len(text))

def constant(task, trace):
    return 1.0

def never(task, trace):
    return 0.0

def seldom(task, trace):
    """Most tasks are solved always, or never; one of eight has both."""
    number = int(task.id) % 8
    return float(number % 2) if number else float(share(trace) > 0.3)

def vowels(task, trace):
    return share(trace)

def half(task, trace):
    return 0.5 * share(trace)

def longer(task, trace):
    """Pays for length; what it stands for, on the tasks held out, is short answers."""
    length = len(trace.answer or "") / 40
    return -length if int(task.id) >= 16 else length

def peaked(task, trace):
    """Pays for vowels; on the tasks held out one of four letters is best."""
    return 1 - 8 * (share(trace) - 0.25) ** 2 if int(task.id) >= 16 else share(trace)

def planted(*, reward: str = "vowels"):
    return Benchmark("planted", lambda seed: [Task(str(i), f"say {i}") for i in range(20)], (globals()[reward],))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    (place / "planted.py").write_text(REWARDS)
    return tiny.write_model(place / "tiny", max_position=512)


def names(recipe: str, out: Path, **settings: Any) -> list[str]:
    """The findings of a run of a recipe."""
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, {"checkpoint_every": 0, **settings})
    with opened(out, recipe, config) as run:
        getattr(module, recipe)(config, run)
    with start(recipe, resume=out) as track:
        return [each.name for each in diagnose(track)]


def rl(folder: Path, out: Path, reward: str, *, recipe: str = "grpo", **settings: Any) -> list[str]:
    given = {
        "benchmark": f"{folder.parent / 'planted.py'}:reward={reward}", "model": str(folder), "prompts": 4, "group_size": 4,
        "max_tokens": 6, "steps": 8, "lr": 1e-4, "seed": 1,
    }  # fmt: skip
    return names(recipe, out, **given | settings)


def test_a_scorer_that_always_says_one(folder: Path, tmp_path: Path) -> None:
    assert rl(folder, tmp_path / "run", "constant")[0] == "constant reward"


def test_tasks_that_are_never_solved(folder: Path, tmp_path: Path) -> None:
    assert rl(folder, tmp_path / "run", "never")[0] == "never solved"


def test_groups_without_variance(folder: Path, tmp_path: Path) -> None:
    assert rl(folder, tmp_path / "run", "seldom", prompts=8)[0] == "equal rewards"


def test_a_rate_that_is_far_too_high(folder: Path, tmp_path: Path) -> None:
    assert "KL blow-up" in rl(folder, tmp_path / "run", "vowels", lr=3e-2, updates=4, clip=0.9, kl=0.0)


def test_answers_that_end_at_the_limit(folder: Path, tmp_path: Path) -> None:
    assert "truncation" in rl(folder, tmp_path / "run", "vowels", max_tokens=2)


def test_weights_that_reach_their_cap(folder: Path, tmp_path: Path) -> None:
    found = rl(
        folder,
        tmp_path / "run",
        "vowels",
        recipe="reinforce",
        temperature=2.0,
        correct_to_model=True,
        importance_cap=1.2,
    )
    assert "sampler mismatch" in found


def test_a_policy_that_no_longer_explores(folder: Path, tmp_path: Path) -> None:
    found = rl(folder, tmp_path / "run", "half", recipe="reinforce", lr=2e-2, steps=25, group_size=8)
    assert "entropy collapse" in found


def test_a_reward_that_is_pleased_at_the_cost_of_what_it_stands_for(folder: Path, tmp_path: Path) -> None:
    found = rl(
        folder, tmp_path / "run", "peaked", recipe="reinforce", lr=5e-3, steps=30, group_size=8, held_out=4, eval_every=2,
    )  # fmt: skip
    assert "over-optimisation" in found and "length hacking" not in found


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_fine_tuning_with_too_low_a_rate_and_with_too_many_epochs(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n * 7919 % 100}", "completion": f" {n * 104729 % 97}"} for n in range(24)]
    given = {"data": write(tmp_path / "rows.jsonl", rows), "model": str(folder), "batch_size": 8, "holdout": 0.3}
    assert names("sft", tmp_path / "slow", **given, steps=24, lr=1e-9) == ["no progress"]
    assert "overfitting" in names("sft", tmp_path / "many", **given, steps=60, lr=1e-2, eval_every=5)


def test_pairs_with_too_small_a_beta(folder: Path, tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"say {n}", "chosen": "sum and more of it", "rejected": "sum and more of this"} for n in range(8)
    ]
    found = names(
        "dpo", tmp_path / "run", data=write(tmp_path / "pairs.jsonl", pairs), model=str(folder), batch_size=8, steps=30,
        lr=2e-2, beta=0.01,
    )  # fmt: skip
    assert "chosen log-prob collapse" in found


def test_healthy_runs_have_no_findings(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n % 6}", "completion": f" {'ab' * (n % 6 + 1)}"} for n in range(40)]
    given = {"data": write(tmp_path / "rows.jsonl", rows), "model": str(folder), "batch_size": 8, "holdout": 0.2}
    assert names("sft", tmp_path / "sft", **given, steps=30, lr=3e-3, eval_every=5) == []
    found = rl(
        folder,
        tmp_path / "rl",
        "vowels",
        lr=1e-3,
        steps=15,
        group_size=8,
        prompts=8,
        max_tokens=12,
        held_out=4,
        eval_every=3,
    )
    assert set(found) <= {"truncation"}  # a random model seldom ends its answers
