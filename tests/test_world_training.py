"""Worlds as tasks of reinforcement learning: rewards flow, and a small model learns from its own attempts."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.cli import main
from firsthand.errors import ConfigError, TrainingError
from firsthand.train.advantages import group_advantages
from firsthand.train.recipes import toy_player
from firsthand.train.training_run import read_metrics
from firsthand.worlds.browsing.chromium import BROWSERS
from firsthand.worlds.players import play
from namespaces import WHY_NOT

WORLDS = (
    "agentbench_kg:level=1:rounds=3", "agentbench_hh:level=1:rounds=9", "agentbench_ws:level=1:rounds=4",
    "agentbench_dcg:split=dev", "office:level=1",
)  # fmt: skip
SHARED = Path(os.environ.get("FIRSTHAND_DATA", ""))
REAL = (
    "agentbench_db:split=dev", pytest.param("agentbench_os:split=dev", marks=pytest.mark.slow),
    "agentbench_ltp:split=dev", "tau_retail", "tau_airline",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_first_score_of_a_world_is_a_reward_that_tells_players_apart(name: str):
    told_apart(name)


def told_apart(name: str) -> None:
    """Check that the optimal player's reward is 1 and idleness's 0, and that their advantages have these signs."""
    benchmark = catalog.benchmark(name)
    task = next(task for task in benchmark.tasks(0) if task.metadata.get("wanted") != "nothing")
    traces = [asyncio.run(play(benchmark, task, player)) for player in ("optimal", "idle")]
    rewards = [trace.attempt_scores[0].value for trace in traces]
    assert rewards == [1, 0]
    advantages = group_advantages(rewards, [trace.task_id for trace in traces])
    assert advantages[0] > 0 > advantages[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_first_score_of_a_world_of_real_items_is_such_a_reward_too(name: str):
    folder = SHARED / "agents" / ("tau_bench" if name.startswith("tau") else "agentbench")
    if not os.environ.get("FIRSTHAND_DATA") or not folder.is_dir():
        pytest.skip(f"the items of {name} are not here")
    if "_os" in name and WHY_NOT is not None:
        pytest.skip(WHY_NOT)
    told_apart(name)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="chromium is not installed")
def test_the_first_score_of_a_world_in_a_browser_is_such_a_reward_too():
    told_apart("agentbench_wb:level=1")


@pytest.mark.slow
def test_random_play_is_written_without_thoughts_and_cycles_through_the_tasks():
    benchmark = catalog.benchmark("agentbench_kg:level=1:about=book.book:rounds=2:tasks=2")
    played = asyncio.run(toy_player.random_play(benchmark, 3, seed=0))
    assert [len(messages) for messages in played] == [5, 5, 5]
    assert all(m.text.startswith("Action: get_") for messages in played for m in messages if m.role == "assistant")
    assert played[0][0] != played[1][0] and "books" not in played[0][2].text
    questions = catalog.benchmark("agentbench_kg:level=1:about=book.book:rounds=8:tasks=60")
    won = asyncio.run(toy_player.random_play(questions, 60, seed=0, won=True))
    assert 0 < len(won) < 20 and all("Final Answer" in messages[-2].text for messages in won)
    with pytest.raises(TrainingError, match="none of 3 attempts of the random player won"):
        asyncio.run(toy_player.random_play(benchmark, 3, seed=0, won=True))
    with pytest.raises(ConfigError, match="attempts is 0: expected 1 or more"):
        toy_player.Config("agentbench_kg", attempts=0)


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "player"
    words = ["--attempts", "12", "--steps", "12", "--batch-size", "4", "--warmup-steps", "0", "--out", str(folder)]
    assert main(["train", "toy_player", "agentbench_kg:level=1:about=book.book:rounds=2", *words]) == 0
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "more"), [("rejection", ()), ("grpo", ("--correct-to-model", "--kl", "0"))])
def test_a_model_from_fresh_weights_is_trained_by_the_rewards_of_its_own_actions(
    player: Path, tmp_path: Path, recipe: str, more: tuple[str, ...]
):
    words = [
        "--model", str(player), "--pattern", "thought_action:thought=false", "--max-tokens", "48", "--lr", "1e-3",
        "--steps", "2", "--prompts", "3", "--group-size", "3", "--out", str(tmp_path / recipe),
    ]  # fmt: skip
    assert main(["train", recipe, "agentbench_kg:level=1:about=book.book:rounds=3", *words, *more]) == 0
    rows = read_metrics(tmp_path / recipe)
    assert all(row["rollouts"] == 9 and row["rollouts_failed"] == 0 and 0 <= row["reward"] <= 1 for row in rows)
    assert all(row["answer_tokens"] > 5 for row in rows) and (tmp_path / recipe / "model").is_dir()
