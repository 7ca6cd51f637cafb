"""Choices and measures at values that are no number, infinite, all alike, or one rounding away from a whole number."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from firsthand import catalog
from firsthand.cli import main
from firsthand.errors import DataError, ModelError
from firsthand.interp.saes.sae_evaluation import SaeMeasures
from firsthand.message import Message, Reasoning, Text
from firsthand.model import Likelihood
from firsthand.patterns.best_of_n import best_of_n
from firsthand.patterns.tot import choose, expected
from firsthand.safety.redact import redact
from firsthand.stats.intervals import Interval
from firsthand.tools.calculator import evaluate, show
from firsthand.train.episodes import Episode, Graded
from firsthand.train.model_folder import save_model
from firsthand.train.recipes import dapo
from firsthand.train.toy_tasks.toy_models import toy_model
from opened_context import Opened, asks


def test_best_of_n_has_an_answer_wherever_a_proxy_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*values: float) -> str:
        given = iter(values)
        monkeypatch.setattr(catalog, "module_attribute", lambda *names: lambda task, answer: next(given))
        opened = Opened(["first", "second", "third"])
        task = asks(metadata={"proxy": "own"})
        return str(opened.run(lambda ctx: best_of_n(task, ctx, n=3)))

    assert chosen(-math.inf, -math.inf, -math.inf) == "first" and chosen(math.nan, -math.inf, -math.inf) == "second"
    assert chosen(math.nan, -1.0, math.nan) == "second" and chosen(-math.inf, 0.0, 0.0) == "second"
    with pytest.raises(DataError, match="the proxy is NaN for all 3 answers to task t"):
        chosen(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("floor(log(1000, 10))", "3"), ("ceil(log(125, 5))", "3"), ("floor(64**(1/3))", "4"), ("floor(2.5)", "2"),
        ("ceil(sqrt(2))", "2"), ("floor(sqrt(10**12 - 1))", "999999"), ("ceil(sqrt(10**12 + 1))", "1000001"),
        ("floor((10**24)**(1/3))", "100000000"), ("floor(0.9999999999999999)", "0"), ("floor(-log(1000, 10))", "-3"),
        ("floor(sqrt(2) * 10**14)", "141421356237309"), ("floor(4 - sqrt(2)/10**14)", "3"),
        ("log(1000, 10) // 1", "3"), ("log(1000, 10) % 1", "0"), ("log(10**6, 10) // log(10, 10)", "6"), ("-7 // 2", "-4"),
        ("sqrt(2)*sqrt(2) // 1", "2"), ("sqrt(2)*sqrt(2) % 1", "0"), ("-log(1000, 10) // 1", "-3"), ("-7 % 3", "2"),
        ("sqrt(10) // 1", "3"), ("sqrt(10) % 3", "0.162277660168"), ("7.5 // 2", "3"), ("7.5 % 2", "1.5"),
        ("-sqrt(10) // 1", "-4"), ("sqrt(4.41) % 0.1", "0"), ("-sqrt(10) % 3", "2.83772233983"), ("sqrt(2)*10**17 % 7", "1"),
    ],
)  # fmt: skip
def test_floor_and_ceil_pass_over_what_rounding_left(expression: str, value: str) -> None:
    assert show(evaluate(expression)) == value


def test_loss_recovered_is_undefined_where_zeros_change_nothing() -> None:
    found = SaeMeasures(10, 2.0, 2.5, 2.0, Interval(0.5, 0.2, 0.7, 3, "t"), 0.1, 3.0, 0.2, 0.8, torch.ones(2))
    assert math.isnan(found.loss_recovered) and found.to_json()["loss_recovered"] is None
    assert replace(found, with_zeros=4.0).to_json()["loss_recovered"] == 0.75


def test_a_verdict_of_no_probability_is_an_error_and_no_value() -> None:
    labels = {"sure": 20.0, "impossible": 0.0}
    for logprob in (-math.inf, math.nan):
        with pytest.raises(ModelError):
            expected([Likelihood(label, logprob, 1, False) for label in labels], labels)
    likely = [Likelihood("sure", math.log(0.3), 1, False), Likelihood("impossible", math.log(0.1), 1, False)]
    assert expected(likely, labels) == pytest.approx(15)


def test_states_without_a_number_are_kept_last_and_infinite_ones_first() -> None:
    assert choose([math.nan, 5.0, 1.0], 2, "greedy", Random(0)) == [1, 2]
    assert choose([5.0, math.nan], 2, "sample", Random(0)) == [0, 1]
    assert choose([5.0, math.inf], 1, "sample", Random(0)) == [1]
    assert choose([0.0, 5.0], 3, "sample", Random(0)) == [1, 1, 1]


def test_reasoning_is_redacted_wherever_its_text_is() -> None:
    def after(text: str, state: dict[str, str]) -> object:
        verdict = redact(pattern=r"sk-\w+").prompt(None, (Message("assistant", (Reasoning(text, state), Text("a"))),))  # type: ignore[arg-type]
        return verdict.value[0].parts[0] if verdict.action == "replace" else None

    assert after("key sk-1", {}) == Reasoning("key [redacted]", {})
    assert after("key sk-1", {"sealed": "x"}) == Reasoning("key [redacted]", {"sealed": "x"})
    assert after("key sk-1", {"thinking": "key sk-1"}) == Reasoning("key [redacted]", {})
    assert after("no key", {"sealed": "x"}) is None


def episode(*turns: int, reward: float) -> Episode:
    """Turns of so many sampled tokens, with others before each."""
    mask = np.concatenate([np.r_[np.zeros(3), np.full(turn, 0.5)] for turn in turns])
    zeros = np.zeros(len(mask))
    return Episode(np.ones(len(mask), np.int32), mask, zeros, zeros, reward, "t", str(turns))


def test_the_longest_answer_of_a_rollout_is_compared_with_the_limit() -> None:
    assert [episode(*turns, reward=0.0).longest for turns in ((5,), (2, 7, 3), (9, 1))] == [5, 7, 9]
    none = replace(episode(5, reward=0.0), mask=np.zeros(8))
    assert none.longest == 0
    config = dapo.Config("x", overlong_buffer=32)
    config = replace(config, rollouts=replace(config.rollouts, max_tokens=128))
    episodes = (episode(60, reward=0.0), episode(60, 60, 60, reward=0.9), episode(127, reward=0.9))
    advantages = [
        float(np.abs(each.advantage).max() * np.sign(each.advantage.sum()))  # type: ignore[union-attr, arg-type]
        for each in dapo.streams(Graded(episodes, {}), None, config)
    ]  # type: ignore[arg-type]
    assert advantages[1] > 0 > advantages[2] and advantages[0] < 0


def test_a_reward_model_is_not_trained_on_answers_that_are_judged_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = toy_model(list("abcdefghijklmnopqrstuvwxyz "), seed=0, context=64)
    save_model(model, tokenizer, tmp_path / "m")
    pairs = [{"prompt": f"q {letter}", "chosen": " a", "rejected": " b"} for letter in "abcdefgh"]
    rows = [*pairs, {"prompt": "q z", "completion": " a", "label": True}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["train", "reward", str(tmp_path / "d.jsonl"), "--model", str(tmp_path / "m"), "--steps", "1"]
    assert main([*line, "--out", str(tmp_path / "out")]) != 0
    assert "has an answer that is judged alone, which this recipe does not take" in capsys.readouterr().err
