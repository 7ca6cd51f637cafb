"""The doctor: each planted illness is named, and a healthy run is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from firsthand.cli import main
from firsthand.runs.track import Curve, start
from firsthand.train.doctor import CHECKS, examine

N = 50


def curve(name: str, values: Sequence[float] | Callable[[int], float], every: int = 1) -> Curve:
    steps = tuple(range(1, N + 1, every))
    found = tuple(float(values(step)) for step in steps) if callable(values) else tuple(map(float, values))
    return Curve(name, steps[: len(found)], found, (0.0,) * len(found))


def rl(**changed: Sequence[float] | Callable[[int], float]) -> dict[str, Curve]:
    """A run of RL that learns, with some curves replaced."""
    healthy: dict[str, Sequence[float] | Callable[[int], float]] = {
        "loss": lambda s: -0.01 * math.sin(s),
        "grad_norm": lambda s: 0.5 + 0.1 * math.sin(s),
        "reward": lambda s: 0.2 + 0.5 * s / N,
        "reward_std": lambda s: 0.4,
        "groups": lambda s: 8,
        "groups_of_equal_rewards": lambda s: 2,
        "rollouts": lambda s: 64,
        "rollouts_cut": lambda s: 1,
        "answer_tokens": lambda s: 10 + 10 * s / N,
        "approx_kl": lambda s: 0.004,
        "ref_kl": lambda s: 0.1 * s / N,
        "surprisal": lambda s: 0.6 - 0.3 * s / N,
        "held_out_reward": lambda s: 0.2 + 0.45 * s / N,
        "importance_capped": lambda s: 0.001,
    }
    return {name: curve(name, values) for name, values in (healthy | changed).items()}


def supervised(**changed: Sequence[float] | Callable[[int], float]) -> dict[str, Curve]:
    """A run of SFT or DPO that learns, with some curves replaced."""
    healthy: dict[str, Sequence[float] | Callable[[int], float]] = {
        "loss": lambda s: 1 + 2 * math.exp(-s / 10) + 0.02 * math.sin(s),
        "grad_norm": lambda s: 0.5 + 0.1 * math.sin(s),
        "lr": lambda s: 1e-3,
        "held_out_loss": lambda s: 1.1 + 2 * math.exp(-s / 10),
        "chosen_log_ratio": lambda s: -3 * s / N,
        "rejected_log_ratio": lambda s: -12 * s / N,
    }
    return {name: curve(name, values) for name, values in (healthy | changed).items()}


PLANTED = {
    "not finite": supervised(loss=lambda s: math.nan if s == 30 else 2 - s / N),
    "never solved": rl(reward=lambda s: 0, reward_std=lambda s: 0, groups_of_equal_rewards=lambda s: 8),
    "constant reward": rl(reward=lambda s: 1, reward_std=lambda s: 0, groups_of_equal_rewards=lambda s: 8),
    "equal rewards": rl(groups_of_equal_rewards=lambda s: 7),
    "KL blow-up": rl(approx_kl=lambda s: 0.3 if s == 40 else 0.01),
    "entropy collapse": rl(surprisal=lambda s: 0.6 * math.exp(-s / 8)),
    "truncation": rl(rollouts_cut=lambda s: 64 * min(1, s / N)),
    "length hacking": rl(answer_tokens=lambda s: 10 + s, held_out_reward=lambda s: 0.3 - 0.1 * s / N),
    "over-optimisation": rl(
        held_out_reward=lambda s: 0.2 + 0.5 * math.sin(math.pi * s / N), answer_tokens=lambda s: 10
    ),
    "chosen log-prob collapse": supervised(chosen_log_ratio=lambda s: -s / 2, rejected_log_ratio=lambda s: -s),
    "sampler mismatch": rl(importance_capped=lambda s: 0.1),
    "gradient spike": supervised(
        grad_norm=lambda s: 50 if s == 25 else 0.5, loss=lambda s: 1 + 2 * math.exp(-s / 10) + (1 if s > 25 else 0)
    ),
    "overfitting": supervised(held_out_loss=lambda s: 1.5 + abs(s - 20) / 20, loss=lambda s: 2 - s / N),
    "no progress": supervised(loss=lambda s: 3 + 0.05 * math.sin(s), held_out_loss=lambda s: 3),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_illness_is_the_first_that_is_named(name: str) -> None:
    found = examine(PLANTED[name])
    assert [each.name for each in found][:1] == [name]
    assert found[0].evidence and found[0].advice


@pytest.mark.parametrize("healthy", [rl(), supervised()], ids=["rl", "supervised"])
def test_a_healthy_run_is_not_suspected(healthy: dict[str, Curve]) -> None:
    assert examine(healthy) == []


def test_each_check_has_its_planted_run() -> None:
    caught = {check for check in CHECKS for curves in PLANTED.values() if check(curves) is not None}
    assert caught == set(CHECKS)


@pytest.mark.parametrize(
    ("changed", "name", "is_named"),
    [
        ({"groups_of_equal_rewards": lambda s: 6.3}, "equal rewards", False),
        ({"groups_of_equal_rewards": lambda s: 6.5}, "equal rewards", True),
        ({"groups_of_equal_rewards": lambda s: 8, "reward": lambda s: 0.99}, "equal rewards", False),  # it is solved
        ({"rollouts_cut": lambda s: 12}, "truncation", False),
        ({"rollouts_cut": lambda s: 13}, "truncation", True),
        ({"approx_kl": lambda s: 0.099}, "KL blow-up", False),
        ({"approx_kl": lambda s: 0.101}, "KL blow-up", True),
        ({"ref_kl": lambda s: 0.49, "answer_tokens": lambda s: 20}, "KL blow-up", False),
        ({"ref_kl": lambda s: 0.51, "answer_tokens": lambda s: 20}, "KL blow-up", True),
        (
            {"surprisal": lambda s: 0.6 * math.exp(-s / 8), "reward": lambda s: 0.2 + 0.78 * s / N},
            "entropy collapse",
            False,
        ),
        ({"answer_tokens": lambda s: 10 + s}, "length hacking", False),  # the held-out reward rises too
    ],
)
def test_a_limit_is_where_it_says(changed: dict[str, Callable[[int], float]], name: str, is_named: bool) -> None:
    assert (name in [each.name for each in examine(rl(**changed))]) is is_named


def test_a_chosen_answer_may_lose_a_little() -> None:
    assert examine(supervised(chosen_log_ratio=lambda s: -14.9)) == []
    assert [each.name for each in examine(supervised(chosen_log_ratio=lambda s: -15.1))] == ["chosen log-prob collapse"]


def test_a_spike_that_the_loss_survives_is_none() -> None:
    assert examine(supervised(grad_norm=lambda s: 50 if s == 25 else 0.5)) == []


@pytest.mark.slow
def test_the_command_says_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    for name, curves in (("ill", PLANTED["overfitting"]), ("well", supervised())):
        with start(name) as track:
            for each in curves.values():
                for step, value in zip(each.steps, each.values, strict=True):
                    track.log({each.name: value}, step=step)
        code = main(["train", "doctor", "last"])
        out = capsys.readouterr().out
        assert (code, "overfitting: " in out, "finds nothing" in out) == (
            (1, True, False) if name == "ill" else (0, False, True)
        )
    with start("empty"):
        pass
    assert main(["train", "doctor", "last"]) == 2
    assert "has no metrics" in capsys.readouterr().err


def test_a_run_of_four_steps_is_too_short() -> None:
    assert [each.name for each in examine({"loss": curve("loss", [1, 1, 1, 1])})] == ["too short"]
    assert [each.name for each in examine({})] == ["too short"]
