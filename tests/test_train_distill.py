"""Distillation: the divergences are those of the papers, and a student comes near its teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.train.losses.distillation import forward_kl, generalised_jsd, reverse_kl
from firsthand.train.objective import Objective
from firsthand.train.training_run import read_metrics

Cli = Callable[..., tuple[int, str, str]]
P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
"""The teacher's distribution."""
Q = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
"""The student's."""


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))


def test_the_divergences_are_those_of_two_known_distributions() -> None:
    student, teacher = Q.log()[None] + 3.0, P.log()[None] - 1.0  # logits have a free constant
    assert float(forward_kl(student, teacher)) == pytest.approx(kl(P, Q), abs=1e-12)
    assert float(reverse_kl(student, teacher)) == pytest.approx(kl(Q, P), abs=1e-12)
    mix = 0.3 * P + 0.7 * Q
    expected = 0.3 * kl(P, mix) + 0.7 * kl(Q, mix)
    assert float(generalised_jsd(student, teacher, beta=0.3)) == pytest.approx(expected, abs=1e-12)
    softened = [torch.softmax(each.log() / 2, -1) for each in (P, Q)]
    assert float(forward_kl(student, teacher, temperature=2.0)) == pytest.approx(4 * kl(*softened), abs=1e-12)
    assert float(reverse_kl(student, teacher, temperature=2.0)) == pytest.approx(4 * kl(*softened[::-1]), abs=1e-12)
    mix = 0.3 * softened[0] + 0.7 * softened[1]
    expected = 4 * (0.3 * kl(softened[0], mix) + 0.7 * kl(softened[1], mix))
    assert float(generalised_jsd(student, teacher, beta=0.3, temperature=2.0)) == pytest.approx(expected, abs=1e-12)
    even = (P + Q) / 2
    found = generalised_jsd(torch.cat([student, teacher]), torch.cat([teacher, teacher]))
    assert found.tolist() == pytest.approx([(kl(P, even) + kl(Q, even)) / 2, 0.0], abs=1e-12), "one number per token"


def test_the_gradient_of_the_forward_divergence_is_student_less_teacher() -> None:
    student = Q.log()[None].clone().requires_grad_()
    forward_kl(student, P.log()[None]).sum().backward()
    assert torch.allclose(student.grad[0], Q - P, atol=1e-12)


def test_the_teacher_gets_no_gradient_and_equal_distributions_have_none() -> None:
    teacher = P.log()[None].clone().requires_grad_()
    for function in (forward_kl, reverse_kl, generalised_jsd):
        student = P.log()[None].clone().requires_grad_()
        loss = function(student, teacher)
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
        loss.sum().backward()
        assert teacher.grad is None and student.grad.abs().max() < 1e-12


def test_jsd_lies_between_the_two_divergences() -> None:
    """Agarwal et al.: divided by beta it tends to forward KL for beta to 0, and by 1 - beta to reverse KL for beta to 1."""
    student, teacher = Q.log()[None], P.log()[None]
    assert float(generalised_jsd(student, teacher, beta=1e-6)) / 1e-6 == pytest.approx(kl(P, Q), rel=1e-4)
    assert float(generalised_jsd(student, teacher, beta=1 - 1e-6)) / 1e-6 == pytest.approx(kl(Q, P), rel=1e-4)


def test_an_objective_with_soft_targets_needs_their_loss() -> None:
    with pytest.raises(ConfigError, match="soft_loss"):
        Objective(soft=1.0)


SHAPE = ("model.layers=1", "model.heads=2", "model.context=48", "--batch-tokens", "256", "--lr", "3e-3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that was trained a little on a text, and a fresh student with its tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    text = folder / "text.txt"
    text.write_text("one two three four five six seven eight nine ten " * 60)
    for name, size, steps in (("teacher", "48", "40"), ("student", "32", "1")):
        words = ("pretrain", str(text), "--out", str(folder / name), "--steps", steps, "--vocab-size", "280")
        assert main(["train", *words, f"model.hidden_size={size}", *SHAPE]) == 0
    lines = [
        {"messages": [{"role": "user", "content": f"go {n}"}, {"role": "assistant", "content": "one two three four"}]}
        for n in range(12)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["forward", pytest.param("jsd", marks=pytest.mark.slow)])
def test_a_student_comes_near_its_teacher(models: Path, cli: Cli, divergence: str) -> None:
    out = models / divergence
    words = ("--teacher", str(models / "teacher" / "model"), "--model", str(models / "student" / "model"))
    code, _, err = cli(
        "train", "distill", str(models / "chats.jsonl"), *words, "--out", str(out), "--steps", "40", "--eval-every", "20",
        "--batch-size", "4", "--holdout", "0.2", "--divergence", divergence, "--lr", "1e-2",
    )  # fmt: skip
    assert code == 0, err
    rows = read_metrics(out)
    divergences = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert divergences[-1] < 0.5 * rows[0]["soft"] and "ce" not in rows[0]
    assert (out / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_model_is_no_distance_from_itself(models: Path, cli: Cli) -> None:
    same = str(models / "teacher" / "model")
    out = models / "same"
    words = (
        "--teacher",
        same,
        "--model",
        same,
        "--out",
        str(out),
        "--steps",
        "1",
        "--holdout",
        "0",
        "--batch-size",
        "4",
    )
    code, _, err = cli("train", "distill", str(models / "chats.jsonl"), *words)
    assert code == 0, err
    assert abs(read_metrics(out)[0]["soft"]) < 1e-6


@pytest.mark.slow
def test_a_teacher_with_another_tokenizer_is_a_sentence(models: Path, cli: Cli) -> None:
    other = ("--out", str(models / "other"), "--steps", "1", "--vocab-size", "300", "model.hidden_size=32")
    code, _, err = cli("train", "pretrain", str(models / "text.txt"), *other, *SHAPE)
    assert code == 0, err
    words = ("--teacher", str(models / "other" / "model"), "--model", str(models / "student" / "model"))
    code, _, err = cli("train", "distill", str(models / "chats.jsonl"), *words, "--out", str(models / "no"))
    assert code == 2 and "different tokenizers" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [((), "teacher is ''"), (("--teacher", "x"), "model is ''"),
     (("--teacher", "x", "--model", "y", "--beta", "1"), "beta is 1.0"),
     (("--teacher", "x", "--model", "y", "--temperature", "0"), "temperature is 0.0"),
     (("--teacher", "x", "--model", "y", "--hard", "1"), "hard is 1.0")],
)  # fmt: skip
def test_impossible_settings_are_refused(cli: Cli, words: tuple[str, ...], says: str) -> None:
    code, _, err = cli("train", "distill", "chats.jsonl", *words)
    assert code == 2 and says in err
