"""Generated tasks for tiny models, and that reinforcement makes one of them think."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand.benchmarks.recurrence import last_state, recurrence, solution, states
from firsthand.benchmarks.toy_reviews import gold_reward, random_review, toy_reviews
from firsthand.config import build
from firsthand.errors import ConfigError
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.train.toy_tasks.toy_models import toy_model
from firsthand.train.training_run import opened, read_metrics
from thorough import THOROUGH


def answered(text: str | None) -> Trace:
    return Trace("t", "recurrence", "0", {"name": "a"}, 0, 0, "", 0.0, answer=text)


def test_the_states_of_a_row_by_hand() -> None:
    assert states("3314") == "3442" and solution("3314") == "3442:2"  # 3, 2*3+3, 2*4+1, 2*4+4, modulo 5
    for task in recurrence(tasks=50).tasks(1):
        state = 0
        for digit in task.prompt.removesuffix("=?"):
            state = (2 * state + int(digit)) % 5
        assert task.secret["answer"] == str(state)


def test_rows_are_distinct_and_equal_for_equal_seeds() -> None:
    tasks = recurrence(length=3, tasks=125).tasks(0)
    assert len({task.prompt for task in tasks}) == 125 and tasks == recurrence(length=3, tasks=125).tasks(0)
    assert tasks != recurrence(length=3, tasks=125).tasks(1)
    for options in ({"length": 0}, {"length": 65}, {"length": 1, "tasks": 6}, {"tasks": 0}):
        with pytest.raises(ConfigError):
            recurrence(**options)


def test_what_follows_the_last_colon_is_the_answer() -> None:
    task = Task("0", "3314=?", secret={"answer": "4"})
    right = [last_state(task, answered(text)) for text in ("4", "3424:4", " 4 ", "9:9:4")]
    assert [score.value for score in right] == [1, 1, 1, 1]
    assert [score.detail["stepwise"] for score in right] == [0, 1, 0, 1]
    assert [last_state(task, answered(text)).value for text in ("44", "4:3", "", None)] == [0, 0, 0, 0]


def test_the_gold_reward_counts_praise_blame_and_repetition() -> None:
    assert gold_reward(" good and fine but dull yet new") == 1
    assert gold_reward(" good and good and good") == 3 - 2 * 1.5
    assert gold_reward(" bad and bad") == -2 - 1.5 and gold_reward("") == 0 == gold_reward(" and but film")
    assert len({task.prompt for task in toy_reviews(tasks=12).tasks(0)}) == 12
    with pytest.raises(ConfigError):
        toy_reviews(tasks=0)


def test_a_toy_tokenizer_has_a_token_for_each_word() -> None:
    words = [" good", " and", " go", "the", " film"]
    model, tokenizer = toy_model(words, seed=0, context=32)
    ids = tokenizer.encode("the film good and go")
    assert len(ids) == 5 and tokenizer.decode(ids) == "the film good and go"
    assert tokenizer.vocab_size == model.architecture.vocab_size and tokenizer.eos_id == 0
    review = random_review(Random(0))
    assert 1 <= len(review.split()) <= 11


def trained(recipe: str, out: Path, **settings: Any) -> list[dict[str, float]]:
    module = importlib.import_module(f"firsthand.train.recipes.{recipe}")
    config = build(module.Config, {"checkpoint_every": 0, **settings})
    with opened(out, recipe, config) as run:
        getattr(module, recipe)(config, run)
    return read_metrics(out)


@pytest.mark.skipif(not THOROUGH, reason="FIRSTHAND_THOROUGH alone runs it: docs/reinforcement.md trains a smaller one")
@pytest.mark.slow
def test_a_small_reasoner_learns_to_write_its_steps_because_they_pay(tmp_path: Path) -> None:
    trained("toy_reasoner", tmp_path / "reasoner")
    rows = trained(
        "dr_grpo", tmp_path / "thinker", benchmark="recurrence", model=str(tmp_path / "reasoner" / "model"),
        max_tokens=14, lr=3e-4, steps=50, prompts=16, group_size=8, held_out=100, eval_every=49,
    )  # fmt: skip
    assert rows[0]["reward"] < 0.35 and rows[0]["answer_tokens"] < 3.5
    last = rows[-5:]
    assert sum(row["reward"] for row in last) / 5 > 0.85 and last[-1]["answer_tokens"] > 10
    assert rows[-1]["held_out_reward"] > 0.85 > 0.4 > rows[0]["held_out_reward"]
    assert max(row["sampler_gap"] for row in rows) < 1e-4
